"""What the workers of the metrics tests do. Importable by worker processes, so all of it is at top level."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from support.workloads import wait_at


def count_forever() -> Iterator[int]:
    """Yield numbers without end; the queue's bound holds it back."""
    return itertools.count()


class Gated:
    """Holds each task until the gate is open, and fails every third one then."""

    def __init__(self, gate: Path) -> None:
        self.gate = gate

    def __call__(self, task: int) -> None:
        wait_at(self.gate)
        if task % 3 == 0:
            raise ValueError("every third task fails")


def numbers_to(end: int) -> Iterator[int]:
    yield from range(end)


def double(number: int) -> int:
    return 2 * number


def double_and_pid(number: int) -> tuple[int, int]:
    return 2 * number, os.getpid()


def die_at_13(number: int) -> int:
    if number == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


class UnpicklableError(Exception):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.cause = lambda: text


class RemadeError(Exception):
    """Takes two arguments and passes on one: pickle cannot make it again."""

    def __init__(self, text: str, number: int) -> None:
        super().__init__(f"{text} {number}")


def fail_in_odd_ways(deed: str) -> object:
    match deed:
        case "ValueError":
            raise ValueError(deed)
        case "an exception that cannot be pickled":
            raise UnpicklableError("with a lambda")
        case "an exception that cannot be made again":
            raise RemadeError("again", 1)
        case "a result that cannot be pickled":
            return lambda: deed
    return deed
