"""A signal in every place: runs an action again and again, and strikes each time at the next place where one could.

The interpreter runs a signal's handler in certain places only: at the start of a function, after a call of what is not
a Python function, at the end of a round of a loop, and within a system call that is interrupted. `every_strike` finds
these by following the code instruction by instruction: what it shows holds for every moment, and each time.
"""

from __future__ import annotations

import dis
import functools
import itertools
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any

OURS = "/dropin/"
BLOCKING = {"_send", "send_with", "receive", "receive_into", "_receive", "_wait_at"}
"""Functions of ours whose calls can be interrupted before they have done anything."""
CHECKED = ("CALL", "RESUME", "JUMP_BACKWARD", "POP_JUMP_BACKWARD")


class StrikeError(Exception):
    """What the signal's handler raises."""


def raise_strike(*_: object) -> None:
    raise StrikeError


class Striker:
    """Raises SIGUSR1 in the n-th place of the code in question where the interpreter could run its handler."""

    def __init__(self, number: int, code: str) -> None:
        """`code` is a part of the name of the file, or of the function."""
        self.left = number
        self.code = code
        self.where = ""
        self._before: dict[FrameType, int] = {}
        self._names: dict[CodeType, dict[int, str]] = {}

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        file, function = frame.f_code.co_filename, frame.f_code.co_qualname
        is_meant = self.code in file or self.code in function
        if not is_meant and OURS not in file:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            if is_meant and self._is_place(frame):
                self._strike(frame)
            self._before[frame] = frame.f_lasti
        elif event == "return" and frame.f_back in self._before:
            del self._before[frame.f_back]  # nothing is looked at after the return of a Python function
            self._before[frame.f_back] = -1
        return self

    def _is_place(self, frame: FrameType) -> bool:
        names = self._names.get(frame.f_code)
        if names is None:
            names = self._names[frame.f_code] = {
                each.offset: each.opname for each in dis.get_instructions(frame.f_code)
            }
        before = self._before.get(frame)
        if before is None:
            return True
        if frame.f_code.co_name in BLOCKING and names[frame.f_lasti].startswith("CALL"):
            return True
        return names.get(before, "").startswith(CHECKED)

    def _strike(self, frame: FrameType) -> None:
        self.left -= 1
        if self.left < 0 and not self.where:
            self.where = f"{frame.f_code.co_qualname}:{frame.f_lineno}+{frame.f_lasti}"
            signal.raise_signal(signal.SIGUSR1)


@dataclass
class Struck:
    """One run of an action."""

    what: Any
    """What it was done to."""
    where: str
    """The place; empty if none was left."""
    result: Any
    error: BaseException | None

    @property
    def is_interrupted(self) -> bool:
        return isinstance(self.error, StrikeError)


def every_strike(
    prepare: Callable[[], Any],
    action: Callable[[Any], Any],
    handler: Callable[..., object] = raise_strike,
    code: str = OURS,
) -> Iterator[Struck]:
    """Do the action until no place is left to strike it in; yield what came of each run.

    The last one is the one that was not struck.
    """
    for number in itertools.count():
        what = prepare()
        struck = strike(number, functools.partial(action, what), handler, code)
        yield Struck(what, *struck)
        if not struck[0]:
            return


def strike(
    number: int, action: Callable[[], Any], handler: Callable[..., object], code: str
) -> tuple[str, Any, BaseException | None]:
    striker = Striker(number, code)
    former = signal.signal(signal.SIGUSR1, handler)
    result, error = None, None
    try:
        sys.settrace(striker)
        try:
            result = action()
        finally:
            sys.settrace(None)
    except Exception as raised:
        error = raised
    finally:
        signal.signal(signal.SIGUSR1, former)
    return striker.where, result, error
