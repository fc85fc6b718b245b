"""The image as the base of other images: a package more in it, and a pipeline of one's own, as in examples/image."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator

import pytest

from support.stack import ROOT, Stack, assert_hardened
from support.waiting import wait_for

pytestmark = pytest.mark.timeout(600)

FOLDER = ROOT / "examples/image"
INSTALL = "RUN pip install python-slugify==8.0.4\n"
DERIVED = {
    "by the user of the image": INSTALL,
    "by root": f"USER root\n{INSTALL}USER 10001:10001\n",
}


def docker(*arguments: str, given: str = "") -> str:
    """Return what a docker command prints."""
    done = subprocess.run(["docker", *arguments], input=given, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"{' '.join(arguments)}: {done.stderr[-3000:]}"
    return done.stdout


def run(image: str, program: str, *arguments: str) -> str:
    """Return what a program prints in a container of the image, whose root nobody can write to."""
    hardened = ("--rm", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--tmpfs=/tmp")
    return docker("run", *hardened, "--entrypoint", program, image, *arguments)


@pytest.fixture(scope="module")
def base() -> str:
    """The name of Conveyor's image, built."""
    stack = Stack(["conveyor"])
    stack.compose("build", "conveyor")
    return stack.compose("config", "--images", "conveyor").stdout.split()[0]


@pytest.fixture(scope="module", params=DERIVED)
def derived(request: pytest.FixtureRequest, base: str) -> Iterator[str]:
    """An image with a package more, which was installed by one user or another."""
    name = f"{base}-derived"
    docker("build", "--tag", name, "-", given=f"FROM {base}\n{DERIVED[request.param]}")
    yield name
    docker("rmi", name)


@pytest.fixture(scope="module")
def example(base: str) -> Iterator[Stack]:
    """The example, healthy."""
    stack = Stack(["slugs"], folder=FOLDER)
    try:
        stack.compose("up", "--detach", "--build", "--wait", "--wait-timeout", "120")
        yield stack
    finally:
        print(stack.compose("logs", "--no-color", "--tail", "50", check=False).stdout)  # shown beside a failure
        stack.compose("down", "--volumes", "--timeout", "10", "--rmi", "local")


def test_it_has_no_compiler(base: str) -> None:
    look = "import shutil; print([t for t in ('gcc', 'cc', 'make') if shutil.which(t)])"
    assert run(base, "python", "-c", look).strip() == "[]"


@pytest.mark.parametrize("pause_seconds", [0.0, 0.1, 0.3])
def test_a_stop_right_after_the_start_is_heard(base: str, pause_seconds: float) -> None:
    """It is the first process of its container, for which the kernel discards signals that nobody listens to."""
    container = docker("run", "--detach", base, "run", "kitchen", "rounds=0").strip()
    try:
        time.sleep(pause_seconds)  # not for a fact: to hit the start at different moments
        docker("kill", "--signal", "TERM", container)
        look = ("inspect", "--format", "{{.State.Running}} {{.State.ExitCode}}", container)
        wait_for("its end", lambda: docker(*look).split()[0] == "false")
        assert docker(*look).split() == ["false", "0"]
    finally:
        docker("rm", "--force", container)


def test_its_user_cannot_change_what_it_runs(base: str) -> None:
    """What is on the module path and on PATH belongs to root, but for what a derived image may add."""
    look = """
import os, sys
folders = {folder for place in (*sys.path, *os.environ["PATH"].split(":")) if place for folder, _, _ in os.walk(place)}
print(len(folders), sorted(folder for folder in folders if os.access(folder, os.W_OK)))
"""
    number, writable = docker("run", "--rm", "--entrypoint", "python", base, "-c", look).split(" ", 1)
    assert int(number) > 20
    assert writable.strip() == "[]"


def test_what_pip_installs_in_it_is_imported_by_the_run(derived: str) -> None:
    consumes = """
from conveyor import Pipeline, Producer
from slugify import slugify
def titles():
    yield "Crème brûlée"
def show(title):
    print(slugify(title))
def flow() -> Pipeline:
    return Pipeline(producers=[Producer(titles)], consumer=show, consumers=1)
"""
    script = f"cat > /tmp/mine.py <<'END'\n{consumes}\nEND\nconveyor run /tmp/mine.py"
    assert run(derived, "sh", "-c", script).splitlines() == ["creme-brulee"]


def test_the_programs_that_a_package_brings_are_found(derived: str) -> None:
    assert run(derived, "slugify", "Crème brûlée").strip() == "creme-brulee"


def test_a_pipeline_of_ones_own_runs_with_its_own_package(example: Stack) -> None:
    def printed() -> bool:
        return "creme-brulee-3\n" in example.compose("logs", "--no-log-prefix", "slugs").stdout

    wait_for("a slug", printed)


def test_its_metrics_are_reached_from_the_host_without_saying_so(example: Stack) -> None:
    processed = re.compile(r"^conveyor_tasks_processed_total\S+ (\S+)", re.M)
    wait_for("work", lambda: sum(map(float, processed.findall(example.metrics()))) > 3)


def test_it_is_as_hardened_as_the_stack(example: Stack) -> None:
    assert_hardened(example.container("slugs"))


def test_nothing_but_what_is_needed_goes_into_the_image(example: Stack) -> None:
    files = example.compose("exec", "-T", "slugs", "ls", "-A", "/app").stdout.split()
    assert files == ["requirements.txt", "titles.py"]


def test_it_drains_when_it_is_stopped(example: Stack) -> None:
    example.compose("up", "--detach", "--force-recreate", "--wait", "slugs")
    example.compose("stop", "slugs")
    assert example.container("slugs")["State"]["ExitCode"] == 0
    assert "drained" in example.compose("logs", "--no-log-prefix", "slugs").stdout
