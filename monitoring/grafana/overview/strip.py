"""Is it healthy? The strip at the top: the verdict, and the way of a task from left to right.

Called by `overview.board`.
"""

from __future__ import annotations

from looks import (
    ENTERING,
    INSIDE,
    LEAVING,
    WAITING,
    Json,
    fixed,
    limited,
    mapped,
    recolour,
)
from panels import Head, Query, gauge, overridden, stat
from promql import FAILED_TASKS, FILL, PROCESSED, PRODUCED, UNFINISHED_TASKS, WAITING_TASKS, not_nan, quantile

# The id is that of the table in `trouble`.
LIST_OF_ALERTS = "/d/conveyor-overview?viewPanel=29&${__url_time_range}&${__all_variables}"


def verdict_and_flow() -> list[Json]:
    return [
        verdict(),
        workforce(2, "Producers", "producer", (4, 0, 3, 4), ENTERING),
        stat(
            Head(3, "Produced", "Tasks put on the queue per second.", (7, 0, 4, 4)),
            Query(PRODUCED),
            unit="ops",
            look=fixed(ENTERING),
            sparkline=True,
        ),
        stat(
            Head(4, "Queue size", "Tasks waiting on the queue now (the value of qsize()).", (11, 0, 3, 4)),
            Query(WAITING_TASKS),
            unit="short",
            look=fixed(WAITING),
            sparkline=True,
        ),
        gauge(
            Head(
                5,
                "Queue fill",
                "How full the fullest bounded queue is; full, producers block.",
                (14, 0, 3, 4),
            ),
            Query(f"max({FILL})", instant=True),
            unit="percentunit",
            look=limited("queue_fill_ratio"),
            maximum=1,
            noValue="unbounded",
        ),
        workforce(6, "Consumers", "consumer", (17, 0, 3, 4), LEAVING),
        stat(
            Head(7, "Processed", "Tasks finished per second, well or badly.", (20, 0, 4, 4)),
            Query(PROCESSED),
            unit="ops",
            look=fixed(LEAVING),
            sparkline=True,
        ),
    ]


def verdict() -> Json:
    # absent() first: an exporter that is gone must never look healthy.
    expr = """\
3 * absent(conveyor_build_info{@all})
or 2 * sgn(count(ALERTS{alertname=~"Conveyor.+",alertstate="firing",severity="critical"}))
or sgn(count(ALERTS{alertname=~"Conveyor.+",alertstate="firing",severity="warning"}))
or vector(0)"""
    meanings = {
        0: ("HEALTHY", "green"),
        1: ("DEGRADED", "orange"),
        2: ("CRITICAL", "red"),
        3: ("NO DATA", "dark-red"),
    }
    about = (
        "One word for the whole pipeline. It repeats what the alert rules say, so the two never disagree. "
        "NO DATA means that Prometheus cannot see the exporter."
    )
    return stat(
        Head(1, "Verdict", about, (0, 0, 4, 4)),
        Query(expr, instant=True),
        unit="none",
        look=mapped(meanings, "green"),
        colour="background",
    )


def workforce(number: int, title: str, role: str, place: tuple[int, int, int, int], colour: str) -> Json:
    alive = f'conveyor_worker_up{{@all,role="{role}"}}'
    wanted = f'conveyor_workers_desired{{@all,role="{role}"}}'
    # A worker that is leaving is for a moment above the number wanted; that hides no missing one elsewhere.
    missing = f"sum(clamp_min({wanted} - on (job, instance, role) sum by (job, instance, role) ({alive}), 0))"
    about = f"{role.capitalize()} processes running, and how many of the wanted number are missing."
    drawn = stat(
        Head(number, title, about, place),
        Query(f"sum({alive})", "alive"),
        Query(missing, "missing"),
        unit="none",
        look=limited("workers_missing"),
        names=True,
    )
    return overridden(drawn, recolour("alive", colour))


def verdict_in_numbers() -> list[Json]:
    # Instant queries: a range would show the last value of a pipeline that has gone idle since.
    return [
        stat(
            Head(8, "Firing alerts", "Alerts that fire now. The list is at the bottom.", (0, 4, 4, 3)),
            Query(
                'count(ALERTS{alertname=~"Conveyor.+|Prometheus.+",alertstate="firing"}) or vector(0)',
                instant=True,
            ),
            unit="none",
            look=limited("firing_alerts"),
            links=[{"title": "List of alerts", "url": LIST_OF_ALERTS}],
        ),
        stat(
            Head(
                9,
                "Restarts in 1 h",
                "Worker processes replaced in the last hour, but for those that had done their share (recycle).",
                (4, 4, 3, 3),
            ),
            Query('round(sum(increase(conveyor_worker_restarts_total{@all,reason!="recycle"}[1h])))', instant=True),
            unit="none",
            look=limited("restarts_in_1_hour"),
        ),
        stat(
            Head(
                10,
                "Unfinished tasks",
                "Tasks put but not yet marked done: those waiting plus those being worked on. "
                "join() returns when this is 0.",
                (7, 4, 4, 3),
            ),
            Query(UNFINISHED_TASKS),
            unit="short",
            look=fixed(INSIDE),
            sparkline=True,
        ),
        stat(
            Head(11, "Wait p95", "95 of 100 tasks waited less than this for a consumer.", (11, 4, 3, 3)),
            Query(not_nan(quantile(0.95, "queue_wait")), instant=True),
            unit="s",
            look=limited("queue_wait_p95_seconds"),
            noValue="idle",
        ),
        stat(
            Head(
                12,
                "Backlog time",
                "How long the present backlog takes at the present speed. "
                "Unlike the queue size, it means the same at any load.",
                (14, 4, 3, 3),
            ),
            Query(f"{UNFINISHED_TASKS} / ({PROCESSED} > 0)", instant=True),
            unit="s",
            look=limited("backlog_seconds"),
            noValue="idle",
        ),
        stat(
            Head(13, "Failed", "Share of finished tasks that failed.", (17, 4, 3, 3)),
            Query(f"{FAILED_TASKS} / ({PROCESSED} > 0)", instant=True),
            unit="percentunit",
            look=limited("failure_ratio"),
            decimals=1,
            noValue="idle",
        ),
        stat(
            Head(
                14,
                "Processing p95",
                "95 of 100 tasks took less than this, get() to task_done().",
                (20, 4, 4, 3),
            ),
            Query(not_nan(quantile(0.95, "processing")), instant=True),
            unit="s",
            look=limited("processing_p95_seconds"),
            noValue="idle",
        ),
    ]
