"""WHO WATCHES: starts the workers, restarts them, notices what cannot be mended, drains, and knows the end.

One thread, one loop (`loop.py`); everything that happens is an event in it: a death, a message, a signal, a
timer, a request. What it decides by is pure and lies beside it: `restarts.py` (when to replace a worker), `stall.py`
(whether a dead worker broke the queue), `overtime.py` (who is in its task for too long; `timekeeper.py` ends it),
`scaling.py` (how many consumers there should be; `crew.py` sees to that).

The end, the same for every queue: all producers have ended and no unfinished task is left that could be done.
What happens when this process dies: the kernel kills the workers (see `worker.py`).
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import logging
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from conveyor import messages
from conveyor.crew import Crew
from conveyor.errors import ConfigurationError, ControlError, LetterUnkeptError
from conveyor.failures import FailureLog
from conveyor.ledger import Ledger, Order, State
from conveyor.logs import fields
from conveyor.loop import Loop
from conveyor.processes import Starter
from conveyor.queues.letters import DeadLetters
from conveyor.queues.seam import TaskQueue
from conveyor.restarts import CRASH_LOOP_DEATHS, CRASH_LOOP_SECONDS, MAX_DELAY_SECONDS
from conveyor.roster import Reading, Roster
from conveyor.scaling import LOOK_SECONDS, Bounds
from conveyor.slot import Slot
from conveyor.snapshot import MAX_DEATHS, Death, Ending, Phase, RestartReason, Role, RunStatistics, WorkerState
from conveyor.stall import Scene, StallDetector, Verdict
from conveyor.starting import Starts
from conveyor.timekeeper import Timekeeper

log = logging.getLogger(__name__)

TICK_SECONDS = 0.25  # how soon a loss that no event tells of is looked for
TICKS_BETWEEN_LOOKS = 4  # at the memory of one worker: some are looked at in each tick
MAX_DUMP_LINES = 200  # of the stacks that a crash leaves
OTHER_ERRORS = "(others)"
HOLD_SECONDS = 0.02  # until it is looked whether what workers print can be shown again
STOP_GRACE_SECONDS = 5.0  # for a worker that was asked to leave with nothing in hand


@dataclass(frozen=True, slots=True)
class Plan:
    """What a supervisor is given to run."""

    name: str
    roster: Roster
    queue: TaskQueue
    ledger: Ledger
    starter: Starter
    drain_timeout_seconds: float
    show_output: Callable[[str], None] | None
    """Called with each line that a worker prints; None lets them print where the supervisor does."""
    consumers: Bounds
    new_consumer: Callable[[int], Slot]
    """Makes the slot of the nth consumer, counted from 1, when there are to be more than the roster has."""
    task_timeout_seconds: float | None = None


class Supervisor:
    """Runs one plan to its end. All methods but `statistics` belong to the thread that calls `run`."""

    def __init__(self, plan: Plan, loop: Loop) -> None:
        self._plan = plan
        self._loop = loop
        self._roster = plan.roster
        self._crew = Crew(plan.roster, plan.consumers, plan.new_consumer)
        self._stalls = StallDetector()
        self._phase = Phase.RUNNING
        self._ending: Ending | None = None
        self._trouble: str | None = None
        self._stops_wanted = self._stops_obeyed = 0
        self._is_dismissed = False
        self._ticks = 0
        self._finishing = False
        self._may_leave = False
        """Whether workers have time to leave as they should, now that all is done."""
        self._is_paused = False
        self._news = False
        self._lost_in_transit = 0
        self._deaths: collections.deque[Death] = collections.deque(maxlen=MAX_DEATHS)
        self._last_words: dict[str, str] = {}
        """What the latest process of a slot told of why it could not go on."""
        self._failure_log = FailureLog()
        self._starts = Starts(loop, self._start, self._may_start, self._break, lambda: self._roster.slots)
        self._founders = set(plan.roster.slots)
        """The slots that the run began with."""
        self._done_at_death = 0
        """Tasks that were done in the whole run at the last death."""
        self.has_room_for_output: Callable[[], bool] = lambda: True
        """Whether what workers print can be shown; while it cannot, they have to wait, as with any full pipe."""
        self._held: dict[int, Slot] = {}
        """Descriptors of output that is not read meanwhile, and whose they are."""
        self._started_at, self._started = time.time(), time.monotonic()

    # -- for everybody ------------------------------------------------------------------------------------

    def request_stop(self) -> None:
        """Ask for a drain, or when asked before, for the end now. Safe in a signal handler."""
        self._stops_wanted += 1
        self._loop.wake()

    def dismiss(self) -> None:
        """End now, as the caller has what it wants: no reason for a warning. Safe from any thread."""
        self._is_dismissed = True
        self._stops_wanted += 2
        self._loop.wake()

    @property
    def is_asked_to_stop(self) -> bool:
        """Whether a stop was asked for. Safe from any thread."""
        return self._stops_wanted > 0

    def statistics(self) -> RunStatistics:
        """Return the whole run at this moment. Safe from any thread."""
        reading = self._roster.read()
        return RunStatistics(
            name=self._plan.name,
            phase=self._phase,
            started_at=self._started_at,
            elapsed_seconds=time.monotonic() - self._started,
            start_method=self._plan.starter.method,
            queue=self._plan.queue.statistics(reading.counts, self._lost_in_transit),
            desired={
                Role.PRODUCER: sum(slot.is_wanted for slot in self._roster.producers),
                Role.CONSUMER: len(self._crew.wanted),
            },
            consumers_least=self._crew.bounds.least,
            consumers_most=self._crew.bounds.most,
            scalings=dict(self._crew.scalings),
            slots=reading.slots,
            failures=self._failures(reading),
            deaths=tuple(self._deaths),
            trouble=self._trouble,
            ending=self._ending,
        )

    def _failures(self, reading: Reading) -> dict[str, int]:
        """Return the failed tasks by the class of their exception; of classes for which there is no room, the sum."""
        total: collections.Counter[str] = collections.Counter()
        for slot, seen in zip(self._roster.slots, reading.slots, strict=False):
            if seen.failed:
                total.update(slot.errors())
        others = sum(seen.failed for seen in reading.slots) - total.total()
        return dict(total) | ({OTHER_ERRORS: others} if others > 0 else {})

    # -- steering, by the control socket, in the loop's thread ---------------------------------------------

    def scale(self, bounds: Bounds) -> str:
        """Have another number of consumers, or other bounds for it; return what was done.

        Those that are too many leave after their task. Raises `ControlError` where it cannot be done.
        """
        self._check_steerable("scaled")
        before, had = len(self._crew.wanted), self._crew.bounds
        slots = self._crew.rebound(bounds)
        self._starts.start_all(slots)
        unstarted = sum(slot in self._starts.waiting for slot in slots)
        after = len(self._crew.wanted)
        told = f"consumers: {before} -> {after}" if before != after else f"consumers: {after}, as before"
        is_range = bounds.least != bounds.most or had.least != had.most
        told = f"{told}, within {bounds}" if is_range and bounds.least != bounds.most else told
        if unstarted:
            short = f"cannot be started now, and are tried again: {self._starts.reason}"
            told += f"; {unstarted} {short if self._starts.is_short else 'are still to be started'}"
        return told

    def pause(self) -> str:
        """Give out no more tasks; return what was done.

        What is in hand is finished, and producers go on while there is room. Raises `ControlError` where it cannot be
        done.
        """
        self._check_steerable("paused")
        if self._phase is not Phase.RUNNING:
            raise ControlError(f"the run is {self._phase}: it cannot be paused any more")
        if self._is_paused:
            return "paused, as before"
        self._is_paused = True
        self._plan.queue.pause()
        log.info("paused")
        return "paused"

    def resume(self) -> str:
        """Give out tasks again; return what was done."""
        if not self._is_paused:
            return "not paused: nothing to resume"
        self._is_paused = False
        self._crew.rest()
        self._plan.queue.resume()
        log.info("resumed")
        return "resumed"

    def drain(self) -> str:
        """Stop producing, finish what is unfinished, however long it takes, and end; return what was done.

        A SIGTERM meanwhile gives it the drain timeout from then on, as if it were the first.
        """
        if self._phase is Phase.RUNNING:
            log.info("draining", extra=fields(unfinished=self.statistics().queue.unfinished))
            self._drain()
            return f"draining: {self.statistics().queue.unfinished} tasks unfinished"
        return f"{self._phase}, as before: {self.statistics().queue.unfinished} tasks unfinished"

    @property
    def dead_letters(self) -> DeadLetters:
        """Where tasks are kept that were given up. Raises `ConfigurationError` where none are."""
        letters = self._plan.queue.letters
        if letters is None:
            raise ConfigurationError(
                f"dead: the queue {self._plan.queue.kind!r} keeps no dead letters; only 'leased' does"
            )
        return letters

    def revive(self, numbers: Sequence[int]) -> int:
        """Have dead letters done once more, as new tasks; return how many of these there were.

        Raises `ControlError` if one cannot be, or the run is about to end.
        """
        if self._phase is Phase.STOPPING:
            raise ControlError("the run is about to end: nothing can be tried again in it")
        revived = 0
        for number in numbers:
            letter = self.dead_letters.find(number)
            if letter is None:
                continue
            if not letter.payload:
                raise LetterUnkeptError(f"dead letter {number} cannot be tried again: its task could not be kept")
            try:
                self._plan.queue.revive(letter)
            except OSError as error:
                raise ControlError(f"dead letter {number} cannot be tried again: {error.strerror}") from error
            revived += 1
        return revived

    def _check_steerable(self, done: str) -> None:
        queue = self._plan.queue
        if not queue.can_be_steered:
            raise ConfigurationError(
                f"a run with the queue {queue.kind!r} cannot be {done}; only one with 'leased' can"
            )
        if self._phase in (Phase.STOPPING, Phase.ENDED):
            raise ControlError(f"the run is {self._phase}: it cannot be {done} any more")

    # -- the run ------------------------------------------------------------------------------------------

    def run(self) -> RunStatistics:
        """Start every worker, see the work through, and return what it came to."""
        try:
            if (descriptor := self._plan.starter.preparing) is None:
                self._begin()
            else:  # the workload is being imported, which may take long: a stop must be possible meanwhile
                self._loop.watch(descriptor, functools.partial(self._begin, descriptor))
            self._loop.every(TICK_SECONDS, self._tick)
            self._loop.every(LOOK_SECONDS, self._follow)
            if self._plan.task_timeout_seconds is not None:
                timekeeper = Timekeeper(self._roster, self._plan.task_timeout_seconds)
                self._loop.every(timekeeper.look_seconds, timekeeper.look)
            while self._phase is not Phase.STOPPING or any(slot.process for slot in self._roster.slots):
                self._loop.turn()
                self._obey()
                if self._news:
                    self._news = False
                    self._advance()
        finally:
            self._kill_everybody()
            del self._starts  # it knows us, and we would keep the ledger until the next collection of garbage
        self._phase = Phase.ENDED
        self._tell_unsaid()
        self._roster.settle_doubts()
        queue = self.statistics().queue
        if queue.spool is not None and not queue.spool.is_gone:
            if self._ending is Ending.EXPIRED:
                self._ending = Ending.SUSPENDED
        elif self._ending is not Ending.EXPIRED:  # nobody is left who could do what is left
            self._lost_in_transit += queue.unfinished - queue.lost
        return self.statistics()

    def _begin(self, descriptor: int | None = None) -> None:
        """Start every worker, now that the workload is imported."""
        if descriptor is not None:
            self._loop.unwatch(descriptor)
        first, *others = self._roster.consumers
        # A consumer, so that no task waits for one; and where there is no room for all, somebody of each role.
        slots = (first, *self._roster.producers, *others)
        self._starts.start_all([slot for slot in slots if self._may_start(slot)])
        self._advance()

    def _start(self, slot: Slot) -> None:
        descriptors = slot.start(self._plan.starter, self._plan.show_output is not None)
        for descriptor, action in zip(descriptors, (self._on_exit, self._on_messages, self._on_output), strict=False):
            self._loop.watch(descriptor, functools.partial(action, slot, descriptor))
        log.debug("worker started", extra=fields(slot=slot.name, pid=slot.pid))

    def _try_to_start(self, slot: Slot) -> bool:
        return self._starts.try_to_start(slot)

    def _may_start(self, slot: Slot) -> bool:
        """Return whether a slot that was to get a process is still to get it."""
        if self._phase is Phase.STOPPING or slot.over or slot.process is not None:
            return False  # scaled away meanwhile, and perhaps back again
        if self._phase is Phase.DRAINING and slot.role is Role.PRODUCER:
            slot.finished = True  # nothing more is to be produced
            self._advance()
            return False
        return True

    def _tick(self) -> None:
        self._ticks += 1
        for slot in self._roster.slots[self._ticks % TICKS_BETWEEN_LOOKS :: TICKS_BETWEEN_LOOKS]:
            slot.weigh()
        self._tell_unsaid()
        self._plan.starter.reap_orphans([slot.pid for slot in self._roster.slots if slot.pid is not None])
        self._look_for_ends()
        self._look_for_stalls()
        self._advance()

    def _tell_unsaid(self) -> None:
        if number := self._failure_log.tell():
            log.warning("more tasks failed", extra=fields(number=number))

    def _look_for_ends(self) -> None:
        """Find the ends that no descriptor tells of."""
        now_ns = time.monotonic_ns()
        for slot in self._roster.slots:
            if slot.is_lingering(now_ns, STOP_GRACE_SECONDS):
                log.warning("worker does not leave: killed", extra=fields(slot=slot.name, pid=slot.pid))
                slot.signal(signal.SIGKILL)
            # With spawn, a process that the worker has started may hold the other end of the descriptor.
            if slot.process is not None and slot.process.exitcode is not None:
                self._on_exit(slot, slot.process.sentinel)

    def _follow(self) -> None:
        if self._phase is not Phase.STOPPING and not self._is_paused:
            self._starts.start_all(self._crew.follow(self.statistics))

    def _advance(self) -> None:
        """Go on to the next phase if its time has come."""
        if self._phase is Phase.STOPPING:
            return
        consumers = self._roster.consumers
        if not all(slot.over for slot in self._roster.producers):
            return
        if not self._finishing:
            self._finishing = True
            self._plan.queue.finish(sum(not slot.over for slot in consumers), self._hear_news)
        if all(slot.over for slot in consumers) or self._is_all_done():
            self._stop(Ending.COMPLETE)

    def _hear_news(self) -> None:
        """Have the loop look whether all is done. Called by the queue, from any thread."""
        self._news = True
        self._loop.wake()

    def _is_all_done(self) -> bool:
        self._roster.settle_doubts()
        queue = self.statistics().queue
        if queue.unfinished > queue.lost or self._plan.queue.is_writing():
            return False
        # Where a count is only inferred, what lies in the queue is believed more.
        inferred = self._roster.doubts or self._lost_in_transit
        return not inferred or (self._plan.queue.is_empty() and not queue.in_progress)

    # -- events -------------------------------------------------------------------------------------------

    def _on_messages(self, slot: Slot, descriptor: int) -> None:
        lines = slot.messages.read() if slot.messages else None
        if lines is None:
            self._loop.unwatch(descriptor)
            return
        for line in lines:
            self._read(slot, line)

    def _on_output(self, slot: Slot, descriptor: int) -> None:
        lines = slot.output.read() if slot.output else None
        if lines is None:
            self._loop.unwatch(descriptor)
            return
        for line in lines:
            self._show(line)
        if not self.has_room_for_output():
            self._hold(slot, descriptor)

    def _hold(self, slot: Slot, descriptor: int) -> None:
        self._loop.unwatch(descriptor)
        if not self._held:
            self._loop.after(HOLD_SECONDS, self._release)
        self._held[descriptor] = slot

    def _release(self) -> None:
        if not self.has_room_for_output():
            self._loop.after(HOLD_SECONDS, self._release)
            return
        held, self._held = self._held, {}
        for descriptor, slot in held.items():
            self._loop.watch(descriptor, functools.partial(self._on_output, slot, descriptor))

    def _show(self, line: bytes) -> None:
        if self._plan.show_output is not None:
            self._plan.show_output(line.decode(errors="replace"))

    def _read(self, slot: Slot, line: bytes) -> None:
        message = messages.decode(line)
        if message is not None:
            self._hear(slot, message)
        elif len(slot.dump) < MAX_DUMP_LINES:
            slot.dump.append(line.decode(errors="replace"))

    def _hear(self, slot: Slot, message: messages.Message) -> None:
        about = fields(slot=slot.name, **dataclasses.asdict(message))
        match message:
            case messages.TaskFailed():
                if self._failure_log.admit(time.monotonic()):
                    log.warning("task failed" if message.is_final else "task failed, and is tried again", extra=about)
            case messages.WorkerFailed():
                said = f"{message.error}: {message.reason}" if message.reason else message.error
                if self._last_words.get(slot.name) == said:
                    about["fields"]["trace"] = ""  # as before
                self._last_words[slot.name] = said
                log.error("worker failed", extra=about)
            case messages.OutputLost():
                log.warning("what a worker had printed could not be written", extra=about)

    def _on_exit(self, slot: Slot, sentinel: int) -> None:
        self._loop.unwatch(sentinel)
        for line in slot.messages.read_all() if slot.messages else ():
            self._read(slot, line)
        if slot.output is not None:
            for line in slot.output.read_all():
                self._show(line)
            if slot.output.rest:
                self._show(slot.output.rest)
        for descriptor in slot.close_pipes():
            self._loop.unwatch(descriptor)
            self._held.pop(descriptor, None)
        pid = slot.pid
        death = slot.bury(by_us=self._phase is Phase.STOPPING)
        if self._phase is not Phase.STOPPING:
            if death is None or death.reason is RestartReason.RECYCLE:
                self._replace(slot, pid)
            else:
                self._mourn(slot, pid, death)
        elif death is not None:
            self._see_off(slot, death, pid)
        self._advance()

    def _see_off(self, slot: Slot, death: Death, pid: int | None) -> None:
        """Tell of one that died at the end of a run, with no task in its hands, but perhaps in an exit function.

        One whose state is *failed* has come through them: a handler of the task's own took the request to leave.
        """
        has_left = slot.tally(time.monotonic_ns()).state is State.FAILED
        if self._may_leave and not has_left and death.reason is not RestartReason.RECYCLE:
            self._deaths.append(death)
            log.warning("worker died as it left", extra=fields(**_told(death), pid=pid))

    def _replace(self, slot: Slot, pid: int | None) -> None:
        """Have another process go on at once where one has left as it should, if its work is not over."""
        if slot.retired:
            slot.finished = True
        elif not slot.over:
            log.info("worker recycled", extra=fields(slot=slot.name, pid=pid))
            self._try_to_start(slot)

    def _mourn(self, slot: Slot, pid: int | None, death: Death) -> None:
        self._stalls.on_death()
        self._deaths.append(death)
        about = fields(**_told(death), pid=pid)
        if slot.role is Role.PRODUCER and death.was_ready and not slot.may_restart:
            slot.given_up = True
            self._trouble = self._trouble or f"producer {slot.name} died: {death.how}"
            log.error("producer died; what it had put is still done", extra=about)
            return
        log.warning("worker died", extra=about)
        if slot.retired:
            slot.finished = True
            return
        # The task was to blame: that the process had not done another says nothing against the next one.
        was_useful = death.was_useful or death.reason is RestartReason.HEARTBEAT
        done = self._roster.read().counts.processed
        is_moving, self._done_at_death = done > self._done_at_death, done
        delay = slot.policy.on_death(
            time.monotonic(), death.lived_seconds, death.was_ready, was_useful, death.in_task, is_moving
        )
        if delay is None:
            times = f"{CRASH_LOOP_DEATHS} times in {CRASH_LOOP_SECONDS:g} s"
            if slot in self._founders or not self._others_work(slot):
                told = self._last_words.get(slot.name, "").strip().rpartition("\n")[2]
                self._break(f"{slot.name} died {times} before it was ready: {death.how}{told and f', {told}'}")
                return
            log.error("an added worker does not get ready", extra=fields(slot=slot.name, times=times, how=death.how))
            delay = MAX_DELAY_SECONDS
        self._loop.after(delay, functools.partial(self._restart, slot))

    def _others_work(self, slot: Slot) -> bool:
        """Return whether another worker of the role is there, and was ready."""
        others = (other for other in self._roster.slots if other.role is slot.role and other is not slot)
        now_ns = time.monotonic_ns()
        return any(o.process is not None and o.tally(now_ns).state is not State.STARTING for o in others)

    def _restart(self, slot: Slot) -> None:
        if self._may_start(slot) and self._try_to_start(slot):
            log.info("worker restarted", extra=fields(slot=slot.name, pid=slot.pid))

    # -- trouble ------------------------------------------------------------------------------------------

    def _look_for_stalls(self) -> None:
        if self._phase is Phase.STOPPING or not self._plan.queue.can_break:
            return
        self._roster.settle_doubts()
        reading = self._roster.read()
        counts = reading.counts
        # Tasks that were given up and came after all: their producer was only slow.
        self._lost_in_transit = min(self._lost_in_transit, max(0, counts.put - counts.started))
        is_empty = self._plan.queue.is_empty()
        queue = self._plan.queue.statistics(counts, self._lost_in_transit)
        live = [(slot, tally) for slot, tally in zip(reading.slots, reading.tallies, strict=True) if slot.up]
        scene = Scene(
            started=counts.started,
            movement=counts.put + counts.started + counts.processed,
            # What lies in the queue beyond the count: puts in doubt, or an end mark.
            waiting=queue.waiting or (0 if is_empty else max(1, self._roster.doubts)),
            is_empty=is_empty,
            has_room=not queue.capacity or queue.waiting < queue.capacity,
            surely_has_room=not queue.capacity or counts.put - counts.started + self._roster.doubts < queue.capacity,
            idle_consumers=sum(s.role is Role.CONSUMER and s.activity is WorkerState.IDLE for s, _ in live),
            reporting_consumers=sum(tally.state is State.REPORTING for _, tally in live),
            blocked_producers=sum(tally.offered > tally.put for _, tally in live),
            leaving_producers=sum(s.role is Role.PRODUCER and t.state is State.STOPPING for s, t in live),
        )
        verdict = self._stalls.look(time.monotonic(), scene)
        if verdict is not Verdict.NOTHING and any(slot.is_stopped() for slot in self._roster.slots):
            self._stalls.forgive(time.monotonic())  # all wait for that one, and go on when it does
            return
        match verdict:
            case Verdict.TASKS_LOST:
                log.error("tasks were lost with a dead worker", extra=fields(tasks_lost=queue.waiting))
                self._lost_in_transit += queue.waiting
            case Verdict.FROZEN if self._finishing and queue.unfinished <= queue.lost and not queue.in_progress:
                self._stop(Ending.COMPLETE)  # it is broken, but nobody needs it any more
            case Verdict.FROZEN:
                self._break("a dead worker holds a lock of the queue: no task can be put or taken any more")

    def _break(self, why: str) -> None:
        """End a run that cannot go on; who is in a task may finish it first."""
        log.error("the run cannot go on", extra=fields(reason=why))
        self._trouble = f"{self._trouble}; {why}" if self._trouble else why
        busy = [slot for slot in self.statistics().slots if slot.up and slot.in_progress]
        self._stop(Ending.BROKEN, self._plan.drain_timeout_seconds if busy else 0.0)

    # -- stopping: ask producers, wait for the queue, ask consumers, kill ----------------------------------

    def _obey(self) -> None:
        """Do what the signals asked for."""
        if self._stops_obeyed == self._stops_wanted or self._phase is Phase.STOPPING:
            return
        self._stops_obeyed = self._stops_wanted
        if self._stops_wanted > 1:
            log.log(logging.INFO if self._is_dismissed else logging.WARNING, "stopping now")
            self._expire()
            return
        log.info("draining", extra=fields(timeout_seconds=self._plan.drain_timeout_seconds))
        self._drain()
        self._loop.after(self._plan.drain_timeout_seconds, self._expire)

    def _drain(self) -> None:
        self.resume()
        if self._phase is Phase.DRAINING:
            return
        self._phase = Phase.DRAINING
        self._plan.ledger.order = Order.STOP_PRODUCING
        for slot in self._roster.producers:
            slot.signal(signal.SIGTERM)

    def _expire(self) -> None:
        if self._phase is not Phase.STOPPING:
            self._stop(Ending.EXPIRED, 0.0)

    def _stop(self, ending: Ending, grace_seconds: float = STOP_GRACE_SECONDS) -> None:
        """Have every process leave: those with nothing in hand at once, the rest within the grace."""
        queue = self.statistics().queue
        if ending is Ending.COMPLETE and self._phase is Phase.DRAINING:
            ending = Ending.DRAINED
        if ending is Ending.EXPIRED and queue.unfinished <= queue.lost and not self._plan.queue.is_writing():
            ending = Ending.DRAINED
        self._phase, self._ending = Phase.STOPPING, ending
        self._may_leave = ending in (Ending.COMPLETE, Ending.DRAINED) and grace_seconds > 0
        self._plan.ledger.order = Order.STOP
        for slot in self._roster.slots:
            slot.signal(signal.SIGTERM)
        self._loop.after(grace_seconds, self._kill_everybody)

    def _kill_everybody(self) -> None:
        for slot in self._roster.slots:
            if self._may_leave and slot.process is not None and slot.process.is_alive():
                about = fields(slot=slot.name, pid=slot.pid, grace_seconds=STOP_GRACE_SECONDS)
                log.warning(
                    "worker does not leave: killed, with what its threads or exit functions still do", extra=about
                )
            slot.signal(signal.SIGKILL)


def _told(death: Death) -> dict[str, object]:
    """Return what a log line says of a death: only what there is to say."""
    told: dict[str, object] = {"slot": death.slot, "how": death.how, "lived_seconds": death.lived_seconds}
    if death.in_task:
        told |= {"task": death.task, "attempt": death.attempt, "task_seconds": death.task_seconds}
    others = {
        "tasks_lost": int(death.is_lost),
        "dead_letter": death.is_dead_letter,
        "memory_bytes": death.memory_bytes,
        "trace": death.stack,
    }
    return told | {name: value for name, value in others.items() if value}
