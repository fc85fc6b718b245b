"""The drop-in queues leave nothing behind: in the process that uses them, and when that process ends."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
from pathlib import Path
from typing import Any

import psutil
import pytest

import conveyor
from support.dropin import MARK, left_of
from support.waiting import wait_for

ENDS = {
    "the end of the script": "",
    "an exception": "raise RuntimeError",
    "sys.exit": "sys.exit(3)",
    "os._exit": "os._exit(4)",
    "SIGTERM": "os.kill(os.getpid(), signal.SIGTERM)",
    "SIGKILL": "os.kill(os.getpid(), signal.SIGKILL)",
}
MAKER = """\
import os, signal, sys, time
import conveyor
carrier = conveyor.JoinableQueue()
carrier.put_many([1, 2, bytes(300_000)])
assert carrier.get() == 1
read, write = os.pipe()
if {forks} and os.fork() == 0:
    if {forks} == 2:  # and it has a queue of its own, and used that of its maker
        own = conveyor.Queue()
        own.put(1)
        carrier.get(timeout=30.0)
    print(os.getpid(), flush=True)
    os.write(write, b".")
    time.sleep(1000.0)
if {forks}:
    os.read(read, 1)  # until the helper has begun
{end}
"""


def things_of(process: psutil.Process) -> dict[str, int]:
    """Count what a process has open."""
    return {
        "descriptors": process.num_fds(),
        "threads": process.num_threads(),
        "maps": sum("conveyor" in line for line in Path(f"/proc/{process.pid}/maps").read_text().splitlines()),
        "processes": len(process.children(recursive=True)),
    }


def brokers_of(mark: str) -> list[psutil.Process]:
    return [each for each in left_of(mark) if "conveyor.dropin.broker" in " ".join(each.cmdline())]


@pytest.mark.parametrize("kind", ["Queue", "JoinableQueue"])
def test_after_200_queues_a_process_and_its_broker_have_what_they_had_after_the_second(
    kind: str, tmp_path: Path
) -> None:
    mark = uuid.uuid4().hex
    code = f"from faults import test_dropin_leftovers as t; t.use_200({kind!r}, {mark!r})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, MARK: mark, "PYTHONPATH": str(Path(__file__).parents[1]), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    wait_for("no process to be left", lambda: not left_of(mark), 10.0)


def use_200(kind: str, mark: str) -> None:
    """Make, use and close queues. Called in a process of its own."""
    kept = conveyor.Queue[int]()  # so that the broker stays
    for _ in range(2):
        use(kind)
    gc.collect()
    (broker,) = brokers_of(mark)
    me = psutil.Process()
    wait_for("the first two to be gone", lambda: things_of(broker)["maps"] == 0, 10.0)
    before = things_of(me), things_of(broker)
    for _ in range(200):
        use(kind)
    assert things_of(me) == before[0]  # without a collection: what is not used any more goes at once
    wait_for(f"the broker to have {before[1]}", lambda: is_within(things_of(broker), before[1]), 20.0)
    assert not list(Path(tempfile.gettempdir()).iterdir())
    kept.close()


def is_within(things: dict[str, int], limits: dict[str, int]) -> bool:
    if all(things[name] <= limits[name] for name in limits):
        return True
    raise AssertionError(things)  # which wait_for shows


def use(kind: str) -> None:
    carrier: Any = getattr(conveyor, kind)(10)
    carrier.put_many([1, bytes(300_000)])
    thread = threading.Thread(target=carrier.get)
    thread.start()
    thread.join()
    assert carrier.get(timeout=10.0) == bytes(300_000)
    if kind == "JoinableQueue":
        carrier.task_done()
    carrier.put(bytes(300_000))
    carrier.close()
    carrier.join_thread()


@pytest.mark.parametrize("forks", [0, 1, 2])
@pytest.mark.parametrize("end", ENDS)
def test_the_broker_is_gone_soon_after_its_maker_however_that_ends(end: str, forks: int) -> None:
    mark = uuid.uuid4().hex
    maker = subprocess.Popen(
        [sys.executable, "-c", MAKER.format(forks=forks, end=ENDS[end])],
        env={**os.environ, MARK: mark},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert maker.stdout
    helper = int(maker.stdout.readline()) if forks else 0
    maker.wait(60.0)
    try:
        # The helper's own broker stays, if it has made a queue; what it has inherited keeps nobody alive.
        wait_for("the broker to be gone", lambda: len(brokers_of(mark)) == (forks == 2), 10.0)
    finally:
        if helper:
            os.kill(helper, signal.SIGKILL)
        maker.stdout.close()
    wait_for("everything to be gone", lambda: not left_of(mark), 10.0)
