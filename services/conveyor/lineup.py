"""The workers of a run as a table, for terminals: a line for each, as many columns as there is room for. Pure.

Used by `picture` and by `conveyor top`, each with the columns that it has.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from conveyor.snapshot import Role, RunStatistics, SlotStatistics, WorkerState
from conveyor.wording import printable

COLOURS = {  # the same meaning as on the dashboards
    WorkerState.STARTING: "yellow",
    WorkerState.IDLE: "blue",
    WorkerState.BUSY: "green",
    WorkerState.BLOCKED: "dark_orange",
    WorkerState.STOPPING: "magenta",
    WorkerState.REPLACED: "red",
}
_GAP = 2  # cells between two columns
_STATE_WIDTH = 8  # of the longest


@dataclass(frozen=True, slots=True)
class Since:
    """An earlier moment to compare with: how long ago, and the slots of then; none stand for the start."""

    seconds: float
    slots: dict[str, SlotStatistics]

    @classmethod
    def between(cls, earlier: RunStatistics | None, run: RunStatistics) -> Since:
        """Return the earlier reading as something to compare with; without one, the start of the run."""
        if earlier is None or earlier.elapsed_seconds >= run.elapsed_seconds:
            return cls(max(run.elapsed_seconds, 0.001), {})
        return cls(run.elapsed_seconds - earlier.elapsed_seconds, {slot.name: slot for slot in earlier.slots})

    def rate(self, slot: SlotStatistics, count: Callable[[SlotStatistics], float]) -> float:
        """Return how fast a count of a slot grew."""
        before = self.slots.get(slot.name)
        return (count(slot) - (count(before) if before else 0)) / self.seconds


@dataclass(frozen=True, slots=True)
class Column:
    """One figure of a worker, shown on terminals that are wide enough."""

    heading: str
    width: int
    """Cells to keep for it, though its figures be shorter: so that it does not come and go with them."""
    cell: Callable[[SlotStatistics, Since], str]


def tasks(slot: SlotStatistics) -> int:
    """Return the tasks that a slot has put, or done: whichever its role is there for."""
    return slot.produced if slot.role is Role.PRODUCER else slot.processed


TASKS = Column("tasks", 6, lambda slot, _: f"{tasks(slot):,}")
BUSY = Column("busy", 4, lambda slot, since: f"{min(1.0, since.rate(slot, lambda slot: slot.busy_seconds)):.0%}")
IN_TASK = Column("in task", 7, lambda slot, _: _age(slot))
FAILED = Column("failed", 6, lambda slot, _: f"{slot.failed:,}" if slot.failed else "")
PER_S = Column("per s", 7, lambda slot, since: f"{since.rate(slot, tasks):,.1f}")
RESTARTS = Column("restarts", 8, lambda slot, _: str(sum(slot.restarts.values()) or ""))
PID = Column("pid", 7, lambda slot, _: str(slot.pid or ""))


def lineup(
    slots: Sequence[SlotStatistics],
    since: Since,
    columns: Sequence[Column],
    width: int,
    lines: int,
    sorted_by: str = "",
) -> list[Table | Text]:
    """Return a table of at most so many lines and cells; the workers that do not fit are summed up in the last.

    The first columns stay on a narrow terminal. `sorted_by` is the heading to mark.
    """
    shown = slots if len(slots) < lines else slots[: max(0, lines - 2)]
    drawn: list[Table | Text] = []
    if shown:
        drawn.append(_table(shown, since, columns, width, sorted_by))
    if lines > 0 and len(shown) < len(slots):
        who = f"and {len(slots) - len(shown)} more" if shown else f"{len(slots)} workers"
        drawn.append(_others(slots[len(shown) :], who))
    return drawn


def _table(
    slots: Sequence[SlotStatistics], since: Since, columns: Sequence[Column], width: int, sorted_by: str
) -> Table:
    names_width = max(len("worker"), min(max(cell_len(slot.name) for slot in slots), max(8, width // 3)))
    room = width - names_width - _GAP - _STATE_WIDTH
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column(_heading("worker", sorted_by), no_wrap=True, overflow="ellipsis", max_width=names_width)
    table.add_column("state", no_wrap=True, min_width=_STATE_WIDTH)
    rows = [[Text(printable(slot.name)), state(slot)] for slot in slots]
    for column in columns:
        cells = [Text(column.cell(slot, since)) for slot in slots]
        wanted = max(column.width, len(column.heading), *(cell.cell_len for cell in cells))
        room -= _GAP + wanted
        if room < 0:
            break
        table.add_column(_heading(column.heading, sorted_by), justify="right", no_wrap=True, min_width=wanted)
        for row, cell in zip(rows, cells, strict=True):
            row.append(cell)
    for row in rows:
        table.add_row(*row)
    return table


def _heading(heading: str, sorted_by: str) -> Text:
    return Text(heading, "not dim bold underline" if heading == sorted_by else "")


def _others(slots: Sequence[SlotStatistics], who: str) -> Text:
    """Return one line for the workers that there is no room for."""
    states = collections.Counter(state(slot).plain for slot in slots)
    summary = ", ".join(f"{number} {state}" for state, number in states.most_common())
    return Text(f"{who}: {summary}", "dim", no_wrap=True, overflow="ellipsis")


def state(slot: SlotStatistics) -> Text:
    """Return the state of a worker in its colour."""
    if slot.state is not None:
        return Text(slot.state, COLOURS[slot.state])
    return Text("down", "bold red") if is_down(slot) else Text("finished", "dim")


def is_down(slot: SlotStatistics) -> bool:
    """Return whether a slot should hold a process, and has none."""
    return slot.state is None and not slot.finished


def _age(slot: SlotStatistics) -> str:
    return "" if slot.task_age_seconds is None else f"{slot.task_age_seconds:.1f} s"
