"""THE FORK SERVER: a small process that forks the workers of one run, and tells the supervisor how each of them ended.

`processes.Starter` starts it, with the run's own Python path, limits, umask and priority, and sends it requests over a
private socket. It has imported the workload, so a worker starts in milliseconds; it has one thread, so a fork is safe.
`multiprocessing` has a fork server as well, but one for the whole program, which would live on after the run, with what
the run has made of it.

    supervisor ── request: preparation, function, argument, descriptors ──▶ fork server ── fork ──▶ worker
               ◀─ reply: its pid, or why there is none ────────────────────
               ◀─ status: its exit code, on a pipe of each worker ─────────

What happens when this process dies: the kernel kills its workers, and the supervisor starts another. What happens when
the supervisor dies: the kernel kills this process, and so the workers. It is no matter who else holds its descriptors.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import errno
import gc
import importlib
import io
import os
import pickle
import resource
import select
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import process, resource_tracker, spawn
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NoReturn

from conveyor import messages

MAX_DESCRIPTORS = 250  # with one request; the kernel passes 253
PLEASE_WAIT = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Blocked here, and in a worker until it can tell what they mean: the whole process group may have been sent them."""

REPLY = struct.Struct("=ii")  # pid, 0; or 0, errno; or 0, 0: ready
STATUS = struct.Struct("=i")  # exit code, as `multiprocessing` has it: the negative signal
_HEADER = struct.Struct("=QB")  # bytes of the request, number of its descriptors
_PR_SET_PDEATHSIG = 1
_importing: list[bool] = []  # one entry for each import of the workload that is under way
_inherited: list[int] = []  # what the supervisor has sent to this worker, in the order of its places

_STATUS, _MESSAGES, _TRACKER = range(3)
"""The first descriptors of a request: for the exit code, for why it could not begin, and of the resource tracker."""


@dataclass(frozen=True, slots=True)
class Job:
    """What the process is started for."""

    parent_pid: int
    """The supervisor's."""
    path: tuple[str, ...]
    """Where the program looks for modules."""
    own_modules: tuple[str, ...]
    """Those of ours that workers need, imported before any of the user's could take the place of what they need."""
    modules: tuple[str, ...]
    """The workload's, to import before the first fork."""
    forks: bool
    """Whether it serves; otherwise it becomes the worker of the first request itself."""


class Duplicate:
    """A descriptor among the arguments of a worker, by its place among those that come with the request."""

    def __init__(self, place: int) -> None:
        self._place = place

    def detach(self) -> int:
        """Return the descriptor, which is the caller's to close."""
        return _inherited[self._place]


