"""The table of deaths for the `leased` queue: who dies, where and how; what is lost, what is done twice, who lives on.

The answer is nearly always: nothing, at most the task in hand, and everybody else.
"""

from __future__ import annotations

import functools
import os
import signal
import socket
import statistics
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import psutil
import pytest

from conveyor.queues import wire
from conveyor.queues.leased_ends import pair
from support.diary import Account
from support.doom import CONSUMER_POINTS, PRODUCER_POINTS
from support.runs import WORKLOADS, Run, running
from support.waiting import wait_for

TESTS = str(Path(__file__).parents[1])
SIGNALS = ("SIGKILL", "SIGSEGV", "SIGTERM")
DEEDS = (*SIGNALS, "_exit", "exit")
TASKS = 300  # of each of two producers


def doomed(folder: Path, *arguments: str, consumers: int = 3) -> AbstractContextManager[Run]:
    """Start the workload whose workers meet their end, with a diary of all tasks."""
    options = ("--queue", "leased", "--consumers", str(consumers), "--metrics", "off")
    return running(folder, "support.doom:doomed", f"folder={folder}", *arguments, *options, PYTHONPATH=TESTS)


def everything(tasks: int = TASKS, producers: int = 2) -> set[int]:
    return {1_000_000 * share + number for share in range(producers) for number in range(tasks)}


def victim(run: Run) -> str:
    """Return the slot that was struck."""
    return wait_for("somebody to be struck", (run.folder / "victim").read_text)


def holder(run: Run) -> str:
    """Return the slot whose consumer holds the task that waits."""
    return wait_for("a consumer in the task", (run.folder / "held-by").read_text)


def restarts(run: Run) -> dict[str, int]:
    return {worker["name"]: worker["restarts"] for worker in run.report["workers"]}


def assert_nobody_else_died(run: Run, *victims: str) -> None:
    assert {death["slot"] for death in run.report["deaths"]} <= set(victims)
    assert {name for name, number in restarts(run).items() if number} <= set(victims)
    assert "Traceback" not in run.said()


def assert_counted(run: Run, tasks: int, **other: int) -> None:
    """Assert the counts of a run in which so many tasks were put and done; the others are 0 unless given."""
    report = run.report
    expected = {"produced": tasks, "processed": tasks - other.get("dead_lettered", 0)}
    expected |= dict.fromkeys(("failed", "redelivered", "dead_lettered", "lost", "unfinished"), 0) | other
    assert {name: report[name] for name in expected} == expected
    consumers = [worker for worker in report["workers"] if worker["role"] == "consumer"]
    assert sum(worker["abandoned"] for worker in consumers) == report["redelivered"] + report["dead_lettered"]


def assert_done(run: Run, tasks: set[int], twice: tuple[int, ...] = (), begun_twice: tuple[int, ...] = ()) -> None:
    """Assert that each task was done, and all but these were begun once, and once only."""
    account = Account(run.folder)
    assert set(account.done) == tasks
    assert account.twice() == sorted({*twice, *begun_twice})
    assert sorted(task for task, number in account.done.items() if number > 1) == sorted(twice)
    for task in (*twice, *begun_twice):
        assert len(set(account.by[task])) == account.begun[task] == 2  # by two processes, once each


def wait_until_stopped(run: Run) -> psutil.Process:
    """Return the process that was struck, once it has stopped."""
    name = victim(run)
    process = psutil.Process(run.worker(name).pid)
    wait_for("it to stop", lambda: process.status() == psutil.STATUS_STOPPED)
    return process


# -- a consumer ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", SIGNALS)
@pytest.mark.parametrize("consumers", [1, 3])
def test_a_consumer_killed_while_idle_costs_nothing(tmp_path: Path, how: str, consumers: int) -> None:
    with doomed(tmp_path, "gate_at=10", consumers=consumers) as run:
        wait_for("idle consumers", lambda: run.status().total("processed") == 20)
        run.kill("consumer-1", signal.Signals[how])
        wait_for("its death to be known", lambda: "worker died" in run.said())
        (tmp_path / "gate").touch()
        assert run.wait() == 0
        assert_counted(run, 2 * TASKS)
        assert_done(run, everything())
        assert_nobody_else_died(run, "consumer-1")
        assert how in run.said()


