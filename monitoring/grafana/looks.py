"""How a value is coloured: the palette, thresholds from the table of limits, words for numbers, overrides.

Called by the constructors in `panels` and by the two boards. The results are parts of a fieldConfig.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from limits import LIMITS

Json = dict[str, Any]

# One meaning a colour, on every panel. Grafana's named colours suit both themes.
ENTERING = "semi-dark-blue"
WAITING = "semi-dark-orange"
INSIDE = "semi-dark-purple"
LEAVING = "semi-dark-green"
FAILED = "red"
BOUND = "#808080"  # Grafana has no name for grey
PLAIN = "text"
CLEAR = "transparent"

# The number of a state is its place here. With two states at 1 in one lane, the higher number would win.
STATES = (
    ("down", "red"),
    ("starting", "yellow"),
    ("idle", ENTERING),
    ("busy", LEAVING),
    ("blocked", WAITING),
    ("stopping", INSIDE),
)


def fixed(colour: str) -> Json:
    return {"color": {"mode": "fixed", "fixedColor": colour}}


def palette() -> Json:
    return {"color": {"mode": "palette-classic"}}


def plain() -> Json:
    return fixed(PLAIN)


def stepped(base: str, steps: list[tuple[float, str]]) -> Json:
    """Colour the value: the base colour up to the first step, then that of the last step reached."""
    first: Json = {"color": base, "value": None}
    rest: list[Json] = [{"color": colour, "value": value} for value, colour in steps]
    return {"color": {"mode": "thresholds"}, "thresholds": {"mode": "absolute", "steps": [first, *rest]}}


def limited(topic: str, base: str = "green") -> Json:
    """Colour the value by the limits of a topic of the table."""
    return stepped(base, [(limit.value, limit.colour) for limit in LIMITS[topic] if limit.colour is not None])


def marked(topic: str, line: Json) -> Json:
    """Mark the limits of a topic behind a line that keeps its own look; the panel says how (`limits_as`)."""
    return {**limited(topic, CLEAR), **line}


def words(meanings: Mapping[int, tuple[str, str]] | Mapping[str, tuple[str, str]]) -> list[Json]:
    """Return value mappings: each value is shown as a text in a colour."""
    options: Json = {
        str(value): {"text": text, "color": colour, "index": index}
        for index, (value, (text, colour)) in enumerate(meanings.items())
    }
    return [{"type": "value", "options": options}]


def mapped(meanings: Mapping[int, tuple[str, str]], base: str) -> Json:
    """Show words for numbers, each in its colour; a number without a word takes the base colour."""
    return {**stepped(base, []), "mappings": words(meanings)}


def states() -> Json:
    return mapped(dict(enumerate(STATES)), base="red")


def override(field: str, properties: Json, matcher: str = "byName") -> Json:
    """Give one field (or, with `byRegexp`, several) properties of its own."""
    pairs = [{"id": name, "value": value} for name, value in properties.items()]
    return {"matcher": {"id": matcher, "options": field}, "properties": pairs}


def recolour(field: str, colour: str, matcher: str = "byName") -> Json:
    return override(field, fixed(colour), matcher)


def dashed(field: str) -> Json:
    """Draw a field as a bound or a comparison: thin, grey, dashed, nothing filled below."""
    return override(
        field,
        {
            **fixed(BOUND),
            "custom.lineStyle": {"fill": "dash", "dash": [8, 6]},
            "custom.lineWidth": 1,
            "custom.fillOpacity": 0,
        },
    )


def barred(field: str, colour: str) -> Json:
    """Draw a field as bars of its own scale among lines: events beside a level."""
    return override(
        field,
        {
            **fixed(colour),
            "custom.drawStyle": "bars",
            "custom.lineWidth": 0,
            "custom.fillOpacity": 80,
            "custom.gradientMode": "none",
            "custom.axisPlacement": "right",
        },
    )
