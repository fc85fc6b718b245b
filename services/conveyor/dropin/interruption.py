"""Whether an exception was raised by a signal's handler. Called by `line.py` when unpickling an item has raised.

What raised is the item's own fault, or the handler of a time-out that ran while the item was unpickled: that says
nothing about the item, which others must get.
"""

from __future__ import annotations

import functools
import signal
from types import CodeType


def is_from_a_signal(error: BaseException) -> bool:
    """Return whether the exception, or one in the handling of which it was raised, comes out of a signal's handler.

    What is no `Exception`, such as `KeyboardInterrupt`, is taken to.
    """
    if not isinstance(error, Exception):
        return True
    codes = _handlers()
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        frame = cause.__traceback__
        while frame is not None:
            if frame.tb_frame.f_code in codes:
                return True
            frame = frame.tb_next
        cause = cause.__cause__ or cause.__context__
    return False


def _handlers() -> set[CodeType]:
    """Return the code of every handler that is written in Python."""
    codes = set()
    for number in signal.valid_signals():
        handler = signal.getsignal(number)
        while isinstance(handler, functools.partial):
            handler = handler.func
        for each in (handler, vars(type(handler)).get("__call__")):
            code = getattr(each, "__code__", None)
            if code is not None:
                codes.add(code)
    return codes
