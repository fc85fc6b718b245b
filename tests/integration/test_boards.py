"""What the boards tell of a run: asked of a real Prometheus as Grafana asks it, over hours that were written for it."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conveyor.snapshot import RestartReason, Role, RunStatistics, SlotStatistics, WorkerState
from support.boards import DASHBOARDS, OVERVIEW, WORKER, annotation, marks, question, questions, step_of
from support.fakes import make_run, make_slot, with_queue
from support.history import SCRAPE_SECONDS, History
from support.prometheus import Prometheus, prometheus_of

pytestmark = [
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs prometheus, of Debian's package prometheus"),
    pytest.mark.timeout(240),
]

# The moment of the boards: a whole hour and more ago, so that no rule of the server sees it, and at no even second.
NOW = time.time() // 600 * 600 - 5400 + 3
MINUTE, HOUR = 60, 3600
RANGES = {"5m": 5 * MINUTE, "15m": 15 * MINUTE, "1h": HOUR, "6h": 6 * HOUR}
at_every_range = pytest.mark.parametrize("seconds", RANGES.values(), ids=RANGES.keys())

KILL = NOW - 131  # the one of `killed`
KILLS = [NOW - 200 + n * 4 for n in range(30)]  # those of `stormy`, in two minutes
STATE = {"down": 0, "starting": 1, "idle": 2, "busy": 3, "blocked": 4, "stopping": 5, "replaced": 6, "finished": 7}
STALLED, PAUSED, NONE_DONE_YET, IDLE = -1, -2, -3, -4


def scrapes(start: float, end: float = NOW) -> list[float]:
    return [start + n * SCRAPE_SECONDS for n in range(int((end - start) // SCRAPE_SECONDS) + 1)]


def live(name: str, **changes: object) -> SlotStatistics:
    return make_slot(name, pid=os.getpid(), started_at=NOW - 3000, heartbeat_at=NOW - 1, **changes)


def working(second: float, *, done: int, waiting: int = 10, in_progress: int = 1) -> RunStatistics:
    """Return a run that has done so many tasks, and has so many left."""
    return make_run(
        live("producer-1", produced=done + waiting + in_progress, blocked_seconds=0.1 * second),
        live("consumer-1", processed=done, in_progress=in_progress, busy_seconds=0.8 * second, state=WorkerState.BUSY),
    )


# -- the past ----------------------------------------------------------------------------------------------


def write_steady_runs(history: History) -> None:
    """Write runs of ten minutes: what they have done stands still from half of the time on, but for the first two."""
    for n, at in enumerate(scrapes(NOW - 10 * MINUTE)):
        moving, standing = 20 * n, 20 * min(n, 60)
        history.scrape(working(at - NOW + 600, done=moving), "healthy:1", [at])
        if at <= NOW - 6 * MINUTE:  # longer than what Prometheus looks back
            history.scrape(working(at - NOW + 600, done=moving), "gone:1", [at])
        in_hand = working(at - NOW + 600, done=standing)
        none_in_hand = working(at - NOW + 600, done=standing, waiting=11, in_progress=0)
        history.scrape(in_hand, "hung:1", [at])
        history.scrape(none_in_hand, "stalled:1", [at])
        history.scrape(with_queue(none_in_hand, is_paused=True), "paused:1", [at])
        history.scrape(with_queue(none_in_hand, delayed=11), "delayed:1", [at])
        history.scrape(working(at - NOW + 600, done=standing, waiting=0, in_progress=0), "idle:1", [at])
        slow = working(at - NOW + 600, done=20 * min(n, 110))  # for fifty seconds, the task in hand is all there is
        history.scrape(slow, "slow:1", [at])
    history.scrape(working(1, done=0), "new:1", [NOW])


def write_deaths(history: History) -> None:
    """Write six hours with one kill, and two minutes with thirty."""

    def run(dead: int, state: WorkerState, reason: RestartReason = RestartReason.SIGNAL) -> RunStatistics:
        killed = live("consumer-1", restarts=dict.fromkeys(RestartReason, 0) | {reason: dead}, state=state)
        return make_run(live("producer-1"), killed, live("consumer-2"))

    before = scrapes(NOW - 6 * HOUR - 10 * MINUTE, KILL)
    after = scrapes(before[-1] + SCRAPE_SECONDS)
    told = "restarts|worker_up|worker_state|desired|build_info"  # hours of all would take long to write
    history.scrape(run(0, WorkerState.BUSY), "killed:1", before, told)
    history.scrape(run(1, WorkerState.REPLACED), "killed:1", after[:2], told)
    history.scrape(run(1, WorkerState.BUSY), "killed:1", after[2:], told)
    history.scrape(run(0, WorkerState.BUSY, RestartReason.RECYCLE), "recycled:1", before[-100:])
    history.scrape(run(1, WorkerState.BUSY, RestartReason.RECYCLE), "recycled:1", after)
    for at in scrapes(NOW - HOUR - 10 * MINUTE):
        dead = sum(kill <= at for kill in KILLS)
        history.scrape(run(dead, WorkerState.REPLACED if dead else WorkerState.BUSY), "stormy:1", [at], told)

    # One that is scraped each quarter of a minute, and so not while the state is told.
    rare = scrapes(NOW - 10 * MINUTE)[::3]
    history.scrape(run(0, WorkerState.BUSY), "rarely:1", [at for at in rare if at < KILL], told)
    history.scrape(run(1, WorkerState.BUSY), "rarely:1", [at for at in rare if at >= KILL], told)
    # A run that began anew after three deaths, and has had two more.
    for start, end, deaths in ((NOW - 20 * MINUTE, NOW - 11 * MINUTE, 3), (NOW - 10 * MINUTE, NOW, 2)):
        for n, at in enumerate(scrapes(start, end)):
            history.scrape(run(min(n // 10, deaths), WorkerState.BUSY), "anew:1", [at], told)


def write_crowds(history: History) -> None:
    """Write two pipelines whose workers have the same names, and one with many; and what has ended."""
    for n, at in enumerate(scrapes(NOW - 2 * MINUTE)):
        for instance in ("twin-a:1", "twin-b:1"):
            history.scrape(working(at - NOW + 600, done=20 * n), instance, [at])
    crowd = [live(f"diner-{n}", state=WorkerState.BUSY) for n in (10, 3, 11, 1, 2, 12)]
    history.scrape(make_run(live("producer-1"), *crowd), "crowd:1", scrapes(NOW - 2 * MINUTE))
    ended = make_slot("producer-1", finished=True, started_at=NOW - 900, heartbeat_at=NOW - 800, last_exit_code=0)
    died = make_slot("consumer-2", started_at=NOW - 900, heartbeat_at=NOW - 300, last_exit_code=-9)
    run = make_run(
        ended, live("consumer-1", state=WorkerState.BUSY), died, desired={Role.PRODUCER: 0, Role.CONSUMER: 2}
    )
    history.scrape(run, "ended:1", scrapes(NOW - 2 * MINUTE))
    history.scrape(
        make_run(live("producer-1"), desired={Role.PRODUCER: 1, Role.CONSUMER: 0}), "none:1", scrapes(NOW - 2 * MINUTE)
    )


def write_alerts(history: History) -> None:
    recently, always = scrapes(NOW - 100), scrapes(NOW - 20 * MINUTE)
    history.alert("Watchdog", "none", always)
    bad = {"job": "conveyor", "instance": "twin-b:1"}
    history.alert("ConveyorStalled", "critical", recently, queue="joinable", **bad)
    history.alert("ConveyorWorkerDown", "warning", recently, worker="consumer-1", role="consumer", **bad)
    history.alert("ConveyorQueueFullSoon", "info", recently, queue="joinable", **bad)


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A server that has scraped all this."""
    history = History()
    write_steady_runs(history)
    write_deaths(history)
    write_crowds(history)
    write_alerts(history)
    folder = tmp_path_factory.mktemp("prometheus")
    history.write(folder / "data")
    with prometheus_of([], folder) as server:
        yield server


