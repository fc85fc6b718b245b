"""What the page says of a run: words and figures, ready to be shown. Pure, built anew for each look.

The words are those of the terminal's picture (`picture.py`). `index` writes them into the document, and the script in
the document, which gets them as JSON, into the same places: so each is put into words once, here.
"""

from __future__ import annotations

import collections
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from conveyor import __version__
from conveyor.exporter.rates import Since, tasks
from conveyor.obituaries import MAX_SHOWN_DEATHS, Obituary, obituaries
from conveyor.snapshot import Ending, Phase, Role, RunStatistics, SlotStatistics
from conveyor.wording import brief, duration, encodable, iso

DOWN, FINISHED = "down", "finished"  # what a worker without a process is called; with one, its state

_PHASES = {
    Phase.RUNNING: "",
    Phase.DRAINING: "Producers are asked to stop; what is unfinished is still done.",
    Phase.STOPPING: "Nothing is left to do, or no time to do it.",
}
_ENDINGS = {
    Ending.COMPLETE: "Every producer had finished and every task that was left could be done.",
    Ending.DRAINED: "It was asked to stop, and nothing was left unfinished.",
    Ending.SUSPENDED: "It was asked to stop, and what was left is in the spool, for the next start.",
    Ending.EXPIRED: "It was asked to stop, and there was no more time for what was left.",
    Ending.BROKEN: "It could not go on.",
}


