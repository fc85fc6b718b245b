"""The ledger: what a row says, whatever moment its writer died at."""

from __future__ import annotations

import itertools

import pytest

from conveyor import ledger as module
from conveyor.ledger import NANOSECONDS, TASK_EDGES_SECONDS, WAIT_EDGES_SECONDS, Ledger, Order, Row, State

SECOND = NANOSECONDS


@pytest.fixture
def row() -> Row:
    return Ledger(3).rows[1]


def test_rows_fit_and_do_not_overlap() -> None:
    assert module._BLOCKED < module.WORDS_PER_ROW
    ledger = Ledger(2)
    ledger.rows[0].count_put(1)
    assert [r.read(1).put for r in ledger.rows] == [1, 0]
    assert ledger.order is Order.WORK


def test_a_new_row_is_all_zero(row: Row) -> None:
    tally = row.read(5 * SECOND)
    assert (tally.put, tally.started, tally.processed, tally.failed) == (0, 0, 0, 0)
    assert (tally.busy_ns, tally.blocked_ns, tally.state) == (0, 0, State.STARTING)


@pytest.mark.parametrize(("seconds", "bucket"), [(0.0, 0), (0.001, 0), (0.0011, 1), (30.0, 13), (31.0, 14)])
def test_a_task_falls_into_the_bucket_whose_edge_it_does_not_pass(row: Row, seconds: float, bucket: int) -> None:
    row.start_task(SECOND, 0)
    row.finish_task(SECOND + round(seconds * SECOND))
    assert row.read(2 * SECOND).succeeded[bucket] == 1


def test_buckets_are_as_many_as_the_edges_and_one() -> None:
    tally = Ledger(1).rows[0].read(0)
    assert len(tally.succeeded) == len(tally.failures) == len(TASK_EDGES_SECONDS) + 1
    assert len(tally.waits) == len(WAIT_EDGES_SECONDS) + 1


def test_totals_are_the_sums_of_their_histograms(row: Row) -> None:
    for number in range(10):
        row.start_task(SECOND * number, SECOND)
        row.finish_task(SECOND * number + SECOND // 2, failed=number % 5 == 0)
    tally = row.read(20 * SECOND)
    assert (tally.started, tally.processed, tally.failed) == (10, 10, 2)
    assert tally.task_ns == tally.busy_ns == 5 * SECOND
    assert tally.wait_ns == 10 * SECOND


def test_a_wait_that_two_clocks_make_negative_counts_as_none(row: Row) -> None:
    row.start_task(SECOND, -5)
    tally = row.read(SECOND)
    assert (tally.waits[0], tally.wait_ns) == (1, 0)


def test_busy_time_grows_during_a_task_and_stays_after_it(row: Row) -> None:
    row.start_task(1 * SECOND, 0)
    assert row.read(4 * SECOND).busy_ns == 3 * SECOND
    row.finish_task(6 * SECOND)
    assert row.read(60 * SECOND).busy_ns == 5 * SECOND


def test_a_watch_never_reads_backwards(row: Row) -> None:
    row.start_task(10 * SECOND, 0)
    assert row.read(9 * SECOND).busy_ns == 0


def test_settling_stops_the_watches_that_a_dead_process_left_running(row: Row) -> None:
    row.start_task(1 * SECOND, 0)
    row.resume_blocked(2 * SECOND)
    row.settle(5 * SECOND)
    row.settle(9 * SECOND)
    tally = row.read(10 * SECOND)
    assert (tally.busy_ns, tally.blocked_ns) == (4 * SECOND, 3 * SECOND)
    assert not tally.is_busy
    assert not tally.is_blocked


def test_an_offer_stands_until_it_is_counted_or_withdrawn(row: Row) -> None:
    row.offer()
    assert (row.read(1).put, row.read(1).offered) == (0, 1)
    row.withdraw()
    assert (row.read(1).put, row.read(1).offered) == (0, 0)
    row.offer()
    row.count_put(1)
    assert (row.read(1).put, row.read(1).offered) == (1, 1)


def test_every_prefix_of_the_stores_of_a_task_reads_as_a_true_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dies after each single store, as a SIGKILL can: a task is never finished twice, nor before it is started."""
    for allowed in itertools.count():
        row = Ledger(1).rows[0]
        words = DyingWords(row._words, allowed)
        row._words = words  # type: ignore[assignment]
        survived = True
        try:
            row.start_task(SECOND, SECOND)
            row.finish_task(2 * SECOND, failed=True)
        except Killed:
            survived = False
        row._words = words.words
        row.settle(3 * SECOND)
        tally = row.read(3 * SECOND)
        assert 0 <= tally.processed <= tally.started <= 1
        assert tally.failed == tally.processed
        assert tally.busy_ns <= 2 * SECOND
        if survived:
            assert tally.processed == 1
            return


class Killed(BaseException):
    """The process is dead."""


class DyingWords:
    """The words of a row whose writer is killed before a certain store."""

    def __init__(self, words: memoryview, allowed: int) -> None:
        self.words, self.left = words, allowed

    def __getitem__(self, index: int) -> int:
        value: int = self.words[index]
        return value

    def __setitem__(self, index: int, value: int) -> None:
        if not self.left:
            raise Killed
        self.left -= 1
        self.words[index] = value
