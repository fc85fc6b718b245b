"""The drop-in queues in place of `multiprocessing`'s: the seed's programs, CPython's own tests, and what they add."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import pickle
import queue
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import conveyor
from support import dropin
from support.waiting import wait_for

START_METHODS = ["fork", "spawn", "forkserver"]
TESTS = Path(__file__).parents[1]
OURS = "from conveyor import JoinableQueue, Queue"
THEIRS = "from multiprocessing import JoinableQueue, Queue"

# The seed's chapter 2 and 3, a hundred times as fast, and each line printed in one piece.
SENTINELS = """
import random, sys, time
import multiprocessing
from multiprocessing import Process
{queues}

def producer(name, food, q):
    data = f"{{name}}做个一个{{food}}"
    for i in range(0, 5):
        time.sleep(random.randint(1, 3) / 100)
        q.put(data)

def consumer(name, q):
    while True:
        time.sleep(random.randint(1, 2) / 100)
        data = q.get()
        if data is None:
            break
        sys.stdout.write(f"{{name}}吃了{{data}}\\n")

if __name__ == "__main__":
    multiprocessing.set_start_method("{start_method}")
    q = Queue()
    cook1 = Process(target=producer, args=("大厨_1", "包子", q))
    cook2 = Process(target=producer, args=("大厨_2", "馒头", q))
    cook1.start()
    cook2.start()
    zhansan = Process(target=consumer, args=("张三", q))
    lisi = Process(target=consumer, args=("李四", q))
    zhansan.start()
    lisi.start()
    cook1.join()
    cook2.join()
    q.put(None)
    q.put(None)
"""
COUNTED = """
import random, sys, time
import multiprocessing
from multiprocessing import Process
{queues}

def producer(name, food, q):
    data = f"{{name}}做个一个{{food}}"
    for i in range(0, 5):
        time.sleep(random.randint(1, 3) / 100)
        q.put(data)

def consumer(name, q):
    while True:
        time.sleep(random.randint(1, 2) / 100)
        data = q.get()
        sys.stdout.write(f"{{name}}吃了{{data}}\\n")
        sys.stdout.flush()
        q.task_done()

if __name__ == "__main__":
    multiprocessing.set_start_method("{start_method}")
    q = JoinableQueue()
    cook1 = Process(target=producer, args=("大厨_1", "包子", q))
    cook2 = Process(target=producer, args=("大厨_2", "馒头", q))
    cook1.start()
    cook2.start()
    zhansan = Process(target=consumer, args=("张三", q))
    lisi = Process(target=consumer, args=("李四", q))
    zhansan.daemon = True
    lisi.daemon = True
    zhansan.start()
    lisi.start()
    {death}
    cook1.join()
    cook2.join()
    q.join()
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": str(TESTS), "PYTHONUTF8": "1"},
        timeout=100,
    )


def dishes(program: str, folder: Path, **parts: str) -> list[str]:
    """Run a program; return what was eaten, without who ate it."""
    path = folder / "program.py"
    path.write_text(program.format(**parts), encoding="utf-8")
    done = run(str(path))
    assert (done.returncode, done.stderr) == (0, "")
    return sorted(line.split("吃了")[1] for line in done.stdout.splitlines())


ALL_DISHES = sorted(["大厨_1做个一个包子", "大厨_2做个一个馒头"] * 5)


@pytest.mark.parametrize("start_method", START_METHODS)
@pytest.mark.parametrize("program", [SENTINELS, COUNTED], ids=["sentinels", "counted"])
def test_the_seeds_programs_run_with_only_the_import_changed(program: str, start_method: str, tmp_path: Path) -> None:
    assert dishes(program, tmp_path, queues=OURS, start_method=start_method, death="") == ALL_DISHES
    if start_method == "fork":  # by the others, theirs fails now and then: the main process takes its locks with it
        assert dishes(program, tmp_path, queues=THEIRS, start_method=start_method, death="") == ALL_DISHES


