"""Signals that ask `conveyor run` to stop before there is a run: noted from the first moment of the process on.

The kernel discards what the first process of a container has no handler for, so a `docker stop` right after the start
would be lost. Used by `__main__`, before anything else is imported, and by the command line; this imports next to
nothing itself. From Python, `Pipeline.run` hears signals from its own beginning to its end.

What comes while our own modules are imported is noted; what comes while the workload's are, which may take long, ends
that. Once there is a run, it is the run that is told.
"""

from __future__ import annotations

import signal

TYPE_CHECKING = False
if TYPE_CHECKING:  # to import `typing` takes longer than all that is done here
    from collections.abc import Callable
    from types import FrameType, TracebackType

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


# The first line of ours runs some 20 ms after the process began; what is to be heard even before that has to be blocked
# by the program that starts it, as `env --block-signal=TERM` does in the image: the kernel keeps a blocked signal.


class StoppedEarlyError(BaseException):
    """A stop was asked for before the run began. Not an `Exception`: user code should not catch it."""


def unblock() -> None:
    """Let through what was blocked when this process began, once it is clear what becomes of it."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)


class EarlySignals:
    """Hears `STOPS`, but for those that the process was told to ignore, as `nohup` does with SIGHUP."""

    def __init__(self) -> None:
        self._noted = 0
        self._raises = False
        self._stop: Callable[[int, FrameType | None], None] | None = None

    def listen(self) -> None:
        """Note signals from now on. For the main thread."""
        for number in STOPS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._on_signal)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if self._stop is not None:
            self._stop(signum, frame)
            return
        self._noted += 1
        if self._raises:
            self._raises = False  # one is enough: the next may find us on the way out
            raise StoppedEarlyError

    def pass_on(self, stop: Callable[[int, FrameType | None], None]) -> None:
        """Call this for each signal that comes, and for each that has come."""
        self._stop = stop
        for _ in range(self._noted):
            stop(signal.SIGTERM, None)

    def __enter__(self) -> None:
        """Have a signal raise `StoppedEarlyError`, one that has come already at once."""
        self._raises = True
        self._check()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._raises = False
        if error is None:  # user code may have caught ours
            self._check()

    def _check(self) -> None:
        if self._noted:
            self._raises = False
            raise StoppedEarlyError
