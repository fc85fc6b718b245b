"""What a worker and the supervisor say to each other about chunks: fixed structs on a private socket.

The socket keeps messages apart and delivers each whole or not at all (SOCK_SEQPACKET), so no death leaves half a
one behind. Payloads are not in them: these lie in shared memory (`arena.py`).
"""

from __future__ import annotations

import enum
import json
import struct
from typing import NamedTuple

MAX_BYTES = 1 << 17  # of one message; what a socket takes by default is more
MAX_FREED = 8000  # chunks in one `Credit`; as many as fit


class Kind(enum.IntEnum):
    """The first byte of each message."""

    OFFER = 1
    WANT = 2
    CREDIT = 3
    READY = 4
    LEASE = 5
    DONE = 6
    FORGET = 7
    FAILED = 8


_OFFER = struct.Struct("<BBIIQQq?")
_CREDIT = struct.Struct("<BQI")
_LEASE = struct.Struct("<BBQIIIIQQqQQI")
_DONE = struct.Struct("<BQI?Q")
_FORGET = struct.Struct("<BI")

READY = bytes([Kind.READY])
WANT = bytes([Kind.WANT])


class Offer(NamedTuple):
    """A producer has written a chunk, `chunk` is its own number for it, and may want credit for more."""

    codec: int
    chunk: int
    tasks: int
    offset: int
    size: int
    offered_ns: int
    wants: bool


class Credit(NamedTuple):
    """A producer may offer so many tasks more, best in chunks of `wanted`; these chunks of it are done."""

    tasks: int
    wanted: int
    freed: tuple[int, ...]


class Grant(NamedTuple):
    """A consumer is to do the tasks from `first` up to, not with, `last` of a chunk."""

    codec: int
    number: int
    arena: int
    tasks: int
    first: int
    last: int
    offset: int
    size: int
    offered_ns: int
    budget_ns: int
    settled: int
    """The results of all leases up to this number have been read."""
    tries_left: int
    """How often a task of it that raises is tried again."""


class Failed(NamedTuple):
    """How the task behind the first `done` of a lease raised. Its `Done` follows."""

    error: str
    reason: str
    trace: str


class Done(NamedTuple):
    """A consumer has finished the first `done` tasks of a lease, and hands the others back.

    If one failed it is the next, and is not handed back. Where results are wanted there is one for each task: its
    offset and size in the consumer's memory.
    """

    number: int
    done: int
    has_failed: bool
    took_ns: int
    results: tuple[int, ...]


def offer(message: Offer) -> bytes:
    return _OFFER.pack(Kind.OFFER, *message)


def read_offer(data: bytes) -> Offer:
    return Offer._make(_OFFER.unpack(data)[1:])


def credit(message: Credit) -> bytes:
    return _CREDIT.pack(Kind.CREDIT, message.tasks, message.wanted) + struct.pack(
        f"<{len(message.freed)}I", *message.freed
    )


def read_credit(data: bytes) -> Credit:
    _, tasks, wanted = _CREDIT.unpack_from(data)
    if len(data) == _CREDIT.size:
        return Credit(tasks, wanted, ())
    number = (len(data) - _CREDIT.size) // 4
    return Credit(tasks, wanted, struct.unpack_from(f"<{number}I", data, _CREDIT.size))


def grant(message: Grant) -> bytes:
    return _LEASE.pack(Kind.LEASE, *message)


def read_grant(data: bytes) -> Grant:
    return Grant._make(_LEASE.unpack(data)[1:])


def done(message: Done) -> bytes:
    head = _DONE.pack(Kind.DONE, message.number, message.done, message.has_failed, message.took_ns)
    return head + struct.pack(f"<{len(message.results)}Q", *message.results) if message.results else head


def read_done(data: bytes) -> Done:
    _, number, done, has_failed, took_ns = _DONE.unpack_from(data)
    places: tuple[int, ...] = ()
    if len(data) > _DONE.size:
        places = struct.unpack_from(f"<{(len(data) - _DONE.size) // 8}Q", data, _DONE.size)
    return Done(number, done, has_failed, took_ns, places)


def failed(message: Failed) -> bytes:
    # Without escapes for what is not ASCII: so it fits into a message, each part of it being cut; two parts always do.
    data = bytes([Kind.FAILED]) + json.dumps(message, ensure_ascii=False).encode(errors="backslashreplace")
    return data if len(data) <= MAX_BYTES else failed(message._replace(trace=""))


def read_failed(data: bytes) -> Failed:
    return Failed._make(json.loads(data[1:]))


def forget(arena: int) -> bytes:
    return _FORGET.pack(Kind.FORGET, arena)


def read_forget(data: bytes) -> int:
    arena: int = _FORGET.unpack(data)[1]
    return arena
