"""What a run looks like at one moment: frozen, with named fields, made by `Supervisor.statistics()`.

Everything that shows a run (exporter, `conveyor status`, live view, report) reads these and nothing else, so
they cannot disagree.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import signal
import types
import typing
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

MAX_DEATHS = 1000  # of which more is kept than a count; arbitrary
# A slot is filled again within 20 ms, between two looks of anybody. This is two scrapes of monitoring/prometheus: one
# of them may fail, and the death is still seen.
REPLACED_SECONDS = 10.0
_MAX_FLOAT = 1e11  # of what another process says: a time that has a date, within some thousand years
_MAX_INT = 2**63


class Role(enum.StrEnum):
    """The two kinds of worker."""

    PRODUCER = "producer"
    CONSUMER = "consumer"


class Phase(enum.StrEnum):
    """How far a run has come."""

    RUNNING = "running"
    DRAINING = "draining"  # producers are asked to stop; what is unfinished is still done
    STOPPING = "stopping"  # nothing is left to do, or no time to do it
    ENDED = "ended"


class Ending(enum.StrEnum):
    """How a run ended."""

    COMPLETE = "complete"
    """Every producer had finished and every task that was left could be done."""
    DRAINED = "drained"
    """Asked to stop, and nothing was left unfinished."""
    SUSPENDED = "suspended"
    """Asked to stop, and what was left is in the spool, for the next start."""
    EXPIRED = "expired"
    """Asked to stop, and there was no more time for what was left."""
    BROKEN = "broken"
    """It could not go on; `trouble` says why."""


class WorkerState(enum.StrEnum):
    """What a live worker does; a dead one has none."""

    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    BLOCKED = "blocked"
    STOPPING = "stopping"
    REPLACED = "replaced"  # it is idle, busy or blocked, and so young that the death before it is to be seen


class RestartReason(enum.StrEnum):
    """Why a process was replaced."""

    EXIT = "exit"
    SIGNAL = "signal"
    HEARTBEAT = "heartbeat"  # it was in one task for longer than a task may take
    RECYCLE = "recycle"  # it had done, or grown to, as much as one process may


class RedeliveryReason(enum.StrEnum):
    """Why a task was given to a consumer once more."""

    DEATH = "death"  # the one before died with it in hand
    TIMEOUT = "timeout"  # it took longer than it may, and was killed with its consumer
    ERROR = "error"  # its function raised
    RESTART = "restart"  # every process of an earlier run ended with it in hand; it was in the spool
    REQUEST = "request"  # it had been given up, and somebody asked for one more attempt


class Scaling(enum.StrEnum):
    """A change of the number of consumers while a run goes on."""

    UP = "up"
    DOWN = "down"


def how_ended(exit_code: int) -> str:
    """Return a process's exit code or signal, for people."""
    if exit_code >= 0:
        return f"exit code {exit_code}"
    try:
        return signal.Signals(-exit_code).name
    except ValueError:
        return f"signal {-exit_code}"


@dataclass(frozen=True, slots=True)
class Death:
    """How a process ended that was not finished. `task` and what follows it is of the task in its hands, if any."""

    slot: str
    exit_code: int
    """As Python has it: minus the number of the signal, if it was one."""
    at: float
    """Unix time."""
    lived_seconds: float
    was_ready: bool
    was_useful: bool
    """Whether it had finished, or put, a task."""
    memory_bytes: int | None
    """Resident, when it was last looked at: at most a second or so before."""
    stack: str
    """What `faulthandler` dumped, if it did."""
    in_task: bool = False
    task: str = ""
    """Its repr, cut; empty where the queue cannot tell."""
    attempt: int = 0
    task_seconds: float = 0.0
    is_lost: bool = False
    is_dead_letter: bool = False
    cause: RestartReason | None = None
    """Why the supervisor itself ended the process, if it did."""

    @property
    def reason(self) -> RestartReason:
        if self.cause is not None:
            return self.cause
        return RestartReason.SIGNAL if self.exit_code < 0 else RestartReason.EXIT

    @property
    def how(self) -> str:
        """The exit code or signal, for people."""
        how = how_ended(self.exit_code)
        if self.cause is RestartReason.HEARTBEAT:
            return f"{how}: its task took longer than the task timeout"
        return how


@dataclass(frozen=True, slots=True)
class SlotStatistics:
    """One worker slot. Counts are totals of all processes that were in it; times are in seconds."""

    name: str
    role: Role
    up: bool
    state: WorkerState | None
    finished: bool
    pid: int | None
    started_at: float | None
    """Unix time at which the present process was started."""
    heartbeat_at: float | None
    """Unix time of the last sign of progress."""
    produced: int
    processed: int
    failed: int
    in_progress: int
    abandoned: int
    """Tasks that were in hand when a process of this slot died."""
    busy_seconds: float
    blocked_seconds: float
    task_age_seconds: float | None
    task_seconds: float
    task_buckets: tuple[int, ...]
    wait_seconds: float
    wait_buckets: tuple[int, ...]
    restarts: Mapping[RestartReason, int]
    last_exit_code: int | None
    activity: WorkerState | None = None
    """What the process does, also while `state` tells that it was replaced."""


@dataclass(frozen=True, slots=True)
class SpoolStatistics:
    """The spool: what of the queue is on disk."""

    folder: str
    size_bytes: int
    """Of all its files."""
    tasks: int
    """Waiting tasks that are on disk alone, for lack of room in memory."""
    commits: int
    commit_seconds: float
    """Spent in all commits together."""
    trouble: str | None
    """Why nothing can be written now, if that is so."""
    is_gone: bool = False
    """It was removed while the run went on, so nothing of it outlives the run."""


