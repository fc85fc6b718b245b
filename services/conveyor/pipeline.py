"""WHAT RUNS: producers, a queue, consumers. A `Pipeline` is a description; `run()` puts the parts together.

Called by users and by the command line. Everything is checked before the first process starts.
"""

from __future__ import annotations

import atexit
import collections
import contextlib
import contextvars
import functools
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Unpack

from conveyor import logs, standard_input, system_limits
from conveyor.completion import is_asynchronous, why_never_done
from conveyor.errors import ConfigurationError
from conveyor.feeding import FeedSlot
from conveyor.ledger import Ledger
from conveyor.loop import Loop
from conveyor.processes import Starter
from conveyor.queues import DEFAULT_KIND, KINDS
from conveyor.queues.retries import Retries
from conveyor.queues.seam import TaskQueue
from conveyor.queues.setup import Setup
from conveyor.recycling import Limits
from conveyor.report import Report
from conveyor.results import Inbox, Results
from conveyor.roster import Roster
from conveyor.scaling import Bounds
from conveyor.sealing import Sealed
from conveyor.settings import MAX_MAXSIZE, MAX_WORKERS, RunOptions, Settings, of_options
from conveyor.slot import Slot
from conveyor.snapshot import Role
from conveyor.supervisor import Plan, Supervisor
from conveyor.worker import Consume, Produce

if TYPE_CHECKING:
    from conveyor.spool.folder import Spool
    from conveyor.spool.settling import Restored

log = logging.getLogger(__name__)

EXIT_SECONDS = 2.0  # for runs to end in order when the program does; after that the kernel ends their workers
_at_work: set[StopRequests] = set()  # the runs of this process
_watched: list[bool] = []  # one entry once the program's exit and forks are watched

RESUMES = ("skip", "position", "anew")
Attachment = Callable[[Supervisor, Loop], AbstractContextManager[object]]
"""Something that watches a run from beside it: entered before the first worker starts, left after the last."""


class Producer:
    """An iterable factory: `function(*args, **kwargs)` is called in a process of its own; what it yields are tasks.

    `name` is the worker slot's. `may_restart` says that the function may be called again after its process died.
    `resume` says how it goes on then, and at the next start of a run with a spool, after so many tasks were put:

    - "skip": it yields the same tasks each time; those that were put are passed over. The default.
    - "position": it is called with `position=N` as well, the number of tasks that were put; 0 at first.
    - "anew": it is called as if nothing had been put. The default with `may_restart`.
    """

    def __init__(
        self,
        function: Callable[..., Iterable[object]],
        *args: object,
        name: str | None = None,
        may_restart: bool = False,
        resume: Literal["skip", "position", "anew"] | None = None,
        **kwargs: object,
    ) -> None:
        if not callable(function):
            raise ConfigurationError(f"a producer must be a function that yields tasks, not {function!r}")
        if is_asynchronous(function):
            raise ConfigurationError(
                f"a producer must be a function that yields tasks, not the asynchronous {_name_of(function)}; give a "
                "generator function without async"
            )
        if name is not None and not isinstance(name, str):
            raise ConfigurationError(f"a producer's name must be a text, not {name!r}")
        if resume not in (None, *RESUMES):
            raise ConfigurationError(
                f"a producer's resume: {resume!r} is not allowed; give one of {', '.join(RESUMES)}"
            )
        self.resume = resume or ("anew" if may_restart else "skip")
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.name = name
        self.may_restart = may_restart


class Feed(Producer):
    """A producer that is an iterable of this process, and stays in it."""

    def __init__(self, iterable: Iterable[object], name: str) -> None:
        super().__init__(iter, name=name)
        self.iterable = iterable
        self.context = contextvars.copy_context()
        """The caller's: the thread that goes through the iterable has none of its own."""


