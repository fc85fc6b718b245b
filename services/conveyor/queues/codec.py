"""How tasks become bytes and tasks again. Called by the workers; pure.

Three ways, and one result: each task arrives as it was when it was yielded, apart from all others.

- APART: each task pickled by itself. For any task.
- PLAIN: one pickle of many tasks, five times as fast. Only for tasks that are immutable all through (numbers, texts,
  bytes, and tuples of them): nobody can tell then whether they were pickled at once or a moment later, or whether two
  of them share a part.
- BUFFERS: large tasks, in the pieces in which pickle writes them, and their buffers out of band (protocol 5), so that
  no byte is copied on the way into shared memory.
"""

from __future__ import annotations

import enum
import io
import itertools
import pickle
import reprlib
import struct
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from conveyor.errors import TaskNotPicklableError

PROTOCOL = 5
# From here on pickle writes a bytes object without copying it.
LARGE_BYTES = 1 << 16
Piece = bytes | bytearray | memoryview

_ATOMS = (int, str, float, bytes, bool, type(None))
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 200


class Codec(enum.IntEnum):
    """How a chunk is written."""

    APART = 0
    PLAIN = 1
    BUFFERS = 2


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive tasks of one producer, ready to travel."""

    codec: Codec
    count: int
    pieces: Sequence[Piece]
    size: int
    """Bytes of all pieces."""
    offered_ns: int


def show(task: object) -> str:
    """Return the task for people: its repr, cut."""
    try:
        return _REPR.repr(task)
    except Exception as error:  # a user's __repr__
        return f"<{type(task).__qualname__}, whose repr raised {type(error).__qualname__}>"


# -- in the producer ---------------------------------------------------------------------------------------


def pickled(task: object) -> bytes:
    """Return one task as bytes. Raises `TaskNotPicklableError`, naming it."""
    try:
        return pickle.dumps(task, PROTOCOL)
    except Exception as error:  # whatever a user's __reduce__ raises
        raise _not_picklable(task, error) from error


def apart(payloads: Sequence[bytes], offered_ns: int) -> Chunk:
    """Return a chunk of tasks that were pickled one by one."""
    ends = array("Q", itertools.accumulate(map(len, payloads)))
    body = b"".join(payloads) if len(payloads) > 1 else payloads[0]
    return Chunk(Codec.APART, len(payloads), [ends.tobytes(), body], 8 * len(ends) + len(body), offered_ns)


class NotPlainError(Exception):
    """A task that was taken for plain is not."""


class _PlainPickler(pickle.Pickler):
    """Refuses everything that is more than numbers, texts, bytes and containers of them."""

    def reducer_override(self, value: object) -> NoReturn:
        raise NotPlainError


def plain(tasks: Sequence[object], offered_ns: int) -> Chunk:
    """Return a chunk of tasks whose hash has been taken, so that no list, dict, set or bytearray is in them.

    Raises `NotPlainError` if there is another object in one, or if one is nested too deep.
    """
    file = io.BytesIO()
    try:
        _PlainPickler(file, PROTOCOL).dump(tasks)
    except RecursionError as error:  # by itself, such a task is named
        raise NotPlainError from error
    return Chunk(Codec.PLAIN, len(tasks), [file.getvalue()], file.tell(), offered_ns)


def is_plain(task: object) -> bool:
    """Return whether the task is immutable all through, as far as exact types tell."""
    if type(task) in (tuple, frozenset):
        try:
            return all(map(is_plain, task))  # type: ignore[call-overload]
        except RecursionError:
            return False
    return type(task) in _ATOMS


def pieces_of(task: object) -> list[Piece]:
    """Return one large task: its pickle, in pieces, then its buffers, none of it copied; with the sizes in front.

    Raises `TaskNotPicklableError`.
    """
    sink, buffers = _Sink(), list[pickle.PickleBuffer]()
    try:
        pickle.Pickler(sink, PROTOCOL, buffer_callback=buffers.append).dump(task)
        views = [buffer.raw() for buffer in buffers]
    except Exception as error:
        raise _not_picklable(task, error) from error
    sizes = [sum(map(len, sink.pieces)), *(view.nbytes for view in views)]
    return [struct.pack(f"<Q{len(sizes)}Q", len(sizes), *sizes), *sink.pieces, *views]


def is_immutable(pieces: Sequence[Piece]) -> bool:
    """Return whether the task can go on to change without these pieces of it changing too."""
    return all(type(piece) is bytes for piece in pieces)


def large(tasks: Sequence[Sequence[Piece]], offered_ns: int) -> Chunk:
    """Return a chunk of large tasks, given in pieces."""
    pieces = list(itertools.chain.from_iterable(tasks))
    return Chunk(Codec.BUFFERS, len(tasks), pieces, sum(map(len, pieces)), offered_ns)


class _Sink:
    """A file that keeps what is written to it in the pieces in which it came."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []

    def write(self, piece: Piece) -> None:
        self.pieces.append(piece)


