"""Decides what of a plan the cluster, the disk and the profile's guards would not take,
and how much fits. Pure."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from launcher.clusters.cluster import Cluster
from launcher.clusters.profiles import Profile, gpus_per_node
from launcher.planning import accounting_limits, option_limits, partition_limits
from launcher.planning.accounting_limits import SubmitQuota, find_terms
from launcher.planning.job_request import JobRequest
from launcher.planning.partition_limits import Findings
from launcher.planning.plan import ACTING, SKIP, Action, Plan

LARGEST = 1001  # Slurm's own default of MaxArraySize


def array_size(profile: Profile, config: Mapping[str, str]) -> int:
    """The most jobs of one array: of the profile's wish and Slurm's limit the smaller.
    Indices begin at 0."""
    return max(
        1, min(profile.slurm.max_array_size, int(config.get("MaxArraySize", LARGEST)))
    )


def judge_plan(profile: Profile, plan: Plan, cluster: Cluster) -> Findings:
    """What Slurm's limits mean for the jobs of a plan."""
    requests = _list_requests(profile, plan)
    if not requests or not cluster.was_asked:
        return Findings()
    named = partition_limits.check_names(profile, cluster)
    refusals = [
        *option_limits.find_refusals(profile, cluster, requests),
        *accounting_limits.check_account(profile, cluster),
        *accounting_limits.check_qos(profile, cluster),
        *named.refusals,
    ]
    notes = [*option_limits.find_notes(profile), *list_unknown(profile, cluster)]
    notes += named.notes
    names = partition_limits.list_partitions(profile, cluster)
    if all(name in cluster.partitions for name in names):
        terms_of = {name: find_terms(profile, cluster, name) for name in names}
        for name in names:
            notes += partition_limits.list_notes(name, cluster)
        for request in requests if terms_of else []:
            findings = partition_limits.judge_request(request, cluster, terms_of)
            refusals += findings.refusals
            notes += findings.notes
    return Findings(tuple(dict.fromkeys(refusals)), tuple(dict.fromkeys(notes)))


def _list_requests(profile: Profile, plan: Plan) -> list[JobRequest]:
    """The kinds of jobs of a plan, each in every size that it has."""
    requests = list[JobRequest]()
    if not all(prepare.on_gpus for prepare in plan.prepares):
        requests.append(JobRequest(profile, "prepare", profile.prepare))
    sizes = dict.fromkeys(group.size for group in plan.groups)
    requests += [JobRequest(profile, "train", size) for size in sizes]
    if plan.evaluations or any(prepare.on_gpus for prepare in plan.prepares):
        requests.append(JobRequest(profile, "evaluate", profile.evaluate))
    return requests


def list_unknown(profile: Profile, cluster: Cluster) -> Iterator[str]:
    """What accounting limits, but does not show."""
    if not cluster.enforces("associations"):
        return
    if not cluster.grants.associations:
        yield (
            f"Slurm shows no account of {cluster.user or 'yours'} (scontrol show assoc_mgr): the"
            " limits of accounts and QoS were not looked at"
        )
    elif not cluster.grants.is_whole:
        default = "" if profile.slurm.qos else ", nor those of a default QoS"
        yield (
            "slurmdbd does not answer (sacctmgr): flags of QoS were not looked at"
            + default
        )


def find_submit_quota(profile: Profile, cluster: Cluster) -> SubmitQuota | None:
    """How many more jobs Slurm takes; None where nothing limits them. Of several
    partitions each counts, though a job starts in one."""
    names = partition_limits.list_partitions(profile, cluster) or [""]
    quotas = [
        accounting_limits.find_submit_quota(find_terms(profile, cluster, name))
        for name in names
    ]
    return min(filter(None, quotas), key=lambda quota: quota.jobs, default=None)


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
        reason = f"left for the next submit: {quota.why}"
        changed[index] = replace(actions[index], kind=SKIP, reason=reason)
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


@dataclass(frozen=True)
class GpusAtOnce:
    """The most GPUs that jobs hold at the same time. `per_task`: of one task of each
    array."""

    training: int
    evaluating: int
    per_task: int

    @property
    def all(self) -> int:
        return self.training + self.evaluating


def count_gpus_at_once(profile: Profile, plan: Plan, size: int) -> GpusAtOnce:
    """The GPUs of all arrays and evaluate jobs of a plan. `size`: the most jobs of an
    array."""
    at_once = profile.slurm.array_parallelism
    evaluate_jobs = sum(evaluation.jobs for evaluation in plan.evaluations)
    evaluating = gpus_per_node(profile, "evaluate") * evaluate_jobs
    training = 0
    per_task = 0
    for group in plan.groups:
        gpus = group.size.nodes * profile.slurm.gpus_per_node
        for start in range(0, len(group.runs), size):
            tasks = min(len(group.runs) - start, size)
            training += min(tasks, at_once) * gpus
            per_task += gpus
    return GpusAtOnce(training, evaluating, per_task)


def _check_gpus_at_once(profile: Profile, plan: Plan, size: int) -> Iterator[str]:
    """Whether all arrays and evaluate jobs at once hold more GPUs than max_gpus."""
    if profile.max_gpus is None:
        return
    gpus = count_gpus_at_once(profile, plan, size)
    if gpus.all <= profile.max_gpus:
        return
    fitting = 0
    if gpus.per_task:
        fitting = max(0, profile.max_gpus - gpus.evaluating) // gpus.per_task
    change = (
        f"slurm.array_parallelism: {fitting}" if fitting else "--only with fewer runs"
    )
    yield (
        f"{gpus.all} GPUs would be held at once, more than the profile's max_gpus"
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
