"""What a panel will look like, as far as its options tell: the rules that each kind needs for what we mean by it.

The reasons are what Grafana does, as seen in pictures: a panel whose data are right may still be drawn wrong.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from conveyor.snapshot import WorkerState
from support.boards import DASHBOARDS, OVERVIEW, WORKER, panels

Json = dict[str, Any]

GREY, NO_COLOUR = "#808080", "text"
OF_THIS_MOMENT = ("stat", "gauge", "bargauge", "table")
# What is said where there is no value. None of it may be a claim: "idle", "unbounded", "none" are for what is known.
SILENCES = {"no data", "no spool, or no data of one", "No workers", "No alerts"}
ALWAYS_TOLD = {"Verdict"}
# A narrow screen, and the widest at which a table must be whole; less the margins, and in a panel what is no title.
NARROW, WIDE, MARGINS, BESIDE_A_TITLE, PER_LETTER = 900, 1600, 32, 53, 7.2


def drawn(board: Path, *kinds: str) -> list[Json]:
    """Return the panels of these kinds, or all that show data."""
    shown = [panel for panel in panels(board) if panel["type"] not in ("row", "text")]
    return [panel for panel in shown if not kinds or panel["type"] in kinds]


def everywhere(*kinds: str) -> pytest.MarkDecorator:
    """Have a test look at every panel of these kinds, on both boards."""
    found = [(board, panel) for board in DASHBOARDS for panel in drawn(board, *kinds)]
    assert found
    return pytest.mark.parametrize("panel", [p for _, p in found], ids=[f"{b.stem}: {p['title']}" for b, p in found])


def by_title(board: Path, title: str) -> Json:
    (panel,) = (panel for panel in drawn(board) if panel["title"] == title)
    return panel


def defaults(panel: Json) -> Json:
    config: Json = panel["fieldConfig"]["defaults"]
    return config


def overrides(panel: Json) -> dict[str, Json]:
    """Return the properties of each field that has its own; of one that is named twice, the later ones win."""
    found: dict[str, Json] = {}
    for override in panel["fieldConfig"]["overrides"]:
        properties = {change["id"]: change["value"] for change in override["properties"]}
        found.setdefault(override["matcher"]["options"], {}).update(properties)
    return found


def words(config: Json) -> dict[str, Json]:
    return {value: meaning for mapping in config.get("mappings", []) for value, meaning in mapping["options"].items()}


def expressions(panel: Json) -> list[str]:
    return [target["expr"] for target in panel["targets"]]


def pixels(width: int, screen: int) -> float:
    return width * (screen - MARGINS) / 24


# -- lanes -------------------------------------------------------------------------------------------------


@everywhere("state-timeline")
def test_lanes_have_the_colours_of_their_states(panel: Json) -> None:
    """With `mergeValues` and colours by threshold, values are merged by the names of thresholds: into one colour."""
    assert panel["options"]["mergeValues"]
    assert defaults(panel)["color"] == {"mode": "fixed", "fixedColor": GREY}
    assert "thresholds" not in defaults(panel)
    colours = [meaning["color"] for meaning in words(defaults(panel)).values()]
    assert len(colours) >= 2
    assert len(set(colours)) == len(colours)
    # The gaps of an exporter that is gone stay gaps.
    assert defaults(panel)["custom"]["spanNulls"] is False


@pytest.mark.parametrize(
    ("board", "title"),
    [(OVERVIEW, "What every process is doing"), (WORKER, "State over time"), (WORKER, "State"), (OVERVIEW, "Workers")],
)
def test_every_state_has_a_word(board: Path, title: str) -> None:
    panel = by_title(board, title)
    config = overrides(panel)["State"] if title == "Workers" else defaults(panel)
    told = {meaning["text"]: int(number) for number, meaning in words(config).items()}
    assert set(told) == {state.value for state in WorkerState} | {"down", "finished"}
    assert max(told.values()) == told["finished"]
    for text, number in told.items():
        if text not in ("down", "finished"):
            (expr, *_) = expressions(panel)
            term = rf'{number} \* (\(max_over_time\()?conveyor_worker_state\{{[^}}]*state="{text}"'
            assert re.search(term, expr)


@everywhere("state-timeline")
def test_what_is_short_does_not_fall_between_two_points_of_a_lane(panel: Json) -> None:
    """A day in 800 points has one in two minutes, and a replacement is told for ten seconds."""
    (expr,) = expressions(panel)
    if "conveyor_worker_state" in expr:
        assert "conveyor_worker_restarts_total" in expr
        assert re.search(r'max_over_time\(conveyor_worker_state\{[^}]*state="replaced"\}\[\$__interval\]\)', expr)


# -- what is told of this moment ---------------------------------------------------------------------------


@everywhere(*OF_THIS_MOMENT)
def test_what_is_told_of_now_is_asked_for_now(panel: Json) -> None:
    """The last value of a range may be from before the exporter was gone; `lastNotNull` does not say so."""
    assert all(target["instant"] and not target["range"] for target in panel["targets"])


@everywhere("stat", "gauge", "bargauge")
def test_where_no_value_is_it_is_said_in_grey(panel: Json) -> None:
    """Grafana writes `noValue` in the colour of the base step, or the fixed one: were that green, all would be well."""
    config = defaults(panel)
    assert config["noValue"] in SILENCES
    if panel["title"] in ALWAYS_TOLD:
        return
    if config["color"]["mode"] == "thresholds":
        base, *steps = config["thresholds"]["steps"]
        assert base["value"] is None
        assert base["color"] in (GREY, NO_COLOUR)
        # A value has a colour of its own; or a word for each that there is, with its colour.
        assert steps[0]["value"] <= 0 if steps else words(config)
    else:
        assert config["color"] == {"mode": "fixed", "fixedColor": GREY}


@everywhere()
def test_nothing_but_a_lack_of_data_is_said_without_data(panel: Json) -> None:
    said = [defaults(panel).get("noValue"), *(properties.get("noValue") for properties in overrides(panel).values())]
    assert {text for text in said if text is not None} <= SILENCES | {"–"}


@everywhere("stat", "gauge", "bargauge")
def test_a_word_in_the_place_of_a_value_is_green_only_if_all_is_well(panel: Json) -> None:
    green = {meaning["text"] for meaning in words(defaults(panel)).values() if "green" in meaning["color"]}
    assert green <= {"HEALTHY", "busy", "writable", "0 clean"}


@everywhere(*OF_THIS_MOMENT)
def test_no_number_is_made_up_where_nothing_is_known(panel: Json) -> None:
    """`or vector(0)` is an answer even when there is no server to ask."""
    if panel["title"] not in ALWAYS_TOLD:
        assert not any("vector(" in expr for expr in expressions(panel))


@everywhere("stat")
def test_no_line_runs_through_a_number(panel: Json) -> None:
    assert panel["options"]["graphMode"] == "none"


@pytest.mark.parametrize("title", ["Backlog time", "Wait p95", "Processing p95", "Failed", "Attempts retried"])
def test_a_pipeline_that_stands_is_red(title: str) -> None:
    told = {meaning["text"]: meaning["color"] for meaning in words(defaults(by_title(OVERVIEW, title))).values()}
    assert told == {"stalled": "red", "paused, stalled": "red", "none done yet": NO_COLOUR, "idle": GREY}


def test_who_never_exited_is_not_red() -> None:
    panel = by_title(WORKER, "Last exit code")
    assert [(step["value"], step["color"]) for step in defaults(panel)["thresholds"]["steps"]] == [
        (None, NO_COLOUR), (-1000, "red"), (0, "green"), (1, "red"),
    ]  # fmt: skip
    (never,) = (meaning for meaning in words(defaults(panel)).values() if meaning["text"] == "never exited")
    assert never["color"] == NO_COLOUR


def test_nothing_that_waits_for_another_attempt_is_nothing_to_worry_about() -> None:
    steps = defaults(by_title(OVERVIEW, "Put off"))["thresholds"]["steps"]
    assert [(step["value"], step["color"]) for step in steps][1:] == [(0, NO_COLOUR), (1, "semi-dark-orange")]


@everywhere("bargauge")
def test_bars_have_names_of_one_size(panel: Json) -> None:
    """Grafana's letters grow with the room; and an LCD without data is a wall."""
    assert panel["options"]["text"] == {"titleSize": 14, "valueSize": 18}
    assert panel["options"]["displayMode"] != "lcd"


