"""Who is too long in one task: asked once, killed a moment later, forgiven if the task ends after all."""

from __future__ import annotations

import pytest

from conveyor.ledger import NANOSECONDS
from conveyor.overtime import GRACE_NS, MAX_LOOK_GAP_NS, Hand, Overtime, Verdicts

NOTHING = Verdicts([], [], [])
STEP_NS = NANOSECONDS // 10


class Watched:
    """One that is asked ten times a second, with what consumers have in hand."""

    def __init__(self, timeout_seconds: float) -> None:
        self.overtime = Overtime(timeout_seconds)
        self.now_ns = 0

    def look(self, **hands: Hand) -> Verdicts:
        self.now_ns += STEP_NS
        return self.overtime.look(self.now_ns, hands)

    def until(self, seconds: float, **hands: Hand) -> Verdicts:
        """Return the last verdicts of so many seconds, all before them being nothing."""
        looks = round(seconds * 10)
        for _ in range(looks - 1):
            assert self.look(**hands) == NOTHING
        return self.look(**hands)


@pytest.fixture
def watched() -> Watched:
    return Watched(timeout_seconds=1.0)


def test_one_that_is_too_long_in_a_task_is_asked_to_end_once_and_then_killed(watched: Watched) -> None:
    hand = Hand(pid=7, finished=3)
    assert watched.until(1.2, consumer=hand) == NOTHING._replace(end=["consumer"])
    grace = GRACE_NS / NANOSECONDS
    assert watched.until(grace + 0.1, consumer=hand) == NOTHING._replace(kill=["consumer"])


def test_tasks_that_end_in_time_are_left_alone_however_many_there_are(watched: Watched) -> None:
    for finished in range(50):
        assert watched.until(0.9, consumer=Hand(7, finished)) == NOTHING


def test_one_that_comes_out_of_its_task_after_all_is_pardoned_and_its_next_has_all_its_time(watched: Watched) -> None:
    watched.until(1.2, consumer=Hand(7, 3))
    assert watched.look(consumer=Hand(7, 4)) == NOTHING._replace(pardon=["consumer"])
    assert watched.until(1.1, consumer=Hand(7, 4)) == NOTHING._replace(end=["consumer"])


def test_one_that_ends_as_it_was_asked_is_forgotten(watched: Watched) -> None:
    watched.until(1.2, consumer=Hand(7, 3))
    assert watched.look() == NOTHING._replace(pardon=["consumer"])
    assert watched.look() == NOTHING


def test_the_same_number_in_another_process_is_another_task(watched: Watched) -> None:
    watched.until(1.0, consumer=Hand(7, 3))
    assert watched.until(1.1, consumer=Hand(8, 3)) == NOTHING


def test_each_slot_has_a_time_of_its_own(watched: Watched) -> None:
    watched.until(0.5, early=Hand(7, 0))
    assert watched.until(0.7, early=Hand(7, 0), late=Hand(8, 0)) == NOTHING._replace(end=["early"])
    assert watched.until(0.5, early=Hand(7, 0), late=Hand(8, 0)) == NOTHING._replace(end=["late"])


def test_a_time_in_which_nobody_looked_does_not_count(watched: Watched) -> None:
    """All of us may have been stopped: then nobody had the chance to end."""
    hand = Hand(7, 3)
    watched.until(0.9, consumer=hand)
    watched.now_ns += 2 * MAX_LOOK_GAP_NS
    assert watched.until(1.1, consumer=hand) == NOTHING
