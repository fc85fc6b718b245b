"""The memory that one process shares with the broker: a page of words, and a ring of bytes for what it puts.

Each word has one writer, and is committed by one 8-byte store, so a SIGKILL between any two instructions leaves
nothing half done. What a process has put lies here until the broker reads it, even if the process is dead by then.

A claim is how two processes agree without a lock. One side stores the number that it claims, and then reads how far
it may; the other lowers the limit, waits until both stores are surely seen, and then reads what was claimed. So
whoever of the two is later knows it.
"""

from __future__ import annotations

import mmap
import os
import platform
import threading
from typing import Final

from conveyor import descriptors

# Written by the client.
PUTTING: Final = 0  # puts begun: the claim on ROOM
PUT: Final = 1  # what is in the ring: number of items << TAIL_BITS | where they end
WRAP: Final = 2  # where the last lap of the ring ended
LARGE: Final = 3  # items put that are too large for the ring
TAKING: Final = 4  # items taken: the claim on LIMIT
DONE: Final = 5  # items up to this one are finished, but for those that the log says are kept
LOGGED: Final = 6  # entries written to the log
UNNAMED: Final = 7  # items finished of which it is not known which they are
# Written by the broker, in a cache line of its own.
ROOM: Final = 8  # so many puts are allowed
HEAD: Final = 9  # where the broker has read to in the ring
LIMIT: Final = 10  # so many items may be taken
BELL: Final = 11  # not 0: somebody waits for the next item; a new number for each wait
EAGER: Final = 12  # somebody waits in join()
SEEN: Final = 13  # entries of the log that the broker has read
# The log of the client: what became of items out of their order. An entry is two words: its kind and the first item,
# and the last item.
LOG: Final = 512
LOG_ENTRIES: Final = 256  # arbitrary: with more between two looks of the broker, the client has to ask it to look
KIND_SHIFT: Final = 60
FIRST_MASK: Final = (1 << KIND_SHIFT) - 1
KEPT: Final = 1 << KIND_SHIFT  # not finished, although DONE may say so
FINISHED: Final = 2 << KIND_SHIFT  # after they were kept
RETURNED: Final = 3 << KIND_SHIFT  # taken, and not got by anybody: whoever wants them gets them

PAGE_BYTES: Final = 8192
RING_BYTES: Final = 1 << 20  # a power of 2
ALL_BYTES: Final = PAGE_BYTES + RING_BYTES
TAIL_BITS: Final = 40
TAIL_MASK: Final = (1 << TAIL_BITS) - 1
COUNT_MASK: Final = (1 << (64 - TAIL_BITS)) - 1

SETTLE_SECONDS: Final = 0.001  # until a store is surely seen by another process: far more than enough

KEEPS_ORDER: Final = platform.machine() in ("x86_64", "AMD64")
_fence_lock = threading.Lock()


def fence() -> None:
    """Have the stores before this seen before those after it. Nothing to do where the processor keeps their order."""
    if not KEEPS_ORDER:
        with _fence_lock:
            pass


def new_memory() -> int:
    """Return the descriptor of a new page and ring. It has no name, and goes with its last holder."""
    descriptor = descriptors.new_memory("conveyor-line")
    os.truncate(descriptor, ALL_BYTES)
    return descriptor


def open_memory(descriptor: int) -> tuple[memoryview, memoryview]:
    """Return the words and the ring; the descriptor may be closed then."""
    whole = memoryview(mmap.mmap(descriptor, ALL_BYTES))
    return whole[:PAGE_BYTES].cast("Q"), whole[PAGE_BYTES:]
