"""Conveyor: the producer-consumer model across processes, where everybody can see it.

    producer ──▶┐                                   ┌──▶ consumer ──▶ your function
    producer ──▶│  queue: leased, joinable, sentinel│──▶ consumer
                └───────────────────────────────────┘
      each worker writes its row ▶ ledger (shared memory) ◀ exporter reads at each scrape ▶ Prometheus

    supervisor (the main process, one loop): starts the workers, restarts the dead, knows the end

The map of the package, from the top; a module imports only what stands below it:

    cli  targets  top/  live  asking  control  how a run is asked for, seen and answers
    steering  sockets  exporter/               how it is steered; how others see it
    applying  pipeline  results  report        what runs, and what it came to
    picture  lineup  obituaries  wording       how that is drawn and told
    supervisor  crew  roster  slot  feeding    who watches
    scaling  timekeeper  overtime
    restarts  stall  failures  loop
    worker  producing  consuming  messages     who works
    queues/  dropin/  bench/                   what carries; for others; how fast
    spool/                                     what outlives everything
    ledger  snapshot  processes  descriptors   what is counted, and what it needs
    settings  logs  output  wording  errors    what everybody needs
    early_signals                              what is heard before all of this is imported

Nothing happens when a module is imported, and none is before it is needed: the public names below are found when they
are first used, so that a program that only mentions Conveyor does not pay for it.
"""

from __future__ import annotations

TYPE_CHECKING = False  # by which type checkers know it; to import `typing` takes longer than all that is done here
if TYPE_CHECKING:
    from conveyor.applying import imap_unordered
    from conveyor.dropin.exchange import ShutDown
    from conveyor.dropin.queue import JoinableQueue, Queue
    from conveyor.errors import (
        ConfigurationError,
        ConveyorError,
        QueueLostError,
        RemoteTraceback,
        RunBrokenError,
        TaskDiedError,
        TaskFailedError,
        TaskNotPicklableError,
        WorkloadError,
    )
    from conveyor.pipeline import Pipeline, Producer
    from conveyor.report import ExitCode, Report
    from conveyor.results import Results

__all__ = [
    "ConfigurationError",
    "ConveyorError",
    "ExitCode",
    "JoinableQueue",
    "Pipeline",
    "Producer",
    "Queue",
    "QueueLostError",
    "RemoteTraceback",
    "Report",
    "Results",
    "RunBrokenError",
    "ShutDown",
    "TaskDiedError",
    "TaskFailedError",
    "TaskNotPicklableError",
    "WorkloadError",
    "imap_unordered",
]
__version__ = "0.1.0"

_HOMES = {  # of those that are not in `errors`
    "JoinableQueue": "dropin.queue",
    "Queue": "dropin.queue",
    "ShutDown": "dropin.exchange",
    "imap_unordered": "applying",
    "Pipeline": "pipeline",
    "Producer": "pipeline",
    "ExitCode": "report",
    "Report": "report",
    "Results": "results",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib  # here, as everything is that the command line need not wait for before it hears signals

    value = globals()[name] = getattr(importlib.import_module(f"conveyor.{_HOMES.get(name, 'errors')}"), name)
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
