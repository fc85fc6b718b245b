"""A Prometheus of the test's own, with the committed rules; its program is in Debian's package `prometheus`."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from support.boards import ROOT
from support.waiting import wait_for

RULES = ROOT / "monitoring" / "prometheus" / "rules" / "*.yml"


class Prometheus:
    """Its HTTP API."""

    def __init__(self, address: str) -> None:
        self._address = address

    def ask(self, path: str, **parameters: object) -> Any:
        """Return the data of one call."""
        url = f"http://{self._address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=30) as response:
            return json.load(response)["data"]

    def is_ready(self) -> bool:
        try:
            self.ask("query", query="1")
        except urllib.error.HTTPError:
            return False
        return True

    def at(self, expression: str, time: float) -> list[tuple[dict[str, str], float]]:
        """Return the labels and the value of each series at a moment."""
        result = self.ask("query", query=expression, time=time)["result"]
        return [(series["metric"], float(series["value"][1])) for series in result]

    def between(
        self, expression: str, start: float, end: float, step: float
    ) -> list[tuple[dict[str, str], list[tuple[float, float]]]]:
        """Return the labels and the points of each series, aligned to the step, as Grafana has them."""
        start, end = start // step * step, end // step * step
        result = self.ask("query_range", query=expression, start=start, end=end, step=step)["result"]
        return [(one["metric"], [(time, float(value)) for time, value in one["values"]]) for one in result]

    def graph(self, expression: str) -> list[Any]:
        """Return the series that a graph of the last two minutes would draw."""
        now = time.time()
        drawn: list[Any] = self.ask("query_range", query=expression, start=now - 120, end=now, step=5)["result"]
        return drawn


@contextlib.contextmanager
def prometheus_of(targets: Sequence[str], folder: Path) -> Iterator[Prometheus]:
    """Run a server that scrapes these targets each second as the job conveyor, and keeps its data in the folder."""
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES)],
        "scrape_configs": [{"job_name": "conveyor", "static_configs": [{"targets": list(targets)}]}],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config), encoding="utf-8")
    log = folder / "log"
    program = [
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        "--web.listen-address=127.0.0.1:0",
    ]
    with log.open("w") as output, subprocess.Popen(program, stdout=output, stderr=output) as server:
        try:
            served = Prometheus(wait_for("the server's address", lambda: _address(log.read_text())))
            wait_for("the server to have read its data", served.is_ready)
            yield served
        finally:
            server.kill()


def _address(log: str) -> str:
    found = re.search(r'Listening on" address=(127\.0\.0\.1:[1-9]\d*)', log)
    if found is None:
        raise LookupError(log[-2000:])
    return found[1]
