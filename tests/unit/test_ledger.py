"""The ledger: what a row says, whatever moment its writer died at."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from typing import Any

import pytest

from conveyor import ledger as module
from conveyor.descriptors import Descriptor
from conveyor.ledger import (
    CLOSED_LEASES,
    NANOSECONDS,
    TASK_EDGES_SECONDS,
    WAIT_EDGES_SECONDS,
    Closed,
    Flaw,
    Ledger,
    Order,
    Row,
    State,
    Tally,
)

SECOND = NANOSECONDS


@pytest.fixture
def row() -> Row:
    return Ledger(3).rows[1]


def test_rows_fit_and_do_not_overlap() -> None:
    assert module._READ <= module._CLOSED
    ledger = Ledger(2)
    ledger.rows[0].count_put(1)
    assert [r.read(1).put for r in ledger.rows] == [1, 0]
    assert ledger.order is Order.WORK


def test_a_new_row_is_all_zero(row: Row) -> None:
    tally = row.read(5 * SECOND)
    assert (tally.put, tally.started, tally.processed, tally.failed) == (0, 0, 0, 0)
    assert (tally.busy_ns, tally.blocked_ns, tally.state) == (0, 0, State.STARTING)


def begin(row: Row, tasks: int = 1, at_ns: int = SECOND, number: int = 1, waited_ns: int = 0) -> None:
    """Open a lease and begin with all of its tasks."""
    assert row.open_lease(number, tasks, at_ns)
    assert row.allowed(number, 0, tasks) == tasks
    row.begin_tasks(tasks, at_ns, waited_ns)


def succeed(row: Row, tasks: int = 1) -> None:
    """Finish tasks, as the consumer's loop does."""
    row.done[0] += tasks


def do_one(row: Row, at_ns: int, took_ns: int, *, failed: bool = False, waited_ns: int = 0) -> None:
    """Do a lease of one task."""
    begin(row, 1, at_ns, row.read(at_ns).lease + 1, waited_ns)
    if failed:
        row.fail_task(row.read(at_ns).lease, 0, took_ns)
        row.time_tasks(0, took_ns, failed=True)
    else:
        succeed(row)
        row.time_tasks(1, took_ns)
    row.close_lease(at_ns + took_ns)


@pytest.mark.parametrize("failed", [False, True])
@pytest.mark.parametrize(("seconds", "bucket"), [(0.0, 0), (0.001, 0), (0.0011, 1), (30.0, 13), (31.0, 14)])
def test_a_task_falls_into_the_bucket_whose_edge_it_does_not_pass(
    row: Row, seconds: float, bucket: int, failed: bool
) -> None:
    do_one(row, SECOND, round(seconds * SECOND), failed=failed)
    tally = row.read(60 * SECOND)
    assert (tally.failures if failed else tally.succeeded)[bucket] == 1
    assert sum(tally.succeeded) + sum(tally.failures) == tally.processed == 1


def test_buckets_are_as_many_as_the_edges_and_one() -> None:
    tally = Ledger(1).rows[0].read(0)
    assert len(tally.succeeded) == len(tally.failures) == len(TASK_EDGES_SECONDS) + 1
    assert len(tally.waits) == len(WAIT_EDGES_SECONDS) + 1


