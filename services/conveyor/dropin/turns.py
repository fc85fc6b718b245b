"""The broker's one loop: descriptors and timers. As `conveyor.loop`, but made for many short turns.

Everything registered here runs in the broker's only thread.
"""

from __future__ import annotations

import heapq
import itertools
import select
import time
from collections.abc import Callable

Action = Callable[[], None]


class Turns:
    """An epoll set and a heap of timers."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._actions: dict[int, Action] = {}
        self._timers: list[tuple[float, int, Action]] = []
        self._order = itertools.count()

    def watch(self, descriptor: int, action: Action) -> None:
        """Call `action` whenever the descriptor is readable."""
        self._actions[descriptor] = action
        self._epoll.register(descriptor, select.EPOLLIN)

    def unwatch(self, descriptor: int) -> None:
        """Forget a descriptor that is watched."""
        del self._actions[descriptor]
        self._epoll.unregister(descriptor)

    def after(self, seconds: float, action: Action) -> None:
        """Call `action` once, that many seconds from now."""
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), action))

    def turn(self) -> None:
        """Wait for the next thing to happen and do all that is due."""
        timers, actions = self._timers, self._actions
        wait = max(0.0, timers[0][0] - time.monotonic()) if timers else -1
        ready = self._epoll.poll(wait)
        if len(ready) == 1:
            actions[ready[0][0]]()
        else:
            for descriptor, action in [(descriptor, actions[descriptor]) for descriptor, _ in ready]:
                if actions.get(descriptor) is action:  # not unwatched by an action before it, nor another's by now
                    action()
        if timers:
            now = time.monotonic()
            while timers and timers[0][0] <= now:
                heapq.heappop(timers)[2]()
