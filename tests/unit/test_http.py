"""The HTTP server, over real sockets: what it answers, and what no client can do to it."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import logging
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from conveyor.errors import ConfigurationError
from conveyor.exporter import serving
from conveyor.exporter.http import Limits
from conveyor.exporter.pages import why_not_ready, why_unhealthy
from conveyor.settings import Address
from conveyor.snapshot import Phase, Role, RunStatistics, WorkerState
from support.fakes import FakeLoop, FakeRun, make_run, make_slot
from support.scrapes import assert_consistent, parse
from support.waiting import wait_for

LOCAL = Address("127.0.0.1", 0)
PATHS = ("/", "/metrics", "/healthz", "/readyz")
# The header that it sends.
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


class Served:
    """A run that is served, and ways to ask for it."""

    def __init__(self, url: str, run: FakeRun, loop: FakeLoop) -> None:
        self.url, self.run, self.loop = url, run, loop
        self.port = int(url.rpartition(":")[2].partition("/")[0])

    def ask(
        self, path: str, method: str = "GET", headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> tuple[http.client.HTTPResponse, bytes]:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)) as connection:
            connection.request(method, path, body=body, headers=headers or {})
            response = connection.getresponse()
            return response, response.read()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def say(self, data: bytes) -> bytes:
        """Send these bytes and nothing more; return all that comes back."""
        with self.connect() as client:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            return read_all(client)


def read_all(client: socket.socket) -> bytes:
    """Return what arrives until the server closes, nicely or not."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while data := client.recv(1 << 16):
            received += data
    return received


def live_run() -> RunStatistics:
    return make_run(
        make_slot("producer-1", pid=1, produced=30, state=WorkerState.BLOCKED),
        make_slot("consumer-1", pid=1, processed=20, failed=3, in_progress=1, state=WorkerState.BUSY),
    )


@contextlib.contextmanager
def served(run: RunStatistics | Exception | None = None, limits: Limits | None = None) -> Iterator[Served]:
    fake, loop = FakeRun(run or live_run()), FakeLoop()
    with serving(LOCAL, limits)(fake, loop) as url:
        yield Served(url, fake, loop)


@pytest.fixture
def site(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Iterator[Served]:
    """A served run; whatever the test's clients do, nothing may be logged or printed about it."""
    with caplog.at_level(logging.INFO), served() as site:
        caplog.clear()
        yield site
    assert not caplog.records
    assert capfd.readouterr().err == ""


# -- what is answered --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
def test_every_page_answers_and_closes(site: Served, path: str) -> None:
    response, body = site.ask(path)
    assert response.status == 200
    assert body
    assert response.headers["Content-Length"] == str(len(body))
    assert response.headers["Connection"] == "close"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Server"] == "conveyor"


@pytest.mark.parametrize("path", [*PATHS, "/nowhere"])
def test_head_is_get_without_a_body(site: Served, path: str) -> None:
    got, body = site.ask(path)
    head, nothing = site.ask(path, "HEAD")
    assert nothing == b""
    assert head.status == got.status
    varying = {"Date", "Content-Length"} if path == "/metrics" else {"Date"}
    assert {k: v for k, v in head.getheaders() if k not in varying} == {
        k: v for k, v in got.getheaders() if k not in varying
    }
    raw = site.say(f"HEAD {path} HTTP/1.0\r\n\r\n".encode())
    assert raw.endswith(b"\r\n\r\n")
    assert body


@pytest.mark.parametrize(
    "path",
    ["/nowhere", "/metrics/", "/Metrics", "/favicon.ico", "/../etc/passwd", "/metrics%00", "metrics", "http://["],
)
def test_any_other_path_is_not_found(site: Served, path: str) -> None:
    answer = site.say(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.0 404 ")


@pytest.mark.parametrize("target", ["/healthz?verbose=1", "http://localhost:8000/healthz"])
def test_a_query_and_a_whole_url_are_no_other_path(site: Served, target: str) -> None:
    assert site.say(f"GET {target} HTTP/1.1\r\n\r\n".encode()).endswith(b"\r\n\r\nok\n")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW", "get", "M-SEARCH"])
@pytest.mark.parametrize("path", ["/metrics", "/nowhere"])
def test_any_other_method_is_not_allowed(site: Served, method: str, path: str) -> None:
    response, body = site.ask(path, method)
    assert response.status == 405
    assert response.headers["Allow"] == "GET, HEAD"
    assert b"GET and HEAD" in body


def test_a_large_body_does_not_keep_the_answer_from_its_sender(site: Served) -> None:
    response, _ = site.ask("/metrics", "POST", body=bytes(500_000))
    assert response.status == 405


# -- /metrics ----------------------------------------------------------------------------------------------


def test_metrics_are_prometheus_text_if_nothing_is_asked_for(site: Served) -> None:
    response, body = site.ask("/metrics")
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    seen = parse(body.decode())
    assert seen.value("conveyor_queue_unfinished_tasks") == 10
    assert_consistent(seen)


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text",
        "application/openmetrics-text; version=1.0.0,text/plain;q=0.5",
        PROMETHEUS_3,
    ],
)
def test_metrics_are_openmetrics_when_asked_for(site: Served, accept: str) -> None:
    response, body = site.ask("/metrics", headers={"Accept": accept})
    assert response.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0; charset=utf-8")
    text = body.decode()
    assert text.endswith("\n# EOF\n")
    names = {family.name for family in parse_openmetrics(text)}  # type: ignore[no-untyped-call]
    assert {"conveyor_queue_size", "conveyor_tasks_produced", "process_cpu_seconds"} <= names


