"""Where a benchmark ran: a figure without it says nothing."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

import conveyor
from conveyor.cpus import usable_cpus

_LIBRARIES = ("faster-fifo", "mpire", "pebble", "numpy")


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine, what is installed on it, and how busy it was before the first measurement."""

    processor: str
    cpus: int
    usable_cpus: int
    memory_bytes: int
    system: str
    python: str
    conveyor: str
    commit: str | None
    libraries: dict[str, str | None]
    """Versions; None for what is not installed."""
    load_average: tuple[float, float, float]

    @property
    def is_busy(self) -> bool:
        """Whether others use so much of it that the figures say little."""
        return self.load_average[0] > 0.3 * self.usable_cpus

    def lines(self) -> list[str]:
        """Return it for people."""
        there = [f"{name} {version}" for name, version in self.libraries.items() if version]
        missing = [name for name, version in self.libraries.items() if not version]
        memory = f"{self.memory_bytes / 2**30:.1f} GiB"
        return [
            f"{self.processor}, {self.usable_cpus} of {self.cpus} CPUs usable, {memory}, {self.system}",
            f"Python {self.python}, conveyor {self.conveyor}" + (f" ({self.commit})" if self.commit else ""),
            "; ".join([", ".join(there)] * bool(there) + [f"not installed: {', '.join(missing)}"] * bool(missing)),
            "load average before: " + ", ".join(f"{load:.2f}" for load in self.load_average),
        ]


def look() -> Machine:
    """Return what this machine is."""
    return Machine(
        processor=_processor(),
        cpus=os.cpu_count() or 1,
        usable_cpus=usable_cpus(),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        conveyor=conveyor.__version__,
        commit=_commit(),
        libraries={name: _version(name) for name in _LIBRARIES},
        load_average=os.getloadavg(),
    )


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Return the commit that this package is checked out from, if it is: a folder above it may be any repository."""
    try:
        _git("ls-files", "--error-unmatch", Path(__file__).name)
        changed = _git("status", "--porcelain", "--untracked-files=no")
        return _git("rev-parse", "--short", "HEAD") + (" and changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):  # no git, or no checkout
        return None


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    ended = subprocess.run(command, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return ended.stdout.strip()
