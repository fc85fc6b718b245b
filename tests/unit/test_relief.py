"""Who sits on tasks is relieved of those that it has not begun, wherever in its loop it was stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from conveyor.ledger import Closed, Flaw, Ledger
from conveyor.queues.codec import Codec
from conveyor.queues.leases import Lease, Leases, Span, StoredChunk
from conveyor.queues.pace import LEASE_NS, Pace
from conveyor.queues.relief import Relief
from conveyor.queues.retries import Retries

SLOT, IDLER = 0, 1


class Timers:
    """A supervisor's loop whose timers go off when the test says."""

    def __init__(self) -> None:
        self.actions: list[Callable[[], None]] = []

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        self.actions.append(action)

    def go_off(self) -> None:
        """Have all go off that are set, but not those that they set."""
        actions, self.actions = self.actions, []
        for action in actions:
            action()


class Stage:
    """A consumer that has held two leases of ten tasks for long, and another that is idle."""

    def __init__(self) -> None:
        pace = Pace()
        pace.learn(1, 1000)
        self.leases = Leases(3, pace, Retries(1))
        self.rows = Ledger(2).rows
        self.row = self.rows[SLOT]
        self.timers = Timers()
        self.back: list[tuple[int, int, int]] = []
        self.relief = Relief(self.leases, self.rows, self.timers, self.take_back)  # type: ignore[arg-type]
        self.leases.join(SLOT)
        for number in (1, 2):
            self.leases.accept(StoredChunk(1, number, Codec.APART, 10, 0, 10, 0, 10))
        self.first, self.second = self.give()
        self.leases.join(IDLER)

    def give(self) -> list[Lease]:
        return [lease for _, lease in self.leases.grants(-LEASE_NS)]

    def take_back(self, spans: Iterable[Span]) -> None:
        self.back += [(span.chunk.number, span.first, span.last) for span in spans]

    def open(self, lease: Lease) -> bool:
        return self.row.open_lease(lease.number, lease.span.tasks, 1)

    def work(self, tasks: int) -> None:
        self.row.done[0] += tasks

    def look(self) -> None:
        """Look once for who sits on tasks, and cut once what was found."""
        self.relief.look_later()
        self.timers.go_off()
        self.timers.go_off()


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_one_that_has_opened_nothing_is_relieved_of_all(stage: Stage) -> None:
    stage.look()
    assert stage.back == [(1, 0, 10), (2, 0, 10)]
    assert not stage.open(stage.first)
    assert not stage.open(stage.second)


@pytest.mark.parametrize("done", [0, 3, 8])
def test_one_that_is_in_a_task_keeps_that_alone(stage: Stage, done: int) -> None:
    stage.open(stage.first)
    stage.work(done)
    stage.look()
    assert stage.back == [(1, done + 1, 10), (2, 0, 10)]
    assert stage.row.allowed(stage.first.number, done + 1, 5) == 0


def test_one_that_has_gone_on_meanwhile_keeps_what_it_has(stage: Stage) -> None:
    stage.open(stage.first)
    stage.relief.look_later()
    stage.timers.go_off()
    stage.work(1)
    stage.timers.go_off()
    assert stage.back == []


@pytest.mark.parametrize("final", [True, False])
def test_one_whose_task_has_raised_keeps_none_of_the_rest(stage: Stage, final: bool) -> None:
    """Its report hands them back, but it may be stopped before that."""
    stage.open(stage.first)
    stage.work(3)
    if final:
        stage.row.fail_task(stage.first.number, 3, 1)
    else:
        stage.row.give_back_task(stage.first.number, 3)
    stage.row.close_lease(2)
    stage.look()
    assert stage.back == [(1, 4, 10), (2, 0, 10)]
    closed = stage.row.closed(stage.first.number)
    assert closed == (3, Flaw.FINAL if final else Flaw.AGAIN)
    report = stage.leases.report(SLOT, stage.first.number, closed, 0)
    assert report is not None
    assert report.failed is not None
    assert (report.failed.span.first, report.again) == (3, [])


def test_one_that_has_spent_its_time_and_has_not_said_so_keeps_none_of_the_rest(stage: Stage) -> None:
    stage.open(stage.first)
    stage.work(3)
    stage.row.close_lease(2)
    stage.look()
    assert stage.back == [(1, 3, 10), (2, 0, 10)]
    assert stage.leases.report(SLOT, stage.first.number, Closed(3, Flaw.NONE), 0) is not None
    assert stage.leases.waiting_tasks == 17


def test_one_that_was_just_opening_the_next_lease_keeps_what_it_has_done(stage: Stage) -> None:
    """Its report, not yet read, says the same: what is done is not given to another."""
    stage.open(stage.first)
    stage.work(10)
    stage.row.close_lease(2)
    words, stores = stage.row._words, list[int]()

    class OneStore:
        def __getitem__(self, index: int) -> int:
            return words[index]

        def __setitem__(self, index: int, value: int) -> None:
            if not stores:
                words[index] = value
            stores.append(index)

    stage.row._words = OneStore()  # type: ignore[assignment]
    stage.open(stage.second)
    stage.row._words = words
    assert len(stores) > 1
    stage.look()
    assert stage.back == []
    report = stage.leases.report(SLOT, stage.first.number, Closed(10, Flaw.NONE), 0)
    assert report is not None
    assert [(span.first, span.last) for span in report.done] == [(0, 10)]


def test_who_has_reported_goes_on_without_looking_for_orders(stage: Stage) -> None:
    stage.open(stage.first)
    stage.look()
    assert stage.row.stop[0]
    stage.relief.reported(SLOT)
    assert not stage.row.stop[0]
