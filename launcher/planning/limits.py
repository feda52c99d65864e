"""Decides what of a plan the cluster, the disk and the profile's guards would not take,
and how much fits. Pure."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from launcher.clusters.cluster import Cluster, parse_minutes, parse_tres
from launcher.clusters.profiles import JobSize, Profile, gpus_per_node, mem_gb
from launcher.planning.plan import ACTING, SKIP, Action, Plan

LARGEST = 1001  # Slurm's own default of MaxArraySize
_LIMITS_OF_SUBMIT = (
    "MaxSubmitJobs",
    "GrpSubmitJobs",
    "MaxSubmitJobsPU",
    "MaxSubmitJobsPA",
)


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
    sizes = _list_job_sizes(profile, plan)
    if not sizes:
        return []
    refusals = [*check_account(profile, cluster), *check_qos(profile, cluster)]
    name = profile.slurm.partition or cluster.default_partition
    if name is None or name not in cluster.partitions:
        return [*refusals, _explain_no_partition(name, cluster)]
    for kind, size in sizes:
        refusals += check_partition(name, cluster.partitions[name], profile, kind, size)
        for whose, row in find_binding_limits(profile, cluster):
            refusals += per_job(whose, row, profile, kind, size)
    return list(dict.fromkeys(refusals))


def _list_job_sizes(profile: Profile, plan: Plan) -> list[tuple[str, JobSize]]:
    """The kinds of jobs of a plan, each with every size that it has."""
    sizes = list[tuple[str, JobSize]]()
    if not all(prepare.samples for prepare in plan.prepares):
        sizes.append(("prepare", profile.prepare))
    train_sizes = dict.fromkeys(group.size for group in plan.groups)
    sizes += [("train", size) for size in train_sizes]
    if plan.evaluations or any(prepare.samples for prepare in plan.prepares):
        sizes.append(("evaluate", profile.evaluate))
    return sizes


def _explain_no_partition(name: str | None, cluster: Cluster) -> str:
    fault = (
        f"there is no partition {name!r}" if name else "there is no default partition"
    )
    names = ", ".join(cluster.partitions)
    return f"{fault}; set slurm.partition in the profile to one of {names}"


def check_partition(
    name: str, row: Mapping[str, str], profile: Profile, kind: str, size: JobSize
) -> Iterator[str]:
    """What of a kind of job a partition does not grant."""
    yield from _check_time(name, row, kind, size)
    yield from _check_nodes(name, row, kind, size)
    yield from _check_gpus(name, row, kind, _resources_of(profile, kind, size))
    yield from _check_memory(name, row, profile, kind)
    yield from _check_access(name, row, "Accounts", "account", profile.slurm.account)
    yield from _check_access(name, row, "Qos", "qos", profile.slurm.qos)


def _check_time(
    name: str, row: Mapping[str, str], kind: str, size: JobSize
) -> Iterator[str]:
    limit = parse_minutes(row.get("MaxTime", ""))
    if size.time_min > limit:
        yield (
            f"{kind}.time_min is {size.time_min}, but partition {name} grants {limit:g} (MaxTime),"
            f" so the job would be refused or wait for ever; set {_key(kind, 'time_min')} to at"
            f" most {limit:g}"
        )


def _check_nodes(
    name: str, row: Mapping[str, str], kind: str, size: JobSize
) -> Iterator[str]:
    for key, limit_name in (("MaxNodes", "MaxNodes"), ("TotalNodes", "nodes in all")):
        if row.get(key, "").isdigit() and size.nodes > int(row[key]):
            yield (
                f"{kind}.nodes is {size.nodes}, but partition {name} grants {row[key]}"
                f" ({limit_name}); set {_key(kind, 'nodes')} to at most {row[key]}"
            )
            break


def _check_gpus(
    name: str, row: Mapping[str, str], kind: str, resources: Mapping[str, int]
) -> Iterator[str]:
    gpus = resources.get("gres/gpu", 0)
    gpus_of_partition = parse_tres(row.get("TRES", "")).get("gres/gpu")
    if gpus_of_partition is not None and gpus > gpus_of_partition:
        yield (
            f"a {kind} job asks for {gpus} GPUs, but partition {name} has"
            f" {gpus_of_partition} in all; set slurm.gpus_per_node lower, or another"
            " slurm.partition"
        )


def _check_memory(
    name: str, row: Mapping[str, str], profile: Profile, kind: str
) -> Iterator[str]:
    limit_mb, memory_gb = row.get("MaxMemPerNode", ""), mem_gb(profile, kind)
    if memory_gb and limit_mb.isdigit() and memory_gb * 1024 > int(limit_mb):
        key = "slurm" if memory_gb == profile.slurm.mem_gb else kind
        yield (
            f"{key}.mem_gb is {memory_gb}, but partition {name} grants {int(limit_mb) // 1024}"
            " (MaxMemPerNode)"
        )


def _check_access(
    name: str, row: Mapping[str, str], field: str, option: str, value: str | None
) -> Iterator[str]:
    """Whether a partition takes an account or a QoS. `field`: as Slurm's fields end,
    AllowAccounts and DenyAccounts."""
    allowed, denied = row.get(f"Allow{field}", "ALL"), row.get(f"Deny{field}", "")
    is_denied = value in denied.split(",")
    if allowed != "ALL":
        is_denied = is_denied or value not in allowed.split(",")
    if value and is_denied:
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
    limits: list[tuple[str, Mapping[str, str]]] = [
        (f"account {row['Account']}", row)
        for row in _find_associations(profile, cluster, name)
    ]
    qos_of_partition = cluster.partitions.get(name, {}).get("QoS", "N/A")
    for qos in dict.fromkeys((profile.slurm.qos, qos_of_partition)):
        if qos and qos in cluster.qos:
            limits.append((f"QoS {qos}", cluster.qos[qos]))
    return limits


def _find_associations(
    profile: Profile, cluster: Cluster, partition: str
) -> list[Mapping[str, str]]:
    """The associations of the profile's account; those of the partition itself where
    there are any, for Slurm then takes no others."""
    rows = [
        row
        for row in cluster.associations
        if _is_meant(row, profile) and row.get("Partition") in ("", partition)
    ]
    of_partition = [row for row in rows if row.get("Partition")]
    return of_partition or rows


def find_submit_quota(profile: Profile, cluster: Cluster) -> SubmitQuota | None:
    """How many more jobs Slurm takes; None where nothing limits them. A task of an
    array is a job."""
    quotas = list[SubmitQuota]()
    for whose, row in find_binding_limits(profile, cluster):
        for key in _LIMITS_OF_SUBMIT:
            if match := re.fullmatch(r"(\d+)\((\d+)\)", row.get(key, "")):
                limit, used = map(int, match.groups())
                reason = f"{key} of {whose} is {limit}, and {used} are there"
                quotas.append(SubmitQuota(max(0, limit - used), reason))
    return min(quotas, key=lambda quota: quota.jobs, default=None)


def cut_to_quota(
    plan: Plan,
    quota: SubmitQuota | None,
    links: int,
    remake: Callable[[list[Action]], Plan],
) -> Plan:
    """The plan, or as many of its first runs as the quota has jobs for; the others are
    left for the next submit."""
    if quota is None or plan.jobs(links) <= quota.jobs:
        return plan
    acting = [
        index for index, action in enumerate(plan.actions) if action.kind in ACTING
    ]
    low, high = 0, len(acting) - 1
    while low < high:
        middle = (low + high + 1) // 2
        smaller = remake(_skip_for_later(plan.actions, acting[middle:], quota))
        if smaller.jobs(links) <= quota.jobs:
            low = middle
        else:
            high = middle - 1
    postponed = len(acting) - low
    return replace(
        remake(_skip_for_later(plan.actions, acting[low:], quota)),
        left=f"{postponed} run{'s' * (postponed > 1)} left for later: {quota.why}",
    )


def _skip_for_later(
    actions: Sequence[Action], indices: Sequence[int], quota: SubmitQuota
) -> list[Action]:
    changed = list(actions)
    for index in indices:
        changed[index] = Action(
            actions[index].run, SKIP, f"left for the next submit: {quota.why}"
        )
    return changed


def check_guards(
    profile: Profile, plan: Plan, size: int, gpu_hours: float, by_limits: bool
) -> list[str]:
    """What the profile's own guards refuse. `size`: the most jobs of an array;
    `gpu_hours`: of the whole plan."""
    return [
        *_check_gpus_at_once(profile, plan, size),
        *_check_gpu_hours(profile, gpu_hours, by_limits),
    ]


def _check_gpus_at_once(profile: Profile, plan: Plan, size: int) -> Iterator[str]:
    """Whether all arrays and evaluate jobs at once hold more GPUs than max_gpus."""
    if profile.max_gpus is None:
        return
    at_once = profile.slurm.array_parallelism
    evaluate_jobs = sum(evaluation.jobs for evaluation in plan.evaluations)
    evaluating = gpus_per_node(profile, "evaluate") * evaluate_jobs
    training = per_task = 0  # per_task: of one task of each array
    for group in plan.groups:
        gpus = group.size.nodes * profile.slurm.gpus_per_node
        for start in range(0, len(group.runs), size):
            tasks = min(len(group.runs) - start, size)
            training += min(tasks, at_once) * gpus
            per_task += gpus
    if training + evaluating <= profile.max_gpus:
        return
    fitting = max(0, profile.max_gpus - evaluating) // per_task if per_task else 0
    change = (
        f"slurm.array_parallelism: {fitting}" if fitting else "--only with fewer runs"
    )
    yield (
        f"{training + evaluating} GPUs would be held at once, more than the profile's max_gpus"
        f" {profile.max_gpus}; {change}, or a higher max_gpus, lets it pass"
    )


def _check_gpu_hours(
    profile: Profile, gpu_hours: float, by_limits: bool
) -> Iterator[str]:
    if profile.max_gpu_hours is None or gpu_hours <= profile.max_gpu_hours:
        return
    basis = (
        "by the time limits, as no estimate is known" if by_limits else "as estimated"
    )
    yield (
        f"the runs take {gpu_hours:,.1f} GPU-hours {basis}, more than the profile's max_gpu_hours"
        f" {profile.max_gpu_hours:g}; --only with fewer runs, or a higher max_gpu_hours, lets"
        " it pass"
    )


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
    accounts = list(dict.fromkeys(row["Account"] for row in cluster.associations))
    if name and accounts and name not in accounts:
        yield (
            f"slurm.account {name} is none of {cluster.user}'s accounts; set it to one of"
            f" {', '.join(accounts)}"
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
    limits = parse_tres(row.get("MaxTRESPJ", ""))
    for resource, count in _resources_of(profile, kind, size).items():
        if resource in limits and count > limits[resource]:
            yield (
                f"a {kind} job asks for {resource}={count}, but {whose} grants {limits[resource]}"
                " a job (MaxTRES); ask for less"
            )


def _resources_of(profile: Profile, kind: str, size: JobSize) -> dict[str, int]:
    """What a job asks for, by the names of Slurm's trackable resources."""
    resources = {
        "node": size.nodes,
        "cpu": size.nodes * size.ranks_per_node * size.cpus_per_rank,
    }
    if gpus := size.nodes * gpus_per_node(profile, kind):
        resources["gres/gpu"] = gpus
    return resources


def _key(kind: str, name: str) -> str:
    if kind == "train":
        return f"train.{name} in the profile, or resources.{name} in the grid,"
    return f"{kind}.{name}"