@dataclass(frozen=True, slots=True)
class Notice:
    """What somebody should know now."""

    tone: str
    """`bad` or `warn`."""
    label: str
    text: str


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of the run."""

    tone: str
    """`bad` for one that had better be 0; else empty."""
    label: str
    value: str
    detail: str
    bar: float | None
    """A share from 0 to 1, drawn below; None for what is no share."""


@dataclass(frozen=True, slots=True)
class Worker:
    """One line of the table; an empty word is left out."""

    tone: str
    """As the state."""
    name: str
    role: str
    state: str
    pid: str
    tasks: str
    rate: str
    task: str
    """In progress, and for how long."""
    busy: str
    share: float | None
    """As `busy`, from 0 to 1; None for a worker that is down or finished."""
    failed: str
    restarts: str
    exit: str


@dataclass(frozen=True, slots=True)
class Overview:
    """The whole page. Times are ISO 8601, in UTC."""

    identity: str
    """Another one is another run, or another version of this page."""
    name: str
    phase: str
    comment: str
    """What the phase means, where that is not plain."""
    queue: str
    started: str
    elapsed: str
    notices: Sequence[Notice]
    figures: Sequence[Figure]
    deaths: Sequence[Obituary]
    """The latest first."""
    other_deaths: str
    workers: Sequence[Worker]
    crowd: str
    """How many workers are in which state."""


def overview(run: RunStatistics, since: Since, unhealthy: str | None, unready: str | None) -> Overview:
    """Return what there is to say of a run, with what `/healthz` and `/readyz` complain of, if they do."""
    workers = [_worker(slot, since) for slot in run.slots]
    return Overview(
        identity=f"{run.started_at:.3f} {__version__}",
        name=encodable(run.name),
        phase=run.phase.value,
        comment=_ENDINGS[run.ending] if run.ending is not None else _PHASES.get(run.phase, ""),
        queue=run.queue.name,
        started=iso(run.started_at),
        elapsed=duration(run.elapsed_seconds),
        notices=_notices(run, unhealthy, unready),
        figures=[*_figures(run, since), *_troubles(run, workers)],
        deaths=obituaries(run.deaths[-MAX_SHOWN_DEATHS:]),
        other_deaths=_other_deaths(run),
        workers=workers,
        crowd=_crowd(workers),
    )


def _notices(run: RunStatistics, unhealthy: str | None, unready: str | None) -> list[Notice]:
    spool_trouble = run.queue.spool.trouble if run.queue.spool is not None else None
    known = run.trouble or spool_trouble
    said = [
        Notice("bad", "Not healthy", unhealthy) if unhealthy else None,
        Notice("bad", "Trouble", encodable(run.trouble)) if run.trouble else None,
        Notice("bad", "Spool", encodable(spool_trouble)) if spool_trouble else None,
        Notice("warn", "Paused", "No more tasks are begun until it is resumed.") if run.queue.is_paused else None,
        # While it drains or stops, that is the reason, and the phase says it.
        Notice("warn", "Not ready", unready) if unready and run.phase is Phase.RUNNING and not known else None,
    ]
    return [notice for notice in said if notice]


# -- the figures -------------------------------------------------------------------------------------------


def _figures(run: RunStatistics, since: Since) -> list[Figure]:
    queue = run.queue
    produced, processed = run.total("produced"), run.total("processed")
    is_all = all(slot.finished for slot in run.slots if slot.role is Role.PRODUCER)
    live, desired = sum(run.live(role) for role in Role), sum(run.desired.values())
    roles = ", ".join(f"{run.live(role):,} of {run.desired.get(role, 0):,} {role}s" for role in Role)
    room = f"waiting, of at most {queue.capacity:,}" if queue.capacity else "waiting, without bound"
    share = min(1.0, queue.waiting / queue.capacity) if queue.capacity else None
    return [
        Figure("", "Queue size", f"{queue.waiting:,}", room, share),
        Figure("", "Unfinished tasks", f"{queue.unfinished:,}", "put and not done", None),
        Figure("", "Live processes", f"{live:,} of {desired:,}", roles, None),
        Figure("", "Produced", f"{produced:,}", _rate(run, since, Role.PRODUCER), None),
        Figure(
            "",
            "Processed",
            f"{processed:,}",
            f"{_rate(run, since, Role.CONSUMER)}, {'of all' if is_all else 'so far'}",
            processed / produced if produced else None,
        ),
    ]


def _troubles(run: RunStatistics, workers: Sequence[Worker]) -> list[Figure]:
    queue = run.queue
    classes = sorted(run.failures.items(), key=lambda item: -item[1])
    errors = ", ".join(f"{encodable(name)} {number:,}" for name, number in classes[:3])
    found = [
        ("Failed", run.total("failed"), errors or "tasks that raised an error"),
        ("Redelivered", queue.redelivered, "given again after a death"),
        ("Dead letters", queue.dead_lettered, "given up after the last attempt"),
        ("Dead letters kept", queue.dead_letters, "to be looked at, and done again or dropped"),
        ("Lost", queue.lost, "nobody can do them any more"),
        ("Down", sum(worker.state == DOWN for worker in workers), "slots without a process"),
    ]
    return [Figure("bad", label, f"{number:,}", detail, None) for label, number, detail in found if number]


def _rate(run: RunStatistics, since: Since, role: Role) -> str:
    return f"{brief(sum(since.rate(slot) for slot in run.slots if slot.role is role))} a second"


def _other_deaths(run: RunStatistics) -> str:
    number = len(run.deaths) - MAX_SHOWN_DEATHS
    return f"and {number:,} before" if number > 0 else ""


# -- the workers -------------------------------------------------------------------------------------------


def _worker(slot: SlotStatistics, since: Since) -> Worker:
    state = slot.state.value if slot.state is not None else FINISHED if slot.finished else DOWN
    share = round(since.busy(slot), 2)
    return Worker(
        tone=state,
        name=encodable(slot.name),
        role=slot.role.value,
        state=state,
        pid=str(slot.pid or ""),
        tasks=f"{tasks(slot):,}",
        rate=brief(since.rate(slot)) if slot.up else "",
        task=_in_task(slot),
        busy=f"{share:.0%}" if slot.up else "",
        share=share if slot.up else None,
        failed=f"{slot.failed:,}" if slot.failed else "",
        restarts=str(sum(slot.restarts.values()) or ""),
        exit=_exit(slot.last_exit_code),
    )


def _in_task(slot: SlotStatistics) -> str:
    if slot.task_age_seconds is None:
        return ""
    many = f"{slot.in_progress:,}, " if slot.in_progress > 1 else ""
    return f"{many}{slot.task_age_seconds:,.1f} s"


def _exit(code: int | None) -> str:
    if code is None or code >= 0:
        return "" if code is None else f"code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def _crowd(workers: Sequence[Worker]) -> str:
    states = collections.Counter(worker.state for worker in workers)
    return ", ".join(f"{number:,} {state}" for state, number in states.most_common())
