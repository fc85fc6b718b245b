"""The frame of both dashboards: variables, annotations, links, time range.

Called by `overview` and `worker`, which put their panels into it.
"""

from __future__ import annotations

from looks import Json
from panels import DATASOURCE
from promql import EVERYTHING, expand

ALL: Json = {"selected": True, "text": ["All"], "value": ["$__all"]}


def dashboard(uid: str, title: str, description: str, panels: list[Json], *more_variables: Json) -> Json:
    """Return the whole dashboard; `more_variables` follow those that both boards have."""
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
        "annotations": {"list": [grafanas_own_annotations(), firing_alerts(), restarts()]},
        "templating": {"list": [*variables(), *more_variables]},
        "panels": panels,
    }


def variables() -> list[Json]:
    queue = f"label_values(conveyor_queue_size{{{EVERYTHING}}}, queue)"
    return [
        datasource_variable(),
        query_variable("job", "Job", "label_values(conveyor_build_info, job)"),
        query_variable("instance", "Instance", 'label_values(conveyor_build_info{job=~"$job"}, instance)'),
        query_variable("queue", "Queue", queue),
    ]


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


def firing_alerts() -> Json:
    expr = 'ALERTS{alertname=~"Conveyor.+",alertstate="firing",severity="critical"}'
    return annotation("Firing alerts", expr, "{{alertname}}", "{{worker}} {{queue}}", "severity", "red")


def restarts() -> Json:
    # Without those that had done their share: with --max-tasks-per-worker they would cover every graph.
    selected = 'conveyor_worker_restarts_total{@all,reason!="recycle"}'
    expr = expand(f"sum by (worker, reason) (increase({selected}[30s])) > 0")
    return annotation("Restarts", expr, "{{worker}} restarted", "{{reason}}", "reason", "orange")


def annotation(name: str, expr: str, title: str, text: str, tags: str, colour: str) -> Json:
    return {
        "name": name,
        "datasource": DATASOURCE,
        "enable": True,
        "expr": expr,
        "step": "5s",  # the default of 60s would miss most restarts
        "titleFormat": title,
        "textFormat": text,
        "tagKeys": tags,
        "iconColor": colour,
        "useValueForTime": False,
    }
