"""The committed dashboards as their readers see them: every panel, and what it asks Prometheus."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
DASHBOARDS = sorted((ROOT / "monitoring" / "grafana" / "dashboards").glob("*.json"))
# As they stand after "All" was chosen. The intervals are one scrape and four, as Grafana makes them at a short range.
VARIABLES = {
    "$job": ".+",
    "$instance": ".+",
    "$queue": ".+",
    "$worker": ".+",
    "$__interval": "5s",
    "$__rate_interval": "20s",
}


OVERVIEW, WORKER = (next(file for file in DASHBOARDS if file.stem == name) for name in ("overview", "worker"))


@dataclass(frozen=True, slots=True)
class Question:
    """One query of a panel."""

    panel: str
    kind: str
    expression: str
    is_instant: bool


def questions(dashboard: Path, **chosen: str) -> Iterator[Question]:
    """Yield every query of every panel, with these values of variables and else the usual ones."""
    for panel in panels(dashboard):
        for target in panel.get("targets", []):
            expression = interpolated(target["expr"], **chosen)
            yield Question(panel["title"], panel["type"], expression, target["instant"])


def question(dashboard: Path, panel: str, **chosen: str) -> str:
    """Return the first query of a panel."""
    return next(asked.expression for asked in questions(dashboard, **chosen) if asked.panel == panel)


def annotation(dashboard: Path, name: str, **chosen: str) -> str:
    """Return the query of an annotation."""
    listed = json.loads(dashboard.read_text(encoding="utf-8"))["annotations"]["list"]
    return interpolated(next(note["expr"] for note in listed if note["name"] == name), **chosen)


def queries(dashboard: Path, **chosen: str) -> Iterator[tuple[str, str]]:
    """Yield (panel's title, PromQL) of every query."""
    for asked in questions(dashboard, **chosen):
        yield asked.panel, asked.expression


def interpolated(expr: str, **chosen: str) -> str:
    """Return an expression as Grafana sends it: what is no variable, as `$1` of label_replace(), stays."""
    values = VARIABLES | {f"${name}": value for name, value in chosen.items()}
    return re.sub(r"\$[a-z_]\w*", lambda found: values[found[0]], expr)


def panels(dashboard: Path) -> Iterator[dict[str, Any]]:
    """Yield every panel, those in collapsed rows too."""
    return _panels(json.loads(dashboard.read_text(encoding="utf-8"))["panels"])


def _panels(listed: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for panel in listed:
        yield from _panels(panel.get("panels", []))
        yield panel


# -- what Grafana makes of a range and of an answer --------------------------------------------------------

# The steps that it rounds to, each with the time from which on the next one is taken, in seconds.
_STEPS = (
    (7.5, 5),
    (12.5, 10),
    (17.5, 15),
    (25, 20),
    (45, 30),
    (90, 60),
    (210, 120),
    (450, 300),
    (750, 600),
    (1050, 900),
)


def step_of(range_seconds: float, points: int, least: float = 5) -> int:
    """Return the distance of two points, in a graph so many of them wide; an annotation is 100 wide."""
    exact = range_seconds / points
    rounded = next(step for limit, step in _STEPS if exact < limit)
    return int(max(rounded, least))


def marks(series: list[tuple[float, float]], step: float) -> list[tuple[float, float]]:
    """Return the annotations, from and to, that Grafana draws for one series of an annotation's query."""
    drawn: list[tuple[float, float]] = []
    for time in [time for time, value in series if value > 0]:
        if drawn and drawn[-1][1] + step >= time:
            drawn[-1] = drawn[-1][0], time
        else:
            drawn.append((time, time))
    return drawn
