"""Taking back what processes were given ahead and do not use: items, and room to put. Part of a desk (`desk.py`).

Their limit is lowered; once that is surely seen, what they have claimed meanwhile is theirs and the rest is ours.
They notice when they come to the limit, and ask.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

from conveyor.dropin import page
from conveyor.dropin.member import Books
from conveyor.dropin.turns import Turns


class Recalls:
    """All of one queue."""

    def __init__(self, loop: Turns, books: Books, serve: Callable[[], None]) -> None:
        """Call `serve` when something has come back."""
        self._loop = loop
        self._books = books
        self._members, self._stock, self._room = books.members, books.stock, books.room
        self._serve = serve
        # Who has been stopped from taking, and from putting; the value is the number of the settling that ends it.
        self._recalled: dict[int, int] = {}
        self._limited: dict[int, int] = {}
        self._settling = 0

    def items_are_back(self, number: int) -> None:
        """Take note that a process has asked for items: it knows."""
        self._recalled.pop(number, None)

    def room_is_back(self, number: int) -> None:
        """Take note that a process has asked for room: it knows."""
        self._limited.pop(number, None)

    def forget(self, number: int) -> None:
        """Take note that a process is dead."""
        self._recalled.pop(number, None)
        self._limited.pop(number, None)

    def items(self, after_seconds: float = 0.0) -> bool:
        """Begin to take back what processes have been sent so long ago and have not taken; return whether any has."""
        stopped, until_ns = [], time.monotonic_ns() - after_seconds * 1e9
        for number, member in self._members.items():
            holder = member.holder
            if number not in self._recalled and holder.granted > holder.taken and holder.sent_ns <= until_ns:
                member.words[page.LIMIT] = holder.taken
                stopped.append(number)
        self._settle(self._recalled, stopped)
        return bool(stopped)

    def room(self) -> bool:
        """Begin to take back the room that processes have and do not use; return whether there is any."""
        stopped = []
        for number, member in self._members.items():
            claimed = member.words[page.PUTTING]
            if number not in self._limited and self._room.putters[number].allowed > claimed:
                member.words[page.ROOM] = claimed
                stopped.append(number)
        self._settle(self._limited, stopped)
        return bool(self._limited)

    def _settle(self, those: dict[int, int], stopped: list[int]) -> None:
        if stopped:
            self._settling += 1
            those.update(dict.fromkeys(stopped, self._settling))
            self._loop.after(page.SETTLE_SECONDS, functools.partial(self._settled, self._settling))

    def _settled(self, settling: int) -> None:
        """What we have stopped has surely seen it: what it had claimed before, it has; the rest is ours."""
        self._books.read_all()
        for number in [number for number, mine in self._recalled.items() if mine == settling]:
            del self._recalled[number]
            self._stock.recall(number)
            self._members[number].words[page.LIMIT] = self._members[number].holder.granted
        for number in [number for number, mine in self._limited.items() if mine == settling]:
            del self._limited[number]
            words = self._members[number].words
            self._room.limit(number, words[page.PUTTING])
            words[page.ROOM] = self._room.putters[number].allowed
        self._serve()
