"""The broker's side of one queue: its sockets, and who waits for what. What decides is pure: `stock.py`, `room.py`.

Called in the broker's loop and nowhere else. A client's death is the end of its process, or of its socket where the
kernel does not tell of the process; what the client had comes back, and nobody else has to do anything.
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
import socket
import time
from collections.abc import Callable, Iterable

from conveyor.dropin import page, talk
from conveyor.dropin.member import Member
from conveyor.dropin.recalls import Recalls
from conveyor.dropin.room import Room
from conveyor.dropin.runs import Run
from conveyor.dropin.stock import Stock
from conveyor.dropin.talk import Kind, Outcome
from conveyor.loop import Loop

_READ = socket.MSG_DONTWAIT
OVERDUE_SECONDS = 0.01  # who has not taken what was sent so long ago is stuck: it was work for a tenth of that


class Desk:
    """One queue."""

    def __init__(self, loop: Loop, door: socket.socket, capacity: int, ended: Callable[[Desk], None]) -> None:
        self._loop = loop
        self._door = door
        self._is_open = True
        self._ended = ended
        self._stock = Stock(capacity)
        self._room = Room(capacity)
        self._members: dict[int, Member] = {}
        self._number = 0
        self._deaths = select.poll()
        # Who waits, the longest first; the value says whether it wants to know at once.
        self._getters: dict[int, tuple[bool, int]] = {}
        self._putters: dict[int, bool] = {}
        self._joiners: dict[tuple[int, int], None] = {}
        self._bells = 0
        self._is_eager = False
        self._recalls = Recalls(loop, self._members, self._stock, self._room, self._read_all, self._serve)
        self._looks = 0
        loop.watch(door.fileno(), self._on_door)

    # -- processes come and go -----------------------------------------------------------------------------

    def _on_door(self) -> None:
        try:
            data, descriptors = talk.receive(self._door, 16, _READ)
        except BlockingIOError:
            return
        if len(descriptors) == 2:
            self._welcome(socket.socket(fileno=descriptors[0]), descriptors[1])
            return
        for descriptor in descriptors:  # a process that was short of descriptors
            os.close(descriptor)
        if not data:  # nobody has the other end any more
            self._loop.unwatch(self._door.fileno())
            self._door.close()
            self._is_open = False
            self._end_if_left()

    def _welcome(self, line: socket.socket, memory: int) -> None:
        line.setblocking(False)
        line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * talk.MAX_BYTES)
        self._number += 1
        try:
            member = Member(self._number, line, memory, self._stock.join(self._number))
        finally:
            os.close(memory)
        self._members[member.number] = member
        allowed = self._room.join(member.number)
        member.words[page.ROOM] = 0 if self._stock.is_shut else allowed
        member.words[page.EAGER] = self._is_eager
        self._loop.watch(line.fileno(), functools.partial(self._on_member, member))
        if member.process >= 0:
            self._loop.watch(member.process, functools.partial(self._bury, member))
            self._deaths.register(member.process, select.POLLIN)
        self._send(member, talk.write(Kind.WELCOME))
        self._serve()

    def _bury(self, member: Member) -> None:
        """See to what a process has left behind."""
        if not self._is_here(member):
            return
        with contextlib.suppress(OSError):
            while self._read_message(member):
                pass
        self._read_words(member)
        number = member.number
        del self._members[number]
        if self._stock.bury(number):
            self._recalls.items()  # so that what comes back comes before what others have been sent and not taken
        self._room.bury(number)
        self._getters.pop(number, None)
        self._putters.pop(number, None)
        self._recalls.forget(number)
        for key in [key for key in self._joiners if key[0] == number]:
            del self._joiners[key]
        self._loop.unwatch(member.line.fileno())
        if member.process >= 0:
            self._loop.unwatch(member.process)
            self._deaths.unregister(member.process)
        member.close()
        self._serve()
        self._end_if_left()

    def _bury_the_dead(self) -> None:
        """Notice every death that has happened by now: before we tell somebody how things are."""
        dead = {descriptor for descriptor, _ in self._deaths.poll(0)}
        for member in [member for member in self._members.values() if member.process in dead]:
            self._bury(member)

    def _is_here(self, member: Member) -> bool:
        return self._members.get(member.number) is member

    def _end_if_left(self) -> None:
        if not self._is_open and not self._members:
            self._ended(self)

    # -- what they say -------------------------------------------------------------------------------------

    def _on_member(self, member: Member) -> None:
        if not self._is_here(member):
            return
        try:
            alive = self._read_message(member)
        except BlockingIOError:
            return
        except ConnectionError:
            alive = False
        if alive:
            self._serve()
        else:
            self._bury(member)

    def _read_message(self, member: Member) -> bool:
        """Handle one message; return False at the end."""
        data = member.backlog.popleft() if member.backlog else member.receive()
        if not data:
            return False
        self._handle(member, talk.read(data))
        return True

    def _handle(self, member: Member, message: talk.Message) -> None:
        number = member.number
        match message.kind:
            case Kind.BELL:
                member.bell = member.words[page.BELL] = 0
            case Kind.WANT | Kind.TRY:
                self._recalls.items_are_back(number)
                self._stock.ask(number, message.first, time.monotonic_ns())
                self._getters[number] = message.kind == Kind.TRY, message.second
            case Kind.DROP_WANT:
                if self._getters.pop(number, None):
                    self._send(member, talk.write(Kind.NO_ITEMS, first=Outcome.REFUSED))
            case Kind.ROOM | Kind.TRY_ROOM:
                self._recalls.room_is_back(number)
                self._read_words(member)
                self._room.limit(number, 0)  # it has used all that it was allowed
                self._putters[number] = message.kind == Kind.TRY_ROOM
            case Kind.DROP_ROOM:
                if self._putters.pop(number, None) is not None:
                    self._send(member, talk.write(Kind.ROOM_ANSWER, first=Outcome.REFUSED))
            case Kind.JOIN:
                self._joiners[number, message.number] = None
            case Kind.DROP_JOIN:
                if (number, message.first) in self._joiners:
                    del self._joiners[number, message.first]
                    self._send(member, talk.write(Kind.ANSWER, message.first, Outcome.REFUSED))
            case Kind.ASK | Kind.FINISH | Kind.SHUT:
                self._answer(member, message)

    def _answer(self, member: Member, message: talk.Message) -> None:
        self._bury_the_dead()
        self._read_all()
        stock, extra, outcome = self._stock, b"", Outcome.OK
        if message.kind == Kind.ASK:
            extra = talk.write_numbers(talk.Numbers(stock.size, stock.unfinished, stock.is_shut))
        elif message.kind == Kind.FINISH:
            outcome = Outcome.OK if stock.finish_for_another() else Outcome.REFUSED
        else:
            self._shut(member, message.number, at_once=bool(message.first))
            return
        self._send(member, talk.write(Kind.ANSWER, message.number, outcome) + extra)

    def _read_all(self) -> None:
        for member in self._members.values():
            self._read_words(member)

    def _read_words(self, member: Member) -> None:
        """Take in what a process has put, taken and done."""
        words, number = member.words, member.number
        for run in member.read_ring():
            self._stock.accept(run)
            self._room.put(number, run.count)
        if member.backlog:
            self._loop.after(0.0, functools.partial(self._on_member, member))
        holder = member.holder
        taken, done = words[page.TAKING], words[page.DONE]
        if taken != holder.taken or done + holder.foreign != holder.done:
            self._stock.advance(number, taken, done)

    # -- what they are told --------------------------------------------------------------------------------

    def _serve(self) -> None:
        """Do all that can be done now."""
        self._read_all()
        if self._getters:
            self._grant()
        if self._putters:
            self._make_room()
        if self._joiners or self._is_eager:
            self._release_joiners()
        self._set_bells()

    def _grant(self) -> None:
        stock = self._stock
        if stock.untaken_items and self._recalls.items(OVERDUE_SECONDS):
            return  # in a moment; what came first goes first
        if not stock.waiting_items and any(is_try for is_try, _ in self._getters.values()):
            self._bury_the_dead()
        for number, (is_try, most) in list(self._getters.items()):
            if stock.waiting_items:
                del self._getters[number]
                self._send_items(self._members[number], stock.grant(number, most, time.monotonic_ns()))
            elif stock.untaken_items:  # somebody else has some and does not take them
                if is_try:
                    self._recalls.items()
                else:
                    self._look()
            elif is_try or stock.is_shut:
                del self._getters[number]
                outcome = Outcome.SHUT_DOWN if stock.is_shut else Outcome.REFUSED
                self._send(self._members[number], talk.write(Kind.NO_ITEMS, first=outcome))

    def _send_items(self, member: Member, runs: list[Run]) -> None:
        count = sum(run.count for run in runs)
        member.words[page.LIMIT] = member.holder.granted
        head = talk.write(Kind.ITEMS, first=count)
        if runs[0].parcel is not None:
            descriptor = runs[0].parcel.descriptor()
            try:
                self._send(member, head, descriptor)
            finally:
                os.close(descriptor)
        else:
            self._send(member, head, views=[run.view() for run in runs])

    def _make_room(self) -> None:
        for number, is_try in list(self._putters.items()):
            if self._stock.is_shut:
                outcome = Outcome.SHUT_DOWN
            elif allowed := self._room.give(number, self._stock.size):
                self._members[number].words[page.ROOM] = allowed
                outcome = Outcome.OK
            elif is_try and not self._recalls.room():
                outcome = Outcome.REFUSED
            else:
                continue
            del self._putters[number]
            self._send(self._members[number], talk.write(Kind.ROOM_ANSWER, first=outcome))
        if self._putters and (self._stock.untaken_items or self._room.reserved > 0):
            self._look()  # what is taken makes room, and nobody tells us

    def _release_joiners(self) -> None:
        if self._joiners and not self._stock.unfinished:
            self._bury_the_dead()  # what comes back is unfinished
        if self._joiners and not self._stock.unfinished:
            for number, request in self._joiners:
                self._send(self._members[number], talk.write(Kind.ANSWER, request, Outcome.OK))
            self._joiners.clear()
        if bool(self._joiners) != self._is_eager:
            self._is_eager = bool(self._joiners)
            for member in self._members.values():
                member.words[page.EAGER] = self._is_eager
            if self._is_eager:
                self._look()

    def _set_bells(self) -> None:
        """Have the next put of anybody wake us if somebody waits for it."""
        if not self._getters:
            for member in self._members.values():
                if member.bell:
                    member.bell = member.words[page.BELL] = 0
            return
        for member in self._members.values():
            if not member.bell:
                self._bells += 1
                member.bell = member.words[page.BELL] = self._bells
                self._look()

    def _send(self, member: Member, head: bytes, descriptor: int = -1, views: Iterable[memoryview] = ()) -> None:
        """Send to a process. One that is gone is not told; its death is on its way to us."""
        if self._is_here(member) and not member.send(head, descriptor, views):
            self._loop.after(0.0, functools.partial(self._bury, member))  # before it stops everybody

    # -- later ---------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Look again once all that is stored now is surely seen here, and what we have stored is seen there."""
        self._looks += 1
        if self._looks == 1:
            self._loop.after(page.SETTLE_SECONDS, functools.partial(self._look_now, 1))

    def _look_now(self, looks: int) -> None:
        if self._looks > looks:  # somebody asked meanwhile, and has not waited long enough
            self._loop.after(page.SETTLE_SECONDS, functools.partial(self._look_now, self._looks))
        else:
            self._looks = 0
        if self._getters and not self._stock.waiting_items and self._stock.untaken_items:
            self._recalls.items()
        if self._putters and not self._stock.is_shut:
            self._recalls.room()
        self._serve()

    def _shut(self, member: Member, request: int, at_once: bool) -> None:
        """Let nobody put any more, and when that is sure, say so."""
        self._stock.is_shut = True
        self._recalls.room()
        if at_once:
            self._stock.discard()
            self._recalls.items()
        self._loop.after(page.SETTLE_SECONDS, functools.partial(self._answer_shut, member, request))

    def _answer_shut(self, member: Member, request: int) -> None:
        self._serve()
        self._send(member, talk.write(Kind.ANSWER, request, Outcome.OK))
