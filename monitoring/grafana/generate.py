"""Write the two dashboards: `python monitoring/grafana/generate.py`. With --check, only compare them.

Run by whoever changes a board or a limit; the JSON is committed, because Grafana reads it as it is.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import overview
import worker
from looks import Json

DASHBOARDS = Path(__file__).parent / "dashboards"


def texts() -> dict[Path, str]:
    """Return what belongs into each file."""
    boards = {"overview": overview.board(), "worker": worker.board()}
    return {DASHBOARDS / f"{name}.json": as_text(board) for name, board in boards.items()}


def as_text(board: Json) -> str:
    return json.dumps(board, indent=2, ensure_ascii=False) + "\n"


def differing() -> list[Path]:
    """Return the files that are missing or hold something else than they should."""
    wanted = texts()
    return [path for path in wanted if not path.exists() or path.read_text(encoding="utf-8") != wanted[path]]


def write() -> None:
    DASHBOARDS.mkdir(exist_ok=True)
    for path, text in texts().items():
        path.write_text(text, encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file differs")
    if not parser.parse_args().check:
        write()
        return 0
    stale = differing()
    for path in stale:
        print(f"{path} differs from what generate.py makes: run it without --check", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
