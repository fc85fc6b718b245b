"""Programs that use the drop-in queues and lose processes. Each runs in a process of its own, by name and start method:

    python -c 'from support import dropin; dropin.main("killed_in_an_item", "spawn", "/a/folder")'

It raises if what it claims is not so. `run` is how the tests start one.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

import conveyor
from support.waiting import wait_for

MARK = "CONVEYOR_TEST_MARK"


def run(scenario: str, start_method: str, folder: Path, *arguments: str) -> str:
    """Run a program to its end and see that it was right, and that nothing of it is left. Return what it printed."""
    mark = uuid.uuid4().hex
    call = f"from support import dropin; dropin.main({scenario!r}, {start_method!r}, {str(folder)!r}, *{arguments!r})"
    done = subprocess.run(
        [sys.executable, "-c", call],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, MARK: mark, "PYTHONPATH": str(Path(__file__).parents[1])},
        timeout=100,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    wait_for("no process to be left", lambda: not left_of(mark), 10.0)
    return done.stdout


def left_of(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == mark:
                found.append(process)
    return found


# -- what the children do ----------------------------------------------------------------------------------


def note(path: str, line: object) -> None:
    """Append a line in one piece."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{line}\n".encode())
    os.close(descriptor)


def notes(path: str) -> list[str]:
    with contextlib.suppress(FileNotFoundError):
        return Path(path).read_text().splitlines()
    return []


def work(carrier: Any, path: str) -> None:
    """Note each item and mark it as done, until None comes."""
    while (item := carrier.get()) is not None:
        note(path, item)
        carrier.task_done()
    carrier.task_done()


def get_one_and_stay(carrier: Any, path: str) -> None:
    note(path, carrier.get())
    time.sleep(1000.0)


def only_get(carrier: Any) -> None:
    carrier.get()


def get_and_fork(carrier: Any, path: str) -> None:
    """Have a child that outlives us, with all descriptors that we have."""
    carrier.get()
    if os.fork() == 0:
        note(path, os.getpid())
        time.sleep(1000.0)
    time.sleep(1000.0)


def put_and_die(carrier: Any, count: int) -> None:
    for number in range(count):
        carrier.put(number)
    os.kill(os.getpid(), signal.SIGKILL)


def put_all(carrier: Any, count: int) -> None:
    for number in range(count):
        carrier.put(number)


def put_blobs(carrier: Any, count: int, size: int) -> None:
    for number in range(count):
        carrier.put(bytes([number]) * size)


def put_and_note(carrier: Any, first: int, count: int, path: str) -> None:
    for number in range(first, first + count):
        carrier.put(number)
        note(path, number)


def exchange(carrier: Any, path: str, deed: str) -> None:
    """Use the queue until it is lost, and say so."""
    try:
        while True:
            if deed == "get":
                carrier.get()
            elif deed == "join":
                carrier.join()
            else:
                carrier.put(deed)
    except conveyor.QueueLostError:
        note(path, f"{deed} lost")


def tell_outcomes(carrier: Any, writer: Any) -> None:
    """Get, wait in get, and put; say what came of each."""
    writer.send(carrier.get())
    carrier.task_done()
    writer.send("waits")
    outcome_of(carrier.get, writer)
    while True:  # until the shutdown is through
        try:
            carrier.put(1)
        except conveyor.ShutDown:
            break
    writer.send("ShutDown")


def outcome_of(use: Callable[[], object], writer: Any) -> None:
    try:
        writer.send(use())
    except Exception as error:  # that is what we are asked for
        writer.send(type(error).__name__)


class World:
    """What a program needs: processes by one start method, a folder, and their end at the end."""

    def __init__(self, start_method: str, folder: str) -> None:
        self.method = start_method
        self.context: Any = multiprocessing.get_context(start_method)
        self.path = f"{folder}/notes"
        self.folder = folder
        self.processes: list[Any] = []

    def start(self, target: Callable[..., object], *args: Any) -> Any:
        process = self.context.Process(target=target, args=args)
        process.start()
        self.processes.append(process)
        return process

    def kill(self, process: Any) -> None:
        process.kill()
        process.join()

    def end(self) -> None:
        for process in self.processes:
            self.kill(process)


def wait_until_waiting(process: Any) -> None:
    """Wait until a process sleeps in a socket: it has come to its get or put, and nothing is there for it."""

    def is_waiting() -> bool:
        where = Path(f"/proc/{process.pid}/wchan").read_text()
        maps = Path(f"/proc/{process.pid}/maps").read_text()
        return "conveyor-line" in maps and any(name in where for name in ("unix", "skb", "poll"))

    wait_for("it to wait", is_waiting)


