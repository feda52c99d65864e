"""Decides which runs to submit, skip, retry or train again, and what must be made first. Pure.

A plan is a value: `zsg plan` prints it, `zsg submit` carries it out.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from jobs.contract.folder import CHAT_TRIALS
from jobs.contract.ledger_rows import Retried
from jobs.contract.look_decision import FOLDER as LOOKS
from jobs.contract.model_proof import FOLDER as PROOFS
from jobs.contract.states import ACTIVE, State
from launcher.clusters.profiles import JobSize
from launcher.grids.runs import Run
from launcher.grids.selection import EVERYTHING, Selection
from launcher.workspace import kept_snapshots
from launcher.workspace.job_state import (
    HELD_AFTER_LAUNCH,
    HELD_BY_USER,
    NEVER_STARTED,
    JobState,
    describe_release,
)
from launcher.workspace.scheduler_job import Job
from zsg_core import recipe as recipes
from zsg_core.digest import content_id
from zsg_core.training import schedule
from zsg_core.training.snapshots import select_kept_steps

SUBMIT, SKIP, RETRY, RETRAIN, EVALUATE = (
    "submit",
    "skip",
    "retry",
    "retrain",
    "evaluate",
)
TRAINING = (SUBMIT, RETRY, RETRAIN)
ACTING = (*TRAINING, EVALUATE)
NOT_SELECTED = "not selected"
# of runs that wait for other prepare jobs each; beyond, all of a size wait for all and
# are one array
MOST_GROUPS = 20

# what may refuse a run's model, by the folder of the workspace
TRIALS = (PROOFS, CHAT_TRIALS)
# corpus, and embedding or the weights whose scores order it: what is missing of both is
# made by one prepare job; or what may refuse a model, and None
PrepareKey = tuple[str, str | None]


@dataclass(frozen=True)
class Action:
    """What is done about one run, and why; `state`: where it stands."""

    run: Run
    kind: str
    reason: str
    state: State = State.ABSENT


@dataclass(frozen=True)
class Allow:
    """What the user has allowed beyond submitting what is new, and of which runs
    anything is done at all."""

    retry: bool = False
    retrain: bool = False
    selection: Selection = EVERYTHING
    canary: bool = True  # one run of many goes first
    limits: bool = True  # what Slurm's limits do not grant is refused
    because: str = ""  # why the grid's claims changed since its first submit


@dataclass
class Prepare:
    """One prepare job: all missing things of one corpus. `item` is its folder in the workspace.

    It waits for the jobs of `after`, which make `needs`. Or it `samples` the model's
    own answers, or `scores` examples by a model, for others, or has a maker make
    examples: `maker` names it, and `server` who is asked at an address, for which no GPU
    is needed. `shortest`: of each model
    that it proves, or whose chat template it tries, the least max_length of all runs
    that need it.
    """

    item: str
    runs: list[Run]
    makes: set[str] = field(default_factory=set[str])
    needs: set[str] = field(default_factory=set[str])
    after: set[str] = field(default_factory=set[str])
    samples: bool = False
    scores: bool = False
    maker: str | None = None
    server: str | None = None
    shortest: dict[str, int] = field(default_factory=dict[str, int])

    @property
    def asks_model(self) -> bool:
        """Whether it asks a model for what other jobs read."""
        return self.samples or self.scores

    @property
    def is_sampler(self) -> bool:
        """Whether it samples the model's own answers, without a maker."""
        return self.samples and self.maker is None

    @property
    def on_gpus(self) -> bool:
        """Whether it computes with a model, where checkpoints are evaluated."""
        return self.asks_model and self.server is None

    @property
    def description(self) -> str:
        """For tables: what it does and what it waits for."""
        if self.maker is not None:
            return f"asks {self.server or 'a model'} for data ({self.maker}), makes"
        if self.samples:
            return "samples the model's own answers,"
        if self.scores:
            after = f", after {', '.join(sorted(self.after))}" if self.after else ""
            return f"scores examples by a model{after}, makes"
        if self.after:
            return f"after {', '.join(sorted(self.after))}, makes"
        if self.makes == _list_trials(self.makes):
            return "tries"
        return "makes"


