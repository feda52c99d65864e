"""Decides what partitions grant a profile's jobs, of one or of a list of them. Pure.

A job that names several partitions starts in any that grants it, or must be granted by
each, as the site's EnforcePartLimits says.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from launcher.clusters import slurm
from launcher.clusters.cluster import ROOT, Cluster, parse_minutes, parse_tres
from launcher.clusters.profiles import Profile
from launcher.planning import accounting_limits
from launcher.planning.accounting_limits import (
    LIFTS_MAX_NODES,
    LIFTS_MIN_NODES,
    LIFTS_TIME,
    Terms,
)
from launcher.planning.job_request import GPUS, MB_PER_GB, JobRequest

TAKES_NOTHING = ("DRAIN", "INACTIVE")


@dataclass(frozen=True)
class Refusal:
    """Why a partition does not grant a job. `lifted_by`: the flag of a QoS that would
    lift it, where nobody tells the flags."""

    text: str
    lifted_by: str | None = None


@dataclass(frozen=True)
class Findings:
    """What limits mean for jobs: why they would be refused or wait for ever, each with
    what to change, and what else is to be told, such as what nobody can know from here."""

    refusals: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def list_partitions(profile: Profile, cluster: Cluster) -> list[str]:
    """The partitions that a profile names, or the default one; none where there is none."""
    if profile.slurm.partition:
        names = profile.slurm.partition.split(",")
        return list(dict.fromkeys(name for name in names if name))
    return [cluster.default_partition] if cluster.default_partition else []


def check_names(profile: Profile, cluster: Cluster) -> Findings:
    """Whether the partitions are there. Of a list sbatch refuses all for one that is not."""
    if not cluster.partitions:
        return Findings(
            notes=(
                "Slurm shows no partition to you (PrivateData?): what they grant was not looked at",
            )
        )
    names = list_partitions(profile, cluster)
    unknown = [name for name in names if name not in cluster.partitions]
    if names and not unknown:
        return Findings()
    faults = [f"there is no partition {name!r}" for name in unknown]
    fault = "; ".join(faults) or "there is no default partition"
    if cluster.has_submit_plugin:
        note = (
            f"{fault}, but a job_submit plugin of the site, which may choose another: what that one"
            " grants was not looked at"
        )
        return Findings(notes=(note,))
    names_here = ", ".join(cluster.partitions)
    return Findings(
        (f"{fault}; set slurm.partition in the profile to one of {names_here}",)
    )


def judge_request(
    request: JobRequest, cluster: Cluster, terms_of: Mapping[str, Terms]
) -> Findings:
    """Whether a kind of job starts in any of the partitions whose terms are given, or
    in each where the site asks for that."""
    refusals_of = {
        name: [
            *check_partition(name, cluster, request, terms),
            *map(Refusal, accounting_limits.check_job(terms, request)),
        ]
        for name, terms in terms_of.items()
    }
    notes = [
        _tell_unsure(name, refusal)
        for name, refusals in refusals_of.items()
        for refusal in refusals
        if refusal.lifted_by
    ]
    sure = {
        name: [refusal.text for refusal in refusals if not refusal.lifted_by]
        for name, refusals in refusals_of.items()
    }
    return _choose_partition(request, cluster, sure, notes)


def _tell_unsure(name: str, refusal: Refusal) -> str:
    return (
        f"{refusal.text}; submitted all the same, as a QoS may lift that ({refusal.lifted_by}), and"
        f" nobody tells which QoS jobs have in partition {name}"
    )


def _choose_partition(
    request: JobRequest,
    cluster: Cluster,
    reasons_of: Mapping[str, Sequence[str]],
    notes: Sequence[str],
) -> Findings:
    """Of several partitions the one that grants most counts."""
    if must_satisfy_all(cluster):
        reasons = [text for texts in reasons_of.values() for text in texts]
        return Findings(tuple(reasons), tuple(notes))
    if any(not texts for texts in reasons_of.values()):
        passed_over = [
            f"{request.kind} jobs do not start in partition {name}: {text}"
            for name, texts in reasons_of.items()
            for text in texts
        ]
        return Findings(notes=(*notes, *passed_over))
    return Findings(tuple(_explain_best(cluster, reasons_of)), tuple(notes))


def _explain_best(
    cluster: Cluster, reasons_of: Mapping[str, Sequence[str]]
) -> Iterator[str]:
    """Why the partition that grants most does not grant a job."""

    def rank(name: str) -> tuple[int, float]:
        return len(reasons_of[name]), -_get_minutes(cluster, name)

    best = min(reasons_of, key=rank)
    worse = ", ".join(name for name in reasons_of if name != best)
    ending = f" (partition {worse} grants no more)" if worse else ""
    for text in reasons_of[best]:
        yield f"{text}{ending}"


def must_satisfy_all(cluster: Cluster) -> bool:
    """Whether a job must be granted by each partition of its list."""
    return cluster.config.get("EnforcePartLimits", "NO").upper() == "ALL"


def _get_minutes(cluster: Cluster, name: str) -> float:
    return parse_minutes(cluster.partitions[name].get("MaxTime", ""))


def check_partition(
    name: str, cluster: Cluster, request: JobRequest, terms: Terms
) -> Iterator[Refusal]:
    """What of a kind of job a partition does not grant."""
    row = cluster.partitions[name]
    yield from _check_entrance(name, row, request.profile, cluster)
    yield from _check_time(name, row, request, terms)
    yield from _check_nodes(name, row, request, terms)
    yield from _check_gpus(name, row, request)
    yield from _check_per_node(name, row, request)
    yield from _check_access(name, row, "Accounts", "account", terms.account)
    yield from _check_access(name, row, "Qos", "qos", terms.qos)
    for text in accounting_limits.check_reservation(terms, request.profile):
        yield Refusal(text)


def _check_entrance(
    name: str, row: Mapping[str, str], profile: Profile, cluster: Cluster
) -> Iterator[Refusal]:
    """Whether the partition takes jobs of this user at all."""
    is_root = cluster.user == ROOT
    if row.get("State", "UP") in TAKES_NOTHING and not row.get("Alternate"):
        yield Refusal(f"partition {name} is {row['State']}: it takes no jobs")
    if row.get("ReqResv") == "YES" and not profile.slurm.reservation:
        text = (
            f"partition {name} takes jobs in reservations only; set slurm.reservation"
        )
        yield Refusal(text)
    if row.get("RootOnly") == "YES" and not is_root:
        yield Refusal(f"partition {name} takes jobs of root only")
    if row.get("DisableRootJobs") == "YES" and is_root:
        yield Refusal(f"partition {name} takes no jobs of root")


def list_notes(name: str, cluster: Cluster) -> Iterator[str]:
    """What of a partition may keep jobs from starting, or from being taken, as far as
    can be seen from here."""
    row = cluster.partitions[name]
    state = row.get("State", "UP")
    if state != "UP" and state not in TAKES_NOTHING:
        yield f"partition {name}: it is {state}: jobs wait until it is up"
    groups = row.get("AllowGroups", "ALL")
    is_outside = cluster.groups.isdisjoint(groups.split(","))
    if groups != "ALL" and cluster.groups and is_outside and cluster.user != ROOT:
        yield (
            f"partition {name} takes users of the groups {groups} only, and {cluster.user} is in"
            " none of them here"
        )
    hosts = row.get("AllocNodes", "ALL")
    if hosts != "ALL" and cluster.host and not _names_host(hosts, cluster.host):
        yield f"partition {name} takes jobs from {hosts} only, and this is {cluster.host}"


def _names_host(hosts: str, host: str) -> bool:
    """Whether a list such as login[1-2] names a host; where it cannot be read it may."""
    try:
        return host in slurm.parse_hosts(hosts)
    except ValueError:
        return True


def _check_time(
    name: str, row: Mapping[str, str], request: JobRequest, terms: Terms
) -> Iterator[Refusal]:
    limit, minutes = parse_minutes(row.get("MaxTime", "")), request.size.time_min
    if minutes > limit and not terms.lifts(LIFTS_TIME):
        text = (
            f"{request.kind}.time_min is {minutes}, but partition {name} grants {limit:g}"
            f" (MaxTime), so the job would be refused or wait for ever; set"
            f" {request.name_key('time_min')} to at most {limit:g}"
        )
        yield _make_liftable(text, terms, "PartitionTimeLimit")


def _make_liftable(text: str, terms: Terms, flag: str) -> Refusal:
    return Refusal(text, lifted_by=flag if terms.flags is None else None)


def _check_nodes(
    name: str, row: Mapping[str, str], request: JobRequest, terms: Terms
) -> Iterator[Refusal]:
    """Why a partition grants a job no such number of nodes; limits that the job's QoS
    lifts are none."""
    nodes, key = request.size.nodes, request.name_key("nodes")
    limit, in_all = _read_count(row, "MaxNodes"), _read_count(row, "TotalNodes")
    grants = f"{request.kind}.nodes is {nodes}, but partition {name} grants"
    if nodes > limit and not terms.lifts(LIFTS_MAX_NODES):
        text = f"{grants} {limit:g} (MaxNodes); set {key} to at most {limit:g}"
        yield _make_liftable(text, terms, "PartitionMaxNodes")
    elif nodes > in_all:
        text = f"{grants} {in_all:g} (nodes in all); set {key} to at most {in_all:g}"
        yield Refusal(text)
    fewest = _read_count(row, "MinNodes", default=0)
    if nodes < fewest and not terms.lifts(LIFTS_MIN_NODES):
        text = (
            f"{request.kind}.nodes is {nodes}, but partition {name} takes no job of less than"
            f" {fewest:g} (MinNodes); another slurm.partition, or a QoS that lifts it"
        )
        yield _make_liftable(text, terms, "PartitionMinNodes")


def _read_count(row: Mapping[str, str], field: str, default: float = math.inf) -> float:
    """A number of nodes that a partition says; `default` where it is UNLIMITED."""
    text = row.get(field, "")
    return int(text) if text.isdigit() else default


def _check_gpus(
    name: str, row: Mapping[str, str], request: JobRequest
) -> Iterator[Refusal]:
    gpus = request.resources.get(GPUS, 0)
    gpus_of_partition = parse_tres(row.get("TRES", "")).get(GPUS)
    if gpus_of_partition is not None and gpus > gpus_of_partition:
        yield Refusal(
            f"a {request.kind} job asks for {gpus} GPUs, but partition {name} has"
            f" {gpus_of_partition} in all; set slurm.gpus_per_node lower, or another"
            " slurm.partition"
        )


def _check_per_node(
    name: str, row: Mapping[str, str], request: JobRequest
) -> Iterator[Refusal]:
    limit_mb, memory_gb = row.get("MaxMemPerNode", ""), request.mem_gb
    if memory_gb and limit_mb.isdigit() and memory_gb * MB_PER_GB > int(limit_mb):
        key = "slurm" if memory_gb == request.profile.slurm.mem_gb else request.kind
        yield Refusal(
            f"{key}.mem_gb is {memory_gb}, but partition {name} grants"
            f" {int(limit_mb) // MB_PER_GB} (MaxMemPerNode)"
        )
    cpus = row.get("MaxCPUsPerNode", "")
    if cpus.isdigit() and request.cpus_per_node > int(cpus) > 0:
        yield Refusal(
            f"a {request.kind} job asks for {request.cpus_per_node} CPUs on each node, but"
            f" partition {name} grants {cpus} (MaxCPUsPerNode); set"
            f" {request.kind}.cpus_per_rank lower"
        )


def _check_access(
    name: str, row: Mapping[str, str], field: str, option: str, value: str | None
) -> Iterator[Refusal]:
    """Whether a partition takes an account or a QoS, in any case. `field`: as Slurm's
    fields end, AllowAccounts and DenyAccounts."""
    allowed, denied = row.get(f"Allow{field}", "ALL"), row.get(f"Deny{field}", "")
    is_denied = value in accounting_limits.list_words(denied)
    if allowed != "ALL":  # then Slurm does not look at what is denied
        is_denied = value not in accounting_limits.list_words(allowed)
    if value and is_denied:
        yield Refusal(
            f"partition {name} does not take slurm.{option} {value}; "
            f"it takes {allowed if allowed != 'ALL' else f'all but {denied}'}"
        )
