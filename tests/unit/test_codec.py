"""Each task arrives as it was, apart from all others, however it travelled."""

from __future__ import annotations

import array
import collections
import dataclasses
import datetime
import decimal
import enum
import math
import pickle
import sys
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import pytest

from conveyor.errors import TaskNotPicklableError
from conveyor.queues import codec
from conveyor.queues.codec import LARGE_BYTES, PROTOCOL, Chunk, Codec, NotPlainError, tasks_of


class Colour(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    LOW = 1


class Text(str):
    __slots__ = ()


@dataclasses.dataclass
class Point:
    x: int
    y: object = None


Pair = collections.namedtuple("Pair", "a b")


class Frame:
    """Holds a large buffer as numpy's arrays do: out of band where that is possible."""

    def __init__(self, data: bytearray | bytes | memoryview) -> None:
        self.data = data

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Frame, (pickle.PickleBuffer(self.data),)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Frame) and bytes(self.data) == bytes(other.data)

    __hash__ = None  # type: ignore[assignment]


PLAIN: list[object] = [
    0, -1, 2**62, -(2**63), 2**2000, 0.0, -0.0, 1e308, math.inf, True, False, None, "", "包子", "\udc80", "\0",
    "a" * 70_000, b"", b"\0\xff", b"x" * 70_000, (), (1,), (1, "a", None, (2.5, (b"c",))), frozenset(),
    frozenset([1, "a"]), ("a" * 300,) * 3,
]  # fmt: skip
OTHER: list[object] = [
    [], [1], {}, {"a": [1]}, set(), {1, 2}, bytearray(b"abc"), bytearray(70_000), [[1], {2: 3}], (1, [2]), 1j,
    Point(1, [2]), (Point(1),), Colour.RED, Level.LOW, Text("a"), Pair(1, 2), datetime.timedelta(1),
    datetime.datetime(2024, 2, 29, tzinfo=datetime.UTC), decimal.Decimal("1.10"), collections.deque([1, 2], maxlen=5),
    collections.OrderedDict(a=1), collections.Counter("aab"), collections.defaultdict(list, a=[1]),
    array.array("d", [1.5]), range(5), slice(1, 2), len, int, Point,
]  # fmt: skip
FRAMES: list[object] = [
    Frame(bytearray(b"abc")),
    Frame(b"abc"),
    Frame(bytearray(200_000)),
    [Frame(bytearray(5)), Frame(b"1234567")],
]


def kind(task: object) -> str:
    """Return a short name, the same in each process that collects the tests."""
    return type(task).__name__


def as_apart(tasks: Sequence[object]) -> Chunk:
    return codec.apart([codec.pickled(task) for task in tasks], 5)


def as_plain(tasks: Sequence[object]) -> Chunk:
    return codec.plain(tasks, 5)


def as_large(tasks: Sequence[object]) -> Chunk:
    return codec.large([codec.pieces_of(task) for task in tasks], 5)


def sent(chunk: Chunk, first: int = 0, last: int | None = None) -> list[Any]:
    """Return tasks of a chunk as they arrive, out of memory that nobody may write."""
    payload = memoryview(b"".join(chunk.pieces))
    assert len(payload) == chunk.size
    return list(tasks_of(chunk.codec, payload, chunk.count, first, chunk.count if last is None else last))


def same(one: object, other: object) -> bool:
    return type(one) is type(other) and (one == other or repr(one) == repr(other))


# -- round trips -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [as_apart, as_large])
@pytest.mark.parametrize("task", PLAIN + OTHER + FRAMES, ids=kind)
def test_a_task_arrives_as_it_was(write: Callable[[Sequence[object]], Chunk], task: object) -> None:
    [there] = sent(write([task]))
    assert same(there, task)


@pytest.mark.parametrize("task", PLAIN, ids=kind)
def test_a_plain_task_arrives_as_it_was_however_it_travels(task: object) -> None:
    assert codec.is_plain(task)
    hash(task)
    assert all(map(same, sent(as_plain([task, task])), sent(as_apart([task, task]))))
    assert same(sent(as_plain([task]))[0], task)


