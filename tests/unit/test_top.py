"""The parts of `conveyor top`, as text. On a real terminal: see the integration tests."""

from __future__ import annotations

import dataclasses
import io
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from rich.cells import cell_len
from rich.console import Console

from conveyor.snapshot import (
    Death,
    Phase,
    QueueStatistics,
    RedeliveryReason,
    RestartReason,
    RunStatistics,
    SpoolStatistics,
    WorkerState,
)
from conveyor.top.history import SPAN_SECONDS, History, Sample
from conveyor.top.page import Demand, Page, shares
from conveyor.top.ranking import Ranking
from conveyor.top.screen import Key, keys
from conveyor.top.sparkline import ASCII, sparkline
from conveyor.top.usage import Usage, UsageReader
from support.fakes import make_run, make_slot
from support.waiting import wait_for

BUSY = make_slot("consumer-1", pid=7001, state=WorkerState.BUSY, processed=30, in_progress=1, busy_seconds=15.0,
                 failed=2, task_age_seconds=1.25, restarts={RestartReason.SIGNAL: 3})  # fmt: skip
PRODUCING = make_slot("producer-1", pid=7000, state=WorkerState.BLOCKED, produced=1040, busy_seconds=60.0)
DOWN = make_slot("consumer-2", processed=4, abandoned=1)
RUN = make_run(PRODUCING, BUSY, DOWN)
USAGE = {"producer-1": Usage(0.5, 20 * 2**20), "consumer-1": Usage(None, 30 * 2**20)}
DEATH = Death(
    "consumer-2", -9, RUN.started_at + 55.0, 3.0, True, True, None, "", in_task=True, task="'bun'", task_seconds=1.0
)
SPOOL = SpoolStatistics("/data", 3 * 2**20, 5000, 10, 0.1, None)


# -- the charts --------------------------------------------------------------------------------------------


def test_the_largest_value_fills_the_chart_and_zero_is_a_stroke() -> None:
    assert sparkline([0, 1, 4, 8, None], 1) == ["▁▂▅█ "]
    assert sparkline([0, 4, 8], 2) == [" ▁█", "▁██"]
    assert sparkline([0, 8], 1, ASCII) == ["_#"]


def test_whatever_is_more_than_zero_is_seen() -> None:
    assert sparkline([0, 0.001, 1e9], 1) == ["▁▂█"]
    assert sparkline([0, 0, 0], 1) == ["▁▁▁"]


def test_a_chart_of_nothing_is_blank() -> None:
    assert sparkline([None, None], 1) == ["  "]
    assert sparkline([], 3) == ["", "", ""]


# -- the history -------------------------------------------------------------------------------------------


def produced(sample: Sample) -> int:
    return sample.produced


def waiting(sample: Sample) -> int:
    return sample.waiting


def read_at(at: float, tasks: int) -> RunStatistics:
    return make_run(make_slot("producer-1", pid=1, produced=tasks), elapsed_seconds=at)


def history(*readings: tuple[float, int]) -> History:
    made = History()
    for at, tasks in readings:
        made.add(read_at(at, tasks))
    return made


CELL = SPAN_SECONDS / 10  # of a chart of ten cells


def test_a_rate_is_the_growth_in_the_time_of_a_cell() -> None:
    known = history((8 * CELL, 0), (9 * CELL, 100), (10 * CELL, 400))
    assert known.rates(10, produced) == [None] * 8 + [pytest.approx(100 / CELL), pytest.approx(300 / CELL)]


def test_a_late_reading_makes_no_peak() -> None:
    known = history((0, 0), (1, 10), (10 * CELL, round(100 * CELL)))
    assert known.rates(10, produced) == [pytest.approx(10, rel=0.01)] * 10


def test_the_last_cell_is_what_there_is_of_it() -> None:
    assert history((9 * CELL, 0), (9 * CELL + 1, 7)).rates(10, produced) == [None] * 9 + [pytest.approx(7)]


def test_a_chart_keeps_its_form_as_it_moves_on() -> None:
    readings = [(float(second), second * second) for second in range(round(12 * CELL))]
    before = history(*[reading for reading in readings if reading[0] <= 10 * CELL]).rates(10, produced)
    after = history(*[reading for reading in readings if reading[0] <= 11 * CELL]).rates(10, produced)
    assert after[1:-1] == [pytest.approx(value) for value in before[2:]]