@dataclass
class TrainGroup:
    """Train jobs of equal size that wait for the same jobs: one array.

    `whatever_they_made`: they wait only for these to end, not each needs all, and see
    for themselves what is there.
    """

    size: JobSize
    after: tuple[str, ...]
    runs: list[Run]
    whatever_they_made: bool = False


@dataclass(frozen=True)
class Evaluation:
    """Evaluate jobs that share some runs: so many `beside` their training, and `after`
    it so many that drain."""

    runs: list[Run]
    beside: int
    after: int

    @property
    def jobs(self) -> int:
        return self.beside + self.after


@dataclass(frozen=True)
class Canary:
    """The run that goes first, and the job that waits for what it shows, and for which
    `waiting` other runs wait."""

    item: str
    run: Run
    waiting: int


@dataclass(frozen=True)
class Look:
    """A look that is to be taken. `number` counts from 1; `runs`: those of the waves up to
    it; `spares`: those of the waves behind; `after`: the jobs that it waits for, of which
    all but runs must end well."""

    item: str
    number: int
    runs: Sequence[Run]
    spares: Sequence[Run]
    claims: Sequence[str]
    looks: Mapping[str, Any]
    after: Sequence[str] = ()


@dataclass(frozen=True)
class Unwanted:
    """A run that the grid wanted once and no longer lists. It is never stopped unasked."""

    run: str
    axes: dict[str, Any]
    state: JobState


@dataclass(frozen=True)
class Plan:
    """Everything a submit would do."""

    actions: list[Action]
    prepares: list[Prepare]
    groups: list[TrainGroup]
    unwanted: list[Unwanted] = field(default_factory=list[Unwanted])
    # of each run to train, the jobs it waits for
    needed: Mapping[str, tuple[str, ...]] = field(
        default_factory=dict[str, tuple[str, ...]]
    )
    left: str = ""  # how many runs Slurm has no room for now, and why
    # job folder → what was wrong before its retry
    failures: dict[str, Retried] = field(default_factory=dict[str, Retried])
    # node that no new job is to run on → why
    exclude: dict[str, str] = field(default_factory=dict[str, str])
    canary: Canary | None = None
    # taken between waves of runs, in their order
    looks: list[Look] = field(default_factory=list[Look])
    is_local: bool = False  # one evaluate job then serves all, once the runs have ended
    # those that Slurm holds and that a submit releases
    held: list[Job] = field(default_factory=list[Job])
    # what new jobs cannot wait for, as it is on another cluster
    elsewhere: list[str] = field(default_factory=list[str])
    freed: str = ""  # what zsg gc frees after the submit, in a sentence

    def jobs(self, links: int) -> int:
        """How many jobs a submit would hand over, so many links behind each run's;
        every task of an array is one."""
        runs = sum(len(group.runs) for group in self.groups)
        evaluators = sum(evaluation.jobs for evaluation in self.evaluations)
        return (
            len(self.prepares)
            + (1 + links) * runs
            + evaluators
            + (self.canary is not None)
            + len(self.looks)
        )

    @property
    def acting(self) -> list[Action]:
        return [action for action in self.actions if action.kind in ACTING]

    @property
    def changes_queue(self) -> bool:
        """Whether a submit would hand jobs over, or release those that Slurm holds."""
        return bool(self.acting or self.held)

    @property
    def evaluations(self) -> list[Evaluation]:
        """The evaluate jobs of each group that is trained, and those of runs that were
        trained before."""
        evaluations = [
            evaluation
            for group in self.groups
            if (evaluation := evaluation_of(group.runs)).runs
        ]
        trained_before = [
            action.run for action in self.actions if action.kind == EVALUATE
        ]
        if self.is_local:
            scored = [run for evaluation in evaluations for run in evaluation.runs]
            runs = scored + trained_before
            return [Evaluation(runs, beside=0, after=1)] if runs else []
        if trained_before:
            evaluations.append(evaluation_later(trained_before))
        return evaluations

    @property
    def stages_before(self) -> list[Run]:
        """The runs that are trained only because others start from their weights."""
        listed = {action.run.id for action in self.actions if action.kind in TRAINING}
        return [
            run for group in self.groups for run in group.runs if run.id not in listed
        ]

    @property
    def starts(self) -> frozenset[str]:
        """The runs from whose weights other runs of the plan start."""
        return frozenset(
            run.before.id for group in self.groups for run in group.runs if run.before
        )


