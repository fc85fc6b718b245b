"""What a worker does when it leaves: exit functions (`atexit`) of the user's code, and `multiprocessing`'s finalizers.

A fork server's children end without it, so a consumer that gathers rows and writes the rest at exit would lose them.
What happens when the worker is killed meanwhile: the rest is not done, and its death is told like any other.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import weakref
from multiprocessing import parent_process, util


def prepare() -> None:
    """Get ready, before any of the user's objects is made in this process.

    What modules have registered with `atexit` when they were imported counts, though that was in the fork server.
    The finalizers of objects that live there do not: a temporary folder of a module is shared by all workers, and must
    not be removed by the first that leaves.
    """
    # It waits for the processes that the user's code has started; `multiprocessing` calls it after us.
    atexit.unregister(util._exit_function)  # type: ignore[attr-defined]
    parent = parent_process()
    if parent is not None and parent.pid != os.getppid():  # this process comes from a fork server
        for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]
            finalizer.atexit = False


def run_exit_functions() -> None:
    """Call them, last registered first. One that raises is shown on standard error, as Python does."""
    atexit._run_exitfuncs()
    util._run_finalizers(0)  # type: ignore[attr-defined]


def flush_output() -> str | None:
    """Write out what was printed; return why that cannot be done. Whoever has closed standard output wants it so."""
    try:
        with contextlib.suppress(ValueError, AttributeError):
            sys.stdout.flush()
    except OSError as error:
        # It would be tried again, and fail again, when this process ends.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)
        return str(error)
    return None
