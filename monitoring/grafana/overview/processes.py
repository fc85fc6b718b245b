"""What the worker processes do: lanes, heartbeats, a line for each, and how busy they are.

All four list the workers in one order. Called by `overview.board`.
"""

from __future__ import annotations

from looks import (
    ENTERING,
    STATES,
    Json,
    limited,
    override,
    states,
    words,
)
from panels import Head, Query, bars, in_order, lanes, overridden, table
from promql import WORKERS, named, of_live, of_slots, restarts_in_1_hour, state_of_workers

WORKER_BOARD = (
    "/d/conveyor-worker?${__url_time_range}&${datasource:queryparam}&${job:queryparam}&${instance:queryparam}"
    "&var-worker=${__data.fields.Worker}"
)
LANES = 15  # its id


def processes(y: int) -> list[Json]:
    heartbeat = f"max by ({WORKERS}) (conveyor_worker_last_heartbeat_timestamp_seconds{{@all}})"
    busy = 'conveyor_worker_busy_seconds_total{@all,role="consumer"}'
    return [
        lanes(
            Head(
                LANES,
                "What every process is doing",
                "One lane per worker, sampled at each scrape. Pale red for ten seconds: its process was killed, or "
                "died, and this is the next one. Red: no process is there. Grey: its work is over.",
                (0, y, 16, 9),
            ),
            Query(named(state_of_workers("@all", over_time=True)), "{{who}}"),
            states(),
        ),
        bars(
            Head(
                16,
                "Time since last heartbeat",
                "Seconds since each live worker last reported progress. Red means hung.",
                (16, y, 8, 9),
            ),
            named(of_live(f"clamp_min(time() - {heartbeat}, 0)")),
            unit="s",
            look=limited("heartbeat_age_seconds"),
            maximum=60,
            mode="basic",
        ),
        workers(y + 9),
        bars(
            Head(
                18,
                "Share of time busy",
                "Part of the last moments each consumer spent inside a task. "
                "All near 100 %: add consumers. One alone: look at that process.",
                (16, y + 9, 8, 9),
            ),
            named(of_live(f"sum by ({WORKERS}) (rate({busy}[$__rate_interval]))")),
            unit="percentunit",
            look=limited("consumer_busy_ratio", ENTERING),
            maximum=1,
            mode="gradient",
        ),
    ]


def workers(y: int) -> Json:
    # A producer has no processed counter and a consumer no produced one, so `or` picks the one there is.
    tasks = [
        f"sum by ({WORKERS}) (rate(conveyor_tasks_{what}_total{{@queue}}[$__rate_interval]))"
        for what in ("processed", "produced")
    ]
    drawn = table(
        Head(17, "Workers", "One line per worker. Click a name to open its page.", (0, y, 16, 9)),
        named(state_of_workers("@all")),
        of_slots(f"({' or '.join(tasks)})"),
        of_slots(f"sum by ({WORKERS}) (rate(conveyor_worker_busy_seconds_total{{@all}}[$__rate_interval]))"),
        f"max by ({WORKERS}) (conveyor_worker_resident_memory_bytes{{@all}})",
        of_slots(f"sum by ({WORKERS}) (rate(conveyor_worker_cpu_seconds_total{{@all}}[$__rate_interval]))"),
        restarts_in_1_hour("@all"),
        f"time() - max by ({WORKERS}) (conveyor_worker_start_time_seconds{{@all}})",
        columns={
            "worker": "Worker",
            "where": "Instance",  # there is one where there are several instances
            "Value #A": "State",
            "Value #B": "Tasks/s",
            "Value #C": "Busy",
            "Value #D": "Memory",
            "Value #E": "CPU",
            "Value #F": "Restarts 1h",
            "Value #G": "Up for",
        },
        dropped=["Time", "job", "instance", "who", "order"],
        sort=in_order(),
        no_rows="No workers",
    )
    return overridden(
        drawn,
        override("Worker", {"links": [{"title": "Open this worker", "url": WORKER_BOARD}]}),
        override(
            "State",
            {
                "custom.displayMode": "color-background",
                "custom.width": 80,
                "mappings": words(dict(enumerate(STATES))),
            },
        ),
        override("Tasks/s", {"decimals": 1, "custom.width": 95}),
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
        override("Memory", {"unit": "bytes", "custom.width": 85}),
        override("CPU", {"unit": "percentunit", "decimals": 1, "custom.width": 70}),
        override(
            "Restarts 1h",
            {"custom.displayMode": "color-text", "custom.width": 105, **limited("restarts_in_1_hour")},
        ),
        override("Up for", {"unit": "dtdurations", "custom.width": 150}),
    )