def test_all_consumers_killed_at_once_while_idle_cost_nothing(tmp_path: Path) -> None:
    with doomed(tmp_path, "gate_at=10") as run:
        wait_for("idle consumers", lambda: run.status().total("processed") == 20)
        for number in (1, 2, 3):
            run.kill(f"consumer-{number}")
        (tmp_path / "gate").touch()
        assert run.wait() == 0
        assert_counted(run, 2 * TASKS)
        assert_done(run, everything())
        assert_nobody_else_died(run, "consumer-1", "consumer-2", "consumer-3")


@pytest.mark.parametrize("consumers", [1, 3])
@pytest.mark.parametrize("millis", [0, 2])
@pytest.mark.parametrize("deed", DEEDS)
def test_a_consumer_that_dies_in_a_task_has_that_task_alone_done_again_elsewhere(
    tmp_path: Path, deed: str, millis: int, consumers: int
) -> None:
    """However it dies, leaving with exit code 0 included; whether tasks travel by the hundred or one at a time."""
    with doomed(tmp_path, "at=150", f"deed={deed}", f"millis={millis}", consumers=consumers) as run:
        assert run.wait() == 0
        assert_counted(run, 2 * TASKS, redelivered=1)
        assert_done(run, everything(), begun_twice=(150,))
        assert_nobody_else_died(run, victim(run))
        (death,) = run.report["deaths"]
        assert (death["in_task"], death["task"], death["attempt"], death["is_dead_letter"]) == (True, "150", 1, False)
        assert (deed if deed in SIGNALS else 'how="exit code 0"') in run.said()


@pytest.mark.parametrize("deed", DEEDS)
def test_a_consumer_that_dies_before_a_done_task_is_counted_has_it_done_twice(tmp_path: Path, deed: str) -> None:
    """The only task that may be: nobody else can know that it was done."""
    with doomed(tmp_path, "at=150", "at_end=yes", f"deed={deed}") as run:
        assert run.wait() == 0
        assert_counted(run, 2 * TASKS, redelivered=1)
        assert_done(run, everything(), twice=(150,))
        assert_nobody_else_died(run, victim(run))


@pytest.mark.parametrize("deed", ["SIGKILL", "SIGSEGV", "exit"])
@pytest.mark.parametrize("attempts", [1, 3, 4])
def test_a_task_that_kills_its_consumer_each_time_is_given_up_and_harms_no_other(
    tmp_path: Path, attempts: int, deed: str
) -> None:
    with doomed(tmp_path, "at=150", "always=yes", f"deed={deed}", "--max-attempts", str(attempts)) as run:
        assert run.wait() == 1
        assert_counted(run, 2 * TASKS, redelivered=attempts - 1, dead_lettered=1)
        account = Account(tmp_path)
        assert account.begun[150] == len(set(account.by[150])) == attempts
        assert account.twice() == ([150] if attempts > 1 else [])
        assert set(account.done) == everything() - {150}
        assert set(account.done.values()) == {1}
        deaths = run.report["deaths"]
        assert [death["attempt"] for death in deaths] == list(range(1, attempts + 1))
        assert [death["is_dead_letter"] for death in deaths] == [False] * (attempts - 1) + [True]
        (letter,) = [line for line in run.said().splitlines() if "dead_letter=true" in line.lower()]
        assert "task=150" in letter
        assert (f"how={deed}" if deed in SIGNALS else 'how="exit code 0"') in letter
        assert "Traceback" not in run.said()


