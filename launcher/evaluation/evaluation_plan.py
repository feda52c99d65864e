"""Decides which runs are evaluated again: those that lack metrics of answers for which
there still are weights.

A metric that is asked for after training is taken of the snapshots that were kept, or
of answers that were. Where neither is left the run needs training again, and that is
said.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
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
    taken: Mapping[int, set[str]] = field(default_factory=dict)
    ways: Mapping[str, dict[str, Any]] = field(default_factory=dict)
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
    kept = answers.find_kept(folder)
    return EvaluationState(
        evaluations.there(folder, run.before is None),
        evaluations.taken(folder),
        evaluations.ways(folder),
        frozenset(
            (told.step, told.suite) for told in kept if told.how == how.get(told.suite)
        ),
    )


def keys_under_evaluation(
    workspace: Workspace, items: Iterable[str]
) -> dict[str, set[str]]:
    """The keys that some evaluate jobs are to take of each run."""
    found: dict[str, set[str]] = {}
    for item in items:
        for served in runs_served(job_file.read_job_if_sound(workspace.root / item)):
            found.setdefault(served.run, set()).update(served.keys)
    return found


def add_evaluations(
    actions: Iterable[Action],
    states: Mapping[str, JobState],
    allow: Allow,
    found: Mapping[str, EvaluationState],
    served: Mapping[str, set[str]],
) -> list[Action]:
    """The actions, with those runs evaluated that are not trained and lack metrics.
    `found`: of runs that want any."""
    return [
        (
            _refined(
                action,
                states[run_item(action.run)],
                allow,
                found[action.run.id],
                served.get(action.run.id, set()),
            )
            if action.kind == SKIP
            and action.reason != NOT_SELECTED
            and action.run.id in found
            else action
        )
        for action in actions
    ]


def _refined(
    action: Action,
    state: JobState,
    allow: Allow,
    found: EvaluationState,
    served: set[str],
) -> Action:
    run, keys = action.run, action.run.checkpoints.scored
    if found.trouble:
        return Action(run, SKIP, f"{action.reason}; not evaluated: {found.trouble}")
    if other := _taken_otherwise(run, found):
        return Action(run, SKIP, f"{action.reason}; {other}")
    if state.state in ACTIVE:
        if set(keys) <= served or not state.slurm:
            return action
        return Action(run, EVALUATE, f"{action.reason}; evaluated once it has ended")
    if state.state != State.DONE:
        return action
    missing = {
        step: lacking
        for step in _wanted(run, state)
        if (lacking := evaluations.lacking(keys, step, found.taken))
    }
    if not missing:
        return action
    told = f"{action.reason}, but {_told(missing)} missing"
    if {key for lacking in missing.values() for key in lacking} <= served:
        return Action(run, SKIP, f"{told}; they are being evaluated")
    by_suite = {suite.name: set(suite.keys) for suite in run.suites}
    gone = [
        step
        for step, lacking in missing.items()
        if step not in found.there
        and any(
            own.intersection(lacking) and (step, name) not in found.answered
            for name, own in by_suite.items()
        )
    ]
    lost = f"{len(gone)} of them have no snapshot any more and need training again"
    if len(gone) < len(missing):
        more = f"; {lost} (--retrain)" if gone else ""
        return Action(run, EVALUATE, f"{told}; evaluated from what was kept{more}")
    if allow.retrain:
        return Action(run, RETRAIN, f"{told}; {lost}")
    return Action(run, SKIP, f"{told}; {lost} (--retrain)")


def _taken_otherwise(run: Run, found: EvaluationState) -> str | None:
    """Why a key that is wanted cannot be had: it was taken in another way, and is of that."""
    for suite in run.suites:
        for key in suite.keys:
            if (before := found.ways.get(key, way := suite.way(key))) != way:
                is_own = suite.name in (TEST_SET, INSIDE)
                whose = (
                    run.checkpoints.named_by(key) if is_own else f"suites.{suite.name}"
                )
                return (
                    f"{key} was taken otherwise ({_differing(before, way)}): give "
                    f"checkpoints.{whose} a name, which its keys then carry"
                )
    return None


def _wanted(run: Run, state: JobState) -> list[int]:
    """The steps at which metrics of answers are wanted: of the base, and of every
    snapshot that the grid asks for."""
    own = schedule.list_snapshot_steps(
        (state.steps or 0) - state.first, run.checkpoints.snapshots
    )
    return [*([] if run.before else [0]), *(state.first + step for step in own)]


def _told(missing: Mapping[int, Sequence[str]]) -> str:
    keys = list(dict.fromkeys(key for lacking in missing.values() for key in lacking))
    count = f"{len(missing)} checkpoint{'s' * (len(missing) > 1)} (the first: step {min(missing)})"
    return f"{' and '.join(keys)} of {count} {'is' if len(keys) == 1 else 'are'}"


def _differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return ", ".join(
        f"{key} {format_brief(old.get(key))}, now {format_brief(new.get(key))}"
        for key in keys
    )
