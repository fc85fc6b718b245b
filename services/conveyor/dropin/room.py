"""How many items each process may put: back-pressure for a queue with a `maxsize`. Pure.

A putter is allowed some puts ahead, so that it need not ask for each. What it has not used is called back when
another one has no room. Puts are counted from 1 for each putter: `allowed >= put`.
"""

from __future__ import annotations

from typing import Final

NO_BOUND: Final = 1 << 62


class Putter:
    """One process that puts."""

    __slots__ = ("allowed", "has_asked", "put")

    def __init__(self) -> None:
        self.allowed = 0
        self.put = 0
        self.has_asked = False


class Room:
    """The places of a queue; with a capacity of 0 there is always one."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.putters: dict[int, Putter] = {}
        self.reserved = 0
        """Puts allowed and not made."""

    def join(self, number: int) -> int:
        """Take in a new process; return how many puts it is allowed."""
        putter = self.putters[number] = Putter()
        if not self.capacity:
            putter.allowed = NO_BOUND
        return putter.allowed

    def put(self, number: int, count: int) -> None:
        """Take note of puts."""
        putter = self.putters[number]
        putter.put += count
        if self.capacity:
            self.reserved -= count

    def limit(self, number: int, claimed: int) -> None:
        """Allow a putter no more than it has claimed."""
        putter = self.putters[number]
        allowed = max(min(claimed, putter.allowed), putter.put)  # a claim beyond what is allowed is withdrawn
        if self.capacity:
            self.reserved += allowed - putter.allowed
        putter.allowed = allowed

    def give(self, number: int, size: int) -> int:
        """Allow a putter that has asked its share of the room that is left, in a queue of this size.

        Return how many puts it is allowed in all, or 0 if there is no room.
        """
        putter = self.putters[number]
        putter.has_asked = True
        free = self.capacity - size - self.reserved if self.capacity else NO_BOUND
        if free <= 0:
            return 0
        others = sum(other.has_asked for other in self.putters.values())
        share = max(1, free // others)
        putter.allowed += share
        if self.capacity:
            self.reserved += share
        return putter.allowed

    def bury(self, number: int) -> None:
        """Give a dead process's room to the others."""
        self.limit(number, 0)
        del self.putters[number]
