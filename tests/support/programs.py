"""A user's program that uses Conveyor: a process of its own session, watched from outside."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil

TESTS = Path(__file__).parents[1]
MARK = "CONVEYOR_TEST_MARK"


def processes(mark: str) -> list[psutil.Process]:
    """Return every process of a program that is there."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == mark:
                found.append(process)
    return found


@contextlib.contextmanager
def program(*arguments: str, cwd: Path, errors: bool = False) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start a program of its own session; afterwards kill what is left of it."""
    mark = uuid.uuid4().hex
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if errors else subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        cwd=cwd,
        env={**os.environ, MARK: mark, "PYTHONPATH": str(TESTS), "TMPDIR": str(cwd), "PYTEST_ADDOPTS": ""},
    )
    try:
        with process:
            yield process, mark
    finally:
        for left in processes(mark):
            with contextlib.suppress(psutil.Error):
                left.kill()


@contextlib.contextmanager
def script(text: str, cwd: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start a program of this text, which is a file of its own, and keep what it says on standard error."""
    file = cwd / "program.py"
    file.write_text(textwrap.dedent(text))
    with program(str(file), *arguments, cwd=cwd, errors=True) as started:
        yield started


def output_of(text: str, cwd: Path, deadline_seconds: float = 60.0) -> tuple[int, str, str]:
    """Run a program of this text to its end; return its exit code, and what it said on each stream."""
    with script(text, cwd) as (process, _):
        output, errors = process.communicate(timeout=deadline_seconds)
    return process.returncode, output, errors
