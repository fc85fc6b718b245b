"""How many tasks travel together follows from how long they take, within bounds."""

from __future__ import annotations

import random

import pytest

from conveyor.queues.pace import CHUNK_NS, FAIR_NS, LEASE_NS, MAX_CHUNK_TASKS, MAX_LEASE_TASKS, Pace

UNBOUND = 1 << 40


def pace_at(task_ns: int) -> Pace:
    pace = Pace()
    pace.learn(1000, 1000 * task_ns)
    return pace


def test_while_nothing_is_known_a_task_travels_alone() -> None:
    assert (Pace().chunk(UNBOUND, 0), Pace().lease(1000, 2)) == (1, 1)


@pytest.mark.parametrize(("task_ns", "tasks"), [(1_000, 2000), (100_000, 20), (CHUNK_NS, 1), (10 * CHUNK_NS, 1)])
def test_a_chunk_is_about_so_much_work(task_ns: int, tasks: int) -> None:
    assert pace_at(task_ns).chunk(UNBOUND, 0) == tasks


@pytest.mark.parametrize("took_ns", [0, 1, 10, 10**6, 10**12, 10**18])
@pytest.mark.parametrize("share", [1, 2, 3, 10, UNBOUND])
def test_a_chunk_has_bounds_whatever_was_learned(took_ns: int, share: int) -> None:
    pace = Pace()
    pace.learn(1, took_ns)
    assert 1 <= pace.chunk(share, 0) <= min(share, MAX_CHUNK_TASKS)


@pytest.mark.parametrize("took_ns", [0, 1, 10**6, 10**8, 10**18])
@pytest.mark.parametrize("waiting", [1, 2, 100, 10**6])
@pytest.mark.parametrize("consumers", [0, 1, 3, 1000])
def test_a_lease_has_bounds_whatever_was_learned(took_ns: int, waiting: int, consumers: int) -> None:
    pace = Pace()
    pace.learn(1, took_ns)
    tasks = pace.lease(waiting, consumers)
    assert 1 <= tasks <= MAX_LEASE_TASKS
    assert tasks == 1 or tasks * took_ns <= LEASE_NS


def test_a_lease_is_a_fair_part_but_no_crumb_and_not_too_much() -> None:
    pace = pace_at(10_000)
    crumb = FAIR_NS // 10_000
    assert pace.lease(2000, 4) == 500
    assert pace.lease(20, 4) >= 20  # it costs more to send a few tasks than to do them
    assert pace.lease(crumb + 1, 4) == crumb
    assert pace.lease(100_000, 4) == LEASE_NS // 10_000


def test_slow_tasks_are_leased_alone_however_few_the_consumers() -> None:
    assert pace_at(2 * LEASE_NS).lease(1000, 1) == 1


def test_it_adapts_both_ways_in_a_few_reports() -> None:
    pace = pace_at(1_000)
    for _ in range(20):
        pace.learn(1, 10_000_000)
    assert pace.lease(1000, 1) == pace.chunk(UNBOUND, 0) == 1
    for _ in range(60):
        pace.learn(1000, 1_000_000)
    assert pace.chunk(UNBOUND, 0) > 1000


def test_one_report_alone_does_not_turn_it_over() -> None:
    pace = pace_at(10_000)
    pace.learn(1, 100_000)
    assert pace.lease(UNBOUND, 1) > LEASE_NS // 10_000 // 3


def test_a_report_without_a_finished_task_teaches_nothing() -> None:
    pace = pace_at(10_000)
    before = pace.lease(UNBOUND, 1)
    pace.learn(0, 10**12)
    assert pace.lease(UNBOUND, 1) == before


def test_the_mean_stays_among_what_was_seen() -> None:
    chance = random.Random(7)
    pace = Pace()
    for _ in range(1000):
        tasks = chance.randint(1, 100)
        pace.learn(tasks, tasks * chance.randint(10_000, 100_000))
        assert LEASE_NS // 100_000 <= pace.lease(UNBOUND, 1) <= LEASE_NS // 10_000


def test_chunks_are_larger_where_much_waits_already() -> None:
    """Also while tasks are slow, or nothing is known: a backlog of millions is not one of millions of chunks."""
    assert Pace().chunk(UNBOUND, 1000) == 15
    assert pace_at(10**9).chunk(UNBOUND, 10**7) == MAX_CHUNK_TASKS
    assert pace_at(10**9).chunk(100, 10**7) == 100
