"""What tells the producers of one run from those of another: their names, functions, arguments and number.

A producer that goes on passes over what was put before, which is right only if it would yield the same tasks again. So
the spool keeps the fingerprint of its producers, and another one is refused until the spool is over. Called by
`pipeline.py`, which makes one, and by `settling.py`, which compares two.

A digest depends on values alone: not on the order of sets and dicts, on addresses, or on which equal objects are one.
What the operating system lends to one process (locks, queues, connections) counts by its type.
"""

from __future__ import annotations

import copyreg
import functools
import hashlib
import itertools
import os
import pickle
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from conveyor.queues.codec import show

ITSELF = "(the object that is called)"
MAX_SHOWN = 60  # characters of a value
MAX_DEPTH = 5  # of containers in which names of files are looked for; one may hold itself
MAX_LOOKED_AT = 1000  # texts that may be names of files; arbitrary, each costs a look at the disk
_ATOMS = frozenset((int, float, complex, bool, type(None), str))
_NAMED = (types.FunctionType, types.BuiltinFunctionType, type)
_LENT = ("multiprocessing", "conveyor.dropin")
_Hash = Any  # hashlib names no type for its objects


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument of a producer's function: its keyword or its place, counted from 1."""

    name: str
    digest: str
    shown: str
    """Its repr, cut."""


