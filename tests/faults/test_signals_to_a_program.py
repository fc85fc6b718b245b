"""A program that is interrupted in `Pipeline.run`: it drains, and then the program is interrupted."""

from __future__ import annotations

import signal
import subprocess
import textwrap
from pathlib import Path

from support.programs import processes, program, script
from support.waiting import wait_for

THREE_RUNS = """
    import signal, sys, time
    from conveyor import Pipeline, Producer

    def count():
        for n in range(1_000_000):
            time.sleep(0.001)
            yield n

    def work(n):
        if n == 3:
            print("ready", flush=True)

    def on_sigterm(signum, frame):
        print("the program's own handler", flush=True)

    if __name__ == "__main__":
        if "handler" in sys.argv:
            signal.signal(signal.SIGTERM, on_sigterm)
        for n in range(3):
            print("run", n, flush=True)
            report = Pipeline(producers=[Producer(count)], consumer=work, consumers=1).run()
            print(report.ending, report.unfinished, flush=True)
            if "handler" in sys.argv:
                break
"""


def interrupted(folder: Path, number: signal.Signals, *arguments: str) -> tuple[int, str, str]:
    with script(THREE_RUNS, folder, *arguments) as (process, mark):
        seen = read_until(process, "ready")
        process.send_signal(number)
        output, errors = process.communicate(timeout=60)
        wait_for("all of its processes to be gone", lambda: not processes(mark))
    return process.returncode, seen + output, errors


def read_until(process: subprocess.Popen[str], word: str) -> str:
    assert process.stdout is not None
    seen = ""
    while word not in seen:
        line = process.stdout.readline()
        assert line, f"it has ended without saying {word}: {seen}"
        seen += line
    return seen


def test_ctrl_c_raises_after_the_drain_and_the_next_run_does_not_begin(tmp_path: Path) -> None:
    code, output, errors = interrupted(tmp_path, signal.SIGINT)
    assert code == -signal.SIGINT
    assert "run 1" not in output
    assert "draining" in errors
    assert errors.rstrip().endswith("KeyboardInterrupt")


def test_sigterm_ends_a_program_that_has_no_handler_after_the_drain(tmp_path: Path) -> None:
    code, output, errors = interrupted(tmp_path, signal.SIGTERM)
    assert code == -signal.SIGTERM
    assert "run 1" not in output
    assert "ending=drained" in errors


def test_sigterm_reaches_the_handler_of_the_program_after_the_drain_and_the_report_says_so(tmp_path: Path) -> None:
    code, output, _ = interrupted(tmp_path, signal.SIGTERM, "handler")
    assert code == 0
    assert output.splitlines()[-2:] == ["the program's own handler", "drained 0"]


def test_a_workload_that_takes_for_ever_to_import_can_be_stopped(tmp_path: Path) -> None:
    text = """
        import pathlib, time
        from conveyor import Pipeline, Producer

        seen = pathlib.Path("imported")
        if seen.exists():  # a second time: by the process that starts workers
            print("ready", flush=True)
            time.sleep(600)
        seen.touch()

        def work(n):
            pass

        def workload() -> Pipeline:
            return Pipeline(producers=[Producer(range, 5)], consumer=work, consumers=2)
    """
    (tmp_path / "slow.py").write_text(textwrap.dedent(text))
    arguments = ["-m", "conveyor", "run", "slow.py", "--metrics", "off", "--drain-timeout", "0.5"]
    with program(*arguments, cwd=tmp_path) as (process, mark):
        read_until(process, "ready")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        wait_for("all of its processes to be gone", lambda: not processes(mark))
