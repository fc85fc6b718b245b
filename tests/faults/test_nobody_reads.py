"""A run whose output nobody reads goes on, answers, and stops when it is asked to."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
from pathlib import Path

import pytest

from conveyor.output import MAX_PENDING_BYTES, Output
from support.commands import environment
from support.terminal import Screen, on_terminal
from support.unread import Unread, full, health, served_at, unread, wait_for_progress
from support.waiting import wait_for

WORKLOAD = """
import itertools, pathlib, time
from conveyor import Pipeline, Producer

def forever():
    for number in itertools.count():
        yield number
        time.sleep(0.001)

def gated():
    while not pathlib.Path("gate").exists():
        time.sleep(0.01)
    yield from range(3000)

def failing(task):
    if task % 2:
        raise ValueError("x" * 9000)

def quiet(task): ...

def loud(task):
    print("line", task, "." * 900)

def fails(): return Pipeline(producers=[Producer(forever)], consumer=failing, consumers=2)
def silent(): return Pipeline(producers=[Producer(forever)], consumer=quiet, consumers=2)
def prints(): return Pipeline(producers=[Producer(forever)], consumer=loud, consumers=2)
def counted(): return Pipeline(producers=[Producer(gated)], consumer=loud, consumers=2)
"""


@pytest.fixture
def workload(tmp_path: Path) -> str:
    path = tmp_path / "unheard.py"
    path.write_text(WORKLOAD)
    return str(path)


def test_a_log_that_nobody_reads_keeps_no_task_no_probe_and_no_stop_from_being_answered(
    tmp_path: Path, workload: str
) -> None:
    with unread(tmp_path, f"{workload}:fails", CONVEYOR_METRICS="127.0.0.1:0") as run:
        url = served_at(run)
        assert run.process.stderr is not None
        wait_for("a full pipe", lambda: full(run.process.stderr.fileno()))  # type: ignore[union-attr]
        wait_for_progress(run)
        assert health(url) == 200
        assert run.stop() == 0


def test_output_that_nobody_reads_is_its_workers_matter_and_a_stop_works(tmp_path: Path, workload: str) -> None:
    with unread(tmp_path, f"{workload}:prints", CONVEYOR_METRICS="127.0.0.1:0", CONVEYOR_DRAIN_TIMEOUT="0.5") as run:
        url = served_at(run)
        assert run.process.stdout is not None
        wait_for("a full pipe", lambda: full(run.process.stdout.fileno()))  # type: ignore[union-attr]
        assert health(url) == 200
        assert run.stop() == 4


@pytest.mark.parametrize("name", ["silent", "prints", "fails"])
def test_a_terminal_that_was_stopped_keeps_no_run_from_going_on_and_none_from_stopping(
    tmp_path: Path, workload: str, name: str
) -> None:
    command = [sys.executable, "-m", "conveyor", "run", f"{workload}:{name}", "--drain-timeout", "0.5"]
    with on_terminal(command, environment(tmp_path), is_controlling=True) as terminal:
        run = Unread(tmp_path, terminal.process)
        wait_for("a picture", lambda: any("producer-1" in line for line in terminal.screen.lines))
        terminal.type("\x13")
        wait_for_progress(run)
        code = run.stop()
        assert code in ((0, 4) if name == "prints" else (0,))


def test_what_workers_print_is_all_there_when_a_stopped_terminal_goes_on(
    tmp_path: Path, workload: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = [sys.executable, "-m", "conveyor", "run", f"{workload}:counted"]
    with on_terminal(command, environment(tmp_path), is_controlling=True) as terminal:
        run = Unread(tmp_path, terminal.process)
        wait_for("a picture", lambda: any("producer-1" in line for line in terminal.screen.lines))
        terminal.type("\x13")
        monkeypatch.setattr(Screen, "feed", lambda screen, data: None)  # which takes long, and is not the matter here
        (tmp_path / "gate").touch()
        wait_for("workers that wait for the terminal", lambda: run.processed() > 1000)
        terminal.type("\x11")
        wait_for("the end", terminal.ended)
        assert terminal.process.returncode == 0
        shown = re.findall(rb"line (\d+) \.{900}", terminal.raw)
        assert sorted(map(int, shown)) == list(range(3000))


# -- the writer --------------------------------------------------------------------------------------------


def test_what_finds_no_room_is_counted_and_told_when_there_is_room_again() -> None:
    read, write = os.pipe()
    output = Output(write, told=lambda number: f"{number} dropped\n")
    line = "x" * 1023 + "\n"
    for _ in range(2 * MAX_PENDING_BYTES // len(line)):
        output.write(line)
    assert not output.has_room
    assert not output.flush(0.05), "nobody reads"
    received = b""
    while not output.has_room:  # which it may have by now, with nothing left to be read
        if select.select([read], [], [], 0.05)[0]:
            received += os.read(read, 1 << 20)
    output.write("after\n")
    while not received.endswith(b"after\n"):
        received += os.read(read, 1 << 20)
    output.close()
    *lines, told, after = received.decode().splitlines()
    assert (told, after) == (f"{2 * MAX_PENDING_BYTES // len(line) - len(lines)} dropped", "after")
    os.close(write)
    os.close(read)


def test_an_error_message_that_nobody_reads_keeps_no_command_from_ending(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    try:
        while True:
            os.write(write, b"x" * 65536)
    except BlockingIOError:
        os.set_blocking(write, True)
    done = subprocess.run(
        [sys.executable, "-m", "conveyor", "run", "no-such-workload"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=write,
        env=environment(tmp_path),
        timeout=30,
    )
    assert done.returncode == 2
    os.close(read)
    os.close(write)
