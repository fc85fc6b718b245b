"""The page at `/` in a real browser: that it keeps itself up to date, and is fit to be read by everybody."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from conveyor.exporter import serving
from conveyor.settings import Address
from conveyor.snapshot import Death, RunStatistics, WorkerState
from support.browser import Browser, Tab, browsing, find_browser
from support.fakes import FakeLoop, FakeRun, make_run, make_slot
from support.runs import Run, running
from support.waiting import wait_for

PICTURES = Path(__file__).parents[2] / "build" / "page"
WIDE, PHONE = 1280, 360
KITCHEN = ("kitchen", "rounds=0", "speed=20", "spill=0.05")

# Every element with words of its own whose colour is too close to what is behind it: the least that WCAG AA allows is
# 4.5. The colours of this page are opaque.
LOW_CONTRAST = """(() => {
  const light = (colour) => {
    const [r, g, b] = colour.match(/[0-9.]+/g).slice(0, 3).map((part) => part / 255)
      .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    return 0.2126 * r + 0.7152 * g + 0.0722 * b
  }
  const behind = (element) => {
    for (; element; element = element.parentElement) {
      const colour = getComputedStyle(element).backgroundColor
      if (!/, 0\\)$/.test(colour)) return colour
    }
  }
  const found = []
  for (const element of document.body.querySelectorAll('*')) {
    const words = [...element.childNodes].filter((node) => node.nodeType === 3 && node.data.trim())
    if (!words.length || !element.checkVisibility() || element.matches('script, style')) continue
    const [low, high] = [light(getComputedStyle(element).color), light(behind(element))].sort((a, b) => a - b)
    const contrast = (high + 0.05) / (low + 0.05)
    if (contrast < 4.5) found.push([words[0].data, contrast])
  }
  return found
})()"""

# Every element that reaches out of the window; the head of the table is cut off where it is not shown.
TOO_WIDE = """[...document.querySelectorAll('body *')]
  .filter((element) => !element.closest('thead') || innerWidth > 960)
  .filter((element) => element.getBoundingClientRect().right > innerWidth)
  .map((element) => [element.outerHTML, element.getBoundingClientRect().right])
