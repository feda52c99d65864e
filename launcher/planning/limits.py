"""Decides what of a plan the cluster, the disk and the profile's guards would not take,
and how much fits. Pure."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from launcher.clusters.cluster import Cluster, parse_minutes, parse_tres
from launcher.clusters.profiles import JobSize, Profile, gpus_per_node
from launcher.planning.plan import ACTING, SKIP, Action, Plan

LARGEST = 1001  # Slurm's own default of MaxArraySize


@dataclass(frozen=True)
class SubmitQuota:
    """How many more jobs Slurm takes of this user now, and which limit says so."""

    jobs: int
    why: str


def array_size(profile: Profile, config: Mapping[str, str]) -> int:
    """The most jobs of one array: of the profile's wish and Slurm's limit the smaller.
    Indices begin at 0."""
    return max(
        1, min(profile.slurm.max_array_size, int(config.get("MaxArraySize", LARGEST)))
    )


def find_refusals(profile: Profile, plan: Plan, cluster: Cluster) -> list[str]:
    """Why Slurm would refuse jobs of a plan, or let them wait for ever; each with what
    to change."""
    sizes = (
        [("prepare", profile.prepare)]
        if any(not one.samples for one in plan.prepares)
        else []
    )
    sizes += [
        ("train", size) for size in dict.fromkeys(group.size for group in plan.groups)
    ]
    sizes += (
        [("evaluate", profile.evaluate)]
        if plan.evaluations or any(one.samples for one in plan.prepares)
        else []
    )
    if not sizes:
        return []
    found = [*check_account(profile, cluster), *check_qos(profile, cluster)]
    name = profile.slurm.partition or cluster.default_partition
    if name is None or name not in cluster.partitions:
        what = (
            f"there is no partition {name!r}"
            if name
            else "there is no default partition"
        )
        return [
            *found,
            f"{what}; set slurm.partition in the profile to one of {', '.join(cluster.partitions)}",
        ]
    for kind, size in sizes:
        found += check_partition(name, cluster.partitions[name], profile, kind, size)
        for whose, row in find_binding_limits(profile, cluster):
            found += per_job(whose, row, profile, kind, size)
    return list(dict.fromkeys(found))


def check_partition(
    name: str, row: Mapping[str, str], profile: Profile, kind: str, size: JobSize
) -> Iterator[str]:
    """What of a kind of job a partition does not grant."""
    slurm = profile.slurm
    limit = parse_minutes(row.get("MaxTime", ""))
    if size.time_min > limit:
        yield (
            f"{kind}.time_min is {size.time_min}, but partition {name} grants {limit:g} (MaxTime),"
            f" so the job would be refused or wait for ever; set {_key(kind, 'time_min')} to at"
            f" most {limit:g}"
        )
    for key, limit_name in (("MaxNodes", "MaxNodes"), ("TotalNodes", "nodes in all")):
        if row.get(key, "").isdigit() and size.nodes > int(row[key]):
            yield (
                f"{kind}.nodes is {size.nodes}, but partition {name} grants {row[key]}"
                f" ({limit_name}); set {_key(kind, 'nodes')} to at most {row[key]}"
            )
            break
    there, asked = parse_tres(row.get("TRES", "")), _asked(profile, kind, size)
    if (
        asked.get("gres/gpu", 0) > there.get("gres/gpu", 0)
        and "TRES" in row
        and "gres/gpu" in there
    ):
        yield (
            f"a {kind} job asks for {asked['gres/gpu']} GPUs, but partition {name} has"
            f" {there['gres/gpu']} in all; set slurm.gpus_per_node lower, or another"
            " slurm.partition"
        )
    most = row.get("MaxMemPerNode", "")
    if slurm.mem_gb and most.isdigit() and slurm.mem_gb * 1024 > int(most):
        yield (
            f"slurm.mem_gb is {slurm.mem_gb}, but partition {name} grants {int(most) // 1024}"
            " (MaxMemPerNode)"
        )
    for key, option, value in (
        ("Accounts", "account", slurm.account),
        ("Qos", "qos", slurm.qos),
    ):
        allowed, denied = row.get(f"Allow{key}", "ALL"), row.get(f"Deny{key}", "")
        if value and (
            (allowed != "ALL" and value not in allowed.split(","))
            or value in denied.split(",")
        ):
            yield (
                f"partition {name} does not take slurm.{option} {value}; "
                f"it takes {allowed if allowed != 'ALL' else f'all but {denied}'}"
            )


def find_binding_limits(
    profile: Profile, cluster: Cluster
) -> list[tuple[str, Mapping[str, str]]]:
    """The records of accounting that bind the profile's jobs, each with whose it is."""
    if not cluster.enforces("limits"):
        return []
    name = profile.slurm.partition or cluster.default_partition or ""
    named = [
        row
        for row in cluster.associations
        if _is_meant(row, profile) and row.get("Partition") in ("", name)
    ]
    best = [row for row in named if row.get("Partition")] or named
    found = [(f"account {row['Account']}", row) for row in best]
    of_partition = cluster.partitions.get(name, {}).get("QoS", "N/A")
    for qos in dict.fromkeys(filter(None, (profile.slurm.qos, of_partition))):
        found += [(f"QoS {qos}", cluster.qos[qos])] if qos in cluster.qos else []
    return found


