"""What a scrape shows, as Prometheus would read it."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.request import urlopen

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from conveyor.snapshot import WorkerState

Labels = frozenset[tuple[str, str]]


class Scrape:
    """One scrape, parsed: its families by name, its values by name and labels."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self.families = {family.name: family for family in families}
        self.values: dict[tuple[str, Labels], float] = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def find(self, name: str, **labels: str) -> dict[Labels, float]:
        """Return every series of this name with (at least) these labels."""
        wanted = set(labels.items())
        return {found: value for (n, found), value in self.values.items() if n == name and wanted <= found}

    def sum(self, name: str, **labels: str) -> float:
        return sum(self.find(name, **labels).values())

    def value(self, name: str, **labels: str) -> float:
        """Return the one series of this name with these labels."""
        (value,) = self.find(name, **labels).values()
        return value

    def workers(self, role: str) -> list[str]:
        return [dict(labels)["worker"] for labels in self.find("conveyor_worker_up", role=role)]

    def cumulative(self) -> dict[tuple[str, Labels], float]:
        """Return every series that must never fall: counters, and all of a histogram."""
        names = {
            sample.name
            for family in self.families.values()
            if family.type in ("counter", "histogram")
            for sample in family.samples
        }
        return {key: value for key, value in self.values.items() if key[0] in names}


def parse(text: str) -> Scrape:
    """Read the Prometheus text format."""
    return Scrape(text_string_to_metric_families(text))


def scrape(url: str) -> Scrape:
    """Get and parse a page of metrics."""
    with urlopen(url, timeout=10) as response:
        return parse(response.read().decode())


def assert_nothing_fell(before: Scrape, after: Scrape) -> None:
    """Say which counter fell, or is gone, between two scrapes."""
    now = after.cumulative()
    fallen = {key: (value, now.get(key)) for key, value in before.cumulative().items() if now.get(key, -1) < value}
    assert not fallen


def assert_consistent(seen: Scrape) -> None:
    """Assert what must hold within any one scrape."""
    unfinished = seen.sum("conveyor_queue_unfinished_tasks")
    assert seen.sum("conveyor_tasks_produced_total") - seen.sum("conveyor_tasks_processed_total") == unfinished
    parts = ("conveyor_queue_size", "conveyor_tasks_in_progress", "conveyor_tasks_abandoned_total")
    assert unfinished == sum(seen.sum(part) for part in parts)
    count = seen.value("conveyor_task_processing_duration_seconds_count")
    assert count == seen.sum("conveyor_tasks_processed_total")
    for worker in seen.workers("consumer"):
        failed = seen.sum("conveyor_tasks_failed_total", worker=worker)
        assert failed <= seen.value("conveyor_tasks_processed_total", worker=worker)
    for labels, up in seen.find("conveyor_worker_up").items():
        states = seen.find("conveyor_worker_state", **dict(labels))
        assert sorted(states.values()) == [0.0] * (len(WorkerState) - 1) + [up]


def assert_nothing_is_lost(seen: Scrape) -> None:
    """Assert what must hold within any one scrape of a queue that gives tasks back."""
    unfinished = seen.sum("conveyor_queue_unfinished_tasks")
    processed = seen.sum("conveyor_tasks_processed_total")
    over = processed + seen.sum("conveyor_tasks_dead_lettered_total")
    assert seen.sum("conveyor_tasks_produced_total") - over == unfinished
    assert unfinished == seen.sum("conveyor_queue_size") + seen.sum("conveyor_tasks_in_progress")
    assert seen.sum("conveyor_tasks_lost_total") == 0
    assert seen.value("conveyor_task_processing_duration_seconds_count") == processed
    # Not more than one each. A worker counts as up no longer than it lives, and its task as in hand until it is buried.
    assert set(seen.find("conveyor_tasks_in_progress").values()) <= {0.0, 1.0}
