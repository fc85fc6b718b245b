"""Any `conveyor` command but `run`, as a user types it; and `run` where its own files and streams are the matter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Return an environment in which a run has its control socket in this folder, and no metrics."""
    return {**os.environ, "XDG_RUNTIME_DIR": str(folder), "CONVEYOR_METRICS": "off", **more}


def command(folder: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "conveyor", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=environment(folder, **more),
        timeout=60,
    )