def evaluation_of(runs: Sequence[Run]) -> Evaluation:
    """The evaluate jobs of runs that are trained as one array; none where only their
    losses are wanted."""
    scored = [run for run in runs if run.scored]
    beside = max((run.evaluators for run in scored), default=0)
    return Evaluation(scored, beside, int(bool(scored)))


def evaluation_later(runs: Sequence[Run]) -> Evaluation:
    """The evaluate jobs of runs that were submitted before: all of them drain."""
    return Evaluation(list(runs), 0, max(1, *(run.evaluators for run in runs)))


def run_item(run: Run) -> str:
    """A run's folder in the workspace."""
    return f"runs/{run.id}"


def choose_actions(
    runs: Sequence[Run],
    states: Mapping[str, JobState],
    allow: Allow,
    comes: Callable[[str], bool] = lambda need: True,
) -> list[Action]:
    """One action per run, in the order of the runs. `comes`: whether `kind/id` is there
    or being made."""
    actions = list[Action]()
    for run in runs:
        state = states[run_item(run)]
        action = Action(run, *_decide(run, state, allow), state.state)
        if action.kind in TRAINING:
            action = _skip_if_hindered(action, states, allow, comes)
        actions.append(action)
    if allow.selection == EVERYTHING:
        return actions
    return _skip_unselected(actions, states, allow.selection)


def _skip_unselected(
    actions: list[Action], states: Mapping[str, JobState], selection: Selection
) -> list[Action]:
    """The actions, with nothing done about runs that are not selected. UserError for a
    term that names no run."""
    facts_of_runs = [
        (action.run.id, action.run.settings, states[run_item(action.run)].state)
        for action in actions
    ]
    selection.check(facts_of_runs)
    return [
        action
        if selection.matches(*facts)
        else replace(action, kind=SKIP, reason=NOT_SELECTED)
        for action, facts in zip(actions, facts_of_runs, strict=True)
    ]


def _skip_if_hindered(
    action: Action,
    states: Mapping[str, JobState],
    allow: Allow,
    comes: Callable[[str], bool],
) -> Action:
    """The action, or a skip where a stage before the run's own is in no state to be
    trained for it."""
    run = action.run
    while run.before and not comes(run.before.weights):
        run = run.before
        state = states[run_item(run)]
        if state.is_active and not state.stopped:
            why = f"a stage before it, {run.id}, is {state.state} and keeps no weights"
            why += "; submitted when it is done, that stage is trained anew"
            return replace(action, kind=SKIP, reason=why)
        kind, why = _decide(run, state, allow)
        if kind == SKIP and state.state != State.DONE:
            why = f"a stage before it, {run.id}, is {why}"
            return replace(action, kind=SKIP, reason=why)
    return action


def _decide(run: Run, state: JobState, allow: Allow) -> tuple[str, str]:
    """What is done about a run in a state, and why; with what its journal has lost."""
    kind, reason = _decide_by_state(run, state, allow)
    if state.damage and state.damage.is_own and state.state != State.DONE:
        reason = f"{reason}; {state.flag}: what comes behind is computed again"
    return kind, reason


