"""A task is shown without bringing it to life: nothing of the user's is imported or run, whatever the pickle says."""

from __future__ import annotations

import array
import collections
import dataclasses
import datetime
import decimal
import enum
import functools
import os
import pickle
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from conveyor.queues import codec, effigy
from conveyor.queues.codec import Chunk, Codec
from conveyor.queues.effigy import likeness

FAR_TOO_LONG = 3000  # characters of a log line


class Colour(enum.Enum):
    RED = 1


@dataclasses.dataclass
class Point:
    x: int
    y: object = None


@dataclasses.dataclass(slots=True)
class Slotted:
    x: int
    y: str


class SlotsAndMore(Slotted):
    def __init__(self) -> None:
        super().__init__(1, "a")
        self.z = 3


class Stated:
    """Says its own state."""

    def __init__(self, state: object) -> None:
        self.state = state

    def __getstate__(self) -> object:
        return self.state

    def __setstate__(self, state: object) -> None:
        raise AssertionError("the user's code is run")


class OwnList(list[int]): ...


class OwnDict(dict[str, int]): ...


class OwnSet(set[int]): ...


Pair = collections.namedtuple("Pair", "a b")


class Frame:
    """Holds a large buffer as numpy's arrays do."""

    def __init__(self, data: bytearray | bytes) -> None:
        self.data = data

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Frame, (pickle.PickleBuffer(self.data),)


class Deed:
    """Does something when it is unpickled."""

    def __init__(self, function: Any, *args: object) -> None:
        self.does = function, args

    def __reduce__(self) -> Any:
        return self.does


def shown(chunk: Chunk, place: int = 0) -> str:
    return likeness(chunk.codec, memoryview(b"".join(chunk.pieces)), chunk.count, place)


def shown_apart(*tasks: object, place: int = 0) -> str:
    return shown(codec.apart([codec.pickled(task) for task in tasks], 0), place)


def shown_raw(data: bytes, buffers: Sequence[bytes] = ()) -> str:
    return shown(codec.apart([data], 0))


# -- what it looks like ------------------------------------------------------------------------------------

LOOKS: dict[str, tuple[object, str]] = {
    "number": (5, "5"),
    "text": ("包子", "'包子'"),
    "containers": ([1, (2, {"a": {3}})], "[1, (2, {'a': {3}})]"),
    "object": (Point(1, [2]), "Point(x=1, y=[2])"),
    "object in a tuple": ((1, Point(2)), "(1, Point(x=2, y=None))"),
    "slots": (SlotsAndMore(), "SlotsAndMore(z=3, x=1, y='a')"),
    "a state of its own": (Stated([1, 2]), "Stated([1, 2])"),
    "a state of two": (Stated((1, 2)), "Stated((1, 2))"),
    "a state of nothing and one": (Stated((None, 2)), "Stated((None, 2))"),
    "list": (OwnList([1, 2]), "OwnList(1, 2)"),
    "dict": (OwnDict(a=1), "OwnDict('a': 1)"),
    "set": (OwnSet([1]), "OwnSet([1])"),
    "deque": (collections.deque([1, 2]), "deque(1, 2)"),
    "counter": (collections.Counter("aa"), "Counter({'a': 2})"),
    "named tuple": (Pair(1, "b"), "Pair(1, 'b')"),
    "enum": (Colour.RED, "Colour(1)"),
    "class": (Point, "Point"),
    "function": (len, "len"),
    "partial": (functools.partial(print, 1, end=""), "partial(print, (print, (1,), {'end': ''}, None))"),
    "decimal": (decimal.Decimal("1.10"), "Decimal('1.10')"),
    "path": (Path("/a/b"), "PosixPath('/"),
    "complex": (1j, "complex(0.0, 1.0)"),
    "exception": (ValueError("no"), "ValueError('no')"),
    "frame": (Frame(bytearray(b"abc")), "Frame("),
}


@pytest.mark.parametrize("name", LOOKS)
def test_a_task_is_shown_as_it_would_show_itself_or_nearly(name: str) -> None:
    task, look = LOOKS[name]
    assert shown_apart("before", task, "after", place=1).startswith(look)


@pytest.mark.parametrize(
    "task",
    [datetime.datetime(2024, 2, 29), datetime.timedelta(1), uuid.uuid4(), array.array("d", [1.5]), range(3), Ellipsis],
)
def test_what_the_standard_library_makes_is_shown_with_its_name(task: object) -> None:
    assert type(task).__name__.lower() in shown_apart(task).lower()


def test_a_task_of_each_codec_is_found_at_its_place() -> None:
    tasks = ["a", ("b", 2), 3]
    assert [shown(codec.plain(tasks, 0), place) for place in range(3)] == ["'a'", "('b', 2)", "3"]
    assert [shown_apart(*tasks, place=place) for place in range(3)] == ["'a'", "('b', 2)", "3"]
    large = codec.large([codec.pieces_of(task) for task in ("a", Frame(bytearray(b"bc")), 3)], 0)
    assert [shown(large, place) for place in range(3)] == ["'a'", "Frame(b'bc')", "3"]