def value(server: Prometheus, panel: str, instance: str, board: Path = OVERVIEW, at: float = NOW) -> float | None:
    """Return what a panel with one value shows of an instance; None where it says that it has no data."""
    answer = server.at(question(board, panel, instance=instance), at)
    assert len(answer) <= 1, answer
    return answer[0][1] if answer else None


def by_name(server: Prometheus, panel: str, instance: str, board: Path = OVERVIEW) -> dict[str, float]:
    """Return what a panel shows of each worker, by the name that it gives it."""
    answer = server.at(question(board, panel, instance=instance), NOW)
    named = {labels["who"]: value for labels, value in answer}
    assert len(named) == len(answer), "two of one name"
    return named


# -- deaths ------------------------------------------------------------------------------------------------


@at_every_range
@pytest.mark.parametrize("late", [0, 1, 3, 7, 13])
@pytest.mark.parametrize("board", [OVERVIEW, WORKER], ids=["overview", "worker"])
def test_one_kill_is_one_mark(prometheus: Prometheus, board: Path, late: int, seconds: int) -> None:
    """At any range, and at any moment: the points lie elsewhere each time that Grafana asks."""
    step, end = step_of(seconds, 100), NOW + late
    asked = annotation(board, "Restarts", instance="killed:1", __interval=f"{step}s")
    drawn = [
        (labels, mark)
        for labels, points in prometheus.between(asked, end - seconds, end, step)
        for mark in marks(points, step)
    ]
    ((labels, (begin, until)),) = drawn
    assert (labels["who"], labels["reason"]) == ("consumer-1", "signal")
    assert begin == until, "a line, not a region"
    assert KILL <= begin <= KILL + step + SCRAPE_SECONDS


