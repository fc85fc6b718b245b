"""The committed dashboards as their readers see them: every panel, and what it asks Prometheus."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
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


def queries(dashboard: Path, **chosen: str) -> Iterator[tuple[str, str]]:
    """Yield (panel's title, PromQL) of every query, with these values of variables and else the usual ones."""
    for panel in _panels(json.loads(dashboard.read_text(encoding="utf-8"))["panels"]):
        for target in panel.get("targets", []):
            yield panel["title"], interpolated(target["expr"], **chosen)


def interpolated(expr: str, **chosen: str) -> str:
    """Return an expression as Grafana sends it: what is no variable, as `$1` of label_replace(), stays."""
    values = VARIABLES | {f"${name}": value for name, value in chosen.items()}
    return re.sub(r"\$[a-z_]\w*", lambda found: values[found[0]], expr)


def _panels(listed: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield every panel, those in collapsed rows too."""
    for panel in listed:
        yield from _panels(panel.get("panels", []))
        yield panel
