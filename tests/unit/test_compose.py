"""What compose.yaml reads from the environment and what .env.example says of it, the images and their versions."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from support.stack import ROOT

COMPOSE = (ROOT / "compose.yaml").read_text()
READ = re.compile(r"\$(?:\$|{(?P<name>\w+)(?:(?P<how>:?-)(?P<default>[^}]*))?}|(?P<bare>\w+))")
OFFERED = re.compile(r"^# ?(?P<name>[A-Z][A-Z0-9_]*)=(?P<default>.*)$", re.MULTILINE)


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE)["services"]
    return found


def read_by_compose() -> Iterator[tuple[str, str | None]]:
    """Yield each variable that compose.yaml reads, with its default."""
    for found in READ.finditer(COMPOSE):
        if name := found["name"] or found["bare"]:
            yield name, found["default"]


def test_the_example_of_an_environment_names_each_variable_once_with_its_default() -> None:
    offered = OFFERED.findall((ROOT / ".env.example").read_text())
    assert sorted(offered) == sorted(set(read_by_compose()))


def test_the_example_changes_nothing_where_it_is_copied_as_it_is() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == []


def test_a_file_of_ones_own_environment_is_not_committed() -> None:
    assert ".env" in (ROOT / ".gitignore").read_text().splitlines()


@pytest.mark.parametrize("service", services())
def test_the_version_of_each_image_is_a_full_one_that_can_be_chosen(service: str) -> None:
    assert re.search(r":v?\$\{" + service.upper() + r"_VERSION:-\d+\.\d+\.\d+\}$", services()[service]["image"])


def test_the_image_has_the_version_of_the_package() -> None:
    package = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert dict(read_by_compose())["CONVEYOR_VERSION"] == package
