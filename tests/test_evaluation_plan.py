"""Which runs are evaluated without being trained, and which need training again?"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from jobs.contract import attempt as attempts
from jobs.contract.folder import Workspace
from jobs.contract.journal import GUEST, Journal
from launcher.evaluation import metric_versions
from launcher.evaluation.evaluation_plan import (
    EvaluationState,
    add_evaluations,
    read_evaluation_state,
)
from launcher.planning.plan import Action, Allow, Plan, evaluation_of, run_item
from launcher.workspace.job_state import JobState
from tests.lib.journal_rows import NO_ROWS, break_journal
from tests.lib.planned_runs import a_run
from zsg_core.settings.checkpoints import CheckpointSettings

KEY = "exact_match"
WANTED = {"every": 10, "snapshots": 10, "metrics": ["loss", KEY]}
RUN = replace(a_run(), checkpoints=CheckpointSettings.model_validate(WANTED))
HOW = RUN.checkpoints.generation.how
DONE = JobState(state="done", steps=30)
ALL = [0, 10, 20, 30]


def taken(*steps: int) -> dict[int, set[str]]:
    """The metric was taken of these steps."""
    return {step: {KEY} for step in steps}


def refined(
    found: EvaluationState,
    state: JobState = DONE,
    served: Any = (),
    retrain: bool = False,
) -> Action:
    """What becomes of a run that is not to be trained."""
    action = Action(RUN, "skip", "already done")
    allow = Allow(retrain=retrain)
    return add_evaluations(
        [action], {run_item(RUN): state}, allow, {RUN.id: found}, {RUN.id: set(served)}
    )[0]


CASES = [
    pytest.param(
        EvaluationState(ALL, taken(*ALL)),
        "skip",
        "already done",
        id="nothing is missing",
    ),
    pytest.param(
        EvaluationState(ALL),
        "evaluate",
        "of 4 checkpoints (the first: step 0) is missing",
        id="all are missing",
    ),
    pytest.param(
        EvaluationState(ALL, taken(0, 10)),
        "evaluate",
        "of 2 checkpoints (the first: step 20)",
        id="some are missing",
    ),
    pytest.param(
        EvaluationState([0, 30], taken(0)),
        "evaluate",
        "2 of them have no snapshot any more",
        id="some snapshots are gone",
    ),
    pytest.param(
        EvaluationState([0, 30], taken(0, 30)),
        "skip",
        "2 of them have no snapshot any more and need training again (--retrain)",
        id="all that is missing is gone",
    ),
    pytest.param(
        EvaluationState([0], answered=frozenset(ALL)),
        "evaluate",
        "evaluated from what was kept",
        id="the answers are kept",
    ),
    pytest.param(
        EvaluationState(ALL, taken(0), {KEY: HOW | {"max_new_tokens": 7}}),
        "skip",
        "max_new_tokens 7, now 128",
        id="the key is of other answers",
    ),
]


@pytest.mark.parametrize(("found", "kind", "why"), CASES)
def test_what_a_done_run_lacks(found: EvaluationState, kind: str, why: str) -> None:
    """It is evaluated from what was kept; where nothing was, the plan says what it takes."""
    action = refined(found)
    assert (action.kind, why in action.reason) == (kind, True), action.reason


@pytest.mark.parametrize("line", NO_ROWS.values(), ids=NO_ROWS)
def test_a_run_whose_journal_is_broken_is_not_evaluated(
    tmp_path: Path, line: bytes
) -> None:
    """Nor does it keep others from being planned; its file is named."""
    place = Workspace(tmp_path)
    folder = place.run(RUN.id)
    attempt = attempts.begin_attempt(folder, "s")
    rows = Journal(folder, attempt, GUEST, "stage")
    rows.add_metrics({KEY: 0.5}, step=0, examples=0)
    rows.close()
    path = break_journal(folder, line)
    action = refined(read_evaluation_state(place, RUN))

    assert action.kind == "skip"
    assert action.reason.startswith(f"already done; not evaluated: {path}: holds a row")
    [named], notes = metric_versions.name_older_metrics(place, [RUN])
    assert named.id == RUN.id
    assert notes[0].startswith(f"{path}: holds a row")


def test_a_run_whose_snapshots_are_gone_is_trained_again_if_allowed() -> None:
    """With --retrain, and only if nothing can be had without."""
    assert (
        refined(EvaluationState([0, 30], taken(0, 30)), retrain=True).kind == "retrain"
    )
    assert refined(EvaluationState(ALL), retrain=True).kind == "evaluate"


def test_what_is_being_evaluated_is_left_alone() -> None:
    """Evaluate jobs that are in the queue or at work are enough."""
    action = refined(EvaluationState(ALL), served=[KEY])
    assert (action.kind, "being evaluated" in action.reason) == ("skip", True)


def test_a_run_under_way_gets_an_evaluator_if_it_has_none() -> None:
    """Where the metric was asked for after it had been submitted to Slurm."""
    running = JobState(state="running", slurm="7")
    assert refined(EvaluationState(), running).kind == "evaluate"
    assert refined(EvaluationState(), running, served=[KEY]).kind == "skip"
    assert refined(EvaluationState(), JobState(state="failed")).kind == "skip"


BROKEN = EvaluationState(trouble="3-evaluate-8.jsonl: line 5")


@pytest.mark.parametrize(
    ("state", "kind", "offers"),
    [
        (DONE, "evaluate", True),
        (JobState(state="running", slurm="7"), "evaluate", True),
        (JobState(state="waiting"), "skip", False),
        (JobState(state="failed", slurm="7"), "skip", False),
        (JobState(state="cancelled"), "skip", False),
    ],
)
def test_what_a_broken_journal_has_lost_is_evaluated_once(
    state: JobState, kind: str, offers: bool
) -> None:
    """With --retrain, of a run that is done or comes to be; not while an evaluate job
    that serves it is at work."""
    again = refined(BROKEN, state, retrain=True)
    served = refined(BROKEN, state, served=[KEY], retrain=True)
    refused = refined(BROKEN, state)

    assert (again.kind, served.kind, refused.kind) == (kind, "skip", "skip")
    assert ("--retrain" in refused.reason) == offers
    assert all("line 5" in action.reason for action in (again, served, refused))


def test_evaluators_are_planned_with_training() -> None:
    """So many beside an array as the grid asks for, and one that drains; none for runs
    that want their loss alone."""
    runs = [replace(RUN, evaluators=2), RUN, a_run("random")]
    assert evaluation_of(runs).runs == runs[:2]
    assert (evaluation_of(runs).beside, evaluation_of(runs).after) == (2, 1)
    assert evaluation_of(runs[2:]).jobs == 0
    later = Plan([Action(RUN, "evaluate", "")], [], [])
    assert (later.jobs(0), later.acting != []) == (1, True)


def test_metrics_of_answers_need_kept_weights() -> None:
    """The grid says what to add; metrics change no recipe, so the run stays the same."""
    with pytest.raises(ValidationError, match=r"set checkpoints\.snapshots"):
        CheckpointSettings.model_validate({"metrics": ["loss", KEY]})
    assert a_run(checkpoints=WANTED).id == a_run().id
    named = CheckpointSettings.model_validate(
        {**WANTED, "generation": {"name": "short", "max_new_tokens": 9}}
    )
    assert named.scored == [f"{KEY}/short"]
