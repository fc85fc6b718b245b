"""The frame of both dashboards: variables, annotations, links, time range.

Called by `overview` and `worker`, which put their panels into it.
"""

from __future__ import annotations

from looks import Json
from panels import DATASOURCE
from promql import EVERYTHING, FIRING, begun, called, events, expand

ALL: Json = {"selected": True, "text": ["All"], "value": ["$__all"]}


def dashboard(
    uid: str,
    title: str,
    description: str,
    panels: list[Json],
    *,
    last_variable: Json,
    deaths: str,
    marked: list[int],
) -> Json:
    """Return the whole dashboard; `last_variable` follows those that both boards have.

    `marked` are the panels with the marks of alerts and restarts: on every panel, they would be a fence before it.
    `deaths` is the counter of those restarts that are the matter of this board.
    """
    return {
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["conveyor"],
        "schemaVersion": 37,
        "version": 1,
        "style": "dark",
        "editable": False,
        "graphTooltip": 1,  # one crosshair on all panels
        "refresh": "5s",
        "time": {"from": "now-15m", "to": "now"},
        "timepicker": {},
        "timezone": "browser",
        "weekStart": "",
        "fiscalYearStartMonth": 0,
        "liveNow": False,
        "links": [link_to_the_other_board()],
        "annotations": {"list": [grafanas_own_annotations(), firing_alerts(marked), restarts(deaths, marked)]},
        "templating": {"list": [*variables(), last_variable]},
        "panels": panels,
    }


def variables() -> list[Json]:
    return [
        datasource_variable(),
        query_variable("job", "Job", "label_values(conveyor_build_info, job)"),
        query_variable("instance", "Instance", 'label_values(conveyor_build_info{job=~"$job"}, instance)'),
    ]


def queue_variable() -> Json:
    return query_variable("queue", "Queue", f"label_values(conveyor_queue_size{{{EVERYTHING}}}, queue)")


def worker_variable() -> Json:
    """Offer the workers, with the first one chosen.

    Grafana chooses the first entry of a list by itself, and "All" would be that entry: so there is none.
    """
    query = f"label_values(conveyor_worker_up{{{EVERYTHING}}}, worker)"
    chosen = query_variable("worker", "Worker", query, sort=3)
    return {**chosen, "includeAll": False, "allValue": None, "current": {}}


def datasource_variable() -> Json:
    return {
        "type": "datasource",
        "name": "datasource",
        "label": "Data source",
        "query": "prometheus",
        "current": {"selected": False, "text": "Prometheus", "value": "prometheus"},
        "options": [],
        "multi": False,
        "includeAll": False,
        "refresh": 1,
        "regex": "",
        "hide": 0,
        "skipUrlSync": False,
    }


def query_variable(name: str, label: str, query: str, sort: int = 1) -> Json:
    return {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": DATASOURCE,
        "definition": query,
        "query": {"query": query, "refId": "StandardVariableQuery"},
        "current": ALL,
        "options": [],
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
        "refresh": 2,  # when the time range changes
        "regex": "",
        "sort": sort,
        "hide": 0,
        "skipUrlSync": False,
    }


def link_to_the_other_board() -> Json:
    return {
        "type": "dashboards",
        "title": "Conveyor",
        "tags": ["conveyor"],
        "asDropdown": False,
        "keepTime": True,
        "includeVars": True,
        "targetBlank": False,
        "icon": "external link",
        "tooltip": "",
        "url": "",
    }


def grafanas_own_annotations() -> Json:
    """Switch them off by name: left out, Grafana adds them.

    On a home dashboard that comes from a file they raise "Invalid dashboard UID".
    """
    return {
        "builtIn": 1,
        "name": "Annotations & Alerts",
        "type": "dashboard",
        "datasource": {"type": "grafana", "uid": "-- Grafana --"},
        "enable": False,
        "hide": True,
        "iconColor": "rgba(0, 211, 255, 1)",
    }


def firing_alerts(marked: list[int]) -> Json:
    """Mark where a critical alert begins; as long as it fires, it would be a wash over the graph."""
    fires = "ALERTS{" + FIRING + ',severity="critical"}'
    # A label that a series lacks would be written as its name.
    expr = f'label_join({begun(fires)}, "about", " ", "worker", "queue", "instance")'
    return annotation("Firing alerts", expr, "{{alertname}}", "{{about}}", "red", marked)


def restarts(deaths: str, marked: list[int]) -> Json:
    # Without those that had done their share: with --max-tasks-per-worker they would cover every graph.
    expr = called(events(deaths, "job, instance, worker, reason"))
    return annotation("Restarts", expr, "{{who}} restarted", "{{reason}}", "orange", marked)


def annotation(name: str, expr: str, title: str, text: str, colour: str, marked: list[int]) -> Json:
    """Mark points in time: one for each point of the query, those that are a step apart as one region.

    The step follows the range, about a hundredth of it: so the query must look back by $__interval, no fixed time. No
    `tagKeys`: the tooltip would say them a second time. `filter` is for Grafana 9.5 and later; 9.4 marks all panels.
    """
    return {
        "name": name,
        "datasource": DATASOURCE,
        "enable": True,
        "expr": expand(expr),
        "step": "5s",  # at least, as the scrape interval; the default of 60s would hide what is near in time
        "titleFormat": title,
        "textFormat": text,
        "tagKeys": "",
        "iconColor": colour,
        "useValueForTime": False,
        "filter": {"exclude": False, "ids": marked},
    }
