"""The control socket: how `conveyor status`, `top`, `scale` and the others speak to a run on the same machine.

A Unix socket of mode 0600 in a folder of mode 0700, answered in the supervisor's loop; whoever is not this user
or root is refused. One line asks (`steering.py` has what), one line of JSON answers. Nothing on the network can reach
it.

One request is kept here: `farewell` is answered when the run is over. Who waits for that knows at once of the end, and
whether it was one, as a run that is SIGKILLed says nothing.

What happens when a run is SIGKILLed: its socket file stays, and the next client that finds it dead removes it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import select
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conveyor import sockets, steering
from conveyor.errors import ConfigurationError, ControlError
from conveyor.logs import fields
from conveyor.loop import Loop
from conveyor.snapshot import RunStatistics, from_plain
from conveyor.supervisor import Supervisor

log = logging.getLogger(__name__)

CLIENT_SECONDS = 5.0
MAX_CLIENTS = 16
MAX_REQUEST_BYTES = 1024
FAREWELL = "farewell"
FAREWELL_SECONDS = 0.2  # for one that does not read its farewell; it is waited for if the farewell is over 200 KB
MAX_NUMBERS = 50  # of dead letters in one request
# A client that reads more slowly than we write is looked at again so often; the loop waits for what comes in only.
SEND_PAUSE_SECONDS = 0.01


# -- the run's side ----------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class Client:
    """One that asks: what it has sent so far, then what it has not been sent yet."""

    socket: socket.socket
    request: bytes = b""
    answer: bytes = b""


class ControlServer:
    """The supervisor's side. Lives in its loop: no request may take long."""

    def __init__(self, supervisor: Supervisor, loop: Loop, listener: socket.socket) -> None:
        self._supervisor = supervisor
        self._loop = loop
        self._listener = listener
        self._clients: set[Client] = set()
        self._waiting: set[Client] = set()
        """Those that are told when the run is over."""
        listener.setblocking(False)
        loop.watch(listener.fileno(), self._accept)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # it went away again
            accepted, _ = self._listener.accept()
            if len(self._clients) >= MAX_CLIENTS or not _is_allowed(accepted):
                accepted.close()
                return
            accepted.setblocking(False)
            client = Client(accepted)
            self._clients.add(client)
            self._loop.watch(accepted.fileno(), functools.partial(self._read, client))
            self._loop.after(CLIENT_SECONDS, functools.partial(self._drop, client))

    def _read(self, client: Client) -> None:
        try:
            data = client.socket.recv(MAX_REQUEST_BYTES)
        except OSError:
            data = b""
        client.request += data
        if data and b"\n" not in client.request and len(client.request) < MAX_REQUEST_BYTES:
            return
        self._loop.unwatch(client.socket.fileno())
        if _has_gone(client.socket):  # we were stopped for long: what it was told has failed must not happen now
            self._drop(client)
        elif client.request.decode(errors="replace").split() == [FAREWELL]:
            self._keep(client)
        else:
            self._answer(client, steering.answer(self._supervisor, client.request))

    def _keep(self, client: Client) -> None:
        """Keep a client until the run is over; whatever comes from it meanwhile is its end."""
        if len(self._waiting) >= MAX_CLIENTS:
            self._answer(client, {"error": f"{MAX_CLIENTS} others watch this run already"})
            return
        self._clients.remove(client)
        self._waiting.add(client)
        self._loop.watch(client.socket.fileno(), functools.partial(self._forget, client))

    def _forget(self, client: Client) -> None:
        self._waiting.remove(client)
        self._loop.unwatch(client.socket.fileno())
        client.socket.close()

    def _bid_farewell(self) -> None:
        farewell = json.dumps(steering.answer(self._supervisor, b"status")).encode() + b"\n"
        for client in list(self._waiting):
            client.socket.settimeout(FAREWELL_SECONDS)
            with contextlib.suppress(OSError):  # it has gone, or does not read
                client.socket.sendall(farewell)
            self._forget(client)

    def _answer(self, client: Client, answer: steering.Answer) -> None:
        client.answer = json.dumps(answer).encode() + b"\n"
        self._send(client)

    def _send(self, client: Client) -> None:
        if client not in self._clients:
            return
        try:
            client.answer = client.answer[client.socket.send(client.answer) :]
        except BlockingIOError:
            pass
        except OSError:  # it does not wait for its answer
            client.answer = b""
        if client.answer:
            self._loop.after(SEND_PAUSE_SECONDS, functools.partial(self._send, client))
        else:
            self._drop(client)

    def _drop(self, client: Client) -> None:
        if client in self._clients:
            self._clients.remove(client)
            self._loop.unwatch(client.socket.fileno())
            client.socket.close()

    def close(self) -> None:
        """Say farewell to those who wait for it, and drop the others."""
        if self._waiting:
            self._bid_farewell()
        for client in list(self._clients):
            self._drop(client)
        self._loop.unwatch(self._listener.fileno())
        self._listener.close()


