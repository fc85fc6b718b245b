"""One process's end of a queue, as the broker has it: its socket, its memory, and the sign of its death."""

from __future__ import annotations

import os
import socket
import struct
from collections import deque

from conveyor.dropin import page, talk
from conveyor.dropin.ring import RingReader
from conveyor.dropin.room import Room
from conveyor.dropin.runs import Parcel, Run, runs_of
from conveyor.dropin.stock import Holder, Stock
from conveyor.dropin.talk import Kind

_MOST_PARCELS = 256  # each is a descriptor of the broker; those beyond are copied

_MOST_NESTED = 1024  # puts of large items in one another, in signal handlers; what is older was interrupted


class Member:
    """One process's end here."""

    def __init__(self, number: int, line: socket.socket, memory: int, holder: Holder) -> None:
        self.number = number
        self.line = line
        self.words, ring = page.open_memory(memory)
        self.ring = RingReader(self.words, ring)
        self.holder = holder
        self.process = open_process(line)
        self.parcels: dict[int, int] = {}  # descriptors that have come, by number; the ring tells their place
        self.backlog: deque[bytes] = deque()  # messages read while we looked for a parcel
        self._logged = 0
        self.bell = 0
        """The number of the wait for which it is to ring; 0 if it need not."""

    def close(self) -> None:
        self.line.close()
        if self.process >= 0:
            os.close(self.process)
        for descriptor in self.parcels.values():
            os.close(descriptor)

    def receive(self) -> bytes:
        """Return a message, empty at the end. Raises `BlockingIOError` if there is none now."""
        data, descriptors = talk.receive(self.line, talk.MESSAGE_BYTES, talk.AT_ONCE)
        if descriptors:
            number = talk.read(data).first
            self.parcels[number] = descriptors[0]
            for interrupted in [each for each in self.parcels if each < number - _MOST_NESTED]:
                os.close(self.parcels.pop(interrupted))
        return data

    def read_ring(self) -> list[Run]:
        """Return what the process has put since the last time."""
        data, count, larges = self.ring.read()
        if larges:
            return runs_of(data, self._parcel)
        return [Run(data, 0, len(data), count)] if count else []

    def read_log(self) -> list[tuple[int, int, int]]:
        """Return what became of items out of their order since the last time: kind, first and last item."""
        logged = self.words[page.LOGGED]
        if logged == self._logged:
            return []
        page.fence()
        found = []
        for entry in range(self._logged, logged):
            at = page.LOG + 2 * (entry % page.LOG_ENTRIES)
            word = self.words[at]
            found.append((word & ~page.FIRST_MASK, word & page.FIRST_MASK, self.words[at + 1]))
        page.fence()
        self._logged = self.words[page.SEEN] = logged
        return found

    def _parcel(self, number: int) -> Parcel:
        """Return a large item: it was sent before the ring said so."""
        while number not in self.parcels:
            data = self.receive()
            if talk.read(data).kind != Kind.PARCEL:
                self.backlog.append(data)
        return Parcel(self.parcels.pop(number), _MOST_PARCELS)

    def send(self, head: bytes, descriptor: int, runs: list[Run]) -> bool:
        """Send a message; return False if the process does not read what it has asked for."""
        try:
            if descriptor >= 0:
                talk.send_with(self.line, head, descriptor)
            elif len(runs) > 1:
                self.line.sendmsg([head, *(run.view() for run in runs)])
            else:
                self.line.send(head + runs[0].view() if runs else head)
        except BlockingIOError:
            return False
        except ConnectionError:  # its death is on its way to us
            pass
        return True


class Books:
    """A queue's members, and what they have and may put."""

    def __init__(self, capacity: int) -> None:
        self.members: dict[int, Member] = {}
        self.stock = Stock(capacity)
        self.room = Room(capacity)
        self.late: list[Member] = []
        """Those with messages that were read before their turn."""

    def read(self, member: Member) -> None:
        """Take in what a process has put, taken and done."""
        words, holder = member.words, member.holder
        if words[page.PUT] != member.ring.seen:
            for run in member.read_ring():
                self.stock.accept(run)
                self.room.put(member.number, run.count)
            if member.backlog:
                self.late.append(member)
        # In this order. Before DONE passes an item that is kept, the log says that it is. Before an item that was among
        # the unnamed is finished by name, UNNAMED falls. And what is done or in the log was taken.
        done = words[page.DONE]
        entries = member.read_log()
        unnamed = words[page.UNNAMED]
        taken = words[page.TAKING]
        if taken != holder.taken or done != holder.done or entries or unnamed != holder.unnamed:
            self._advance(member.number, taken, done, entries, unnamed)

    def _advance(self, number: int, taken: int, done: int, entries: list[tuple[int, int, int]], unnamed: int) -> None:
        stock = self.stock
        if entries:
            stock.advance(number, taken, 0)
            for kind, first, last in entries:
                if kind == page.KEPT:
                    stock.keep(number, first, last)
                elif kind == page.FINISHED:
                    stock.finish(number, first, last)
                else:
                    stock.return_items(number, first, last)
        stock.advance(number, taken, done)
        stock.say_unnamed(number, unnamed)

    def read_all(self) -> None:
        for member in self.members.values():
            self.read(member)


def open_process(line: socket.socket) -> int:
    """Return a descriptor that is readable once the process that made this socket is dead, or -1."""
    pid = struct.unpack("3i", line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    try:
        return os.pidfd_open(pid) if pid > 0 else -1
    except OSError:  # dead already, or a kernel that cannot: the end of its socket tells
        return -1
