"""HOW IT IS SEEN: a small HTTP server that only reads. One request a connection, one thread a connection.

Called by `serving` in this package. What a client can do wrong (send nothing, send slowly, send garbage, read
nothing, go away, come in crowds) costs it its connection and nobody else anything. When this server dies the
run goes on unseen; when the run's process dies, the server is gone with it.

A connection for which there is no place waits in a room, where a request is answered only once it is whole, and if it
is for a probe or the metrics. So a crowd that holds all places does not make a run look dead.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import re
import select
import socket
import socketserver
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from conveyor.descriptors import keep_from_forks
from conveyor.exporter.pages import Answer, Pages, Request
from conveyor.logs import fields

log = logging.getLogger(__name__)

_METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # a token, RFC 9110
_DRAIN_BYTES = 1 << 20  # of what nobody asked for; arbitrary
_FULL = (
    b"HTTP/1.0 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Length: 21\r\nConnection: close\r\n\r\ntoo many connections\n"
)
_RELIED_ON = re.compile(rb"(GET|HEAD) /(healthz|readyz|metrics)[ ?]")  # by those who judge whether the run is alive
_ROOM_THREADS = 8  # that answer such requests beside all others
_MOST_HEAD_BYTES = 1 << 14
_TURN_SECONDS = 0.5  # how often it is looked who has waited for too long
_JOIN_SECONDS = 5.0  # far more than any answer takes once its client is cut off


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client, and all together, may take."""

    seconds: float = 10.0
    """For the whole head of a request to arrive; the same again for the answer to be read."""
    connections: int = 64
    crowded_seconds: float = 3.0
    """For the head to arrive while all places are taken."""
    room: int = 256
    """Connections that wait without a place. One more costs the oldest of them its own: it has had its chance."""
    room_seconds: float = 1.0
    """For a whole head to arrive from one of those."""