BY_WORKER = [*drawn(OVERVIEW, "bargauge"), *drawn(WORKER, "stat")]


@pytest.mark.parametrize("panel", BY_WORKER, ids=lambda panel: str(panel["title"]))
def test_workers_have_one_order(panel: Json) -> None:
    """An instant query has none. The rows of a table can be sorted; and each is called by its one text."""
    assert panel["options"]["reduceOptions"]["values"]
    (target,) = panel["targets"]
    assert target["format"] == "table"
    sorting, organising = panel["transformations"]
    assert sorting == {"id": "sortBy", "options": {"fields": {}, "sort": [{"field": "order", "desc": False}]}}
    labels = {"Time", "job", "instance", "worker", "where", "order"}
    assert set(organising["options"]["excludeByName"]) == labels
    assert organising["options"]["renameByName"] == {}, "a name of the number would be that of every bar"


# -- tables ------------------------------------------------------------------------------------------------


@everywhere("table")
def test_an_empty_cell_is_not_an_empty_table(panel: Json) -> None:
    """Grafana writes the table's `noValue` into every cell that is empty, as well as into a table without rows."""
    headings = panel["transformations"][-1]["options"]["renameByName"].values()
    assert all(overrides(panel)[heading]["noValue"] == "–" for heading in headings)
    assert defaults(panel)["noValue"].startswith("No ")