@dataclass(frozen=True, slots=True)
class Functions:
    """What the workers of a pipeline call, ready to be sent to them."""

    producers: Sequence[Sealed[Callable[..., Iterable[object]]] | None]
    """None for one that stays in this process."""
    consumer: Sealed[Callable[[Any], object]]


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """Producers that make tasks, a queue that carries them, consumers that do them.

    `consumer` is called once for each task. `consumers` is the number of its processes: by default the CPUs
    that may be used; or a pair (least, most), between which it follows the backlog. `maxsize` bounds
    the waiting tasks; 0 means no bound. `consumer_name` names the nth
    consumer slot, counted from 1. Raises `ConfigurationError` for what cannot run.
    """

    producers: Sequence[Producer]
    consumer: Callable[[Any], object]
    consumers: int | tuple[int, int] | None = None
    maxsize: int = 1000
    queue: str = DEFAULT_KIND
    name: str = "pipeline"
    consumer_name: Callable[[int], str] = "consumer-{}".format

    def __post_init__(self) -> None:
        if not isinstance(self.producers, Iterable):
            raise ConfigurationError(f"producers: {self.producers!r} is not allowed; give a list of Producer(...)")
        object.__setattr__(self, "producers", list(self.producers))  # a generator would be empty after one look
        if not self.producers or not all(isinstance(producer, Producer) for producer in self.producers):
            raise ConfigurationError(f"producers: {self.producers!r} is not allowed; give a list of Producer(...)")
        if not callable(self.consumer):
            raise ConfigurationError(f"consumer: {self.consumer!r} is not a function")
        if (reason := why_never_done(self.consumer)) is not None:
            raise ConfigurationError(f"consumer: {_name_of(self.consumer)} {reason}")
        if not _is_number_or_range(self.consumers):
            raise ConfigurationError(
                f"consumers: {self.consumers!r} is not allowed; give a number from 1 to {MAX_WORKERS}, or two of them, "
                "the least and the most"
            )
        if len(self.producers) > MAX_WORKERS:
            raise ConfigurationError(f"{len(self.producers)} producers are not allowed; give at most {MAX_WORKERS}")
        if not isinstance(self.maxsize, int) or not 0 <= self.maxsize <= MAX_MAXSIZE:
            raise ConfigurationError(
                f"maxsize: {self.maxsize!r} is not allowed; give a number from 0 (no bound) to {MAX_MAXSIZE}"
            )
        if self.queue not in KINDS:
            raise ConfigurationError(f"queue: {self.queue!r} is not allowed; give one of {', '.join(KINDS)}")
        if self._bounds.least != self._bounds.most and not KINDS[self.queue].can_be_steered:
            raise ConfigurationError(
                f"consumers: {self._bounds} is not allowed with the queue {self.queue!r}, whose consumers are a fixed "
                "number; give one number, or the queue 'leased'"
            )
        names = [*self._producer_names(), *self._consumer_names()]
        if odd := [name for name in names if not name or not name.isprintable()]:
            raise ConfigurationError(f"a worker cannot be called {odd[0]!r}; give a name that can be printed")
        if twice := {name for name, number in collections.Counter(names).items() if number > 1}:
            raise ConfigurationError(f"each worker needs a name of its own; twice there: {', '.join(sorted(twice))}")

    def run(self, **options: Unpack[RunOptions]) -> Report:
        """Do all the work and report on it.

        `metrics` is HOST:PORT, or off (the default). A task is given up once it was in hand at `max_attempts` deaths
        (3); a consumer longer than `task_timeout` seconds in one task is killed, which is one of these. A consumer
        process is replaced after `max_tasks_per_worker` tasks, or once it has grown to `max_memory_per_worker` bytes.
        SIGTERM or SIGINT drains for at most `drain_timeout` seconds (8), a second one stops at once. All options are in
        `conveyor.settings.RunOptions`, and mean what those of the command line mean.

        Raises `ConfigurationError` before any worker starts: a function that cannot be sent to a process, a port that
        is taken. A signal that stopped the run is delivered again after it, to the handler that the program had: so
        SIGINT raises `KeyboardInterrupt`.
        """
        stops = StopRequests()
        try:
            return self._run(of_options(options), stops=stops)
        finally:
            stops.deliver_again()

    def results(self, **options: Unpack[RunOptions]) -> Results:
        """Do all the work in the background, and return an iterator over what the consumers return, as it comes.

        It takes the options that `run` takes. Tasks
        are pulled and done only as fast as results are read. A killed worker costs no result, and repeats none.
        Raises `ConfigurationError`, also for another queue than `leased`, which carry no results.
        """
        if self.queue != "leased":
            raise ConfigurationError(f"queue: {self.queue!r} carries no results; give 'leased'")
        settings, functions = of_options(options), self._functions()
        inbox, stops = Inbox(), StopRequests()
        return Results(lambda: self._run(settings, inbox, stops, functions), inbox, stops.now)

    def _run(
        self,
        settings: Settings,
        inbox: Inbox | None = None,
        stops: StopRequests | None = None,
        functions: Functions | None = None,
    ) -> Report:
        attachments: list[Attachment] = []
        if settings.metrics is not None:
            # Imported only where it is used: it costs more than the rest of the package together.
            from conveyor.exporter import serving

            attachments.append(serving(settings.metrics, allowed_hosts=settings.allowed_hosts))
        # A script that has not set up logging is shown what happens, fields and all, on standard error.
        silent = not logging.getLogger("conveyor").hasHandlers()
        with logs.handled("text") if silent else contextlib.nullcontext(), system_limits.told():
            report = self.run_with(settings, attachments, inbox=inbox, stops=stops, functions=functions)
            if stops is not None and stops.signals:  # one of which may end the program, which then sees no report
                told = logs.fields(ending=report.ending, processed=report.processed, unfinished=report.unfinished)
                log.info("run ended", extra=told)
            return report

    def adapted(self, settings: Settings) -> Pipeline:
        """Return this pipeline with what the settings say about it."""
        wanted = {"consumers": settings.consumers, "queue": settings.queue, "maxsize": settings.maxsize}
        return replace(self, **{name: value for name, value in wanted.items() if value is not None})  # type: ignore[arg-type]

    def run_with(
        self,
        settings: Settings,
        attachments: Sequence[Attachment],
        show_output: Callable[[str], None] | None = None,
        inbox: Inbox | None = None,
        stops: StopRequests | None = None,
        functions: Functions | None = None,
    ) -> Report:
        """Run with everything the command line can say.

        `show_output` takes the lines that workers print, `inbox` the results; `stops` can be told to end the run.
        `functions` are those of this pipeline, where they have been made ready before.
        """
        stops = stops or StopRequests()
        functions = functions or self._functions()
        self._check_queue(settings, inbox)
        with ExitStack() as stack:
            stack.enter_context(stops.at_exit())
            loop = stack.enter_context(contextlib.closing(Loop()))
            stack.enter_context(_stop_signals(loop, stops))  # before all else, so that it is undone after all else
            # Before the fork server, which inherits it.
            stack.enter_context(system_limits.raised(len(self.producers) + self._bounds.most))
            starter = stack.enter_context(contextlib.closing(Starter(settings.start_method, self._modules())))
            spool = _spool(settings, stack)
            restored = self._restored(spool) if spool is not None else None
            ledger = Ledger(self._ledger_rows()) if spool is None else spool.ledger
            queue: TaskQueue = KINDS[self.queue](
                Setup(
                    capacity=self.maxsize,
                    context=starter.context,
                    rows=ledger.rows,
                    loop=loop,
                    producers=len(self.producers),
                    max_attempts=settings.max_attempts,
                    retries=Retries(settings.retries, settings.retry_delay_seconds),
                    name=self._slot_name,
                    results=inbox,
                    spool=spool,
                    restored=restored,
                )
            )
            stack.callback(queue.dispose)
            if inbox is not None:
                inbox.on_room = functools.partial(loop.call_soon, queue.notice_room)
                stack.callback(inbox.close)
            plan = self._plan(settings, functions, queue, ledger, starter, show_output, inbox, restored)
            supervisor = Supervisor(plan, loop)
            for attach in attachments:
                stack.enter_context(attach(supervisor, loop))
            stops.tell(supervisor)
            return Report.of(supervisor.run())

    def _plan(
        self,
        settings: Settings,
        functions: Functions,
        queue: TaskQueue,
        ledger: Ledger,
        starter: Starter,
        show_output: Callable[[str], None] | None,
        inbox: Inbox | None,
        restored: Restored | None,
    ) -> Plan:
        slots = [
            FeedSlot(name, producer.iterable, producer.context, queue, ledger, index, inbox)
            if isinstance(producer, Feed) and inbox is not None
            else Slot(
                name=name,
                role=Role.PRODUCER,
                work=functools.partial(
                    _produce, producer, functions.producers[index], queue, ledger, len(self.producers) == 1
                ),
                queue=queue,
                ledger=ledger,
                index=index,
                may_restart=producer.may_restart,
            )
            for index, (name, producer) in enumerate(zip(self._producer_names(), self.producers, strict=True))
        ]
        limits = Limits(settings.max_tasks_per_worker, settings.max_memory_per_worker)
        first = len(slots) - 1

        def new_consumer(number: int) -> Slot:
            return Slot(
                name=self.consumer_name(number),
                role=Role.CONSUMER,
                work=functools.partial(_consume, functions.consumer, queue, inbox is not None, limits),
                queue=queue,
                ledger=ledger,
                index=first + number,
                may_restart=True,
            )

        slots += [new_consumer(number) for number in range(1, self._bounds.least + 1)]
        if restored is not None:
            slots += self._former(restored, slots, new_consumer, queue, ledger)
        return Plan(
            name=self.name,
            roster=Roster(slots, counts_puts=not queue.can_break),
            queue=queue,
            ledger=ledger,
            starter=starter,
            drain_timeout_seconds=settings.drain_timeout_seconds,
            show_output=show_output,
            consumers=self._bounds,
            new_consumer=new_consumer,
            task_timeout_seconds=settings.task_timeout_seconds,
        )

    def _ledger_rows(self) -> int:
        """Return for how many slots there is room: if their number may change, for as many as there may ever be.

        Rows that are not used cost next to nothing: the memory is made when it is written to.
        """
        consumers = MAX_WORKERS if KINDS[self.queue].can_be_steered else self._bounds.most
        return len(self.producers) + consumers

    @property
    def _bounds(self) -> Bounds:
        return Bounds.of(self.consumers)

    def _restored(self, spool: Spool) -> Restored:
        """Return what an earlier start left in the spool. Raises `ConfigurationError` if it is of other producers."""
        from conveyor.spool.fingerprint import of_producer

        prints = [
            of_producer(name, p.function, p.args, p.kwargs, is_anew=p.resume == "anew")
            for name, p in zip(self._producer_names(), self.producers, strict=True)
        ]
        return spool.begin(self.name, self._places(), self._ledger_rows(), prints)

    def _producer_names(self) -> list[str]:
        return [producer.name or f"producer-{n}" for n, producer in enumerate(self.producers, start=1)]

    def _consumer_names(self) -> list[str]:
        return [self.consumer_name(n) for n in range(1, self._bounds.most + 1)]

    def _places(self) -> dict[str, int]:
        """Return the rows of all slots that there may be, by their names."""
        consumers = map(self.consumer_name, range(1, MAX_WORKERS + 1))
        return {name: row for row, name in enumerate([*self._producer_names(), *consumers])}

    def _former(
        self,
        restored: Restored,
        slots: Sequence[Slot],
        new_consumer: Callable[[int], Slot],
        queue: TaskQueue,
        ledger: Ledger,
    ) -> list[Slot]:
        """Return slots of an earlier start of the run that hold no process now, for what was counted in them.

        Those among the present ones that had finished their work have it finished.
        """
        known = {slot.name: slot for slot in slots}
        producers, former = len(self.producers), list[Slot]()
        for was in restored.slots:
            if was.name in known:
                known[was.name].finished = was.is_finished
            elif was.row >= self._ledger_rows():  # under a name that there is no more
                former.append(Slot(was.name, Role(was.role), _no_work, queue, ledger, was.row, may_restart=False))
        last = max((was.row - producers + 1 for was in restored.slots if was.row < self._ledger_rows()), default=0)
        former = [*map(new_consumer, range(self._bounds.least + 1, last + 1)), *former]
        for slot in former:
            slot.retire()
        return former

    def _slot_name(self, row: int) -> str:
        names = self._producer_names()
        return names[row] if row < len(names) else self.consumer_name(row - len(names) + 1)

    def _modules(self) -> list[str]:
        """The modules that hold the workload's functions, for the fork server to import."""
        functions = [self.consumer, *(producer.function for producer in self.producers)]
        names = {getattr(function, "__module__", None) or type(function).__module__ for function in functions}
        return sorted(names - {"__main__", "builtins"})

    def _check_queue(self, settings: Settings, inbox: Inbox | None) -> None:
        """Raise `ConfigurationError` for what this queue cannot do."""
        if self.queue != "leased" and (settings.retries or settings.spool is not None):
            option = "retries" if settings.retries else "spool"
            raise ConfigurationError(f"{option}: not with the queue {self.queue!r}; give 'leased'")
        if inbox is not None and settings.spool is not None:
            raise ConfigurationError("spool: not with results, which would be lost with this process; leave it out")

    def _functions(self) -> Functions:
        """Return what the workers call. Raises `ConfigurationError` if it cannot be sent to them."""
        producers: list[Sealed[Callable[..., Iterable[object]]] | None] = [
            None
            if isinstance(producer, Feed)
            else Sealed(f"producer {name}", functools.partial(producer.function, *producer.args, **producer.kwargs))
            for name, producer in zip(self._producer_names(), self.producers, strict=True)
        ]
        return Functions(producers, Sealed("the consumer", self.consumer))


