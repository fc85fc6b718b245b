"""A real browser, without a window: Chromium, told what to do over two pipes, in its DevTools protocol.

Over pipes, because then nothing is needed but the browser: no driver, no port, no client library.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import selectors
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from support.waiting import wait_for

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
MARK = "CONVEYOR_TEST_BROWSER"
ANSWER_SECONDS = 60.0  # the browser may take long to start where many tests run
FLAGS = (
    "--headless",
    "--no-sandbox",  # it cannot be had as root, nor in most containers; the only pages here are our own
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-breakpad",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",  # nothing from outside, whatever the page asks for
    "--remote-debugging-pipe",
)
# The browser reads commands from descriptor 3 and writes answers to 4, whatever these numbers are here.
LAUNCH = (
    "import os, sys; r, w = map(int, sys.argv[1:3]); os.dup2(r, 3); os.dup2(w, 4); os.execvp(sys.argv[3], sys.argv[3:])"
)


def find_browser() -> str | None:
    """Return the path of a browser that can be used, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One browser process, and the answers that have not been fetched yet."""

    def __init__(self, program: str, folder: Path) -> None:
        """Start it, with all that it stores in this folder."""
        self._mark = uuid.uuid4().hex
        self._last_id = 0
        self._buffer = b""
        self._events: list[dict[str, Any]] = []
        with contextlib.ExitStack() as stack:
            theirs = []
            ours = []
            for reads in (True, False):
                ends = [_high(end) for end in os.pipe()]
                theirs.append(ends[0 if reads else 1])
                ours.append(ends[1 if reads else 0])
                stack.callback(os.close, theirs[-1])
            self._write, self._read = ours
            self._process = subprocess.Popen(
                [sys.executable, "-c", LAUNCH, *map(str, theirs), program, *FLAGS, f"--user-data-dir={folder}"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=theirs,
                start_new_session=True,
                env={
                    **os.environ,
                    MARK: self._mark,
                    **dict.fromkeys(("HOME", "TMPDIR", "XDG_RUNTIME_DIR"), str(folder)),
                },
            )

    def tell(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Send a command; return its result."""
        self._last_id += 1
        command = {"id": self._last_id, "method": method, "params": parameters}
        data = json.dumps(command | ({"sessionId": session} if session else {})).encode() + b"\0"
        while data:
            data = data[os.write(self._write, data) :]
        until = time.monotonic() + ANSWER_SECONDS
        while True:
            message = self._receive(until)
            if message.get("id") == self._last_id:
                assert "error" not in message, f"{method}: {message['error']}"
                result: dict[str, Any] = message["result"]
                return result
            self._events.append(message)

    def events(self, method: str, session: str) -> list[dict[str, Any]]:
        """Return the parameters of every such event that came before the answer to the last command."""
        return [e["params"] for e in self._events if e.get("method") == method and e.get("sessionId") == session]

    def _receive(self, until: float) -> dict[str, Any]:
        with selectors.DefaultSelector() as selector:
            selector.register(self._read, selectors.EVENT_READ)
            while b"\0" not in self._buffer:
                assert selector.select(max(0.0, until - time.monotonic())), "the browser does not answer"
                data = os.read(self._read, 1 << 20)
                assert data, "the browser has gone"
                self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        decoded: dict[str, Any] = json.loads(message)
        return decoded

    def processes(self) -> list[psutil.Process]:
        """Return every process of this browser that is there."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == self._mark:
                    found.append(process)
        return found

    def close(self) -> None:
        """End it, and all of its processes."""
        try:
            with contextlib.suppress(AssertionError, OSError):
                self.tell("Browser.close")
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(10)
        finally:
            os.close(self._write)
            os.close(self._read)
            for process in self.processes():
                with contextlib.suppress(psutil.Error):
                    process.kill()
            self._process.wait(10)
            wait_for("no process of the browser to be left", lambda: not self.processes(), 10.0)


class Tab:
    """One page in a browser."""

    def __init__(self, browser: Browser, width: int, height: int, scheme: str, runs_scripts: bool) -> None:
        self._browser = browser
        # In a window of its own: in one with others it would be in the background, where a page does next to nothing.
        self._target = browser.tell("Target.createTarget", url="about:blank", newWindow=True)["targetId"]
        self._session: str = browser.tell("Target.attachToTarget", targetId=self._target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.tell(f"{domain}.enable")
        self._width = width
        self._resize(height)
        self.tell("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        if not runs_scripts:
            self.tell("Emulation.setScriptExecutionDisabled", value=True)

    def close(self) -> None:
        self._browser.tell("Target.closeTarget", targetId=self._target)

    def tell(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command for this page; return its result."""
        return self._browser.tell(method, self._session, **parameters)

    def open(self, url: str) -> None:
        """Load a page, and wait until it is there."""
        answer = self.tell("Page.navigate", url=url)
        assert "errorText" not in answer, answer
        wait_for(f"{url} to be loaded", lambda: self.ask("document.readyState") == "complete")

    def ask(self, expression: str) -> Any:
        """Return the value of an expression of JavaScript."""
        answer = self.tell("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def text(self, selector: str) -> str:
        """Return what is to be read in the first element that is so selected; empty if there is none."""
        found: str = self.ask(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''")
        return found

    def complaints(self) -> list[str]:
        """Return what the browser had to say against the page: errors of its script, what its policy forbids."""
        self.ask("0")  # so that all that came before is here
        said = [event["entry"]["text"] for event in self._browser.events("Log.entryAdded", self._session)]
        thrown = self._browser.events("Runtime.exceptionThrown", self._session)
        return said + [event["exceptionDetails"]["text"] for event in thrown]

    def requests(self) -> list[str]:
        """Return the address of everything that was asked for."""
        self.ask("0")
        sent = self._browser.events("Network.requestWillBeSent", self._session)
        return [event["request"]["url"] for event in sent]

    def picture(self, path: Path) -> None:
        """Keep a picture of the whole page, as a PNG; from then on the window is as high as the page."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._resize(self.ask("document.documentElement.scrollHeight"))
        self.ask("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        path.write_bytes(base64.b64decode(self.tell("Page.captureScreenshot")["data"]))

    def _resize(self, height: int) -> None:
        is_phone = self._width <= 600
        scale = 2 if is_phone else 1
        size = {"width": self._width, "height": height, "deviceScaleFactor": scale}
        self.tell("Emulation.setDeviceMetricsOverride", **size, mobile=is_phone)


@contextlib.contextmanager
def browsing(program: str, folder: Path) -> Iterator[Browser]:
    """Start a browser; afterwards nothing of it may be left."""
    browser = Browser(program, folder)
    try:
        yield browser
    finally:
        browser.close()


def _high(descriptor: int) -> int:
    """Return a descriptor for the same, above those that the browser wants to have."""
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10)
    finally:
        os.close(descriptor)
