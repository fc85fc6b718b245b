"""Workers that cannot be started, or die in their tasks: no run ends, or waits, for them alone."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from conveyor import Pipeline, Producer, system_limits
from conveyor.errors import ConveyorError
from conveyor.loop import Loop
from conveyor.processes import Starter
from conveyor.scaling import Bounds
from conveyor.settings import of_options
from conveyor.slot import Slot
from conveyor.snapshot import Ending, Role
from conveyor.starting import Starts
from conveyor.supervisor import Supervisor


def mixed(bad: int, good: int) -> Iterator[int]:
    yield from (-n for n in range(1, bad + 1))
    yield from range(good)


def die_at_some(task: int) -> None:
    if task < 0:
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("consumers", [1, 2])
def test_ten_tasks_that_crash_hold_the_good_ones_up_for_a_moment_only(
    monkeypatch: pytest.MonkeyPatch, consumers: int
) -> None:
    delays: list[float] = []
    after = Loop.after

    def noting(loop: Loop, seconds: float, action: object) -> None:
        if "_restart" in repr(action):
            delays.append(seconds)
        after(loop, seconds, action)  # type: ignore[arg-type]

    monkeypatch.setattr(Loop, "after", noting)
    report = Pipeline(producers=[Producer(mixed, 10, 1000)], consumer=die_at_some, consumers=consumers).run()
    assert (report.processed, report.dead_lettered, report.restarts) == (1000, 10, 30)
    assert len(delays) >= 30
    assert sum(delays) < 0.5  # and not 49: how long the processes take to start is the machine's


class Die:
    """Dies before it is ready wherever a file is, once its process has begun."""

    def __init__(self, gate: Path) -> None:
        self.gate, self.parent = gate, os.getpid()

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__ = state
        if os.getpid() != self.parent and self.gate.exists():
            os._exit(7)

    def __call__(self, task: int) -> None:
        self.gate.touch()


def endlessly() -> Iterator[int]:
    for number in itertools.count():
        yield number
        time.sleep(0.01)


def test_an_added_consumer_that_never_gets_ready_ends_no_run_in_which_others_work(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gate = tmp_path / "gate"
    crew: list[Supervisor] = []
    seen: list[str] = []

    def added(supervisor: Supervisor, loop: Loop) -> closing[SimpleNamespace]:
        def look() -> None:
            if gate.exists() and not crew:
                crew.append(supervisor)
                seen.append(supervisor.scale(Bounds(2, 2)))
            elif any("does not get ready" in message for message in caplog.messages):
                supervisor.request_stop()

        loop.every(0.02, look)
        return closing(SimpleNamespace(close=lambda: None))

    pipeline = Pipeline(producers=[Producer(endlessly)], consumer=Die(gate), consumers=1)
    report = pipeline.run_with(of_options({}), [added])
    assert seen == ["consumers: 1 -> 2"]
    assert report.ending is Ending.DRAINED
    assert report.trouble is None
    assert len(report.deaths) >= 5


# -- with a fake starter -----------------------------------------------------------------------------------


class Place:
    """Looks like a slot."""

    def __init__(self, role: Role) -> None:
        self.role, self.name = role, role.value
        self.process: object = None
        self.pid = 1


class System:
    """Starts so many processes, and no more."""

    def __init__(self, loop: Loop, room: int, places: list[Place]) -> None:
        self.room = room
        self.started: list[Place] = []
        self.given_up: list[str] = []
        self.starts = Starts(
            loop,
            lambda slot: self.start(cast(Place, slot)),
            lambda slot: slot.process is None,
            self.given_up.append,
            lambda: cast(list[Slot], places),
        )

    def start(self, place: Place) -> None:
        if len(self.started) == self.room:
            raise ConveyorError("no more processes")
        self.started.append(place)
        place.process = place


@pytest.fixture
def loop() -> Iterator[Loop]:
    with closing(Loop()) as loop:
        yield loop


def test_those_that_wait_are_started_when_there_is_room_a_role_that_has_nobody_first(loop: Loop) -> None:
    places = [Place(Role.CONSUMER), Place(Role.CONSUMER), Place(Role.PRODUCER)]
    system = System(loop, 1, places)
    assert [system.starts.try_to_start(cast(Slot, place)) for place in places] == [True, False, False]
    system.room = 2
    while len(system.started) < 2:
        loop.turn()
    assert system.started == [places[0], places[2]]
    assert [slot.name for slot in system.starts.waiting] == [places[1].name]
    system.room = 3
    while len(system.started) < 3:
        loop.turn()
    assert not system.starts.waiting
    assert system.given_up == []


def test_one_failure_is_enough_for_all_that_are_to_start_now(loop: Loop) -> None:
    places = [Place(Role.CONSUMER) for _ in range(400)]
    system = System(loop, 1, places)
    tries: list[object] = []
    start = system.start
    system.start = lambda place: (tries.append(place), start(place))[1]  # type: ignore[method-assign, func-returns-value]
    for place in places:
        system.starts.try_to_start(cast(Slot, place))
    assert len(tries) == 2


def test_a_role_that_nobody_can_be_started_for_is_given_up_with_the_reason(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("conveyor.restarts.START_PATIENCE_SECONDS", 0.1)
    system = System(loop, 0, [Place(Role.CONSUMER)])
    system.starts.try_to_start(cast(Slot, Place(Role.CONSUMER)))
    while not system.given_up:
        loop.turn()
    assert system.given_up == ["no consumer can be started: no more processes"]


def test_no_worker_is_started_with_the_last_descriptors(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system_limits, "soft_limit", lambda: 10)
    system = System(loop, 5, [])
    assert not system.starts.try_to_start(cast(Slot, Place(Role.CONSUMER)))
    assert "too few file descriptors are left (ulimit -n is 10)" in system.starts.reason
    assert system.started == []


def test_a_failed_start_leaves_a_run_with_those_that_there_are(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    start = Starter.start
    names: list[str] = []

    def scarce(starter: Starter, target: object, argument: object, name: str, messages: int) -> object:
        names.append(name)
        if name == "consumer-3":
            raise ConveyorError("cannot fork: Resource temporarily unavailable")
        return start(starter, target, argument, name, messages)  # type: ignore[arg-type]

    monkeypatch.setattr(Starter, "start", scarce)
    report = Pipeline(producers=[Producer(range, 100)], consumer=abs, consumers=4).run()
    assert (report.ending, report.processed, report.trouble) == (Ending.COMPLETE, 100, None)
    assert "worker not started" in caplog.messages
