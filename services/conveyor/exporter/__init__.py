"""HOW IT IS SEEN: Prometheus metrics, health and a page, over HTTP, of a run that knows nothing of it.

    ledger ─▶ Supervisor.statistics() ─▶ collector ─┐
    /proc ──▶ vitals ─────────────────▶ collector ──┴─▶ writer ─▶ pages ─▶ http ─▶ Prometheus
    Supervisor.statistics() ─▶ rates, overview ─▶ index ─────────▶ pages ─▶ http ─▶ people

Imported only where it is used (`pipeline`, `cli`), because the client library takes longer to load than the
rest of the package together.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import socket
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager

from conveyor.errors import ConfigurationError
from conveyor.exporter.collector import Run
from conveyor.exporter.http import Limits, MetricsServer
from conveyor.exporter.pages import Pages, Turning
from conveyor.logs import fields
from conveyor.settings import Address

log = logging.getLogger(__name__)

_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


def serving(
    address: Address, limits: Limits | None = None, allowed_hosts: Collection[str] = ()
) -> Callable[[Run, Turning], AbstractContextManager[str]]:
    """Return what serves a run from this address: a function of (supervisor, loop), as `pipeline.Attachment`.

    The page is shown under the address's own name and the allowed ones, `localhost`, and any address.
    It listens from entry to exit and yields the URL of the metrics. Entering raises `ConfigurationError` if
    the address cannot be had.
    """
    return functools.partial(_serve, address, limits or Limits(), (address.host, *allowed_hosts))


@contextlib.contextmanager
def _serve(address: Address, limits: Limits, hosts: Collection[str], run: Run, loop: Turning) -> Iterator[str]:
    server = _listen(address, Pages(run, loop, hosts), limits)
    thread = threading.Thread(target=server.serve, name="metrics", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # there are too many
        server.server_close()
        raise
    try:
        url = f"http://{Address(address.host, server.server_port)}/metrics"
        log.info("metrics served", extra=fields(url=url))
        yield url
    finally:
        server.stop(thread)


def _listen(address: Address, pages: Pages, limits: Limits) -> MetricsServer:
    try:
        return _bind(address, pages, limits)
    except (OSError, ValueError, OverflowError) as error:  # ValueError: a host that cannot be a name
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigurationError(
            f"cannot serve metrics on {address}: {reason}; give another HOST:PORT with --metrics, "
            "port 0 to have a free one picked, or off"
        ) from error


def _bind(address: Address, pages: Pages, limits: Limits) -> MetricsServer:
    """Listen on the first of the host's addresses that this machine has; IPv4 first, as scrapers expect."""
    infos = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    infos.sort(key=lambda info: info[0] is not socket.AF_INET)
    *others, last = infos
    for family, _, _, _, target in others:
        try:
            return MetricsServer(family, target, pages, limits)
        except OSError as error:
            if error.errno not in _NOT_HERE:
                raise
    return MetricsServer(last[0], last[4], pages, limits)
