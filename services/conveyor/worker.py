"""WHO WORKS: a child process, from its start to its end. Nothing here decides.

The supervisor calls `main` in a new process with a frozen `Assignment`. The two loops (`producing.py`,
`consuming.py`) use the queue's seam and write their row of the ledger; what goes wrong is told on a private pipe.

What happens when this process dies: see the queue it serves. What happens when the supervisor dies: the kernel
kills this process, whatever it does (see `fork_server.py`).
"""

from __future__ import annotations

import collections
import faulthandler
import itertools
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from conveyor import fork_server, leaving, messages, standard_input
from conveyor.consuming import Consumption
from conveyor.descriptors import Descriptor
from conveyor.errors import ConveyorError
from conveyor.interruptions import Interruptions, StopRequestedError, leave_fork
from conveyor.ledger import Ledger, Order, Row, State
from conveyor.producing import Production
from conveyor.queues.seam import Intake, Outlet
from conveyor.recycling import Limits
from conveyor.sealing import Sealed

_now_ns = time.monotonic_ns


@dataclass(frozen=True, slots=True)
class Produce:
    """The work of a producer's slot: call the function, pass over what was put before, offer all the rest."""

    function: Sealed[Callable[..., Iterable[object]]]
    outlet: Outlet
    kwargs: Mapping[str, object]
    """Arguments beyond the user's own."""
    skip: int
    """Tasks that processes of the slot have put before."""
    input: Descriptor | None
    """Standard input, of one that may read it."""


@dataclass(frozen=True, slots=True)
class Consume:
    """The work of a consumer's slot: call the function with each task."""

    function: Sealed[Callable[[Any], object]]
    intake: Intake
    keeps_results: bool
    limits: Limits


@dataclass(frozen=True, slots=True)
class Assignment:
    """All that a worker process is given."""

    work: Produce | Consume
    ledger: Ledger
    row: int
    messages: Descriptor
    output: Descriptor
    errors: Descriptor
    """Where standard output and error go."""
    environment: Mapping[str, str]
    """The supervisor's own, which may have changed since the fork server's start."""


def main(assignment: Assignment) -> None:
    """Run one worker to its end. The target of every process that the supervisor starts."""
    if isinstance(assignment.work, Consume):
        # Ctrl-C must not reach what a task has started, which is to be finished. A producer may read the terminal.
        os.setpgid(0, 0)
    os.environ.clear()
    os.environ.update(assignment.environment)
    _set_up_output(assignment.output, assignment.errors)
    faulthandler.enable(assignment.messages.number)
    leaving.prepare()
    row = assignment.ledger.rows[assignment.row]
    work = assignment.work
    _set_up_input(work)
    function = _opened(work.function, assignment.messages.number)
    order = Order.STOP_PRODUCING if isinstance(work, Produce) else Order.STOP
    interruptions = Interruptions(assignment.ledger, row, order, assignment.messages.number)
    interruptions.install()
    os.register_at_fork(after_in_child=row.release)  # what user code forks must not write our row
    row.enter(State.RUNNING, _now_ns())
    last_word = State.FAILED
    try:
        if isinstance(work, Produce):
            pid = os.getpid()
            with interruptions:
                iterator = iter(function(**work.kwargs))
                collections.deque(itertools.islice(iterator, work.skip), maxlen=0)
            if os.getpid() != pid:
                leave_fork(None)
            Production(work.outlet, row, interruptions).run(iterator)
            last_word = State.FINISHED
        else:
            last_word = _consumption(work, function, row, interruptions, assignment.messages.number).run()
    except StopRequestedError:
        last_word = State.LEFT
    except Exception as error:  # mostly a producer's: its process ends here, and its supervisor says why
        _tell(error, assignment.messages.number)
        sys.exit(1)
    finally:
        row.enter(State.STOPPING, _now_ns())
        if isinstance(work, Produce):
            work.outlet.close()
        leaving.run_exit_functions()
        if (trouble := leaving.flush_output()) is not None:
            messages.send(assignment.messages.number, messages.OutputLost(trouble))
        row.enter(last_word, _now_ns())


def _opened(function: Sealed[Callable[..., Any]], descriptor: int) -> Callable[..., Any]:
    """Return the user's function, or leave and tell why it cannot be had: as a rule its module cannot be imported."""
    try:
        with fork_server.importing():
            return function.open()
    except (Exception, SystemExit) as error:
        _tell(error, descriptor)
        sys.exit(1)


def _tell(error: BaseException, descriptor: int) -> None:
    trace = "" if isinstance(error, ConveyorError) else messages.cut(traceback.format_exc())
    failure = messages.WorkerFailed(type(error).__qualname__, messages.text_of(error), trace)
    messages.send(descriptor, failure)


def _consumption(
    work: Consume, function: Callable[[Any], object], row: Row, interruptions: Interruptions, descriptor: int
) -> Consumption:
    return Consumption(function, work.intake, row, interruptions, descriptor, work.keeps_results, work.limits)


def _set_up_input(work: Produce | Consume) -> None:
    if isinstance(work, Consume):
        standard_input.be_empty()
    elif work.input is not None:
        standard_input.be(work.input)
    else:
        standard_input.refuse()


def _set_up_output(output: Descriptor, errors: Descriptor) -> None:
    os.dup2(output.number, 1)
    os.dup2(errors.number, 2)
    for number in {output.number, errors.number} - {1, 2}:  # spawn passes a descriptor under its own number
        os.close(number)
    # Line by line: a task that is done has shown its output, even if its worker is killed after it. And whole
    # lines, also under PYTHONUNBUFFERED, which writes text and newline apart: several workers share the stream.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, write_through=False)  # type: ignore[union-attr]
