"""The memories in which chunks lie until they are done: one of each producer's process, and the queue's own.

A producer's memory outlives it until the last of its chunks is done. The supervisor holds it open, passes it to
consumers, and looks into it only to show a task or to write it down.

Called in the supervisor's loop. Memories are known by the numbers of their arenas.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from conveyor.queues.arena import NO_LIMIT, Arena, Window, new_memory
from conveyor.queues.leases import OWN_ARENA, StoredChunk


@dataclass(slots=True, eq=False)
class Memory:
    """One of them, and who uses it."""

    slot: int
    """Of the producer that writes into it."""
    descriptor: int
    chunks: int = 0
    """How many lie in it."""
    window: Window | None = None
    known_to: set[int] = field(default_factory=set)
    """Slots of the consumers that have the memory mapped."""

    def payload(self, chunk: StoredChunk) -> memoryview:
        """Return what a chunk holds."""
        if self.window is None:
            self.window = Window(os.dup(self.descriptor))
        return self.window.view(chunk.offset, chunk.size)

    def close(self) -> None:
        if self.window is not None:
            self.window.close()
        os.close(self.descriptor)


class Memories:
    """All of them."""

    def __init__(self) -> None:
        own = Memory(-1, new_memory(), chunks=1)  # never without a chunk: it is never given back
        self.by_arena = {OWN_ARENA: own}
        self.own = Arena(own.descriptor, NO_LIMIT)
        """Into which the queue writes, tasks from the spool and those that are tried once more."""
        self._arenas = OWN_ARENA

    def open(self, slot: int) -> int:
        """Have one for the producer's process that is about to fill a slot; return its number, never used again."""
        self._arenas += 1
        self.by_arena[self._arenas] = Memory(slot, new_memory())
        return self._arenas

    def payload(self, chunk: StoredChunk) -> memoryview:
        """Return what a chunk holds, for as long as it is not freed."""
        return self.by_arena[chunk.arena].payload(chunk)

    def forget(self, slot: int) -> None:
        """Take note that a consumer's process has ended, and all that it had mapped."""
        for memory in self.by_arena.values():
            memory.known_to.discard(slot)

    def give_back(self, arena: int) -> set[int]:
        """Give a memory back to the kernel; return the slots of the consumers that still have it mapped."""
        memory = self.by_arena.pop(arena)
        memory.close()
        return memory.known_to

    def close(self) -> None:
        for memory in self.by_arena.values():
            memory.close()
        self.by_arena.clear()
