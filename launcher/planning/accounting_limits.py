"""Decides what accounts and qualities of service (QoS) grant a profile's jobs. Pure.

Of a limit that is set in several places Slurm takes the first that sets it: the QoS of
the partition, that of the job (before the partition's, with its flag OverPartQOS), the
user's association; and of groups, the accounts above it, each.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from launcher.clusters.accounting import get_parent
from launcher.clusters.cluster import ROOT, Cluster, parse_minutes, parse_tres
from launcher.clusters.profiles import Profile
from launcher.planning.job_request import JobRequest

NORMAL = "normal"  # the QoS of a user who has several and no default
LIFTS_TIME, LIFTS_MAX_NODES, LIFTS_MIN_NODES = (
    "partitiontimelimit",
    "partitionmaxnodes",
    "partitionminnodes",
)
_OVER_PARTITION, _RESERVED = "overpartqos", "requiresreservation"


@dataclass(frozen=True)
class Layer:
    """A record of accounting that binds jobs, and whose it is. `is_group`: only its
    limits of a group count, as of an account above the user's."""

    owner: str
    record: Mapping[str, str]
    is_qos: bool = False
    is_group: bool = False


@dataclass(frozen=True)
class Lineage:
    """An account and those above it, in small letters, from below. `is_whole`: whether
    they are known up to the uppermost."""

    accounts: tuple[str, ...]
    is_whole: bool


@dataclass(frozen=True)
class Terms:
    """Under which account and QoS a profile's jobs run in a partition.

    None where that is not known. `flags` are those of the QoS, in small letters, and
    None where nobody tells.
    """

    partition: str
    account: str | None = None
    qos: str | None = None
    flags: frozenset[str] | None = field(default_factory=frozenset[str])
    layers: tuple[Layer, ...] = ()

    def lifts(self, flag: str) -> bool:
        """Whether the QoS lets jobs exceed a limit of the partition."""
        return self.flags is not None and flag in self.flags


@dataclass(frozen=True)
class SubmitQuota:
    """How many more jobs Slurm takes of this user now, and which limit says so."""

    jobs: int
    why: str


def find_terms(profile: Profile, cluster: Cluster, partition: str) -> Terms:
    """The terms of a profile's jobs in a partition."""
    associations = _find_associations(profile, cluster, partition)
    name = find_account(profile, cluster)
    qos = _find_qos(profile, cluster, associations)
    return Terms(
        partition,
        name,
        qos,
        _find_flags(cluster, qos),
        tuple(_find_layers(cluster, partition, qos, associations)),
    )


def find_account(profile: Profile, cluster: Cluster) -> str | None:
    """The account of a profile's jobs, in small letters, as Slurm keeps it: the user's
    default where none is named."""
    if profile.slurm.account:
        return profile.slurm.account.lower()
    for row in cluster.grants.associations:
        if row.get("DefAssoc") == "Yes":
            return row["Account"].lower()
    return None


def _find_associations(
    profile: Profile, cluster: Cluster, partition: str
) -> list[Mapping[str, str]]:
    """The associations of the profile's account; those of the partition itself where
    there are any, for Slurm then takes no others."""
    account = find_account(profile, cluster)
    rows = [
        row
        for row in cluster.grants.associations
        if row.get("Account", "").lower() == account
        and row.get("Partition") in ("", partition)
    ]
    of_partition = [row for row in rows if row.get("Partition")]
    return [*(of_partition or rows)]


def _find_qos(
    profile: Profile, cluster: Cluster, associations: Sequence[Mapping[str, str]]
) -> str | None:
    """The QoS of a profile's jobs, in small letters; None where nobody tells which is
    the default."""
    if profile.slurm.qos:
        return profile.slurm.qos.lower()
    if not cluster.grants.is_whole or not associations:
        return None
    row = associations[0]
    granted = list_words(row.get("QOS", ""))
    default = row.get("DefaultQOS", "").lower()
    if default:
        return default
    return granted[0] if len(granted) == 1 else NORMAL


def list_words(text: str) -> list[str]:
    """The words of a list with commas, in small letters."""
    return [word.strip().lower() for word in text.split(",") if word.strip()]


def _find_flags(cluster: Cluster, qos: str | None) -> frozenset[str] | None:
    if qos is None:
        # of a cluster without QoS there are none
        return None if cluster.grants.qos else frozenset()
    if "Flags" not in cluster.grants.qos.get(qos, {}):
        return None
    return frozenset(list_words(cluster.grants.qos[qos]["Flags"]))