def _spool(settings: Settings, stack: ExitStack) -> Spool | None:
    """Return the spool that the settings name, open until the end of the run."""
    if settings.spool is None:
        return None
    # Imported only where it is used: SQLite takes as long to import as the rest of a worker.
    from conveyor.spool.folder import Spool

    return stack.enter_context(contextlib.closing(Spool(settings.spool, settings.spool_sync)))


def _no_work(row: int) -> NoReturn:
    raise NotImplementedError("a slot of a former run gets no process")


def _produce(
    producer: Producer,
    function: Sealed[Callable[..., Iterable[object]]] | None,
    queue: TaskQueue,
    ledger: Ledger,
    is_alone: bool,
    slot: int,
) -> Produce:
    assert function is not None
    put = ledger.rows[slot].read(0).put
    return Produce(
        function=function,
        outlet=queue.outlet(slot),
        kwargs={"position": put} if producer.resume == "position" else {},
        skip=put if producer.resume == "skip" else 0,
        input=standard_input.shared_with_workers() if is_alone else None,
    )


def _consume(
    function: Sealed[Callable[[Any], object]], queue: TaskQueue, keeps_results: bool, limits: Limits, slot: int
) -> Consume:
    return Consume(function, queue.intake(slot), keeps_results, limits)


def _name_of(function: object) -> str:
    return str(getattr(function, "__qualname__", None) or repr(function))


