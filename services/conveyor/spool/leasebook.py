"""Which tasks each consumer was given: a table in a file in shared memory, for the start after a death of all.

Who writes: the supervisor, before it sends a lease. Who reads: the supervisor that comes after it. An entry holds until
the number that comes `CLOSED_LEASES` later takes its place; what it came to must be in the store by then.

Behind the table stands the stamp of the start that wrote it. Each entry holds a checksum that begins with the stamp, so
neither the book of another start nor a torn entry is believed.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from typing import NamedTuple

from conveyor.ledger import CLOSED_LEASES

# Of an entry: the chunk's key, its tasks, the lease's number, a checksum of the three. Four, so that none lies on two
# pages: after a power cut one of them may be newer than the other.
_WORDS = 4
_MASK = (1 << 64) - 1
_FACTOR = 0x9E3779B97F4A7C15  # odd, so that no changed word leaves the checksum as it is
_SLOT_WORDS = _WORDS * CLOSED_LEASES
_PLACE = 32  # bits


class Entry(NamedTuple):
    """A lease: its number in its slot, and the tasks from `first` up to, not with, `last` of a chunk."""

    number: int
    key: int
    first: int
    last: int


class TornError(Exception):
    """A file in shared memory is not what the last start wrote."""


class LeaseBook:
    """The table of all slots."""

    def __init__(self, descriptor: int, *, stamp: int = 0, is_copy: bool = False) -> None:
        """Map the file, or take a copy of it; the descriptor is not needed after that.

        Without a stamp it is one of format 1, which had no checksums either. Raises `TornError` for a copy that is not
        of the start with this stamp.
        """
        access = mmap.ACCESS_COPY if is_copy else mmap.ACCESS_WRITE
        self._words = memoryview(mmap.mmap(descriptor, os.fstat(descriptor).st_size, access=access)).cast("Q")
        self._stamp = stamp
        if not stamp:
            return
        if not is_copy:
            self._words[-1] = stamp
        elif len(self._words) % _SLOT_WORDS != 1 or self._words[-1] != stamp:
            raise TornError("the book of leases is not of this start")

    @staticmethod
    def size(slots: int) -> int:
        """Return the bytes that the table of so many slots takes."""
        return 8 * (_SLOT_WORDS * slots + 1)

    def write(self, slot: int, entry: Entry) -> None:
        """Note a lease that is about to be given."""
        words, at = self._words, _SLOT_WORDS * slot + _WORDS * (entry.number % CLOSED_LEASES)
        words[at + 2] = 0  # who is killed among these has given nothing
        words[at] = entry.key
        words[at + 1] = places = entry.first << _PLACE | entry.last
        words[at + 3] = self._seal(slot, entry.key, places, entry.number)
        words[at + 2] = entry.number

    def read(self, slot: int, after: int) -> Iterator[Entry]:
        """Yield the leases of a slot with numbers above `after`, in their order. Raises `TornError`."""
        entries = []
        for at in range(_SLOT_WORDS * slot, _SLOT_WORDS * (slot + 1), _WORDS):
            key, places, number, seal = self._words[at : at + _WORDS]
            if number > after:
                if self._stamp and seal != self._seal(slot, key, places, number):
                    raise TornError("an entry in the book of leases is torn")
                entries.append(Entry(number, key, places >> _PLACE, places & ((1 << _PLACE) - 1)))
        yield from sorted(entries)

    def _seal(self, *words: int) -> int:
        seal = self._stamp
        for word in words:
            seal = (seal ^ word) * _FACTOR & _MASK
        return seal
