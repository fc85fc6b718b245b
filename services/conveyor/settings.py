"""The settings of a run: one table of options, read once from flags and environment, checked, frozen.

Each option has a flag, and an environment variable that the flag wins over. Nothing else reads the environment.
"""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from conveyor.errors import ConfigurationError
from conveyor.logs import FORMATS
from conveyor.processes import START_METHODS
from conveyor.queues import DEFAULT_KIND, KINDS
from conveyor.scaling import Bounds

_REPR = reprlib.Repr()
_REPR.maxstring = 80  # of a wrong value, in a message

MAX_WORKERS = 1000
"""Of each role. Arbitrary, far above what one machine has a use for: each is a process of some 10 MB with four file
descriptors in the supervisor. A larger number is a slip of the hand, and would be noticed only when memory ends."""
MAX_MAXSIZE = 2**31 - 1  # SEM_VALUE_MAX: the queues of `multiprocessing` count their room with a semaphore


@dataclass(frozen=True, slots=True)
class Address:
    """Where the exporter listens. Port 0 lets the system choose."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run may be told from outside. None in the first four leaves it to the workload, elsewhere: no limit."""

    producers: int | None = None
    consumers: Bounds | None = None
    queue: str | None = None
    maxsize: int | None = None
    max_attempts: int = 3
    retries: int = 0
    retry_delay_seconds: float = 1.0
    task_timeout_seconds: float | None = None
    max_tasks_per_worker: int | None = None
    max_memory_per_worker: int | None = None
    """Bytes."""
    spool: Path | None = None
    spool_sync: str = "normal"
    metrics: Address | None = None
    allowed_hosts: tuple[str, ...] = ()
    """Names under which the page is shown, beside addresses and `localhost`."""
    drain_timeout_seconds: float = 8.0  # under the 10 s that Docker gives a container
    progress: bool | None = None
    log_format: str = "text"
    report: Path | None = None
    start_method: str = "forkserver"


def _whole(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if not least <= number <= most:
            raise ValueError(f"a whole number from {least} to {most}")
        return number

    return parse


def bounds(text: str) -> Bounds:
    """Return what the text says of the number of consumers: N, MIN..MAX or MIN.. ; raise `ValueError` if nothing."""
    return Bounds.parse(text, MAX_WORKERS)


_workers = _whole(1, MAX_WORKERS)
_attempts = _whole(1, 1000)
_retries = _whole(0, 1000)
_tasks = _whole(1, 2**53)
SPOOL_SYNCS = ("normal", "full")
_room = _whole(0, MAX_MAXSIZE)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ValueError("a number of seconds of at least 0")
    return seconds


def _limit_seconds(text: str) -> float:
    try:
        seconds = _seconds(text)
    except ValueError:
        seconds = 0.0
    if not seconds:
        raise ValueError("a number of seconds above 0")
    return seconds


_HOST_NAME = re.compile(r"[0-9A-Za-z_]([0-9A-Za-z_.-]{0,251}[0-9A-Za-z_])?")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def _bytes(text: str) -> int:
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].isalpha() else (text, "")
    if unit not in _UNITS or not number.isascii() or not number.isdecimal() or not int(number):
        raise ValueError("a number of bytes above 0, also with K, M, G or T behind it")
    return int(number) * _UNITS[unit]


def _one_of(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"one of {', '.join(allowed)}")
        return text

    return parse


def yes_or_no(text: str) -> bool:
    """Return what the text says; raise `ValueError` if it is neither."""
    try:
        return {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}[text.lower()]
    except KeyError:
        raise ValueError("yes or no") from None


def _address(text: str) -> Address | None:
    allowed = "HOST:PORT with a port from 0 to 65535, or off"
    if text == "off":
        return None
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or not port.isascii() or int(port) > 65535:
        raise ValueError(allowed)
    return Address(host.removeprefix("[").removesuffix("]") or "0.0.0.0", int(port))


def _host_names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not all(_HOST_NAME.fullmatch(name) for name in names):
        raise ValueError("names of hosts without ports, with commas between them")
    return names


def _path(text: str) -> Path:
    if not text:
        raise ValueError("the path of a file")
    return Path(text)


def _folder(text: str) -> Path:
    if not text:
        raise ValueError("the path of a folder")
    folder = Path(text)
    try:
        folder.absolute()
    except FileNotFoundError:
        raise ValueError("an absolute path, because the working directory was removed") from None
    return folder


