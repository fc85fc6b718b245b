"""CPython's own tests of its queues, with ours in their place. Run in a process of its own, by start method:

    python -c 'from support import cpython; cpython.main("spawn")'

`CONFLICTS` are the tests that ask for what we promise not to do; docs/architecture.md has the reasons.
"""

from __future__ import annotations

import multiprocessing
import queue
import sys
import types
import unittest
from typing import Any

from test import _test_multiprocessing, test_queue

import conveyor

CONFLICTS = {
    "test_queue_feeder_donot_stop_onexc": "put raises what pickling raises; there is no feeder thread to go on",
    "test_queue_feeder_on_queue_feeder_error": "the hook belongs to the feeder thread, and there is none",
    "test_negative_timeout_raises_exception": "of queue.Queue; in multiprocessing, whose place we take, that time is over",
}


class _Multiprocessing(types.ModuleType):
    """`multiprocessing` as these tests see it."""

    Queue = staticmethod(conveyor.Queue)
    JoinableQueue = staticmethod(conveyor.JoinableQueue)

    def __getattr__(self, name: str) -> Any:
        return getattr(multiprocessing, name)


_test_multiprocessing.multiprocessing = _Multiprocessing("multiprocessing")


class TestQueueOfMultiprocessing(
    _test_multiprocessing._TestQueue, _test_multiprocessing.ProcessesMixin, unittest.TestCase
):  # type: ignore[misc,name-defined]
    """`_TestQueue`, as `test_multiprocessing_fork` and its like install it."""

    Queue = staticmethod(conveyor.Queue)
    JoinableQueue = staticmethod(conveyor.JoinableQueue)


class Queue(conveyor.JoinableQueue[Any]):
    """Under the name by which the tests know the order of items."""


class TestQueueOfThreads(test_queue.BaseQueueTestMixin, unittest.TestCase):  # type: ignore[misc,name-defined]
    """`QueueTest`: the queue of threads."""

    queue = types.SimpleNamespace(Empty=queue.Empty, Full=queue.Full, ShutDown=conveyor.ShutDown)

    def setUp(self) -> None:
        self.type2test = Queue
        super().setUp()


def main(start_method: str, *names: str) -> None:
    if start_method != "threads":
        multiprocessing.set_start_method(start_method, force=True)
    case = TestQueueOfThreads if start_method == "threads" else TestQueueOfMultiprocessing
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(case)
    for test in suite:
        if test._testMethodName in CONFLICTS:
            setattr(test, test._testMethodName, unittest.skip(CONFLICTS[test._testMethodName])(lambda: None))
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    sys.exit(not result.wasSuccessful())
