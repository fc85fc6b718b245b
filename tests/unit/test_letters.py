"""Dead letters in memory: the latest are kept, within bounds, and found by their numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from conveyor.queues import letters as module
from conveyor.queues.letters import MAX_BYTES, MAX_LETTERS, LettersInMemory
from support.spools import letter


def numbers(letters: LettersInMemory, after: int = 0, most: int = 10**9) -> list[int]:
    return [letter.number for letter in letters.list(after, most)]


@pytest.fixture
def five() -> LettersInMemory:
    letters = LettersInMemory()
    for number in range(1, 6):
        letters.add(letter(f"task {number}"))
    return letters


def test_letters_are_numbered_in_the_order_in_which_they_come(five: LettersInMemory) -> None:
    assert [(found.number, found.task) for found in five.list(0, 10)] == [(n, f"task {n}") for n in range(1, 6)]
    assert len(five) == 5


def test_a_letter_is_found_whole_and_listed_without_its_payload(five: LettersInMemory) -> None:
    assert five.find(2) == replace(letter("task 2"), number=2)
    assert five.list(1, 1) == [replace(letter("task 2", b""), number=2)]
    assert five.find(6) is None


def test_the_number_is_given_whatever_a_letter_says(five: LettersInMemory) -> None:
    """One that was tried once more and is given up again is another letter."""
    five.add(replace(letter(), number=2))
    assert numbers(five) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("after", "most", "page"),
    [(0, 2, [1, 2]), (2, 2, [3, 4]), (4, 2, [5]), (5, 2, []), (0, 0, []), (-1, 9, [1, 2, 3, 4, 5]), (99, 9, [])],
)
def test_letters_are_listed_by_the_page(five: LettersInMemory, after: int, most: int, page: list[int]) -> None:
    assert numbers(five, after, most) == page


def test_pages_go_on_behind_a_letter_that_was_removed_meanwhile(five: LettersInMemory) -> None:
    assert numbers(five, 0, 2) == [1, 2]
    five.remove([2, 3])
    assert numbers(five, 2, 2) == [4, 5]


def test_what_is_removed_is_gone_and_counted_once(five: LettersInMemory) -> None:
    assert five.remove([1, 3, 3, 77]) == 2
    assert five.remove([1]) == five.remove([]) == 0
    assert (numbers(five), len(five), five.find(1)) == ([2, 4, 5], 3, None)
    five.add(letter())
    assert numbers(five) == [2, 4, 5, 6]  # no number is given twice


def test_of_too_many_letters_the_oldest_make_room() -> None:
    letters = LettersInMemory()
    for _ in range(MAX_LETTERS + 3):
        letters.add(letter())
    assert numbers(letters) == list(range(4, MAX_LETTERS + 4))


def test_of_too_many_bytes_the_oldest_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 100)
    letters = LettersInMemory()
    for size in (40, 40, 20, 1):
        letters.add(letter(payload=bytes(size)))
    assert numbers(letters) == [2, 3, 4]
    letters.add(letter(payload=bytes(99)))
    assert numbers(letters) == [4, 5]
    letters.remove([5])
    letters.add(letter(payload=bytes(60)))
    letters.add(letter(payload=bytes(39)))
    assert numbers(letters) == [4, 6, 7]  # the bytes of what was removed count no more


def test_one_letter_is_kept_however_large_it_is() -> None:
    letters = LettersInMemory()
    letters.add(letter())
    letters.add(letter(payload=bytes(MAX_BYTES + 1)))
    assert numbers(letters) == [2]
    letters.add(letter())
    assert numbers(letters) == [3]
