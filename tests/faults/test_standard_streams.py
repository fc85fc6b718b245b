"""Standard input goes to the one who may read it; a stream that goes away makes no run fail."""

from __future__ import annotations

import importlib.util
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from conveyor.standard_input import REFUSAL
from support.commands import environment
from support.waiting import wait_for

TESTS = str(Path(__file__).parents[1])


def run(
    folder: Path, workload: str, *arguments: str, given: str | None = "1\n2\n3\n", shell: str = ""
) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """Run a workload with this standard input; return the process and its report."""
    report = folder / "report.json"
    command = [sys.executable, "-m", "conveyor", "run", f"support.faulty:{workload}", *arguments]
    command += ["--report", str(report), "--consumers", "2"]
    if shell:
        command = ["sh", "-c", f'exec "$@" {shell}', "sh", *command]
    ended = subprocess.run(
        command, input=given, capture_output=True, text=True, timeout=60, env=environment(folder, PYTHONPATH=TESTS)
    )
    return ended, json.loads(report.read_text())


@pytest.mark.parametrize(
    ("method", "how"), [("spawn", "stdin"), ("forkserver", "input"), ("forkserver", "buffer"), ("forkserver", "cat")]
)
def test_the_only_producer_reads_the_standard_input_of_the_run_and_consumers_none_of_it(
    tmp_path: Path, method: str, how: str
) -> None:
    ended, report = run(tmp_path, "reading", f"how={how}", "--start-method", method)
    assert (ended.returncode, report["produced"]) == (0, 3), ended.stderr
    assert sorted(ended.stdout.splitlines()) == [r"'1\n'", r"'2\n'", r"'3\n'"]


@pytest.mark.parametrize("how", ["stdin", "buffer", "input", "descriptor", "/dev/stdin", "cat"])
def test_several_producers_that_read_standard_input_are_told_why_they_cannot(tmp_path: Path, how: str) -> None:
    ended, report = run(tmp_path, "reading", f"how={how}", "producers=2")
    assert (ended.returncode, report["produced"]) == (3, 0)
    told = {"descriptor": "not connected", "/dev/stdin": "No such device", "cat": "not connected"}.get(how, REFUSAL)
    assert told in ended.stderr


def test_a_run_whose_standard_input_is_closed_says_so(tmp_path: Path) -> None:
    ended, report = run(tmp_path, "reading", given=None, shell="<&-")
    assert (ended.returncode, report["produced"]) == (3, 0)
    assert REFUSAL in ended.stderr


@pytest.mark.parametrize("how", ["close", "none"])
def test_a_worker_that_closes_standard_output_leaves_as_it_should(tmp_path: Path, how: str) -> None:
    ended, report = run(tmp_path, "closing", f"how={how}")
    assert (ended.returncode, report["deaths"], report["processed"]) == (0, [], 2), ended.stderr


def test_output_that_cannot_be_written_at_the_end_is_told_and_no_death(tmp_path: Path) -> None:
    ended, report = run(tmp_path, "printing_at_its_end", shell=">/dev/full")
    assert (ended.returncode, report["deaths"]) == (0, [])
    assert "what a worker had printed could not be written" in ended.stderr
    assert "No space left on device" in ended.stderr


# -- streams of the run that go away -------------------------------------------------------------------------


@contextmanager
def quiet(folder: Path, *arguments: str, stdout: int, stderr: int) -> Iterator[subprocess.Popen[bytes]]:
    """Start a run that waits at a gate, with these streams."""
    command = [sys.executable, "-m", "conveyor", "run", "support.faulty:quiet", f"folder={folder}", *arguments]
    command += ["--consumers", "2", "--report", str(folder / "report.json")]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        env=environment(folder, PYTHONPATH=TESTS, TERM="xterm"),
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),  # as nohup has it
        stdout=stdout,
        stderr=stderr,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def end_of(folder: Path, process: subprocess.Popen[bytes]) -> tuple[int, str, int, int]:
    """Open the gate; return the exit code, and what the report says."""
    (folder / "gate").touch()
    code = process.wait(30)
    report = json.loads((folder / "report.json").read_text())
    return code, report["ending"], report["processed"], report["failed"]


def test_a_run_whose_standard_error_nobody_reads_is_complete_and_reports(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with quiet(tmp_path, stdout=subprocess.DEVNULL, stderr=writing) as process:
        os.close(writing)
        wait_for("the run", lambda: list((tmp_path / "conveyor").glob("*.sock")))
        os.close(reading)
        assert end_of(tmp_path, process) == (1, "complete", 10, 2)


def test_a_run_whose_output_nobody_reads_drains_and_reports(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with quiet(tmp_path, stdout=writing, stderr=writing) as process:
        os.close(writing)
        wait_for("the run", lambda: list((tmp_path / "conveyor").glob("*.sock")))
        os.close(reading)
        code, ending, _, _ = end_of(tmp_path, process)
    assert (code, ending) == (0, "drained")


NEEDS_OUTPUT = pytest.mark.skipif(not importlib.util.find_spec("conveyor.output"), reason="the view is not deaf yet")


@pytest.mark.parametrize("progress", [pytest.param("--progress", marks=NEEDS_OUTPUT), "--no-progress"])
def test_a_run_whose_terminal_goes_away_is_complete_and_reports(tmp_path: Path, progress: str) -> None:
    master, terminal = pty.openpty()
    with quiet(tmp_path, progress, stdout=terminal, stderr=terminal) as process:
        os.close(terminal)
        wait_for("the run", lambda: list((tmp_path / "conveyor").glob("*.sock")))
        os.close(master)
        assert end_of(tmp_path, process) == (1, "complete", 10, 2)
