"""Who does what: no task is lost and none done twice but the one in dead hands, whatever happens in what order."""

from __future__ import annotations

import collections
import random
from collections import deque
from dataclasses import dataclass, field

import pytest

from conveyor.queues.codec import Codec
from conveyor.queues.leases import AHEAD_TASKS, Lease, Leases, Span, StoredChunk
from conveyor.queues.pace import LEASE_NS, Pace

MAX_ATTEMPTS = 3
GAMES = 20  # arbitrary: more find no more, but take longer
FAST, SLOW = 1_000, 50_000_000  # nanoseconds that a task takes
Task = tuple[int, int]  # (number of its chunk, place in it)


def chunk_of(tasks: int, number: int = 1) -> StoredChunk:
    return StoredChunk(1, number, Codec.APART, tasks, offset=0, size=tasks, offered_ns=0, left=tasks)


def leases_at(task_ns: int | None, max_attempts: int = MAX_ATTEMPTS) -> Leases:
    """Return leases that have learned how long tasks take."""
    pace = Pace()
    if task_ns is not None:
        pace.learn(1, task_ns)
    return Leases(max_attempts, pace)


def given(leases: Leases, now_ns: int = 0) -> list[tuple[int, Lease]]:
    return list(leases.grants(now_ns))


def places(span: Span) -> list[int]:
    return list(range(span.first, span.last))


# -- played against a model --------------------------------------------------------------------------------


@dataclass
class Parcel:
    """A lease as its consumer was told of it; what is cut off afterwards it does not know."""

    number: int
    chunk: StoredChunk
    first: int
    count: int


@dataclass
class Consumer:
    """One process, as its ledger row and its socket show it."""

    inbox: deque[Parcel] = field(default_factory=deque)
    opened: Parcel | None = None
    done: int = 0
    claimed: int = 0
    reports: deque[tuple[Parcel, int]] = field(default_factory=deque)
    """Sent, and not read by the supervisor."""