def open_things() -> tuple[int, int]:
    """Return how many descriptors and threads this process has."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir()), threading.active_count()


def brokers() -> list[psutil.Process]:
    return [each for each in left_of(os.environ[MARK]) if "conveyor.dropin.broker" in " ".join(each.cmdline())]


def none_of(numbers: list[int], expected: int) -> None:
    assert sorted(numbers) == list(range(expected)), numbers


# -- consumers die -----------------------------------------------------------------------------------------


def killed_in_an_item(world: World) -> None:
    """Its item goes to somebody else, before those behind it."""
    carrier: Any = conveyor.JoinableQueue()
    victim = world.start(get_one_and_stay, carrier, world.path)
    for number in range(3):
        carrier.put(number)
    wait_for("the first item to be taken", lambda: notes(world.path) == ["0"])
    assert (carrier.qsize(), carrier.unfinished()) == (2, 3)
    assert not carrier.join(0.01)
    world.kill(victim)
    assert carrier.qsize() == 3
    assert [carrier.get_nowait() for _ in range(3)] == [0, 1, 2]
    for _ in range(3):
        carrier.task_done()
    assert carrier.join(5.0)


def killed_while_waiting(world: World) -> None:
    """Nobody notices: it held nothing."""
    carrier: Any = conveyor.JoinableQueue()
    victims = [world.start(only_get, carrier) for _ in range(2)]
    for victim in victims:
        wait_until_waiting(victim)
    os.kill(victims[0].pid, signal.SIGSTOP)
    for victim in victims:
        world.kill(victim)
    workers = [world.start(work, carrier, world.path) for _ in range(2)]
    put_all(carrier, 100)
    assert carrier.join(30.0)
    none_of(list(map(int, notes(world.path))), 100)
    for _ in workers:
        carrier.put(None)
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0


def killed_with_children(world: World) -> None:
    """A child that it has forked keeps its descriptors open, and is not taken for it."""
    carrier: Any = conveyor.JoinableQueue()
    carrier.put("item")
    victim = world.start(get_and_fork, carrier, world.path)
    (child,) = wait_for("its child", lambda: notes(world.path))
    world.kill(victim)
    try:
        assert carrier.get(timeout=10.0) == "item"
    finally:
        os.kill(int(child), signal.SIGKILL)


def stuck_with_items(world: World) -> None:
    """One that was fast was sent items ahead; when it gets stuck, others get them."""
    carrier: Any = conveyor.JoinableQueue()
    put_all(carrier, 5000)
    carrier.put("stop")
    put_all(carrier, 100)
    stuck = world.start(stop_at, carrier, "stop", world.path)
    wait_for("it to stop", lambda: notes(world.path) == ["stop"])
    assert carrier.qsize() == 100
    assert sorted(carrier.get(timeout=10.0) for _ in range(100)) == list(range(100))
    assert (carrier.qsize(), carrier.unfinished()) == (0, 101)
    world.kill(stuck)
    assert carrier.get(timeout=10.0) == "stop"


def stop_at(carrier: Any, last: object, path: str) -> None:
    while carrier.get() != last:
        carrier.task_done()
    note(path, last)
    time.sleep(1000.0)


class AlarmError(Exception):
    """Raised by a signal's handler."""


def raise_alarm(*_: object) -> None:
    raise AlarmError


def interrupted(world: World) -> None:
    """A signal's handler raises, at any moment: the queue goes on; only what was interrupted can be lost."""
    signal.signal(signal.SIGALRM, raise_alarm)
    chance = random.Random(1)
    for size in (1, 300_000):
        carrier: Any = conveyor.JoinableQueue()
        assert carrier.qsize() == 0
        for _round in range(300):
            with contextlib.suppress(AlarmError):
                try:
                    signal.setitimer(signal.ITIMER_REAL, 0.0002 + chance.random() * 0.0005)
                    while True:
                        carrier.put(bytes(size))
                        assert len(carrier.get()) == size
                        carrier.task_done()
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
        while carrier.qsize():
            assert len(carrier.get_nowait()) == size
        carrier.put("end")
        assert carrier.get(timeout=10.0) == "end"


def leaves_without_done(world: World) -> None:
    """Whoever leaves in whatever way gives back what it has not marked as done; of a plain queue, nothing."""
    carrier: Any = conveyor.JoinableQueue()
    carrier.put(1)
    world.start(only_get, carrier).join()
    assert carrier.get(timeout=10.0) == 1
    plain: Any = conveyor.Queue()
    plain.put(1)
    world.start(only_get, plain).join()
    assert plain.empty()


# -- producers die -----------------------------------------------------------------------------------------


def killed_after_a_put(world: World) -> None:
    """All that it has put is there, at once."""
    carrier: Any = conveyor.JoinableQueue()
    world.start(put_and_die, carrier, 5000).join()
    assert (carrier.qsize(), carrier.unfinished()) == (5000, 5000)
    assert carrier.get_many(6000) == list(range(5000))


