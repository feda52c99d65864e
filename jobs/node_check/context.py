"""Where a check of the nodes runs: on which rank, device and node, and in which folder."""

import time
from dataclasses import dataclass
from pathlib import Path

from jobs.contract.node_check import TRIALS, NodeCheckRequest
from jobs.node_check.agreement import Meeting
from jobs.node_check.speeds import Speeds
from jobs.runtime.devices import CPU
from jobs.runtime.ranks import Ranks


@dataclass
class CheckContext:
    """One rank of a check. `folder`: of the check, on the shared workspace; `deadline`:
    by time.monotonic(), after which nothing more is begun; `attempt`: the number of this
    start of the job.

    `device`, `meeting` and `is_connected` are set once the ranks have met: before that,
    and where they could not, a rank is by itself on the CPU. `parted`: why they do
    nothing together any more. `gpu`: what its driver calls it. `speeds`: what the check
    of them has measured, for those after it.
    """

    request: NodeCheckRequest
    folder: Path
    ranks: Ranks
    node: str
    deadline: float
    attempt: int = 1
    device: str = CPU
    is_connected: bool = False
    meeting: Meeting | None = None
    parted: str = "the ranks have not met"
    gpu: str = ""
    speeds: Speeds | None = None

    @property
    def workspace(self) -> Path:
        """The shared folder that the runs of this workspace lie in."""
        return self.folder.parent.parent

    @property
    def has_gpu(self) -> bool:
        """Whether this rank computes on a GPU."""
        return self.device != CPU

    @property
    def bench(self) -> Path:
        """A folder of its own for what is trained here, laid out as a workspace; of this
        start of the job alone, since an earlier one may have left its journals."""
        return self.folder / TRIALS / str(self.attempt)

    @property
    def has_time(self) -> bool:
        """Whether another check may begin."""
        return time.monotonic() < self.deadline

    def part(self, reason: str) -> None:
        """Has the ranks do nothing together from now on."""
        self.is_connected = False
        self.parted = reason