@dataclass(frozen=True, slots=True)
class ProducerPrint:
    """The fingerprint of one producer."""

    name: str
    function: str
    arguments: Sequence[Argument]
    is_anew: bool
    """Whether it begins anew at each start, so that nothing is passed over."""
    folder: str
    """The working directory, on which relative paths among the arguments depend; empty if it was deleted."""
    paths: Sequence[str] = ()
    """Texts among the arguments that may be such paths. They are not stored: equal digests mean equal texts."""

    def as_plain(self) -> dict[str, Any]:
        """Return what is stored."""
        arguments = [[argument.name, argument.digest, argument.shown] for argument in self.arguments]
        return {
            "name": self.name,
            "function": self.function,
            "arguments": arguments,
            "is_anew": self.is_anew,
            "folder": self.folder,
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> ProducerPrint:
        arguments = [Argument(*argument) for argument in plain["arguments"]]
        return cls(**{**plain, "arguments": arguments})


def of_producer(
    name: str, function: Callable[..., object], args: Sequence[object], kwargs: Mapping[str, object], *, is_anew: bool
) -> ProducerPrint:
    """Return the fingerprint of a producer."""
    values = {str(place): value for place, value in enumerate(args, start=1)} | dict(kwargs)
    if not isinstance(function, _NAMED):
        values[ITSELF] = function
    arguments = [Argument(key, digest(value), _shown(value)) for key, value in sorted(values.items())]
    try:
        folder = str(Path.cwd())
    except FileNotFoundError:
        folder = ""
    paths = list(itertools.islice(_relative_paths(values.values()), MAX_LOOKED_AT))
    return ProducerPrint(name, _name_of(function), arguments, is_anew, folder, paths)


def difference(before: Sequence[ProducerPrint], now: Sequence[ProducerPrint], past: Mapping[str, bool]) -> str | None:
    """Return in words what is another than before, or None.

    `past` has the producers that have put tasks, by name, and whether they are finished. What the others are called
    with is free: they have nothing to pass over.
    """
    was, new = ({producer.name: producer for producer in producers} for producers in (before, now))
    if was.keys() != new.keys():
        return names_differ(was, new)
    for name in (name for name in new if name in past):
        said = _differs(was[name], new[name], is_finished=past[name])
        if said is not None:
            return said
    return None


def names_differ(before: Iterable[str], now: Iterable[str]) -> str:
    """Return in words how the names of the producers differ."""
    return f"the producers were {_listed(before)}, and are {_listed(now)}"


def _listed(names: Iterable[str]) -> str:
    known = list(names)
    more = f" and {len(known) - 5} more" if len(known) > 5 else ""
    return f"{', '.join(known[:5])}{more} ({len(known)})"


def _differs(was: ProducerPrint, new: ProducerPrint, *, is_finished: bool) -> str | None:
    if was.function != new.function:
        return f"the function of {new.name} was {was.function}, and is {new.function}"
    if was.is_anew != new.is_anew:
        return f"{new.name} {'began' if was.is_anew else 'did not begin'} anew at each start (its resume= says so)"
    if new.is_anew and not is_finished:
        return None  # nothing is passed over
    had, has = ({argument.name: argument for argument in producer.arguments} for producer in (was, new))
    for name in sorted(had.keys() | has.keys()):
        if name not in had or name not in has:
            return f"the argument {name} of {new.name} {'is gone' if name in had else 'is new'}"
        if had[name].digest != has[name].digest:
            values = f"was {had[name].shown}, and is {has[name].shown}"
            if had[name].shown == has[name].shown:
                values = f"is another than before, {has[name].shown}"
            return f"the argument {name} of {new.name} {values}"
    return _elsewhere(was, new)


def _elsewhere(was: ProducerPrint, new: ProducerPrint) -> str | None:
    """Return in words which relative path means another file than before, from another working directory."""
    if was.folder == new.folder:
        return None
    for path in new.paths:
        there, here = Path(was.folder, path), Path(new.folder, path)
        if (os.path.lexists(there) or os.path.lexists(here)) and not _is_same(there, here):
            return f"{path!r}, an argument of {new.name}, was in the folder {was.folder}, and is in {new.folder}"
    return None


def _is_same(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:  # one is not there, or may not be looked at
        return False


def _relative_paths(values: Iterable[object], depth: int = 0) -> Iterator[str]:
    """Yield the texts, in containers too, that may be the names of files."""
    for value in values if depth < MAX_DEPTH else ():
        match value:
            case str() | bytes() | PurePath():
                text = os.fsdecode(value)
                if 0 < len(text) < 4096 and not text.startswith("/") and text.isprintable():
                    yield text
            case tuple() | list() | set() | frozenset():
                yield from _relative_paths(value, depth + 1)
            case dict():
                yield from _relative_paths(value.values(), depth + 1)


# -- digests ---------------------------------------------------------------------------------------------------


def digest(value: object) -> str:
    """Return a digest of a value that pickle can store, the same in each process."""
    try:
        return _digested(value, ()).hex()
    except RecursionError:  # nested deeper than we can follow; pickle can
        return hashlib.sha256(pickle.dumps(value, 4)).hexdigest()


def _digested(value: object, above: tuple[int, ...]) -> bytes:
    """Return the digest of a value that lies within those with these ids."""
    kind = type(value)
    hashed = hashlib.sha256(f"{_name_of(kind)}:".encode())
    if kind in _ATOMS:
        hashed.update(_plain(value))
    elif id(value) in above:
        hashed.update(b"%d above" % above[::-1].index(id(value)))
    else:
        _add_parts(hashed, value, (*above, id(value)))
    return hashed.digest()


def _plain(value: object) -> bytes:
    return (value if isinstance(value, str) else repr(value)).encode(errors="surrogatepass")


def _add_parts(hashed: _Hash, value: object, above: tuple[int, ...]) -> None:
    match value:
        case bytes() | bytearray():
            hashed.update(value)
        case list() | tuple() if type(value) in (list, tuple):
            _add_all(hashed, value, above)
        case dict() if type(value) is dict:
            _add_pairs(hashed, value.items(), above)
        case set() | frozenset():
            _add_sorted(hashed, (_digested(part, above) for part in value))
        case PurePath():  # how it is pickled depends on the version of Python
            hashed.update(os.fsencode(value))
        case types.FunctionType() | type():
            hashed.update(_name_of(value).encode())
        case types.MethodType():
            hashed.update(_digested(value.__self__, above) + value.__name__.encode())
        case functools.partial():
            _add_all(hashed, (value.func, value.args, value.keywords), above)
        case _ if type(value).__module__.startswith(_LENT):
            pass
        case _:
            _add_reduced(hashed, value, above)


def _add_all(hashed: _Hash, parts: Sequence[object], above: tuple[int, ...]) -> None:
    for at in range(0, len(parts), 1000):
        some = parts[at : at + 1000]
        if _ATOMS.issuperset(map(type, some)):  # many numbers: a digest of each would take long
            hashed.update(b"plain" + repr(list(some)).encode(errors="surrogatepass"))
        else:
            for part in some:
                hashed.update(_digested(part, above))


def _add_pairs(hashed: _Hash, pairs: Iterable[tuple[object, object]], above: tuple[int, ...]) -> None:
    _add_sorted(hashed, (_digested(key, above) + _digested(value, above) for key, value in pairs))


def _add_sorted(hashed: _Hash, digests: Iterable[bytes]) -> None:
    for part in sorted(digests):
        hashed.update(part)


def _add_reduced(hashed: _Hash, value: object, above: tuple[int, ...]) -> None:
    """Take in an object as pickle takes it apart."""
    reducer = copyreg.dispatch_table.get(type(value))
    try:
        reduced = reducer(value) if reducer is not None else value.__reduce_ex__(4)
    except Exception:  # one that is lent as well: it travels by ways of its own, and only to a child
        return
    if isinstance(reduced, str):
        hashed.update(reduced.encode())
        return
    _add_all(hashed, reduced[:3], above)  # what makes it, from what, and its state
    items, pairs = itertools.islice(itertools.chain(reduced[3:5], (None, None)), 2)
    if items is not None:
        _add_all(hashed, list(items), above)
    if pairs is not None:
        _add_pairs(hashed, pairs, above)


def _name_of(function: object) -> str:
    """Return where a function or a class is found; for another object, its class."""
    named = function if hasattr(function, "__qualname__") else type(function)
    module = getattr(named, "__module__", None) or "builtins"
    if module == "__main__":  # called otherwise where its file is imported
        main = sys.modules["__main__"]
        spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
        module = spec.name if spec is not None else Path(file).stem if file else module
    return f"{module}.{named.__qualname__}"


def _shown(value: object) -> str:
    text = show(value)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."
