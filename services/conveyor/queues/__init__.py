"""WHAT CARRIES: the queues, one module each, behind the protocol in `seam`.

`KINDS` is the one list of them. The supervisor opens one by name and hands its ends to the workers.
"""

from __future__ import annotations

from conveyor.queues.joinable import JoinableTaskQueue
from conveyor.queues.leased import LeasedTaskQueue
from conveyor.queues.sentinel import SentinelTaskQueue

KINDS: dict[str, type[LeasedTaskQueue | JoinableTaskQueue | SentinelTaskQueue]] = {
    "leased": LeasedTaskQueue,
    "joinable": JoinableTaskQueue,
    "sentinel": SentinelTaskQueue,
}
DEFAULT_KIND = "leased"
