"""What goes wrong is told in a sentence, with the right exit code, and in characters that a terminal only shows."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from conveyor import imap_unordered, logs
from conveyor.descriptors import new_memory
from conveyor.errors import ConfigurationError
from conveyor.logs import fields
from conveyor.report import ExitCode
from conveyor.wording import printable, printable_json, printable_lines
from support.commands import command, environment
from support.runs import running
from support.waiting import wait_for

EVIL = "\x1b[2J\x1b]0;title\x07 \x9b31m \x7f \u202e \u2066 \u200f \r\x08"


def with_change(folder: Path, change: str, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a command in a process in which something was changed first."""
    code = f"import sys; {change}\nfrom conveyor.__main__ import main\nsys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment(folder),
        timeout=60,
    )


# -- a fault of ours ---------------------------------------------------------------------------------------

BROKEN_LOOP = "import conveyor.supervisor as s; s.Supervisor._tick = lambda self: {}['no such key']"
BROKEN_COMMAND = "import conveyor.targets as t; t.describe = None"
BROKEN_IMPORT = "sys.modules['rich'] = sys.modules['prometheus_client'] = None"
RUN = ("run", "kitchen", "rounds=0")


@pytest.mark.parametrize(
    ("change", "arguments"),
    [(BROKEN_LOOP, RUN), (BROKEN_COMMAND, ("workloads",)), ("sys.modules['argparse'] = None", ("workloads",))],
    ids=["run", "command", "import"],
)
def test_a_fault_of_ours_has_an_exit_code_of_its_own_and_a_sentence_before_the_traceback(
    tmp_path: Path, change: str, arguments: tuple[str, ...]
) -> None:
    done = with_change(tmp_path, change, arguments)
    assert done.returncode == ExitCode.FAULT
    assert int(ExitCode.FAULT) == 70
    sentence, begin, *_ = done.stderr.splitlines()
    assert sentence.startswith("conveyor: this is a fault of Conveyor's own, please report it with what follows: ")
    assert begin == "Traceback (most recent call last):"


# -- a system that lacks something -------------------------------------------------------------------------

DENIED = "import os\ndef denied(*_): raise PermissionError(1, 'Operation not permitted')\nos.memfd_create = denied"


@pytest.mark.parametrize("change", [DENIED, "import os; del os.memfd_create"], ids=["denied", "missing"])
def test_a_run_needs_no_memfd(tmp_path: Path, change: str) -> None:
    done = with_change(tmp_path, change, ("run", "kitchen", "speed=50"))
    assert done.returncode == 0, done.stderr
    assert "produced=10 processed=10" in done.stderr


def test_memory_that_cannot_be_had_at_all_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*arguments: object, **others: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "memfd_create", denied)
    monkeypatch.setattr("tempfile.TemporaryFile", denied)
    with pytest.raises(ConfigurationError, match="no shared memory can be had: memfd_create is denied"):
        new_memory("conveyor-test")


@pytest.mark.parametrize("queue", ["joinable", "sentinel"])
def test_a_queue_of_semaphores_without_shared_memory_is_a_sentence(tmp_path: Path, queue: str) -> None:
    shell = 'mount -t tmpfs -o ro none /dev/shm 2>/dev/null || exit 99; exec "$@"'
    run = [sys.executable, "-m", "conveyor", "run", "kitchen", "--queue", queue]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", shell, "sh", *run],
        capture_output=True,
        text=True,
        env=environment(tmp_path),
        timeout=60,
    )
    if done.returncode == 99 or "unshare" in done.stderr:
        pytest.skip("no file system can be made read-only here")
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"conveyor: queue: '{queue}' needs POSIX semaphores, which cannot be made here")
    assert done.stderr.count("\n") == 1


def test_a_working_directory_that_was_removed_is_a_sentence(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    shell = 'cd "$1" && rmdir "$1" && shift && exec "$@"'
    run = [sys.executable, "-m", "conveyor", "run", "kitchen"]
    inside = ["sh", "-c", shell, "sh", str(gone), *run]
    done = subprocess.run(inside, capture_output=True, text=True, env=environment(tmp_path), timeout=60)
    assert done.returncode == 2
    assert done.stderr == "conveyor: the working directory was removed; go to another, and start again\n"


# -- characters --------------------------------------------------------------------------------------------


def is_harmless(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n"))


@pytest.mark.parametrize("number", [*range(0x20), *range(0x7F, 0xA0), 0x200E, 0x200F, 0x2028, 0x202E, 0x2066, 0xE0001])
def test_no_character_that_does_something_to_a_terminal_is_shown(number: int) -> None:
    text = f"a{chr(number)}b"
    assert printable(text) == "a b"
    assert is_harmless(printable_lines(text))
    assert is_harmless(printable_json(f'"{text}"'))


def test_what_people_write_is_shown_as_it_is() -> None:
    for text in ("包子 – 馒头", "naïve, Ωμέγα, עברית", "🍜", ""):
        assert printable(text) == printable_lines(text) == printable_json(text) == text


WORKLOAD = f"""
import time
from conveyor import Pipeline, Producer

class Evil:
    def __repr__(self): return {EVIL!r}

class EvilError(Exception): ...
EvilError.__qualname__ = EvilError.__name__ = "Evil{chr(92)}x1b[31mError"

def tasks():
    yield {EVIL!r}
    time.sleep(600)

def fail(task):
    raise EvilError(task)

def evil(): return Pipeline(producers=[Producer(tasks)], consumer=fail, consumers=1)
"""


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_nothing_of_a_task_or_of_its_exception_reaches_a_terminal_raw(tmp_path: Path, log_format: str) -> None:
    (tmp_path / "evil_tasks.py").write_text(WORKLOAD, encoding="utf-8")
    workload = f"{tmp_path / 'evil_tasks.py'}:evil"
    with running(tmp_path, workload, CONVEYOR_METRICS="off", CONVEYOR_LOG_FORMAT=log_format) as run:
        wait_for("a dead letter", lambda: run.status().queue.dead_letters)
        for words in (["dead", "list"], ["dead", "show", "1"], ["dead", "show", "1", "--json"], ["status"]):
            shown = command(tmp_path, *words)
            assert shown.returncode == 0
            assert is_harmless(shown.stdout), words
        run.process.terminate()
        assert run.wait() == 0
        assert "task failed" in run.said()
        assert is_harmless(run.said())


def test_a_log_line_is_harmless_whatever_its_fields_say(capsys: pytest.CaptureFixture[str]) -> None:
    for log_format in ("text", "json"):
        with logs.handled(log_format):
            logging.getLogger("conveyor.test").warning(EVIL, extra=fields(field=EVIL, trace=f"{EVIL}\n{EVIL}"))
        said = capsys.readouterr().err
        assert is_harmless(said)
        assert said.count("\n") == (3 if log_format == "text" else 1)


# -- no alarm ----------------------------------------------------------------------------------------------


def test_a_caller_who_leaves_its_loop_is_not_warned(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "conveyor"):
        results = imap_unordered(abs, range(1000), consumers=1)
        next(results)
        results.close()
    assert "stopping now" in caplog.messages
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []
