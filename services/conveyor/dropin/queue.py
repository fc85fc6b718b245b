"""`conveyor.Queue` and `conveyor.JoinableQueue`: what `multiprocessing` has, for programs that use its processes.

Called by user code, in any process and thread. A process connects on its first use (`line.py`); what dies with it
is only its own connection.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import weakref
from collections.abc import Iterable
from multiprocessing import context
from typing import Any, Final, Generic, TypeVar

from conveyor.descriptors import Descriptor
from conveyor.dropin import launch
from conveyor.dropin.exchange import ShutDown
from conveyor.dropin.line import Line
from conveyor.dropin.packing import Buffers, Packer, pieces_of, write_large
from conveyor.dropin.ring import LARGE_BYTES

__all__ = ["JoinableQueue", "Queue", "ShutDown"]

T = TypeVar("T")
_now: Final = time.monotonic

_queues: weakref.WeakSet[Queue[Any]] = weakref.WeakSet()
_watches_forks = False


class Queue(Generic[T]):
    """A queue between processes, as `multiprocessing.Queue`, that no death can break.

    `put` returns once the item is accepted: from then on it is there, whatever becomes of this process. What cannot
    be pickled raises in `put`. A process that dies leaves the items that it had not got to the others; every other
    process goes on. When the process that made the queue ends, whoever uses it gets `QueueLostError`.
    """

    _is_joinable = False

    def __init__(self, maxsize: int = 0, *, ctx: object = None) -> None:
        """Make a queue of at most `maxsize` waiting items; 0 or less is no bound. `ctx` is not needed."""
        maxsize = max(0, maxsize)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            launch.register(theirs, maxsize)
        self._set_up(Descriptor(ours.detach()), maxsize)

    def _set_up(self, door: Descriptor, maxsize: int) -> None:
        self._door = door
        self._close_door = weakref.finalize(self, os.close, door.number)
        self._close_door.atexit = False
        self.maxsize = maxsize
        self._closed = False
        self._was_used = False
        self._line: Line | None = None
        self._connecting = threading.RLock()
        self._packer = Packer()
        _watch_forks()
        _queues.add(self)

    def __getstate__(self) -> tuple[Descriptor, int]:
        context.assert_spawning(self)
        return self._door, self.maxsize

    def __setstate__(self, state: tuple[Descriptor, int]) -> None:
        os.set_inheritable(state[0].number, False)
        self._set_up(*state)

    # -- what multiprocessing has --------------------------------------------------------------------------

    def put(self, obj: T, block: bool = True, timeout: float | None = None) -> None:
        """Put an item. Raises `queue.Full`, `ShutDown`, `ValueError` if closed, and whatever pickling it raises."""
        if self._closed:
            raise ValueError(f"Queue {self!r} is closed")
        line = self._line or self._connect()
        deadline = None if block and timeout is None else _deadline(block, timeout)
        if type(obj) is bytes and len(obj) >= LARGE_BYTES:  # type: ignore[arg-type]
            self._put_large(line, pieces_of(obj), [], deadline)  # type: ignore[arg-type]
            return
        data, buffers = self._packer.pack(obj)
        if len(data) < LARGE_BYTES and not buffers:
            line.put(data, deadline)
        else:
            self._put_large(line, [data], buffers, deadline)

    def get(self, block: bool = True, timeout: float | None = None) -> T:
        """Return the next item. Raises `queue.Empty`, `ShutDown`, and `ValueError` if closed."""
        if self._closed:
            raise ValueError(f"Queue {self!r} is closed")
        line = self._line or self._connect()
        return line.get(None if block and timeout is None else _deadline(block, timeout))  # type: ignore[no-any-return]

    def put_nowait(self, obj: T) -> None:
        """Put an item if there is room now, or raise `queue.Full`."""
        self.put(obj, False)

    def get_nowait(self) -> T:
        """Return an item if there is one now, or raise `queue.Empty`."""
        return self.get(False)

    def qsize(self) -> int:
        """Return how many items wait: put, and not got by anybody. Exact, on every system."""
        return self._connected().numbers().size

    def empty(self) -> bool:
        """Return whether no item waits. Raises `OSError` if the queue has been used and closed here."""
        if self._closed:
            if self._was_used:
                raise OSError(f"Queue {self!r} is closed")
            return True
        return not self.qsize()

    def full(self) -> bool:
        """Return whether no item could be put now."""
        return 0 < self.maxsize <= self.qsize()

    def close(self) -> None:
        """Say that this process puts and gets no more."""
        self._closed = True

    def join_thread(self) -> None:
        """Do nothing: there is no thread, and what was put is safe already."""
        assert self._closed, f"Queue {self!r} not closed"

    def cancel_join_thread(self) -> None:
        """Do nothing: this process does not wait for anything when it ends."""

    # -- what it has besides -------------------------------------------------------------------------------

    def put_many(self, iterable: Iterable[T]) -> None:
        """Put each item of the iterable, waiting for room where there is none."""
        if self._closed:
            raise ValueError(f"Queue {self!r} is closed")
        for obj in iterable:
            self.put(obj)

    def get_many(self, max: int, block: bool = True, timeout: float | None = None) -> list[T]:
        """Return at most `max` items: all that can be had without waiting, once there is one.

        Raises what `get` raises if there is none at all.
        """
        if self._closed:
            raise ValueError(f"Queue {self!r} is closed")
        if max <= 0:
            return []
        return self._connected().get_many(None if block and timeout is None else _deadline(block, timeout), max)

    def shutdown(self, immediate: bool = False) -> None:
        """Let every `put`, and every `get` that finds the queue empty, raise `ShutDown`, in all processes.

        With `immediate`, drop all that waits and count it as done. As `queue.Queue.shutdown` of Python 3.13.
        """
        self._connected().shut(immediate)

    @property
    def is_shutdown(self) -> bool:
        return self._connected().numbers().is_shut

    # -- inside --------------------------------------------------------------------------------------------

    def _connected(self) -> Line:
        return self._line or self._connect()

    def _connect(self) -> Line:
        with self._connecting:
            if self._line is None:
                with socket.socket(fileno=os.dup(self._door.number)) as door:
                    line = Line(door, self._is_joinable)
                if self._line is None:  # else a signal's handler has connected, and may hold items
                    self._line = line
                self._was_used = True
            return self._line

    def _put_large(self, line: Line, pieces: list[bytes], buffers: Buffers, deadline: float | None) -> None:
        memory = write_large(pieces, buffers)
        try:
            line.put_large(memory, deadline)
        finally:
            os.close(memory)

    def _after_fork(self) -> None:
        """Connect anew in a forked child; the parent's connection stays the parent's."""
        self._line = None
        self._was_used = False
        self._connecting = threading.RLock()


class JoinableQueue(Queue[T]):
    """A queue that knows what is unfinished, as `multiprocessing.JoinableQueue`, and loses nothing.

    An item is unfinished until `task_done` is called for it. What a process has got and not marked as done when it
    dies, in whichever way, is put back at the front of the queue, and somebody else gets it.
    """

    _is_joinable = True

    def task_done(self) -> None:
        """Mark an item as done: of those that this thread has got, the oldest.

        A thread that has none speaks for another one of its process, and a process that has none for another process.
        As it is not known then which item is done, a death may have more of them done again, rather than lose one.
        Raises `ValueError` if nothing is unfinished.
        """
        self._connected().done()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until every item that was put is done; return False if that did not come about within the time."""
        return self._connected().join(None if timeout is None else _now() + timeout)

    def unfinished(self) -> int:
        """Return how many items are put and not done."""
        return self._connected().numbers().unfinished

    @property
    def unfinished_tasks(self) -> int:
        """The same, under the name that it has in `queue.Queue`."""
        return self.unfinished()


def _deadline(block: bool, timeout: float | None) -> float:
    if not block or timeout is None or timeout <= 0:
        return 0
    return _now() + timeout


def _watch_forks() -> None:
    global _watches_forks
    if not _watches_forks:
        _watches_forks = True
        os.register_at_fork(after_in_child=_forget_parent)


def _forget_parent() -> None:
    launch.forget()
    for each in list(_queues):
        each._after_fork()
