"""What a scrape shows of a run: every metric, in any state of its processes and of its sources."""

from __future__ import annotations

import dataclasses
import logging
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any, cast
from unittest.mock import Mock

import psutil
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from conveyor.exporter import vitals
from conveyor.exporter.catalogue import CATALOGUE, Kind
from conveyor.exporter.pages import Pages, Request
from conveyor.ledger import TASK_EDGES_SECONDS
from conveyor.snapshot import RedeliveryReason, RestartReason, RunStatistics, Scaling, WorkerState
from support.fakes import FakeLoop, FakeRun, make_run, make_slot, make_spool, with_queue
from support.scrapes import Scrape, assert_consistent, assert_nothing_fell, parse
from support.threads import run_at_once
from support.waiting import wait_for


def exporter(run: FakeRun) -> Pages:
    return Pages(run, FakeLoop())


def text(source: Pages, accept: str = "") -> str:
    return source.answer(Request("/metrics", accept)).body.decode()


def scrape(source: Pages) -> Scrape:
    return parse(text(source))


@pytest.fixture
def only_psutil(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process is plainly alive, so that each gets the closer look."""
    monkeypatch.setattr(vitals, "_glance", Mock(return_value=None))


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has used next to no CPU time."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


def busy_run() -> FakeRun:
    """Return two producers and two consumers in the middle of their work, all in this very process."""
    pid = os.getpid()
    return FakeRun(
        make_run(
            make_slot("producer-1", pid=pid, produced=40, blocked_seconds=1.5, state=WorkerState.BLOCKED),
            make_slot("producer-2", produced=5, finished=True, last_exit_code=0),
            make_slot("consumer-1", pid=pid, processed=20, failed=3, in_progress=1, state=WorkerState.BUSY),
            make_slot("consumer-2", pid=pid, processed=10, abandoned=1, last_exit_code=-9, busy_seconds=2.5),
        )
    )


# -- the catalogue -----------------------------------------------------------------------------------------


def family_name(name: str) -> str:
    return name.removesuffix("_total")


def test_a_scrape_shows_the_catalogue_and_nothing_else_of_ours() -> None:
    families = scrape(exporter(busy_run())).families
    ours = {name for name in families if name.startswith("conveyor_")}
    assert ours == {family_name(entry.name) for entry in CATALOGUE}
    for entry in CATALOGUE:
        family = families[family_name(entry.name)]
        assert (family.type, family.documentation) == (entry.kind, entry.help)


def test_each_series_has_the_labels_of_its_catalogue_entry() -> None:
    seen = scrape(exporter(busy_run()))
    for entry in CATALOGUE:
        for sample in seen.families[family_name(entry.name)].samples:
            assert set(sample.labels) - {"le"} == set(entry.labels), entry.name


def test_the_catalogue_keeps_to_the_naming_rules() -> None:
    assert len({entry.name for entry in CATALOGUE}) == len(CATALOGUE)
    for entry in CATALOGUE:
        assert entry.name.startswith("conveyor_")
        assert entry.name.endswith("_total") == (entry.kind is Kind.COUNTER)
        assert entry.help.endswith(".") or entry.help == "1; what runs."
        assert not {"type", "service", "env", "instance", "job", "pid"} & set(entry.labels)


def test_both_formats_say_the_same() -> None:
    source = exporter(busy_run())
    plain = scrape(source)
    openmetrics = text(source, "application/openmetrics-text; version=1.0.0")
    assert openmetrics.endswith("# EOF\n")
    strict = Scrape(parse_openmetrics(openmetrics))  # type: ignore[no-untyped-call]
    ours = {key: value for key, value in plain.values.items() if key[0].startswith("conveyor_")}
    moving = {"conveyor_collect_duration_seconds", "conveyor_worker_cpu_seconds_total"}
    for key, value in ours.items():
        assert key in strict.values
        if key[0] not in moving and not key[0].endswith(("_bytes", "_fds")):
            assert strict.values[key] == value, key


def test_the_supervisor_itself_is_shown_beside_the_run() -> None:
    families = scrape(exporter(busy_run())).families
    assert {"process_resident_memory_bytes", "process_cpu_seconds", "python_info", "python_gc_collections"} <= set(
        families
    )


def test_two_runs_in_one_process_do_not_meet() -> None:
    first, second = exporter(busy_run()), exporter(FakeRun(make_run(make_slot("consumer-9"))))
    assert scrape(second).workers("consumer") == ["consumer-9"]
    assert scrape(first).workers("consumer") == ["consumer-1", "consumer-2"]


# -- the values --------------------------------------------------------------------------------------------


def test_a_worker_has_the_counts_of_its_role_only() -> None:
    seen = scrape(exporter(busy_run()))

    def shown(name: str) -> set[str]:
        return {dict(labels)["worker"] for labels in seen.find(name)}

    for name in ("tasks_produced_total", "producer_blocked_seconds_total"):
        assert shown(f"conveyor_{name}") == {"producer-1", "producer-2"}
    for name in ("tasks_processed_total", "tasks_failed_total", "tasks_abandoned_total", "tasks_in_progress"):
        assert shown(f"conveyor_{name}") == {"consumer-1", "consumer-2"}
    for name in ("up", "state", "busy_seconds_total", "restarts_total", "cpu_seconds_total"):
        assert len(shown(f"conveyor_worker_{name}")) == 4


def test_every_value_is_the_runs_own() -> None:
    seen = scrape(exporter(busy_run()))
    assert seen.value("conveyor_queue_size", queue="joinable") == 13
    assert seen.value("conveyor_queue_capacity") == 1000
    assert seen.value("conveyor_queue_unfinished_tasks") == 15
    assert seen.value("conveyor_tasks_failed_total", worker="consumer-1", reason="exception") == 3
    assert seen.sum("conveyor_tasks_failed_total") == 3
    assert seen.value("conveyor_producer_blocked_seconds_total", worker="producer-1") == 1.5
    assert seen.value("conveyor_worker_busy_seconds_total", worker="consumer-2") == 2.5
    assert seen.value("conveyor_workers_desired", role="consumer") == 2
    assert seen.value("conveyor_worker_state", worker="consumer-1", state="busy") == 1
    assert seen.value("conveyor_worker_pid", worker="consumer-1") == os.getpid()
    assert seen.value("conveyor_worker_last_exit_code", worker="consumer-2") == -9
    assert seen.value("conveyor_worker_resident_memory_bytes", worker="consumer-1") > 1e6
    assert seen.value("conveyor_worker_open_fds", worker="consumer-1") > 2
    assert seen.value("conveyor_build_info", start_method="forkserver") == 1
    for nothing in ("retried", "dead_lettered"):
        assert seen.value(f"conveyor_tasks_{nothing}_total") == 0


def queue_run(**changes: Any) -> RunStatistics:
    """Return a run with a task waiting, whose queue has these changes."""
    return with_queue(make_run(make_slot("producer-1", produced=1), make_slot("consumer-1")), **changes)


def shown(run: RunStatistics) -> Scrape:
    return scrape(exporter(FakeRun(run)))


def test_deliveries_that_were_made_again_are_told_by_reason_and_their_sum_beside() -> None:
    again = {RedeliveryReason.DEATH: 5, RedeliveryReason.ERROR: 30, RedeliveryReason.RESTART: 2}
    seen = shown(queue_run(redeliveries=again, delayed=4))
    by_reason = {dict(labels)["reason"]: n for labels, n in seen.find("conveyor_tasks_redelivered_total").items()}
    assert by_reason == {"death": 5, "timeout": 0, "error": 30, "restart": 2, "request": 0}
    assert seen.value("conveyor_tasks_retried_total", queue="joinable") == 37
    assert seen.value("conveyor_tasks_delayed", queue="joinable") == 4


def test_dead_letters_that_are_kept_are_told_beside_those_that_deaths_made() -> None:
    seen = shown(queue_run(dead_lettered=2, dead_letters=7))
    assert seen.value("conveyor_tasks_dead_lettered_total") == 2
    assert seen.value("conveyor_dead_letters") == 7


@pytest.mark.parametrize(
    ("waiting", "oldest", "expected"),
    [(1, 12.5, [12.5]), (0, None, [0]), (0, 0.0, [0]), (1, None, [])],
    ids=["one waits", "none waits", "none waits, says the queue", "the queue cannot tell"],
)
def test_the_age_of_the_oldest_task_is_0_if_none_waits_and_absent_if_nobody_knows(
    waiting: int, oldest: float | None, expected: list[float]
) -> None:
    seen = shown(queue_run(waiting=waiting, oldest_waiting_seconds=oldest))
    assert list(seen.find("conveyor_queue_oldest_waiting_seconds").values()) == expected


@pytest.mark.parametrize("is_paused", [False, True])
def test_a_paused_queue_says_so(is_paused: bool) -> None:
    assert shown(queue_run(is_paused=is_paused)).value("conveyor_queue_paused", queue="joinable") == is_paused


def test_scaling_is_told_by_its_bounds_and_its_events() -> None:
    run = make_run(make_slot("consumer-1"), consumers_least=1, consumers_most=8, scalings={Scaling.UP: 3})
    seen = shown(run)
    assert seen.value("conveyor_workers_min", role="consumer") == 1
    assert seen.value("conveyor_workers_max", role="consumer") == 8
    assert seen.value("conveyor_scaling_events_total", direction="up") == 3
    assert seen.value("conveyor_scaling_events_total", direction="down") == 0


@pytest.mark.parametrize("trouble", [None, "No space left on device"])
def test_a_spool_is_told_with_its_trouble(trouble: str | None) -> None:
    seen = shown(queue_run(spool=make_spool(tasks=3, trouble=trouble)))
    names = ("size_bytes", "tasks", "commits_total", "commit_seconds_total", "writable")
    values = [seen.value(f"conveyor_spool_{name}", queue="joinable") for name in names]
    assert values == [8192, 3, 10, 0.25, trouble is None]


def test_a_queue_in_memory_has_no_spool_that_could_be_unwritable() -> None:
    assert not [name for name, _ in shown(queue_run(spool=None)).values if name.startswith("conveyor_spool_")]


def test_the_histograms_are_of_all_slots_with_edges_as_the_client_writes_them() -> None:
    seen = scrape(exporter(busy_run()))
    buckets = seen.find("conveyor_task_processing_duration_seconds_bucket")
    by_edge = {dict(labels)["le"]: value for labels, value in buckets.items()}
    assert [float(edge) for edge in by_edge] == [*TASK_EDGES_SECONDS, float("inf")]
    assert {"1.0", "10.0", "0.0025", "+Inf"} <= set(by_edge)
    assert (by_edge["0.0025"], by_edge["0.005"], by_edge["+Inf"]) == (0, 30, 30)
    assert seen.value("conveyor_task_processing_duration_seconds_sum") == pytest.approx(0.12)
    assert seen.value("conveyor_task_queue_wait_duration_seconds_count") == 32


def test_reasons_are_closed_lists_that_start_at_0() -> None:
    seen = scrape(exporter(FakeRun(make_run(make_slot("consumer-1")))))

    def reasons(name: str) -> dict[str, float]:
        return {dict(labels)["reason"]: value for labels, value in seen.find(name).items()}

    assert reasons("conveyor_tasks_failed_total") == dict.fromkeys(("exception", "timeout", "rejected", "other"), 0)
    assert reasons("conveyor_worker_restarts_total") == dict.fromkeys(RestartReason, 0)
    assert sorted(dict(labels)["source"] for labels in seen.find("conveyor_collect_errors_total")) == [
        "proc",
        "queue",
        "slots",
    ]


def test_an_empty_slot_is_down_and_has_no_made_up_values() -> None:
    seen = scrape(exporter(FakeRun(make_run(make_slot("consumer-1")))))
    assert seen.value("conveyor_worker_up") == 0
    assert seen.sum("conveyor_worker_state") == 0
    assert seen.value("conveyor_worker_cpu_seconds_total") == 0
    for name in ("pid", "start_time_seconds", "last_heartbeat_timestamp_seconds", "last_exit_code", "open_fds"):
        assert not seen.find(f"conveyor_worker_{name}")


def test_any_run_is_consistent_within_one_scrape() -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for _ in range(20):
        slots = [
            make_slot(
                f"consumer-{n}",
                pid=chance.choice([None, os.getpid()]),
                processed=(processed := chance.randrange(1000)),
                failed=chance.randint(0, processed),
                in_progress=chance.randint(0, 1),
                abandoned=chance.randint(0, 3),
            )
            for n in range(chance.randint(1, 8))
        ]
        done = sum(slot.processed + slot.in_progress + slot.abandoned for slot in slots)
        producer = make_slot("producer-1", produced=done + chance.randrange(50))
        assert_consistent(scrape(exporter(FakeRun(make_run(producer, *slots)))))


# -- processes that come and go ----------------------------------------------------------------------------


def test_cpu_seconds_do_not_fall_when_a_process_is_replaced(sleeper: subprocess.Popen[bytes]) -> None:
    run = FakeRun(make_run(make_slot("consumer-1", pid=os.getpid())))
    source = exporter(run)
    first = scrape(source)
    assert first.value("conveyor_worker_cpu_seconds_total") > 0.05
    for slot in (
        make_slot("consumer-1"),
        make_slot("consumer-1", pid=sleeper.pid),
        make_slot("consumer-1", pid=os.getpid()),
    ):
        run.now = make_run(slot)
        second = scrape(source)
        assert_nothing_fell(first, second)
        first = second


def test_a_pid_that_comes_again_is_another_process() -> None:
    run = FakeRun(make_run(make_slot("consumer-1", pid=os.getpid(), started_at=1.7e9)))
    source = exporter(run)
    first = scrape(source).value("conveyor_worker_cpu_seconds_total")
    run.now = make_run(make_slot("consumer-1", pid=os.getpid(), started_at=1.7e9 + 1))
    assert scrape(source).value("conveyor_worker_cpu_seconds_total") >= 2 * first


@pytest.mark.parametrize("reaped", [True, False], ids=["gone", "zombie"])
def test_a_killed_process_is_down_in_the_next_scrape(sleeper: subprocess.Popen[bytes], reaped: bool) -> None:
    run = FakeRun(make_run(make_slot("consumer-1", pid=sleeper.pid)))
    source = exporter(run)
    assert scrape(source).value("conveyor_worker_up") == 1
    sleeper.kill()
    if reaped:
        sleeper.wait()
    else:
        wait_for("a zombie", lambda: psutil.Process(sleeper.pid).status() == psutil.STATUS_ZOMBIE)
    seen = scrape(source)  # the supervisor does not know yet: its statistics are as before
    assert seen.value("conveyor_worker_up") == 0
    assert_consistent(seen)
    assert seen.sum("conveyor_collect_errors_total") == 0
    for name in ("pid", "resident_memory_bytes", "open_fds", "start_time_seconds"):
        assert not seen.find(f"conveyor_worker_{name}")


@pytest.mark.parametrize("read", ["cpu_times", "status", "memory_info", "num_fds"])
@pytest.mark.parametrize(
    "error", [psutil.NoSuchProcess(1), psutil.ZombieProcess(1), FileNotFoundError(), ProcessLookupError()], ids=repr
)
@pytest.mark.usefixtures("only_psutil")
def test_a_process_that_vanishes_between_two_reads_is_down_and_no_error(
    monkeypatch: pytest.MonkeyPatch, read: str, error: Exception
) -> None:
    monkeypatch.setattr(psutil.Process, read, Mock(side_effect=error))
    seen = scrape(exporter(busy_run()))
    assert set(seen.find("conveyor_worker_up").values()) == {0}
    assert_consistent(seen)
    assert seen.sum("conveyor_collect_errors_total") == 0


@pytest.mark.usefixtures("only_psutil")
def test_a_process_that_may_not_be_read_is_up_without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil.Process, "num_fds", Mock(side_effect=psutil.AccessDenied()))
    seen = scrape(exporter(busy_run()))
    assert seen.value("conveyor_worker_up", worker="consumer-1") == 1
    assert not seen.find("conveyor_worker_open_fds")
    assert seen.sum("conveyor_collect_errors_total") == 0


@pytest.mark.parametrize("broken", ["time.clock_gettime", "_first_bytes", "_count_descriptors"])
@pytest.mark.parametrize(
    "error", [PermissionError(), FileNotFoundError(), ValueError(), OSError(22, "Invalid")], ids=repr
)
def test_whatever_a_glance_does_not_show_the_closer_look_does(
    monkeypatch: pytest.MonkeyPatch, broken: str, error: Exception
) -> None:
    monkeypatch.setattr(f"conveyor.exporter.vitals.{broken}", Mock(side_effect=error))
    seen = scrape(exporter(busy_run()))
    assert seen.value("conveyor_worker_up", worker="consumer-1") == 1
    assert seen.value("conveyor_worker_open_fds", worker="consumer-1") > 2
    assert seen.sum("conveyor_collect_errors_total") == 0


@pytest.mark.parametrize("statm", [b"", b"1", b"0 0 0 0 0 0 0\n", b"a b c"])
def test_a_process_without_memory_gets_a_closer_look(
    monkeypatch: pytest.MonkeyPatch, sleeper: subprocess.Popen[bytes], statm: bytes
) -> None:
    monkeypatch.setattr(vitals, "_first_bytes", Mock(return_value=statm))
    closer = Mock(return_value=vitals.Vitals(False, 0.0))
    monkeypatch.setattr(vitals, "_examine", closer)
    seen = scrape(exporter(FakeRun(make_run(make_slot("consumer-1", pid=sleeper.pid)))))
    assert seen.value("conveyor_worker_up") == 0
    closer.assert_called_once()


@pytest.mark.parametrize("sizes", [True, False], ids=["size", "listing"])
def test_both_looks_at_a_process_see_the_same(
    monkeypatch: pytest.MonkeyPatch, sleeper: subprocess.Popen[bytes], sizes: bool
) -> None:
    if sizes and not vitals._directories_tell_their_size():
        pytest.skip("this kernel does not tell the number of descriptors by a size")
    monkeypatch.setattr(vitals, "_directories_tell_their_size", lambda: sizes)

    def agreed() -> bool:  # the program may still be starting
        glance = vitals._glance(sleeper.pid, vitals._Book())
        closer = vitals._examine(sleeper.pid, vitals._Book())
        assert glance is not None
        assert glance.cpu_seconds == pytest.approx(closer.cpu_seconds, abs=0.03)  # psutil counts in ticks
        return dataclasses.replace(glance, cpu_seconds=0.0) == dataclasses.replace(closer, cpu_seconds=0.0)

    wait_for("both to see the same", agreed)


def test_the_cpu_time_of_a_process_is_the_kernels() -> None:
    before = time.process_time()
    glance = vitals._glance(os.getpid(), vitals._Book())
    assert glance is not None
    assert before - 0.05 < glance.cpu_seconds < time.process_time() + 0.05  # it is told in ticks


def test_a_stopped_process_is_up(sleeper: subprocess.Popen[bytes]) -> None:
    sleeper.send_signal(signal.SIGSTOP)
    wait_for("it to stop", lambda: psutil.Process(sleeper.pid).status() == psutil.STATUS_STOPPED)
    assert (
        scrape(exporter(FakeRun(make_run(make_slot("consumer-1", pid=sleeper.pid))))).value("conveyor_worker_up") == 1
    )


# -- sources that fail -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("only_psutil")
def test_a_proc_that_cannot_be_read_is_counted_and_the_rest_served(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(psutil.Process, "memory_info", Mock(side_effect=OSError(5, "Input/output error")))
    source = exporter(busy_run())
    with caplog.at_level(logging.WARNING):
        first, second = scrape(source), scrape(source)
    assert first.value("conveyor_collect_errors_total", source="proc") == 3  # one for each live process
    assert second.value("conveyor_collect_errors_total", source="proc") == 6
    assert second.value("conveyor_worker_up", worker="consumer-1") == 1
    assert second.value("conveyor_worker_cpu_seconds_total", worker="consumer-1") > 0
    assert_consistent(second)
    assert [record.message for record in caplog.records] == ["metrics are incomplete"]  # said once


class BrokenQueue:
    """A queue that cannot tell its size, as on some systems."""

    name = "joinable"

    @property
    def waiting(self) -> int:
        raise NotImplementedError


def test_a_queue_that_cannot_be_read_is_counted_and_the_rest_served() -> None:
    run = busy_run()
    run.now = dataclasses.replace(cast(Any, run.now), queue=BrokenQueue())
    seen = scrape(exporter(run))
    assert seen.value("conveyor_collect_errors_total", source="queue") == 1
    assert seen.sum("conveyor_collect_errors_total") == 1
    assert not seen.find("conveyor_queue_capacity")
    assert seen.value("conveyor_tasks_processed_total", worker="consumer-1") == 20
    assert seen.sum("conveyor_worker_up") == 3


def test_a_run_that_cannot_be_read_leaves_a_scrape_that_says_so() -> None:
    run = FakeRun(RuntimeError("no ledger"))
    source = exporter(run)
    seen = scrape(source)
    assert seen.value("conveyor_collect_errors_total", source="slots") == 1
    assert seen.find("process_resident_memory_bytes")
    run.now = busy_run().now
    assert scrape(source).sum("conveyor_worker_up") == 3


# -- counters ----------------------------------------------------------------------------------------------


def test_a_stopwatch_that_seems_to_step_back_is_shown_as_it_was() -> None:
    def at(seconds: float) -> FakeRun:
        return FakeRun(
            make_run(make_slot("producer-1", blocked_seconds=seconds), make_slot("consumer-1", busy_seconds=seconds))
        )

    run = at(2.0)
    source = exporter(run)
    first = scrape(source)
    run.now = at(1.9999).now
    second = scrape(source)
    assert_nothing_fell(first, second)
    run.now = at(2.5).now
    assert scrape(source).value("conveyor_worker_busy_seconds_total", worker="consumer-1") == 2.5


def test_scrapes_at_once_take_turns_and_each_sees_counters_rise() -> None:
    class Rising(FakeRun):
        """Puts one more task each time it is looked at."""

        def __init__(self) -> None:
            self.looks = 0

        def statistics(self) -> Any:
            self.looks += 1
            busy = self.looks * 0.1 + (self.looks % 2)  # goes up and down
            pid = os.getpid()
            return make_run(
                make_slot("producer-1", pid=pid, produced=self.looks),
                make_slot("consumer-1", pid=pid, started_at=float(self.looks // 3), busy_seconds=busy),
            )

    source = exporter(Rising())
    failures: list[BaseException] = []

    def scraper() -> None:
        try:
            before = scrape(source)
            for _ in range(25):
                after = scrape(source)
                assert_nothing_fell(before, after)
                before = after
        except BaseException as error:  # shown by the test's own thread
            failures.append(error)

    run_at_once([scraper] * 4)
    assert not failures
