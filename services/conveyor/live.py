"""The live view of a run on a terminal: what it came to so far, its rates, a line for each worker. Drawn with rich.

`conveyor run` redraws it in the supervisor's loop, with what workers print and what is logged above it;
`conveyor status` draws it once.
"""

from __future__ import annotations

import collections
import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.segment import SegmentLines
from rich.table import Table
from rich.text import Text

from conveyor.logs import Handler
from conveyor.loop import Loop
from conveyor.snapshot import Role, RunStatistics, SlotStatistics, WorkerState
from conveyor.supervisor import Supervisor

REDRAW_SECONDS = 0.25  # often enough to follow; a redraw takes the supervisor 10 ms, on a tall terminal 30
MAX_PENDING_LINES = 1000  # what workers print is shown at the next redraw, or when there is this much of it
RATE_SECONDS = 3.0  # the window of the rates; long enough to read, short enough to follow
COLOURS = {  # the same meaning as on the dashboards
    WorkerState.STARTING: "yellow",
    WorkerState.IDLE: "blue",
    WorkerState.BUSY: "green",
    WorkerState.BLOCKED: "dark_orange",
    WorkerState.STOPPING: "magenta",
}


class View:
    """A run's picture, redrawn until the run ends."""

    def __init__(self, console: Console, log_handler: Handler | None = None) -> None:
        """Draw on this console; show there what the handler logs, too, if it is given."""
        self._console = console
        self._log_handler = log_handler
        self._lines: collections.deque[str] = collections.deque()
        """To be shown. Appended to by any thread that logs, emptied by the supervisor's."""
        self._history: collections.deque[RunStatistics] = collections.deque()

    def print(self, line: str) -> None:
        """Show a line that a worker printed, above the picture. For the supervisor's thread."""
        self._lines.append(line)
        if len(self._lines) >= MAX_PENDING_LINES:
            self._flush()

    @contextlib.contextmanager
    def attach(self, supervisor: Supervisor, loop: Loop) -> Iterator[None]:
        live = Live(console=self._console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)

        def redraw() -> None:
            live.update(self._picture(supervisor.statistics()))
            self._flush()
            live.refresh()

        with live, self._logging():
            loop.every(REDRAW_SECONDS, redraw)
            try:
                yield
            finally:
                self._flush()
            live.update(Picture(supervisor.statistics(), None, self._console.height), refresh=True)

    def _logging(self) -> contextlib.AbstractContextManager[None]:
        # Appends only: a thread that logs must not draw.
        handler = self._log_handler
        return contextlib.nullcontext() if handler is None else handler.shown_by(self._lines.append)

    def _picture(self, run: RunStatistics) -> Picture:
        self._history.append(run)
        while run.elapsed_seconds - self._history[0].elapsed_seconds > RATE_SECONDS:
            self._history.popleft()
        return Picture(run, self._history[0], self._console.height)

    def _flush(self) -> None:
        lines = [self._lines.popleft() for _ in range(len(self._lines))]
        if lines:  # as they are: no markup, no emoji codes, no folding
            self._console.print(Text("\n".join(lines)), soft_wrap=True)


