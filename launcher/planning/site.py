"""Where a grid is planned and submitted."""

from dataclasses import dataclass, field
from typing import Any

from jobs.contract.folder import Workspace
from launcher.clusters.cluster import Cluster
from launcher.clusters.profiles import Profile


@dataclass(frozen=True)
class Site:
    """Where things happen: a workspace on a cluster; `cluster` is empty where nobody
    has asked it."""

    workspace: Workspace
    profile: Profile
    cluster: Cluster = field(default_factory=Cluster)

    @property
    def scheduling(self) -> dict[str, Any]:
        """What the ledger keeps of where jobs are handed to."""
        return {
            "scheduler": "slurm",
            "sacct": self.profile.slurm.sacct,
            "cluster": self.cluster.name,
            "named": self.cluster.named is not None,
        }


def get_runs_at_once(profile: Profile) -> int:
    """The most runs of a grid that train at the same time."""
    if profile.kind == "local":
        return profile.max_parallel
    return profile.slurm.array_parallelism