@pytest.mark.parametrize("start_method", START_METHODS)
def test_the_seeds_program_ends_with_every_dish_eaten_although_a_diner_is_killed(
    start_method: str, tmp_path: Path
) -> None:
    eaten = dishes(COUNTED, tmp_path, queues=OURS, start_method=start_method, death="time.sleep(0.1); lisi.kill()")
    assert eaten in (ALL_DISHES, *(sorted([*ALL_DISHES, dish]) for dish in set(ALL_DISHES)))  # one may be eaten twice


def has_its_tests() -> bool:
    """Return whether this Python was installed with its own tests; Debian's is not."""
    return importlib.util.find_spec("test") is not None and all(
        importlib.util.find_spec(f"test.{name}") for name in ("_test_multiprocessing", "test_queue")
    )


@pytest.mark.skipif(not has_its_tests(), reason="this Python was installed without its own tests")
@pytest.mark.parametrize("start_method", [*START_METHODS, "threads"])
def test_cpythons_own_tests_pass(start_method: str) -> None:
    done = run("-W", "error", "-c", f"from support import cpython; cpython.main({start_method!r})")
    assert done.returncode == 0, done.stderr
    assert "OK" in done.stderr
    assert "Warning" not in done.stderr


# -- what they promise -------------------------------------------------------------------------------------


class OddError(Exception):
    """Raised by what cannot be pickled."""


class Odd:
    """Cannot be pickled."""

    def __reduce__(self) -> str:
        raise OddError


def test_what_cannot_be_pickled_raises_in_put_and_leaves_nothing_behind() -> None:
    carrier: Any = conveyor.JoinableQueue(1)
    with pytest.raises(OddError):
        carrier.put(Odd())
    with pytest.raises((pickle.PicklingError, AttributeError)):
        carrier.put(lambda: None)
    assert carrier.join(0.0)
    carrier.put("room is left")
    assert carrier.get_nowait() == "room is left"


@pytest.mark.parametrize("size", [0, 1, 1000, 65_536, 262_000, 262_144, 263_000, 1_000_000])
def test_any_size_arrives_in_order(size: int) -> None:
    carrier: Any = conveyor.Queue()
    items = [bytes([number]) * size + bytes([number]) for number in range(20)]
    for item in items:
        carrier.put(item)
        carrier.put((item, bytearray(item)))
    for item in items:
        assert carrier.get() == item
        assert carrier.get() == (item, bytearray(item))


def test_large_and_small_items_mixed_keep_their_order_in_more_than_the_memory_shared() -> None:
    carrier: Any = conveyor.Queue()
    items = [bytes(number * 397 % 300_000) for number in range(1_000)]
    carrier.put_many(items)
    assert carrier.qsize() == len(items)
    assert carrier.get_many(2_000) == items


def test_without_maxsize_put_never_waits_for_a_get() -> None:
    carrier: Any = conveyor.Queue()
    for number in range(200_000):
        carrier.put_nowait(number)
    assert carrier.qsize() == 200_000


def test_a_socket_can_be_put_as_with_multiprocessing() -> None:
    carrier: Any = conveyor.Queue()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        carrier.put(theirs)
        with carrier.get() as received:
            received.send(b"here")
            assert ours.recv(4) == b"here"


def test_put_many_waits_for_room_and_get_many_takes_what_is_there() -> None:
    carrier: Any = conveyor.JoinableQueue(10)
    thread = threading.Thread(target=carrier.put_many, args=(range(100),))
    thread.start()
    found: list[int] = []
    while len(found) < 100:
        part = carrier.get_many(7, timeout=10.0)
        assert 1 <= len(part) <= 7
        found += part
    thread.join()
    assert found == list(range(100))
    assert carrier.unfinished() == 100
    with pytest.raises(queue.Empty):
        carrier.get_many(5, block=False)
    with pytest.raises(queue.Empty):
        carrier.get_many(5, timeout=0.01)


