"""The loop of `conveyor top`: asks, listens to keys and signals, draws, and knows when it is over.

The run is asked in a thread, one question at a time, as an answer may not come for long: keys work meanwhile.
"""

from __future__ import annotations

import contextlib
import enum
import functools
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from conveyor import asking
from conveyor.errors import ConfigurationError, ControlError
from conveyor.loop import Loop
from conveyor.picture import Picture
from conveyor.report import Report
from conveyor.snapshot import RunStatistics
from conveyor.top.history import History
from conveyor.top.page import Page
from conveyor.top.ranking import Ranking
from conveyor.top.screen import Key, Screen
from conveyor.top.usage import UsageReader

# An answer this much later than it should be is worth a line. A run that is busy answers within some milliseconds.
SILENCE_SECONDS = 2.0
AGAIN_SECONDS = 0.5  # before it is asked again for a farewell; arbitrary
LEAST_INTERVAL_SECONDS, MOST_INTERVAL_SECONDS = 0.1, 60.0  # arbitrary: more often is no use, less often no view


class End(enum.Enum):
    """Why there is nothing more to watch."""

    QUIT = enum.auto()
    RUN_ENDED = enum.auto()
    RUN_DIED = enum.auto()


def interval(text: str) -> float:
    """Return the seconds between two looks; raise `ConfigurationError` for what is too little or too much."""
    with contextlib.suppress(ValueError):
        if LEAST_INTERVAL_SECONDS <= float(text) <= MOST_INTERVAL_SECONDS:
            return float(text)
    allowed = f"a number of seconds from {LEAST_INTERVAL_SECONDS:g} to {MOST_INTERVAL_SECONDS:g}"
    raise ConfigurationError(f"--interval: {text[:80]!r} is not allowed; give {allowed}")


def watch(pid: int | None, interval_seconds: float) -> int:
    """Show this run, or the only one, until it or the user ends it; return the exit code.

    Raises `ConfigurationError` without a terminal, `ControlError` without a run that answers, or if it dies.
    """
    screen = Screen()
    pid = asking.find(pid)
    farewell = asking.Farewell(pid)  # before the first question: a run that has answered that knows of this, too
    try:
        run = asking.status(pid)
    except ControlError:
        farewell.close()
        raise
    with contextlib.closing(Loop()) as loop:
        watcher = Watcher(pid, run, farewell, screen, loop)
        with contextlib.closing(watcher), _signals(loop, watcher), screen:
            watcher.start(interval_seconds)
            while watcher.end is None:
                loop.turn()
    return _conclude(watcher.end, watcher.run, pid, screen)


def _conclude(end: End, run: RunStatistics, pid: int, screen: Screen) -> int:
    """Leave what was last seen on the ordinary screen, where it stays, if it is the run that is over."""
    if end is End.QUIT:
        return 0
    screen.console.print(Picture(run))
    if end is End.RUN_DIED:
        raise ControlError(f"the run with pid {pid} died without a word: killed, most likely; so it was last seen")
    how = "broken off" if run.ending is None else f"{run.ending}, exit code {Report.of(run).exit_code}"
    screen.console.print(f"the run with pid {pid} has ended: {how}", soft_wrap=True)
    return 0


class Watcher:
    """What is known of the run that is watched, and of what the user wants to see of it. Lives in its loop."""

    def __init__(self, pid: int, run: RunStatistics, farewell: asking.Farewell, screen: Screen, loop: Loop) -> None:
        """Watch the run with this pid, of which this was read first."""
        self.run = run
        self.end: End | None = None
        self._pid = pid
        self._screen = screen
        self._loop = loop
        self._history = History()
        self._reader = UsageReader(pid)
        self._ranking = Ranking.WORKER
        self._is_asking = False
        self._answered = time.monotonic()
        self._patience_seconds = SILENCE_SECONDS
        self._farewell = farewell
        self._take(run)

    def start(self, interval_seconds: float) -> None:
        """Draw, and have the loop do the rest."""
        self._patience_seconds = interval_seconds + SILENCE_SECONDS
        self._await_farewell()
        if self._screen.input is not None:
            self._loop.watch(self._screen.input, self._on_keys)
        self._loop.every(interval_seconds, self._on_time)
        self.draw()

    def close(self) -> None:
        self._farewell.close()

    def quit(self) -> None:
        self.end = End.QUIT

    def suspend(self) -> None:
        """Stop as Ctrl-Z asks for, with the terminal given back for the while."""
        self._screen.leave()
        before = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTSTP)  # where there is no shell to bring us back, the kernel ignores it
        signal.signal(signal.SIGTSTP, before)
        self._screen.enter()
        self.draw()

    def draw(self) -> None:
        silent_seconds = time.monotonic() - self._answered
        page = Page(
            self.run,
            self._history,
            self._usage,
            self._ranking,
            silent_seconds if silent_seconds > self._patience_seconds else None,
        )
        try:
            self._screen.draw(page)
        except OSError:  # the terminal has gone
            self.quit()

    def _take(self, run: RunStatistics) -> None:
        self.run = run
        self._history.add(run)
        self._usage = self._reader.read(run.slots)

    # -- what happens ----------------------------------------------------------------------------------

    def _on_time(self) -> None:
        if self._is_asking:
            self.draw()  # for how long there has been no answer
            return
        self._is_asking = True
        threading.Thread(target=self._ask, daemon=True).start()

    def _ask(self) -> None:
        """Ask the run. In a thread of its own, which touches nothing else of this."""
        try:
            answer = asking.status(self._pid)
        except ControlError:  # it hangs, or has gone: whether it has is told by its farewell
            answer = None
        self._loop.call_soon(functools.partial(self._on_answer, answer))

    def _on_answer(self, answer: RunStatistics | None) -> None:
        self._is_asking = False
        if answer is not None:
            self._answered = time.monotonic()
            self._take(answer)
        self.draw()

    def _on_keys(self) -> None:
        for key in self._screen.read():
            match key:
                case Key.QUIT:
                    self.quit()
                case Key.NEXT:
                    self._ranking = self._ranking.next(1)
                case Key.BEFORE:
                    self._ranking = self._ranking.next(-1)
        self.draw()

    def _on_farewell(self) -> None:
        self._loop.unwatch(self._farewell.fileno())
        last = self._farewell.read()
        if last is not None:
            self.run, self.end = last, End.RUN_ENDED
            return
        self._farewell.close()
        try:
            self._farewell = asking.Farewell(self._pid)
        except ControlError:
            self.end = End.RUN_DIED
        else:  # it had too many clients for one more, and lives
            self._loop.after(AGAIN_SECONDS, self._await_farewell)

    def _await_farewell(self) -> None:
        self._loop.watch(self._farewell.fileno(), self._on_farewell)


@contextlib.contextmanager
def _signals(loop: Loop, watcher: Watcher) -> Iterator[None]:
    """Have signals end the watching, redraw it or stop it for a while, each in the loop."""
    actions = {
        signal.SIGINT: watcher.quit,
        signal.SIGTERM: watcher.quit,
        signal.SIGHUP: watcher.quit,
        signal.SIGWINCH: watcher.draw,
        signal.SIGTSTP: watcher.suspend,
    }
    before = {number: signal.signal(number, _calling(loop, action)) for number, action in actions.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _calling(loop: Loop, action: Callable[[], None]) -> Callable[[int, FrameType | None], None]:
    def handle(signum: int, frame: FrameType | None) -> None:
        loop.call_soon(action)

    return handle
