"""`conveyor run` whose output nobody reads: each of its two streams is a pipe that the test reads or leaves alone."""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import re
import signal
import subprocess
import sys
import termios
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from conveyor.asking import _ask
from conveyor.snapshot import RunStatistics, from_plain
from support.commands import environment
from support.waiting import wait_for

URL = re.compile(rb"url=(\S+)/metrics")


class Unread:
    """A run, and the ends of the pipes that it writes to."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes]) -> None:
        self.folder = folder
        self.process = process
        self._socket = folder / "conveyor" / f"{process.pid}.sock"

    def status(self) -> RunStatistics:
        answer = _ask(self._socket, b"status")
        assert answer is not None
        return from_plain(answer)

    def processed(self) -> int:
        return self.status().total("processed")

    def stop(self, deadline_seconds: float = 30.0) -> int:
        """Send a SIGTERM; return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(deadline_seconds)


def full(descriptor: int) -> bool:
    """Return whether a pipe has stood full for a while: its writer waits."""
    before = _waiting_bytes(descriptor)
    time.sleep(0.2)
    return before > 0 and before == _waiting_bytes(descriptor)


def _waiting_bytes(descriptor: int) -> int:
    number = array.array("i", [0])
    fcntl.ioctl(descriptor, termios.FIONREAD, number)
    return number[0]


def health(url: str) -> int:
    """Return the status of /healthz."""
    with urllib.request.urlopen(f"{url}/healthz", timeout=10) as answer:
        return int(answer.status)


@contextlib.contextmanager
def unread(folder: Path, *arguments: str, **more: str) -> Iterator[Unread]:
    """Start `conveyor run` with both streams as pipes, of which nothing is read but by the test."""
    with subprocess.Popen(
        [sys.executable, "-m", "conveyor", "run", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(folder, **more),
        start_new_session=True,
    ) as process:
        try:
            yield Unread(folder, process)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def served_at(run: Unread) -> str:
    """Return where its metrics are, from the first line of its log; nothing else is read."""
    assert run.process.stderr is not None
    seen = b""
    while not (found := URL.search(seen)):
        seen += os.read(run.process.stderr.fileno(), 1)
    return found.group(1).decode()


def wait_for_progress(run: Unread, tasks: int = 20) -> None:
    """Wait until so many more tasks are done."""
    before = wait_for("a first answer", lambda: run.processed() + 1) - 1
    wait_for("tasks to be done", lambda: run.processed() >= before + tasks)
