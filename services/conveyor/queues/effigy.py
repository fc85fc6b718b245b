"""What a task looks like, for a log line, without bringing it to life: no import, and no code of the user's, is run.

The supervisor must never unpickle a task: the one that killed a worker might kill the supervisor as well.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

from conveyor.queues.codec import LARGE_BYTES, Codec, bodies_of, show


class _Figure:
    """Stands for an object of any class."""

    shown: list[str]

    def __new__(cls, *args: object, **kwargs: object) -> _Figure:
        figure = super().__new__(cls)
        figure.__dict__["shown"] = [*map(show, args), *(f"{name}={show(value)}" for name, value in kwargs.items())]
        return figure

    def __init__(self, *args: object, **kwargs: object) -> None: ...

    def __setstate__(self, state: object) -> None:
        fields = state[0] or state[1] if isinstance(state, tuple) and len(state) == 2 else state
        if isinstance(fields, dict):
            self.shown += [f"{name}={show(value)}" for name, value in fields.items()]
        else:
            self.shown.append(show(fields))

    def append(self, value: object) -> None:
        self.shown.append(show(value))

    def extend(self, values: Any) -> None:
        self.shown += map(show, values)

    def __setitem__(self, name: object, value: object) -> None:
        self.shown.append(f"{show(name)}: {show(value)}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self.shown)})"


class _Sculptor(pickle.Unpickler):
    """Makes figures of all that is more than numbers, texts and containers of them."""

    def find_class(self, module: str, name: str) -> Any:
        return type(name, (_Figure,), {})


def likeness(codec: Codec, payload: memoryview, count: int, place: int) -> str:
    """Return what the task at this place of a chunk looks like, cut."""
    if codec is Codec.PLAIN:
        body, buffers = payload, list[memoryview]()
    else:
        body, *buffers = bodies_of(codec, payload, count, 0, count)[place]
    if len(body) > 4 * LARGE_BYTES:
        return f"(a task of {len(body):,} bytes)"
    try:
        task = _Sculptor(io.BytesIO(body), buffers=map(bytes, buffers)).load()
        return show(task[place] if codec is Codec.PLAIN else task)
    except Exception as error:  # a pickle can say anything
        return f"(a task that cannot be shown: {type(error).__name__})"
