"""What leases came to, by what is left of the book and the ledger when everything has died."""

from __future__ import annotations

import pytest

from conveyor.ledger import Closed, Flaw, Ledger, Row
from conveyor.spool.leasebook import Entry
from conveyor.spool.recovery import Outcome, Progress, Ranges, apply, left, merged, outcomes
from support.spools import work


@pytest.fixture
def row() -> Row:
    return Ledger(1).rows[0]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], []),
        ([(3, 5)], [(3, 5)]),
        ([(5, 6), (0, 2)], [(0, 2), (5, 6)]),
        ([(0, 2), (2, 4)], [(0, 4)]),
        ([(0, 9), (2, 4)], [(0, 9)]),
        ([(4, 7), (0, 5), (9, 10), (6, 8)], [(0, 8), (9, 10)]),
        ([(1, 2), (1, 2)], [(1, 2)]),
    ],
)
def test_ranges_are_merged_into_as_few_as_possible(given: Ranges, expected: Ranges) -> None:
    assert merged(given) == expected
    assert left(10, merged(given)) == 10 - len({place for first, last in given for place in range(first, last)})


def entry(number: int, first: int = 0, last: int = 10, key: int = 1) -> Entry:
    return Entry(number, key, first, last)


def outcome(row: Row, of: Entry) -> Outcome:
    (found,) = outcomes([of], row)
    return found


def test_a_lease_that_was_never_opened_came_to_nothing(row: Row) -> None:
    assert outcome(row, entry(1)) == Outcome(entry(1), Closed(0, Flaw.NONE), is_in_hand=False)
    work(row, 1, 10, 10)
    assert outcome(row, entry(2)) == Outcome(entry(2), Closed(0, Flaw.NONE), is_in_hand=False)


@pytest.mark.parametrize("done", [0, 1, 9])
def test_of_an_open_lease_the_task_behind_those_done_was_in_hand(row: Row, done: int) -> None:
    work(row, 1, 10, done, closes=False)
    assert outcome(row, entry(1)) == Outcome(entry(1), Closed(done, Flaw.NONE), is_in_hand=True)


def test_a_lease_that_is_done_had_nothing_in_hand_whether_it_was_closed_or_not(row: Row) -> None:
    work(row, 1, 10, 10, closes=False)
    assert outcome(row, entry(1)) == Outcome(entry(1), Closed(10, Flaw.NONE), is_in_hand=False)
    row.close_lease(3)
    assert outcome(row, entry(1)) == Outcome(entry(1), Closed(10, Flaw.NONE), is_in_hand=False)


@pytest.mark.parametrize("flaw", [Flaw.AGAIN, Flaw.FINAL])
@pytest.mark.parametrize("closes", [False, True])
def test_a_task_that_raised_is_told_from_one_in_hand(row: Row, flaw: Flaw, closes: bool) -> None:
    work(row, 1, 10, 3, flaw, closes=closes)
    found = outcome(row, entry(1, 20, 30))
    assert (found.closed, found.is_in_hand, found.failed) == (Closed(3, flaw), False, 23)


def test_a_note_of_a_task_that_raised_without_its_count_is_a_task_in_hand(row: Row) -> None:
    work(row, 1, 10, 3, closes=False)
    row._note(1, 3, Flaw.FINAL)
    found = outcome(row, entry(1))
    assert (found.closed, found.is_in_hand, found.failed) == (Closed(3, Flaw.NONE), True, None)


def test_each_of_several_leases_speaks_for_itself(row: Row) -> None:
    work(row, 1, 10, 4)
    work(row, 2, 10, 2, Flaw.AGAIN)
    work(row, 3, 10, 10)
    work(row, 4, 10, 5, closes=False)
    found = list(outcomes([entry(number) for number in (1, 2, 3, 4, 5)], row))
    assert [(o.closed.done, o.closed.flaw, o.is_in_hand) for o in found] == [
        (4, Flaw.NONE, False),
        (2, Flaw.AGAIN, False),
        (10, Flaw.NONE, False),
        (5, Flaw.NONE, True),
        (0, Flaw.NONE, False),
    ]


def test_a_lease_that_was_cut_short_claims_no_more_than_it_did(row: Row) -> None:
    work(row, 1, 10, 6, closes=False)
    found = outcome(row, entry(1, 0, 6))  # the book may say less than the row, where all was done
    assert not found.is_in_hand


def applied(progress: Progress, *found: tuple[Entry, Closed]) -> Progress:
    for of, closed in found:
        apply(Outcome(of, closed, is_in_hand=False), progress)
    return progress


def test_progress_takes_in_what_leases_came_to() -> None:
    progress = applied(
        Progress(done=[(0, 5)], attempts={7: 1}, failures={12: 1}),
        (entry(1, 5, 10), Closed(2, Flaw.NONE)),
        (entry(2, 10, 20), Closed(2, Flaw.AGAIN)),
        (entry(3, 20, 30), Closed(0, Flaw.FINAL)),
    )
    assert progress.done == [(0, 7), (10, 12), (20, 21)]
    assert progress.failures == {12: 2, 20: 1}
    assert progress.attempts == {7: 1}
    assert (progress.tasks_done, left(30, progress.done)) == (10, 20)


def test_what_the_row_says_beyond_the_lease_is_not_taken_for_its_tasks() -> None:
    assert applied(Progress(), (entry(1, 5, 10), Closed(99, Flaw.NONE))).done == [(5, 10)]
    assert applied(Progress(), (entry(1, 5, 10), Closed(0, Flaw.NONE))).done == []
