"""A run and the processes that a program starts itself leave each other alone."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from support.programs import output_of, processes, program, script
from support.waiting import wait_for

HEAD = """
    import multiprocessing, os, signal, subprocess, sys, time
    import conveyor
    from conveyor import Pipeline, Producer

    def double(n):
        return 2 * n

    def forever():
        while True:
            time.sleep(0.01)
            yield 0

    def nothing():
        time.sleep(60)
"""


def said(text: str, folder: Path) -> str:
    """Return what a program of this text prints. It ends well."""
    code, output, errors = output_of(HEAD + text, folder)
    assert code == 0, errors
    return output.strip()


def test_a_run_leaves_the_fork_server_of_multiprocessing_to_the_program(tmp_path: Path) -> None:
    text = """
    if __name__ == "__main__":
        list(conveyor.imap_unordered(double, [1], consumers=1))
        context = multiprocessing.get_context("forkserver")
        process = context.Process(target=nothing)
        process.start()
        process.terminate()
        process.join()
        with context.Pool(2) as pool:
            print(process.exitcode, pool.map(double, [1, 2]))
    """
    assert said(text, tmp_path) == f"{-signal.SIGTERM} [2, 4]"


def test_a_run_does_not_choose_the_start_method_of_the_program(tmp_path: Path) -> None:
    text = """
    if __name__ == "__main__":
        list(conveyor.imap_unordered(double, [1], consumers=1))
        multiprocessing.set_start_method("spawn")
        print(multiprocessing.get_start_method(), multiprocessing.active_children())
    """
    assert said(text, tmp_path) == "spawn []"


def test_a_run_works_in_a_process_that_was_forked_after_a_run(tmp_path: Path) -> None:
    text = """
    if __name__ == "__main__":
        print(sum(conveyor.imap_unordered(double, range(5), consumers=1)), flush=True)
        pid = os.fork()
        if pid == 0:
            print(sum(conveyor.imap_unordered(double, range(6), consumers=1)), flush=True)
            sys.exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    """
    assert said(text, tmp_path).split() == ["20", "30", "0"]


def test_a_run_works_in_a_worker_of_a_pool_which_may_have_no_children_of_its_own(tmp_path: Path) -> None:
    text = """
    def summed(n):
        return sum(conveyor.imap_unordered(double, range(n), consumers=1))

    if __name__ == "__main__":
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            print(pool.map(summed, [5]))
    """
    assert said(text, tmp_path) == "[20]"


def others(mark: str) -> list[list[str]]:
    """Return the command lines of all processes but the helper and the tracker of shared memory, which it keeps."""
    found = (one.cmdline() for one in processes(mark) if one.name() != "helper")
    return [line for line in found if "resource_tracker" not in " ".join(line)]


def test_a_helper_that_the_program_forks_keeps_nobody_alive(tmp_path: Path) -> None:
    """Nor does it hold the spool, the port and the control socket of a run that was killed."""
    text = """
    def work(n):
        if n == 0:
            print("ready", flush=True)

    def helper(pid):
        if os.fork() == 0:
            with open("/proc/self/comm", "w") as name:
                name.write("helper")
            time.sleep(60)
            os._exit(0)

    if __name__ == "__main__":
        import threading
        threading.Timer(1.0, helper, (os.getpid(),)).start()
        Pipeline(producers=[Producer(forever)], consumer=work, consumers=2).run(spool="spool", metrics="127.0.0.1:0")
    """
    with script(HEAD + text, tmp_path) as (process, mark):
        helper = wait_for("the helper", lambda: [one for one in processes(mark) if one.name() == "helper"])
        process.kill()
        process.wait()
        wait_for("the workers to be gone", lambda: others(mark) == [])
        held = {str(path.readlink()) for path in Path(f"/proc/{helper[0].pid}/fd").iterdir()}
        assert not [name for name in held if name.endswith("/lock")]
        listening = {socket.laddr for socket in helper[0].net_connections("all") if socket.status == "LISTEN"}
        assert listening == set()


def test_a_worker_runs_the_code_of_its_run_and_not_of_one_before(tmp_path: Path) -> None:
    text = """
    if __name__ == "__main__":
        import importlib, pathlib
        sys.dont_write_bytecode = True
        module = pathlib.Path("mine.py")
        for answer in ("old", "new"):
            module.write_text(f"def work(n): return {answer!r}")
            mine = importlib.reload(mine) if "mine" in sys.modules else importlib.import_module("mine")
            print(*conveyor.imap_unordered(mine.work, [1], consumers=1))
    """
    assert said(text, tmp_path).split() == ["old", "new"]


def test_a_worker_has_the_limits_of_its_run_and_not_of_one_before(tmp_path: Path) -> None:
    text = """
    import resource

    def limits(n):
        umask = os.umask(0)
        return umask, os.nice(0), resource.getrlimit(resource.RLIMIT_CORE)[0], len(os.sched_getaffinity(0))

    if __name__ == "__main__":
        list(conveyor.imap_unordered(limits, [1], consumers=1))
        os.umask(0o27)
        os.nice(3)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
        print(*conveyor.imap_unordered(limits, [1], consumers=1))
    """
    assert said(text, tmp_path) == str((0o27, 3 + os.nice(0), 0, 1))


def test_a_program_that_a_task_starts_is_interrupted_by_sigint(tmp_path: Path) -> None:
    text = """
    def interrupt(n):
        with subprocess.Popen(["sleep", "60"]) as sleeping:
            sleeping.send_signal(signal.SIGINT)
            return sleeping.wait()

    if __name__ == "__main__":
        print(*conveyor.imap_unordered(interrupt, [1], consumers=1))
    """
    assert said(text, tmp_path) == str(-signal.SIGINT)


def test_a_script_that_starts_a_run_without_looking_whether_it_is_the_main_one_is_told_so(tmp_path: Path) -> None:
    code, _, errors = output_of(HEAD + "    print(*conveyor.imap_unordered(double, [1], consumers=1))", tmp_path)
    assert code == 1
    assert '`if __name__ == "__main__":`' in errors


def test_nothing_stays_of_a_run(tmp_path: Path) -> None:
    """Descriptors, threads, shared memory, processes and files are after many runs what they were after two."""
    counted = json.loads(said(LEAKS.replace("CALLS", os.environ.get("LEAK_CALLS", "4")), tmp_path).splitlines()[-1])
    assert {name for name, (after_two, at_the_end) in counted.items() if after_two != at_the_end} == set(), counted


LEAKS = """
    import gc, json, logging, tempfile, threading
    import psutil

    def three_fails(n):
        if n == 3:
            raise ValueError("three")
        return n

    def count(n):
        yield from range(n)

    def pipeline(queue="leased"):
        return Pipeline(producers=[Producer(count, 50)], consumer=double, consumers=2, queue=queue)

    def broken_off():
        for _ in conveyor.imap_unordered(double, range(100_000), consumers=2):
            break

    def raising():
        for _ in conveyor.imap_unordered(three_fails, range(10), consumers=2):
            pass

    def run_that_raises():
        try:
            raising()
        except ValueError:
            pass

    CASES = {
        "run": lambda: pipeline().run(),
        "run joinable": lambda: pipeline("joinable").run(),
        "results": lambda: list(pipeline().results()),
        "imap to the end": lambda: sum(conveyor.imap_unordered(double, [1, 2], consumers=1)),
        "imap broken off": broken_off,
        "imap that raises": run_that_raises,
    }

    def state():
        opened = [os.readlink(entry) for entry in os.scandir("/proc/self/fd") if os.path.islink(entry)]
        with open("/proc/self/maps") as maps:
            shared = sum("memfd" in line or "/dev/shm" in line for line in maps)
        children = len(psutil.Process().children(recursive=True))
        return [len(opened), shared, threading.active_count(), children, sorted(os.listdir(tempfile.gettempdir()))]

    if __name__ == "__main__":
        logging.getLogger("conveyor").addHandler(logging.NullHandler())
        gc.disable()  # what stays until a collection of garbage stays too long
        states = {}
        for name, case in CASES.items():
            for n in range(CALLS):
                case()
                if n == 1:
                    after_two = state()
            states[name] = after_two, state()
        print(json.dumps(states))
