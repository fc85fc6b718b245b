"""`conveyor dead`: tasks that were given up, of a run that goes on and in a spool at rest."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conveyor.snapshot import RedeliveryReason
from support.commands import command
from support.runs import Run, running
from support.waiting import wait_for

TESTS = str(Path(__file__).parents[1])
TASKS, EVERY = 20, 5
FAILED = list(range(0, TASKS, EVERY))
"""The tasks that raise once; their letters are 1 to 4, in whichever order."""
HELD = 1
"""A task that waits at a gate, so that the run goes on."""
WORDY = """
from pathlib import Path
from conveyor import Pipeline, Producer
from support.workloads import wait_at
LETTERS = 300
def deeper(depth, task):
    if not depth:
        raise ValueError(f"{task} is " + "very " * 500 + "bad")
    deeper(depth - 1, task) if depth % 2 else deeper_still(depth - 1, task)
def deeper_still(depth, task):
    deeper(depth, task)
class Fails:
    def __init__(self, folder):
        self.folder = folder
    def __call__(self, task):
        if task == LETTERS:
            wait_at(self.folder / "release")
        else:
            deeper(60, task)
def wordy(folder: Path) -> Pipeline:
    return Pipeline(name="wordy", producers=[Producer(range, LETTERS + 1)], consumer=Fails(folder), consumers=2)
