"""Where is the queue kept? The spool on disk: whether it can be written, its size, and what commits take.

Without one the panels say so: 0 bytes would look like an empty spool. Called by `overview.board`, and its state by
`delivery`.
"""

from __future__ import annotations

from looks import (
    BOUND,
    ENTERING,
    FAILED,
    INSIDE,
    WAITING,
    WHOLE,
    Json,
    fixed,
    mapped,
    marked,
    override,
)
from panels import Head, Query, graph, now, overridden, stat

NO_SPOOL = "no spool"
# Of a graph without a line nobody can tell why it has none.
NOTHING_DRAWN = "no spool, or no data of one"


def spool(y: int) -> list[Json]:
    commits = "sum(rate(conveyor_spool_commits_total{@queue}[$__rate_interval]))"
    seconds = "sum(rate(conveyor_spool_commit_seconds_total{@queue}[$__rate_interval]))"
    return [
        spool_size(y),
        graph(
            Head(
                43,
                "Spool commit time",
                "Seconds of the average commit. Until it is done no producer gets room and no consumer a task.",
                (8, y, 8, 8),
            ),
            Query(f"{seconds} / ({commits} > 0)", "commit"),
            unit="s",
            look=marked("spool_commit_seconds", fixed(INSIDE)),
            limits_as="line",
            no_value=NOTHING_DRAWN,
        ),
        overridden(
            graph(
                Head(
                    44,
                    "Spool commits",
                    "Commits each second, and the part of all time that they take.",
                    (16, y, 8, 8),
                ),
                Query(commits, "commits/s"),
                Query(seconds, "share of time"),
                unit="count:commits/s",
                look=fixed(ENTERING),
                no_value=NOTHING_DRAWN,
            ),
            override(
                "share of time",
                {**fixed(WAITING), "unit": "percentunit", "max": 1, "custom.axisPlacement": "right"},
            ),
        ),
    ]


def spool_state(y: int) -> Json:
    meanings = {-1: (NO_SPOOL, BOUND), 0: ("NOT WRITABLE", FAILED), 1: ("writable", "green")}
    about = "Whether what is accepted can be written to disk. If not, producers block; `/readyz` has the reason."
    return stat(
        Head(41, "Spool", about, (20, y, 4, 4)),
        now("min(conveyor_spool_writable{@queue}) or max(0 * conveyor_queue_size{@queue} - 1)"),
        unit="none",
        look=mapped(meanings, BOUND),
    )


def spool_size(y: int) -> Json:
    about = "Size of the spool's files, and the waiting tasks that are on disk alone, for lack of room in memory."
    drawn = graph(
        Head(42, "Spool size", about, (0, y, 8, 8)),
        Query("sum(conveyor_spool_size_bytes{@queue})", "size"),
        Query("sum(conveyor_spool_tasks{@queue})", "tasks on disk alone"),
        unit="bytes",
        look=fixed(INSIDE),
        no_value=NOTHING_DRAWN,
    )
    tasks = override(
        "tasks on disk alone",
        {**fixed(WAITING), **WHOLE, "custom.fillOpacity": 0, "custom.axisPlacement": "right"},
    )
    return overridden(drawn, tasks)
