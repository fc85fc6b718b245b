"""The benchmark's pure parts: figures from what was seen, goals, and how results are shown."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import math
from xml.etree import ElementTree

import pytest
from rich.console import Console

from conveyor.bench import command, contestants, figures, machine, measures, picture, rows, table, tasks
from conveyor.bench.figures import Attempt, Sample
from conveyor.bench.jobs import Job
from conveyor.bench.machine import Machine
from conveyor.bench.marks import Kind, Record
from conveyor.bench.results import RowResult, Side, judged
from conveyor.bench.row import Goal
from conveyor.bench.watching import Measurement, Status

MS = 1_000_000
HERE = Machine(
    processor="A & B <fast>",
    cpus=4,
    usable_cpus=2,
    memory_bytes=2**33,
    system="Linux 6 x86_64",
    python="3.11.7",
    conveyor="0.1.0",
    commit="abc1234",
    libraries={"mpire": "2.10", "pebble": None},
    load_average=(0.1, 0.2, 0.3),
)


def attempt(pid: int, task: int, start_ms: float, end_ms: float | None) -> Attempt:
    return Attempt(pid, task, int(start_ms * MS), None if end_ms is None else int(end_ms * MS))


# -- figures --------------------------------------------------------------------------------------------------


def test_medians_and_percentiles() -> None:
    assert figures.median([3, 1, 2]) == 2
    assert figures.median([4, 1, 2, 3]) == 2.5
    assert math.isnan(figures.median([]))
    hundred = list(range(1, 101))
    assert (figures.percentile(hundred, 0.5), figures.percentile(hundred, 0.99)) == (50, 99)
    assert figures.percentile([7], 0.99) == 7
    assert math.isnan(figures.percentile([], 0.5))


def test_a_ratio_to_nothing_is_no_number() -> None:
    assert figures.ratio(6, 3) == 2
    assert math.isnan(figures.ratio(6, 0))


def test_a_pace_is_what_was_done_between_two_samples() -> None:
    pace = figures.pace(Sample(10.0, 100, 1.0), Sample(12.0, 2100, 2.0))
    assert (pace.rate, pace.cpu_seconds_a_task, pace.seconds) == (1000, 0.0005, 2)


@pytest.mark.parametrize(
    ("durations", "consumers", "least"),
    [([1.0] * 8, 4, 2.0), ([1.0] * 9, 4, 2.25), ([10.0, 1.0, 1.0], 3, 10.0), ([5.0], 1, 5.0), ([], 3, 0.0)],
)
def test_the_least_makespan(durations: list[float], consumers: int, least: float) -> None:
    assert figures.least_makespan(durations, consumers) == least


def test_no_list_schedule_beats_the_least_makespan() -> None:
    durations = [3.0, 1.0, 4.0, 1.0, 5.0]
    for order in itertools.permutations(durations):
        loads = [0.0, 0.0]
        for duration in order:
            loads[loads.index(min(loads))] += duration
        assert max(loads) >= figures.least_makespan(durations, 2)


def test_starts_and_ends_are_paired_also_for_a_task_that_runs_again() -> None:
    records = [
        Record(Kind.STARTED, 1, 7, 10),
        Record(Kind.STARTED, 2, 8, 11),
        Record(Kind.ENDED, 2, 8, 20),
        Record(Kind.STARTED, 2, 7, 30),
        Record(Kind.ENDED, 2, 7, 40),
    ]
    assert figures.attempts(records) == [Attempt(1, 7, 10, None), Attempt(2, 8, 11, 20), Attempt(2, 7, 30, 40)]


def test_the_share_of_the_ideal_begins_when_each_consumer_has_begun() -> None:
    alone = [attempt(1, number, number, number + 1) for number in range(10)]  # before the other one was there
    together = [attempt(pid, 10 + number, number, number + 1) for pid in (1, 2) for number in range(10, 20)]
    assert figures.share_of_ideal([*alone, *together], 2) == pytest.approx(1.0)


def test_a_consumer_that_waits_lowers_the_share_of_the_ideal() -> None:
    made = [attempt(1, number, number, number + 1) for number in range(10)] + [attempt(2, 10, 0, 5)]
    assert figures.share_of_ideal(made, 2) == pytest.approx(0.75)
    assert math.isnan(figures.share_of_ideal([attempt(1, 0, 0, None)], 2))


def test_the_aftermath_of_kills() -> None:
    made = [
        attempt(1, 0, 0, 5),
        attempt(1, 1, 5, None),  # killed in it, done again
        attempt(2, 1, 65, 70),
        attempt(2, 2, 70, 75),
        attempt(3, 2, 70, 75),  # done twice
        attempt(2, 3, 75, None),  # killed in it, never done
    ]
    after = figures.aftermath(made, tasks=5)  # of which number 4 was never started
    assert (after.lost, after.twice, after.longest_stall_seconds) == (2, 1, 0.06)


def test_returns_are_counted_from_the_kill() -> None:
    made = [attempt(1, 0, 0, None), attempt(2, 0, 30, 35), attempt(3, 1, 40, None), attempt(4, 2, 0, None)]
    waits = figures.returns(made, kills={1: 2 * MS, 3: 41 * MS})  # the fourth was not killed by us
    assert waits == [pytest.approx(0.028), math.inf]


# -- rows and tasks -------------------------------------------------------------------------------------------


def test_every_row_can_be_measured_and_shown() -> None:
    assert len(set(rows.NAMES)) == len(rows.ROWS)
    for row in rows.ROWS:
        assert row.measure in measures._MEASURES
        assert row.job.payload in tasks._PAYLOADS
        assert set(row.quick) <= {field.name for field in dataclasses.fields(Job)}
        named = {*row.contestants, *row.peers}
        assert named <= {*contestants.CONTESTANTS, *rows.OUR_OTHERS}
        assert {goal.against for goal in row.goals} - {None} <= named
        assert all((goal.at_least is None) != (goal.at_most is None) for goal in row.goals)


@pytest.mark.parametrize("payload", list(tasks._PAYLOADS))
def test_all_producers_together_make_all_tasks(payload: str) -> None:
    job = Job(payload=payload, tasks=25)
    parts = [list(tasks.produce(job, part, 3)) for part in range(3)]
    assert [len(part) for part in parts] == [9, 8, 8]


def test_a_payload_is_not_the_same_object_twice_where_it_would_be_pickled_once() -> None:
    made = list(tasks.produce(Job(payload="1KiB", tasks=1000), 0, 1))
    assert len({id(task) for task in made}) == 1000
    assert {len(task) for task in made if isinstance(task, bytes)} == {1024}


def test_a_heavy_tail_is_one_in_a_hundred_and_never_comes_last() -> None:
    made: list[tuple[int, float]] = list(tasks.produce(Job(payload="heavy tail", tasks=2000), 0, 1))  # type: ignore[arg-type]
    long = [number for number, seconds in made if seconds == tasks.LONG_NAP_SECONDS]
    assert len(long) == 20
    assert max(long) < 1800


# -- results --------------------------------------------------------------------------------------------------


def done(**found: float) -> Measurement:
    return Measurement(status=Status.DONE, figures=found)


def result(*sides: Side) -> RowResult:
    return RowResult(next(row for row in rows.ROWS if row.name == "small-1x1"), sides)


def three_sides() -> RowResult:
    return result(
        Side("conveyor", "a Pipeline", [done(rate=3e6, cpu_seconds_a_task=1e-6), done(rate=5e6), done(rate=4e6)]),
        Side("JoinableQueue", "put & get", [done(rate=1e5), done(rate=2e5), done(rate=1e5)]),
        Side("faster-fifo", "", [Measurement(status=Status.MISSING, note="not installed: pip install x")]),
        Side("Pool", "", [Measurement(status=Status.HANGS, note="nothing moved for 8 s")]),
    )


def test_goals_are_judged_by_the_ratio_of_medians() -> None:
    by_joinable, by_fifo = three_sides().verdicts()
    assert (by_joinable.measured, by_joinable.met) == (40, True)
    assert by_fifo.met is None
    assert judged(Goal("lost", at_most=0), 1).met is False
    assert judged(Goal("lost", at_most=0), 0).met is True
    assert judged(Goal("p99_seconds", at_most=0.05), math.inf).met is False


def test_a_peers_failure_is_a_result_and_one_of_ours_a_fault() -> None:
    assert three_sides().is_sound
    assert not result(Side("conveyor", "", [Measurement(status=Status.WRONG, note="1 lost")])).is_sound


def test_what_is_done_must_be_what_was_sent() -> None:
    assert measures._checked(done(), 10, 10, {}).status is Status.DONE
    wrong = measures._checked(done(), 10, 9, {})
    assert (wrong.status, wrong.note) == (Status.WRONG, "10 tasks were sent, 9 done")
    hanging = Measurement(status=Status.HANGS)
    assert measures._checked(hanging, 10, 9, {}).status is Status.HANGS


def test_the_json_has_machine_rows_medians_and_goals() -> None:
    chosen = command.options(rows="small-1x1", rounds="3", quick=False, peers=True, json=None, picture=None)
    content = json.loads(json.dumps(command.plain(chosen, HERE, [three_sides()], 1.25), allow_nan=False))
    assert set(content) == {"format", "machine", "rounds", "quick", "peers", "seconds", "rows"}
    assert content["machine"]["python"] == "3.11.7"
    (row,) = content["rows"]
    ours, _, fifo, pool = row["sides"]
    assert (ours["contestant"], ours["status"], ours["medians"]["rate"]) == ("conveyor", "done", 4e6)
    assert [each["rate"] for each in ours["rounds"]] == [3e6, 5e6, 4e6]
    assert (fifo["status"], fifo["note"], pool["status"]) == ("missing", "not installed: pip install x", "hangs")
    assert [goal["met"] for goal in row["goals"]] == [True, None]
    assert row["goals"][1]["measured"] is None


def test_the_table_says_what_was_measured_and_what_was_not() -> None:
    text = io.StringIO()
    console = Console(file=text, width=118)
    table.show_machine(console, HERE)
    table.show_row(console, three_sides(), rounds=3)
    said = " ".join(text.getvalue().split())
    for words in (
        "A & B <fast>, 2 of 4 CPUs usable",
        "Python 3.11.7, conveyor 0.1.0 (abc1234)",
        "not installed: pebble",
        "conveyor 4 3 – 5",
        "HANGS: nothing moved for 8 s",
        "not installed: pip install x",
        "goal: tasks ≥ 30 × JoinableQueue: met (40 ×)",
        "goal: tasks ≥ 15 × faster-fifo: not measured",
    ):
        assert words in said


def test_the_picture_is_well_formed_and_has_a_bar_for_each_rate() -> None:
    root = ElementTree.fromstring(picture.draw([three_sides()], HERE))
    svg = "{http://www.w3.org/2000/svg}"
    bars = root.findall(f"{svg}rect")
    widths = {bar.get("class"): float(bar.get("width", "0")) for bar in bars}
    assert len(bars) == 2
    assert widths["ours"] > widths["theirs"] > 0
    words = [text.text for text in root.findall(f"{svg}text")]
    assert {"conveyor", "JoinableQueue", "Pool", "hangs"} <= set(words)
    assert "faster-fifo" not in words
    style = root.find(f"{svg}style")
    assert style is not None
    assert "prefers-color-scheme: dark" in (style.text or "")


def test_a_picture_of_nothing_is_well_formed_too() -> None:
    ElementTree.fromstring(picture.draw([], HERE))
    ElementTree.fromstring(picture.draw([result(Side("conveyor", "", [Measurement(status=Status.FAILED)]))], HERE))


def test_this_machine_can_be_described() -> None:
    here = machine.look()
    assert here.usable_cpus >= 1
    assert any(line.startswith("Python ") for line in here.lines())


@pytest.mark.parametrize(
    ("value", "said"),
    [(math.nan, "–"), (math.inf, "never"), (0, "0"), (1234567, "1,234,567"), (0.1234, "0.123"), (12.34, "12.3")],
)
def test_numbers_have_three_digits_that_matter(value: float, said: str) -> None:
    assert table.number(value) == said