def find_submit_quota(profile: Profile, cluster: Cluster) -> SubmitQuota | None:
    """How many more jobs Slurm takes; None where nothing limits them. A task of an
    array is a job."""
    found = []
    for whose, row in find_binding_limits(profile, cluster):
        for key in (
            "MaxSubmitJobs",
            "GrpSubmitJobs",
            "MaxSubmitJobsPU",
            "MaxSubmitJobsPA",
        ):
            if limit := re.fullmatch(r"(\d+)\((\d+)\)", row.get(key, "")):
                most, used = map(int, limit.groups())
                found.append(
                    SubmitQuota(
                        max(0, most - used),
                        f"{key} of {whose} is {most}, and {used} are there",
                    )
                )
    return min(found, key=lambda one: one.jobs, default=None)


def cut_to_quota(
    plan: Plan,
    space: SubmitQuota | None,
    links: int,
    remake: Callable[[list[Action]], Plan],
) -> Plan:
    """The plan, or as many of its first runs as there is room for; the others are left
    for the next submit."""
    if space is None or plan.jobs(links) <= space.jobs:
        return plan
    acting = [
        place for place, action in enumerate(plan.actions) if action.kind in ACTING
    ]
    low, high = 0, len(acting) - 1
    while low < high:
        middle = (low + high + 1) // 2
        fits = (
            remake(_leaving(plan.actions, acting[middle:], space)).jobs(links)
            <= space.jobs
        )
        low, high = (middle, high) if fits else (low, middle - 1)
    left = len(acting) - low
    made = remake(_leaving(plan.actions, acting[low:], space))
    return replace(
        made, left=f"{left} run{'s' * (left > 1)} left for later: {space.why}"
    )


def _leaving(
    actions: Sequence[Action], places: Sequence[int], space: SubmitQuota
) -> list[Action]:
    changed = list(actions)
    for place in places:
        changed[place] = Action(
            actions[place].run, SKIP, f"left for the next submit: {space.why}"
        )
    return changed


