"""The queue and the time in it: what comes and goes, what waits, and how long.

Called by `overview.board`.
"""

from __future__ import annotations

from looks import (
    ENTERING,
    FAILED,
    INSIDE,
    LEAVING,
    WAITING,
    Json,
    dashed,
    fixed,
    marked,
    override,
    palette,
    recolour,
)
from panels import Head, Query, graph, heatmap, overridden
from promql import FAILED_TASKS, FILL, PROCESSED, PRODUCED, UNFINISHED_TASKS, WAITING_TASKS, quantile


def queue_and_flow() -> list[Json]:
    in_and_out = graph(
        Head(
            19,
            "In and out",
            "Where blue is above green the backlog grows; where green is above blue it drains.",
            (0, 27, 12, 9),
        ),
        Query(PRODUCED, "produced"),
        Query(PROCESSED, "processed"),
        Query(FAILED_TASKS, "failed"),
        unit="ops",
        calcs=["mean", "max", "lastNotNull"],
    )
    backlog = graph(
        Head(
            20,
            "Backlog",
            "Waiting is qsize(). Unfinished also counts tasks in the hands of consumers; "
            "the two lines part by the number of tasks being worked on.",
            (12, 27, 12, 9),
        ),
        Query(WAITING_TASKS, "waiting"),
        Query(UNFINISHED_TASKS, "unfinished"),
        Query("sum(conveyor_queue_capacity{@queue} > 0)", "capacity"),
        unit="short",
        calcs=["mean", "max", "lastNotNull"],
    )
    return [
        overridden(
            in_and_out,
            recolour("produced", ENTERING),
            recolour("processed", LEAVING),
            recolour("failed", FAILED),
        ),
        overridden(
            backlog,
            override("waiting", {**fixed(WAITING), "custom.fillOpacity": 25}),
            override("unfinished", {**fixed(INSIDE), "custom.fillOpacity": 0}),
            dashed("capacity"),
        ),
        graph(
            Head(21, "Queue fill", "How close each queue is to blocking its producers.", (0, 36, 8, 8)),
            Query(f"max by (queue) ({FILL})", "{{queue}}"),
            unit="percentunit",
            look=marked("queue_fill_ratio", palette()),
            limits_as="area",
            highest=1,
        ),
        unaccounted_for(),
        graph(
            Head(
                23,
                "Time producers spend blocked",
                "Part of the time the average producer waits for room on the queue: back-pressure at work.",
                (16, 36, 8, 8),
            ),
            Query("avg(rate(conveyor_producer_blocked_seconds_total{@queue}[$__rate_interval]))", "blocked"),
            unit="percentunit",
            look=marked("producer_blocked_ratio", fixed(WAITING)),
            limits_as="area",
            highest=1,
        ),
    ]


def unaccounted_for() -> Json:
    expr = (
        "sum by (queue) (conveyor_queue_unfinished_tasks{@queue})"
        " - sum by (queue) (conveyor_queue_size{@queue})"
        " - sum by (queue) (conveyor_tasks_in_progress{@queue})"
    )
    about = (
        "Unfinished minus waiting minus in progress. Short spikes are sampling. A steady value above 0 is the"
        " number of tasks lost with killed workers: join() then never returns."
    )
    # No lower bound: what is sampled between two counters may be below 0, and should be seen.
    return graph(
        Head(22, "Tasks unaccounted for", about, (8, 36, 8, 8)),
        Query(expr, "{{queue}}"),
        unit="none",
        look=marked("unaccounted_tasks", palette()),
        limits_as="line+area",
        lowest=None,
        axisSoftMin=0,
        axisSoftMax=2,
    )


def latency() -> list[Json]:
    buckets = "conveyor_task_processing_duration_seconds_bucket{@queue}"
    return [
        percentiles(24, "Wait in the queue", "From put() to get().", (0, 45, 8, 8), "queue_wait"),
        percentiles(25, "Processing time", "From get() to task_done().", (8, 45, 8, 8), "processing"),
        heatmap(
            Head(
                26,
                "Processing time, all tasks",
                "Each column is a moment, each cell a duration; brighter means more tasks. "
                "Two bright bands mean two kinds of task.",
                (16, 45, 8, 8),
            ),
            f"sum by (le) (increase({buckets}[$__rate_interval]))",
            unit="s",
        ),
    ]


def percentiles(number: int, title: str, about: str, place: tuple[int, int, int, int], phase: str) -> Json:
    shown = {"p50": (0.50, "green"), "p95": (0.95, "yellow"), "p99": (0.99, "red")}
    queries = [Query(quantile(share, phase), name) for name, (share, _) in shown.items()]
    drawn = graph(Head(number, title, about, place), *queries, unit="s")
    return overridden(drawn, *(recolour(name, colour) for name, (_, colour) in shown.items()))
