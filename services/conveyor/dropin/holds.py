"""What each thread of a process has got from a `JoinableQueue` and not marked as done. Called by `line.py`.

`task_done` has no argument. The thread that calls it tells most: it has mostly got the item itself.
"""

from __future__ import annotations

import threading

Held = list[int]
"""Numbers of items, as the start and the end of one range or more, the oldest first. Only the first may be empty."""


class Holds:
    """Those of all threads. The items of a thread that is over stay until they are marked as done."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._all: list[tuple[threading.Thread, Held]] = []

    def add(self, held: Held) -> None:
        """Take in another thread's, and forget those of threads that are over and have left nothing."""
        with self._lock:
            self._all = [(thread, each) for thread, each in self._all if has_items(each) or thread.is_alive()]
            self._all.append((threading.current_thread(), held))

    def oldest(self) -> Held | None:
        """Return the one with the oldest item."""
        return min((held for _, held in self._all if has_items(held)), key=lambda held: held[0], default=None)


class Hold(threading.local):
    """The calling thread's."""

    def __init__(self, holds: Holds) -> None:
        """Begin with nothing. Called in each thread, on its first use."""
        self.items: Held = [0, 0]
        holds.add(self.items)


def has_items(held: Held) -> bool:
    """Return whether there is any; its number is the first one then."""
    if held[0] == held[1] and len(held) > 2:
        del held[:2]
    return held[0] != held[1]
