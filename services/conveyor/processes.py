"""How worker processes come to be: by the run's own fork server, or by spawn. Never by fork: there are threads here.

None of `multiprocessing`'s own processes is used, so nothing that a program does with these meets a run, and nothing
stays of a run in them; only its ways of pickling arguments and of preparing a new interpreter are.
"""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import pickle
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import process, resource_tracker, spawn, util
from multiprocessing.context import BaseContext, set_spawning_popen
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, Protocol

from conveyor import fork_server
from conveyor.descriptors import keep_from_forks
from conveyor.errors import ConfigurationError
from conveyor.fork_server import PLEASE_WAIT, REPLY, STATUS, Duplicate, Job, send

START_METHODS = ("forkserver", "spawn")
# What a worker needs of us, imported once in the fork server; `cli` where the `conveyor` script has imported it, which
# every worker runs again as its main module.
_PRELOAD = ("conveyor.worker", "conveyor.queues", "conveyor.cli")
_PROGRAM = "import sys; sys.path[:] = {path!a}; from conveyor.fork_server import serve; serve({number})"
# The program's folders come after these: a file of the user's may have the name of a module that we need.
_OWN_PATH = [
    str(Path(os.__file__).parent),
    str(Path(os.__file__).parent / "lib-dynload"),
    str(Path(__file__).parents[1]),
]
ANSWER_SECONDS = 30.0  # for a fork; far more than one takes on the busiest machine
LEAVE_SECONDS = 1.0  # for the fork server to tidy up


class WorkerProcess(Protocol):
    """A process in a worker slot, as the supervisor sees it."""

    @property
    def pid(self) -> int: ...

    @property
    def sentinel(self) -> int:
        """A descriptor that can be read once the process has ended."""

    @property
    def exitcode(self) -> int | None:
        """None while it lives; the negative signal, if one has ended it."""

    def is_alive(self) -> bool: ...

    def join(self) -> None: ...

    def close(self) -> None: ...


class _Process:
    """One that we have started."""

    def __init__(self, pid: int, sentinel: int) -> None:
        self.pid = pid
        self.sentinel = sentinel
        self._code: int | None = None

    @property
    def exitcode(self) -> int | None:
        if self._code is None:
            self._code = self._ask()
        return self._code

    def _ask(self) -> int | None:
        raise NotImplementedError

    def is_alive(self) -> bool:
        return self.exitcode is None

    def join(self) -> None:
        """Return once it has ended."""
        while self.exitcode is None:
            _wait(self.sentinel, None)

    def close(self) -> None:
        os.close(self.sentinel)


class _Forked(_Process):
    """A child of the fork server, which writes its exit code into the pipe that is the sentinel."""

    def _ask(self) -> int | None:
        if not _wait(self.sentinel, 0):
            return None
        told = os.read(self.sentinel, STATUS.size)
        if told:
            code: int = STATUS.unpack(told)[0]
            return code
        _see_killed(self.pid)  # the fork server is gone, and the kernel takes its children with it
        return -signal.SIGKILL


class _Spawned(_Process):
    """A child of ours; the sentinel is its pidfd."""

    def _ask(self) -> int | None:
        try:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:  # somebody else has asked, or nobody may: the program ignores SIGCHLD
            return 0xFF if _wait(self.sentinel, 0) else None
        return os.waitstatus_to_exitcode(status) if ended else None


