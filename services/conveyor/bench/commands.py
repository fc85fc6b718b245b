"""What users wait for besides their tasks: an import, a command, a scrape."""

from __future__ import annotations

import contextlib
import http.client
import math
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import conveyor
from conveyor.bench import figures, sessions, watching
from conveyor.bench.jobs import Job
from conveyor.bench.ours import QUEUE
from conveyor.bench.watching import Measurement, Status

_READY_SECONDS = 60.0
_SCRAPE_PAUSE_SECONDS = 0.005  # arbitrary; Prometheus waits for seconds


def importing(rounds: int) -> Measurement:
    """Measure fresh processes that import the package, and those that import nothing, in turn."""
    bare, whole = [], []
    for _ in range(rounds):
        bare.append(_seconds(lambda: _python("pass")))
        whole.append(_seconds(lambda: _python(f"import {conveyor.__name__}")))
    python = figures.median(bare)
    found = {"import_seconds": figures.median(whole) - python, "python_seconds": python}
    return Measurement(status=Status.DONE, figures=found)


def _python(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True, stdin=subprocess.DEVNULL)


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def first_task() -> Measurement:
    """Measure `conveyor run` from the start of its process to the start of its first task."""
    target = "conveyor.bench.workload:one_nap"
    command = [sys.executable, "-m", "conveyor", "run", target, "--queue", QUEUE, "--metrics", "127.0.0.1:0"]
    began_ns = time.monotonic_ns()
    with watching.started_command(command) as trial:
        with contextlib.suppress(subprocess.TimeoutExpired):  # then no record may be there, or the code is None
            trial.process.wait(_READY_SECONDS)
        records = trial.records.read()
    if not records:
        return Measurement(status=Status.FAILED, note=f"no task was started; exit code {trial.process.returncode}")
    return Measurement(status=Status.DONE, figures={"first_task_seconds": (records[0].ns - began_ns) / 1e9})


def scrape(contestant: str, job: Job, scrapes: int) -> Measurement:
    """Measure GET /metrics of a run whose workers wait."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with watching.started(contestant, replace(job, metrics=f"127.0.0.1:{port}")) as trial:
        until = time.monotonic() + _READY_SECONDS
        # Each consumer has the same chance of a task: that all workers are there is seen by their number.
        while len(sessions.pids(trial.session)) < job.consumers + job.producers or not _is_ready(port):
            if time.monotonic() > until or trial.process.poll() is not None:
                return Measurement(status=Status.FAILED, note="its workers did not get ready")
            time.sleep(0.1)  # looking disturbs them
        time.sleep(1.0)  # what follows a start: nothing tells of its end
        taken = []
        for _ in range(scrapes):
            taken.append(_seconds(lambda: _get(port, "/metrics")))
            time.sleep(_SCRAPE_PAUSE_SECONDS)
    found = {"p50_seconds": figures.percentile(taken, 0.5), "p99_seconds": figures.percentile(taken, 0.99)}
    return Measurement(status=Status.DONE, figures={**found, "slowest_seconds": max(taken, default=math.nan)})


def _is_ready(port: int) -> bool:
    with contextlib.suppress(OSError, http.client.HTTPException):
        return _get(port, "/readyz") == 200
    return False


def _get(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()
