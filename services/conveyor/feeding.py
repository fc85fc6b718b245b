"""A producer that lives in the process of the run, as a thread: for an iterable that cannot be sent to another.

It uses the same loop and the same end of the queue as a worker process, so the iterable is pulled only as fast as
there is room. It runs with a copy of the caller's context variables. An item that cannot be pickled fails alone.
What happens when the iterable raises: what it had yielded is done, and the error is kept for whoever wants the results.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable
from contextvars import Context
from typing import Any

from conveyor.errors import ConveyorError
from conveyor.interruptions import Interruptions, StopRequestedError
from conveyor.ledger import Ledger, Order, State
from conveyor.processes import Starter
from conveyor.producing import BEAT_SECONDS, Production
from conveyor.queues.leased_ends import LeasedOutlet, QueueGoneError
from conveyor.queues.seam import TaskQueue
from conveyor.results import Inbox
from conveyor.slot import Slot
from conveyor.snapshot import Role

THREAD_NOTE = (
    "The iterable raised this, in the thread 'feed', which goes through it: what belongs to the thread that made it, "
    "such as an SQLite connection, must be opened inside the generator."
)


class FeedThread:
    """A thread that the supervisor takes for a process: it has an end to wait for, and an exit code."""

    def __init__(self, work: Callable[[], None]) -> None:
        self.exitcode: int | None = None
        self.sentinel, self._end = os.pipe()
        self._ending = threading.Lock()
        self._thread = threading.Thread(target=self._run, args=(work,), name="feed", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            os.close(self.sentinel)
            os.close(self._end)
            raise

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        finally:
            self.leave(0)

    def leave(self, code: int) -> None:
        """Be ended, as far as the supervisor can tell; the iterable may keep the thread for as long as it likes."""
        with self._ending:
            if self.exitcode is None:
                self.exitcode = code
                os.close(self._end)

    def is_alive(self) -> bool:
        return self.exitcode is None

    def join(self) -> None:
        """Return; it has ended."""

    def close(self) -> None:
        os.close(self.sentinel)


class FeedSlot(Slot):
    """A worker slot with a thread in it."""

    def __init__(
        self,
        name: str,
        iterable: Iterable[object],
        context: Context,
        queue: TaskQueue,
        ledger: Ledger,
        index: int,
        inbox: Inbox,
    ) -> None:
        super().__init__(name, Role.PRODUCER, _no_work, queue, ledger, index, may_restart=False)
        self._iterable = iterable
        self._context = context
        self._inbox = inbox

    def start(self, starter: Starter, capture_output: bool) -> list[int]:
        given = self._queue.outlet(self._index)
        assert isinstance(given, LeasedOutlet)
        outlet = given.detached()
        self._queue.started(self._index)
        self._started_at, self._started = time.time(), time.monotonic()
        try:
            thread = FeedThread(lambda: self._context.run(self._feed, outlet))
        except (OSError, RuntimeError) as error:
            outlet.close()
            raise ConveyorError(f"cannot start a thread for {self.name}: {error}") from error
        self.process, self.pid = thread, os.getpid()  # type: ignore[assignment]
        return [thread.sentinel]

    def _feed(self, outlet: LeasedOutlet) -> None:
        row = self._ledger.rows[self._index]
        interruptions = Interruptions(self._ledger, row, Order.STOP_PRODUCING)

        def refuse(error: ConveyorError) -> None:
            """Have the error raised in the place of a result, and go on as fast as these are read."""
            self._inbox.add_error(error)
            while not self._inbox.wait_for_room(BEAT_SECONDS):
                row.beat(time.monotonic_ns())
                interruptions.check()

        row.enter(State.RUNNING, time.monotonic_ns())
        try:
            Production(outlet, row, interruptions, refuse).run(iter(self._iterable))
        except (StopRequestedError, QueueGoneError):
            pass
        except BaseException as error:  # the iterable's; raised where the results are read
            if not isinstance(error, ConveyorError):
                error.add_note(THREAD_NOTE)
            self._inbox.error = error
        finally:
            outlet.close()
            row.enter(State.FINISHED, time.monotonic_ns())

    def signal(self, number: signal.Signals) -> None:
        """Take a SIGKILL for the end; any other signal is seen when the iterable yields."""
        if number is signal.SIGKILL and isinstance(self.process, FeedThread):
            with contextlib.suppress(OSError):
                self.process.leave(-number)

    def is_stopped(self) -> bool:
        return False

    def is_lingering(self, now_ns: int, grace_seconds: float) -> bool:
        return False


def _no_work(slot: int) -> Any:
    raise NotImplementedError("a feed needs no assignment")  # `FeedSlot.start` starts no process to give it to