class Starter:
    """Starts processes by one method. With the fork server, which has imported the workload, in milliseconds."""

    def __init__(self, start_method: str, modules: Iterable[str]) -> None:
        """Get ready; `modules` are those that hold the workload."""
        if fork_server.is_importing() or getattr(process.current_process(), "_inheriting", False):
            raise ConfigurationError(
                "a file starts a run when a worker process imports it: put what starts it under "
                '`if __name__ == "__main__":`'
            )
        self.method = start_method
        self.context: BaseContext = multiprocessing.get_context(start_method)
        """For the standard library's queues, whose locks are made for one way to start processes."""
        self._own_modules = tuple(name for name in _PRELOAD if name in sys.modules)
        self._modules = tuple(modules)
        self._path = tuple(path or str(Path.cwd()) for path in sys.path)
        self._preparation = _preparation()
        self._server: _Launched | None = None
        if start_method == "forkserver":
            with contextlib.suppress(OSError):  # tried again when it is needed
                self._server = self._launch()
                _tracker()  # it starts while the workload is imported

    @property
    def preparing(self) -> int | None:
        """A descriptor that can be read once the workload is imported; None if nothing is to be waited for."""
        return self._server.control.fileno() if self._server is not None and not self._server.is_ready else None

    def start(self, target: Callable[..., None], argument: object, name: str, messages: int) -> WorkerProcess:
        """Return a new process, running. Raises `OSError` if the system will not start one.

        Why it could not call the target is told on the descriptor `messages`.
        """
        tracker = _tracker()
        shipment = Shipment()
        payload = shipment.pickled({**self._preparation, "name": name}) + shipment.pickled((target, argument))
        if self.method == "spawn":
            return self._spawn(payload, [messages, messages, tracker, *shipment.descriptors])
        reading, writing = os.pipe()
        try:
            pid = self._ready_server().fork(payload, [writing, messages, tracker, *shipment.descriptors])
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        return _Forked(pid, reading)

    def close(self) -> None:
        """End the fork server, and with it all of its workers that are left."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def reap_orphans(self, own: Collection[int]) -> None:
        """Where this is the first process of a container, lay to rest what others have left behind.

        The children of a killed worker become ours then, and would stay zombies. `own` are the processes that we have
        started: how they ended is asked for elsewhere.
        """
        if os.getpid() != 1:
            return
        # There is no public way to the pid of the tracker.
        tracker = resource_tracker._resource_tracker._pid  # type: ignore[attr-defined]
        helpers = (self._server.pid if self._server is not None else None, tracker)
        with contextlib.suppress(ChildProcessError):  # there are none at all
            while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                if ended.si_pid in own or ended.si_pid in helpers:
                    return
                os.waitpid(ended.si_pid, 0)

    def _ready_server(self) -> _Launched:
        if self._server is not None and self._server.has_ended():
            self.close()
        if self._server is None:
            self._server = self._launch()
        try:
            self._server.get_ready()
        except OSError:
            self.close()
            raise
        return self._server

    def _launch(self) -> _Launched:
        return _launch(Job(os.getpid(), self._path, self._own_modules, self._modules, forks=True))

    def _spawn(self, payload: bytes, descriptors: list[int]) -> WorkerProcess:
        launched = _launch(Job(os.getpid(), self._path, self._own_modules, (), forks=False))
        try:
            with launched.control:
                send(launched.control, payload, descriptors)
            return _Spawned(launched.pid, os.pidfd_open(launched.pid))
        except BaseException:
            launched.close()
            raise


@dataclass(slots=True)
class _Launched:
    """A fork server, or a process that is about to be a worker; the socket speaks to it."""

    pid: int
    control: socket.socket
    is_ready: bool = False

    def get_ready(self) -> None:
        """Return once it has imported the workload. Raises `OSError` if it ends meanwhile."""
        if not self.is_ready:
            self.control.settimeout(None)
            self._reply()
            self.is_ready = True
            self.control.settimeout(ANSWER_SECONDS)

    def fork(self, payload: bytes, descriptors: list[int]) -> int:
        """Have it fork a worker; return the pid."""
        send(self.control, payload, descriptors)
        pid, error = self._reply()
        if error:
            raise OSError(error, os.strerror(error))
        return pid

    def _reply(self) -> tuple[int, int]:
        reply = self.control.recv(REPLY.size)
        if len(reply) < REPLY.size:
            raise OSError(errno.EPIPE, "the process that starts workers has ended")
        pid, error = REPLY.unpack(reply)
        return pid, error

    def has_ended(self) -> bool:
        """Return whether it has. Only one that has answered everything is asked."""
        return self.is_ready and bool(_wait(self.control.fileno(), 0))

    def close(self) -> None:
        """Let it tidy up, then end it."""
        self.control.close()
        with contextlib.suppress(ChildProcessError):  # the program ignores SIGCHLD
            until = time.monotonic() + LEAVE_SECONDS
            while self.is_ready and time.monotonic() < until:
                if os.waitpid(self.pid, os.WNOHANG)[0]:
                    return
                time.sleep(0.001)  # it has next to nothing to do
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


class Shipment:
    """The arguments of a process that is to be started: pickled, with the descriptors that go along.

    It stands where `multiprocessing` has the process: locks, pipes and the like let themselves be pickled only then.
    """

    DupFd = staticmethod(Duplicate)

    def __init__(self) -> None:
        self.descriptors: list[int] = []

    def duplicate_for_child(self, descriptor: int) -> int:
        """Send a descriptor along; return its place. Called by what is pickled."""
        self.descriptors.append(descriptor)
        return len(self.descriptors) - 1

    def pickled(self, value: object) -> bytes:
        """Return the value as bytes. Raises whatever pickling it raises."""
        set_spawning_popen(self)  # type: ignore[arg-type]
        try:
            return bytes(ForkingPickler.dumps(value))
        finally:
            set_spawning_popen(None)


def _launch(job: Job) -> _Launched:
    """Start a process for the job, with the signals blocked that it must not take for its own."""
    ours, theirs = socket.socketpair()
    with theirs:
        executable = os.fsdecode(spawn.get_executable())
        program = _PROGRAM.format(path=[*_OWN_PATH, *job.path], number=theirs.fileno())
        # Private, but older than spawn itself; there is no public way to the flags of this interpreter.
        arguments = [executable, *util._args_from_interpreter_flags(), "-c", program]  # type: ignore[attr-defined]
        try:
            with _signals_blocked():
                pid = util.spawnv_passfds(os.fsencode(executable), arguments, [theirs.fileno()])
        except BaseException:
            ours.close()
            raise
    launched = _Launched(pid, keep_from_forks(ours))
    try:
        send(ours, pickle.dumps(job))
    except OSError:
        launched.close()
        raise
    return launched


def _preparation() -> dict[str, Any]:
    """Return what a new process needs to be like this one: module path, main module, working directory."""
    chosen = multiprocessing.get_start_method(allow_none=True)
    try:
        data = spawn.get_preparation_data("")
    except FileNotFoundError as error:
        raise ConfigurationError("the working directory does not exist any more; change to one that does") from error
    finally:
        if chosen is None:  # to be asked for it was enough to choose one; that is the program's to do
            multiprocessing.set_start_method(None, force=True)
    script = getattr(getattr(sys.modules["__main__"], "__loader__", None), "path", None)
    if script is not None and "init_main_from_name" not in data:
        # Python forgets the name of the main script's file at its end, which threads may outlive.
        data.setdefault("init_main_from_path", os.path.normpath(Path(data["orig_dir"] or "", script)))
    return data


def _tracker() -> int:
    """Return a descriptor of the process that knows the names of shared memory, for the workers to use the same."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        descriptor = resource_tracker.getfd()
        assert descriptor is not None
        return descriptor
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)  # it unblocks signals when it has to start


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, PLEASE_WAIT)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _wait(descriptor: int, timeout_ms: int | None) -> bool:
    """Return whether there is something to be read, be it the end."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(timeout_ms))


def _see_killed(pid: int) -> None:
    """Kill a process and wait until it is dead; a second at the most, as the kernel may be busy with it."""
    with contextlib.suppress(OSError):
        descriptor = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            _wait(descriptor, 1000)
        finally:
            os.close(descriptor)
