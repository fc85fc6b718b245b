"""How many consumers: loads that step, swell and jitter in a simulated queue; the number follows and does not swing."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable

import pytest

from conveyor.cpus import usable_cpus
from conveyor.scaling import DOWN_SECONDS, LOOK_SECONDS, Autoscaler, Bounds, Load

BOUNDS = Bounds(1, 12)
TASK_SECONDS = 0.05


class Simulation:
    """A bounded queue as a fluid, with a scaler that is asked as often as the real one.

    `load` tells how many consumers would be busy with what comes, at a time in seconds.
    """

    def __init__(self, load: Callable[[float], float], maxsize: float = 1000, bounds: Bounds = BOUNDS) -> None:
        self.load, self.maxsize, self.bounds = load, maxsize, bounds
        self.scaler = Autoscaler()
        self.now = self.put = self.done = self.busy = self.blocked = 0.0
        self.consumers = bounds.least
        self.seen: list[tuple[float, int]] = []

    def run(self, seconds: float) -> list[int]:
        """Go on for so long; return the numbers of consumers at each look."""
        until = self.now + seconds
        first = len(self.seen)
        while self.now < until:
            self._step()
        return [number for _, number in self.seen[first:]]

    def _step(self) -> None:
        self.now += LOOK_SECONDS
        offered = self.load(self.now) * LOOK_SECONDS / TASK_SECONDS
        served = min(self.put - self.done + offered, self.consumers * LOOK_SECONDS / TASK_SECONDS)
        accepted = min(offered, self.maxsize - (self.put - self.done) + served)
        self.put += accepted
        self.done += served
        self.busy += served * TASK_SECONDS
        self.blocked += LOOK_SECONDS * (1 - accepted / offered) if offered else 0.0
        self.consumers = self.scaler.look(self.now, self.seen_load(), self.bounds)
        self.seen.append((self.now, self.consumers))

    def seen_load(self) -> Load:
        return Load(
            self.consumers, int(self.put - self.done), int(self.put), int(self.done), self.busy, 1, self.blocked
        )


def changes(numbers: list[int]) -> list[int]:
    """Return by how much the number changed, each time that it did."""
    return [after - before for before, after in itertools.pairwise(numbers) if after != before]


def turns(numbers: list[int]) -> int:
    """Return how often the number changed its direction."""
    return sum(before * after < 0 for before, after in itertools.pairwise(changes(numbers)))


@pytest.mark.parametrize("load", [0.3, 1.5, 2.0, 3.3, 5.0, 7.9])
def test_a_steady_load_is_met_and_then_nothing_changes(load: float) -> None:
    simulation = Simulation(lambda now: load)
    simulation.run(60)
    numbers = simulation.run(600)
    assert len(set(numbers)) == 1
    assert load <= numbers[-1] <= math.ceil(load / 0.6)
    assert simulation.put - simulation.done < 10


def test_a_load_that_steps_up_is_followed_within_seconds_and_once() -> None:
    simulation = Simulation(lambda now: 0.5 if now < 30 else 6.0)
    assert set(simulation.run(30)) == {1}
    numbers = simulation.run(8)
    assert numbers[-1] >= 6
    numbers += simulation.run(120)
    assert turns(numbers) <= 1  # a little more than needed, while the backlog is cleared
    assert numbers[-1] <= 10


def test_a_load_that_steps_down_is_followed_only_when_it_has_stayed_down() -> None:
    simulation = Simulation(lambda now: 6.0 if now < 60 else 0.5)
    simulation.run(59)
    high = simulation.consumers
    assert set(simulation.run(DOWN_SECONDS)) == {high}
    numbers = simulation.run(30)
    assert numbers[-1] == 1
    assert turns(numbers) == 0


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("mean", [1.6, 2.5, 4.2])
def test_noise_does_not_make_it_flap(mean: float, seed: int) -> None:
    chance = random.Random(seed)
    simulation = Simulation(lambda now: mean * chance.choice((0.2, 0.5, 1.0, 1.5, 1.8)))
    simulation.run(60)
    numbers = simulation.run(600)
    assert len(changes(numbers)) <= 6, f"seed {seed}"
    assert turns(numbers) <= 4


def test_a_long_wave_is_followed_up_and_down_and_not_more() -> None:
    simulation = Simulation(lambda now: 4 + 3.5 * math.sin(2 * math.pi * now / 120))
    simulation.run(240)
    numbers = simulation.run(600)
    assert max(numbers) >= 7
    assert min(numbers) <= 4
    assert turns(numbers) <= 2 * 600 / 120


def test_short_spikes_keep_what_their_peaks_need() -> None:
    simulation = Simulation(lambda now: 6.0 if now % 6 < 2 else 0.2)
    simulation.run(60)
    numbers = simulation.run(300)
    assert len(changes(numbers)) <= 2


def test_producers_that_wait_for_room_are_met_though_their_rate_is_that_of_the_consumers() -> None:
    simulation = Simulation(lambda now: 9.0, maxsize=20)
    assert simulation.run(15)[-1] >= 9


def test_producers_without_end_get_as_many_as_there_may_be() -> None:
    simulation = Simulation(lambda now: 1000.0, maxsize=20)
    numbers = simulation.run(15)
    assert numbers[-1] == BOUNDS.most
    assert turns(numbers + simulation.run(300)) == 0


def test_consumers_that_idle_beside_a_backlog_get_no_help() -> None:
    """As when nobody reads the results."""
    scaler = Autoscaler()
    for look in range(200):
        load = Load(
            2, backlog=500, put=1000, done=500, busy_seconds=0.0, producers=1, blocked_seconds=look * LOOK_SECONDS
        )
        assert scaler.look(look * LOOK_SECONDS, load, Bounds(2, 8)) == 2


def test_tasks_of_which_none_has_ended_yet_get_more_consumers() -> None:
    scaler, consumers, busy = Autoscaler(), 1, 0.0
    for look in range(200):
        busy += consumers * LOOK_SECONDS
        load = Load(consumers, backlog=50, put=60, done=0, busy_seconds=busy, producers=0, blocked_seconds=0.0)
        consumers = scaler.look(look * LOOK_SECONDS, load, Bounds(1, 4))
    assert consumers == 4


def test_after_a_gap_it_looks_anew_instead_of_trusting_old_figures() -> None:
    simulation = Simulation(lambda now: 6.0)
    simulation.run(30)
    before = simulation.consumers
    simulation.now += 100
    assert set(simulation.run(DOWN_SECONDS)) == {before}


def test_other_bounds_are_kept_at_once() -> None:
    load = Load(4, backlog=0, put=0, done=0, busy_seconds=0.0, producers=1, blocked_seconds=0.0)
    assert Autoscaler().look(1.0, load, Bounds(6, 8)) == 6
    assert Autoscaler().look(1.0, load, Bounds(1, 2)) == 2


@pytest.mark.parametrize(
    ("text", "bounds"),
    [("3", (3, 3)), ("1..5", (1, 5)), ("4..4", (4, 4)), ("1..", (1, usable_cpus())), ("1000..", (1000, 1000))],
)
def test_bounds_are_read_as_they_are_written(text: str, bounds: tuple[int, int]) -> None:
    assert Bounds.parse(text, 1000) == bounds
    assert Bounds.parse(str(Bounds.parse(text, 1000)), 1000) == bounds
