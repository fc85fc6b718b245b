"""What went wrong, and whether the watching itself works.

Called by `overview.board`.
"""

from __future__ import annotations

from looks import (
    BOUND,
    ENTERING,
    FAILED,
    Json,
    fixed,
    marked,
    override,
    palette,
    recolour,
    words,
)
from panels import Head, Query, counts, graph, overridden, table
from promql import counted

# The number of a severity is its place here, so that the worst can be sorted to the top.
SEVERITIES = (("none", BOUND), ("info", "blue"), ("warning", "orange"), ("critical", "red"))


def failures_by_reason(macro: str, place: tuple[int, int, int, int], number: int, about: str) -> Json:
    failures = counted(f"conveyor_tasks_failed_total{{{macro}}}", "reason")
    return overridden(
        counts(Head(number, "Failures by reason", about, place), Query(failures, "{{reason}}")),
        recolour("exception", FAILED),
        recolour("timeout", "purple"),
        recolour("rejected", "orange"),
        recolour("other", BOUND),
    )


def restarts_by_reason(macro: str, place: tuple[int, int, int, int], number: int, about: str) -> Json:
    restarts = counted(f"conveyor_worker_restarts_total{{{macro}}}", "reason")
    return overridden(
        counts(Head(number, "Restarts by reason", about, place), Query(restarts, "{{reason}}")),
        recolour("signal", FAILED),
        recolour("exit", "orange"),
        recolour("heartbeat", "purple"),
        recolour("recycle", "blue"),
    )


def what_went_wrong(y: int) -> list[Json]:
    return [
        failures_by_reason("@queue", (0, y, 6, 8), 27, "Failed tasks in each interval, by reason."),
        restarts_by_reason("@all", (6, y, 6, 8), 28, "Processes replaced in an interval, and why."),
        alerts(y),
    ]


def alerts(y: int) -> Json:
    columns = {
        "alertstate": "State",
        "Value": "Severity",
        "alertname": "Alert",
        "worker": "Worker",
        "queue": "Queue",
        "instance": "Instance",
    }
    chosen = 'ALERTS{alertname=~"Conveyor.+",@alerts,severity="%s"} or ALERTS{alertname=~"Prometheus.+",severity="%s"}'
    ranked = [
        f"{rank} * ({chosen % (name, name)})" for rank, (name, _) in reversed(list(enumerate(SEVERITIES))) if rank > 0
    ]
    about = "Alerts pending or firing now, of what is chosen above. Empty is good, unless the verdict is UNKNOWN."
    drawn = table(
        Head(29, "Alerts", about, (12, y, 12, 8)),
        "\nor ".join(ranked),
        columns=columns,
        dropped=["Time", "severity", "job", "quantile", "role"],
        falling_by="Severity",
        no_rows="No alerts",
    )
    stages = {"firing": ("firing", "red"), "pending": ("pending", "yellow")}
    return overridden(
        drawn,
        override("State", {"custom.displayMode": "color-background", "custom.width": 80, "mappings": words(stages)}),
        override(
            "Severity",
            {
                "custom.align": "left",
                "custom.displayMode": "color-text",
                "custom.width": 90,
                "mappings": words(dict(enumerate(SEVERITIES))),
            },
        ),
        override("Alert", {"custom.minWidth": 240}),
    )


def exporter(y: int) -> list[Json]:
    collection = graph(
        Head(32, "Collection", "Time and errors of reading the shared state.", (12, y, 6, 7)),
        Query("max(conveyor_collect_duration_seconds{@all})", "duration"),
        Query("sum(rate(conveyor_collect_errors_total{@all}[$__rate_interval]))", "errors/s"),
        unit="s",
        look=fixed(ENTERING),
    )
    errors = override(
        "errors/s",
        {**fixed(FAILED), "unit": "count:errors/s", "custom.axisPlacement": "right", "custom.axisSoftMax": 1},
    )
    # Prometheus exports the same name; the pipeline is the one that has a build of Conveyor.
    memory = "process_resident_memory_bytes{@all} and on (job, instance) conveyor_build_info{@all}"
    return [
        graph(
            Head(30, "Scrape duration", "Time Prometheus needs to read the endpoint.", (0, y, 6, 7)),
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
                (6, y, 6, 7),
            ),
            Query("scrape_samples_scraped{@all}", "{{instance}}"),
            unit="short",
        ),
        overridden(collection, errors),
        graph(
            Head(
                33,
                "Supervisor memory",
                "Resident memory of the supervisor process, which also holds the exporter.",
                (18, y, 6, 7),
            ),
            Query(memory, "{{instance}}"),
            unit="bytes",
        ),
    ]
