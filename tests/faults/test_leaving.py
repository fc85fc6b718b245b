"""The end of a program ends what it has started, in whichever way it ends, at whichever moment."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from support import leaving
from support.programs import processes, program
from support.waiting import wait_for

# Three seconds are what is promised, on a machine that has nothing else to do.
PROMISED_SECONDS = 12.0
CODES = {
    "end of script": 0,
    "exception": 1,
    "sys.exit": 7,
    "os._exit": 7,
    "SIGINT": -signal.SIGINT,
    "SIGTERM": -signal.SIGTERM,
    "SIGKILL": -signal.SIGKILL,
    "exit in a thread": 0,
    "pytest": 1,
}
PYTEST_FILE = """\
from support import leaving

def test_that_leaves_a_run_behind() -> None:
    results = leaving.begin({moment!r}, {file!r})
    print("ready", flush=True)
    assert not results, "so that the report keeps the frame"
"""


def arguments(way: str, moment: str, folder: Path, file: Path) -> list[str]:
    if way != "pytest":
        return [leaving.__file__, way, moment, str(file)]
    test = folder / "test_leaves.py"
    test.write_text(PYTEST_FILE.format(moment=moment, file=str(file)))
    return ["-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", str(test)]


@pytest.mark.parametrize("moment", leaving.MOMENTS)
@pytest.mark.parametrize("way", leaving.WAYS)
def test_a_program_that_ends_takes_along_all_that_it_has_started(way: str, moment: str, tmp_path: Path) -> None:
    done = tmp_path / "done"
    with program(*arguments(way, moment, tmp_path, done), cwd=tmp_path) as (process, mark):
        assert process.stdout is not None
        assert "ready" in process.stdout.readline()
        if way.startswith("SIG"):
            process.send_signal(signal.Signals[way])
        began = time.monotonic()
        assert process.wait(PROMISED_SECONDS) == CODES[way]
        wait_for("all of its processes to be gone", lambda: not processes(mark), PROMISED_SECONDS)
        print(f"gone after {time.monotonic() - began:.2f} s")
    # Left are what the programs here have made themselves, and nothing of ours.
    assert {path.name for path in tmp_path.iterdir()} <= {"done", "test_leaves.py", "__pycache__"}
