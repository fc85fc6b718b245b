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
from collections.abc import Callable

from conveyor.dropin import page, talk
from conveyor.dropin.member import Books, Member
from conveyor.dropin.recalls import Recalls
from conveyor.dropin.runs import Run
from conveyor.dropin.talk import Kind, Outcome
from conveyor.dropin.turns import Turns
from conveyor.dropin.waiters import Waiter, Waiters

# While somebody waits: for an item whose putter was interrupted, by a signal's handler, before it could tell us.
PATIENCE_SECONDS = 1.0


class Desk:
    """One queue."""

    def __init__(self, loop: Turns, door: socket.socket, capacity: int, ended: Callable[[Desk], None]) -> None:
        self._loop = loop
        self._door = door
        self._is_open = True
        self._ended = ended
        self._books = Books(capacity)
        self._members, self._stock, self._room = self._books.members, self._books.stock, self._books.room
        self._number = 0
        self._deaths = select.poll()
        self._recalls = Recalls(loop, self._books, self._serve)
        self._waiters = Waiters(self, self._books, self._recalls)
        self._looks = 0
        self._is_patient = False
        loop.watch(door.fileno(), self._on_door)

    # -- processes come and go -----------------------------------------------------------------------------

    def _on_door(self) -> None:
        try:
            data, descriptors = talk.receive(self._door, 16, talk.AT_ONCE)
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
        line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, talk.MAX_BYTES)
        self._number += 1
        try:
            member = Member(self._number, line, memory, self._stock.join(self._number))
        finally:
            os.close(memory)
        self._members[member.number] = member
        allowed = self._room.join(member.number)
        member.words[page.ROOM] = 0 if self._stock.is_shut else allowed
        member.words[page.EAGER] = self._waiters.is_eager
        self._loop.watch(line.fileno(), functools.partial(self._on_member, member))
        if member.process >= 0:
            self._loop.watch(member.process, functools.partial(self._bury, member))
            self._deaths.register(member.process, select.POLLIN)
        self.send(member, talk.write(Kind.WELCOME))
        self._serve()

    def _bury(self, member: Member) -> None:
        """See to what a process has left behind."""
        if not self._is_here(member):
            return
        with contextlib.suppress(OSError):
            while self._read_message(member):
                pass
        if not self._is_here(member):  # one of its own last questions was whether somebody is dead
            return
        self._books.read(member)
        number = member.number
        del self._members[number]
        if self._stock.bury(number):
            self._recalls.items()  # so that what comes back comes before what others have been sent and not taken
        self._room.bury(number)
        self._recalls.forget(number)
        self._waiters.forget(number)
        self._loop.unwatch(member.line.fileno())
        if member.process >= 0:
            self._loop.unwatch(member.process)
            self._deaths.unregister(member.process)
        member.close()
        self._serve()
        self._end_if_left()

    def bury_the_dead(self) -> None:
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
        if member.backlog:
            self._books.late.append(member)
        return True

    def _handle(self, member: Member, message: talk.Message) -> None:
        number = member.number
        match message.kind:
            case Kind.BELL:
                member.bell = member.words[page.BELL] = 0
            case Kind.WANT | Kind.TRY:
                self._recalls.items_are_back(number)
                self._stock.ask(number, message.first, time.monotonic_ns())
                self._waiters.getters[number] = Waiter(message.number, message.kind == Kind.TRY, message.second)
            case Kind.DROP_WANT:
                if self._waiters.getters.pop(number, None):
                    self.send(member, talk.write(Kind.NO_ITEMS, message.number, Outcome.REFUSED))
            case Kind.ROOM | Kind.TRY_ROOM:
                self._recalls.room_is_back(number)
                self._books.read(member)
                self._room.limit(number, 0)  # it has used all that it was allowed
                self._waiters.putters[number] = Waiter(message.number, message.kind == Kind.TRY_ROOM)
            case Kind.DROP_ROOM:
                if self._waiters.putters.pop(number, None):
                    self.send(member, talk.write(Kind.ROOM_ANSWER, message.number, Outcome.REFUSED))
            case Kind.JOIN:
                self._waiters.joiners[number, message.number] = None
            case Kind.DROP_JOIN:
                if (number, message.first) in self._waiters.joiners:
                    del self._waiters.joiners[number, message.first]
                    self.send(member, talk.write(Kind.ANSWER, message.first, Outcome.REFUSED))
            case Kind.ASK | Kind.FINISH | Kind.SHUT:
                self._answer(member, message)

    def _answer(self, member: Member, message: talk.Message) -> None:
        self.bury_the_dead()
        self._books.read_all()
        stock, extra, outcome = self._stock, b"", Outcome.OK
        if message.kind == Kind.ASK:
            extra = talk.write_numbers(talk.Numbers(stock.size, stock.unfinished, stock.is_shut))
        elif message.kind == Kind.FINISH:
            outcome = Outcome.OK if stock.finish_for_another() else Outcome.REFUSED
        else:
            self._shut(member, message.number, at_once=bool(message.first))
            return
        self.send(member, talk.write(Kind.ANSWER, message.number, outcome) + extra)

    # -- what they are told --------------------------------------------------------------------------------

    def _serve(self) -> None:
        """Do all that can be done now."""
        self._books.read_all()
        while self._books.late:
            self._loop.after(0.0, functools.partial(self._on_member, self._books.late.pop()))
        self._waiters.serve()
        if self._waiters.getters and not self._is_patient:
            self._is_patient = True
            self._loop.after(PATIENCE_SECONDS, self._lose_patience)

    def _lose_patience(self) -> None:
        self._is_patient = False
        self._serve()

    def send(self, member: Member, head: bytes, descriptor: int = -1, runs: list[Run] | None = None) -> None:
        """Send to a process. One that is gone is not told; its death is on its way to us."""
        if self._is_here(member) and not member.send(head, descriptor, runs or []):
            self._loop.after(0.0, functools.partial(self._bury, member))  # before it stops everybody

    # -- later ---------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Look again once all that is stored now is surely seen here, and what we have stored is seen there."""
        self._looks += 1
        if self._looks == 1:
            self._loop.after(page.SETTLE_SECONDS, functools.partial(self._look_now, 1))

    def _look_now(self, looks: int) -> None:
        if self._looks > looks:  # somebody asked meanwhile, and has not waited long enough
            self._loop.after(page.SETTLE_SECONDS, functools.partial(self._look_now, self._looks))
        else:
            self._looks = 0
        self._waiters.call_back()
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
        self.send(member, talk.write(Kind.ANSWER, request, Outcome.OK))
