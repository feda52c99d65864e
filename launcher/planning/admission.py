"""Looks, before anything is submitted, at what a plan would meet: the cluster's limits,
the disk, the guards."""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

from jobs.runtime.slurm_calls import Runner, look_with, run_program
from jobs.tracking import logins
from launcher.clusters import cluster as clusters
from launcher.clusters import profiles, slurm_retry, which_cluster
from launcher.clusters.cluster import Cluster
from launcher.clusters.in_background import EarlyAnswer
from launcher.clusters.profiles import Profile
from launcher.grids.runs import Run
from launcher.planning import limits, model_proofs
from launcher.planning.accounting_limits import SubmitQuota
from launcher.planning.estimates import Estimates
from launcher.planning.makings import list_servers
from launcher.planning.plan import SUBMIT, Allow, Plan
from launcher.planning.site import Site, get_runs_at_once
from launcher.workspace import extras
from zsg_core import secrets
from zsg_core.errors import ClusterError, UserError, ZsgError
from zsg_core.makers.registry import MAKERS
from zsg_core.suites import list_key_variables
from zsg_core.training.estimate import GB

logger = logging.getLogger(__name__)

OVERRULE = "--no-limits"


def ask_early(profile: Profile) -> EarlyAnswer[Cluster] | None:
    """The profile's cluster, asked in the background; None where there is nobody to ask.

    slurmdbd takes a fifth of a second, in which runs can be resolved.
    """
    if profile.kind == "local" or shutil.which("scontrol") is None:
        return None
    return EarlyAnswer(lambda: _ask_cluster(profile, look_with(run_program)))


def _ask_cluster(profile: Profile, run: Runner = run_program) -> Cluster:
    return clusters.query_cluster(run, which_cluster.choose_cluster(profile))


def cluster_of(
    profile: Profile, must_answer: bool, early: EarlyAnswer[Cluster] | None = None
) -> Cluster:
    """The profile's cluster; an empty one for a local profile, and where it need not
    answer and does not. `early`: where it has been asked already."""
    # which may be refused, whether or not Slurm is at hand
    named = which_cluster.choose_cluster(profile)
    if profile.kind == "local":
        return Cluster()
    for note in which_cluster.explain_choice(profile):
        logger.warning(f"note: {note}")
    if not must_answer and shutil.which("scontrol") is None:
        logger.warning(
            "the cluster's limits were not looked at: there is no scontrol here; submit from a"
            " login node of it"
        )
        return Cluster(named=named)
    if must_answer:
        return slurm_retry.retry_while_unreachable(
            early or (lambda: _ask_cluster(profile))
        )
    try:
        return early() if early else _ask_cluster(profile, look_with(run_program))
    except ClusterError as error:
        logger.warning(
            f"the cluster's limits were not looked at ({slurm_retry.get_last_line(error)})"
        )
        return Cluster(named=named)


def find_objections(
    site: Site, plan: Plan, allow: Allow, estimates: Estimates
) -> list[ZsgError]:
    """Why the plan would not pass, each with the smallest change that lets it pass.

    UserError where the grid, the profile or the command is to change, ClusterError
    where the machine or Slurm is. Tells on the way what of Slurm's limits cannot be
    known, and what is submitted all the same.
    """
    profile, cluster = site.profile, site.cluster
    reasons = _check_limits(site, plan, allow)
    if profile.kind == "slurm":
        reasons += _check_guards(profile, plan, cluster, estimates)
    reasons += [
        *plan.elsewhere,
        *_check_judge_keys(plan),
        *_check_asked_keys(plan),
        *_check_tracking(profile),
        *_check_disk(site, plan, estimates),
        *model_proofs.list_refusals(site, _list_trained(plan)),
    ]
    objections: list[ZsgError] = [UserError(reason) for reason in reasons]
    if profiles.is_python_of_jobs(profile):
        objections += [ClusterError(line) for line in find_missing_packages(plan)]
    return objections


def _list_trained(plan: Plan) -> list[Run]:
    return [run for group in plan.groups for run in group.runs]