def check_guards(
    profile: Profile, plan: Plan, size: int, gpu_hours: float, by_limits: bool
) -> list[str]:
    """What the profile's own guards refuse. `size`: the most jobs of an array;
    `gpu_hours`: of the whole plan."""
    found, per_node, at_once = (
        [],
        profile.slurm.gpus_per_node,
        profile.slurm.array_parallelism,
    )
    parts = [
        (min(len(group.runs) - start, size), group.size.nodes * per_node)
        for group in plan.groups
        for start in range(0, len(group.runs), size)
    ]
    evaluating = gpus_per_node(profile, "evaluate") * sum(
        one.jobs for one in plan.evaluations
    )
    held = sum(min(count, at_once) * each for count, each in parts) + evaluating
    if profile.max_gpus is not None and held > profile.max_gpus:
        each_at_once = sum(each for _, each in parts)
        fitting = (
            max(0, profile.max_gpus - evaluating) // each_at_once if each_at_once else 0
        )
        change = (
            f"slurm.array_parallelism: {fitting}"
            if fitting
            else "--only with fewer runs"
        )
        found.append(
            f"{held} GPUs would be held at once, more than the profile's max_gpus"
            f" {profile.max_gpus}; {change}, or a higher max_gpus, lets it pass"
        )
    if profile.max_gpu_hours is not None and gpu_hours > profile.max_gpu_hours:
        how = (
            "by the time limits, as no estimate is known"
            if by_limits
            else "as estimated"
        )
        found.append(
            f"the runs take {gpu_hours:,.1f} GPU-hours {how}, more than the profile's max_gpu_hours"
            f" {profile.max_gpu_hours:g}; --only with fewer runs, or a higher max_gpu_hours, lets"
            " it pass"
        )
    return found


def check_disk(free_gb: float, state_gb: float, at_once: int) -> str | None:
    """Why the workspace's disk is too small for the states of the runs at work at once;
    two while one is written."""
    if 2 * state_gb * at_once <= free_gb:
        return None
    fitting = int(free_gb // (2 * state_gb))
    change = (
        f"slurm.array_parallelism: {fitting}"
        if fitting
        else "a workspace on a larger disk"
    )
    return (
        f"{2 * state_gb * at_once:,.1f} GB of states would be on disk at once ({at_once} runs, two"
        f" of {state_gb:,.1f} GB each), but the workspace's disk has {free_gb:,.1f} GB free;"
        f" {change} makes it fit"
    )


def _is_meant(row: Mapping[str, str], profile: Profile) -> bool:
    account = profile.slurm.account
    return row.get("Account") == account if account else row.get("DefAssoc") == "Yes"


def check_account(profile: Profile, cluster: Cluster) -> Iterator[str]:
    """Whether the account is one of the user's."""
    name = profile.slurm.account
    known = list(dict.fromkeys(row["Account"] for row in cluster.associations))
    if name and known and name not in known:
        yield (
            f"slurm.account {name} is none of {cluster.user}'s accounts; set it to one of"
            f" {', '.join(known)}"
        )


def check_qos(profile: Profile, cluster: Cluster) -> Iterator[str]:
    """Whether the QoS is one that there is."""
    name = profile.slurm.qos
    if name and cluster.qos and name not in cluster.qos and cluster.enforces("qos"):
        yield (
            f"there is no QoS {name}; set slurm.qos in the profile to one of"
            f" {', '.join(cluster.qos)}"
        )


def per_job(
    whose: str, row: Mapping[str, str], profile: Profile, kind: str, size: JobSize
) -> Iterator[str]:
    """What of a kind of job an account or a QoS does not grant."""
    wall = row.get("MaxWallPJ", "")
    if wall.isdigit() and size.time_min > int(wall):
        yield (
            f"{kind}.time_min is {size.time_min}, but {whose} grants {wall} (MaxWall); "
            f"set {_key(kind, 'time_min')} to at most {wall}"
        )
    most, asked = parse_tres(row.get("MaxTRESPJ", "")), _asked(profile, kind, size)
    for what, count in asked.items():
        if what in most and count > most[what]:
            yield (
                f"a {kind} job asks for {what}={count}, but {whose} grants {most[what]} a job"
                " (MaxTRES); ask for less"
            )


def _asked(profile: Profile, kind: str, size: JobSize) -> dict[str, int]:
    """What a job asks for, by the names of Slurm's trackable resources."""
    asked = {
        "node": size.nodes,
        "cpu": size.nodes * size.ranks_per_node * size.cpus_per_rank,
    }
    gpus = size.nodes * gpus_per_node(profile, kind)
    return asked | ({"gres/gpu": gpus} if gpus else {})


def _key(kind: str, name: str) -> str:
    return (
        f"train.{name} in the profile, or resources.{name} in the grid,"
        if kind == "train"
        else f"{kind}.{name}"
    )
