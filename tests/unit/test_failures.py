"""Which failures are logged."""

from __future__ import annotations

from conveyor.failures import BURST_LINES, LINES_A_SECOND, FailureLog


def test_failures_at_an_ordinary_rate_are_all_logged() -> None:
    failures = FailureLog()
    assert all(failures.admit(n / LINES_A_SECOND) for n in range(1000))
    assert failures.tell() == 0


def test_a_flood_is_cut_to_its_rate_and_the_rest_is_counted() -> None:
    failures = FailureLog()
    admitted = sum(failures.admit(n / 1000) for n in range(10_000))
    assert BURST_LINES <= admitted <= BURST_LINES + 10 * LINES_A_SECOND + 1
    assert failures.tell() == 10_000 - admitted
    assert failures.tell() == 0


def test_after_a_flood_there_is_room_again() -> None:
    failures = FailureLog()
    for _ in range(1000):
        failures.admit(0.0)
    assert not failures.admit(0.0)
    assert failures.admit(1.0)
