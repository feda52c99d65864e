"""Says what to do next about a job that is not done: what helps against its cause with
its own settings, then the command that takes it up as it stands.

Pure. What is said of `zsg retry` is what launcher.lifecycle.retry does: whoever asks
hands over by what that leaves the job.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from jobs.contract import node_check
from jobs.contract.causes import Cause, parse_cause
from jobs.contract.job_file import AnyJob, TrainJob
from jobs.contract.states import State
from launcher.status.launch import BEFORE
from launcher.status.slurm_states import LEAVING, NO_ANSWER
from launcher.workspace.job_state import (
    CUT_SHORT,
    GRID_FILE,
    HELD_BY_USER,
    NEVER_STARTED,
    UNREADABLE,
    JobState,
    describe_release,
)

RUN = "RUN"  # in what helps: for the run's id
# What helps, by cause. Where that depends on the job's settings or state: ADVISERS.
NEXT = {
    Cause.OUT_OF_MEMORY: (
        "a larger deepspeed.zero_stage or more nodes need less memory per GPU; zsg plan"
        " estimates it"
    ),
    Cause.DISK_FULL: "make room, or move the workspace",
    Cause.FILE_SYSTEM: (
        "the file system, or the server that has it, failed under the job: it may pass; if it"
        " does not, tell the site which file and node (zsg logs RUN)"
    ),
    Cause.NCCL_TIMEOUT: "a rank stood still: look at the log of the one that is silent",
    Cause.PEER_LOST: "another rank ended first: zsg logs RUN --rank N",
    Cause.NODE_FAILURE: "no other run is at fault; the node is left out for a day",
    Cause.TIME_LIMIT: "save more often, or raise train.time_min",
    Cause.PREEMPTED: "another job came first; it may pass",
    Cause.CANCELLED: "somebody wanted it to end",
    Cause.SIGNAL: "it was told to stop",
    Cause.PREPARE_FAILED: "mend what the prepare job names",
    Cause.LOOK_FAILED: "zsg why of the look; zsg retry takes it again, and the wave behind it",
    Cause.SPARED: "nothing: the claims were decided before its wave began; zsg report",
    Cause.CANARY_FAILED: "see zsg why of the run that went first, and mend that",
    Cause.STAGE_FAILED: "mend the run that it starts from",
    Cause.BAD_DATA: "repair the row, or set data.on_bad_row: skip",
    Cause.PLUGIN: "mend the plugin at that line, then zsg submit",
    Cause.BAD_INPUT: "change what the message names",
    Cause.LAUNCH_FAILED: (
        "nothing of zsg has run: mend what the line says on the nodes (workspace, Python,"
        " container, disk) or in the profile"
    ),
    Cause.SETUP: "mend the line in the profile's setup, or end it in `|| true` where it may fail",
    Cause.DIVERGED: (
        "it would come again: lower train.lr in the grid (another run), or take this point out"
        " by exclude"
    ),
    Cause.CLUSTER: "the message says what",
    Cause.TRACEBACK: "zsg logs RUN shows the whole traceback",
    Cause.DIED: "killed from outside, often for memory: zsg logs RUN",
}
# of a check of nodes, where that is not what helps a run
NEXT_OF_CHECK = {
    Cause.NODE_FAILURE: "the node failed under it: tell the site which",
    Cause.TIME_LIMIT: "give it more minutes: zsg doctor --on-node --time",
}
HELD_CHECK = "scontrol release lets its Slurm job start, scancel ends it"
CHECK_ANEW = "zsg doctor --on-node checks anew"
# of what died before it began, where its log says no more
NEXT_UNBEGUN = "its script ended by itself, and its log does not say why: zsg logs RUN"
# of causes that only a change of the recipe mends, which makes another run
MENDED_BY_ANOTHER_RUN = (Cause.DIVERGED, Cause.BAD_DATA, Cause.PLUGIN)


class RunSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What of a run's settings decides what helps it; None where that is not known.
    `time_min`: minutes; `passes_bad_rows`: whether a bad row is no error."""

    precision: str | None = None
    overflow: str | None = None
    zero_stage: int | None = None
    nodes: int | None = None
    gpus: int | None = None
    recomputes: bool | None = None
    time_min: int | None = None
    passes_bad_rows: bool = False


