"""What went wrong, and whether the watching itself works.

Called by `overview.board`.
"""

from __future__ import annotations

from looks import (
    ENTERING,
    FAILED,
    INSIDE,
    Json,
    fixed,
    marked,
    override,
    palette,
    recolour,
    words,
)
from panels import Head, Query, counts, graph, overridden, table


def what_went_wrong() -> list[Json]:
    failures = "sum by (reason) (increase(conveyor_tasks_failed_total{@queue}[$__rate_interval]))"
    restarts = "sum by (reason) (increase(conveyor_worker_restarts_total{@all}[$__rate_interval]))"
    return [
        counts(
            Head(27, "Failures by reason", "Failed tasks in each interval, by reason.", (0, 79, 8, 8)),
            Query(failures, "{{reason}}"),
        ),
        overridden(
            counts(
                Head(28, "Restarts by reason", "Processes replaced in an interval, and why.", (8, 79, 8, 8)),
                Query(restarts, "{{reason}}"),
            ),
            recolour("signal", FAILED),
            recolour("exit", "orange"),
            recolour("heartbeat", "purple"),
            recolour("recycle", "blue"),
        ),
        alerts(),
    ]


def alerts() -> Json:
    columns = {
        "alertstate": "State",
        "severity": "Severity",
        "alertname": "Alert",
        "worker": "Worker",
        "queue": "Queue",
    }
    drawn = table(
        Head(29, "Alerts", "Alerts pending or firing now. Empty is good.", (16, 79, 8, 8)),
        'ALERTS{alertname=~"Conveyor.+|Prometheus.+"}',
        columns=columns,
        dropped=["Time", "Value", "__name__", "instance", "job", "quantile", "role"],
        sort_by="State",
        noValue="No alerts",
    )
    stages = {"firing": ("firing", "red"), "pending": ("pending", "yellow")}
    severities = {
        "critical": ("critical", "red"),
        "warning": ("warning", "orange"),
        "info": ("info", "blue"),
    }
    return overridden(
        drawn,
        override("State", {"custom.displayMode": "color-background", "mappings": words(stages)}),
        override("Severity", {"custom.displayMode": "color-text", "mappings": words(severities)}),
    )


def exporter() -> list[Json]:
    collection = graph(
        Head(32, "Collection", "Time and errors of reading the shared state.", (12, 88, 6, 7)),
        Query("max(conveyor_collect_duration_seconds{@all})", "duration"),
        Query("sum(rate(conveyor_collect_errors_total{@all}[$__rate_interval]))", "errors/s"),
        unit="s",
        look=fixed(ENTERING),
    )
    errors = override("errors/s", {**fixed(FAILED), "unit": "ops", "custom.axisPlacement": "right"})
    # Prometheus exports the same name; the pipeline is the one that has a build of Conveyor.
    memory = "process_resident_memory_bytes{@all} and on (job, instance) conveyor_build_info{@all}"
    return [
        graph(
            Head(30, "Scrape duration", "Time Prometheus needs to read the endpoint.", (0, 88, 6, 7)),
            Query("scrape_duration_seconds{@all}", "{{instance}}"),
            unit="s",
            look=marked("scrape_seconds", palette()),
            limits_as="line",
        ),
        graph(
            Head(
                31,
                "Series scraped",
                "Samples in one scrape. A rising line is a cardinality leak.",
                (6, 88, 6, 7),
            ),
            Query("scrape_samples_scraped{@all}", "{{instance}}"),
            unit="short",
            look=fixed(ENTERING),
        ),
        overridden(collection, errors),
        graph(
            Head(
                33,
                "Supervisor memory",
                "Resident memory of the supervisor process, which also holds the exporter.",
                (18, 88, 6, 7),
            ),
            Query(memory, "resident"),
            unit="bytes",
            look=fixed(INSIDE),
        ),
    ]