def test_a_process_that_had_done_its_share_is_not_marked(prometheus: Prometheus) -> None:
    asked = annotation(OVERVIEW, "Restarts", instance="recycled:1", __interval="5s")
    assert not prometheus.between(asked, NOW - 15 * MINUTE, NOW, 5)


def test_the_marks_of_the_worker_board_are_those_of_the_worker(prometheus: Prometheus) -> None:
    other = annotation(WORKER, "Restarts", instance="killed:1", worker="consumer-2", __interval="5s")
    assert not prometheus.between(other, NOW - 15 * MINUTE, NOW, 5)


@at_every_range
@pytest.mark.parametrize(("instance", "deaths"), [("killed:1", 1), ("stormy:1", len(KILLS))])
@pytest.mark.parametrize("board", [OVERVIEW, WORKER], ids=["overview", "worker"])
def test_the_bars_count_each_restart_once(
    prometheus: Prometheus, board: Path, instance: str, deaths: int, seconds: int
) -> None:
    step = step_of(seconds, 400, least=20)
    asked = question(
        board, "Restarts by reason", instance=instance, __interval=f"{step}s", __rate_interval=f"{step + 5}s"
    )
    start = NOW - seconds - step
    bars = [value for _, points in prometheus.between(asked, start, NOW + step, step) for _, value in points]
    assert sum(bars) == deaths
    assert all(bar == int(bar) for bar in bars)


def test_the_restarts_of_an_hour_are_counted_exactly(prometheus: Prometheus) -> None:
    assert value(prometheus, "Restarts in 1 h", "stormy:1") == len(KILLS)
    assert value(prometheus, "Restarts in 1 h", "killed:1") == 1
    assert value(prometheus, "Restarts in 1 h", "recycled:1") == 0
    assert value(prometheus, "Restarts in 1 h", "anew:1") == 3 + 2
    assert value(prometheus, "Restarts in 1 h", "killed:1", at=KILL + HOUR + 30) is None  # nothing is known of then


@at_every_range
@pytest.mark.parametrize(
    ("board", "panel"),
    [(OVERVIEW, "What every process is doing"), (WORKER, "State over time")],
    ids=["overview", "worker"],
)
def test_a_kill_shows_in_its_lane(prometheus: Prometheus, board: Path, panel: str, seconds: int) -> None:
    step = step_of(seconds, 800)
    asked = question(board, panel, instance="killed:1", __interval=f"{step}s")
    lanes = {labels["who"]: points for labels, points in prometheus.between(asked, NOW - seconds, NOW, step)}
    assert list(lanes) == ["consumer-1", "consumer-2", "producer-1"]
    sign = [time for time, state in lanes["consumer-1"] if state == STATE["replaced"]]
    assert sign
    assert KILL <= min(sign) <= max(sign) <= KILL + 2 * SCRAPE_SECONDS + step
    assert {state for _, state in lanes["consumer-1"]} == {STATE["busy"], STATE["replaced"]}
    assert {state for _, state in lanes["consumer-2"]} == {STATE["idle"]}


