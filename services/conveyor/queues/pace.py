"""How many tasks travel together: pure. Nobody sets a chunk size; it follows from how long tasks take.

Small fast tasks must travel in hundreds (one alone costs some 30 µs on its way), slow ones alone, or a consumer
hoards what another could do.
"""

from __future__ import annotations

CHUNK_NS = 2_000_000  # of work in a chunk: long beside its cost, short for a person
LEASE_NS = 10_000_000  # after so long a consumer hands back what it has not started
# A lease need not be shorter than this for the sake of a fair share; below, its cost begins to show.
FAIR_NS = 1_000_000
MAX_CHUNK_TASKS = 4096  # arbitrary: past some hundreds a longer chunk gains nothing
MAX_LEASE_TASKS = 4096  # a report on it, with the places of its results, fits into one message
WEIGHT = 0.2  # of the newest report in the mean; about ten reports make it forget


class Pace:
    """A moving mean of the time that a task takes, and what follows from it."""

    def __init__(self) -> None:
        self._mean_ns: float | None = None

    def learn(self, tasks: int, took_ns: int) -> None:
        """Take in what a consumer has reported."""
        if tasks:
            seen = took_ns / tasks
            self._mean_ns = seen if self._mean_ns is None else self._mean_ns + WEIGHT * (seen - self._mean_ns)

    def tasks_in(self, nanoseconds: int) -> int:
        """Return how many tasks are about so much work, at least 1; 1 while nothing is known."""
        if self._mean_ns is None:
            return 1
        return max(1, int(nanoseconds / max(1.0, self._mean_ns)))

    def chunk(self, share: int) -> int:
        """Return how many tasks a chunk should hold, for a producer that may have `share` of them waiting.

        Two chunks fit into its share, so that it can make one while another is done. 0 is no bound.
        """
        most = min(MAX_CHUNK_TASKS, max(1, share // 2)) if share else MAX_CHUNK_TASKS
        return min(most, self.tasks_in(CHUNK_NS))

    def lease(self, waiting: int, consumers: int) -> int:
        """Return how many tasks a lease should hold: a fair part of what waits, but no crumbs, and not too much."""
        fair = max(-(-waiting // max(1, consumers)), self.tasks_in(FAIR_NS))
        return min(fair, self.tasks_in(LEASE_NS), MAX_LEASE_TASKS)
