"""Which slots consumers fill when their number changes; with slots that never get a process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from conveyor.crew import Crew
from conveyor.errors import ConfigurationError
from conveyor.ledger import Ledger
from conveyor.roster import Roster
from conveyor.scaling import Bounds
from conveyor.slot import Slot
from conveyor.snapshot import Role, Scaling
from support.fakes import make_run

LEDGER = Ledger(100)


def slot(name: str, index: int, role: Role = Role.CONSUMER) -> Slot:
    nothing: Any = None
    return Slot(name, role, nothing, nothing, LEDGER, index, may_restart=True)


def crew_of(consumers: int, name: Callable[[int], str] = "consumer-{}".format) -> tuple[Crew, Roster]:
    def new(number: int) -> Slot:
        return slot(name(number), number)

    roster = Roster([slot("producer-1", 0, Role.PRODUCER), *(new(number) for number in range(1, consumers + 1))])
    return Crew(roster, Bounds(consumers, consumers), new), roster


def names(slots: list[Slot]) -> list[str]:
    return [slot.name for slot in slots]


def test_the_highest_numbers_go_and_the_lowest_of_those_come_back_before_new_ones() -> None:
    crew, roster = crew_of(4)
    assert crew.rebound(Bounds(2, 2)) == []
    assert names(crew.wanted) == ["consumer-1", "consumer-2"]
    assert [slot.finished for slot in roster.consumers] == [False, False, True, True]
    assert names(crew.rebound(Bounds(3, 3))) == ["consumer-3"]
    assert names(crew.rebound(Bounds(6, 6))) == ["consumer-4", "consumer-5", "consumer-6"]
    assert len(roster.consumers) == len(crew.wanted) == 6
    assert crew.scalings == {Scaling.UP: 2, Scaling.DOWN: 1}


def test_bounds_that_hold_already_change_nothing() -> None:
    crew, roster = crew_of(3)
    assert crew.rebound(Bounds(1, 8)) == []
    assert (len(roster.consumers), crew.bounds, sum(crew.scalings.values())) == (3, (1, 8), 0)


@pytest.mark.parametrize("bounds", [Bounds(5, 5), Bounds(1, 9)])
@pytest.mark.parametrize("odd", ["producer-1", "consumer-1", "", "two\nlines"])
def test_a_consumer_without_a_name_of_its_own_is_refused_and_nothing_has_changed(odd: str, bounds: Bounds) -> None:
    crew, roster = crew_of(2, lambda number: odd if number == 4 else f"consumer-{number}")
    with pytest.raises(ConfigurationError, match="no name of its own"):
        crew.rebound(bounds)
    assert (len(roster.consumers), len(crew.wanted), crew.bounds) == (2, 2, (2, 2))


def test_a_fixed_number_is_not_followed_by_looks_at_the_load() -> None:
    def never() -> Any:
        raise AssertionError("a look that costs time for nothing")

    crew, _ = crew_of(2)
    assert crew.follow(never) == []


def test_with_bounds_the_first_look_brings_the_number_within_them() -> None:
    crew, _ = crew_of(2)
    crew.bounds = Bounds(3, 5)
    assert names(crew.follow(make_run)) == ["consumer-3"]