def _decide_by_state(run: Run, state: JobState, allow: Allow) -> tuple[str, str]:
    if state.state == State.ABSENT:
        return SUBMIT, "new"
    if state.cause == NEVER_STARTED:
        return SUBMIT, NEVER_STARTED
    if state.stopped:
        return SUBMIT, _describe_resumption(run, state)
    if state.state in ACTIVE:
        return SKIP, _describe_active(state, allow)
    if state.in_queue:
        return SKIP, f"{state.state}: {state.cause}; Slurm still holds {state.slurm}"
    if state.state == State.DONE:
        return _decide_finished(run, state, allow)
    return _decide_failed(run, state, allow)


def _describe_active(state: JobState, allow: Allow) -> str:
    """What becomes of a run that is under way, or would be if Slurm let it start."""
    if state.reason not in (HELD_BY_USER, HELD_AFTER_LAUNCH):
        return f"already {state.state}"
    is_released = allow.retry or state.reason == HELD_AFTER_LAUNCH
    outcome = "is released"
    if not is_released or state.unreleased:
        outcome = describe_release(state.unreleased)
    return f"already {state.state}, but held ({state.reason}): {outcome}"


def _decide_finished(run: Run, state: JobState, allow: Allow) -> tuple[str, str]:
    """A finished run is trained again only for checkpoints that it lacks, or whose
    values it has lost, and if allowed."""
    lost = state.flag if state.damage and state.damage.is_own else None
    lacks = (lost, _missing_cells(run, state), _missing_snapshots(run, state))
    missing = " and ".join(filter(None, lacks))
    if not missing:
        return SKIP, "already done"
    reason = f"done, but {missing}; it needs training again"
    if allow.retrain:
        return RETRAIN, reason
    return SKIP, f"{reason} (--retrain)"


def _decide_failed(run: Run, state: JobState, allow: Allow) -> tuple[str, str]:
    """A run that ended without its result is retried only if allowed."""
    facts = filter(None, (state.state, state.cause, state.evidence))
    reason = ": ".join(dict.fromkeys(facts))
    resumption = _describe_resumption(run, state) if state.saved else ""
    if state.state in (State.FAILED, State.CANCELLED, State.UNKNOWN) and allow.retry:
        return RETRY, f"{reason}; {resumption}" if resumption else reason
    option = "" if state.state == State.FAILED else f" --only state={state.state}"
    outcome = f" and {resumption}" if resumption else ""
    return SKIP, f"{reason} (zsg retry{option} submits it again{outcome})"


def _describe_resumption(run: Run, state: JobState) -> str:
    """From where a run resumes: a saved state serves the size and the checkpoints that
    it was saved under."""
    step = state.saved or 0
    changed = [
        key
        for key, value in _conditions_of_resuming(run).items()
        if key in state.under and state.under[key] != value
    ]
    if changed:
        return (
            f"starts over: {' and '.join(changed)} changed since step {step} was saved"
        )
    return f"resumes from step {step}"


def _conditions_of_resuming(run: Run) -> dict[str, Any]:
    """What must be as it was when a state was saved, for a run to resume from it."""
    checkpoints = run.checkpoints.model_dump(mode="json")
    conditions = {
        "nodes": run.size.nodes,
        "ranks_per_node": run.size.ranks_per_node,
        "every": checkpoints["every"],
        "quick": checkpoints["quick"],
    }
    if run.checkpoints.snapshots:
        conditions["snapshots"] = checkpoints["snapshots"]
    return conditions


def _missing_cells(run: Run, state: JobState) -> str:
    """Which wanted (step, metric) cells a finished run lacks, in words; empty if none."""
    checkpoints = run.checkpoints.model_dump(mode="json")
    steps_by_loss = schedule.list_measured_steps(
        (state.steps or 0) - state.first,
        *(checkpoints[key] for key in ("every", "quick", "snapshots")),
    )
    measured = {"loss": state.checkpoints, **state.quick}
    gaps = list[str]()
    for key, steps_of_stage in steps_by_loss.items():
        # Where a later stage begins, the stage before has measured.
        steps = [
            state.first + step for step in steps_of_stage if step or not state.first
        ]
        if missing := sorted(set(steps) - set(measured.get(key, ()))):
            cells = "checkpoints" if key == "loss" else f"checkpoints of {key}"
            gaps.append(
                f"{len(missing)} of the {len(steps)} {cells} now wanted are missing (the first:"
                f" step {missing[0]})"
            )
    return ", ".join(gaps)


