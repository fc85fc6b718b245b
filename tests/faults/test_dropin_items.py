"""The drop-in queues give back the right item: the one that is unfinished, and no other."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import random
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import conveyor
from support.dropin import AlarmError, raise_alarm
from support.waiting import wait_for

# They fork beside xdist's thread.
pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")

FORK = multiprocessing.get_context("fork")
KINDS = [conveyor.Queue, conveyor.JoinableQueue]


class SpoiledError(Exception):
    """Raised by an item when it is unpickled."""


def raise_spoiled() -> None:
    raise SpoiledError


class Spoiled:
    """An item that cannot be unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return raise_spoiled, ()


def in_child(work: Callable[[], object], is_killed: bool = False) -> None:
    """Do it in a child that then ends, normally or by SIGKILL."""

    def run() -> None:
        work()
        if is_killed:
            os.kill(os.getpid(), signal.SIGKILL)

    child = FORK.Process(target=run)
    child.start()
    child.join(60.0)
    assert child.exitcode == (-signal.SIGKILL if is_killed else 0)
    child.close()


def get_spoiled(carrier: Any) -> None:
    with pytest.raises(SpoiledError):
        carrier.get(timeout=30.0)


def rest_of(carrier: Any) -> list[Any]:
    found = []
    try:
        while True:
            found.append(carrier.get(timeout=0.2))
    except queue.Empty:
        return found


@pytest.mark.parametrize("is_killed", [False, True])
def test_an_item_that_cannot_be_unpickled_is_over_and_no_other_comes_again(is_killed: bool) -> None:
    carrier: Any = conveyor.Queue()
    carrier.put_many(["before", Spoiled(), "A", "B"])

    def work() -> None:
        assert carrier.get() == "before"
        get_spoiled(carrier)
        assert carrier.get() == "A"

    in_child(work, is_killed)
    assert rest_of(carrier) == ["B"]


def test_an_item_that_cannot_be_unpickled_stays_unfinished_and_goes_back_at_the_end() -> None:
    carrier: Any = conveyor.JoinableQueue()
    carrier.put_many(["before", Spoiled(), "A", "B"])

    def work() -> None:
        for item in ("before", None, "A"):
            if item:
                assert carrier.get() == item
                carrier.task_done()
            else:
                get_spoiled(carrier)
        assert carrier.unfinished() == 2
        assert not carrier.join(0.01)

    in_child(work)
    assert carrier.unfinished() == 2
    get_spoiled(carrier)
    assert carrier.get(timeout=30.0) == "B"
    carrier.task_done()
    assert carrier.unfinished() == 1


def test_get_many_returns_to_the_queue_what_came_before_an_item_that_cannot_be_unpickled() -> None:
    carrier: Any = conveyor.Queue()
    carrier.put_many([1, 2, Spoiled(), 4])
    with pytest.raises(SpoiledError):
        carrier.get_many(4)
    assert rest_of(carrier) == [1, 2, 4]


# -- threads -----------------------------------------------------------------------------------------------


def in_thread(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60.0)
    assert not thread.is_alive()


def test_of_two_threads_the_item_of_the_one_that_has_not_finished_comes_back() -> None:
    carrier: Any = conveyor.JoinableQueue()
    carrier.put_many(["slow", "fast"])

    def finish_fast() -> None:
        assert carrier.get() == "fast"
        carrier.task_done()

    def work() -> None:
        assert carrier.get() == "slow"
        in_thread(finish_fast)
        assert carrier.unfinished() == 1

    in_child(work, is_killed=True)
    assert carrier.unfinished() == 1
    assert not carrier.join(0)
    assert carrier.get(timeout=30.0) == "slow"
    carrier.task_done()
    assert carrier.join(30.0)


@pytest.mark.parametrize("seed", range(3))
def test_whatever_the_order_in_which_threads_finish_what_is_unfinished_comes_back(seed: int) -> None:
    """Threads with several items each mark some; over 1000, so that the log of a process is filled more than once."""
    chance = random.Random(seed)
    plan = [chance.randrange(3) for _ in range(1200)]
    steps = chance.sample(range(len(plan)), 1000)
    carrier: Any = conveyor.JoinableQueue()
    carrier.put_many(range(len(plan)))
    turns = [queue.SimpleQueue[str | None]() for _ in range(3)]
    results = queue.SimpleQueue[int]()

    def serve(turn: queue.SimpleQueue[str | None]) -> None:
        while deed := turn.get():
            results.put(carrier.get() if deed == "get" else carrier.task_done() or -1)

    def work() -> None:
        threads = [threading.Thread(target=serve, args=(turn,)) for turn in turns]
        for thread in threads:
            thread.start()
        for number, thread_number in enumerate(plan):
            turns[thread_number].put("get")
            assert results.get(timeout=60.0) == number
        for step in steps:
            turns[plan[step]].put("done")
            results.get(timeout=60.0)
        assert carrier.unfinished() == len(plan) - len(steps)

    in_child(work, is_killed=True)
    expected = []
    for thread_number in range(3):
        mine = [number for number, owner in enumerate(plan) if owner == thread_number]
        marked = sum(plan[step] == thread_number for step in steps)
        expected += mine[marked:]
    assert carrier.unfinished() == len(expected), f"seed {seed}"
    assert carrier.get_many(2000) == sorted(expected), f"seed {seed}"


