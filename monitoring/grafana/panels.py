"""Constructors of panels, one for each kind that the boards use.

Called by `overview` and `worker`. Written for schemaVersion 37 (Grafana 9.4): newer versions migrate it up,
but nothing is ever migrated down, so no option younger than 9.4 appears.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from looks import INSIDE, NO_DATA, WHOLE, Json, override, palette, plain
from promql import expand

DATASOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}
VERSION = "9.4.0"  # of the panels' options; without it Grafana runs every migration since version 6

VISIBLE: Json = {"legend": False, "tooltip": False, "viz": False}
LINEAR: Json = {"type": "linear"}


class Place(NamedTuple):
    """Where a panel lies; the grid is 24 wide."""

    x: int
    y: int
    width: int
    height: int


class Head(NamedTuple):
    """What every panel has; the number is its place in the story and its id, so links to it stay valid."""

    number: int
    title: str
    description: str
    place: tuple[int, int, int, int]


class Query(NamedTuple):
    """One PromQL expression (macros allowed) and how the panel asks for it."""

    expr: str
    legend: str = "__auto"
    instant: bool = False
    format: str = "time_series"


def now(expr: str, legend: str = "__auto") -> Query:
    """Ask for this moment alone. A range would show the last value of what has been gone since."""
    return Query(expr, legend, instant=True)


def panel(kind: str, head: Head, queries: list[Query], options: Json, defaults: Json) -> Json:
    place = Place(*head.place)
    return {
        "id": head.number,
        "type": kind,
        "title": head.title,
        "description": head.description,
        "gridPos": {"x": place.x, "y": place.y, "w": place.width, "h": place.height},
        "datasource": DATASOURCE,
        "targets": [target(chr(ord("A") + index), query) for index, query in enumerate(queries)],
        "options": options,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "pluginVersion": VERSION,
    }


def target(ref: str, query: Query) -> Json:
    return {
        "refId": ref,
        "datasource": DATASOURCE,
        "editorMode": "code",
        "expr": expand(query.expr),
        "legendFormat": query.legend,
        "format": query.format,
        "instant": query.instant,
        "range": not query.instant,
    }


def overridden(drawn: Json, *overrides: Json) -> Json:
    """Return the panel with these overrides of single fields, after those that it has."""
    config = drawn["fieldConfig"]
    return {**drawn, "fieldConfig": {**config, "overrides": [*config["overrides"], *overrides]}}


def last_value() -> Json:
    return {"calcs": ["lastNotNull"], "fields": "", "values": False}


def text_of(title: int, value: int) -> Json:
    """Letters of a size; Grafana's own grow with the room there is, and shrink to nothing."""
    return {"text": {"titleSize": title, "valueSize": value}}


def legend(calcs: list[str] | None = None) -> Json:
    return {
        "displayMode": "table" if calcs else "list",
        "placement": "bottom",
        "showLegend": True,
        "calcs": calcs or [],
    }


def stat(
    head: Head,
    *queries: Query,
    unit: str,
    look: Json,
    colour: str = "value",
    names: bool = False,
    letters: Json | None = None,
    **defaults: Any,
) -> Json:
    """One big number a series; extra keywords go into the field defaults (noValue, decimals, links).

    No sparkline: it would run through the number, and needs a range.
    """
    options = {
        "colorMode": colour,
        "graphMode": "none",
        "justifyMode": "auto",
        "orientation": "auto",
        "reduceOptions": last_value(),
        "textMode": "value_and_name" if names else "auto",
        **(letters or {}),
    }
    return panel("stat", head, list(queries), options, {"unit": unit, "noValue": NO_DATA, **look, **defaults})


def gauge(head: Head, query: Query, *, unit: str, look: Json, maximum: float, **defaults: Any) -> Json:
    """A dial; only for what has a true maximum."""
    options = {
        "orientation": "auto",
        "reduceOptions": last_value(),
        "showThresholdLabels": False,
        "showThresholdMarkers": True,
    }
    bounds = {"min": 0, "max": maximum, "noValue": NO_DATA}
    return panel("gauge", head, [query], options, {"unit": unit, **bounds, **look, **defaults})


