"""From `TARGET KEY=VALUE ...` to a `Pipeline`: finds the workload function, converts its arguments, calls it.

Whatever is wrong is the user's to mend, so it is a `WorkloadError` that says what and where, without a traceback.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import sys
import traceback
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from conveyor.errors import ConveyorError, WorkloadError
from conveyor.pipeline import Pipeline
from conveyor.workloads import PRODUCER_COUNT, SHIPPED

Workload = Callable[..., Pipeline]


def load(target: str) -> Workload:
    """Return the function that a target names: a shipped workload, `file.py[:name]` or `package.module:name`."""
    target = SHIPPED.get(target, target)
    place, _, name = target.rpartition(":") if ":" in target else (target, "", "")
    if place.endswith(".py"):
        module = _import_file(Path(place))
        name = name or _only_workload(module, place)
    elif name:
        module = _import(place, place)
    else:
        raise WorkloadError(
            f"no workload is called {target!r}; give one of {', '.join(SHIPPED)}, or file.py, file.py:name, "
            f"package.module:name{_meant(target, SHIPPED)}"
        )
    workload = getattr(module, name, None)
    if workload is None:
        raise WorkloadError(f"{place} has no {name!r}{_meant(name, vars(module))}")
    if isinstance(workload, Pipeline):
        raise WorkloadError(f"{place}:{name} is a Pipeline; give a function that returns it")
    if not inspect.isfunction(workload):
        raise WorkloadError(f"{place}:{name} is not a workload; give a function that returns a Pipeline")
    return workload


def build(target: str, workload: Workload, arguments: Sequence[str], producers: int | None) -> Pipeline:
    """Call the workload with its `KEY=VALUE` arguments; `producers` goes to the argument that counts them."""
    parameters = inspect.signature(workload).parameters
    hints = _hints(workload)
    values: dict[str, object] = {}
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals:
            raise WorkloadError(f"{target}: {argument!r} is not KEY=VALUE")
        if key not in parameters:
            allowed = ", ".join(parameters) or "none"
            raise WorkloadError(f"{target}: no argument {key!r}; allowed: {allowed}{_meant(key, parameters)}")
        values[key] = _convert(f"{target}: {key}", text, hints.get(key, str))
    if producers is not None:
        values[_producer_count(target, parameters, hints)] = producers
    missing = [n for n, p in parameters.items() if p.default is p.empty and n not in values]
    if missing:
        raise WorkloadError(f"{target}: needs {' and '.join(f'{name}=...' for name in missing)}")
    try:
        pipeline = workload(**values)
    except ConveyorError:
        raise
    except Exception as error:  # the user's code
        raise WorkloadError(f"{target}: {_where(error)}") from error
    if not isinstance(pipeline, Pipeline):
        raise WorkloadError(f"{target}: is not a workload: it returned {pipeline!r}, not a Pipeline")
    return pipeline


def describe(workload: Workload) -> tuple[str, list[str]]:
    """Return a workload's first line of documentation, and its arguments with their defaults."""
    documentation = inspect.getdoc(workload) or ""
    arguments = [
        name if parameter.default is parameter.empty else f"{name}={parameter.default}"
        for name, parameter in inspect.signature(workload).parameters.items()
    ]
    return documentation.partition("\n")[0], arguments


# -- finding -----------------------------------------------------------------------------------------------


def _import_file(path: Path) -> types.ModuleType:
    if not path.is_file():
        raise WorkloadError(f"there is no file {path}")
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)  # worker processes get this path too, and import the module by its name
    found = importlib.util.find_spec(path.stem) if path.stem.isidentifier() else None
    if found is None or found.origin is None or not path.samefile(found.origin):
        raise WorkloadError(f"{path} cannot be imported as a module called {path.stem!r}; rename the file")
    return _import(path.stem, str(path))


def _import(module: str, shown: str) -> types.ModuleType:
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # as `python -m` does
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and (module == error.name or module.startswith(error.name + ".")):
            raise WorkloadError(f"there is no module {shown}") from error
        raise WorkloadError(f"cannot import {shown}: {_where(error)}") from error
    except (Exception, SystemExit) as error:  # the user's code
        raise WorkloadError(f"cannot import {shown}: {_where(error)}") from error


def _only_workload(module: types.ModuleType, place: str) -> str:
    """Return the name of the file's workload: the one function of its own that is annotated to return one."""
    own = [
        name
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and _hints(value).get("return") is Pipeline
    ]
    if len(own) == 1:
        return own[0]
    found = f"has {len(own)} ({', '.join(own)})" if own else "has none"
    raise WorkloadError(
        f"{place}: which function is the workload? Annotate one as `-> Pipeline` ({place} {found}), "
        f"or give {place}:name"
    )


# -- converting --------------------------------------------------------------------------------------------


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except Exception:  # an annotation that cannot be evaluated is no type we could convert to
        return {}


def _producer_count(target: str, parameters: Mapping[str, object], hints: Mapping[str, Any]) -> str:
    for name in parameters:
        if name == "producers" or PRODUCER_COUNT in getattr(hints.get(name), "__metadata__", ()):
            return name
    raise WorkloadError(f"{target}: its number of producers is fixed; --producers is not allowed here")


def _convert(what: str, text: str, hint: Any) -> object:
    """Return the text as the annotation wants it."""
    if hasattr(hint, "__metadata__"):
        hint = get_args(hint)[0]
    if get_origin(hint) is Literal:
        for allowed in get_args(hint):
            if str(allowed) == text:
                return allowed
        raise WorkloadError(f"{what}={text!r} is not allowed; give one of {', '.join(map(str, get_args(hint)))}")
    if get_origin(hint) in (Union, types.UnionType):
        hint = next(kind for kind in get_args(hint) if kind is not type(None))
    convert, allowed = _CONVERTERS.get(hint, (str, "a text"))
    try:
        return convert(text)
    except (ValueError, KeyError):
        raise WorkloadError(f"{what}={text!r} is not allowed; give {allowed}") from None


_YES_NO = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
_CONVERTERS: dict[Any, tuple[Callable[[str], object], str]] = {
    int: (int, "a whole number"),
    float: (float, "a number"),
    bool: (lambda text: _YES_NO[text.lower()], "yes or no"),
    Path: (Path, "a path"),
}


# -- explaining --------------------------------------------------------------------------------------------


def _meant(given: str, known: typing.Iterable[str]) -> str:
    close = difflib.get_close_matches(given, list(known), 1)
    return f" (did you mean {close[0]}?)" if close else ""


def _where(error: BaseException) -> str:
    """Return the error in one line, with the last place in the user's code that it went through."""
    frames = traceback.extract_tb(error.__traceback__)
    place = next((f for f in reversed(frames) if "importlib" not in f.filename), None)
    if isinstance(error, SyntaxError):
        at = f"{error.filename}, line {error.lineno}"
    else:
        at = f"{place.filename}, line {place.lineno}" if place else "unknown place"
    return f"{type(error).__name__}: {error} ({at})"
