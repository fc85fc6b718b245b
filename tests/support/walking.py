"""A whole run with a spool in one process, one step at a time: so a SIGKILL of everything can come between any two.

The queue, the spool and the ledger are the real ones; workers are generators that store and send as theirs do.
"""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import random
import select
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from conveyor.descriptors import Descriptor
from conveyor.ledger import Flaw, Row, State
from conveyor.queues import backlog, codec, leased, mishaps, relief, retries
from conveyor.queues.leased import LeasedTaskQueue
from conveyor.queues.leased_ends import LeasedIntake, LeasedOutlet
from conveyor.queues.letters import Cause, DeadLetter
from conveyor.queues.retries import Retries
from conveyor.queues.seam import Counts, End, Failure, QueueEndedError
from conveyor.queues.setup import Setup
from conveyor.spool import settling
from conveyor.spool.folder import Spool
from conveyor.spool.store import Changes, Store, StoreError

PRODUCERS, CONSUMERS = 3, 3
TASKS = 150  # of each producer
MAX_ATTEMPTS, RETRIES = 3, 2
NAMES = {f"worker-{row}": row for row in range(PRODUCERS + CONSUMERS)}
ENDLESS = 200_000  # steps


class KilledError(BaseException):
    """A SIGKILL of everything, in the middle of a step."""


class Clock:
    """Stands in for the module `time`; moved by the walk."""

    def __init__(self) -> None:
        self.now_ns = 10**12

    def monotonic_ns(self) -> int:
        return self.now_ns

    def monotonic(self) -> float:
        return self.now_ns / 1e9

    def time(self) -> float:
        return 1.7e9 + self.now_ns / 1e9


