"""`sentinel`: a `multiprocessing.Queue` and one end mark for each consumer.

The end is known by the marks, so the number of consumers is fixed when the producers have ended.
"""

from __future__ import annotations

import contextlib
import queue
import threading

from conveyor.queues.setup import Setup
from conveyor.queues.stdlib import StdlibTaskQueue, semaphores

LOOK_SECONDS = 0.1  # how often one who waits for room looks whether there is still a reason to


class SentinelTaskQueue(StdlibTaskQueue):
    """Tasks, then one `None` for each consumer."""

    kind = "sentinel"

    def __init__(self, setup: Setup) -> None:
        with semaphores(self.kind):
            super().__init__(setup.context.Queue(setup.capacity), setup.capacity)

    def see_through(self, consumers: int, over: threading.Event) -> None:
        missing = consumers
        while missing and not over.is_set():
            with contextlib.suppress(queue.Full):
                self.queue.put(None, timeout=LOOK_SECONDS)
                missing -= 1
