"""A run whose results are wanted: an iterator over what the consumers' functions return.

`Pipeline.results` and `imap_unordered` make one. The supervisor turns in a thread of its own, so it goes on whatever
the reader does between two results; a reader that is slow is waited for, because leases stop while too many results lie
unread.
"""

from __future__ import annotations

import collections
import os
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

from conveyor import outcomes
from conveyor.errors import ConveyorError, RunBrokenError, TaskDiedError
from conveyor.queues.seam import Casualty
from conveyor.report import Report
from conveyor.snapshot import Ending

MAX_UNREAD = 1000  # results; arbitrary, as many as tasks that wait by default
MAX_UNREAD_BYTES = 64 << 20


class Inbox:
    """Results between the supervisor's thread, which adds them, and the reader's."""

    def __init__(self) -> None:
        self.has_room = True
        self.on_room: Callable[[], None] = lambda: None
        """Called when there is room again, in the reader's thread."""
        self.error: BaseException | None = None
        """What ended the run, or the tasks, too early: to be raised after the last result."""
        self.report: Report | None = None
        # The supervisor's thread adds, the reader's takes all at once and goes through them at its leisure.
        self._outcomes: list[bytes | ConveyorError] = []
        self._at_hand: collections.deque[bytes | ConveyorError] = collections.deque()
        self._bytes = 0
        self._is_over = False
        self._pid = os.getpid()
        lock = threading.Lock()
        self._changed, self._freed = threading.Condition(lock), threading.Condition(lock)

    def add(self, results: list[bytes]) -> None:
        with self._changed:
            self._outcomes += results
            self._bytes += sum(map(len, results))
            self._added()

    def add_dead_letter(self, casualty: Casualty) -> None:
        died = f"the task {casualty.task} was in the hands of {casualty.attempt} workers that died: given up"
        self.add_error(TaskDiedError(died))

    def add_error(self, error: ConveyorError) -> None:
        """Have this raised in the place of a result."""
        with self._changed:
            self._outcomes.append(error)
            self._added()

    def _added(self) -> None:
        unread = len(self._outcomes) + len(self._at_hand)
        self.has_room = unread < MAX_UNREAD and self._bytes < MAX_UNREAD_BYTES
        self._changed.notify()

    def wait_for_room(self, timeout_seconds: float) -> bool:
        """Return whether more are wanted, or none at all any more, within the time."""
        with self._freed:
            return self._freed.wait_for(lambda: self.has_room or self._is_over, timeout_seconds)

    def close(self) -> None:
        """Forget the run, which ends: who holds the results holds nothing of it."""
        self.on_room = lambda: None

    def end(self) -> None:
        """Let the reader know that no more will come."""
        with self._changed:
            self._is_over = True
            self._changed.notify_all()
            self._freed.notify_all()

    def take(self) -> bytes | ConveyorError | None:
        """Return the next one, or None at the end. Blocks."""
        if not self._at_hand and not self._refill():
            return None
        outcome = self._at_hand.popleft()
        if not self.has_room and len(self._at_hand) <= MAX_UNREAD // 2:
            self._make_room()
        return outcome

    def _refill(self) -> bool:
        if os.getpid() != self._pid:  # its lock may be held here for ever by a thread that the fork has not copied
            raise RunBrokenError(
                "results can be read only in the process that began the run, not in one forked from it"
            )
        with self._changed:
            while not self._outcomes:
                if self._is_over:
                    return False
                self._changed.wait()
            self._at_hand.extend(self._outcomes)
            self._outcomes, self._bytes = [], 0
        return True

    def _make_room(self) -> None:
        """Have the run go on, if that is what it waits for."""
        with self._changed:
            self.has_room = len(self._outcomes) <= MAX_UNREAD // 2 and self._bytes <= MAX_UNREAD_BYTES // 2
            self._freed.notify_all()
        if self.has_room:
            self.on_room()


class Results(Iterator[Any]):
    """Yields results in the order in which tasks are done. Use it in a `for`, or in a `with` to be sure of its end.

    A task that raised raises here, with the remote traceback as the cause, and the next `next()` goes on; so does one
    that was given up because its workers died (`TaskDiedError`), and an item that cannot be pickled
    (`TaskNotPicklableError`). After the last result `RunBrokenError` is raised if
    the run could not do all of its work.
    """

    def __init__(self, run: Callable[[], Report], inbox: Inbox, stop: Callable[[], None]) -> None:
        """Start `run` in a thread; it fills the inbox, and ends when `stop` is called."""
        self._inbox = inbox
        self._stop = stop
        self._is_closed = False
        # It must not know of us: who drops this iterator without another word ends the run.
        self._thread = threading.Thread(target=_supervise, args=(run, inbox), name="supervisor", daemon=True)
        self._thread.start()

    @property
    def report(self) -> Report | None:
        """What the run came to, once it has ended."""
        return self._inbox.report

    def __next__(self) -> Any:
        if self._is_closed:
            raise StopIteration
        outcome = self._inbox.take()
        error: BaseException | None = None
        try:
            if isinstance(outcome, ConveyorError):
                raise outcome
            if outcome is not None:
                return outcomes.value_of(outcome)
            self._thread.join()
            error, self._inbox.error = self._inbox.error, None  # raised once
            if error is not None:
                raise error
        finally:
            del outcome, error  # else an error holds this frame, which holds the error, and both the run
        raise StopIteration

    def close(self) -> None:
        """Stop the run, if it goes on, and wait for the end of its processes. What is unread is dropped."""
        self._is_closed = True
        if self._thread.is_alive():
            self._stop()
            self._thread.join()

    def __enter__(self) -> Results:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if threading.current_thread() is not self._thread:
            self.close()


def _supervise(run: Callable[[], Report], inbox: Inbox) -> None:
    """Run, and tell the inbox of the end. In a thread of its own."""
    try:
        report = inbox.report = run()
        if report.ending is not Ending.DRAINED and (report.trouble or report.unfinished):
            inbox.error = inbox.error or RunBrokenError(report.trouble or f"{report.unfinished} tasks were not done")
    except BaseException as error:  # for the reader: it is raised there
        inbox.error = error
    finally:
        inbox.end()