def bars(head: Head, expr: str, *, unit: str, look: Json, maximum: float, mode: str) -> Json:
    """One horizontal bar a worker; the expression is `promql.named`."""
    options = {
        "displayMode": mode,
        "minVizHeight": 10,
        "minVizWidth": 0,
        "orientation": "horizontal",
        "reduceOptions": last_value(),
        "showUnfilled": True,
        **text_of(14, 18),
    }
    defaults = {"unit": unit, "min": 0, "max": maximum, "noValue": NO_DATA, **look}
    return row_by_row(panel("bargauge", head, [now(expr)], options, defaults))


def row_by_row(drawn: Json) -> Json:
    """Have a panel show one value a row, in the order of `order` and called by `who`; its query is `promql.named`.

    A table, because an instant query has its series in no order. Of a row, what is a text is its name, but only as
    long as the number has none: `organize` must not give it one.
    """
    (asked,) = drawn["targets"]
    rows = {"calcs": ["lastNotNull"], "fields": "", "values": True, "limit": 100}
    dropped = ("Time", "order", "where", "job", "instance", "worker")
    return {
        **drawn,
        "targets": [{**asked, "format": "table", "legendFormat": ""}],
        "options": {**drawn["options"], "reduceOptions": rows},
        "transformations": [in_order(), organize(dropped=dropped, columns={})],
    }


def in_order() -> Json:
    """Sort rows as `promql.named` says: as the lanes are sorted, by the same label."""
    return {"id": "sortBy", "options": {"fields": {}, "sort": [{"field": "order", "desc": False}]}}


def organize(*, dropped: Iterable[str], columns: dict[str, str]) -> Json:
    options = {
        "excludeByName": dict.fromkeys(dropped, True),
        "indexByName": {field: index for index, field in enumerate(columns)},
        "renameByName": columns,
    }
    return {"id": "organize", "options": options}


def lanes(head: Head, query: Query, look: Json) -> Json:
    """One lane a series, coloured by the state that its value stands for."""
    options = {
        "mergeValues": True,
        "showValue": "never",
        "alignValue": "left",
        "rowHeight": 0.85,
        "legend": legend(),
        "tooltip": {"mode": "single", "sort": "none"},
    }
    custom = {"fillOpacity": 80, "lineWidth": 0, "spanNulls": False}
    return panel("state-timeline", head, [query], options, {"unit": "none", "custom": custom, **look})


def graph(
    head: Head,
    *queries: Query,
    unit: str,
    look: Json | None = None,
    calcs: list[str] | None = None,
    limits_as: str = "off",
    lowest: float | None = 0,
    highest: float | None = None,
    decimals: int | None = None,
    logarithmic: bool = False,
    no_value: str | None = None,
    **custom: Any,
) -> Json:
    """Lines over time, gaps left open; `calcs` make the legend a table, `limits_as` draws the thresholds.

    `no_value` is said in the place of "No data", where that may be in order. On a `logarithmic` axis what is twice as
    much is as much higher, wherever: one long time does not press all short ones to the ground. It has no 0.
    """
    drawing = {
        "drawStyle": "line",
        "lineInterpolation": "linear",
        "lineWidth": 2,
        "fillOpacity": 12,
        "gradientMode": "opacity",
        "showPoints": "never",
        "spanNulls": False,
        "axisPlacement": "auto",
        "axisLabel": "",
        "scaleDistribution": {"type": "log", "log": 10} if logarithmic else LINEAR,
        "stacking": {"mode": "none", "group": "A"},
        "thresholdsStyle": {"mode": limits_as},
        "hideFrom": VISIBLE,
        **custom,
    }
    bounds = {"min": None if logarithmic else lowest, "max": highest, "decimals": decimals, "noValue": no_value}
    defaults: Json = {"unit": unit, "custom": drawing, **(look or palette())}
    defaults.update({name: bound for name, bound in bounds.items() if bound is not None})
    options = {"legend": legend(calcs), "tooltip": {"mode": "multi", "sort": "desc"}}
    return panel("timeseries", head, list(queries), options, defaults)


