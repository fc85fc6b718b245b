"""What the two queues of `multiprocessing` share: their ends, and their statistics.

What happens when a worker dies: the task in its hands is lost, and so is what lay in a producer's feeder
thread. A lock that it held is held for ever, and everybody who needs it waits for ever; the supervisor
notices (see `stall.py`), because the queue itself cannot.
"""

from __future__ import annotations

import abc
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.queues import Queue

from conveyor.queues.seam import Counts, Intake, Lease, Outlet, QueueEndedError
from conveyor.snapshot import QueueStatistics

# For the thread that `finish` started; after a loss it may wait for ever, and is then left behind.
DISPOSE_SECONDS = 0.5

Message = tuple[int, bytes] | None  # (when it was offered, in ns; the pickled task), or the end


@dataclass(frozen=True, slots=True)
class StdlibOutlet:
    """The producer's end of either queue."""

    queue: Queue[Message]

    def offer(self, payload: bytes, now_ns: int, timeout_seconds: float) -> bool:
        try:
            self.queue.put((now_ns, payload), block=timeout_seconds > 0, timeout=timeout_seconds)
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
        offered_ns, payload = message
        return Lease(payload, offered_ns)

    def report(self, lease: Lease) -> None:
        """Do nothing: a plain queue keeps no count."""


class StdlibTaskQueue(abc.ABC):
    """Either queue as the supervisor sees it; counts come from the ledger, so they are exact."""

    kind: str

    def __init__(self, queue: Queue[Message], capacity: int) -> None:
        self.queue = queue
        self.capacity = capacity
        self._finisher: threading.Thread | None = None
        self._over = threading.Event()

    def outlet(self) -> Outlet:
        return StdlibOutlet(self.queue)

    def intake(self) -> Intake:
        return StdlibIntake(self.queue)

    def is_empty(self) -> bool:
        return self.queue.empty()

    def statistics(self, counts: Counts, lost_in_transit: int) -> QueueStatistics:
        return QueueStatistics(
            name=self.kind,
            capacity=self.capacity,
            waiting=max(0, counts.put - counts.started - lost_in_transit),
            in_progress=counts.started - counts.processed - counts.abandoned,
            unfinished=max(0, counts.put - counts.processed),
            lost=counts.abandoned + lost_in_transit,
        )

    def finish(self, consumers: int, wake: Callable[[], None]) -> None:
        def see_through() -> None:
            self.see_through(consumers, self._over)
            wake()

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