def _not_picklable(task: object, error: Exception) -> TaskNotPicklableError:
    return TaskNotPicklableError(
        f"the task {show(task)} cannot be sent to another process ({error}); yield values that pickle can store"
    )


# -- in the consumer ---------------------------------------------------------------------------------------


def tasks_of(codec: Codec, payload: memoryview, count: int, first: int, last: int) -> Iterator[Any]:
    """Return an iterator over some tasks of a chunk. It raises what unpickling a task raises, and can go on."""
    if codec is Codec.PLAIN:
        return iter(pickle.loads(payload)[first:last])
    if codec is Codec.APART:
        body, edges = _apart(payload, count, first, last)
        return map(pickle.loads, map(body.__getitem__, map(slice, edges, edges[1:])))
    return map(_loads, bodies_of(codec, payload, count, first, last))


def bodies_of(codec: Codec, payload: memoryview, count: int, first: int, last: int) -> list[list[memoryview]]:
    """Return for each of these tasks its pickle, followed by its buffers. Not for a plain chunk."""
    if codec is Codec.APART:
        body, edges = _apart(payload, count, first, last)
        return [[body[a:b]] for a, b in itertools.pairwise(edges)]
    bodies = []
    for _ in range(last):
        number = struct.unpack_from("<Q", payload)[0]
        edges = [8 * (number + 1), *struct.unpack_from(f"<{number}Q", payload, 8)]
        edges = list(itertools.accumulate(edges))
        bodies.append([payload[a:b] for a, b in itertools.pairwise(edges)])
        payload = payload[edges[-1] :]
    return bodies[first:]


def alone(codec: Codec, payload: memoryview, count: int, place: int) -> tuple[Codec, bytes]:
    """Return one task of a chunk as a chunk of its own, by nobody's code but ours: no class is looked up.

    Raises whatever a pickle of plain tasks raises that is not one.
    """
    if codec is Codec.PLAIN:
        body = pickle.dumps(_PlainUnpickler(io.BytesIO(payload)).load()[place], PROTOCOL)
        return Codec.APART, struct.pack("<Q", len(body)) + body
    [pieces] = bodies_of(codec, payload, count, place, place + 1)
    sizes = list(map(len, pieces))
    head = struct.pack("<Q", sizes[0]) if codec is Codec.APART else struct.pack(f"<Q{len(sizes)}Q", len(sizes), *sizes)
    return codec, b"".join([head, *pieces])


class _PlainUnpickler(pickle.Unpickler):
    """Makes nothing but numbers, texts, bytes and containers of them."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise NotPlainError


def _apart(payload: memoryview, count: int, first: int, last: int) -> tuple[memoryview, list[int]]:
    """Return the pickles of a chunk, one behind the other, and the edges of those asked for."""
    ends = payload[: 8 * count].cast("Q")[max(0, first - 1) : last].tolist()
    return payload[8 * count :], ends if first else [0, *ends]


def _loads(body: list[memoryview]) -> Any:
    # Buffers are copied out: a task may keep them for as long as it likes, and change them.
    return pickle.loads(body[0], buffers=map(bytearray, body[1:]))
