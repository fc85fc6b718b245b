"""A run as it stands at one moment, drawn for a terminal with rich. Pure.

`conveyor run` redraws it (`live`), `conveyor status` draws it once, and `conveyor top` makes more of its parts.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.segment import SegmentLines
from rich.table import Table
from rich.text import Text

from conveyor.lineup import BUSY, FAILED, IN_TASK, PER_S, PID, RESTARTS, TASKS, Since, is_down, lineup
from conveyor.snapshot import QueueStatistics, Role, RunStatistics
from conveyor.wording import duration, printable, size

COLUMNS = (TASKS, BUSY, IN_TASK, FAILED, PER_S, RESTARTS, PID)  # the most telling first


@dataclass(frozen=True, slots=True)
class Picture:
    """A run, drawn. With an earlier reading, rates are those since then, else those of the whole run."""

    run: RunStatistics
    earlier: RunStatistics | None = None
    height: int | None = None
    """The lines there are; workers that do not fit are summed up in the last one."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        since = Since.between(self.earlier, self.run)
        head = [title(self.run), *troubles(self.run), figures(self.run, since, options.max_width), _bar(self.run)]
        lines = console.render_lines(Group(*head, *spool_line(self.run.queue)), options, pad=False)
        # The last line is kept free for the cursor, so that nothing ever scrolls.
        room = sys.maxsize if self.height is None else self.height - 1
        yield SegmentLines(lines[:room], new_lines=True)
        yield from lineup(self.run.slots, since, COLUMNS, options.max_width, room - len(lines))


def title(run: RunStatistics, *, is_brief: bool = False) -> Text:
    """Return what runs, how far it has come and for how long."""
    queue = "" if is_brief else f"  {printable(run.queue.name)} queue"
    line = Text.assemble((printable(run.name), "bold"), f"{queue}  {run.phase}")
    if run.queue.is_paused:
        line.append("  paused", "bold yellow")
    return line.append(f"  {duration(run.elapsed_seconds)}")


def troubles(run: RunStatistics) -> list[Text]:
    """Return why the run cannot end well, if that is known."""
    return [Text(printable(run.trouble), "bold red")] if run.trouble else []


def figures(run: RunStatistics, since: Since, width: int) -> Text:
    """Return the counts of the run, in as few lines of this width as they need."""
    queue = run.queue
    room = f"/{queue.capacity}" if queue.capacity else ""
    produced = sum(since.rate(slot, lambda slot: slot.produced) for slot in run.slots)
    processed = sum(since.rate(slot, lambda slot: slot.processed) for slot in run.slots)
    told = [
        ("produced", f"{run.total('produced'):,} ({produced:,.1f}/s)", "blue"),
        ("waiting", f"{queue.waiting:,}{room}", "dark_orange"),
        ("unfinished", f"{queue.unfinished:,}", "magenta"),
        ("processed", f"{run.total('processed'):,} ({processed:,.1f}/s)", "green"),
    ]
    if run.consumers_least != run.consumers_most:
        bounds = f"{run.consumers_least:,} to {run.consumers_most:,}"
        told.append(("consumers", f"{run.live(Role.CONSUMER):,} of {bounds}", "cyan"))
    if queue.delayed:
        told.append(("delayed", f"{queue.delayed:,}", "yellow"))
    found = [
        ("failed", run.total("failed"), ""),
        ("redelivered", *_redelivered(queue)),
        ("dead letters", queue.dead_lettered, ""),
        ("dead letters kept", queue.dead_letters, ""),
        ("lost", queue.lost, ""),
        ("down", sum(map(is_down, run.slots)), ""),
    ]
    told += [(name, f"{count:,}{detail}", "bold red") for name, count, detail in found if count]
    return _folded([Text.assemble((name, style), f" {value}") for name, value, style in told], width)


def _redelivered(queue: QueueStatistics) -> tuple[int, str]:
    """Return how many deliveries were made again, and for which reasons, where that is known."""
    reasons = [f"{reason} {number:,}" for reason, number in queue.redeliveries.items() if number]
    total = max(queue.redelivered, sum(queue.redeliveries.values()))
    return total, f" ({', '.join(reasons)})" if reasons else ""


def _folded(told: Sequence[Text], width: int) -> Text:
    """Return the figures in as few lines as they need, none of them torn in two."""
    lines = [told[0]]
    for figure in told[1:]:
        longer = Text("  ").join([lines[-1], figure])
        if longer.cell_len <= width:
            lines[-1] = longer
        else:
            lines.append(figure)
    return Text("\n").join(lines)


def spool_line(queue: QueueStatistics) -> list[Text]:
    """Return what the spool holds, and why it cannot be written to, if there is a spool."""
    spool = queue.spool
    if spool is None:
        return []
    line = Text.assemble(("spool", "cyan"), f" {printable(spool.folder)}  {size(spool.size_bytes)}")
    if spool.tasks:
        line.append(f"  {spool.tasks:,} tasks on disk alone")
    if spool.trouble:
        line.append(f"  {printable(spool.trouble)}", "bold red")
    return [line]


def _bar(run: RunStatistics) -> RenderableType:
    """Return how much of what was put is done; the end is known only once every producer has finished."""
    produced, processed = run.total("produced"), run.total("processed")
    is_all = all(slot.finished for slot in run.slots if slot.role is Role.PRODUCER)
    progress = ProgressBar(total=max(1, produced), completed=processed)
    return beside(progress, f"{processed:,} of {produced:,}{'' if is_all else ' so far'}")


def beside(bar: ProgressBar, text: str) -> Table:
    """Return a bar as wide as there is room, with its meaning at the right."""
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(ratio=1)
    grid.add_column(no_wrap=True)
    grid.add_row(bar, text)
    return grid
