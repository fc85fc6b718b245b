"""Is it healthy? The strip at the top: the verdict, and the way of a task from left to right.

Below what is put and what is done stand the processes that do it. Each panel is wide enough for its title on a narrow
screen. All of it is asked for this moment: what is not known now is said to be so. Called by `overview.board`.
"""

from __future__ import annotations

from looks import (
    BOUND,
    ENTERING,
    INSIDE,
    LEAVING,
    TASKS_PER_SECOND,
    WAITING,
    Json,
    known,
    limited,
    mapped,
    recolour,
    with_words,
    words,
)
from panels import Head, gauge, now, overridden, stat
from promql import (
    FAILED_TASKS,
    FILL,
    FIRING,
    PROCESSED,
    PRODUCED,
    UNFINISHED_TASKS,
    WAITING_TASKS,
    WATCHDOG,
    backlog_seconds,
    if_known,
    or_why_not,
    quantile,
    restarts_in_1_hour,
)

# The id is that of the table in `trouble`.
LIST_OF_ALERTS = "/d/conveyor-overview?viewPanel=29&${__url_time_range}&${__all_variables}"
UNBOUNDED = -1


def verdict_and_flow() -> list[Json]:
    return [
        verdict(),
        stat(
            Head(3, "Produced", "Tasks put on the queue per second.", (5, 0, 5, 4)),
            now(if_known(PRODUCED)),
            unit=TASKS_PER_SECOND,
            look=known((0, ENTERING)),
        ),
        stat(
            Head(4, "Queue size", "Tasks waiting on the queue now (the value of qsize()).", (10, 0, 5, 4)),
            now(WAITING_TASKS),
            unit="short",
            look=known((0, WAITING)),
        ),
        fill(),
        stat(
            Head(7, "Processed", "Tasks finished per second, well or badly.", (20, 0, 4, 4)),
            now(if_known(PROCESSED)),
            unit=TASKS_PER_SECOND,
            look=known((0, LEAVING)),
        ),
    ]


def verdict() -> Json:
    # absent() first: an exporter that is gone must never look healthy. Nor must one whose rules nobody evaluates.
    expr = f"""\
3 * absent(conveyor_build_info{{@all}})
or 2 * sgn(count(ALERTS{{{FIRING},severity="critical"}}))
or sgn(count(ALERTS{{{FIRING},severity="warning"}}))
or 4 * absent({WATCHDOG})
or vector(0)"""
    meanings = {
        0: ("HEALTHY", "green"),
        1: ("DEGRADED", "orange"),
        2: ("CRITICAL", "red"),
        3: ("NO DATA", "dark-red"),
        4: ("UNKNOWN", "dark-red"),
    }
    about = (
        "One word for what is chosen above. It repeats what the alert rules say, so the two never disagree. "
        "NO DATA means that Prometheus cannot see the exporter, UNKNOWN that it evaluates no rules."
    )
    return stat(
        Head(1, "Verdict", about, (0, 0, 5, 4)),
        now(expr),
        unit="none",
        look=mapped(meanings, BOUND),
        colour="background",
    )


def fill() -> Json:
    capacity = "conveyor_queue_capacity{@queue}"
    about = "How full the fullest bounded queue is; full, producers block."
    return gauge(
        Head(5, "Queue fill", about, (15, 0, 5, 4)),
        now(f"max({FILL}) or max(0 * ({capacity} == 0) + {UNBOUNDED})"),
        unit="percentunit",
        look=limited("queue_fill_ratio"),
        maximum=1,
        mappings=words({UNBOUNDED: ("unbounded", BOUND)}),
    )


def workforce(number: int, title: str, role: str, place: tuple[int, int, int, int], colour: str) -> Json:
    wanted = f'conveyor_workers_desired{{@all,role="{role}"}}'
    # Of a role that is scaled to none, no slot is up or down: there are none alive, which is known.
    roles = "job, instance, role"
    up = f'sum by ({roles}) (conveyor_worker_up{{@all,role="{role}"}})'
    alive = f"({up} or on ({roles}) 0 * {wanted})"
    # A worker that is leaving is for a moment above the number wanted; that hides no missing one elsewhere.
    missing = f"sum(clamp_min({wanted} - on ({roles}) {alive}, 0))"
    about = f"{role.capitalize()} processes running, and how many of the wanted number are missing."
    drawn = stat(
        Head(number, title, about, place),
        now(f"sum({alive})", "alive"),
        now(missing, "missing"),
        unit="none",
        look=limited("workers_missing"),
        names=True,
    )
    return overridden(drawn, recolour("alive", colour))


def verdict_in_numbers() -> list[Json]:
    firing = f'ALERTS{{{FIRING}}} or ALERTS{{alertname=~"Prometheus.+",alertstate="firing"}}'
    return [
        stat(
            Head(8, "Firing alerts", "Alerts that fire now. The list is at the bottom.", (0, 4, 5, 3)),
            now(f"count({firing}) or 0 * {WATCHDOG}"),
            unit="none",
            look=limited("firing_alerts"),
            links=[{"title": "List of alerts", "url": LIST_OF_ALERTS}],
        ),
        workforce(2, "Producers", "producer", (5, 4, 5, 3), ENTERING),
        stat(
            Head(
                10,
                "Unfinished tasks",
                "Tasks put but not yet marked done: those waiting plus those being worked on. "
                "join() returns when this is 0.",
                (10, 4, 5, 3),
            ),
            now(UNFINISHED_TASKS),
            unit="short",
            look=known((0, INSIDE)),
        ),
        stat(
            Head(
                12,
                "Backlog time",
                "How long the present backlog takes at the present speed, of the slowest queue. "
                "Unlike the queue size, it means the same at any load. Stalled: there is work, and none gets done.",
                (15, 4, 5, 3),
            ),
            now(backlog_seconds()),
            unit="s",
            look=with_words(limited("backlog_seconds")),
        ),
        workforce(6, "Consumers", "consumer", (20, 4, 4, 3), LEAVING),
        stat(
            Head(
                9,
                "Restarts in 1 h",
                "Worker processes replaced in the last hour, but for those that had done their share (recycle).",
                (0, 7, 5, 3),
            ),
            now(f"sum({restarts_in_1_hour('@all')})"),
            unit="none",
            look=limited("restarts_in_1_hour"),
        ),
        stat(
            Head(11, "Wait p95", "95 of 100 tasks waited less than this for a consumer.", (5, 7, 6, 3)),
            now(or_why_not(quantile(0.95, "queue_wait"))),
            unit="s",
            look=with_words(limited("queue_wait_p95_seconds")),
        ),
        stat(
            Head(
                14,
                "Processing p95",
                "95 of 100 tasks took less than this, get() to task_done().",
                (11, 7, 7, 3),
            ),
            now(or_why_not(quantile(0.95, "processing"))),
            unit="s",
            look=with_words(limited("processing_p95_seconds")),
        ),
        stat(
            Head(13, "Failed", "Share of finished tasks that failed.", (18, 7, 6, 3)),
            now(or_why_not(f"{FAILED_TASKS} / ({PROCESSED} > 0)")),
            unit="percentunit",
            look=with_words(limited("failure_ratio")),
            decimals=1,
        ),
    ]
