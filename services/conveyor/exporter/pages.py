"""What each path answers: no socket in here, and nothing that changes the run.

Called by the HTTP server's threads. An exception that leaves `Pages.answer` is a mistake of ours, never a
client's; the server makes it a 500.
"""

from __future__ import annotations

import functools
import gzip
import ipaddress
import json
import re
import time
from collections.abc import Collection
from dataclasses import dataclass, fields
from http import HTTPStatus
from typing import Any, Protocol
from urllib.parse import urlsplit

from conveyor.exporter.collector import Run, RunCollector, own_process
from conveyor.exporter.index import document, policy
from conveyor.exporter.overview import overview
from conveyor.exporter.rates import Rates
from conveyor.exporter.writer import Writer
from conveyor.snapshot import Phase, Role, RunStatistics, WorkerState

# The loop turns at least once a second; a machine that makes it wait five times that is worth an alarm.
STUCK_AFTER_SECONDS = 5.0
_FOREIGN = (
    "this page is not shown under that host name; ask for it by its address or as localhost, or allow the name with "
    "--allowed-hosts"
)
_TEXT = "text/plain; charset=utf-8"
_HTML = "text/html; charset=utf-8"
_JSON = "application/json"
# Level 1 makes a page 13 times smaller; level 9 makes it 17 times smaller, in 17 times the time.
_GZIP_LEVEL = 1
# Formats that are remembered, by the `Accept` that asks for them: Prometheus, and whoever looks beside it.
_WRITERS = 4


class Turning(Protocol):
    """What tells that the supervisor is alive: its loop."""

    last_turn: float
    """Monotonic time of its last turn."""


@dataclass(frozen=True, slots=True)
class Request:
    """What an answer may depend on; headers that were not sent are empty."""

    target: str
    accept: str = ""
    accept_encoding: str = ""
    host: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response."""

    status: HTTPStatus
    body: bytes
    content_type: str = _TEXT
    headers: tuple[tuple[str, str], ...] = ()

    @classmethod
    def text(cls, status: HTTPStatus, text: str) -> Answer:
        """Return one line of plain text."""
        return cls(status, f"{text}\n".encode(errors="replace"))


class Pages:
    """The four pages of one run. Safe from any thread."""

    def __init__(self, run: Run, loop: Turning, hosts: Collection[str] = ()) -> None:
        """`hosts` are names by which the page may be asked for, beside every address and `localhost`."""
        self._hosts = {"localhost", *(host.lower() for host in hosts)}
        self._run = run
        self._loop = loop
        self._collector = RunCollector(run)
        self._rates = Rates()
        self._supervisor = own_process()
        self._writer = functools.lru_cache(_WRITERS)(Writer)

    def answer(self, request: Request) -> Answer:
        """Return the response to a GET of this target, a path or a whole URL."""
        match _path(request.target):
            case "/":
                if not is_ours(request.host, self._hosts):
                    return Answer.text(HTTPStatus.FORBIDDEN, _FOREIGN)
                return self._index(request)
            case "/metrics":
                return self._metrics(request)
            case "/healthz":
                return _judged(self._why_unhealthy())
            case "/readyz":
                return _judged(why_not_ready(self._run.statistics()))
        return Answer.text(HTTPStatus.NOT_FOUND, "not found")

    def _metrics(self, request: Request) -> Answer:
        writer = self._writer(request.accept)
        body = writer.write(self._collector.collect(), self._supervisor)
        return _packed(body, writer.content_type, request)

    def _index(self, request: Request) -> Answer:
        """Return the page, or what it shows as JSON: that is what the script in it asks for."""
        run = self._run.statistics()
        seen = overview(run, self._rates.since(run), self._why_unhealthy(), why_not_ready(run))
        vary = ("Vary", "Accept, Accept-Encoding")
        if _wants_json(request.accept):
            text = json.dumps(seen, default=_plain, separators=(",", ":"))
            return _packed(text.encode(), _JSON, request, vary)
        return _packed(document(seen).encode(), _HTML, request, vary, ("Content-Security-Policy", policy()))

    def _why_unhealthy(self) -> str | None:
        return why_unhealthy(time.monotonic() - self._loop.last_turn)


def is_ours(host: str, names: Collection[str]) -> bool:
    """Return whether a `Host` header is an address, one of the names, or was not sent.

    Any other name may be one that a page from elsewhere has pointed at us, so that its script can read our answers
    (DNS rebinding): a browser takes them for that page's own. With an address it cannot do that.
    """
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return not host or name.lower().removesuffix(".") in names
    return True


def _path(target: str) -> str | None:
    try:
        return urlsplit(target).path
    except ValueError:  # a URL that is none
        return None


def why_unhealthy(seconds_since_turn: float) -> str | None:
    """Return the reason why the supervisor seems stuck, or None."""
    if seconds_since_turn < STUCK_AFTER_SECONDS:
        return None
    return f"the supervisor's loop has not turned for {seconds_since_turn:.1f} s"


def why_not_ready(run: RunStatistics) -> str | None:
    """Return the reason why the run cannot take and do tasks now, or None. A role that is done needs nobody."""
    if run.phase is not Phase.RUNNING:
        return f"the run is {run.phase}"
    if run.trouble is not None:
        return run.trouble
    if run.queue.spool is not None and run.queue.spool.trouble is not None:
        return f"the spool cannot be written, so producers wait: {run.queue.spool.trouble}"
    for role in Role:
        live = [slot for slot in run.slots if slot.role is role and slot.up]
        if run.desired.get(role, 0) and all(slot.state is WorkerState.STARTING for slot in live):
            return f"no {role} is ready: {len(live)} starting, {run.desired[role]} wanted"
    return None


def _judged(reason: str | None) -> Answer:
    if reason is None:
        return Answer.text(HTTPStatus.OK, "ok")
    return Answer.text(HTTPStatus.SERVICE_UNAVAILABLE, reason)


def _packed(body: bytes, content_type: str, request: Request, *headers: tuple[str, str]) -> Answer:
    """Return this body, compressed if the client takes that."""
    if not _accepts_gzip(request.accept_encoding):
        return Answer(HTTPStatus.OK, body, content_type, headers)
    packed = gzip.compress(body, _GZIP_LEVEL)
    return Answer(HTTPStatus.OK, packed, content_type, (*headers, ("Content-Encoding", "gzip")))


def _wants_json(accept: str) -> bool:
    """Return whether JSON is asked for by its name, and a page is not."""
    ranges = {part.partition(";")[0].strip() for part in accept.lower().split(",")}
    return _JSON in ranges and "text/html" not in ranges


def _plain(part: Any) -> dict[str, Any]:
    """Return a frozen dataclass as the JSON encoder has it; `dataclasses.asdict` would copy all that is in it."""
    return {field.name: getattr(part, field.name) for field in fields(part)}


def _accepts_gzip(accept_encoding: str) -> bool:
    for coding in accept_encoding.lower().split(","):
        name, _, quality = coding.partition(";")
        if name.strip() == "gzip":
            return not re.fullmatch(r"q=0(\.0*)?", quality.strip())
    return False
