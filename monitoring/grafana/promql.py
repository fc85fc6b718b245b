"""PromQL: the selectors that every query carries, and the expressions that several panels share.

Called by `panels`, `frame` and the boards. A selector is written with a macro, `conveyor_queue_size{@queue}`,
and `panels.target` expands it.
"""

from __future__ import annotations

from looks import STATES

# Every selector names job and instance, so that one of several pipelines can be chosen.
EVERYTHING = 'job=~"$job",instance=~"$instance"'
MACROS = {
    "@all": EVERYTHING,
    "@queue": EVERYTHING + ',queue=~"$queue"',
    "@worker": EVERYTHING + ',worker=~"$worker"',
}

PRODUCED = "sum(rate(conveyor_tasks_produced_total{@queue}[$__rate_interval]))"
PROCESSED = "sum(rate(conveyor_tasks_processed_total{@queue}[$__rate_interval]))"
FAILED_TASKS = "sum(rate(conveyor_tasks_failed_total{@queue}[$__rate_interval]))"
WAITING_TASKS = "sum(conveyor_queue_size{@queue})"
UNFINISHED_TASKS = "sum(conveyor_queue_unfinished_tasks{@queue})"
FILL = "conveyor_queue_size{@queue} / (conveyor_queue_capacity{@queue} > 0)"


def expand(expr: str) -> str:
    """Replace the macros of an expression by their matchers."""
    for macro, matchers in MACROS.items():
        expr = expr.replace(macro, matchers)
    return expr


def state_of_workers(macro: str) -> str:
    """Return the expression of each worker's state: its place in STATES, 0 for a dead one.

    A slot that has no conveyor_worker_up needs no process, as one whose consumer was scaled away: it is not dead.
    """
    numbered = reversed([(number, name) for number, (name, _) in enumerate(STATES) if number > 0])
    terms = [f'{number} * conveyor_worker_state{{{macro},state="{name}"}}' for number, name in numbered]
    slots = f"conveyor_worker_up{{{macro}}}"
    return "max by (worker) (\n  (\n    " + "\n or ".join(terms) + f"\n  ) and on (job, instance, worker) {slots}\n)"


def quantile(share: float, phase: str) -> str:
    buckets = f"conveyor_task_{phase}_duration_seconds_bucket{{@queue}}"
    return f"histogram_quantile({share:.2f}, sum by (le) (rate({buckets}[$__rate_interval])))"


def not_nan(expr: str) -> str:
    """Drop NaN, which no comparison holds for, so that an idle pipeline shows its noValue."""
    return f"{expr} >= 0"
