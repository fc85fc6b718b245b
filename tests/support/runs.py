"""`conveyor run` as a user starts it: a process of its own, watched from outside."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from conveyor.asking import _ask
from conveyor.snapshot import RunStatistics, SlotStatistics, WorkerState, from_plain
from support.waiting import wait_for

WORKLOADS = Path(__file__).with_name("workloads.py")
MARK = "CONVEYOR_TEST_MARK"


class Run:
    """One `conveyor run`, with a control socket, a report and a mark in its environment, all of its own."""

    def __init__(self, folder: Path, arguments: tuple[str, ...], environment: dict[str, str]) -> None:
        self.folder = folder
        self.mark = uuid.uuid4().hex
        self.output = folder / "stdout"
        self.errors = folder / "stderr"
        self._report = folder / "report.json"
        with self.output.open("wb") as output, self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "conveyor", "run", *arguments, "--report", str(self._report)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                start_new_session=True,  # a process group of its own, as a shell's job has
                env={**os.environ, **environment, MARK: self.mark, "XDG_RUNTIME_DIR": str(folder)},
            )

    def status(self) -> RunStatistics:
        """Return what the run says of itself now."""
        answer = _ask(self.folder / "conveyor" / f"{self.process.pid}.sock", b"status")
        assert answer is not None, self.said()
        return from_plain(answer)

    def ask(self, request: str) -> str:
        """Have the run do something, over its control socket; return what it says that it did."""
        answer = _ask(self.folder / "conveyor" / f"{self.process.pid}.sock", request.encode())
        assert answer is not None, self.said()
        return str(answer["did"])

    def worker(self, name: str) -> SlotStatistics:
        return next(slot for slot in self.status().slots if slot.name == name)

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal to the process that is in a slot; return its pid."""
        pid = self.worker(name).pid
        assert pid is not None
        os.kill(pid, number)
        return pid

    def kill_in_task(self, name: str) -> bool:
        """SIGKILL the process in a slot if it is in its function now, where it holds nothing of the queue."""
        pid = self.worker(name).pid
        if pid is None:
            return False
        os.kill(pid, signal.SIGSTOP)  # so that it cannot go on between our look and our deed
        slot = self.worker(name)
        caught = slot.pid == pid and slot.activity is WorkerState.BUSY
        os.kill(pid, signal.SIGKILL if caught else signal.SIGCONT)
        return caught

    def wait(self, deadline_seconds: float = 30.0) -> int:
        """Return the exit code."""
        try:
            return self.process.wait(deadline_seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {deadline_seconds:g} s\n{self.said()}") from None

    @property
    def report(self) -> dict[str, Any]:
        report: dict[str, Any] = json.loads(self._report.read_text())
        return report

    def lines(self) -> list[str]:
        return self.output.read_text().splitlines()

    def said(self) -> str:
        """Return what it wrote on standard error."""
        return self.errors.read_text()

    def processes(self) -> list[psutil.Process]:
        """Return every process of this run that is there: its workers, its fork server, itself."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == self.mark:
                    found.append(process)
        return found


@contextlib.contextmanager
def running(folder: Path, *arguments: str, **environment: str) -> Iterator[Run]:
    """Start `conveyor run` with these arguments; afterwards nothing of it may be left."""
    run = Run(folder, arguments, environment)
    try:
        yield run
        if run.process.poll() is not None:
            wait_for("no process to be left", lambda: not run.processes(), 10.0)
    finally:
        for process in run.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()
        run.process.wait(10)
