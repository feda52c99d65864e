"""Says what a kind of job asks of Slurm. Pure."""

from dataclasses import dataclass

from launcher.clusters import cluster as clusters
from launcher.clusters.profiles import (
    LIKE_TRAIN,
    WITH_GPUS,
    JobSize,
    Profile,
    gpus_per_node,
    mem_gb,
)

MB_PER_GB = 1024
GPUS = "gres/gpu"


@dataclass(frozen=True)
class JobRequest:
    """A kind of job of a profile, in one of its sizes."""

    profile: Profile
    kind: str
    size: JobSize

    def name_key(self, name: str) -> str:
        """Where a setting of the size stands."""
        if self.kind == "train":
            return f"train.{name} in the profile, or resources.{name} in the grid,"
        return f"{self.kind}.{name}"

    @property
    def cpus_per_node(self) -> int:
        return self.size.ranks_per_node * self.size.cpus_per_rank

    @property
    def mem_gb(self) -> int | None:
        """Memory of each node; None: the site's default."""
        return mem_gb(self.profile, self.kind)

    @property
    def resources(self) -> dict[str, int]:
        """What a job asks for in all, by the names of Slurm's trackable resources;
        memory in MB."""
        per_node = {"cpu": self.cpus_per_node, **self._gpus_per_node()}
        if self.mem_gb:
            per_node["mem"] = self.mem_gb * MB_PER_GB
        in_all = {key: count * self.size.nodes for key, count in per_node.items()}
        return {"node": self.size.nodes, **in_all}

    def _gpus_per_node(self) -> dict[str, int]:
        """GPUs of any type, and of the type that is asked for."""
        slurm = self.profile.slurm
        by_type = {slurm.gpu_type or "": gpus_per_node(self.profile, self.kind)}
        if slurm.gres and self.kind in WITH_GPUS:
            by_type = clusters.parse_gpus(slurm.gres)
            if self.kind not in LIKE_TRAIN:
                by_type = dict.fromkeys(by_type, self.profile.evaluate.gpus)
        gpus = {f"{GPUS}:{name}": count for name, count in by_type.items() if name}
        gpus[GPUS] = sum(by_type.values())
        return {key: count for key, count in gpus.items() if count}


def list_requests(profile: Profile) -> list[JobRequest]:
    """The prepare and train jobs of a profile in the sizes that it says itself."""
    return [
        JobRequest(profile, "prepare", profile.prepare),
        JobRequest(profile, "train", profile.train),
    ]
