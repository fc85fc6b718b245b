"""What a scrape takes as Prometheus sees it: a live run of many consumers, and a client in a process of its own.

Each state of the run is a run of its own. The client asks as Prometheus 3 does, one scrape after the other, on one
connection if the server keeps it. `nothing` is `/healthz`: what HTTP alone takes on this machine at that moment.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import multiprocessing
import os
import platform
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import conveyor
from conveyor import Pipeline, Producer
from conveyor.exporter import serving
from conveyor.loop import Loop
from conveyor.settings import Address, Settings
from conveyor.supervisor import Supervisor
from support.scrapes import assert_consistent, scrape
from support.waiting import wait_for

HEADERS = {
    "Accept": "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.3",
    "Accept-Encoding": "gzip",
}
PAUSE_SECONDS = 0.002  # between two scrapes, so that they don't make the load themselves; arbitrary
WARM_UP = 20


def make(number: float) -> Iterator[int]:
    """Make this many tasks, then wait for ever."""
    made = 0
    while made < number:
        yield made
        made += 1
    while True:
        time.sleep(60)
        yield made


def wait_a_little(task: int) -> None:
    time.sleep(0.02)


def compute(task: int) -> None:
    until = time.thread_time() + 0.002
    while time.thread_time() < until:
        pass


STATES: dict[str, tuple[float, Callable[[int], None]]] = {
    "idle": (0, wait_a_little),
    "busy": (float("inf"), wait_a_little),  # as with network calls: workers are busy, processors not all the time
    "saturated": (float("inf"), compute),  # every worker wants a processor all the time, and so does a scrape
}


def ask(url: str, path: str, number: int) -> list[float]:
    """Return what each of so many requests took, in seconds."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    took = []
    for _ in range(number):
        time.sleep(PAUSE_SECONDS)
        began = time.perf_counter()
        connection.request("GET", path, headers=HEADERS)
        response = connection.getresponse()
        response.read()
        took.append(time.perf_counter() - began)
        assert response.status == 200, response.status
    connection.close()
    return took


class Live:
    """A pipeline in a thread of this process, with its metrics."""

    def __init__(self, state: str, consumers: int) -> None:
        number, consumer = STATES[state]
        self.url = ""
        self.supervisor: Supervisor | None = None
        self._pipeline = Pipeline(
            producers=[Producer(make, number)], consumer=consumer, consumers=consumers, maxsize=1000, name="scraped"
        )
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        self._pipeline.run_with(Settings(drain_timeout_seconds=0.5), [self._attach])

    @contextlib.contextmanager
    def _attach(self, supervisor: Supervisor, loop: Loop) -> Iterator[None]:
        with serving(Address("127.0.0.1", 0))(supervisor, loop) as url:
            self.supervisor, self.url = supervisor, url
            yield

    def __enter__(self) -> str:
        """Return the URL, once every worker has started."""
        self._thread.start()
        wait_for("the URL", lambda: self.url, 30)

        def ready() -> bool:
            seen = scrape(self.url)
            return not seen.sum("conveyor_worker_state", state="starting") and seen.sum("conveyor_worker_up") == (
                seen.sum("conveyor_workers_desired")
            )

        wait_for("all workers", ready, 120)
        return self.url

    def __exit__(self, *error: object) -> None:
        if self.supervisor is not None:
            self.supervisor.request_stop()
            self.supervisor.request_stop()
        self._thread.join(60)


def percentiles(seconds: list[float]) -> str:
    cuts = statistics.quantiles(seconds, n=1000, method="inclusive")
    p50, p99 = cuts[499], cuts[989]
    return f"p50 {p50 * 1e3:6.2f}   p99 {p99 * 1e3:6.2f}   max {max(seconds) * 1e3:6.2f} ms"


def measure(state: str, consumers: int, scrapes: int) -> Iterator[str]:
    """Return two lines of the table: a scrape, and an answer that takes no work."""
    context = multiprocessing.get_context("spawn")
    with Live(state, consumers) as url, context.Pool(1) as client:
        for path, name in (("/metrics", state), ("/healthz", "  nothing")):
            client.apply(ask, (url, path, WARM_UP))
            yield f"{name:10} {percentiles(client.apply(ask, (url, path, scrapes)))}"
        seen = scrape(url)
        assert_consistent(seen)
        assert not seen.sum("conveyor_collect_errors_total")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--consumers", type=int, default=64)
    parser.add_argument("--scrapes", type=int, default=2000)
    parser.add_argument("--states", nargs="+", choices=STATES, default=list(STATES))
    given = parser.parse_args()
    where = f"Python {platform.python_version()}, {os.cpu_count()} CPUs, {platform.machine()}"
    print(f"conveyor {conveyor.__version__}, {where}")
    print(f"{given.consumers} consumers and a producer; {given.scrapes} scrapes each")
    for state in given.states:
        for line in measure(state, given.consumers, given.scrapes):
            print(line, flush=True)


if __name__ == "__main__":
    main()
