"""Fingerprints of producers: the same for the same producers, in each process, and another for others."""

from __future__ import annotations

import datetime
import enum
import functools
import multiprocessing
import os
import subprocess
import sys
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from conveyor.spool.fingerprint import ProducerPrint, difference, digest, of_producer


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@dataclass
class Job:
    path: str
    tags: set[str] = field(default_factory=set)
    options: dict[str, object] = field(default_factory=dict)

    def run(self) -> None: ...


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value


def read(path: str, *more: object, **named: object) -> list[str]:
    return []


def read_all(path: str) -> list[str]:
    return []


CYCLE: list[object] = [1]
CYCLE.append(CYCLE)
DEEP: list[object] = []
for _ in range(400):
    DEEP = [DEEP]
# What differs between two of these, or within one, is what a user would call another argument.
VALUES: list[Callable[[], object]] = [
    lambda: 1, lambda: 1.0, lambda: "1", lambda: b"1", lambda: True, lambda: None, lambda: 1j, lambda: float("nan"),
    lambda: (), list, dict, lambda: set(), lambda: frozenset(), lambda: bytearray(b"1"),
    lambda: (1, 2), lambda: [1, 2], lambda: [2, 1], lambda: [1, [2]], lambda: [[1], 2], lambda: {1: 2}, lambda: {2: 1},
    lambda: {"a", "b"}, lambda: {"a", "c"}, lambda: frozenset("ab"), lambda: {"a": {"b"}}, lambda: {"ab": {""}},
    lambda: ["ab", ""], lambda: ["a", "b"], lambda: list(range(2500)), lambda: list(range(2501)),
    lambda: Path("a"), lambda: Path("b"), lambda: "a", lambda: datetime.date(2026, 1, 1),
    lambda: datetime.date(2026, 1, 2), lambda: range(3), lambda: range(4), lambda: Colour.RED, lambda: Colour.BLUE,
    lambda: Job("a"), lambda: Job("b"), lambda: Job("a", {"x", "y"}), lambda: Job("a", options={"x": 1}),
    lambda: Slotted(1), lambda: Slotted(2), lambda: OrderedDict(a=1), lambda: defaultdict(int, a=1),
    lambda: Counter("a"), lambda: read, lambda: read_all, lambda: len, lambda: int, lambda: Job,
    lambda: Job("a").run, lambda: Job("b").run, lambda: functools.partial(read, "a"),
    lambda: functools.partial(read, "b"),
    lambda: CYCLE, lambda: DEEP, lambda: "\ud800", lambda: iter([1, 2]),
]  # fmt: skip


def test_other_values_have_other_digests_and_equal_ones_the_same() -> None:
    digests = [digest(value()) for value in VALUES]
    assert len(set(digests)) == len(VALUES)
    assert [digest(value()) for value in VALUES] == digests


def test_a_digest_is_the_same_in_each_process() -> None:
    code = (
        "from test_fingerprint import VALUES, digest\n"
        "words = [f'word {n}' for n in range(50)]\n"
        "print([digest(value()) for value in VALUES], digest(set(words)), digest(dict.fromkeys(set(words))))\n"
    )
    path = os.pathsep.join((str(Path(__file__).parent), *sys.path))

    def said(seed: str) -> str:
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path}
        return subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        ).stdout

    assert said("1") == said("2") != ""


def test_neither_order_nor_identity_of_equal_parts_is_part_of_a_digest() -> None:
    word = "a word that is not interned"
    twin = "".join(list(word))
    assert digest([word, word]) == digest([word, twin])
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    shared = [1]
    assert digest([shared, shared]) == digest([[1], [1]])


def test_what_the_system_lends_counts_by_its_kind() -> None:
    context = multiprocessing.get_context("spawn")
    assert digest(context.Lock()) == digest(context.Lock()) != digest(context.Event())


def test_many_arguments_take_no_time() -> None:
    """A list of a million numbers, as someone gives who has all items at hand."""
    assert digest(list(range(1_000_000))) != digest(list(range(1_000_001)))


# -- two starts ----------------------------------------------------------------------------------------------------


def printed(
    *args: object, name: str = "one", function: Callable[..., Any] = read, is_anew: bool = False, **kwargs: object
) -> ProducerPrint:
    made = of_producer(name, function, args, kwargs, is_anew=is_anew)
    stored = ProducerPrint.from_plain(made.as_plain())
    assert replace(made, paths=()) == replace(stored, arguments=list(stored.arguments))
    return made


def differs(before: ProducerPrint, now: ProducerPrint, *, is_finished: bool = False) -> str:
    return difference([before], [now], {"one": is_finished}) or ""


def test_the_same_again_is_no_difference() -> None:
    assert not differs(printed("a", 1, mode={"x"}), printed("a", 1, mode={"x"}))


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        (printed("a.txt"), printed("b.txt"), "the argument 1 of one was 'a.txt', and is 'b.txt'"),
        (printed("a", mode=1), printed("a", mode=2), "the argument mode of one was 1, and is 2"),
        (printed("a"), printed("a", 1), "the argument 2 of one is new"),
        (printed("a", mode=1), printed("a"), "the argument mode of one is gone"),
        (printed("a"), printed("a", function=read_all), "read, and is "),
        (printed(function=Job("a").run), printed(function=Job("b").run), "the argument (the object that is called)"),
        (printed(is_anew=True), printed(), "one began anew at each start"),
        (printed(), printed(name="two"), "the producers were one (1), and are two (1)"),
        (printed(list(range(99))), printed(list(range(98))), "the argument 1 of one is another than before, [0, 1, 2"),
    ],
)
def test_another_is_told_in_words(before: ProducerPrint, now: ProducerPrint, said: str) -> None:
    assert said in differs(before, now)


def test_more_producers_or_fewer_are_others() -> None:
    one, two, three = (printed(name=name) for name in ("one", "two", "three"))
    assert difference([one], [one, two, three], {}) == "the producers were one (1), and are one, two, three (3)"
    assert difference([one, two], [two, one], {}) is None


def test_an_argument_that_holds_itself_is_no_matter() -> None:
    assert not differs(printed(CYCLE, DEEP), printed(CYCLE, DEEP))


def test_what_has_put_nothing_may_be_called_with_anything() -> None:
    assert difference([printed("a")], [printed("b")], {}) is None


def test_one_that_begins_anew_may_be_called_with_anything_until_it_has_finished() -> None:
    before, now = printed("a", is_anew=True), printed("b", is_anew=True)
    assert not differs(before, now)
    assert differs(before, now, is_finished=True)


def test_a_relative_path_from_another_folder_is_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "lines.txt").touch()

    def printed_in(folder: str, *args: object) -> ProducerPrint:
        monkeypatch.chdir(tmp_path / folder)
        return printed(*args)

    for path in ("lines.txt", b"lines.txt", Path("lines.txt"), ["lines.txt"]):
        said = differs(printed_in("here", path), printed_in("there", path))
        assert f"was in the folder {tmp_path / 'here'}, and is in {tmp_path / 'there'}" in said
        assert not differs(printed_in("here", path), printed_in("here", path))
    for path in (str(tmp_path / "here" / "lines.txt"), "no file at all", "../here/lines.txt"):
        assert not differs(printed_in("here", path), printed_in("there", path))


def test_a_working_directory_that_is_gone_is_no_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert printed("a").folder == ""