@dataclass(frozen=True, slots=True)
class QueueStatistics:
    """The queue: all counts in tasks. `capacity` 0 means unbounded.

    `unfinished` is put and not done, so it still holds the `lost`: those that nobody can do any more.
    """

    name: str
    capacity: int
    waiting: int
    in_progress: int
    unfinished: int
    lost: int
    redelivered: int = 0
    """Deliveries that ended in a death, and were made again."""
    dead_lettered: int = 0
    """Tasks that were given up after their last attempt, because each consumer that had them died."""
    redeliveries: Mapping[RedeliveryReason, int] = field(default_factory=lambda: dict.fromkeys(RedeliveryReason, 0))
    """All deliveries that were made again, `redelivered` and those after an error, by the reason."""
    delayed: int = 0
    """Waiting tasks whose next attempt is put off for a while after an error."""
    dead_letters: int = 0
    """Tasks given up, for a death or an error, that are kept to be looked at."""
    oldest_waiting_seconds: float | None = None
    """For how long the task has waited that was put first, if one waits; None too from a queue that cannot tell."""
    is_paused: bool = False
    spool: SpoolStatistics | None = None


@dataclass(frozen=True, slots=True)
class RunStatistics:
    """A whole run."""

    name: str
    phase: Phase
    started_at: float
    elapsed_seconds: float
    start_method: str
    queue: QueueStatistics
    desired: Mapping[Role, int]
    """Slots of each role that should hold a process: all but those whose work is over."""
    consumers_least: int
    consumers_most: int
    """Within these bounds the number of consumers follows the backlog; they are equal where it is fixed."""
    scalings: Mapping[Scaling, int]
    """How often consumers were added, or taken away."""
    slots: tuple[SlotStatistics, ...]
    failures: Mapping[str, int]
    """Failed tasks by the class of their exception."""
    deaths: tuple[Death, ...]
    """The latest of them, at most `MAX_DEATHS`."""
    trouble: str | None
    """Why this run cannot end well, once that is known."""
    ending: Ending | None

    def total(self, count: str) -> int:
        """Return the sum over all slots of one of their counts: produced, processed, failed, abandoned."""
        return sum(getattr(slot, count) for slot in self.slots)

    def live(self, role: Role) -> int:
        """Return the number of live processes of a role."""
        return sum(slot.up for slot in self.slots if slot.role is role)


def from_plain(plain: dict[str, Any]) -> RunStatistics:
    """Return the statistics that `dataclasses.asdict` and JSON have flattened.

    Raises some exception, of any class, if they are none: what sent them may be no run at all.
    """
    slots = tuple(
        SlotStatistics(
            **slot
            | {
                "role": Role(slot["role"]),
                "state": WorkerState(slot["state"]) if slot["state"] else None,
                "activity": WorkerState(slot["activity"]) if slot["activity"] else None,
                "restarts": {RestartReason(reason): number for reason, number in slot["restarts"].items()},
                "task_buckets": tuple(slot["task_buckets"]),
                "wait_buckets": tuple(slot["wait_buckets"]),
            }
        )
        for slot in plain["slots"]
    )
    run = RunStatistics(
        **plain
        | {
            "phase": Phase(plain["phase"]),
            "queue": _queue_from_plain(plain["queue"]),
            "desired": {Role(role): number for role, number in plain["desired"].items()},
            "slots": slots,
            "scalings": {Scaling(direction): number for direction, number in plain["scalings"].items()},
            "deaths": tuple(map(_death_from_plain, plain["deaths"])),
            "ending": Ending(plain["ending"]) if plain["ending"] else None,
        }
    )
    if not is_sound(run, RunStatistics):
        raise TypeError("a field is not what it should be")
    return run


def is_sound(value: Any, annotation: Any) -> bool:
    """Return whether the value, and all that is in it, is what the annotation says, and can be drawn."""
    kind: Hashable = annotation
    match typing.get_origin(annotation):
        case types.UnionType:
            return value is None or any(is_sound(value, kind) for kind in typing.get_args(annotation))
        case origin if origin is tuple:
            return all(is_sound(part, typing.get_args(annotation)[0]) for part in value)
        case origin if origin is Mapping:
            keys, values = typing.get_args(annotation)
            return all(is_sound(key, keys) and is_sound(part, values) for key, part in value.items())
    if dataclasses.is_dataclass(annotation):
        return all(is_sound(getattr(value, name), hint) for name, hint in _hints(kind).items())
    if annotation is float:
        return type(value) in (int, float) and abs(value) < _MAX_FLOAT  # which is not so for what is no number
    if annotation is int:
        return type(value) is int and abs(value) < _MAX_INT
    return isinstance(value, annotation)


@functools.cache
def _hints(kind: Hashable) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _queue_from_plain(plain: dict[str, Any]) -> QueueStatistics:
    return QueueStatistics(
        **plain
        | {
            "redeliveries": {RedeliveryReason(reason): number for reason, number in plain["redeliveries"].items()},
            "spool": SpoolStatistics(**plain["spool"]) if plain["spool"] else None,
        }
    )


def _death_from_plain(plain: dict[str, Any]) -> Death:
    return Death(**plain | {"cause": RestartReason(plain["cause"]) if plain["cause"] else None})
