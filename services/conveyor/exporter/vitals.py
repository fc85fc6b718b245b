"""What the kernel says of the worker processes: alive or not, CPU, memory, descriptors.

Read by the collector, under its lock, at each scrape. A process that vanishes while it is read is no error:
that is how a SIGKILL is seen at once, before the supervisor has buried the dead.

A process that is plainly alive is read here, in a quarter of the time that psutil takes. Whenever the kernel says
anything else, psutil is asked: it knows what a zombie is, what is forbidden, and what is broken.
"""

from __future__ import annotations

import functools
import os
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from conveyor.snapshot import SlotStatistics

_DEAD = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Vitals:
    """One slot's process at one moment. None: not to be had."""

    alive: bool
    cpu_seconds: float
    """Of all processes that were seen in the slot."""
    resident_bytes: int | None = None
    open_descriptors: int | None = None


@dataclass(slots=True)
class _Book:
    """What is remembered of one slot between two scrapes."""

    occupant: tuple[int, float | None] | None = None
    """(pid, start): a pid alone may come again."""
    process: psutil.Process | None = None
    cpu_before: float = 0.0
    cpu_seen: float = 0.0

    @property
    def cpu_seconds(self) -> float:
        return self.cpu_before + self.cpu_seen


class VitalsReader:
    """Reads the processes of a run, one slot at a time. Not safe for two threads at once."""

    def __init__(self) -> None:
        self._books: dict[str, _Book] = {}

    def read(self, slot: SlotStatistics) -> Vitals:
        """Return what is known of the slot's process now. Raises whatever a broken /proc raises."""
        book = self._books.setdefault(slot.name, _Book())
        if slot.pid is None:
            return Vitals(False, book.cpu_seconds)
        occupant = slot.pid, slot.started_at
        if occupant != book.occupant:
            # What the process before used after the last scrape is not known any more; that is the price of
            # reading /proc from outside.
            book.cpu_before, book.cpu_seen = book.cpu_seconds, 0.0
            book.occupant, book.process = occupant, None
        try:
            return _glance(slot.pid, book) or _examine(slot.pid, book)
        except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):  # a zombie is a NoSuchProcess
            return Vitals(False, book.cpu_seconds)
        except psutil.AccessDenied:
            return Vitals(True, book.cpu_seconds)

    def recall(self, slot: SlotStatistics) -> Vitals:
        """Return what is known without reading: the supervisor's word, and the CPU time last seen."""
        return Vitals(slot.pid is not None, self._books.setdefault(slot.name, _Book()).cpu_seconds)


def _glance(pid: int, book: _Book) -> Vitals | None:
    """Return what is known of a process that is plainly alive, or None if it needs a closer look."""
    try:
        cpu_seconds = time.clock_gettime(_cpu_clock(pid))
        descriptors = _count_descriptors(f"/proc/{pid}/fd")
        # Last, because it proves that the rest was no dead one's: who dies gives his memory back before all else.
        # `stat` has this number too, but on many kernels some percent off.
        resident_pages = int(_first_bytes(f"/proc/{pid}/statm").split(maxsplit=2)[1])
    except (OSError, ValueError, IndexError):
        return None
    if not resident_pages:
        return None
    book.cpu_seen = max(book.cpu_seen, cpu_seconds)
    return Vitals(True, book.cpu_seconds, resident_pages * _PAGE_BYTES, descriptors)


def _cpu_clock(pid: int) -> int:
    """Return the clock of a process' CPU time, as `clock_getcpuclockid` of the C library does, which Python lacks."""
    return ~pid << 3 | 2


def _first_bytes(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 256)
    finally:
        os.close(descriptor)


def _count_descriptors(directory: str) -> int:
    if _directories_tell_their_size():
        return os.stat(directory).st_size  # noqa: PTH116, a `Path` takes as long again as all the rest
    return len(os.listdir(directory))  # noqa: PTH208, for the same reason


@functools.cache
def _directories_tell_their_size() -> bool:
    """Return whether the size of /proc/PID/fd is the number of descriptors, as in Linux since 6.2; before it was 0.

    Tried once. If another thread opens or closes one meanwhile, the answer may be no, and the slow way is as good.
    """
    directory = Path("/proc/self/fd")
    before = directory.stat().st_size
    with Path(os.devnull).open("rb"):
        return before > 0 and directory.stat().st_size == before + 1


def _examine(pid: int, book: _Book) -> Vitals:
    process = book.process = book.process or psutil.Process(pid)
    with process.oneshot():
        times = process.cpu_times()  # before the look at its state: a zombie still tells all that it used
        book.cpu_seen = max(book.cpu_seen, times.user + times.system)
        if process.status() in _DEAD:
            return Vitals(False, book.cpu_seconds)
        return Vitals(True, book.cpu_seconds, process.memory_info().rss, process.num_fds())
