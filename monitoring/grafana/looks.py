"""How a value is coloured: the palette, thresholds from the table of limits, words for numbers, overrides.

Called by the constructors in `panels` and by the two boards. The results are parts of a fieldConfig.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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

# One hue in three strengths, where series are more or less of the same thing.
WAITING_HUES = ("light-orange", "semi-dark-orange", "dark-orange")
INSIDE_HUES = ("light-purple", "semi-dark-purple", "dark-purple")

# Rates of tasks; Grafana's own "ops" says something else. It scales: 1.2K tasks/s.
TASKS_PER_SECOND = "count:tasks/s"
# On an axis: Grafana's "s" makes 1.67 min of 100 s.
PLAIN_SECONDS = "suffix:s"

# An axis of events: whole numbers, and not from 0 to 100 when there are none.
WHOLE: Json = {"unit": "short", "decimals": 0, "custom.axisSoftMax": 5}

# What a panel says when it is not told: never that all is well.
NO_DATA = "no data"

# The number of a state is its place here. With two states at 1 in one lane, the higher number would win.
STATES = (
    ("down", "red"),
    ("starting", "yellow"),
    ("idle", ENTERING),
    ("busy", LEAVING),
    ("blocked", WAITING),
    ("stopping", INSIDE),
    ("replaced", "super-light-red"),
    ("finished", BOUND),
)

# The numbers of the words that stand where nothing can be measured, below every value.
STALLED, PAUSED, NONE_DONE_YET, IDLE = -1, -2, -3, -4
WHY_NOT = {
    STALLED: ("stalled", FAILED),
    PAUSED: ("paused, stalled", FAILED),
    NONE_DONE_YET: ("none done yet", PLAIN),
    IDLE: ("idle", BOUND),
}


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


def known(*steps: tuple[float, str]) -> Json:
    """Colour the value from the first step on, and grey what is said in its place.

    Grafana gives `noValue` the colour of the base: were that green, "no data" would look as well as can be.
    """
    return stepped(BOUND, list(steps))


def limited(topic: str, base: str = "green") -> Json:
    """Colour the value by the limits of a topic of the table, up to the first one in the base colour."""
    return known((0, base), *coloured(topic))


def marked(topic: str, line: Json) -> Json:
    """Mark the limits of a topic behind a line that keeps its own look; the panel says how (`limits_as`)."""
    return {**stepped(CLEAR, coloured(topic)), **line}


def coloured(topic: str) -> list[tuple[float, str]]:
    return [(limit.value, limit.colour) for limit in LIMITS[topic] if limit.colour is not None]


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


def lanes_of(meanings: Mapping[int, tuple[str, str]]) -> Json:
    """Show words for numbers in lanes.

    Lanes that merge equal values do so by threshold if the colours are by threshold: then there is one, all is of one
    colour, and no mapping is looked at. So the colour is fixed, and there are no thresholds; a mapping wins over it.
    """
    return {**fixed(BOUND), "mappings": words(meanings)}


def states() -> Json:
    return lanes_of(dict(enumerate(STATES)))


def with_words(look: Json) -> Json:
    """Let the value be one of those numbers that stand for why there is none."""
    return {**look, "mappings": words(WHY_NOT)}


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


def of_one_hue(names: Iterable[str], hues: Sequence[str]) -> list[Json]:
    """Draw fields that are more or less of the same thing in one hue, the more the stronger."""
    return [recolour(name, hue) for name, hue in zip(names, hues, strict=True)]


def barred(field: str, colour: str) -> Json:
    """Draw a field as bars of its own scale among lines: events beside a level."""
    return override(
        field,
        {
            **fixed(colour),
            **WHOLE,
            "custom.drawStyle": "bars",
            "custom.lineWidth": 0,
            "custom.fillOpacity": 80,
            "custom.gradientMode": "none",
            "custom.axisPlacement": "right",
        },
    )
