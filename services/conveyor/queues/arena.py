"""A producer's shared memory: it alone writes, consumers read, and the supervisor holds it open for its chunks.

So no payload passes through the supervisor, and none dies with its producer. The memory is a `memfd`: it has no
name, and the kernel frees it with its last holder.

Who writes: the producer, into places that it has found free. It frees them when the queue says that a chunk is done.
"""

from __future__ import annotations

import bisect
import mmap
import os
import resource
from collections.abc import Iterable

from conveyor import descriptors
from conveyor.errors import RunBrokenError
from conveyor.queues.codec import Piece

FIRST_BYTES = 1 << 20
NO_LIMIT = 1 << 62
_ALIGNMENT = 64  # a cache line


class Gaps:
    """The free places of an arena: pure. Sizes and offsets in bytes."""

    def __init__(self, first: int = 0) -> None:
        self.end = first
        """The size of the arena."""
        self._gaps: list[tuple[int, int]] = []  # (offset, size), by offset, no two of them adjacent

    def take(self, size: int) -> int | None:
        """Return the lowest place that has room, or None. The lowest has been used last: it is in the cache."""
        size = _rounded(size)
        for index, (offset, room) in enumerate(self._gaps):
            if room >= size:
                self._gaps[index : index + 1] = [(offset + size, room - size)] if room > size else []
                return offset
        return None

    def give(self, offset: int, size: int) -> None:
        """Take a place back."""
        size = _rounded(size)
        index = bisect.bisect(self._gaps, (offset, 0))
        if index < len(self._gaps) and self._gaps[index][0] == offset + size:
            size += self._gaps.pop(index)[1]
        if index and sum(self._gaps[index - 1]) == offset:
            offset, before = self._gaps.pop(index - 1)
            size, index = size + before, index - 1
        self._gaps.insert(index, (offset, size))

    def grow(self, end: int) -> None:
        """Have so many bytes in all."""
        self.give(self.end, end - self.end)
        self.end = end


def _rounded(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


class Arena:
    """The producer's side."""

    def __init__(self, descriptor: int, limit_bytes: int, reserved_bytes: int = 0) -> None:
        """Write into this memory, at most so many bytes at a time, but for one chunk that is larger than that.

        The first bytes can be reserved for something else.
        """
        self._descriptor = descriptor
        self._limit = limit_bytes
        self._gaps = Gaps(reserved_bytes)
        self._held = 0
        self.memory = memoryview(b"")

    def write(self, pieces: Iterable[Piece], size: int) -> int | None:
        """Store a chunk; return its offset, or None if there is no room until another is freed."""
        offset = self.allocate(size)
        if offset is not None:
            at = offset
            for piece in pieces:
                self.memory[at : at + len(piece)] = piece
                at += len(piece)
        return offset

    def allocate(self, size: int) -> int | None:
        """Return the offset of so much free `memory`, or None if there is none until a chunk is freed."""
        if self._held and self._held + size > self._limit:
            return None
        offset = self._gaps.take(size)
        if offset is None:
            if not self._grow(size):
                return None
            offset = self._gaps.take(size)
            assert offset is not None
        self._held += size
        return offset

    def free(self, offset: int, size: int) -> None:
        """Forget a chunk."""
        self._held -= size
        self._gaps.give(offset, size)

    def _grow(self, size: int) -> bool:
        """Have room for so much more; return False if the system allows no more and chunks will be freed."""
        least = self._gaps.end + _rounded(size)
        end = max(FIRST_BYTES, 2 * self._gaps.end, least)
        most = resource.getrlimit(resource.RLIMIT_FSIZE)[0]  # counts for memory that has no file too
        if 0 <= most < end:
            end = most & -_ALIGNMENT
        if end < least and self._held and self._limit != NO_LIMIT:
            return False
        if end < least:
            raise RunBrokenError(
                f"the shared memory for tasks cannot grow to {least:,} bytes: files may have {most:,} at most; "
                "raise the limit (ulimit -f)"
            )
        os.truncate(self._descriptor, end)
        self._gaps.grow(end)
        self.memory = memoryview(mmap.mmap(self._descriptor, end))
        return True


class Window:
    """A reader's side: maps the memory as far as it is needed."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._memory = memoryview(b"")

    def view(self, offset: int, size: int) -> memoryview:
        """Return these bytes, for as long as the queue keeps the chunk. Nobody may write into them."""
        if offset + size > len(self._memory):
            end = os.fstat(self._descriptor).st_size
            self._memory = memoryview(mmap.mmap(self._descriptor, end, prot=mmap.PROT_READ))
        return self._memory[offset : offset + size]

    def close(self) -> None:
        """Let go of the memory."""
        self._memory = memoryview(b"")
        os.close(self._descriptor)


def new_memory() -> int:
    """Return the descriptor of a new arena's memory."""
    return descriptors.new_memory("conveyor-arena")