def _find_layers(
    cluster: Cluster,
    partition: str,
    qos: str | None,
    associations: Sequence[Mapping[str, str]],
) -> Iterator[Layer]:
    """The layers of limits that hold for a job, QoS first, then the user's own
    associations, then the accounts above them.

    Where the site does not enforce limits there are none. Of a QoS those counted for an
    account as a whole (keys that end in PA) come with what the account already uses.
    """
    if not cluster.enforces("limits"):
        return
    account = associations[0].get("Account", "").lower() if associations else ""
    for name in _order_qos(cluster, partition, qos):
        record = cluster.grants.qos[name]
        used = cluster.grants.used_by_accounts.get((name, account), {})
        of_account = {key: used[key] for key in used if key.endswith("PA")}
        yield Layer(f"QoS {name}", {**record, **of_account}, is_qos=True)
    for row in associations:
        yield Layer(f"account {row['Account']}", row)
    yield from _find_accounts_above(cluster, account)


def _order_qos(cluster: Cluster, partition: str, qos: str | None) -> list[str]:
    """The QoS of the partition and that of the job, as far as there are any; the first
    counts before the second."""
    of_partition = cluster.partitions.get(partition, {}).get("QoS", "N/A").lower()
    names = [of_partition, qos or ""]
    if _OVER_PARTITION in (_find_flags(cluster, qos) or ()):
        names.reverse()
    return [name for name in dict.fromkeys(names) if name in cluster.grants.qos]


def _find_accounts_above(cluster: Cluster, account: str) -> Iterator[Layer]:
    """The account as a whole, and those above it."""
    accounts = {name.lower(): row for name, row in cluster.grants.accounts.items()}
    seen = set[str]()
    while account in accounts and account not in seen:
        seen.add(account)
        row = accounts[account]
        yield Layer(f"all of account {account}", row, is_group=True)
        account = get_parent(dict(row)).lower()


def find_lineage(cluster: Cluster, account: str) -> Lineage:
    """An account, in small letters, and those above it, as far as they are told."""
    accounts = {name.lower(): row for name, row in cluster.grants.accounts.items()}
    names: list[str] = []
    above = account
    while above and above not in names:
        names.append(above)
        above = get_parent(dict(accounts.get(above, {}))).lower()
    uppermost = accounts.get(names[-1], {})
    is_whole = names[-1] == ROOT or "ParentAccount" in uppermost
    return Lineage(tuple(names), is_whole)


def check_account(profile: Profile, cluster: Cluster) -> Iterator[str]:
    """Whether the account is one of the user's, in any case."""
    name, rows = profile.slurm.account, cluster.grants.associations
    accounts = list(dict.fromkeys(row["Account"] for row in rows))
    if name and accounts and name.lower() not in map(str.lower, accounts):
        yield (
            f"slurm.account {name} is none of {cluster.user}'s accounts; set it to one of"
            f" {', '.join(accounts)}"
        )


def check_qos(profile: Profile, cluster: Cluster) -> Iterator[str]:
    """Whether the QoS is one that there is, and one that the account has."""
    name = (profile.slurm.qos or "").lower()
    if not name or not cluster.grants.qos or not cluster.enforces("qos"):
        return
    if name not in cluster.grants.qos:
        yield (
            f"there is no QoS {profile.slurm.qos}; set slurm.qos in the profile to one of"
            f" {', '.join(sorted(cluster.grants.qos))}"
        )
        return
    granted = _list_granted_qos(profile, cluster)
    # an operator may use any
    if granted and name not in granted and cluster.user != ROOT:
        account = find_account(profile, cluster)
        yield (
            f"account {account} does not grant {cluster.user} the QoS {profile.slurm.qos}; set"
            f" slurm.qos in the profile to one of {', '.join(sorted(granted))}"
        )


def _list_granted_qos(profile: Profile, cluster: Cluster) -> set[str]:
    """Every QoS that the profile's account has; none where nobody tells."""
    account = find_account(profile, cluster)
    return {
        name
        for row in cluster.grants.associations
        if row.get("Account", "").lower() == account
        for name in list_words(row.get("QOS", ""))
    }


def check_reservation(terms: Terms, profile: Profile) -> Iterator[str]:
    """Whether the QoS asks for a reservation."""
    if terms.lifts(_RESERVED) and not profile.slurm.reservation:
        yield (
            f"QoS {terms.qos} takes jobs in reservations only (RequiresReservation); set"
            " slurm.reservation, or another slurm.qos"
        )


def check_job(terms: Terms, request: JobRequest) -> Iterator[str]:
    """What of a kind of job accounts and QoS do not grant."""
    yield from _check_wall(terms, request)
    yield from _check_resources(terms, request)
    yield from _check_running(terms, request)


def _check_wall(terms: Terms, request: JobRequest) -> Iterator[str]:
    minutes = request.size.time_min
    for layer in terms.layers:
        limit = read_wall(layer.record.get("MaxWallPJ", ""))
        if layer.is_group or limit is None:
            continue
        if minutes > limit:
            yield (
                f"{request.kind}.time_min is {minutes}, but {layer.owner} grants {limit:g}"
                f" (MaxWall); set {request.name_key('time_min')} to at most {limit:g}"
            )
        return


