"""What the two queues of `multiprocessing` share: their ends, and their statistics.

What happens when a worker dies: the task in its hands is lost, and so is what lay in a producer's feeder
thread. A lock that it held is held for ever, and everybody who needs it waits for ever; the supervisor
notices (see `stall.py`), because the queue itself cannot.
"""

from __future__ import annotations

import abc
import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.queues import Queue

from conveyor.errors import ConfigurationError
from conveyor.ledger import Row, Tally
from conveyor.queues.codec import Chunk, Codec
from conveyor.queues.letters import DeadLetter, DeadLetters
from conveyor.queues.seam import Casualty, Counts, End, Failure, Intake, Lease, Outlet, QueueEndedError
from conveyor.snapshot import QueueStatistics

# A lease of these queues is always one task, and is never taken back.
_NUMBER = 1

# For the thread that `finish` started; after a loss it may wait for ever, and is then left behind.
DISPOSE_SECONDS = 0.5

Message = tuple[int, Codec, bytes] | None  # (when it was offered, in ns; how it is written; a chunk of one), or the end


@dataclass(frozen=True, slots=True)
class StdlibOutlet:
    """The producer's end of either queue."""

    counts_puts = False
    max_bytes = None
    queue: Queue[Message]

    def wanted(self) -> int:
        return 1

    def offer(self, chunk: Chunk, timeout_seconds: float) -> bool:
        message = chunk.offered_ns, chunk.codec, b"".join(chunk.pieces)
        try:
            self.queue.put(message, block=timeout_seconds > 0, timeout=timeout_seconds)
        except queue.Full:
            return False
        return True

    def close(self) -> None:
        self.queue.close()
        self.queue.join_thread()


@dataclass(frozen=True, slots=True)
class StdlibIntake:
    """The consumer's end of a plain queue."""

    queue: Queue[Message]

    def take(self, timeout_seconds: float) -> Lease | None:
        try:
            message = self.queue.get(timeout=timeout_seconds)
        except queue.Empty:
            return None
        if message is None:
            raise QueueEndedError
        offered_ns, codec, payload = message
        return Lease(_NUMBER, codec, memoryview(payload), 1, 0, 1, offered_ns, 0)

    def keep(self, result: bytes) -> None:
        # `Pipeline.results` refuses these queues before a worker starts.
        raise NotImplementedError("these queues carry no results")

    def report(self, lease: Lease, done: int, failure: Failure | None, took_ns: int) -> None:
        """Do nothing: a plain queue keeps no count."""


@contextlib.contextmanager
def semaphores(kind: str) -> Iterator[None]:
    """Raise `ConfigurationError` for a system that gives no semaphores, which these queues are made of."""
    try:
        yield
    except (OSError, ImportError) as error:
        raise ConfigurationError(
            f"queue: {kind!r} needs POSIX semaphores, which cannot be made here ({error}): is /dev/shm writable? "
            "Give the queue 'leased', which needs none"
        ) from error


class StdlibTaskQueue(abc.ABC):
    """Either queue as the supervisor sees it; counts come from the ledger, so they are exact."""

    kind: str
    can_break = True
    letters: DeadLetters | None = None
    can_be_steered = False

    def __init__(self, queue: Queue[Message], capacity: int) -> None:
        self.queue = queue
        self.capacity = capacity
        self._finisher: threading.Thread | None = None
        self._over = threading.Event()

    def outlet(self, slot: int) -> Outlet:
        return StdlibOutlet(self.queue)

    def intake(self, slot: int) -> Intake:
        return StdlibIntake(self.queue)

    def started(self, slot: int) -> None:  # noqa: B027 (no duty of a subclass)
        """Do nothing: all processes have the same ends."""

    def notice_room(self) -> None:  # noqa: B027 (no duty of a subclass)
        """Do nothing: there are no results."""

    def retire(self, slot: int) -> None:
        raise NotImplementedError("these queues cannot be steered")  # the supervisor refuses before

    def pause(self) -> None:
        raise NotImplementedError("these queues cannot be steered")

    def resume(self) -> None:
        raise NotImplementedError("these queues cannot be steered")

    def bury(self, slot: int, row: Row, tally: Tally, end: End) -> Casualty | None:
        return Casualty(task="", attempt=1, is_lost=True) if tally.in_progress else None

    def revive(self, letter: DeadLetter) -> None:
        raise NotImplementedError("these queues keep no dead letters")

    def is_writing(self) -> bool:
        return False

    def is_empty(self) -> bool:
        return self.queue.empty()

    def statistics(self, counts: Counts, lost_in_transit: int) -> QueueStatistics:
        return QueueStatistics(
            name=self.kind,
            capacity=self.capacity,
            waiting=max(0, counts.put - counts.started - lost_in_transit),
            in_progress=counts.in_progress,
            unfinished=max(0, counts.put - counts.processed),
            lost=counts.abandoned + lost_in_transit,
        )

    def finish(self, consumers: int, news: Callable[[], None]) -> None:
        def see_through() -> None:
            self.see_through(consumers, self._over)
            news()

        self._finisher = threading.Thread(target=see_through, name="queue-end", daemon=True)
        self._finisher.start()

    @abc.abstractmethod
    def see_through(self, consumers: int, over: threading.Event) -> None:
        """Do what a program with this queue does after its producers, until done or over.

        May block, after a death for ever.
        """

    def dispose(self) -> None:
        self._over.set()
        if self._finisher is not None:
            self._finisher.join(DISPOSE_SECONDS)
        # Nothing may be read here: a dead producer's half message would have us wait for the rest.
        self.queue.cancel_join_thread()  # nobody reads any more: waiting for the feeder would be for ever
        self.queue.close()
