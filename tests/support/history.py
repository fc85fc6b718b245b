"""What a Prometheus has scraped in hours that never were: written to its disk by promtool, so that no test waits."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from conveyor.exporter.catalogue import Family, Kind
from conveyor.exporter.collector import RunCollector
from conveyor.snapshot import RunStatistics
from support.fakes import FakeRun

SCRAPE_SECONDS = 5  # as monitoring/prometheus/prometheus.yml has it


class History:
    """Samples of the past."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def scrape(self, run: RunStatistics, instance: str, times: Iterable[float], only: str = "") -> None:
        """Have a run scraped at these times, at all of which it looks the same; `only` is for the names to keep."""
        families = RunCollector(FakeRun(run)).collect()
        seen = dict(_samples([family for family in families if re.search(only, family.metric.name)], instance))
        for at in times:
            self._lines += [f"{series} {value} {at:.3f}" for series, value in seen.items()]

    def alert(self, name: str, severity: str, times: Iterable[float], **labels: str) -> None:
        """Have an alert fire at these times."""
        given = {"alertname": name, "alertstate": "firing", "severity": severity, **labels}
        self._lines += [f"ALERTS{_labels(given)} 1 {at:.3f}" for at in times]

    def write(self, folder: Path) -> None:
        """Write it for a server that keeps its data in this folder."""
        file = folder.with_name("history.txt")
        file.write_text("\n".join([*self._lines, "# EOF\n"]), encoding="utf-8")
        program = ["promtool", "tsdb", "create-blocks-from", "openmetrics", str(file), str(folder)]
        done = subprocess.run(program, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr


def _samples(families: Iterable[Family], instance: str) -> Iterator[tuple[str, float]]:
    for family in families:
        for labels, value in zip(family.series, family.values, strict=True):
            if value is not None:
                yield _series(family, labels, instance), float(value)


def _series(family: Family, values: tuple[str, ...], instance: str) -> str:
    metric, name = family.metric, family.metric.name
    labels = {"job": "conveyor", "instance": instance, **dict(zip(metric.labels, values, strict=False))}
    if metric.kind is Kind.HISTOGRAM:
        line = values[-1]
        name = f"{name}_{line}" if line in ("count", "sum") else f"{name}_bucket"
        labels |= {} if line in ("count", "sum") else {"le": line}
    return name + _labels(labels)


def _labels(labels: Mapping[str, str]) -> str:
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "}"
