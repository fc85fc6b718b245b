"""What a crowd, or a foreign page, can do to the metrics port: nothing to those who watch the run."""

from __future__ import annotations

import contextlib
import http.client
import selectors
import socket
import threading
from collections.abc import Iterator

import pytest

from conveyor.errors import ConfigurationError
from conveyor.exporter import serving
from conveyor.exporter.http import Limits
from conveyor.exporter.pages import is_ours
from conveyor.settings import Address, read
from support.fakes import FakeLoop, FakeRun, make_run, make_slot
from support.waiting import wait_for

LOCAL = Address("127.0.0.1", 0)
RUN = make_run(make_slot("producer-1", pid=1), make_slot("consumer-1", pid=2))


@contextlib.contextmanager
def served(limits: Limits | None = None, allowed_hosts: tuple[str, ...] = ()) -> Iterator[int]:
    """Serve a run; yield the port."""
    with serving(LOCAL, limits, allowed_hosts)(FakeRun(RUN), FakeLoop()) as url:
        yield int(url.rpartition(":")[2].partition("/")[0])


def ask(port: int, path: str, host: str | None = None) -> int:
    """Return the status of an answer; 0 for a connection that was cut off."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        try:
            connection.request("GET", path, headers={} if host is None else {"Host": host})
            return connection.getresponse().status
        except (ConnectionError, http.client.HTTPException):
            return 0


class Crowd(threading.Thread):
    """So many connections that send half a request, each opened again as soon as it is closed."""

    def __init__(self, port: int, number: int) -> None:
        super().__init__()
        self.port, self.number = port, number
        self.reopened = 0
        self.over = threading.Event()
        self._selector = selectors.DefaultSelector()

    def run(self) -> None:
        for _ in range(self.number):
            self._open()
        while not self.over.is_set():
            for key, _ in self._selector.select(0.05):
                self._selector.unregister(key.fileobj)
                key.fileobj.close()  # type: ignore[union-attr]
                self._open()
                self.reopened += 1
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()

    def _open(self) -> None:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        with contextlib.suppress(OSError):
            connection.sendall(b"GET / HTTP/1.1\r\nX: ")
        self._selector.register(connection, selectors.EVENT_READ)


@contextlib.contextmanager
def crowd(port: int, number: int) -> Iterator[Crowd]:
    many = Crowd(port, number)
    many.start()
    try:
        yield many
    finally:
        many.over.set()
        many.join()


def test_two_hundred_slow_connections_keep_no_probe_from_its_answer() -> None:
    with served(Limits(room_seconds=0.2)) as port, crowd(port, 200) as many:
        wait_for("a crowd", lambda: many.reopened > 100)
        for path in ("/healthz", "/readyz", "/metrics"):
            assert [ask(port, path) for _ in range(20)] == [200] * 20


def test_a_crowd_that_sends_nothing_keeps_its_places_for_a_short_time_only() -> None:
    with served(Limits(connections=4, crowded_seconds=0.2)) as port, contextlib.ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(contextlib.closing(socket.create_connection(("127.0.0.1", port), timeout=20)))
        wait_for("a place", lambda: ask(port, "/") == 200)


def test_more_than_can_wait_cost_the_oldest_its_connection_and_no_probe_its_answer() -> None:
    with served(Limits(connections=1, room=2)) as port, contextlib.ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(contextlib.closing(socket.create_connection(("127.0.0.1", port), timeout=20)))
        assert ask(port, "/healthz") == 200


# -- names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "[::1]:8000", "10.1.2.3", "localhost", "LocalHost:80", ""])
def test_the_page_is_shown_under_addresses_and_localhost(host: str) -> None:
    assert is_ours(host, {"localhost"})


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example:8000", "127.0.0.1.evil.example", "localhost, evil", "::1:", "a@b"],
)
def test_it_is_shown_under_no_other_name(host: str) -> None:
    assert not is_ours(host, {"localhost"})


def test_a_page_from_elsewhere_reads_nothing_and_scrapers_and_probes_use_any_name() -> None:
    with served(allowed_hosts=("conveyor.internal",)) as port:
        assert ask(port, "/", "evil.example") == 403
        assert ask(port, "/", f"evil.example:{port}") == 403
        assert ask(port, "/", f"Conveyor.Internal:{port}") == 200
        assert ask(port, "/") == 200
        assert [ask(port, path, "evil.example") for path in ("/metrics", "/healthz", "/readyz")] == [200] * 3


def test_names_are_an_option() -> None:
    assert read({"allowed_hosts": "a.example, b"}, {}).allowed_hosts == ("a.example", "b")
    assert read({}, {"CONVEYOR_ALLOWED_HOSTS": "c"}).allowed_hosts == ("c",)
    with pytest.raises(ConfigurationError, match="--allowed-hosts: 'a:80' is not allowed; give names of hosts"):
        read({"allowed_hosts": "a:80"}, {})
