"""`sentinel`: a `multiprocessing.Queue` and one end mark for each consumer.

The end is known by the marks, so the number of consumers is fixed when the producers have ended.
"""

from __future__ import annotations

from multiprocessing.context import BaseContext

from conveyor.queues.stdlib import StdlibTaskQueue


class SentinelTaskQueue(StdlibTaskQueue):
    """Tasks, then one `None` for each consumer."""

    kind = "sentinel"

    def __init__(self, maxsize: int, context: BaseContext) -> None:
        super().__init__(context.Queue(maxsize), maxsize)

    def see_through(self, consumers: int) -> None:
        for _ in range(consumers):
            self.queue.put(None)
