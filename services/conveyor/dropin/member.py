"""One process's end of a queue, as the broker has it: its socket, its memory, and the sign of its death."""

from __future__ import annotations

import os
import socket
import struct
from collections import deque
from collections.abc import Iterable, Iterator

from conveyor.dropin import page, talk
from conveyor.dropin.ring import RingReader
from conveyor.dropin.runs import Parcel, Run, runs_of
from conveyor.dropin.stock import Holder
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
        self.parcels: deque[int] = deque()  # descriptors that have come, of which the ring is to tell the place
        self.backlog: deque[bytes] = deque()  # messages read while we looked for a parcel
        self.bell = 0
        """The number of the wait for which it is to ring; 0 if it need not."""

    def close(self) -> None:
        self.line.close()
        if self.process >= 0:
            os.close(self.process)
        for descriptor in self.parcels:
            os.close(descriptor)

    def receive(self) -> bytes:
        """Return a message, empty at the end. Raises `BlockingIOError` if there is none now."""
        data, descriptors = talk.receive(self.line, talk.MESSAGE_BYTES, socket.MSG_DONTWAIT)
        self.parcels.extend(descriptors)
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
            while not self.parcels:
                data = self.receive()
                if talk.read(data).kind != Kind.PARCEL:
                    self.backlog.append(data)
            yield Parcel(self.parcels.popleft(), _MOST_PARCELS)

    def send(self, head: bytes, descriptor: int, views: Iterable[memoryview]) -> bool:
        """Send a message; return False if the process does not read what it has asked for."""
        try:
            if descriptor >= 0:
                talk.send_with(self.line, head, descriptor)
            else:
                self.line.sendmsg([head, *views])
        except BlockingIOError:
            return False
        except ConnectionError:  # its death is on its way to us
            pass
        return True


def open_process(line: socket.socket) -> int:
    """Return a descriptor that is readable once the process that made this socket is dead, or -1."""
    pid = struct.unpack("3i", line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    try:
        return os.pidfd_open(pid) if pid > 0 else -1
    except OSError:  # dead already, or a kernel that cannot: the end of its socket tells
        return -1
