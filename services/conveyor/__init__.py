"""Conveyor: the producer-consumer model across processes, where everybody can see it.

    producer ──▶┐                                   ┌──▶ consumer ──▶ your function
    producer ──▶│  queue: sentinel or joinable      │──▶ consumer
                └───────────────────────────────────┘
      each worker writes its row ▶ ledger (shared memory) ◀ exporter reads at each scrape ▶ Prometheus

    supervisor (the main process, one loop): starts the workers, restarts the dead, knows the end

The map of the package, from the top; a module imports only what stands below it:

    cli  targets  live  control  exporter/     how a run is asked for, steered and seen
    pipeline  report                           what runs, and what it came to
    supervisor  roster  slot  restarts         who watches
    stall  failures  loop
    worker  messages                           who works
    queues/                                    what carries
    ledger  snapshot  processes  descriptors   what is counted, and what it needs
    settings  logs  errors                     what everybody needs

Nothing happens when a module is imported.
"""

from conveyor.errors import (
    ConfigurationError,
    ConveyorError,
    RemoteTraceback,
    RunBrokenError,
    TaskDiedError,
    TaskFailedError,
    TaskNotPicklableError,
    WorkloadError,
)
from conveyor.imap import imap_unordered
from conveyor.pipeline import Pipeline, Producer
from conveyor.report import ExitCode, Report

__all__ = [
    "ConfigurationError",
    "ConveyorError",
    "ExitCode",
    "Pipeline",
    "Producer",
    "RemoteTraceback",
    "Report",
    "RunBrokenError",
    "TaskDiedError",
    "TaskFailedError",
    "TaskNotPicklableError",
    "WorkloadError",
    "imap_unordered",
]
__version__ = "0.1.0"
