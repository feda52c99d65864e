"""Looks, before anything is submitted, at what a plan would meet: the cluster's limits,
the disk, the guards."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from jobs.tracking import logins
from launcher.clusters import cluster as clusters
from launcher.clusters import slurm_retry, which_cluster
from launcher.clusters.cluster import Cluster
from launcher.clusters.profiles import Profile
from launcher.clusters.slurm_retry import Say
from launcher.grids.runs import Run
from launcher.planning import limits
from launcher.planning.estimates import Estimates
from launcher.planning.plan import SUBMIT, Plan
from launcher.planning.site import Site
from launcher.workspace import extras
from zsg_core import secrets
from zsg_core.errors import ClusterError, UserError, ZsgError
from zsg_core.suites import list_key_variables
from zsg_core.training.estimate import GB


def cluster_of(profile: Profile, say: Say, must_answer: bool) -> Cluster:
    """The profile's cluster; an empty one for a local profile, and where it need not
    answer and does not."""
    # which may be refused, whether or not Slurm is at hand
    named = which_cluster.choose_cluster(profile)
    if profile.kind == "local":
        return Cluster()
    for note in which_cluster.explain_choice(profile):
        say(f"note: {note}")
    if not must_answer and shutil.which("scontrol") is None:
        say(
            "the cluster's limits were not looked at: there is no scontrol here; submit from a"
            " login node of it"
        )
        return Cluster(named=named)
    if must_answer:
        return slurm_retry.retry_while_unreachable(
            lambda: clusters.query_cluster(named=named), say
        )
    try:
        return clusters.query_cluster(named=named)
    except ClusterError as error:
        say(
            f"the cluster's limits were not looked at ({slurm_retry.get_last_line(error)})"
        )
        return Cluster(named=named)


def find_objections(
    site: Site, plan: Plan, cluster: Cluster, estimates: Estimates
) -> list[ZsgError]:
    """Why the plan would not pass, each with the smallest change that lets it pass.

    UserError where the grid, the profile or the command is to change, ClusterError
    where the machine or Slurm is.
    """
    profile, found = site.profile, []
    if cluster.partitions:
        found += limits.find_refusals(profile, plan, cluster)
    if profile.kind == "slurm":
        found += _guarded(profile, plan, cluster, estimates)
    found += [
        *plan.elsewhere,
        *_judges(plan),
        *_tracking(profile),
        *_disk(site, plan, estimates),
    ]
    told: list[ZsgError] = [UserError(why) for why in found]
    if is_python_of_jobs(profile):
        told += [ClusterError(why) for why in find_missing_packages(plan)]
    return told


def without_room(plan: Plan) -> list[ZsgError]:
    """Why nothing of a plan can be submitted for want of room. Submit asks once it has
    settled what it left behind."""
    if plan.left and not plan.acting:
        return [
            ClusterError(
                f"nothing was submitted: {plan.left}; zsg submit again once jobs have ended"
            )
        ]
    return []


def join_objections(found: list[ZsgError]) -> ZsgError | None:
    """All that was found as one error, of the kind of the first; None where there is nothing."""
    if not found:
        return None
    words = [str(one) for one in found]
    return type(found[0])(
        words[0] if len(words) == 1 else "\n  ".join([f"{len(words)} things:", *words])
    )


def raise_objections(found: list[ZsgError]) -> None:
    """Raises that error, if there is one."""
    if error := join_objections(found):
        raise error


def is_python_of_jobs(profile: Profile) -> bool:
    """Whether jobs see the packages that are installed here, and no others."""
    is_container = bool(profile.container.prefix or profile.container.python)
    # a line may load a module with packages
    brings = profile.kind == "slurm" and bool(profile.setup)
    return not (is_container or brings or "PYTHONPATH" in profile.environment.set)


def find_missing_packages(plan: Plan) -> list[str]:
    """The packages that the plan's jobs would look for in vain, if they see what is
    installed here."""
    trained = [run for group in plan.groups for run in group.runs]
    scored = [run for one in plan.evaluations for run in one.runs]
    prepared = [run for prepare in plan.prepares for run in prepare.runs]
    runs = [*trained, *scored, *prepared]
    if not runs:
        return []
    modules = ["torch", "transformers"]
    modules += ["deepspeed"] * bool(trained)
    modules += _to_order(prepared)
    modules += ["peft"] * any(
        run.stage["train"]["tuning"]["method"] == "lora" for run in [*trained, *scored]
    )
    keys = {key.partition("/")[0] for run in scored for key in run.checkpoints.scored}
    scorers = ["rouge_score"] * bool(keys & {"rouge1", "rougeL"}) + ["sklearn"] * (
        "silhouette" in keys
    )
    told = [
        extras.describe_missing("training", modules, "train"),
        extras.describe_missing("what checkpoints are scored by", scorers, "evaluate"),
    ]
    return [line for line in told if line]


def lacking_to_order(runs: Sequence[Run]) -> str | None:
    """The packages that are missing here to make the orders of runs, in words; None if none is."""
    return extras.describe_missing("making these orders", _to_order(runs), "train")


def _to_order(runs: Sequence[Run]) -> list[str]:
    modules = ["sentence_transformers"] * any(run.embedding is not None for run in runs)
    return modules + ["ot"] * any(
        run.stage["arrangement"].get("measure") == "ot" for run in runs
    )


def _guarded(
    profile: Profile, plan: Plan, cluster: Cluster, estimates: Estimates
) -> list[str]:
    hours, by_limits = 0.0, False
    if profile.max_gpu_hours is not None:
        for group in plan.groups:
            granted = (
                group.size.nodes
                * profile.slurm.gpus_per_node
                * group.size.time_min
                / 60
            )
            known = [estimates.of(run).gpu_hours for run in group.runs]
            hours += sum(granted if one is None else one for one in known)
            by_limits |= None in known
    return limits.check_guards(
        profile, plan, limits.array_size(profile, cluster.config), hours, by_limits
    )


def _judges(plan: Plan) -> list[str]:
    """What is wrong with the keys of judges, which are handed on to evaluate jobs from here."""
    scored = [
        suite for one in plan.evaluations for run in one.runs for suite in run.suites
    ]
    told = []
    for name in list_key_variables(scored):
        try:
            key = secrets.read_key(name)
        except UserError as error:
            told.append(f"{error}; checkpoints.suites.mt_bench.judge.key_env names it")
            continue
        if key is None:
            told.append(
                f"{name}, which checkpoints.suites.mt_bench.judge.key_env names, is not set here;"
                " export it, or take `judge` out: answers are then kept for `zsg answers export`"
            )
    return told


def _tracking(profile: Profile) -> list[str]:
    """Why MLflow's password would be read on its way to the profile's address."""
    why = logins.explain_refusal(profile.tracking.uri or "")
    return [f"tracking.uri: {why}"] if why else []


def _disk(site: Site, plan: Plan, estimates: Estimates) -> Iterator[str]:
    # What goes on from a state has it on the disk already.
    new = [action.run for action in plan.acting if action.kind == SUBMIT]
    profile, root = site.profile, site.workspace.root.resolve()
    there = next((path for path in (root, *root.parents) if path.exists()), Path("/"))
    at_once = (
        profile.max_parallel
        if profile.kind == "local"
        else profile.slurm.array_parallelism
    )
    if new and (
        why := limits.check_disk(
            shutil.disk_usage(there).free / GB,
            max(estimates.of(run).state_gb for run in new),
            min(at_once, len(new)),
        )
    ):
        yield (
            why
            if profile.kind == "slurm"
            else why.replace("slurm.array_parallelism", "max_parallel")
        )
