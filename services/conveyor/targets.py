"""From `TARGET KEY=VALUE ...` to a `Pipeline`: finds the workload function, converts its arguments, calls it.

Whatever is wrong is the user's to mend, so it is a `WorkloadError` that says what and where, without a traceback.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import re
import sys
import traceback
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from conveyor.errors import ConveyorError, WorkloadError
from conveyor.pipeline import Pipeline
from conveyor.settings import yes_or_no
from conveyor.workloads import PRODUCER_COUNT, SHIPPED

Workload = Callable[..., Pipeline]


@dataclass(frozen=True, slots=True)
class Description:
    """What a workload's documentation says."""

    summary: str
    arguments: Mapping[str, str]
    """Each argument, with its default if it has one, and its meaning: from a line `name: meaning`."""


def load(target: str) -> Workload:
    """Return the function that a target names: a shipped workload, `file.py[:name]` or `package.module:name`."""
    full = SHIPPED.get(target, target)
    place, _, name = full.rpartition(":") if ":" in full else (full, "", "")
    if place.endswith(".py"):
        module = _import_file(Path(place))
        name = name or _only_workload(module, place)
    elif place and name:
        module = _import(place, place)
    else:
        raise WorkloadError(
            f"no workload is called {target!r}{meant(target, SHIPPED)}; give one of {', '.join(SHIPPED)}, or file.py, "
            "file.py:name, package.module:name"
        )
    workload = getattr(module, name, None)
    if workload is None:
        raise WorkloadError(f"{place} has no {name!r}{meant(name, vars(module))}")
    if isinstance(workload, Pipeline):
        raise WorkloadError(f"{place}:{name} is a Pipeline; give a function that returns it")
    if not inspect.isfunction(workload):
        raise WorkloadError(f"{place}:{name} is not a workload; give a function that returns a Pipeline")
    return workload


def build(target: str, workload: Workload, arguments: Sequence[str], producers: int | None) -> Pipeline:
    """Call the workload with its `KEY=VALUE` arguments; `producers` goes to the argument that counts them."""
    parameters = _parameters(workload)
    hints = _hints(target, workload)
    values: dict[str, object] = {}
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals:
            raise WorkloadError(f"{target}: {argument!r} is not KEY=VALUE")
        if key not in parameters:
            allowed = ", ".join(parameters) or "none"
            raise WorkloadError(f"{target}: no argument {key!r}{meant(key, parameters)}; allowed: {allowed}")
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
    except (Exception, SystemExit) as error:  # the user's code
        raise WorkloadError(f"{target}: {_where(error)}") from error
    if not isinstance(pipeline, Pipeline):
        raise WorkloadError(f"{target}: is not a workload: it returned {type(pipeline).__name__}, not a Pipeline")
    return pipeline


def describe(workload: Workload) -> Description:
    """Return what the workload's docstring says of it and of its arguments."""
    documentation = inspect.getdoc(workload) or ""
    meanings = dict(re.findall(r"^(\w+): (.*)$", documentation, re.MULTILINE))
    arguments = {
        (name if parameter.default is parameter.empty else f"{name}={parameter.default}"): meanings.get(name, "")
        for name, parameter in _parameters(workload).items()
    }
    return Description(documentation.partition("\n")[0], arguments)


def meant(given: str, known: Iterable[str]) -> str:
    """Return a guess at what a wrong word was meant to be, or nothing."""
    close = difflib.get_close_matches(given, list(known), 1)
    return f" (did you mean {close[0]}?)" if close else ""


# -- finding -----------------------------------------------------------------------------------------------


def _import_file(path: Path) -> types.ModuleType:
    if not path.is_file():
        raise WorkloadError(f"there is no file {path}")
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)  # worker processes get this path too, and import the module by its name
    try:
        found = importlib.util.find_spec(path.stem) if path.stem.isidentifier() else None
    except ValueError:  # a module that was not found by its name, such as `__main__`
        found = None
    if found is None or found.origin is None or not path.samefile(found.origin):
        raise WorkloadError(f"{path} cannot be imported as a module called {path.stem!r}; rename the file")
    return _import(path.stem, str(path))


def _import(module: str, shown: str) -> types.ModuleType:
    try:
        folder = str(Path.cwd())
    except FileNotFoundError as error:
        raise WorkloadError("the working directory was removed; go to another, and start again") from error
    if "" not in sys.path and folder not in sys.path:
        sys.path.insert(0, folder)  # as `python -m` does
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
        if inspect.isfunction(value) and value.__module__ == module.__name__ and _returns_pipeline(value)
    ]
    if len(own) == 1:
        return own[0]
    found = f"has {len(own)}: {', '.join(own)}" if own else "has none"
    raise WorkloadError(
        f"which function of {place} is the workload? Annotate one as `-> Pipeline` (it {found}), or give {place}:name"
    )


