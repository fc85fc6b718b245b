"""What a task looks like, for a log line, without bringing it to life: no import, and no code of the user's, is run.

The supervisor must never unpickle a task: the one that killed a worker might kill the supervisor as well.
"""

from __future__ import annotations

import io
import itertools
import pickle
from collections.abc import Iterable, Mapping
from typing import Any

from conveyor.queues.codec import LARGE_BYTES, Codec, bodies_of, show

# What is shown is cut anyway; what is not is not worth the time of whoever waits for the supervisor. Arbitrary.
MOST_PARTS = 20
MOST_BYTES = 4 * LARGE_BYTES  # of a task
MOST_PLAIN_BYTES = 64 * LARGE_BYTES  # of a chunk, read in a few milliseconds
MOST_BUFFER_BYTES = 1000


class _Class(type):
    """Stands for a class, or a function."""

    title: str
    """Its name. Not `__name__`: `reprlib` would take one called `deque` for a deque."""

    def __repr__(cls) -> str:
        return cls.title


class _Figure(metaclass=_Class):
    """Stands for an object of any class."""

    shown: list[str]

    def __new__(cls, *args: object, **kwargs: object) -> _Figure:
        figure = super().__new__(cls)
        figure.__dict__["shown"] = []
        figure.extend(args)
        figure.add_fields(kwargs)
        return figure

    def __init__(self, *args: object, **kwargs: object) -> None: ...

    def __setstate__(self, state: object) -> None:
        match state:
            case dict():
                self.add_fields(state)
            case (dict() | None as fields, dict() as slots):
                self.add_fields((fields or {}) | slots)
            case _:
                self.append(state)

    def add_fields(self, fields: Mapping[Any, object]) -> None:
        self.add(f"{name}={show(value)}" for name, value in fields.items())

    def append(self, value: object) -> None:
        self.extend([value])

    def extend(self, values: Iterable[object]) -> None:
        self.add(map(show, values))

    def __setitem__(self, name: object, value: object) -> None:
        self.add(f"{show(name)}: {show(value)}" for _ in range(1))

    def add(self, parts: Iterable[str]) -> None:
        """Show as many of these as there is room for, and one more to tell that there are more."""
        self.shown += itertools.islice(parts, MOST_PARTS + 1 - len(self.shown))

    def __repr__(self) -> str:
        more = ["..."] if len(self.shown) > MOST_PARTS else []
        return f"{type(self).title}({', '.join(self.shown[:MOST_PARTS] + more)})"


class _Sculptor(pickle.Unpickler):
    """Makes figures of all that is more than numbers, texts and containers of them."""

    def find_class(self, module: str, name: str) -> Any:
        return _Class("_Figure", (_Figure,), {"title": name})


def likeness(codec: Codec, payload: memoryview, count: int, place: int) -> str:
    """Return what the task at this place of a chunk looks like, cut."""
    try:
        if codec is Codec.PLAIN:
            if len(payload) > MOST_PLAIN_BYTES:
                return f"(one of {count:,} tasks of {len(payload):,} bytes)"
            return show(_Sculptor(io.BytesIO(payload)).load()[place])
        [[body, *buffers]] = bodies_of(codec, payload, count, place, place + 1)
        if len(body) > MOST_BYTES:
            return f"(a task of {len(body):,} bytes)"
        cut = [bytes(buffer[:MOST_BUFFER_BYTES]) for buffer in buffers]
        return show(_Sculptor(io.BytesIO(body), buffers=cut).load())
    except Exception as error:  # a pickle can say anything
        return f"(a task that cannot be shown: {type(error).__name__})"
