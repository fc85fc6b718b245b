"""The results of tasks, gathered from the memories in which consumers keep them, where somebody wants them.

A consumer writes each result before it counts its task, and its place into a table at the beginning of the memory
(`leased_ends.py`): so a result outlives the process that made it.

Called in the supervisor's loop.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from conveyor.descriptors import Descriptor
from conveyor.queues.arena import Window, new_memory
from conveyor.queues.seam import ResultSink


class Harvest:
    """Reads results, and passes them on."""

    def __init__(self, results: ResultSink) -> None:
        self._results = results
        self._windows: dict[int, Window] = {}
        """By slot, the memory of its process."""

    @property
    def has_room(self) -> bool:
        """Return whether more results are wanted now."""
        return self._results.has_room

    def open(self, slot: int) -> Descriptor:
        """Return a memory for the process that is about to fill the slot."""
        memory = new_memory()
        unused = self._windows.pop(slot, None)  # of a process that never was
        if unused is not None:
            unused.close()
        self._windows[slot] = Window(memory)
        return Descriptor(memory)

    def read(self, slot: int, places: Sequence[int]) -> None:
        """Pass results on; their places are pairs of offset and size."""
        if places:
            view = self._windows[slot].view
            self._results.add([bytes(view(offset, size)) for offset, size in _pairs(places)])

    def rescue(self, slot: int, tasks: int) -> None:
        """Pass on what a dead consumer had kept and not reported: that of so many tasks."""
        window = self._windows.pop(slot, None)
        if window is None:
            return
        if tasks:
            places = window.view(0, 16 * tasks).cast("Q").tolist()
            self._results.add([bytes(window.view(offset, size)) for offset, size in _pairs(places)])
        window.close()

    def close(self) -> None:
        for window in self._windows.values():
            window.close()
        self._windows.clear()


def _pairs(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    return zip(numbers[::2], numbers[1::2], strict=True)
