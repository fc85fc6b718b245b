"""The stack in containers, driven as a user drives it: by `docker compose`, HTTP and Prometheus queries."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import urllib.parse
import urllib.request
import uuid
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


class Stack:
    """One Compose project with a name and ports of its own.

    `override` is a Compose file, as text, that is laid over the one of the folder.
    """

    def __init__(self, services: list[str], override: str = "", folder: Path = ROOT) -> None:
        self.services = services
        self._override = override
        self._folder = folder
        self.ports = {name: _free_port() for name in ("CONVEYOR_PORT", "PROMETHEUS_PORT", "GRAFANA_PORT")}
        self._project = f"conveyor-test-{uuid.uuid4().hex[:8]}"

    def compose(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **{name: str(port) for name, port in self.ports.items()}}
        files = ("--file", "compose.yaml", "--file", "-") if self._override else ()
        done = subprocess.run(
            ["docker", "compose", "--project-name", self._project, *files, *arguments],
            cwd=self._folder, env=environment, input=self._override, capture_output=True, text=True, timeout=600,
            check=False,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{' '.join(arguments)}: {done.stderr[-3000:]}"
        return done

    def container(self, service: str) -> dict[str, Any]:
        """Return what `docker inspect` says of a service's container."""
        name = self.compose("ps", "--all", "--quiet", service).stdout.strip()
        done = subprocess.run(["docker", "inspect", name], capture_output=True, text=True, check=True)
        inspected: dict[str, Any] = json.loads(done.stdout)[0]
        return inspected

    def metrics(self) -> str:
        return _get(f"http://127.0.0.1:{self.ports['CONVEYOR_PORT']}/metrics")

    def prometheus(self, path: str, **parameters: str) -> Any:
        """Return the data of one call of Prometheus's HTTP API."""
        query = urllib.parse.urlencode(parameters)
        answer = json.loads(_get(f"http://127.0.0.1:{self.ports['PROMETHEUS_PORT']}/api/v1/{path}?{query}"))
        assert answer["status"] == "success", answer
        return answer["data"]

    def value(self, expression: str) -> float | None:
        """Return the first value of an instant query."""
        result = self.prometheus("query", query=expression)["result"]
        return float(result[0]["value"][1]) if result else None


def assert_hardened(inspected: dict[str, Any]) -> None:
    """Fail unless a container can do no more than it must."""
    host, config = inspected["HostConfig"], inspected["Config"]
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["Memory"] > 0
    assert host["PidsLimit"] > 0
    assert config["User"].partition(":")[0] not in ("", "0", "root")
    for bindings in host["PortBindings"].values():
        assert {binding["HostIp"] for binding in bindings} == {"127.0.0.1"}


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as response:
        text: str = response.read().decode()
        return text


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
