"""The second dashboard: one worker slot, or several side by side.

Called by `generate`. The Worker variable chooses; each series is one worker, so no panel is repeated. The stats are
wide, and their letters of one size, so that four workers beside each other can be read.
"""

from __future__ import annotations

from typing import Any

from frame import dashboard, worker_variable
from looks import (
    ENTERING,
    FAILED,
    LEAVING,
    PLAIN,
    TASKS_PER_SECOND,
    Json,
    dashed,
    known,
    limited,
    marked,
    palette,
    recolour,
    states,
    stepped,
    words,
)
from overview.trouble import failures_by_reason, restarts_by_reason
from panels import Head, Query, counts, graph, lanes, now, overridden, row_by_row, stat, text_of
from promql import WORKERS, counted, named, of_live, restarts_in_1_hour, state_of_workers

BUSY = "rate(conveyor_worker_busy_seconds_total{@worker}[$__rate_interval])"
PROCESSED = "rate(conveyor_tasks_processed_total{@worker}[$__rate_interval])"
STATE_OVER_TIME, TASKS = 7, 8  # their ids
NEVER = -10_000  # below every exit code


def board() -> Json:
    about = "One worker slot: what its process does, needs and suffers. Choose several to compare them."
    panels = [*head(), life(8), *work(13), *resources(21), *trouble(29)]
    return dashboard(
        "conveyor-worker",
        "Conveyor / Worker",
        about,
        panels,
        last_variable=worker_variable(),
        deaths='conveyor_worker_restarts_total{@worker,reason!="recycle"}',
        marked=[STATE_OVER_TIME, TASKS],
    )


def head() -> list[Json]:
    heartbeat = f"max by ({WORKERS}) (conveyor_worker_last_heartbeat_timestamp_seconds{{@worker}})"
    started = f"max by ({WORKERS}) (conveyor_worker_start_time_seconds{{@worker}})"
    return [
        tiles(
            Head(1, "State", "What the process does; for ten seconds, that the one before it died.", (0, 0, 8, 4)),
            state_of_workers("@worker"),
            unit="none",
            look=states(),
            colour="background",
        ),
        tiles(
            Head(
                2,
                "Up for",
                "Time since the process was started. Short is no matter by itself: *State* tells what it followed.",
                (8, 0, 8, 4),
            ),
            f"time() - {started}",
            unit="s",
            look=known((0, PLAIN)),
        ),
        tiles(
            Head(3, "Heartbeat", "Seconds since a live process last gave a sign of progress.", (16, 0, 8, 4)),
            of_live(f"clamp_min(time() - {heartbeat}, 0)", "@worker"),
            unit="s",
            look=limited("heartbeat_age_seconds"),
        ),
        tiles(
            Head(
                4,
                "Restarts in 1 h",
                "How often this slot was refilled in the last hour, but for processes that had done their share.",
                (0, 4, 8, 4),
            ),
            restarts_in_1_hour("@worker"),
            unit="none",
            look=limited("restarts_in_1_hour"),
        ),
        last_exit_code(),
        tiles(
            Head(6, "Process id", "For use with kill, py-spy or gdb.", (16, 4, 8, 4)),
            f"max by ({WORKERS}) (conveyor_worker_pid{{@worker}})",
            unit="none",
            look=known((0, PLAIN)),
            decimals=0,
        ),
    ]


def tiles(head: Head, expr: str, *, unit: str, look: Json, colour: str = "value", **defaults: Any) -> Json:
    """One tile a worker, called by its name, in the order of the lanes below."""
    drawn = stat(head, now(named(expr)), unit=unit, look=look, colour=colour, letters=text_of(14, 26), **defaults)
    return row_by_row(drawn)


def over_time(expr: str, legend: str = "{{who}}") -> Query:
    return Query(named(expr), legend)


def last_exit_code() -> Json:
    about = "Exit code of the previous process in this slot; negative is the signal."
    code = f"max by ({WORKERS}) (conveyor_worker_last_exit_code{{@worker}})"
    # That no process has exited is known of a slot that there is; of one that there is not, nothing is.
    never = f"max by ({WORKERS}) (0 * conveyor_worker_up{{@worker}}) + {NEVER}"
    names = {
        NEVER: ("never exited", PLAIN),
        0: ("0 clean", "green"),
        -9: ("-9 SIGKILL", "red"),
        -15: ("-15 SIGTERM", "red"),
        -11: ("-11 SIGSEGV", "red"),
    }
    return tiles(
        Head(5, "Last exit code", about, (8, 4, 8, 4)),
        f"{code} or on ({WORKERS}) {never}",
        unit="none",
        look=stepped(PLAIN, [(-1000, "red"), (0, "green"), (1, "red")]),
        mappings=words(names),
    )