def _returns_pipeline(function: Callable[..., Any]) -> bool:
    hint = _annotations(function).get("return")
    hint = getattr(hint, "__forward_arg__", hint)
    return hint is Pipeline or (isinstance(hint, str) and hint.rpartition(".")[2] == Pipeline.__name__)


# Since Python 3.14 an annotation is evaluated when somebody asks for it, so a name that only type checkers know
# (`if TYPE_CHECKING:`) raises here and not in the file. What cannot be evaluated stays a name.
if sys.version_info >= (3, 14):
    from annotationlib import Format, get_annotations

    def _annotations(function: Callable[..., Any]) -> dict[str, Any]:
        return get_annotations(function, format=Format.FORWARDREF)

    def _signature(function: Callable[..., Any]) -> inspect.Signature:
        return inspect.signature(function, annotation_format=Format.FORWARDREF)

else:
    _annotations = inspect.get_annotations
    _signature = inspect.signature


# -- converting --------------------------------------------------------------------------------------------


def _parameters(workload: Workload) -> dict[str, Parameter]:
    """Return the parameters that KEY=VALUE can name."""
    by_name = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    return {name: p for name, p in _signature(workload).parameters.items() if p.kind in by_name}


def _hints(target: str, workload: Workload) -> dict[str, Any]:
    """Return what annotates the arguments. The `Pipeline` that it returns may be known to type checkers alone."""
    of_arguments = {name: hint for name, hint in _annotations(workload).items() if name != "return"}
    names = inspect.unwrap(workload).__globals__
    try:
        return typing.get_type_hints(types.SimpleNamespace(__annotations__=of_arguments), names, include_extras=True)
    except Exception as error:  # whatever evaluating a user's annotation raises
        raise WorkloadError(f"{target}: an annotation cannot be evaluated: {_where(error)}") from error


def _producer_count(target: str, parameters: Mapping[str, object], hints: Mapping[str, Any]) -> str:
    for name in parameters:
        if name == "producers" or PRODUCER_COUNT in getattr(hints.get(name), "__metadata__", ()):
            return name
    raise WorkloadError(f"{target}: its number of producers is fixed; --producers is not allowed here")


def _convert(what: str, text: str, hint: Any) -> object:
    """Return the text as the annotation wants it."""
    if hasattr(hint, "__metadata__"):
        hint = get_args(hint)[0]
    if get_origin(hint) in (Union, types.UnionType):  # of which only `... | None` can be told from a text
        kinds = [kind for kind in get_args(hint) if kind is not type(None)]
        hint = kinds[0] if len(kinds) == 1 else hint
    if get_origin(hint) is Literal:
        choices = {str(choice): choice for choice in get_args(hint)}
        converter: Converter = (choices.__getitem__, f"one of {', '.join(choices)}")
    elif hint in _CONVERTERS:
        converter = _CONVERTERS[hint]
    else:
        raise WorkloadError(
            f"{what} cannot be given here: it is annotated as {hint}; allowed: int, float, bool, str, Path, Literal"
        )
    convert, allowed = converter
    try:
        return convert(text)
    except (ValueError, KeyError):  # KeyError: not one of the choices
        raise WorkloadError(f"{what}={text!r} is not allowed; give {allowed}") from None


Converter = tuple[Callable[[str], object], str]
_CONVERTERS: dict[Any, Converter] = {
    int: (int, "a whole number"),
    float: (float, "a number"),
    bool: (yes_or_no, "yes or no"),
    Path: (Path, "a path"),
    str: (str, "a text"),
    Any: (str, "a text"),
    object: (str, "a text"),
}


# -- explaining --------------------------------------------------------------------------------------------


def _where(error: BaseException) -> str:
    """Return the error in one line, with the last place in the user's code that it went through."""
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg} ({error.filename}, line {error.lineno})"
    what = f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_library(frame.filename)]
    return f"{what} ({frames[-1].filename}, line {frames[-1].lineno})" if frames else what


def _is_library(file: str) -> bool:
    import sysconfig  # here: needed only when something went wrong

    folders = (str(Path(__file__).parent), *map(sysconfig.get_path, ("stdlib", "purelib", "platlib")))
    return file.startswith(("<", *(f"{folder}/" for folder in folders)))
