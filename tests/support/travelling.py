"""Consumers whose way to their process is special. Importable by worker processes."""

from __future__ import annotations

import ast
import multiprocessing
import os
import signal
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import conveyor
from support.work import double


class BreaksWhenUnpickled:
    """Cannot be unpickled in another process."""

    def __init__(self, parent: int) -> None:
        self.parent = parent

    def __setstate__(self, state: dict[str, int]) -> None:
        if os.getpid() != state["parent"]:
            self.fail()

    def fail(self) -> None:
        raise LookupError("no such shelf")

    def __call__(self, task: object) -> None: ...


class ExitsWhenUnpickled(BreaksWhenUnpickled):
    def fail(self) -> None:
        raise SystemExit(7)


class DiesAt:
    """Kills its process at one task, and returns the others."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.lock: Any = None

    def __call__(self, number: int) -> int:
        if number == self.number:
            os.kill(os.getpid(), signal.SIGKILL)
        return number


class PutsIntoAQueue:
    """Puts each task where the test finds it, and dies once."""

    def __init__(self, context: BaseContext, folder: Path) -> None:
        self.folder = folder
        self.open(context)

    def open(self, context: BaseContext) -> None:
        self.queue: Any = context.SimpleQueue()

    def __call__(self, number: int) -> None:
        if number == 7 and not (self.folder / "died").exists():
            (self.folder / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        self.queue.put(number)

    def all(self) -> list[int]:
        return [self.queue.get() for _ in range(20)]

    def close(self) -> None:
        self.queue.close()


class PutsWithALock(PutsIntoAQueue):
    """Writes to a file, with a lock that processes share."""

    def open(self, context: BaseContext) -> None:
        self.lock = context.Lock()

    def __call__(self, number: int) -> None:
        self.queue = self
        super().__call__(number)

    def put(self, number: int) -> None:
        with self.lock, (self.folder / "numbers").open("a") as file:
            file.write(f"{number}\n")

    def all(self) -> list[int]:
        return [int(line) for line in (self.folder / "numbers").read_text().split()]

    def close(self) -> None: ...


class PutsWithAWarehouse(PutsIntoAQueue):
    """Puts into a drop-in queue."""

    def open(self, context: BaseContext) -> None:
        self.queue = conveyor.Queue()

    def close(self) -> None:
        self.queue.close()
        self.queue.join_thread()


class HasAHash:
    """Looks like a plain task for as long as nobody pickles it."""

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("it cannot be pickled")


def length_of(item: Any) -> int:
    return len(item)


def _map_here(file: Path) -> None:
    try:
        file.write_text(repr(sorted(conveyor.imap_unordered(double, range(3), consumers=1))))
    except BaseException as error:
        file.write_text(repr([type(error).__name__]))


def run_in_a_daemon(folder: Path) -> object:
    """Return the results of a run in a daemonic process, or the name of the exception that ended it."""
    process = multiprocessing.get_context("spawn").Process(target=_map_here, args=(folder / "result",), daemon=True)
    process.start()
    process.join(60)
    return ast.literal_eval((folder / "result").read_text())
