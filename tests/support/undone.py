"""Functions whose call is not yet the work, and some that are near to it. Importable by worker processes."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import functools
import multiprocessing
import multiprocessing.util
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from support.workloads import wait_at


async def coroutine_function(task: object) -> None:
    raise AssertionError("nobody should get here")


async def asynchronous_generator_function(task: object) -> AsyncIterator[object]:
    yield task


def generator_function(task: object) -> Iterator[object]:
    yield task


class CoroutineMethod:
    async def __call__(self, task: object) -> None: ...

    async def method(self, task: object) -> None: ...


class GeneratorMethod:
    def __call__(self, task: object) -> Iterator[object]:
        yield task


def takes_two(first: object, second: object) -> Iterator[object]:
    yield first


async def coroutine_with_two(first: object, second: object) -> None: ...


REFUSED: dict[str, Callable[..., object]] = {
    "coroutine function": coroutine_function,
    "asynchronous generator function": asynchronous_generator_function,
    "generator function": generator_function,
    "object with a coroutine method": CoroutineMethod(),
    "coroutine method": CoroutineMethod().method,
    "object with a generator method": GeneratorMethod(),
    "partial of a generator function": functools.partial(takes_two, 1),
    "partial of a coroutine function": functools.partial(coroutine_with_two, 1),
    "partial of a partial of an object": functools.partial(functools.partial(CoroutineMethod()), 1),
}


class Promise:
    """Can be awaited, and is no coroutine."""

    def __await__(self) -> Iterator[None]:
        yield


def returns_undone_work(how: str) -> object:
    match how:
        case "coroutine":
            return coroutine_function(how)
        case "awaitable":
            return Promise()
        case "generator":
            return generator_function(how)
        case "asynchronous generator":
            return asynchronous_generator_function(how)
        case "future":
            return concurrent.futures.Future[None]()
        case "map":
            return map(str, [how])
    return how


def decorated(function: Callable[[Any], Awaitable[object]]) -> Callable[[Any], object]:
    @functools.wraps(function)
    def run(task: Any) -> object:
        return asyncio.run(function(task))  # type: ignore[arg-type]

    return run


@decorated
async def run_to_its_end(task: int) -> int:
    await asyncio.sleep(0)
    return 2 * task


class Gathers:
    """Writes ten rows at a time, and the rest when its process leaves."""

    def __init__(self, file: Path, by: str = "atexit", slow: bool = False) -> None:
        self.file, self.by, self.slow = file, by, slow
        self.rows: list[object] | None = None

    def __call__(self, row: object) -> None:
        if self.rows is None:
            self.rows = []
            match self.by:
                case "atexit":
                    atexit.register(self.write)
                case "finalizer":
                    multiprocessing.util.Finalize(self, self.write, exitpriority=10)
        self.rows.append(row)
        if len(self.rows) == 10:
            self.write()

    def write(self) -> None:
        if self.slow:
            wait_at(self.file.with_name("gate"))
        with self.file.open("a") as file:
            file.write("".join(f"{row}\n" for row in self.rows or ()))
        self.rows = []


FILE = os.environ.get("CONVEYOR_TEST_EXIT_FILE")
if FILE is not None:  # as a module does that looks after what it has opened

    @atexit.register
    def say_goodbye() -> None:
        with Path(str(FILE)).open("a") as file:
            file.write(f"{multiprocessing.current_process().name}\n")


class FirstError(Exception): ...


class SecondError(Exception): ...


def fail_by_number(number: int) -> None:
    if number % 3 == 1:
        raise FirstError
    if number % 3 == 2:
        raise SecondError


def fail_with_many_classes(number: int) -> None:
    raise type(f"Error{number % 15}", (Exception,), {})


def fail_until_killed(number: int) -> None:
    """Fail by number, and die in every 50th task."""
    if number % 50 == 49 and not Path(f"{os.environ['CONVEYOR_TEST_FOLDER']}/{number}").exists():
        Path(f"{os.environ['CONVEYOR_TEST_FOLDER']}/{number}").touch()
        os.kill(os.getpid(), 9)
    fail_by_number(number)


def stop_at_2(number: int) -> int:
    if number == 2:
        raise StopIteration("of its own")
    return number


class CannotComeBack:
    """Stops whoever unpickles it."""

    def __reduce__(self) -> tuple[object, ...]:
        return next, (iter(()),)


def return_what_stops(number: int) -> object:
    return CannotComeBack() if number == 2 else number