def test_a_mark_by_a_thread_that_has_got_nothing_loses_nothing() -> None:
    """One thread gets and others do the work, as with an executor: which item is done is not known."""
    carrier: Any = conveyor.JoinableQueue()
    carrier.put_many(["slow", "fast", "later"])

    def work() -> None:
        assert carrier.get_many(2) == ["slow", "fast"]
        in_thread(carrier.task_done)  # for "fast"
        assert carrier.unfinished() == 2

    in_child(work, is_killed=True)
    assert carrier.get_many(5) == ["slow", "fast", "later"]
    for left in (2, 1, 0):
        in_thread(carrier.task_done)
        assert carrier.unfinished() == left
    assert carrier.join(30.0)


def test_when_all_are_marked_it_is_known_which() -> None:
    carrier: Any = conveyor.JoinableQueue()
    carrier.put_many(range(10))

    def work() -> None:
        for _ in range(3):
            got = [carrier.get(), carrier.get()]
            assert len(got) == 2
            in_thread(carrier.task_done)
            carrier.task_done()
        assert carrier.unfinished() == 4

    in_child(work, is_killed=True)
    assert (carrier.unfinished(), carrier.get_many(10)) == (4, [6, 7, 8, 9])


def test_a_mark_by_another_process_is_not_for_what_a_worker_is_busy_with() -> None:
    carrier: Any = conveyor.JoinableQueue()
    carrier.put_many(["slow", "fast"])
    workers = [FORK.Process(target=get_and_stay, args=(carrier,)) for _ in range(2)]
    for left, worker in zip((1, 0), workers, strict=True):
        worker.start()
        wait_for("the worker to take its item", lambda left=left: carrier.qsize() == left)  # type: ignore[misc]
    carrier.task_done()  # for "fast", says its maker
    assert carrier.unfinished() == 1
    for worker, comes_back in zip(workers, (["slow"], []), strict=True):
        worker.kill()
        worker.join()
        assert rest_of(carrier) == comes_back
        if comes_back:
            carrier.task_done()
        assert carrier.unfinished() == 0


def get_and_stay(carrier: Any) -> None:
    carrier.get()
    time.sleep(1000.0)


# -- signals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_storm_of_time_outs_loses_and_doubles_no_item(kind: Any) -> None:
    chance = random.Random(5)
    carrier = kind()
    total, found, interruptions = 6_000, list[int](), 0
    former = signal.signal(signal.SIGALRM, raise_alarm)
    put = 0
    try:
        while len(found) < total:
            if put < total:
                carrier.put_many(range(put, put + 200))
                put += 200
            for _ in range(200):
                try:
                    try:
                        signal.setitimer(signal.ITIMER_REAL, chance.random() * 0.0004)
                        found.append(carrier.get(timeout=30.0))
                    finally:
                        signal.setitimer(signal.ITIMER_REAL, 0)
                except AlarmError:
                    interruptions += 1
                if len(found) == put:
                    break
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
    assert sorted(found) == list(range(total))
    assert interruptions > 50


def test_an_item_whose_get_was_interrupted_goes_to_another_thread_that_waits() -> None:
    carrier: Any = conveyor.Queue()
    found, mine = list[int](), list[int]()

    def get_until_none() -> None:
        while (item := carrier.get()) is not None:
            found.append(item)

    getter = threading.Thread(target=get_until_none)
    getter.start()
    former = signal.signal(signal.SIGALRM, raise_alarm)
    chance = random.Random(6)
    try:
        for number in range(400):
            carrier.put(number)
            with contextlib.suppress(AlarmError, queue.Empty):
                try:
                    signal.setitimer(signal.ITIMER_REAL, chance.random() * 0.0004)
                    mine.append(carrier.get(timeout=0.01))
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.signal(signal.SIGALRM, former)
    wait_for("the other thread to get the others", lambda: sorted(found + mine) == list(range(400)))
    carrier.put(None)
    getter.join(60.0)
    assert not getter.is_alive()
