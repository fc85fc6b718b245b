"""The metrics of a real run with real processes, as Prometheus would see them, over the death of a worker too."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from conveyor import ConfigurationError, Pipeline, Producer, Report
from conveyor.exporter import serving
from conveyor.loop import Loop
from conveyor.settings import Address, Settings
from conveyor.supervisor import Supervisor
from support.fakes import FakeLoop, FakeRun, make_run
from support.scrapes import Scrape, assert_consistent, assert_nothing_fell, scrape
from support.waiting import wait_for
from support.work import Gated, count_forever


class LiveRun:
    """A pipeline that runs in a thread of the test, and all its scrapes, each checked against the one before."""

    def __init__(self, gate: Path, queue: str) -> None:
        self.url = ""
        self.supervisor: Supervisor | None = None
        self.report: Report | None = None
        self._gate = gate
        self._pipeline = Pipeline(
            producers=[Producer(count_forever)],
            consumer=Gated(gate),
            consumers=2,
            maxsize=20,
            queue=queue,
            name="gated",
        )
        self._last: Scrape | None = None
        self.violations: list[AssertionError] = []
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        settings = Settings(drain_timeout_seconds=20.0)
        self.report = self._pipeline.run_with(settings, [self._attach])

    @contextlib.contextmanager
    def _attach(self, supervisor: Supervisor, loop: Loop) -> Iterator[None]:
        with serving(Address("127.0.0.1", 0))(supervisor, loop) as url:
            self.supervisor, self.url = supervisor, url
            yield

    def scrape(self) -> Scrape:
        """Return a new scrape; every one must hold together, and none may show less than the one before."""
        before, self._last = self._last, scrape(self.url)
        try:
            assert_consistent(self._last)
            if before is not None:
                assert_nothing_fell(before, self._last)
        except AssertionError as error:  # kept: who waits for a scrape takes an exception for "not yet"
            self.violations.append(error)
        return self._last

    def wait_until(self, what: str, holds: Callable[[Scrape], bool]) -> Scrape:
        """Scrape until one of them shows it; return that."""

        def look() -> Scrape | None:
            seen = self.scrape()
            return seen if holds(seen) else None

        found = wait_for(what, look)
        assert found is not None
        return found

    def wait_for_state(self, worker: str, state: str) -> Scrape:
        return self.wait_until(
            f"{worker} to be {state}",
            lambda seen: seen.value("conveyor_worker_state", worker=worker, state=state) == 1,
        )

    def open_gate(self) -> None:
        self._gate.touch()


@pytest.fixture(params=["joinable", "sentinel"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LiveRun]:
    """Two consumers that each hold a task at a gate, and a producer that the full queue blocks."""
    run = LiveRun(tmp_path / "gate", request.param)
    run.thread.start()
    try:
        wait_for("the URL", lambda: run.url)
        yield run
    finally:
        run.open_gate()
        if run.supervisor is not None:
            run.supervisor.request_stop()
        run.thread.join(60)
        assert not run.thread.is_alive()
        assert not run.violations


def get(run: LiveRun, path: str) -> str:
    with urlopen(run.url.replace("/metrics", path), timeout=10) as response:
        body: bytes = response.read()
        return body.decode()


def settled(run: LiveRun) -> Scrape:
    """Return a scrape of the moment when both consumers hold a task and the queue is full."""
    for worker in ("consumer-1", "consumer-2"):
        run.wait_for_state(worker, "busy")
    return run.wait_for_state("producer-1", "blocked")


def test_a_live_run_shows_every_process_and_the_queue(run: LiveRun) -> None:
    seen = settled(run)
    assert seen.value("conveyor_queue_capacity") == 20
    assert seen.value("conveyor_queue_size") == 20
    assert seen.value("conveyor_queue_unfinished_tasks") == 22
    assert seen.sum("conveyor_tasks_in_progress") == 2
    assert seen.sum("conveyor_worker_up") == seen.sum("conveyor_workers_desired") == 3
    pids = {int(pid) for pid in seen.find("conveyor_worker_pid").values()}
    assert len(pids) == 3
    assert all(Path(f"/proc/{pid}").exists() for pid in pids)
    assert min(seen.find("conveyor_worker_resident_memory_bytes").values()) > 1e6
    assert len(seen.find("conveyor_worker_cpu_seconds_total")) == 3
    assert seen.sum("conveyor_collect_errors_total") == 0
    assert get(run, "/healthz") == get(run, "/readyz") == "ok\n"
    assert "gated" in get(run, "/")


def test_a_killed_consumer_shows_and_no_counter_falls(run: LiveRun) -> None:
    before = settled(run)
    pid = before.value("conveyor_worker_pid", worker="consumer-1")
    others = {w: before.value("conveyor_worker_pid", worker=w) for w in ("consumer-2", "producer-1")}
    os.kill(int(pid), signal.SIGKILL)  # it is in a task, where it holds no lock of the queue

    run.wait_until(
        "the death to show",
        lambda seen: (
            seen.value("conveyor_worker_up", worker="consumer-1") == 0
            or seen.value("conveyor_worker_pid", worker="consumer-1") != pid
        ),
    )
    after = run.wait_until("a restart", lambda seen: seen.sum("conveyor_worker_restarts_total") > 0)
    assert after.value("conveyor_worker_restarts_total", worker="consumer-1", reason="signal") == 1
    assert after.sum("conveyor_worker_restarts_total") == 1
    assert after.value("conveyor_worker_last_exit_code", worker="consumer-1") == -signal.SIGKILL
    assert after.value("conveyor_tasks_abandoned_total", worker="consumer-1") == 1
    assert after.sum("conveyor_tasks_abandoned_total") == 1

    again = run.wait_for_state("consumer-1", "replaced")
    assert again.value("conveyor_worker_pid", worker="consumer-1") != pid
    assert {w: again.value("conveyor_worker_pid", worker=w) for w in others} == others  # nobody else died


def test_the_metrics_end_as_the_report_says(run: LiveRun) -> None:
    settled(run)
    run.open_gate()
    seen = run.wait_until("some tasks to fail", lambda seen: seen.sum("conveyor_tasks_failed_total") > 5)
    assert run.supervisor is not None
    run.supervisor.request_stop()
    run.thread.join(60)
    assert run.report is not None
    assert run.report.produced >= seen.sum("conveyor_tasks_produced_total")
    assert run.report.processed >= seen.sum("conveyor_tasks_processed_total")
    assert run.report.failed == sum(task % 3 == 0 for task in range(run.report.produced))
    with pytest.raises(OSError, match="refused"):
        urlopen(run.url, timeout=10)


def test_promtool_finds_nothing_to_say(run: LiveRun) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    settled(run)
    text = get(run, "/metrics")
    checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, timeout=30)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_a_taken_port_stops_a_run_before_any_worker_starts() -> None:
    with serving(Address("127.0.0.1", 0))(FakeRun(make_run()), FakeLoop()) as url:
        address = url.removeprefix("http://").removesuffix("/metrics")
        pipeline = Pipeline(producers=[Producer(count_forever)], consumer=print, consumers=1)
        with pytest.raises(ConfigurationError, match=r"Address already in use.*--metrics"):
            pipeline.run(metrics=address)
