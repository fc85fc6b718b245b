"""Functions on their way to workers: what cannot arrive is refused in a sentence, what left once arrives each time."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import conveyor
from conveyor import ConfigurationError, Pipeline, Producer, RunBrokenError
from conveyor.sealing import Sealed
from support.travelling import (
    BreaksWhenUnpickled,
    DiesAt,
    ExitsWhenUnpickled,
    PutsIntoAQueue,
    PutsWithALock,
    PutsWithAWarehouse,
)
from support.work import numbers_to

TESTS = str(Path(__file__).parents[1])
PROGRAM = """
import conveyor
def double(n):
    return 2 * n

class Doubles:
    def __call__(self, n):
        return 2 * n

try:
    print(list(conveyor.imap_unordered({consumer}, range(3), consumers=1)))
except conveyor.ConfigurationError as error:
    print("refused:", error)

"""


def python(*arguments: str, given: str = "") -> str:
    """Run Python with these arguments and this input; return what it prints."""
    ended = subprocess.run(
        [sys.executable, *arguments],
        input=given,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": TESTS},
    )
    return ended.stdout + ended.stderr


@pytest.mark.parametrize("consumer", ["double", "Doubles()"])
@pytest.mark.parametrize("how", ["-c", "stdin", "interactive"])
def test_a_function_that_no_worker_can_import_is_refused_before_anything_starts(how: str, consumer: str) -> None:
    program = PROGRAM.format(consumer=consumer)
    said = python("-c", program) if how == "-c" else python(*["-i"] * (how == "interactive"), "-q", given=program)
    [line] = [line for line in said.splitlines() if "refused:" in line]
    assert f"the consumer: {consumer.rstrip('()')} was defined in an interactive session, a notebook or" in line
    assert "put it into a file, and import it from there" in line
    assert "Traceback" not in said


def test_a_function_of_a_module_is_none_of_the_session_that_uses_it() -> None:
    program = PROGRAM.format(consumer="support.work.double").replace("import conveyor", "import conveyor, support.work")
    assert "[0, 2, 4]" in python("-c", program)


def test_what_is_typed_in_after_a_script_is_refused_too(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import conveyor\n")
    said = python("-i", "-q", str(script), given=PROGRAM.format(consumer="double"))
    assert "refused: the consumer: double was defined in an interactive session" in said


# -- why a worker could not begin ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("consumer", "told"),
    [
        (BreaksWhenUnpickled(os.getpid()), "LookupError: no such shelf"),
        (ExitsWhenUnpickled(os.getpid()), "SystemExit: 7"),
    ],
    ids=["raises", "exits"],
)
def test_a_worker_that_cannot_get_ready_says_why(consumer: BreaksWhenUnpickled, told: str) -> None:
    report = Pipeline(producers=[Producer(range, 5)], consumer=consumer, consumers=1).run()
    assert report.trouble is not None
    assert report.trouble.startswith("consumer-1 died 5 times in 30 s before it was ready: exit code 1, ")
    assert report.trouble.endswith(told)
    with pytest.raises(RunBrokenError, match=told):
        list(conveyor.imap_unordered(consumer, range(3), consumers=1))


# -- once, at the start --------------------------------------------------------------------------------------


def test_a_consumer_that_can_no_longer_be_pickled_ends_no_run() -> None:
    consumer = DiesAt(5)
    results = conveyor.imap_unordered(consumer, range(20), consumers=1, maxsize=5)
    found = {next(results)}
    consumer.lock = threading.Lock()  # and from now on it cannot be pickled
    for _ in range(19):
        try:
            found.add(next(results))
        except conveyor.TaskDiedError:
            continue
    assert found == set(range(20)) - {5}
    assert list(results) == []
    assert results.report is not None
    assert len(results.report.deaths) == 3


def test_what_the_program_makes_of_a_consumer_meanwhile_is_not_seen_by_the_next_process() -> None:
    consumer = DiesAt(-1)
    pipeline = Pipeline(producers=[Producer(numbers_to, 300)], consumer=consumer, consumers=1, maxsize=5)
    results = pipeline.results(max_tasks_per_worker=50)
    found = [next(results)]
    consumer.number = 299  # for a process that is started from now on it would be its death
    assert sorted([*found, *results]) == list(range(300))


@pytest.mark.parametrize("consumer", [PutsIntoAQueue, PutsWithALock, PutsWithAWarehouse])
def test_objects_with_descriptors_reach_each_process_that_is_started(
    consumer: type[PutsIntoAQueue], tmp_path: Path
) -> None:
    """Also those that take the place of dead ones: their descriptors are others."""
    context = multiprocessing.get_context("forkserver")
    puts = consumer(context, tmp_path)
    report = Pipeline(producers=[Producer(range, 20)], consumer=puts, consumers=1).run()
    assert len(report.deaths) == 1
    assert sorted(puts.all()) == list(range(20))
    puts.close()


def test_a_sealed_value_that_cannot_be_sent_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"^the consumer cannot be sent to a worker process \(cannot pickle"):
        Sealed("the consumer", threading.Lock())
