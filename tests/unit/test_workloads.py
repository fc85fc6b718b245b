"""The parts of the workloads that ship, called directly; what they do in a run is in the integration tests."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from conveyor.errors import WorkloadError
from conveyor.workloads.checksum import Batch, FilesNotReadError, Hasher, checksum, find, find_batches, line, sha256
from conveyor.workloads.kitchen import Diner, SpilledError, cook, kitchen

MADE = "{food} #{number} by {cook}"

# -- checksum ----------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> bytes:
    return os.fsencode(tmp_path)


def make(folder: bytes, name: bytes, content: bytes = b"") -> bytes:
    path = folder + b"/" + name
    Path(os.fsdecode(path)).write_bytes(content)
    return path


@pytest.mark.parametrize(
    "name", [b"a", b"a b", b"a\nb", b"a\rb", b"a\\b", b"\\n", b"\r\n\\", b"\xff\xe9", "包子".encode()]
)
def test_a_line_is_that_of_sha256sum(folder: bytes, name: bytes) -> None:
    path = make(folder, name, b"some content")
    theirs = subprocess.run([b"sha256sum", path], check=True, capture_output=True).stdout
    assert line(sha256(path), path) == theirs


def test_every_file_is_in_exactly_one_share(folder: bytes) -> None:
    paths = {make(folder, b"%d" % number) for number in range(500)}
    output = make(folder, b"sums")
    found = [batch for share in range(3) for batch in find_batches(folder, output, share, 3)]
    listed = [path for batch in found for path in batch.paths]
    assert len(listed) == len(paths)
    assert set(listed) == paths
    assert all(len(batch.paths) <= 64 for batch in found)


def test_large_files_travel_alone(folder: bytes) -> None:
    for number in range(3):
        path = make(folder, b"%d" % number)
        os.truncate(path, 5 << 20)
    assert [len(batch.paths) for batch in find_batches(folder, make(folder, b"sums"), 0, 1)] == [1, 1, 1]


def test_folders_may_be_nested_deeper_than_python_can_call(folder: bytes) -> None:
    folders = [folder + b"/d" * depth for depth in range(1, 1500)]
    for nested in folders:
        os.mkdir(nested)  # noqa: PTH102 - a path of bytes
    path = make(folders[-1], b"file")
    assert [path for path, _ in find(folder)] == [path]
    os.unlink(path)  # noqa: PTH108 - all away again: others remove folders by recursion
    for nested in reversed(folders):
        os.rmdir(nested)  # noqa: PTH106


def test_a_file_that_vanishes_while_it_is_listed_is_a_problem_of_its_own(folder: bytes) -> None:
    for name in (b"a", b"b", b"c"):
        make(folder, name)
    finding = find(folder)
    assert next(finding)[0].endswith(b"/a")
    Path(os.fsdecode(folder), "b").unlink()
    path, error = next(finding)
    assert path.endswith(b"/b")
    assert isinstance(error, FileNotFoundError)
    assert next(finding)[0].endswith(b"/c")


def test_what_vanished_or_changed_since_is_reported_and_the_rest_is_hashed(folder: bytes) -> None:
    output = make(folder, b"sums")
    good = [make(folder, b"first", b"1"), make(folder, b"last", b"2")]
    gone, pipe, link, directory = (folder + b"/" + name for name in (b"gone", b"pipe", b"link", b"directory"))
    os.mkfifo(pipe)
    os.symlink(b"first", link)  # noqa: PTH211
    os.mkdir(directory)  # noqa: PTH102
    with pytest.raises(FilesNotReadError) as caught:
        Hasher(output)(Batch([good[0], gone, pipe, link, directory, good[1]], ["/unlisted: Permission denied"]))
    said = str(caught.value)
    assert said.startswith("5 not read: /unlisted: Permission denied; ")
    for path, reason in {
        gone: "No such file or directory",
        pipe: "no regular file any more",
        link: "Too many levels of symbolic links",
        directory: "no regular file any more",
    }.items():
        assert f"{os.fsdecode(path)}: {reason}" in said
    assert Path(os.fsdecode(output)).read_bytes() == b"".join(line(sha256(path), path) for path in good)


def test_a_full_disk_is_an_error(folder: bytes) -> None:
    with pytest.raises(OSError, match="No space left"):
        Hasher(b"/dev/full")(Batch([make(folder, b"file")]))


def test_a_new_run_replaces_the_output_of_the_last(tmp_path: Path) -> None:
    (tmp_path / "sums").write_text("of the last run")
    checksum(tmp_path, tmp_path / "sums")
    assert (tmp_path / "sums").read_text() == ""


@pytest.mark.parametrize("producers", [0, -1, 1001])
def test_a_number_of_listing_processes_has_bounds(tmp_path: Path, producers: int) -> None:
    with pytest.raises(WorkloadError, match=f"producers={producers} .* from 1 to 1000"):
        checksum(tmp_path, tmp_path / "sums", producers)
    assert not (tmp_path / "sums").exists()


# -- kitchen -----------------------------------------------------------------------------------------------


def test_a_cook_numbers_its_dishes_through_all_rounds() -> None:
    cooking = cook("chef-1", "bun", MADE, dishes=2, rounds=2, speed=1e6, wave_seconds=0)
    assert list(cooking) == [f"bun #{number} by chef-1" for number in (1, 2, 3, 4)]


def test_a_cook_of_no_rounds_never_ends() -> None:
    cooking = cook("chef-1", "bun", MADE, dishes=2, rounds=0, speed=1e6, wave_seconds=1)
    assert [next(cooking) for _ in range(5)][-1] == "bun #5 by chef-1"


@pytest.mark.parametrize(
    ("lang", "names"), [("zh", ["张三", "李四", "食客_3"]), ("en", ["zhang-san", "li-si", "diner-3"])]
)
def test_every_diner_has_a_name(lang: str, names: list[str]) -> None:
    pipeline = kitchen(diners=3, lang=lang)  # type: ignore[arg-type]
    assert [pipeline.consumer_name(number) for number in (1, 2, 3)] == names


def test_only_a_kitchen_without_end_may_lose_and_replace_a_cook() -> None:
    assert [producer.may_restart for producer in kitchen(rounds=0).producers] == [True, True]
    assert [producer.may_restart for producer in kitchen(rounds=1).producers] == [False, False]


def test_a_spilled_dish_raises_with_its_words() -> None:
    diner = kitchen(spill=1, speed=1e6).consumer
    assert isinstance(diner, Diner)
    with pytest.raises(SpilledError, match="spilled bun #1"):
        diner("bun #1")
