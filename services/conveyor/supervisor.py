"""WHO WATCHES: starts the workers, restarts them, notices what cannot be mended, drains, and knows the end.

One thread, one loop (`loop.py`); everything that happens is an event in it: a death, a message, a signal, a
timer. What it decides by is pure and lies beside it: `restarts.py` (when to replace a worker), `stall.py`
(whether a dead worker broke the queue).

The end, the same for every queue: all producers have ended and no unfinished task is left that could be done.
What happens when this process dies: the kernel kills the workers (see `worker.py`).
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from multiprocessing.context import BaseContext

from conveyor import messages
from conveyor.ledger import Ledger, Order, State, Tally
from conveyor.logs import fields
from conveyor.loop import Loop
from conveyor.queues.seam import Counts, TaskQueue
from conveyor.restarts import CRASH_LOOP_DEATHS, CRASH_LOOP_SECONDS
from conveyor.slot import Death, Slot
from conveyor.snapshot import Ending, Phase, Role, RunStatistics, SlotStatistics
from conveyor.stall import Scene, StallDetector, Verdict

log = logging.getLogger(__name__)

TICK_SECONDS = 0.25  # how soon a loss that no event tells of is looked for
STOP_GRACE_SECONDS = 5.0  # for a worker that was asked to leave with nothing in hand
# A scrape can fall between a put and its count, if the producer is interrupted just there; wait for it.
READ_ATTEMPTS, READ_PAUSE_SECONDS = 20, 0.001


@dataclass(frozen=True, slots=True)
class Plan:
    """What a supervisor is given to run."""

    name: str
    slots: Sequence[Slot]
    queue: TaskQueue
    ledger: Ledger
    context: BaseContext
    start_method: str
    drain_timeout_seconds: float
    show_output: Callable[[str], None] | None
    """Called with each line that a worker prints; None lets them print where the supervisor does."""


class Supervisor:
    """Runs one plan to its end. All methods but `statistics` belong to the thread that calls `run`."""

    def __init__(self, plan: Plan, loop: Loop) -> None:
        self._plan = plan
        self._loop = loop
        self._slots = plan.slots
        self._stalls = StallDetector()
        self._phase = Phase.RUNNING
        self._ending: Ending | None = None
        self._trouble: str | None = None
        self._stops_wanted = self._stops_obeyed = 0
        self._finishing = False
        self._lost_in_transit = 0
        self._failures: collections.Counter[str] = collections.Counter()
        self._started_at, self._started = time.time(), time.monotonic()

    # -- for everybody ------------------------------------------------------------------------------------

    def request_stop(self) -> None:
        """Ask for a drain, or when asked before, for the end now. Safe in a signal handler."""
        self._stops_wanted += 1
        self._loop.wake()

    def statistics(self) -> RunStatistics:
        """Return the whole run at this moment. Safe from any thread."""
        unix_time, now_ns, tallies = self._read()
        seen = {
            slot: slot.statistics(tally, now_ns, unix_time) for slot, tally in zip(self._slots, tallies, strict=True)
        }
        counts = _counts(seen.values())
        return RunStatistics(
            name=self._plan.name,
            phase=self._phase,
            started_at=self._started_at,
            elapsed_seconds=time.monotonic() - self._started,
            start_method=self._plan.start_method,
            queue=self._plan.queue.statistics(counts, self._lost_in_transit),
            desired={role: sum(slot.role is role and not slot.finished for slot in self._slots) for role in Role},
            slots=tuple(seen.values()),
            failures=dict(self._failures),
            trouble=self._trouble,
            ending=self._ending,
        )

    # -- the run ------------------------------------------------------------------------------------------

    def run(self) -> RunStatistics:
        """Start every worker, see the work through, and return what it came to."""
        try:
            for slot in sorted(self._slots, key=lambda slot: slot.role is Role.PRODUCER):
                self._start(slot)  # consumers first: a task then never waits for them
            self._loop.every(TICK_SECONDS, self._tick)
            self._advance()
            while self._phase is not Phase.STOPPING or any(slot.process for slot in self._slots):
                self._loop.turn()
                self._obey()
        finally:
            self._kill_everybody()
        self._phase = Phase.ENDED
        queue = self.statistics().queue
        if self._ending in (Ending.COMPLETE, Ending.BROKEN):  # nobody is left who could do them
            self._lost_in_transit += queue.unfinished - queue.lost
        return self.statistics()

    def _start(self, slot: Slot) -> None:
        sentinel, messages_end, *output = slot.start(self._plan.context, self._plan.show_output is not None)
        self._loop.watch(sentinel, functools.partial(self._on_exit, slot, sentinel))
        self._loop.watch(messages_end, functools.partial(self._on_messages, slot, messages_end))
        for descriptor in output:
            self._loop.watch(descriptor, functools.partial(self._on_output, slot, descriptor))
        log.debug("worker started", extra=fields(slot=slot.name, pid=slot.pid))

    def _tick(self) -> None:
        self._settle_doubt()
        self._look_for_stalls()
        self._advance()

    def _advance(self) -> None:
        """Go on to the next phase if its time has come."""
        if self._phase is Phase.STOPPING:
            return
        producers = [slot for slot in self._slots if slot.role is Role.PRODUCER]
        consumers = [slot for slot in self._slots if slot.role is Role.CONSUMER]
        if not all(slot.over for slot in producers):
            return
        if not self._finishing:
            self._finishing = True
            wanted = sum(not slot.over for slot in consumers)
            threading.Thread(target=self._finish_queue, args=(wanted,), name="queue-end", daemon=True).start()
        queue = self.statistics().queue
        if all(slot.over for slot in consumers) or queue.unfinished <= queue.lost:
            self._stop(Ending.COMPLETE)

    def _finish_queue(self, consumers: int) -> None:
        self._plan.queue.finish(consumers)
        self._loop.wake()

    # -- events -------------------------------------------------------------------------------------------

    def _on_messages(self, slot: Slot, descriptor: int) -> None:
        lines = slot.messages.read() if slot.messages else None
        if lines is None:
            self._loop.unwatch(descriptor)
            return
        for line in lines:
            self._hear(slot, messages.decode(line))

    def _on_output(self, slot: Slot, descriptor: int) -> None:
        lines = slot.output.read() if slot.output else None
        if lines is None:
            self._loop.unwatch(descriptor)
            return
        for line in lines:
            self._show(line)

    def _show(self, line: bytes) -> None:
        if self._plan.show_output is not None:
            self._plan.show_output(line.decode(errors="replace"))

    def _hear(self, slot: Slot, message: messages.Message) -> None:
        about = fields(slot=slot.name, **dataclasses.asdict(message))
        match message:
            case messages.TaskFailed():
                self._failures[message.error] += 1
                log.warning("task failed", extra=about)
            case messages.ProducerFailed():
                log.error("producer failed", extra=about)

    def _on_exit(self, slot: Slot, sentinel: int) -> None:
        self._loop.unwatch(sentinel)
        for line in slot.messages.read_all() if slot.messages else ():
            self._hear(slot, messages.decode(line))
        for line in slot.output.read_all() if slot.output else ():
            self._show(line)
        for descriptor in slot.close_pipes():
            self._loop.unwatch(descriptor)
        pid = slot.pid
        death = slot.bury(by_us=self._phase is Phase.STOPPING)
        if death is not None and self._phase is not Phase.STOPPING:
            self._mourn(slot, pid, death)
        self._advance()

    def _mourn(self, slot: Slot, pid: int | None, death: Death) -> None:
        self._stalls.on_death()
        about = fields(slot=slot.name, pid=pid, how=str(death), lived_seconds=round(death.lived_seconds, 3))
        if death.in_task:
            about["fields"].update(tasks_lost=1, task_seconds=round(death.task_seconds, 3))
        if slot.role is Role.PRODUCER and death.was_ready and not slot.may_restart:
            slot.given_up = True
            self._trouble = self._trouble or f"producer {slot.name} died: {death}"
            log.error("producer died; what it had put is still done", extra=about)
            return
        delay = slot.policy.on_death(time.monotonic(), death.lived_seconds, death.was_ready)
        if delay is None:
            log.error("worker died again before it was ready", extra=about)
            deaths = f"{CRASH_LOOP_DEATHS} times in {CRASH_LOOP_SECONDS:g} s"
            self._break(f"{slot.name} died {deaths} before it was ready: {death}")
            return
        log.warning("worker died", extra=about)
        self._loop.after(delay, functools.partial(self._restart, slot))

    def _restart(self, slot: Slot) -> None:
        if self._phase is Phase.STOPPING:
            return
        if self._phase is Phase.DRAINING and slot.role is Role.PRODUCER:
            slot.finished = True  # nothing more is to be produced
            self._advance()
            return
        self._start(slot)
        log.info("worker restarted", extra=fields(slot=slot.name, pid=slot.pid))

    # -- trouble ------------------------------------------------------------------------------------------

    def _settle_doubt(self) -> None:
        """Count what a producer put just before it died, once the consumers have shown that it was put."""
        *_, tallies = self._read()
        missing = sum(t.started - t.put for t in tallies)
        for slot, tally in zip(self._slots, tallies, strict=True):
            if missing > 0 and slot.pid is None and tally.offered > tally.put:
                slot.confirm_offered()
                missing -= 1

    def _look_for_stalls(self) -> None:
        if self._phase is Phase.STOPPING:
            return
        now_ns = time.monotonic_ns()
        tallies = [slot.tally(now_ns) for slot in self._slots if slot.pid is not None]
        seen = self.statistics()
        queue, live = seen.queue, [slot for slot in seen.slots if slot.up]
        scene = Scene(
            movement=sum(slot.produced + slot.processed + sum(slot.wait_buckets) for slot in seen.slots),
            waiting=queue.waiting,
            is_empty=self._plan.queue.is_empty(),
            has_room=not queue.capacity or queue.waiting < queue.capacity,
            idle_consumers=sum(slot.role is Role.CONSUMER and slot.state == "idle" for slot in live),
            reporting_consumers=sum(tally.state is State.REPORTING for tally in tallies),
            blocked_producers=sum(slot.state == "blocked" for slot in live),
        )
        match self._stalls.look(time.monotonic(), scene):
            case Verdict.TASKS_LOST:
                log.error("tasks were lost with a dead worker", extra=fields(tasks_lost=queue.waiting))
                self._lost_in_transit += queue.waiting
            case Verdict.FROZEN:
                self._break("a dead worker holds a lock of the queue: no task can be put or taken any more")

    def _break(self, why: str) -> None:
        """End a run that cannot go on; who is in a task may finish it first."""
        log.error("the run cannot go on", extra=fields(reason=why))
        self._trouble = why
        busy = [slot for slot in self.statistics().slots if slot.up and slot.in_progress]
        self._stop(Ending.BROKEN, self._plan.drain_timeout_seconds if busy else 0.0)

    # -- stopping: ask producers, wait for the queue, ask consumers, kill ----------------------------------

    def _obey(self) -> None:
        """Do what the signals asked for."""
        if self._stops_obeyed == self._stops_wanted or self._phase is Phase.STOPPING:
            return
        self._stops_obeyed = self._stops_wanted
        if self._stops_wanted > 1:
            log.warning("stopping now")
            self._expire()
            return
        log.info("draining", extra=fields(timeout_seconds=self._plan.drain_timeout_seconds))
        self._phase = Phase.DRAINING
        self._plan.ledger.order = Order.STOP_PRODUCING
        for slot in self._slots:
            if slot.role is Role.PRODUCER:
                slot.signal(signal.SIGTERM)
        self._loop.after(self._plan.drain_timeout_seconds, self._expire)

    def _expire(self) -> None:
        if self._phase is not Phase.STOPPING:
            self._stop(Ending.EXPIRED, 0.0)

    def _stop(self, ending: Ending, grace_seconds: float = STOP_GRACE_SECONDS) -> None:
        """Have every process leave: those with nothing in hand at once, the rest within the grace."""
        queue = self.statistics().queue
        if ending is Ending.COMPLETE and self._phase is Phase.DRAINING:
            ending = Ending.DRAINED
        if ending is Ending.EXPIRED and queue.unfinished <= queue.lost:
            ending = Ending.DRAINED
        self._phase, self._ending = Phase.STOPPING, ending
        self._plan.ledger.order = Order.STOP
        for slot in self._slots:
            slot.signal(signal.SIGTERM)
        self._loop.after(grace_seconds, self._kill_everybody)

    def _kill_everybody(self) -> None:
        for slot in self._slots:
            slot.signal(signal.SIGKILL)

    # -- reading ------------------------------------------------------------------------------------------

    def _read(self) -> tuple[float, int, list[Tally]]:
        """Return (Unix time, monotonic ns, every slot's row), with no task started that is not yet put."""
        consumers_first = sorted(range(len(self._slots)), key=lambda i: self._slots[i].role)
        for _ in range(READ_ATTEMPTS):
            unix_time, now_ns = time.time(), time.monotonic_ns()
            rows = {i: self._slots[i].tally(now_ns) for i in consumers_first}
            if sum(row.put - row.started for row in rows.values()) >= 0:
                break
            time.sleep(READ_PAUSE_SECONDS)
        return unix_time, now_ns, [rows[i] for i in range(len(self._slots))]


def _counts(slots: Iterable[SlotStatistics]) -> Counts:
    """Add up the rows of all slots."""
    put = started = processed = abandoned = 0
    for slot in slots:
        put += slot.produced
        started += sum(slot.wait_buckets)
        processed += slot.processed
        abandoned += slot.abandoned
    return Counts(put, started, processed, abandoned)
