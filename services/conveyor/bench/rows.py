"""The rows of the benchmark: what is done, by whom, what is shown, and the goals. All of it is data.

The goals are those of the project's design; ratios are of medians in one run on one machine.
"""

from __future__ import annotations

from conveyor.bench.jobs import Job
from conveyor.bench.row import Figure, Goal, Row

STDLIB_QUEUES = ("JoinableQueue", "Queue")
POOLS = ("Pool", "Pool, chunks", "ProcessPoolExecutor")
PEER_POOLS = ("mpire", "mpire, chunks", "pebble")
OUR_OTHERS = ("conveyor.imap_unordered", "conveyor.JoinableQueue")

RATE = Figure("rate", "tasks", "M/s", 1e-6)
KILO_RATE = Figure("rate", "tasks", "k/s", 1e-3)
GIGABYTES = Figure("bytes_rate", "data", "GB/s", 1e-9)
CPU = Figure("cpu_seconds_a_task", "CPU a task", "µs", 1e6, more_is_better=False)
IDEAL = Figure("share_of_ideal", "of the ideal", "", 1.0)
MAKESPAN = Figure("makespan", "of the ideal time", "×", 1.0, more_is_better=False)
P50 = Figure("p50_seconds", "p50", "µs", 1e6, more_is_better=False)
P99 = Figure("p99_seconds", "p99", "µs", 1e6, more_is_better=False)
P50_MS = Figure("p50_seconds", "p50", "ms", 1e3, more_is_better=False)
P99_MS = Figure("p99_seconds", "p99", "ms", 1e3, more_is_better=False)
LOST = Figure("lost", "lost", "", 1.0, more_is_better=False)
TWICE = Figure("twice", "twice", "", 1.0, more_is_better=False)
STALL = Figure("longest_stall_seconds", "stall", "ms", 1e3, more_is_better=False)
KILLS = Figure("kills", "kills", "", 1.0)

_FROM_FIRST_TO_LAST = "from the first task to the last, as their consumers count them: no start of a process is in it"


def _throughput(
    name: str, title: str, job: Job, figures: tuple[Figure, ...], goals: tuple[Goal, ...], **more: object
) -> Row:
    same = {"measure": "throughput", "job": job, "quick": {}, "figures": figures, "goals": goals}
    return Row(name=name, title=title, **same, **more)  # type: ignore[arg-type]


_SMALL_GOALS = (Goal("rate", at_least=30, against="JoinableQueue"), Goal("rate", at_least=15, against="faster-fifo"))
_SMALL: dict[str, object] = {
    "contestants": ("conveyor", *OUR_OTHERS, *STDLIB_QUEUES),
    "peers": ("faster-fifo", *POOLS, *PEER_POOLS),
    "note": f"{_FROM_FIRST_TO_LAST}; pools make tasks in the main process, and take no maxsize: they hold what waits",
}