def counts(head: Head, *queries: Query) -> Json:
    """Stacked bars of events (`promql.counted`): the one kind of panel in which the sum of the series is meant."""
    stacking = {"mode": "normal", "group": "A"}
    drawn = graph(
        head,
        *queries,
        unit=WHOLE["unit"],
        decimals=WHOLE["decimals"],
        axisSoftMax=WHOLE["custom.axisSoftMax"],
        drawStyle="bars",
        lineWidth=0,
        fillOpacity=80,
        gradientMode="none",
        stacking=stacking,
    )
    return apart(drawn)


def apart(drawn: Json) -> Json:
    """Keep the points 20s apart, so that bars are wide enough to be seen."""
    return {**drawn, "interval": "20s"}


def heatmap(head: Head, expr: str, *, unit: str) -> Json:
    """One column a moment, one cell a bucket of the histogram."""
    options = {
        "calculate": False,
        "cellGap": 1,
        "cellValues": {"unit": "short"},
        # One hue that covers the more the more there is: it means the same in both themes, as no scheme does.
        "color": {"mode": "opacity", "fill": INSIDE, "scale": "exponential", "exponent": 0.5, "steps": 64},
        "exemplars": {"color": "rgba(255,0,255,0.7)"},
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
        "rowsFrame": {"layout": "auto"},
        "showValue": "never",
        "tooltip": {"show": True, "yHistogram": True},
        "yAxis": {"axisPlacement": "left", "unit": unit},
    }
    custom = {"hideFrom": VISIBLE, "scaleDistribution": LINEAR}
    query = Query(expr, "{{le}}", format="heatmap")
    return apart(panel("heatmap", head, [query], options, {"unit": unit, "custom": custom}))


def table(
    head: Head,
    *exprs: str,
    columns: dict[str, str],
    dropped: list[str],
    no_rows: str,
    sort: Json | None = None,
    falling_by: str | None = None,
) -> Json:
    """One line a label set; `columns` maps the fields of the answers to headings, in the order shown.

    `no_rows` is said when there is none. Grafana says it in each empty cell as well, where the column has no word of
    its own: so each gets a dash. `sort` is a transformation, `falling_by` the heading to sort by, the highest first.
    """
    options = {
        "showHeader": True,
        "footer": {"show": False, "reducer": ["sum"], "fields": ""},
        "sortBy": [{"displayName": falling_by, "desc": True}] if falling_by else [],
    }
    # `custom` has to be there: Grafana 9.5 and later migrate the overrides' displayMode only beside it.
    custom = {"align": "auto", "displayMode": "auto", "inspect": False}
    queries = [Query(expr, "", instant=True, format="table") for expr in exprs]
    defaults = {"unit": "none", "custom": custom, **plain(), "noValue": no_rows}
    drawn = panel("table", head, queries, options, defaults)
    merged: Json = {"id": "merge", "options": {}}
    steps = [merged, *([sort] if sort else []), organize(dropped=dropped, columns=columns)]
    dashes = [override(heading, {"noValue": "–"}) for heading in columns.values()]
    return {**overridden(drawn, *dashes), "transformations": steps}


def text(head: Head, markdown: str) -> Json:
    drawn = panel("text", head, [], {"mode": "markdown", "content": markdown}, {})
    return {**drawn, "transparent": True}


def row(number: int, title: str, y: int, hidden: list[Json] | None = None) -> Json:
    """A heading; with `hidden` panels it is shut and holds them itself."""
    return {
        "id": number,
        "type": "row",
        "title": title,
        "gridPos": {"x": 0, "y": y, "w": 24, "h": 1},
        "collapsed": hidden is not None,
        "panels": hidden or [],
    }