@dataclass(frozen=True, slots=True)
class Option:
    """One option: the field it sets, how it is written, and what it means."""

    field: str
    flag: str
    placeholder: str
    parse: Callable[[str], object]
    help: str

    @property
    def keyword(self) -> str:
        """Its name as an argument in Python."""
        return self.flag.removeprefix("--").replace("-", "_")

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return f"CONVEYOR_{self.keyword.upper()}"

    def read(self, text: str, source: str) -> object:
        """Return the value; raise `ConfigurationError` naming the source, the text and what is allowed."""
        try:
            return self.parse(text)
        except ValueError as error:
            raise ConfigurationError(f"{source}: {_REPR.repr(text)} is not allowed; give {error}") from None


OPTIONS = (
    Option("producers", "--producers", "N", _workers, "number of producer processes (the workload's)"),
    Option(
        "consumers",
        "--consumers",
        "N|MIN..MAX",
        bounds,
        "number of consumer processes, or bounds between which it follows the backlog (the workload's, or usable CPUs)",
    ),
    Option("queue", "--queue", "KIND", _one_of(*KINDS), f"{' or '.join(KINDS)} (the workload's, or {DEFAULT_KIND})"),
    Option("maxsize", "--maxsize", "N", _room, "most tasks waiting, 0 for no bound (the workload's, or 1000)"),
    Option("max_attempts", "--max-attempts", "N", _attempts, "deaths at one task before it is given up (3)"),
    Option("retries", "--retries", "N", _retries, "more attempts at a task whose function raised (0)"),
    Option("retry_delay_seconds", "--retry-delay", "S", _seconds, "seconds to the first of them, then doubled (1)"),
    Option("task_timeout_seconds", "--task-timeout", "S", _limit_seconds, "kill who is in one task for longer (none)"),
    Option("max_tasks_per_worker", "--max-tasks-per-worker", "N", _tasks, "replace a consumer after N tasks (never)"),
    Option(
        "max_memory_per_worker",
        "--max-memory-per-worker",
        "BYTES",
        _bytes,
        "replace a consumer that has grown to so much, as 500M or 2G, after its task (never)",
    ),
    Option("spool", "--spool", "DIR", _folder, "keep the queue in this folder, so that it outlives the run (memory)"),
    Option(
        "spool_sync",
        "--spool-sync",
        "HOW",
        _one_of(*SPOOL_SYNCS),
        "full: no accepted task is lost by a power cut; normal: some may (normal)",
    ),
    Option("metrics", "--metrics", "HOST:PORT", _address, "where to serve metrics, or off (127.0.0.1:8000)"),
    Option(
        "allowed_hosts",
        "--allowed-hosts",
        "NAME,...",
        _host_names,
        "names under which the page is shown, beside addresses and localhost (none)",
    ),
    Option("drain_timeout_seconds", "--drain-timeout", "S", _seconds, "seconds to finish what is left (8)"),
    Option("log_format", "--log-format", "FORMAT", _one_of(*FORMATS), "text or json (text)"),
    Option("report", "--report", "FILE", _path, "write the report to this file, as JSON"),
    Option("start_method", "--start-method", "METHOD", _one_of(*START_METHODS), "forkserver or spawn (forkserver)"),
    Option("progress", "--progress", "", yes_or_no, "show a live view (on a terminal)"),
)
COMMAND_LINE_DEFAULTS: Mapping[str, object] = {"metrics": Address("127.0.0.1", 8000)}


def read(flags: Mapping[str, object], environment: Mapping[str, str]) -> Settings:
    """Return the settings of a command line: its flags by field, then the environment, then the defaults.

    Raises `ConfigurationError` for a value that is not allowed. An empty variable is taken as not set.
    """
    values = dict(COMMAND_LINE_DEFAULTS)
    for option in OPTIONS:
        given = flags.get(option.field)
        if given is not None:
            values[option.field] = option.read(str(given), option.flag)
        elif text := environment.get(option.variable):
            values[option.field] = option.read(text, option.variable)
    return Settings(**values)  # type: ignore[arg-type]


class RunOptions(TypedDict, total=False):
    """What `Pipeline.run` and `Pipeline.results` take: options by their names in Python; None is as if not given."""

    metrics: str
    allowed_hosts: str
    drain_timeout: float
    start_method: str
    max_attempts: int
    retries: int
    retry_delay: float
    task_timeout: float | None
    max_tasks_per_worker: int | None
    max_memory_per_worker: int | str | None
    spool: str | Path | None
    spool_sync: str


def of_options(options: RunOptions) -> Settings:
    """Return the settings of a run that Python code starts; it serves no metrics unless asked to.

    Raises `ConfigurationError` for a value that is not allowed, and `TypeError`, as Python does, for another name.
    """
    if unknown := sorted(options.keys() - RunOptions.__annotations__.keys()):
        raise TypeError(f"{unknown[0]!r} is no option of a run; there are {', '.join(RunOptions.__annotations__)}")
    given = {"metrics": "off"} | {name: value for name, value in options.items() if value is not None}
    return read({option.field: given.get(option.keyword) for option in OPTIONS}, {})