def _missing_snapshots(run: Run, state: JobState) -> str:
    """Which wanted snapshots a finished run lacks, in words; empty if none."""
    steps_of_stage = schedule.list_snapshot_steps(
        (state.steps or 0) - state.first, run.checkpoints.snapshots
    )
    due = {state.first + step for step in steps_of_stage}
    losses = kept_snapshots.collect_losses(state)
    rule = run.checkpoints.keep
    stay = due - losses.keys() or select_kept_steps(
        due, losses, rule.model_dump() if rule else None
    )
    missing = sorted(stay - {row["step"] for row in state.snapshots if row["kept"]})
    if not missing:
        return ""
    return f"{len(missing)} of the snapshots now wanted are missing (the first: step {missing[0]})"


def make_plan(
    actions: list[Action], is_made: Callable[[str], bool], makers: Mapping[str, str]
) -> Plan:
    """The whole plan. `is_made` tells whether `kind/id` is there; `makers` maps what
    active prepares will make.

    Runs are grouped by the jobs they wait for, since an array waits as a whole.
    """
    runs = _with_stages_before(
        [action.run for action in actions if action.kind in TRAINING], is_made, makers
    )
    makers = {**makers, **{run.weights: run_item(run) for run in runs}}
    unmade = {run.id: set(itertools.filterfalse(is_made, run.needs)) for run in runs}
    lacking = {
        # not `needs - makers.keys()`, which walks through all makers for every run
        run_id: {need for need in needs if need not in makers}
        for run_id, needs in unmade.items()
    }
    prepares = _plan_prepares(runs, lacking)
    makers |= _find_trying(prepares.values())
    to_order = [run for run in runs if run.arrangement_item in lacking[run.id]]
    samplers = _plan_samplers(to_order, prepares, is_made, makers)
    scorers = _plan_scorers(to_order, prepares, is_made, makers)
    needed = {
        run.id: _list_jobs_before(
            unmade[run.id], prepares.get(_prepare_key(run)), makers
        )
        for run in runs
    }
    groups = _group_runs(runs, needed)
    jobs = [*samplers, *scorers, *prepares.values()]
    return Plan(actions, jobs, groups, needed=needed)


def _plan_prepares(
    runs: Sequence[Run], lacking: Mapping[str, set[str]]
) -> dict[PrepareKey, Prepare]:
    """The prepare jobs that make what runs lack. `lacking`: by run id.

    A model is proven by one of them, whatever the corpora that it is trained on; a run
    that lacks nothing else has none of its own.
    """
    prepares: dict[PrepareKey, Prepare] = {}
    on_trial: dict[str, list[Run]] = {}
    for run in runs:
        trials = _list_trials(lacking[run.id])
        for trial in trials:
            on_trial.setdefault(trial, []).append(run)
        missing = lacking[run.id] - trials
        if missing:
            prepare = prepares.setdefault(_prepare_key(run), Prepare("", []))
            prepare.runs.append(run)
            prepare.makes |= missing
    for trial, its_runs in on_trial.items():
        _add_trial(prepares, trial, its_runs)
    for prepare in prepares.values():
        prepare.item = f"prepare/{content_id(sorted(prepare.makes))}"
    return prepares


def _add_trial(
    prepares: dict[PrepareKey, Prepare], trial: str, runs: Sequence[Run]
) -> None:
    """Has one of the prepare jobs prove a model of these runs, or try its chat template:
    one for these runs only, or else a job of its own. What refuses them ends no others.
    """
    ids = {run.id for run in runs}
    keys = dict.fromkeys(map(_prepare_key, runs))
    hosts = [key for key in keys if key in prepares]
    for key in hosts:
        if all(run.id in ids for run in prepares[key].runs):
            prepare = prepares[key]
            break
    else:
        prepare = Prepare("", list(runs))
        prepares[(trial, None)] = prepare
    prepare.makes.add(trial)
    prepare.shortest[trial] = min(run.stage["train"]["max_length"] for run in runs)


