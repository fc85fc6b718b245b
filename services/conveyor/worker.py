"""WHO WORKS: the two loops in the child processes, and nothing that decides.

The supervisor calls `main` in a new process with a frozen `Assignment`. The loops use the queue's seam and
write their row of the ledger; what goes wrong is told on a private pipe.

What happens when this process dies: see the queue it serves. What happens when the supervisor dies: the kernel
kills this process, whatever it does (`_die_with`).
"""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import multiprocessing
import os
import pickle
import reprlib
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from types import FrameType, TracebackType
from typing import Any

from conveyor import messages
from conveyor.descriptors import Descriptor
from conveyor.errors import ConveyorError, TaskNotPicklableError
from conveyor.ledger import Ledger, Order, Row, State
from conveyor.queues.seam import Intake, Outlet, QueueEndedError

# An idle consumer or a blocked producer shows a sign of life at least this often.
BEAT_SECONDS = 1.0
# So long after a SIGTERM the supervisor may take to say that it had one too.
ORDER_SECONDS = 0.5
MAX_TEXT = 10_000  # characters of an exception's message or trace that are told; arbitrary
_PICKLE_PROTOCOL = 5
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 200

_now_ns = time.monotonic_ns


@dataclass(frozen=True, slots=True)
class Produce:
    """The work of a producer's slot: call the function, offer all that it yields."""

    function: Callable[..., Iterable[object]]
    args: tuple[object, ...]
    kwargs: Mapping[str, object]
    outlet: Outlet


@dataclass(frozen=True, slots=True)
class Consume:
    """The work of a consumer's slot: call the function with each task."""

    function: Callable[[Any], object]
    intake: Intake


@dataclass(frozen=True, slots=True)
class Assignment:
    """All that a worker process is given."""

    work: Produce | Consume
    ledger: Ledger
    row: int
    messages: Descriptor
    output: Descriptor
    errors: Descriptor
    """Where standard output and error go. A fork server's own may be those of an earlier run."""
    environment: Mapping[str, str]
    """The supervisor's own: a fork server's would be as old as its first start."""


class StopRequestedError(BaseException):
    """The supervisor asks this process to leave. Not an `Exception`: user code should not catch it."""


class Interruptions:
    """Turns the supervisor's SIGTERM into an exception, but only inside `with`: where nothing is in hand.

    A SIGTERM to the whole process group reaches the supervisor too: then it is the supervisor who decides. One
    that somebody sends to this process alone kills it, as it would without us.
    """

    def __init__(self, ledger: Ledger, order: Order) -> None:
        self._ledger = ledger
        self._order = order
        self._allowed = False
        self.requested = False

    def install(self) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the supervisor decides
        signal.signal(signal.SIGTERM, self._on_sigterm)
        # A process that user code forks must not inherit our handler: until Python has set up the child, it
        # would take a SIGTERM and forget it, and `multiprocessing.Pool`, for one, sends no second.
        os.register_at_fork(before=_block_sigterm, after_in_parent=_unblock_sigterm, after_in_child=_forget_handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})  # see `processes.Starter`

    def _on_sigterm(self, signum: int, frame: FrameType | None) -> None:
        until = time.monotonic() + ORDER_SECONDS
        while self._ledger.order is Order.WORK:
            if time.monotonic() > until:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(ORDER_SECONDS / 50)
        if self._ledger.order < self._order:  # a drain: consumers go on until they are told
            return
        self.requested = True
        if self._allowed:
            self._allowed = False  # one is enough: the next may find us flushing
            raise StopRequestedError

    def __enter__(self) -> None:
        self._allowed = True
        # The order is looked at as well: user code may have put a handler of its own in the place of ours.
        if self.requested or self._ledger.order >= self._order:
            self._allowed = False
            raise StopRequestedError

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._allowed = False


class Fence:
    """Keeps a child that user code has forked out of our loop, whatever way it leaves that code: the work, and the
    row in the ledger, are its parent's.
    """

    def __init__(self) -> None:
        self._pid = os.getpid()

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if os.getpid() == self._pid:
            return
        code: object = error.code if isinstance(error, SystemExit) else 0
        if error is not None and not isinstance(error, SystemExit | StopIteration):
            traceback.print_exception(error)
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code & 0xFF if isinstance(code, int) else int(code is not None))


def _block_sigterm() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def _unblock_sigterm() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _forget_handler() -> None:
    with contextlib.suppress(ValueError):  # forked from another than the main thread
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _unblock_sigterm()


