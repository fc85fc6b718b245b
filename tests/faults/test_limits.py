"""A run under the limits of its system: it works with what it gets, and says what it does not get."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from conveyor.asking import _ask
from conveyor.snapshot import Role, RunStatistics, from_plain
from support.commands import command, environment
from support.limits import few_files, few_processes
from support.runs import WORKLOADS
from support.waiting import wait_for

Limit = AbstractContextManager[Callable[[], None]]


class Limited:
    """A `conveyor run` under a limit."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._errors = folder / "stderr"
        self._socket = folder / "conveyor" / f"{process.pid}.sock"

    def status(self) -> RunStatistics:
        answer = _ask(self._socket, b"status")
        assert answer is not None
        return from_plain(answer)

    def said(self) -> str:
        return self._errors.read_text()

    def done(self) -> int:
        return self.status().total("processed")

    def end(self) -> tuple[int, str]:
        return self.process.wait(100), self.said()

    def stop(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGTERM)
        return self.end()


@contextlib.contextmanager
def limited(folder: Path, limit: Limit, *arguments: str) -> Iterator[Limited]:
    with (
        limit as enter,
        (folder / "stderr").open("wb") as errors,
        subprocess.Popen(
            [sys.executable, "-m", "conveyor", "run", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env=environment(folder),
            preexec_fn=enter,
            start_new_session=True,
        ) as process,
    ):
        try:
            yield Limited(folder, process)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


KITCHEN = ("kitchen", "rounds=3", "speed=50", "--consumers", "24", "--drain-timeout", "20")


@pytest.mark.parametrize(
    ("limit", "method"),
    [
        pytest.param(few_files(64), "forkserver", id="64 files"),
        pytest.param(few_files(96), "forkserver", id="96 files"),
        pytest.param(few_processes(8), "spawn", id="8 processes"),
    ],
)
def test_a_run_works_with_the_workers_that_it_gets(tmp_path: Path, limit: Limit, method: str) -> None:
    with limited(tmp_path, limit, *KITCHEN, "--start-method", method) as run:
        code, said = run.end()
        assert code == 0, said
        assert "worker not started" in said
        assert "produced=30 processed=30" in said
        assert "Traceback" not in said


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        pytest.param(few_files(24), "no consumer and no producer can be started: too few file", id="24 files"),
        pytest.param(few_processes(1), "can be started: cannot start a process", id="1 process"),
        pytest.param(few_processes(3), "can be started: cannot start a process", id="3 processes"),
    ],
)
def test_a_run_that_gets_nobody_ends_with_a_sentence(tmp_path: Path, limit: Limit, reason: str) -> None:
    with limited(tmp_path, limit, *KITCHEN, "--start-method", "spawn") as run:
        code, said = run.end()
        assert code == 3, said
        assert reason in said
        assert "Traceback" not in said


def test_the_soft_limit_of_open_files_is_raised_to_what_is_needed(tmp_path: Path) -> None:
    with limited(tmp_path, few_files(64, hard=4096), *KITCHEN) as run:
        code, said = run.end()
        assert code == 0
        assert "not started" not in said


def test_scaling_to_more_than_the_system_gives_is_answered_and_ends_nothing(tmp_path: Path) -> None:
    with limited(tmp_path, few_files(64), "kitchen", "rounds=0", "speed=50") as run:
        wait_for("a first task", run.done)
        told = command(tmp_path, "scale", "consumers=40")
        assert told.returncode == 0
        assert "consumers: 2 -> 40; " in told.stdout
        why = "cannot be started now, and are tried again: too few file descriptors are left"
        wait_for("an answer that says why", lambda: why in told.stdout or why in scaled(tmp_path, 41, 40))
        before = run.done()
        wait_for("more tasks", lambda: run.done() > before)
        assert command(tmp_path, "scale", "consumers=1").returncode == 0
        wait_for("one consumer", lambda: run.status().live(Role.CONSUMER) == 1)
        code, said = run.stop()
        assert code == 0, said


def scaled(folder: Path, *numbers: int) -> str:
    """Scale to one number after the other; return what is answered."""
    return "".join(command(folder, "scale", f"consumers={number}").stdout for number in numbers)


def test_bounds_that_the_system_cannot_fill_end_nothing(tmp_path: Path) -> None:
    workload = f"{WORKLOADS}:rush"
    with limited(tmp_path, few_files(48), workload, f"folder={tmp_path}", "--consumers", "1..60") as run:
        wait_for("more than there is room for", lambda: "worker not started" in run.said())
        before = run.done()
        wait_for("more tasks", lambda: run.done() > before)
        (tmp_path / "gate").touch()
        code, said = run.stop()
        assert code == 0, said
