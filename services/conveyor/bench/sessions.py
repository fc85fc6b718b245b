"""All processes of a measurement, whoever started them: those of its session, as /proc shows them."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

_PROC = Path("/proc")
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# Where in /proc/PID/stat, after the name: see proc_pid_stat(5).
_STATE, _SESSION, _TIMES = 0, 3, slice(11, 15)
_END_SECONDS = 5.0


def _stats(session: int) -> Iterator[tuple[int, list[bytes]]]:
    """Yield pid and fields, also of those that have ended and that nobody has waited for: their CPU time counts."""
    for entry in os.scandir(_PROC):
        name = entry.name
        if name.isdecimal():
            with contextlib.suppress(OSError):  # it has just ended
                fields = (_PROC / name / "stat").read_bytes().rpartition(b")")[2].split()
                if int(fields[_SESSION]) == session:
                    yield int(name), fields


def pids(session: int) -> list[int]:
    """Return the living processes of a session."""
    return [pid for pid, fields in _stats(session) if fields[_STATE] not in b"ZX"]


def cpu_seconds(session: int) -> float:
    """Return the CPU time of a session's processes and of those they have waited for, to a hundredth."""
    return sum(sum(map(int, fields[_TIMES])) for _, fields in _stats(session)) / _TICKS_A_SECOND


def precise_cpu_seconds(session: int) -> float:
    """Return the CPU time of the threads that live now; to the nanosecond, for processes that do nearly nothing."""
    total = 0
    for pid in pids(session):
        with contextlib.suppress(OSError):
            for thread in (_PROC / str(pid) / "task").iterdir():
                with contextlib.suppress(OSError):
                    total += int((thread / "schedstat").read_text().split()[0])
    return total / 1e9


def resident_bytes(pid: int) -> int:
    """Return the memory that a process has in use."""
    return int((_PROC / str(pid) / "statm").read_text().split()[1]) * _PAGE_BYTES


def end(session: int) -> None:
    """Kill what is left of a session, and return when it is gone."""
    until = time.monotonic() + _END_SECONDS
    while (left := pids(session)) and time.monotonic() < until:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)  # they are nobody's children here, so there is no end to wait on