UNKNOWN_SETTINGS = RunSettings()


class _Training(msgspec.Struct):
    precision: str | None = None
    overflow: str | None = None


class _Stage(msgspec.Struct):
    train: _Training


class _Stages(msgspec.Struct):
    stages: list[_Stage]


class _ZeroSettings(msgspec.Struct):
    stage: int | None = None


class _EngineSettings(msgspec.Struct):
    zero_optimization: _ZeroSettings


def read_settings(job: AnyJob | None) -> RunSettings:
    """What a job says of how it computes. What an older zsg, or somebody else, has
    written otherwise is not known."""
    if job is None:
        return RunSettings()
    settings = RunSettings(
        nodes=job.resources.nodes,
        gpus=job.resources.gpus,
        time_min=job.resources.time_min,
    )
    if not isinstance(job, TrainJob):
        return settings
    training = _read_training(job)
    return msgspec.structs.replace(
        settings,
        precision=training.precision,
        overflow=training.overflow,
        zero_stage=_read_zero_stage(job),
        recomputes=job.recompute,
        passes_bad_rows=_passes_bad_rows(job),
    )


def _read_training(job: TrainJob) -> _Training:
    """How the stage that a job trains is trained."""
    try:
        recipe = msgspec.convert(job.recipe, _Stages)
    except (msgspec.ValidationError, RecursionError):
        return _Training()
    return recipe.stages[-1].train if recipe.stages else _Training()


def _read_zero_stage(job: TrainJob) -> int | None:
    try:
        engine = msgspec.convert(job.deepspeed, _EngineSettings)
    except (msgspec.ValidationError, RecursionError):
        return None
    return engine.zero_optimization.stage


