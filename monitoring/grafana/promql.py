"""PromQL: the selectors that every query carries, and the expressions that several panels share.

Called by `panels`, `frame` and the boards. A selector is written with a macro, `conveyor_queue_size{@queue}`,
and `panels.target` expands it.
"""

from __future__ import annotations

from looks import IDLE, NONE_DONE_YET, PAUSED, STALLED, STATES

# Every selector names job and instance, so that one of several pipelines can be chosen.
EVERYTHING = 'job=~"$job",instance=~"$instance"'
MACROS = {
    "@all": EVERYTHING,
    "@queue": EVERYTHING + ',queue=~"$queue"',
    "@worker": EVERYTHING + ',worker=~"$worker"',
    # What absent() makes has no instance: such an alert concerns every one.
    "@alerts": 'job=~"$job|",instance=~"$instance|"',
}

# Of two pipelines, each has its consumer-1: what is summed by worker is summed by these.
WORKERS = "job, instance, worker"
QUEUES = "job, instance, queue"

PRODUCED = "sum(rate(conveyor_tasks_produced_total{@queue}[$__rate_interval]))"
PROCESSED = "sum(rate(conveyor_tasks_processed_total{@queue}[$__rate_interval]))"
FAILED_TASKS = "sum(rate(conveyor_tasks_failed_total{@queue}[$__rate_interval]))"
WAITING_TASKS = "sum(conveyor_queue_size{@queue})"
UNFINISHED_TASKS = "sum(conveyor_queue_unfinished_tasks{@queue})"
FILL = "conveyor_queue_size{@queue} / (conveyor_queue_capacity{@queue} > 0)"
DEATHS = 'conveyor_worker_restarts_total{@all,reason!="recycle"}'

FIRING = 'alertname=~"Conveyor.+",alertstate="firing",@alerts'
# Always there while rules are evaluated. Without it, that no alert fires says nothing.
WATCHDOG = 'count(ALERTS{alertname="Watchdog",alertstate="firing"})'


def expand(expr: str) -> str:
    """Replace the macros of an expression by their matchers."""
    for macro, matchers in MACROS.items():
        expr = expr.replace(macro, matchers)
    return expr


# -- workers -----------------------------------------------------------------------------------------------


def state_of_workers(macro: str, *, over_time: bool = False) -> str:
    """Return the expression of each worker's state: its place in STATES, 0 for a dead one.

    A slot that has no conveyor_worker_up needs no process, as one whose consumer was scaled away: it is not dead.
    `over_time` is for a graph, in which a sign that is short must not fall between two points.
    """
    numbers = {name: number for number, (name, _) in enumerate(STATES)}
    told = {name: f'conveyor_worker_state{{{macro},state="{name}"}}' for name in numbers}
    if over_time:
        told["replaced"] = replaced_since_the_point_before(told["replaced"], macro)
    told["finished"] = over(macro)
    terms = [f"{number} * {told[name]}" for name, number in reversed(numbers.items()) if name != "down"]
    slots = f"conveyor_worker_up{{{macro}}}"
    return f"max by ({WORKERS}) (\n  (\n    " + "\n or ".join(terms) + f"\n  ) and on ({WORKERS}) {slots}\n)"


def replaced_since_the_point_before(told: str, macro: str) -> str:
    """Return 1 for each worker that was replaced since then.

    By its state at any scrape, or at the last one, where scrapes come late and none lies between; or, where they are
    so rare that they miss the state, by the count of its deaths.
    """
    deaths = counted(f'conveyor_worker_restarts_total{{{macro},reason!="recycle"}}', WORKERS)
    return f"(max_over_time({told}[$__interval]) or {told} or {deaths} > bool 0)"


def over(macro: str) -> str:
    """Return 1 for each slot without a process in a role that misses none: its work is over, it did not die."""
    roles = "job, instance, role"
    missing = f"conveyor_workers_desired{{@all}} - on ({roles}) sum by ({roles}) (conveyor_worker_up{{@all}})"
    return f"(conveyor_worker_up{{{macro}}} == bool 0) and on ({roles}) ({missing} <= 0)"


def of_slots(expr: str, macro: str = "@all") -> str:
    """Keep the slots that there are: what is taken over a time outlives them, and the exporter, by that time."""
    return f"{expr} and on ({WORKERS}) conveyor_worker_up{{{macro}}}"


def of_live(expr: str, macro: str = "@all") -> str:
    """Keep the workers that live: of a finished one, the last sign of life only grows older."""
    return f"{of_slots(expr, macro)} > 0"


def restarts_in_1_hour(macro: str) -> str:
    """Count the deaths of each worker: exactly, unless the whole run began anew meanwhile.

    Of a run that is some minutes old, increase() makes 32 of 30; but it counts on when the counter begins anew.
    """
    restarts = f'conveyor_worker_restarts_total{{{macro},reason!="recycle"}}'
    exact = f"{restarts} - min_over_time({restarts}[1h]) unless resets({restarts}[1h]) > 0"
    return of_slots(f"sum by ({WORKERS}) ({exact} or round(increase({restarts}[1h])))", macro)


# -- several pipelines, many workers -----------------------------------------------------------------------


