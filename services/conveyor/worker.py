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

from conveyor import messages
from conveyor.consuming import Consumption
from conveyor.descriptors import Descriptor
from conveyor.errors import ConveyorError
from conveyor.interruptions import Interruptions, StopRequestedError, leave_fork
from conveyor.ledger import Ledger, Order, Row, State
from conveyor.producing import Production
from conveyor.queues.seam import Intake, Outlet
from conveyor.recycling import Limits

_now_ns = time.monotonic_ns


@dataclass(frozen=True, slots=True)
class Produce:
    """The work of a producer's slot: call the function, pass over what was put before, offer all the rest."""

    function: Callable[..., Iterable[object]]
    args: tuple[object, ...]
    kwargs: Mapping[str, object]
    outlet: Outlet
    skip: int = 0
    """Tasks that processes of the slot have put before."""


@dataclass(frozen=True, slots=True)
class Consume:
    """The work of a consumer's slot: call the function with each task."""

    function: Callable[[Any], object]
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
    row = assignment.ledger.rows[assignment.row]
    work = assignment.work
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
                iterator = iter(work.function(*work.args, **work.kwargs))
                collections.deque(itertools.islice(iterator, work.skip), maxlen=0)
            if os.getpid() != pid:
                leave_fork(None)
            Production(work.outlet, row, interruptions).run(iterator)
            last_word = State.FINISHED
        else:
            last_word = _consumption(work, row, interruptions, assignment.messages.number).run()
    except StopRequestedError:
        last_word = State.LEFT
    except Exception as error:  # mostly a producer's: its process ends here, and its supervisor says why
        trace = "" if isinstance(error, ConveyorError) else messages.cut(traceback.format_exc())
        failure = messages.WorkerFailed(type(error).__qualname__, messages.text_of(error), trace)
        messages.send(assignment.messages.number, failure)
        sys.exit(1)
    finally:
        row.enter(State.STOPPING, _now_ns())
        if isinstance(work, Produce):
            work.outlet.close()
        sys.stdout.flush()
        row.enter(last_word, _now_ns())


def _consumption(work: Consume, row: Row, interruptions: Interruptions, descriptor: int) -> Consumption:
    return Consumption(work.function, work.intake, row, interruptions, descriptor, work.keeps_results, work.limits)


def _set_up_output(output: Descriptor, errors: Descriptor) -> None:
    os.dup2(output.number, 1)
    os.dup2(errors.number, 2)
    for number in {output.number, errors.number} - {1, 2}:  # spawn passes a descriptor under its own number
        os.close(number)
    # Line by line: a task that is done has shown its output, even if its worker is killed after it. And whole
    # lines, also under PYTHONUNBUFFERED, which writes text and newline apart: several workers share the stream.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, write_through=False)  # type: ignore[union-attr]
