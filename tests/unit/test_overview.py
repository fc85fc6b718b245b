"""What the page says of a run, in words."""

from __future__ import annotations

import dataclasses
import signal
from typing import Any

import pytest

from conveyor.exporter.overview import Overview, Worker, overview
from conveyor.exporter.rates import Rates
from conveyor.snapshot import Death, Ending, Phase, RestartReason, RunStatistics, SpoolStatistics, WorkerState
from support.fakes import make_run, make_slot


def see(run: RunStatistics, unhealthy: str | None = None, unready: str | None = None) -> Overview:
    return overview(run, Rates().since(run), unhealthy, unready)


def figures(seen: Overview) -> dict[str, tuple[str, str]]:
    return {figure.label: (figure.value, figure.detail) for figure in seen.figures}


def worker(**changes: Any) -> Worker:
    (line,) = see(make_run(make_slot("consumer-1", **changes))).workers
    return line


def make_death(**changes: Any) -> Death:
    death = Death(
        slot="consumer-1",
        exit_code=-9,
        at=1.7e9,
        lived_seconds=75.4,
        was_ready=True,
        was_useful=True,
        memory_bytes=45 * 2**20,
        stack="",
    )
    return dataclasses.replace(death, **changes)


def stories(*deaths: Death) -> list[str]:
    return [death.story for death in see(make_run(deaths=deaths)).deaths]


def bakery(**changes: Any) -> RunStatistics:
    return make_run(
        make_slot("producer-1", pid=1, produced=1300),
        make_slot("producer-2", produced=30, finished=True),
        make_slot("consumer-1", pid=2, processed=1200, failed=12, in_progress=1, state=WorkerState.BUSY),
        make_slot("consumer-2", abandoned=1),
        **changes,
    )


def test_the_three_figures_and_the_counts_come_first() -> None:
    seen = see(bakery())
    assert [figure.label for figure in seen.figures][:5] == [
        "Queue size",
        "Unfinished tasks",
        "Live processes",
        "Produced",
        "Processed",
    ]
    said = figures(seen)
    assert said["Queue size"] == ("128", "waiting, of at most 1,000")
    assert said["Unfinished tasks"] == ("130", "put and not done")
    assert said["Live processes"] == ("2 of 4", "1 of 2 producers, 1 of 2 consumers")
    assert said["Produced"] == ("1,330", "22.2 a second")
    assert said["Processed"] == ("1,200", "20.0 a second, so far")
    assert [figure.bar for figure in seen.figures[:5]] == [0.128, None, None, None, 1200 / 1330]


def test_a_queue_without_bound_has_no_bar() -> None:
    run = bakery()
    queue = dataclasses.replace(run.queue, capacity=0)
    figure = see(dataclasses.replace(run, queue=queue)).figures[0]
    assert (figure.detail, figure.bar) == ("waiting, without bound", None)


def test_once_all_producers_have_finished_the_end_is_known() -> None:
    run = make_run(make_slot("producer-1", produced=10, finished=True), make_slot("consumer-1", pid=1, processed=4))
    assert figures(see(run))["Processed"][1].endswith(", of all")


def test_troubles_are_shown_only_where_there_are_some() -> None:
    run = bakery(failures={"SpilledError": 9, "ValueError": 3})
    run = dataclasses.replace(run, queue=dataclasses.replace(run.queue, redelivered=4, dead_lettered=2, dead_letters=3))
    seen = see(run)
    assert {label: figures(seen)[label] for label in list(figures(seen))[5:]} == {
        "Failed": ("12", "SpilledError 9, ValueError 3"),
        "Redelivered": ("4", "given again after a death"),
        "Dead letters": ("2", "given up after the last attempt"),
        "Dead letters kept": ("3", "to be looked at, and done again or dropped"),
        "Lost": ("1", "nobody can do them any more"),
        "Down": ("1", "slots without a process"),
    }
    assert {figure.tone for figure in seen.figures[:5]} == {""}
    assert {figure.tone for figure in seen.figures[5:]} == {"bad"}
    calm = make_run(make_slot("producer-1", pid=1), make_slot("consumer-1", pid=1))
    assert len(see(calm).figures) == 5


def test_the_run_is_named_and_dated() -> None:
    seen = see(bakery(elapsed_seconds=3725.9))
    assert (seen.name, seen.queue, seen.phase, seen.comment) == ("bakery", "joinable", "running", "")
    assert (seen.started, seen.elapsed) == ("2023-11-14T22:13:20Z", "1:02:05")


@pytest.mark.parametrize("phase", list(Phase))
def test_every_phase_but_running_is_explained(phase: Phase) -> None:
    ending = Ending.DRAINED if phase is Phase.ENDED else None
    seen = see(bakery(phase=phase, ending=ending))
    assert seen.phase == phase
    assert bool(seen.comment) == (phase is not Phase.RUNNING)


@pytest.mark.parametrize("ending", list(Ending))
def test_every_ending_is_explained(ending: Ending) -> None:
    assert see(bakery(phase=Phase.ENDED, ending=ending)).comment


def test_another_run_has_another_identity() -> None:
    assert see(bakery()).identity == see(bakery(elapsed_seconds=99.0)).identity
    assert see(bakery()).identity != see(bakery(started_at=1.7e9 + 1)).identity


def notices(seen: Overview) -> list[tuple[str, str, str]]:
    return [(notice.tone, notice.label, notice.text) for notice in seen.notices]