def called(expr: str, what: str = "worker") -> str:
    """Give each series a label more, `who`: its name, with the instance where there is more than one.

    `what` is the label that tells the series of one pipeline apart. The expression keeps job and instance.
    """
    build = "conveyor_build_info{@all}"
    several = f'label_replace({build}, "where", " @ $1", "instance", "(.+)") and on () (count({build}) > 1)'
    placed = f"({expr}) * on (job, instance) group_left (where) ({several} or on (job, instance) {build})"
    return f'label_join({placed}, "who", "", "{what}", "where")'


def named(expr: str, what: str = "worker") -> str:
    """Give each series two labels more: `who` to call it, and `order` to sort by.

    In it, 10 comes after 3, for numbers are filled with zeros.
    """
    ordered = f'label_join({called(expr, what)}, "order", "", "{what}")'
    for digits, zeros in ((1, "00"), (2, "0")):
        ordered = f'label_replace({ordered}, "order", "$1 {zeros}$2", "{what}", "(.*[^0-9])([0-9]{{{digits}}})")'
    return f'label_join({ordered}, "order", " ", "where", "order")'


# -- events ------------------------------------------------------------------------------------------------


def counted(counter: str, by: str = "") -> str:
    """Return how often something happened since the point before: each event in one point alone, and as a whole.

    An increase() over $__rate_interval, which is longer than the distance of two points, counts some events twice;
    over $__interval it misses those between two windows; and either makes fractions.
    """
    grouped = f"sum by ({by})" if by else "sum"
    return f"{grouped} (clamp_min({counter} - ({counter} offset $__interval), 0))"


def events(counter: str, by: str) -> str:
    """Return a point for each event, of those marks that are drawn where the value is above 0."""
    return f"sum by ({by}) ({counter} - ({counter} offset $__interval)) > 0"


def begun(series: str) -> str:
    """Return a point where a series begins."""
    return f"{series} unless {series} offset $__interval"


# -- times and shares --------------------------------------------------------------------------------------


def quantile(share: float, phase: str) -> str:
    buckets = f"conveyor_task_{phase}_duration_seconds_bucket{{@queue}}"
    return f"histogram_quantile({share:.2f}, sum by (le) (rate({buckets}[$__rate_interval])))"


def mean(phase: str) -> str:
    seconds, tasks = (f"conveyor_task_{phase}_duration_seconds_{part}{{@queue}}" for part in ("sum", "count"))
    return f"sum(rate({seconds}[$__rate_interval])) / (sum(rate({tasks}[$__rate_interval])) > 0)"


def if_known(expr: str) -> str:
    """Drop the value with the exporter: a rate lasts for its window longer than what it is the rate of."""
    return f"({expr}) and on () count(conveyor_build_info{{@all}})"


def not_nan(expr: str) -> str:
    """Drop NaN, which no comparison holds for."""
    return f"{expr} >= 0"


def or_why_not(expr: str) -> str:
    """Return the expression or, where there is nothing to measure, the number of the word that says why.

    Nothing at all where nothing is known: before the second scrape, and when the exporter is gone.
    """
    return if_known(f"{not_nan(expr)}\nor {stalled()}\nor {waiting_for_work()}")


def backlog_seconds() -> str:
    """Return the time that the slowest queue needs for what it has, or why it has none; one that stands comes first."""
    unfinished = f"sum by ({QUEUES}) (conveyor_queue_unfinished_tasks{{@queue}})"
    seconds = f"max({unfinished} / ({_speed()} > 0))"
    return if_known(f"{stalled()}\nor {seconds}\nor {waiting_for_work()}")


def stalled() -> str:
    """Return STALLED, or PAUSED, if any queue has tasks that could be done, and none is.

    Not while consumers are in tasks that are long: until two minutes have passed, as with ConveyorStalled.
    """
    in_hand = f"sum by ({QUEUES}) (conveyor_tasks_in_progress{{@queue}}) == 0"
    none_for_long = f"sum by ({QUEUES}) (increase(conveyor_tasks_processed_total{{@queue}}[2m])) == 0"
    stands = f"{_none_done()} and on ({QUEUES}) (({in_hand}) or ({none_for_long}))"
    pause = "conveyor_queue_paused{@queue} > 0"
    return f"max(0 * ({stands} unless on ({QUEUES}) ({pause})) + {STALLED})\nor max(0 * ({stands}) + {PAUSED})"


def waiting_for_work() -> str:
    """Return NONE_DONE_YET if there are tasks, or IDLE if there are none that could be done."""
    return f"max(0 * ({_none_done()}) + {NONE_DONE_YET})\nor max(0 * ({_speed()} == 0) + {IDLE})"


def _none_done() -> str:
    """Return the tasks of each queue that could be done, where none is; those that are put off cannot."""
    ready = "conveyor_queue_unfinished_tasks{@queue} - conveyor_tasks_delayed{@queue} > 0"
    return f"({ready}) and on ({QUEUES}) ({_speed()} == 0)"


def _speed() -> str:
    return f"sum by ({QUEUES}) (rate(conveyor_tasks_processed_total{{@queue}}[$__rate_interval]))"
