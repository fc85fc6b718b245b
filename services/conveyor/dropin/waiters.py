"""Who waits for items, for room, or for everything to be done, and how they are served. Part of a desk (`desk.py`).

Everybody who waits is in one of three lists, the longest first, and is told as soon as there is something to tell.
"""

from __future__ import annotations

import os
import time
from typing import NamedTuple, Protocol

from conveyor.dropin import page, talk
from conveyor.dropin.member import Books, Member
from conveyor.dropin.recalls import Recalls
from conveyor.dropin.runs import Run
from conveyor.dropin.talk import Kind, Outcome

OVERDUE_SECONDS = 0.01  # who has not taken what was sent so long ago is stuck: it was work for a tenth of that


class Waiter(NamedTuple):
    """A process that waits for items or for room."""

    request: int
    is_try: bool
    """Whether it wants to know at once."""
    most: int = 1
    """How many items it wishes for."""


class Host(Protocol):
    """What we need of the desk."""

    def send(self, member: Member, head: bytes, descriptor: int = -1, runs: list[Run] | None = None) -> None:
        """Send to a process."""

    def look(self) -> None:
        """Serve again in a moment."""

    def bury_the_dead(self) -> None:
        """Notice every death that has happened by now."""


class Waiters:
    """All of one queue."""

    def __init__(self, host: Host, books: Books, recalls: Recalls) -> None:
        self._host = host
        self._books = books
        self._recalls = recalls
        self.getters: dict[int, Waiter] = {}
        self.putters: dict[int, Waiter] = {}
        self.joiners: dict[tuple[int, int], None] = {}
        """Number and request."""
        self._bells = 0
        self.is_eager = False
        """Whether everybody is asked to tell when it has finished what it has."""

    def forget(self, number: int) -> None:
        """Take note that a process is dead."""
        self.getters.pop(number, None)
        self.putters.pop(number, None)
        for key in [key for key in self.joiners if key[0] == number]:
            del self.joiners[key]

    def serve(self) -> None:
        """Tell everybody what can be told now; the books are up to date."""
        if self.getters:
            self._grant()
        if self.putters:
            self._make_room()
        if self.joiners or self.is_eager:
            self._release_joiners()
        self._set_bells()

    def call_back(self) -> None:
        """Begin to take back what those who wait could use, where nobody has used it for a moment."""
        stock = self._books.stock
        if self.getters and not stock.waiting_items:
            self._recalls.items()
        if self.putters and not stock.is_shut:
            self._recalls.room()
            self._recalls.items(OVERDUE_SECONDS)

    def _grant(self) -> None:
        stock = self._books.stock
        if stock.untaken_items and self._recalls.items(OVERDUE_SECONDS):
            return  # in a moment; what came first goes first
        if not stock.waiting_items and any(getter.is_try for getter in self.getters.values()):
            self._host.bury_the_dead()
        for number, (request, is_try, most) in list(self.getters.items()):
            if stock.waiting_items:
                del self.getters[number]
                self._send_items(self._books.members[number], request, stock.grant(number, most, time.monotonic_ns()))
            elif stock.untaken_items:  # somebody else has some and does not take them
                if is_try:
                    self._recalls.items()
                else:
                    self._host.look()
            elif is_try or stock.is_shut:
                del self.getters[number]
                outcome = Outcome.SHUT_DOWN if stock.is_shut else Outcome.REFUSED
                self._host.send(self._books.members[number], talk.write(Kind.NO_ITEMS, request, outcome))

    def _send_items(self, member: Member, request: int, runs: list[Run]) -> None:
        parcel = runs[0].parcel
        member.words[page.LIMIT] = member.holder.granted
        head = talk.write(Kind.ITEMS, request, member.holder.sent, parcel is not None)
        if parcel is not None:
            descriptor = parcel.descriptor()
            try:
                self._host.send(member, head, descriptor)
            finally:
                os.close(descriptor)
        else:
            self._host.send(member, head, runs=runs)

    def _make_room(self) -> None:
        for number, (request, is_try, _) in list(self.putters.items()):
            if self._books.stock.is_shut:
                outcome = Outcome.SHUT_DOWN
            elif allowed := self._books.room.give(number, self._books.stock.size):
                self._books.members[number].words[page.ROOM] = allowed
                outcome = Outcome.OK
            elif is_try and not self._recalls.room():
                outcome = Outcome.REFUSED
            else:
                continue
            del self.putters[number]
            self._host.send(self._books.members[number], talk.write(Kind.ROOM_ANSWER, request, outcome))
        if self.putters and (self._books.stock.untaken_items or self._books.room.reserved > 0):
            self._host.look()  # what is taken makes room, and nobody tells us

    def _release_joiners(self) -> None:
        if self.joiners and not self._books.stock.unfinished:
            self._host.bury_the_dead()  # what comes back is unfinished
        if self.joiners and not self._books.stock.unfinished:
            for number, request in self.joiners:
                self._host.send(self._books.members[number], talk.write(Kind.ANSWER, request, Outcome.OK))
            self.joiners.clear()
        if bool(self.joiners) != self.is_eager:
            self.is_eager = bool(self.joiners)
            for member in self._books.members.values():
                member.words[page.EAGER] = self.is_eager
            if self.is_eager:
                self._host.look()

    def _set_bells(self) -> None:
        """Have the next put of anybody wake us if somebody waits for it."""
        if not self.getters:
            for member in self._books.members.values():
                if member.bell:
                    member.bell = member.words[page.BELL] = 0
            return
        for member in self._books.members.values():
            if not member.bell:
                self._bells += 1
                member.bell = member.words[page.BELL] = self._bells
                self._host.look()
