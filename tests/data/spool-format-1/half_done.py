"""The workload whose half-done spool is kept here: two ranges of numbers, with a task that raises and two that wait."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from conveyor import Pipeline, Producer

RAISES, HELD, IN_HAND = 5, 10, 110


def wait_at(gate: Path) -> None:
    until = time.monotonic() + 60.0
    while not gate.exists() and time.monotonic() < until:
        time.sleep(0.005)


def numbers(first: int, tasks: int, gate_at: int, folder: Path) -> Iterator[int]:
    for number in range(tasks):
        if number == gate_at:
            wait_at(folder / "gate")
        yield first + number


class Note:
    """Appends each task that is done to a file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, task: int) -> None:
        if task == RAISES:
            raise ValueError("a task that fails")
        if task in (HELD, IN_HAND):
            (self.folder / f"in-{task}").touch()
            wait_at(self.folder / f"go-{task}")
        descriptor = os.open(self.folder / "done.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(descriptor, b"%d\n" % task)
        os.close(descriptor)


def half_done(folder: Path) -> Pipeline:
    """Numbers from 0 and from 100."""
    return Pipeline(
        name="half-done",
        producers=[
            Producer(numbers, 0, 40, -1, folder, name="low"),
            Producer(numbers, 100, 60, 30, folder, name="high"),
        ],
        consumer=Note(folder),
        consumers=2,
    )