def _find_trying(prepares: Iterable[Prepare]) -> dict[str, str]:
    """By what may refuse a model, the job that proves or tries it."""
    trying: dict[str, str] = {}
    for prepare in prepares:
        trying |= dict.fromkeys(_list_trials(prepare.makes), prepare.item)
    return trying


def _list_trials(needs: Iterable[str]) -> set[str]:
    """Of what runs need, that which may refuse their model: its proof, and the trial of
    its chat template."""
    return {need for need in needs if need.partition("/")[0] in TRIALS}


def _plan_samplers(
    runs: Sequence[Run],
    prepares: Mapping[PrepareKey, Prepare],
    is_made: Callable[[str], bool],
    makers: Mapping[str, str],
) -> list[Prepare]:
    """The jobs that sample the answers by which runs are ordered; the prepare jobs of
    these orders come to wait for them."""
    samplers: dict[str, Prepare] = {}
    for run in runs:
        prepare = prepares[_prepare_key(run)]
        for name, need in run.answers.items():
            if is_made(need):
                continue
            if need not in makers and need not in samplers:
                samplers[need] = _sampler(run, name, need)
            prepare.needs.add(need)
            prepare.after.add(makers.get(need) or samplers[need].item)
    return list(samplers.values())


def _plan_scorers(
    runs: Sequence[Run],
    prepares: Mapping[PrepareKey, Prepare],
    is_made: Callable[[str], bool],
    makers: Mapping[str, str],
) -> list[Prepare]:
    """The jobs that score examples by a model, one for each corpus and model; the
    prepare jobs of the orders by these scores come to wait for them. A score job waits
    for what its corpus is sampled of, and for the run whose weights score."""
    unscored = [run for run in runs if run.scores_item and not is_made(run.scores_item)]
    scorers: dict[str, Prepare] = {}
    for run in unscored:
        if run.scores_item in makers:
            continue
        scorer = _scorer(prepares[_prepare_key(run)])
        scorer = scorers.setdefault(_name_scoring(run), scorer)
        _add_scores(scorer, run)
        _wait_for_weights(scorer, run, is_made, makers)
    for scorer in scorers.values():
        scorer.item = f"prepare/{content_id(sorted(scorer.makes))}"
    making = {need: job.item for job in scorers.values() for need in job.makes}
    for run in unscored:
        need = str(run.scores_item)
        prepare = prepares[_prepare_key(run)]
        prepare.needs.add(need)
        prepare.after.add(makers.get(need) or making[need])
    return list(scorers.values())


def _add_scores(scorer: Prepare, run: Run) -> None:
    """Has a job make the scores of a run's order, which several orders may share."""
    need = str(run.scores_item)
    if need not in scorer.makes:
        scorer.makes.add(need)
        scorer.runs.append(run)


def _name_scoring(run: Run) -> str:
    """What the scores of one job have in common: the corpus, and all that decides them
    but which score it is."""
    score = run.stage["arrangement"]["score"]
    models = {key: value for key, value in score.items() if key not in ("name", "rule")}
    return content_id({"corpus": run.corpus_id, **models, "since": None})


def _scorer(prepare: Prepare) -> Prepare:
    """A job that scores the examples of a prepare job's corpus: it waits for the same
    answers of a model."""
    needs = {need for need in prepare.needs if need.startswith("records/")}
    after = set(prepare.after) if needs else set[str]()
    return Prepare("", [], needs=needs, after=after, scores=True)


def _wait_for_weights(
    scorer: Prepare,
    run: Run,
    is_made: Callable[[str], bool],
    makers: Mapping[str, str],
) -> None:
    """Has a score job wait for the weights of the stage before, where these score."""
    before = run.scoring_run
    if before is None:
        return
    scorer.needs.add(before.weights)
    if not is_made(before.weights):
        scorer.after.add(makers[before.weights])