@pytest.mark.parametrize(
    ("title", "shared"), [("Workers", {"Worker": 130, "Busy": 150}), ("Alerts", {"Worker": 90, "Queue": 90})]
)
def test_a_table_is_whole_on_a_wide_screen(title: str, shared: dict[str, int]) -> None:
    """A column that nobody gives a width has 150 pixels; the last ones lay beyond the edge."""
    panel = by_title(OVERVIEW, title)
    widths = {
        heading: properties.get("custom.width", properties.get("custom.minWidth"))
        for heading, properties in overrides(panel).items()
    }
    fixed = sum(width for width in widths.values() if width is not None)
    assert fixed + sum(shared.values()) <= pixels(panel["gridPos"]["w"], WIDE)
    assert {heading for heading, width in widths.items() if width is None} == set(shared) | {"Instance"}


def test_the_names_of_alerts_are_not_cut() -> None:
    panel = by_title(OVERVIEW, "Alerts")
    assert panel["gridPos"]["w"] >= 12
    assert overrides(panel)["Alert"]["custom.minWidth"] >= PER_LETTER * len("ConveyorConsumersAtMaximum")


def test_the_worst_alert_is_on_top() -> None:
    """As a word, info would come before warning; so the severity is a number that is shown as a word."""
    panel = by_title(OVERVIEW, "Alerts")
    assert panel["options"]["sortBy"] == [{"displayName": "Severity", "desc": True}]
    told = {meaning["text"]: int(number) for number, meaning in words(overrides(panel)["Severity"]).items()}
    assert told["critical"] > told["warning"] > told["info"]


def test_workers_are_listed_in_the_order_of_the_lanes() -> None:
    panel = by_title(OVERVIEW, "Workers")
    assert [step["id"] for step in panel["transformations"]] == ["merge", "sortBy", "organize"]
    assert panel["options"]["sortBy"] == []


# -- graphs ------------------------------------------------------------------------------------------------


def counting(panel: Json) -> list[str]:
    """Return the queries of a panel that count events for bars."""
    return [expr for expr in expressions(panel) if "offset $__interval" in expr or "increase(" in expr]


@everywhere("timeseries", "heatmap")
def test_events_are_counted_whole_and_once(panel: Json) -> None:
    """An increase() is stretched to its window, so one restart is 1.25; and windows that overlap share events."""
    for expr in counting(panel):
        assert "increase(" not in expr
        assert "clamp_min(" in expr  # a counter that began anew has not gone back


@everywhere("timeseries")
def test_an_axis_of_events_has_no_fractions_and_no_hundred(panel: Json) -> None:
    """Grafana's axis of nothing but zeros goes from 0 to 100."""
    if defaults(panel)["custom"]["drawStyle"] == "bars":
        assert defaults(panel)["decimals"] == 0
        assert defaults(panel)["custom"]["axisSoftMax"] > 0
    for field, properties in overrides(panel).items():
        if properties.get("custom.axisPlacement") == "right":
            assert properties.get("custom.axisSoftMax") or properties.get("max"), field


@pytest.mark.parametrize("title", ["Wait in the queue", "Processing time"])
def test_more_of_the_same_is_the_same_hue(title: str) -> None:
    """Green, yellow and red would say that the 99th percentile is an error."""
    panel = by_title(OVERVIEW, title)
    colours = {name: properties["color"]["fixedColor"] for name, properties in overrides(panel).items()}
    assert colours.pop("mean") == NO_COLOUR
    assert len(set(colours.values())) == 3
    assert len({colour.rpartition("-")[2] for colour in colours.values()}) == 1
    # One long wait does not flatten the rest, and 100 s is not 1.67 min.
    assert defaults(panel)["custom"]["scaleDistribution"] == {"type": "log", "log": 10}
    assert "min" not in defaults(panel), "a logarithm has no 0"
    assert defaults(panel)["unit"] == "suffix:s"


