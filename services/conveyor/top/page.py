"""What `conveyor top` shows, and where on a terminal of any size: the most telling first. Pure."""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.segment import Segment, SegmentLines
from rich.table import Table
from rich.text import Text

from conveyor.lineup import BUSY, FAILED, IN_TASK, PER_S, PID, RESTARTS, TASKS, Column, Since, lineup
from conveyor.obituaries import MAX_SHOWN_DEATHS, Obituary, obituaries
from conveyor.picture import beside, figures, spool_line, title, troubles
from conveyor.snapshot import Death, QueueStatistics, RunStatistics
from conveyor.top.charts import CHARTS
from conveyor.top.history import SPAN_SECONDS, History
from conveyor.top.ranking import Ranking
from conveyor.top.sparkline import ASCII, BLOCKS
from conveyor.top.usage import Usage
from conveyor.wording import duration, printable, size

Line = list[Segment]

DEATH_LINES = 3  # of each; the log has it whole
_COMFORT = 9  # lines of the table that come before a second death, or higher charts


@dataclass(frozen=True, slots=True)
class Demand:
    """A wish for lines: have a block grow to `most` of them, or not at all if it would have fewer than `least`."""

    block: str
    least: int
    most: int


def shares(height: int, demands: Iterable[Demand]) -> Mapping[str, int]:
    """Return how many lines each block gets of a terminal's. Who asks first is served first."""
    granted: collections.Counter[str] = collections.Counter()
    for demand in demands:
        lines = min(demand.most, granted[demand.block] + height - granted.total())
        if lines >= demand.least and lines > granted[demand.block]:
            granted[demand.block] = lines
    return granted


