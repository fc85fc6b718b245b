"""How worker processes come to be: by a fork server, or by spawn. Never by fork: the supervisor has threads."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterable
from multiprocessing import forkserver
from multiprocessing.context import BaseContext
from pathlib import Path

START_METHODS = ("forkserver", "spawn")
# What a worker needs of us, imported once in the fork server. `cli` is light, and is what the `conveyor`
# script imports, which every worker runs again as its main module.
_PRELOAD = ("conveyor.worker", "conveyor.queues", "conveyor.cli")


def context(start_method: str, modules: Iterable[str]) -> BaseContext:
    """Return the context to start workers with; `modules` hold the workload, so a restart costs milliseconds."""
    chosen = multiprocessing.get_context(start_method)
    if start_method == "forkserver":
        chosen.set_forkserver_preload([*_PRELOAD, *modules])
        _start_fork_server()
    return chosen


def _start_fork_server() -> None:
    """Start it with our module path, which it does not take from us by itself before Python 3.14.

    And with SIGTERM blocked: one to our whole process group must not take away the parent of all workers. Each
    worker lifts the block.
    """
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