def _passes_bad_rows(job: TrainJob) -> bool:
    """Whether any of a run's sources passes bad rows over: only then a recipe says so."""
    try:
        return b'"on_bad_row"' in msgspec.json.encode(job.recipe)
    except (RecursionError, ValueError):
        return False


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What decides what is done next about a job, beside its state.

    `refusal`: why zsg retry leaves it. `is_alone`: it is not one of a group, so what is
    said may be of it only. `settings`: its own. `with_others`: how the runs are taken up
    that wait for it, of a job that is no run which its grid lists. `is_former`: its grid
    lists it no longer.
    """

    refusal: str | None = None
    is_alone: bool = True
    settings: RunSettings = UNKNOWN_SETTINGS
    with_others: str | None = None
    is_former: bool = False


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """A job that is not done. `run`: its id, or its folder where it is no run; `root`:
    its cause, or that of the job before it of which it has failed."""

    run: str
    grid: str
    state: JobState
    cause: Cause | None
    root: Cause | None
    evidence: str
    outlook: Outlook

    @property
    def is_check(self) -> bool:
        """Whether it is a check of nodes, which no grid has."""
        return self.run.startswith(f"{node_check.FOLDER}/")


def make_trouble(
    run: str,
    grid: str,
    state: JobState,
    cause: str,
    evidence: str | None,
    outlook: Outlook,
) -> Trouble:
    """A job that is not done, by the cause that was proven and the line that proves it."""
    parsed = parse_cause(cause)
    root = parsed
    if parsed in (Cause.PREPARE_FAILED, Cause.STAGE_FAILED):
        word = (evidence or "").partition(":")[0]
        root = parse_cause(word) or parsed
    return Trouble(
        run=run,
        grid=grid,
        state=state,
        cause=parsed,
        root=root,
        evidence=evidence or "",
        outlook=outlook,
    )


def advise(trouble: Trouble) -> str:
    """What to do about a job: what helps against its cause, then what takes it up."""
    command = resume(trouble)
    help_text = _advise_help(trouble)
    if help_text is None:
        return command
    named = help_text.replace(RUN, trouble.run)
    return f"{named}; then: {command}"


def advise_without_cause(run: str, grid: str | None, state: JobState) -> str | None:
    """What to do about a job that has not ended; None where it is well."""
    is_check = run.startswith(f"{node_check.FOLDER}/")
    if is_check:
        is_waiting = state.reason == HELD_BY_USER
        return HELD_CHECK if is_waiting or is_held(state) else None
    if state.state == State.ABSENT and grid:
        return f"zsg submit {GRID_FILE} starts it"
    if state.reason == HELD_BY_USER:
        options = "" if "/" in run else f" --only {run}"
        return describe_release(state.unreleased, options)
    return f"zsg cancel {run} ends the Slurm job" if is_held(state) else None


def is_held(state: JobState) -> bool:
    """Whether Slurm has a job that hangs, or outlives what it ran. A file that cannot be
    read is no reason to end a job."""
    is_at_fault = state.flag is not None and not state.flag.startswith(UNREADABLE)
    return is_at_fault and state.in_queue


def _advise_help(trouble: Trouble) -> str | None:
    """What helps against the cause of a job."""
    if trouble.state.cause in (NEVER_STARTED, CUT_SHORT):
        return None
    cause = trouble.cause
    if cause is None:
        return None
    if trouble.is_check:
        return NEXT_OF_CHECK.get(cause) or NEXT[cause]
    if trouble.root is not None and trouble.root != cause:
        adviser = ADVISERS.get(trouble.root)
        root_text = adviser(trouble) if adviser else NEXT[trouble.root]
        return f"{NEXT[cause]}: {root_text}"
    adviser = ADVISERS.get(cause)
    return adviser(trouble) if adviser else NEXT[cause]


def _advise_memory(trouble: Trouble) -> str:
    """What of a run's settings would need less memory."""
    settings = trouble.outlook.settings
    if settings.zero_stage is None:
        return NEXT[Cause.OUT_OF_MEMORY]
    choices: list[str] = []
    if settings.zero_stage < 3:
        choices.append(f"a larger deepspeed.zero_stage (it is {settings.zero_stage})")
    choices.append(f"more nodes (it has {settings.nodes})")
    if settings.recomputes is False:
        choices.append("trainer.recompute: true")
    of_what = "per GPU" if settings.gpus else "on each node"
    named = " or ".join(choices)
    return f"less memory {of_what}: {named}; zsg plan --memory estimates it"


def _advise_time(trouble: Trouble) -> str:
    """How a run would come further within its time."""
    settings = trouble.outlook.settings
    limit = "" if settings.time_min is None else f" (it is {settings.time_min})"
    longer = f"raise train.time_min in the profile{limit}"
    if trouble.state.saved is None:
        return f"it has saved nothing: save more often (checkpoints.state_every_min), or {longer}"
    return f"it goes on from what it has saved; for fewer starts {longer}"


def _advise_divergence(trouble: Trouble) -> str:
    """What would keep a run's numbers finite: a change of its settings, which is another
    run."""
    settings = trouble.outlook.settings
    wider = {"fp16": "bf16 or fp32", "bf16": "fp32"}.get(settings.precision or "")
    if wider is None:
        return NEXT[Cause.DIVERGED]
    choices = ["lower train.lr in the grid", f"use train.precision: {wider}"]
    if settings.precision == "fp16" and settings.overflow != "skip":
        choices.append("train.overflow: skip, which loses such steps")
    named = ", or ".join(choices)
    return (
        f"it would come again: {named} (each is another run), or take this point out by"
        " exclude"
    )


