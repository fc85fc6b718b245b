"""Dead letters: tasks that were given up, kept with the reason, to be looked at and perhaps tried once more.

This keeps them in memory, for a run without a spool. Called in the supervisor's loop.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from conveyor.queues.codec import Codec
from conveyor.snapshot import RedeliveryReason

# In memory; the oldest make room. Arbitrary: more than a person reads, little beside what a queue may hold.
MAX_LETTERS = 1000
MAX_BYTES = 16 << 20


class Cause(enum.StrEnum):
    """Why a task was given up."""

    ERROR = "error"  # its function raised
    DEATH = "death"  # its consumers died with it in hand
    TIMEOUT = "timeout"  # it took longer than it may


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One task that was given up. Times are Unix times."""

    cause: Cause
    task: str
    """Its repr, cut."""
    error: str
    """The class of its exception, or how its last consumer ended."""
    reason: str
    """What the exception says."""
    trace: str
    attempts: int
    """Deliveries that ended in a death or raised."""
    worker: str
    """The slot of its last consumer."""
    put_at: float
    given_up_at: float
    codec: Codec
    payload: bytes
    """A chunk of this task alone."""
    number: int = 0
    """By which it is asked for."""


@dataclass(frozen=True, slots=True)
class Counted:
    """What a queue counts of itself, in tasks, and a spool keeps with the letters."""

    added: int
    """Tasks beyond those that producers have put: letters that are tried again."""
    dead_lettered: int
    redeliveries: Mapping[RedeliveryReason, int]


class DeadLetters(Protocol):
    """Where they are kept."""

    def add(self, letter: DeadLetter) -> None:
        """Keep a letter, under a new number."""

    def list(self, after: int, most: int) -> Sequence[DeadLetter]:
        """Return so many of them, by their numbers, from the first behind `after`; without their payloads."""

    def find(self, number: int) -> DeadLetter | None:
        """Return one, whole."""

    def numbers(self) -> Sequence[int]:
        """Return the numbers of all of them."""

    def remove(self, numbers: Sequence[int]) -> int:
        """Forget these; return how many there were."""

    def __len__(self) -> int:
        """Return how many are kept."""


class LettersInMemory:
    """Keeps the latest."""

    def __init__(self) -> None:
        self._letters: dict[int, DeadLetter] = {}
        self._numbers = itertools.count(1)
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._letters)

    def add(self, letter: DeadLetter) -> None:
        number = next(self._numbers)
        self._letters[number] = replace(letter, number=number)
        self._bytes += len(letter.payload)
        while len(self._letters) > MAX_LETTERS or (self._bytes > MAX_BYTES and len(self._letters) > 1):
            self.remove([next(iter(self._letters))])

    def list(self, after: int, most: int) -> Sequence[DeadLetter]:
        behind = (letter for number, letter in self._letters.items() if number > after)
        return [replace(letter, payload=b"") for letter in itertools.islice(behind, most)]

    def find(self, number: int) -> DeadLetter | None:
        return self._letters.get(number)

    def numbers(self) -> Sequence[int]:
        return tuple(self._letters)

    def remove(self, numbers: Sequence[int]) -> int:
        gone = [self._letters.pop(number) for number in numbers if number in self._letters]
        self._bytes -= sum(len(letter.payload) for letter in gone)
        return len(gone)