@contextlib.contextmanager
def serving(supervisor: Supervisor, loop: Loop) -> Iterator[None]:
    """Answer on the control socket while the run lasts; without one, if none can be made, the run goes on."""
    path = sockets.folder() / f"{os.getpid()}.sock"
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
    sockets.check(path.parent)
    unready = path.with_suffix(".new")
    unready.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(unready))
        unready.chmod(0o600)
        listener.listen(MAX_CLIENTS)
        # Only now under its name: a client takes a socket that nobody listens on for a dead run's, and removes it.
        unready.rename(path)
    except OSError:
        listener.close()
        raise
    return listener


def _is_allowed(client: socket.socket) -> bool:
    credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    return uid in (os.getuid(), sockets.ROOT)


def _has_gone(client: socket.socket) -> bool:
    poll = select.poll()
    poll.register(client, 0)
    return any(events & select.POLLHUP for _, events in poll.poll(0))


# -- the client's side -------------------------------------------------------------------------------------


def find(pid: int | None) -> int:
    """Return the pid of this user's only run, if none is given. Raises `ControlError`."""
    return int(_find(pid).stem)


def status(pid: int | None) -> RunStatistics:
    """Return the statistics of this user's run, or of the one with this pid. Raises `ControlError`."""
    return _understood(ask("status", pid))


class Farewell:
    """A connection that is readable once the run is over. Costs the run nothing until then."""

    def __init__(self, pid: int) -> None:
        """Be told of the end of the run with this pid. Raises `ControlError`."""
        self._path = _find(pid)
        connection = _connect(self._path)
        if connection is None:
            raise _no_run(pid)
        self._connection = connection
        try:
            connection.sendall(FAREWELL.encode() + b"\n")
        except OSError as error:
            connection.close()
            raise ControlError(f"{self._path}: {error}") from error

    def fileno(self) -> int:
        return self._connection.fileno()

    def read(self) -> RunStatistics | None:
        """Return the run as it ended, or None if it said nothing. Raises `ControlError` if it will not tell."""
        answer = _receive(self._path, self._connection)
        return None if answer is None else _understood(answer)

    def close(self) -> None:
        self._connection.close()


def _understood(answer: dict[str, object]) -> RunStatistics:
    try:
        return from_plain(answer)
    except (TypeError, KeyError, ValueError) as error:
        raise ControlError("the run's answer is not understood: is it of another version?") from error


def steer(request: str, pid: int | None) -> str:
    """Have this user's run, or the one with this pid, do something; return what it did. Raises what `ask` raises."""
    return str(ask(request, pid).get(steering.DID, ""))


def dead(verb: str, words: Sequence[str], pid: int | None) -> Iterator[dict[str, Any]] | str:
    """Have a run list its dead letters, or show, retry or purge some; return them, or what was done."""
    if verb == "list":
        return _listed(pid)
    did = []
    for at in range(0, len(words), MAX_NUMBERS):
        answer = ask(" ".join(("dead", verb, *words[at : at + MAX_NUMBERS])), pid)
        if verb == "show":
            return iter(answer[steering.LETTERS])  # type: ignore[call-overload, no-any-return]
        did.append(str(answer[steering.DID]))
    return "\n".join(did)


def _listed(pid: int | None) -> Iterator[dict[str, Any]]:
    after = 0
    while True:
        letters: Any = ask(f"dead list {after}", pid)[steering.LETTERS]
        if not letters:
            return
        yield from letters
        after = letters[-1]["number"]


