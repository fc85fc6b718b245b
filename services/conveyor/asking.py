"""Who asks: `conveyor status`, `top`, `scale` and the others, of a run on the same machine.

The other end of the control socket is `control.py`; what can be asked is in `steering.py`, and where the sockets are
in `sockets.py`. Called in the process of the command, in any thread.

What happens when the run is SIGKILLed: its socket file stays, and whoever finds it dead removes it.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from conveyor import deadletters, sockets, steering
from conveyor.errors import ConfigurationError, ControlError, ConveyorError, FaultError
from conveyor.snapshot import RunStatistics, from_plain
from conveyor.wording import printable

ANSWER_SECONDS = 5.0  # for a whole answer; the run, too, gives a client no more
# Arbitrary: six times the largest that a run can have to say, a thousand deaths and two thousand workers. What answers
# may be another user's process, which root asks.
MAX_ANSWER_BYTES = 32 << 20
READ_BYTES = 1 << 18
MAX_NUMBERS = 50  # of dead letters in one request


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
            connection.sendall(steering.FAREWELL.encode() + b"\n")
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
    except Exception as error:  # a process of another user can say anything
        raise ControlError("the run's answer is not understood: is it of another version?") from error


def steer(request: str, pid: int | None) -> str:
    """Have this user's run, or the one with this pid, do something; return what it did. Raises what `ask` raises."""
    return str(ask(request, pid).get(steering.DID, ""))


def dead(verb: str, words: Sequence[str], pid: int | None) -> Iterator[dict[str, Any]] | str:
    """Have a run list its dead letters, or show, retry or purge some; return them, or what was done."""
    if verb == "list":
        return _listed(pid)
    deadletters.numbers_of(words, [])  # what is no number is not asked for
    if verb == "show":
        return iter(_letters(ask(f"dead show {' '.join(words)}", pid)))
    number, did, troubles = 0, deadletters.DID[verb], list[str]()
    pid = find(pid)  # of all that follows
    for at in range(0, len(words), MAX_NUMBERS):
        rest = " ".join(words[at : at + MAX_NUMBERS])
        while rest:
            try:
                done = _slice(ask(f"dead {verb} {rest}", pid), rest)
            except ConveyorError as error:
                if not number:
                    raise
                raise ControlError(f"{number} {did}, and then: {error}") from error
            number, rest = number + done.number, done.rest
            troubles += filter(None, [done.trouble])
    if troubles:
        raise ControlError(f"{number} {did}, but not all: {troubles[-1]}")
    return f"{number} {did}"


def _listed(pid: int | None) -> Iterator[dict[str, Any]]:
    after = 0
    while True:
        letters = _letters(ask(f"dead list {after}", pid))
        if not letters:
            return
        yield from letters
        if letters[-1]["number"] <= after:
            raise ControlError("the run's answer is not understood: its dead letters have no end")
        after = letters[-1]["number"]


def _slice(answer: dict[str, Any], asked: str) -> deadletters.Slice:
    """Return what was done of what was asked. Raises `ControlError` for an answer that says no such thing."""
    match answer:
        case {"number": int(number), "rest": str(rest), "trouble": str(trouble)} if rest != asked:
            return deadletters.Slice(number, rest, trouble)
    raise ControlError("the run's answer is not understood: is it of another version?")


def _letters(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the dead letters in an answer. Raises `ControlError` for what are none."""
    try:
        letters: list[dict[str, Any]] = answer[steering.LETTERS]
        are_letters = all(map(deadletters.is_plain, letters))
    except Exception:  # a process of another user can say anything
        are_letters = False
    if not are_letters:
        raise ControlError("the run's answer is not understood: is it of another version?")
    return letters


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
    client.settimeout(ANSWER_SECONDS)
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
        answer = json.loads(_line(path, client) or b"null")
    except ConnectionResetError:  # it died, or dropped us, before it had read what we asked
        return None
    except TimeoutError:
        raise ControlError(f"{path}: the run does not answer within {ANSWER_SECONDS:g} s") from None
    except RecursionError:
        raise ControlError(f"{path}: the answer is nested too deeply to be one") from None
    except (OSError, ValueError) as error:
        raise ControlError(f"{path}: {error}") from error
    match answer:
        case {"ok": dict(ok)}:
            return ok
        case {"error": str(reason), "exit_code": ConfigurationError.exit_code}:
            raise ConfigurationError(printable(reason))
        case {"error": str(reason), "exit_code": FaultError.exit_code}:
            raise FaultError(f"{path}: {printable(reason)}")
        case {"error": str(reason)}:
            raise ControlError(f"{path}: {printable(reason)}")
        case None:
            return None
    raise ControlError(f"{path}: {str(answer)[:80]!r} is not an answer")


def _line(path: Path, client: socket.socket) -> bytes:
    """Return what comes, up to the first end of a line; it may take only so long, and be only so much."""
    until = time.monotonic() + ANSWER_SECONDS
    line = bytearray()
    while b"\n" not in line[-READ_BYTES:]:
        client.settimeout(max(until - time.monotonic(), 0.001))
        data = client.recv(READ_BYTES)
        if not data:
            break
        if time.monotonic() > until:
            raise TimeoutError
        line += data
        if len(line) > MAX_ANSWER_BYTES:
            raise ControlError(f"{path}: the answer has no end within {MAX_ANSWER_BYTES >> 20} MiB")
    return bytes(line.partition(b"\n")[0])
