"""What a user can get wrong: one line on stderr that says what it was and what is allowed, exit code 2, nothing else.

No worker is started, nothing is left running, and no file is touched.
"""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from support.commands import command
from support.runs import WORKLOADS, running

OK = """
from conveyor import Pipeline, Producer
def ok() -> Pipeline:
    return Pipeline(producers=[Producer(range, 3)], consumer=print)
"""
MODULES = {
    "raises.py": "raise RuntimeError('no such\\ndatabase')",
    "syntax.py": "def f(:\n    pass",
    "exits.py": "import sys\nsys.exit(3)",
    "needs.py": "import a_module_that_is_not_there",
    "none.py": "def nothing(): ...",
    "two.py": OK + OK.replace("ok", "also_ok"),
    "one.py": OK + "number = 3\npipeline = ok()\ndef other(): return 3\n",
    "my.pipeline.py": OK,
    "json.py": OK,
    "__main__.py": OK,
    "builds_badly.py": OK.replace("return", "int('x')\n    return"),
    "exits_building.py": OK.replace("return", "raise SystemExit(0)\n    return"),
    "unknown_type.py": OK.replace("ok()", "ok(x: 'Nothing')"),
    "odd_type.py": OK.replace("ok()", "ok(x: list[int])"),
    "no_pickle.py": OK.replace("print", "lambda task: None"),
    "no_pickle_producer.py": OK.replace("range, 3", "lambda: [1]"),
    "no_producers.py": OK.replace("[Producer(range, 3)]", "[]"),
    "same_names.py": OK.replace("[Producer(range, 3)]", "[Producer(range, 3, name='a'), Producer(range, 3, name='a')]"),
    "name_of_a_consumer.py": OK.replace("range, 3", "range, 3, name='consumer-1'"),
}
HOST_PORT = "HOST:PORT"

