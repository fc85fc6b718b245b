"""Conveyor: the producer-consumer model across processes, where everybody can see it.

    producer ──▶┐                                   ┌──▶ consumer ──▶ your function
    producer ──▶│  queue: sentinel or joinable      │──▶ consumer
                └───────────────────────────────────┘
      each worker writes its row ▶ ledger (shared memory) ◀ exporter reads at each scrape ▶ Prometheus

    supervisor (the main process, one loop): starts the workers, restarts the dead, knows the end

The map of the package, from the top; a module imports only what stands below it:

    cli  targets  live  control  exporter/     how a run is asked for, steered and seen
    dropin/                                    queues for programs that use multiprocessing's processes
    pipeline  report                           what runs, and what it came to
    supervisor  roster  slot  restarts         who watches
    stall  failures  loop
    worker  messages                           who works
    queues/                                    what carries
    ledger  snapshot  processes  descriptors   what is counted, and what it needs
    settings  logs  errors                     what everybody needs

Nothing happens when a module is imported.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conveyor.dropin.exchange import ShutDown
    from conveyor.dropin.queue import JoinableQueue, Queue
    from conveyor.errors import ConfigurationError, ConveyorError, QueueLostError, TaskNotPicklableError, WorkloadError
    from conveyor.pipeline import Pipeline, Producer
    from conveyor.report import ExitCode, Report

__all__ = [
    "ConfigurationError",
    "ConveyorError",
    "ExitCode",
    "JoinableQueue",
    "Pipeline",
    "Producer",
    "Queue",
    "QueueLostError",
    "Report",
    "ShutDown",
    "TaskNotPicklableError",
    "WorkloadError",
]
__version__ = "0.1.0"

_HOMES = {
    "ConfigurationError": "errors",
    "ConveyorError": "errors",
    "ExitCode": "report",
    "JoinableQueue": "dropin.queue",
    "Pipeline": "pipeline",
    "Producer": "pipeline",
    "Queue": "dropin.queue",
    "QueueLostError": "errors",
    "Report": "report",
    "ShutDown": "dropin.exchange",
    "TaskNotPicklableError": "errors",
    "WorkloadError": "errors",
}


def __getattr__(name: str) -> object:
    """Import what is public on its first use: a program that needs only a queue, or its broker, waits for no more."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
