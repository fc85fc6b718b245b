"""A consumer's loop, with a queue that hands it leases: what it counts and reports is what it did."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from conveyor import consuming, messages, outcomes
from conveyor.consuming import MAX_STRIDE, STRIDE_NS, Consumption
from conveyor.interruptions import Interruptions, StopRequestedError
from conveyor.ledger import NANOSECONDS, Closed, Flaw, Ledger, Order, Row, State, Tally
from conveyor.messages import LineReader, TaskFailed
from conveyor.queues import codec
from conveyor.queues.codec import Chunk
from conveyor.queues.seam import Failure, Lease, QueueEndedError
from conveyor.recycling import Limits
from support.clock import Clock

LONG_NS = 10**12
NO_LIMITS = Limits()
NEVER = 10**9


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(consuming, "_now_ns", clock)
    return clock


class FakeIntake:
    """A queue's end with some leases, and then the end; None is a time in which there is none.

    What lies behind a task that failed is another lease, with the next number.
    """

    def __init__(self, leases: list[Lease | None]) -> None:
        self.leases = deque(leases)
        self.reports: list[tuple[int, int, int]] = []
        self.failures: list[Failure] = []
        self.results: list[bytes] = []

    def take(self, timeout_seconds: float) -> Lease | None:
        if not self.leases:
            raise QueueEndedError
        return self.leases.popleft()

    def keep(self, result: bytes) -> None:
        self.results.append(result)

    def report(self, lease: Lease, done: int, failure: Failure | None, took_ns: int) -> None:
        self.reports.append((lease.number, done, took_ns))
        if failure is not None:
            self.failures.append(failure)
            first = lease.first + done + 1
            if first < lease.last:
                self.leases.appendleft(replace(lease, number=lease.number + 1, first=first))


def as_apart(tasks: list[Any]) -> Chunk:
    return codec.apart([codec.pickled(task) for task in tasks], 0)


def as_plain(tasks: list[Any]) -> Chunk:
    return codec.plain(tasks, 0)


def lease_of(
    tasks: list[Any],
    number: int = 1,
    part: tuple[int, int] | None = None,
    budget_ns: int = LONG_NS,
    write: Callable[[list[Any]], Chunk] = as_apart,
    offered_ns: int = 1_000_000_000,
    tries_left: int = 0,
) -> Lease:
    chunk = write(tasks)
    first, last = part or (0, len(tasks))
    payload = memoryview(b"".join(chunk.pieces))
    return Lease(number, chunk.codec, payload, chunk.count, first, last, offered_ns, budget_ns, tries_left)


class Stage:
    """A consumer's surroundings, all of them real but the queue."""

    def __init__(self, descriptors: tuple[int, int]) -> None:
        self.ledger = Ledger(1)
        self.row: Row = self.ledger.rows[0]
        self.interruptions = Interruptions(self.ledger, self.row, Order.STOP)
        self.read, self.write = descriptors
        self.done: list[Any] = []
        self.last_word: State | None = None

    def consume(
        self,
        leases: list[Lease | None],
        function: Callable[[Any], object] | None = None,
        *,
        stride: int = 1,
        keeps_results: bool = False,
        limits: Limits = NO_LIMITS,
    ) -> FakeIntake:
        intake = FakeIntake(leases)
        consumption = Consumption(
            function or self.done.append, intake, self.row, self.interruptions, self.write, keeps_results, limits
        )
        consumption._stride = stride
        self.last_word = consumption.run()
        return intake

    def tally(self, now_ns: int = 0) -> Tally:
        return self.row.read(now_ns)

    def failures(self) -> list[TaskFailed]:
        reader, told = LineReader(self.read), list[TaskFailed]()
        while lines := reader.read():
            for line in lines:
                message = messages.decode(line)
                assert isinstance(message, TaskFailed)
                told.append(message)
        return told


@pytest.fixture
def stage() -> Iterator[Stage]:
    descriptors = os.pipe()
    yield Stage(descriptors)
    for descriptor in descriptors:
        os.close(descriptor)