@pytest.mark.parametrize("task", OTHER, ids=kind)
def test_whatever_is_not_plain_is_known_for_it_by_its_hash_or_its_pickle(task: object) -> None:
    assert not codec.is_plain(task)
    try:
        hash(task)
    except TypeError:
        return
    with pytest.raises(NotPlainError):
        codec.plain([1, task], 0)


@pytest.mark.parametrize("task", [Point, len, lambda: None, ..., NotImplemented, object()], ids=kind)
def test_what_has_a_hash_and_is_no_number_or_text_is_refused_as_plain(task: object) -> None:
    with pytest.raises(NotPlainError):
        codec.plain([(1, task)], 0)


def test_all_tasks_of_each_kind_arrive_in_order() -> None:
    for write, tasks in ((as_plain, PLAIN), (as_apart, PLAIN + OTHER), (as_large, PLAIN + OTHER + FRAMES)):
        assert all(map(same, sent(write(tasks)), tasks))
        assert write(tasks).count == len(tasks)


@pytest.mark.parametrize("write", [as_apart, as_plain, as_large])
def test_a_part_of_a_chunk_is_from_the_first_up_to_not_with_the_last(
    write: Callable[[Sequence[object]], Chunk],
) -> None:
    tasks = ["", "a", "b" * 1000, "", "包" * 70_000, 5, None]
    chunk = write(tasks)
    for first in range(len(tasks) + 1):
        for last in range(first, len(tasks) + 1):
            assert sent(chunk, first, last) == tasks[first:last]


# -- apart -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [as_apart, as_large])
def test_two_tasks_that_share_a_list_arrive_with_one_each(write: Callable[[Sequence[object]], Chunk]) -> None:
    shared = [1]
    one, other = sent(write([(shared,), (shared,)]))
    assert one == other
    assert one[0] is not other[0]


@pytest.mark.parametrize("write", [as_apart, as_large])
def test_one_task_that_holds_a_list_twice_arrives_with_one(write: Callable[[Sequence[object]], Chunk]) -> None:
    shared = [1]
    [there] = sent(write([[shared, shared]]))
    assert there[0] is there[1]


@pytest.mark.parametrize("write", [as_apart, as_large])
def test_a_task_that_holds_itself_arrives(write: Callable[[Sequence[object]], Chunk]) -> None:
    task: list[object] = [1]
    task.append(task)
    [there] = sent(write([task]))
    assert there[1] is there


def test_a_task_done_twice_is_another_each_time() -> None:
    chunk = as_apart([[1]])
    assert sent(chunk)[0] is not sent(chunk)[0]


# -- large -------------------------------------------------------------------------------------------------


def test_no_byte_of_a_large_task_is_copied_on_its_way_into_the_chunk() -> None:
    data = bytes(LARGE_BYTES)
    chunk = as_large([("name", data)])
    assert any(piece is data for piece in chunk.pieces)
    buffer = bytearray(LARGE_BYTES)
    [view] = [piece for piece in as_large([Frame(buffer)]).pieces if isinstance(piece, memoryview)]
    assert view.obj is buffer
    buffer[0] = 7
    assert view[0] == 7


def test_a_buffer_of_a_task_can_be_changed_and_kept_by_its_consumer() -> None:
    payload = bytearray(b"".join(as_large([Frame(bytearray(b"abc"))]).pieces))
    [there] = tasks_of(Codec.BUFFERS, memoryview(payload), 1, 0, 1)
    payload[:] = bytes(len(payload))  # its place is used again
    assert there.data == b"abc"
    there.data[0] = 0