def test_a_consumer_that_raises_lives_on(tmp_path: Path) -> None:
    with doomed(tmp_path, "at=150", "always=yes", "deed=raise") as run:
        assert run.wait() == 1
        assert_counted(run, 2 * TASKS, failed=1)
        assert run.report["failures"] == {"ValueError": 1}
        account = Account(tmp_path)
        assert set(account.begun.values()) == {1}
        assert set(account.begun) == everything()
        assert run.report["deaths"] == []
        assert set(restarts(run).values()) == {0}


@pytest.mark.parametrize("then", ["SIGCONT", "SIGKILL"])
@pytest.mark.parametrize("millis", [0, 1])
def test_a_consumer_stopped_in_a_task_holds_up_that_task_alone(tmp_path: Path, then: str, millis: int) -> None:
    """Even in the middle of a stride."""
    with doomed(tmp_path, "hold=150", f"millis={millis}") as run:
        name = holder(run)
        run.kill(name, signal.SIGSTOP)
        wait_for("all else to be done", lambda: run.status().total("processed") == 2 * TASKS - 1)
        queue = run.status().queue
        assert (queue.waiting, queue.in_progress, queue.unfinished) == (0, 1, 1)
        (tmp_path / "release").touch()
        run.kill(name, signal.Signals[then])
        assert run.wait() == 0
        if then == "SIGCONT":
            assert_counted(run, 2 * TASKS)
            assert_done(run, everything())
            assert_nobody_else_died(run)
        else:
            assert_counted(run, 2 * TASKS, redelivered=1)
            assert_done(run, everything(), begun_twice=(150,))
            assert_nobody_else_died(run, name)


@pytest.mark.parametrize("then", ["SIGCONT", "SIGKILL"])
def test_a_consumer_stopped_while_idle_holds_up_nothing(tmp_path: Path, then: str) -> None:
    """What is sent to it meanwhile, a single task too, goes to the others."""
    with doomed(tmp_path, "gate_at=10", "millis=20", "tasks=15") as run:
        wait_for("idle consumers", lambda: run.status().total("processed") == 20)
        run.kill("consumer-2", signal.SIGSTOP)
        (tmp_path / "gate").touch()
        wait_for("all to be done", lambda: run.status().total("processed") == 30)
        run.kill("consumer-2", signal.Signals[then])
        assert run.wait() == 0
        assert_counted(run, 30)
        assert_done(run, everything(15))
        assert_nobody_else_died(run, *(["consumer-2"] if then == "SIGKILL" else []))


def test_a_consumer_that_dies_with_reports_unread_ends_what_they_end(tmp_path: Path) -> None:
    """The last report on a producer that has left is read when its sender is dead as well."""
    arguments = ("producers=1", "tasks=229", "pause=yes", "hold=226", "at=228", "deed=die at the next report")
    with doomed(tmp_path, *arguments, consumers=1) as run:  # a pause before task 227: what follows is another lease
        holder(run)
        wait_for("the producer to be over", lambda: run.worker("producer-1").finished)
        consumer = psutil.Process(run.worker("consumer-1").pid)
        run.process.send_signal(signal.SIGSTOP)
        (tmp_path / "release").touch()
        wait_for("its death", lambda: not psutil.pid_exists(consumer.pid) or consumer.status() == psutil.STATUS_ZOMBIE)
        run.process.send_signal(signal.SIGCONT)
        assert run.wait() == 0
        assert_counted(run, 229)
        assert_done(run, everything(229, producers=1))
        assert_nobody_else_died(run, "consumer-1")


def test_after_a_redelivery_the_supervisor_answers_as_fast_as_before(tmp_path: Path) -> None:
    with doomed(tmp_path, "at=5", "gate_at=10") as run:
        wait_for("all that was put to be done", lambda: run.status().total("processed") == 20)
        assert run.status().queue.redelivered == 1
        seconds = []
        for _ in range(21):
            began = time.perf_counter()
            run.status()
            seconds.append(time.perf_counter() - began)
        assert statistics.median(seconds) < 0.015
        (tmp_path / "gate").touch()
        assert run.wait() == 0


# -- a consumer, at each point of the protocol --------------------------------------------------------------

