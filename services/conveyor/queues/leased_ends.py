"""The workers' ends of the `leased` queue: a private socket to the supervisor, and shared memory for payloads.

What happens when the worker dies: the socket's end is the supervisor's sign, and nothing else is held. What happens
when the supervisor dies: the socket ends here too.
"""

from __future__ import annotations

import array
import mmap
import os
import socket
import struct
from collections import deque

from conveyor.descriptors import Descriptor
from conveyor.errors import ConveyorError
from conveyor.queues import wire
from conveyor.queues.arena import NO_LIMIT, Arena, Window
from conveyor.queues.codec import Chunk, Codec
from conveyor.queues.pace import MAX_LEASE_TASKS
from conveyor.queues.seam import Failure, Lease, QueueEndedError
from conveyor.queues.wire import Kind

SEGMENT_BYTES = 1 << 16  # of results; arbitrary
# What a worker may leave unread, whatever the system's default: some dozens of leases and a few messages more.
SEND_BYTES = 1 << 18
TABLE_BYTES = 16 * MAX_LEASE_TASKS
# As numbers: to combine the flags takes longer than to receive a message.
_CLOSE_ON_EXEC = int(socket.MSG_CMSG_CLOEXEC)
_CLOSE_ON_EXEC_AT_ONCE = int(socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT)
_CODECS = tuple(Codec)
_ONE_DESCRIPTOR = socket.CMSG_SPACE(array.array("i").itemsize)


class QueueGoneError(ConveyorError):
    """The process that holds the queue has ended."""


class _Line:
    """A private socket to the supervisor."""

    def __init__(self, descriptor: int) -> None:
        self.socket = socket.socket(fileno=descriptor)
        self._timeout_seconds = 0.0

    def receive(self, timeout_seconds: float) -> tuple[bytes, int | None]:
        """Return a message, empty at the end, and a descriptor that came with it. Raises `BlockingIOError`."""
        flags = _CLOSE_ON_EXEC
        if not timeout_seconds:
            flags = _CLOSE_ON_EXEC_AT_ONCE
        elif timeout_seconds != self._timeout_seconds:
            # The kernel counts the time: one system call a message, not two.
            self._timeout_seconds = timeout_seconds
            whole = int(timeout_seconds)
            timeval = struct.pack("@ll", whole, int((timeout_seconds - whole) * 1e6))
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
        data, extra, _, _ = self.socket.recvmsg(wire.MAX_BYTES, _ONE_DESCRIPTOR, flags)
        if not extra:
            return data, None
        numbers = array.array("i")
        numbers.frombytes(extra[0][2])
        return data, numbers[0]

    def send(self, message: bytes) -> None:
        try:
            self.socket.send(message)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise QueueGoneError("the queue's process has ended") from error


class LeasedOutlet:
    """A producer's end."""

    counts_puts = True

    def __init__(self, line: Descriptor, memory: Descriptor, limit_bytes: int, max_bytes: int | None = None) -> None:
        """Put into this memory at most so many bytes at a time; `max_bytes` is the largest chunk that can be kept."""
        self._given = line, memory, limit_bytes, max_bytes
        self.max_bytes = max_bytes
        self._line: _Line | None = None
        self._credit = 0
        self._wanted = 1
        self._has_asked = False
        self._next = 0
        self._chunks: dict[int, tuple[int, int]] = {}

    def __reduce__(self) -> tuple[object, ...]:
        return LeasedOutlet, self._given

    def detached(self) -> LeasedOutlet:
        """Return an end with descriptors of its own, for a producer that lives in this process."""
        line, memory, limit_bytes, max_bytes = self._given
        own = Descriptor(os.dup(line.number)), Descriptor(os.dup(memory.number))
        return LeasedOutlet(*own, limit_bytes, max_bytes)

    def wanted(self) -> int:
        if 0 < self._credit < self._wanted:
            return self._credit
        return self._wanted

    def offer(self, chunk: Chunk, timeout_seconds: float) -> bool:
        line = self._line or self._connect()
        while self._credit <= 0:
            if not self._wait(line, timeout_seconds):
                return False
        while (offset := self._arena.write(chunk.pieces, chunk.size)) is None:
            if not self._wait(line, timeout_seconds):
                return False
        self._credit -= chunk.count
        number = self._next = (self._next + 1) & 0xFFFFFFFF
        self._chunks[number] = offset, chunk.size
        # Ask early, so that the answer is here when it is needed; but never hold what others could use meanwhile.
        wants = self._wanted > 1 and not self._has_asked and self._credit < 2 * self._wanted
        self._has_asked |= wants
        line.send(wire.offer(wire.Offer(chunk.codec, number, chunk.count, offset, chunk.size, chunk.offered_ns, wants)))
        return True

    def close(self) -> None:
        line, memory, _, _ = self._given
        if self._line is not None:
            self._line.socket.close()
        else:
            line.close()
        memory.close()

    def _connect(self) -> _Line:
        line, memory, limit_bytes, _ = self._given
        self._line = _Line(line.number)
        self._arena = Arena(memory.number, limit_bytes)
        return self._line

    def _wait(self, line: _Line, timeout_seconds: float) -> bool:
        """Wait for the answer to what we want; return whether it has come."""
        if not self._has_asked:
            line.send(wire.WANT)
            self._has_asked = True
        try:
            data, _ = line.receive(timeout_seconds)
        except BlockingIOError:
            return False
        if not data:
            raise QueueGoneError("the queue's process has ended")
        credit = wire.read_credit(data)
        self._has_asked = False
        self._credit += credit.tasks
        self._wanted = credit.wanted
        for number in credit.freed:
            self._arena.free(*self._chunks.pop(number))
        return True


