"""How long one consumer process may go on."""

from __future__ import annotations

import pytest

from conveyor.recycling import LOOK_NS, Lifespan, Limits, own_memory_bytes


def test_without_limits_it_never_ends() -> None:
    lifespan = Lifespan(Limits())
    lifespan.spend(10**9, 0)
    assert not lifespan.is_over


def test_it_ends_with_its_last_task() -> None:
    lifespan = Lifespan(Limits(tasks=10))
    lifespan.spend(9, 0)
    assert (lifespan.is_over, lifespan.tasks_left) == (False, 1)
    lifespan.spend(1, 0)
    assert lifespan.is_over


def test_it_ends_when_the_process_has_grown_too_far() -> None:
    memory = [100]
    lifespan = Lifespan(Limits(memory_bytes=100), lambda: memory[0])
    lifespan.spend(1, LOOK_NS)
    assert not lifespan.is_over
    memory[0] = 101
    lifespan.spend(1, 2 * LOOK_NS)
    assert lifespan.is_over


def test_the_memory_is_looked_at_only_now_and_then() -> None:
    looks = []

    def weigh() -> int:
        looks.append(1)
        return 1

    lifespan = Lifespan(Limits(memory_bytes=100), weigh)
    for now_ns in range(0, LOOK_NS, LOOK_NS // 100):
        lifespan.spend(1, now_ns)
    assert len(looks) == 1


@pytest.mark.parametrize("limits", [Limits(), Limits(tasks=5)])
def test_nobody_looks_at_the_memory_where_it_has_no_limit(limits: Limits) -> None:
    def never() -> int:
        raise AssertionError("a look that costs time for nothing")

    Lifespan(limits, never).spend(1, 10**12)


def test_a_process_has_some_megabytes() -> None:
    before = own_memory_bytes()
    assert before > 5 << 20
    kept = bytearray(b"x" * (64 << 20))
    assert own_memory_bytes() - before > len(kept) // 2
