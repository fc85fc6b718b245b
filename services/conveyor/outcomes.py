"""What became of a task, as bytes: the value that its function returned, or the exception that it raised.

Written by the consumer, read in the process that wants the results.
"""

from __future__ import annotations

import pickle
import traceback

from conveyor.errors import RemoteTraceback, TaskFailedError
from conveyor.messages import text_of
from conveyor.queues.codec import PROTOCOL

_RETURNED, _RAISED = b"\0", b"\1"


def returned(value: object) -> bytes:
    """Return the outcome of a task that went well. Raises whatever pickling the value raises."""
    return _RETURNED + pickle.dumps(value, PROTOCOL)


def raised(error: Exception) -> bytes:
    """Return the outcome of a task that raised; an exception that cannot travel is described.

    Neither can `StopIteration`: where it is raised again, it would be the end of the results.
    """
    trace = "".join(traceback.format_exception(error))
    try:
        if isinstance(error, StopIteration):
            raise TypeError("it would end an iterator")
        body = pickle.dumps((error, trace), PROTOCOL)
        pickle.loads(body)  # some can be pickled and not be made again
    except Exception:  # whatever a user's __reduce__ raises: the task has failed anyway, and that is told
        described = TaskFailedError(f"{type(error).__qualname__}: {text_of(error)}")
        body = pickle.dumps((described, trace), PROTOCOL)
    return _RAISED + body


def value_of(outcome: bytes) -> object:
    """Return the value, or raise the exception, with the remote traceback as its cause."""
    try:
        value = pickle.loads(memoryview(outcome)[1:])
    except StopIteration as stop:  # the user's __setstate__; as it is, it would be the end of the results
        raise TaskFailedError("unpickling the result raised StopIteration") from stop
    if outcome[:1] == _RETURNED:
        return value
    error, trace = value
    try:
        raise error from RemoteTraceback(trace)
    finally:
        del error, value  # else the error holds this frame, which holds the error, and with it the reader of results
