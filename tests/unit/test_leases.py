"""Who does what: no task is lost and none done twice but the one in dead hands, whatever happens in what order."""

from __future__ import annotations

import collections
import itertools
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from conveyor.ledger import Closed, Flaw, Ledger
from conveyor.queues.codec import Codec
from conveyor.queues.leases import AHEAD_TASKS, Lease, Leases, Returned, Span, StoredChunk, Suspect
from conveyor.queues.pace import LEASE_NS, Pace
from conveyor.queues.relief import Relief
from conveyor.queues.retries import JITTER, Retries

MAX_ATTEMPTS = 3
RETRIES = Retries(most=2, delay_seconds=0.001)
GAMES = 20  # arbitrary: more find no more, but take longer
SLOTS = range(4)
FAST, SLOW = 1_000, 50_000_000  # nanoseconds that a task takes
Task = tuple[int, int]  # (number of its chunk, place in it)
OVER = ("done", "failed", "dead letter")


def chunk_of(tasks: int, number: int = 1) -> StoredChunk:
    return StoredChunk(1, number, Codec.APART, tasks, offset=0, size=tasks, offered_ns=0, left=tasks)


def leases_at(task_ns: int | None, max_attempts: int = MAX_ATTEMPTS, retries: Retries = RETRIES) -> Leases:
    """Return leases that have learned how long tasks take."""
    pace = Pace()
    if task_ns is not None:
        pace.learn(1, task_ns)
    return Leases(max_attempts, pace, retries)


def given(leases: Leases, now_ns: int = 0) -> list[tuple[int, Lease]]:
    return list(leases.grants(now_ns))


def reported(
    leases: Leases, slot: int, number: int, done: int, flaw: Flaw = Flaw.NONE, now_ns: int = 0
) -> Returned | None:
    return leases.report(slot, number, Closed(done, flaw), now_ns)


def dead(leases: Leases, slot: int, done: int = 0, flaw: Flaw = Flaw.NONE, *, in_task: bool = False) -> Returned:
    """Have a consumer die, with so many tasks of its first lease behind it."""
    return leases.bury(slot, Closed(done, flaw), in_task, 0)


def places(span: Span) -> list[int]:
    return list(range(span.first, span.last))


def spread(spans: list[Span]) -> list[Task]:
    """Return the tasks of spans, in order."""
    return [(span.chunk.number, place) for span in spans for place in places(span)]


def task_of(suspect: Suspect | None) -> Task | None:
    return (suspect.span.chunk.number, suspect.span.first) if suspect is not None else None


# -- played against a model --------------------------------------------------------------------------------


@dataclass
class Parcel:
    """A lease as its consumer was told of it; what is cut off afterwards it does not know."""

    number: int
    chunk: StoredChunk
    first: int
    count: int
    tries_left: int

    def task(self, place: int) -> Task:
        return self.chunk.number, self.first + place


@dataclass
class Consumer:
    """One process, between any two of its stores in the ledger, and its socket."""

    inbox: deque[Parcel] = field(default_factory=deque)
    opened: Parcel | None = None
    done: int = 0
    claimed: int = 0
    flaw: Flaw = Flaw.NONE
    """How the task behind those has raised."""
    is_noted: bool = False
    is_counted: bool = False
    is_closed: bool = False
    reports: deque[tuple[Parcel, int, Flaw]] = field(default_factory=deque)
    """Sent, and not read by the supervisor."""


class Later:
    """A supervisor's loop, of which only the timers are wanted."""

    def __init__(self) -> None:
        self.actions: list[Callable[[], None]] = []

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        self.actions.append(action)


