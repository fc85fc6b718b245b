"""What tasks leave behind, in files: counts and records. Here are both sides of the format.

Written by the consumers' processes, read by the command that watches them, at any moment, also after a SIGKILL.
Each consumer process has a count file of its own (one writer); records are appended whole to one file by all.
"""

from __future__ import annotations

import enum
import mmap
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDER_VARIABLE = "CONVEYOR_BENCH_FOLDER"
_COUNTS = "count-"
_RECORDS = "records"
_CELLS = 2
_RECORD = struct.Struct("<qqqq")


class Kind(enum.IntEnum):
    """What a record tells."""

    STARTED = 1
    ENDED = 2
    RECEIVED = 3


@dataclass(frozen=True, slots=True)
class Record:
    """One thing that happened to one task; `value` is the task's number, or what the task carried."""

    kind: int
    pid: int
    value: int
    ns: int
    """`time.monotonic_ns()`, which all processes of a machine share."""


def own_cells() -> memoryview:
    """Return the two counters of this process: tasks and bytes."""
    path = Path(os.environ[FOLDER_VARIABLE]) / f"{_COUNTS}{os.getpid()}"
    with path.open("w+b") as file:
        file.truncate(8 * _CELLS)
        return memoryview(mmap.mmap(file.fileno(), 8 * _CELLS)).cast("q")


def own_recorder() -> Callable[[int, int, int], object]:
    """Return what this process records with: a function of kind, value and time."""
    path = Path(os.environ[FOLDER_VARIABLE]) / _RECORDS
    number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    pid, write, pack = os.getpid(), os.write, _RECORD.pack
    return lambda kind, value, ns: write(number, pack(kind, pid, value, ns))


class Counts:
    """The sum of what all processes have counted."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._cells: dict[str, memoryview] = {}

    def read(self) -> tuple[int, int]:
        """Return the tasks and the bytes so far."""
        for entry in os.scandir(self._folder):
            name = entry.name
            if name.startswith(_COUNTS) and name not in self._cells:
                path = self._folder / name
                if path.stat().st_size == 8 * _CELLS:  # else its writer is about to make it so
                    with path.open("r+b") as file:
                        self._cells[name] = memoryview(mmap.mmap(file.fileno(), 8 * _CELLS)).cast("q")
        cells = self._cells.values()
        return sum(cell[0] for cell in cells), sum(cell[1] for cell in cells)


class Records:
    """What all processes have recorded, in the order in which they did."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / _RECORDS
        self._offset = 0
        self.all: list[Record] = []

    def read(self) -> list[Record]:
        """Return those that are new."""
        new = list(self._new())
        self.all += new
        return new

    def _new(self) -> Iterator[Record]:
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return
        whole = len(data) - len(data) % _RECORD.size
        self._offset += whole
        for fields in _RECORD.iter_unpack(data[:whole]):
            yield Record(*fields)
