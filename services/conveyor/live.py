"""The live view of `conveyor run`: its picture, redrawn in the supervisor's loop.

What workers print, and what is logged, stands above it.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import sys
import time
from collections.abc import Iterator

from rich.console import Console
from rich.live import Live
from rich.text import Text

from conveyor.logs import Handler, fields
from conveyor.loop import Loop
from conveyor.output import LAST_SECONDS, Output, Stream
from conveyor.picture import Picture
from conveyor.snapshot import RunStatistics
from conveyor.supervisor import Supervisor

log = logging.getLogger(__name__)

REDRAW_SECONDS = 0.25  # often enough to follow; a redraw takes the supervisor 10 ms, on a tall terminal 30
MAX_PENDING_LINES = 1000  # what workers print is shown at the next redraw, or when there is this much of it
# Of what is shown above the picture, while the terminal takes nothing: then log lines are dropped, and workers wait.
MAX_PENDING_CHARACTERS = 1 << 20
RATE_SECONDS = 3.0  # the window of the rates; long enough to read, short enough to follow


class View:
    """A run's picture, redrawn until the run ends."""

    def __init__(self, console: Console, output: Output, log_handler: Handler | None = None) -> None:
        """Draw on this console, which writes to the output; show there what the handler logs, too, if it is given."""
        self._console = console
        self._output = output
        self._log_handler = log_handler
        self._lines: collections.deque[str] = collections.deque()
        """To be shown. Appended to by any thread that logs, emptied by the supervisor's."""
        self._size = 0
        """Characters of these, about: two threads may count at once, and one of them be lost."""
        self._dropped = 0
        self._history: collections.deque[RunStatistics] = collections.deque()

    @property
    def has_room(self) -> bool:
        """Whether more lines can be kept: not while the terminal takes none, as after Ctrl-S."""
        return self._size < MAX_PENDING_CHARACTERS

    def print(self, line: str) -> None:
        """Show a line that a worker printed, above the picture. For the supervisor's thread."""
        self._add(line)
        if len(self._lines) >= MAX_PENDING_LINES:
            self._flush()

    def _add(self, line: str) -> None:
        self._lines.append(line)
        self._size += len(line) + 1

    def _log(self, line: str) -> None:
        # Appends only: a thread that logs must not draw.
        if self.has_room:
            self._add(line)
        else:
            self._dropped += 1

    @contextlib.contextmanager
    def attach(self, supervisor: Supervisor, loop: Loop) -> Iterator[None]:
        live = Live(console=self._console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)

        def redraw() -> None:
            if self._output.is_behind:  # a picture that is not seen need not be drawn
                return
            live.update(self._picture(supervisor.statistics()))
            self._flush()
            live.refresh()

        supervisor.has_room_for_output = lambda: self.has_room
        with self._logging():
            with live:
                loop.every(REDRAW_SECONDS, redraw)
                try:
                    yield
                finally:
                    self._see_through(supervisor, loop)
                live.update(Picture(supervisor.statistics(), None, self._console.height), refresh=True)
        self._output.close()

    def _see_through(self, supervisor: Supervisor, loop: Loop) -> None:
        """Show the lines that are left, as they are the work's results. A stop does not wait for their reader."""
        self._flush()
        while self._lines or self._output.is_behind:
            if not self._output.flush(LAST_SECONDS) and supervisor.is_asked_to_stop:
                break
            self._flush()
            loop.last_turn = time.monotonic()  # it has nothing to do any more, and is well
        if self._lines:
            log.warning("lines of workers were not shown", extra=fields(number=len(self._lines)))

    @contextlib.contextmanager
    def _logging(self) -> Iterator[None]:
        if self._log_handler is None:
            yield
            return
        self._log_handler.flush()  # so that no line of before comes between two pictures
        with self._log_handler.shown_by(self._log):
            yield

    def _picture(self, run: RunStatistics) -> Picture:
        self._history.append(run)
        while run.elapsed_seconds - self._history[0].elapsed_seconds > RATE_SECONDS:
            self._history.popleft()
        return Picture(run, self._history[0], self._console.height)

    def _flush(self) -> None:
        if not self._output.has_room:
            return
        lines = [self._lines.popleft() for _ in range(len(self._lines))]
        self._size = 0
        if self._dropped and self._log_handler is not None:
            dropped, self._dropped = self._dropped, 0
            lines.append(self._log_handler.told(dropped))
        if lines:  # as they are: no markup, no emoji codes, no folding
            self._console.print(Text("\n".join(lines)), soft_wrap=True)


def on_stream(name: str, log_handler: Handler | None) -> View | None:
    """Return a view on this standard stream, or None if its terminal can show none."""
    stream = getattr(sys, name)
    output = Output(stream.fileno(), stream.encoding)
    console = Console(file=Stream(output, stream))  # type: ignore[arg-type]
    return None if console.is_dumb_terminal else View(console, output, log_handler)
