"""The first dashboard: the way of the work from left to right, what may be wrong with it from top to bottom.

Called by `generate`. One module a theme, one function a row of panels.
"""

from __future__ import annotations

from frame import dashboard, queue_variable
from looks import Json
from panels import Head, row, text
from promql import DEATHS

from overview.delivery import delivery
from overview.flow import BACKLOG, IN_AND_OUT, latency, queue_and_flow
from overview.processes import LANES, processes
from overview.spool import spool
from overview.strip import verdict_and_flow, verdict_in_numbers
from overview.trouble import exporter, what_went_wrong

GUIDE = """\
**The strip at the top** is the way of a task, from left to right: producers put it on the queue, it waits, a
consumer does it. The word on the left repeats what the alerts say.

**Colours** mean the same everywhere: blue enters, orange waits, purple is inside, green leaves or is healthy,
red has failed or died, dashed grey is a bound.

**A worker was killed?** Its lane is pale red for ten seconds (*replaced*), or red for as long as no process takes its
place. An orange line marks it there and on the graphs below, the rate dips, the backlog swells and drains again. *Tasks
unaccounted for* tells whether anything was lost on the way.

**The queue grows?** Compare *Wait in the queue* with *Processing time*: the one that grows is the slow part.

**Did every task arrive?** *Delivery* tells what was given to a consumer again and why, what waits longest, and what
was given up and lies there to be looked at.
"""


def board() -> Json:
    panels = [
        *verdict_and_flow(),
        *verdict_in_numbers(),
        row(107, "How to read this page", 10, hidden=[guide(11)]),
        row(101, "Processes", 11),
        *processes(12),
        row(102, "Queue and flow", 30),
        *queue_and_flow(31),
        row(103, "Latency", 48),
        *latency(49),
        row(106, "Delivery", 57),
        *delivery(58),
        *spool(74),
        row(104, "What went wrong", 82),
        *what_went_wrong(83),
        row(105, "Exporter and Prometheus", 91, hidden=exporter(92)),
    ]
    about = "The pipeline as a whole: producers, queue, consumers, and what went wrong."
    return dashboard(
        "conveyor-overview",
        "Conveyor / Overview",
        about,
        panels,
        last_variable=queue_variable(),
        deaths=DEATHS,
        marked=[LANES, IN_AND_OUT, BACKLOG],
    )


def guide(y: int) -> Json:
    return text(Head(34, "How to read this page", "The page in five paragraphs.", (0, y, 24, 8)), GUIDE)