def drain(pid: int | None) -> tuple[str, int]:
    """Drain a run; return what it did, and a descriptor that is readable once its process has ended."""
    path = _find(pid)
    try:
        ending = os.pidfd_open(int(path.stem))  # before we ask: it may be quick
    except ProcessLookupError:
        raise _no_run(pid) from None
    try:
        return str(_asked(path, "drain", pid).get(steering.DID, "")), ending
    except ControlError:
        os.close(ending)
        raise


def ask(request: str, pid: int | None) -> dict[str, object]:
    """Return what this user's run answers, or the one with this pid.

    Raises `ControlError` if there is none, or it does not answer, or cannot do it now, and `ConfigurationError` if it
    could never do it.
    """
    return _asked(_find(pid), request, pid)


def _asked(path: Path, request: str, pid: int | None) -> dict[str, object]:
    answer = _ask(path, request.encode())
    if answer is None:
        raise _no_run(pid)
    return answer


def _no_run(pid: int | None) -> ControlError:
    if pid is not None:
        return ControlError(f"no run with pid {pid} answers; start one with `conveyor run`")
    others = " (one of another user: --pid N)" if os.getuid() == sockets.ROOT else ""
    return ControlError(f"no run answers in {sockets.folder()}; start one with `conveyor run`{others}")


def _find(pid: int | None) -> Path:
    """Return where the run listens, at least until a moment ago."""
    try:
        path = _only_run() if pid is None else sockets.of_run(pid)
    except FileNotFoundError:
        path = None
    except OSError as error:
        raise ControlError(str(error)) from error
    if path is None:
        raise _no_run(pid)
    return path


def _only_run() -> Path | None:
    """Return the socket of the one run that there is, if any. Raises `OSError` if the folder is not ours alone."""
    sockets.check(sockets.folder())
    paths = []
    for path in sorted(sockets.folder().glob("*.sock")):
        if (client := _connect(path)) is not None:
            client.close()
            paths.append(path)
    if len(paths) > 1:
        pids = " or ".join(f"--pid {path.stem}" for path in paths)
        raise ControlError(f"there are {len(paths)} runs; choose one with {pids}")
    return paths[0] if paths else None


def _connect(path: Path) -> socket.socket | None:
    """Return a connection to the run behind the socket, or None if it is gone; then the socket is, too."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(CLIENT_SECONDS)
    try:
        client.connect(str(path))
    except FileNotFoundError:  # nothing to remove: what is there a moment later is a new run's
        client.close()
        return None
    except ConnectionRefusedError:
        client.close()
        path.unlink(missing_ok=True)
        return None
    except OSError as error:
        client.close()
        raise ControlError(f"{path}: {error}") from error
    return client


def _ask(path: Path, request: bytes) -> dict[str, object] | None:
    """Return the answer, or None if nobody is behind the socket any more."""
    client = _connect(path)
    if client is None:
        return None
    with client:
        try:
            client.sendall(request + b"\n")
        except OSError as error:
            raise ControlError(f"{path}: {error}") from error
        answer = _receive(path, client)
    if answer is None:
        raise ControlError(f"{path}: the run closed the connection without an answer")
    return answer


def _receive(path: Path, client: socket.socket) -> dict[str, object] | None:
    """Return what the run says, or None if it closes the connection instead. Raises `ControlError`."""
    try:
        with client.makefile("rb") as stream:
            answer = json.loads(stream.readline() or b"null")
    except ConnectionResetError:  # it died, or dropped us, before it had read what we asked
        return None
    except TimeoutError:
        raise ControlError(f"{path}: the run does not answer within {CLIENT_SECONDS:g} s") from None
    except (OSError, ValueError) as error:
        raise ControlError(f"{path}: {error}") from error
    match answer:
        case {"ok": dict(ok)}:
            return ok
        case {"error": str(reason), "exit_code": ConfigurationError.exit_code}:
            raise ConfigurationError(reason)
        case {"error": str(reason)}:
            raise ControlError(f"{path}: {reason}")
        case None:
            return None
    raise ControlError(f"{path}: {str(answer)[:80]!r} is not an answer")