def _sampler(run: Run, source: str, need: str) -> Prepare:
    """The job that samples or makes what a run needs of a source, first making the
    model if it is `tiny` and is asked."""
    teacher = run.asked.get(source)
    makes = {need}
    if teacher is None or teacher.is_own_model:
        base = recipes.id_of_base(recipes.remove_added_tokens(run.recipe["base"]))
        makes |= {f"bases/{base}"} if base else set()
    sampler = Prepare(
        f"prepare/{content_id(sorted(makes))}", [run], makes, samples=True
    )
    if teacher is not None:
        sampler.maker = teacher.make.maker
        sampler.server = teacher.server and teacher.server.model
    return sampler


def _list_jobs_before(
    unmade: set[str], prepare: Prepare | None, makers: Mapping[str, str]
) -> tuple[str, ...]:
    """The jobs that make what a run still needs. `prepare`: the run's own prepare job.

    Two prepare jobs may make the same base, for it is the same; a run waits for its own.
    """
    makes = prepare.makes if prepare else set[str]()
    jobs = {
        prepare.item if prepare and need in makes else makers[need] for need in unmade
    }
    return tuple(sorted(jobs))


def _group_runs(
    runs: Sequence[Run], needed: Mapping[str, tuple[str, ...]]
) -> list[TrainGroup]:
    """The arrays of train jobs: runs of equal size that wait for the same jobs."""
    groups: dict[tuple[JobSize, tuple[str, ...]], TrainGroup] = {}
    for run in runs:
        key = (run.size, needed[run.id])
        groups.setdefault(key, TrainGroup(*key, [])).runs.append(run)
    arrays = list(groups.values())
    if len(arrays) <= MOST_GROUPS:
        return arrays
    # A run comes before those that start from its weights.
    return sorted(_join_arrays(arrays), key=waits_for_a_run)


def _join_arrays(groups: list[TrainGroup]) -> list[TrainGroup]:
    """Fewer arrays: those that wait for prepare jobs only are one for each size, which
    waits for all of these jobs."""
    arrays = [group for group in groups if not _waits_for_prepares(group)]
    by_size: dict[JobSize, list[TrainGroup]] = {}
    for group in filter(_waits_for_prepares, groups):
        by_size.setdefault(group.size, []).append(group)
    return arrays + [_join_groups(same_size) for same_size in by_size.values()]


def _join_groups(groups: list[TrainGroup]) -> TrainGroup:
    """One array of groups of equal size."""
    if len(groups) == 1:
        return groups[0]
    after = sorted({item for group in groups for item in group.after})
    runs = [run for group in groups for run in group.runs]
    return TrainGroup(groups[0].size, tuple(after), runs, whatever_they_made=True)


def waits_for_a_run(group: TrainGroup) -> bool:
    """Whether what the group starts from is still to be trained, or a look comes before
    it."""
    return any(item.startswith(("runs/", f"{LOOKS}/")) for item in group.after)


def _waits_for_prepares(group: TrainGroup) -> bool:
    return bool(group.after) and all(
        item.startswith("prepare/") for item in group.after
    )


def _with_stages_before(
    runs: list[Run], is_made: Callable[[str], bool], makers: Mapping[str, str]
) -> list[Run]:
    """The runs, each after those whose weights it starts from where nobody has made or
    is making them."""
    in_order: dict[str, Run] = {}
    for run in runs:
        chain = [run]
        while (
            (before := chain[-1].before)
            and not is_made(before.weights)
            and before.weights not in makers
        ):
            chain.append(before)
        for stage in reversed(chain):
            in_order.setdefault(stage.id, stage)
    return list(in_order.values())


def _prepare_key(run: Run) -> PrepareKey:
    # Orders that need no embedding do not wait for one; nor does a stage for the scores
    # that are made by its own weights.
    if run.scoring_run is not None:
        return run.corpus_id, run.scoring_run.weights
    return run.corpus_id, run.stage["arrangement"].get("embedding")
