"""`conveyor dead`: tasks that were given up, listed, shown, tried again or forgotten.

Of a run that goes on they are asked for over its control socket; those in the spool of a run that has ended are read
and changed there.
"""

from __future__ import annotations

import bisect
import dataclasses
import datetime
import re
import time
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from conveyor.errors import ConfigurationError, ControlError, LetterUnkeptError
from conveyor.queues.letters import Cause, DeadLetter, DeadLetters
from conveyor.snapshot import is_sound

ALL = "all"
_SOME_OF_ALL = re.compile(r"all:([0-9]{1,18}):([0-9]{1,18})")
"""How a client asks for the rest of all: those with numbers above the first, up to the second."""
MAX_SHOWN = 120  # characters of a line
MAX_NUMBER = 2**63 - 1  # of a letter, as SQLite counts
_MAX_DIGITS = len(str(MAX_NUMBER))
DID = {"retry": "tried again", "purge": "forgotten"}
SLICE_SECONDS = 0.05  # of the loop's time, for the letters of one request; the client asks again for the rest
SLICE_LETTERS = 1000  # that are forgotten at a time, which is one change to the spool


@dataclasses.dataclass(frozen=True, slots=True)
class Slice:
    """What a request did with the dead letters that it names, in the time that it may take."""

    number: int
    """Of the letters that were done with."""
    rest: str
    """What to ask for next; empty if that was all."""
    trouble: str = ""
    """Why some were not done with."""


def in_slices(words: Sequence[str], letters: DeadLetters, act: Callable[[Sequence[int]], int], most: int) -> Slice:
    """Act on letters that somebody has named, some at a time, while there is time. Raises `ControlError`.

    What goes wrong is raised only if nothing was done before it: else the client would not hear of that.
    """
    numbers, done, trouble, until = chosen(words, letters), 0, "", time.monotonic() + SLICE_SECONDS
    for at in range(0, len(numbers), most):
        if at and time.monotonic() > until:
            return Slice(done, _rest(words, numbers, at), trouble)
        try:
            done += act(numbers[at : at + most])
        except LetterUnkeptError as error:  # that one will never be, the others may
            trouble = str(error)
        except ControlError as error:
            if not done:
                raise
            return Slice(done, "", str(error))
    if trouble and not done:
        raise ControlError(trouble)
    return Slice(done, "", trouble)


def _rest(words: Sequence[str], numbers: Sequence[int], at: int) -> str:
    if words[0].startswith(ALL):
        return f"{ALL}:{numbers[at - 1]}:{numbers[-1]}"
    return " ".join(map(str, numbers[at:]))


def numbers_of(words: Sequence[str], every: Sequence[int]) -> list[int]:
    """Return the numbers of letters that somebody has named. Raises `ConfigurationError`."""
    if list(words) == [ALL]:
        return list(every)
    if len(words) == 1 and (some := _SOME_OF_ALL.fullmatch(words[0])):
        return list(every[bisect.bisect(every, int(some[1])) : bisect.bisect(every, int(some[2]))])
    if not words or not all(map(_is_number, words)):
        said = _cut(" ".join(words))
        raise ConfigurationError(
            f"dead: {said!r} is not allowed; give the numbers that `conveyor dead list` shows, or {ALL}"
        )
    return [int(word) for word in words]


def _is_number(word: str) -> bool:
    is_number = word.isascii() and word.isdecimal() and len(word) <= _MAX_DIGITS
    return is_number and int(word) <= MAX_NUMBER


def number_of(words: Sequence[str]) -> int:
    """Return the number of the one letter that somebody has named. Raises `ConfigurationError`."""
    match numbers_of(words, []):
        case [number]:
            return number
    raise ConfigurationError(
        f"dead: {_cut(' '.join(words))!r} is not allowed; give one of the numbers that `conveyor dead list` shows"
    )


def chosen(words: Sequence[str], letters: DeadLetters) -> list[int]:
    """Return the numbers of letters that somebody has named. Raises `ControlError` if one of them is not there."""
    every = letters.numbers()
    numbers = numbers_of(words, every)
    if missing := sorted(set(numbers) - set(every)):
        raise _no_letter(missing[0])
    return numbers


def found(letters: DeadLetters, number: int) -> DeadLetter:
    """Return a letter. Raises `ControlError` if there is none of that number."""
    letter = letters.find(number)
    if letter is None:
        raise _no_letter(number)
    return letter


def _no_letter(number: int) -> ControlError:
    return ControlError(f"there is no dead letter {number}; `conveyor dead list` shows those that there are")


def as_plain(letter: DeadLetter) -> dict[str, object]:
    """Return a letter for JSON: all but the task itself, which is bytes."""
    plain = dataclasses.asdict(letter)
    del plain["payload"], plain["codec"]
    return plain


def is_plain(letter: Mapping[str, Any]) -> bool:
    """Return whether this is what `as_plain` makes of a letter."""
    hints = typing.get_type_hints(DeadLetter)
    names = hints.keys() - {"payload", "codec", "cause"}
    return letter["cause"] in list(Cause) and all(is_sound(letter[name], hints[name]) for name in names)


# -- in a spool at rest ------------------------------------------------------------------------------------


def of_spool(folder: Path, verb: str, words: Sequence[str]) -> Iterator[dict[str, Any]] | str:
    """Do in a spool that no run uses what `steering.py` does in a run; return letters, or what was done."""
    from conveyor.spool.rest import RestingSpool  # SQLite takes long to import

    with RestingSpool(folder) as spool:
        match verb:
            case "list":
                return iter([as_plain(letter) for letter in spool.letters.list(0, len(spool.letters))])
            case "show":
                return iter([as_plain(found(spool.letters, number_of(words)))])
            case "retry":
                revived = [spool.revive(number) for number in chosen(words, spool.letters)]
                return f"{sum(revived)} tried again at the next start"
            case _:
                return f"{spool.letters.remove(chosen(words, spool.letters))} forgotten"


# -- for people --------------------------------------------------------------------------------------------


def line_of(letter: Mapping[str, Any]) -> str:
    """Return one letter in a line."""
    times = "once" if letter["attempts"] == 1 else f"{letter['attempts']} times"
    why = f"{letter['error']}: {letter['reason']}" if letter["reason"] else letter["error"]
    what = f"{CAUSES[Cause(letter['cause'])]} {times}"
    return f"{letter['number']:>6}  {_when(letter['given_up_at'])}  {what}  {_cut(why)}  {_cut(letter['task'])}"


def page_of(letter: Mapping[str, Any]) -> str:
    """Return all that is known of a letter."""
    rows = {
        "number": letter["number"],
        "task": letter["task"],
        "given up": _when(letter["given_up_at"]),
        "put": _when(letter["put_at"]),
        "cause": CAUSES[Cause(letter["cause"])],
        "attempts": letter["attempts"],
        "last worker": letter["worker"],
        "error": letter["error"],
        "reason": letter["reason"],
    }
    shown = "\n".join(f"{name:12} {value}" for name, value in rows.items() if value != "")
    return f"{shown}\n\n{letter['trace']}".rstrip()


CAUSES = {
    Cause.ERROR: "raised",
    Cause.DEATH: "killed its worker",
    Cause.TIMEOUT: "took too long",
}


def _when(unix_time: float) -> str:
    return datetime.datetime.fromtimestamp(unix_time).astimezone().isoformat(" ", "seconds")


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_SHOWN else f"{line[: MAX_SHOWN - 3]}..."