def test_a_level_is_the_most_that_was_seen_in_a_cell() -> None:
    known = history((9 * CELL, 5), (9.4 * CELL, 80), (9.5 * CELL, 0), (10 * CELL, 20))
    assert known.levels(10, waiting) == [None] * 9 + [80]


def test_a_level_is_not_zero_for_want_of_a_reading() -> None:
    assert history((0, 50), (10 * CELL, 50)).levels(10, waiting) == [50] * 10


def test_one_reading_makes_no_chart_and_the_same_twice_is_one() -> None:
    for known in (history(), history((5, 1)), history((5, 1), (5, 1), (4, 1))):
        assert known.rates(3, produced) == [None] * 3
        assert known.levels(3, waiting) == [None] * 3
        assert known.earlier is None


def test_figures_are_compared_with_those_of_some_seconds_ago_or_with_the_last() -> None:
    often = history(*((number / 10, number) for number in range(100)))
    assert often.earlier is not None
    assert often.earlier.elapsed_seconds == pytest.approx(9.9 - 3.0, abs=0.1)
    seldom = history((0, 0), (60, 1), (120, 2))
    assert seldom.earlier is not None
    assert seldom.earlier.elapsed_seconds == 60


def test_what_is_older_than_the_chart_is_forgotten() -> None:
    known = history(*((float(second), second) for second in range(2000)))
    assert len(known._samples) <= SPAN_SECONDS + 2
    assert None not in known.rates(100, produced)


# -- the order of workers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ranking", "names"),
    [
        (Ranking.WORKER, ["a", "b", "c", "d"]),
        (Ranking.TASKS, ["c", "a", "b", "d"]),
        (Ranking.CPU, ["b", "a", "c", "d"]),
        (Ranking.MEMORY, ["a", "b", "c", "d"]),
        (Ranking.AGE, ["d", "a", "b", "c"]),
    ],
)
def test_those_with_the_most_come_first_and_equals_keep_their_order(ranking: Ranking, names: list[str]) -> None:
    slots = [
        make_slot("a", pid=1, processed=5, task_age_seconds=0.0),
        make_slot("b", pid=2, processed=5),
        make_slot("c", pid=3, processed=50),
        make_slot("d", task_age_seconds=3.0),
    ]
    usage = {"a": Usage(None, 9), "b": Usage(0.0, 5), "c": Usage(None, 1)}
    assert [slot.name for slot in ranking.sort(slots, usage)] == names


def test_the_choice_goes_round_both_ways() -> None:
    chosen = [Ranking.WORKER]
    while len(chosen) <= len(Ranking):
        chosen.append(chosen[-1].next(1))
    assert chosen == [*Ranking, Ranking.WORKER]
    assert Ranking.WORKER.next(-1) is list(Ranking)[-1]


# -- keys ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "meaning"),
    [
        (b"q", [Key.QUIT]),
        (b"ssS", [Key.NEXT, Key.NEXT, Key.BEFORE]),
        (b"\x1b[C\x1bOD", [Key.NEXT, Key.BEFORE]),
        (b"\x1b[1;5C", [Key.NEXT]),
        (b"\x1b[A\x1b[15~\x1bOQ\x1bq\n \xe5\x8c\x85", []),  # up, F5, F2, Alt-q: whatever a terminal may send
        (b"\x1b", []),
        (b"\x1b[", []),
    ],
)
def test_keys_are_told_from_all_else_that_a_terminal_sends(data: bytes, meaning: list[Key]) -> None:
    assert keys(data) == meaning