@pytest.mark.parametrize(
    ("task", "is_immutable"),
    [
        (bytes(LARGE_BYTES), True),
        (["a" * LARGE_BYTES, b"b" * LARGE_BYTES], True),
        (bytearray(LARGE_BYTES), False),
        (Frame(bytearray(LARGE_BYTES)), False),
        ([bytes(LARGE_BYTES), Frame(b"abc")], False),
    ],
    ids=["bytes", "text and bytes", "bytearray", "frame", "bytes and a frame"],
)
def test_whether_the_pieces_of_a_task_can_change_is_known(task: object, is_immutable: bool) -> None:
    assert codec.is_immutable(codec.pieces_of(task)) == is_immutable


def test_pieces_that_cannot_change_are_as_the_task_was() -> None:
    task = ["a" * LARGE_BYTES, [1]]
    pieces = codec.pieces_of(task)
    assert codec.is_immutable(pieces)
    task[1] = [2]
    assert sent(codec.large([pieces], 0)) == [["a" * LARGE_BYTES, [1]]]


# -- one task by itself ------------------------------------------------------------------------------------


def taken_out(chunk: Chunk, place: int) -> tuple[Codec, bytes]:
    return codec.alone(chunk.codec, memoryview(b"".join(chunk.pieces)), chunk.count, place)


def unpacked(alone: tuple[Codec, bytes]) -> object:
    """Return the task of a chunk that has no other."""
    [there] = tasks_of(alone[0], memoryview(alone[1]), 1, 0, 1)
    return there


@pytest.mark.parametrize("write", [as_apart, as_large])
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("task", PLAIN + OTHER + FRAMES, ids=kind)
def test_a_task_that_is_taken_out_of_its_chunk_is_as_it_was(
    write: Callable[[Sequence[object]], Chunk], task: object, place: int
) -> None:
    tasks: list[object] = ["one", b"other" * 50, Frame(b"third")]
    tasks[place] = task
    chunk = write(tasks)
    alone = taken_out(chunk, place)
    assert alone[0] is chunk.codec
    assert same(unpacked(alone), task)
    again = codec.alone(alone[0], memoryview(alone[1]), 1, 0)
    assert again == alone


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("task", PLAIN, ids=kind)
def test_a_plain_task_that_is_taken_out_of_its_chunk_is_one_apart(task: object, place: int) -> None:
    tasks: list[object] = [1, "two", (3,)]
    tasks[place] = task
    alone = taken_out(as_plain(tasks), place)
    assert alone[0] is Codec.APART
    assert same(unpacked(alone), task)


@pytest.mark.parametrize("write", [as_apart, as_plain, as_large])
def test_a_task_by_itself_carries_nothing_of_its_neighbours(write: Callable[[Sequence[object]], Chunk]) -> None:
    chunk = write([b"first" * 100, b"secret" * 100, b"third" * 100])
    for place in (0, 2):
        assert b"secret" not in taken_out(chunk, place)[1]


class Alarming:
    """Says when it is brought to life."""

    lives: ClassVar[list[str]] = []

    def __init__(self, name: str) -> None:
        self.name = name

    def __reduce__(self) -> Any:
        return Alarming.born, (self.name,)

    @staticmethod
    def born(name: str) -> Alarming:
        Alarming.lives.append(name)
        return Alarming(name)


@pytest.mark.parametrize("write", [as_apart, as_large])
def test_to_take_a_task_out_brings_none_to_life(
    monkeypatch: pytest.MonkeyPatch, write: Callable[[Sequence[object]], Chunk]
) -> None:
    """It happens in the supervisor, and the task may be what kills its consumers."""
    monkeypatch.setattr(Alarming, "lives", [])
    chunk = write([Alarming("one"), Alarming("other")])
    alone = taken_out(chunk, 1)
    assert Alarming.lives == []
    assert isinstance(unpacked(alone), Alarming)
    assert Alarming.lives == ["other"]


def test_no_class_is_looked_up_in_what_only_pretends_to_be_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Alarming, "lives", [])
    forged = pickle.dumps([1, Alarming("one")], PROTOCOL)
    for place in (0, 1):
        with pytest.raises(NotPlainError):
            codec.alone(Codec.PLAIN, memoryview(forged), 2, place)
    assert Alarming.lives == []