def _is_number_or_range(consumers: object) -> bool:
    """Return whether this can be the number of consumers; None can."""
    if consumers is None:
        return True
    match consumers if isinstance(consumers, tuple) else (consumers, consumers):
        case int(least), int(most):
            return 1 <= least <= most <= MAX_WORKERS
    return False


class StopRequests:
    """Passes SIGTERM and SIGINT on to the supervisor, those too that came before there was one."""

    def __init__(self) -> None:
        self._early = 0
        self._is_dismissed = False
        self._supervisor: Supervisor | None = None
        self.signals: list[int] = []
        self._is_over = threading.Event()

    def on_signal(self, signum: int, frame: FrameType | None) -> None:
        self.signals.append(signum)
        self._request()

    def _request(self) -> None:
        if self._supervisor is None:
            self._early += 1
        else:
            self._supervisor.request_stop()

    def now(self) -> None:
        """Stop the run at once, as its caller wants no more of it. Safe from any thread."""
        self._is_dismissed = True
        if self._supervisor is not None:
            self._supervisor.dismiss()

    def deliver_again(self) -> None:
        """Send the signals that stopped the run to the handlers that were there before it."""
        for number in dict.fromkeys(self.signals):
            signal.raise_signal(number)

    @contextlib.contextmanager
    def at_exit(self) -> Iterator[None]:
        """Stop the run at the end of the program, should that come first."""
        if not _watched:
            _watched.append(True)
            # After multiprocessing's, which is imported by now: so it is called before that.
            atexit.register(_stop_all)
            os.register_at_fork(after_in_child=_at_work.clear)
        _at_work.add(self)
        try:
            yield
        finally:
            _at_work.discard(self)
            self._is_over.set()

    def tell(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        if self._is_dismissed:
            supervisor.dismiss()
        for _ in range(self._early):
            supervisor.request_stop()


def _stop_all() -> None:
    """Stop every run of this process, and wait for the end of its workers. At the program's exit."""
    runs = list(_at_work)
    for stops in runs:
        stops.now()
    until = time.monotonic() + EXIT_SECONDS
    for stops in runs:
        stops._is_over.wait(max(0.0, until - time.monotonic()))


@contextlib.contextmanager
def _stop_signals(loop: Loop, requests: StopRequests) -> Iterator[None]:
    """Have SIGTERM, SIGINT and SIGHUP stop the run. Python lets only the main thread do that; others go without."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    obeyed = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # `nohup`: the run is to outlive its terminal
        obeyed.remove(signal.SIGHUP)
    before = {number: signal.signal(number, requests.on_signal) for number in obeyed}
    wakeup_before = signal.set_wakeup_fd(loop.wakeup_descriptor, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup_before)
        for number, handler in before.items():
            signal.signal(number, handler)