class StepLoop:
    """A supervisor's loop that does one thing at a time, whichever chance says."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._actions: dict[int, Callable[[], None]] = {}
        self._timers: list[tuple[int, Callable[[], None]]] = []
        self._after_all: list[Callable[[], None]] = []

    def watch(self, descriptor: int, action: Callable[[], None]) -> None:
        self._actions[descriptor] = action

    def unwatch(self, descriptor: int) -> None:
        self._actions.pop(descriptor, None)

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        self._timers.append((self._clock.now_ns + int(seconds * 1e9), action))

    def after_all(self, action: Callable[[], None]) -> None:
        self._after_all.append(action)

    def turn(self, chance: random.Random) -> None:
        """Do what one descriptor has brought, then the timers that are due, then what is done at the end of a turn."""
        poll = select.poll()
        for descriptor in self._actions:
            poll.register(descriptor, select.POLLIN)
        ready = [descriptor for descriptor, _ in poll.poll(0)]
        if ready:
            self._actions[chance.choice(ready)]()
        due = [timer for timer in self._timers if timer[0] <= self._clock.now_ns]
        for timer in due:
            self._timers.remove(timer)
            timer[1]()
        while self._after_all:
            self._after_all.pop()()


@dataclass(eq=False)
class Process:
    """What runs in a slot: the rest of its life, its end of the queue, and the task in its hands."""

    slot: int
    end: LeasedIntake | LeasedOutlet
    life: Iterator[None] = field(init=False)
    hand: int | None = None
    has_finished: bool = False

    def close(self) -> None:
        """Close what a process has open, as the kernel does when it is dead."""
        line, memory = self.end._given[:2]
        if self.end._line is None:
            line.close()
        else:
            self.end._line.socket.close()
        if memory is not None:
            memory.close()
        if isinstance(self.end, LeasedIntake):
            for window in self.end._windows.values():
                window.close()


class World:
    """What outlives every kill: the folder, what tasks there are, and what was seen of each."""

    def __init__(self, folder: Path, seed: int, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.chance, self.clock = folder, random.Random(seed), Clock()
        self.is_full = self.is_safe = False
        self.kills = self.steps = 0
        self.executed: Counter[int] = Counter()
        self.interrupted: Counter[int] = Counter()
        """Tasks that were in the hands of somebody who was killed."""
        self.again: Counter[int] = Counter()
        """Attempts that raised and were not the last, since a task was put or revived."""
        self.over: set[int] = set()
        """Tasks that succeeded, or raised for good."""
        self.failed: set[int] = set()
        self.dead: set[int] = set()
        """Tasks that were given up as they killed their consumers."""
        self.revived: Counter[int] = Counter()
        patch.setattr(retries, "random", self.chance)
        for module in (backlog, leased, mishaps, relief, settling):
            patch.setattr(module, "time", self.clock)
        # Small, so that most of what waits is on disk alone.
        patch.setattr(backlog, "MAX_CHUNKS", 6)
        patch.setattr(backlog, "LOAD_CHUNKS", 2)
        self._patch_disk(patch)

    def _patch_disk(self, patch: pytest.MonkeyPatch) -> None:
        write, reserve = Store.write, Spool.reserve

        def write_or_not(store: Store, changes: Changes) -> None:
            if self.is_full:
                raise StoreError("database or disk is full")
            dies = 1.0 if self.is_safe else self.chance.random()
            if dies < 0.005:
                raise KilledError
            write(store, changes)
            if dies < 0.01:
                raise KilledError

        def reserve_or_not(spool: Spool) -> None:
            if self.is_full:
                raise OSError(errno.ENOSPC, "No space left on device")
            reserve(spool)

        patch.setattr(Store, "write", write_or_not)
        patch.setattr(Spool, "reserve", reserve_or_not)

    def raises(self, task: int) -> bool:
        """Return whether a task raises at this attempt: one in seven does once, one in 31 always."""
        return task % 31 == 30 or (task % 7 == 6 and not self.again[task])

    def execute(self, task: int) -> None:
        assert task not in self.over | self.dead, f"{task} is over, and is done again"
        self.executed[task] += 1

    def kept(self) -> tuple[set[int], set[int]]:
        """Return the tasks of the dead letters, of those that raised and of the others, in a spool at rest."""
        with contextlib.closing(Spool(self.folder, "normal")) as spool:
            letters = spool.store.letters(0, 10**6)
        errors = [int(letter.task) for letter in letters if letter.cause is Cause.ERROR]
        deaths = [int(letter.task) for letter in letters if letter.cause is Cause.DEATH]
        assert len(letters) == len({*errors, *deaths})  # of each task one
        return set(errors), set(deaths)

    def walk(self) -> None:
        """Start and kill until all is done."""
        while not Start(self).go_on():
            self.kills += 1


class Start:
    """One start of the run, until it is killed or has come to its end."""

    def __init__(self, world: World) -> None:
        self.world, self.chance, self.clock = world, world.chance, world.clock
        world.is_full = False
        self.spool = Spool(world.folder, "normal")
        self.restored = self.spool.begin("walk", NAMES, len(NAMES))
        self.rows = self.spool.ledger.rows
        world.dead = {int(letter.task) for letter in self.letters() if letter.cause is Cause.DEATH}
        self.loop = StepLoop(self.clock)
        self.queue = LeasedTaskQueue(
            Setup(
                capacity=40,
                context=multiprocessing.get_context("spawn"),
                rows=self.rows,
                loop=self.loop,
                producers=PRODUCERS,
                max_attempts=MAX_ATTEMPTS,
                retries=Retries(RETRIES, 0.001),
                name=list(NAMES).__getitem__,
                spool=self.spool,
                restored=self.restored,
            )
        )
        self.producers: dict[int, Process] = {}
        self.consumers: dict[int, Process] = {}

    def hire(self) -> None:
        """Have a process in each slot whose work is not over."""
        finished = {slot.row for slot in self.restored.slots if slot.is_finished}
        for slot in set(range(PRODUCERS)) - finished:
            self.producers[slot] = self.produce(slot)
        for slot in range(PRODUCERS, PRODUCERS + CONSUMERS):
            self.consumers[slot] = self.consume(slot)

    def letters(self) -> list[DeadLetter]:
        return self.spool.store.letters(0, 10**6)

    # -- workers ---------------------------------------------------------------------------------------------

    def produce(self, slot: int) -> Process:
        outlet = self.queue.outlet(slot)
        assert isinstance(outlet, LeasedOutlet)
        own = outlet.detached()
        self.queue.started(slot)
        process = Process(slot, own)
        process.life = self.producing(process, own)
        return process

    def producing(self, process: Process, outlet: LeasedOutlet) -> Iterator[None]:
        put = self.rows[process.slot].read(0).put
        while put < TASKS:
            tasks = list(range(put, min(put + outlet.wanted(), TASKS)))
            put += len(tasks)
            tasks = [TASKS * process.slot + number for number in tasks]
            if self.chance.random() < 0.5:
                chunk = codec.plain(tasks, self.clock.now_ns)
            else:
                chunk = codec.apart(list(map(codec.pickled, tasks)), self.clock.now_ns)
            while not outlet.offer(chunk, 0.0):
                yield
            yield
        process.has_finished = True

    def consume(self, slot: int) -> Process:
        self.rows[slot].employ()
        self.rows[slot].enter(State.STARTING, self.clock.now_ns)
        intake = self.queue.intake(slot)
        assert isinstance(intake, LeasedIntake)
        own = LeasedIntake(Descriptor(os.dup(intake._given[0].number)), None)
        self.queue.started(slot)
        process = Process(slot, own)
        process.life = self.consuming(process, own)
        return process

    def consuming(self, process: Process, intake: LeasedIntake) -> Iterator[None]:
        row, world = self.rows[process.slot], self.world
        while True:
            try:
                lease = intake.take(0.0)
            except QueueEndedError:
                return
            yield
            if lease is None:
                continue
            began_ns, done, failure, count = self.clock.now_ns, 0, None, lease.last - lease.first
            if row.open_lease(lease.number, count, began_ns):
                yield
                for task in codec.tasks_of(lease.codec, lease.payload, lease.count, lease.first, lease.last):
                    if not row.allowed(lease.number, done, 1):
                        break
                    row.begin_tasks(1, self.clock.now_ns, 0)
                    world.execute(task)
                    process.hand = task
                    yield
                    if world.raises(task):
                        is_final = not lease.tries_left
                        yield from self.failing(row, lease.number, done, task, is_final)
                        process.hand, failure = None, Failure("ValueError", "no", "")
                        yield
                        break
                    row.done[0] += 1
                    done += 1
                    world.over.add(task)
                    process.hand = None
                    yield
                    if self.clock.now_ns - began_ns > lease.budget_ns:
                        break
                row.time_tasks(done, self.clock.now_ns - began_ns, failed=failure is not None)
                yield
                row.close_lease(self.clock.now_ns)
                yield
            intake.report(lease, done, failure, self.clock.now_ns - began_ns)
            yield

    def failing(self, row: Row, number: int, done: int, task: int, is_final: bool) -> Iterator[None]:
        """Count a task that raised: a note, and then the count, from which on it is so."""
        world = self.world
        assert world.again[task] == RETRIES if is_final else world.again[task] < RETRIES
        row._note(number, done, Flaw.FINAL if is_final else Flaw.AGAIN)
        yield
        if is_final:
            row.fail_task(number, done, 0)
            world.over.add(task)
            world.failed.add(task)
        else:
            row.give_back_task(number, done)
            world.again[task] += 1

    # -- what happens ----------------------------------------------------------------------------------------

    def go_on(self) -> bool:
        """Go on until everything is killed, or all is done; return whether it is."""
        try:
            if not self.restored.slots and len(self.world.over | self.world.dead) == PRODUCERS * TASKS:
                self.kill()  # it was killed when it had come to its end: this start would begin anew
                return True
            self.check()
            self.hire()
            while not self.is_over():
                self.world.steps += 1
                assert self.world.steps < ENDLESS, "it never ends"
                self.step()
            self.world.is_full, self.world.is_safe = False, True
            self.queue.dispose()
            self.close()
            return True
        except KilledError:
            self.kill()
            return False
        except BaseException:
            self.kill()
            raise

    def is_over(self) -> bool:
        """Return whether all is done, and the queue has heard so."""
        return not self.producers and not self.queue.is_writing() and not self.queue._unsettled

    def step(self) -> None:
        chance = self.chance
        self.clock.now_ns += chance.choice([0, 10_000, 100_000, 1_000_000])
        match chance.choices(range(7), [300, 500, 100, 3, 2, 1, 3])[0]:
            case 0:
                self.loop.turn(chance)
            case 1:
                self.eat(self.consumers[chance.choice(list(self.consumers))])
            case 2 if self.producers:
                self.work(self.producers[chance.choice(list(self.producers))])
            case 3:
                self.lose(chance.choice(list(self.consumers)))
            case 4:
                self.world.is_full = not self.world.is_full and chance.random() < 0.5
            case 5:
                raise KilledError
            case 6:
                self.revive()
        if chance.random() < 0.02:
            self.check()

    def eat(self, process: Process) -> None:
        next(process.life)
        if process.hand is not None and process.hand % 41 == 40 and self.chance.random() < 0.9:
            self.lose(process.slot)  # by its task

    def work(self, process: Process) -> None:
        next(process.life, None)
        if not process.has_finished:
            return
        row = self.rows[process.slot]
        row.enter(State.FINISHED, self.clock.now_ns)
        process.close()
        del self.producers[process.slot]
        self.queue.bury(process.slot, row, row.read(0), End("producer", "exit code 0"))

    def lose(self, slot: int) -> None:
        """Have one consumer killed, and another in its place, as a slot does."""
        row, hand = self.rows[slot], self.consumers[slot].hand
        self.consumers[slot].close()
        tally = row.read(0)
        casualty = self.queue.bury(slot, row, tally, End("consumer", "SIGKILL"))
        row.settle(self.clock.now_ns)
        if casualty is not None:
            row.abandon()
        elif tally.in_progress:
            row.close_lease(self.clock.now_ns)
        if hand is not None:
            self.world.interrupted[hand] += 1
        if casualty is not None and casualty.is_dead_letter:
            self.world.dead.add(int(casualty.task))
        elif casualty is not None:
            noted = self.queue._backlog.changes.progress.values() if self.queue._backlog is not None else []
            assert any(casualty.attempt in progress.attempts.values() for progress in noted), "an attempt is forgotten"
        self.consumers[slot] = self.consume(slot)

    def revive(self) -> None:
        """Try a dead letter again; while the disk is full that cannot be."""
        numbers, world = self.queue.letters.numbers(), self.world
        if not numbers or world.is_full:
            return
        letter = self.queue.letters.find(self.chance.choice(numbers))
        if letter is None:
            return  # it is not written, since there was trouble until now
        world.is_safe = True  # else we would not know whether it was written
        try:
            self.queue.revive(letter)
        except OSError:
            return
        finally:
            world.is_safe = False
        task = int(letter.task)
        for tasks in (world.over, world.dead, world.failed):
            tasks.discard(task)
        world.again[task] = 0
        world.revived[task] += 1

    def unfinished(self) -> int:
        tallies = [row.read(0) for row in self.rows]
        counts = Counts(
            put=sum(tally.put for tally in tallies),
            started=0,
            processed=sum(tally.processed for tally in tallies),
            in_progress=sum(tally.in_progress for tally in tallies),
            abandoned=sum(tally.abandoned for tally in tallies),
        )
        return self.queue.statistics(counts, 0).unfinished

    def check(self) -> None:
        """Compare what the run says of itself with what was seen."""
        accepted = sum(self.rows[slot].read(0).put for slot in range(PRODUCERS))
        over = self.world.over | self.world.dead
        assert self.unfinished() == accepted - len(over), f"{accepted} accepted, {len(over)} over"

    def kill(self) -> None:
        """Have everything go at once: nobody says or writes anything any more."""
        for process in self.consumers.values():
            if process.hand is not None:
                self.world.interrupted[process.hand] += 1
        self.queue._backlog = None  # what it holds is lost
        self.queue.dispose()
        self.close()

    def close(self) -> None:
        for process in (*self.producers.values(), *self.consumers.values()):
            process.close()
        self.spool.close()
