"""CPython's own tests of its queues, with ours in their place. Run in a process of its own, by start method:

    python -c 'from support import cpython; cpython.main("spawn")'

`CONFLICTS` are the tests that ask for what we promise not to do; docs/architecture.md has the reasons.
"""

from __future__ import annotations

import importlib
import multiprocessing
import queue
import sys
import types
import unittest
from typing import Any

import conveyor

_test_multiprocessing: Any = importlib.import_module("test._test_multiprocessing")
test_queue: Any = importlib.import_module("test.test_queue")

CONFLICTS = {
    "test_queue_feeder_donot_stop_onexc": "put raises what pickling raises; there is no feeder thread to go on",
    "test_queue_feeder_on_queue_feeder_error": "the hook belongs to the feeder thread, and there is none",
    "test_negative_timeout_raises_exception": "queue.Queue's; in multiprocessing a negative time is over",
}


class _Multiprocessing(types.ModuleType):
    """`multiprocessing` as these tests see it."""

    Queue: Any = staticmethod(conveyor.Queue)
    JoinableQueue: Any = staticmethod(conveyor.JoinableQueue)

    def __getattr__(self, name: str) -> Any:
        return getattr(multiprocessing, name)


_test_multiprocessing.multiprocessing = _Multiprocessing("multiprocessing")


class TestQueueOfMultiprocessing(
    _test_multiprocessing._TestQueue,  # type: ignore[misc]
    _test_multiprocessing.ProcessesMixin,  # type: ignore[misc]
    unittest.TestCase,
):
    """`_TestQueue`, as `test_multiprocessing_fork` and its like install it."""

    Queue: Any = staticmethod(conveyor.Queue)
    JoinableQueue: Any = staticmethod(conveyor.JoinableQueue)


class Queue(conveyor.JoinableQueue[Any]):
    """Under the name by which the tests know the order of items."""


class TestQueueOfThreads(test_queue.BaseQueueTestMixin, unittest.TestCase):  # type: ignore[misc]
    """`QueueTest`: the queue of threads."""

    queue = types.SimpleNamespace(Empty=queue.Empty, Full=queue.Full, ShutDown=conveyor.ShutDown)

    def setUp(self) -> None:
        self.type2test = Queue
        super().setUp()


def main(start_method: str) -> None:
    """Run them by a start method, or those of the queue of threads by `threads`."""
    case: type[unittest.TestCase] = TestQueueOfThreads
    if start_method != "threads":
        multiprocessing.set_start_method(start_method, force=True)
        case = TestQueueOfMultiprocessing
    for name, reason in CONFLICTS.items():
        if hasattr(case, name):
            setattr(case, name, unittest.skip(reason)(getattr(case, name)))
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(case)
    sys.exit(not unittest.TextTestRunner(verbosity=2).run(suite).wasSuccessful())