class LeasedIntake:
    """A consumer's end."""

    def __init__(self, line: Descriptor, memory: Descriptor | None) -> None:
        self._given = line, memory
        self._line: _Line | None = None
        self._windows: dict[int, Window] = {}
        # Where results go, if they are wanted: each is written, then its place into a table at the beginning of the
        # memory, then the task is counted as done. So the supervisor finds them, whatever happens to us.
        self._arena: Arena | None = None
        self._table = self._results = memoryview(b"")
        self._kept: list[int] = []
        self._segment = self._at = self._end = 0  # of the memory, where the next results go
        self._full: deque[tuple[int, int, int]] = deque()  # other segments: the last lease in it, offset, size
        self._lease = 0

    def __reduce__(self) -> tuple[object, ...]:
        return LeasedIntake, self._given

    def take(self, timeout_seconds: float) -> Lease | None:
        line = self._line or self._connect()
        while True:
            try:
                data, descriptor = line.receive(timeout_seconds)
            except BlockingIOError:
                return None
            if not data:
                raise QueueEndedError
            if data[0] == Kind.FORGET:
                self._windows.pop(wire.read_forget(data)).close()
                continue
            grant = wire.read_grant(data)
            self._lease = grant.number
            while self._full and self._full[0][0] <= grant.settled and self._arena:
                self._arena.free(*self._full.popleft()[1:])
            if descriptor is not None:
                self._windows[grant.arena] = Window(descriptor)
            return Lease(
                number=grant.number,
                codec=_CODECS[grant.codec],
                payload=self._windows[grant.arena].view(grant.offset, grant.size),
                count=grant.tasks,
                first=grant.first,
                last=grant.last,
                offered_ns=grant.offered_ns,
                budget_ns=grant.budget_ns,
                tries_left=grant.tries_left,
            )

    def keep(self, result: bytes) -> None:
        size, offset = len(result), self._at
        if offset + size > self._end:
            offset = self._begin_segment(size)
        self._results[offset : offset + size] = result
        self._at = offset + size
        place = len(self._kept)
        self._kept += offset, size
        self._table[place], self._table[place + 1] = offset, size

    def report(self, lease: Lease, done: int, failure: Failure | None, took_ns: int) -> None:
        assert self._line is not None
        if failure is not None:
            self._line.send(wire.failed(wire.Failed(failure.error, failure.reason, failure.trace)))
        self._line.send(wire.done(wire.Done(lease.number, done, failure is not None, took_ns, tuple(self._kept))))
        self._kept = []

    def _begin_segment(self, size: int) -> int:
        """Take new memory for results, of at least this size; return its offset."""
        assert self._arena is not None
        if self._end:
            self._full.append((self._lease, self._segment, self._end - self._segment))
        size = max(size, SEGMENT_BYTES)
        offset = self._arena.allocate(size)
        assert offset is not None  # there is no limit: what limits results is that they are read
        self._segment, self._end, self._results = offset, offset + size, self._arena.memory
        return offset

    def _connect(self) -> _Line:
        line, memory = self._given
        self._line = _Line(line.number)
        if memory is not None:
            os.truncate(memory.number, TABLE_BYTES)
            self._arena = Arena(memory.number, NO_LIMIT, TABLE_BYTES)
            self._table = memoryview(mmap.mmap(memory.number, TABLE_BYTES)).cast("Q")
        self._line.send(wire.READY)
        return self._line


def pair() -> tuple[socket.socket, Descriptor]:
    """Return the two ends of a private line: the supervisor's, which never blocks, and the worker's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)
    number = theirs.detach()
    os.set_inheritable(number, False)
    return ours, Descriptor(number)
