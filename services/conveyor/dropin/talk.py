"""What a process and the broker say to each other: fixed structs on a private socket.

The socket keeps messages apart and delivers each whole or not at all (SOCK_SEQPACKET), so no death leaves half a one
behind. Everything that can be a number in shared memory is one (`page.py`); these are requests, their answers, and
wake-ups. A request has a number, and so has its answer. A process has one WANT and one ROOM open at most; a newer one
takes the place of an older, whose answer, should it be on its way, is ignored.
"""

from __future__ import annotations

import array
import enum
import socket
import struct
from typing import Final, NamedTuple

HELLO: Final = b"\x01"  # through the door, with a socket and a memory
CONTROL: Final = 3  # the broker's descriptor on which its maker registers queues
REGISTER: Final = struct.Struct("<Q")  # from the maker, with a door: the capacity of a new queue


class Kind(enum.IntEnum):
    """The first byte of a message."""

    # From a client.
    BELL = 1  # look at my ring
    WANT = 2  # items, when there are some; first: taken, second: how many are wished for
    TRY = 3  # items, if there are some
    DROP_WANT = 4
    ROOM = 5  # for one item at least, when there is some
    TRY_ROOM = 6
    DROP_ROOM = 7
    ASK = 8  # for the numbers
    JOIN = 9  # until nothing is unfinished
    DROP_JOIN = 10  # first: the number of the JOIN
    FINISH = 11  # an item that somebody else holds
    SHUT = 12  # first: whether at once
    PARCEL = 13  # a large item, of which the ring will say where it belongs
    # From the broker.
    WELCOME = 20
    ITEMS = 21  # first: how many, second: whether it is a large one; then their frames, or a descriptor
    NO_ITEMS = 22  # first: an outcome
    ROOM_ANSWER = 23  # first: an outcome
    ANSWER = 24  # first: an outcome


class Outcome(enum.IntEnum):
    """How a request ended."""

    REFUSED = 0
    OK = 1
    SHUT_DOWN = 2


class Message(NamedTuple):
    """Any message, without what may follow it."""

    kind: int
    number: int = 0
    first: int = 0
    second: int = 0


class Numbers(NamedTuple):
    """The answer to ASK."""

    size: int
    unfinished: int
    is_shut: bool


_MESSAGE: Final = struct.Struct("<BIQQ")
MESSAGE_BYTES: Final = _MESSAGE.size
MAX_BYTES: Final = 1 << 19
_NUMBERS: Final = struct.Struct("<QQ?")
_INT_BYTES: Final = array.array("i").itemsize
_ROOM_FOR_TWO: Final = socket.CMSG_SPACE(2 * _INT_BYTES)
AT_ONCE: Final = int(socket.MSG_DONTWAIT)
_CLOSED_ON_EXEC: Final = int(socket.MSG_CMSG_CLOEXEC)
_NONE: Final[list[int]] = []


def write(kind: int, number: int = 0, first: int = 0, second: int = 0) -> bytes:
    return _MESSAGE.pack(kind, number, first, second)


def read(data: bytes) -> Message:
    return Message._make(_MESSAGE.unpack_from(data))


def write_numbers(numbers: Numbers) -> bytes:
    return _NUMBERS.pack(*numbers)


def read_numbers(data: bytes) -> Numbers:
    return Numbers._make(_NUMBERS.unpack_from(data))


def send_with(line: socket.socket, data: bytes, *descriptors: int) -> None:
    """Send a message and descriptors; the sender keeps its own."""
    line.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))])


def receive(line: socket.socket, size: int, flags: int = 0) -> tuple[bytes, list[int]]:
    """Return a message, empty at the end, and the descriptors that came with it."""
    data, extra, _, _ = line.recvmsg(size, _ROOM_FOR_TWO, flags | _CLOSED_ON_EXEC)
    return data, _descriptors(extra) if extra else _NONE


def receive_into(line: socket.socket, buffer: memoryview, flags: int) -> tuple[bytes, list[int]]:
    """Do the same by way of a buffer, which would take longer to make than a message takes to be read."""
    size, extra, _, _ = line.recvmsg_into([buffer], _ROOM_FOR_TWO, flags | _CLOSED_ON_EXEC)
    return buffer[:size].tobytes(), _descriptors(extra) if extra else _NONE


def _descriptors(extra: list[tuple[int, int, bytes]]) -> list[int]:
    numbers = array.array("i")
    for _, _, raw in extra:
        numbers.frombytes(raw[: len(raw) - len(raw) % _INT_BYTES])
    return numbers.tolist()
