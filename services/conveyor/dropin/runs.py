"""What the broker keeps: runs of consecutive items, as they were written. Pure.

A run is handed on as it came, thousands of items in one go; it is only read where it must be divided.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Final

from conveyor import descriptors
from conveyor.dropin.ring import FRAME_BYTES, LARGE_FRAME, LARGE_FRAME_BYTES, NUMBER, SIZE, frames

_size_at: Final = SIZE.unpack_from
_number_at: Final = NUMBER.unpack_from


class Parcel:
    """A large item: a descriptor of the memory in which it lies, or its bytes where there are too many descriptors."""

    open_count = 0
    """Of this process; it decides which way the next one is kept."""

    def __init__(self, descriptor: int, most_open: int) -> None:
        self._descriptor = descriptor
        self._data = b""
        if Parcel.open_count < most_open:
            Parcel.open_count += 1
            return
        try:
            self._data = _read_all(descriptor)
        finally:
            os.close(descriptor)
            self._descriptor = -1

    def descriptor(self) -> int:
        """Return a descriptor that the caller must close."""
        if self._descriptor >= 0:
            return os.dup(self._descriptor)
        return write_memory([self._data])

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            Parcel.open_count -= 1


def write_memory(pieces: Iterable[bytes | memoryview]) -> int:
    """Return the descriptor of new memory with these bytes in it."""
    descriptor = descriptors.new_memory("conveyor-item")
    try:
        for piece in pieces:
            view = memoryview(piece)
            while len(view):
                view = view[os.write(descriptor, view) :]
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _read_all(descriptor: int) -> bytes:
    size = os.fstat(descriptor).st_size
    pieces, at = [], 0
    while at < size:
        piece = os.pread(descriptor, size - at, at)
        pieces.append(piece)
        at += len(piece)
    return b"".join(pieces)


class Run:
    """Some consecutive items: frames between two places of `data`, or one parcel."""

    __slots__ = ("count", "data", "end", "number", "parcel", "place", "start")

    def __init__(self, data: bytes, start: int, end: int, count: int, parcel: Parcel | None = None) -> None:
        self.data = data
        self.start = start
        self.end = end
        self.count = count
        self.parcel = parcel
        self.place = 0
        """Of the first item, among all that the queue has accepted."""
        self.number = 0
        """Of the first item, among all that its holder was sent."""

    def first(self, most: int, most_bytes: int) -> Run:
        """Cut off and return the first items: at most so many, in at most so many bytes, but one at least."""
        if self.count <= most and self.end - self.start <= most_bytes:
            taken = Run(self.data, self.start, self.end, self.count, self.parcel)
            taken.place, taken.number = self.place, self.number
            self.start, self.count = self.end, 0
            return taken
        data, start, most = self.data, self.start, min(most, self.count)
        at, count = start, 0
        while count < most:
            after = at + FRAME_BYTES + _size_at(data, at)[0]
            if count and after - start > most_bytes:
                break
            at = after
            count += 1
        taken = Run(data, start, at, count)
        taken.place, taken.number = self.place, self.number
        self.start = at
        self.count -= count
        self.place += count
        self.number += count
        return taken

    def view(self) -> memoryview:
        return memoryview(self.data)[self.start : self.end]


def runs_of(data: bytes, parcel_of: Callable[[int], Parcel]) -> list[Run]:
    """Return the runs of which these frames consist; each large one has a parcel, which is called for by its number."""
    runs, at, start, number = list[Run](), 0, 0, 0
    for size in frames(data):
        if size != LARGE_FRAME:
            at += FRAME_BYTES + size
            number += 1
            continue
        if number:
            runs.append(Run(data, start, at, number))
        parcel = parcel_of(_number_at(data, at + FRAME_BYTES)[0])
        at += LARGE_FRAME_BYTES
        runs.append(Run(b"", 0, 0, 1, parcel))
        start, number = at, 0
    if number:
        runs.append(Run(data, start, at, number))
    return runs