@pytest.mark.parametrize("payload", [b"", b"garbage", pickle.dumps([1, 2], PROTOCOL)[:-3]])
def test_what_is_no_pickle_at_all_raises(payload: bytes) -> None:
    with pytest.raises((pickle.UnpicklingError, EOFError)):
        codec.alone(Codec.PLAIN, memoryview(payload), 2, 0)


# -- errors ------------------------------------------------------------------------------------------------


class Unwilling:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __reduce__(self) -> Any:
        raise self.error

    def __repr__(self) -> str:
        return "Unwilling()"


class Unspeakable(Unwilling):
    def __repr__(self) -> str:
        raise OSError("no repr")


@pytest.mark.parametrize("write", [codec.pickled, codec.pieces_of])
@pytest.mark.parametrize("error", [ValueError("no"), RecursionError(), StopIteration(), pickle.PicklingError("no")])
def test_a_task_that_cannot_be_pickled_is_named(write: Callable[[object], object], error: Exception) -> None:
    with pytest.raises(TaskNotPicklableError, match=r"Unwilling\(\)") as raised:
        write((1, Unwilling(error)))
    assert raised.value.__cause__ is error


@pytest.mark.parametrize("write", [codec.pickled, codec.pieces_of])
def test_a_task_that_cannot_even_be_shown_is_named_by_its_class(write: Callable[[object], object]) -> None:
    with pytest.raises(TaskNotPicklableError, match="Unspeakable"):
        write(Unspeakable(ValueError("no")))


@pytest.mark.parametrize("task", [lambda: None, (n for n in range(3)), sys], ids=["lambda", "generator", "module"])
def test_what_pickle_refuses_is_an_error_of_the_task(task: object) -> None:
    with pytest.raises(TaskNotPicklableError, match="yield values that pickle can store"):
        codec.pickled((1, task))


def test_a_buffer_with_gaps_is_an_error_of_the_task() -> None:
    with pytest.raises(TaskNotPicklableError):
        codec.pieces_of(Frame(memoryview(bytes(10))[::2]))


def nested(depth: int) -> tuple[object, ...]:
    task: tuple[object, ...] = ()
    for _ in range(depth):
        task = (task,)
    return task


def test_a_task_that_is_nested_too_deep_is_not_taken_for_plain() -> None:
    task = nested(300_000)  # since Python 3.14 it is the stack that ends: 8 MiB of it are some 100,000 deep
    assert not codec.is_plain(task)
    with pytest.raises(NotPlainError):
        codec.plain([task], 0)
    with pytest.raises(TaskNotPicklableError):
        codec.pickled(task)


class Fragile:
    """Raises when it arrives."""

    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def __setstate__(self, state: dict[str, type[BaseException]]) -> None:
        raise state["error"]


@pytest.mark.parametrize("write", [as_apart, as_large])
@pytest.mark.parametrize("error", [ValueError, StopIteration, KeyError])
def test_a_task_that_raises_when_it_arrives_does_not_take_the_others_with_it(
    write: Callable[[Sequence[object]], Chunk], error: type[Exception]
) -> None:
    chunk = write([1, Fragile(error), 3])
    tasks = tasks_of(chunk.codec, memoryview(b"".join(chunk.pieces)), 3, 0, 3)
    assert next(tasks) == 1
    with pytest.raises((error, RuntimeError)):
        next(tasks)
    assert list(tasks) == [3]


# -- for people --------------------------------------------------------------------------------------------


def test_a_task_is_shown_cut() -> None:
    assert codec.show((1, "包子")) == "(1, '包子')"
    for task in ("a" * 10**6, b"a" * 10**6, list(range(10**6)), nested(100), {n: n for n in range(1000)}):
        assert len(codec.show(task)) < 1000


def test_the_moment_of_the_offer_is_in_the_chunk() -> None:
    assert {write([1]).offered_ns for write in (as_apart, as_plain, as_large)} == {5}
    assert as_apart([1]).pieces[-1] == pickle.dumps(1, PROTOCOL)