def test_join_returns_false_when_the_time_is_over_and_true_once_all_is_done() -> None:
    carrier: Any = conveyor.JoinableQueue()
    carrier.put(1)
    assert carrier.join(timeout=0.01) is False
    carrier.get()
    results: list[bool] = []
    waiting = threading.Thread(target=lambda: results.append(carrier.join()))
    waiting.start()
    carrier.task_done()
    waiting.join(10.0)
    assert results == [True]
    with pytest.raises(ValueError, match="too many times"):
        carrier.task_done()


def test_task_done_for_what_another_process_holds() -> None:
    carrier: Any = conveyor.JoinableQueue()
    carrier.put(1)
    holder = multiprocessing.get_context("spawn").Process(target=carrier.get, daemon=True)
    carrier.put(2)
    carrier.task_done()  # before anybody has got one, as multiprocessing lets one
    assert carrier.unfinished() == 1
    holder.start()
    holder.join()
    wait_for("what it held to come back, but for the one that is done", lambda: carrier.qsize() == 1)
    assert carrier.get_nowait() == 2


@pytest.mark.parametrize("immediate", [False, True])
def test_shutdown_reaches_every_process(immediate: bool) -> None:
    context = multiprocessing.get_context("spawn")
    carrier: Any = conveyor.JoinableQueue()
    carrier.put("left")
    reader, writer = context.Pipe(duplex=False)
    child = context.Process(target=dropin.tell_outcomes, args=(carrier, writer))
    child.start()
    assert reader.recv() == "left"
    assert reader.recv() == "waits"
    carrier.put("left again") if immediate else None
    carrier.shutdown(immediate)
    assert carrier.is_shutdown
    assert reader.recv() in ("ShutDown", "left again")
    for use in (lambda: carrier.put(1), carrier.get, carrier.get_nowait):
        with pytest.raises(conveyor.ShutDown):
            use()
    child.join()
    assert reader.recv() == "ShutDown"


def test_a_queue_can_be_passed_to_children_only_when_they_are_started() -> None:
    with pytest.raises(RuntimeError, match="inheritance"):
        pickle.dumps(conveyor.Queue())


def test_a_closed_queue_refuses_and_still_counts() -> None:
    carrier: Any = conveyor.JoinableQueue()
    carrier.put(1)
    with pytest.raises(AssertionError):
        carrier.join_thread()
    carrier.close()
    carrier.join_thread()
    carrier.cancel_join_thread()
    for use in (lambda: carrier.put(1), carrier.get, lambda: carrier.put_many([1]), lambda: carrier.get_many(1)):
        with pytest.raises(ValueError, match="is closed"):
            use()
    assert (carrier.qsize(), carrier.unfinished()) == (1, 1)


def test_many_threads_of_one_process_share_a_queue() -> None:
    carrier: Any = conveyor.JoinableQueue(5)
    found: list[int] = []

    def get_until_none() -> None:
        while (item := carrier.get()) is not None:
            found.append(item)
            carrier.task_done()

    getters = [threading.Thread(target=get_until_none) for _ in range(4)]
    putters = [threading.Thread(target=carrier.put_many, args=(range(n * 500, n * 500 + 500),)) for n in range(4)]
    for thread in (*getters, *putters):
        thread.start()
    for thread in putters:
        thread.join()
    assert carrier.join(30.0)
    carrier.put_many([None] * 4)
    for thread in getters:
        thread.join()
    assert sorted(found) == list(range(2000))


def test_what_is_public_is_imported_on_first_use_only() -> None:
    code = "import sys, conveyor; print(sorted(m for m in sys.modules if m.startswith('conveyor')))"
    assert run("-c", code).stdout.strip() == "['conveyor']"
    code = "import sys, conveyor; conveyor.Queue; print('conveyor.pipeline' in sys.modules, dir(conveyor) != [])"
    assert run("-c", code).stdout.strip() == "False True"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = conveyor.nothing