class OwnError(Exception):
    """The user's."""


# -- what is done ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [as_apart, as_plain])
@pytest.mark.parametrize("part", [(0, 20), (0, 1), (7, 8), (3, 19), (19, 20)])
def test_the_tasks_of_a_lease_are_done_in_order_and_counted(
    clock: Clock, stage: Stage, part: tuple[int, int], write: Callable[[list[Any]], Chunk]
) -> None:
    tasks = [(number, "a") for number in range(20)]
    intake = stage.consume([lease_of(tasks, part=part, write=write)])
    number = part[1] - part[0]
    assert stage.done == tasks[slice(*part)]
    assert intake.reports == [(1, number, 0)]
    tally = stage.tally()
    assert (tally.processed, tally.failed, tally.in_progress, sum(tally.waits)) == (number, 0, 0, number)


def test_many_leases_are_done_one_after_the_other(clock: Clock, stage: Stage) -> None:
    leases: list[Lease | None] = [lease_of([(n, p) for p in range(50)], number=n) for n in range(1, 30)]
    intake = stage.consume(leases)
    assert stage.done == [(n, p) for n in range(1, 30) for p in range(50)]
    assert intake.reports == [(n, 50, 0) for n in range(1, 30)]
    assert stage.tally().processed == 29 * 50


