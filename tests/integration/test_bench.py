"""`conveyor bench` as a user types it, and how a trial that hangs or dies is ended and told."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import psutil
import pytest

from conveyor.bench import sessions, watching
from conveyor.bench.marks import FOLDER_VARIABLE
from conveyor.bench.watching import Status
from support.commands import command, environment
from support.waiting import wait_for


def test_a_quick_run_of_one_row_loses_nothing(tmp_path: Path) -> None:
    arguments = ("--quick", "--rounds", "1", "--rows", "small-1x1", "--json", "-", "--picture", "rates.svg")
    ended = subprocess.run(
        [sys.executable, "-m", "conveyor", "bench", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment(tmp_path),
        timeout=100,
    )
    assert ended.returncode == 0, ended.stderr
    content = json.loads(ended.stdout)
    (row,) = content["rows"]
    sides = {side["contestant"]: side for side in row["sides"]}
    for name in ("conveyor", "JoinableQueue", "Queue"):
        assert sides[name]["status"] == "done", sides[name]
        (only,) = sides[name]["rounds"]
        assert only["sent"] == only["received"] > 0
        assert only["rate"] > 0
        assert only["cpu_seconds_a_task"] > 0
    assert row["goals"][0]["measured"] > 0
    assert "small tuples" in ended.stderr  # the table, as standard output is the JSON's
    ElementTree.parse(tmp_path / "rates.svg")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--rows", "smal-1x1"), ("--rows", "'smal-1x1'", "did you mean small-1x1?", "latency")),
        (("--rows", ""), ("--rows", "''", "give some of")),
        (("--rounds", "0"), ("--rounds: '0'", "a whole number from 1 to 100")),
        (("--rounds", "many"), ("--rounds: 'many'", "a whole number")),
        (("--json", "none/figures.json"), ("--json", "No such file")),
        (("--json", ""), ("--json", "the path of a file")),
        (("--picture", "/"), ("--picture", "Is a directory")),
        (("--row", "latency"), ("unknown argument --row", "conveyor bench --help")),
        (("quickly",), ("unknown argument quickly",)),
    ],
)
def test_what_is_wrong_is_named_in_one_line(tmp_path: Path, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    ended = command(tmp_path, "bench", *arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("conveyor: ")
    assert ended.stderr.count("\n") == 1
    assert [each for each in words if each not in ended.stderr] == [], ended.stderr


def test_a_trial_that_hangs_is_told_and_ended_with_its_children() -> None:
    wait = "import time; time.sleep(99)"
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {wait!r}]); {wait}"
    with watching.started_command([sys.executable, "-c", code]) as trial:
        # Movement until the child is there, then none.
        ending = trial.watch(lambda: len(sessions.pids(trial.session)), stall_seconds=0.5)
        assert len(sessions.pids(trial.session)) == 2
    assert (ending.status, ending.note) == (Status.HANGS, "nothing moved for 0.5 s")
    assert sessions.pids(trial.session) == []


@pytest.mark.parametrize(
    ("code", "note"),
    [("raise SystemExit('no way')", "no way"), ("import os; os.kill(os.getpid(), 9)", "exit code -9")],
)
def test_a_trial_that_dies_has_failed_and_says_why(code: str, note: str) -> None:
    with watching.started_command([sys.executable, "-c", code]) as trial:
        ending = trial.watch(lambda: 0)
    assert (ending.status, ending.note) == (Status.FAILED, note)


def test_the_cpu_time_of_a_session_includes_children_that_have_ended() -> None:
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    code = f"import subprocess, sys, time; subprocess.run([sys.executable, '-c', {burn!r}]); time.sleep(99)"
    with watching.started_command([sys.executable, "-c", code]) as trial:
        trial.watch(lambda: int(sessions.cpu_seconds(trial.session) * 100), stall_seconds=1.0)
        assert sessions.cpu_seconds(trial.session) >= 0.28  # the kernel counts in ticks of 10 ms


def test_a_worker_does_not_load_the_benchmark() -> None:
    code = "import sys, conveyor.cli; print([name for name in sys.modules if name.startswith('conveyor.bench')])"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert ended.stdout == "[]\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_benchmark_that_is_killed_takes_its_trial_along(tmp_path: Path, number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "conveyor", "bench", "--rows", "latency"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(tmp_path, TMPDIR=str(tmp_path)),
    )
    try:
        (folder,) = wait_for("the first task's record", lambda: list(tmp_path.glob("conveyor-bench-*/records")))
        trials = [pid for pid in psutil.pids() if _is_of(pid, str(folder.parent))]
        assert len(trials) >= 3
        process.send_signal(number)
        process.wait(30)
        wait_for("no process of it", lambda: not any(_is_of(pid, str(folder.parent)) for pid in trials))
    finally:
        process.kill()
        process.wait()


def _is_of(pid: int, folder: str) -> bool:
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and process.environ().get(FOLDER_VARIABLE) == folder
    return False
