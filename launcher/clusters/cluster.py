"""Asks what a Slurm cluster is: its settings, its partitions, and what accounting
grants this user. Once each.

Answers are parsed by pure functions; what they mean for a grid, launcher.planning.limits decides.
"""

import contextlib
import grp
import math
import os
import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from jobs.files import ownership
from jobs.runtime.slurm_calls import Runner, run_program
from launcher.clusters import accounting, slurm
from launcher.clusters.accounting import Grants, SlurmRecord, split_words

ROOT = "root"  # whom Slurm lets into every partition


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What Slurm told. `grants` is empty where accounting enforces nothing or does not
    answer.

    `named`: the cluster that was asked, where it is not simply the default one.
    `user`, `groups`, `host`: who asks, and from where.
    """

    config: Mapping[str, str] = field(default_factory=dict[str, str])
    partitions: Mapping[str, Mapping[str, str]] = field(
        default_factory=dict[str, Mapping[str, str]]
    )
    grants: Grants = field(default_factory=Grants)
    user: str = ""
    groups: frozenset[str] = frozenset()
    host: str = ""
    named: str | None = None

    @property
    def name(self) -> str | None:
        return self.named or self.config.get("ClusterName")

    @property
    def default_partition(self) -> str | None:
        for name, partition in self.partitions.items():
            if partition.get("Default") == "YES":
                return name
        return None

    @property
    def release(self) -> tuple[int, int] | None:
        """Year and month of Slurm's version, such as (24, 5); None where it is not
        told."""
        match = re.match(
            r"([0-9]{2})\.([0-9]{2})\b", self.config.get("SLURM_VERSION", "")
        )
        return (int(match[1]), int(match[2])) if match else None

    @property
    def was_asked(self) -> bool:
        """Whether it has told anything of itself."""
        return bool(self.config)

    @property
    def has_submit_plugin(self) -> bool:
        """Whether the site changes or checks jobs by a program of its own, as they come."""
        plugins = self.config.get("JobSubmitPlugins", "(null)")
        return plugins not in ("(null)", "", "none", "job_submit/none")

    def enforces(self, rule: str) -> bool:
        """Whether accounting refuses jobs by `associations`, `limits` or `qos`; the
        last two imply the first."""
        setting = self.config.get("AccountingStorageEnforce", "none")
        rules = set(setting.lower().split(","))
        sufficient = {rule, "all"}
        if rule == "associations":
            sufficient |= {"limits", "qos", "safe"}
        return bool(rules & sufficient)


def query_cluster(run: Runner = run_program, named: str | None = None) -> Cluster:
    """The cluster, by two calls, and some more where accounting sets limits. ClusterError
    if the controller is away.

    `named`: the cluster to ask, if not the default one.
    """
    cluster = Cluster(
        config=query_config(run, named),
        partitions=query_partitions(run, named),
        # Slurm takes a number, too
        user=ownership.find_login_name() or str(os.getuid()),
        groups=_find_groups(),
        host=socket.gethostname().partition(".")[0],
        named=named,
    )
    if not cluster.enforces("associations"):
        return cluster
    name = cluster.config.get("ClusterName", named or "")
    return replace(
        cluster, grants=accounting.query_grants(cluster.user, name, run, named)
    )


def renew_grants(cluster: Cluster, run: Runner = run_program) -> Cluster:
    """The cluster with what accounting grants at this moment, and how much of it is
    used; as it was where accounting does not answer."""
    name = cluster.config.get("ClusterName", cluster.named or "")
    grants = accounting.query_grants(cluster.user, name, run, cluster.named)
    if not grants.associations:
        return cluster
    return replace(cluster, grants=grants)


def _find_groups() -> frozenset[str]:
    """The names of the groups that this process is in."""
    groups = set[str]()
    for number in os.getgroups():
        with contextlib.suppress(KeyError):  # a number without a name
            groups.add(grp.getgrgid(number).gr_name)
    return frozenset(groups)


def query_config(run: Runner = run_program, named: str | None = None) -> SlurmRecord:
    """The cluster's settings, by their names in slurm.conf."""
    return parse_config(slurm.call_slurm(["scontrol", "show", "config"], run, named))