@dataclass(frozen=True, slots=True)
class Picture:
    """A run, drawn. With an earlier reading, rates are those since then, else those of the whole run."""

    run: RunStatistics
    earlier: RunStatistics | None = None
    height: int | None = None
    """The lines there are; workers that do not fit are summed up in the last one."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        since = self._since()
        head = Group(_title(self.run), _figures(self.run, since, options.max_width), _bar(self.run))
        lines = console.render_lines(head, options, pad=False)
        # The last line is kept free for the cursor, so that nothing ever scrolls.
        room = sys.maxsize if self.height is None else self.height - 1
        yield SegmentLines(lines[:room], new_lines=True)
        room -= len(lines) + 1  # for the table's head
        slots = self.run.slots if len(self.run.slots) <= room else self.run.slots[: max(0, room - 1)]
        if slots:
            yield _workers(slots, since, options.max_width)
        if slots and len(slots) < len(self.run.slots):
            yield _others(self.run.slots[len(slots) :])

    def _since(self) -> Since:
        earlier = self.earlier
        if earlier is None or earlier.elapsed_seconds >= self.run.elapsed_seconds:
            return Since(max(self.run.elapsed_seconds, 0.001), {})
        return Since(self.run.elapsed_seconds - earlier.elapsed_seconds, {slot.name: slot for slot in earlier.slots})


@dataclass(frozen=True, slots=True)
class Since:
    """An earlier moment to compare with: how long ago, and the slots of then; none stand for the start."""

    seconds: float
    slots: dict[str, SlotStatistics]

    def rate(self, slot: SlotStatistics, count: Callable[[SlotStatistics], float]) -> float:
        """Return how fast a count of a slot grew."""
        before = self.slots.get(slot.name)
        return (count(slot) - (count(before) if before else 0)) / self.seconds


# -- the head ----------------------------------------------------------------------------------------------


def _title(run: RunStatistics) -> Text:
    line = Text.assemble((run.name, "bold"), f"  {run.queue.name} queue  {run.phase}  {_duration(run.elapsed_seconds)}")
    if run.queue.is_paused:
        line.append("  paused", "bold yellow")
    if run.trouble:
        line.append(f"\n{run.trouble}", "bold red")
    return line


def _figures(run: RunStatistics, since: Since, width: int) -> Text:
    queue = run.queue
    room = f"/{queue.capacity}" if queue.capacity else ""
    produced = sum(since.rate(slot, lambda slot: slot.produced) for slot in run.slots)
    processed = sum(since.rate(slot, lambda slot: slot.processed) for slot in run.slots)
    figures = [
        ("produced", f"{run.total('produced'):,} ({produced:,.1f}/s)", "blue"),
        ("waiting", f"{queue.waiting:,}{room}", "dark_orange"),
        ("unfinished", f"{queue.unfinished:,}", "magenta"),
        ("processed", f"{run.total('processed'):,} ({processed:,.1f}/s)", "green"),
    ]
    troubles = [
        ("failed", run.total("failed")),
        ("redelivered", queue.redelivered),
        ("dead letters", queue.dead_lettered),
        ("lost", queue.lost),
        ("down", sum(map(_is_down, run.slots))),
    ]
    figures += [(name, f"{count:,}", "bold red") for name, count in troubles if count]
    return _folded([Text.assemble((name, style), f" {value}") for name, value, style in figures], width)


def _folded(figures: list[Text], width: int) -> Text:
    """Return the figures in as few lines as they need, none of them torn in two."""
    lines = [figures[0]]
    for figure in figures[1:]:
        longer = Text("  ").join([lines[-1], figure])
        if longer.cell_len <= width:
            lines[-1] = longer
        else:
            lines.append(figure)
    return Text("\n").join(lines)


def _bar(run: RunStatistics) -> RenderableType:
    """Return how much of what was put is done; the end is known only once every producer has finished."""
    produced, processed = run.total("produced"), run.total("processed")
    is_all = all(slot.finished for slot in run.slots if slot.role is Role.PRODUCER)
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(ratio=1)
    grid.add_column(no_wrap=True)
    grid.add_row(
        ProgressBar(total=max(1, produced), completed=processed),
        f"{processed:,} of {produced:,}{'' if is_all else ' so far'}",
    )
    return grid


# -- the workers -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Column:
    """One figure of a worker, shown on terminals that are wide enough."""

    heading: str
    from_width: int
    cell: Callable[[SlotStatistics, Since], str]


def _tasks(slot: SlotStatistics) -> int:
    return slot.produced if slot.role is Role.PRODUCER else slot.processed


COLUMNS = (  # the most telling first: they stay on a narrow terminal
    Column("tasks", 0, lambda slot, _: f"{_tasks(slot):,}"),
    Column("busy", 36, lambda slot, since: f"{min(1.0, since.rate(slot, lambda slot: slot.busy_seconds)):.0%}"),
    Column("in task", 44, lambda slot, _: _age(slot)),
    Column("failed", 52, lambda slot, _: f"{slot.failed or '':,}" if slot.failed else ""),
    Column("per s", 62, lambda slot, since: f"{since.rate(slot, _tasks):,.1f}"),
    Column("restarts", 72, lambda slot, _: str(sum(slot.restarts.values()) or "")),
    Column("pid", 80, lambda slot, _: str(slot.pid or "")),
)


def _workers(slots: tuple[SlotStatistics, ...], since: Since, width: int) -> Table:
    columns = [column for column in COLUMNS if column.from_width <= width]
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("worker", no_wrap=True, overflow="ellipsis", max_width=max(8, width // 3))
    table.add_column("state", no_wrap=True, min_width=8)
    for column in columns:
        table.add_column(column.heading, justify="right", no_wrap=True)
    for slot in slots:
        table.add_row(Text(slot.name), _state(slot), *(column.cell(slot, since) for column in columns))
    return table


def _others(slots: tuple[SlotStatistics, ...]) -> Text:
    """Return one line for the workers that there is no room for."""
    states = collections.Counter(_state(slot).plain for slot in slots)
    summary = ", ".join(f"{number} {state}" for state, number in states.most_common())
    return Text(f"and {len(slots)} more: {summary}", "dim", no_wrap=True, overflow="ellipsis")


def _state(slot: SlotStatistics) -> Text:
    if slot.state is not None:
        return Text(slot.state, COLOURS[slot.state])
    return Text("down", "bold red") if _is_down(slot) else Text("finished", "dim")


def _is_down(slot: SlotStatistics) -> bool:
    return slot.state is None and not slot.finished


def _age(slot: SlotStatistics) -> str:
    return "" if slot.task_age_seconds is None else f"{slot.task_age_seconds:.1f} s"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