def read_wall(text: str) -> float | None:
    """A limit of time in minutes, as slurmctld or slurmdbd prints it; None for none."""
    if text.isdigit():
        return int(text)
    minutes = parse_minutes(text)
    return None if math.isinf(minutes) else minutes


# of a job alone and of all at once: what a job asks for beyond never starts
_TRES_LIMITS = {
    "MaxTRESPJ": "a job (MaxTRES)",
    "MaxTRESPU": "a user (MaxTRESPU)",
    "MaxTRESPA": "an account (MaxTRESPA)",
    "GrpTRES": "in all (GrpTRES)",
}


def _check_resources(terms: Terms, request: JobRequest) -> Iterator[str]:
    """What a job asks for beyond a limit, or below a least."""
    resources = request.resources
    for key, words in _TRES_LIMITS.items():
        for resource, owner, limit in _find_tres(terms, key):
            if resources.get(resource, 0) > limit:
                yield (
                    f"a {request.kind} job asks for {resource}={resources[resource]}, but"
                    f" {owner} grants {limit} {words}; ask for less"
                )
    for resource, owner, limit in _find_tres(terms, "MaxTRESPN"):
        per_node = math.ceil(resources.get(resource, 0) / request.size.nodes)
        if resource != "node" and per_node > limit:
            yield (
                f"a {request.kind} job asks for {resource}={per_node} on each node, but"
                f" {owner} grants {limit} a node (MaxTRESPerNode); ask for less"
            )
    for resource, owner, limit in _find_tres(terms, "MinTRESPJ"):
        if resources.get(resource, 0) < limit and resource in (
            "cpu",
            "node",
            "gres/gpu",
        ):
            yield (
                f"a {request.kind} job asks for {resource}={resources.get(resource, 0)}, but"
                f" {owner} takes none below {limit} (MinTRES); ask for more, or another"
                " slurm.qos"
            )


def _find_tres(terms: Terms, key: str) -> Iterator[tuple[str, str, int]]:
    """The limits of resources that bind, each with whose it is."""
    bound = set[str]()
    for layer in terms.layers:
        if layer.is_group and key != "GrpTRES":
            continue
        limits = parse_tres(layer.record.get(key, ""))
        for resource, limit in limits.items():
            if resource not in bound:
                yield resource, layer.owner, limit
        if layer.is_qos:
            bound |= limits.keys()


def _check_running(terms: Terms, request: JobRequest) -> Iterator[str]:
    """Whether jobs may run at all: a site stops accounts by a limit of none."""
    for key in ("MaxJobsPU", "MaxJobsPA", "GrpJobs", "MaxJobs"):
        for layer in _list_binding(terms, key):
            if re.fullmatch(r"0(\(\d+\))?", layer.record[key]):
                yield f"{layer.owner} lets no job run ({key} is 0), so a {request.kind} job waits"


def _list_binding(terms: Terms, key: str) -> list[Layer]:
    """The layers whose limit of that name binds: the first QoS that has one, else the
    association, and of a group all above it."""
    having = [
        layer
        for layer in terms.layers
        if re.match(r"\d", layer.record.get(key, ""))
        and (key.startswith("Grp") or not layer.is_group)
    ]
    first_qos = next((layer for layer in having if layer.is_qos), None)
    return [first_qos] if first_qos else having


_LIMITS_OF_SUBMIT = (
    "MaxSubmitJobsPU",
    "MaxSubmitJobsPA",
    "GrpSubmitJobs",
    "MaxSubmitJobs",
)
# of a QoS, in place of which Slurm does not look at the association's
_IN_PLACE_OF_ASSOCIATION = ("MaxSubmitJobsPU", "MaxSubmitJobsPA")


def find_submit_quota(terms: Terms) -> SubmitQuota | None:
    """How many more jobs Slurm takes; None where nothing limits them. A task of an
    array is a job."""
    quotas = list[SubmitQuota]()
    for key in _LIMITS_OF_SUBMIT:
        if key == "MaxSubmitJobs" and any(
            _list_binding(terms, of_qos) for of_qos in _IN_PLACE_OF_ASSOCIATION
        ):
            continue
        for layer in _list_binding(terms, key):
            if match := re.fullmatch(r"(\d+)\((\d+)\)", layer.record[key]):
                limit, used = map(int, match.groups())
                reason = f"{key} of {layer.owner} is {limit}, and {used} are there"
                quotas.append(SubmitQuota(max(0, limit - used), reason))
    return min(quotas, key=lambda quota: quota.jobs, default=None)