@pytest.mark.parametrize(
    "accept",
    [
        "",
        "*/*",
        "nonsense;;;==,,",
        "application/openmetrics-text; version=abc",
        "application/openmetrics-text;version=1.x",
    ],
)
def test_any_accept_gets_metrics(site: Served, accept: str) -> None:
    response, body = site.ask("/metrics", headers={"Accept": accept})
    assert response.status == 200
    assert parse(body.decode()).find("conveyor_queue_size")


def test_no_header_of_a_client_adds_a_line_to_the_answer(site: Served) -> None:
    folded = b"Accept: application/openmetrics-text; version=2.x\r\n Injected: 1\r\n"
    head = site.say(b"GET /metrics HTTP/1.1\r\n" + folded + b"\r\n").partition(b"\r\n\r\n")[0]
    assert head.startswith(b"HTTP/1.0 200 ")
    assert not any(line.strip().startswith(b"Injected") for line in head.splitlines())


@pytest.mark.parametrize(
    ("asked", "packed"),
    [("gzip", True), ("deflate, GZIP;q=0.5", True), ("", False), ("br", False), ("gzip;q=0", False), ("xgzip", False)],
)
def test_metrics_are_packed_when_asked_for(site: Served, asked: str, packed: bool) -> None:
    response, body = site.ask("/metrics", headers={"Accept-Encoding": asked})
    assert response.headers["Content-Encoding"] == ("gzip" if packed else None)
    text = gzip.decompress(body) if packed else body
    assert parse(text.decode()).find("conveyor_queue_size")


# -- health, readiness, the page ---------------------------------------------------------------------------


def test_health_is_the_loops(site: Served) -> None:
    assert site.ask("/healthz")[1] == b"ok\n"
    site.loop.last_turn = time.monotonic() - 7.5
    response, body = site.ask("/healthz")
    assert response.status == 503
    assert re.fullmatch(rb"the supervisor's loop has not turned for \d+\.\d s\n", body)


def test_a_loop_is_stuck_after_5_seconds() -> None:
    assert why_unhealthy(4.99) is None
    assert why_unhealthy(5.0)