class World:
    """Plays consumers that work, lag, fail and die, each with its row of the ledger; knows where each task must be."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        random.seed(seed)  # of it is the jitter of delays: so that a game can be played again
        self.pace = Pace()
        self.leases = Leases(MAX_ATTEMPTS, self.pace, RETRIES)
        self.rows = Ledger(len(SLOTS)).rows  # a slot's row outlives its process
        self.later = Later()
        self.relief = Relief(self.leases, self.rows, self.later, self.take_back)  # type: ignore[arg-type]
        self.now_ns = 0
        self.chunks: dict[int, StoredChunk] = {}
        self.where: dict[Task, str] = {}
        self.poison: set[Task] = set()
        """Tasks that kill whoever begins with them."""
        self.bad: dict[Task, int] = {}
        """How often tasks raise."""
        self.executed: dict[Task, int] = {}
        self.attempts: collections.Counter[Task] = collections.Counter()
        self.failures: collections.Counter[Task] = collections.Counter()
        self.failed_ns: dict[Task, int] = {}
        self.freed: list[int] = []
        self.consumers: dict[int, Consumer] = {}
        self.events: set[str] = set()

    # -- what happens --------------------------------------------------------------------------------------

    def accept(self) -> None:
        if len(self.chunks) >= 50:
            return
        chunk = chunk_of(self.random.choice([1, 1, 2, 7, 40]), len(self.chunks) + 1)
        self.chunks[chunk.number] = chunk
        for place in range(chunk.count):
            task = chunk.number, place
            self.where[task] = "waiting"
            if self.random.random() < 0.03:
                self.poison.add(task)
            elif self.random.random() < 0.1:
                self.bad[task] = self.random.choice([1, 2, 3, 100])
        self.leases.accept(chunk)

    def join(self) -> None:
        free = [slot for slot in SLOTS if slot not in self.consumers]
        if free:
            slot = self.random.choice(free)
            self.consumers[slot] = Consumer()
            self.leases.join(slot)

    def grant(self) -> None:
        for slot, lease in self.leases.grants(self.now_ns):
            span = lease.span
            consumer = self.consumers[slot]
            told = [parcel.number for parcel in consumer.inbox]
            assert not told or told[-1] < lease.number
            tries_left = self.leases.tries_left(span)
            consumer.inbox.append(Parcel(lease.number, span.chunk, span.first, span.tasks, tries_left))
            for place in places(span):
                task = span.chunk.number, place
                assert self.where[task] in ("waiting", "suspect")
                assert tries_left == RETRIES.most - self.failures[task]
                self.where[task] = f"held by {slot}"
            self.check()

    def learn(self) -> None:
        self.pace.learn(1, self.random.choice([100, 10_000, 1_000_000, 100_000_000]))

    def ripen(self) -> None:
        for span in self.leases.ripen(self.now_ns):
            task = span.chunk.number, span.first
            assert (span.tasks, self.where[task]) == (1, "delayed")
            least_ns = RETRIES.delay_seconds * 2 ** (self.failures[task] - 1) * (1 - JITTER) * 1e9
            assert self.now_ns >= self.failed_ns[task] + least_ns - 1
            self.put_back(task)
        assert (self.leases.next_due_ns or self.now_ns + 1) > self.now_ns

    def work(self) -> None:
        """Have a consumer go one store further, as its loop does."""
        if not self.consumers:
            return
        slot = self.random.choice(list(self.consumers))
        consumer = self.consumers[slot]
        parcel = consumer.opened
        if parcel is None:
            if consumer.inbox:
                self.open(slot, consumer, consumer.inbox.popleft())
        elif consumer.is_closed:
            consumer.reports.append((parcel, consumer.done, consumer.flaw))
            consumer.opened = None
        elif consumer.is_counted or consumer.done == parcel.count or self.random.random() < 0.05 < consumer.done:
            self.close(slot, consumer)  # it has failed, all are done, or the budget is spent
        elif consumer.done < consumer.claimed:
            self.do(slot, consumer, parcel)
        else:
            self.claim(slot, consumer, parcel)

    def open(self, slot: int, consumer: Consumer, parcel: Parcel) -> None:
        if not self.rows[slot].open_lease(parcel.number, parcel.count, self.now_ns):
            consumer.reports.append((parcel, 0, Flaw.NONE))
            return
        consumer.opened, consumer.done, consumer.claimed, consumer.flaw = parcel, 0, 0, Flaw.NONE
        consumer.is_noted = consumer.is_counted = consumer.is_closed = False

    def claim(self, slot: int, consumer: Consumer, parcel: Parcel) -> None:
        stride = min(self.random.choice([1, 1, 8]), parcel.count - consumer.done)
        consumer.claimed = consumer.done + self.rows[slot].allowed(parcel.number, consumer.done, stride)
        if consumer.claimed == consumer.done:
            self.close(slot, consumer)

    def close(self, slot: int, consumer: Consumer) -> None:
        self.rows[slot].close_lease(self.now_ns)
        consumer.is_closed = True

    def do(self, slot: int, consumer: Consumer, parcel: Parcel) -> None:
        task, row = parcel.task(consumer.done), self.rows[slot]
        if task in self.poison:
            self.bury(slot)
        elif consumer.is_noted or self.bad.get(task, 0) > self.failures[task]:
            self.fail(slot, consumer, parcel)
        else:
            self.executed[task] = self.executed.get(task, 0) + 1
            consumer.done += 1
            row.done[0] += 1
            if row.stop[0]:
                consumer.claimed = consumer.done

    def fail(self, slot: int, consumer: Consumer, parcel: Parcel) -> None:
        """Have a task raise: it is noted, and only then counted."""
        row, done = self.rows[slot], consumer.done
        flaw = Flaw.AGAIN if parcel.tries_left else Flaw.FINAL
        if not consumer.is_noted:
            row._note(parcel.number, done, flaw)
            consumer.is_noted = True
            return
        if flaw is Flaw.FINAL:
            row.fail_task(parcel.number, done, 1)
        else:
            row.give_back_task(parcel.number, done)
        consumer.flaw, consumer.is_counted = flaw, True

    def read_report(self) -> None:
        slots = [slot for slot, consumer in self.consumers.items() if consumer.reports]
        if slots:
            self.hear(self.random.choice(slots))

    def hear(self, slot: int) -> None:
        parcel, done, flaw = self.consumers[slot].reports.popleft()
        known = next(iter(self.leases._holders[slot].leases), None)
        closed = Closed(done, Flaw.NONE)
        if flaw:
            noted = self.rows[slot].closed(parcel.number)
            assert noted == (done, flaw)
            closed = noted
        back = self.leases.report(slot, parcel.number, closed, self.now_ns)
        if known is None or known.number != parcel.number:
            assert back is None  # it was taken back, and the consumer has refused to open it
            assert not done
            return
        assert back is not None
        assert back.suspect is None
        self.relief.reported(slot)
        self.settle(parcel, done, flaw, back)
        for span in back.again:
            for place in places(span):
                assert place >= parcel.first + done + bool(flaw)
        self.take_back(back.again, slot)

    def settle(self, parcel: Parcel, done: int, flaw: Flaw, back: Returned) -> None:
        """Take what the first lease of a consumer came to."""
        over = [parcel.task(place) for place in range(done)]
        for task in over:
            self.end(task, "done")
        assert (back.failed is not None) == bool(flaw)
        if back.failed is not None:
            task = parcel.task(done)
            self.failures[task] += 1
            self.failed_ns[task] = self.now_ns
            assert (back.failed.span.chunk.number, back.failed.span.first) == task
            assert (back.failed.span.tasks, back.failed.failures) == (1, self.failures[task])
            assert back.failed.is_final == (flaw is Flaw.FINAL) == (self.failures[task] > RETRIES.most)
            if back.failed.is_final:
                self.end(task, "failed")
                over.append(task)
            else:
                self.where[task] = "delayed"
        if back.suspect is not None and back.suspect.is_dead_letter:
            over.append((back.suspect.span.chunk.number, back.suspect.span.first))
        assert [(span.chunk.number, place) for span in back.done for place in places(span)] == over
        if not parcel.chunk.left and parcel.chunk.number not in self.freed:
            self.freed.append(parcel.chunk.number)

    def end(self, task: Task, end: str) -> None:
        assert self.where[task] not in OVER
        self.where[task] = end

    def put_back(self, task: Task) -> None:
        self.where[task] = "suspect" if self.attempts[task] else "waiting"

    def take_back(self, spans: Any, slot: int | None = None) -> None:
        """Take note that these wait again, which somebody held: that slot, or the one that was relieved of them."""
        for span in spans:
            for place in places(span):
                task = span.chunk.number, place
                assert self.where[task].startswith(f"held by {'' if slot is None else slot}")
                self.put_back(task)

    def die(self) -> None:
        if self.consumers:
            self.bury(self.random.choice(list(self.consumers)))

    def bury(self, slot: int) -> None:
        """See to a dead consumer, as the queue and the slot do."""
        while self.consumers[slot].reports:  # the supervisor reads all that the dead one had sent
            self.hear(slot)
        consumer, row = self.consumers.pop(slot), self.rows[slot]
        held = self.leases._holders[slot].tasks
        number, tally = self.leases.first_number(slot), row.read(self.now_ns)
        closed = row.outcome(number)
        is_in_task = bool(tally.in_progress) and tally.lease == number and not closed.flaw
        back = self.leases.bury(slot, closed, is_in_task, self.now_ns)
        row.close_for_dead(number, closed)
        row.settle(self.now_ns)
        if back.suspect is not None:
            row.abandon()
        elif tally.in_progress:
            row.close_lease(self.now_ns)
        assert not row.read(self.now_ns).in_progress
        parcel = consumer.opened
        if parcel is None:
            assert (closed, back.done, back.failed, back.suspect) == (Closed(0, Flaw.NONE), [], None, None)
        else:
            assert (parcel.number, closed) == (number, (consumer.done, consumer.flaw))
            # Its row may say that it is in a task when it was about to hear that there is none left for it.
            in_task = not (consumer.is_counted or consumer.is_closed) and consumer.done < min(held, parcel.count)
            assert (back.suspect is not None) == in_task
            self.mourn(consumer, parcel, back)
            self.settle(parcel, consumer.done, consumer.flaw, back)
        self.take_back(back.again, slot)

    def mourn(self, consumer: Consumer, parcel: Parcel, back: Returned) -> None:
        """Take the task that a dead consumer had in hand."""
        if consumer.is_noted:
            self.events.add(f"death {'behind' if consumer.is_counted else 'before'} the count of a failure")
        if back.suspect is None:
            return
        task = parcel.task(consumer.done)
        assert (back.suspect.span.chunk.number, back.suspect.span.first, back.suspect.span.tasks) == (*task, 1)
        self.attempts[task] += 1
        assert back.suspect.attempt == self.attempts[task]
        assert back.suspect.is_dead_letter == (self.attempts[task] == MAX_ATTEMPTS)
        if back.suspect.is_dead_letter:
            self.end(task, "dead letter")
        else:
            self.put_back(task)

    def halt(self) -> None:
        """Find somebody sitting on tasks, whom the order to stop may reach in time or not."""
        holders = [holder for holder in self.leases._holders.values() if holder.leases]
        if holders:
            self.relief._halt(self.random.choice(holders))

    def cut(self) -> None:
        """Take back what those who were told to stop have not begun, if they are still where they were."""
        while self.later.actions:
            self.later.actions.pop(0)()

    def lie(self) -> None:
        """Hear of a lease that nobody has: all of it is ignored."""
        slot = self.random.randrange(5)
        holder = self.leases._holders.get(slot)
        number = holder.leases[0].number + 1 if holder is not None and holder.leases else 10**6
        closed = Closed(1, self.random.choice(list(Flaw)))
        assert self.leases.report(slot, number, closed, self.now_ns) is None
        assert self.leases.cut(slot, number, 0) == []
        if slot not in self.consumers:
            assert self.leases.bury(slot, closed, True, self.now_ns) == Returned()
            assert self.leases.first_number(slot) == 0

    # -- what must be so -----------------------------------------------------------------------------------

    def check(self) -> None:
        seen: dict[Task, str] = {}

        def see(span: Span, where: str) -> None:
            for place in places(span):
                task = span.chunk.number, place
                assert task not in seen, f"{task} is {seen[task]} and {where}"
                assert span.tasks == 1 or not (self.failures[task] or self.attempts[task]), f"{task} has company"
                seen[task] = where

        for span in self.leases._waiting:
            see(span, "waiting")
        for span in self.leases._suspects:
            see(span, "suspect")
        for _, _, span in self.leases._delayed:
            see(span, "delayed")
        for slot, holder in self.leases._holders.items():
            for lease in holder.leases:
                see(lease.span, f"held by {slot}")
            assert holder.tasks == sum(lease.span.tasks for lease in holder.leases)
            assert (slot in self.leases._idle) == (not holder.leases)
            assert not (slot in self.leases._idle and slot in self.leases._hungry)
            if any(self.is_suspect(lease.span) for lease in holder.leases):
                assert len(holder.leases) == 1, "a suspect has company"
                assert holder.is_isolated
                assert slot not in self.leases._hungry
        over = {task for task, where in self.where.items() if where in OVER}
        assert seen == {task: where for task, where in self.where.items() if task not in over}
        for chunk in self.chunks.values():
            assert chunk.left == sum((chunk.number, place) not in over for place in range(chunk.count))
        nobodys = collections.Counter(where for where in seen.values() if not where.startswith("held"))
        assert self.leases.delayed_tasks == nobodys.pop("delayed", 0)
        assert self.leases.waiting_tasks == nobodys.total()
        assert self.leases.is_empty == (not nobodys and not self.leases.delayed_tasks)
        assert self.leases._held_tasks == sum(where.startswith("held") for where in seen.values())
        assert all(times == 1 for times in self.executed.values())
        self.check_rows()

    def check_rows(self) -> None:
        """The counts of all rows together tell what has become of the tasks, once every report is read."""
        if any(consumer.reports or consumer.opened for consumer in self.consumers.values()):
            return
        tallies = [row.read(self.now_ns) for row in self.rows]
        ends = collections.Counter(self.where.values())
        assert sum(tally.processed for tally in tallies) == ends["done"] + ends["failed"]
        assert sum(tally.failed for tally in tallies) == ends["failed"]
        assert sum(tally.retried for tally in tallies) == self.failures.total() - ends["failed"]
        assert sum(tally.abandoned for tally in tallies) == self.attempts.total()
        assert not any(tally.in_progress for tally in tallies)

    def is_suspect(self, span: Span) -> bool:
        return any(self.attempts[span.chunk.number, place] for place in places(span))

    def play(self, steps: int) -> None:
        deeds = {
            self.accept: 6, self.join: 4, self.grant: 12, self.learn: 1, self.work: 80, self.read_report: 12,
            self.die: self.random.choice([1, 5]), self.halt: 3, self.cut: 6, self.ripen: 3, self.lie: 1,
        }  # fmt: skip
        for _ in range(steps):
            self.now_ns += 100_000
            self.random.choices(list(deeds), list(deeds.values()))[0]()
            self.events |= {where.split()[0] for where in self.where.values()}
            self.check()

    def finish(self) -> None:
        """Let everybody live until nothing is left."""
        for _ in range(100_000):
            if all(where in OVER for where in self.where.values()):
                return
            self.now_ns += 100_000
            for deed in (self.join, self.grant, self.work, self.work, self.read_report, self.ripen):
                deed()
        raise AssertionError(f"never done: {[t for t, where in self.where.items() if where not in OVER][:5]}")


@pytest.mark.parametrize("seed", range(GAMES))
def test_whatever_happens_each_task_is_in_one_place_and_done_once(seed: int) -> None:
    world = World(seed)
    try:
        world.play(700)
        world.finish()
        world.check()
    except AssertionError as error:
        raise AssertionError(f"seed {seed}: {error}") from error
    done = [task for task, where in world.where.items() if where == "done"]
    assert world.where, seed
    assert sorted(world.executed) == sorted(done), seed
    assert not world.poison & set(done), seed
    assert sorted(world.freed) == sorted(world.chunks), seed
    assert all(not chunk.left for chunk in world.chunks.values()), seed
    failed = {task for task, where in world.where.items() if where == "failed"}
    assert failed <= {task for task, times in world.bad.items() if times > RETRIES.most}, seed
    assert all(world.failures[task] == RETRIES.most + 1 for task in failed), seed
    assert all(world.failures[task] == world.bad.get(task, 0) for task in done), seed


def test_the_games_come_to_everything_that_can_happen() -> None:
    """Else the games above would claim more than they play."""
    events: set[str] = set()
    for seed in range(GAMES):
        world = World(seed)
        world.play(700)
        events |= world.events
        events |= {f"attempt {number}" for number in world.attempts.values()}
        events |= {f"failure {number}" for number in world.failures.values()}
    assert events == {
        "waiting", "suspect", "held", "delayed", "done", "failed", "dead",
        "attempt 1", "attempt 2", "attempt 3", "failure 1", "failure 2", "failure 3",
        "death before the count of a failure", "death behind the count of a failure",
    }  # fmt: skip


# -- one by one --------------------------------------------------------------------------------------------


def test_what_is_handed_back_goes_before_what_came_later() -> None:
    leases, first, second = leases_at(FAST), chunk_of(4, 1), chunk_of(4, 2)
    leases.join(1)
    leases.accept(first)
    [(_, lease)] = given(leases)
    leases.accept(second)
    assert reported(leases, 1, lease.number, 1) is not None
    [(_, again), (_, later)] = given(leases)
    assert (again.span.chunk, places(again.span)) == (first, [1, 2, 3])
    assert later.span.chunk is second


def test_what_a_dead_consumer_held_waits_at_the_front_in_its_old_order() -> None:
    leases, chunks = leases_at(FAST), [chunk_of(2, number) for number in range(1, 5)]
    leases.join(1)
    for chunk in chunks:
        leases.accept(chunk)
    held = len(given(leases))
    assert held > 1
    leases.accept(chunk_of(2, 5))
    back = dead(leases, 1, done=1)
    assert back.suspect is None
    assert spread(back.done) == [(1, 0)]
    assert [span.chunk.number for span in back.again] == list(range(1, held + 1))
    leases.join(2)
    order = [(lease.span.chunk.number, place) for _, lease in given(leases) for place in places(lease.span)]
    assert order[: 2 * held - 1] == [(n, p) for n in range(1, held + 1) for p in (0, 1)][1:]


def test_only_the_first_lease_of_the_dead_can_have_been_begun() -> None:
    """A consumer reports on each lease before it begins the next, and what the dead had sent is read before."""
    leases = leases_at(FAST)
    leases.join(1)
    for number in range(1, 4):
        leases.accept(chunk_of(2, number))
    first, second, _ = [lease for _, lease in given(leases)]
    assert leases.first_number(1) == first.number
    assert reported(leases, 1, first.number, 2) is not None
    assert leases.first_number(1) == second.number
    back = dead(leases, 1, done=1, in_task=True)
    assert spread(back.done) == [(2, 0)]
    assert back.suspect is not None
    assert (task_of(back.suspect), back.suspect.attempt) == ((2, 1), 1)
    assert spread(back.again) == [(3, 0), (3, 1)]
    assert leases.waiting_tasks == 3


def with_a_suspect() -> Leases:
    """Return leases of three tasks, of which the second had killed its consumer."""
    leases = leases_at(FAST)
    leases.join(1)
    leases.accept(chunk_of(3))
    given(leases)
    assert dead(leases, 1, done=1, in_task=True).suspect is not None
    return leases


def test_a_suspect_is_first_and_alone_and_its_holder_gets_more_only_when_it_is_done() -> None:
    leases = with_a_suspect()
    leases.join(2)
    [(slot, alone)] = given(leases)
    assert (slot, places(alone.span)) == (2, [1])
    assert given(leases) == []
    reported(leases, 2, alone.number, 1)
    assert [places(lease.span) for _, lease in given(leases)] == [[2]]


def test_a_suspect_that_its_next_consumer_never_opened_stays_a_suspect() -> None:
    """Its holder was killed while it was idle: that says nothing for the task."""
    leases = with_a_suspect()
    leases.join(2)
    given(leases)
    assert dead(leases, 2).suspect is None
    leases.join(3)
    [(_, alone)] = given(leases)
    assert places(alone.span) == [1]


@pytest.mark.parametrize("deed", ["handed back", "cut"])
def test_a_suspect_that_is_taken_back_stays_a_suspect(deed: str) -> None:
    leases = with_a_suspect()
    leases.join(2)
    [(_, alone)] = given(leases)
    if deed == "cut":
        leases.cut(2, alone.number, 0)
    reported(leases, 2, alone.number, 0)
    assert [places(lease.span) for _, lease in given(leases)] == [[1]]


def test_a_suspect_is_not_starved_by_a_stream_that_never_ends() -> None:
    """While it waits, nobody is sent more ahead: so somebody gets free for it."""
    leases, poison = leases_at(FAST), chunk_of(1, 1)
    for slot in (1, 2):
        leases.join(slot)
    for chunk in (poison, *(chunk_of(20, number) for number in range(2, 6))):
        leases.accept(chunk)
    granted = given(leases)
    held = deque(lease for slot, lease in granted if slot == 2)
    assert len(held) > 1
    assert any(slot == 1 and lease.span.chunk is poison for slot, lease in granted)
    assert dead(leases, 1, in_task=True).suspect is not None
    for number in range(6, 100):
        lease = held.popleft()
        if lease.span.chunk is poison:
            return
        reported(leases, 2, lease.number, lease.span.tasks)
        leases.accept(chunk_of(20, number))
        held += [lease for _, lease in given(leases)]
    raise AssertionError("the suspect never got its turn")


def test_a_task_that_kills_again_and_again_is_given_up_and_its_chunk_freed() -> None:
    leases, chunk = leases_at(FAST), chunk_of(2)
    leases.accept(chunk)
    attempts = []
    for slot in range(1, MAX_ATTEMPTS + 1):
        leases.join(slot)
        given(leases)
        back = dead(leases, slot, in_task=True)
        assert back.suspect is not None
        attempts.append((task_of(back.suspect), back.suspect.attempt, back.suspect.is_dead_letter, spread(back.done)))
    assert attempts == [((1, 0), 1, False, []), ((1, 0), 2, False, []), ((1, 0), 3, True, [(1, 0)])]
    assert chunk.left == 1
    leases.join(9)
    [(_, lease)] = given(leases)
    assert places(lease.span) == [1]
    reported(leases, 9, lease.number, 1)
    assert chunk.left == 0


def test_with_one_attempt_a_death_is_the_end_of_its_task() -> None:
    leases, chunk = leases_at(FAST, max_attempts=1), chunk_of(1)
    leases.accept(chunk)
    leases.join(1)
    given(leases)
    back = dead(leases, 1, in_task=True)
    assert back.suspect is not None
    assert back.suspect.is_dead_letter
    assert (spread(back.done), back.again, chunk.left, leases.is_empty) == ([(1, 0)], [], 0, True)


def test_attempts_are_counted_for_each_task_by_itself() -> None:
    leases, chunk = leases_at(FAST), chunk_of(2)
    leases.accept(chunk)
    for slot, attempts in ((1, {0: 1}), (2, {0: 2})):
        leases.join(slot)
        given(leases)
        dead(leases, slot, in_task=True)
        assert chunk.attempts == attempts
    leases.join(3)
    leases.join(4)
    slots = {lease.span.first: slot for slot, lease in given(leases)}
    dead(leases, slots[1], in_task=True)
    assert chunk.attempts == {0: 2, 1: 1}


# -- what raises -------------------------------------------------------------------------------------------


def failing(tasks: int = 3, retries: Retries = RETRIES) -> tuple[Leases, StoredChunk, Lease]:
    """Return leases whose consumer 1 holds all tasks of a chunk."""
    leases, chunk = leases_at(FAST, retries=retries), chunk_of(tasks)
    leases.join(1)
    leases.accept(chunk)
    [(_, lease)] = given(leases)
    return leases, chunk, lease


def test_a_task_that_raises_ends_its_lease_and_waits_apart_while_the_others_go_on() -> None:
    leases, chunk, lease = failing()
    back = reported(leases, 1, lease.number, 1, Flaw.AGAIN)
    assert back is not None
    assert back.failed is not None
    assert (spread(back.done), spread(back.again), spread([back.failed.span])) == ([(1, 0)], [(1, 2)], [(1, 1)])
    assert (back.failed.failures, back.failed.is_final, chunk.left) == (1, False, 2)
    assert (leases.waiting_tasks, leases.delayed_tasks, leases.is_empty) == (1, 1, False)
    [(_, next_lease)] = given(leases)
    assert places(next_lease.span) == [2]
    assert leases.ripen(0) == []


def test_it_waits_again_when_its_time_has_come_and_travels_alone() -> None:
    leases, _, lease = failing()
    reported(leases, 1, lease.number, 1, Flaw.AGAIN, now_ns=1000)
    due_ns = leases.next_due_ns
    assert due_ns is not None
    assert due_ns > 1000
    assert leases.ripen(due_ns - 1) == []
    assert spread(leases.ripen(due_ns)) == [(1, 1)]
    assert (leases.next_due_ns, leases.delayed_tasks, leases.waiting_tasks) == (None, 0, 2)
    assert [places(lease.span) for _, lease in given(leases)] == [[1], [2]]


def test_tasks_ripen_in_the_order_in_which_they_are_due() -> None:
    leases, _, lease = failing(2, Retries(2, 10.0))
    reported(leases, 1, lease.number, 0, Flaw.AGAIN, now_ns=10**12)
    [(_, lease)] = given(leases)
    reported(leases, 1, lease.number, 0, Flaw.AGAIN, now_ns=0)
    first_ns = leases.next_due_ns
    assert first_ns is not None
    assert first_ns < 10**12
    assert spread(leases.ripen(first_ns)) == [(1, 1)]
    assert leases.next_due_ns is not None
    assert leases.next_due_ns > 10**12
    assert spread(leases.ripen(2 * 10**12)) == [(1, 0)]


@pytest.mark.parametrize("most", [0, 1, 3])
def test_a_task_that_raises_once_too_often_has_failed_and_its_chunk_is_freed(most: int) -> None:
    leases, chunk, lease = failing(1, Retries(most, 0.0))
    seen = []
    for _ in range(most + 1):
        seen.append(leases.tries_left(lease.span))
        flaw = Flaw.AGAIN if seen[-1] else Flaw.FINAL
        back = reported(leases, 1, lease.number, 0, flaw)
        assert back is not None
        assert back.failed is not None
        assert back.failed.is_final == (flaw is Flaw.FINAL)
        assert spread(back.done) == ([(1, 0)] if back.failed.is_final else [])
        leases.ripen(1)
        assert chunk.failures == {0: len(seen)}
        lease = next((lease for _, lease in given(leases)), lease)
    assert seen == list(range(most, -1, -1))
    assert (chunk.left, leases.is_empty) == (0, True)


def test_failures_and_deaths_are_counted_apart() -> None:
    leases, chunk, lease = failing(1)
    reported(leases, 1, lease.number, 0, Flaw.AGAIN)
    leases.ripen(10**12)
    given(leases)
    back = dead(leases, 1, in_task=True)
    assert back.suspect is not None
    assert (back.suspect.attempt, chunk.failures, chunk.attempts) == (1, {0: 1}, {0: 1})
    leases.join(2)
    [(_, lease)] = given(leases)
    assert leases.tries_left(lease.span) == RETRIES.most - 1
    back_again = reported(leases, 2, lease.number, 0, Flaw.AGAIN)
    assert back_again is not None
    assert back_again.failed is not None
    assert (back_again.failed.failures, chunk.attempts) == (2, {0: 1})
    assert leases.delayed_tasks == 1


def test_a_suspect_that_raises_comes_back_as_a_suspect() -> None:
    leases = with_a_suspect()
    leases.join(2)
    [(_, alone)] = given(leases)
    reported(leases, 2, alone.number, 0, Flaw.AGAIN)
    [(_, other)] = given(leases)
    assert leases.ripen(10**12) != []
    assert given(leases) == []  # its holder must be idle, and gets nothing beside it
    reported(leases, 2, other.number, 1)
    [(_, alone)] = given(leases)
    assert places(alone.span) == [1]


def test_who_dies_after_its_task_has_raised_has_nothing_in_hand() -> None:
    leases, _, _ = failing()
    back = dead(leases, 1, done=1, flaw=Flaw.AGAIN)
    assert back.suspect is None
    assert back.failed is not None
    assert (spread([back.failed.span]), spread(back.done), spread(back.again)) == ([(1, 1)], [(1, 0)], [(1, 2)])
    assert (leases.delayed_tasks, leases.waiting_tasks) == (1, 1)


def test_a_failure_that_lies_behind_what_was_left_to_the_consumer_is_nobodys() -> None:
    """The row and the word of a worker can be anything; what another holds is not touched."""
    leases, lease = sitting()
    leases.cut(1, lease.number, 3)
    back = reported(leases, 1, lease.number, 3, Flaw.FINAL)
    assert back is not None
    assert (back.failed, spread(back.done), lease.span.chunk.left) == (None, [(1, 0), (1, 1), (1, 2)], 7)


def test_a_task_that_raised_is_not_among_those_sent_ahead_before_it_is_due() -> None:
    """Nor does it keep a consumer from what others wait for: nobody holds it."""
    leases, _, lease = failing(1)
    reported(leases, 1, lease.number, 0, Flaw.AGAIN)
    assert not leases.may_grant
    leases.accept(chunk_of(5, 2))
    assert [lease.span.chunk.number for _, lease in given(leases)] == [2]


# -- what is done before it comes --------------------------------------------------------------------------


def waiting(leases: Leases) -> list[Task]:
    """Return all tasks that are given out, by any number of consumers that die at once."""
    found: list[Task] = []
    for slot in itertools.count(100):
        leases.join(slot)
        granted = given(leases)
        if not granted:
            return found
        for _, lease in granted:
            found += spread([lease.span])
            reported(leases, slot, lease.number, lease.span.tasks)
    raise AssertionError


@pytest.mark.parametrize(
    ("done", "rest"),
    [
        ([], [0, 1, 2, 3, 4, 5]),
        ([(0, 6)], []),
        ([(0, 2)], [2, 3, 4, 5]),
        ([(4, 6)], [0, 1, 2, 3]),
        ([(1, 2), (3, 5)], [0, 2, 5]),
        ([(0, 1), (1, 2), (5, 6)], [2, 3, 4]),
        ([(2, 2)], [0, 1, 2, 3, 4, 5]),
    ],
)
def test_of_a_chunk_only_what_is_not_done_is_taken_in(done: list[tuple[int, int]], rest: list[int]) -> None:
    leases, chunk = leases_at(FAST), chunk_of(6)
    chunk.left = len(rest)
    leases.accept(chunk, done)
    assert leases.waiting_tasks == len(rest)
    assert waiting(leases) == [(1, place) for place in rest]
    assert (chunk.left, leases.is_empty) == (0, True)


def test_what_has_failed_or_killed_before_travels_alone_and_the_suspects_first() -> None:
    leases, chunk = leases_at(FAST), chunk_of(8)
    chunk.attempts, chunk.failures, chunk.left = {2: 1, 7: 2}, {0: 1, 2: 1, 5: 2}, 7
    leases.accept(chunk, [(5, 6)])
    leases.join(1)
    [(_, suspect)] = given(leases)
    assert places(suspect.span) == [2]
    assert leases.tries_left(suspect.span) == RETRIES.most - 1
    reported(leases, 1, suspect.number, 1)
    [(_, suspect)] = given(leases)
    assert places(suspect.span) == [7]
    back = dead(leases, 1, in_task=True)
    assert back.suspect is not None
    assert (back.suspect.attempt, back.suspect.is_dead_letter) == (3, True)
    leases.join(2)
    spans = [lease.span for _, lease in given(leases)]
    assert [places(span) for span in spans] == [[0], [1], [3, 4], [6]]
    assert list(map(leases.tries_left, spans)) == [RETRIES.most - 1, *[RETRIES.most] * 3]


def test_the_oldest_that_waits_is_told_and_one_that_is_not_due_is_not() -> None:
    leases, chunk = leases_at(SLOW), chunk_of(2)
    chunk.offered_ns = 5
    assert leases.oldest_ns is None
    leases.accept(chunk)
    leases.accept(chunk_of(1, 2))
    assert leases.oldest_ns == 5
    leases.join(1)
    [(_, lease)] = given(leases)
    reported(leases, 1, lease.number, 0, Flaw.AGAIN)
    [(_, lease)] = given(leases)
    assert places(lease.span) == [1]
    assert leases.oldest_ns == 0
    dead(leases, 1, in_task=True)
    assert leases.oldest_ns == 0  # the chunk of the suspect came first, and was offered later


# -- cutting -----------------------------------------------------------------------------------------------


def sitting(tasks: int = 10) -> tuple[Leases, Lease]:
    """Return leases whose consumer 1 holds all tasks, and an idle consumer 2."""
    leases = leases_at(FAST)
    leases.join(1)
    leases.accept(chunk_of(tasks))
    [(_, lease)] = given(leases)
    leases.join(2)
    return leases, lease


def test_one_who_sits_on_tasks_is_overdue_once_its_time_is_up_and_another_idles() -> None:
    leases, lease = sitting()
    assert leases.overdue(LEASE_NS) == []
    assert [(holder.slot, holder.leases[0]) for holder in leases.overdue(LEASE_NS + 1)] == [(1, lease)]
    leases.accept(chunk_of(1, 2))
    assert not leases.may_be_overdue  # there is other work for the idle one
    assert leases.overdue(LEASE_NS + 1) == []


def test_one_that_has_not_begun_with_its_only_task_can_be_relieved_of_it() -> None:
    """A consumer that was stopped before it opened the lease; whether it has is for the ledger to say."""
    leases, lease = sitting(tasks=1)
    assert leases.may_be_overdue
    assert [holder.slot for holder in leases.overdue(LEASE_NS + 1)] == [1]
    assert [places(span) for span in leases.cut(1, lease.number, 0)] == [[0]]


def test_nobody_who_holds_nothing_is_overdue() -> None:
    leases = leases_at(FAST)
    leases.join(1)
    assert not leases.may_be_overdue
    assert leases.overdue(10 * LEASE_NS) == []


def test_what_is_cut_off_goes_to_the_idle_and_the_late_report_counts_only_what_was_left() -> None:
    leases, lease = sitting()
    assert [places(span) for span in leases.cut(1, lease.number, 3)] == [list(range(3, 10))]
    [(slot, other)] = given(leases)
    assert (slot, places(other.span)) == (2, list(range(3, 10)))
    back = reported(leases, 1, lease.number, 3)
    assert back is not None
    assert (spread(back.done), back.again) == ([(1, 0), (1, 1), (1, 2)], [])
    assert lease.span.chunk.left == 7


def test_leases_that_were_sent_ahead_are_cut_as_well_and_their_reports_count_for_nothing() -> None:
    leases = leases_at(FAST)
    leases.join(1)
    for number in (1, 2, 3):
        leases.accept(chunk_of(2, number))
    first, *ahead = [lease for _, lease in given(leases)]
    assert ahead
    leases.cut(1, first.number, 1)
    assert leases.waiting_tasks == 5
    assert reported(leases, 1, first.number, 1) is not None
    assert [reported(leases, 1, lease.number, 2) for lease in ahead] == [None] * len(ahead)
    assert leases.waiting_tasks == 5


def test_a_lease_that_is_cut_to_nothing_still_has_its_consumer_busy_until_it_says_so() -> None:
    leases, lease = sitting()
    leases.cut(1, lease.number, 0)
    assert [slot for slot, _ in given(leases)] == [2]
    assert reported(leases, 1, lease.number, 0) == Returned()
    leases.accept(chunk_of(1, 2))
    assert [slot for slot, _ in given(leases)] == [1]


def test_a_cut_of_a_lease_that_is_not_the_first_any_more_does_nothing() -> None:
    leases, lease = sitting()
    reported(leases, 1, lease.number, 10)
    assert leases.cut(1, lease.number, 0) == []
    assert leases.cut(7, 1, 0) == []


def test_who_dies_after_a_cut_loses_only_what_was_left_to_it() -> None:
    leases, lease = sitting()
    leases.cut(1, lease.number, 3)
    back = dead(leases, 1, done=2, in_task=True)
    assert (spread(back.done), task_of(back.suspect), back.again) == ([(1, 0), (1, 1)], (1, 2), [])
    assert leases.waiting_tasks == 8


def test_who_dies_with_all_done_that_a_cut_had_left_to_it_had_nothing_in_hand() -> None:
    """Its row says that it is in a task until it hears that there is none left for it."""
    leases, lease = sitting()
    leases.cut(1, lease.number, 3)
    back = dead(leases, 1, done=3, in_task=True)
    assert (spread(back.done), back.suspect, back.again) == ([(1, 0), (1, 1), (1, 2)], None, [])
    assert leases.waiting_tasks == 7


# -- how much ----------------------------------------------------------------------------------------------


def test_slow_tasks_are_given_one_at_a_time() -> None:
    leases = leases_at(SLOW)
    leases.join(1)
    leases.accept(chunk_of(5))
    assert [places(lease.span) for _, lease in given(leases)] == [[0]]


def test_fast_tasks_are_sent_ahead_but_not_without_end() -> None:
    leases = leases_at(FAST)
    leases.join(1)
    for number in range(1, 2000):
        leases.accept(chunk_of(1, number))
    assert len(given(leases)) == AHEAD_TASKS


def test_numbers_of_a_slot_go_on_after_a_death() -> None:
    leases = leases_at(SLOW)
    numbers = []
    for _ in range(3):
        leases.join(1)
        leases.accept(chunk_of(1))
        numbers += [lease.number for _, lease in given(leases)]
        dead(leases, 1)
    assert numbers == [1, 2, 3]
    assert leases.last_number(1) == 3
    assert leases.last_number(2) == 0


def test_all_waits_share_fairly_among_the_consumers() -> None:
    leases = leases_at(1_000_000)
    for slot in range(4):
        leases.join(slot)
    leases.accept(chunk_of(8))
    shares = collections.Counter[int]()
    for slot, lease in given(leases):
        shares[slot] += lease.span.tasks
    assert set(shares.values()) == {2}


def test_who_is_to_leave_gets_nothing_more_and_its_successor_does() -> None:
    leases = leases_at(SLOW)
    leases.retire(1)  # before it is ready
    for slot in (1, 2):
        leases.join(slot)
    leases.accept(chunk_of(3))
    assert [slot for slot, _ in given(leases)] == [2]
    leases.retire(2)
    reported(leases, 2, 1, 1)
    assert given(leases) == []
    dead(leases, 1)
    leases.join(1)
    assert [slot for slot, _ in given(leases)] == [1]


def test_what_is_sent_ahead_to_one_that_leaves_goes_to_others_when_it_is_gone() -> None:
    leases = leases_at(FAST)
    leases.join(1)
    leases.accept(chunk_of(10, number=1))
    leases.accept(chunk_of(10, number=2))
    assert [slot for slot, _ in given(leases)] == [1, 1]
    leases.retire(1)
    reported(leases, 1, 1, 4)
    back = dead(leases, 1)
    assert (back.suspect, sum(span.tasks for span in back.again)) == (None, 10)
    leases.join(2)
    assert sum(lease.span.tasks for _, lease in given(leases)) == 16
