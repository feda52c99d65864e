"""Looks, before anything is submitted, at what a plan would meet: the cluster's limits, the disk, the guards."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from launcher.clusters import cluster as clusters
from launcher.clusters import which_cluster
from launcher.clusters.cluster import Cluster
from launcher.clusters.profiles import Profile
from launcher.planning import limits
from launcher.planning.estimates import Estimates
from launcher.planning.plan import SUBMIT, Plan
from launcher.submission import handover
from launcher.submission.handover import Say
from launcher.submission.submit import Site
from zsg_core.errors import ClusterError, UserError
from zsg_core.estimate import GB
from zsg_core.suites import key_variables


def cluster_of(profile: Profile, say: Say, must_answer: bool) -> Cluster:
    """The profile's cluster; an empty one for a local profile, and where it need not answer and does not."""
    named = which_cluster.named(profile)  # which may be refused, whether or not Slurm is at hand
    if profile.kind == "local" or (not must_answer and shutil.which("scontrol") is None):
        return Cluster(named=named)
    for note in which_cluster.notes(profile):
        say(f"note: {note}")
    if must_answer:
        return handover.patiently(lambda: clusters.ask(named=named), say)
    try:
        return clusters.ask(named=named)
    except ClusterError as error:
        say(f"the cluster's limits were not looked at ({handover.brief(error)})")
        return Cluster(named=named)


def objections(site: Site, plan: Plan, cluster: Cluster, estimates: Estimates) -> list[str]:
    """Why the plan would not pass, each with the smallest change that lets it pass."""
    profile, found = site.profile, []
    if cluster.partitions:
        found += limits.refusals(profile, plan, cluster)
    if profile.kind == "slurm":
        found += _guarded(profile, plan, cluster, estimates)
    return [*found, *plan.elsewhere, *_judges(plan), *_disk(site, plan, estimates)]


def refuse(found: list[str]) -> None:
    """Raises UserError with all that was found."""
    if found:
        raise UserError("; ".join(found) if len(found) == 1 else "\n  ".join([f"{len(found)} things:", *found]))


def _guarded(profile: Profile, plan: Plan, cluster: Cluster, estimates: Estimates) -> list[str]:
    hours, by_limits = 0.0, False
    if profile.max_gpu_hours is not None:
        for group in plan.groups:
            granted = group.size.nodes * profile.slurm.gpus_per_node * group.size.time_min / 60
            known = [estimates.of(run).gpu_hours for run in group.runs]
            hours += sum(granted if one is None else one for one in known)
            by_limits |= None in known
    return limits.guards(profile, plan, limits.array_size(profile, cluster.config), hours, by_limits)


def _judges(plan: Plan) -> list[str]:
    """The keys of judges that are not set here: evaluate jobs, to which they are handed on, would have none."""
    scored = [suite for one in plan.evaluations for run in one.runs for suite in run.suites]
    return [
        f"{name}, which checkpoints.suites.mt_bench.judge.key_env names, is not set here; export it, or take `judge` "
        "out: answers are then kept for `zsg answers export`"
        for name in key_variables(scored)
        if not os.environ.get(name)
    ]


def _disk(site: Site, plan: Plan, estimates: Estimates) -> Iterator[str]:
    # What goes on from a state has it on the disk already.
    new = [action.run for action in plan.acting if action.kind == SUBMIT]
    profile, root = site.profile, site.workspace.root.resolve()
    there = next((path for path in (root, *root.parents) if path.exists()), Path("/"))
    at_once = profile.max_parallel if profile.kind == "local" else profile.slurm.array_parallelism
    if new and (why := limits.disk(
        shutil.disk_usage(there).free / GB, max(estimates.of(run).state_gb for run in new), min(at_once, len(new))
    )):  # fmt: skip
        yield why if profile.kind == "slurm" else why.replace("slurm.array_parallelism", "max_parallel")
