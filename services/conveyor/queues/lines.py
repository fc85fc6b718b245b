"""The supervisor's ends of the private sockets: a message from a worker, or to one, without ever waiting for it.

Called by the `leased` queue, in the supervisor's loop. What happens when the worker is dead: nothing, here.
"""

from __future__ import annotations

import socket

from conveyor.queues import wire


def receive(line: socket.socket) -> bytes:
    """Return a message, or nothing if there is none or will be none."""
    while True:
        try:
            return line.recv(wire.MAX_BYTES)
        except BlockingIOError:
            return b""
        except ConnectionError:
            # It has ended without reading all that we had sent. The kernel says so once, before what it had sent us.
            continue


def send(line: socket.socket, message: bytes, descriptor: int | None = None) -> None:
    """Send to a worker. One that is gone is not told; its death is on its way to us."""
    try:
        if descriptor is None:
            line.send(message)
        else:
            socket.send_fds(line, [message], [descriptor])
    except ConnectionError:
        pass
