"""Results: what consumers return, as it comes, each once, whatever dies."""

from __future__ import annotations

import collections
import itertools
import os
import queue
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import conveyor
from conveyor import ConfigurationError, Pipeline, Producer, RemoteTraceback
from conveyor.results import MAX_UNREAD
from support.reading import rest_of
from support.waiting import wait_for
from support.work import die_at_13, double, double_and_pid, fail_in_odd_ways, numbers_to


def test_each_item_comes_back_once() -> None:
    results = conveyor.imap_unordered(double, range(10_000), consumers=3)
    assert sorted(results) == [2 * n for n in range(10_000)]
    assert results.report is not None
    assert results.report.processed == 10_000


def test_a_pipeline_with_producers_gives_results_too() -> None:
    pipeline = Pipeline(producers=[Producer(numbers_to, 50), Producer(numbers_to, 70)], consumer=double, consumers=2)
    assert sorted(pipeline.results()) == sorted([2 * n for n in range(50)] + [2 * n for n in range(70)])


def test_what_an_item_raises_is_raised_with_the_remote_traceback_and_the_others_follow() -> None:
    results = conveyor.imap_unordered(fail_in_odd_ways, ["good", "ValueError", "good"], consumers=2)
    (error,) = [one for one in rest_of(results) if isinstance(one, Exception)]
    assert isinstance(error, ValueError)
    assert isinstance(error.__cause__, RemoteTraceback)
    assert "fail_in_odd_ways" in str(error.__cause__)


@pytest.mark.parametrize(
    ("deed", "kind", "told"),
    [
        ("an exception that cannot be pickled", conveyor.TaskFailedError, "UnpicklableError: with a lambda"),
        ("an exception that cannot be made again", conveyor.TaskFailedError, "RemadeError"),
        ("a result that cannot be pickled", Exception, "lambda"),
    ],
)
def test_what_cannot_travel_back_is_told(deed: str, kind: type[Exception], told: str) -> None:
    results = rest_of(conveyor.imap_unordered(fail_in_odd_ways, [deed, "good"], consumers=1))
    (error,) = [one for one in results if isinstance(one, Exception)]
    assert isinstance(error, kind)
    assert told in str(error)
    assert "good" in results


def test_what_the_input_raises_comes_after_the_results_of_what_it_had_yielded() -> None:
    def broken() -> Iterator[int]:
        yield from range(5)
        raise KeyError("the input")

    *results, error = rest_of(conveyor.imap_unordered(double, broken(), consumers=2))
    assert sorted(results) == [0, 2, 4, 6, 8]  # type: ignore[type-var]
    assert isinstance(error, KeyError)


def test_the_input_is_pulled_only_a_little_further_than_results_are_read() -> None:
    pulled = 0

    def endless() -> Iterator[int]:
        nonlocal pulled
        while True:
            pulled += 1
            yield pulled

    with conveyor.imap_unordered(double, endless(), consumers=2, maxsize=20) as results:
        for _ in range(10):
            next(results)
        wait_for("the unread results to be full", lambda: not results._inbox.has_room)
        assert pulled <= 10 + MAX_UNREAD + 10 * 20


def test_the_input_may_wait_for_a_result() -> None:
    answers: queue.SimpleQueue[int] = queue.SimpleQueue()

    def fed_back() -> Iterator[int]:
        number = 1
        while number < 100:
            yield number
            number = answers.get(timeout=30)

    seen = []
    for result in conveyor.imap_unordered(double, fed_back(), consumers=2):
        seen.append(result)
        answers.put(result)
    assert seen == [2, 4, 8, 16, 32, 64, 128]


@pytest.mark.timeout(60)
def test_consumers_that_are_replaced_cost_no_result_and_repeat_none() -> None:
    pipeline = Pipeline(producers=[Producer(numbers_to, 100)], consumer=double_and_pid, consumers=2)
    results = list(pipeline.results(max_tasks_per_worker=9))
    assert sorted(number for number, _ in results) == [2 * n for n in range(100)]
    assert max(collections.Counter(pid for _, pid in results).values()) == 9


def test_killed_consumers_cost_no_result_and_repeat_none() -> None:
    results, seen, killed = conveyor.imap_unordered(double_and_pid, range(20_000), consumers=3), [], 0
    for value, pid in results:
        seen.append(value)
        if len(seen) % 2000 == 0 and psutil.pid_exists(pid):
            os.kill(pid, signal.SIGKILL)
            killed += 1
    assert killed
    assert sorted(seen) == [2 * n for n in range(20_000)]


def test_an_item_that_kills_its_workers_is_given_up_and_the_others_come() -> None:
    results = rest_of(conveyor.imap_unordered(die_at_13, range(30), consumers=2))
    (error,) = [one for one in results if isinstance(one, Exception)]
    assert isinstance(error, conveyor.TaskDiedError)
    assert "13" in str(error)
    assert len(results) == 30


def test_who_drops_the_iterator_leaves_nothing_behind() -> None:
    threads, descriptors = threading.active_count(), set(Path("/proc/self/fd").iterdir())
    for result in conveyor.imap_unordered(double, itertools.count(), consumers=2):
        if result >= 100:
            break
    wait_for("the threads to end", lambda: threading.active_count() <= threads)
    left = [child for child in psutil.Process().children(recursive=True) if child.name().startswith("consumer")]
    assert left == []
    # the fork server and the resource tracker stay for the next run, and each has a descriptor here
    assert len(set(Path("/proc/self/fd").iterdir()) - descriptors) <= 3


@pytest.mark.parametrize("kind", ["joinable", "sentinel"])
def test_a_queue_that_carries_no_results_says_so(kind: str) -> None:
    with pytest.raises(ConfigurationError, match="carries no results"):
        Pipeline(producers=[Producer(numbers_to, 1)], consumer=double, queue=kind).results()


def test_what_cannot_run_is_said_at_once() -> None:
    with pytest.raises(ConfigurationError, match="consumer"):
        conveyor.imap_unordered(lambda item: item, [1])
    with pytest.raises(ConfigurationError, match="iterable"):
        conveyor.imap_unordered(double, 7)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="consumers"):
        conveyor.imap_unordered(double, [1], consumers=0)
