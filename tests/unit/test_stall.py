"""What stillness means, after a death."""

from __future__ import annotations

from dataclasses import replace

import pytest

from conveyor.stall import PATIENCE_SECONDS, Scene, StallDetector, Verdict

CALM = Scene(
    started=3,
    movement=10,
    waiting=0,
    is_empty=True,
    has_room=True,
    surely_has_room=True,
    idle_consumers=2,
    reporting_consumers=0,
    blocked_producers=0,
    leaving_producers=0,
)
STARVED = replace(CALM, waiting=3, is_empty=False)


LOOK_SECONDS = 0.25


def watch(*scenes: Scene, death: bool = True, seconds: float = PATIENCE_SECONDS / 2 + 0.5) -> list[Verdict]:
    """Show each scene for a while; return the last verdict on each."""
    detector = StallDetector()
    if death:
        detector.on_death()
    verdicts, now = [], 0.0
    for scene in scenes:
        for _ in range(round(seconds / LOOK_SECONDS)):
            now += LOOK_SECONDS
            verdict = detector.look(now, scene)
            if verdict is not Verdict.NOTHING:
                break
        verdicts.append(verdict)
    return verdicts


def test_an_idle_pipeline_is_not_stalled() -> None:
    assert set(watch(CALM, CALM, CALM)) == {Verdict.NOTHING}


def test_nothing_is_concluded_before_a_death() -> None:
    assert set(watch(STARVED, STARVED, STARVED, death=False)) == {Verdict.NOTHING}


@pytest.mark.parametrize(
    "scene",
    [
        pytest.param(STARVED, id="a dead consumer holds the read lock"),
        pytest.param(replace(CALM, reporting_consumers=1, idle_consumers=0), id="one holds the condition"),
        pytest.param(replace(CALM, blocked_producers=1), id="a place in the queue died with its consumer"),
        pytest.param(replace(CALM, leaving_producers=1), id="a dead producer holds the write lock"),
    ],
)
def test_a_wait_that_cannot_end_is_a_frozen_queue(scene: Scene) -> None:
    assert watch(scene, scene) == [Verdict.NOTHING, Verdict.FROZEN]


def test_tasks_that_wait_nowhere_are_lost() -> None:
    scene = replace(STARVED, is_empty=True)
    assert watch(scene, scene) == [Verdict.NOTHING, Verdict.TASKS_LOST]


def test_tasks_that_wait_nowhere_again_before_any_other_was_taken_mean_a_frozen_queue() -> None:
    scene = replace(STARVED, is_empty=True)
    more = [replace(scene, movement=11), replace(scene, movement=11)]
    assert watch(scene, scene, *more)[-1] is Verdict.FROZEN
    later = [replace(scene, movement=12, started=4), replace(scene, movement=12, started=4)]
    assert watch(scene, scene, *later)[-1] is Verdict.TASKS_LOST


def test_any_movement_starts_the_patience_anew() -> None:
    scenes = [replace(STARVED, movement=n) for n in range(5)]
    assert set(watch(*scenes)) == {Verdict.NOTHING}


def test_consumers_that_are_all_in_long_tasks_are_not_stalled() -> None:
    scene = replace(STARVED, idle_consumers=0)
    assert set(watch(scene, scene, scene)) == {Verdict.NOTHING}


def test_producers_that_wait_for_a_full_queue_are_not_stalled() -> None:
    scene = replace(
        CALM, waiting=5, is_empty=False, has_room=False, surely_has_room=False, idle_consumers=0, blocked_producers=2
    )
    assert set(watch(scene, scene, scene)) == {Verdict.NOTHING}


def test_a_moment_of_calm_starts_the_patience_anew() -> None:
    assert set(watch(STARVED, CALM, STARVED)) == {Verdict.NOTHING}
    assert watch(STARVED, CALM, STARVED, STARVED)[-1] is Verdict.FROZEN


def test_time_in_which_nobody_looked_does_not_count() -> None:
    detector = StallDetector()
    detector.on_death()
    assert detector.look(0.5, STARVED) is Verdict.NOTHING
    assert detector.look(100.0, STARVED) is Verdict.NOTHING  # the machine, or all of us, had been asleep


def test_a_place_that_a_lost_task_still_takes_is_no_room_while_consumers_work() -> None:
    scene = replace(CALM, waiting=5, is_empty=False, idle_consumers=0, blocked_producers=1, surely_has_room=False)
    assert set(watch(scene, scene, scene)) == {Verdict.NOTHING}
    assert watch(*[replace(scene, waiting=0, idle_consumers=1)] * 2)[-1] is Verdict.FROZEN
