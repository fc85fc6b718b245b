"""A user's own pipeline, in every way in which it can be started."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.commands import environment
from support.runs import running

MINE = """
from conveyor import Pipeline, Producer

def count(first, tasks):
    yield from range(first, first + tasks)

def double(number):
    print(2 * number)

def doubles(tasks: int = 10) -> Pipeline:
    return Pipeline(producers=[Producer(count, 0, tasks), Producer(count, tasks, tasks)], consumer=double, consumers=2)

def halves(tasks: int = 10, producers: int = 1) -> Pipeline:
    return Pipeline(producers=[Producer(count, 0, tasks)] * producers, consumer=print, consumers=1)

if __name__ == "__main__":
    print(doubles().run({options}).processed, "done")
"""
DOUBLES = [str(2 * number) for number in range(20)]
STARTS = ("forkserver", "spawn")


@pytest.fixture(params=STARTS)
def start(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder, where the command is typed."""
    (tmp_path / "package" / "inner").mkdir(parents=True)
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "one.py").write_text(MINE.replace(" -> Pipeline", "", 1))
    (tmp_path / "package" / "inner" / "module.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def printed(folder: Path, *arguments: str) -> list[str]:
    """Return the lines of `conveyor run` with these arguments, sorted by number."""
    with running(folder, *arguments, CONVEYOR_METRICS="off") as run:
        assert run.wait() == 0, run.said()
        assert "Traceback" not in run.said()
        return sorted(run.lines(), key=int)


def test_a_file_with_one_workload_needs_no_name(folder: Path, start: str) -> None:
    assert printed(folder, "one.py", "--start-method", start) == [str(number) for number in range(10)]


def test_a_workload_of_a_file_takes_arguments(folder: Path, start: str) -> None:
    assert printed(folder, "mine.py:doubles", "tasks=3", "--start-method", start) == DOUBLES[:6]


def test_a_file_may_be_anywhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    assert printed(folder, f"{folder / 'mine.py'}:doubles") == DOUBLES


def test_a_module_is_found_from_the_current_folder(folder: Path, start: str) -> None:
    assert printed(folder, "package.inner.module:doubles", "--start-method", start) == DOUBLES


def test_options_change_what_the_workload_says(folder: Path) -> None:
    arguments = ("mine.py:halves", "tasks=2", "--producers", "3", "--consumers", "2", "--queue", "sentinel")
    assert printed(folder, *arguments) == ["0", "0", "0", "1", "1", "1"]


def test_the_installed_command_runs_it_too(folder: Path) -> None:
    command = [str(Path(sys.executable).with_name("conveyor")), "run", "one.py", "tasks=3"]
    ended = subprocess.run(command, env=environment(folder), capture_output=True, text=True, timeout=60)
    assert (ended.returncode, sorted(ended.stdout.split())) == (0, ["0", "1", "2"])


def test_a_script_runs_itself(folder: Path, start: str) -> None:
    (folder / "script.py").write_text(MINE.replace("{options}", f"start_method={start!r}"))
    command = [sys.executable, "script.py"]
    ended = subprocess.run(command, env=environment(folder), capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")
    *lines, last = ended.stdout.splitlines()
    assert (sorted(lines, key=int), last) == (DOUBLES, "20 done")
