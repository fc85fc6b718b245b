"""How worker processes come to be: by a fork server, or by spawn. Never by fork: the supervisor has threads."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import BaseContext, set_spawning_popen
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

START_METHODS = ("forkserver", "spawn")
# What a worker needs of us, imported once in the fork server. `cli` is light, and is what the `conveyor`
# script imports, which every worker runs again as its main module.
_PRELOAD = ("conveyor.worker", "conveyor.queues", "conveyor.cli")

_environment_lock = threading.Lock()  # of all runs in this process


class Starter:
    """Starts processes by one method. With the fork server, which has imported the workload, in milliseconds.

    SIGTERM and SIGINT are blocked in what it starts: one to our whole process group must neither take away the fork
    server, the parent of all workers, nor a worker that cannot tell yet what it means. Each worker lifts the block.
    """

    def __init__(self, start_method: str, modules: Iterable[str]) -> None:
        """Get ready; `modules` are those that hold the workload."""
        self.method = start_method
        self.context: BaseContext = multiprocessing.get_context(start_method)
        if start_method == "forkserver":
            self.context.set_forkserver_preload([*_PRELOAD, *modules])
        resource_tracker.ensure_running()  # which unblocks the two when it has to start
        with _signals_blocked():
            self._ensure_server()

    def start(self, target: Callable[..., None], argument: object, name: str) -> BaseProcess:
        """Return a new process, running. Raises `OSError` or `EOFError` if the system will not start one."""
        process: BaseProcess = self.context.Process(  # type: ignore[attr-defined]
            target=target, args=(argument,), name=name
        )
        resource_tracker.ensure_running()
        with _signals_blocked():
            self._ensure_server()
            process.start()
        return process

    def reap_orphans(self, own: Collection[int]) -> None:
        """Where this is the first process of a container, lay to rest what others have left behind.

        The children of a killed worker become ours then, and would stay zombies. `own` are the processes that we have
        started: how they ended is asked for elsewhere.
        """
        if os.getpid() != 1:
            return
        # There is no public way to their pids.
        helpers = (forkserver._forkserver._forkserver_pid, resource_tracker._resource_tracker._pid)  # type: ignore[attr-defined]
        with contextlib.suppress(ChildProcessError):  # there are none at all
            while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                if ended.si_pid in own or ended.si_pid in helpers:
                    return
                os.waitpid(ended.si_pid, 0)

    def _ensure_server(self) -> None:
        """Start the fork server, at first or in a dead one's place, with our module path.

        It takes the path by itself only since Python 3.14.
        """
        if self.method != "forkserver":
            return
        with _environment_lock:
            before = os.environ.get("PYTHONPATH")
            os.environ["PYTHONPATH"] = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
            try:
                forkserver.ensure_running()
            finally:
                if before is None:
                    del os.environ["PYTHONPATH"]
                else:
                    os.environ["PYTHONPATH"] = before


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Rehearsal:
    """Stands for a process that is being started, so that its arguments can be pickled before there is one.

    Locks, pipes and the like let themselves be pickled only then.
    """

    DupFd = staticmethod(lambda number: number)

    def duplicate_for_child(self, descriptor: int) -> int:
        return descriptor


def check_sendable(value: object) -> None:
    """Raise whatever pickling this argument of a process raises."""
    set_spawning_popen(Rehearsal())  # type: ignore[arg-type]
    try:
        ForkingPickler.dumps(value)
    finally:
        set_spawning_popen(None)
