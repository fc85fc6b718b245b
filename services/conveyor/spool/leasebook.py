"""Which tasks each consumer was given: a table in a file in shared memory, for the start after a death of all.

Who writes: the supervisor, before it sends a lease. Who reads: the supervisor that comes after it. An entry holds until
the number that comes `CLOSED_LEASES` later takes its place; what it came to must be in the store by then.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from typing import NamedTuple

from conveyor.ledger import CLOSED_LEASES

# Of an entry: the chunk's key, its tasks, the lease's number. Four, so that none lies on two pages: after a power cut
# one of them may be newer than the other.
_WORDS = 4
_SLOT_WORDS = _WORDS * CLOSED_LEASES
_PLACE = 32  # bits


class Entry(NamedTuple):
    """A lease: its number in its slot, and the tasks from `first` up to, not with, `last` of a chunk."""

    number: int
    key: int
    first: int
    last: int


class LeaseBook:
    """The table of all slots."""

    def __init__(self, descriptor: int, *, is_copy: bool = False) -> None:
        """Map the file, or take a copy of it; the descriptor is not needed after that."""
        access = mmap.ACCESS_COPY if is_copy else mmap.ACCESS_WRITE
        self._words = memoryview(mmap.mmap(descriptor, os.fstat(descriptor).st_size, access=access)).cast("Q")

    @staticmethod
    def size(slots: int) -> int:
        """Return the bytes that the table of so many slots takes."""
        return 8 * _SLOT_WORDS * slots

    def write(self, slot: int, entry: Entry) -> None:
        """Note a lease that is about to be given."""
        words, at = self._words, _SLOT_WORDS * slot + _WORDS * (entry.number % CLOSED_LEASES)
        words[at + 2] = 0  # who is killed among these has given nothing
        words[at] = entry.key
        words[at + 1] = entry.first << _PLACE | entry.last
        words[at + 2] = entry.number

    def read(self, slot: int, after: int) -> Iterator[Entry]:
        """Yield the leases of a slot with numbers above `after`, in their order."""
        entries = []
        for at in range(_SLOT_WORDS * slot, _SLOT_WORDS * (slot + 1), _WORDS):
            key, places, number, _ = self._words[at : at + _WORDS]
            if number > after:
                entries.append(Entry(number, key, places >> _PLACE, places & ((1 << _PLACE) - 1)))
        yield from sorted(entries)