"""


def test_a_fork_in_the_middle_of_results_reads_none_and_says_why(tmp_path: Path) -> None:
    text = """
    if __name__ == "__main__":
        results = conveyor.imap_unordered(double, range(2000), consumers=1)
        first = next(results)
        pid = os.fork()
        if pid == 0:
            try:
                list(results)
            except conveyor.RunBrokenError as error:
                os._exit(7 if "forked" in str(error) else 8)
            os._exit(9)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(code, first + sum(results))
    """
    assert said(text, tmp_path) == f"7 {sum(2 * n for n in range(2000))}"


def test_results_that_are_closed_are_at_their_end(tmp_path: Path) -> None:
    text = """
    if __name__ == "__main__":
        results = conveyor.imap_unordered(double, range(3000), consumers=1)
        next(results)
        results.close()
        print(next(results, "end"))
    """
    assert said(text, tmp_path) == "end"


def test_a_file_of_the_users_takes_no_place_of_a_module_that_workers_need(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise ImportError('not for you')\n")
    (tmp_path / "selectors.py").write_text("raise ImportError('not for you')\n")
    (tmp_path / "mine.py").write_text(WORKLOAD)
    command = str(Path(sys.executable).with_name("conveyor"))  # `python -m conveyor` looks here first, as Python has it
    for method in ("forkserver", "spawn"):
        arguments = (command, "run", "mine.py", "--metrics", "off", "--start-method", method)
        with program(*arguments, cwd=tmp_path) as (process, _):
            assert process.wait(60) == 0


def test_a_workload_that_starts_a_run_when_it_is_imported_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(WORKLOAD + "\nworkload().run()\n")
    arguments = ("-m", "conveyor", "run", "mine.py", "--metrics", "off")
    with program(*arguments, cwd=tmp_path, errors=True) as (process, _):
        _, errors = process.communicate(timeout=60)
    assert "starts a run when a worker process imports it" in errors


def test_threads_that_a_task_has_left_behind_are_told_when_they_are_ended(tmp_path: Path) -> None:
    code, _, errors = output_of(
        HEAD
        + """
    import threading

    def leave_a_thread(n):
        threading.Thread(target=time.sleep, args=(60,)).start()

    def count():
        yield 1

    if __name__ == "__main__":
        Pipeline(producers=[Producer(count)], consumer=leave_a_thread, consumers=1).run()
    """,
        tmp_path,
    )
    assert code == 0
    assert "worker does not leave: killed" in errors


WORKLOAD = """
from conveyor import Pipeline, Producer

def count():
    yield from range(3)

def work(n):
    pass

def workload() -> Pipeline:
    return Pipeline(producers=[Producer(count)], consumer=work, consumers=1)
"""
