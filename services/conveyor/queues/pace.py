"""How many tasks travel together: pure. Nobody sets a chunk size; it follows from how long tasks take.

Small fast tasks must travel in hundreds (one alone costs some 30 µs on its way), slow ones alone, or a consumer
hoards what another could do.
"""

from __future__ import annotations

CHUNK_NS = 2_000_000  # of work in a chunk: long beside its cost, short for a person
LEASE_NS = 10_000_000  # after so long a consumer hands back what it has not started
# A lease need not be shorter than this for the sake of a fair share; below, its cost begins to show.
FAIR_NS = 1_000_000
AHEAD_NS = (
    5_000_000  # of work that a consumer may have while more is sent ahead: it must not wait for us between leases
)
MAX_CHUNK_TASKS = 4096  # arbitrary: past some hundreds a longer chunk gains nothing
MAX_LEASE_TASKS = 4096  # a report on it, with the places of its results, fits into one message
BEHIND = 64  # so many times as much waits before a chunk; arbitrary
WEIGHT = 0.2  # of the newest report in the mean; about ten reports make it forget


class Pace:
    """A moving mean of the time that a task takes, and what follows from it, worked out whenever it moves."""

    def __init__(self) -> None:
        self._mean_ns: float | None = None
        # Tasks in so much work, at least 1; 1 while nothing is known.
        self.chunk_tasks = self.lease_tasks = self.fair_tasks = self.ahead_tasks = 1

    def learn(self, tasks: int, took_ns: int) -> None:
        """Take in what a consumer has reported."""
        if not tasks:
            return
        seen = max(1.0, took_ns / tasks)
        mean = self._mean_ns = seen if self._mean_ns is None else self._mean_ns + WEIGHT * (seen - self._mean_ns)
        self.chunk_tasks = min(MAX_CHUNK_TASKS, int(CHUNK_NS / mean) or 1)
        self.lease_tasks = min(MAX_LEASE_TASKS, int(LEASE_NS / mean) or 1)
        self.fair_tasks = int(FAIR_NS / mean) or 1
        self.ahead_tasks = int(AHEAD_NS / mean) or 1

    def chunk(self, share: int, waiting: int) -> int:
        """Return how many tasks a chunk should hold, for a producer that may have `share` of them waiting.

        Where many wait already, nobody waits for what comes now: it may travel in larger chunks than the work asks for.
        """
        return min(max(self.chunk_tasks, waiting // BEHIND), MAX_CHUNK_TASKS, share)

    def lease(self, waiting: int, consumers: int) -> int:
        """Return how many tasks a lease should hold: a fair part of what waits, but no crumbs, and not too much."""
        if waiting <= self.fair_tasks:
            return self.lease_tasks if self.lease_tasks < self.fair_tasks else self.fair_tasks
        return min(max(-(-waiting // (consumers or 1)), self.fair_tasks), self.lease_tasks)
