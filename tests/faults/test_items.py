"""Items of `imap_unordered`: one that cannot travel fails alone, and the thread that pulls them is told of."""

from __future__ import annotations

import contextvars
import importlib.util
import pickle
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import conveyor
from conveyor import Results, TaskNotPicklableError
from conveyor.results import MAX_UNREAD
from support.travelling import HasAHash, length_of, run_in_a_daemon
from support.waiting import wait_for
from support.work import double


def rest_of(results: Results) -> tuple[list[Any], list[TaskNotPicklableError]]:
    """Return all further results, and what was raised in their places."""
    found, errors = list[Any](), list[TaskNotPicklableError]()
    while True:
        try:
            found.append(next(results))
        except StopIteration:
            return found, errors
        except TaskNotPicklableError as error:
            errors.append(error)


class RaisesWhenPickled:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __reduce__(self) -> tuple[object, ...]:
        raise self.error


@pytest.mark.parametrize("tasks", [4, 500])
def test_items_that_cannot_be_pickled_fail_alone(tasks: int) -> None:
    """In a stream of plain items, too, where a pickle is made of many."""
    bad = {0, tasks // 2, tasks // 2 + 1, tasks - 1}
    items = [threading.Lock() if number in bad else number for number in range(tasks)]
    results = conveyor.imap_unordered(double, items, consumers=2)
    found, errors = rest_of(results)
    assert sorted(found) == [2 * number for number in range(tasks) if number not in bad]
    assert len(errors) == len(bad)
    assert all("cannot be sent to another process (cannot pickle '_thread.lock'" in str(error) for error in errors)
    assert results.report is not None
    assert (results.report.produced, results.report.exit_code) == (tasks - len(bad), 0)


@pytest.mark.parametrize("error", [ValueError("of its own"), StopIteration(), pickle.PicklingError("no")], ids=repr)
def test_an_item_whose_pickling_raises_anything_fails_alone(error: Exception) -> None:
    found, errors = rest_of(conveyor.imap_unordered(double, [1, RaisesWhenPickled(error), 2], consumers=1))
    assert (sorted(found), len(errors)) == ([2, 4], 1)


def test_an_item_with_a_hash_that_cannot_be_pickled_fails_alone_among_plain_ones() -> None:
    items = [(number, HasAHash() if number in (300, 301) else "x") for number in range(600)]
    found, errors = rest_of(conveyor.imap_unordered(length_of, items, consumers=1))
    assert (found, len(errors)) == ([2] * 598, 2)


def test_a_large_item_that_cannot_be_pickled_fails_alone() -> None:
    items: list[object] = [[bytes(1 << 20), threading.Lock() if number == 5 else number] for number in range(10)]
    found, errors = rest_of(conveyor.imap_unordered(length_of, items, consumers=1))
    assert (found, len(errors)) == ([2] * 9, 1)


def test_items_that_cannot_be_pickled_are_pulled_only_as_fast_as_they_are_read() -> None:
    pulled = 0

    def items() -> Iterator[object]:
        nonlocal pulled
        while True:
            pulled += 1
            yield threading.Lock()

    with conveyor.imap_unordered(double, items(), consumers=1) as results:
        for _ in range(10):
            with pytest.raises(TaskNotPicklableError):
                next(results)
        wait_for("as many as may be unread", lambda: pulled >= MAX_UNREAD)
        list(conveyor.imap_unordered(double, range(100), consumers=1))  # time enough for thousands
        assert pulled <= MAX_UNREAD + 20
        for _ in range(2 * MAX_UNREAD):
            with pytest.raises(TaskNotPicklableError):
                next(results)


# -- the thread ----------------------------------------------------------------------------------------------

user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")


def test_the_iterable_sees_the_context_of_the_call() -> None:
    def items() -> Iterator[str]:
        yield user.get()
        user.set("changed by the generator")

    token = user.set("ann")
    try:
        assert list(conveyor.imap_unordered(length_of, items(), consumers=1)) == [len("ann")]
        assert user.get() == "ann"
    finally:
        user.reset(token)


def test_what_belongs_to_another_thread_is_told_with_the_thread() -> None:
    with sqlite3.connect(":memory:") as connection:

        def rows() -> Iterator[int]:
            yield from (number for (number,) in connection.execute("SELECT 1"))

        with pytest.raises(sqlite3.ProgrammingError) as caught:
            list(conveyor.imap_unordered(double, rows(), consumers=1))
    connection.close()
    [note] = caught.value.__notes__
    assert "in the thread 'feed'" in note
    assert "must be opened inside the generator" in note


# -- names ---------------------------------------------------------------------------------------------------


def test_no_module_stands_where_people_expect_a_function() -> None:
    assert importlib.util.find_spec("conveyor.imap") is None
    with pytest.raises(AttributeError, match="has no attribute 'imap'"):
        _ = conveyor.imap
    assert callable(conveyor.imap_unordered)


# -- in the workers of others --------------------------------------------------------------------------------


def test_a_run_in_a_daemonic_process_works(tmp_path: Path) -> None:
    """As in a worker of a `multiprocessing.Pool`, or of a data loader."""
    assert run_in_a_daemon(tmp_path) == [0, 2, 4]
