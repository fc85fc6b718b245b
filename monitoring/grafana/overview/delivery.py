"""Does every task get done? What was given again, given up or put off, and where the queue is kept.

Called by `overview.board`.
"""

from __future__ import annotations

from looks import (
    BOUND,
    ENTERING,
    FAILED,
    INSIDE,
    LEAVING,
    WAITING,
    Json,
    dashed,
    fixed,
    limited,
    mapped,
    marked,
    override,
    recolour,
)
from panels import Head, Query, apart, counts, graph, lanes, overridden, stat
from promql import PROCESSED, quantile

NO_SPOOL = "no spool"
TRIED_AGAIN = 'sum(rate(conveyor_tasks_redelivered_total{@queue,reason="error"}[$__rate_interval]))'


def delivery() -> list[Json]:
    again = "sum by (reason) (increase(conveyor_tasks_redelivered_total{@queue}[$__rate_interval]))"
    return [
        overridden(
            counts(
                Head(
                    35,
                    "Redeliveries by reason",
                    "Tasks given to a consumer once more in an interval: the one before died or took too long, its "
                    "function raised, the whole run was restarted, or somebody asked for it (`conveyor dead retry`).",
                    (0, 54, 8, 8),
                ),
                Query(again, "{{reason}}"),
            ),
            recolour("death", FAILED),
            recolour("timeout", "purple"),
            recolour("error", "orange"),
            recolour("restart", "blue"),
            recolour("request", BOUND),
        ),
        oldest_waiting(),
        dead_letters(),
        scaling(),
        paused(),
        stat(
            Head(
                40,
                "Put off",
                "Tasks that failed and wait for their next attempt; meanwhile no consumer waits for them.",
                (12, 66, 4, 4),
            ),
            Query("sum(conveyor_tasks_delayed{@queue})"),
            unit="short",
            look=fixed(WAITING),
            sparkline=True,
        ),
        stat(
            Head(
                45,
                "Attempts that failed",
                "Part of all attempts at tasks that raised, and are made again.",
                (16, 62, 8, 4),
            ),
            Query(f"{TRIED_AGAIN} / ({PROCESSED} + {TRIED_AGAIN} > 0)", instant=True),
            unit="percentunit",
            look=limited("retried_ratio"),
            decimals=1,
            noValue="idle",
        ),
    ]


def oldest_waiting() -> Json:
    about = (
        "How long the task has waited that was put first, beside the wait of those that have been started. "
        "Where only the first climbs, one task is passed over, or nothing is started at all. "
        "The queues of the standard library cannot tell it."
    )
    drawn = graph(
        Head(36, "Oldest waiting task", about, (8, 54, 8, 8)),
        Query("max(conveyor_queue_oldest_waiting_seconds{@queue})", "oldest"),
        Query(quantile(0.95, "queue_wait"), "wait p95"),
        unit="s",
        look=marked("oldest_waiting_seconds", fixed(WAITING)),
        limits_as="line",
    )
    return overridden(drawn, dashed("wait p95"))


def dead_letters() -> Json:
    about = (
        "Tasks that were given up and are kept to be looked at; `conveyor dead list` shows them. "
        "The bars are those that killed their consumers: of them none is in order."
    )
    drawn = graph(
        Head(37, "Dead letters", about, (16, 54, 8, 8)),
        Query("sum(conveyor_dead_letters{@queue})", "kept"),
        Query("sum(increase(conveyor_tasks_dead_lettered_total{@queue}[$__rate_interval]))", "given up after deaths"),
        unit="short",
    )
    return overridden(apart(drawn), recolour("kept", INSIDE), barred("given up after deaths", FAILED))