"""

# What an update of a page costs the browser's one thread, in milliseconds: the script, and laying it out.
UPDATE_COST = """(async () => {
  const answer = await (await fetch('/', { headers: { Accept: 'application/json' } })).json()
  document.body.offsetHeight
  const began = performance.now()
  show(answer)
  document.body.offsetHeight
  return performance.now() - began
})()"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = find_browser()
    if program is None:
        missing = "no Chromium on this machine; on Debian: apt install chromium"
        if os.environ.get("CONVEYOR_REQUIRE_BROWSER") == "1":
            pytest.fail(missing)
        pytest.skip(missing)
    with browsing(program, tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@contextlib.contextmanager
def tab(
    browser: Browser, url: str, width: int = WIDE, scheme: str = "light", *, runs_scripts: bool = True
) -> Iterator[Tab]:
    """Open a page; it may not complain, ask anything of anybody else, or be wider than its window."""
    tab = Tab(browser, width, 740, scheme, runs_scripts)
    try:
        tab.open(url)
        yield tab
        assert tab.ask("document.documentElement.scrollWidth") == width
        assert {address for address in tab.requests() if not address.startswith("data:")} <= {url}
        # The browser itself says so where a request was not answered.
        assert [said for said in tab.complaints() if "ERR_CONNECTION_REFUSED" not in said] == []
    finally:
        tab.close()


def address(run: Run) -> str:
    """Return the address of a run's page."""
    found = wait_for("the URL", lambda: re.search(r"url=(\S+)/metrics", run.said()))
    assert found is not None
    return f"{found[1]}/"


@contextlib.contextmanager
def shown(run: RunStatistics) -> Iterator[tuple[FakeRun, str]]:
    """Serve a run that is only said to be; return it with its page's address."""
    fake, loop = FakeRun(run), FakeLoop(-600.0)  # it does not get stuck within the time of a test
    with serving(Address("127.0.0.1", 0))(fake, loop) as url:
        yield fake, url.removesuffix("metrics")


def figure(tab: Tab, label: str) -> int:
    """Return the first number of a figure."""
    text = tab.ask(
        f"[...document.querySelectorAll('#figures dt')].find((name) => name.innerText === '{label}')"
        ".nextElementSibling.innerText"
    )
    return int(text.split()[0].replace(",", ""))


def line(tab: Tab, worker: str) -> dict[str, str]:
    """Return what the table says of a worker, by field."""
    words: dict[str, str] = tab.ask(
        "Object.fromEntries([...[...document.querySelectorAll('#workers > tr')]"
        f".find((row) => row.querySelector('th').textContent === '{worker}').querySelectorAll('[data-field]')]"
        ".map((place) => [place.dataset.field, place.textContent]))"
    )
    return words


# -- a real run --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [WIDE, PHONE])
def test_the_figures_of_a_run_change_by_themselves(browser: Browser, tmp_path: Path, width: int) -> None:
    with running(tmp_path, *KITCHEN, "--metrics", "127.0.0.1:0") as run:
        with tab(browser, address(run), width) as page:
            page.ask("window.mark = 'the very same page'")
            before = figure(page, "Processed")
            wait_for("more to be processed", lambda: figure(page, "Processed") > before + 5)
            wait_for(
                "each worker to be shown at work", lambda: page.text("#crowd") and "starting" not in page.text("#crowd")
            )
            assert figure(page, "Live processes") == 4
            assert figure(page, "Queue size") <= figure(page, "Unfinished tasks")
            assert page.text("#phase") == "running"
            pids = {slot.name: str(slot.pid) for slot in run.status().slots}
            assert {name: line(page, name)["pid"] for name in pids} == pids
            wait_for("failures to be shown", lambda: "SpilledError" in page.text("#figures"))
            assert page.ask("window.mark") == "the very same page"
            page.picture(PICTURES / f"running-{width}.png")
        run.process.send_signal(signal.SIGTERM)
        run.wait()


@pytest.mark.parametrize("width", [WIDE, PHONE])
def test_a_killed_worker_is_shown_and_explained(browser: Browser, tmp_path: Path, width: int) -> None:
    with running(tmp_path, *KITCHEN, "--metrics", "127.0.0.1:0") as run:
        with tab(browser, address(run), width, "dark") as page:
            assert not page.ask("document.querySelector('section').checkVisibility()")
            before = wait_for("the worker to be shown", lambda: line(page, "zhang-san")["pid"])
            wait_for("it to be killed in a task", lambda: run.kill_in_task("zhang-san"))
            wait_for("the death to be shown", lambda: "zhang-san" in page.text("#deaths"))
            said = page.text("#deaths")
            assert "SIGKILL" in said
            assert "made by chef-" in said
            assert "attempt 1" in said
            assert "The task is given again." in said
            wait_for("the new process to be shown", lambda: line(page, "zhang-san")["pid"] not in ("", before))
            after = line(page, "zhang-san")
            assert (after["restarts"], after["exit"]) == ("1", "SIGKILL")
            assert line(page, "li-si")["restarts"] == ""
            assert figure(page, "Redelivered") == 1
            page.picture(PICTURES / f"killed-{width}.png")
        run.process.send_signal(signal.SIGTERM)
        run.wait()


@pytest.mark.parametrize(("width", "scheme"), [(WIDE, "dark"), (PHONE, "light")])
def test_a_run_that_has_ended_gives_no_answer_and_the_next_one_is_followed(
    browser: Browser, tmp_path: Path, width: int, scheme: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        metrics = f"127.0.0.1:{free.getsockname()[1]}"
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    with contextlib.ExitStack() as stack:
        with running(first, *KITCHEN, "--metrics", metrics) as run:
            page = stack.enter_context(tab(browser, address(run), width, scheme))
            wait_for("something to be processed", lambda: figure(page, "Processed") > 0)
            run.process.send_signal(signal.SIGTERM)
            assert run.wait() == 0
        wait_for("the end to be noticed", lambda: page.text("#phase") == "no answer")
        assert re.match(r"since \d\d:\d\d:\d\d: the run has ended or cannot be reached\.", page.text("#comment"))
        assert page.ask("document.title") == "no answer – kitchen – Conveyor"
        assert figure(page, "Processed") > 0
        assert page.ask(LOW_CONTRAST) == []
        page.picture(PICTURES / f"ended-{width}.png")
        with running(second, *KITCHEN, "--metrics", metrics) as run:
            wait_for("the next run to be shown", lambda: page.text("#phase") == "running")
            assert page.ask("document.title") == "kitchen – Conveyor"
            pid = str(run.worker("li-si").pid)
            wait_for("its workers to be shown", lambda: line(page, "li-si")["pid"] == pid)
            run.process.send_signal(signal.SIGTERM)
            run.wait()


def test_without_scripts_the_page_is_loaded_again_and_again(browser: Browser) -> None:
    slots = make_slot("producer-1", pid=1, produced=7), make_slot("consumer-1", pid=1, processed=7)
    with shown(make_run(*slots)) as (fake, url), tab(browser, url, runs_scripts=False) as page:
        assert figure(page, "Processed") == 7
        fake.now = make_run(slots[0], dataclasses.replace(slots[1], processed=8))
        wait_for("the page to be loaded again", lambda: figure(page, "Processed") == 8)


# -- runs that are only said to be -------------------------------------------------------------------------


def crowd(size: int, second: int) -> RunStatistics:
    """Return a large run that changes in every line from second to second."""
    states = list(WorkerState)
    slots = [
        make_slot(
            f"consumer-{n}",
            pid=10_000 + n,
            processed=second * (n + 1),
            in_progress=1,
            task_age_seconds=0.1 * second,
            state=states[(n + second) % len(states)],
        )
        for n in range(size)
    ]
    return make_run(*slots, elapsed_seconds=float(second))


def troubled(name: str) -> RunStatistics:
    """Return a run in which everything that can be shown is shown, with this for every name."""
    death = Death(name, -9, 1.7e9, 3.0, True, True, 9 << 30, "Fatal Python error", in_task=True, task=name, attempt=1)
    return make_run(
        make_slot("producer-1", pid=4_194_304, produced=12_345_678, state=WorkerState.BLOCKED),
        make_slot(
            f"consumer {name}", pid=1, processed=9_876_543, failed=1_234_567, in_progress=1, task_age_seconds=99.9
        ),
        *(make_slot(f"consumer-{state}", pid=1, state=state, last_exit_code=-9) for state in WorkerState),
        make_slot("consumer-finished", finished=True, last_exit_code=0),
        make_slot("consumer-down", abandoned=1, last_exit_code=-9),
        name=name,
        trouble=name,
        deaths=(death,) * 7,
        failures={name: 1_234_567},
    )


def test_nothing_that_users_name_runs_as_a_script(browser: Browser) -> None:
    evil = "<img src=x onerror=evil()><script>evil()</script>'\"&lt;</script>"
    with shown(make_run(make_slot("producer-1"))) as (fake, url), tab(browser, url) as page:
        for _ in range(2):  # put there by the script, then by the server
            fake.now = troubled(evil)
            wait_for("the name to be shown", lambda: page.text("h1") == evil)
            assert evil in page.text("#deaths")
            assert line(page, f"consumer {evil}".replace("'", "\\'"))["tasks"] == "9,876,543"
            assert page.ask("document.querySelectorAll('img, body script').length") == 1
            page.open(url)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [WIDE, 1024, 768, PHONE, 320])
def test_everything_can_be_read_on_every_screen(browser: Browser, width: int, scheme: str) -> None:
    with shown(troubled("A-very-long-name-" * 12)) as (_, url), tab(browser, url, width, scheme) as page:
        assert page.ask(LOW_CONTRAST) == []
        assert page.ask(TOO_WIDE) == []
        page.picture(PICTURES / f"troubled-{width}-{scheme}.png")


@pytest.mark.parametrize("width", [WIDE, PHONE])
def test_who_does_not_see_the_page_finds_a_table_and_hears_what_changes(browser: Browser, width: int) -> None:
    with shown(troubled("bakery")) as (_, url), tab(browser, url, width) as page:
        nodes = [node for node in page.tell("Accessibility.getFullAXTree")["nodes"] if not node["ignored"]]
        roles = [node["role"]["value"] for node in nodes]
        assert roles.count("table") == 1
        workers = 4 + len(WorkerState)
        assert roles.count("row") == 1 + workers
        assert roles.count("columnheader") == 11
        assert roles.count("rowheader") == workers
        assert roles.count("status") == 2
        assert {"heading", "main", "banner", "contentinfo", "navigation"} <= set(roles)
        names = [node.get("name", {}).get("value", "") for node in nodes if node["role"]["value"] == "table"]
        assert names[0].startswith("Workers")


def test_a_thousand_workers_do_not_freeze_the_page(browser: Browser) -> None:
    with shown(crowd(1000, 1)) as (fake, url), tab(browser, url) as page:
        costs = []
        for second in range(2, 7):
            fake.now = crowd(1000, second)
            costs.append(page.ask(UPDATE_COST))
            assert line(page, "consumer-999")["tasks"] == f"{second * 1000:,}"
        assert sorted(costs)[2] < 1000, costs  # far more than it takes on any machine that is not overrun
        fake.now = crowd(3, 8)
        wait_for("the others to be gone", lambda: page.ask("document.querySelectorAll('#workers > tr').length") == 3)