@dataclass(frozen=True, slots=True)
class Page:
    """A run on a whole terminal, of the width and height that it is rendered with."""

    run: RunStatistics
    history: History
    usage: Mapping[str, Usage]
    ranking: Ranking = Ranking.WORKER
    silent_seconds: float | None = None
    """For how long the run has not answered, if that is for too long."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, height = options.max_width, options.height or console.height
        draw = functools.partial(_drawn, console, options.reset_height())
        fixed = {
            "title": draw(self._title(width)),
            "notices": draw(*self._notices()),
            "figures": draw(figures(self.run, self._since, width)),
            "fill": draw(_fill(self.run.queue)),
            "spool": draw(*spool_line(self.run.queue)),
            "deaths": self._deaths(draw),
            "help": draw(self._help(is_ascii=options.ascii_only)),
        }
        granted = shares(height, self._demands(height, {name: len(lines) for name, lines in fixed.items()}))
        blocks = {name: lines[: granted[name]] for name, lines in fixed.items()}
        for chart in CHARTS:
            drawn = chart.draw(self.history, width, granted[chart.block], ASCII if options.ascii_only else BLOCKS)
            blocks[chart.block] = draw(*drawn)
        blocks["lineup"] = draw(*self._lineup(width, granted["lineup"]))
        blocks["gap"] = [[] for _ in range(height - sum(granted.values()))]
        yield SegmentLines([line for name in ORDER for line in blocks[name]], new_lines=True)

    @property
    def _since(self) -> Since:
        return Since.between(self.history.earlier, self.run)

    def _demands(self, height: int, lengths: Mapping[str, int]) -> list[Demand]:
        """Return who wants how many lines, the most telling first."""
        spool = self.run.queue.spool
        workers = 1 + len(self.run.slots)
        higher = [lines for lines, from_height in ((2, 32), (3, 44)) if height >= from_height]
        return [
            Demand("title", 1, 1),
            Demand("notices", 1, min(lengths["notices"], max(2, height // 6))),
            Demand("figures", 1, min(lengths["figures"], max(2, height // 4))),
            Demand("lineup", 1, 1),
            *([Demand("spool", 1, 1)] if spool is not None and spool.trouble else []),
            Demand("fill", 1, 1),
            *(Demand(block, 1, 1) for block in ("processed", "backlog", "produced")),
            Demand("help", 1, 1),
            Demand("spool", 1, lengths["spool"]),
            Demand("deaths", 1, min(DEATH_LINES, lengths["deaths"])),
            Demand("lineup", min(workers, 3), min(workers, _COMFORT)),
            *(Demand(chart.block, lines, lines) for lines in higher for chart in CHARTS),
            Demand("deaths", 1, min(2 * DEATH_LINES, lengths["deaths"])),
            Demand("lineup", min(workers, 3), workers),
            Demand("deaths", 1, lengths["deaths"]),
        ]

    def _title(self, width: int) -> Text:
        whole = title(self.run)
        return whole if whole.cell_len <= width else title(self.run, is_brief=True)

    def _notices(self) -> list[Text]:
        """Return what is wrong: the line above all others is whether the rest is still true."""
        if self.silent_seconds is None:
            return troubles(self.run)
        silence = f" no answer for {duration(self.silent_seconds)}: the run is stopped, or very busy "
        return [Text(silence, "bold white on red"), *troubles(self.run)]

    def _lineup(self, width: int, lines: int) -> list[Table | Text]:
        slots = self.ranking.sort(self.run.slots, self.usage)
        return lineup(slots, self._since, _columns(self.usage), width, lines, self.ranking.value)

    def _deaths(self, draw: Callable[..., list[Line]]) -> list[Line]:
        now = self.run.started_at + self.run.elapsed_seconds
        latest = self.run.deaths[-MAX_SHOWN_DEATHS:]
        told = zip(reversed(latest), obituaries(latest), strict=True)
        return [line for death, obituary in told for line in draw(_death(death, obituary, now))[:DEATH_LINES]]

    def _help(self, *, is_ascii: bool) -> Text:
        arrows = "s" if is_ascii else "s ← →"
        keys = [("q", "quit"), (arrows, f"sort by {self.ranking.value}")]
        line = Text("  ").join(Text.assemble((key, "bold"), f" {meaning}") for key, meaning in keys)
        return line.append(f"  charts: last {SPAN_SECONDS / 60:.0f} min", "dim")


ORDER = (
    "title", "notices", "figures", "fill", "produced", "processed", "backlog", "spool", "lineup", "gap", "deaths",
    "help",
)  # fmt: skip


def _drawn(console: Console, options: ConsoleOptions, *renderables: RenderableType) -> list[Line]:
    """Return lines that are at most as wide as the terminal."""
    return console.render_lines(Group(*renderables), options, pad=False) if renderables else []


def _columns(usage: Mapping[str, Usage]) -> Sequence[Column]:
    """Return what there is to tell of a worker, the most telling first."""

    def cpu(name: str) -> str:
        used = usage[name].cpu if name in usage else None
        return "" if used is None else f"{used:.0%}"

    def memory(name: str) -> str:
        return size(usage[name].memory_bytes) if name in usage else ""

    return (
        TASKS,
        IN_TASK,
        Column(Ranking.CPU.value, 4, lambda slot, _: cpu(slot.name)),
        Column(Ranking.MEMORY.value, 8, lambda slot, _: memory(slot.name)),
        PER_S,
        FAILED,
        RESTARTS,
        BUSY,
        PID,
    )


def _fill(queue: QueueStatistics) -> RenderableType:
    """Return how full the queue is, and for how long its oldest task has waited."""
    oldest = queue.oldest_waiting_seconds
    age = "" if oldest is None else f", the oldest for {oldest:,.1f} s"
    if not queue.capacity:
        return Text(f"queue: {queue.waiting:,} waiting, without bound{age}", no_wrap=True)
    bar = ProgressBar(
        total=queue.capacity, completed=queue.waiting, complete_style="dark_orange", finished_style="bold red"
    )
    return beside(bar, f"queue: {queue.waiting:,} of {queue.capacity:,}{age}")


def _death(death: Death, obituary: Obituary, now: float) -> Text:
    ago = duration(max(0.0, now - death.at))
    task = f" {printable(obituary.task)}" if obituary.task else ""
    return Text.assemble(
        (printable(obituary.slot), "bold"),
        " ",
        (death.how, "bold red"),
        f" {ago} ago{task}  ",
        (printable(obituary.story), "dim"),
    )