class _Worker(BaseProcess):
    """The worker's `multiprocessing.current_process()`."""

    _parent_pid: int
    _start_method = None  # what the program's processes start theirs by is not ours to choose


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Have the workload imported inside. It must start no run then, or that would import it, start one, and so on."""
    _importing.append(True)
    try:
        yield
    finally:
        _importing.pop()


def is_importing() -> bool:
    """Return whether this process is importing the workload of a run that it works for."""
    return bool(_importing)


def send(control: socket.socket, payload: bytes, descriptors: Iterable[int] = ()) -> None:
    """Send a request. Raises `OSError` if the other side is gone, or the descriptors are too many."""
    numbers = list(descriptors)
    if len(numbers) > MAX_DESCRIPTORS:
        raise OSError(f"{len(numbers)} open files among its arguments; at most {MAX_DESCRIPTORS} can be passed")
    header = _HEADER.pack(len(payload), len(numbers))
    if numbers:
        socket.send_fds(control, [header], numbers)
    else:
        control.sendall(header)
    control.sendall(payload)


def serve(number: int) -> NoReturn:
    """Do the job that comes on this descriptor. The main function of the process."""
    control = socket.socket(fileno=number)
    os.set_inheritable(number, False)
    with contextlib.suppress(EOFError, ConnectionError):  # the run has ended meanwhile, and wants nothing more
        _do_job(control)
    os._exit(0)


def _do_job(control: socket.socket) -> NoReturn:
    job: Job = pickle.loads(_receive(control)[0])
    _end_with(job.parent_pid)
    _close_stdin()
    for module in job.own_modules:
        importlib.import_module(module)
    sys.path[:] = job.path
    if job.forks:
        _import(job.modules)
        _serve(control, job.parent_pid)
    payload, descriptors = _receive(control)
    control.close()
    os._exit(_work(job.parent_pid, payload, descriptors))


def _serve(control: socket.socket, supervisor_pid: int) -> NoReturn:
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.signal(signal.SIGCHLD, _take_note)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    control.sendall(REPLY.pack(0, 0))
    own = os.getpid()
    statuses: dict[int, int] = {}  # the pipe of each worker, by its pid
    files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files[1], files[1]))  # one for each worker, and those of a request
    while True:
        ready, _, _ = select.select([control.fileno(), wake_read], [], [])
        if wake_read in ready:
            os.read(wake_read, 4096)
            _tell_ends(statuses)
        if control.fileno() not in ready:
            continue
        try:
            payload, descriptors = _receive(control)
        except EOFError:
            _leave(statuses)
        except OSError as error:
            control.sendall(REPLY.pack(0, error.errno or errno.EIO))
            continue
        try:
            pid = os.fork()
        except OSError as error:
            for descriptor in descriptors:
                os.close(descriptor)
            control.sendall(REPLY.pack(0, error.errno or errno.EIO))
            continue
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for descriptor in (wake_read, wake_write, *statuses.values()):
                os.close(descriptor)
            control.close()
            resource.setrlimit(resource.RLIMIT_NOFILE, files)
            os.close(descriptors[_STATUS])  # the server tells of its end
            _end_with(own)
            os._exit(_work(supervisor_pid, payload, descriptors))
        del payload  # it may be large
        status, *others = descriptors
        statuses[pid] = status
        for descriptor in others:
            os.close(descriptor)
        control.sendall(REPLY.pack(pid, 0))


def _tell_ends(statuses: dict[int, int]) -> None:
    for pid in list(statuses):
        ended, status = os.waitpid(pid, os.WNOHANG)  # only ours: what a module has started belongs to that module
        if ended:
            pipe = statuses.pop(pid)
            with contextlib.suppress(BrokenPipeError):  # the supervisor does not want to know any more
                os.write(pipe, STATUS.pack(os.waitstatus_to_exitcode(status)))
            os.close(pipe)


def _leave(statuses: dict[int, int]) -> NoReturn:
    """End, the run being over. Workers that are still there end with this process."""
    for pid in statuses:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()  # what the modules of the workload want to tidy up
    os._exit(0)


def _import(modules: Iterable[str]) -> None:
    """Import the workload. What fails here fails again in the worker, which says why.

    It may lie in the working directory, where not everybody who has it imported looks: pytest, for one.
    """
    path = sys.path.copy()
    sys.path.append(str(Path.cwd()))
    for module in modules:
        with contextlib.suppress(BaseException), importing():
            importlib.import_module(module)
    sys.path[:] = path
    sys.stdout.flush()
    sys.stderr.flush()
    gc.freeze()  # else each worker's collector writes into all of this memory, and has it copied


def _work(supervisor_pid: int, payload: bytearray, descriptors: list[int]) -> int:
    """Be a worker; return its exit code."""
    _inherited[:] = descriptors[_TRACKER + 1 :]
    reports = descriptors[_MESSAGES]
    resource_tracker._resource_tracker._fd = descriptors[_TRACKER]  # type: ignore[attr-defined]
    try:
        process.current_process()._inheriting = True  # type: ignore[attr-defined]
        stream = io.BytesIO(payload)
        preparation: dict[str, Any] = pickle.load(stream)
        spawn.prepare(preparation)
        target, argument = pickle.load(stream)
    except BaseException as error:
        trace = messages.cut(traceback.format_exc())
        messages.send(reports, messages.WorkerFailed(type(error).__qualname__, messages.text_of(error), trace))
        return 1
    finally:
        del process.current_process()._inheriting  # type: ignore[attr-defined]
        os.close(reports)
    worker = _Worker(target=target, args=(argument,), name=preparation["name"])
    worker._parent_pid = supervisor_pid
    parent = None  # what `multiprocessing.parent_process()` waits on, should the user's code ask it to
    with contextlib.suppress(OSError):  # a filter of system calls denies it
        parent = os.pidfd_open(supervisor_pid)
    code: int = worker._bootstrap(parent)  # type: ignore[attr-defined]
    return code


def _end_with(parent_pid: int) -> None:
    """Have the kernel send SIGKILL to this process when its parent is gone, however that happens.

    A thread that waits for this could not stop a task that holds the interpreter's lock. Nor would a pipe of the
    parent's tell: a process that the parent has forked may hold it, and outlive the parent.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:  # it was gone before we could ask
        os.kill(os.getpid(), signal.SIGKILL)


def _receive(control: socket.socket) -> tuple[bytearray, list[int]]:
    header, descriptors, _, _ = socket.recv_fds(control, _HEADER.size, MAX_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
    if len(header) < _HEADER.size:
        raise EOFError
    size, number = _HEADER.unpack(header)
    payload = bytearray(size)
    view = memoryview(payload)
    while view:
        received = control.recv_into(view)
        if not received:
            raise EOFError
        view = view[received:]
    if len(descriptors) < number:  # this process may open no more, and the kernel has dropped the rest
        for descriptor in descriptors:
            os.close(descriptor)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    return payload, descriptors


def _close_stdin() -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)


def _take_note(signum: int, frame: object) -> None:
    """A signal needs a handler to be written to the wake-up descriptor."""