def killed_in_a_put(world: World) -> None:
    """One that waits for room, and one with large items: the others go on."""
    carrier: Any = conveyor.JoinableQueue(10)
    victims = [world.start(put_all, carrier, 100), world.start(put_blobs, carrier, 100, 300_000)]
    wait_for("a full queue", carrier.full)
    for victim in victims:
        wait_until_waiting(victim)
        world.kill(victim)
    assert len(carrier.get_many(100)) == 10
    other = world.start(put_all, carrier, 20)
    assert [carrier.get(timeout=10.0) for _ in range(20)] == list(range(20))
    other.join()
    assert other.exitcode == 0


# -- the maker, the broker ---------------------------------------------------------------------------------


def keep(start_method: str, folder: str, maxsize: int) -> None:
    """Make a queue for others; then stay."""
    world = World(start_method, folder)
    carrier: Any = conveyor.JoinableQueue(maxsize)
    carrier.put("first")
    deeds = ["get", "join", "put"] if maxsize == 0 else ["join", "put"]
    children = [world.start(exchange, carrier, world.path, deed) for deed in deeds]
    note(f"{folder}/pids", " ".join(str(child.pid) for child in children))
    time.sleep(1000.0)


def killed_maker(world: World, maxsize: str) -> None:
    """Everybody who uses its queue gets an error; nobody hangs."""
    expected = ["get lost", "join lost", "put lost"] if maxsize == "0" else ["join lost", "put lost"]
    call = f"from support import dropin; dropin.keep({world.method!r}, {world.folder!r}, {maxsize})"
    maker = subprocess.Popen([sys.executable, "-c", call])
    (line,) = wait_for("its children", lambda: notes(f"{world.folder}/pids"))
    children = [psutil.Process(int(pid)) for pid in line.split()]
    for child in children:
        if child is not children[-1]:  # that one puts all the time
            wait_until_waiting(child)
    maker.kill()
    maker.wait()
    wait_for("all to have noticed", lambda: sorted(notes(world.path)) == expected)
    psutil.wait_procs(children, 10.0)


def killed_broker(world: World) -> None:
    """Everybody gets an error, the maker too; a new queue works."""
    carrier: Any = conveyor.JoinableQueue()
    carrier.put(1)
    child = world.start(exchange, carrier, world.path, "join")
    wait_until_waiting(child)
    (broker,) = brokers()
    broker.kill()
    wait_for("it to have noticed", lambda: notes(world.path) == ["join lost"])
    for use in (carrier.get, carrier.join, carrier.qsize, lambda: put_all(carrier, 1 << 30)):
        try:
            use()
        except conveyor.QueueLostError:
            continue
        raise AssertionError("no error")
    another: Any = conveyor.JoinableQueue()
    another.put(2)
    assert another.get() == 2


def forgotten(world: World) -> None:
    """Queues that nobody has any more leave nothing behind: no descriptor, no thread, no process."""
    conveyor.Queue[int]().put(1)
    first = world.start(time.time)
    first.join()
    first.close()
    gc.collect()
    before = open_things()
    for _ in range(20):
        carrier: Any = conveyor.JoinableQueue(100)
        carrier.put(bytes(300_000))
        child = world.start(only_get, carrier)
        child.join()
        child.close()
        carrier.close()
        carrier.join_thread()
    world.processes.clear()
    del carrier
    gc.collect()
    assert open_things() == before
    wait_for("the broker to end", lambda: not brokers())
    conveyor.Queue[int]().put(1)


def storm(world: World, seed: str) -> None:
    """Random kills of getters and putters, by the seed: every accepted item is done, and nothing stays unfinished."""
    print(f"seed {seed}")
    chance = random.Random(seed)
    carrier: Any = conveyor.JoinableQueue(chance.choice((0, 1, 7, 100, 1000)))
    done, accepted = world.path, f"{world.folder}/accepted"
    getters = [world.start(work, carrier, done) for _ in range(4)]
    putters = [world.start(put_and_note, carrier, 100_000 * number, 400, accepted) for number in range(3)]
    kills = 0
    for _ in range(chance.randint(5, 20)):
        until = time.monotonic() + chance.random() * 0.03
        while time.monotonic() < until:  # busy, as everybody else
            pass
        if chance.random() < 0.1:
            world.kill(chance.choice(putters))
        else:
            place = chance.randrange(len(getters))
            world.kill(getters[place])
            kills += 1
            getters[place] = world.start(work, carrier, done)
    for putter in putters:
        putter.join()
    assert carrier.join(60.0), f"seed {seed}: {carrier.unfinished()} unfinished, {carrier.qsize()} waiting"
    for _ in getters:
        carrier.put(None)
    for getter in getters:
        getter.join()
    assert (carrier.unfinished(), carrier.qsize()) == (0, 0)
    lines = notes(done)
    assert set(notes(accepted)) <= set(lines), f"seed {seed}: {set(notes(accepted)) - set(lines)} are lost"
    assert len(lines) - len(set(lines)) <= kills, f"seed {seed}: done twice more often than somebody died"


def main(scenario: str, start_method: str, folder: str, *arguments: str) -> None:
    world = World(start_method, folder)
    try:
        globals()[scenario](world, *arguments)
    finally:
        world.end()
