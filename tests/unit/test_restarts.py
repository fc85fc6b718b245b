"""When a slot gets a new process."""

from __future__ import annotations

from conveyor.restarts import (
    MAX_DELAY_SECONDS,
    MAX_START_DELAY_SECONDS,
    MAX_TASK_DELAY_SECONDS,
    START_PATIENCE_SECONDS,
    TELL_SECONDS,
    RestartPolicy,
    StartPolicy,
)
from conveyor.snapshot import Role


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


# -- deaths in tasks ---------------------------------------------------------------------------------------


def deaths_in_tasks(policy: RestartPolicy, number: int, *, is_moving: bool) -> list[float | None]:
    return [policy.on_death(n * 0.02, 0.02, True, False, in_task=True, is_moving=is_moving) for n in range(number)]


def test_a_death_in_a_task_waits_for_nothing_while_tasks_get_done() -> None:
    assert set(deaths_in_tasks(RestartPolicy(), 100, is_moving=True)) == {0}


def test_thirty_deaths_in_tasks_in_a_row_wait_for_less_than_half_a_second() -> None:
    assert sum(filter(None, deaths_in_tasks(RestartPolicy(), 30, is_moving=False))) < 0.5


def test_where_all_tasks_kill_there_is_a_pause() -> None:
    policy = RestartPolicy()
    assert deaths_in_tasks(policy, 1000, is_moving=False)[-1] == MAX_TASK_DELAY_SECONDS
    assert deaths_in_tasks(policy, 1, is_moving=True) == [0]
    assert deaths_in_tasks(policy, 1, is_moving=False)[0] != MAX_TASK_DELAY_SECONDS


def test_deaths_in_tasks_say_nothing_of_one_that_just_dies() -> None:
    policy = RestartPolicy()
    deaths_in_tasks(policy, 50, is_moving=False)
    assert policy.on_death(2.0, 0.1, was_ready=True, was_useful=False) == 0.05


# -- starts that fail --------------------------------------------------------------------------------------


def test_what_cannot_be_started_is_tried_again_for_ever_while_others_of_its_role_are_there() -> None:
    policy = StartPolicy()
    delays = [policy.on_failure(float(n), missing=(), has_started=False) for n in range(1000)]
    assert None not in delays
    assert delays[-1] == MAX_START_DELAY_SECONDS
    back = policy.on_failure(1001.0, missing=(), has_started=True)
    assert back is not None
    assert back < MAX_START_DELAY_SECONDS


def test_a_role_that_has_nobody_for_too_long_is_given_up() -> None:
    policy, role = StartPolicy(), {Role.CONSUMER}
    assert policy.on_failure(100.0, role, has_started=False) is not None
    assert policy.on_failure(100.0 + START_PATIENCE_SECONDS - 0.1, role, has_started=False) is not None
    assert policy.on_failure(100.0 + START_PATIENCE_SECONDS, role, has_started=False) is None


def test_a_role_that_has_had_somebody_meanwhile_is_waited_for_anew() -> None:
    policy, role = StartPolicy(), {Role.CONSUMER}
    policy.on_failure(100.0, role, has_started=False)
    policy.on_failure(103.0, (), has_started=False)
    assert policy.on_failure(106.0, role, has_started=False) is not None


def test_who_waits_is_told_of_now_and_then() -> None:
    policy = StartPolicy()
    assert [policy.should_tell(n) for n in (1.0, 2.0, TELL_SECONDS, 1.0 + TELL_SECONDS)] == [True, False, False, True]
