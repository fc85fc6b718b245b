"""Does every task get done? What was given again, given up or put off, and who is there to do it.

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
    barred,
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

TRIED_AGAIN = 'sum(rate(conveyor_tasks_redelivered_total{@queue,reason="error"}[$__rate_interval]))'


def delivery() -> list[Json]:
    return [
        redeliveries(),
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


def redeliveries() -> Json:
    about = (
        "Tasks given to a consumer once more in an interval: the one before died or took too long, its function "
        "raised, the whole run was restarted, or somebody asked for it (`conveyor dead retry`)."
    )
    again = "sum by (reason) (increase(conveyor_tasks_redelivered_total{@queue}[$__rate_interval]))"
    return overridden(
        counts(Head(35, "Redeliveries by reason", about, (0, 54, 8, 8)), Query(again, "{{reason}}")),
        recolour("death", FAILED),
        recolour("timeout", "purple"),
        recolour("error", "orange"),
        recolour("restart", "blue"),
        recolour("request", BOUND),
    )


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


def paused() -> Json:
    meanings = {0: ("running", LEAVING), 1: ("paused", WAITING)}
    about = "Orange while the queue is paused, by `conveyor pause`; `conveyor resume` ends it."
    return lanes(
        Head(39, "Paused", about, (12, 62, 4, 4)),
        Query("max by (queue) (conveyor_queue_paused{@queue})", "{{queue}}"),
        mapped(meanings, LEAVING),
    )
