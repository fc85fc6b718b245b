"""Steering a run while it goes on: scale, pause, resume, drain; what it does, and what each says when it cannot."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from conveyor import asking, sockets
from conveyor.cli import main
from conveyor.errors import ControlError
from conveyor.snapshot import Phase, Role, RunStatistics, Scaling
from support.commands import command, environment
from support.runs import WORKLOADS, Run, running
from support.scrapes import scrape
from support.waiting import wait_for

NOBODY = 65534
# What it needs is imported before: the interpreter may be where only root can read.
AS_NOBODY = f"""
import os, sys
from conveyor import asking, cli, steering
os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
sys.exit(cli.main())
"""
COMMANDS = {"status": (), "scale": ("consumers=2",), "pause": (), "resume": (), "drain": ()}


def waiting(folder: Path, *arguments: str, consumers: str = "3") -> AbstractContextManager[Run]:
    """Start a run of a hundred tasks, each of which waits in its consumer until `release`."""
    return running(
        folder, f"{WORKLOADS}:large", f"folder={folder}", "size=10", "tasks=100", "--consumers", consumers, *arguments,
        CONVEYOR_METRICS="off",
    )  # fmt: skip


def in_tasks(run: Run, number: int) -> None:
    wait_for("consumers in their tasks", lambda: run.status().queue.in_progress == number)


def release(run: Run) -> int:
    (run.folder / "release").touch()
    return run.wait()


def consumers(run: RunStatistics) -> dict[str, str]:
    """Return what each consumer does, or whether it is finished, or down."""
    return {
        slot.name: slot.activity or ("finished" if slot.finished else "down")
        for slot in run.slots
        if slot.role is Role.CONSUMER
    }


def conveyor(run: Run, *words: str) -> str:
    """Run a command that does what it should; return what it prints."""
    done = command(run.folder, *words)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


# -- scale -------------------------------------------------------------------------------------------------


def test_those_that_are_too_many_leave_after_their_task(tmp_path: Path) -> None:
    with waiting(tmp_path) as run:
        in_tasks(run, 3)
        assert conveyor(run, "scale", "consumers=1") == "consumers: 3 -> 1\n"
        seen = run.status()
        assert consumers(seen) == {"consumer-1": "busy", "consumer-2": "stopping", "consumer-3": "stopping"}
        assert (seen.queue.in_progress, seen.desired[Role.CONSUMER], seen.consumers_most) == (3, 1, 1)
        assert release(run) == 0
        assert run.report["processed"] == 100
        assert run.report["deaths"] == []
        done = {worker["name"]: worker["processed"] for worker in run.report["workers"]}
        assert (done["consumer-2"], done["consumer-3"]) == (1, 1)


def test_idle_consumers_leave_at_once_and_come_back_lowest_number_first(tmp_path: Path) -> None:
    with idle(tmp_path) as run:
        assert run.ask("scale consumers=1") == "consumers: 3 -> 1"
        away = {"consumer-1": "idle", "consumer-2": "finished", "consumer-3": "finished"}
        wait_for("two to leave", lambda: consumers(run.status()) == away)
        assert run.ask("scale consumers=2") == "consumers: 1 -> 2"
        back = away | {"consumer-2": "idle"}
        wait_for("one to come back", lambda: consumers(run.status()) == back)
        assert run.ask("scale consumers=5") == "consumers: 2 -> 5"
        five = {f"consumer-{number}": "idle" for number in range(1, 6)}
        wait_for("five", lambda: consumers(run.status()) == five)
        assert run.ask("scale consumers=5") == "consumers: 5, as before"
        assert run.status().scalings == {Scaling.UP: 2, Scaling.DOWN: 1}
        assert all(slot.last_exit_code in (None, 0) for slot in run.status().slots)
        (tmp_path / "gate").touch()
        assert run.wait() == 0
        assert run.report["deaths"] == []
        assert sorted(map(int, run.lines())) == list(range(100))


@contextlib.contextmanager
def idle(folder: Path, *arguments: str) -> Iterator[Run]:
    """Start a run whose producer waits after ten tasks, which are done, until the gate is open."""
    with running(
        folder, f"{WORKLOADS}:numbers", f"folder={folder}", "gate_at=10", "--consumers", "3", *arguments,
        CONVEYOR_METRICS="off",
    ) as run:  # fmt: skip
        wait_for("ten tasks", lambda: run.status().total("processed") == 10)
        wait_for("idle consumers", lambda: set(consumers(run.status()).values()) == {"idle"})
        yield run


def test_one_that_is_wanted_again_before_it_has_left_is_replaced(tmp_path: Path) -> None:
    with waiting(tmp_path) as run:
        in_tasks(run, 3)
        before = {name: run.worker(name).pid for name in consumers(run.status())}
        run.ask("pause")  # so that the run is not over before they are
        run.ask("scale consumers=1")
        assert run.ask("scale consumers=3") == "consumers: 1 -> 3"
        (tmp_path / "release").touch()
        for name in ("consumer-2", "consumer-3"):
            wait_for("another process", functools.partial(is_replaced, run, name, before[name]))
        assert run.worker("consumer-1").pid == before["consumer-1"]
        run.ask("resume")
        assert run.wait() == 0
        assert (run.report["processed"], run.report["deaths"]) == (100, [])
        assert run.said().count("worker recycled") == 2


def is_replaced(run: Run, name: str, pid: int | None) -> bool:
    return run.worker(name).pid not in (None, pid)


def test_one_that_is_killed_on_its_way_out_does_not_come_back(tmp_path: Path) -> None:
    with waiting(tmp_path) as run:
        in_tasks(run, 3)
        run.ask("scale consumers=2")
        run.kill("consumer-3")
        wait_for("its end", lambda: consumers(run.status())["consumer-3"] == "finished")
        assert run.status().desired[Role.CONSUMER] == 2
        assert release(run) == 0
        assert [death["slot"] for death in run.report["deaths"]] == ["consumer-3"]
        assert (run.report["processed"], run.report["redelivered"]) == (100, 1)


def test_one_that_waits_to_be_restarted_can_be_scaled_away(tmp_path: Path) -> None:
    with idle(tmp_path) as run:
        killed: set[int | None] = {None}
        for _ in range(4):  # each death of an idle one doubles the wait for the next process
            wait_for("a process", lambda: run.worker("consumer-3").pid not in killed)
            wait_for("it to be ready", lambda: run.worker("consumer-3").activity == "idle")
            killed.add(run.kill("consumer-3"))
        wait_for("its death", lambda: consumers(run.status())["consumer-3"] == "down")
        run.ask("scale consumers=2")
        assert consumers(run.status())["consumer-3"] == "finished"
        (tmp_path / "gate").touch()
        assert run.wait() == 0
        assert len(run.report["deaths"]) == 4


def test_one_that_is_stopped_and_should_leave_is_killed(tmp_path: Path) -> None:
    with idle(tmp_path) as run:
        run.kill("consumer-3", signal.SIGSTOP)
        run.ask("scale consumers=2")
        wait_for("its end", lambda: consumers(run.status())["consumer-3"] == "finished")
        assert "worker does not leave" in run.said()
        (tmp_path / "gate").touch()
        assert run.wait() == 0
        assert sorted(map(int, run.lines())) == list(range(100))


def test_a_consumer_that_was_scaled_away_is_not_shown_as_down(tmp_path: Path) -> None:
    with idle(tmp_path, "--metrics", "127.0.0.1:0") as run:
        run.ask("scale consumers=1")
        wait_for("two to leave", lambda: run.status().live(Role.CONSUMER) == 1)
        url = wait_for("the URL", lambda: re.findall(r"url=(\S+)", run.said()))[0]
        shown = scrape(url)
        assert shown.workers("consumer") == ["consumer-1"]
        assert shown.sum("conveyor_workers_desired", role="consumer") == 1
        (tmp_path / "gate").touch()
        assert run.wait() == 0


@pytest.mark.parametrize("queue", ["joinable", "sentinel"])
@pytest.mark.parametrize("words", [("scale", "consumers=2"), ("pause",)])
def test_the_other_queues_refuse_what_they_cannot_do(tmp_path: Path, queue: str, words: tuple[str, ...]) -> None:
    with idle(tmp_path, "--queue", queue) as run:
        refused = command(tmp_path, *words)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert f"the queue {queue!r} cannot be" in refused.stderr
        assert "'leased'" in refused.stderr
        (tmp_path / "gate").touch()
        assert run.wait() == 0


# -- pause, resume, drain ----------------------------------------------------------------------------------


def test_a_paused_run_begins_nothing_and_goes_on_when_resumed(tmp_path: Path) -> None:
    with idle(tmp_path) as run:
        assert run.ask("resume") == "not paused: nothing to resume"
        assert conveyor(run, "pause") == "paused\n"
        assert run.ask("pause") == "paused, as before"
        (tmp_path / "gate").touch()
        wait_for("the producer's end", lambda: run.worker("producer-1").finished)
        seen = run.status()
        assert (seen.queue.is_paused, seen.queue.waiting, seen.total("processed")) == (True, 90, 10)
        assert "paused" in conveyor(run, "status").splitlines()[0]
        assert conveyor(run, "resume") == "resumed\n"
        assert run.wait() == 0
        assert sorted(map(int, run.lines())) == list(range(100))


def test_a_pause_lets_the_tasks_in_hand_end(tmp_path: Path) -> None:
    with waiting(tmp_path) as run:
        in_tasks(run, 3)
        run.ask("pause")
        (tmp_path / "release").touch()
        wait_for("nothing in hand", lambda: run.status().queue.in_progress == 0)
        assert run.status().total("processed") == 3
        assert run.ask("resume") == "resumed"
        assert run.wait() == 0


@pytest.mark.parametrize("how", ["drain", "SIGTERM"])
def test_draining_a_paused_run_resumes_it(tmp_path: Path, how: str) -> None:
    with idle(tmp_path) as run:
        run.ask("pause")
        if how == "drain":
            assert conveyor(run, "drain").startswith("draining: ")
        else:
            run.process.send_signal(signal.SIGTERM)
        assert run.wait() == 0
        assert (run.report["ending"], run.report["unfinished"]) == ("drained", 0)


def test_a_drain_waits_for_the_end_of_the_run_however_long_it_takes(tmp_path: Path) -> None:
    with waiting(tmp_path, "--drain-timeout", "0") as run:
        in_tasks(run, 3)
        with subprocess.Popen(
            [sys.executable, "-m", "conveyor", "drain"], stdout=subprocess.PIPE, text=True, env=environment(tmp_path)
        ) as drain:
            assert drain.stdout is not None
            assert drain.stdout.readline().startswith("draining: ")
            assert run.ask("drain").startswith("draining, as before")
            with pytest.raises(ControlError, match="cannot be paused any more"):
                run.ask("pause")
            assert drain.poll() is None
            assert release(run) == 0
            assert drain.wait(10) == 0
        assert run.report["ending"] == "drained"


def test_a_drain_need_not_be_waited_for(tmp_path: Path) -> None:
    with waiting(tmp_path) as run:
        in_tasks(run, 3)
        assert conveyor(run, "drain", "--no-wait").startswith("draining: ")
        assert run.process.poll() is None
        assert release(run) == 0


def test_a_sigterm_to_a_run_that_drains_gives_it_the_drain_timeout(tmp_path: Path) -> None:
    with waiting(tmp_path, "--drain-timeout", "0.1") as run:
        in_tasks(run, 3)
        run.ask("drain")
        run.process.send_signal(signal.SIGTERM)
        assert run.wait() == 4


# -- following the load ------------------------------------------------------------------------------------


def test_the_number_of_consumers_follows_the_load_up_and_down_and_settles(tmp_path: Path) -> None:
    with running(
        tmp_path, f"{WORKLOADS}:rush", f"folder={tmp_path}", "--consumers", "1..6", CONVEYOR_METRICS="off"
    ) as run:
        wait_for("all of them in the rush", lambda: run.status().live(Role.CONSUMER) == 6)
        (tmp_path / "gate").touch()  # from here on one consumer is enough
        wait_for("one of them after it", lambda: run.status().live(Role.CONSUMER) == 1, 60.0)
        seen = run.status()
        assert (seen.consumers_least, seen.consumers_most) == (1, 6)
        assert seen.scalings[Scaling.UP] <= 5
        assert seen.scalings[Scaling.DOWN] <= 5
        run.process.send_signal(signal.SIGTERM)
        assert run.wait() == 0
        assert run.report["produced"] == run.report["processed"]
        assert run.report["deaths"] == []


def test_bounds_can_be_given_to_a_run_that_had_a_number(tmp_path: Path) -> None:
    with waiting(tmp_path, consumers="1") as run:
        in_tasks(run, 1)
        assert conveyor(run, "scale", "consumers=1..3") == "consumers: 1, as before, within 1..3\n"
        wait_for("more", lambda: run.status().queue.in_progress == 3)
        assert conveyor(run, "scale", "consumers=2") == "consumers: 3 -> 2\n"
        assert release(run) == 0


# -- what cannot be done -----------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give this process a folder of control sockets of its own, and little patience."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(asking, "ANSWER_SECONDS", 0.2)
    folder = tmp_path / "conveyor"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture(params=COMMANDS)
def words(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return (request.param, *COMMANDS[request.param])


@pytest.mark.parametrize("choice", [(), ("--pid", "999999999")])
def test_each_command_says_that_there_is_no_run(
    folder: Path, words: tuple[str, ...], choice: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, *choice]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("conveyor: no run ")
    assert said.err.count("\n") == 1


def test_each_command_gives_up_on_a_run_that_hangs(tmp_path: Path, words: tuple[str, ...]) -> None:
    with waiting(tmp_path) as run:
        in_tasks(run, 3)
        run.process.send_signal(signal.SIGSTOP)
        given_up = command(tmp_path, *words)
        run.process.send_signal(signal.SIGCONT)
        assert run.status().queue.is_paused is False  # what was given up does not happen later
        assert (given_up.returncode, given_up.stdout) == (1, "")
        assert "does not answer within 5 s" in given_up.stderr
        assert given_up.stderr.count("\n") == 1
        assert (run.status().phase, run.status().live(Role.CONSUMER)) == (Phase.RUNNING, 3)
        assert release(run) == 0


def test_each_command_says_that_the_run_has_ended_meanwhile(
    folder: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with ending_when_asked(folder / f"{os.getpid()}.sock"):
        assert main([*words, "--pid", str(os.getpid())]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "closed the connection without an answer" in said.err or "reset by peer" in said.err
    assert said.err.count("\n") == 1


class ending_when_asked:  # noqa: N801 (used as a function is)
    """What looks like a run, and ends at the first request."""

    def __init__(self, path: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._end)

    def _end(self) -> None:
        client, _ = self._listener.accept()
        client.recv(100)
        client.close()

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._thread.join()
        self._listener.close()


@pytest.mark.parametrize("choice", [(), ("--pid",)], ids=["the only run", "by its pid"])
def test_each_command_is_refused_to_another_user(
    tmp_path: Path, words: tuple[str, ...], choice: tuple[str, ...]
) -> None:
    if os.getuid() != sockets.ROOT:
        pytest.skip("only root can be another user")
    with waiting(tmp_path) as run:
        in_tasks(run, 3)
        pid = (str(run.process.pid),) if choice else ()
        refused = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, *words, *choice, *pid],
            capture_output=True, text=True, env=environment(tmp_path), timeout=60,
        )  # fmt: skip
        assert (refused.returncode, refused.stdout) == (1, "")
        assert refused.stderr.count("\n") == 1
        assert ("another user's" if choice else "Permission denied") in refused.stderr
        assert run.status().queue.in_progress == 3
        assert release(run) == 0


@pytest.fixture
def process_of_another_user(tmp_path: Path) -> Iterator[int]:
    if os.getuid() != sockets.ROOT:
        pytest.skip("only root can be another user")
    with subprocess.Popen(
        ["sleep", "1000"], user=NOBODY, group=NOBODY, env={"XDG_RUNTIME_DIR": str(tmp_path / "theirs")}
    ) as process:
        wait_for("its environment", lambda: Path(f"/proc/{process.pid}/environ").read_bytes())
        yield process.pid
        process.kill()


def test_root_finds_the_socket_of_another_users_run(tmp_path: Path, process_of_another_user: int) -> None:
    theirs = tmp_path / "theirs" / "conveyor"
    theirs.mkdir(parents=True, mode=0o700)
    with pytest.raises(PermissionError, match="belongs to another user"):
        sockets.of_run(process_of_another_user)
    os.chown(theirs, NOBODY, NOBODY)
    assert sockets.of_run(process_of_another_user) == theirs / f"{process_of_another_user}.sock"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("scale",), "the following arguments are required: consumers=N|MIN..MAX"),
        (("scale", "consumers"), "'consumers' is not allowed; give consumers= and a whole number from 1 to 1000"),
        (("scale", "consumers=0"), "'consumers=0' is not allowed"),
        (("scale", "consumers=many"), "'consumers=many' is not allowed"),
        (("scale", "consumers=5..2"), "'consumers=5..2' is not allowed"),
        (("scale", "producers=2"), "'producers=2' is not allowed; give consumers=N or consumers=MIN..MAX"),
        (("scale", "consumers=2", "more"), "unknown argument more"),
        (("pause", "--now"), "unknown argument --now"),
        (("resume", "consumers=2"), "unknown argument consumers=2"),
        (("drain", "--pid", "x"), "invalid int value: 'x'"),
    ],
)
def test_wrong_words_are_told_with_what_is_allowed(
    folder: Path, words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("request_", ["scale", "scale consumers=0", "scale consumers=2 now", "pause now", "status all"])
def test_wrong_words_on_the_socket_change_nothing(tmp_path: Path, request_: str) -> None:
    with waiting(tmp_path) as run:
        in_tasks(run, 3)
        answer = raw(tmp_path / "conveyor" / f"{run.process.pid}.sock", request_)
        assert '"exit_code": 2' in answer
        assert "is not allowed" in answer
        assert (run.status().live(Role.CONSUMER), run.status().queue.is_paused) == (3, False)
        assert release(run) == 0


def raw(path: Path, request: str) -> str:
    with socket.socket(socket.AF_UNIX) as client, client.makefile() as stream:
        client.settimeout(10)
        client.connect(str(path))
        client.sendall(request.encode() + b"\n")
        return stream.readline()
