"""How much CPU and memory the workers of a run use, read from the kernel by their pids.

What cannot be read is left out: a process that has just ended, one of another user, or one that only has the same
number, because the run lives in another PID namespace than we.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import psutil

from conveyor.snapshot import SlotStatistics


@dataclass(frozen=True, slots=True)
class Usage:
    """One process at one moment."""

    cpu: float | None
    """Since it was last looked at, in cores; None at the first look."""
    memory_bytes: int
    """Resident."""


class UsageReader:
    """Remembers each worker process from one look to the next."""

    def __init__(self, run_pid: int) -> None:
        self._run_pid = run_pid
        self._processes: dict[int, psutil.Process | None] = {}
        """By pid; None for one that is not the run's."""

    def read(self, slots: Iterable[SlotStatistics]) -> dict[str, Usage]:
        """Return what the process in each slot uses now, by the name of the slot."""
        pids = {slot.name: slot.pid for slot in slots if slot.pid is not None}
        seen = {name: usage for name, pid in pids.items() if (usage := self._look(pid)) is not None}
        for pid in self._processes.keys() - set(pids.values()):
            del self._processes[pid]
        return seen

    def _look(self, pid: int) -> Usage | None:
        try:
            is_known = pid in self._processes
            process = self._processes[pid] if is_known else self._meet(pid)
            if process is None:
                return None
            cpu, memory_bytes = process.cpu_percent() / 100, process.memory_info().rss
        except psutil.Error:
            return None
        return Usage(cpu if is_known else None, memory_bytes) if memory_bytes else None  # a zombie has none

    def _meet(self, pid: int) -> psutil.Process | None:
        process = psutil.Process(pid)
        is_ours = any(ancestor.pid == self._run_pid for ancestor in process.parents())
        self._processes[pid] = process if is_ours else None
        return self._processes[pid]
