"""When a slot gets a new process."""

from __future__ import annotations

from conveyor.restarts import MAX_DELAY_SECONDS, RestartPolicy


def deaths(policy: RestartPolicy, number: int, every_seconds: float, was_ready: bool) -> list[float | None]:
    """Return the answers to so many deaths of processes that did nothing."""
    return [policy.on_death(n * every_seconds, 0.1, was_ready, was_useful=False) for n in range(number)]


def test_the_delay_doubles_up_to_its_limit() -> None:
    delays = deaths(RestartPolicy(), 9, 1.0, was_ready=True)
    assert delays[:4] == [0.05, 0.1, 0.2, 0.4]
    assert delays[-1] == MAX_DELAY_SECONDS


def test_after_a_process_that_lived_long_the_next_starts_at_once() -> None:
    policy = RestartPolicy()
    deaths(policy, 5, 1.0, was_ready=True)
    assert policy.on_death(100.0, 60.0, was_ready=True, was_useful=False) == 0
    assert policy.on_death(101.0, 0.1, was_ready=True, was_useful=False) == 0.05


def test_after_a_process_that_has_done_something_the_next_starts_at_once() -> None:
    """It is the task, or somebody outside, that kills; the other tasks wait for nothing but a process."""
    policy = RestartPolicy()
    assert {policy.on_death(n * 0.02, 0.02, was_ready=True, was_useful=True) for n in range(100)} == {0}


def test_five_deaths_before_ready_within_30_seconds_are_a_crash_loop() -> None:
    answers = deaths(RestartPolicy(), 5, 7.5, was_ready=False)
    assert None not in answers[:4]
    assert answers[4] is None


def test_slower_deaths_before_ready_are_not() -> None:
    assert None not in deaths(RestartPolicy(), 20, 7.6, was_ready=False)


def test_deaths_of_ready_processes_never_are() -> None:
    assert None not in deaths(RestartPolicy(), 100, 0.1, was_ready=True)
