"""The last deaths, explained to people: how each worker died, with what in hand, and what became of that. Pure."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass

from conveyor.snapshot import Death
from conveyor.wording import duration, encodable, iso

MAX_SHOWN_DEATHS = 5  # the latest; all are in the report and in the log

_MEANINGS = {
    -signal.SIGKILL: "SIGKILL mostly comes from outside: by hand, or from the kernel when memory is short.",
    -signal.SIGTERM: "SIGTERM comes from outside: somebody asked it to end.",
    -signal.SIGINT: "SIGINT comes from outside: somebody interrupted it.",
    -signal.SIGSEGV: "SIGSEGV is a crash in C code.",
    -signal.SIGBUS: "SIGBUS is a crash in C code, or a disk or shared memory that is full.",
    -signal.SIGABRT: "SIGABRT is how C code ends itself after a fatal error.",
    0: "Exit code 0 in the middle of its work is a death, too.",
}


@dataclass(frozen=True, slots=True)
class Obituary:
    """One death, explained."""

    slot: str
    how: str
    at: str
    task: str
    """The repr of the task in its hands, cut; empty if it had none, or nobody can tell."""
    story: str


def obituaries(deaths: Sequence[Death]) -> list[Obituary]:
    """Return the last first; what an exit code means is said where it first comes."""
    meanings = dict(_MEANINGS)
    return [_obituary(death, meanings.pop(death.exit_code, "")) for death in reversed(deaths)]


def _obituary(death: Death, meaning: str) -> Obituary:
    story = " ".join([*_story(death), meaning]).rstrip()
    return Obituary(encodable(death.slot), death.how, iso(death.at), encodable(death.task), story)


def _story(death: Death) -> list[str]:
    lived = f"lived {duration(death.lived_seconds)}"
    memory = f", with {death.memory_bytes / 2**20:,.0f} MiB" if death.memory_bytes else ""
    if death.in_task:
        said = [f"In its task for {death.task_seconds:,.2f} s, attempt {death.attempt}; {lived}{memory}.", _fate(death)]
    elif death.was_ready:
        said = [f"No task in hand; {lived}{memory}."]
    else:
        said = [f"It died before it was ready; {lived}{memory}."]
    if death.stack:
        first, *_ = death.stack.strip().splitlines() or [""]
        said.append(f"It said “{encodable(first)}”; the log has its stack.")
    return said


def _fate(death: Death) -> str:
    if death.is_lost:
        return "The task is lost."
    return "The task was given up: a dead letter." if death.is_dead_letter else "The task is given again."
