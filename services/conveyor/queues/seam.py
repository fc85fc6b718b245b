"""The seam between workers, supervisor and queue: what every queue can do, and nothing about how.

Nothing here knows of sockets, pipes or `multiprocessing`, so an engine on another machine fits behind it.
Payloads are bytes: pickling is the worker's, so that a task that cannot travel raises in its producer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from conveyor.snapshot import QueueStatistics


class QueueEndedError(Exception):
    """The queue says that no task will follow. Raised by `Intake.take`."""


@dataclass(frozen=True, slots=True)
class Lease:
    """One task in the hands of a consumer."""

    payload: bytes
    offered_ns: int
    """Monotonic time at which its producer offered it."""


class Outlet(Protocol):
    """A producer's end of the queue."""

    def offer(self, payload: bytes, now_ns: int, timeout_seconds: float) -> bool:
        """Put one task; return whether the queue accepted it within the time."""

    def close(self) -> None:
        """Send all that was accepted; return when nothing is left in this process."""


class Intake(Protocol):
    """A consumer's end of the queue."""

    def take(self, timeout_seconds: float) -> Lease | None:
        """Return the next task, or None if there was none within the time.

        Raises `QueueEndedError` when there will be none any more.
        """

    def report(self, lease: Lease) -> None:
        """Say that the task is done."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What the ledger says of all slots together, in tasks."""

    put: int
    started: int
    processed: int
    abandoned: int


class TaskQueue(Protocol):
    """A queue as its supervisor sees it."""

    kind: str
    capacity: int

    def outlet(self) -> Outlet:
        """Return a producer's end, to be passed to its process."""

    def intake(self) -> Intake:
        """Return a consumer's end, to be passed to its process."""

    def finish(self, consumers: int, wake: Callable[[], None]) -> None:
        """See the work through, now that every producer has ended; call `wake` when there is news.

        Returns at once. `wake` is called from any thread.
        """

    def is_empty(self) -> bool:
        """Return whether nothing lies between the producers and the consumers' hands."""

    def statistics(self, counts: Counts, lost_in_transit: int) -> QueueStatistics:
        """Return the queue at this moment."""

    def dispose(self) -> None:
        """Free what the queue holds; no worker is alive any more."""
