"""A pipeline of one's own that needs a package from PyPI: titles come in, their slugs are printed."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

from slugify import slugify

from conveyor import Pipeline, Producer

TITLES = ("Ein schöner Tag", "¿Dónde está la biblioteca?", "Crème brûlée", "北京烤鸭")


def titles(per_second: float) -> Iterator[str]:
    for number, title in enumerate(itertools.cycle(TITLES), 1):
        yield f"{title} {number}"
        time.sleep(1 / per_second)


def print_slug(title: str) -> None:
    print(slugify(title), flush=True)


def slugs(per_second: float = 20.0) -> Pipeline:
    """Make slugs until it is stopped.

    per_second: how many titles come
    """
    return Pipeline(producers=[Producer(titles, per_second)], consumer=print_slug, consumers=2, name="slugs")