def test_readiness_says_what_is_missing(site: Served) -> None:
    assert site.ask("/readyz")[1] == b"ok\n"
    site.run.now = make_run(make_slot("producer-1", pid=1), make_slot("consumer-1"))
    response, body = site.ask("/readyz")
    assert response.status == 503
    assert body == b"no consumer is ready: 0 starting, 1 wanted\n"


def ready(*slots: str, **changes: object) -> str | None:
    """Judge a run whose slots are given as name:state, or name alone if down."""
    made = [
        make_slot(name, pid=1, state=WorkerState(state)) if state else make_slot(name)
        for name, _, state in (slot.partition(":") for slot in slots)
    ]
    return why_not_ready(make_run(*made, **changes))


def test_a_run_is_ready_when_each_role_has_a_worker_that_has_started() -> None:
    assert ready("producer-1:idle", "consumer-1:busy") is None
    assert ready("producer-1:blocked", "consumer-1", "consumer-2:starting", "consumer-3:idle") is None
    assert ready("producer-1:starting", "consumer-1:idle") == "no producer is ready: 1 starting, 1 wanted"
    assert ready("producer-1:idle", "consumer-1", "consumer-2:starting") == (
        "no consumer is ready: 1 starting, 2 wanted"
    )


def test_a_role_that_is_done_needs_nobody() -> None:
    done = {Role.PRODUCER: 0, Role.CONSUMER: 1}
    assert ready("producer-1", "consumer-1:busy", desired=done) is None


def test_a_run_that_ends_or_cannot_go_on_is_not_ready() -> None:
    assert ready("producer-1:idle", "consumer-1:idle", phase=Phase.DRAINING) == "the run is draining"
    assert ready("producer-1:idle", "consumer-1:idle", trouble="producer-2 died: SIGKILL") == "producer-2 died: SIGKILL"