def test_a_kill_shows_in_its_lane_where_scrapes_are_too_rare_to_see_its_state(prometheus: Prometheus) -> None:
    asked = question(OVERVIEW, "What every process is doing", instance="rarely:1", __interval="15s")
    lanes = {labels["who"]: points for labels, points in prometheus.between(asked, NOW - 5 * MINUTE, NOW, 15)}
    assert [state for _, state in lanes["consumer-1"]].count(STATE["replaced"]) == 1
    assert {state for _, state in lanes["consumer-1"]} == {STATE["busy"], STATE["replaced"]}


def test_a_scrape_that_comes_late_is_no_death(prometheus: Prometheus) -> None:
    """At a point without a sample just before it, a lane shows the state of the last one."""
    asked = question(OVERVIEW, "What every process is doing", instance="killed:1", __interval="1s")
    for _, points in prometheus.between(asked, NOW - 5 * MINUTE, NOW, 1):
        assert STATE["down"] not in {state for _, state in points}


def test_who_has_finished_is_not_down(prometheus: Prometheus) -> None:
    states = by_name(prometheus, "Workers", "ended:1")
    assert states == {"producer-1": STATE["finished"], "consumer-1": STATE["busy"], "consumer-2": STATE["down"]}
    # Nor hung: it gives no sign of life because it has none.
    assert set(by_name(prometheus, "Time since last heartbeat", "ended:1")) == {"consumer-1"}


def test_a_role_that_is_scaled_to_none_has_none_alive_and_none_missing(prometheus: Prometheus) -> None:
    alive, missing = [q.expression for q in questions(OVERVIEW, instance="none:1") if q.panel == "Consumers"]
    assert [[value for _, value in prometheus.at(expr, NOW)] for expr in (alive, missing)] == [[0], [0]]


# -- work that stands, and work that is not known ----------------------------------------------------------

MEASURED = ("Backlog time", "Wait p95", "Processing p95", "Failed", "Attempts retried")


@pytest.mark.parametrize("panel", MEASURED)
def test_what_is_measured_is_shown(prometheus: Prometheus, panel: str) -> None:
    shown = value(prometheus, panel, "healthy:1")
    assert shown is not None
    assert shown >= 0


@pytest.mark.parametrize("panel", MEASURED)
@pytest.mark.parametrize(
    ("instance", "word"),
    [
        ("stalled:1", STALLED),
        ("hung:1", STALLED),
        ("paused:1", PAUSED),
        ("slow:1", NONE_DONE_YET),
        ("delayed:1", IDLE),
        ("idle:1", IDLE),
        ("new:1", None),
        ("gone:1", None),
        ("never-seen:1", None),
    ],
)
def test_what_cannot_be_measured_is_called_by_its_name(
    prometheus: Prometheus, panel: str, instance: str, word: int | None
) -> None:
    assert value(prometheus, panel, instance) == word


def test_a_queue_that_stands_is_seen_beside_one_that_flows(prometheus: Prometheus) -> None:
    assert value(prometheus, "Backlog time", "healthy:1|stalled:1") == STALLED
    wait = value(prometheus, "Wait p95", "healthy:1|stalled:1")
    assert wait is not None
    assert wait > 0


def test_whether_a_queue_has_a_bound_is_said_only_where_it_is_known(prometheus: Prometheus) -> None:
    assert value(prometheus, "Queue fill", "healthy:1") == 0.01
    assert value(prometheus, "Queue fill", "gone:1") is None
    assert value(prometheus, "Spool", "healthy:1") == -1  # it has none
    assert value(prometheus, "Spool", "gone:1") is None


@pytest.mark.parametrize("board", DASHBOARDS, ids=lambda file: file.stem)
def test_nothing_is_claimed_of_an_exporter_that_is_gone(prometheus: Prometheus, board: Path) -> None:
    now = [q for q in questions(board, instance="gone:1") if q.kind in ("stat", "gauge", "bargauge", "table")]
    assert all(asked.is_instant for asked in now), "a range ends with what was last known"
    claims = {asked.panel for asked in now if prometheus.at(asked.expression, NOW)}
    assert claims <= {"Verdict", "Firing alerts"}


# -- several pipelines -------------------------------------------------------------------------------------

TWINS = "twin-a:1|twin-b:1"