def test_a_task_that_holds_itself_is_shown() -> None:
    point = Point(1)
    point.y = [point]
    task: list[object] = [point]
    task.append(task)
    assert shown_apart(task).startswith("[Point(")


# -- nothing is brought to life ----------------------------------------------------------------------------


def test_no_code_of_the_users_is_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    for deed in (Deed(os.system, f"touch {mark}"), Deed(exec, "1/0"), Deed(os._exit, 7), Deed(open, str(mark), "w")):
        assert shown_apart([deed])
        assert shown_apart({"a": (deed, Point(1, deed))})
    assert not mark.exists()
    assert shown_apart(Deed(os.system, "true")) == "system('true')"


def test_no_module_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "harmful_module.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert shown_raw(b"charmful_module\nThing\n(I1\ntR.") == "Thing(1)"
    assert shown_raw(b"cno.such.module\nThing.Inner\n)R.") == "Thing.Inner()"
    assert "harmful_module" not in sys.modules


def test_no_state_is_set_and_no_hash_taken() -> None:
    class_ = "Harmless"
    assert shown_raw(f"(c__main__\n{class_}\n)RI1\nd.".encode()) == "{Harmless(): 1}"
    assert shown_apart({Stated([1])}) == "{Stated([1])}"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b".",
        b"garbage",
        b"\x80\x05",
        b"\x80\xff.",
        b"I1\n",
        b"Pid\n.",
        b"I1\nQ.",
        b"\x97.",
        b"\x82\x01.",
        b"c__main__\n\n)R.",
        b"c__main__\nA\x00B\n)R.",
        b"I1\nI2\nR.",
        b"(lI1\nb.",
        b"c__main__\nA\n(db.",
        b"c__main__\nA\nI1\nb.",
        b"c__main__\nA\nI1\na.",
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\x0f.",
        b"\x8b\xff\xff\xff\x7f.",
        b"(" * 100,
        b"ccopyreg\n_reconstructor\n(c__main__\nA\nc__builtin__\nobject\nNtR.",
        b"c__main__\n__reduce__\n)R.",
        b"c__main__\n\xed\xb2\x80\n)R.",
    ],
    ids=repr,
)
def test_whatever_the_pickle_says_it_is_a_line_of_text(data: bytes) -> None:
    line = shown_raw(data)
    assert isinstance(line, str)
    assert len(line) < FAR_TOO_LONG


def test_a_chunk_that_cannot_be_right_is_a_line_of_text() -> None:
    for kind in Codec:
        for payload in (b"", b"\xff" * 8, b"\xff" * 100):
            assert likeness(kind, memoryview(payload), 2, 1).startswith("(a task that cannot be shown")


# -- and quickly -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "task",
    [
        "a" * 10**7,
        b"a" * 10**7,
        ["a" * 100] * 10**5,
        OwnList(range(50_000)),
        OwnDict({str(number): number for number in range(10_000)}),
        [OwnList(range(1000)) for _ in range(100)],
        {"a": [Point(number, "x" * 1000) for number in range(100)]},
        10**5000,
    ],
    ids=lambda task: type(task).__name__,
)
def test_a_huge_task_is_cut(task: object) -> None:
    assert len(shown_apart(task)) < FAR_TOO_LONG
    assert len(shown(codec.large([codec.pieces_of(task)], 0))) < FAR_TOO_LONG


def test_no_more_of_an_object_is_looked_at_than_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []

    def show(value: object) -> str:
        looks.append(value)
        return codec.show(value)

    monkeypatch.setattr(effigy, "show", show)
    assert shown_apart(OwnList(range(50_000))).startswith("OwnList(0, 1, 2, 3")
    assert len(looks) < 100


def test_no_more_of_a_buffer_is_copied_than_is_shown() -> None:
    chunk = codec.large([codec.pieces_of(Frame(bytearray(10**8)))], 0)
    assert shown(chunk).startswith(r"Frame(b'\x00\x00")


def test_what_is_nested_deep_is_cut() -> None:
    data = b"(" * 10_000 + b"t" * 10_000 + b"."
    assert len(shown_raw(data)) < 100
    figures = b"c__main__\nA\n" * 3000 + b")R" + b"\x85R" * 2999 + b"."
    assert shown_raw(figures).startswith("A(A(A(")
    assert len(shown_raw(figures)) < FAR_TOO_LONG


def test_a_plain_chunk_of_the_usual_size_is_shown_and_a_huge_one_is_told_of() -> None:
    tasks = [("x" * 200, number) for number in range(2000)]
    assert shown(codec.plain(tasks, 0), 7).endswith(", 7)")
    assert shown(codec.plain(["x" * 10**7, "y"], 0), 1) == "(one of 2 tasks of 10,000,026 bytes)"
