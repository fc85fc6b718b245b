"""The second dashboard: one worker slot, or several side by side.

Called by `generate`. The Worker variable chooses; each series is one worker, so no panel is repeated.
"""

from __future__ import annotations

from frame import dashboard, worker_variable
from looks import (
    ENTERING,
    FAILED,
    LEAVING,
    Json,
    dashed,
    limited,
    marked,
    palette,
    plain,
    recolour,
    states,
    stepped,
    words,
)
from panels import Head, Query, counts, graph, lanes, overridden, stat
from promql import state_of_workers

BUSY = "rate(conveyor_worker_busy_seconds_total{@worker}[$__rate_interval])"
PROCESSED = "rate(conveyor_tasks_processed_total{@worker}[$__rate_interval])"


def board() -> Json:
    about = "One worker slot: what its process does, needs and suffers. Choose several to compare them."
    panels = [*head(), life(), *work(), *resources(), *trouble()]
    return dashboard("conveyor-worker", "Conveyor / Worker", about, panels, worker_variable())


def head() -> list[Json]:
    heartbeat = "max by (worker) (conveyor_worker_last_heartbeat_timestamp_seconds{@worker})"
    return [
        stat(
            Head(1, "State", "What the process does now.", (0, 0, 4, 4)),
            Query(state_of_workers("@worker"), "{{worker}}"),
            unit="none",
            look=states(),
            colour="background",
        ),
        stat(
            Head(
                2,
                "Up for",
                "Time since the process was started. Short means it has been replaced.",
                (4, 0, 4, 4),
            ),
            now("time() - max by (worker) (conveyor_worker_start_time_seconds{@worker})"),
            unit="s",
            look=limited("up_seconds", "red"),
        ),
        stat(
            Head(3, "Heartbeat", "Seconds since the last sign of progress.", (8, 0, 4, 4)),
            now(f"clamp_min(time() - {heartbeat}, 0)"),
            unit="s",
            look=limited("heartbeat_age_seconds"),
        ),
        stat(
            Head(
                4,
                "Restarts in 1 h",
                "How often this slot was refilled in the last hour, but for processes that had done their share.",
                (12, 0, 4, 4),
            ),
            now('round(sum by (worker) (increase(conveyor_worker_restarts_total{@worker,reason!="recycle"}[1h])))'),
            unit="none",
            look=limited("restarts_in_1_hour"),
        ),
        last_exit_code(),
        stat(
            Head(6, "Process id", "For use with kill, py-spy or gdb.", (20, 0, 4, 4)),
            now("max by (worker) (conveyor_worker_pid{@worker})"),
            unit="none",
            look=plain(),
            decimals=0,
        ),
    ]


def now(expr: str) -> Query:
    return Query(expr, "{{worker}}", instant=True)


def last_exit_code() -> Json:
    names = words(
        {
            0: ("0 clean", "green"),
            -9: ("-9 SIGKILL", "red"),
            -15: ("-15 SIGTERM", "red"),
            -11: ("-11 SIGSEGV", "red"),
        }
    )
    about = "Exit code of the previous process in this slot; negative is the signal."
    return stat(
        Head(5, "Last exit code", about, (16, 0, 4, 4)),
        now("max by (worker) (conveyor_worker_last_exit_code{@worker})"),
        unit="none",
        look=stepped("red", [(0, "green"), (1, "red")]),
        mappings=names,
        noValue="never exited",
    )


def life() -> Json:
    head = Head(7, "State over time", "States sampled at each scrape.", (0, 4, 24, 5))
    return lanes(head, Query(state_of_workers("@worker"), "{{worker}}"), states())


