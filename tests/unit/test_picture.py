"""The picture of a run made by hand, as text. On a real terminal: see the integration tests."""

from __future__ import annotations

import dataclasses
import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from conveyor.lineup import COLOURS, state
from conveyor.picture import Picture
from conveyor.snapshot import Phase, RedeliveryReason, RestartReason, RunStatistics, SpoolStatistics, WorkerState
from support.fakes import make_run, make_slot

BUSY = make_slot("consumer-1", pid=7001, state=WorkerState.BUSY, processed=30, in_progress=1, busy_seconds=15.0,
                 failed=2, task_age_seconds=1.25, restarts={RestartReason.SIGNAL: 3})  # fmt: skip
PRODUCING = make_slot("producer-1", pid=7000, state=WorkerState.BLOCKED, produced=1040, busy_seconds=60.0)
DOWN = make_slot("consumer-2", processed=4, abandoned=1)
RUN = make_run(PRODUCING, BUSY, DOWN)


def drawn(
    run: RunStatistics, earlier: RunStatistics | None = None, width: int = 100, height: int | None = None
) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(Picture(run, earlier, height))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def row(lines: list[str], name: str) -> list[str]:
    return next(line.split() for line in lines if line.startswith(name))


def test_it_tells_the_run_its_figures_and_each_worker() -> None:
    lines = drawn(RUN)
    assert lines[0].rstrip() == "bakery  joinable queue  running  0:01:00"
    assert lines[1] == ("produced 1,040 (17.3/s)  waiting 1,004/1000  unfinished 1,006  processed 34 (0.6/s)  failed 2")
    assert lines[2] == "lost 1  down 1"
    assert lines[3].endswith("34 of 1,040 so far")
    assert " ".join(lines[4].split()) == "worker state tasks busy in task failed per s restarts pid"
    assert row(lines, "producer-1") == ["producer-1", "blocked", "1,040", "100%", "17.3", "7000"]
    assert row(lines, "consumer-1") == ["consumer-1", "busy", "30", "25%", "1.2", "s", "2", "0.5", "3", "7001"]
    assert row(lines, "consumer-2") == ["consumer-2", "down", "4", "0%", "0.1"]


def test_a_worker_that_replaces_a_dead_one_is_told_as_such() -> None:
    replaced = dataclasses.replace(BUSY, state=WorkerState.REPLACED)
    lines = drawn(dataclasses.replace(RUN, slots=(PRODUCING, replaced)))
    assert row(lines, "consumer-1")[1] == "replaced"
    assert state(replaced).style == COLOURS[WorkerState.REPLACED] == "red"


def test_rates_are_those_since_the_earlier_reading() -> None:
    earlier = dataclasses.replace(
        RUN,
        elapsed_seconds=58.0,
        slots=(
            dataclasses.replace(PRODUCING, produced=1000, busy_seconds=59.0),
            dataclasses.replace(BUSY, processed=24, busy_seconds=15.0),
            DOWN,
        ),
    )
    lines = drawn(RUN, earlier)
    assert "(20.0/s)" in lines[1]
    assert "(3.0/s)" in lines[1]
    assert row(lines, "producer-1") == ["producer-1", "blocked", "1,040", "50%", "20.0", "7000"]
    assert row(lines, "consumer-1")[3] == "0%"


def test_the_same_reading_twice_is_no_division_by_zero() -> None:
    assert "(17.3/s)" in drawn(RUN, RUN)[1]
    assert drawn(dataclasses.replace(RUN, elapsed_seconds=0.0))


def test_once_all_is_produced_the_bar_is_of_all() -> None:
    finished = dataclasses.replace(PRODUCING, pid=None, up=False, state=None, finished=True)
    lines = drawn(make_run(finished, BUSY))
    assert lines[2].endswith("30 of 1,040")
    assert row(lines, "producer-1")[1] == "finished"


def test_a_run_in_trouble_says_why() -> None:
    run = dataclasses.replace(RUN, phase=Phase.STOPPING, trouble="producer chef-1 died: SIGKILL")
    assert drawn(run)[1].rstrip() == "producer chef-1 died: SIGKILL"


def test_a_pause_the_spool_and_what_was_tried_again_are_told() -> None:
    spool = SpoolStatistics("/data", 300 * 2**20, tasks=5000, commits=1, commit_seconds=0.1, trouble=None)
    reasons = dict.fromkeys(RedeliveryReason, 0) | {RedeliveryReason.ERROR: 3}
    queue = dataclasses.replace(RUN.queue, is_paused=True, spool=spool, delayed=7, redeliveries=reasons, dead_letters=4)
    lines = drawn(dataclasses.replace(RUN, queue=queue))
    assert lines[0].rstrip() == "bakery  joinable queue  running  paused  0:01:00"
    assert lines[1].endswith("  delayed 7")
    assert lines[2] == "failed 2  redelivered 3 (error 3)  dead letters kept 4  lost 1  down 1"
    assert lines[4].rstrip() == "spool /data  300 MiB  5,000 tasks on disk alone"
    ill = dataclasses.replace(queue, spool=dataclasses.replace(spool, tasks=0, trouble="No space left on device"))
    assert drawn(dataclasses.replace(RUN, queue=ill))[4].rstrip() == "spool /data  300 MiB  No space left on device"


def test_a_number_of_consumers_that_follows_the_backlog_is_told_with_its_bounds() -> None:
    assert "consumers 1 of 1 to 12" in "".join(drawn(dataclasses.replace(RUN, consumers_least=1, consumers_most=12)))
    assert "consumers" not in "".join(drawn(RUN))


def test_an_unbounded_queue_has_no_room_to_show() -> None:
    run = dataclasses.replace(RUN, queue=dataclasses.replace(RUN.queue, capacity=0))
    assert "waiting 1,004  " in drawn(run)[1]


def test_a_name_is_shown_as_it_is_and_cut_where_it_is_too_long() -> None:
    lines = drawn(make_run(make_slot("[red]大厨_1[/]"), make_slot("n" * 200)), width=60)
    assert any(line.startswith("[red]大厨_1[/]") for line in lines)
    assert any(line.startswith("nnn") and "n… " in line for line in lines)


@pytest.mark.parametrize("height", [1, 3, 6, 8, 24, 100])
@pytest.mark.parametrize("width", [10, 20, 40, 80, 200])
def test_it_keeps_to_the_terminal(width: int, height: int) -> None:
    slots = [dataclasses.replace(BUSY, name=f"食客_{number}") for number in range(60)]
    lines = drawn(make_run(PRODUCING, *slots), None, width, height)
    assert len(lines) <= height - 1
    assert max((cell_len(line) for line in lines), default=0) <= width


def test_who_does_not_fit_is_summed_up() -> None:
    slots = [make_slot(f"consumer-{number}", pid=number) for number in range(1, 21)] + [DOWN] * 3
    lines = drawn(make_run(PRODUCING, *slots), height=14)
    assert len(lines) == 13
    assert lines[-1] == "and 16 more: 13 idle, 3 down"


def test_a_narrow_terminal_shows_the_most_telling_columns() -> None:
    assert drawn(RUN, width=50)[5].split()[:4] == ["worker", "state", "tasks", "busy"]