def test_the_count_is_stored_before_the_next_task_begins(clock: Clock, stage: Stage) -> None:
    seen = []

    def look(task: int) -> None:
        tally = stage.tally()
        seen.append((tally.processed, tally.in_progress, tally.lease))
        if task % 3 == 1:
            raise OwnError

    stage.consume([lease_of(list(range(20)), number=7)], look, stride=8)
    assert seen == [(place, 1, 7 + (place + 1) // 3) for place in range(20)]  # each failure ends a lease


def test_one_without_tasks_shows_life_and_asks_again(clock: Clock, stage: Stage) -> None:
    stage.consume([None, None, lease_of([1])])
    assert stage.done == [1]
    assert stage.tally().heartbeat_ns == clock.now_ns


# -- what fails --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [1, 2, 4, 5, 16])
@pytest.mark.parametrize(
    "bad",
    [{0}, {1}, {3}, {4}, {9}, {0, 1}, {3, 4}, {0, 9}, {1, 3, 5, 7, 9}, set(range(10))],
    ids=lambda bad: "".join(map(str, sorted(bad))),
)
@pytest.mark.parametrize("write", [as_apart, as_plain])
def test_a_task_that_fails_at_any_place_ends_its_lease_costs_itself_and_is_told_as_it_was_put(
    clock: Clock, stage: Stage, bad: set[int], stride: int, write: Callable[[list[Any]], Chunk]
) -> None:
    tasks = [f"task {number}" for number in range(12)]
    done = []

    def fail(task: str) -> None:
        clock.now_ns += 1000
        number = int(task.split()[1]) - 2
        if number in bad:
            raise OwnError(f"no {number}")
        done.append(number)

    intake = stage.consume([lease_of(tasks, part=(2, 12), write=write)], fail, stride=stride)
    assert done == [number for number in range(10) if number not in bad]
    edges = [-1, *sorted(bad), *([] if 9 in bad else [10])]
    assert [done for _, done, _ in intake.reports] == [b - a - 1 for a, b in itertools.pairwise(edges)]
    assert sum(took_ns for _, _, took_ns in intake.reports) == 10_000
    assert [(failure.error, failure.reason) for failure in intake.failures] == [
        ("OwnError", f"no {number}") for number in sorted(bad)
    ]
    tally = stage.tally()
    assert (tally.processed, tally.failed, tally.in_progress) == (10, len(bad), 0)
    assert sum(tally.succeeded) == 10 - len(bad)
    assert sum(tally.waits) == 10
    assert tally.task_ns == tally.busy_ns == 10_000
    told = stage.failures()
    assert [(failure.task, failure.reason, failure.is_final) for failure in told] == [
        (f"'task {number + 2}'", f"no {number}", True) for number in sorted(bad)
    ]


def test_a_failed_task_is_told_as_it_was_put_whatever_the_function_made_of_it(clock: Clock, stage: Stage) -> None:
    def spoil(task: list[int]) -> None:
        task.clear()
        raise OwnError

    stage.consume([lease_of([[1, 2]])], spoil)
    assert [failure.task for failure in stage.failures()] == ["[1, 2]"]


def test_only_the_first_failure_of_a_class_has_a_trace(clock: Clock, stage: Stage) -> None:
    def fail(task: int) -> None:
        raise OwnError if task < 3 else KeyError(task)

    stage.consume([lease_of(list(range(6)))], fail)
    assert [bool(failure.trace) for failure in stage.failures()] == [True, False, False, True, False, False]


class Fragile:
    """Raises when it arrives."""

    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def __setstate__(self, state: dict[str, type[BaseException]]) -> None:
        raise state["error"]("broken on its way")


@pytest.mark.parametrize("place", [0, 1, 4, 5])
@pytest.mark.parametrize("stride", [1, 3, 6])
def test_a_task_that_cannot_be_unpickled_fails_by_itself(clock: Clock, stage: Stage, place: int, stride: int) -> None:
    tasks: list[Any] = list(range(6))
    tasks[place] = Fragile(OwnError)
    intake = stage.consume([lease_of(tasks)], stride=stride)
    assert stage.done == [number for number in range(6) if number != place]
    assert sum(done for _, done, _ in intake.reports) == 5
    assert (stage.tally().processed, stage.tally().failed) == (6, 1)
    [failure] = stage.failures()
    assert (failure.error, failure.task) == ("OwnError", "(not unpickled)")


@pytest.mark.parametrize("stride", [1, 3])
def test_a_task_whose_unpickling_raises_stop_iteration_fails_like_any_other(
    clock: Clock, stage: Stage, stride: int
) -> None:
    stage.consume([lease_of([1, Fragile(StopIteration), 3])], stride=stride)
    assert stage.done == [1, 3]
    assert (stage.tally().processed, stage.tally().failed) == (3, 1)


def test_a_function_that_raises_stop_iteration_fails_like_any_other(clock: Clock, stage: Stage) -> None:
    def stop(task: int) -> None:
        raise StopIteration

    stage.consume([lease_of([1, 2, 3])], stop, stride=3)
    assert (stage.tally().processed, stage.tally().failed) == (3, 3)


@pytest.mark.parametrize("error", [SystemExit(0), KeyboardInterrupt(), StopRequestedError()])
def test_who_leaves_in_a_task_leaves_it_in_hand(clock: Clock, stage: Stage, error: BaseException) -> None:
    def leave(task: int) -> None:
        if task == 5:
            raise error

    with pytest.raises(type(error)):
        stage.consume([lease_of(list(range(10)), number=3)], leave, stride=4)
    tally = stage.tally()
    assert (tally.processed, tally.in_progress, tally.lease) == (5, 1, 3)
    assert sum(tally.succeeded) == 5


# -- what is tried again -----------------------------------------------------------------------------------


def fail_at(places: set[int], stage: Stage) -> Callable[[int], int]:
    def fail(task: int) -> int:
        if task in places:
            raise OwnError(f"no {task}")
        stage.done.append(task)
        return task

    return fail


@pytest.mark.parametrize("stride", [1, 3, 16])
@pytest.mark.parametrize("place", [0, 4, 9])
def test_a_task_with_tries_left_goes_back_and_is_not_counted(
    clock: Clock, stage: Stage, place: int, stride: int
) -> None:
    intake = stage.consume([lease_of(list(range(10)), tries_left=1)], fail_at({place}, stage), stride=stride)
    assert stage.done == [task for task in range(10) if task != place]
    assert intake.reports[0] == (1, place, 0)
    tally = stage.tally()
    assert (tally.processed, tally.failed, tally.retried, tally.in_progress) == (9, 0, 1, 0)
    assert [(failure.task, failure.is_final) for failure in stage.failures()] == [(str(place), False)]


def test_the_last_try_is_final(clock: Clock, stage: Stage) -> None:
    leases: list[Lease | None] = [
        lease_of([7], number=number, tries_left=tries) for number, tries in ((1, 2), (2, 1), (3, 0))
    ]
    stage.consume(leases, fail_at({7}, stage))
    tally = stage.tally()
    assert (tally.processed, tally.failed, tally.retried, tally.started) == (1, 1, 2, 3)
    assert [failure.is_final for failure in stage.failures()] == [False, False, True]


@pytest.mark.parametrize(("tries_left", "flaw"), [(0, Flaw.FINAL), (3, Flaw.AGAIN)])
def test_what_a_lease_came_to_is_in_the_ledger_before_it_is_reported(
    clock: Clock, stage: Stage, tries_left: int, flaw: Flaw
) -> None:
    seen: list[Closed | None] = []

    class Looking(FakeIntake):
        def report(self, lease: Lease, done: int, failure: Failure | None, took_ns: int) -> None:
            super().report(lease, done, failure, took_ns)
            seen.append(stage.row.closed(lease.number))

    intake = Looking([lease_of(list(range(6)), tries_left=tries_left)])
    Consumption(fail_at({0, 3}, stage), intake, stage.row, stage.interruptions, stage.write, False, Limits()).run()
    assert seen == [(0, flaw), (2, flaw), (2, Flaw.NONE)]
    assert [done for _, done, _ in intake.reports] == [0, 2, 2]


def test_the_queue_is_told_of_each_failure_with_its_trace(clock: Clock, stage: Stage) -> None:
    """A dead letter has it, though the log shows only the first of a class."""
    intake = stage.consume([lease_of([1, 2])], fail_at({1, 2}, stage))
    assert [failure.reason for failure in intake.failures] == ["no 1", "no 2"]
    for failure in intake.failures:
        assert failure.trace.startswith("Traceback")
        assert "in fail" in failure.trace
    assert [bool(failure.trace) for failure in stage.failures()] == [True, False]


def test_what_is_told_to_the_queue_is_cut(clock: Clock, stage: Stage) -> None:
    def fail(task: int) -> None:
        raise type("Long" * messages.MAX_TEXT, (Exception,), {})("long" * messages.MAX_TEXT)

    [failure] = stage.consume([lease_of([1])], fail).failures
    assert max(map(len, (failure.error, failure.reason, failure.trace))) < messages.MAX_TEXT + 100


def test_only_for_the_last_try_a_result_is_kept(clock: Clock, stage: Stage) -> None:
    leases: list[Lease | None] = [lease_of([1, 2], tries_left=1), lease_of([1], number=9)]
    intake = stage.consume(leases, fail_at({1}, stage), keeps_results=True)
    assert outcomes.value_of(intake.results[0]) == 2
    with pytest.raises(OwnError):
        outcomes.value_of(intake.results[1])
    assert len(intake.results) == 2


@pytest.mark.parametrize("stride", [1, 4, 16])
def test_a_wait_is_counted_once_for_each_time_that_a_task_was_started(clock: Clock, stage: Stage, stride: int) -> None:
    """Though a failure ends a stride in the middle: the others of it are begun in another lease."""
    stage.consume([lease_of(list(range(20)), tries_left=1)], fail_at({0, 5, 6, 11, 19}, stage), stride=stride)
    tally = stage.tally()
    assert sum(tally.waits) == tally.started == 20


# -- handing back ------------------------------------------------------------------------------------------


def test_who_has_spent_the_budget_hands_back_what_it_has_not_begun(clock: Clock, stage: Stage) -> None:
    def slow(task: int) -> None:
        stage.done.append(task)
        clock.now_ns += 4_000_000

    intake = stage.consume([lease_of(list(range(10)), budget_ns=10_000_000)], slow)
    assert stage.done == [0, 1, 2]
    assert intake.reports == [(1, 3, 12_000_000)]
    tally = stage.tally(clock.now_ns)
    assert (tally.processed, tally.in_progress, tally.busy_ns) == (3, 0, 12_000_000)


def test_without_a_budget_one_stride_is_done(clock: Clock, stage: Stage) -> None:
    def slow(task: int) -> None:
        clock.now_ns += 1

    assert stage.consume([lease_of([1, 2], budget_ns=0)], slow).reports == [(1, 1, 1)]


def test_what_was_taken_back_in_the_middle_is_not_done(clock: Clock, stage: Stage) -> None:
    def revoked_at_the_third(task: int) -> None:
        stage.done.append(task)
        if task == 2:
            stage.row.revoke(1, 3)

    intake = stage.consume([lease_of(list(range(100)))], revoked_at_the_third)
    assert stage.done == [0, 1, 2]
    assert intake.reports == [(1, 3, 0)]
    assert not stage.tally().in_progress


def test_in_the_middle_of_a_long_stride_it_stops_after_the_task_that_it_is_in(clock: Clock, stage: Stage) -> None:
    def revoked_at_the_800th(task: int) -> None:
        stage.done.append(task)
        if task == 800:
            stage.row.revoke(1, stage.tally().processed + 1)

    intake = stage.consume([lease_of(list(range(1000)))], revoked_at_the_800th)
    assert stage.done == list(range(801))
    assert intake.reports == [(1, 801, 0)]
    assert sum(stage.tally().succeeded[:-1]) == 801


# -- leaving -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [1, 4, 64])
@pytest.mark.parametrize("most", [1, 3, 10, 11, 19, 20])
def test_it_does_exactly_as_many_tasks_as_one_process_may(clock: Clock, stage: Stage, most: int, stride: int) -> None:
    def fail_some(task: int) -> None:
        stage.done.append(task)
        if task % 3 == 0:
            raise OwnError

    leases: list[Lease | None] = [lease_of(list(range(10)), number=n) for n in (1, 21, 41)]
    intake = stage.consume(leases, fail_some, stride=stride, limits=Limits(tasks=most))
    assert stage.last_word is State.RECYCLED
    passed = sum(done for _, done, _ in intake.reports) + len(intake.failures)
    assert len(stage.done) == stage.tally().processed == passed == most
    assert not stage.tally().in_progress


def test_a_queue_that_ends_first_is_the_end(clock: Clock, stage: Stage) -> None:
    stage.consume([lease_of([1, 2])], limits=Limits(tasks=3))
    assert stage.last_word is State.FINISHED


@pytest.mark.parametrize("stride", [1, 64])
def test_who_is_to_leave_does_so_after_the_task_that_it_is_in(clock: Clock, stage: Stage, stride: int) -> None:
    def ordered_at_the_third(task: int) -> None:
        stage.done.append(task)
        if task == 2:
            stage.row.order_leave()

    intake = FakeIntake([lease_of(list(range(100))), lease_of([1000], number=2)])
    consumption = Consumption(
        ordered_at_the_third, intake, stage.row, stage.interruptions, stage.write, False, NO_LIMITS
    )
    consumption._stride = stride
    with pytest.raises(StopRequestedError):
        consumption.run()
    assert stage.done == [0, 1, 2]
    assert intake.reports == [(1, 3, 0)]
    assert not stage.tally().in_progress


def test_who_is_to_leave_hands_a_lease_back_that_comes_too_late(clock: Clock, stage: Stage) -> None:
    class Ordering(FakeIntake):
        def take(self, timeout_seconds: float) -> Lease | None:
            stage.row.order_leave()
            return super().take(timeout_seconds)

    intake = Ordering([lease_of([1, 2])])
    with pytest.raises(StopRequestedError):
        Consumption(stage.done.append, intake, stage.row, stage.interruptions, stage.write, False, NO_LIMITS).run()
    assert (stage.done, intake.reports) == ([], [(1, 0, 0)])


def test_that_a_task_is_done_is_there_to_be_seen_before_the_order_is_read(stage: Stage) -> None:
    order: list[str] = []

    class Watched:
        def __init__(self, word: memoryview, name: str) -> None:
            self.word, self.name = word, name

        def __getitem__(self, index: int) -> int:
            order.append(f"read {self.name}")
            return int(self.word[index])

        def __setitem__(self, index: int, value: int) -> None:
            order.append(f"write {self.name}")
            self.word[index] = value

    stage.row.done = Watched(stage.row.done, "done")  # type: ignore[assignment]
    stage.row.stop = Watched(stage.row.stop, "stop")  # type: ignore[assignment]
    stage.consume([lease_of([1, 2])])
    assert [step for step in order if step != "read done"] == ["write done", "read stop"] * 2


def test_an_order_for_another_lease_makes_it_slower_but_stops_nothing(clock: Clock, stage: Stage) -> None:
    stage.row.revoke(7, 1)
    stage.consume([lease_of(list(range(100)))], stage.done.append)
    assert stage.done == list(range(100))


def test_a_lease_that_was_taken_back_before_it_was_opened_is_reported_as_not_begun(clock: Clock, stage: Stage) -> None:
    stage.row.void(2)
    intake = stage.consume([lease_of([1], number=n) for n in (1, 2, 3)])
    assert stage.done == [1]
    assert intake.reports == [(1, 0, 0), (2, 0, 0), (3, 1, 0)]
    assert (stage.tally().processed, stage.tally().is_busy) == (1, False)


def test_the_order_to_stop_is_obeyed_between_two_leases(clock: Clock, stage: Stage) -> None:
    def order(task: int) -> None:
        stage.done.append(task)
        stage.ledger.order = Order.STOP

    with pytest.raises(StopRequestedError):
        stage.consume([lease_of([1, 2], number=1), lease_of([3], number=2)], order)
    assert stage.done == [1, 2]
    assert not stage.tally().in_progress


# -- how it is timed ---------------------------------------------------------------------------------------


def claims(stage: Stage, clock: Clock, took_ns: Callable[[int], int], tasks: int, stride: int = 1) -> list[int]:
    """Return how many tasks were claimed at a time."""
    sizes: list[int] = []
    allowed = Row.allowed

    def noted(row: Row, number: int, finished: int, tasks: int) -> int:
        sizes.append(allowed(row, number, finished, tasks))
        return sizes[-1]

    def take_time(task: int) -> None:
        clock.now_ns += took_ns(task)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Row, "allowed", noted)
        stage.consume([lease_of(list(range(tasks)), write=as_plain)], take_time, stride=stride)
    return sizes


def test_strides_grow_while_tasks_are_fast_but_not_without_end(clock: Clock, stage: Stage) -> None:
    assert claims(stage, clock, lambda task: 10, 1000) == [1, 2, 4, 8, 16, 32, 64, 128, MAX_STRIDE, MAX_STRIDE, 233]


def test_slow_tasks_are_claimed_and_timed_one_by_one(clock: Clock, stage: Stage) -> None:
    assert claims(stage, clock, lambda task: 5_000_000, 10) == [1] * 10
    tally = stage.tally()
    assert tally.succeeded[2] == 10
    assert tally.task_ns == 50_000_000


def test_strides_shrink_when_tasks_become_slow(clock: Clock, stage: Stage) -> None:
    sizes = claims(stage, clock, lambda task: 1_000_000, 100, stride=64)
    assert sizes == [64, 8, *[1] * 28]


def test_a_stride_of_medium_length_stays_as_it_is(clock: Clock, stage: Stage) -> None:
    assert claims(stage, clock, lambda task: STRIDE_NS // 8, 64, stride=16) == [16] * 4


def test_waits_are_counted_from_the_offer_to_the_begin_of_the_stride(clock: Clock, stage: Stage) -> None:
    def slow(task: int) -> None:
        clock.now_ns += 1_000_000_000

    stage.consume([lease_of([1, 2], offered_ns=clock.now_ns - 3 * NANOSECONDS)], slow)
    assert stage.tally().wait_ns == (3 + 4) * NANOSECONDS


def test_the_wait_for_a_lease_is_not_busy(clock: Clock, stage: Stage) -> None:
    def slow(task: int) -> None:
        clock.now_ns += 1000

    intake = FakeIntake([lease_of([1]), lease_of([2], number=2)])
    take = intake.take

    def slow_take(timeout_seconds: float) -> Lease | None:
        clock.now_ns += 7_000_000
        return take(timeout_seconds)

    intake.take = slow_take  # type: ignore[method-assign]
    Consumption(slow, intake, stage.row, stage.interruptions, stage.write, False, NO_LIMITS).run()
    assert stage.tally(clock.now_ns).busy_ns == 2000


# -- results -----------------------------------------------------------------------------------------------


def test_each_task_has_one_result_before_it_is_counted(clock: Clock, stage: Stage) -> None:
    kept = []

    def double(task: int) -> int:
        kept.append((len(intake.results), stage.tally().processed))
        if task == 3:
            raise OwnError("three")
        return 2 * task

    intake = FakeIntake([lease_of(list(range(6)))])
    Consumption(double, intake, stage.row, stage.interruptions, stage.write, True, NO_LIMITS).run()
    assert kept == [(place, place) for place in range(6)]
    values = []
    for result in intake.results:
        try:
            values.append(outcomes.value_of(result))
        except OwnError as error:
            values.append(str(error))
    assert values == [0, 2, 4, "three", 8, 10]


def test_a_result_that_cannot_be_pickled_is_a_failure_of_its_task(clock: Clock, stage: Stage) -> None:
    intake = stage.consume([lease_of([1, 2])], lambda task: lambda: task, keeps_results=True)
    assert (len(intake.results), stage.tally().failed) == (2, 2)


# -- forks -------------------------------------------------------------------------------------------------


def be_a_child(deed: str) -> None:
    match deed:
        case "exit":
            raise SystemExit(3)
        case "raise":
            raise OwnError
        case "_exit":
            os._exit(5)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize(
    ("deed", "code", "keeps_results"),
    [
        ("return", 0, False),
        ("exit", 3, False),
        ("raise", 1, False),
        ("_exit", 5, False),
        ("return", 0, True),
        ("exit", 3, True),
        ("raise", 1, True),
        ("_exit", 5, True),
    ],
)
def test_a_child_that_the_function_has_forked_leaves_without_touching_anything(
    clock: Clock, stage: Stage, deed: str, code: int, keeps_results: bool
) -> None:
    read, write = os.pipe()
    pid, codes = os.getpid(), list[int]()

    def fork(task: int) -> None:
        stage.done.append(task)
        if task == 3:
            child = os.fork()
            if child == 0:
                stage.row.release()  # as the worker has it done after each fork
                be_a_child(deed)
            else:
                codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    intake = FakeIntake([lease_of(list(range(6)))])
    touch = intake.keep

    def keep(result: bytes) -> None:
        if os.getpid() != pid:
            os.write(write, b"!")
        touch(result)

    intake.keep = keep  # type: ignore[method-assign]
    consumption = Consumption(fork, intake, stage.row, stage.interruptions, stage.write, keeps_results, NO_LIMITS)
    consumption._stride = 4
    consumption.run()
    os.close(write)
    touched = os.read(read, 1)
    os.close(read)
    assert (codes, stage.done, intake.reports, touched) == ([code], list(range(6)), [(1, 6, 0)], b"")
    assert stage.tally().processed == 6
    assert stage.failures() == []