def scaling() -> Json:
    about = (
        "Consumers alive and wanted between the bounds of --consumers MIN..MAX, which are one where the number is "
        "fixed. The bars are the times that some were added, or taken away."
    )
    events = 'sum(increase(conveyor_scaling_events_total{@all,direction="%s"}[$__rate_interval]))'
    drawn = graph(
        Head(38, "Scaling", about, (0, 62, 12, 8)),
        Query('sum(conveyor_worker_up{@all,role="consumer"})', "alive"),
        Query('sum(conveyor_workers_desired{@all,role="consumer"})', "wanted"),
        Query('sum(conveyor_workers_min{@all,role="consumer"})', "least"),
        Query('sum(conveyor_workers_max{@all,role="consumer"})', "most"),
        Query(events % "up", "added"),
        Query(events % "down", "taken away"),
        unit="short",
        lineInterpolation="stepAfter",
    )
    return overridden(
        apart(drawn),
        recolour("alive", LEAVING),
        override("wanted", {**fixed(INSIDE), "custom.fillOpacity": 0}),
        dashed("least"),
        dashed("most"),
        barred("added", ENTERING),
        barred("taken away", WAITING),
    )


def barred(field: str, colour: str) -> Json:
    """Draw a field as bars of its own scale among lines: events beside a level."""
    return override(
        field,
        {
            **fixed(colour),
            "custom.drawStyle": "bars",
            "custom.lineWidth": 0,
            "custom.fillOpacity": 80,
            "custom.gradientMode": "none",
            "custom.axisPlacement": "right",
        },
    )


def paused() -> Json:
    meanings = {0: ("running", LEAVING), 1: ("paused", WAITING)}
    about = "Orange while the queue is paused, by `conveyor pause`; `conveyor resume` ends it."
    return lanes(
        Head(39, "Paused", about, (12, 62, 4, 4)),
        Query("max by (queue) (conveyor_queue_paused{@queue})", "{{queue}}"),
        mapped(meanings, LEAVING),
    )


def spool() -> list[Json]:
    """Return the panels of the queue on disk. Without one they say so: 0 bytes would look like an empty spool."""
    commits = "sum(rate(conveyor_spool_commits_total{@queue}[$__rate_interval]))"
    seconds = "sum(rate(conveyor_spool_commit_seconds_total{@queue}[$__rate_interval]))"
    return [
        spool_state(),
        spool_size(),
        graph(
            Head(
                43,
                "Spool commit time",
                "Seconds of the average commit. Until it is done no producer gets room and no consumer a task.",
                (8, 70, 8, 8),
            ),
            Query(f"{seconds} / ({commits} > 0)", "commit"),
            unit="s",
            look=marked("spool_commit_seconds", fixed(INSIDE)),
            limits_as="line",
            no_value=NO_SPOOL,
        ),
        overridden(
            graph(
                Head(
                    44,
                    "Spool commits",
                    "Commits each second, and the part of all time that they take.",
                    (16, 70, 8, 8),
                ),
                Query(commits, "commits/s"),
                Query(seconds, "share of time"),
                unit="ops",
                look=fixed(ENTERING),
                no_value=NO_SPOOL,
            ),
            override(
                "share of time",
                {**fixed(WAITING), "unit": "percentunit", "max": 1, "custom.axisPlacement": "right"},
            ),
        ),
    ]


def spool_state() -> Json:
    meanings = {-1: (NO_SPOOL, BOUND), 0: ("NOT WRITABLE", FAILED), 1: ("writable", "green")}
    about = "Whether what is accepted can be written to disk. If not, producers block; `/readyz` has the reason."
    return stat(
        Head(41, "Spool", about, (16, 66, 8, 4)),
        Query("min(conveyor_spool_writable{@queue}) or vector(-1)", instant=True),
        unit="none",
        look=mapped(meanings, BOUND),
    )


def spool_size() -> Json:
    about = "Size of the spool's files, and the waiting tasks that are on disk alone, for lack of room in memory."
    drawn = graph(
        Head(42, "Spool size", about, (0, 70, 8, 8)),
        Query("sum(conveyor_spool_size_bytes{@queue})", "size"),
        Query("sum(conveyor_spool_tasks{@queue})", "tasks on disk alone"),
        unit="bytes",
        look=fixed(INSIDE),
        no_value=NO_SPOOL,
    )
    tasks = override(
        "tasks on disk alone",
        {**fixed(WAITING), "unit": "short", "custom.fillOpacity": 0, "custom.axisPlacement": "right"},
    )
    return overridden(drawn, tasks)