class World:
    """Plays consumers that work, lag and die, and knows where each task must be."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.pace = Pace()
        self.leases = Leases(MAX_ATTEMPTS, self.pace)
        self.now_ns = 0
        self.chunks: dict[int, StoredChunk] = {}
        self.where: dict[Task, str] = {}
        self.poison: set[Task] = set()
        """Tasks that kill whoever begins with them."""
        self.executed: dict[Task, int] = {}
        self.attempts: dict[Task, int] = {}
        self.freed: list[int] = []
        self.consumers: dict[int, Consumer] = {}
        # A slot's row outlives its process.
        self.finished = dict.fromkeys(range(4), 0)
        self.void = dict.fromkeys(range(4), 0)
        self.halt = dict.fromkeys(range(4), (0, 0))

    # -- what happens --------------------------------------------------------------------------------------

    def accept(self) -> None:
        if len(self.chunks) >= 50:
            return
        chunk = chunk_of(self.random.choice([1, 1, 2, 7, 40]), len(self.chunks) + 1)
        self.chunks[chunk.number] = chunk
        for place in range(chunk.count):
            self.where[chunk.number, place] = "waiting"
            if self.random.random() < 0.03:
                self.poison.add((chunk.number, place))
        self.leases.accept(chunk)

    def join(self) -> None:
        free = [slot for slot in self.finished if slot not in self.consumers]
        if free:
            slot = self.random.choice(free)
            self.consumers[slot] = Consumer()
            self.leases.join(slot, self.finished[slot])

    def grant(self) -> None:
        for slot, lease in self.leases.grants(self.now_ns):
            span = lease.span
            consumer = self.consumers[slot]
            told = [parcel.number for parcel in consumer.inbox]
            assert not told or told[-1] < lease.number
            consumer.inbox.append(Parcel(lease.number, span.chunk, span.first, span.tasks))
            for place in places(span):
                assert self.where[span.chunk.number, place] in ("waiting", "suspect")
                self.where[span.chunk.number, place] = f"held by {slot}"
            self.check()

    def learn(self) -> None:
        self.pace.learn(1, self.random.choice([100, 10_000, 1_000_000, 100_000_000]))

    def work(self) -> None:
        """Have a consumer go one step further, as its loop does."""
        if not self.consumers:
            return
        slot = self.random.choice(list(self.consumers))
        consumer = self.consumers[slot]
        parcel = consumer.opened
        if parcel is None:
            if consumer.inbox:
                self.open(slot, consumer, consumer.inbox.popleft())
        elif consumer.done == parcel.count or self.random.random() < 0.05 < consumer.done:
            consumer.reports.append((parcel, consumer.done))  # all, or the budget is spent
            consumer.opened = None
        elif consumer.done < consumer.claimed and (parcel.chunk.number, parcel.first + consumer.done) in self.poison:
            self.bury(slot)
        elif consumer.done < consumer.claimed:
            self.executed[parcel.chunk.number, parcel.first + consumer.done] = (
                self.executed.get((parcel.chunk.number, parcel.first + consumer.done), 0) + 1
            )
            consumer.done += 1
            self.finished[slot] += 1
        else:
            self.claim(slot, consumer, parcel)

    def open(self, slot: int, consumer: Consumer, parcel: Parcel) -> None:
        if parcel.number <= self.void[slot]:
            consumer.reports.append((parcel, 0))
            return
        consumer.opened, consumer.done, consumer.claimed = parcel, 0, 0
        self.claim(slot, consumer, parcel)

    def claim(self, slot: int, consumer: Consumer, parcel: Parcel) -> None:
        most = min(consumer.done + self.random.choice([1, 1, 8]), parcel.count)
        number, limit = self.halt[slot]
        if number == parcel.number:
            most = min(most, limit)
        consumer.claimed = most
        if most <= consumer.done:
            consumer.reports.append((parcel, consumer.done))
            consumer.opened = None

    def read_report(self) -> None:
        slots = [slot for slot, consumer in self.consumers.items() if consumer.reports]
        if slots:
            self.hear(self.random.choice(slots))

    def hear(self, slot: int) -> None:
        parcel, done = self.consumers[slot].reports.popleft()
        known = next(iter(self.leases._holders[slot].leases), None)
        result = self.leases.report(slot, parcel.number, done)
        if known is None or known.number != parcel.number:
            assert result is None  # it was taken back, and the consumer has refused to open it
            assert done == 0
            return
        assert result is not None
        assert places(result[0]) == list(range(parcel.first, parcel.first + done))
        self.settle(result[0], "done")
        for place in range(parcel.first + done, parcel.first + parcel.count):
            task = parcel.chunk.number, place
            if self.where[task] == f"held by {slot}":
                self.put_back(task)
        self.count_freed(parcel.chunk)

    def settle(self, span: Span, end: str) -> None:
        for place in places(span):
            task = span.chunk.number, place
            assert self.where[task] not in ("done", "dead letter")
            self.where[task] = end

    def count_freed(self, chunk: StoredChunk) -> None:
        if not chunk.left and chunk.number not in self.freed:
            self.freed.append(chunk.number)

    def put_back(self, task: Task) -> None:
        self.where[task] = "suspect" if self.attempts.get(task) else "waiting"

    def die(self) -> None:
        if self.consumers:
            self.bury(self.random.choice(list(self.consumers)))

    def bury(self, slot: int) -> None:
        while self.consumers[slot].reports:  # the supervisor reads all that the dead one had sent
            self.hear(slot)
        consumer = self.consumers.pop(slot)
        parcel = consumer.opened
        in_hand = parcel.number if parcel is not None and consumer.done < parcel.count else 0
        number, limit = self.halt[slot]
        is_cut_off = parcel is not None and parcel.number == number and consumer.done >= limit
        is_cut_off = is_cut_off and self.leases._holders[slot].tasks == consumer.done
        done, again, suspect = self.leases.bury(slot, self.finished[slot], in_hand)
        # Its row may say that it is in a task when it was about to hear that there is none left for it.
        assert (suspect is not None) == (bool(in_hand) and not is_cut_off)
        if suspect is not None and parcel is not None:
            task = parcel.chunk.number, parcel.first + consumer.done
            assert (suspect.chunk.number, suspect.place) == task
            self.attempts[task] = self.attempts.get(task, 0) + 1
            assert suspect.attempt == self.attempts[task]
            assert suspect.is_dead_letter == (suspect.attempt == MAX_ATTEMPTS)
        for span in done:
            is_dead = suspect is not None and suspect.is_dead_letter and places(span) == [suspect.place]
            self.settle(span, "dead letter" if is_dead and span.chunk is suspect.chunk else "done")  # type: ignore[union-attr]
            self.count_freed(span.chunk)
        for span in again:
            for place in places(span):
                assert self.where[span.chunk.number, place] == f"held by {slot}"
                self.put_back((span.chunk.number, place))

    def cut(self) -> None:
        """Take back what a consumer has not claimed, as the supervisor does once it is sure."""
        slots = [slot for slot, holder in self.leases._holders.items() if holder.leases]
        if not slots:
            return
        slot = self.random.choice(slots)
        while self.consumers[slot].reports:  # what was sent before the look is read before the deed
            self.hear(slot)
        if not self.leases._holders[slot].leases:
            return
        consumer, first = self.consumers[slot], self.leases._holders[slot].leases[0]
        is_open = consumer.opened is not None and consumer.opened.number == first.number
        claimed = consumer.claimed if is_open else 0
        self.void[slot] = self.leases.last_number(slot)
        self.halt[slot] = first.number, claimed
        if self.random.random() < 0.3:
            return  # it had gone on meanwhile: all that comes of it is a refusal
        for span in self.leases.cut(slot, first.number, claimed):
            for place in places(span):
                assert self.where[span.chunk.number, place] == f"held by {slot}"
                self.put_back((span.chunk.number, place))

    def lie(self) -> None:
        """Hear of a lease that nobody has: all of it is ignored."""
        slot = self.random.randrange(5)
        holder = self.leases._holders.get(slot)
        number = holder.leases[0].number + 1 if holder is not None and holder.leases else 10**6
        assert self.leases.report(slot, number, 1) is None
        assert self.leases.cut(slot, number, 0) == []
        if slot not in self.consumers:
            assert self.leases.bury(slot, 10**6, 1) == ([], [], None)

    # -- what must be so -----------------------------------------------------------------------------------

    def check(self) -> None:
        seen: dict[Task, str] = {}

        def see(span: Span, where: str) -> None:
            for place in places(span):
                task = span.chunk.number, place
                assert task not in seen, f"{task} is {seen[task]} and {where}"
                seen[task] = where

        for span in self.leases._waiting:
            see(span, "waiting")
        for span in self.leases._suspects:
            assert span.tasks == 1
            see(span, "suspect")
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
        over = {task for task, where in self.where.items() if where in ("done", "dead letter")}
        assert seen == {task: where for task, where in self.where.items() if task not in over}
        for chunk in self.chunks.values():
            assert chunk.left == sum((chunk.number, place) not in over for place in range(chunk.count))
        nobodys = [where for where in seen.values() if where in ("waiting", "suspect")]
        assert self.leases.waiting_tasks == len(nobodys)
        assert self.leases.is_empty == (not nobodys)
        assert self.leases._held_tasks == len(seen) - len(nobodys)
        assert all(times == 1 for times in self.executed.values())

    def is_suspect(self, span: Span) -> bool:
        return any(self.attempts.get((span.chunk.number, place)) for place in places(span))

    def play(self, steps: int) -> None:
        deeds = [self.accept, self.join, self.grant, self.learn, self.work, self.read_report, self.die, self.cut]
        weights = [6, 4, 12, 1, 60, 12, self.random.choice([1, 5]), 2]
        for _ in range(steps):
            self.now_ns += 100_000
            self.random.choices([*deeds, self.lie], [*weights, 1])[0]()
            self.check()

    def finish(self) -> None:
        """Let everybody live until nothing is left."""
        for _ in range(100_000):
            if all(where in ("done", "dead letter") for where in self.where.values()):
                return
            for deed in (self.join, self.grant, self.work, self.work, self.read_report):
                deed()
        raise AssertionError(f"never done: {[t for t, where in self.where.items() if where != 'done'][:5]}")


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


def test_the_games_come_to_everything_that_can_happen() -> None:
    """Else the games above would claim more than they play."""
    ends: set[str] = set()
    for seed in range(GAMES):
        world = World(seed)
        world.play(700)
        ends |= {where.split()[0] for where in world.where.values()}
        ends |= {f"attempt {number}" for number in world.attempts.values()}
    assert ends == {"waiting", "suspect", "held", "done", "dead", "attempt 1", "attempt 2", "attempt 3"}


# -- one by one --------------------------------------------------------------------------------------------


def test_what_is_handed_back_goes_before_what_came_later() -> None:
    leases, first, second = leases_at(FAST), chunk_of(4, 1), chunk_of(4, 2)
    leases.join(1, 0)
    leases.accept(first)
    [(_, lease)] = given(leases)
    leases.accept(second)
    assert leases.report(1, lease.number, 1) is not None
    [(_, again), (_, later)] = given(leases)
    assert (again.span.chunk, places(again.span)) == (first, [1, 2, 3])
    assert later.span.chunk is second


def test_what_a_dead_consumer_held_waits_at_the_front_in_its_old_order() -> None:
    leases, chunks = leases_at(FAST), [chunk_of(2, number) for number in range(1, 5)]
    leases.join(1, 0)
    for chunk in chunks:
        leases.accept(chunk)
    held = len(given(leases))
    assert held > 1
    leases.accept(chunk_of(2, 5))
    done, again, suspect = leases.bury(1, 1, 0)
    assert suspect is None
    assert [(span.chunk.number, places(span)) for span in done] == [(1, [0])]
    assert [span.chunk.number for span in again] == list(range(1, held + 1))
    leases.join(2, 0)
    order = [(lease.span.chunk.number, place) for _, lease in given(leases) for place in places(lease.span)]
    assert order[: 2 * held - 1] == [(n, p) for n in range(1, held + 1) for p in (0, 1)][1:]


def test_the_count_alone_tells_which_tasks_are_done_over_several_leases() -> None:
    leases = leases_at(FAST)
    leases.join(1, 100)
    for number in range(1, 4):
        leases.accept(chunk_of(2, number))
    granted = [lease for _, lease in given(leases)]
    done, again, suspect = leases.bury(1, 103, granted[1].number)
    assert [(span.chunk.number, places(span)) for span in done] == [(1, [0, 1]), (2, [0])]
    assert suspect is not None
    assert (suspect.chunk.number, suspect.place, suspect.attempt) == (2, 1, 1)
    assert [(span.chunk.number, places(span)) for span in again] == [(2, [1]), (3, [0, 1])]


def test_a_suspect_is_first_and_alone_and_its_holder_gets_more_only_when_it_is_done() -> None:
    leases = leases_at(FAST)
    leases.join(1, 0)
    leases.accept(chunk_of(3))
    [(_, lease)] = given(leases)
    leases.bury(1, 1, lease.number)
    leases.join(2, 0)
    [(slot, alone)] = given(leases)
    assert (slot, places(alone.span)) == (2, [1])
    assert given(leases) == []
    leases.report(2, alone.number, 1)
    assert [places(lease.span) for _, lease in given(leases)] == [[2]]


def test_a_suspect_that_its_next_consumer_never_opened_stays_a_suspect() -> None:
    """Its holder was killed while it was idle: that says nothing for the task."""
    leases = leases_at(FAST)
    leases.join(1, 0)
    leases.accept(chunk_of(3))
    [(_, lease)] = given(leases)
    leases.bury(1, 1, lease.number)
    leases.join(2, 0)
    given(leases)
    assert leases.bury(2, 0, 0)[2] is None
    leases.join(3, 0)
    [(_, alone)] = given(leases)
    assert places(alone.span) == [1]


@pytest.mark.parametrize("deed", ["handed back", "cut"])
def test_a_suspect_that_is_taken_back_stays_a_suspect(deed: str) -> None:
    leases = leases_at(FAST)
    leases.join(1, 0)
    leases.accept(chunk_of(3))
    [(_, lease)] = given(leases)
    leases.bury(1, 1, lease.number)
    leases.join(2, 0)
    [(_, alone)] = given(leases)
    if deed == "cut":
        leases.cut(2, alone.number, 0)
    leases.report(2, alone.number, 0)
    assert [places(lease.span) for _, lease in given(leases)] == [[1]]


def test_a_suspect_is_not_starved_by_a_stream_that_never_ends() -> None:
    """While it waits, nobody is sent more ahead: so somebody gets free for it."""
    leases, poison = leases_at(FAST), chunk_of(1, 1)
    for slot in (1, 2):
        leases.join(slot, 0)
    for chunk in (poison, *(chunk_of(20, number) for number in range(2, 6))):
        leases.accept(chunk)
    granted = given(leases)
    held = deque(lease for slot, lease in granted if slot == 2)
    assert len(held) > 1
    leases.bury(1, 0, next(lease.number for _, lease in granted if lease.span.chunk is poison))
    for number in range(6, 100):
        lease = held.popleft()
        if lease.span.chunk is poison:
            return
        leases.report(2, lease.number, lease.span.tasks)
        leases.accept(chunk_of(20, number))
        held += [lease for _, lease in given(leases)]
    raise AssertionError("the suspect never got its turn")


def test_a_task_that_kills_again_and_again_is_given_up_and_its_chunk_freed() -> None:
    leases, chunk = leases_at(FAST), chunk_of(2)
    leases.accept(chunk)
    attempts = []
    for slot in range(1, MAX_ATTEMPTS + 1):
        leases.join(slot, 0)
        [(_, lease), *_] = given(leases)
        done, _, suspect = leases.bury(slot, 0, lease.number)
        assert suspect is not None
        attempts.append((suspect.place, suspect.attempt, suspect.is_dead_letter, [places(span) for span in done]))
    assert attempts == [(0, 1, False, []), (0, 2, False, []), (0, 3, True, [[0]])]
    assert chunk.left == 1
    leases.join(9, 0)
    [(_, lease)] = given(leases)
    assert places(lease.span) == [1]
    leases.report(9, lease.number, 1)
    assert chunk.left == 0


def test_with_one_attempt_a_death_is_the_end_of_its_task() -> None:
    leases, chunk = leases_at(FAST, max_attempts=1), chunk_of(1)
    leases.accept(chunk)
    leases.join(1, 0)
    [(_, lease)] = given(leases)
    done, again, suspect = leases.bury(1, 0, lease.number)
    assert suspect is not None
    assert suspect.is_dead_letter
    assert ([places(span) for span in done], again, chunk.left, leases.is_empty) == ([[0]], [], 0, True)


def test_attempts_are_counted_for_each_task_by_itself() -> None:
    leases, chunk = leases_at(FAST), chunk_of(2)
    leases.accept(chunk)
    for slot, attempts in ((1, {0: 1}), (2, {0: 2})):
        leases.join(slot, 0)
        [(_, lease), *_] = given(leases)
        leases.bury(slot, 0, lease.number)
        assert chunk.attempts == attempts
    leases.join(3, 0)
    leases.join(4, 0)
    slots = {lease.span.first: (slot, lease.number) for slot, lease in given(leases)}
    leases.bury(slots[1][0], 0, slots[1][1])
    assert chunk.attempts == {0: 2, 1: 1}


# -- cutting -----------------------------------------------------------------------------------------------


def sitting(tasks: int = 10) -> tuple[Leases, Lease]:
    """Return leases whose consumer 1 holds all tasks, and an idle consumer 2."""
    leases = leases_at(FAST)
    leases.join(1, 0)
    leases.accept(chunk_of(tasks))
    [(_, lease)] = given(leases)
    leases.join(2, 0)
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
    leases.join(1, 0)
    assert not leases.may_be_overdue
    assert leases.overdue(10 * LEASE_NS) == []


def test_what_is_cut_off_goes_to_the_idle_and_the_late_report_counts_only_what_was_left() -> None:
    leases, lease = sitting()
    assert [places(span) for span in leases.cut(1, lease.number, 3)] == [list(range(3, 10))]
    [(slot, other)] = given(leases)
    assert (slot, places(other.span)) == (2, list(range(3, 10)))
    result = leases.report(1, lease.number, 3)
    assert result is not None
    assert (places(result[0]), result[1]) == ([0, 1, 2], 0)
    assert lease.span.chunk.left == 7


def test_leases_that_were_sent_ahead_are_cut_as_well_and_their_reports_count_for_nothing() -> None:
    leases = leases_at(FAST)
    leases.join(1, 0)
    for number in (1, 2, 3):
        leases.accept(chunk_of(2, number))
    first, *ahead = [lease for _, lease in given(leases)]
    assert ahead
    leases.cut(1, first.number, 1)
    assert leases.waiting_tasks == 5
    assert leases.report(1, first.number, 1) is not None
    assert [leases.report(1, lease.number, 2) for lease in ahead] == [None] * len(ahead)
    assert leases.waiting_tasks == 5


def test_a_lease_that_is_cut_to_nothing_still_has_its_consumer_busy_until_it_says_so() -> None:
    leases, lease = sitting()
    leases.cut(1, lease.number, 0)
    assert [slot for slot, _ in given(leases)] == [2]
    result = leases.report(1, lease.number, 0)
    assert result is not None
    assert (result[0].tasks, result[1]) == (0, 0)
    leases.accept(chunk_of(1, 2))
    assert [slot for slot, _ in given(leases)] == [1]


def test_a_cut_of_a_lease_that_is_not_the_first_any_more_does_nothing() -> None:
    leases, lease = sitting()
    leases.report(1, lease.number, 10)
    assert leases.cut(1, lease.number, 0) == []
    assert leases.cut(7, 1, 0) == []


def test_who_dies_after_a_cut_loses_only_what_was_left_to_it() -> None:
    leases, lease = sitting()
    leases.cut(1, lease.number, 3)
    done, again, suspect = leases.bury(1, 2, lease.number)
    assert suspect is not None
    assert ([places(span) for span in done], suspect.place, [places(s) for s in again]) == ([[0, 1]], 2, [[2]])
    assert leases.waiting_tasks == 8


# -- how much ----------------------------------------------------------------------------------------------


def test_slow_tasks_are_given_one_at_a_time() -> None:
    leases = leases_at(SLOW)
    leases.join(1, 0)
    leases.accept(chunk_of(5))
    assert [places(lease.span) for _, lease in given(leases)] == [[0]]


def test_fast_tasks_are_sent_ahead_but_not_without_end() -> None:
    leases = leases_at(FAST)
    leases.join(1, 0)
    for number in range(1, 2000):
        leases.accept(chunk_of(1, number))
    assert len(given(leases)) == AHEAD_TASKS


def test_numbers_of_a_slot_go_on_after_a_death() -> None:
    leases = leases_at(SLOW)
    numbers = []
    for _ in range(3):
        leases.join(1, 0)
        leases.accept(chunk_of(1))
        numbers += [lease.number for _, lease in given(leases)]
        leases.bury(1, 0, 0)
    assert numbers == [1, 2, 3]
    assert leases.last_number(1) == 3
    assert leases.last_number(2) == 0


def test_all_waits_share_fairly_among_the_consumers() -> None:
    leases = leases_at(1_000_000)
    for slot in range(4):
        leases.join(slot, 0)
    leases.accept(chunk_of(8))
    shares = collections.Counter[int]()
    for slot, lease in given(leases):
        shares[slot] += lease.span.tasks
    assert set(shares.values()) == {2}


def test_who_is_to_leave_gets_nothing_more_and_its_successor_does() -> None:
    leases = leases_at(SLOW)
    leases.retire(1)  # before it is ready
    for slot in (1, 2):
        leases.join(slot, 0)
    leases.accept(chunk_of(3))
    assert [slot for slot, _ in given(leases)] == [2]
    leases.retire(2)
    leases.report(2, 1, 1)
    assert given(leases) == []
    leases.bury(1, 0, 0)
    leases.join(1, 0)
    assert [slot for slot, _ in given(leases)] == [1]


def test_what_is_sent_ahead_to_one_that_leaves_goes_to_others_when_it_is_gone() -> None:
    leases = leases_at(FAST)
    leases.join(1, 0)
    leases.accept(chunk_of(10, number=1))
    leases.accept(chunk_of(10, number=2))
    assert [slot for slot, _ in given(leases)] == [1, 1]
    leases.retire(1)
    leases.report(1, 1, 4)
    _, again, suspect = leases.bury(1, 4, 0)
    assert (suspect, sum(span.tasks for span in again)) == (None, 10)
    leases.join(2, 0)
    assert sum(lease.span.tasks for _, lease in given(leases)) == 16
