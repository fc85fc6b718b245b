"""The workloads that ship: real uses of the public API, each a function that returns a `Pipeline`."""

from __future__ import annotations

from typing import Annotated

SHIPPED = {
    "kitchen": "conveyor.workloads.kitchen:kitchen",
    "checksum": "conveyor.workloads.checksum:checksum",
}

PRODUCER_COUNT = "number of producers"
ProducerCount = Annotated[int, PRODUCER_COUNT]
"""Annotates the argument of a workload that `--producers` sets, where that is not called `producers`."""
