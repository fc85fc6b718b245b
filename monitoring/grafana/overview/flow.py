"""The queue and the time in it: what comes and goes, what waits, and how long.

Called by `overview.board`.
"""

from __future__ import annotations

from looks import (
    ENTERING,
    FAILED,
    INSIDE,
    INSIDE_HUES,
    LEAVING,
    PLAIN,
    PLAIN_SECONDS,
    TASKS_PER_SECOND,
    WAITING,
    WAITING_HUES,
    Json,
    dashed,
    fixed,
    marked,
    of_one_hue,
    override,
    palette,
    recolour,
)
from panels import Head, Query, graph, heatmap, overridden
from promql import (
    FAILED_TASKS,
    FILL,
    PROCESSED,
    PRODUCED,
    QUEUES,
    UNFINISHED_TASKS,
    WAITING_TASKS,
    counted,
    mean,
    named,
    quantile,
)

IN_AND_OUT, BACKLOG = 19, 20  # their ids
# Every other edge of the histogram: more rows than that have no room for their names. Prometheus 3 writes 1 as 1.0.
ROWS = r"0\\.0025|0\\.01|0\\.05|0\\.25|1(\\.0)?|5(\\.0)?|30(\\.0)?|\\+Inf"


def queue_and_flow(y: int) -> list[Json]:
    in_and_out = graph(
        Head(
            IN_AND_OUT,
            "In and out",
            "Where blue is above green the backlog grows; where green is above blue it drains.",
            (0, y, 12, 9),
        ),
        Query(PRODUCED, "produced"),
        Query(PROCESSED, "processed"),
        Query(FAILED_TASKS, "failed"),
        unit=TASKS_PER_SECOND,
        calcs=["mean", "max", "lastNotNull"],
    )
    backlog = graph(
        Head(
            BACKLOG,
            "Backlog",
            "Waiting is qsize(). Unfinished also counts tasks in the hands of consumers; "
            "the two lines part by the number of tasks being worked on.",
            (12, y, 12, 9),
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
            Head(21, "Queue fill", "How close each queue is to blocking its producers.", (0, y + 9, 8, 8)),
            Query(named(f"max by ({QUEUES}) ({FILL})", "queue"), "{{who}}"),
            unit="percentunit",
            look=marked("queue_fill_ratio", palette()),
            limits_as="area",
            highest=1,
        ),
        unaccounted_for(y + 9),
        graph(
            Head(
                23,
                "Time producers spend blocked",
                "Part of the time the average producer waits for room on the queue: back-pressure at work.",
                (16, y + 9, 8, 8),
            ),
            Query("avg(rate(conveyor_producer_blocked_seconds_total{@queue}[$__rate_interval]))", "blocked"),
            unit="percentunit",
            look=marked("producer_blocked_ratio", fixed(WAITING)),
            limits_as="area",
            highest=1,
        ),
    ]


def unaccounted_for(y: int) -> Json:
    expr = (
        f"sum by ({QUEUES}) (conveyor_queue_unfinished_tasks{{@queue}})"
        f" - sum by ({QUEUES}) (conveyor_queue_size{{@queue}})"
        f" - sum by ({QUEUES}) (conveyor_tasks_in_progress{{@queue}})"
    )
    about = (
        "Unfinished minus waiting minus in progress. Short spikes are sampling. A steady value above 0 is the"
        " number of tasks lost with killed workers: join() then never returns."
    )
    # No lower bound: what is sampled between two counters may be below 0, and should be seen.
    return graph(
        Head(22, "Tasks unaccounted for", about, (8, y, 8, 8)),
        Query(named(expr, "queue"), "{{who}}"),
        unit="none",
        look=marked("unaccounted_tasks", palette()),
        limits_as="line+area",
        lowest=None,
        axisSoftMin=0,
        axisSoftMax=2,
    )


def latency(y: int) -> list[Json]:
    buckets = f'conveyor_task_processing_duration_seconds_bucket{{@queue,le=~"{ROWS}"}}'
    waits = percentiles(24, "Wait in the queue", "From put() to get().", (0, y, 8, 8), "queue_wait", WAITING_HUES)
    times = percentiles(25, "Processing time", "From get() to task_done().", (8, y, 8, 8), "processing", INSIDE_HUES)
    return [
        waits,
        times,
        heatmap(
            Head(
                26,
                "Processing time, all tasks",
                "Each column is a moment, each cell a duration; the fuller its colour, the more tasks. "
                "Two bands mean two kinds of task.",
                (16, y, 8, 8),
            ),
            counted(buckets, "le"),
            unit="s",
        ),
    ]


def percentiles(
    number: int, title: str, about: str, place: tuple[int, int, int, int], phase: str, hues: tuple[str, ...]
) -> Json:
    shown = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
    exact = "The mean is exact; the others are as fine as the buckets of the histogram."
    queries = [Query(quantile(share, phase), name) for name, share in shown.items()]
    drawn = graph(
        Head(number, title, f"{about} {exact}", place),
        *queries,
        Query(mean(phase), "mean"),
        unit=PLAIN_SECONDS,
        logarithmic=True,
        fillOpacity=0,
    )
    return overridden(drawn, *of_one_hue(shown, hues), override("mean", {**fixed(PLAIN), "custom.lineWidth": 1}))
