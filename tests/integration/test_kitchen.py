"""The kitchen, end to end: each dish eaten exactly once."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from support.commands import environment
from support.runs import Run, running
from support.waiting import wait_for

QUEUES = ("sentinel", "joinable", "leased")
FOODS = ("bun", "mantou")
LOG_LINE = re.compile(r"\d\d:\d\d:\d\d (INFO|WARNING|ERROR) \S.*")


def kitchen(folder: Path, *arguments: str) -> AbstractContextManager[Run]:
    return running(folder, "kitchen", "speed=50", *arguments, CONVEYOR_METRICS="off")


def dishes(cooks: int, each: int = 5) -> list[str]:
    """Return every dish that so many cooks make, sorted."""
    return sorted(
        f"{FOODS[cook % 2]} #{number} made by chef-{cook + 1}" for cook in range(cooks) for number in range(1, each + 1)
    )


def eaten(run: Run) -> list[str]:
    return sorted(line.partition(" ate ")[2] for line in run.lines())


@pytest.mark.parametrize("queue", QUEUES)
@pytest.mark.parametrize("consumers", [1, 2, 7])
@pytest.mark.parametrize("producers", [1, 3])
def test_every_dish_is_eaten_once(tmp_path: Path, queue: str, consumers: int, producers: int) -> None:
    numbers = ("--consumers", str(consumers), "--producers", str(producers))
    with kitchen(tmp_path, "--queue", queue, *numbers) as run:
        assert run.wait() == 0
        assert eaten(run) == dishes(producers)
        workers = run.report["workers"]
        assert [worker["role"] for worker in workers] == ["producer"] * producers + ["consumer"] * consumers
        assert {line.partition(" ate ")[0] for line in run.lines()} <= {worker["name"] for worker in workers}


def test_cooks_and_diners_can_be_asked_for_by_their_own_names(tmp_path: Path) -> None:
    with kitchen(tmp_path, "cooks=3", "diners=4", "dishes=2", "rounds=2") as run:
        assert run.wait() == 0
        assert eaten(run) == dishes(3, each=4)
        assert len(run.report["workers"]) == 7


def test_an_option_wins_over_the_workloads_own_number(tmp_path: Path) -> None:
    with kitchen(tmp_path, "diners=4", "--consumers", "1", "dishes=1") as run:
        assert run.wait() == 0
        assert sum(worker["role"] == "consumer" for worker in run.report["workers"]) == 1


def test_arguments_may_stand_before_and_after_options(tmp_path: Path) -> None:
    with kitchen(tmp_path, "--queue", "sentinel", "dishes=1", "--consumers", "1", "cooks=1") as run:
        assert run.wait() == 0
        assert eaten(run) == dishes(1, each=1)


def test_in_chinese_it_has_the_names_and_foods_of_the_seed(tmp_path: Path) -> None:
    with kitchen(tmp_path, "lang=zh") as run:
        assert run.wait() == 0
        assert sorted(line.partition("吃了")[2] for line in run.lines()) == sorted(
            [f"大厨_1做了一个包子 #{n}" for n in range(1, 6)] + [f"大厨_2做了一个馒头 #{n}" for n in range(1, 6)]
        )
        assert {line.partition("吃了")[0] for line in run.lines()} <= {"张三", "李四"}
        assert [worker["name"] for worker in run.report["workers"]] == ["大厨_1", "大厨_2", "张三", "李四"]


def test_a_kitchen_without_dishes_ends(tmp_path: Path) -> None:
    with kitchen(tmp_path, "dishes=0") as run:
        assert run.wait() == 0
        assert run.lines() == []


def test_rush_hours_come_and_go(tmp_path: Path) -> None:
    with kitchen(tmp_path, "wave=0.1") as run:
        assert run.wait() == 0
        assert eaten(run) == dishes(2)


def test_what_is_spilled_is_a_failed_task_and_nothing_else_on_stdout(tmp_path: Path) -> None:
    with kitchen(tmp_path, "spill=1") as run:
        assert run.wait() == 1
        assert run.lines() == []
        assert run.report["failures"] == {"SpilledError": 10}
        assert run.report["failed"] == run.report["processed"] == 10
        assert run.said().count("task failed") == 10


@pytest.mark.parametrize("queue", QUEUES)
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_an_endless_kitchen_drains_when_asked_to_stop(tmp_path: Path, queue: str, how: signal.Signals) -> None:
    with kitchen(tmp_path, "rounds=0", "--queue", queue) as run:
        wait_for("dishes beyond the first round", lambda: len(run.lines()) > 12)
        run.process.send_signal(how)
        assert run.wait() == 0
        report = run.report
        assert report["ending"] == "drained"
        assert report["produced"] == report["processed"] == len(run.lines()) == len(set(eaten(run)))


def test_piped_the_log_is_on_stderr_line_by_line(tmp_path: Path) -> None:
    with kitchen(tmp_path) as run:
        assert run.wait() == 0
        assert len(run.lines()) == 10
        assert run.said()
        assert all(LOG_LINE.fullmatch(line) for line in run.said().splitlines())


def test_a_json_log_is_one_object_a_line(tmp_path: Path) -> None:
    with kitchen(tmp_path, "spill=1", "--log-format", "json") as run:
        assert run.wait() == 1
        records = [json.loads(line) for line in run.said().splitlines()]
        assert all({"time", "level", "message"} <= record.keys() for record in records)
        failed = [record for record in records if record["message"] == "task failed"]
        assert len(failed) == 10
        assert {record["error"] for record in failed} == {"SpilledError"}
        assert any("Traceback" in record["trace"] for record in failed)


def test_it_ends_when_nobody_reads_its_lines_any_more(tmp_path: Path) -> None:
    endless = [sys.executable, "-m", "conveyor", "run", "kitchen", "rounds=0", "speed=50"]
    with subprocess.Popen(endless, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(tmp_path)) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        run.stdout.readline()
        run.stdout.close()
        assert b"nobody reads standard output any more" in run.stderr.read()
        assert run.wait(30) == 0


def test_it_runs_with_its_standard_streams_closed(tmp_path: Path) -> None:
    command = [
        "sh",
        "-c",
        'exec "$@" <&- >&- 2>&-',
        "sh",
        sys.executable,
        "-m",
        "conveyor",
        "run",
        "kitchen",
        "speed=100",
    ]
    report = tmp_path / "report"
    subprocess.run([*command, "--report", str(report)], check=True, env=environment(tmp_path), timeout=60)
    assert json.loads(report.read_text())["processed"] == 10
