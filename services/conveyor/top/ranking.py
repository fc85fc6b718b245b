"""The orders in which workers can be listed. Pure."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence

from conveyor.lineup import tasks
from conveyor.snapshot import SlotStatistics
from conveyor.top.usage import Usage


class Ranking(enum.Enum):
    """By what workers are sorted: the heading of the column, or the order that the run has them in."""

    WORKER = "worker"
    TASKS = "tasks"
    CPU = "cpu"
    MEMORY = "memory"
    AGE = "in task"

    def next(self, steps: int) -> Ranking:
        """Return the one that is so many steps further, round and round."""
        every = list(Ranking)
        return every[(every.index(self) + steps) % len(every)]

    def sort(self, slots: Sequence[SlotStatistics], usage: Mapping[str, Usage]) -> list[SlotStatistics]:
        """Return the workers, those with the most first; equals, and those without, stay in the run's order."""
        if self is Ranking.WORKER:
            return list(slots)
        value = _VALUES[self]
        return sorted(slots, key=lambda slot: value(slot, usage.get(slot.name)), reverse=True)


_VALUES: Mapping[Ranking, Callable[[SlotStatistics, Usage | None], float]] = {
    Ranking.TASKS: lambda slot, _: tasks(slot),
    Ranking.CPU: lambda _, usage: -1.0 if usage is None or usage.cpu is None else usage.cpu,
    Ranking.MEMORY: lambda _, usage: -1.0 if usage is None else usage.memory_bytes,
    Ranking.AGE: lambda slot, _: -1.0 if slot.task_age_seconds is None else slot.task_age_seconds,
}
