"""A ring of bytes with one writer and one reader: what a process puts, until the broker reads it.

An item is a frame: its size in four bytes, and its pickle. No frame goes over the end of the ring. Positions count
bytes since the ring was made and never fall.
"""

from __future__ import annotations

import struct
from typing import Final

from conveyor.dropin.page import (
    COUNT_MASK,
    HEAD,
    KEEPS_ORDER,
    LARGE,
    PUT,
    RING_BYTES,
    TAIL_BITS,
    TAIL_MASK,
    WRAP,
    fence,
)

SIZE: Final = struct.Struct("<I")
FRAME_BYTES: Final = SIZE.size  # beside the pickle
LARGE_FRAME: Final = 0xFFFFFFFF  # in place of a size: the item is elsewhere, and its number follows
NUMBER: Final = struct.Struct("<Q")
LARGE_FRAME_BYTES: Final = FRAME_BYTES + NUMBER.size
LARGE_BYTES: Final = 1 << 18  # from here on an item travels in memory of its own

_PLACE_MASK: Final = RING_BYTES - 1
_pack_size = SIZE.pack_into
_pack_number = NUMBER.pack


class RingWriter:
    """The client's side. Called with its lock held."""

    def __init__(self, words: memoryview, ring: memoryview) -> None:
        self._words = words
        self._ring = ring
        self._end = RING_BYTES  # how far there is room, as last seen
        self.count = 0
        """Items written."""
        self.larges = 0
        """Large items written."""
        self.tail = 0
        """Where the next frame goes."""

    def is_half_full(self) -> bool:
        """Return whether the reader should look."""
        self._end = self._words[HEAD] + RING_BYTES
        return self.tail + RING_BYTES // 2 > self._end

    def write(self, data: bytes, mark: int | None = None) -> bool:
        """Commit one item, with a mark in place of its size; return False until the reader has made room."""
        size = len(data)
        tail = self.tail  # no call from here to the size's: it goes to where the tail is
        at = tail & _PLACE_MASK
        end = at + FRAME_BYTES + size
        after = tail + FRAME_BYTES + size
        if end > RING_BYTES or after > self._end:
            return self._write_slowly(data, mark)
        ring = self._ring
        _pack_size(ring, at, size if mark is None else mark)
        place = slice(at + FRAME_BYTES, end)
        if self.tail != tail:  # a signal's handler has written meanwhile; no call, and nothing new, from here on
            return self.write(data, mark)
        ring[place] = data
        self.tail = after
        self.count = count = self.count + 1
        if mark is not None:
            self.larges = self._words[LARGE] = self.larges + 1
        if not KEEPS_ORDER:
            fence()
            count, after = self.count, self.tail
        self._words[PUT] = (count & COUNT_MASK) << TAIL_BITS | after & TAIL_MASK
        return True

    def _write_slowly(self, data: bytes, mark: int | None) -> bool:
        """Go to the start of the ring if need be, and see how far the reader is."""
        need = FRAME_BYTES + len(data)
        place = self.tail & _PLACE_MASK
        gap = RING_BYTES - place if place + need > RING_BYTES else 0
        self._end = self._words[HEAD] + RING_BYTES
        if self.tail + gap + need > self._end:
            return False
        if gap:
            self._words[WRAP] = self.tail
            self.tail += gap
        return self.write(data, mark)

    def has_room(self) -> bool:
        """Return whether `write_large` can be called."""
        self._end = self._words[HEAD] + RING_BYTES
        return self.tail + 2 * LARGE_FRAME_BYTES <= self._end

    def write_large(self, number: int) -> bool:
        """Commit one item that has been sent, with this number, in memory of its own."""
        return self.write(_pack_number(number), LARGE_FRAME)


class RingReader:
    """The broker's side."""

    def __init__(self, words: memoryview, ring: memoryview) -> None:
        self._words = words
        self._ring = ring
        self.seen = 0
        """The word at the last time."""
        self._head = 0
        self._count = 0
        self._larges = 0

    def read(self) -> tuple[bytes, int, int]:
        """Return what has been written since the last time: the frames, their number, and how many are large."""
        word = self._words[PUT]
        if word == self.seen:
            return b"", 0, 0
        fence()
        self.seen = word
        head = self._head
        tail = head + ((word - head) & TAIL_MASK)
        count = ((word >> TAIL_BITS) - self._count) & COUNT_MASK
        data = self._between(head, tail)
        larges = self._words[LARGE] - self._larges
        if larges:  # one that is not committed yet may be among them
            larges = min(larges, sum(size == LARGE_FRAME for size in frames(data)))
            self._larges += larges
        self._head = tail
        self._count += count
        fence()
        self._words[HEAD] = tail
        return data, count, larges

    def _between(self, head: int, tail: int) -> bytes:
        start, end = head % RING_BYTES, tail % RING_BYTES
        edge = tail - end  # the start of the lap in which the tail is
        if head >= edge:
            return bytes(self._ring[start : start + tail - head])
        wrap = self._words[WRAP]
        stop = wrap % RING_BYTES if head <= wrap < edge else RING_BYTES
        return bytes(self._ring[start:stop]) + bytes(self._ring[:end])


def frames(data: bytes) -> list[int]:
    """Return the sizes of the frames, `LARGE_FRAME` for a large one."""
    sizes, at, end = [], 0, len(data)
    while at < end:
        size = SIZE.unpack_from(data, at)[0]
        sizes.append(size)
        at += LARGE_FRAME_BYTES if size == LARGE_FRAME else FRAME_BYTES + size
    return sizes
