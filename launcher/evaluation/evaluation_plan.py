"""Decides which runs are evaluated again: those that lack metrics of answers for which
there still are weights.

A metric that is asked for after training is taken of the snapshots that were kept, or
of answers that were. Where neither is left the run needs training again, and that is
said.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from jobs.contract import answers, evaluations, job_file
from jobs.contract.folder import Damaged, Workspace
from jobs.contract.job_file import runs_served
from jobs.contract.states import ACTIVE, State
from launcher.grids.runs import Run
from launcher.planning.plan import (
    EVALUATE,
    NOT_SELECTED,
    RETRAIN,
    SKIP,
    Action,
    Allow,
    run_item,
)
from launcher.workspace.job_state import JobState
from zsg_core.metrics.keys import INSIDE
from zsg_core.metrics.metrics import TEST_SET
from zsg_core.schema_errors import format_brief
from zsg_core.training import schedule


@dataclass(frozen=True)
class EvaluationState:
    """What there is of a run: steps with weights, keys that were taken of each step, and how.

    `answered`: the (step, suite) whose answers are kept, made as the grid now wants them.
    `trouble`: why nobody can tell what was taken, with the file that is broken.
    """

    there: Sequence[int] = ()
    taken: Mapping[int, set[str]] = field(default_factory=dict[int, set[str]])
    ways: Mapping[str, dict[str, Any]] = field(
        default_factory=dict[str, dict[str, Any]]
    )
    answered: frozenset[tuple[int, str]] = frozenset()
    trouble: str | None = None


def read_evaluation_state(workspace: Workspace, run: Run) -> EvaluationState:
    """What there is of a run for which metrics of answers are wanted; of one whose
    journal cannot be read, why not."""
    try:
        return _read_found(workspace, run)
    except Damaged as error:
        return EvaluationState(trouble=str(error))


def _read_found(workspace: Workspace, run: Run) -> EvaluationState:
    folder = workspace.run(run.id)
    how = {suite.name: suite.how for suite in run.suites}
    kept_answers = answers.find_kept(folder)
    return EvaluationState(
        evaluations.list_evaluable_steps(folder, run.before is None),
        evaluations.collect_taken_keys(folder),
        evaluations.collect_key_ways(folder),
        frozenset(
            (row.step, row.suite)
            for row in kept_answers
            if row.how == how.get(row.suite)
        ),
    )


def keys_under_evaluation(
    workspace: Workspace, items: Iterable[str]
) -> dict[str, set[str]]:
    """The keys that some evaluate jobs are to take of each run."""
    keys_by_run: dict[str, set[str]] = {}
    for item in items:
        for target in runs_served(job_file.read_job_if_sound(workspace.root / item)):
            keys_by_run.setdefault(target.run, set()).update(target.keys)
    return keys_by_run


def add_evaluations(
    actions: Iterable[Action],
    states: Mapping[str, JobState],
    allow: Allow,
    evaluation_states: Mapping[str, EvaluationState],
    served: Mapping[str, set[str]],
) -> list[Action]:
    """The actions, with those runs evaluated that are not trained and lack metrics.
    `evaluation_states`: of runs that want any."""
    return [
        (
            _refined(
                action,
                states[run_item(action.run)],
                allow,
                evaluation_states[action.run.id],
                served.get(action.run.id, set()),
            )
            if action.kind == SKIP
            and action.reason != NOT_SELECTED
            and action.run.id in evaluation_states
            else action
        )
        for action in actions
    ]


def _refined(
    action: Action,
    state: JobState,
    allow: Allow,
    evaluated: EvaluationState,
    served: set[str],
) -> Action:
    """The action of a run that is not trained: what is evaluated of it, or why nothing is."""
    run, keys = action.run, action.run.scored
    if evaluated.trouble:
        return _take_again(action, state, evaluated.trouble, allow, served)
    if changed := _taken_otherwise(run, evaluated):
        return replace(action, kind=SKIP, reason=f"{action.reason}; {changed}")
    if state.state in ACTIVE:
        if set(keys) <= served or not state.slurm:
            return action
        return replace(
            action,
            kind=EVALUATE,
            reason=f"{action.reason}; evaluated once it has ended",
        )
    if state.state != State.DONE:
        return action
    missing = _missing_keys(run, state, evaluated)
    if not missing:
        return action
    reason = f"{action.reason}, but {_told(missing)} missing"
    if set[str]().union(*missing.values()) <= served:
        return replace(action, kind=SKIP, reason=f"{reason}; they are being evaluated")
    lost = _count_lost(run, missing, evaluated)
    return _evaluate_or_retrain(action, reason, lost, len(missing), allow)


def _take_again(
    action: Action, state: JobState, trouble: str, allow: Allow, served: set[str]
) -> Action:
    """A run whose journal has lost what evaluators had taken: one of them takes it again
    of what was kept, if that is allowed, and if the run is done or comes to be."""
    reason = f"{action.reason}; not evaluated: {trouble}"
    if set(action.run.scored) <= served:
        reason = f"{action.reason}; it is being evaluated, and its journal: {trouble}"
    elif state.state == State.DONE or (state.state in ACTIVE and state.slurm):
        if allow.retrain:
            reason = f"{action.reason}; evaluated again: {trouble}"
            return replace(action, kind=EVALUATE, reason=reason)
        reason = f"{reason} (--retrain evaluates it again)"
    return replace(action, kind=SKIP, reason=reason)


def _missing_keys(
    run: Run, state: JobState, evaluated: EvaluationState
) -> dict[int, Sequence[str]]:
    """By the steps at which any is missing, the keys that are wanted and were not taken."""
    keys = run.scored
    lacking = {
        step: evaluations.list_lacking_keys(keys, step, evaluated.taken)
        for step in _wanted(run, state)
    }
    return {step: step_keys for step, step_keys in lacking.items() if step_keys}


def _count_lost(
    run: Run, missing: Mapping[int, Sequence[str]], evaluated: EvaluationState
) -> int:
    """At how many steps neither weights nor the answers that a missing key needs are left."""
    without_weights = [step for step in missing if step not in evaluated.there]
    return sum(
        any(
            (step, suite.name) not in evaluated.answered
            for suite in run.suites
            if set(suite.keys).intersection(missing[step])
        )
        for step in without_weights
    )


def _evaluate_or_retrain(
    action: Action, reason: str, lost: int, missing: int, allow: Allow
) -> Action:
    """Evaluates what can be; a run of which nothing can be is trained again, if that is allowed."""
    lost_steps = f"{lost} of them have no snapshot any more and need training again"
    if lost < missing:
        note = f"; {lost_steps} (--retrain)" if lost else ""
        return replace(
            action,
            kind=EVALUATE,
            reason=f"{reason}; evaluated from what was kept{note}",
        )
    if allow.retrain:
        return replace(action, kind=RETRAIN, reason=f"{reason}; {lost_steps}")
    return replace(action, kind=SKIP, reason=f"{reason}; {lost_steps} (--retrain)")


def _taken_otherwise(run: Run, evaluated: EvaluationState) -> str | None:
    """Why a key that is wanted cannot be had: it was taken in another way, and is of that."""
    for suite in run.suites:
        for key in suite.keys:
            settings = suite.find_definition(key)
            before = evaluated.ways.get(key, settings)
            if before != settings:
                is_own = suite.name in (TEST_SET, INSIDE)
                whose = (
                    run.checkpoints.named_by(key) if is_own else f"suites.{suite.name}"
                )
                return (
                    f"{key} was taken otherwise ({_differing(before, settings)}): give "
                    f"checkpoints.{whose} a name, which its keys then carry"
                )
    return None


def _wanted(run: Run, state: JobState) -> list[int]:
    """The steps at which metrics of answers are wanted: of the base, and of every
    snapshot that the grid asks for."""
    snapshot_steps = schedule.list_snapshot_steps(
        (state.steps or 0) - state.first, run.checkpoints.snapshots
    )
    return [
        *([] if run.before else [0]),
        *(state.first + step for step in snapshot_steps),
    ]


def _told(missing: Mapping[int, Sequence[str]]) -> str:
    """Which metrics are missing at how many checkpoints, as the begin of a sentence
    that goes on after "is" or "are". `missing` maps each checkpoint's step to its
    missing keys."""
    keys = list(dict.fromkeys(key for lacking in missing.values() for key in lacking))
    count = f"{len(missing)} checkpoint{'s' * (len(missing) > 1)} (the first: step {min(missing)})"
    return f"{' and '.join(keys)} of {count} {'is' if len(keys) == 1 else 'are'}"


def _differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The keys whose values differ, each with both values, in the order in which they
    stand; a key that only one of the two has counts as None in the other."""
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return ", ".join(
        f"{key} {format_brief(old.get(key))}, now {format_brief(new.get(key))}"
        for key in keys
    )