def main(assignment: Assignment) -> None:
    """Run one worker to its end. The target of every process that the supervisor starts."""
    _die_with(multiprocessing.parent_process())
    os.environ.clear()
    os.environ.update(assignment.environment)
    _set_up_output(assignment.output, assignment.errors)
    row = assignment.ledger.rows[assignment.row]
    work = assignment.work
    order = Order.STOP_PRODUCING if isinstance(work, Produce) else Order.STOP
    interruptions = Interruptions(assignment.ledger, order)
    interruptions.install()
    row.enter(State.RUNNING, _now_ns())
    last_word = State.FAILED
    try:
        if isinstance(work, Produce):
            produce(work, row, interruptions)
        else:
            consume(work, row, interruptions, assignment.messages.number)
        last_word = State.FINISHED
    except StopRequestedError:
        last_word = State.FINISHED
    except Exception as error:  # mostly a producer's: its process ends here, and its supervisor says why
        trace = "" if isinstance(error, ConveyorError) else _cut(traceback.format_exc())
        failure = messages.WorkerFailed(type(error).__qualname__, _text(error), trace)
        messages.send(assignment.messages.number, failure)
        sys.exit(1)
    finally:
        row.enter(State.STOPPING, _now_ns())
        if isinstance(work, Produce):
            work.outlet.close()
        sys.stdout.flush()
        row.enter(last_word, _now_ns())


def produce(work: Produce, row: Row, interruptions: Interruptions) -> None:
    """Offer every task that the function yields, until it ends or the supervisor asks to stop."""
    fence = Fence()
    row.resume_busy(_now_ns())
    with interruptions, fence:
        iterator = iter(work.function(*work.args, **work.kwargs))
    while True:
        try:
            with interruptions, fence:
                task = next(iterator)
        except StopIteration:
            return
        finally:
            row.pause_busy(_now_ns())
        _put(work.outlet, _pickled(task), row, interruptions)
        row.resume_busy(_now_ns())


def _put(outlet: Outlet, payload: bytes, row: Row, interruptions: Interruptions) -> None:
    now_ns = _now_ns()
    row.offer()
    if not outlet.offer(payload, now_ns, 0.0):
        row.resume_blocked(now_ns)
        try:
            while not outlet.offer(payload, _now_ns(), BEAT_SECONDS):
                row.beat(_now_ns())
                with interruptions:
                    pass
        finally:
            row.pause_blocked(_now_ns())
    row.count_put(now_ns)


def _pickled(task: object) -> bytes:
    try:
        return pickle.dumps(task, _PICKLE_PROTOCOL)
    except Exception as error:  # whatever a user's __reduce__ raises
        raise TaskNotPicklableError(
            f"the task {_REPR.repr(task)} cannot be sent to another process ({error}); "
            "yield values that pickle can store"
        ) from error


def consume(work: Consume, row: Row, interruptions: Interruptions, descriptor: int) -> None:
    """Do one task after another, until the queue ends or the supervisor asks to stop."""
    fence = Fence()
    seen: set[type[Exception]] = set()
    while True:
        try:
            with interruptions:
                lease = work.intake.take(BEAT_SECONDS)
        except QueueEndedError:
            return
        now_ns = _now_ns()
        if lease is None:
            row.beat(now_ns)
            continue
        row.start_task(now_ns, now_ns - lease.offered_ns)
        task: object = "(not unpickled)"
        try:
            with fence:
                task = pickle.loads(lease.payload)
                work.function(task)
        except Exception as error:  # the user's: it costs one task, not the worker
            finished_ns = _now_ns()
            row.finish_task(finished_ns, failed=True)
            trace = "" if type(error) in seen else _cut(traceback.format_exc())
            seen.add(type(error))
            seconds = (finished_ns - now_ns) / 1e9
            kind = type(error).__qualname__
            failure = messages.TaskFailed(kind, _text(error), _REPR.repr(task), seconds, trace)
            messages.send(descriptor, failure)
        else:
            row.finish_task(_now_ns())
        row.enter(State.REPORTING, _now_ns())
        work.intake.report(lease)
        row.enter(State.RUNNING, _now_ns())


def _text(error: Exception) -> str:
    try:
        return _cut(str(error))
    except Exception as worse:  # the user's __str__
        return f"(its text cannot be had: {type(worse).__qualname__})"


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}... ({len(text)} characters)"


def _set_up_output(output: Descriptor, errors: Descriptor) -> None:
    os.dup2(output.number, 1)
    os.dup2(errors.number, 2)
    for number in {output.number, errors.number} - {1, 2}:  # spawn passes a descriptor under its own number
        os.close(number)
    # Line by line: a task that is done has shown its output, even if its worker is killed after it. And whole
    # lines, also under PYTHONUNBUFFERED, which writes text and newline apart: several workers share the stream.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, write_through=False)  # type: ignore[union-attr]
    faulthandler.enable()


def _die_with(parent: BaseProcess | None) -> None:
    """Have the kernel send SIGKILL to this process when its supervisor is gone, however that happens.

    The read end of a pipe whose only writer is the supervisor tells it. A thread that waits for this could
    not stop a task that holds the interpreter's lock, and PR_SET_PDEATHSIG would watch the fork server.
    """
    if parent is None:
        return
    descriptor = parent.sentinel
    fcntl.fcntl(descriptor, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([descriptor], [], [], 0)[0]:  # it was gone before we could ask
        os.kill(os.getpid(), signal.SIGKILL)
