"""The seam between workers, supervisor and queue: what every queue can do, and nothing about how.

Nothing here knows of sockets, pipes or `multiprocessing`, so an engine on another machine fits behind it.
What travels is a chunk of bytes: pickling is the worker's (`codec.py`), so that a task that cannot travel raises in
its producer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from conveyor.ledger import Row, Tally
from conveyor.queues.codec import Chunk, Codec
from conveyor.queues.letters import DeadLetter, DeadLetters
from conveyor.snapshot import QueueStatistics

Action = Callable[[], None]


class QueueEndedError(Exception):
    """The queue says that no task will follow. Raised by `Intake.take`."""


@dataclass(frozen=True, slots=True)
class Lease:
    """Some tasks of one chunk in the hands of a consumer: those from `first` up to, not with, `last`."""

    number: int
    """Counted from 1 in each slot by a queue that can take a lease back; 0 from one that cannot."""
    codec: Codec
    payload: memoryview
    count: int
    """Tasks in the whole chunk."""
    first: int
    last: int
    offered_ns: int
    """Monotonic time at which the producer offered the chunk."""
    budget_ns: int
    """After so long the consumer hands back what it has not started."""
    tries_left: int = 0
    """How often a task of it that raises is tried again."""


@dataclass(frozen=True, slots=True)
class Failure:
    """How a task raised: the class of its exception, its text and its traceback, each cut."""

    error: str
    reason: str
    trace: str


class Outlet(Protocol):
    """A producer's end of the queue."""

    counts_puts: bool
    """Whether the queue itself counts what it has accepted; if not, the worker does."""

    @property
    def max_bytes(self) -> int | None:
        """The largest chunk that the queue can keep; None if there is no limit."""

    def wanted(self) -> int:
        """Return how many tasks a chunk should hold now."""

    def offer(self, chunk: Chunk, timeout_seconds: float) -> bool:
        """Put one chunk; return whether the queue accepted it within the time.

        It is the worker who asks again, with the same chunk.
        """

    def close(self) -> None:
        """Send all that was accepted; return when nothing is left in this process."""


class Intake(Protocol):
    """A consumer's end of the queue."""

    def take(self, timeout_seconds: float) -> Lease | None:
        """Return the next lease, or None if there was none within the time.

        Raises `QueueEndedError` when there will be none any more.
        """

    def keep(self, result: bytes) -> None:
        """Store the result of the next task of the lease, so that it survives this process. Before it is counted."""

    def report(self, lease: Lease, done: int, failure: Failure | None, took_ns: int) -> None:
        """Say that the first `done` tasks of the lease went well, and hand the others back.

        With a failure the task behind them has failed, and is not among those handed back.
        """


@dataclass(frozen=True, slots=True)
class Counts:
    """What the ledger says of all slots together, in tasks."""

    put: int
    started: int
    processed: int
    in_progress: int
    abandoned: int


@dataclass(frozen=True, slots=True)
class Casualty:
    """The task that a dead consumer had in hand, and what became of it."""

    task: str
    """Its repr, cut; empty where the queue cannot tell."""
    attempt: int
    is_lost: bool = False
    is_dead_letter: bool = False


@dataclass(frozen=True, slots=True)
class End:
    """How a process ended."""

    slot: str
    how: str
    """Its exit code or signal, or why the supervisor ended it, for people."""
    is_timeout: bool = False
    """It was ended because it was in one task for too long."""


class Watcher(Protocol):
    """What a queue needs of the supervisor's loop."""

    def watch(self, descriptor: int, action: Action) -> None:
        """Call `action` whenever the descriptor is readable."""

    def unwatch(self, descriptor: int) -> None:
        """Forget the descriptor, if it is watched."""

    def after_all(self, action: Action) -> None:
        """Call `action` once, at the end of this turn of the loop."""

    def after(self, seconds: float, action: Action) -> None:
        """Call `action` once, that many seconds from now."""


class ResultSink(Protocol):
    """Who wants the results of the tasks."""

    has_room: bool
    """Whether more are wanted now; what is under way still comes. Any thread may change it."""

    def add(self, results: list[bytes]) -> None:
        """Take results, as they were kept."""

    def add_dead_letter(self, casualty: Casualty) -> None:
        """Take the news that there will be no result of this task."""


class TaskQueue(Protocol):
    """A queue as its supervisor sees it. Slots are known by their index in the ledger."""

    kind: str
    capacity: int
    can_break: bool
    """Whether a death may lose tasks, or stop everybody."""
    can_be_steered: bool
    """Whether it can pause, and its consumers can come and go while it runs."""

    @property
    def letters(self) -> DeadLetters | None:
        """Where tasks are kept that were given up; None where none are."""

    def outlet(self, slot: int) -> Outlet:
        """Return a producer's end for the process that is about to fill the slot."""

    def intake(self, slot: int) -> Intake:
        """Return a consumer's end for the process that is about to fill the slot."""

    def started(self, slot: int) -> None:
        """Take note that the process has its end, or will never be."""

    def bury(self, slot: int, row: Row, tally: Tally, end: End) -> Casualty | None:
        """See to what the dead process of a slot held; return the task that it was in, if it was in one."""

    def retire(self, slot: int) -> None:
        """Give nothing more to the consumer process in the slot: it is to leave. If the queue can be steered."""

    def pause(self) -> None:
        """Give out no more tasks until `resume`. If the queue can be steered."""

    def resume(self) -> None:
        """Give out tasks again after a `pause`."""

    def finish(self, consumers: int, news: Action) -> None:
        """See the work through, now that every producer has ended; call `news`, from any thread, when it may be done.

        Returns at once.
        """

    def notice_room(self) -> None:
        """Go on, now that there is room for results again."""

    def revive(self, letter: DeadLetter) -> None:
        """Have a task that was given up done once more, as a new one. Raises `OSError` if it cannot be written."""

    def is_writing(self) -> bool:
        """Return whether something that a producer has sent is not accepted yet."""

    def is_empty(self) -> bool:
        """Return whether nothing lies between the producers and the consumers' hands."""

    def statistics(self, counts: Counts, lost_in_transit: int) -> QueueStatistics:
        """Return the queue at this moment."""

    def dispose(self) -> None:
        """Free what the queue holds; no worker is alive any more."""
