"""One process's end of a queue, as the broker has it: its socket, its memory, and the sign of its death."""

from __future__ import annotations

import os
import socket
import struct
from collections import deque
from collections.abc import Iterator

from conveyor.dropin import page, talk
from conveyor.dropin.ring import RingReader
from conveyor.dropin.room import Room
from conveyor.dropin.runs import Parcel, Run, runs_of
from conveyor.dropin.stock import Holder, Stock
from conveyor.dropin.talk import Kind

_MOST_PARCELS = 256  # each is a descriptor of the broker; those beyond are copied


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
        self._parcels_taken = 0
        self.backlog: deque[bytes] = deque()  # messages read while we looked for a parcel
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
            number = talk.read(data).number
            if number in self.parcels:  # whose put was interrupted
                os.close(self.parcels[number])
            self.parcels[number] = descriptors[0]
        return data

    def read_ring(self) -> list[Run]:
        """Return what the process has put since the last time."""
        data, count, larges = self.ring.read()
        if larges:
            return runs_of(data, self._next_parcels())
        return [Run(data, 0, len(data), count)] if count else []

    def _next_parcels(self) -> Iterator[Parcel]:
        """Yield the large items in the order in which they were put: each was sent before the ring said so."""
        while True:
            self._parcels_taken += 1
            while self._parcels_taken not in self.parcels:
                data = self.receive()
                if talk.read(data).kind != Kind.PARCEL:
                    self.backlog.append(data)
            yield Parcel(self.parcels.pop(self._parcels_taken), _MOST_PARCELS)

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
        taken, done = words[page.TAKING], words[page.DONE]
        if taken != holder.taken or done + holder.foreign != holder.done:
            self.stock.advance(member.number, taken, done)

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