def parse_config(text: str) -> SlurmRecord:
    """Reads lines `KillWait   = 30 sec`."""
    pairs = (line.split(" = ", 1) for line in text.split("\n") if " = " in line)
    return {key.strip(): value.strip() for key, value in pairs}


def query_partitions(
    run: Runner = run_program, named: str | None = None
) -> dict[str, SlurmRecord]:
    """The settings of every partition by its name, also of those that are hidden: jobs
    may be sent to them."""
    argv = ["scontrol", "show", "partition", "--all", "--oneliner"]
    return parse_partitions(slurm.call_slurm(argv, run, named))


def parse_partitions(text: str) -> dict[str, SlurmRecord]:
    """Reads lines `PartitionName=main … Default=YES … MaxTime=1-00:00:00 … State=UP …`."""
    rows = map(split_words, text.split("\n"))
    return {row["PartitionName"]: row for row in rows if "PartitionName" in row}


def query_nodes(
    partition: str, run: Runner = run_program, named: str | None = None
) -> list[SlurmRecord]:
    """Each node of a partition: its generic resources, memory in MB, CPUs, features."""
    argv = [
        "sinfo",
        "--noheader",
        "--Node",
        "--partition",
        partition,
        "--format",
        "%N|%G|%m|%c|%f",
    ]
    return parse_nodes(slurm.call_slurm(argv, run, named))


def parse_nodes(text: str) -> list[SlurmRecord]:
    """Reads lines `n1|gpu:a800:8(S:0-1)|512000|64|ib,a800`."""
    keys = ("name", "gres", "memory_mb", "cpus", "features")
    rows: list[SlurmRecord] = [
        dict(zip(keys, line.split("|", 4), strict=True))
        for line in text.split("\n")
        if line.count("|") >= 4
    ]
    # a site's sinfo may print lines of its own
    return [row for row in rows if _is_count(row["memory_mb"], row["cpus"])]


def _is_count(*texts: str) -> bool:
    """Whether all are numbers as sinfo prints them, such as `64` or `512000+`."""
    return all(re.fullmatch(r"[0-9]{1,18}\+?", text) for text in texts)


def parse_gpus(gres: str) -> dict[str, int]:
    """How many GPUs of each type a node has, from `gpu:a800:8(S:0-1),nvme:1`; the type
    may be empty."""
    gpus: dict[str, int] = {}
    for gpu_type, count in re.findall(
        r"(?:^|,)gpu(?::([A-Za-z_][\w.-]*))?:([0-9]{1,9})",
        re.sub(r"\([^)]*\)", "", gres),
    ):
        gpus[gpu_type] = gpus.get(gpu_type, 0) + int(count)
    return gpus


def parse_minutes(limit: str) -> float:
    """A time limit as scontrol prints it, `1-02:30:00` or UNLIMITED, in minutes;
    infinite where there is none."""
    match = re.fullmatch(
        r"(?:([0-9]{1,9})-)?([0-9]{1,9}):([0-9]{1,9}):([0-9]{1,9})", limit
    )
    if not match:
        return math.inf
    days, hours, minutes, seconds = (int(number or 0) for number in match.groups())
    return 60 * (24 * days + hours) + minutes + seconds / 60


_COUNT = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)([KMGTP]?)(?:\([0-9.]*\))?")
_MEGABYTES = {"": 1, "K": 1 / 1024, "M": 1, "G": 1024, "T": 1024**2, "P": 1024**3}


def parse_tres(text: str) -> dict[str, int]:
    """What `cpu=8,mem=8000M,node=2(1),gres/gpu=4` counts, memory in MB; what is used of
    a limit, in brackets, is left out."""
    return {
        key: int(float(match[1]) * _MEGABYTES[match[2]])
        for key, value in _pairs(text)
        if (match := _COUNT.fullmatch(value))
    }


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    for entry in text.split(","):
        key, equals, value = entry.partition("=")
        if equals:
            yield key, value