class Words(HTMLParser):
    """The words and links of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words = ""
        self.links: list[str | None] = []
        self.tags: list[str] = []
        self.feed(page)

    def handle_data(self, data: str) -> None:
        self.words += data

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name == "href"]


def test_the_page_names_the_run_and_links_to_the_others(site: Served) -> None:
    response, body = site.ask("/")
    page = Words(body.decode())
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert response.headers["Vary"] == "Accept, Accept-Encoding"
    links = {link for link in page.links if link and not link.startswith("data:")}
    assert links == set(PATHS) - {"/"}
    for words in ("bakery", "running", "Queue size9", "Unfinished tasks10", "1 of 1 producers, 1 of 1 consumers"):
        assert words in page.words


@pytest.mark.parametrize("accept", ["", "*/*", "text/html,application/json;q=0.9", "application/openmetrics-text"])
def test_a_page_is_what_everybody_gets_who_does_not_ask_for_json(site: Served, accept: str) -> None:
    response, body = site.ask("/", headers={"Accept": accept})
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert body.startswith(b"<!doctype html>")


@pytest.mark.parametrize("accept", ["application/json", "Application/JSON; q=0.5, */*;q=0.1"])
@pytest.mark.parametrize("coding", ["", "gzip"])
def test_what_the_page_shows_is_json_when_asked_for(site: Served, accept: str, coding: str) -> None:
    response, body = site.ask("/", headers={"Accept": accept, "Accept-Encoding": coding})
    assert response.status == 200
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Content-Encoding"] == (coding or None)
    seen = json.loads(gzip.decompress(body) if coding else body)
    assert (seen["name"], seen["phase"]) == ("bakery", "running")
    assert [figure["value"] for figure in seen["figures"][:3]] == ["9", "10", "2 of 2"]
    assert [worker["name"] for worker in seen["workers"]] == ["producer-1", "consumer-1"]


def test_the_page_says_what_health_and_readiness_say(site: Served) -> None:
    site.run.now = make_run(make_slot("producer-1", pid=1), make_slot("consumer-1"))
    site.loop.last_turn = time.monotonic() - 7.5
    notices = json.loads(site.ask("/", headers={"Accept": "application/json"})[1])["notices"]
    (health, stuck), (readiness, missing) = [(notice["label"], notice["text"]) for notice in notices]
    assert (health, readiness) == ("Not healthy", "Not ready")
    assert re.fullmatch(r"the supervisor's loop has not turned for \d+\.\d s", stuck)  # since when is the clock's
    assert missing == "no consumer is ready: 0 starting, 1 wanted"


def test_a_mistake_of_ours_is_a_500_and_is_logged_once_each(caplog: pytest.LogCaptureFixture) -> None:
    with served(RuntimeError("a mistake")) as site:
        assert site.ask("/")[0].status == 500
        assert site.ask("/healthz")[0].status == 200
        assert site.ask("/metrics")[0].status == 200
    errors = [record.__dict__["fields"] for record in caplog.records if record.levelno >= logging.ERROR]
    assert [(entry["path"], entry["error"]) for entry in errors] == [("/", "RuntimeError('a mistake')")]


# -- clients that misbehave --------------------------------------------------------------------------------

TLS_HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(range(200))
GARBAGE = {
    "TLS hello": (TLS_HELLO, b""),
    "binary": (bytes(range(256)) * 4 + b"\r\n\r\n", b"400"),
    "empty line": (b"\r\n", b""),
    "one word": (b"GET\r\n\r\n", b"400"),
    "four words": (b"GET / / HTTP/1.1\r\n\r\n", b"400"),
    "not HTTP": (b"GET / FTP/1.0\r\n\r\n", b"400"),
    "odd version": (b"GET / HTTP/1.1.1\r\n\r\n", b"400"),
    "HTTP 2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"505"),
    "bad method": (b"G(T / HTTP/1.1\r\n\r\n", b"501"),
    "dunder method": (b"__class__ / HTTP/1.1\r\n\r\n", b"405"),
    "long line": (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", b"414"),
    "long header": (b"GET / HTTP/1.1\r\nX: " + b"a" * 70_000 + b"\r\n\r\n", b"431"),
    "many headers": (b"GET / HTTP/1.1\r\n" + b"X: 1\r\n" * 200 + b"\r\n", b"431"),
    "half a line": (b"GET / HT", b""),
    "half a head": (b"GET / HTTP/1.1\r\nHost:", b"200"),  # the end of the stream ends it
    "odd headers": (b"GET / HTTP/1.1\r\n: \r\n\xff\xfe: \x00\r\nno colon\r\n\r\n", b"200"),
    "nothing": (b"", b""),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_gets_an_error_and_leaves_no_trace(site: Served, name: str) -> None:
    garbage, status = GARBAGE[name]
    answer = site.say(garbage)
    if status:
        head, _, body = answer.partition(b"\r\n\r\n")
        assert (head.split(b" ", 2)[1] if head.startswith(b"HTTP/") else body[:3] or head[:3]) == status
    assert site.ask("/healthz")[0].status == 200


def test_clients_that_go_away_leave_no_trace(site: Served) -> None:
    reset = struct.pack("ii", 1, 0)  # linger for 0 s: close with a reset
    for request in (b"", b"GET /metr", b"GET /metrics HTTP/1.1\r\n\r\n" * 50):
        with site.connect() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            client.sendall(request)
    assert site.ask("/healthz")[0].status == 200


def closed_by_server(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def test_a_client_may_take_10_seconds() -> None:
    assert Limits().seconds == 10


def test_a_client_that_sends_nothing_is_dropped() -> None:
    with served(limits=Limits(seconds=0.2)) as site, site.connect() as client:
        began = time.monotonic()
        assert read_all(client) == b""
        assert time.monotonic() - began > 0.15


def test_a_trickle_of_bytes_wins_no_time() -> None:
    with served(limits=Limits(seconds=0.3)) as site, site.connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\n")

        def send_more() -> bool:
            with contextlib.suppress(BlockingIOError, ConnectionError):
                client.send(b"X: 1\r\n")
            return closed_by_server(client)

        wait_for("the end of the connection", send_more)


def test_a_client_that_reads_nothing_is_dropped() -> None:
    crowd = [make_slot(f"consumer-{n}-{'x' * 1000}") for n in range(300)]  # a page larger than any socket's buffer
    with served(make_run(*crowd), Limits(seconds=0.3, connections=1)) as site, site.connect() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        wait_for("its place to be free", lambda: site.ask("/healthz")[0].status == 200, 20)


def test_the_65th_connection_is_refused_and_those_before_it_are_served(site: Served) -> None:
    with contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(site.connect()) for _ in range(64)]
        with site.connect() as late:
            assert read_all(late).startswith(b"HTTP/1.0 503 ")
        for client in (crowd[0], crowd[-1]):
            client.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
            assert read_all(client).endswith(b"\r\n\r\nok\n")
    wait_for("a free place", lambda: site.ask("/healthz")[0].status == 200)


def test_many_scrapes_at_once_are_all_served(site: Served) -> None:
    answers: list[int] = []
    clients = [
        threading.Thread(target=lambda: answers.append(parse(site.ask("/metrics")[1].decode()) is not None))
        for _ in range(32)
    ]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert answers == [True] * 32


# -- starting and stopping ---------------------------------------------------------------------------------


def test_the_url_is_yielded_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), served() as site:
        assert site.url == f"http://127.0.0.1:{site.port}/metrics"
        assert site.port != 0
        (record,) = caplog.records
        assert record.message == "metrics served"
        assert record.__dict__["fields"] == {"url": site.url}


@pytest.mark.parametrize("host", ["localhost", "0.0.0.0", "::1", "::"])
def test_names_and_addresses_of_both_families_can_be_served(host: str) -> None:
    if ":" in host and not has_ipv6():
        pytest.skip("no IPv6 on this machine")
    with serving(Address(host, 0))(FakeRun(live_run()), FakeLoop()) as url:
        port = int(url.removesuffix("/metrics").rpartition(":")[2])
        assert url == f"http://{Address(host, port)}/metrics"
        target = "::1" if ":" in host else "127.0.0.1"
        with socket.create_connection((target, port), timeout=10) as client:
            client.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
            assert read_all(client).endswith(b"ok\n")


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def test_a_taken_port_is_a_clear_error() -> None:
    with served() as site:
        taken = Address("127.0.0.1", site.port)
        with pytest.raises(ConfigurationError) as caught, serving(taken)(site.run, site.loop):
            pass
    message = str(caught.value)
    assert message.startswith(f"cannot serve metrics on {taken}: Address already in use;")
    for hint in ("--metrics", "port 0", "off"):
        assert hint in message


@pytest.mark.parametrize("host", ["no-such-host.invalid", "192.0.2.1", "a..b", "x" * 300, "\0", "2001:db8::1"])
def test_a_host_that_is_not_ours_is_a_clear_error(host: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^cannot serve metrics on .*--metrics"):
        with serving(Address(host, 0))(FakeRun(live_run()), FakeLoop()):
            pass


def test_leaving_is_quick_and_leaves_nothing_behind() -> None:
    before = set(threading.enumerate())
    with contextlib.ExitStack() as stack:
        with served() as site:
            crowd = [stack.enter_context(site.connect()) for _ in range(5)]
            crowd[0].sendall(b"GET / HTTP/1.1\r\n")
            site.ask("/metrics")
            began = time.monotonic()
        assert time.monotonic() - began < Limits().seconds  # clients may still take 10 s each, and do not get them
        assert set(threading.enumerate()) == before
        assert all(read_all(client) == b"" for client in crowd)
    with serving(Address("127.0.0.1", site.port))(site.run, site.loop):
        assert site.ask("/healthz")[0].status == 200  # the port was free at once


def test_leaving_at_once_after_entering_ends_too() -> None:
    for _ in range(20):
        with served():
            pass
