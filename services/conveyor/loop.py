"""The supervisor's one loop: descriptors, timers and wake-ups from other threads, all waited on at once.

Everything registered here runs in the supervisor's thread, so none of it needs a lock.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import heapq
import itertools
import os
import select
import time
from collections.abc import Callable

from conveyor.errors import ConveyorError

Action = Callable[[], None]
MAX_WAIT_SECONDS = 1.0  # /healthz calls the loop stuck after 5 of these without a turn


class Loop:
    """A poll, a heap of timers and a pipe that wakes it."""

    def __init__(self) -> None:
        if not hasattr(select, "epoll"):
            raise ConveyorError("Conveyor needs Linux: this system has no epoll")
        self._epoll = select.epoll()
        self._actions: dict[int, Action] = {}
        self._timers: list[tuple[float, int, Action]] = []
        self._order = itertools.count()
        self._calls: collections.deque[Action] = collections.deque()  # from any thread
        self._after_all: list[Action] = []
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self.watch(self._wake_read, self._swallow)
        self.last_turn = time.monotonic()
        """When the loop last turned; written by its thread, read by /healthz."""

    @property
    def wakeup_descriptor(self) -> int:
        """The end of the pipe that wakes the loop, as `signal.set_wakeup_fd` wants it."""
        return self._wake_write

    def watch(self, descriptor: int, action: Action) -> None:
        """Call `action` whenever the descriptor is readable."""
        self._epoll.register(descriptor, select.EPOLLIN)
        self._actions[descriptor] = action

    def unwatch(self, descriptor: int) -> None:
        """Forget the descriptor, if it is watched."""
        if self._actions.pop(descriptor, None) is not None:
            with contextlib.suppress(OSError):  # it has been closed, and the kernel has forgotten it
                self._epoll.unregister(descriptor)

    def after(self, seconds: float, action: Action) -> None:
        """Call `action` once, that many seconds from now."""
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), action))

    def every(self, seconds: float, action: Action) -> None:
        """Call `action` again and again, that many seconds after it returned."""
        self.after(seconds, functools.partial(self._again, seconds, action))

    def _again(self, seconds: float, action: Action) -> None:
        action()
        self.every(seconds, action)

    def call_soon(self, action: Action) -> None:
        """Call `action` in the loop's next turn. Safe from any thread."""
        self._calls.append(action)
        self.wake()

    def after_all(self, action: Action) -> None:
        """Call `action` at the end of this turn, when all that it brought is known. For the loop's own thread."""
        self._after_all.append(action)

    def wake(self) -> None:
        """End the present wait. Safe from any thread and after `close`."""
        with contextlib.suppress(OSError):  # full: the loop wakes anyway; closed: nobody waits
            os.write(self._wake_write, b"\0")

    def turn(self) -> None:
        """Wait for the next thing to happen and do all that is due."""
        wait_seconds = MAX_WAIT_SECONDS
        if self._timers:
            wait_seconds = min(max(0.0, self._timers[0][0] - time.monotonic()), MAX_WAIT_SECONDS)
        ready = self._epoll.poll(wait_seconds)
        self.last_turn = time.monotonic()
        for descriptor, _ in ready:
            action = self._actions.get(descriptor)  # None if one before it has unwatched it
            if action is not None:
                action()
        while self._calls:
            self._calls.popleft()()
        while self._timers and self._timers[0][0] <= self.last_turn:
            heapq.heappop(self._timers)[2]()
        while self._after_all:
            self._after_all.pop()()

    def close(self) -> None:
        for actions in (self._timers, self._actions, self._calls, self._after_all):
            actions.clear()  # and with them whatever they hold
        self._epoll.close()
        os.close(self._wake_read)
        self._wake_read, descriptor = -1, self._wake_write
        self._wake_write = -1  # a late `wake` must not write into a descriptor that is somebody else's by now
        os.close(descriptor)

    def _swallow(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)
