"""When a slot gets a new process."""

from __future__ import annotations

from conveyor.restarts import MAX_DELAY_SECONDS, RestartPolicy


def test_the_delay_doubles_up_to_its_limit() -> None:
    policy = RestartPolicy()
    delays = [policy.on_death(float(n), lived_seconds=0.1, was_ready=True) for n in range(9)]
    assert delays[:4] == [0.05, 0.1, 0.2, 0.4]
    assert delays[-1] == MAX_DELAY_SECONDS


def test_a_process_that_lived_long_starts_over_with_the_first_delay() -> None:
    policy = RestartPolicy()
    for n in range(5):
        policy.on_death(float(n), lived_seconds=0.1, was_ready=True)
    assert policy.on_death(100.0, lived_seconds=60.0, was_ready=True) == 0.05


def test_five_deaths_before_ready_within_30_seconds_are_a_crash_loop() -> None:
    policy = RestartPolicy()
    answers = [policy.on_death(n * 7.5, lived_seconds=0.1, was_ready=False) for n in range(5)]
    assert None not in answers[:4]
    assert answers[4] is None


def test_slower_deaths_before_ready_are_not() -> None:
    policy = RestartPolicy()
    answers = [policy.on_death(n * 7.6, lived_seconds=0.1, was_ready=False) for n in range(20)]
    assert None not in answers


def test_deaths_of_ready_processes_never_are() -> None:
    policy = RestartPolicy()
    assert None not in [policy.on_death(n * 0.1, lived_seconds=0.1, was_ready=True) for n in range(100)]