# What is typed after `conveyor run`, and what the answer must hold. FOLDER is where MODULES are.
WRONG = {
    # the target
    "unknown target": ("kitchn", "'kitchn'", "did you mean kitchen?", "package.module:name"),
    "no such file": ("FOLDER/nowhere.py", "there is no file", "nowhere.py"),
    "no such module": ("a_module_that_is_not_there:run", "there is no module a_module_that_is_not_there"),
    "no such function": ("FOLDER/one.py:okay", "one.py has no 'okay'", "did you mean ok?"),
    "no name behind the colon": ("os:", "'os:'", "package.module:name"),
    "no module before the colon": (":ok", "':ok'", "package.module:name"),
    "raises at import": ("FOLDER/raises.py", "RuntimeError: no such database", "raises.py, line 1"),
    "syntax error": ("FOLDER/syntax.py", "SyntaxError", "syntax.py, line 1"),
    "exits at import": ("FOLDER/exits.py", "SystemExit: 3", "exits.py, line 2"),
    "needs what is not there": ("FOLDER/needs.py", "No module named 'a_module_that_is_not_there'", "needs.py, line 1"),
    "no workload in it": ("FOLDER/none.py", "which function", "-> Pipeline", "has none", "none.py:name"),
    "two workloads in it": ("FOLDER/two.py", "has 2: ok, also_ok", "two.py:name"),
    "not a function": ("FOLDER/one.py:number", "not a workload", "a function that returns a Pipeline"),
    "a pipeline itself": ("FOLDER/one.py:pipeline", "is a Pipeline", "a function that returns it"),
    "returns something else": ("FOLDER/one.py:other", "it returned int, not a Pipeline"),
    "no module's name": ("FOLDER/my.pipeline.py", "'my.pipeline'", "rename the file"),
    "name of another module": ("FOLDER/json.py", "'json'", "rename the file"),
    "main": ("FOLDER/__main__.py", "'__main__'", "rename the file"),
    # its arguments
    "raises when called": ("FOLDER/builds_badly.py", "ValueError: invalid literal", "builds_badly.py, line 4"),
    "exits when called": ("FOLDER/exits_building.py", "SystemExit: 0", "exits_building.py, line 4"),
    "unknown annotation": ("FOLDER/unknown_type.py x=1", "annotation", "name 'Nothing' is not defined"),
    "unusable annotation": ("FOLDER/odd_type.py x=1", "x", "list[int]", "int, float, bool, str, Path, Literal"),
    "not a number": ("kitchen cooks=many", "cooks='many'", "a whole number"),
    "not one of them": ("kitchen lang=fr", "lang='fr'", "one of en, zh"),
    "unknown argument": ("kitchen cook=3", "'cook'", "did you mean cooks?", "dishes, speed"),
    "missing arguments": ("checksum", "root=...", "output=..."),
    "not KEY=VALUE": ("kitchen fast", "'fast' is not KEY=VALUE"),
    "negative": ("kitchen dishes=-1", "dishes=-1", "at least 0"),
    "no cooks": ("kitchen cooks=0", "cooks=0", "from 1 to 1000"),
    "too many diners": ("kitchen diners=1000000000", "diners=1000000000", "from 1 to 1000"),
    "no speed": ("kitchen speed=0", "speed=0.0", "from 0.001"),
    "no number at all": ("kitchen wave=nan", "wave=nan", "at least 0"),
    "more than all": ("kitchen spill=1.5", "spill=1.5", "from 0 to 1"),
    "no folder": ("checksum root=FOLDER/none output=FOLDER/sums", "root=", "is not a folder"),
    "no place to write": ("checksum root=FOLDER output=FOLDER/none/sums", "output=", "No such file or directory"),
    "a folder to write to": ("checksum root=FOLDER output=FOLDER", "output=", "Is a directory"),
    # options
    "no target": ("", "TARGET", "conveyor run --help"),
    "unknown option": ("kitchen --consumer 3", "--consumer", "did you mean --consumers?", "conveyor run --help"),
    "option without a value": ("kitchen --consumers", "--consumers", "expected one argument"),
    "no consumers": ("kitchen --consumers 0", "--consumers: '0'", "a whole number from 1 to 1000"),
    "negative consumers": ("kitchen --consumers -3", "--consumers: '-3'", "from 1 to 1000"),
    "far too many consumers": ("kitchen --consumers 1000000000", "--consumers: '1000000000'", "from 1 to 1000"),
    "no producers": ("kitchen --producers 0", "--producers: '0'", "from 1 to 1000"),
    "producers that are fixed": ("FOLDER/one.py --producers 3", "number of producers is fixed", "--producers"),
    "negative size": ("kitchen --maxsize -1", "--maxsize: '-1'", "from 0 to 2147483647"),
    "too large a size": ("kitchen --maxsize 2147483648", "--maxsize", "from 0 to 2147483647"),
    "unknown queue": ("kitchen --queue fifo", "--queue: 'fifo'", "joinable, sentinel"),
    "no seconds": ("kitchen --drain-timeout soon", "--drain-timeout: 'soon'", "seconds"),
    "unknown start method": ("kitchen --start-method fork", "--start-method: 'fork'", "forkserver, spawn"),
    "unknown log format": ("kitchen --log-format xml", "--log-format: 'xml'", "text, json"),
    "address without a port": ("kitchen --metrics localhost", "--metrics: 'localhost'", HOST_PORT),
    "no address": ("kitchen --metrics abc", "--metrics: 'abc'", HOST_PORT),
    "no such port": ("kitchen --metrics 127.0.0.1:70000", "--metrics: '127.0.0.1:70000'", HOST_PORT, "65535"),
    "port that is no number": ("kitchen --metrics 127.0.0.1:http", "--metrics: '127.0.0.1:http'", HOST_PORT),
    "unknown host": ("kitchen --metrics no-such-host.invalid:0", "no-such-host.invalid:0", "--metrics"),
    # what the pipeline itself refuses
    "consumer that cannot travel": ("FOLDER/no_pickle.py", "the consumer", "top level"),
    "producer that cannot travel": ("FOLDER/no_pickle_producer.py", "producer producer-1", "top level"),
    "no producer in it": ("FOLDER/no_producers.py", "producers: []", "Producer(...)"),
    "two of one name": ("FOLDER/same_names.py", "name of its own", ": a"),
    "a producer with a consumer's name": ("FOLDER/name_of_a_consumer.py", "name of its own", "consumer-1"),
}
VARIABLES = {
    "CONVEYOR_CONSUMERS": ("none", "a whole number"),
    "CONVEYOR_PRODUCERS": ("0", "from 1 to 1000"),
    "CONVEYOR_QUEUE": ("fifo", "joinable, sentinel"),
    "CONVEYOR_MAXSIZE": ("-1", "from 0"),
    "CONVEYOR_METRICS": ("8000", HOST_PORT),
    "CONVEYOR_DRAIN_TIMEOUT": ("-1", "at least 0"),
    "CONVEYOR_PROGRESS": ("maybe", "yes or no"),
    "CONVEYOR_LOG_FORMAT": ("xml", "text, json"),
    "CONVEYOR_START_METHOD": ("fork", "forkserver, spawn"),
}