class MetricsServer(ThreadingHTTPServer):
    """Listens, and gives each connection a thread. All methods belong to the thread that serves, but `stop`."""

    request_queue_size = 128  # more than the connections we take, so that it is we who refuse
    allow_reuse_port = False

    def __init__(self, family: socket.AddressFamily, address: Any, pages: Pages, limits: Limits) -> None:
        """Listen on this socket address of the family; raises `OSError` if it cannot be had."""
        self.address_family = family
        self.pages = pages
        self.limits = limits
        self._connections: list[tuple[socket.socket, threading.Thread]] = []
        self._room: dict[int, tuple[float, socket.socket, Any]] = {}
        """Until when each of those without a place may wait, by its descriptor; the oldest first."""
        self._epoll = select.epoll()
        self._is_over = False
        super().__init__(address, Handler)

    @property
    def is_crowded(self) -> bool:
        """Whether all places are taken. Safe from any thread."""
        return len(self._connections) >= self.limits.connections

    def serve(self) -> None:
        """Serve until `stop` is called."""
        with self._epoll:
            self._epoll.register(self.socket, select.EPOLLIN)
            while not self._is_over:
                for descriptor, _ in self._epoll.poll(_TURN_SECONDS):
                    if descriptor in self._room:
                        self._look(descriptor)
                    elif not self._is_over:
                        self._handle_request_noblock()  # type: ignore[attr-defined]  # of `serve_forever`
                self._forget_ended()
                self._refuse_late()
        for descriptor in list(self._room):
            self.shutdown_request(self._room.pop(descriptor)[1])

    def server_bind(self) -> None:
        """Bind without the look-up of our own name, which can take seconds and is not used."""
        socketserver.TCPServer.server_bind(self)
        keep_from_forks(self.socket)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            request, address = super().get_request()
            return keep_from_forks(request), address
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                time.sleep(0.1)  # the client still waits, so the caller would be back at once, and spin
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        self._forget_ended()
        if self.is_crowded:
            self._admit(request, client_address)
        else:
            self._answer(request, client_address)

    def _forget_ended(self) -> None:
        self._connections = [(peer, thread) for peer, thread in self._connections if thread.is_alive()]

    def _answer(self, request: socket.socket, client_address: Any) -> None:
        thread = threading.Thread(
            target=self.process_request_thread,
            args=(request, client_address),
            name="metrics-client",
            daemon=True,
        )
        try:
            thread.start()
        except RuntimeError:  # none is to be had
            self._refuse(request)
            return
        self._connections.append((request, thread))

    def _admit(self, request: socket.socket, client_address: Any) -> None:
        """Have a connection wait without a place until its request is whole."""
        if len(self._room) >= self.limits.room:
            self._refuse(self._leave(next(iter(self._room)))[0])
        until = time.monotonic() + self.limits.room_seconds
        self._room[request.fileno()] = until, request, client_address
        # By its edge: what has arrived of a head stays where it is, and would wake us again and again.
        self._epoll.register(request, select.EPOLLIN | select.EPOLLET)

    def _leave(self, descriptor: int) -> tuple[socket.socket, Any]:
        _, request, client_address = self._room.pop(descriptor)
        self._epoll.unregister(descriptor)
        return request, client_address

    def _look(self, descriptor: int) -> None:
        """See whether a request is whole, and what it is."""
        request = self._room[descriptor][1]
        head = b""
        with contextlib.suppress(OSError):
            head = request.recv(_MOST_HEAD_BYTES, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        if head and b"\r\n\r\n" not in head and b"\n\n" not in head and len(head) < _MOST_HEAD_BYTES:
            return
        has_thread = len(self._connections) < self.limits.connections + _ROOM_THREADS
        if has_thread and _RELIED_ON.match(head):
            self._answer(*self._leave(descriptor))
        else:
            self._refuse(self._leave(descriptor)[0])

    def _refuse_late(self) -> None:
        now = time.monotonic()
        while self._room and next(iter(self._room.values()))[0] <= now:
            self._refuse(self._leave(next(iter(self._room)))[0])

    def _refuse(self, request: socket.socket) -> None:
        with contextlib.suppress(OSError):
            request.setblocking(False)
            request.send(_FULL)
        self.shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep what went wrong with one connection off stderr: clients go away, and that is their right."""
        error = sys.exception()
        if isinstance(error, OSError):
            log.debug("client lost", extra=fields(client=client_address[0], error=repr(error)))
        else:
            log.error("connection failed", extra=fields(error=repr(error), trace=traceback.format_exc()))

    def stop(self, serving: threading.Thread) -> None:
        """Stop at once: cut off who is still connected, and return when every thread has ended."""
        self._is_over = True
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)  # wakes the loop, which else looks up twice a second only
        serving.join()
        self.server_close()
        for connection, _ in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for _, thread in self._connections:
            thread.join(_JOIN_SECONDS)


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: MetricsServer
    server_version = "conveyor"
    sys_version = ""
    error_message_format = "%(code)d %(message)s\n"
    error_content_type = "text/plain; charset=utf-8"

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self.rfile = io.BufferedReader(_PunctualReader(self.connection, self.server))

    def parse_request(self) -> bool:
        """Parse the head; answer here what is no GET and no HEAD, whatever it is called."""
        if not super().parse_request():
            return False
        self.connection.settimeout(self.server.limits.seconds)  # from here on, for the answer
        if self.command in ("GET", "HEAD") or not _METHOD.fullmatch(self.command):
            return True
        allow = (("Allow", "GET, HEAD"),)
        self._send(Answer(HTTPStatus.METHOD_NOT_ALLOWED, b"only GET and HEAD are allowed\n", headers=allow))
        self._drain()
        return False

    def do_GET(self) -> None:
        accept, encoding, host = (", ".join(self.headers.get_all(n, [])) for n in ("Accept", "Accept-Encoding", "Host"))
        try:
            answer = self.server.pages.answer(Request(self.path, accept, encoding, host))
        except Exception as error:  # ours, not the client's; the next request may well be answered
            about = fields(path=self.path, error=repr(error), trace=traceback.format_exc())
            log.error("request failed", extra=about)
            answer = Answer.text(HTTPStatus.INTERNAL_SERVER_ERROR, "this page cannot be made; see the log")
        self._send(answer)

    do_HEAD = do_GET  # noqa: N815, the name is http.server's

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Connection", "close")
        for name, value in answer.headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def _drain(self) -> None:
        """Read what else was sent: closing on unread bytes resets the connection and takes our answer back."""
        self.connection.shutdown(socket.SHUT_WR)
        left = _DRAIN_BYTES
        while left > 0 and (data := self.rfile.read1(1 << 16)):
            left -= len(data)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        super().send_error(code, message, explain)
        self._drain()

    def end_headers(self) -> None:
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def version_string(self) -> str:
        return self.server_version

    def log_message(self, format: str, *args: Any) -> None:
        log.debug("http", extra=fields(client=self.client_address[0], what=format % args))


class _PunctualReader(io.RawIOBase):
    """Reads a socket until a deadline that no trickle of bytes moves, and that a crowd brings nearer."""

    def __init__(self, connection: socket.socket, server: MetricsServer) -> None:
        self._connection = connection
        self._server = server
        self._began = time.monotonic()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            limits = self._server.limits
            limit = min(limits.crowded_seconds, limits.seconds) if self._server.is_crowded else limits.seconds
            left = self._began + limit - time.monotonic()
            if left <= 0:
                raise TimeoutError("the request did not arrive in time")
            self._connection.settimeout(min(left, _TURN_SECONDS))
            with contextlib.suppress(TimeoutError):
                return self._connection.recv_into(buffer)
