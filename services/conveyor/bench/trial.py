"""One contestant does one job, in a process of its own: the main module of that process.

Started by `watching` with the contestant's name and the job as JSON; writes how it ended. If it dies or hangs,
there is no such file, and that is an answer too.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import traceback
from pathlib import Path

from conveyor.bench.jobs import Job
from conveyor.bench.marks import FOLDER_VARIABLE

OUTCOME = "outcome.json"


def main() -> int:
    """Run the contestant; return 0 if it did the whole job."""
    _die_with_the_watcher()
    name, job = sys.argv[1], Job(**json.loads(sys.argv[2]))
    # Here: each worker that a spawning library starts imports this module again.
    from conveyor.bench.contestants import CONTESTANTS

    error = None
    try:
        CONTESTANTS[name].run(job)
    except Exception as raised:  # a contestant's failure is a result
        traceback.print_exc()
        error = f"{type(raised).__name__}: {' '.join(str(raised).split())}".removesuffix(": ")
    folder = Path(os.environ[FOLDER_VARIABLE])
    (folder / "outcome").write_text(json.dumps({"error": error}))
    (folder / "outcome").rename(folder / OUTCOME)
    return 0 if error is None else 1


def _die_with_the_watcher() -> None:
    """Have the kernel kill our whole process group once nobody holds the other end of our standard input.

    A contestant's processes can outlive it, and a benchmark can be killed too.
    """
    fcntl.fcntl(0, fcntl.F_SETOWN, -os.getpgid(0))
    fcntl.fcntl(0, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(0, fcntl.F_SETFL, fcntl.fcntl(0, fcntl.F_GETFL) | os.O_ASYNC)


if __name__ == "__main__":
    sys.exit(main())
