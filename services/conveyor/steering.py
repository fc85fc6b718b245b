"""What can be asked of a run over its control socket: one table.

A request is one line, a word and what belongs to it; the answer is one JSON object. It has `ok`, or `error` with the
exit code that the client should leave with. Called in the supervisor's loop, so none may take long.
"""

from __future__ import annotations

import dataclasses
import logging
import traceback
from collections.abc import Callable, Mapping, Sequence

from conveyor import deadletters, settings
from conveyor.errors import FAULT_EXIT_CODE, ConfigurationError, ConveyorError
from conveyor.logs import fields
from conveyor.scaling import Bounds
from conveyor.supervisor import Supervisor

log = logging.getLogger(__name__)

Answer = dict[str, object]

LETTERS = "letters"
PAGE = 20  # dead letters in one answer: their traces are long, and the loop waits meanwhile
FAREWELL = "farewell"  # the one request beside the table: it is answered when the run is over (`control.py`)
DID = "did"
"""Where an answer says, for people, what was done."""


def answer(supervisor: Supervisor, line: bytes) -> Answer:
    """Do what the line asks for; return what the client is told. Raises nothing: no client ends a run."""
    word, *words = line.decode(errors="replace").split() or [""]
    request = REQUESTS.get(word)
    if request is None:
        return {"error": f"{line[:40]!r} is not a request; allowed: {', '.join(REQUESTS)}"}
    try:
        return {"ok": request(supervisor, words)}
    except ConveyorError as error:
        return {"error": str(error), "exit_code": error.exit_code}
    except Exception as error:  # ours, not the client's; the run goes on, and the next request may well be answered
        log.error("request failed", extra=fields(request=word, error=repr(error), trace=traceback.format_exc()))
        reason = f"{word}: a fault of Conveyor's own, the run's log has its traceback: {error!r}"
        return {"error": reason, "exit_code": FAULT_EXIT_CODE}


def bounds_of(words: Sequence[str]) -> Bounds:
    """Return what `scale` is to do. Raises `ConfigurationError` that names what is allowed."""
    said = " ".join(words)
    name, _, value = said.partition("=")
    if name != "consumers":
        raise ConfigurationError(f"scale: {said!r} is not allowed; give consumers=N or consumers=MIN..MAX")
    try:
        return settings.bounds(value)
    except ValueError as error:
        raise ConfigurationError(f"scale: {said!r} is not allowed; give consumers= and {error}") from None


def _status(supervisor: Supervisor, words: Sequence[str]) -> Answer:
    _expect_nothing("status", words)
    return dataclasses.asdict(supervisor.statistics())


def _scale(supervisor: Supervisor, words: Sequence[str]) -> Answer:
    return {DID: supervisor.scale(bounds_of(words))}


def _pause(supervisor: Supervisor, words: Sequence[str]) -> Answer:
    _expect_nothing("pause", words)
    return {DID: supervisor.pause()}


def _resume(supervisor: Supervisor, words: Sequence[str]) -> Answer:
    _expect_nothing("resume", words)
    return {DID: supervisor.resume()}


def _drain(supervisor: Supervisor, words: Sequence[str]) -> Answer:
    _expect_nothing("drain", words)
    return {DID: supervisor.drain()}


def _dead(supervisor: Supervisor, words: Sequence[str]) -> Answer:
    """`dead list AFTER`, `dead show N`, `dead retry N ...` and `dead purge N ...`; numbers may be `all`."""
    verb, *others = words or [""]
    letters = supervisor.dead_letters
    match verb:
        case "list":
            after = deadletters.number_of(others or ["0"])
            return {LETTERS: [deadletters.as_plain(letter) for letter in letters.list(after, PAGE)]}
        case "show":
            return {LETTERS: [deadletters.as_plain(deadletters.found(letters, deadletters.number_of(others)))]}
        case "retry":
            revived = deadletters.in_slices(others, letters, supervisor.revive, 1)
            log.info("dead letters are tried again", extra=fields(number=revived.number))
            return dataclasses.asdict(revived)
        case "purge":
            return dataclasses.asdict(deadletters.in_slices(others, letters, letters.remove, deadletters.SLICE_LETTERS))
    raise ConfigurationError(f"dead: {verb!r} is not allowed; give list, show, retry or purge")


def _expect_nothing(word: str, words: Sequence[str]) -> None:
    if words:
        raise ConfigurationError(f"{word}: {' '.join(words)!r} is not allowed; it takes nothing")


REQUESTS: Mapping[str, Callable[[Supervisor, Sequence[str]], Answer]] = {
    "status": _status,
    "scale": _scale,
    "pause": _pause,
    "resume": _resume,
    "drain": _drain,
    "dead": _dead,
}
"""Every request there is."""