def _advise_data(trouble: Trouble) -> str:
    """What mends a row that cannot be read."""
    if trouble.outlook.settings.passes_bad_rows:
        return "repair the row (another run)"
    return "repair the row, or set data.on_bad_row: skip (another run, each)"


def _advise_died(trouble: Trouble) -> str:
    """Where to look for what killed a job."""
    if trouble.evidence.endswith(BEFORE):
        return NEXT_UNBEGUN
    return NEXT[Cause.DIED]


def _advise_cluster(trouble: Trouble) -> str:
    """Of what zsg found wrong outside itself."""
    if trouble.outlook.refusal:
        return f"{NEXT[Cause.CLUSTER]}, and it has not passed: mend it"
    return f"{NEXT[Cause.CLUSTER]}; it may pass"


ADVISERS: Mapping[Cause, Callable[[Trouble], str]] = {
    Cause.OUT_OF_MEMORY: _advise_memory,
    Cause.TIME_LIMIT: _advise_time,
    Cause.DIVERGED: _advise_divergence,
    Cause.BAD_DATA: _advise_data,
    Cause.DIED: _advise_died,
    Cause.CLUSTER: _advise_cluster,
}


def resume(trouble: Trouble) -> str:
    """By which command a job is taken up as it stands, and from where: a state is
    promised where there is one."""
    by_others = _resume_by_others(trouble)
    if by_others is not None:
        return by_others
    state = trouble.state
    if state.stopped:
        return f"zsg submit {GRID_FILE} resumes from step {state.saved or 0}"
    if state.in_queue:
        return _resume_held(trouble)
    if state.cause in (NEVER_STARTED, CUT_SHORT):
        return f"zsg submit {GRID_FILE} starts it"
    if trouble.outlook.refusal:
        return _resume_refused(trouble)
    return _retry(trouble)


def _resume_by_others(trouble: Trouble) -> str | None:
    """How a job is taken up that its grid does not list as a run; None for one that it
    lists."""
    if trouble.is_check:
        return CHECK_ANEW
    if trouble.run.startswith("evaluate/"):
        return f"zsg submit {GRID_FILE} evaluates what is left"
    if trouble.outlook.is_former:
        return f"nothing: {trouble.grid} lists it no longer"
    if trouble.outlook.with_others:
        return f"{trouble.outlook.with_others} (for the runs that wait for it)"
    if trouble.run.startswith(("prepare/", "canary/", "looks/")):
        return f"zsg submit {GRID_FILE} makes it again where a run needs it"
    return None


def _resume_held(trouble: Trouble) -> str:
    """The command for a run whose job Slurm has, or may have."""
    state = trouble.state
    if (state.cause or "").startswith(NO_ANSWER):
        return "look again once Slurm answers"
    if state.doing == LEAVING:
        return f"{_retry(trouble)}, once Slurm has cleared up after its job"
    return f"zsg cancel {trouble.run}, since Slurm still holds its job"


def _resume_refused(trouble: Trouble) -> str:
    """The command for a run that zsg retry leaves."""
    if trouble.root in MENDED_BY_ANOTHER_RUN:
        return f"zsg submit with the change; zsg retry {trouble.grid} leaves this run"
    reason = (trouble.outlook.refusal or "").partition(":")[0]
    command = f"{_name_retry(trouble)} --force"
    return f"{command}; without --force it is left, since {reason}"


def _retry(trouble: Trouble) -> str:
    """The command that tries a run again, and from where it goes on."""
    command = _name_retry(trouble)
    if not trouble.outlook.is_alone:
        return command
    saved = trouble.state.saved
    if saved:
        return f"{command} resumes from step {saved}"
    return f"{command} starts it again"


def _name_retry(trouble: Trouble) -> str:
    """The command that tries runs in this state again."""
    command = f"zsg retry {trouble.grid}"
    if trouble.state.state == State.FAILED:
        return command
    return f"{command} --only state={trouble.state.state}"