ROWS = (
    _throughput(
        "small-1x1",
        "small tuples, maxsize 1000, 1 producer, 1 consumer",
        Job(payload="small", tasks=0, batch=500),
        (RATE, CPU),
        _SMALL_GOALS,
        **_SMALL,
    ),
    _throughput(
        "small-2x2",
        "small tuples, maxsize 1000, 2 producers, 2 consumers",
        Job(payload="small", tasks=0, batch=500, producers=2, consumers=2),
        (RATE, CPU),
        _SMALL_GOALS,
        **_SMALL,
    ),
    _throughput(
        "1KiB",
        "bytes of 1 KiB, maxsize 1000, 1 producer, 1 consumer",
        Job(payload="1KiB", tasks=0, batch=100),
        (RATE, GIGABYTES, CPU),
        (Goal("rate", at_least=5, against="JoinableQueue"),),
        peers=("faster-fifo", "Pool, chunks"),
        note=f"{_FROM_FIRST_TO_LAST}; the consumer reads a byte of each page",
    ),
    _throughput(
        "64KiB",
        "bytes of 64 KiB, maxsize 1000, 1 producer, 1 consumer",
        Job(payload="64KiB", tasks=0, batch=10),
        (GIGABYTES, KILO_RATE, CPU),
        (Goal("rate", at_least=3, against="JoinableQueue"),),
        peers=("faster-fifo", "Pool, chunks"),
        note=f"{_FROM_FIRST_TO_LAST}; the consumer reads a byte of each page",
    ),
    _throughput(
        "1MiB",
        "arrays of 1 MiB, maxsize 64, 1 producer, 1 consumer",
        Job(payload="1MiB", tasks=0, maxsize=64, batch=2),
        (GIGABYTES, KILO_RATE, CPU),
        (Goal("rate", at_least=4, against="JoinableQueue"), Goal("rate", at_least=2, against="faster-fifo")),
        peers=("faster-fifo", "Pool"),
        note=f"{_FROM_FIRST_TO_LAST}; the consumer reads a byte of each page; numpy's arrays, or bytearrays without it",
    ),
    _throughput(
        "spooled",
        "small tuples through a queue on disk, maxsize 1000, 1 producer, 1 consumer",
        Job(payload="small", tasks=0),
        (RATE, CPU),
        (
            Goal("rate", at_least=0.6, of="conveyor spooled", against="conveyor"),
            Goal("rate", at_least=500, of="conveyor spooled", against="persist-queue"),
        ),
        contestants=("conveyor", "conveyor spooled"),
        peers=("persist-queue",),
        note=f"{_FROM_FIRST_TO_LAST}; the disk is that of the folder for temporary files, and not synced at each put",
    ),
    _throughput(
        "watched",
        "what counting, timing and watching cost: the standard queues in a pipeline and in a plain program, 1x1",
        Job(payload="small", tasks=0),
        (RATE, CPU),
        (),
        contestants=("conveyor joinable", "JoinableQueue", "conveyor sentinel", "Queue"),
        note=_FROM_FIRST_TO_LAST,
    ),
    Row(
        name="balance",
        title="naps of 1 ms, 4 consumers: how busy they are kept",
        measure="balance",
        job=Job(payload="naps of 1 ms", tasks=2400, consumers=4),
        quick={"tasks": 1200},
        figures=(IDEAL,),
        goals=(Goal("share_of_ideal", at_least=0.98),),
        peers=("faster-fifo", "Pool", "ProcessPoolExecutor", "mpire", "pebble"),
        note="naps, as there may be fewer CPUs than consumers; ideal = their measured time / consumers; from when each "
        "consumer has begun",
    ),
    Row(
        name="tail",
        title="a heavy tail: naps of 1 ms, one in a hundred of 100 ms, 4 consumers",
        measure="balance",
        job=Job(payload="heavy tail", tasks=2000, consumers=4),
        quick={},
        figures=(MAKESPAN,),
        goals=(Goal("makespan", at_most=1.05),),
        peers=("faster-fifo", "Pool", "ProcessPoolExecutor", "mpire", "mpire, chunks", "pebble"),
        note="time until all is done / what no schedule can beat: max(work / consumers, longest task)",
    ),
    Row(
        name="latency",
        title="put to start of the task, in an idle pipeline: a task every 2 ms",
        measure="latency",
        job=Job(payload="stamps", tasks=600),
        quick={"tasks": 300},
        figures=(P50, P99),
        goals=(
            Goal("p50_seconds", at_most=1, against="JoinableQueue"),
            Goal("p99_seconds", at_most=1, against="JoinableQueue"),
        ),
        peers=("faster-fifo", "Pool"),
    ),
    Row(
        name="requeue",
        title="SIGKILL of a consumer to the next start of its task, 4 consumers, naps of 5 ms",
        measure="requeue",
        job=Job(payload="naps of 5 ms", tasks=2400, consumers=4),
        quick={},
        figures=(P99_MS, P50_MS, KILLS),
        goals=(Goal("p99_seconds", at_most=0.05),),
        contestants=("conveyor",),
        once=True,
        note="a kill every 150 ms while others are at work, at most 16 in a run, several runs; no peer starts a killed "
        "task again: the row `killed` shows what each does",
    ),
    Row(
        name="killed",
        title="one consumer of 4 killed every second, naps of 5 ms",
        measure="killed",
        job=Job(payload="naps of 5 ms", tasks=3200, consumers=4, replace_dead=True),
        quick={"tasks": 1800},
        figures=(LOST, TWICE, STALL, KILLS),
        goals=(Goal("lost", at_most=0), Goal("finished", at_least=1)),
        contestants=("conveyor",),
        peers=(
            "conveyor.imap_unordered",
            "conveyor.JoinableQueue",
            "JoinableQueue",
            "faster-fifo",
            "Pool",
            "ProcessPoolExecutor",
            "mpire",
            "pebble",
        ),
        compared=False,
        once=True,
        note="lost: nobody has done it in the end; twice: done twice; stall: the longest without a sign of life; "
        "programs around a bare queue replace dead consumers",
    ),
    Row(
        name="idle",
        title="8 consumers that wait",
        measure="idle",
        job=Job(payload="then wait", tasks=8, consumers=8, seconds=60),
        quick={},
        figures=(Figure("cpu_share", "CPU", "% of one core", 100, more_is_better=False),),
        goals=(Goal("cpu_share", at_most=0.005),),
        once=True,
        note="all processes of the run, over some seconds",
    ),
    Row(
        name="scrape",
        title="GET /metrics with 64 workers",
        measure="scrape",
        job=Job(payload="then wait", tasks=63, consumers=63, seconds=120),
        quick={},
        figures=(P99_MS, P50_MS),
        goals=(Goal("p99_seconds", at_most=0.005),),
        contestants=("conveyor",),
        once=True,
        note="as a client on the same machine sees it, one connection for each",
    ),
    Row(
        name="import",
        title="import conveyor",
        measure="importing",
        job=Job(payload="small", tasks=1),
        quick={},
        figures=(
            Figure("import_seconds", "import", "ms", 1e3, more_is_better=False),
            Figure("python_seconds", "Python's own start", "ms", 1e3, more_is_better=False),
        ),
        goals=(Goal("import_seconds", at_most=0.06),),
        contestants=("conveyor",),
        once=True,
        note="fresh processes in turn, with and without it; medians",
    ),
    Row(
        name="first",
        title="from the start of the command to the start of the first task",
        measure="first_task",
        job=Job(payload="small", tasks=1),
        quick={},
        figures=(Figure("first_task_seconds", "first task", "ms", 1e3, more_is_better=False),),
        goals=(Goal("first_task_seconds", at_most=0.4),),
        contestants=("conveyor",),
        note="conveyor run, with its metrics",
    ),
    Row(
        name="memory",
        title="many tasks through a queue of 1000: growth of the main process",
        measure="memory",
        job=Job(payload="small", tasks=10_000_000),
        quick={"tasks": 300_000},
        figures=(
            Figure("growth_bytes", "growth", "KiB", 1 / 1024, more_is_better=False),
            Figure("tasks", "tasks", "M", 1e-6),
        ),
        goals=(Goal("growth_bytes", at_most=1024 * 1024),),
        contestants=("conveyor",),
        once=True,
        note="resident memory from a tenth of the tasks to the end",
    ),
)
NAMES = tuple(row.name for row in ROWS)
NOT_IN_A_QUICK_RUN = ("watched", "memory")
