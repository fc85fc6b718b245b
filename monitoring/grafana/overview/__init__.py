"""The first dashboard: the way of the work from left to right, what may be wrong with it from top to bottom.

Called by `generate`. One module a theme, one function a row of panels.
"""

from __future__ import annotations

from frame import dashboard
from looks import Json
from panels import Head, row, text

from overview.delivery import delivery
from overview.flow import latency, queue_and_flow
from overview.processes import processes
from overview.spool import spool
from overview.strip import verdict_and_flow, verdict_in_numbers
from overview.trouble import exporter, what_went_wrong

GUIDE = """\
**The strip at the top** is the way of a task, from left to right: producers put it on the queue, it waits, a
consumer does it. The word on the left repeats what the alerts say.

**Colours** mean the same everywhere: blue enters, orange waits, purple is inside, green leaves or is healthy,
red has failed or died, dashed grey is a bound.

**A worker was killed?** Its lane turns red, an orange line marks the restart on every graph, the rate dips,
the backlog swells and drains again. *Tasks unaccounted for* tells whether anything was lost on the way.

**The queue grows?** Compare *Wait in the queue* with *Processing time*: the one that grows is the slow part.

**Did every task arrive?** *Delivery* tells what was given to a consumer again and why, what waits longest, and what
was given up and lies there to be looked at.
"""


def board() -> Json:
    panels = [
        *verdict_and_flow(),
        *verdict_in_numbers(),
        row(101, "Processes", 7),
        *processes(),
        row(102, "Queue and flow", 26),
        *queue_and_flow(),
        row(103, "Latency", 44),
        *latency(),
        row(106, "Delivery", 53),
        *delivery(),
        *spool(),
        row(104, "What went wrong", 78),
        *what_went_wrong(),
        row(105, "Exporter and Prometheus", 87, hidden=[*exporter(), guide()]),
    ]
    about = "The pipeline as a whole: producers, queue, consumers, and what went wrong."
    return dashboard("conveyor-overview", "Conveyor / Overview", about, panels)


def guide() -> Json:
    return text(Head(34, "How to read this page", "The page in five paragraphs.", (0, 95, 24, 7)), GUIDE)
