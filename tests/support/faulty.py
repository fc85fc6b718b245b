"""Workloads for the tests of faults. Gates are files."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from conveyor import Pipeline, Producer
from support.undone import Gathers, fail_by_number
from support.workloads import wait_at


def slowly() -> Iterator[int]:
    for number in itertools.count():
        time.sleep(0.001)
        yield number


def gathering(folder: Path) -> Pipeline:
    """Rows without end, gathered."""
    return Pipeline(producers=[Producer(slowly)], consumer=Gathers(folder / "rows"))


def gathering_slowly(folder: Path) -> Pipeline:
    return Pipeline(producers=[Producer(range, 5)], consumer=Gathers(folder / "rows", slow=True))


def goodbyes() -> Pipeline:
    """Work of a module that registers an exit function."""
    return Pipeline(producers=[Producer(range, 5)], consumer=Gathers(Path(os.devnull)))


SHARED = tempfile.TemporaryDirectory() if "CONVEYOR_TEST_SHARED" in os.environ else None


def look_into_the_shared_folder(number: int) -> None:
    assert SHARED is not None
    assert Path(SHARED.name).is_dir()


def sharing_a_folder() -> Pipeline:
    return Pipeline(producers=[Producer(range, 5)], consumer=look_into_the_shared_folder)


def to_a_gate(folder: Path) -> Iterator[int]:
    """Yield 150 numbers, then as many behind a gate."""
    yield from range(150)
    wait_at(folder / "gate")
    yield from range(150, 300)


def failing(folder: Path) -> Pipeline:
    return Pipeline(producers=[Producer(to_a_gate, folder)], consumer=fail_by_number)


def read_input(how: str = "stdin") -> Iterator[str]:
    """Yield the lines of standard input."""
    match how:
        case "stdin":
            yield from sys.stdin
        case "buffer":
            yield from map(bytes.decode, sys.stdin.buffer)
        case "input":
            with contextlib.suppress(EOFError):
                while True:
                    yield input() + "\n"
        case "descriptor":
            yield from os.read(0, 1000).decode().splitlines(True)
        case "/dev/stdin":
            yield from Path("/dev/stdin").read_text().splitlines(True)
        case "cat":
            yield from subprocess.run(["cat"], stdout=subprocess.PIPE, check=True, text=True).stdout.splitlines(True)


def try_to_read(line: str) -> None:
    """Print what a task is, and what a consumer finds on standard input: nothing."""
    found = subprocess.run(["cat"], stdout=subprocess.PIPE, check=True, text=True).stdout + sys.stdin.read()
    print(repr(line + found))


def reading(how: str = "stdin", producers: int = 1) -> Pipeline:
    return Pipeline(producers=[Producer(read_input, how) for _ in range(producers)], consumer=try_to_read)


def close_output(how: str) -> Iterator[int]:
    yield 1
    if how == "close":
        sys.stdout.close()
    else:
        sys.stdout = None
    yield 2


def closing(how: str) -> Pipeline:
    return Pipeline(producers=[Producer(close_output, how)], consumer=closed_by)


def closed_by(number: int) -> None:
    if number == 2:
        sys.stdout.close()


def printing_at_its_end() -> Pipeline:
    return Pipeline(producers=[Producer(range, 3)], consumer=print_without_a_line)


def print_without_a_line(number: int) -> None:
    sys.stdout.write("x")


def quiet(folder: Path) -> Pipeline:
    """Does its work behind a gate, and prints nothing; two of its tasks fail, which is logged."""
    return Pipeline(producers=[Producer(behind_a_gate, folder)], consumer=fail_at_2_and_3)


def behind_a_gate(folder: Path) -> Iterator[int]:
    wait_at(folder / "gate")
    yield from range(10)


def fail_at_2_and_3(number: int) -> None:
    if number in (2, 3):
        raise ValueError("as it should")
