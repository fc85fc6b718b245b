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
    PLAIN,
    PLAIN_SECONDS,
    WAITING,
    Json,
    barred,
    dashed,
    fixed,
    known,
    lanes_of,
    limited,
    marked,
    override,
    recolour,
    with_words,
)
from panels import Head, Query, apart, counts, graph, lanes, now, overridden, stat
from promql import PROCESSED, QUEUES, counted, named, or_why_not, quantile

from overview.spool import spool_state

TRIED_AGAIN = 'sum(rate(conveyor_tasks_redelivered_total{@queue,reason="error"}[$__rate_interval]))'


def delivery(y: int) -> list[Json]:
    return [
        redeliveries(y),
        oldest_waiting(y),
        dead_letters(y),
        scaling(y + 8),
        paused(y + 8),
        stat(
            Head(
                40,
                "Put off",
                "Tasks that failed and wait for their next attempt; meanwhile no consumer waits for them.",
                (12, y + 12, 3, 4),
            ),
            now("sum(conveyor_tasks_delayed{@queue})"),
            unit="short",
            look=known((0, PLAIN), (1, WAITING)),
        ),
        stat(
            Head(
                45,
                "Attempts retried",
                "Part of all attempts that raised and are made again. What is not tried again is in *Failed*.",
                (15, y + 12, 5, 4),
            ),
            now(or_why_not(f"{TRIED_AGAIN} / ({PROCESSED} + {TRIED_AGAIN} > 0)")),
            unit="percentunit",
            look=with_words(limited("retried_ratio")),
            decimals=1,
        ),
        spool_state(y + 12),
    ]


def redeliveries(y: int) -> Json:
    about = (
        "Tasks given to a consumer once more in an interval: the one before died or took too long, its function "
        "raised, the whole run was restarted, or somebody asked for it (`conveyor dead retry`)."
    )
    again = counted("conveyor_tasks_redelivered_total{@queue}", "reason")
    return overridden(
        counts(Head(35, "Redeliveries by reason", about, (0, y, 8, 8)), Query(again, "{{reason}}")),
        recolour("death", FAILED),
        recolour("timeout", "purple"),
        recolour("error", "orange"),
        recolour("restart", "blue"),
        recolour("request", BOUND),
    )


def oldest_waiting(y: int) -> Json:
    about = (
        "How long the task has waited that was put first, beside the wait of those that have been started. "
        "Where only the first climbs, one task is passed over, or nothing is started at all. "
        "The queues of the standard library cannot tell it."
    )
    drawn = graph(
        Head(36, "Oldest waiting task", about, (8, y, 8, 8)),
        Query("max(conveyor_queue_oldest_waiting_seconds{@queue})", "oldest"),
        Query(quantile(0.95, "queue_wait"), "wait p95"),
        unit=PLAIN_SECONDS,
        look=marked("oldest_waiting_seconds", fixed(WAITING)),
        limits_as="line",
    )
    return overridden(drawn, dashed("wait p95"))


def dead_letters(y: int) -> Json:
    about = (
        "Tasks that were given up and are kept to be looked at; `conveyor dead list` shows them. "
        "The bars are those that killed their consumers: of them none is in order."
    )
    drawn = graph(
        Head(37, "Dead letters", about, (16, y, 8, 8)),
        Query("sum(conveyor_dead_letters{@queue})", "kept"),
        Query(counted("conveyor_tasks_dead_lettered_total{@queue}"), "given up after deaths"),
        unit="short",
        decimals=0,
        axisSoftMax=5,
    )
    return overridden(apart(drawn), recolour("kept", INSIDE), barred("given up after deaths", FAILED))


def scaling(y: int) -> Json:
    about = (
        "Consumers alive and wanted between the bounds of --consumers MIN..MAX, which are one where the number is "
        "fixed. The bars are the times that some were added, or taken away."
    )
    events = 'conveyor_scaling_events_total{@all,direction="%s"}'
    drawn = graph(
        Head(38, "Scaling", about, (0, y, 12, 8)),
        Query('sum(conveyor_worker_up{@all,role="consumer"})', "alive"),
        Query('sum(conveyor_workers_desired{@all,role="consumer"})', "wanted"),
        Query('sum(conveyor_workers_min{@all,role="consumer"})', "least"),
        Query('sum(conveyor_workers_max{@all,role="consumer"})', "most"),
        Query(counted(events % "up"), "added"),
        Query(counted(events % "down"), "taken away"),
        unit="short",
        decimals=0,
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


def paused(y: int) -> Json:
    meanings = {0: ("running", LEAVING), 1: ("paused", WAITING)}
    about = "Orange while the queue is paused, by `conveyor pause`; `conveyor resume` ends it."
    return lanes(
        Head(39, "Paused", about, (12, y, 12, 4)),
        Query(named(f"max by ({QUEUES}) (conveyor_queue_paused{{@queue}})", "queue"), "{{who}}"),
        lanes_of(meanings),
    )
