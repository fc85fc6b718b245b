"""What `conveyor bench` does: checks what was asked for, measures row after row, and shows what came out."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

from conveyor.bench import contestants, machine, measures, picture, table
from conveyor.bench.machine import Machine
from conveyor.bench.results import RowResult, Side
from conveyor.bench.row import Row
from conveyor.bench.rows import NAMES, NOT_IN_A_QUICK_RUN, ROWS
from conveyor.bench.watching import Measurement, Status
from conveyor.errors import ConfigurationError, ConveyorError
from conveyor.targets import meant

_MOST_ROUNDS = 100
_ROUNDS, _QUICK_ROUNDS = 5, 2
FORMAT = 1
"""Of the JSON; grows when a reader would have to change."""


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for, checked."""

    rows: Sequence[Row]
    rounds: int
    quick: bool
    peers: bool
    json: Path | None
    """`-` is standard output, as usual."""
    picture: Path | None

    @property
    def json_to_stdout(self) -> bool:
        return self.json is not None and str(self.json) == "-"


def options(
    *, rows: str | None, rounds: str | None, quick: bool, peers: bool, json: str | None, picture: str | None
) -> Options:
    """Return what the command line says. Raises `ConfigurationError` for what is not allowed."""
    number = _QUICK_ROUNDS if quick else _ROUNDS
    if rounds is not None:
        number = int(rounds) if rounds.isdecimal() and rounds.isascii() and len(rounds) < 10 else 0
        if not 1 <= number <= _MOST_ROUNDS:
            allowed = f"a whole number from 1 to {_MOST_ROUNDS}"
            raise ConfigurationError(f"--rounds: {rounds!r} is not allowed; give {allowed}")
    chosen = Options(
        rows=_rows(rows, quick),
        rounds=number,
        quick=quick,
        peers=peers,
        json=_file("--json", json),
        picture=_file("--picture", picture),
    )
    for flag, path in (("--json", chosen.json), ("--picture", chosen.picture)):
        if path is not None and not (flag == "--json" and chosen.json_to_stdout):
            _check_writable(flag, path)
    return chosen


def _rows(text: str | None, quick: bool) -> list[Row]:
    if text is None:
        return [row for row in ROWS if not (quick and row.name in NOT_IN_A_QUICK_RUN)]
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in NAMES:
            allowed = ", ".join(NAMES)
            raise ConfigurationError(f"--rows: there is no row {name!r}{meant(name, NAMES)}; give some of {allowed}")
    return [row for row in ROWS if row.name in names]


def _file(flag: str, text: str | None) -> Path | None:
    if text is not None and not text:
        raise ConfigurationError(f"{flag}: '' is not allowed; give the path of a file")
    return None if text is None else Path(text)


def _check_writable(flag: str, path: Path) -> None:
    """Fail now rather than after ten minutes, and leave no trace."""
    existed = path.exists()
    try:
        path.open("ab").close()
        if not existed:
            path.unlink()
    except OSError as error:
        raise ConfigurationError(f"{flag}: {path} cannot be written: {error.strerror}") from error


def run(chosen: Options) -> int:
    """Measure and show; return the exit code: 1 if something of ours failed, whatever the figures."""
    signal.signal(signal.SIGTERM, _stop)  # so that what is being measured is ended too
    began = time.monotonic()
    console = table.new_console(to_stderr=chosen.json_to_stdout)
    here = machine.look()
    table.show_machine(console, here)
    results = []
    for row in chosen.rows:
        results.append(_measured(row, chosen))
        table.show_row(console, results[-1], chosen.rounds)
    seconds = time.monotonic() - began
    console.print(f"\n{seconds:.0f} s; medians of {chosen.rounds}, all contestants of a row in turn", highlight=False)
    if chosen.json is not None:
        _write_json(chosen, plain(chosen, here, results, seconds))
    if chosen.picture is not None:
        _write(chosen.picture, picture.draw(results, here))
    return 0 if all(result.is_sound for result in results) else 1


def _stop(signum: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + signum)


def _measured(row: Row, chosen: Options) -> RowResult:
    """Measure one row: all contestants in turn, and that again for each round."""
    scale = measures.QUICK if chosen.quick else measures.FULL
    found: dict[str, list[Measurement]] = {}
    for name in (*row.contestants, *(row.peers if chosen.peers else ())):
        reason = contestants.missing(name)
        found[name] = [] if reason is None else [Measurement(status=Status.MISSING, note=reason)]
    rounds = 1 if row.once else chosen.rounds
    for number in range(1, rounds + 1):
        for name, made in _able(found):
            _progress(f"{row.name}: {name}, round {number} of {rounds}")
            made.append(measures.measure(row, name, scale))
    _progress("")
    known = contestants.CONTESTANTS
    return RowResult(row, [Side(name, known[name].how if name in known else "", made) for name, made in found.items()])


def _able(found: dict[str, list[Measurement]]) -> Iterator[tuple[str, list[Measurement]]]:
    """Those that have not hung so far: to wait for it again would tell nothing new."""
    for name, made in found.items():
        if not any(each.status in (Status.HANGS, Status.MISSING) for each in made):
            yield name, made


def _progress(words: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{words}")
    elif words:
        sys.stderr.write(words + "\n")
    sys.stderr.flush()


def plain(chosen: Options, here: Machine, results: Sequence[RowResult], seconds: float) -> dict[str, object]:
    """Return all of it as what JSON can hold."""
    return {
        "format": FORMAT,
        "machine": asdict(here),
        "rounds": chosen.rounds,
        "quick": chosen.quick,
        "peers": chosen.peers,
        "seconds": round(seconds, 1),
        "rows": [result.plain() for result in results],
    }


def _write_json(chosen: Options, content: dict[str, object]) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    if chosen.json_to_stdout:
        sys.stdout.write(text)
    elif chosen.json is not None:
        _write(chosen.json, text)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConveyorError(f"{path} cannot be written: {error.strerror}") from error
