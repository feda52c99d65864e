"""Asks what a Slurm cluster is: its settings, its partitions, and what accounting
grants this user. Once each.

Answers are parsed by pure functions; what they mean for a grid, launcher.planning.limits decides.
"""

import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from jobs.files import ownership
from jobs.runtime.slurm_calls import Runner, run_program
from launcher.clusters import slurm

SlurmRecord = dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What Slurm told. `associations` and `qos` are empty where accounting enforces
    nothing or does not answer.

    `named`: the cluster that was asked, where it is not simply the default one.
    """

    config: Mapping[str, str] = field(default_factory=dict[str, str])
    partitions: Mapping[str, Mapping[str, str]] = field(
        default_factory=dict[str, Mapping[str, str]]
    )
    associations: tuple[Mapping[str, str], ...] = ()
    qos: Mapping[str, Mapping[str, str]] = field(
        default_factory=dict[str, Mapping[str, str]]
    )
    user: str = ""
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
    """The cluster, by two calls, and a third where accounting sets limits. ClusterError
    if the controller is away.

    `named`: the cluster to ask, if not the default one.
    """
    # Slurm takes a number, too
    user = ownership.find_login_name() or str(os.getuid())
    cluster = Cluster(
        config=query_config(run, named),
        partitions=query_partitions(run, named),
        user=user,
        named=named,
    )
    if not cluster.enforces("associations"):
        return cluster
    argv = ["scontrol", "show", "assoc_mgr", f"users={user}", "flags=assoc,qos"]
    answer = slurm.call_accounting(argv, run, named)
    associations, qos = parse_assoc_mgr(answer)
    return replace(cluster, associations=tuple(associations), qos=qos)


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
    """The settings of every partition the user can see, by its name."""
    return parse_partitions(
        slurm.call_slurm(["scontrol", "show", "partition", "--oneliner"], run, named)
    )


def parse_partitions(text: str) -> dict[str, SlurmRecord]:
    """Reads lines `PartitionName=main … Default=YES … MaxTime=1-00:00:00 … State=UP …`."""
    rows = map(_words, text.split("\n"))
    return {row["PartitionName"]: row for row in rows if "PartitionName" in row}


def parse_assoc_mgr(text: str) -> tuple[list[SlurmRecord], dict[str, SlurmRecord]]:
    """The associations of `scontrol show assoc_mgr`, and its QoS by name:
    `MaxSubmitJobs=5(4)` is a limit, and used."""
    records = [
        _words(block) for block in re.split(r"^(?=ClusterName=|QOS=)", text, flags=re.M)
    ]
    associations = [row for row in records if row.get("UserName")]
    return associations, {
        row["QOS"].partition("(")[0]: row for row in records if "QOS" in row
    }


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


def parse_tres(text: str) -> dict[str, int]:
    """What `cpu=8,mem=8000M,node=2,gres/gpu=4` counts; what has a unit is left out."""
    return {
        key: int(value)
        for key, value in _pairs(text)
        if re.fullmatch(r"[0-9]{1,18}", value)
    }


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    for entry in text.split(","):
        key, equals, value = entry.partition("=")
        if equals:
            yield key, value


def _words(text: str) -> SlurmRecord:
    return dict(word.split("=", 1) for word in text.split() if "=" in word)
