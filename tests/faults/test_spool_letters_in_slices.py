"""Thousands of dead letters tried again at once: the run goes on meanwhile, and the client hears how many they were."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from conveyor import deadletters
from conveyor.asking import dead
from conveyor.deadletters import in_slices
from conveyor.errors import ControlError, LetterUnkeptError
from conveyor.queues import codec
from conveyor.queues.letters import LettersInMemory
from conveyor.spool.folder import Spool
from conveyor.spool.store import Changes
from support.runs import running
from support.spools import letter
from support.waiting import wait_for

TESTS = str(Path(__file__).parents[1])
LETTERS = int(os.environ.get("DEAD_LETTERS", "2000"))
"""For a long one: 20000."""


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """A spool at rest with that many letters, on numbers."""
    folder = tmp_path / "spool"
    bodies = [codec.pickled(number) for number in range(LETTERS)]
    payloads = [b"".join(codec.apart([body], 0).pieces) for body in bodies]
    with contextlib.closing(Spool(folder, "normal")) as spool:
        spool.store.write(Changes(letters=[letter(str(n), payload) for n, payload in enumerate(payloads)]))
    return folder


def test_a_run_goes_on_while_thousands_of_letters_are_tried_again(
    tmp_path: Path, many: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("support.doom:doomed", f"folder={tmp_path}", "tasks=1", "producers=1", "hold=0", "--spool", str(many))
    with running(tmp_path, *arguments, "--consumers", "1", CONVEYOR_METRICS="off", PYTHONPATH=TESTS) as run:
        wait_for("the task", (tmp_path / "held-by").exists)
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
        assert dead("retry", ["all"], run.process.pid) == f"{LETTERS} tried again"
        queue = run.status().queue
        assert (queue.dead_letters, queue.unfinished) == (0, LETTERS + 1)
        slices = run.said().count("dead letters are tried again")
        assert 1 < slices < LETTERS / 10  # other things came between, and not after each letter
        run.process.kill()
        run.process.wait()


class Letters(LettersInMemory):
    """As many as it is told; some cannot be tried again."""

    def __init__(self, number: int, unkept: Sequence[int] = (), seconds: float = 0.0) -> None:
        super().__init__()
        for _ in range(number):
            self.add(letter())
        self.unkept, self.seconds, self.tried = unkept, seconds, list[int]()

    def act(self, numbers: Sequence[int]) -> int:
        time.sleep(self.seconds)
        for number in numbers:
            if number in self.unkept:
                raise LetterUnkeptError(f"not {number}")
            if number == 99:
                raise ControlError("the disk is full")
            self.tried.append(number)
        return len(numbers)


def slices(words: str, letters: Letters, most: int = 1) -> Iterator[deadletters.Slice]:
    """Ask as a client does."""
    while words:
        done = in_slices(words.split(), letters, letters.act, most)
        yield done
        words = done.rest


@pytest.mark.parametrize("words", ["all", "1 2 3 4 5 6 7 8 9 10"])
def test_all_are_done_with_once_however_many_requests_that_takes(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadletters, "SLICE_SECONDS", 0.0)
    letters = Letters(10, seconds=0.001)
    told = list(slices(words, letters))
    assert len(told) > 5
    assert sum(done.number for done in told) == 10
    assert letters.tried == list(range(1, 11))


def test_a_letter_that_comes_meanwhile_is_not_among_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that fails again at once would otherwise be tried again for ever."""
    monkeypatch.setattr(deadletters, "SLICE_SECONDS", 0.0)
    letters = Letters(5, seconds=0.001)
    for _ in itertools.islice(slices("all", letters), 100):
        letters.add(letter())
    assert letters.tried == [1, 2, 3, 4, 5]


def test_one_that_cannot_be_tried_again_is_told_and_keeps_no_other_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadletters, "SLICE_SECONDS", 60.0)
    (done,) = slices("all", letters := Letters(5, unkept=[2]))
    assert (done.number, done.trouble, letters.tried) == (4, "not 2", [1, 3, 4, 5])
    with pytest.raises(ControlError, match="not 2"):
        list(slices("2", Letters(5, unkept=[2])))


def test_what_was_done_before_a_failure_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadletters, "SLICE_SECONDS", 60.0)
    (done,) = slices("all", Letters(120))
    assert (done.number, done.trouble) == (98, "the disk is full")
    with pytest.raises(ControlError, match="the disk is full"):
        list(slices("99", Letters(120)))