def test_totals_are_the_sums_of_their_histograms(row: Row) -> None:
    for number in range(10):
        do_one(row, SECOND * number, SECOND // 2, failed=number % 5 == 0, waited_ns=SECOND)
    tally = row.read(20 * SECOND)
    assert (tally.started, tally.processed, tally.failed, sum(tally.waits)) == (10, 10, 2, 10)
    assert tally.task_ns == tally.busy_ns == 5 * SECOND
    assert tally.wait_ns == 10 * SECOND


def test_tasks_that_succeeded_and_are_not_timed_count_in_the_last_bucket(row: Row) -> None:
    """So the histogram's count is that of the tasks, and no bucket falls once they are timed: `le` counts only rise."""
    begin(row, 5)
    succeed(row, 3)
    tally = row.read(2 * SECOND)
    assert (tally.processed, tally.succeeded[-1], sum(tally.succeeded)) == (3, 3, 3)
    row.time_tasks(3, 1000)
    tally = row.read(2 * SECOND)
    assert (tally.processed, tally.succeeded[0], sum(tally.succeeded)) == (3, 3, 3)


def test_a_fast_stride_is_in_the_first_bucket_and_a_slow_one_had_one_slow_task(row: Row) -> None:
    begin(row, 40)
    succeed(row, 32)
    row.time_tasks(32, SECOND // 10_000)
    succeed(row, 8)
    row.time_tasks(8, SECOND // 5)
    tally = row.read(2 * SECOND)
    assert (tally.succeeded[0], tally.succeeded[7]) == (39, 1)


def test_the_tasks_before_one_that_failed_were_not_the_slow_ones(row: Row) -> None:
    begin(row, 4)
    succeed(row, 3)
    row.fail_task(1, 3, SECOND)
    row.time_tasks(3, SECOND, failed=True)
    tally = row.read(2 * SECOND)
    assert (tally.succeeded[0], tally.failures[9], tally.task_ns) == (3, 1, SECOND)


def test_a_wait_that_two_clocks_make_negative_counts_as_none(row: Row) -> None:
    begin(row, waited_ns=-5)
    tally = row.read(SECOND)
    assert (tally.waits[0], tally.wait_ns) == (1, 0)


def test_a_consumer_outlives_any_sum_of_waits(row: Row) -> None:
    """Ten million tasks that wait half an hour each are enough for that: no bound, and a producer far ahead."""
    for number in range(2):
        begin(row, 10**7, number=number + 1, waited_ns=30 * 60 * SECOND)
        row.close_lease(SECOND)


def test_busy_time_grows_during_a_lease_and_stays_after_it(row: Row) -> None:
    begin(row, at_ns=1 * SECOND)
    assert row.read(4 * SECOND).busy_ns == 3 * SECOND
    row.close_lease(6 * SECOND)
    assert row.read(60 * SECOND).busy_ns == 5 * SECOND


def test_a_watch_never_reads_backwards(row: Row) -> None:
    begin(row, at_ns=10 * SECOND)
    assert row.read(DIED).busy_ns == 0


def test_settling_stops_the_watches_that_a_dead_process_left_running(row: Row) -> None:
    begin(row, at_ns=1 * SECOND)
    row.resume_blocked(2 * SECOND)
    row.settle(5 * SECOND)
    row.settle(DIED)
    tally = row.read(10 * SECOND)
    assert (tally.busy_ns, tally.blocked_ns) == (4 * SECOND, 3 * SECOND)
    assert not tally.is_busy
    assert not tally.is_blocked


def test_settling_puts_the_stride_of_a_dead_process_among_the_fast(row: Row) -> None:
    begin(row, 8)
    succeed(row, 3)
    for _ in range(2):
        row.settle(2 * SECOND)
        assert row.read(2 * SECOND).succeeded[0] == 3


# -- what is in hand ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["succeeds", "fails", "is given back"])
def test_one_task_is_in_hand_until_all_of_the_lease_are_finished(row: Row, end: str) -> None:
    begin(row, 3)
    seen = [row.read(0).in_progress]
    for _ in range(2):
        succeed(row)
        seen.append(row.read(0).in_progress)
    if end == "succeeds":
        succeed(row)
    elif end == "fails":
        row.fail_task(1, 2, 1)
    else:
        row.give_back_task(1, 2)
    seen.append(row.read(0).in_progress)
    assert seen == [1, 1, 1, 0]
    assert row.read(0).started == 3


def test_a_lease_that_is_closed_early_leaves_nothing_in_hand(row: Row) -> None:
    begin(row, 5)
    succeed(row, 2)
    row.close_lease(2 * SECOND)
    tally = row.read(2 * SECOND)
    assert (tally.in_progress, tally.processed, tally.started, tally.is_busy) == (0, 2, 2, False)


def test_a_task_that_raised_ends_its_lease_and_leaves_nothing_in_hand(row: Row) -> None:
    begin(row, 5)
    succeed(row, 2)
    row.fail_task(1, 2, 1)
    row.close_lease(2 * SECOND)
    tally = row.read(2 * SECOND)
    assert (tally.in_progress, tally.processed, tally.failed, tally.retried, tally.lease_passed) == (0, 3, 1, 0, 3)


def test_a_task_that_is_given_back_is_started_but_not_processed(row: Row) -> None:
    begin(row, 5)
    succeed(row, 2)
    row.give_back_task(1, 2)
    row.close_lease(2 * SECOND)
    tally = row.read(2 * SECOND)
    assert (tally.in_progress, tally.processed, tally.failed, tally.retried) == (0, 2, 0, 1)
    assert (tally.passed, tally.started, tally.lease_passed) == (3, 3, 3)
    begin(row, 1, number=2)
    assert (row.read(0).in_progress, row.read(0).started, row.read(0).lease_passed) == (1, 4, 0)


def test_the_task_of_the_dead_is_abandoned_once_and_the_next_process_begins_anew(row: Row) -> None:
    begin(row, 5)
    succeed(row, 2)
    row.settle(2 * SECOND)
    row.abandon()
    tally = row.read(2 * SECOND)
    assert (tally.in_progress, tally.abandoned, tally.processed, tally.started) == (0, 1, 2, 3)
    begin(row, 2, number=2)
    succeed(row, 2)
    tally = row.read(3 * SECOND)
    assert (tally.in_progress, tally.abandoned, tally.processed, tally.started) == (0, 1, 4, 5)


def test_what_the_queue_has_accepted_is_put(row: Row) -> None:
    row.accept(512)
    row.accept(1)
    assert row.read(0).put == 513


# -- taking back what is not begun -------------------------------------------------------------------------


def test_nothing_is_allowed_beyond_what_the_supervisor_lets_pass(row: Row) -> None:
    row.open_lease(7, 100, SECOND)
    assert row.allowed(7, 0, 10) == 10
    row.revoke(7, 10)
    assert row.allowed(7, 4, 10) == 6
    assert row.allowed(7, 10, 10) == 0
    assert row.allowed(7, 20, 10) == 0


def test_an_order_for_another_lease_holds_nobody_up(row: Row) -> None:
    row.revoke(6, 0)
    row.open_lease(7, 100, SECOND)
    assert row.allowed(7, 0, 10) == 10


def test_a_lease_is_there_to_be_seen_before_the_order_is_read(row: Row) -> None:
    """And the other way round: so one of the two always sees the other."""
    order: list[tuple[str, int]] = []
    row._words = WatchedWords(row._words, order)  # type: ignore[assignment]
    row.open_lease(8, 1, SECOND)
    assert order.index(("write", module._LEASE)) < order.index(("read", module._VOID))
    assert order.index(("read", module._VOID)) < order.index(("write", module._LEASE_END))


def test_who_is_to_leave_may_neither_go_on_nor_begin(row: Row) -> None:
    begin(row, tasks=10, number=4)
    row.order_leave()
    assert (row.must_leave, row.stop[0], row.allowed(4, 0, 10)) == (True, 1, 0)
    row.close_lease(SECOND)
    assert not row.open_lease(5, 10, SECOND)


def test_who_is_to_leave_looks_after_each_task_even_when_another_order_is_over(row: Row) -> None:
    row.order_leave()
    row.revoke(4, 3)
    row.relent()
    assert row.stop[0] == 1
    row.employ()
    assert (row.must_leave, row.is_called, row.stop[0]) == (False, False, 0)


def test_only_the_task_that_has_taken_too_long_is_out_of_time(row: Row) -> None:
    do_one(row, SECOND, 1)
    do_one(row, SECOND, 1, failed=True)
    begin(row, tasks=2)
    row.time_out(2)
    assert (row.is_out_of_time, row.is_called, row.must_leave) == (True, True, False)
    succeed(row)
    assert (row.is_out_of_time, row.allowed(1, 1, 1)) == (False, 1)


@pytest.mark.parametrize("leaves", [True, False])
def test_a_pardon_restores_what_was_ordered_before(row: Row, leaves: bool) -> None:
    if leaves:
        row.order_leave()
    row.time_out(0)
    row.pardon(leaves=leaves)
    assert (row.must_leave, row.is_called, row.is_out_of_time) == (leaves, leaves, False)


def test_a_lease_that_was_taken_back_is_not_opened(row: Row) -> None:
    row.void(7)
    assert not row.open_lease(7, 5, SECOND)
    tally = row.read(SECOND)
    assert (tally.in_progress, tally.is_busy, tally.lease) == (0, False, 7)
    assert row.open_lease(8, 5, SECOND)


@pytest.mark.parametrize(
    "store",
    [
        lambda row: row.begin_tasks(1, 0, 0),
        lambda row: row.fail_task(1, 0, 0),
        lambda row: row.give_back_task(1, 0),
        lambda row: row.beat(0),
        lambda row: row.close_lease(0),
        lambda row: row.done.__setitem__(0, 1),
    ],
)
def test_a_released_row_cannot_be_written(store: Callable[[Row], None]) -> None:
    """User code may fork: the child must not count."""
    ledger = Ledger(2)
    ledger.rows[0].accept(3)
    theirs = Ledger(2, Descriptor(os.dup(ledger._memory.number))).rows[0]
    theirs.release()
    with pytest.raises(ValueError, match="released"):
        store(theirs)
    assert [row.read(0).put for row in ledger.rows] == [3, 0]


# -- dying between any two stores --------------------------------------------------------------------------


def work_off(row: Row, number: int, deeds: str) -> None:
    """Do a lease of so many tasks, strides of two, as the consumer's loop does; `f` fails, `r` is to be tried again."""
    if not row.open_lease(number, len(deeds), number * SECOND):
        return
    done, raised = 0, False
    while done < len(deeds) and not raised:
        stride = row.allowed(number, done, min(2, len(deeds) - done))
        if not stride:
            break
        row.begin_tasks(stride, number * SECOND, SECOND)
        succeeded = 0
        for deed in deeds[done : done + stride]:
            if deed == "f":
                row.fail_task(number, done + succeeded, 5000)
            elif deed == "r":
                row.give_back_task(number, done + succeeded)
            else:
                row.done[0] += 1
                succeeded += 1
                continue
            raised = True
            break
        row.time_tasks(succeeded, 5000, failed=raised)
        done += succeeded
    row.close_lease(number * SECOND + 1)


BEFORE = {1: "sf", 2: "sr", 3: "s"}
"""The leases that a slot has behind it when the one begins in which it dies."""
PROCESSED, FAILED, PASSED = 4, 1, 5  # of these
LAST, NEXT = 4, 5
DIED = NEXT * SECOND - 1


def new_row() -> Row:
    """Return the row of a slot that has some leases behind it."""
    row = Ledger(1).rows[0]
    for number, deeds in BEFORE.items():
        work_off(row, number, deeds)
    return row


def die_behind(row: Row, stores: int, deed: Callable[[Row], object]) -> bool:
    """Do a deed, and be killed behind so many stores of it; return whether that was enough for all."""
    words, lifeline = row._words, Lifeline(stores)
    row._words = DyingWords(words, lifeline)  # type: ignore[assignment]
    row.done = DyingWords(words[module._DONE : module._DONE + 1], lifeline)  # type: ignore[assignment]
    try:
        deed(row)
    except Killed:
        return False
    finally:
        row._words, row.done = words, words[module._DONE : module._DONE + 1]
    return True


def bury(row: Row, number: int) -> None:
    """See to a dead process that had that lease, as the queue and the slot do."""
    tally, closed = row.read(DIED), row.outcome(number)
    row.close_for_dead(number, closed)
    row.settle(DIED)
    if tally.in_progress and tally.lease == number and not closed.flaw:
        row.abandon()
    elif tally.in_progress:
        row.close_lease(DIED)


def what_came_of(deeds: str) -> Closed:
    """Return what a lease comes to if nobody dies or is told to stop."""
    done = min((deeds.index(flaw) for flaw in "fr" if flaw in deeds), default=len(deeds))
    return Closed(done, {"": Flaw.NONE, "f": Flaw.FINAL, "r": Flaw.AGAIN}[deeds[done : done + 1]])


def assert_known(row: Row, deeds: str, halt: int | None = None) -> Closed:
    """Assert that the outcome of each lease goes with the counts; return that of the last."""
    for number, done in BEFORE.items():
        assert row.outcome(number) == what_came_of(done)
    closed, tally = row.outcome(LAST), row.read(0)
    assert closed.done + bool(closed.flaw) == tally.passed - PASSED
    assert tally.failed - FAILED == (closed.flaw is Flaw.FINAL)
    assert tally.retried - 1 == (closed.flaw is Flaw.AGAIN)
    end = what_came_of(deeds[:halt])
    assert closed == end if closed.flaw else closed.done <= end.done
    assert row.outcome(NEXT) == (0, Flaw.NONE)
    return closed


ENDS = ["s", "f", "r", "sss", "fss", "rss", "sfs", "ssr", "ssf", "sssrs"]


@pytest.mark.parametrize("deeds", ENDS)
@pytest.mark.parametrize("halt", [None, 0, 1, 2])
def test_every_prefix_of_the_stores_of_a_lease_reads_as_a_true_state(deeds: str, halt: int | None) -> None:
    """Dies after each single store, as a SIGKILL can. What is finished is finished in order; at most one is in hand."""
    before = Ledger(1).rows[0].read(0)
    for stores in itertools.count():
        row = new_row()
        if halt is not None:
            row.revoke(LAST, halt)
        survived = die_behind(row, stores, lambda row: work_off(row, LAST, deeds))
        tally = row.read(DIED)
        check(tally, len(deeds))
        for now, then in zip(cumulated(tally), cumulated(before), strict=True):
            assert now >= then  # no bucket ever falls
        before = tally
        closed = assert_known(row, deeds, halt)
        in_hand = tally.in_progress and tally.lease == LAST and not closed.flaw
        assert not in_hand or closed.done < len(deeds)
        bury(row, LAST)
        settled = row.read(DIED)
        check(settled, len(deeds))
        assert (settled.processed, settled.in_progress) == (tally.processed, 0)
        assert (settled.started, settled.abandoned) == (tally.passed + in_hand, in_hand)
        assert assert_known(row, deeds, halt) == closed
        work_off(row, NEXT, "ss")  # the next process in the slot
        assert row.read(0).processed == tally.processed + 2
        assert not row.read(0).in_progress
        assert (row.outcome(LAST), row.outcome(NEXT)) == (closed, (2, Flaw.NONE))
        if survived:
            end = what_came_of(deeds[:halt])
            assert closed == end
            assert (tally.processed, tally.failed) == (
                PROCESSED + end.done + (end.flaw is Flaw.FINAL),
                FAILED + (end.flaw is Flaw.FINAL),
            )
            assert not tally.in_progress
            return


@pytest.mark.parametrize("deeds", ENDS)
def test_what_a_lease_came_to_is_known_while_its_consumer_begins_the_next(deeds: str) -> None:
    """Wherever it dies in that: between the store of what is behind it and that of the new lease's number, too."""
    for stores in itertools.count():
        row = new_row()
        work_off(row, LAST, deeds)
        survived = die_behind(row, stores, lambda row: row.open_lease(NEXT, 3, DIED))
        assert assert_known(row, deeds) == what_came_of(deeds)
        bury(row, NEXT)
        assert assert_known(row, deeds) == what_came_of(deeds)
        assert row.read(0).abandoned == survived or not row.read(0).in_progress
        if survived:
            return


@pytest.mark.parametrize("deeds", ENDS)
def test_a_supervisor_that_dies_while_it_buries_a_consumer_leaves_its_lease_as_it_was(deeds: str) -> None:
    """For the next one, if the ledger outlives them all: whichever store of the two was the last."""
    for theirs in itertools.count():
        for ours in itertools.count():
            row = new_row()
            survived = die_behind(row, theirs, lambda row: work_off(row, LAST, deeds))
            closed = row.outcome(LAST)
            is_buried = die_behind(row, ours, lambda row: bury(row, LAST))
            assert assert_known(row, deeds) == closed
            if is_buried:
                break
        if survived:
            return


def test_a_lease_is_remembered_until_as_many_others_have_come(row: Row) -> None:
    for number in range(1, CLOSED_LEASES + 1):
        work_off(row, number, "sr" if number % 2 else "sf")
    assert row.closed(1) == (1, Flaw.AGAIN)
    work_off(row, CLOSED_LEASES + 1, "ss")
    assert row.closed(1) is None
    assert row.closed(2) == (1, Flaw.FINAL)
    assert row.closed(CLOSED_LEASES + 1) == (2, Flaw.NONE)
    assert row.closed(0) is None


def test_who_dies_without_a_lease_has_no_other_forgotten(row: Row) -> None:
    for number in range(1, CLOSED_LEASES + 1):
        work_off(row, number, "sf")
    bury(row, 0)
    assert row.outcome(CLOSED_LEASES) == (1, Flaw.FINAL)


def test_leases_and_tasks_are_told_apart_when_their_numbers_outgrow_half_a_word(row: Row) -> None:
    """After some days of small leases, and some hours of small tasks."""
    succeed(row, 2**32 - 3)
    for number in range(2**32 - 2, 2**32 + 3):
        assert row.open_lease(number, 5, SECOND)
        succeed(row, 2)
        tally = row.read(0)
        assert (tally.lease, tally.lease_passed, row.outcome(number)) == (number, 2, (2, Flaw.NONE))
        row.fail_task(number, 2, 1)
        row.close_lease(SECOND)
        assert row.outcome(number) == (2, Flaw.FINAL)


def test_a_lease_that_was_taken_back_before_it_was_opened_came_to_nothing(row: Row) -> None:
    work_off(row, 1, "sr")
    row.void(2)
    work_off(row, 2, "ss")
    assert (row.outcome(1), row.outcome(2)) == ((1, Flaw.AGAIN), (0, Flaw.NONE))


def check(tally: Tally, tasks: int) -> None:
    """Assert what must hold at any moment in the last lease, of so many tasks."""
    assert PROCESSED <= tally.processed <= tally.started <= PASSED + tasks
    assert tally.in_progress in (0, 1)
    assert min(tally.succeeded) >= 0
    assert sum(tally.succeeded) + tally.failed == tally.processed
    assert sum(tally.failures) == tally.failed
    assert sum(tally.waits) >= tally.processed + tally.retried
    assert tally.busy_ns <= LAST * SECOND


def cumulated(tally: Tally) -> list[int]:
    """Return the counts as Prometheus has them: of all tasks up to each edge."""
    return list(itertools.accumulate(map(sum, zip(tally.succeeded, tally.failures, strict=True))))


class Killed(BaseException):
    """The process is dead."""


class Lifeline:
    """So many stores are left."""

    def __init__(self, allowed: int) -> None:
        self.left = allowed

    def spend(self) -> None:
        if not self.left:
            raise Killed
        self.left -= 1


class DyingWords:
    """Words of a row whose writer is killed before a certain store."""

    def __init__(self, words: memoryview, lifeline: Lifeline) -> None:
        self.words, self.lifeline = words, lifeline

    def __getitem__(self, index: Any) -> Any:
        return self.words[index]

    def __setitem__(self, index: int, value: int) -> None:
        self.lifeline.spend()
        self.words[index] = value


class WatchedWords:
    """Words of a row, and in what order they are read and written."""

    def __init__(self, words: memoryview, order: list[tuple[str, int]]) -> None:
        self.words, self.order = words, order

    def __getitem__(self, index: Any) -> Any:
        self.order.append(("read", index))
        return self.words[index]

    def __setitem__(self, index: int, value: int) -> None:
        self.order.append(("write", index))
        self.words[index] = value


# -- over the end of a run -----------------------------------------------------------------------------------


def test_a_row_goes_on_from_the_totals_of_an_earlier_run() -> None:
    before, after = Ledger(1).rows[0], Ledger(1).rows[0]
    begin(before, 5)
    succeed(before, 3)
    before.fail_task(1, 3, SECOND)
    before.time_tasks(3, 2 * SECOND, failed=True)
    before.settle(4 * SECOND)
    before.abandon()
    after.restore(before.totals(), 7)
    was, now = before.read(9 * SECOND), after.read(9 * SECOND)
    for name in ("processed", "failed", "abandoned", "started", "waits", "succeeded", "failures", "busy_ns", "task_ns"):
        assert getattr(now, name) == getattr(was, name), name
    assert (now.put, now.offered, now.in_progress, now.is_busy) == (7, 7, 0, False)
    assert now.busy_ns == 3 * SECOND
    begin(after, 2, 10 * SECOND)
    succeed(after)
    assert (after.read(11 * SECOND).processed, after.read(11 * SECOND).busy_ns) == (5, 4 * SECOND)


def test_a_row_without_totals_goes_on_with_what_was_put(row: Row) -> None:
    row.restore(b"", 12)
    tally = row.read(SECOND)
    assert (tally.put, tally.offered, tally.processed, tally.in_progress) == (12, 12, 0, 0)


def test_watches_go_on_where_the_clock_is_younger_than_what_they_have_counted() -> None:
    """As after a restart of the machine, which sets the monotonic clock to 0."""
    before, row = Ledger(1).rows[0], Ledger(1).rows[0]
    for after in (before.resume_busy, before.resume_blocked):
        after(1000 * SECOND)
    before.settle(9000 * SECOND)
    row.restore(before.totals(), 0)
    row.resume_busy(5 * SECOND)
    row.resume_blocked(5 * SECOND)
    tally = row.read(7 * SECOND)
    assert (tally.busy_ns, tally.blocked_ns, tally.is_busy) == (8002 * SECOND, 8002 * SECOND, True)
    row.pause_busy(8 * SECOND)
    assert row.read(60 * SECOND).busy_ns == 8003 * SECOND


def test_no_watch_reads_backwards_for_who_looked_at_the_clock_before_it_began(row: Row) -> None:
    row.resume_busy(5 * SECOND)
    assert row.read(5 * SECOND - 1).busy_ns == 0


# -- what a file holds -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bit", range(64))
def test_a_note_of_which_one_bit_has_changed_is_of_no_lease(bit: int) -> None:
    ledger = Ledger(1)
    row, words = ledger.rows[0], ledger._words
    row.close_for_dead(5, Closed(3, Flaw.FINAL))
    (at,) = [index for index, word in enumerate(words) if word]
    words[at] ^= 1 << bit
    assert row.closed(5) is None


def test_a_row_that_no_process_can_have_left_is_known() -> None:
    ledger = Ledger(1)
    row, words = ledger.rows[0], ledger._words[256:]
    assert not row.is_torn()
    row.done[0] = 7
    row.time_tasks(5, 1)
    assert not row.is_torn()  # those of the stride that is under way have no bucket yet
    row.time_tasks(3, 1)
    assert row.is_torn()
    row.done[0] = 8
    assert not row.is_torn()
    words[120] = 1
    assert row.is_torn()
