"""How often and when a task that raises is tried again."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from conveyor.queues.retries import JITTER, MAX_DELAY_SECONDS, Retries


def always(share: float) -> Callable[[float, float], float]:
    """Return a chance that falls at this share of its range."""
    return lambda least, most: least + share * (most - least)


@pytest.fixture(params=[0.0, 0.5, 1.0], ids=["least", "middle", "most"])
def factor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> float:
    """Fix the chance; return by what it multiplies a delay."""
    share: float = request.param
    monkeypatch.setattr(random, "uniform", always(share))
    return 1 - JITTER + 2 * JITTER * share


@pytest.mark.parametrize(("most", "left"), [(0, [0, 0, 0]), (1, [1, 0, 0]), (3, [3, 2, 1])])
def test_so_many_tries_are_left_after_each_failure(most: int, left: list[int]) -> None:
    assert [Retries(most).left(failures) for failures in range(3)] == left


def test_by_default_nothing_is_tried_again() -> None:
    assert Retries().left(0) == 0


def test_a_delay_doubles_with_each_failure(factor: float) -> None:
    delays = [Retries(9, 0.25).delay_ns(failures) for failures in range(1, 6)]
    assert delays == [pytest.approx(seconds * factor * 1e9) for seconds in (0.25, 0.5, 1.0, 2.0, 4.0)]


@pytest.mark.parametrize("failures", [20, 64, 1000, 10**6])
def test_no_delay_outgrows_the_longest(factor: float, failures: int) -> None:
    assert Retries(10**6, 0.25).delay_ns(failures) == pytest.approx(MAX_DELAY_SECONDS * factor * 1e9)


@pytest.mark.parametrize("delay_seconds", [MAX_DELAY_SECONDS + 1, 1e300])
def test_a_first_delay_beyond_the_longest_is_that(factor: float, delay_seconds: float) -> None:
    assert Retries(1, delay_seconds).delay_ns(1) == pytest.approx(MAX_DELAY_SECONDS * factor * 1e9)


def test_without_a_delay_a_task_is_tried_again_at_once(factor: float) -> None:
    assert [Retries(5, 0.0).delay_ns(failures) for failures in (1, 5, 100)] == [0, 0, 0]


def test_tasks_that_failed_together_do_not_come_back_together() -> None:
    random.seed(1)
    delays = [Retries(1, 1.0).delay_ns(1) for _ in range(1000)]
    assert all(1 - JITTER <= delay / 1e9 <= 1 + JITTER for delay in delays)
    assert max(delays) - min(delays) > 0.9e9
    assert len(set(delays)) > 900