"""


def arguments(folder: Path, *more: str) -> tuple[str, ...]:
    return ("support.retrying:raising", f"folder={folder}", f"tasks={TASKS}", f"every={EVERY}", *more)


@contextlib.contextmanager
def held(folder: Path, *more: str) -> Iterator[Run]:
    """Have a run of which four tasks have failed, one is held at a gate, and all others are done."""
    own = folder / "run"
    own.mkdir()
    typed = (*arguments(folder, f"hold={HELD}"), "--consumers", "2", *more)
    with running(own, *typed, CONVEYOR_METRICS="off", PYTHONPATH=TESTS) as run:
        wait_for("all but one to be done", lambda: run.status().total("processed") == TASKS - 1)
        wait_for("the letters", lambda: run.status().queue.dead_letters == len(FAILED))
        yield run


def release(folder: Path, run: Run) -> int:
    (folder / "release").touch()
    return run.wait()


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """The spool of a run that has come to its end; four of its tasks had failed."""
    folder = tmp_path / "spool"
    ended = command(tmp_path, "run", *arguments(tmp_path), "--consumers", "1", "--spool", str(folder), PYTHONPATH=TESTS)
    assert ended.returncode == 1, ended.stderr
    return folder


def dead(folder: Path, *words: str) -> str:
    """Run a command that does what it should; return what it prints."""
    done = command(folder, "dead", *words)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def refused(folder: Path, *words: str, code: int) -> str:
    done = command(folder, "dead", *words)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert done.stderr.startswith("conveyor: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def listed(folder: Path, *words: str) -> list[dict[str, Any]]:
    letters: list[dict[str, Any]] = json.loads(dead(folder, "list", "--json", *words))
    return letters


# -- the same of a run and of a spool at rest ----------------------------------------------------------------


@contextlib.contextmanager
def of_run(folder: Path) -> Iterator[tuple[Path, tuple[str, ...]]]:
    with held(folder) as run:
        yield run.folder, ("--pid", str(run.process.pid))
        assert release(folder, run) == 1


@contextlib.contextmanager
def of_spooled_run(folder: Path) -> Iterator[tuple[Path, tuple[str, ...]]]:
    with held(folder, "--spool", str(folder / "spool")) as run:
        yield run.folder, ()
        assert release(folder, run) == 1


@contextlib.contextmanager
def of_spool(folder: Path) -> Iterator[tuple[Path, tuple[str, ...]]]:
    with held(folder, "--spool", str(folder / "spool")) as run:
        assert release(folder, run) == 1
    yield folder, ("--spool", str(folder / "spool"))


PLACES = {"a run": of_run, "a run with a spool": of_spooled_run, "a spool at rest": of_spool}


@pytest.mark.parametrize("place", PLACES)
def test_letters_are_listed_shown_and_forgotten(tmp_path: Path, place: str) -> None:
    with PLACES[place](tmp_path) as (folder, where):
        lines = dead(folder, "list", *where).splitlines()
        assert [line.split()[0] for line in lines] == ["1", "2", "3", "4"]
        assert all(re.search(r"raised once  ValueError: task \d+ fails  \d+$", line) for line in lines)

        letters = listed(folder, *where)
        assert {letter["task"] for letter in letters} == {str(task) for task in FAILED}
        assert {letter["cause"] for letter in letters} == {"error"}
        assert not letters[0].keys() & {"payload", "codec"}

        task = letters[1]["task"]
        page = dead(folder, "show", "2", *where)
        assert re.search(rf"^task +{task}$", page, re.MULTILINE)
        assert re.search(r"^attempts +1$", page, re.MULTILINE)
        assert re.search(r"^last worker +consumer-[12]$", page, re.MULTILINE)
        assert page.endswith(f"ValueError: task {task} fails\n")
        (shown,) = json.loads(dead(folder, "show", "2", "--json", *where))
        assert (shown["number"], shown["error"], shown["reason"]) == (2, "ValueError", f"task {task} fails")

        assert dead(folder, "purge", "2", "3", *where) == "2 forgotten\n"
        assert [letter["number"] for letter in listed(folder, *where)] == [1, 4]
        assert dead(folder, "purge", "all", *where) == "2 forgotten\n"
        assert dead(folder, "list", *where) == ""
        assert dead(folder, "purge", "all", *where) == "0 forgotten\n"
        assert dead(folder, "retry", "all", *where) == "0 tried again" + (
            " at the next start\n" if place == "a spool at rest" else "\n"
        )


@pytest.mark.parametrize("place", PLACES)
def test_what_is_not_there_or_not_a_number_is_said_so_and_changes_nothing(tmp_path: Path, place: str) -> None:
    with PLACES[place](tmp_path) as (folder, where):
        for words in (("show", "9"), ("retry", "9"), ("purge", "9"), ("retry", "1", "9"), ("purge", "1", "9")):
            said = refused(folder, *words, *where, code=1)
            assert "there is no dead letter 9; `conveyor dead list` shows those that there are" in said
        for words in (("show", "five"), ("show", "all"), ("retry", "1", "x"), ("purge", "all", "1"), ("retry", "1.5")):
            said = refused(folder, *words, *where, code=2)
            assert f"dead: {' '.join(words[1:])!r} is not allowed; give " in said
            assert "that `conveyor dead list` shows" in said
        assert len(listed(folder, *where)) == len(FAILED)


# -- tried again -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spooled", [False, True])
def test_a_letter_that_is_tried_again_is_done_and_counted(tmp_path: Path, spooled: bool) -> None:
    options = ("--spool", str(tmp_path / "spool")) if spooled else ()
    with held(tmp_path, *options) as run:
        tasks = [letter["task"] for letter in listed(run.folder)]
        run.ask("pause")
        assert dead(run.folder, "retry", "2", "4") == "2 tried again\n"
        queue = run.status().queue
        assert (queue.unfinished, queue.waiting, queue.in_progress, queue.dead_letters) == (3, 2, 1, 2)
        assert queue.redeliveries[RedeliveryReason.REQUEST] == 2
        assert [letter["task"] for letter in listed(run.folder)] == [tasks[0], tasks[2]]
        run.ask("resume")
        assert release(tmp_path, run) == 1  # the other two had failed
        report = run.report
        # The second time they succeed. Each is one more task that was done, not one more that was put.
        assert (report["produced"], report["processed"], report["failed"]) == (TASKS, TASKS + 2, len(FAILED))
        assert report["unfinished"] == 0
    assert {path.stem for path in tmp_path.glob("*.attempts") if path.stat().st_size == 2} == {tasks[1], tasks[3]}


def test_a_letter_that_fails_again_is_a_letter_again(tmp_path: Path) -> None:
    typed = (*arguments(tmp_path, f"hold={HELD}", "times=2"), "--consumers", "2")
    with running(tmp_path, *typed, CONVEYOR_METRICS="off", PYTHONPATH=TESTS) as run:
        wait_for("the letters", lambda: run.status().queue.dead_letters == len(FAILED))
        task = listed(tmp_path)[0]["task"]
        assert dead(tmp_path, "retry", "1") == "1 tried again\n"
        wait_for("it to have failed", lambda: [letter["number"] for letter in listed(tmp_path)] == [2, 3, 4, 5])
        assert listed(tmp_path)[-1]["task"] == task
        assert release(tmp_path, run) == 1


def test_letters_in_a_spool_at_rest_are_tried_again_at_the_next_start(tmp_path: Path, spool: Path) -> None:
    where = ("--spool", str(spool))
    tasks = [letter["task"] for letter in listed(tmp_path, *where)]
    assert dead(tmp_path, "retry", "1", "3", *where) == "2 tried again at the next start\n"
    assert [letter["number"] for letter in listed(tmp_path, *where)] == [2, 4]
    typed = ("run", *arguments(tmp_path), *where, "--report", str(tmp_path / "report"))
    ended = command(tmp_path, *typed, PYTHONPATH=TESTS)
    # It goes on with the run that had ended, of which four tasks had failed, for these two.
    assert ended.returncode == 1, ended.stderr
    report = json.loads((tmp_path / "report").read_text())
    assert (report["produced"], report["processed"], report["unfinished"]) == (TASKS, TASKS + 2, 0)
    assert [letter["number"] for letter in listed(tmp_path, *where)] == [2, 4]
    assert {path.stem for path in tmp_path.glob("*.attempts") if path.stat().st_size == 2} == {tasks[0], tasks[2]}
    # The next one is a new run, which keeps the letters of the last.
    assert command(tmp_path, *typed, PYTHONPATH=TESTS).returncode == 0
    report = json.loads((tmp_path / "report").read_text())
    assert (report["produced"], report["processed"], report["failed"]) == (TASKS, TASKS, 0)
    assert [letter["number"] for letter in listed(tmp_path, *where)] == [2, 4]


def test_letters_of_a_run_that_was_killed_are_in_its_spool(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    with held(tmp_path, "--spool", str(folder)) as run:
        letters = listed(run.folder)  # what was listed is written
        run.process.kill()
        run.process.wait()
    assert listed(tmp_path, "--spool", str(folder)) == letters


# -- many, and long ones -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("spooled", [False, True])
def test_hundreds_of_letters_with_long_traces_are_listed_all(tmp_path: Path, spooled: bool) -> None:
    (tmp_path / "wordy.py").write_text(WORDY)
    options = ("--spool", str(tmp_path / "spool")) if spooled else ()
    typed = (f"{tmp_path / 'wordy.py'}", f"folder={tmp_path}", *options)
    with running(tmp_path, *typed, CONVEYOR_METRICS="off", PYTHONPATH=TESTS) as run:
        wait_for("the letters", lambda: run.status().queue.dead_letters == 300)
        letters = listed(tmp_path)
        assert [letter["number"] for letter in letters] == list(range(1, 301))
        assert {letter["task"] for letter in letters} == {str(task) for task in range(300)}
        assert min(len(letter["trace"]) for letter in letters) > 5_000
        lines = dead(tmp_path, "list").splitlines()
        assert len(lines) == 300
        assert max(map(len, lines)) < 400
        numbers = [str(number) for number in range(1, 201)]  # more than one request holds
        assert sum(map(int, re.findall(r"(\d+) forgotten", dead(tmp_path, "purge", *numbers)))) == 200
        assert len(listed(tmp_path)) == 100
        assert release(tmp_path, run) == 1


# -- where there is nothing to ask ----------------------------------------------------------------------------------


VERBS = {"list": (), "show": ("1",), "retry": ("1",), "purge": ("all",)}


@pytest.mark.parametrize("verb", VERBS)
def test_without_a_run_it_says_so(tmp_path: Path, verb: str) -> None:
    assert "no run answers in" in refused(tmp_path, verb, *VERBS[verb], code=1)
    assert "no run with pid 1 answers" in refused(tmp_path, verb, *VERBS[verb], "--pid", "1", code=1)


@pytest.mark.parametrize("verb", VERBS)
def test_a_folder_without_a_spool_is_said_to_be_none_and_stays_as_it_is(tmp_path: Path, verb: str) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        said = refused(tmp_path, verb, *VERBS[verb], "--spool", str(folder), code=2)
        assert f"there is no spool in {folder}; give the folder that a run was given" in said
    assert list(tmp_path.iterdir()) == []


def test_a_spool_in_use_is_asked_through_its_run(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    with held(tmp_path, "--spool", str(folder)) as run:
        for verb, words in VERBS.items():
            said = refused(tmp_path, verb, *words, "--spool", str(folder), code=2)
            assert f"the spool {folder} is in use by the run with pid {run.process.pid}" in said
        assert len(listed(run.folder)) == len(FAILED)
        assert release(tmp_path, run) == 1


def test_a_run_or_a_spool_but_not_both(tmp_path: Path, spool: Path) -> None:
    said = refused(tmp_path, "list", "--pid", "1", "--spool", str(spool), code=2)
    assert "give --pid for a run that goes on, or --spool for one that has ended" in said


@pytest.mark.parametrize("words", [(), ("all",), ("show",), ("retry",), ("purge",), ("show", "1", "2"), ("list", "1")])
def test_wrong_words_are_named(tmp_path: Path, words: tuple[str, ...]) -> None:
    assert "--help" in refused(tmp_path, *words, code=2)


@pytest.mark.parametrize("kind", ["joinable", "sentinel"])
def test_queues_that_keep_none_say_so(tmp_path: Path, kind: str) -> None:
    typed = (*arguments(tmp_path, "hold=1"), "--queue", kind)
    with running(tmp_path, *typed, CONVEYOR_METRICS="off", PYTHONPATH=TESTS) as run:
        wait_for("the task", (tmp_path / "held-by").exists)
        for verb, words in VERBS.items():
            said = refused(tmp_path, verb, *words, code=2)
            assert f"dead: the queue {kind!r} keeps no dead letters; only 'leased' does" in said
        assert release(tmp_path, run) == 1