@pytest.mark.parametrize(
    ("board", "panel"),
    [(OVERVIEW, "Share of time busy"), (OVERVIEW, "Time since last heartbeat"), (WORKER, "Up for"), (WORKER, "State")],
)
def test_workers_of_one_name_are_kept_apart(prometheus: Prometheus, board: Path, panel: str) -> None:
    both = by_name(prometheus, panel, TWINS, board)
    assert {"consumer-1 @ twin-a:1", "consumer-1 @ twin-b:1"} <= set(both)
    assert "consumer-1" in by_name(prometheus, panel, "twin-a:1", board), "its name is enough where it is alone"


def test_no_worker_is_busy_for_more_than_all_of_its_time(prometheus: Prometheus) -> None:
    assert max(by_name(prometheus, "Share of time busy", TWINS).values()) == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("instance", "verdict", "firing"), [("twin-a:1", 0, 0), ("twin-b:1", 2, 3), (TWINS, 2, 3), ("gone:1", 3, 0)]
)
def test_the_verdict_is_that_of_what_is_chosen(
    prometheus: Prometheus, instance: str, verdict: int, firing: int
) -> None:
    assert value(prometheus, "Verdict", instance) == verdict
    assert value(prometheus, "Firing alerts", instance) == firing
    assert len(prometheus.at(question(OVERVIEW, "Alerts", instance=instance), NOW)) == firing


def test_no_verdict_is_given_while_no_rule_is_evaluated(prometheus: Prometheus) -> None:
    long_before = NOW - 5 * HOUR
    assert value(prometheus, "Verdict", "killed:1", at=long_before) == 4
    assert value(prometheus, "Firing alerts", "killed:1", at=long_before) is None


def test_the_worst_alert_has_the_highest_number(prometheus: Prometheus) -> None:
    rows = prometheus.at(question(OVERVIEW, "Alerts", instance="twin-b:1"), NOW)
    ranks = {labels["alertname"]: rank for labels, rank in rows}
    assert ranks == {"ConveyorStalled": 3, "ConveyorWorkerDown": 2, "ConveyorQueueFullSoon": 1}


@at_every_range
def test_an_alert_is_marked_where_it_begins(prometheus: Prometheus, seconds: int) -> None:
    step = step_of(seconds, 100)
    asked = annotation(OVERVIEW, "Firing alerts", instance=TWINS, __interval=f"{step}s")
    end = NOW + step
    drawn = [(labels, marks(points, step)) for labels, points in prometheus.between(asked, end - seconds, end, step)]
    ((labels, ((begin, until),)),) = drawn
    assert (labels["alertname"], labels["about"].split()) == ("ConveyorStalled", ["joinable", "twin-b:1"])
    assert begin == until
    healthy = annotation(OVERVIEW, "Firing alerts", instance="twin-a:1", __interval=f"{step}s")
    assert not prometheus.between(healthy, end - seconds, end, step)


def test_workers_come_in_the_order_of_their_numbers_everywhere(prometheus: Prometheus) -> None:
    diners = [f"diner-{n}" for n in (1, 2, 3, 10, 11, 12)]
    asked = question(OVERVIEW, "What every process is doing", instance="crowd:1")
    lanes = [labels["who"] for labels, _ in prometheus.between(asked, NOW - 60, NOW, 5)]
    assert lanes == [*diners, "producer-1"]
    for panel in ("Time since last heartbeat", "Workers"):
        rows = prometheus.at(question(OVERVIEW, panel, instance="crowd:1"), NOW)
        assert [labels["who"] for labels, _ in sorted(rows, key=lambda row: row[0]["order"])] == lanes


def test_instances_come_one_after_the_other(prometheus: Prometheus) -> None:
    asked = question(OVERVIEW, "What every process is doing", instance=TWINS)
    lanes = [labels["who"] for labels, _ in prometheus.between(asked, NOW - 60, NOW, 5)]
    assert lanes == [f"{who} @ {at}" for at in ("twin-a:1", "twin-b:1") for who in ("consumer-1", "producer-1")]
    rows = prometheus.at(question(OVERVIEW, "Workers", instance=TWINS), NOW)
    assert [labels["who"] for labels, _ in sorted(rows, key=lambda row: row[0]["order"])] == lanes