def work() -> list[Json]:
    tasks = graph(
        Head(8, "Tasks", "Tasks per second by this process.", (0, 9, 8, 8)),
        Query(f"sum by (worker) ({PROCESSED})", "{{worker}} processed"),
        Query(
            "sum by (worker) (rate(conveyor_tasks_produced_total{@worker}[$__rate_interval]))",
            "{{worker}} produced",
        ),
        Query(
            "sum by (worker) (rate(conveyor_tasks_failed_total{@worker}[$__rate_interval]))",
            "{{worker}} failed",
        ),
        unit="ops",
    )
    return [
        overridden(
            tasks,
            recolour("/.* processed/", LEAVING, "byRegexp"),
            recolour("/.* produced/", ENTERING, "byRegexp"),
            recolour("/.* failed/", FAILED, "byRegexp"),
        ),
        mean_time(),
        graph(
            Head(10, "Share of time busy", "Part of the time inside a task.", (16, 9, 8, 8)),
            Query(f"sum by (worker) ({BUSY})", "{{worker}}"),
            unit="percentunit",
            look=marked("consumer_busy_ratio", palette()),
            limits_as="area",
            highest=1,
        ),
    ]


def mean_time() -> Json:
    """Divide two counters: a histogram for each worker would cost 17 series more apiece."""
    its_busy = 'rate(conveyor_worker_busy_seconds_total{@worker,role="consumer"}[$__rate_interval])'
    all_busy = 'rate(conveyor_worker_busy_seconds_total{@all,role="consumer"}[$__rate_interval])'
    all_processed = "rate(conveyor_tasks_processed_total{@all}[$__rate_interval])"
    drawn = graph(
        Head(
            9,
            "Mean time per task",
            "Busy seconds divided by tasks. Compare with the dashed mean of all.",
            (8, 9, 8, 8),
        ),
        Query(f"sum by (worker) ({its_busy}) / (sum by (worker) ({PROCESSED}) > 0)", "{{worker}}"),
        Query(f"sum({all_busy}) / (sum({all_processed}) > 0)", "all consumers"),
        unit="s",
    )
    return overridden(drawn, dashed("all consumers"))


def resources() -> list[Json]:
    cpu = "sum by (worker) (rate(conveyor_worker_cpu_seconds_total{@worker}[$__rate_interval]))"
    return [
        graph(
            Head(11, "CPU", "Cores used; 100 % is one, the ceiling of one Python process.", (0, 17, 8, 8)),
            Query(cpu, "{{worker}}"),
            unit="percentunit",
            look=marked("used_cores", palette()),
            limits_as="line",
        ),
        graph(
            Head(
                12,
                "Resident memory",
                "A saw-tooth ending at restarts is a leak that recycling hides.",
                (8, 17, 8, 8),
            ),
            Query("max by (worker) (conveyor_worker_resident_memory_bytes{@worker})", "{{worker}}"),
            unit="bytes",
            look=marked("resident_memory_bytes", palette()),
            limits_as="line",
        ),
        graph(
            Head(13, "Open files", "File descriptors held open. Pipe ends leak here first.", (16, 17, 8, 8)),
            Query("max by (worker) (conveyor_worker_open_fds{@worker})", "{{worker}}"),
            unit="none",
        ),
    ]


def trouble() -> list[Json]:
    failures = "sum by (reason) (increase(conveyor_tasks_failed_total{@worker}[$__rate_interval]))"
    restarts = "sum by (reason) (increase(conveyor_worker_restarts_total{@worker}[$__rate_interval]))"
    abandoned = "sum(increase(conveyor_tasks_abandoned_total{@worker}[$__rate_interval]))"
    return [
        counts(
            Head(14, "Failures by reason", "Failed tasks of this process.", (0, 25, 12, 7)),
            Query(failures, "{{reason}}"),
        ),
        overridden(
            counts(
                Head(
                    15,
                    "Restarts and abandoned tasks",
                    "Restarts, and tasks in hand when the process died.",
                    (12, 25, 12, 7),
                ),
                Query(restarts, "restart: {{reason}}"),
                Query(abandoned, "abandoned tasks"),
            ),
            recolour("restart: signal", FAILED),
            recolour("restart: exit", "orange"),
            recolour("restart: heartbeat", "purple"),
            recolour("restart: recycle", "blue"),
            recolour("abandoned tasks", "dark-red"),
        ),
    ]