def _check_limits(site: Site, plan: Plan, allow: Allow) -> list[str]:
    """What Slurm's limits would not grant; said and no more where the user overrules it."""
    findings = limits.judge_plan(site.profile, plan, site.cluster)
    for note in findings.notes:
        logger.warning(f"note: {note}")
    if allow.limits:
        return [
            f"{refusal} ({OVERRULE} submits all the same)"
            for refusal in findings.refusals
        ]
    for refusal in findings.refusals:
        logger.warning(f"note: submitted all the same ({OVERRULE}): {refusal}")
    return []


def find_submit_quota(site: Site, allow: Allow) -> SubmitQuota | None:
    """How many more jobs Slurm takes now; None where nothing limits them, or the user
    overrules it."""
    quota = limits.find_submit_quota(site.profile, site.cluster)
    if quota and not allow.limits:
        logger.warning(
            f"note: {quota.why}: Slurm refuses an array with more jobs than are left ({OVERRULE})"
        )
        return None
    return quota


def renew_quota(
    site: Site, quota: SubmitQuota | None, run: Runner = run_program
) -> SubmitQuota | None:
    """How many more jobs Slurm takes by now, where anything limits them: another submit,
    or the user's other jobs, may have used some since it was asked."""
    if quota is None:
        return None
    cluster = clusters.renew_grants(site.cluster, run)
    if cluster is site.cluster:
        return quota
    return limits.find_submit_quota(site.profile, cluster)


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


def join_objections(objections: list[ZsgError]) -> ZsgError | None:
    """All objections as one error, of the kind of the first; None where there is none."""
    if not objections:
        return None
    if len(objections) == 1:
        text = str(objections[0])
    else:
        text = "\n  ".join([f"{len(objections)} things:", *map(str, objections)])
    return type(objections[0])(text)


def raise_objections(objections: list[ZsgError]) -> None:
    """Raises that error, if there is one."""
    if error := join_objections(objections):
        raise error


def find_missing_packages(plan: Plan) -> list[str]:
    """The packages that the plan's jobs would look for in vain, if they see what is
    installed here."""
    trained = [run for group in plan.groups for run in group.runs]
    scored = _list_scored(plan)
    prepared = [run for prepare in plan.prepares for run in prepare.runs]
    if not (trained or scored or prepared):
        return []
    modules = _modules_to_train(trained, scored, prepared)
    lines = (
        extras.describe_missing("training", modules, "train"),
        extras.describe_missing(
            "what checkpoints are scored by", _modules_to_score(scored), "evaluate"
        ),
        extras.describe_missing(
            "making these data", _modules_to_make(plan), "evaluate"
        ),
    )
    return [line for line in lines if line]


def _list_scored(plan: Plan) -> list[Run]:
    return [run for evaluation in plan.evaluations for run in evaluation.runs]


def _modules_to_train(
    trained: Sequence[Run], scored: Sequence[Run], prepared: Sequence[Run]
) -> list[str]:
    """The modules that jobs import to load models, to train them and to make orders."""
    modules = ["torch", "transformers"]
    if trained:
        modules.append("deepspeed")
    modules += _modules_to_order(prepared)
    if any(_is_lora(run) for run in (*trained, *scored)):
        modules.append("peft")
    return modules


def _is_lora(run: Run) -> bool:
    return run.stage["train"]["tuning"]["method"] == "lora"


def _modules_to_score(scored: Sequence[Run]) -> list[str]:
    """The modules that evaluate jobs import for the metrics of runs."""
    keys = {key.partition("/")[0] for run in scored for key in run.scored}
    modules = list[str]()
    if not keys.isdisjoint({"rouge1", "rougeL"}):
        modules.append("rouge_score")
    if not keys.isdisjoint({"bleu", "chrf", "chrf_pp"}):
        modules.append("sacrebleu")
    if "silhouette" in keys:
        modules.append("sklearn")
    return modules


