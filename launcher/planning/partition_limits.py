"""Decides what partitions grant a profile's jobs, of one or of a list of them. Pure.

A job that names several partitions starts in any that grants it, or must be granted by
each, as the site's EnforcePartLimits says.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

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
# versions of Slurm whose lists of accounts name accounts alone, and with all below them
NAMED_ALONE, WITH_SUBACCOUNTS = (22, 5), (24, 5)


@dataclass(frozen=True)
class Refusal:
    """Why a partition does not grant a job. `doubt`: why it may be granted all the same,
    as far as can be seen from here."""

    text: str
    doubt: str | None = None


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
        f"{refusal.text}; submitted all the same, as {refusal.doubt}"
        for refusals in refusals_of.values()
        for refusal in refusals
        if refusal.doubt
    ]
    sure = {
        name: [refusal.text for refusal in refusals if not refusal.doubt]
        for name, refusals in refusals_of.items()
    }
    return _choose_partition(request, cluster, sure, notes)


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
    yield from _check_account(row, cluster, terms)
    if terms.qos:
        access = _Access(name, row, "Qos", "qos")
        yield from access.check(terms.qos, [terms.qos])
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
    """A refusal that a QoS with this flag lifts: in doubt where nobody tells the flags."""
    if terms.flags is not None:
        return Refusal(text)
    doubt = (
        f"a QoS may lift that ({flag}), and nobody tells which QoS jobs have in partition"
        f" {terms.partition}"
    )
    return Refusal(text, doubt)


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
    """The refusals that one partition's limits on a node bring about: memory, then
    CPUs.

    A limit that is missing or `UNLIMITED` refuses nothing. The key that is named is the
    one whose value was too large: a job of any kind that has no memory of its own takes
    slurm.mem_gb.
    """
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


@dataclass(frozen=True)
class _Access:
    """Whom a partition takes. `ending`: of Slurm's fields, AllowAccounts and
    DenyAccounts; `option`: the profile's key."""

    partition: str
    row: Mapping[str, str]
    ending: str
    option: str

    @property
    def allowed(self) -> str:
        """The list of those that it takes; ALL where there is none."""
        return self.row.get(f"Allow{self.ending}", "ALL")

    def check(self, value: str, names: Sequence[str]) -> list[Refusal]:
        """Why it does not take an account or a QoS, in any case, that has these names
        in the lists."""
        allowed, denied = self.allowed, self.row.get(f"Deny{self.ending}", "")
        is_denied = not set(names).isdisjoint(accounting_limits.list_words(denied))
        if allowed != "ALL":  # then Slurm does not look at what is denied
            words = accounting_limits.list_words(allowed)
            is_denied = set(names).isdisjoint(words)
        if not is_denied:
            return []
        takes = allowed if allowed != "ALL" else f"all but {denied}"
        text = (
            f"partition {self.partition} does not take slurm.{self.option} {value}; it takes"
            f" {takes}"
        )
        return [Refusal(text)]


def _check_account(
    row: Mapping[str, str], cluster: Cluster, terms: Terms
) -> list[Refusal]:
    """Why a partition does not take the account. With one that it lists, newer versions
    of Slurm mean all accounts below."""
    account = terms.account
    if not account:
        return []
    access = _Access(terms.partition, row, "Accounts", "account")
    by_name = access.check(account, [account])
    lineage = accounting_limits.find_lineage(cluster, account)
    with_above = access.check(account, lineage.accounts)
    means_subaccounts = _means_subaccounts(cluster)
    if means_subaccounts is False:
        return by_name
    if means_subaccounts is None and bool(by_name) != bool(with_above):
        doubt = "not every version of Slurm takes an account for all below it"
        return _doubt(by_name or with_above, doubt)
    if means_subaccounts and access.allowed != "ALL" and not lineage.is_whole:
        return _doubt(with_above, f"the accounts above {account} are not known here")
    return with_above


def _doubt(refusals: Sequence[Refusal], doubt: str) -> list[Refusal]:
    return [replace(refusal, doubt=doubt) for refusal in refusals]


def _means_subaccounts(cluster: Cluster) -> bool | None:
    """Whether Slurm takes a listed account for all below it, by its version; None where
    that is not known. Source: scontrol(1), AllowAccounts, of 22.05 and of 24.05."""
    release = cluster.release
    if release is None or NAMED_ALONE < release < WITH_SUBACCOUNTS:
        return None
    return release >= WITH_SUBACCOUNTS
