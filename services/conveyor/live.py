"""The live view of `conveyor run`: its picture, redrawn in the supervisor's loop.

What workers print, and what is logged, stands above it.
"""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Iterator

from rich.console import Console
from rich.live import Live
from rich.text import Text

from conveyor.logs import Handler
from conveyor.loop import Loop
from conveyor.picture import Picture
from conveyor.snapshot import RunStatistics
from conveyor.supervisor import Supervisor

REDRAW_SECONDS = 0.25  # often enough to follow; a redraw takes the supervisor 10 ms, on a tall terminal 30
MAX_PENDING_LINES = 1000  # what workers print is shown at the next redraw, or when there is this much of it
RATE_SECONDS = 3.0  # the window of the rates; long enough to read, short enough to follow


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
