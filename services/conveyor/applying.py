"""`imap_unordered`: a function, an iterable, some processes; results as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from conveyor.errors import ConfigurationError
from conveyor.pipeline import Feed, Pipeline
from conveyor.results import Results


def imap_unordered(
    function: Callable[[Any], Any], iterable: Iterable[Any], *, consumers: int | None = None, maxsize: int = 1000
) -> Results:
    """Call the function with each item in one of `consumers` processes; return an iterator over what it returns.

    As `multiprocessing.Pool.imap_unordered`, but nobody chooses a chunk size, the iterable is pulled only as far as
    `maxsize` tasks ahead of the work, work stops while results are not read, and a killed process costs no result.
    `consumers` is by default the number of CPUs that may be used. What an item raises is raised here, with the remote
    traceback, and the next `next()` goes on; so is the `TaskNotPicklableError` of an item that cannot be sent to a
    process. The iterable is gone through in a thread of its own, with a copy of the caller's context variables.
    Raises `ConfigurationError` for what cannot run.
    """
    try:
        iter_once = iter(iterable)
    except TypeError as error:
        raise ConfigurationError(f"iterable: {iterable!r} cannot be iterated over") from error
    feed = Feed(iter_once, name="input")
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return Pipeline(producers=[feed], consumer=function, consumers=consumers, maxsize=maxsize, name=name).results()
