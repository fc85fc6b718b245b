"""Collects a run at each scrape, and keeps going when a part of it cannot be read.

Called by the HTTP server's threads, through `pages`. Nothing is counted here: the counts come from the
ledger by way of `statistics()`, so they outlive every worker. What this module remembers is what it has shown,
because a clock that is read from outside may seem to step back, and a counter must not.
"""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections.abc import Callable
from typing import Protocol, TypeVar

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from conveyor.exporter import catalogue
from conveyor.exporter.catalogue import Family, Source
from conveyor.exporter.families import death_families, queue_families, run_families, task_families, worker_families
from conveyor.exporter.vitals import Vitals, VitalsReader
from conveyor.logs import fields
from conveyor.snapshot import RunStatistics, SlotStatistics

log = logging.getLogger(__name__)

T = TypeVar("T")

_SOURCES = tuple((source.value,) for source in Source)


class Run(Protocol):
    """What is shown: a supervisor, or in tests something that looks like one."""

    def statistics(self) -> RunStatistics:
        """Return the run at this moment; called from any thread."""


def own_process() -> CollectorRegistry:
    """Return what the client library shows of the process it is in: the supervisor's."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


class RunCollector:
    """Reads a run and its processes. Safe for several scrapes at once: they take turns."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._lock = threading.Lock()  # guards all below, and the order: who reads later must not show less
        self._vitals = VitalsReader()
        self._shown: dict[tuple[str, str], float] = {}
        self._errors = dict.fromkeys(Source, 0)
        self._reported: set[tuple[Source, type[Exception]]] = set()

    def collect(self) -> list[Family]:
        """Return every family of the catalogue, but for those of a source that cannot be read."""
        with self._lock:
            began = time.perf_counter()
            families = self._families()
            families.append(catalogue.COLLECT_ERRORS.family(_SOURCES, list(self._errors.values())))
            families.append(catalogue.COLLECT_DURATION.family(((),), [time.perf_counter() - began]))
            return families

    def _families(self) -> list[Family]:
        run = self._guard(Source.SLOTS, self._run.statistics)
        if run is None:
            return []
        queue = self._guard(Source.QUEUE, lambda: queue_families(run.queue))
        slots = self._guard(Source.SLOTS, lambda: self._slot_families(run))
        return [*(queue or ()), *(slots or ())]

    def _slot_families(self, run: RunStatistics) -> list[Family]:
        workers = [(slot, self._look_at(slot)) for slot in run.slots]
        return [
            *task_families(run, self._ratchet),
            *worker_families(workers, self._ratchet),
            *death_families(run),
            *run_families(run),
        ]

    def _look_at(self, slot: SlotStatistics) -> Vitals:
        return self._guard(Source.PROC, lambda: self._vitals.read(slot)) or self._vitals.recall(slot)

    def _ratchet(self, watch: str, worker: str, seconds: float) -> float:
        """Return a stopwatch's value, or what was shown before if that is more.

        A worker stops its watch at a time that it took a little before we read it as running.
        """
        key = watch, worker
        self._shown[key] = seconds = max(seconds, self._shown.get(key, 0.0))
        return seconds

    def _guard(self, source: Source, read: Callable[[], T]) -> T | None:
        """Return what `read` returns, or None if it cannot; that is counted, and each kind is logged once."""
        try:
            return read()
        except Exception as error:  # whatever breaks: a part of the metrics is better than none
            self._errors[source] += 1
            if (source, type(error)) not in self._reported:
                self._reported.add((source, type(error)))
                about = fields(source=source, error=repr(error), trace=traceback.format_exc())
                log.warning("metrics are incomplete", extra=about)
            return None
