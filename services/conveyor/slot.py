"""One worker slot: the name, the process that is in it now, and what is known of those before it.

Written by the supervisor's thread alone; the exporter's threads read `statistics()`.
"""

from __future__ import annotations

import contextlib
import itertools
import operator
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from conveyor.descriptors import Descriptor
from conveyor.errors import ConveyorError
from conveyor.ledger import NANOSECONDS, Ledger, Order, State, Tally
from conveyor.messages import LineReader
from conveyor.processes import Starter, WorkerProcess
from conveyor.queues.seam import End, TaskQueue
from conveyor.restarts import RestartPolicy
from conveyor.snapshot import REPLACED_SECONDS, Death, RestartReason, Role, SlotStatistics, WorkerState, how_ended
from conveyor.worker import Assignment, Consume, Produce, main

_STDOUT, _STDERR = 1, 2
_PAGE_BYTES = os.sysconf("SC_PAGESIZE")
_LAST_WORDS = (State.FINISHED, State.FAILED, State.RECYCLED, State.LEFT)


class Slot:
    """A place for one process at a time."""

    def __init__(
        self,
        name: str,
        role: Role,
        work: Callable[[int], Produce | Consume],
        queue: TaskQueue,
        ledger: Ledger,
        index: int,
        may_restart: bool,
    ) -> None:
        """Have a place; `work` is called with its index for each new process."""
        self.name = name
        self.role = role
        self.may_restart = may_restart
        self.policy = RestartPolicy()
        self.process: WorkerProcess | None = None
        self.pid: int | None = None
        self.messages: LineReader | None = None
        self.output: LineReader | None = None
        self.finished = False
        """The work of this slot is over: it left by itself, as it should."""
        self.retired = False
        """No process is wanted here any more, or for now; the one that is in it, if any, has been told to leave."""
        self.given_up = False
        """Its process died and no other will follow."""
        self.doubts = 0
        """Puts that dead processes of this slot had announced and not counted: they may have happened."""
        self.proven = 0
        """Those of them that did: consumers have started more tasks than were counted as put."""
        self.restarts = dict.fromkeys(RestartReason, 0)
        self.last_exit_code: int | None = None
        self.death: Death | None = None
        """How the process before the present one died, if it did."""
        self.dump: list[str] = []
        """What the present process wrote as it crashed."""
        self._memory_bytes: int | None = None
        self._told_to_leave_at: float | None = None
        self._out_of_time = False
        self._work_before = 0
        self._work = work
        self._queue = queue
        self._ledger = ledger
        self._index = index
        self._started_at = 0.0
        self._started = 0.0
        self._descriptors: list[int] = []

    @property
    def over(self) -> bool:
        """Whether no process will be in this slot any more."""
        return self.finished or self.given_up

    @property
    def is_wanted(self) -> bool:
        """Whether a process should be in this slot."""
        return not (self.finished or self.retired)

    def start(self, starter: Starter, capture_output: bool) -> list[int]:
        """Put a new process in; return the descriptors to watch: its end, its messages, its output if captured.

        Raises `ConveyorError` if the system will not start one.
        """
        try:
            pipes = _pipes(2 if capture_output else 1)
        except OSError as error:
            raise ConveyorError(f"cannot start a process for {self.name}: {error}") from error
        self._descriptors = [read for read, _ in pipes]
        try:
            work = self._work(self._index)
        except OSError as error:
            self.close_pipes()
            for _, write in pipes:
                os.close(write)
            raise ConveyorError(f"cannot start a process for {self.name}: {error}") from error
        # One object for both streams, so that it is sent once: spawn passes no descriptor twice.
        output = Descriptor(pipes[-1][1] if capture_output else _STDOUT)
        assignment = Assignment(
            work=work,
            ledger=self._ledger,
            row=self._index,
            messages=Descriptor(pipes[0][1]),
            output=output,
            errors=output if capture_output else Descriptor(_STDERR),
            environment=dict(os.environ),
        )
        row, now_ns = self._ledger.rows[self._index], time.monotonic_ns()
        before = self.tally(now_ns)
        row.settle(now_ns)  # once more: a process that we had to kill may have stored something on its way out
        row.employ()
        row.enter(State.STARTING, now_ns)
        try:
            process = starter.start(main, assignment, self.name, pipes[0][1])
        except (OSError, ConveyorError) as error:
            self.close_pipes()
            raise ConveyorError(f"cannot start a process for {self.name}: {error}") from error
        finally:
            self._queue.started(self._index)
            for _, write in pipes:
                os.close(write)
        readers = [LineReader(descriptor) for descriptor in self._descriptors]
        self.messages, self.output = readers[0], readers[1] if capture_output else None
        if self.death is not None:
            self.restarts[self.death.reason] += 1
        self._started_at, self._started = time.time(), time.monotonic()
        self.process, self.pid = process, process.pid
        self.dump, self._memory_bytes = [], None
        self._told_to_leave_at, self._out_of_time = None, False
        self._work_before = before.processed + before.put
        return [process.sentinel, *self._descriptors]

    def bury(self, *, by_us: bool) -> Death | None:
        """Take the ended process out; return how it died, or None if it left as it should.

        One that has done as much as a process may counts as a death here, with that as its cause. A task in its hands
        counts as abandoned, unless it was the supervisor that ended the process.
        """
        process = self.process
        assert process is not None
        now_ns = time.monotonic_ns()
        process.join()
        exit_code = process.exitcode
        assert exit_code is not None
        row, tally = self._ledger.rows[self._index], self.tally(now_ns)
        if by_us:
            tally = tally._replace(in_progress=0)
        is_timeout = self._cause(tally) is RestartReason.HEARTBEAT
        casualty = self._queue.bury(self._index, row, tally, End(self.name, how_ended(exit_code), is_timeout))
        row.settle(now_ns)
        if casualty is not None:
            row.abandon()
        elif tally.in_progress:
            row.close_lease(now_ns)  # it died between two tasks, with nothing in hand
        self.process = self.pid = None
        process.close()
        self.last_exit_code = exit_code
        if tally.state in (State.FINISHED, State.LEFT) and casualty is None:
            # One that was told to leave may be wanted again by now.
            self.death, self.finished = None, self.retired or self._told_to_leave_at is None
            return None
        if tally.offered > tally.put:
            self.doubts += 1
            row.withdraw()
        self.death = Death(
            slot=self.name,
            exit_code=exit_code,
            at=time.time(),
            lived_seconds=round(time.monotonic() - self._started, 3),
            was_ready=tally.state is not State.STARTING,
            was_useful=tally.processed + tally.put > self._work_before,
            memory_bytes=self._memory_bytes,
            stack="\n".join(self.dump),
            cause=self._cause(tally),
        )
        if casualty is not None:
            self.death = replace(
                self.death,
                in_task=True,
                task=casualty.task,
                attempt=casualty.attempt,
                task_seconds=round((now_ns - tally.task_began_ns) / NANOSECONDS, 3),
                is_lost=casualty.is_lost,
                is_dead_letter=casualty.is_dead_letter,
            )
        return self.death

    def _cause(self, tally: Tally) -> RestartReason | None:
        if self._out_of_time:
            return RestartReason.HEARTBEAT
        return RestartReason.RECYCLE if tally.state is State.RECYCLED else None

    def retire(self) -> None:
        """Want no process here any more: one that is there leaves after the task that it is in."""
        self.retired = True
        if self.process is None:
            self.finished = True
            return
        self._queue.retire(self._index)
        self._told_to_leave_at = time.monotonic()
        self._ledger.rows[self._index].order_leave()
        self.signal(signal.SIGTERM)

    def engage(self) -> None:
        """Want a process here again."""
        self.retired = self.finished = False

    def time_out(self, finished: int) -> None:
        """Ask the process, which has been too long in the task after so many finished ones, to end."""
        self._out_of_time = True
        self._ledger.rows[self._index].time_out(finished)
        self.signal(signal.SIGTERM)

    def pardon(self) -> None:
        """Let the process go on: it has come out of that task after all."""
        self._out_of_time = False
        self._ledger.rows[self._index].pardon(leaves=self._told_to_leave_at is not None)

    def close_pipes(self) -> list[int]:
        """Close the pipes of the ended process; return their descriptors."""
        closed, self._descriptors = self._descriptors, []
        for descriptor in closed:
            os.close(descriptor)
        self.messages = self.output = None
        return closed

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, if one is in the slot."""
        if self.process is not None and self.pid is not None and self.process.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def weigh(self) -> None:
        """Look at the memory of the process, for the case that it dies."""
        if self.pid is not None:
            with contextlib.suppress(OSError):  # it has just died
                pages = Path(f"/proc/{self.pid}/statm").read_bytes().split()[1]
                self._memory_bytes = int(pages) * _PAGE_BYTES or self._memory_bytes  # a zombie has none

    def tally(self, now_ns: int) -> Tally:
        """Return this slot's row of the ledger."""
        return self._ledger.rows[self._index].read(now_ns)

    def errors(self) -> dict[str, int]:
        """Return this slot's failed tasks by the class of their exception."""
        return self._ledger.rows[self._index].errors()

    def is_lingering(self, now_ns: int, grace_seconds: float) -> bool:
        """Return whether the process should be gone and is still there after the grace, with nothing in hand.

        It has said its last word, or is about to, or was told to leave.
        """
        if self.pid is None:
            return False
        tally = self.tally(now_ns)
        silent_seconds = (now_ns - tally.heartbeat_ns) / NANOSECONDS
        is_leaving = tally.state is State.STOPPING and self.role is Role.CONSUMER  # a producer may have much to send
        if is_leaving or tally.state in _LAST_WORDS:
            return silent_seconds > grace_seconds
        told_at = self._told_to_leave_at
        if told_at is None or tally.in_progress:
            return False
        return min(silent_seconds, now_ns / NANOSECONDS - told_at) > grace_seconds

    def is_stopped(self) -> bool:
        """Return whether somebody has stopped the process, with SIGSTOP or a debugger."""
        return self.pid is not None and _state_of(self.pid) in ("T", "t")

    def statistics(self, tally: Tally, now_ns: int, unix_time: float) -> SlotStatistics:
        """Return the slot as this reading of its row shows it."""
        pid = self.pid
        activity = self._activity(tally) if pid is not None else None
        return SlotStatistics(
            name=self.name,
            role=self.role,
            up=pid is not None,
            state=self._state(activity, now_ns),
            finished=self.finished,
            pid=pid,
            started_at=self._started_at or None,
            heartbeat_at=unix_time - (now_ns - tally.heartbeat_ns) / NANOSECONDS if self._started else None,
            produced=tally.put + self.proven,
            processed=tally.processed,
            failed=tally.failed,
            in_progress=tally.in_progress,
            abandoned=tally.abandoned,
            busy_seconds=tally.busy_ns / NANOSECONDS,
            blocked_seconds=tally.blocked_ns / NANOSECONDS,
            task_age_seconds=(now_ns - tally.task_began_ns) / NANOSECONDS if tally.in_progress else None,
            task_seconds=tally.task_ns / NANOSECONDS,
            task_buckets=tuple(map(operator.add, tally.succeeded, tally.failures)),
            wait_seconds=tally.wait_ns / NANOSECONDS,
            wait_buckets=tally.waits,
            restarts=dict(self.restarts),
            last_exit_code=self.last_exit_code,
            activity=activity,
        )

    def _state(self, activity: WorkerState | None, now_ns: int) -> WorkerState | None:
        """Return what is to be seen of the slot: for a while after a death, that there was one.

        A process that had done its share was replaced as well, but as it should be: nothing is to be seen of that.
        """
        if activity in (None, WorkerState.STARTING, WorkerState.STOPPING):
            return activity
        if self.death is None or self.death.reason is RestartReason.RECYCLE:
            return activity
        age_seconds = now_ns / NANOSECONDS - self._started
        return WorkerState.REPLACED if age_seconds < REPLACED_SECONDS else activity

    def _activity(self, tally: Tally) -> WorkerState:
        if tally.state is State.STARTING:
            return WorkerState.STARTING
        stop = Order.STOP_PRODUCING if self.role is Role.PRODUCER else Order.STOP
        if tally.state in (State.STOPPING, *_LAST_WORDS) or self._ledger.order >= stop or self.retired:
            return WorkerState.STOPPING
        if tally.is_blocked:
            return WorkerState.BLOCKED
        return WorkerState.BUSY if tally.is_busy else WorkerState.IDLE


def _pipes(number: int) -> list[tuple[int, int]]:
    """Return so many pipes, or raise `OSError` and leave none behind."""
    made: list[tuple[int, int]] = []
    try:
        for _ in range(number):
            made.append(os.pipe())
    except OSError:
        for end in itertools.chain(*made):
            os.close(end)
        raise
    return made


def _state_of(pid: int) -> str | None:
    """Return the letter that the kernel has for the state of a process, or None if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return None
