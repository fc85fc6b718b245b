"""All slots read together: counts that agree, whatever a producer was interrupted in."""

from __future__ import annotations

from typing import Any

import pytest

from conveyor.ledger import Ledger
from conveyor.roster import Roster
from conveyor.slot import Slot
from conveyor.snapshot import Role


def slot(ledger: Ledger, index: int, role: Role) -> Slot:
    nothing: Any = None
    return Slot(f"{role}-{index}", role, nothing, nothing, ledger, index, may_restart=False)


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(3)


@pytest.fixture
def roster(ledger: Ledger) -> Roster:
    roles = (Role.PRODUCER, Role.PRODUCER, Role.CONSUMER)
    return Roster(slot(ledger, index, role) for index, role in enumerate(roles))


def test_a_task_that_was_started_is_put_though_its_producer_has_only_announced_it(
    ledger: Ledger, roster: Roster
) -> None:
    """It may be interrupted for long between the two; another producer that only waits for room has put nothing."""
    ledger.rows[0].offer()
    ledger.rows[1].offer()
    ledger.rows[2].open_lease(1, 1, 1)
    reading = roster.read()
    assert (reading.counts.put, reading.counts.started, reading.counts.in_progress) == (1, 1, 1)
    ledger.rows[0].count_put(2)
    again = roster.read()
    assert again.counts == reading.counts
    assert [s.produced for s in again.slots] == [s.produced for s in reading.slots]


def test_what_was_only_announced_is_not_put(ledger: Ledger, roster: Roster) -> None:
    ledger.rows[0].offer()
    assert roster.read().counts.put == 0


def test_a_put_that_a_dead_producer_left_in_doubt_is_proven_by_its_start(ledger: Ledger, roster: Roster) -> None:
    roster.producers[1].doubts = 1
    ledger.rows[2].open_lease(1, 1, 1)
    assert [s.produced for s in roster.read().slots] == [0, 1, 0]
    roster.settle_doubts()
    assert [s.produced for s in roster.read().slots] == [0, 1, 0]
    assert roster.doubts == 0
