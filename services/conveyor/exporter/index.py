"""The page as a document: one file, with its style and its script in it, that needs nothing from anywhere else.

`index.html` has the places, `index.css` how they look, `index.js` keeps them up to date. What is a list is made of
fragments from here, and an empty one of each is in the document as the template for the script to copy.
"""

from __future__ import annotations

import base64
import collections
import functools
import hashlib
import html
from collections.abc import Iterable
from dataclasses import dataclass, fields
from importlib import resources
from string import Template
from typing import Any
from urllib.parse import quote

from conveyor import __version__
from conveyor.exporter.overview import Figure, Notice, Overview, Worker
from conveyor.obituaries import Obituary

Item = Figure | Notice | Obituary | Worker

_NOTICE = '<li data-tone="{tone}"><b data-field="label">{label}</b><span data-field="text">{text}</span></li>'
_FIGURE = (
    '<div data-tone="{tone}"><dt data-field="label">{label}</dt><dd class="value" data-field="value">{value}</dd>'
    '<dd class="detail"><span data-field="detail">{detail}</span>{bar}</dd></div>'
)
_OBITUARY = (
    '<li><p class="who"><b data-field="slot">{slot}</b><span data-field="how">{how}</span>'
    '<time data-field="at" datetime="{at}">{at}</time></p><code data-field="task">{task}</code>'
    '<p class="story" data-field="story">{story}</p></li>'
)
_BAR = '<progress data-field="{field}" aria-hidden="true" {value}></progress>'


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the table: a field of a worker under a heading."""

    field: str
    heading: str
    style: str = ""


COLUMNS = (  # the headings are those of the terminal's picture
    Column("name", "worker", "text"),
    Column("role", "role", "text role"),
    Column("state", "state", "text state"),
    Column("pid", "pid"),
    Column("tasks", "tasks"),
    Column("rate", "per s"),
    Column("task", "in task"),
    Column("busy", "busy", "busy"),
    Column("failed", "failed"),
    Column("restarts", "restarts"),
    Column("exit", "last exit"),
)

_ICON = (  # a belt with a box on it
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">'
    '<rect x="5" y="3" width="6" height="6" fill="#2f9e57"/>'
    '<rect x="1" y="10" width="14" height="3" rx="1.5" fill="#6b8cae"/></svg>'
)


def document(seen: Overview) -> str:
    """Return the page, whole, as it is shown to whoever runs no scripts, and first to everybody."""
    said = {field.name: getattr(seen, field.name) for field in fields(seen)}
    texts = {name: html.escape(value) for name, value in said.items() if isinstance(value, str)}
    return _skeleton().substitute(
        texts,
        no_deaths="" if seen.deaths else " hidden",
        notices=_list(_NOTICE, seen.notices),
        figures=_list(_FIGURE, seen.figures),
        deaths=_list(_OBITUARY, seen.deaths),
        workers=_list(_ROW, seen.workers),
    )


@functools.cache
def policy() -> str:
    """Return the page's Content-Security-Policy: it runs this script, has this style, and asks only its own server."""
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src '{_digest(_asset('index.js'))}'",
            f"style-src '{_digest(_asset('index.css'))}'",
            "connect-src 'self'",
            "img-src data:",  # the icon
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )


def _cell(column: Column) -> str:
    style = f' class="{column.style}"' if column.style else ""
    if column.field == "name":
        return f'<th role="rowheader" scope="row"{style} data-field="name">{{name}}</th>'
    if column.field == "busy":
        return f'<td role="cell"{style} data-label="busy"><span data-field="busy">{{busy}}</span>{{share}}</td>'
    field, label = column.field, column.heading
    return f'<td role="cell"{style} data-label="{label}" data-field="{field}">{{{field}}}</td>'


_ROW = f'<tr role="row" data-tone="{{tone}}">{"".join(map(_cell, COLUMNS))}</tr>'


def _list(fragment: str, items: Iterable[Item]) -> str:
    blank = fragment.format_map(collections.defaultdict(str, bar=_markup("bar", None), share=_markup("share", None)))
    return f"<template>{blank}</template>" + "".join([f"\n{_fill(fragment, item)}" for item in items])


def _fill(fragment: str, item: Item) -> str:
    return fragment.format_map({field.name: _markup(field.name, getattr(item, field.name)) for field in fields(item)})


def _markup(name: str, value: Any) -> str:
    if isinstance(value, str):
        return html.escape(value)
    return _BAR.format(field=name, value="hidden" if value is None else f'value="{value:.3f}"')


@functools.cache
def _skeleton() -> Template:
    """Return the document without what is said of the run."""
    headings = "".join(
        f'<th role="columnheader" scope="col" class="{column.style}">{column.heading}</th>' for column in COLUMNS
    )
    whole = Template(_asset("index.html")).safe_substitute(
        headings=headings,
        icon=f"data:image/svg+xml,{quote(_ICON)}",
        script=_asset("index.js").replace("$", "$$"),
        style=_asset("index.css"),
        version=__version__,
    )
    return Template(whole)


@functools.cache
def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
