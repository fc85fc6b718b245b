"""The page as a document: whole, safe, and with a place for all that its script is told."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest

from conveyor.exporter.index import document, policy
from conveyor.exporter.overview import Figure, Notice, Overview, Worker, overview
from conveyor.exporter.pages import Pages, Request
from conveyor.exporter.rates import Rates
from conveyor.obituaries import Obituary
from conveyor.snapshot import Death, RunStatistics, SpoolStatistics, WorkerState
from support.fakes import FakeLoop, FakeRun, make_run, make_slot

EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)> & \"quoted\" 'too' $name {name} \udc80 大厨"
LISTS: dict[str, type[Notice | Figure | Obituary | Worker]] = {
    "notices": Notice,
    "figures": Figure,
    "deaths": Obituary,
    "workers": Worker,
}


class Tree(HTMLParser):
    """The elements of a page, and the fields that stand in each list: in its template first, then in its items."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.ids: dict[str, str] = {}
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self.fields: dict[str, list[str]] = {}
        self._list = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        found = dict(attrs)
        if name := found.get("id"):
            self.ids[name] = tag
            self._list = name
        if field := found.get("data-field"):
            self.fields.setdefault(self._list, []).append(field)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def evil_run() -> RunStatistics:
    death = Death(EVIL, -9, 1.7e9, 3.0, True, True, None, EVIL, in_task=True, task=EVIL, attempt=1)
    slots = make_slot("producer-1", pid=1), make_slot("consumer " + EVIL, pid=1, state=WorkerState.BUSY)
    return make_run(*slots, name=EVIL, trouble=EVIL, deaths=(death,), failures={EVIL: 1})


def ill_run() -> RunStatistics:
    run = make_run(make_slot("producer-1", pid=1))
    spool = SpoolStatistics(EVIL, 4096, tasks=0, commits=1, commit_seconds=0.1, trouble=EVIL)
    return dataclasses.replace(run, queue=dataclasses.replace(run.queue, is_paused=True, spool=spool, dead_letters=2))


def seen(run: RunStatistics) -> Overview:
    return overview(run, Rates().since(run), None, None)


@pytest.fixture(params=["evil", "ill", "calm", "empty"])
def run(request: pytest.FixtureRequest) -> RunStatistics:
    runs = {"evil": evil_run(), "ill": ill_run(), "calm": make_run(make_slot("producer-1", pid=1)), "empty": make_run()}
    return runs[request.param]


def test_nothing_that_users_name_becomes_markup() -> None:
    calm = Tree(document(seen(make_run(make_slot("producer-1", pid=1)))))
    evil = Tree(document(seen(evil_run())))
    assert set(evil.tags) == set(calm.tags)
    assert evil.tags.count("script") == 1
    assert not [name for name, _ in evil.attributes if name.startswith("on") or name in ("style", "src")]
    shown = EVIL.encode(errors="backslashreplace").decode()
    assert {shown, f"consumer {shown}", f"{shown} – Conveyor"} <= set(evil.texts)


def test_every_word_in_the_json_is_as_in_the_document(run: RunStatistics) -> None:
    pages = Pages(FakeRun(run), FakeLoop())
    told = json.loads(pages.answer(Request("/", "application/json")).body)
    texts = Tree(pages.answer(Request("/")).body.decode()).texts
    words = [value for name, value in told.items() if isinstance(value, str) and name != "identity"]
    words += [value for name in LISTS for item in told[name] for field, value in item.items() if field != "tone"]
    assert [word for word in words if isinstance(word, str) and word and word not in texts] == []


def test_the_script_finds_a_place_for_all_that_it_is_told(run: RunStatistics) -> None:
    page = Tree(document(seen(run)))
    fields = {field.name for field in dataclasses.fields(Overview)}
    assert fields - {"identity"} <= set(page.ids)
    for name, kind in LISTS.items():
        wanted = sorted({field.name for field in dataclasses.fields(kind)} - {"tone"})
        items = len(getattr(seen(run), name)) + 1
        assert sorted(page.fields[name]) == sorted(wanted * items)


def test_a_list_begins_with_its_template(run: RunStatistics) -> None:
    page = document(seen(run))
    for name in LISTS:
        assert re.search(rf'id="{name}"[^>]*><template><\w+[^>]*>', page)


def test_the_policy_allows_just_this_script_and_this_style() -> None:
    page = document(seen(evil_run()))
    for tag, directive in (("script", "script-src"), ("style", "style-src")):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}';" in policy()
    assert policy().startswith("default-src 'none'; ")
    assert "unsafe" not in policy()
    assert Pages(FakeRun(evil_run()), FakeLoop()).answer(Request("/")).headers[1:] == (
        ("Content-Security-Policy", policy()),
    )


def test_nothing_comes_from_elsewhere() -> None:
    page = document(seen(make_run()))
    assert re.findall(r"https?://[^\"' ]+|@import|url\(", page) == []
    assert re.findall(r"http%3A//[^\"' ]+?%22", page) == ["http%3A//www.w3.org/2000/svg%22"]  # a name, in the icon


def test_without_scripts_the_page_loads_itself_again() -> None:
    page = document(seen(make_run()))
    assert '<noscript><meta http-equiv="refresh" content="2"></noscript>' in page
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in page
    assert "$" not in re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)  # every place is filled


def test_the_deaths_are_hidden_while_there_are_none() -> None:
    assert "<section hidden>" in document(seen(make_run()))
    assert "<section>" in document(seen(evil_run()))
