"""How fast a run goes, for people who look now and then."""

from __future__ import annotations

import dataclasses

import pytest

from conveyor.exporter.rates import Rates, Since
from conveyor.snapshot import RunStatistics, SlotStatistics
from support.fakes import make_run, make_slot


def at(seconds: float, processed: int = 0, busy_seconds: float = 0.0) -> RunStatistics:
    """Return a run at that time, whose one consumer has come so far."""
    slot = make_slot("consumer-1", pid=1, processed=processed, busy_seconds=busy_seconds)
    return dataclasses.replace(make_run(slot), elapsed_seconds=seconds)


def look(rates: Rates, run: RunStatistics) -> tuple[float, float]:
    """Return the rate and the busy share that somebody sees who looks now."""
    since, slot = rates.since(run), run.slots[0]
    return since.rate(slot), since.busy(slot)


def test_the_first_look_shows_the_rate_of_the_whole_run() -> None:
    assert look(Rates(), at(10.0, processed=50, busy_seconds=5.0)) == (5.0, 0.5)


def test_the_next_look_shows_the_rate_since_then() -> None:
    rates = Rates()
    look(rates, at(10.0, processed=50, busy_seconds=5.0))
    assert look(rates, at(11.0, processed=70, busy_seconds=6.0)) == (20.0, 1.0)


def test_the_window_is_three_seconds() -> None:
    rates = Rates()
    for second in range(10):  # one task a second, then ten
        look(rates, at(10.0 + second, processed=second))
    assert look(rates, at(20.0, processed=39))[0] == pytest.approx((39 - 7) / 3)


def test_two_who_look_at_once_both_see_a_rate_over_a_fair_time() -> None:
    rates = Rates()
    look(rates, at(10.0, processed=100))
    assert look(rates, at(10.01, processed=101))[0] == pytest.approx(101 / 10.01)
    assert look(rates, at(11.0, processed=110))[0] == 10.0
    assert look(rates, at(11.01, processed=111))[0] == pytest.approx(11 / 1.01)


def test_what_was_seen_long_ago_is_forgotten() -> None:
    rates = Rates()
    look(rates, at(10.0, processed=1000))
    assert look(rates, at(100.0, processed=1000))[0] == 10.0


def test_a_look_a_minute_keeps_two_readings_at_most() -> None:
    rates = Rates()
    for minute in range(100):
        look(rates, at(60.0 * minute))
    assert len(rates._readings) <= 2


def test_nothing_goes_backwards_and_nobody_is_busier_than_busy() -> None:
    slot: SlotStatistics = make_slot("consumer-1", pid=1, processed=5, busy_seconds=1.0)
    since = Since(1.0, Rates().since(at(1.0)).earlier)
    assert since.rate(slot) == 5.0
    rates = Rates()
    look(rates, at(1.0, processed=10, busy_seconds=3.0))
    assert look(rates, at(2.0, processed=9, busy_seconds=2.9)) == (0.0, 0.0)
    assert look(rates, at(3.0, processed=10, busy_seconds=30.0))[1] == 1.0


def test_a_producers_tasks_are_those_it_has_put() -> None:
    run = dataclasses.replace(make_run(make_slot("producer-1", pid=1, produced=30)), elapsed_seconds=10.0)
    assert Rates().since(run).rate(run.slots[0]) == 3.0


def test_a_run_that_has_just_begun_has_no_rate_out_of_bounds() -> None:
    assert look(Rates(), at(0.0)) == (0.0, 0.0)
