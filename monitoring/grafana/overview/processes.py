"""What the worker processes do: lanes, heartbeats, a line for each, and how busy they are.

Called by `overview.board`.
"""

from __future__ import annotations

from looks import (
    ENTERING,
    Json,
    limited,
    override,
    states,
    words,
)
from panels import Head, Query, bars, lanes, overridden, table
from promql import state_of_workers

WORKER_BOARD = (
    "/d/conveyor-worker?${__url_time_range}&${datasource:queryparam}&${job:queryparam}&${instance:queryparam}"
    "&var-worker=${__data.fields.Worker}"
)


def processes() -> list[Json]:
    heartbeat = "max by (worker) (conveyor_worker_last_heartbeat_timestamp_seconds{@all})"
    busy = 'conveyor_worker_busy_seconds_total{@all,role="consumer"}'
    return [
        lanes(
            Head(
                15,
                "What every process is doing",
                "One lane per worker. Red is a dead process. Busy and idle are sampled at each scrape; "
                "deaths are exact to one scrape.",
                (0, 8, 16, 9),
            ),
            Query(state_of_workers("@all"), "{{worker}}"),
            states(),
        ),
        bars(
            Head(
                16,
                "Time since last heartbeat",
                "Seconds since each worker last reported progress. Red with a live process means hung.",
                (16, 8, 8, 9),
            ),
            Query(f"clamp_min(time() - {heartbeat}, 0)", "{{worker}}", instant=True),
            unit="s",
            look=limited("heartbeat_age_seconds"),
            maximum=60,
            mode="lcd",
        ),
        workers(),
        bars(
            Head(
                18,
                "Share of time busy",
                "Part of the last moments each consumer spent inside a task. "
                "All near 100 %: add consumers. One alone: look at that process.",
                (16, 17, 8, 9),
            ),
            Query(f"sum by (worker) (rate({busy}[$__rate_interval]))", "{{worker}}", instant=True),
            unit="percentunit",
            look=limited("consumer_busy_ratio", ENTERING),
            maximum=1,
            mode="gradient",
        ),
    ]


def workers() -> Json:
    # A producer has no processed counter and a consumer no produced one, so `or` picks the one there is.
    drawn = table(
        Head(17, "Workers", "One line per worker. Click a name to open its page.", (0, 17, 16, 9)),
        "max by (worker) (conveyor_worker_up{@all})",
        "sum by (worker) (rate(conveyor_tasks_processed_total{@queue}[$__rate_interval])) "
        "or sum by (worker) (rate(conveyor_tasks_produced_total{@queue}[$__rate_interval]))",
        "sum by (worker) (rate(conveyor_worker_busy_seconds_total{@all}[$__rate_interval]))",
        "max by (worker) (conveyor_worker_resident_memory_bytes{@all})",
        "sum by (worker) (rate(conveyor_worker_cpu_seconds_total{@all}[$__rate_interval]))",
        'round(sum by (worker) (increase(conveyor_worker_restarts_total{@all,reason!="recycle"}[1h])))',
        "time() - max by (worker) (conveyor_worker_start_time_seconds{@all})",
        columns={
            "worker": "Worker",
            "Value #A": "State",
            "Value #B": "Tasks/s",
            "Value #C": "Busy",
            "Value #D": "Memory",
            "Value #E": "CPU",
            "Value #F": "Restarts 1h",
            "Value #G": "Up for",
        },
        dropped=["Time"],
        sort_by="Worker",
        noValue="No workers",
    )
    return overridden(
        drawn,
        override("Worker", {"links": [{"title": "Open this worker", "url": WORKER_BOARD}]}),
        override(
            "State",
            {
                "custom.displayMode": "color-background",
                "mappings": words({0: ("DOWN", "red"), 1: ("UP", "semi-dark-green")}),
            },
        ),
        override("Tasks/s", {"unit": "ops", "decimals": 1}),
        override(
            "Busy",
            {
                "custom.displayMode": "gradient-gauge",
                "unit": "percentunit",
                "min": 0,
                "max": 1,
                **limited("worker_busy_ratio", ENTERING),
            },
        ),
        override("Memory", {"unit": "bytes"}),
        override("CPU", {"unit": "percentunit", "decimals": 1}),
        override("Restarts 1h", {"custom.displayMode": "color-text", **limited("restarts_in_1_hour")}),
        override("Up for", {"unit": "dtdurations"}),
    )