IN_HAND = ("lease opened", "tasks claimed", "before the first task")
"""Points at which a task counts as in hand, though its function was not called."""


@pytest.mark.parametrize("deed", ["SIGKILL", "SIGSEGV", "_exit"])
@pytest.mark.parametrize("point", CONSUMER_POINTS)
@pytest.mark.parametrize("millis", [0, 2])
def test_a_consumer_that_dies_inside_the_protocol_costs_nothing(
    tmp_path: Path, point: str, deed: str, millis: int
) -> None:
    with doomed(tmp_path, f"point={point}", f"deed={deed}", f"millis={millis}") as run:
        assert run.wait() == 0
        assert_counted(run, 2 * TASKS, redelivered=int(point in IN_HAND))
        assert_done(run, everything())
        assert_nobody_else_died(run, victim(run))


@pytest.mark.parametrize("then", ["SIGCONT", "SIGKILL"])
@pytest.mark.parametrize("point", CONSUMER_POINTS)
@pytest.mark.parametrize("millis", [0, 2])
def test_a_consumer_that_is_stopped_inside_the_protocol_keeps_its_task_alone(
    tmp_path: Path, point: str, then: str, millis: int
) -> None:
    in_hand = int(point in IN_HAND)
    with doomed(tmp_path, f"point={point}", "deed=SIGSTOP", f"millis={millis}") as run:
        process = wait_until_stopped(run)
        wait_for("all else to be done", lambda: run.status().total("processed") == 2 * TASKS - in_hand)
        queue = run.status().queue
        assert (queue.waiting, queue.in_progress, queue.unfinished) == (0, in_hand, in_hand)
        process.send_signal(signal.Signals[then])
        assert run.wait() == 0
        assert_counted(run, 2 * TASKS, redelivered=in_hand if then == "SIGKILL" else 0)
        assert_done(run, everything())
        assert_nobody_else_died(run, *([victim(run)] if then == "SIGKILL" else []))


# -- a producer ---------------------------------------------------------------------------------------------


def assert_prefix_done(run: Run, tasks: int = TASKS) -> int:
    """Assert that all of the second producer is done, and of the first what it had put; return how many these are."""
    account = Account(run.folder)
    assert set(account.done.values()) == set(account.begun.values()) == {1}
    put: int = run.report["produced"] - tasks
    assert set(account.done) == {*range(put), *range(1_000_000, 1_000_000 + tasks)}
    return put


@pytest.mark.parametrize("how", SIGNALS)
def test_what_a_killed_producer_had_put_is_done(tmp_path: Path, how: str) -> None:
    with doomed(tmp_path, "gate_at=40") as run:
        wait_for("both at their gates", lambda: run.status().total("processed") == 80)
        run.kill("producer-1", signal.Signals[how])
        wait_for("its death to be known", lambda: "producer died" in run.said())
        (tmp_path / "gate").touch()
        assert run.wait() == 3
        assert assert_prefix_done(run) == 40
        assert_counted(run, 40 + TASKS)
        assert run.report["trouble"] == f"producer producer-1 died: {how}"
        assert set(restarts(run).values()) == {0}


@pytest.mark.parametrize(
    ("deed", "code"), [("raise", "exit code 1"), ("exit", "exit code 0"), ("_exit", "exit code 0"), ("", "exit code 1")]
)
def test_a_producer_that_ends_badly_ends_the_run_with_exit_code_3(tmp_path: Path, deed: str, code: str) -> None:
    arguments = (f"folder={tmp_path}", f"deed={deed}", "--queue", "leased", "--consumers", "2", "--metrics", "off")
    with running(tmp_path, f"{WORKLOADS}:ending_badly", *arguments) as run:
        assert run.wait() == 3
        report = run.report
        assert report["trouble"] == f"producer bad died: {code}"
        assert report["processed"] == report["produced"] == len(run.lines()) == len(set(run.lines()))
        assert report["lost"] == report["unfinished"] == 0
        assert {str(n) for n in range(1_000_000, 1_000_010)} <= set(run.lines())
        if deed != "_exit":  # which gives it no chance to put what it has gathered
            assert {str(n) for n in range(10)} <= set(run.lines())
        if deed == "":
            assert "cannot be sent to another process" in run.said()
        assert set(restarts(run).values()) == {0}