# -- CPU and memory --------------------------------------------------------------------------------------------


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has started, and does nothing."""
    command = [sys.executable, "-c", "print(flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def test_cpu_and_memory_are_those_of_the_process_in_the_slot(child: subprocess.Popen[bytes]) -> None:
    reader = UsageReader(os.getpid())
    slots = [make_slot("consumer-1", pid=child.pid), make_slot("consumer-2")]
    first = reader.read(slots)
    assert first["consumer-1"].cpu is None, "nothing to compare with"
    second = reader.read(slots)
    assert second.keys() == {"consumer-1"}
    assert second["consumer-1"].cpu is not None
    assert 0 <= second["consumer-1"].cpu < 100
    assert second["consumer-1"].memory_bytes > 2**20


def test_a_process_that_has_ended_has_no_figures(child: subprocess.Popen[bytes]) -> None:
    reader = UsageReader(os.getpid())
    slots = [make_slot("consumer-1", pid=child.pid)]
    assert reader.read(slots)
    child.kill()  # and not waited for: a zombie uses nothing
    wait_for("its end", lambda: not reader.read(slots))
    child.wait()
    assert reader.read(slots) == {}
    assert UsageReader(os.getpid()).read(slots) == {}


def test_a_number_that_is_another_process_here_is_not_read(child: subprocess.Popen[bytes]) -> None:
    reader = UsageReader(child.pid)  # of which we are no child
    slots = [make_slot("consumer-1", pid=os.getpid())]
    for _ in range(2):
        assert reader.read(slots) == {}


# -- who gets the lines ------------------------------------------------------------------------------------------


def test_who_asks_first_is_served_first() -> None:
    wishes = [Demand("a", 1, 2), Demand("b", 2, 3), Demand("a", 1, 4), Demand("c", 0, 0)]
    assert [dict(shares(height, wishes)) for height in (0, 1, 3, 4, 6, 99)] == [
        {}, {"a": 1}, {"a": 3}, {"a": 2, "b": 2}, {"a": 3, "b": 3}, {"a": 4, "b": 3},
    ]  # fmt: skip


# -- the page ----------------------------------------------------------------------------------------------------


def page(run: RunStatistics = RUN, ranking: Ranking = Ranking.WORKER, silent_seconds: float | None = None) -> Page:
    known = History()
    for seconds in (4.0, 2.0, 0.0):
        known.add(dataclasses.replace(run, elapsed_seconds=run.elapsed_seconds - seconds))
    return Page(run, known, USAGE, ranking, silent_seconds)


def drawn(shown: Page, width: int = 120, height: int = 30) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, color_system=None)
    console.print(shown)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def with_queue(run: RunStatistics, **changes: object) -> RunStatistics:
    queue: QueueStatistics = dataclasses.replace(run.queue, **changes)  # type: ignore[arg-type]
    return dataclasses.replace(run, queue=queue)


def row(lines: list[str], name: str) -> str:
    return next(" ".join(line.split()) for line in lines if line.startswith(name))


def test_a_page_has_the_figures_the_charts_the_workers_and_the_keys() -> None:
    lines = drawn(page())
    assert len(lines) == 30
    assert lines[0] == "bakery  joinable queue  running  0:01:00"
    assert lines[1].startswith("produced 1,040 (0.0/s)  waiting 1,004/1000  unfinished 1,006  processed 34")
    assert lines[2].endswith("queue: 1,004 of 1,000")
    assert [line.split()[0] for line in lines[3:6]] == ["produced/s", "processed/s", "waiting"]
    assert lines[5].endswith("1,004 max 1,004")
    assert row(lines, "worker") == "worker state tasks in task cpu memory per s failed restarts busy pid"
    assert row(lines, "producer-1") == "producer-1 blocked 1,040 50% 20 MiB 0.0 0% 7000"
    assert row(lines, "consumer-1") == "consumer-1 busy 30 1.2 s 30 MiB 0.0 2 3 0% 7001"
    assert row(lines, "consumer-2") == "consumer-2 down 4 0.0 0%"
    assert lines[-1].rstrip() == "q quit  s ← → sort by worker  charts: last 3 min"


def test_what_workers_are_sorted_by_is_what_is_shown() -> None:
    lines = drawn(page(ranking=Ranking.AGE))
    names = [line.split()[0] for line in lines if line.startswith(("producer-", "consumer-"))]
    assert names == ["consumer-1", "producer-1", "consumer-2"]
    assert "sort by in task" in lines[-1]


def test_a_run_in_trouble_and_one_that_is_silent_say_so_above_all_else() -> None:
    run = dataclasses.replace(RUN, phase=Phase.STOPPING, trouble="producer chef-1 died: \x1b[31mSIGKILL")
    lines = drawn(page(run, silent_seconds=67.5))
    assert lines[1].strip() == "no answer for 0:01:07: the run is stopped, or very busy"
    assert lines[2].strip() == "producer chef-1 died:  [31mSIGKILL"


def test_a_pause_the_oldest_task_and_what_was_given_again_are_told() -> None:
    reasons = {RedeliveryReason.DEATH: 2, RedeliveryReason.ERROR: 3}
    run = with_queue(RUN, is_paused=True, oldest_waiting_seconds=3.21, redeliveries=reasons, redelivered=2,
                     delayed=7, dead_lettered=1, dead_letters=4)  # fmt: skip
    lines = drawn(page(run))
    assert lines[0].startswith("bakery  joinable queue  running  paused  0:01:00")
    text = "\n".join(lines)
    for words in ("delayed 7", "redelivered 5 (death 2, error 3)", "dead letters 1", "dead letters kept 4"):
        assert words in text
    assert "queue: 1,004 of 1,000, the oldest for 3.2 s" in text


def test_a_queue_without_bound_has_no_bar() -> None:
    assert "queue: 1,004 waiting, without bound" in drawn(page(with_queue(RUN, capacity=0)))[2]


def test_a_spool_is_told_of_and_its_trouble_even_on_a_short_terminal() -> None:
    assert "spool /data  3 MiB  5,000 tasks on disk alone" in drawn(page(with_queue(RUN, spool=SPOOL)))
    ill = with_queue(RUN, spool=dataclasses.replace(SPOOL, trouble="No space left on device"))
    assert "No space left on device" in "".join(drawn(page(ill), height=5))


def test_deaths_come_with_their_story_the_last_first() -> None:
    deaths = tuple(dataclasses.replace(DEATH, task=f"'bun {number}'") for number in range(9))
    lines = drawn(page(dataclasses.replace(RUN, deaths=deaths)), width=100)
    told = [line for line in lines if line.startswith("consumer-2 SIGKILL")]
    assert told[0].startswith("consumer-2 SIGKILL 0:00:05 ago 'bun 8'  In its task for 1.00 s, attempt 0;")
    assert [line.partition("ago")[2][:8].strip() for line in told] == [f"'bun {number}'" for number in (8, 7, 6, 5, 4)]
    assert lines[-2].strip() != "", "they stand at the bottom, so that the workers keep their places"


@pytest.mark.parametrize("height", [1, 2, 3, 5, 8, 12, 24, 50, 100])
@pytest.mark.parametrize("width", [1, 10, 20, 40, 80, 200])
def test_it_keeps_to_the_terminal(width: int, height: int) -> None:
    slots = [dataclasses.replace(BUSY, name=f"食客_{number}") for number in range(60)]
    run = make_run(PRODUCING, *slots, name="厨房", trouble="x" * 300, deaths=(DEATH,) * 9)
    lines = drawn(page(with_queue(run, spool=SPOOL), silent_seconds=9.0), width, height)
    assert len(lines) == height
    assert max(map(cell_len, lines)) <= width


def test_the_most_telling_is_what_a_small_terminal_shows() -> None:
    small = drawn(page(), width=20, height=5)
    assert small[0].rstrip() == "bakery  running"
    assert small[1].startswith("produced 1,040")
    assert small[4].startswith("3 workers: 1 b")
    low = drawn(page(), width=80, height=10)
    first = [line.split()[0].rstrip("━") for line in low if line.strip()]
    assert first == ["bakery", "produced", "processed", "", "produced/s", "processed/s", "waiting", "3", "q"]
    narrow = drawn(page(), width=40, height=20)
    assert row(narrow, "worker") == "worker state tasks in task"


def test_a_tall_terminal_has_higher_charts() -> None:
    crowd = dataclasses.replace(RUN, slots=(PRODUCING, BUSY))
    heights = [
        sum(set(line.strip()[-60:]) <= set("▁▂▃▄▅▆▇█ ") and "█" in line for line in drawn(page(crowd), height=height))
        for height in (24, 50)
    ]
    assert heights[0] < heights[1]
