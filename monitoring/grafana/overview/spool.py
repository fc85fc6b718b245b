"""Where is the queue kept? The spool on disk: whether it can be written, its size, and what commits take.

Without one the panels say so: 0 bytes would look like an empty spool. Called by `overview.board`.
"""

from __future__ import annotations

from looks import (
    BOUND,
    ENTERING,
    FAILED,
    INSIDE,
    WAITING,
    Json,
    fixed,
    mapped,
    marked,
    override,
)
from panels import Head, Query, graph, overridden, stat

NO_SPOOL = "no spool"


def spool() -> list[Json]:
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
