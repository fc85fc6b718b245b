"""Limits of the kernel, for a process of a test and for all that it starts."""

from __future__ import annotations

import contextlib
import os
import resource
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.waiting import wait_for

FOLDERS = (Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup"))  # of the first version, and of the second


@contextlib.contextmanager
def few_files(most: int, hard: int | None = None) -> Iterator[Callable[[], None]]:
    """Yield what lets a new process have at most so many open files, and raise that to no more than the hard limit."""
    yield lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (most, most if hard is None else hard))


@contextlib.contextmanager
def few_processes(most: int) -> Iterator[Callable[[], None]]:
    """Have a control group of at most so many processes and threads, as Docker does; yield what enters it."""
    group = _new_group()
    try:
        (group / "pids.max").write_text(str(most))
        yield lambda: _enter(group)
    finally:
        wait_for("an empty group", lambda: _is_removed(group))


def _is_removed(group: Path) -> bool:
    group.rmdir()  # which raises while a process is in it
    return True


def _enter(group: Path) -> None:
    with (group / "cgroup.procs").open("w") as file:
        file.write(str(os.getpid()))


def _new_group() -> Path:
    for folder in FOLDERS:
        group = folder / f"conveyor-test-{uuid.uuid4().hex}"
        with contextlib.suppress(OSError):
            group.mkdir()
            if (group / "pids.max").exists():
                return group
            group.rmdir()
    pytest.skip("no control group can be made here")
