"""The control socket: where a run answers `conveyor status`, `top`, `scale` and the others on the same machine.

A Unix socket of mode 0600 in a folder of mode 0700, answered in the supervisor's loop; whoever is not this user
or root is refused. One line asks (`steering.py` has what, `asking.py` does), one line of JSON answers. Nothing on the
network can reach it.

One request is kept here: `farewell` is answered when the run is over. Who waits for that knows at once of the end, and
whether it was one, as a run that is SIGKILLed says nothing.

What happens when a run is SIGKILLed: its socket file stays, and the next client that finds it dead removes it.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import logging
import os
import select
import socket
import struct
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from conveyor import sockets, steering
from conveyor.descriptors import keep_from_forks
from conveyor.logs import fields
from conveyor.loop import Loop
from conveyor.supervisor import Supervisor

log = logging.getLogger(__name__)

CLIENT_SECONDS = 5.0
MAX_CLIENTS = 16
MAX_REQUEST_BYTES = 1024
FAREWELL_SECONDS = 0.2  # for one that does not read its farewell; it is waited for if the farewell is over 200 KB
# A client that reads more slowly than we write is looked at again so often; the loop waits for what comes in only.
SEND_PAUSE_SECONDS = 0.01
ACCEPT_PAUSE_SECONDS = 0.1  # where no descriptor is to be had for one more client


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
        self._listen()

    def _listen(self) -> None:
        self._loop.watch(self._listener.fileno(), self._accept)

    def _accept(self) -> None:
        try:
            accepted, _ = self._listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):  # it still waits: the loop would be back at once, and spin
                self._loop.unwatch(self._listener.fileno())
                self._loop.after(ACCEPT_PAUSE_SECONDS, self._listen)
            return  # else it went away again
        if len(self._clients) >= MAX_CLIENTS or not _is_allowed(accepted):
            accepted.close()
            return
        accepted.setblocking(False)
        client = Client(keep_from_forks(accepted))
        self._clients.add(client)
        self._loop.after(CLIENT_SECONDS, functools.partial(self._drop, client))
        self._loop.watch(accepted.fileno(), self._guarded(self._read, client))

    def _guarded(self, action: Callable[[Client], None], client: Client) -> Callable[[], None]:
        """Return what the loop calls for a client: whatever it raises costs that client its connection, and no more."""

        def act() -> None:
            try:
                action(client)
            except Exception as error:
                log.error("client failed", extra=fields(error=repr(error), trace=traceback.format_exc()))
                self._lose(client)

        return act

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
        elif client.request.decode(errors="replace").split() == [steering.FAREWELL]:
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
        self._loop.watch(client.socket.fileno(), self._guarded(self._lose, client))

    def _lose(self, client: Client) -> None:
        """Forget a client, whatever it waits for."""
        self._waiting.discard(client)
        self._clients.discard(client)
        self._loop.unwatch(client.socket.fileno())
        client.socket.close()

    def _bid_farewell(self) -> None:
        farewell = json.dumps(steering.answer(self._supervisor, b"status")).encode() + b"\n"
        for client in list(self._waiting):
            client.socket.settimeout(FAREWELL_SECONDS)
            with contextlib.suppress(OSError):  # it has gone, or does not read
                client.socket.sendall(farewell)
            self._lose(client)

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
            self._loop.after(SEND_PAUSE_SECONDS, self._guarded(self._send, client))
        else:
            self._drop(client)

    def _drop(self, client: Client) -> None:
        if client in self._clients:
            self._lose(client)

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
    listener = keep_from_forks(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
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
    """Return whether the process at the other end is this user's, or root's."""
    credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    return uid in (os.getuid(), sockets.ROOT)


def _has_gone(client: socket.socket) -> bool:
    poll = select.poll()
    poll.register(client, 0)
    return any(events & select.POLLHUP for _, events in poll.poll(0))