def test_what_a_producer_put_last_is_done_though_it_left_an_answer_unread(tmp_path: Path) -> None:
    """The system then says of the line that it was broken, before it hands out what lies in it."""
    options = ("--queue", "leased", "--metrics", "off")
    with running(tmp_path, "support.doom:hasty", f"folder={tmp_path}", *options, PYTHONPATH=TESTS) as run:
        wait_for("all to be put", (tmp_path / "put").read_text)
        pid = int((tmp_path / "pid").read_text())
        wait_for("its end", lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
        run.process.send_signal(signal.SIGCONT)
        assert run.wait() == 0
        put = int((tmp_path / "put").read_text())
        assert put > 10
        assert_counted(run, put)
        assert_done(run, set(range(put)))
        assert_nobody_else_died(run)


@pytest.mark.parametrize("deed", ["SIGKILL", "SIGSEGV", "_exit"])
@pytest.mark.parametrize("point", PRODUCER_POINTS)
def test_a_producer_that_dies_inside_the_protocol_has_what_it_had_put_done(
    tmp_path: Path, point: str, deed: str
) -> None:
    with doomed(tmp_path, f"point={point}", f"deed={deed}", "--maxsize", "50", *flushing(tmp_path, point)) as run:
        assert run.wait() == 3
        put = assert_prefix_done(run)
        assert_counted(run, put + TASKS)
        assert put < TASKS
        assert put == 0 if point == "before its first chunk" else put > 0
        assert run.report["trouble"].startswith("producer producer-1 died: ")
        assert set(restarts(run).values()) == {0}
        assert [death["slot"] for death in run.report["deaths"]] == ["producer-1"]


@pytest.mark.parametrize("then", ["SIGCONT", "SIGKILL"])
@pytest.mark.parametrize("point", PRODUCER_POINTS)
def test_a_producer_that_is_stopped_inside_the_protocol_holds_up_nobody(tmp_path: Path, point: str, then: str) -> None:
    with doomed(tmp_path, f"point={point}", "deed=SIGSTOP", "--maxsize", "50", *flushing(tmp_path, point)) as run:
        process = wait_until_stopped(run)
        wait_for("the other producer to be over", lambda: run.worker("producer-2").finished)
        wait_for("all that was put to be done", lambda: run.status().queue.unfinished == 0)
        process.send_signal(signal.Signals[then])
        assert run.wait() == (3 if then == "SIGKILL" else 0)
        put = assert_prefix_done(run)
        assert_counted(run, put + TASKS)
        assert (put == TASKS) == (then == "SIGCONT")
        assert_nobody_else_died(run, *(["producer-1"] if then == "SIGKILL" else []))


def flushing(folder: Path, point: str) -> tuple[str, ...]:
    """Return the arguments that have the flusher do something: a producer that takes its time."""
    return ("pause=yes",) if point == "in the flusher" else ()


@pytest.mark.parametrize("how", SIGNALS)
def test_a_producer_killed_while_it_waits_for_credit_leaves_its_share_to_the_others(tmp_path: Path, how: str) -> None:
    # Each puts one task and waits: else the second could be through with all of its own before the first begins.
    with doomed(tmp_path, "hold=0", "gate_at=1", "--maxsize", "10", consumers=1) as run:
        holder(run)
        (tmp_path / "gate").touch()
        wait_for("blocked producers", lambda: {s.state for s in run.status().slots if "prod" in s.name} == {"blocked"})
        run.kill("producer-1", signal.Signals[how])
        wait_for("its death to be known", lambda: "producer died" in run.said())
        put = run.worker("producer-1").produced
        (tmp_path / "release").touch()
        assert run.wait() == 3
        assert assert_prefix_done(run) == put
        assert_counted(run, put + TASKS)
        assert set(restarts(run).values()) == {0}


@pytest.mark.parametrize("how", SIGNALS)
def test_what_a_producer_killed_while_it_waits_for_room_had_put_is_done(tmp_path: Path, how: str) -> None:
    """Its tasks lie in memory that outlives it."""
    arguments = (f"folder={tmp_path}", "tasks=100", "--queue", "leased", "--metrics", "off", "--maxsize", "0")
    with running(tmp_path, f"{WORKLOADS}:large", *arguments) as run:
        wait_for("both consumers in a task", lambda: run.status().queue.in_progress == 2)
        wait_for("a blocked producer", lambda: run.worker("big").state == "blocked")
        run.kill("big", signal.Signals[how])
        wait_for("its death to be known", lambda: "producer died" in run.said())
        (tmp_path / "release").touch()
        assert run.wait() == 3
        report = run.report
        assert report["produced"] == report["processed"] > 0
        assert run.lines() == ["1000000"] * report["produced"]
        assert_nobody_else_died(run, "big")


# -- a message, whole or not at all -------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # an error since Python 3.15 where threads are
def test_a_message_arrives_whole_or_not_at_all_when_its_sender_is_killed() -> None:
    """So no death leaves half a one behind: the lines between workers and supervisor keep messages apart."""
    for size in (1, 30_000, wire.MAX_BYTES):
        ours, theirs = pair()
        child = os.fork()
        if child == 0:
            line = socket.socket(fileno=theirs.number)
            for number in range(10_000_000):
                line.send(bytes([number % 256]) * size)
        theirs.close()
        received: list[bytes] = []
        wait_for("some messages", functools.partial(read_some, ours, received, 200))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert read_some(ours, received, 1_000_000)
        ours.close()
        assert received.pop() == b""
        assert received == [bytes([number % 256]) * size for number in range(len(received))]


def read_some(line: socket.socket, received: list[bytes], enough: int) -> bool:
    """Read what is there; return whether it is enough, or the end."""
    while len(received) < enough:
        try:
            received.append(line.recv(wire.MAX_BYTES))
        except BlockingIOError:
            return False
        if not received[-1]:
            break
    return True


# -- the supervisor, and being asked to stop ----------------------------------------------------------------


@pytest.mark.parametrize("what", ["idle", "in a task", "blocked"])
def test_no_worker_outlives_a_killed_supervisor(tmp_path: Path, what: str) -> None:
    arguments = {"idle": ("gate_at=5",), "in a task": ("hold=5",), "blocked": ("hold=0", "--maxsize", "5")}[what]
    with doomed(tmp_path, *arguments, consumers=1 if what == "blocked" else 3) as run:
        if what == "idle":
            wait_for("work", lambda: run.status().total("processed") == 10)
        else:
            holder(run)
        if what == "blocked":
            wait_for("a blocked producer", lambda: run.worker("producer-1").state == "blocked")
        run.process.kill()
        run.process.wait()
        wait_for("every process to be gone", lambda: not run.processes(), 10.0)


def test_a_worker_that_never_gets_ready_stops_the_run_with_the_reason(tmp_path: Path) -> None:
    with running(tmp_path, f"{WORKLOADS}:unborn", "--queue", "leased", "--metrics", "off") as run:
        assert run.wait() == 3
        report = run.report
        assert "died 5 times in 30 s before it was ready: exit code 7" in report["trouble"]
        assert report["lost"] == report["unfinished"] == report["produced"] == 5
        assert restarts(run)["producer-1"] == 0


def test_a_killed_fork_server_leaves_no_stray_worker(tmp_path: Path) -> None:
    """Its death looks like that of all its workers, who live on: they must be ended, not doubled."""
    with doomed(tmp_path, "gate_at=5", consumers=2) as run:
        wait_for("work", lambda: run.status().total("processed") == 10)
        parents = {psutil.Process(slot.pid).ppid() for slot in run.status().slots}
        assert len(parents) == 1
        psutil.Process(parents.pop()).kill()
        wait_for("the deaths to be known", lambda: run.said().count("producer died") == 2)
        (tmp_path / "gate").touch()
        assert run.wait() == 3
        assert_counted(run, 10)
        assert_done(run, everything(5))


@pytest.mark.parametrize("whole_group", [False, True], ids=["the supervisor", "the process group"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_signal_drains(tmp_path: Path, number: signal.Signals, whole_group: bool) -> None:
    with doomed(tmp_path, "hold=10", "gate_at=20") as run:
        holder(run)
        wait_for("both at their gates", lambda: run.status().total("produced") == 40)
        os.killpg(run.process.pid, number) if whole_group else run.process.send_signal(number)
        wait_for("the producers to have stopped", lambda: run.worker("producer-1").finished)
        (tmp_path / "release").touch()
        assert run.wait() == 0
        assert run.report["ending"] == "drained"
        assert_counted(run, 40)
        assert_done(run, everything(20))
        assert_nobody_else_died(run)


def test_a_consumer_killed_during_a_drain_loses_nothing(tmp_path: Path) -> None:
    with doomed(tmp_path, "hold=10", "gate_at=20") as run:
        name = holder(run)
        wait_for("both at their gates", lambda: run.status().total("produced") == 40)
        run.process.terminate()
        wait_for("the producers to have stopped", lambda: run.worker("producer-2").finished)
        run.kill(name)
        (tmp_path / "release").touch()
        assert run.wait() == 0
        assert run.report["ending"] == "drained"
        assert_counted(run, 40, redelivered=1)
        assert_done(run, everything(20), begun_twice=(10,))
        assert_nobody_else_died(run, name)


def test_a_second_signal_stops_now_and_counts_what_is_left(tmp_path: Path) -> None:
    with doomed(tmp_path, "hold=10", consumers=1) as run:
        holder(run)
        run.process.terminate()
        wait_for("the drain", lambda: run.status().phase == "draining")
        run.process.terminate()
        assert run.wait() == 4
        assert_expired(run)


def test_a_drain_ends_when_its_time_is_over(tmp_path: Path) -> None:
    with doomed(tmp_path, "hold=10", "--drain-timeout", "0.5", consumers=1) as run:
        holder(run)
        run.process.terminate()
        assert run.wait() == 4
        assert_expired(run)


def assert_expired(run: Run) -> None:
    """Assert that what was left is counted, and that it was neither lost nor anybody's death."""
    report, account = run.report, Account(run.folder)
    assert report["ending"] == "expired"
    assert report["processed"] == sum(account.done.values()) == len(account.done)
    assert report["unfinished"] == report["produced"] - report["processed"] > 0
    assert report["lost"] == report["redelivered"] == report["dead_lettered"] == 0
    assert report["deaths"] == []


def test_a_producer_that_waits_for_room_lets_a_drain_end(tmp_path: Path) -> None:
    with doomed(tmp_path, "hold=0", "--maxsize", "5", "tasks=1000000", consumers=1) as run:
        wait_for("a blocked producer", lambda: run.worker("producer-1").state == "blocked")
        run.process.terminate()
        wait_for("the drain", lambda: run.status().phase == "draining")
        (tmp_path / "release").touch()
        assert run.wait() == 0
        report: dict[str, Any] = run.report
        assert report["ending"] == "drained"
        assert report["processed"] == report["produced"] < 1000
        assert_counted(run, report["produced"])
        assert_nobody_else_died(run)


def test_a_metrics_port_that_is_taken_is_said_before_any_worker_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        arguments = (f"folder={tmp_path}", "--queue", "leased", "--metrics", address)
        with running(tmp_path, "support.doom:doomed", *arguments, PYTHONPATH=TESTS) as run:
            assert run.wait() == 2
            assert address in run.said()
            assert "Traceback" not in run.said()
            assert not list(tmp_path.glob("*.diary"))
