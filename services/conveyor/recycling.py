"""How much one consumer process may do before another takes its place: so many tasks, or until it has grown so far.

Asked by the consumer's loop between two tasks. Against what leaks in libraries: memory, descriptors, threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGESIZE")
LOOK_NS = 50_000_000  # between two looks at the memory, which cost some 10 µs each
UNLIMITED = 1 << 62  # tasks


def own_memory_bytes() -> int:
    """Return what this process has in memory."""
    return int(Path("/proc/self/statm").read_bytes().split()[1]) * _PAGE_BYTES


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one process; None is no limit."""

    tasks: int | None = None
    memory_bytes: int | None = None


class Lifespan:
    """What is left of the limits of this process. It does one task at least, or nothing would ever be done."""

    def __init__(self, limits: Limits, weigh: Callable[[], int] = own_memory_bytes) -> None:
        self.tasks_left = limits.tasks or UNLIMITED
        """How many tasks it may still begin."""
        self._memory_bytes = limits.memory_bytes
        self._weigh = weigh
        self._look_at_ns = 0

    @property
    def is_over(self) -> bool:
        return self.tasks_left == 0

    def spend(self, tasks: int, now_ns: int) -> None:
        """Take note that so many more tasks are finished."""
        self.tasks_left -= tasks
        if self._memory_bytes is not None and now_ns >= self._look_at_ns:
            self._look_at_ns = now_ns + LOOK_NS
            if self._weigh() > self._memory_bytes:
                self.tasks_left = 0