def _modules_to_make(plan: Plan) -> list[str]:
    """The modules by which makers of data read their replies."""
    modules: dict[str, None] = {}
    for prepare in plan.prepares:
        if prepare.maker is not None:
            modules |= dict.fromkeys(MAKERS[prepare.maker].packages)
    return list(modules)


def lacking_to_order(runs: Sequence[Run]) -> str | None:
    """The packages that are missing here to make the orders of runs, in words; None if none is."""
    return extras.describe_missing(
        "making these orders", _modules_to_order(runs), "train"
    )


def _modules_to_order(runs: Sequence[Run]) -> list[str]:
    modules = list[str]()
    if any(run.embedding is not None for run in runs):
        modules.append("sentence_transformers")
    if any(run.stage["arrangement"].get("measure") == "ot" for run in runs):
        modules.append("ot")
    return modules


def _check_guards(
    profile: Profile, plan: Plan, cluster: Cluster, estimates: Estimates
) -> list[str]:
    """What the profile's own guards refuse. A run without an estimate counts with its
    whole time limit."""
    hours, by_limits = 0.0, False
    if profile.max_gpu_hours is not None:
        for group in plan.groups:
            gpus = group.size.nodes * profile.slurm.gpus_per_node
            granted = gpus * group.size.time_min / 60
            estimated = [estimates.of(run).gpu_hours for run in group.runs]
            hours += sum(granted if each is None else each for each in estimated)
            by_limits |= None in estimated
    array_size = limits.array_size(profile, cluster.config)
    return limits.check_guards(profile, plan, array_size, hours, by_limits)


def _check_judge_keys(plan: Plan) -> list[str]:
    """What is wrong with the keys of judges, which are handed on to evaluate jobs from here."""
    suites = [suite for run in _list_scored(plan) for suite in run.suites]
    faults = list[str]()
    for name in list_key_variables(suites):
        try:
            key = secrets.read_key(name)
        except UserError as error:
            faults.append(
                f"{error}; checkpoints.suites.mt_bench.judge.key_env names it"
            )
            continue
        if key is None:
            faults.append(
                f"{name}, which checkpoints.suites.mt_bench.judge.key_env names, is not set here;"
                " export it, or take `judge` out: answers are then kept for `zsg answers export`"
            )
    return faults


def _check_asked_keys(plan: Plan) -> list[str]:
    """What is wrong with the keys of servers that are asked for data."""
    faults: dict[str, None] = {}
    for prepare in plan.prepares:
        for source, server in list_servers(prepare):
            if server.key_env is None:
                continue
            key = f"data.sources.{source}.make.by.key_env"
            try:
                value = secrets.read_key(server.key_env)
            except UserError as error:
                faults[f"{error}; {key} names it"] = None
                continue
            if value is None:
                faults[
                    f"{server.key_env}, which {key} names, is not set here; export it"
                ] = None
    return list(faults)


def _check_tracking(profile: Profile) -> list[str]:
    """Why MLflow's password would be read on its way to the profile's address."""
    why = logins.explain_refusal(profile.tracking.uri or "")
    return [f"tracking.uri: {why}"] if why else []


def _check_disk(site: Site, plan: Plan, estimates: Estimates) -> list[str]:
    """Why the workspace's disk is too small for the states of new runs. What resumes
    from a state has it on the disk already."""
    new = [action.run for action in plan.acting if action.kind == SUBMIT]
    if not new:
        return []
    refusal = limits.check_disk(
        shutil.disk_usage(_find_existing_folder(site)).free / GB,
        max(estimates.of(run).state_gb for run in new),
        min(get_runs_at_once(site.profile), len(new)),
    )
    if refusal is None:
        return []
    if site.profile.kind == "local":
        refusal = refusal.replace("slurm.array_parallelism", "max_parallel")
    return [refusal]


def _find_existing_folder(site: Site) -> Path:
    """The workspace, or the next folder above it that exists."""
    root = site.workspace.root.resolve()
    above = (path for path in (root, *root.parents) if path.exists())
    return next(above, Path("/"))
