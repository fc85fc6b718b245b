"""`joinable`: a `multiprocessing.JoinableQueue`, whose count of unfinished tasks tells the end.

Consumers may be any number; they never learn of the end and are stopped once the count is 0.
"""

from __future__ import annotations

import threading
from multiprocessing.queues import JoinableQueue

from conveyor.queues.seam import Failure, Intake, Lease
from conveyor.queues.setup import Setup
from conveyor.queues.stdlib import Message, StdlibIntake, StdlibTaskQueue, semaphores


class JoinableIntake(StdlibIntake):
    """A consumer's end that marks each task as done."""

    __slots__ = ()

    queue: JoinableQueue[Message]

    def report(self, lease: Lease, done: int, failure: Failure | None, took_ns: int) -> None:
        self.queue.task_done()


class JoinableTaskQueue(StdlibTaskQueue):
    """Tasks, each followed by `task_done()`; the end is when `join()` returns."""

    kind = "joinable"
    queue: JoinableQueue[Message]

    def __init__(self, setup: Setup) -> None:
        with semaphores(self.kind):
            super().__init__(setup.context.JoinableQueue(setup.capacity), setup.capacity)

    def intake(self, slot: int) -> Intake:
        return JoinableIntake(self.queue)

    def see_through(self, consumers: int, over: threading.Event) -> None:
        self.queue.join()