def test_trouble_is_said_and_not_twice() -> None:
    trouble = "producer producer-1 died: SIGKILL"
    assert notices(see(bakery(trouble=trouble), unready=trouble)) == [("bad", "Trouble", trouble)]
    assert notices(see(bakery(), "stuck", "nobody")) == [
        ("bad", "Not healthy", "stuck"),
        ("warn", "Not ready", "nobody"),
    ]
    assert notices(see(bakery(phase=Phase.DRAINING), unready="the run is draining")) == []


def test_a_pause_and_a_spool_that_cannot_be_written_are_said() -> None:
    run = bakery()
    paused = dataclasses.replace(run.queue, is_paused=True)
    assert [label for _, label, _ in notices(see(dataclasses.replace(run, queue=paused)))] == ["Paused"]
    spool = SpoolStatistics("/data", 4096, tasks=0, commits=1, commit_seconds=0.1, trouble="No space left on device")
    full = dataclasses.replace(run.queue, spool=spool)
    seen = see(dataclasses.replace(run, queue=full), unready="the spool cannot be written")
    assert notices(seen) == [("bad", "Spool", "No space left on device")]
    well = dataclasses.replace(run.queue, spool=dataclasses.replace(spool, trouble=None))
    assert notices(see(dataclasses.replace(run, queue=well))) == []


# -- the workers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", list(WorkerState))
def test_a_live_worker_is_in_its_state(state: WorkerState) -> None:
    line = worker(pid=4711, state=state)
    assert (line.state, line.tone, line.pid, line.role) == (state, state, "4711", "consumer")


def test_a_worker_without_a_process_is_down_or_finished() -> None:
    down, finished = worker(last_exit_code=-9), worker(finished=True, last_exit_code=0)
    assert (down.state, down.exit, down.busy, down.share) == ("down", "SIGKILL", "", None)
    assert (finished.state, finished.exit, finished.rate) == ("finished", "code 0", "")


def test_a_worker_shows_its_task_and_its_restarts() -> None:
    line = worker(
        pid=1,
        processed=1200,
        failed=3,
        in_progress=1,
        task_age_seconds=1.23,
        busy_seconds=45.0,
        restarts={RestartReason.SIGNAL: 2, RestartReason.EXIT: 1},
        last_exit_code=-200,
    )
    assert (line.tasks, line.rate, line.task, line.failed) == ("1,200", "20.0", "1.2 s", "3")
    assert (line.busy, line.share, line.restarts, line.exit) == ("75%", 0.75, "3", "signal 200")


@pytest.mark.parametrize(("processed", "rate"), [(7, "0.1"), (59_994, "999.9"), (12_345_678, "205,761")])
def test_a_high_rate_has_no_decimals(processed: int, rate: str) -> None:
    assert worker(pid=1, processed=processed).rate == rate


def test_what_there_is_none_of_is_left_out() -> None:
    line = worker(pid=1)
    assert (line.task, line.failed, line.restarts, line.exit) == ("", "", "", "")
    assert (line.tasks, line.busy) == ("0", "0%")


def test_several_tasks_in_hand_are_counted() -> None:
    assert worker(pid=1, in_progress=3, task_age_seconds=0.5).task == "3, 0.5 s"


def test_the_crowd_is_summed_up_by_state() -> None:
    assert see(bakery()).crowd == "1 idle, 1 finished, 1 busy, 1 down"


# -- the deaths --------------------------------------------------------------------------------------------


def test_a_death_in_a_task_tells_of_the_task_and_of_its_fate() -> None:
    death = make_death(in_task=True, task="'bun #3'", attempt=2, task_seconds=1.25)
    (told,) = see(make_run(deaths=(death,))).deaths
    assert (told.slot, told.how, told.at, told.task) == ("consumer-1", "SIGKILL", "2023-11-14T22:13:20Z", "'bun #3'")
    assert told.story == (
        "In its task for 1.25 s, attempt 2; lived 0:01:15, with 45 MiB. The task is given again. "
        "SIGKILL mostly comes from outside: by hand, or from the kernel when memory is short."
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"in_task": True, "attempt": 3, "is_dead_letter": True}, "The task was given up: a dead letter."),
        ({"in_task": True, "attempt": 1, "is_lost": True}, "The task is lost."),
        ({}, "No task in hand; lived 0:01:15, with 45 MiB."),
        ({"memory_bytes": None}, "No task in hand; lived 0:01:15."),
        ({"was_ready": False}, "It died before it was ready; lived"),
        ({"exit_code": 0}, "Exit code 0 in the middle of its work"),
        (
            {"exit_code": -11, "stack": "Fatal Python error: Segmentation fault\n\n  File"},
            "SIGSEGV is a crash in C code.",
        ),
        (
            {"stack": "\nFatal Python error: Aborted\nrest"},
            "It said “Fatal Python error: Aborted”; the log has its stack.",
        ),
        ({"stack": "\n"}, "No task in hand"),
    ],
)
def test_a_death_says_what_is_known(changes: dict[str, Any], words: str) -> None:
    (story,) = stories(make_death(**changes))
    assert words in story


def test_what_an_exit_means_is_said_once() -> None:
    said = stories(make_death(), make_death(exit_code=-signal.SIGSEGV), make_death())
    assert [story.count("comes from outside") for story in said] == [1, 0, 0]
    assert "crash in C" in said[1]


def test_the_last_deaths_come_first_and_the_others_are_counted() -> None:
    deaths = tuple(make_death(slot=f"consumer-{number}") for number in range(1, 8))
    seen = see(make_run(deaths=deaths))
    assert [death.slot for death in seen.deaths] == [f"consumer-{number}" for number in (7, 6, 5, 4, 3)]
    assert seen.other_deaths == "and 2 before"
    assert see(make_run(deaths=deaths[:5])).other_deaths == ""
