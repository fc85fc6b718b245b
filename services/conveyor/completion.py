"""When a task is done: its function has returned, and what it returned is not itself work that is still to be done.

A coroutine function returns at once, and has done nothing; so does a generator function. Such functions are refused
before a run starts, as far as they can be known; what any other returns is looked at after each task.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import Any

from conveyor.errors import TaskFailedError

MAX_KNOWN = 1000  # types; arbitrary: a function that returns a new one each time must not fill the memory
# Types of work under way elsewhere; looked up only where their modules are used.
_FUTURES = (("concurrent.futures", "Future"), ("multiprocessing.pool", "AsyncResult"))


def why_never_done(function: Callable[..., object]) -> str | None:
    """Return what is wrong with a consumer whose call does nothing yet, or None."""
    kind = _kind(function)
    if kind in ("a coroutine function", "an asynchronous generator function"):
        return f"is {kind}, and calling it does nothing yet; give a function that calls asyncio.run(...)"
    if kind is not None:
        return (
            f"is {kind} (it has a yield), and calling it does nothing yet; give a function that returns when it is done"
        )
    return None


def is_asynchronous(function: Callable[..., object]) -> bool:
    """Return whether calling the function only makes a coroutine or an asynchronous generator."""
    return _kind(function) in ("a coroutine function", "an asynchronous generator function")


def _kind(function: Any) -> str | None:
    while isinstance(function, functools.partial):
        function = function.func
    called = [function]
    if not (inspect.isroutine(function) or isinstance(function, type)):
        called.append(getattr(type(function), "__call__", None))  # noqa: B004  (an object that can be called)
    for each in called:
        while isinstance(each, functools.partial):
            each = each.func
        if inspect.iscoroutinefunction(each):
            return "a coroutine function"
        if inspect.isasyncgenfunction(each):
            return "an asynchronous generator function"
        if inspect.isgeneratorfunction(each):
            return "a generator function"
    return None


class DoneCheck:
    """Looks at what tasks return; remembers the types that are harmless. One for each consumer process."""

    def __init__(self) -> None:
        self.harmless: set[type] = {int, str, float, bool, bytes, tuple, list, dict, set}
        """Types that say nothing against a task: whoever finds one here need not call."""

    def __call__(self, result: object, *, is_kept: bool) -> None:
        """Raise `TaskFailedError` if the result is work that is still to be done.

        A lazy `map` or `filter` may travel to somebody who goes through it; one that is not kept is never done.
        """
        what = _undone(result)
        if what is None and not is_kept and isinstance(result, map | filter):
            what = f"a {type(result).__name__} object, through which nobody goes"
        if what is not None:
            raise TaskFailedError(f"the function returned {what}; a consumer must return when its task is done")
        if isinstance(result, map | filter):
            return
        if len(self.harmless) >= MAX_KNOWN:
            self.harmless.clear()
        self.harmless.add(type(result))


def _undone(result: Any) -> str | None:
    """Return what kind of work the result is, if it is some."""
    if isinstance(result, Awaitable):
        if inspect.iscoroutine(result):
            result.close()  # else Python warns that it was never awaited, which is told already
            return "a coroutine, which does nothing until it is awaited (call asyncio.run)"
        return f"an awaitable ({type(result).__qualname__}), for which nobody waits"
    if isinstance(result, Generator | AsyncGenerator):
        return "a generator, which does nothing until somebody goes through it"
    for module, name in _FUTURES:
        with contextlib.suppress(AttributeError):  # not imported, or something else under that name
            if isinstance(result, getattr(sys.modules.get(module), name)):
                return f"a {name}, for whose result nobody waits (call its result() or get())"
    return None
