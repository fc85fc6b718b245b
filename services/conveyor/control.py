"""The control socket: how `conveyor status` speaks to a run on the same machine.

A Unix socket of mode 0600 in a folder of mode 0700, answered in the supervisor's loop; whoever is not this user
or root is refused. One line asks, one line of JSON answers. Nothing on the network can reach it.

What happens when a run is SIGKILLed: its socket file stays, and the next client that finds it dead removes it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import logging
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

from conveyor.errors import ControlError
from conveyor.logs import fields
from conveyor.loop import Loop
from conveyor.snapshot import RunStatistics, from_plain
from conveyor.supervisor import Supervisor

log = logging.getLogger(__name__)

CLIENT_SECONDS = 5.0
MAX_CLIENTS = 16
MAX_REQUEST_BYTES = 1024


def folder() -> Path:
    """Return where the sockets of this user's runs are."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime) / "conveyor" if runtime else Path(f"/tmp/conveyor-{os.getuid()}")


class ControlServer:
    """The supervisor's side. Lives in its loop: no request may take long."""

    def __init__(self, supervisor: Supervisor, loop: Loop, listener: socket.socket) -> None:
        self._supervisor = supervisor
        self._loop = loop
        self._listener = listener
        self._clients: dict[int, tuple[socket.socket, bytes]] = {}
        listener.setblocking(False)
        loop.watch(listener.fileno(), self._accept)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # it went away again
            client, _ = self._listener.accept()
            if len(self._clients) >= MAX_CLIENTS or not _is_allowed(client):
                client.close()
                return
            client.setblocking(False)
            number = client.fileno()
            self._clients[number] = (client, b"")
            self._loop.watch(number, functools.partial(self._read, number))
            self._loop.after(CLIENT_SECONDS, functools.partial(self._drop, number, client))

    def _read(self, number: int) -> None:
        client, sofar = self._clients[number]
        try:
            data = client.recv(MAX_REQUEST_BYTES)
        except OSError:
            data = b""
        request = sofar + data
        self._clients[number] = (client, request)
        if data and b"\n" not in request and len(request) < MAX_REQUEST_BYTES:
            return
        with contextlib.suppress(OSError):  # it does not wait for its answer
            client.send(json.dumps(self._answer(request)).encode() + b"\n")
        self._drop(number, client)

    def _answer(self, request: bytes) -> dict[str, object]:
        if request.strip() == b"status":
            return {"ok": dataclasses.asdict(self._supervisor.statistics())}
        return {"error": f"{request[:40]!r} is not a request; allowed: status"}

    def _drop(self, number: int, client: socket.socket) -> None:
        if self._clients.get(number, (None,))[0] is client:
            del self._clients[number]
            self._loop.unwatch(number)
            client.close()

    def close(self) -> None:
        for number, (client, _) in list(self._clients.items()):
            self._drop(number, client)
        self._loop.unwatch(self._listener.fileno())
        self._listener.close()


@contextlib.contextmanager
def serving(supervisor: Supervisor, loop: Loop) -> Iterator[None]:
    """Answer on the control socket while the run lasts; without one, if none can be made, the run goes on."""
    path = folder() / f"{os.getpid()}.sock"
    try:
        listener = _listen(path)
    except OSError as error:
        log.warning("no control socket", extra=fields(path=str(path), reason=str(error)))
        yield
        return
    server = ControlServer(supervisor, loop, listener)
    try:
        yield
    finally:
        server.close()
        path.unlink(missing_ok=True)


def _listen(path: Path) -> socket.socket:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = path.parent.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise PermissionError(f"{path.parent} is not this user's alone")
    path.unlink(missing_ok=True)  # of a killed run that had our pid
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(MAX_CLIENTS)
    except OSError:
        listener.close()
        raise
    return listener


def _is_allowed(client: socket.socket) -> bool:
    credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    return uid in (os.getuid(), 0)


# -- the client --------------------------------------------------------------------------------------------


def status(pid: int | None) -> RunStatistics:
    """Return the statistics of this user's run, or of the one with this pid. Raises `ControlError`."""
    paths = sorted(folder().glob("*.sock")) if pid is None else [folder() / f"{pid}.sock"]
    answers = {path.stem: answer for path in paths if (answer := _ask(path, b"status")) is not None}
    if not answers:
        which = f"with pid {pid} " if pid is not None else ""
        raise ControlError(f"no run {which}answers in {folder()}; start one with `conveyor run`")
    if len(answers) > 1:
        raise ControlError(f"{len(answers)} runs answer; choose one with --pid {' or --pid '.join(answers)}")
    return from_plain(next(iter(answers.values())))


def _ask(path: Path, request: bytes) -> dict[str, object] | None:
    """Return the answer, or None if nobody is behind the socket any more."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(CLIENT_SECONDS)
        try:
            client.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return None
        except OSError as error:
            raise ControlError(f"{path}: {error}") from error
        try:
            client.sendall(request + b"\n")
            with client.makefile("rb") as stream:
                line = stream.readline()
        except TimeoutError:
            raise ControlError(f"{path}: the run does not answer within {CLIENT_SECONDS:g} s") from None
        except OSError as error:
            raise ControlError(f"{path}: {error}") from error
    if not line:
        raise ControlError(f"{path}: the run closed the connection without an answer")
    answer = json.loads(line)
    if "error" in answer:
        raise ControlError(f"{path}: {answer['error']}")
    ok: dict[str, object] = answer["ok"]
    return ok
