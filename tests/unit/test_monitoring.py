"""Dashboards, alert rules and runbook agree with each other, and with what the exporter offers."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
import yaml

from conveyor.exporter.catalogue import CATALOGUE, FailureReason, Kind
from conveyor.snapshot import RedeliveryReason, RestartReason
from support.boards import interpolated

Json = dict[str, Any]

ROOT = Path(__file__).parents[2]
GRAFANA = ROOT / "monitoring" / "grafana"
PROMETHEUS = ROOT / "monitoring" / "prometheus"
RUNBOOK = ROOT / "docs" / "runbook.md"
BOARDS: dict[str, Json] = {
    name: json.loads((GRAFANA / "dashboards" / f"{name}.json").read_text(encoding="utf-8"))
    for name in ("overview", "worker")
}
RULES: Json = yaml.safe_load((PROMETHEUS / "rules" / "conveyor.yml").read_text(encoding="utf-8"))
RULE_TESTS: Json = yaml.safe_load((PROMETHEUS / "tests" / "conveyor.test.yml").read_text(encoding="utf-8"))
LIMITS: dict[str, tuple[Any, ...]] = runpy.run_path(str(GRAFANA / "limits.py"))["LIMITS"]

# What Prometheus makes itself, and what the client library says of the supervisor's process.
FOREIGN_METRICS = {
    "ALERTS",
    "scrape_duration_seconds",
    "scrape_samples_scraped",
    "process_resident_memory_bytes",
}
# The panels whose thresholds are limits, by the topic of the table.
LIMITED_PANELS = {
    "overview": {
        "Producers": "workers_missing",
        "Queue fill": "queue_fill_ratio",
        "Consumers": "workers_missing",
        "Firing alerts": "firing_alerts",
        "Restarts in 1 h": "restarts_in_1_hour",
        "Wait p95": "queue_wait_p95_seconds",
        "Backlog time": "backlog_seconds",
        "Failed": "failure_ratio",
        "Processing p95": "processing_p95_seconds",
        "Time since last heartbeat": "heartbeat_age_seconds",
        "Share of time busy": "consumer_busy_ratio",
        "Tasks unaccounted for": "unaccounted_tasks",
        "Time producers spend blocked": "producer_blocked_ratio",
        "Oldest waiting task": "oldest_waiting_seconds",
        "Attempts retried": "retried_ratio",
        "Spool commit time": "spool_commit_seconds",
        "Scrape duration": "scrape_seconds",
    },
    "worker": {
        "Heartbeat": "heartbeat_age_seconds",
        "Restarts in 1 h": "restarts_in_1_hour",
        "Share of time busy": "consumer_busy_ratio",
        "CPU": "used_cores",
        "Resident memory": "resident_memory_bytes",
    },
}
# An exit code is good or bad by its meaning, not by its size; what waits for another attempt is a matter of 0 or more.
UNLIMITED_PANELS = {"Last exit code", "Put off"}
# In selectors, besides a metric's own labels: what Prometheus and histograms add.
COMMON_LABELS = {"job", "instance", "le"}

both_boards = pytest.mark.parametrize("board", list(BOARDS))


def placed(board: str) -> Iterator[Json]:
    """Yield every panel, also rows and what is inside shut ones."""
    for panel in BOARDS[board]["panels"]:
        yield panel
        yield from panel.get("panels", [])


def drawn(board: str) -> list[Json]:
    """Return the panels that show data."""
    return [panel for panel in placed(board) if panel["type"] not in ("row", "text")]


def expressions(board: str) -> list[str]:
    """Return every PromQL expression of the panels and annotations."""
    targets = [target["expr"] for panel in drawn(board) for target in panel["targets"]]
    return targets + [note["expr"] for note in BOARDS[board]["annotations"]["list"] if "expr" in note]


def selectors(expr: str) -> dict[str, list[str]]:
    """Return, for each metric, the contents of the braces behind it."""
    names = re.findall(r"\b((?:conveyor|scrape|process)_\w+|ALERTS)\b(?:\{([^}]*)\})?", expr)
    found = defaultdict(list)
    for name, matchers in names:
        found[name].append(matchers)
    return found


def offered_metrics() -> dict[str, set[str]]:
    """Return the name of every series that the exporter offers, with its labels."""
    endings = {Kind.HISTOGRAM: ("_bucket", "_sum", "_count")}
    return {m.name + ending: set(m.labels) for m in CATALOGUE for ending in endings.get(m.kind, ("",))}


def alerts() -> list[Json]:
    return [rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule]


def numbers_in(expr: str) -> set[float]:
    """Return the numbers that an expression compares or calculates with; 0 is not a limit."""
    bare = re.sub(r'"[^"]*"|\[[^\]]*\]|[A-Za-z_:][\w:]*', " ", expr)
    return {float(number) for number in re.findall(r"\d+(?:\.\d+)?", bare)} - {0.0}


def steps(thresholds: Json) -> list[tuple[float, str]]:
    return [(step["value"], step["color"]) for step in thresholds["steps"] if step["value"] is not None]


def told_steps(panel: Json) -> list[tuple[float, str]]:
    """Return the steps of a panel past the one from which on there is a value: before, there is none."""
    found = steps(panel["fieldConfig"]["defaults"].get("thresholds", {"steps": []}))
    return found[1:] if panel["type"] in ("stat", "gauge", "bargauge") and found[:1] and found[0][0] == 0 else found


def coloured_limits(topic: str) -> list[tuple[float, str]]:
    return [(limit.value, limit.colour) for limit in LIMITS[topic] if limit.colour is not None]


def generate(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-B", str(folder / "generate.py"), *arguments]
    return subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)


# -- the dashboards ----------------------------------------------------------------------------------------


def test_the_committed_dashboards_are_what_the_generator_makes() -> None:
    done = generate(GRAFANA, "--check")
    assert done.returncode == 0, done.stderr


def test_the_check_names_the_dashboard_that_differs(tmp_path: Path) -> None:
    copy = tmp_path / "grafana"
    shutil.copytree(GRAFANA, copy, ignore=shutil.ignore_patterns("__pycache__"))
    stale = copy / "dashboards" / "worker.json"
    stale.write_text(stale.read_text(encoding="utf-8").replace("Heartbeat", "Pulse"), encoding="utf-8")
    done = generate(copy, "--check")
    assert done.returncode == 1
    assert "worker.json" in done.stderr
    assert "overview.json" not in done.stderr
    assert generate(copy).returncode == 0
    assert generate(copy, "--check").returncode == 0


@both_boards
def test_a_dashboard_is_written_for_every_grafana_since_9_4(board: str) -> None:
    dashboard = BOARDS[board]
    assert dashboard["schemaVersion"] == 37
    assert dashboard["uid"] == f"conveyor-{board}"
    assert "id" not in dashboard
    assert not dashboard["editable"]
    assert dashboard["refresh"] == "5s"
    assert dashboard["tags"] == ["conveyor"]


def test_the_boards_have_all_their_panels() -> None:
    assert {board: len(drawn(board)) for board in BOARDS} == {"overview": 44, "worker": 16}
    (guide,) = (panel for panel in placed("overview") if panel["type"] == "text")
    assert guide["title"] == "How to read this page"


@both_boards
def test_every_panel_has_an_id_of_its_own(board: str) -> None:
    ids = Counter(panel["id"] for panel in placed(board))
    assert ids.most_common(1)[0][1] == 1


@both_boards
def test_no_panel_lies_on_another_or_off_the_grid(board: str) -> None:
    # What is in a shut row takes room when it is opened, and pushes down what follows.
    for listed in [BOARDS[board]["panels"], *(panel.get("panels", []) for panel in BOARDS[board]["panels"])]:
        assert_apart(listed)


def assert_apart(panels: list[Json]) -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in panels:
        place = panel["gridPos"]
        assert 0 <= place["x"] <= place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, f"{panel['title']} lies on {taken[x, y]}"
                taken[x, y] = panel["title"]


@both_boards
def test_every_panel_says_what_it_shows_in_which_unit(board: str) -> None:
    for panel in drawn(board):
        assert panel["title"], panel["id"]
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["targets"], panel["title"]


@both_boards
def test_every_panel_asks_the_chosen_data_source(board: str) -> None:
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    for panel in drawn(board):
        assert panel["datasource"] == chosen
        assert all(target["datasource"] == chosen for target in panel["targets"])


@both_boards
def test_every_selector_names_job_and_instance(board: str) -> None:
    for expr in expressions(board):
        for name, matchers in selectors(expr).items():
            if name != "ALERTS":
                assert all(text.startswith('job=~"$job",instance=~"$instance"') for text in matchers), expr


@both_boards
def test_alerts_are_those_of_what_is_chosen(board: str) -> None:
    """Those of Prometheus itself concern every pipeline, and so do those without an instance, which absent() makes."""
    for expr in expressions(board):
        for matchers in selectors(expr).get("ALERTS", []):
            chosen = 'job=~"$job|",instance=~"$instance|"' in matchers
            assert chosen or "Watchdog" in matchers or 'alertname=~"Prometheus.+"' in matchers, expr


@both_boards
def test_every_rate_is_taken_over_the_rate_interval(board: str) -> None:
    for expr in expressions(board):
        assert set(re.findall(r"\brate\([^\[]*\[([^\]]*)\]", expr)) <= {"$__rate_interval"}, expr


@both_boards
def test_only_metrics_and_labels_of_the_catalogue_are_asked_for(board: str) -> None:
    offered = offered_metrics()
    for expr in expressions(board):
        for name, matchers in selectors(expr).items():
            assert name in offered or name in FOREIGN_METRICS, name
            if name in offered:
                used = {label for text in matchers for label in re.findall(r"(\w+)(?==~?\")", text)}
                assert used <= offered[name] | COMMON_LABELS, expr


@both_boards
def test_the_variables_are_those_that_the_queries_use(board: str) -> None:
    listed = BOARDS[board]["templating"]["list"]
    variables = {variable["name"]: variable for variable in listed}
    last = {"overview": "queue", "worker": "worker"}[board]
    assert list(variables) == ["datasource", "job", "instance", last]
    for name in ("job", "instance"):
        variable = variables[name]
        assert variable["label"] == name.capitalize()
        assert variable["datasource"]["uid"] == "${datasource}"
        assert (variable["type"], variable["multi"], variable["includeAll"]) == ("query", True, True)
        assert (variable["allValue"], variable["refresh"]) == (".+", 2)
    used = {name for expr in expressions(board) for name in re.findall(r"\$(?!__)([a-z]\w*)", expr)}
    assert used == set(variables) - {"datasource"}


@both_boards
def test_grafanas_own_annotations_are_off_and_ours_miss_no_restart(board: str) -> None:
    own, *ours = BOARDS[board]["annotations"]["list"]
    assert own["builtIn"] == 1
    assert not own["enable"]
    assert [(note["name"], note["step"]) for note in ours] == [("Firing alerts", "5s"), ("Restarts", "5s")]


@both_boards
def test_thresholds_are_the_limits_of_the_table(board: str) -> None:
    for panel in drawn(board):
        found = told_steps(panel)
        topic = LIMITED_PANELS[board].get(panel["title"])
        if panel["title"] not in UNLIMITED_PANELS:
            assert found == (coloured_limits(topic) if topic else []), panel["title"]


def test_columns_are_coloured_by_the_limits_of_the_table() -> None:
    (table,) = (panel for panel in drawn("overview") if panel["title"] == "Workers")
    found = {
        override["matcher"]["options"]: steps(change["value"])[1:]  # the first is that of a value at all
        for override in table["fieldConfig"]["overrides"]
        for change in override["properties"]
        if change["id"] == "thresholds"
    }
    assert found == {
        "Busy": coloured_limits("worker_busy_ratio"),
        "Restarts 1h": coloured_limits("restarts_in_1_hour"),
    }


def test_a_run_without_a_spool_is_told_to_have_none() -> None:
    """Not to have an empty one, nor nothing at all; and where nothing is known, that is said instead."""
    spools = [panel for panel in drawn("overview") if "conveyor_spool_" in panel["targets"][0]["expr"]]
    assert len(spools) == 4
    for panel in spools:
        defaults = panel["fieldConfig"]["defaults"]
        if panel["type"] == "stat":
            (mapping,) = defaults["mappings"]
            assert mapping["options"]["-1"]["text"] == "no spool"
            assert defaults["noValue"] == "no data"
        else:
            assert defaults["noValue"] == "no spool, or no data of one", panel["title"]


@pytest.mark.parametrize(
    ("title", "reasons"),
    [
        ("Failures by reason", FailureReason),
        ("Redeliveries by reason", RedeliveryReason),
        ("Restarts by reason", RestartReason),
    ],
)
def test_every_reason_has_a_colour_of_its_own(title: str, reasons: type[StrEnum]) -> None:
    (panel,) = (panel for panel in drawn("overview") if panel["title"] == title)
    colours = {
        override["matcher"]["options"]: change["value"]["fixedColor"]
        for override in panel["fieldConfig"]["overrides"]
        for change in override["properties"]
    }
    assert set(colours) == {reason.value for reason in reasons}
    assert len(set(colours.values())) == len(colours)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool, of Debian's package prometheus")
@both_boards
def test_every_expression_is_promql(board: str, tmp_path: Path) -> None:
    rules = [{"record": f"panel:{n}", "expr": interpolated(expr)} for n, expr in enumerate(expressions(board))]
    file = tmp_path / "panels.yml"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}), encoding="utf-8")
    program = ["promtool", "check", "rules", str(file)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# -- the rules ---------------------------------------------------------------------------------------------


def test_every_number_in_an_alert_is_a_limit_of_the_table() -> None:
    limits: dict[tuple[str, str], set[float]] = defaultdict(set)
    for topic in LIMITS.values():
        for limit in topic:
            if limit.alert is not None:
                limits[limit.alert, limit.severity].add(float(limit.value))
    found = {(rule["alert"], rule["labels"]["severity"]): numbers_in(rule["expr"]) for rule in alerts()}
    del found["Watchdog", "none"]  # it compares nothing
    assert {alert: numbers for alert, numbers in found.items() if numbers} == limits


def test_rules_use_only_metrics_of_the_catalogue() -> None:
    offered = offered_metrics()
    for group in RULES["groups"]:
        for rule in group["rules"]:
            # The lookbehind leaves out recorded series, as in instance_queue:conveyor_queue_fill:ratio.
            used = set(re.findall(r"(?<![\w:])conveyor_\w+", rule["expr"]))
            assert used <= set(offered), rule


def test_every_alert_says_what_it_means_and_where_to_look() -> None:
    for rule in alerts():
        name = rule["alert"]
        assert rule["labels"]["severity"] in ("critical", "warning", "info", "none"), name
        about = rule["annotations"]
        assert about["summary"].endswith("."), name
        assert "{{" not in about["summary"], f"{name}: what changes belongs into the description"
        assert about["description"].endswith("."), name
        assert about["runbook_url"] == f"docs/runbook.md#{name.lower()}"
        assert about["dashboard_url"].partition("?")[0] in {f"/d/{board['uid']}" for board in BOARDS.values()}


def test_every_alert_has_a_section_in_the_runbook_and_every_section_an_alert() -> None:
    sections = re.findall(r"^## (.+)$", RUNBOOK.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(sections) == len(set(sections))
    assert set(sections) == {rule["alert"] for rule in alerts()}


def test_the_runbook_sends_nobody_to_a_panel_that_is_not_there() -> None:
    named = set(
        re.findall(r"(?<![*\w])\*([A-Z][^*\n]+)\*(?!\*)", RUNBOOK.read_text(encoding="utf-8").replace("**", ""))
    )
    shown = {panel["title"] for board in BOARDS for panel in placed(board)}
    marks = {note["name"] for board in BOARDS.values() for note in board["annotations"]["list"]}
    assert "Backlog time" in named
    assert named <= shown | marks | {board["title"] for board in BOARDS.values()}


def test_every_alert_fires_in_a_rule_test() -> None:
    assert {(rule["alert"], rule["labels"]["severity"]) for rule in alerts()} == set(fired_in_rule_tests())


def fired_in_rule_tests() -> Iterator[tuple[str, str]]:
    """Yield (alert, severity) of every alert that a rule test expects to fire."""
    for case in RULE_TESTS["tests"]:
        for test in case.get("alert_rule_test", []):
            for expected in test["exp_alerts"]:
                yield test["alertname"], expected["exp_labels"]["severity"]
        for test in case.get("promql_expr_test", []):
            for sample in test["exp_samples"]:
                labels = dict(re.findall(r'(\w+)="([^"]*)"', sample["labels"]))
                if labels.get("alertstate") == "firing":
                    yield labels["alertname"], labels["severity"]


def test_the_healthy_baseline_feeds_every_rule() -> None:
    given = {series["series"].partition("{")[0] for series in RULE_TESTS["tests"][0]["input_series"]}
    named = r"(?<![\w:])(?:conveyor|prometheus|scrape)_\w+|\bup\b"
    for group in RULES["groups"]:
        for rule in group["rules"]:
            assert set(re.findall(named, rule["expr"])) <= given, rule


# -- provisioning ------------------------------------------------------------------------------------------


def test_the_rate_interval_of_grafana_is_that_of_prometheus() -> None:
    prometheus: Json = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8"))
    file = GRAFANA / "provisioning" / "datasources" / "prometheus.yml"
    (source,) = yaml.safe_load(file.read_text(encoding="utf-8"))["datasources"]
    assert source["uid"] == "prometheus"
    assert source["jsonData"]["timeInterval"] == prometheus["global"]["scrape_interval"] == "5s"