@everywhere("heatmap")
def test_a_heat_map_means_the_same_in_the_light_theme(panel: Json) -> None:
    """A scheme is turned round there, and Turbo makes the usual case dark red."""
    assert panel["options"]["color"]["mode"] == "opacity"
    assert "purple" in panel["options"]["color"]["fill"]
    (expr,) = expressions(panel)
    (edges,) = set(re.findall(r'le=~"([^"]*)"', expr))
    assert len(edges.split("|")) <= 8, "more names than there is room for"


@everywhere("timeseries")
def test_no_two_lines_have_one_name(panel: Json) -> None:
    """With two pipelines, lines by queue or worker need the instance in their names."""
    for target in panel["targets"]:
        assert "{{worker}}" not in target["legendFormat"]
        assert "{{queue}}" not in target["legendFormat"]
        if re.search(r"sum by \((job, instance, )|max by \((job, instance, )", target["expr"]):
            assert "{{who}}" in target["legendFormat"]


@pytest.mark.parametrize("title", ["Series scraped", "Supervisor memory", "Scrape duration"])
def test_lines_of_several_instances_have_several_colours(title: str) -> None:
    panel = by_title(OVERVIEW, title)
    assert [target["legendFormat"] for target in panel["targets"]] == ["{{instance}}"]
    assert defaults(panel)["color"]["mode"] == "palette-classic"


# -- all of them -------------------------------------------------------------------------------------------


@everywhere()
def test_workers_and_queues_of_two_pipelines_are_not_added_up(panel: Json) -> None:
    """Each has its consumer-1: added up, it is busy for 200 % of its time."""
    for expr in expressions(panel):
        assert not re.search(r"by \((worker|queue)\b", expr)


@everywhere()
def test_rates_are_of_tasks_and_not_of_operations(panel: Json) -> None:
    units = [defaults(panel)["unit"], *(properties.get("unit") for properties in overrides(panel).values())]
    assert "ops" not in units


@everywhere()
def test_titles_are_whole_on_a_narrow_screen(panel: Json) -> None:
    room = pixels(panel["gridPos"]["w"], NARROW) - BESIDE_A_TITLE
    assert len(panel["title"]) * PER_LETTER <= room


@everywhere("stat")
def test_a_word_is_not_given_a_third_of_the_screen(panel: Json) -> None:
    """On the worker's board a stat is a row of workers."""
    assert panel["gridPos"]["w"] <= (8 if "transformations" in panel else 7)


@pytest.mark.parametrize("panel", drawn(WORKER, "stat"), ids=lambda panel: str(panel["title"]))
def test_four_workers_beside_each_other_can_be_read(panel: Json) -> None:
    """Letters of Grafana's own size shrink to nothing in tiles that are narrow."""
    assert panel["options"]["text"]["valueSize"] >= 24
    assert pixels(panel["gridPos"]["w"], WIDE) / 4 >= 120


# -- marks, and the page -----------------------------------------------------------------------------------


@pytest.mark.parametrize("board", DASHBOARDS, ids=lambda file: file.stem)
def test_marks_follow_the_step_of_the_range(board: Path) -> None:
    """Grafana asks in steps of a hundredth of the range: a fixed window is a region at 5m, and misses at 6h."""
    dashboard = json.loads(board.read_text(encoding="utf-8"))
    _, *ours = dashboard["annotations"]["list"]
    ids = {panel["id"]: panel for panel in drawn(board)}
    for note in ours:
        assert "offset $__interval" in note["expr"]
        assert not re.search(r"\[\d+\w\]", note["expr"]), "a fixed window"
        assert note["step"] == "5s", "the scrape interval"
        # A label that is in the text and a tag is said twice by the tooltip.
        assert note["tagKeys"] == ""
        # On every panel, marks are a fence before it.
        assert note["filter"]["exclude"] is False
        assert 2 <= len(note["filter"]["ids"]) <= 3
        assert {ids[number]["type"] for number in note["filter"]["ids"]} == {"state-timeline", "timeseries"}
        # Of a label that a series lacks, the tooltip says the name.
        used = set(re.findall(r"\{\{(\w+)\}\}", note["titleFormat"] + note["textFormat"]))
        assert used <= {"alertname", "about", "who", "reason"}


def test_how_to_read_the_page_is_the_first_heading() -> None:
    rows = [panel for panel in panels(OVERVIEW) if panel["type"] == "row"]
    assert rows[0]["title"] == "How to read this page"
    assert [panel["type"] for panel in rows[0]["panels"]] == ["text"]
    first_screen = 1000 // 38
    assert rows[0]["gridPos"]["y"] < first_screen / 2
