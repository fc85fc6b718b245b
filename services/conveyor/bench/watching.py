"""Starts a trial, looks at it from outside until it has ended, and says how: done, failed, wrong or hanging.

A trial hangs when nothing has moved for a while. Whatever it leaves behind is killed.
"""

from __future__ import annotations

import contextlib
import enum
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from conveyor.bench import sessions
from conveyor.bench.jobs import Job
from conveyor.bench.marks import FOLDER_VARIABLE, Counts, Records
from conveyor.bench.trial import OUTCOME

POLL_SECONDS = 0.002
DEADLINE_SECONDS = 180.0
"""For all of it, whatever moves."""
_MAX_NOTE = 90  # characters: a line of a table; arbitrary
STALL_SECONDS = 8.0
"""Without any movement. Above what any contestant needs to start, or to find out that a worker has died."""


class Status(enum.StrEnum):
    """How a measurement ended."""

    DONE = "done"
    FAILED = "failed"
    HANGS = "hangs"
    WRONG = "wrong"
    """It says that all is done, and it is not."""
    MISSING = "missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One trial of one contestant: how it ended, and what was measured."""

    status: Status
    note: str = ""
    figures: dict[str, float] = field(default_factory=dict)


class Trial:
    """One running contestant."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.session = process.pid
        self.counts = Counts(folder)
        self.records = Records(folder)
        self._folder = folder

    def watch(self, look: Callable[[], int], stall_seconds: float = STALL_SECONDS) -> Measurement:
        """Call `look` again and again; it returns how much is done. Return how it ended, without figures."""
        began = time.monotonic()
        seen, seen_at = -1, began
        while time.monotonic() - began < DEADLINE_SECONDS:
            ended = self.process.poll() is not None
            now = look()
            if ended:
                return self._ending()
            if now != seen:
                seen, seen_at = now, time.monotonic()
            elif time.monotonic() - seen_at > stall_seconds:
                return Measurement(status=Status.HANGS, note=f"nothing moved for {stall_seconds:g} s")
            time.sleep(POLL_SECONDS)  # the counts are plain words of shared memory: nothing tells of a change
        return Measurement(status=Status.HANGS, note=f"not done after {DEADLINE_SECONDS:g} s")

    def wait_for_records(self, number: int, deadline_seconds: float = 60.0) -> bool:
        """Return whether so many records came before the deadline and before the end."""
        until = time.monotonic() + deadline_seconds
        while len(self.records.all) < number:
            self.records.read()
            if self.process.poll() is not None or time.monotonic() > until:
                return False
            time.sleep(POLL_SECONDS)  # the counts are plain words of shared memory: nothing tells of a change
        return True

    def _ending(self) -> Measurement:
        try:
            error = json.loads((self._folder / OUTCOME).read_text())["error"]
        except FileNotFoundError:
            said = (self._folder / "stderr").read_text(errors="replace").strip().splitlines()
            error = said[-1] if said else f"exit code {self.process.returncode}"
        if error is None:
            return Measurement(status=Status.DONE)
        return Measurement(status=Status.FAILED, note=_cut(error))


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_NOTE else f"{text[: _MAX_NOTE - 3]}..."


@contextlib.contextmanager
def started(contestant: str, job: Job) -> Iterator[Trial]:
    """Start a trial; afterwards none of its processes is left."""
    command = [sys.executable, "-m", "conveyor.bench.trial", contestant, json.dumps(job.plain())]
    with started_command(command) as trial:
        yield trial


@contextlib.contextmanager
def started_command(command: list[str]) -> Iterator[Trial]:
    """The same for any command whose tasks leave marks."""
    with tempfile.TemporaryDirectory(prefix="conveyor-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with (folder / "stderr").open("wb") as errors:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,  # nothing is written: its end tells a trial that we are gone
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,  # so that its processes can be known
                # Runs of their own, that no other one's settings reach.
                env={k: v for k, v in os.environ.items() if not k.startswith("CONVEYOR_")} | {FOLDER_VARIABLE: name},
            )
        try:
            yield Trial(folder, process)
        finally:
            sessions.end(process.pid)
            process.wait()
            assert process.stdin is not None
            process.stdin.close()