def refusal(folder: Path, *arguments: str, **environment: str) -> str:
    """Return the one line that these arguments are refused with."""
    with running(folder, *arguments, **{"CONVEYOR_METRICS": "off"} | environment) as run:
        code = run.wait()
    assert (code, run.lines()) == (2, []), run.said()
    assert run.said().startswith("conveyor: ")
    assert run.said().count("\n") == 1
    assert not (folder / "report.json").exists()
    return run.said()


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_named_in_one_line(tmp_path: Path, what: str) -> None:
    for name, text in MODULES.items():
        (tmp_path / name).write_text(text)
    typed, *expected = WRONG[what]
    said = refusal(tmp_path, *typed.replace("FOLDER", str(tmp_path)).split())
    assert [words for words in expected if words not in said] == [], said


@pytest.mark.parametrize("name", VARIABLES)
def test_a_wrong_variable_is_named(tmp_path: Path, name: str) -> None:
    value, allowed = VARIABLES[name]
    said = refusal(tmp_path, "kitchen", **{name: value})
    assert said.startswith(f"conveyor: {name}: {value!r} is not allowed; give ")
    assert allowed in said


def test_a_taken_port_is_found_before_any_worker_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        arguments = (f"{WORKLOADS}:numbers", f"folder={tmp_path}", "hold=0", "--metrics", address)
        said = refusal(tmp_path, *arguments)
        assert f"cannot serve metrics on {address}: Address already in use" in said
        assert "--metrics" in said
    assert not (tmp_path / "held-by").exists()


@pytest.mark.parametrize("arguments", [(), ("stop",), ("run",), ("status", "now"), ("workloads", "--json")])
def test_a_wrong_command_is_named_in_one_line(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    ended = command(tmp_path, *arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("conveyor: ")
    assert ended.stderr.count("\n") == 1
    assert "--help" in ended.stderr


# -- the report --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "reason"),
    [(".", "Is a directory"), ("none/report", "No such file"), ("file/report", "Not a directory")],
)
def test_a_report_that_cannot_be_written_is_found_before_the_work(tmp_path: Path, place: str, reason: str) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / place
    ended = command(tmp_path, "run", "kitchen", "--report", str(path))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert f"the report {path} cannot be written: {reason}" in ended.stderr


def test_a_run_that_does_not_start_leaves_an_older_report_as_it_was(tmp_path: Path) -> None:
    report = tmp_path / "report"
    report.write_text("of last week")
    ended = command(tmp_path, "run", "kitchen", "--report", str(report), "speed=0")
    assert ended.returncode == 2
    assert report.read_text() == "of last week"


def test_a_run_that_does_not_start_leaves_no_report(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = command(tmp_path, "run", "kitchen", "--report", str(tmp_path / "report"), "--metrics", address)
    assert ended.returncode == 2
    assert not (tmp_path / "report").exists()


def test_a_report_that_cannot_be_written_after_all_is_said_so(tmp_path: Path) -> None:
    ended = command(tmp_path, "run", "kitchen", "speed=100", "--report", "/dev/full")
    assert ended.returncode == 1
    assert len(ended.stdout.splitlines()) == 10
    assert ended.stderr.endswith("conveyor: the report /dev/full cannot be written: No space left on device\n")
