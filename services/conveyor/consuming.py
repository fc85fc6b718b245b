"""A consumer's loop: take a lease, call the user's function with each of its tasks, report.

Each finished task is one store in the ledger, so whoever reads it knows at any moment which tasks of the lease are
done, and which is in hand. Fast tasks are timed a stride at a time: as many as take far less together than the first
edge of the histogram, so that each of them falls into its first bucket; slow ones are timed one by one.

What happens when this process dies: see the queue it serves.
"""

from __future__ import annotations

import itertools
import os
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from conveyor import messages, outcomes
from conveyor.completion import DoneCheck
from conveyor.interruptions import Interruptions, leave_fork
from conveyor.ledger import Row, State
from conveyor.queues import codec
from conveyor.queues.seam import Failure, Intake, Lease, QueueEndedError
from conveyor.recycling import Lifespan, Limits

# An idle consumer shows a sign of life at least this often.
BEAT_SECONDS = 1.0
MAX_STRIDE = 256  # tasks; arbitrary: the cost of a stride is spread thin long before
STRIDE_NS = 50_000  # of a stride that may be doubled; a twentieth of the histogram's first edge

_now_ns = time.monotonic_ns


class Consumption:
    """One consumer process at work."""

    def __init__(
        self,
        function: Callable[[Any], object],
        intake: Intake,
        row: Row,
        interruptions: Interruptions,
        descriptor: int,
        keeps_results: bool,
        limits: Limits,
    ) -> None:
        self._pid = os.getpid()
        self._intake = intake
        self._check_done = DoneCheck()
        self._function = self._kept(function) if keeps_results else function
        self._keeps_results = keeps_results
        self._row = row
        self._interruptions = interruptions
        self._descriptor = descriptor
        self._succeeded: int = row.done[0]
        self._stride = 1
        self._lifespan = Lifespan(limits)
        self._ahead = 0  # waits that were counted for a stride and not begun, as it ended early: of those that follow
        self._seen: set[type[Exception]] = set()

    def run(self) -> State:
        """Do one lease after another until the queue ends, or this process has done enough; return which.

        Raises `StopRequestedError` if the supervisor asks to stop.
        """
        row, intake = self._row, self._intake
        while not self._lifespan.is_over:
            try:
                with self._interruptions:
                    lease = intake.take(BEAT_SECONDS)
            except QueueEndedError:
                return State.FINISHED
            began_ns = _now_ns()
            if lease is None:
                row.beat(began_ns)
                continue
            done, failure = 0, None
            if row.open_lease(lease.number, lease.last - lease.first, began_ns):
                done, failure = self._work_off(lease, began_ns)
            ended_ns = _now_ns()
            row.enter(State.REPORTING, ended_ns)
            intake.report(lease, done, failure, ended_ns - began_ns)
            row.enter(State.RUNNING, ended_ns)
        return State.RECYCLED

    def _work_off(self, lease: Lease, began_ns: int) -> tuple[int, Failure | None]:
        """Do the tasks of a lease, until one fails, its time or this process's is spent, or the rest is taken.

        Return how many went well, and how the one after them failed.
        """
        row, lifespan, done, now_ns = self._row, self._lifespan, 0, began_ns
        failure: Failure | None = None
        count = lease.last - lease.first
        tasks = codec.tasks_of(lease.codec, lease.payload, lease.count, lease.first, lease.last)
        while done < count and failure is None:
            stride = row.allowed(lease.number, done, min(self._stride, count - done, lifespan.tasks_left))
            if not stride:
                break
            waits = max(0, stride - self._ahead)
            row.begin_tasks(waits, now_ns, now_ns - lease.offered_ns)
            stride_ns = now_ns
            finished, failure, now_ns = self._do(tasks, stride, lease, done, now_ns)
            done += finished
            lifespan.spend(finished + (failure is not None), now_ns)
            self._ahead += waits - finished - (failure is not None)
            took_ns = now_ns - stride_ns
            if took_ns > 4 * STRIDE_NS:
                self._stride = max(1, self._stride // 8)
            elif took_ns < STRIDE_NS:
                self._stride = min(MAX_STRIDE, 2 * self._stride)
            if now_ns - began_ns > lease.budget_ns:
                break
        row.close_lease(now_ns)
        return done, failure

    def _do(
        self, tasks: Iterator[Any], number: int, lease: Lease, before: int, began_ns: int
    ) -> tuple[int, Failure | None, int]:
        """Do the next tasks of a lease, behind the `before` first, until one fails or we are told to stop.

        Return how many went well, how the one after them failed, and the time at the end.
        """
        function, done, stop = self._function, self._row.done, self._row.stop
        check_done, harmless = self._check_done, self._check_done.harmless
        succeeded = first = self._succeeded
        failure = None
        try:
            for task in itertools.islice(tasks, number):
                result = function(task)
                if result is not None and type(result) not in harmless:
                    check_done(result, is_kept=False)
                succeeded += 1
                done[0] = succeeded
                if stop[0]:
                    number = succeeded - first
                    break
            if succeeded - first < number:
                raise RuntimeError("unpickling the task raised StopIteration")
        except BaseException as error:
            if os.getpid() != self._pid:
                # Without a frame below ours it is the store that has failed: the child came back from the function.
                leave_fork(error if error.__traceback__ and error.__traceback__.tb_next else None)
            if not isinstance(error, Exception):
                raise
            took_ns = _now_ns() - began_ns
            failure = self._fail(error, lease, before + succeeded - first, took_ns)
        self._succeeded = succeeded
        ended_ns = _now_ns()
        self._row.time_tasks(succeeded - first, ended_ns - began_ns, failed=failure is not None)
        return succeeded - first, failure, ended_ns

    def _fail(self, error: Exception, lease: Lease, done: int, took_ns: int) -> Failure:
        """Count the task behind the `done` first of a lease as failed, for good or for this time, and tell of it."""
        is_final = not lease.tries_left
        if is_final:
            if self._keeps_results:
                self._intake.keep(outcomes.raised(error))
            self._row.fail_task(lease.number, done, took_ns, type(error).__qualname__)
        else:
            self._row.give_back_task(lease.number, done)
        trace = messages.cut(traceback.format_exc())
        self._tell(error, lease, lease.first + done, took_ns, trace, is_final)
        return Failure(messages.cut(type(error).__qualname__), messages.text_of(error), trace)

    def _kept(self, function: Callable[[Any], object]) -> Callable[[Any], object]:
        """Return the function that keeps what this one returns."""
        keep, returned, pid = self._intake.keep, outcomes.returned, self._pid
        check_done, harmless = self._check_done, self._check_done.harmless

        def kept(task: Any) -> None:
            result = function(task)
            if result is not None and type(result) not in harmless:
                check_done(result, is_kept=True)
            outcome = returned(result)
            if os.getpid() != pid:
                leave_fork(None)  # before it writes into its parent's results
            keep(outcome)

        return kept

    def _tell(self, error: Exception, lease: Lease, place: int, took_ns: int, trace: str, is_final: bool) -> None:
        """Tell the supervisor of a task that failed; it costs one task, not the worker."""
        if type(error) in self._seen:
            trace = ""
        self._seen.add(type(error))
        try:  # as it was put, whatever the function has made of it
            task = codec.show(next(codec.tasks_of(lease.codec, lease.payload, lease.count, place, place + 1)))
        except Exception:  # the user's __setstate__: mostly what made it fail
            task = "(not unpickled)"
        name, text = type(error).__qualname__, messages.text_of(error)
        messages.send(self._descriptor, messages.TaskFailed(name, text, task, took_ns / 1e9, is_final, trace))
