"""What the kernel says of the worker processes: alive or not, CPU, memory, descriptors.

Read by the collector, under its lock, at each scrape. A process that vanishes while it is read is no error:
that is how a SIGKILL is seen at once, before the supervisor has buried the dead.
"""

from __future__ import annotations

from dataclasses import dataclass

import psutil

from conveyor.snapshot import SlotStatistics

_DEAD = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)


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
            return _examine(slot.pid, book)
        except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):  # a zombie is a NoSuchProcess
            return Vitals(False, book.cpu_seconds)
        except psutil.AccessDenied:
            return Vitals(True, book.cpu_seconds)

    def recall(self, slot: SlotStatistics) -> Vitals:
        """Return what is known without reading: the supervisor's word, and the CPU time last seen."""
        return Vitals(slot.pid is not None, self._books.setdefault(slot.name, _Book()).cpu_seconds)


def _examine(pid: int, book: _Book) -> Vitals:
    process = book.process = book.process or psutil.Process(pid)
    with process.oneshot():
        times = process.cpu_times()  # before the look at its state: a zombie still tells all that it used
        book.cpu_seen = max(book.cpu_seen, times.user + times.system)
        if process.status() in _DEAD:
            return Vitals(False, book.cpu_seconds)
        return Vitals(True, book.cpu_seconds, process.memory_info().rss, process.num_fds())
