"""Imports point down: read from the code, not promised by it."""

from __future__ import annotations

import ast
from pathlib import Path

import conveyor

PACKAGE = Path(conveyor.__file__).parent
# From the top; a module may import those of later lines, and of its own line only where they share a name.
LAYERS = [
    ["__main__"],
    ["cli"],
    ["faults"],
    ["bench.command", "bench.workload"],
    ["bench.picture"],
    ["bench.table"],
    ["bench.results", "bench.measures"],
    ["bench.commands", "bench.killing", "bench.rows", "bench.machine"],
    ["bench.watching"],
    ["bench.trial"],
    ["bench.contestants"],
    ["bench.ours", "bench.peers"],
    ["bench.stdlib"],
    ["bench.tasks", "bench.figures", "bench.row"],
    ["bench.marks", "bench.jobs", "bench.sessions"],
    ["bench"],
    ["top.watcher"],
    ["targets", "workloads.kitchen", "workloads.checksum", "live", "control", "asking"],
    ["steering", "sockets"],
    ["deadletters"],
    ["workloads"],
    ["applying"],
    ["pipeline"],
    ["exporter"],
    ["top.page", "top.screen"],
    ["top.charts", "top.ranking"],
    ["top.history", "top.sparkline"],
    ["top.usage"],
    ["top"],
    ["picture"],
    ["lineup", "obituaries"],
    ["feeding"],
    ["results"],
    ["report"],
    ["dropin.queue"],
    ["dropin.launch", "dropin.line", "dropin.packing"],
    ["dropin.broker", "dropin.exchange", "dropin.holds", "dropin.interruption"],
    ["dropin.desk"],
    ["dropin.waiters"],
    ["dropin.recalls"],
    ["dropin.member"],
    ["dropin.stock", "dropin.room"],
    ["dropin.runs"],
    ["dropin.ring", "dropin.talk"],
    ["dropin.page", "dropin.turns"],
    ["dropin"],
    ["supervisor"],
    ["crew", "timekeeper", "starting"],
    ["roster"],
    ["slot", "stall", "overtime"],
    ["worker", "restarts", "loop", "failures"],
    ["producing", "consuming", "sealing", "standard_input", "leaving"],
    ["settings"],
    ["scaling"],
    ["queues", "processes"],
    ["queues.sentinel", "queues.joinable", "queues.leased"],
    ["spool.rest", "queues.backlog"],
    ["queues.setup", "queues.mishaps"],
    ["spool.rest"],
    ["spool.folder"],
    ["spool.settling", "spool.directory"],
    ["spool.store"],
    ["spool.fingerprint"],
    ["spool.recovery"],
    ["spool.leasebook"],
    ["spool"],
    ["queues.stdlib", "queues.leased_ends", "queues.relief", "queues.harvest"],
    ["queues.seam"],
    ["queues.leases", "queues.credit", "queues.effigy", "queues.letters", "queues.memories"],
    ["queues.pace", "queues.retries", "queues.wire", "queues.lines", "queues.arena"],
    ["outcomes", "completion"],
    ["queues.codec"],
    ["interruptions", "recycling"],
    ["fork_server"],
    ["ledger", "snapshot", "messages", "logs", "cpus"],
    ["wording", "output", "early_signals", "system_limits"],
    ["descriptors"],
    ["errors"],
]
# Imports against the order, each inside a function, with its reason.
DELAYED = {
    ("pipeline", "exporter"): "run(metrics=...) serves metrics only where it is asked to",
}


def modules() -> dict[str, Path]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").rstrip(".")
        found[name] = path
    return found


def layer(name: str) -> int | None:
    for number, names in enumerate(LAYERS):
        if name in names or (name.startswith("exporter.") and "exporter" in names):
            return number
    return None


def imports(path: Path) -> set[str]:
    """Return the modules of the package that this one imports."""
    known = modules()
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "conveyor":
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                names.append(full if full.removeprefix("conveyor.") in known else node.module)
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.startswith("conveyor.")]
        for name in names:
            short = name.removeprefix("conveyor").lstrip(".")
            if short in known and short:
                found.add(short)
    return found


def test_every_module_has_its_place() -> None:
    assert {name for name in modules() if name and layer(name) is None} == set()


def test_imports_point_down() -> None:
    wrong = []
    for name, path in modules().items():
        if not name:  # the package itself shows the public names
            continue
        for other in imports(path):
            mine, theirs = layer(name), layer(other)
            if mine is None or theirs is None or (name, other) in DELAYED:
                continue
            same = mine == theirs and name.split(".")[0] == other.split(".")[0]
            if theirs < mine or (theirs == mine and not same):
                wrong.append(f"{name} imports {other}")
    assert wrong == []


def test_nothing_but_the_wiring_imports_the_exporter() -> None:
    users = {name for name, path in modules().items() if any(m.startswith("exporter") for m in imports(path))}
    assert {name for name in users if not name.startswith("exporter")} == {"cli", "pipeline"}


def test_nothing_but_the_command_line_imports_the_benchmark() -> None:
    users = {name for name, path in modules().items() if any(m.startswith("bench") for m in imports(path))}
    assert {name for name in users if not name.startswith("bench")} == {"cli"}
