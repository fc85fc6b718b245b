"""How a worker is asked to stop: a SIGTERM from the supervisor, obeyed only where nothing is in hand.

Only one that is in its task for too long is not waited for: it shows where it is, and dies.

Used by the two loops of a worker process; `worker.main` installs it.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import sys
import time
import traceback
from types import FrameType, TracebackType
from typing import NoReturn

from conveyor.fork_server import PLEASE_WAIT
from conveyor.ledger import Ledger, Order, Row

# So long after a SIGTERM the supervisor may take to say that it had one too.
ORDER_SECONDS = 0.5


class StopRequestedError(BaseException):
    """The supervisor asks this process to leave. Not an `Exception`: user code should not catch it."""


class Interruptions:
    """Turns the supervisor's SIGTERM into an exception, but only inside `with`: where nothing is in hand.

    A SIGTERM to the whole process group reaches the supervisor too: then it is the supervisor who decides. One
    that somebody sends to this process alone kills it, as it would without us.
    """

    def __init__(self, ledger: Ledger, row: Row, order: Order, descriptor: int = 2) -> None:
        """Obey this order, and what the row is ordered; a task that takes too long is shown on the descriptor."""
        self._ledger = ledger
        self._row = row
        self._order = order
        self._descriptor = descriptor
        self._allowed = False
        self.requested = False

    def install(self) -> None:
        # Ctrl-C, and the end of a terminal, reach the whole group: the supervisor decides. A handler that does nothing,
        # since a program that the task starts would go on ignoring what we ignore.
        for number in (signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _leave_it_to_the_supervisor)
                signal.siginterrupt(number, False)
        signal.signal(signal.SIGTERM, self._on_sigterm)
        # A process that user code forks must not inherit our handler: until Python has set up the child, it
        # would take a SIGTERM and forget it, and `multiprocessing.Pool`, for one, sends no second.
        os.register_at_fork(before=_block_sigterm, after_in_parent=_unblock_sigterm, after_in_child=_forget_handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, PLEASE_WAIT)

    def _on_sigterm(self, signum: int, frame: FrameType | None) -> None:
        until = time.monotonic() + ORDER_SECONDS
        while self._ledger.order is Order.WORK and not self._row.is_called:
            if time.monotonic() > until:
                _die_of_sigterm()
            time.sleep(ORDER_SECONDS / 50)  # in a signal handler: the order is a word that nothing tells of
        if self._row.is_out_of_time:
            faulthandler.dump_traceback(self._descriptor)
            _die_of_sigterm()
        if self._ledger.order < self._order and not self._row.must_leave:
            return  # a drain, in which consumers go on until they are told; or a task that has ended just in time
        self.requested = True
        if self._allowed:
            self._allowed = False  # one is enough: the next may find us flushing
            raise StopRequestedError

    def check(self) -> None:
        """Raise `StopRequestedError` if there is no time left even for what is in hand."""
        if self._ledger.order is Order.STOP:
            raise StopRequestedError

    def __enter__(self) -> None:
        self._allowed = True
        # The order is looked at as well: user code may have put a handler of its own in the place of ours.
        if self.requested or self._ledger.order >= self._order or self._row.must_leave:
            self._allowed = False
            raise StopRequestedError

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._allowed = False


def _leave_it_to_the_supervisor(signum: int, frame: FrameType | None) -> None:
    """Do nothing. Not `SIG_IGN`, which programs that a task starts would inherit."""


def _die_of_sigterm() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)


def _block_sigterm() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def _unblock_sigterm() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _forget_handler() -> None:
    with contextlib.suppress(ValueError):  # forked from another than the main thread
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _unblock_sigterm()


def leave_fork(error: BaseException | None) -> NoReturn:
    """End a child that user code has forked and that has come back into our loop: the work is its parent's."""
    code: object = error.code if isinstance(error, SystemExit) else 0
    if error is not None and not isinstance(error, SystemExit | StopIteration):
        traceback.print_exception(error)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code & 0xFF if isinstance(code, int) else int(code is not None))
