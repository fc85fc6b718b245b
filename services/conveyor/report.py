"""What a run came to: the value of `Pipeline.run()`, and the file that `--report` writes."""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from conveyor.errors import FAULT_EXIT_CODE
from conveyor.snapshot import Death, Ending, RunStatistics


class ExitCode(enum.IntEnum):
    """The exit codes of the command line."""

    DONE = 0
    TASKS_FAILED = 1
    USAGE = 2
    BROKEN = 3
    UNFINISHED = 4
    FAULT = FAULT_EXIT_CODE


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """One slot's part of the work."""

    name: str
    role: str
    produced: int
    processed: int
    failed: int
    abandoned: int
    busy_seconds: float
    blocked_seconds: float
    restarts: int
    last_exit_code: int | None


@dataclass(frozen=True, slots=True)
class Report:
    """A finished run, in tasks and seconds."""

    name: str
    queue: str
    ending: Ending
    exit_code: ExitCode
    produced: int
    processed: int
    """Tasks finished, failed ones included."""
    failed: int
    failures: Mapping[str, int]
    """Failed tasks by the class of their exception; together as many as `failed`, over deaths and restarts too.

    Each slot tells ten classes apart; the tasks of more of them are counted together, as "(others)".
    """
    redelivered: int
    dead_lettered: int
    lost: int
    """Tasks that were put and that nobody could do any more, because a worker died with them."""
    unfinished: int
    """Tasks that were put and not done: the lost ones, and those for which there was no time."""
    restarts: int
    elapsed_seconds: float
    trouble: str | None
    deaths: tuple[Death, ...]
    """Every worker process that died: how, when, and what it had in hand; at most the latest thousand."""
    workers: tuple[WorkerReport, ...]

    @classmethod
    def of(cls, run: RunStatistics) -> Report:
        """Sum up a run that has ended."""
        assert run.ending is not None
        return cls(
            name=run.name,
            queue=run.queue.name,
            ending=run.ending,
            exit_code=_exit_code(run),
            produced=run.total("produced"),
            processed=run.total("processed"),
            failed=run.total("failed"),
            failures=run.failures,
            redelivered=run.queue.redelivered,
            dead_lettered=run.queue.dead_lettered,
            lost=run.queue.lost,
            unfinished=run.queue.unfinished,
            restarts=sum(sum(slot.restarts.values()) for slot in run.slots),
            elapsed_seconds=round(run.elapsed_seconds, 3),
            trouble=run.trouble,
            deaths=run.deaths,
            workers=tuple(
                WorkerReport(
                    name=slot.name,
                    role=slot.role,
                    produced=slot.produced,
                    processed=slot.processed,
                    failed=slot.failed,
                    abandoned=slot.abandoned,
                    busy_seconds=round(slot.busy_seconds, 6),
                    blocked_seconds=round(slot.blocked_seconds, 6),
                    restarts=sum(slot.restarts.values()),
                    last_exit_code=slot.last_exit_code,
                )
                for slot in run.slots
            ),
        )

    @classmethod
    def of_nothing(cls, name: str) -> Report:
        """Return the report of a run that was asked to stop before it began."""
        return cls(
            name=name,
            queue="",
            ending=Ending.DRAINED,
            exit_code=ExitCode.DONE,
            produced=0,
            processed=0,
            failed=0,
            failures={},
            redelivered=0,
            dead_lettered=0,
            lost=0,
            unfinished=0,
            restarts=0,
            elapsed_seconds=0.0,
            trouble=None,
            deaths=(),
            workers=(),
        )

    def write(self, path: Path) -> None:
        """Store the report as one JSON object."""
        text = json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False)
        # What UTF-8 cannot hold, as part of a name perhaps, becomes an escape that JSON reads.
        path.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


def _exit_code(run: RunStatistics) -> ExitCode:
    if run.ending is Ending.EXPIRED and run.queue.unfinished > run.queue.lost:
        return ExitCode.UNFINISHED
    if run.trouble or run.queue.lost or run.ending is Ending.BROKEN:
        return ExitCode.BROKEN
    if (run.total("failed") or run.queue.dead_lettered) and run.ending is Ending.COMPLETE:
        return ExitCode.TASKS_FAILED
    return ExitCode.DONE
