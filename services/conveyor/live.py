"""The live view of a run on a terminal: three figures, their rates, a line for each worker. Drawn with rich.

`conveyor run` redraws it in the supervisor's loop, with what workers print above it; `conveyor status` draws
it once.
"""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Iterator

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from conveyor.loop import Loop
from conveyor.snapshot import Role, RunStatistics, SlotStatistics, WorkerState
from conveyor.supervisor import Supervisor

REDRAW_SECONDS = 0.2
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

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False, transient=False)
        self._history: collections.deque[RunStatistics] = collections.deque()

    def print(self, line: str) -> None:
        """Show a line that a worker printed, above the picture."""
        self._live.console.print(line, markup=False, highlight=False, soft_wrap=True)

    @contextlib.contextmanager
    def attach(self, supervisor: Supervisor, loop: Loop) -> Iterator[None]:
        def redraw() -> None:
            run = supervisor.statistics()
            self._history.append(run)
            while run.elapsed_seconds - self._history[0].elapsed_seconds > RATE_SECONDS:
                self._history.popleft()
            self._live.update(picture(run, self._history[0]), refresh=True)

        with self._live:
            loop.every(REDRAW_SECONDS, redraw)
            yield
            redraw()


def picture(run: RunStatistics, earlier: RunStatistics | None = None) -> Group:
    """Return the run as rich draws it; `earlier` is an older reading, for the rates."""
    return Group(_headline(run, earlier), _bar(run), _workers(run))


def _headline(run: RunStatistics, earlier: RunStatistics | None) -> Text:
    queue = run.queue
    room = f"/{queue.capacity}" if queue.capacity else ""
    line = Text.assemble(
        (run.name, "bold"), f" on {queue.name}, {run.phase}, {_duration(run.elapsed_seconds)}   ",
        ("produced ", "blue"), f"{run.total('produced')}{_rate(run, earlier, 'produced')}   ",
        ("waiting ", "dark_orange"), f"{queue.waiting}{room}   ",
        ("unfinished ", "magenta"), f"{queue.unfinished}   ",
        ("processed ", "green"), f"{run.total('processed')}{_rate(run, earlier, 'processed')}",
    )  # fmt: skip
    for count, name in ((run.total("failed"), "failed"), (queue.lost, "lost")):
        if count:
            line.append(f"   {name} {count}", "bold red")
    if run.trouble:
        line.append(f"\n{run.trouble}", "bold red")
    return line


def _bar(run: RunStatistics) -> ProgressBar:
    """Return how much of what was put is done; the end is known only once every producer has finished."""
    return ProgressBar(total=max(1, run.total("produced")), completed=run.total("processed"))


def _workers(run: RunStatistics) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("worker")
    table.add_column("state", min_width=8)
    for heading in ("tasks", "failed", "busy", "in task", "restarts", "pid"):
        table.add_column(heading, justify="right")
    for slot in run.slots:
        table.add_row(
            slot.name,
            _state(slot),
            str(slot.produced if slot.role is Role.PRODUCER else slot.processed),
            str(slot.failed or ""),
            f"{slot.busy_seconds / max(run.elapsed_seconds, 0.001):.0%}",
            "" if slot.task_age_seconds is None else f"{slot.task_age_seconds:.1f} s",
            str(sum(slot.restarts.values()) or ""),
            str(slot.pid or ""),
        )
    return table


def _state(slot: SlotStatistics) -> Text:
    if slot.state is not None:
        return Text(slot.state, COLOURS[slot.state])
    return Text("finished", "dim") if slot.finished else Text("down", "bold red")


def _rate(run: RunStatistics, earlier: RunStatistics | None, count: str) -> str:
    if earlier is None or earlier is run:
        return ""
    seconds = run.elapsed_seconds - earlier.elapsed_seconds
    return f" ({(run.total(count) - earlier.total(count)) / max(seconds, 0.001):,.1f}/s)"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