def life(y: int) -> Json:
    head = Head(
        STATE_OVER_TIME,
        "State over time",
        "States sampled at each scrape; a replacement is never missed.",
        (0, y, 24, 5),
    )
    return lanes(head, over_time(state_of_workers("@worker", over_time=True)), states())


def work(y: int) -> list[Json]:
    tasks = graph(
        Head(TASKS, "Tasks", "Tasks per second by this process.", (0, y, 8, 8)),
        over_time(f"sum by ({WORKERS}) ({PROCESSED})", "{{who}} processed"),
        over_time(
            f"sum by ({WORKERS}) (rate(conveyor_tasks_produced_total{{@worker}}[$__rate_interval]))",
            "{{who}} produced",
        ),
        over_time(
            f"sum by ({WORKERS}) (rate(conveyor_tasks_failed_total{{@worker}}[$__rate_interval]))",
            "{{who}} failed",
        ),
        unit=TASKS_PER_SECOND,
    )
    return [
        overridden(
            tasks,
            recolour("/.* processed/", LEAVING, "byRegexp"),
            recolour("/.* produced/", ENTERING, "byRegexp"),
            recolour("/.* failed/", FAILED, "byRegexp"),
        ),
        mean_time(y),
        graph(
            Head(10, "Share of time busy", "Part of the time inside a task.", (16, y, 8, 8)),
            over_time(f"sum by ({WORKERS}) ({BUSY})"),
            unit="percentunit",
            look=marked("consumer_busy_ratio", palette()),
            limits_as="area",
            highest=1,
        ),
    ]


def mean_time(y: int) -> Json:
    """Divide two counters: a histogram for each worker would cost 17 series more apiece."""
    its_busy = 'rate(conveyor_worker_busy_seconds_total{@worker,role="consumer"}[$__rate_interval])'
    all_busy = 'rate(conveyor_worker_busy_seconds_total{@all,role="consumer"}[$__rate_interval])'
    all_processed = "rate(conveyor_tasks_processed_total{@all}[$__rate_interval])"
    drawn = graph(
        Head(
            9,
            "Mean time per task",
            "Busy seconds divided by tasks. Compare with the dashed mean of all.",
            (8, y, 8, 8),
        ),
        over_time(f"sum by ({WORKERS}) ({its_busy}) / (sum by ({WORKERS}) ({PROCESSED}) > 0)"),
        Query(f"sum({all_busy}) / (sum({all_processed}) > 0)", "all consumers"),
        unit="s",
    )
    return overridden(drawn, dashed("all consumers"))


def resources(y: int) -> list[Json]:
    cpu = f"sum by ({WORKERS}) (rate(conveyor_worker_cpu_seconds_total{{@worker}}[$__rate_interval]))"
    return [
        graph(
            Head(11, "CPU", "Cores used; 100 % is one, the ceiling of one Python process.", (0, y, 8, 8)),
            over_time(cpu),
            unit="percentunit",
            look=marked("used_cores", palette()),
            limits_as="line",
        ),
        graph(
            Head(
                12,
                "Resident memory",
                "A saw-tooth ending at restarts is a leak that recycling hides.",
                (8, y, 8, 8),
            ),
            over_time(f"max by ({WORKERS}) (conveyor_worker_resident_memory_bytes{{@worker}})"),
            unit="bytes",
            look=marked("resident_memory_bytes", palette()),
            limits_as="line",
        ),
        graph(
            Head(13, "Open files", "File descriptors held open. Pipe ends leak here first.", (16, y, 8, 8)),
            over_time(f"max by ({WORKERS}) (conveyor_worker_open_fds{{@worker}})"),
            unit="none",
        ),
    ]


def trouble(y: int) -> list[Json]:
    abandoned = counted("conveyor_tasks_abandoned_total{@worker}", WORKERS)
    return [
        failures_by_reason("@worker", (0, y, 8, 7), 14, "Failed tasks of this process."),
        restarts_by_reason("@worker", (8, y, 8, 7), 15, "Processes of this slot that were replaced, and why."),
        # A panel of its own: a death and the task that was in its hands are one event, and no sum.
        counts(
            Head(16, "Abandoned tasks", "Tasks that were in hand when the process died.", (16, y, 8, 7)),
            over_time(abandoned),
        ),
    ]
