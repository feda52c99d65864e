"""A workspace with one run whose ledger, records and Slurm say what a test has them say."""

import subprocess
from pathlib import Path

import pytest

from jobs.contract import attempt as attempts
from jobs.contract.folder import Workspace
from jobs.contract.journal import Journal
from jobs.runtime import log_marks
from launcher.status.status import JobState, collect_states
from launcher.workspace.ledger import Ledger, Submission
from tests.lib.slurm_answers import owned

ITEM = "runs/r"


class FakeSlurm:
    """squeue and sacct that answer with fixed texts and count how often they were asked.

    Jobs have the names that the ledger of `workspace` knows, once that is set.
    """

    workspace: Workspace | None = None

    def __init__(self, squeue: str = "", sacct: str = "") -> None:
        self.answers = {"squeue": squeue, "sacct": sacct}
        self.asked: list[str] = []

    def __call__(
        self, argv: list[str], **options: object
    ) -> subprocess.CompletedProcess[str]:
        self.asked.append(argv[0])
        ledger = Ledger(self.workspace) if self.workspace else None
        names = (
            {
                job.id: job.name
                for one in ledger.submissions.values()
                for job in one.jobs
            }
            if ledger
            else {}
        )
        answer = owned(self.answers[argv[0]], names, 6 if argv[0] == "squeue" else 3)
        return subprocess.CompletedProcess(argv, 0, answer, "")


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """An empty workspace, whose jobs FakeSlurm has."""
    made = Workspace(tmp_path)
    monkeypatch.setattr(FakeSlurm, "workspace", made)
    return made


def submitted(
    workspace: Workspace, scheduler: str = "slurm", ids: tuple[str, ...] = ("7",)
) -> Submission:
    """A submission of the one run."""
    ledger = Ledger(workspace)
    submission = ledger.intend(
        scheduler=scheduler, kind="train", grid="g", items=[ITEM]
    )
    if ids:
        ledger.submitted(submission, ids)
    return submission


def started(workspace: Workspace, submission: Submission) -> attempts.Attempt:
    """An attempt of the run under way, at step 4 of 9 with a loss."""
    attempt = attempts.begin_attempt(workspace.root / ITEM, submission.id)
    journal = Journal(workspace.root / ITEM, attempt, "train", "s")
    journal.add_row(
        "event",
        step=0,
        examples=0,
        data={"event": "start", "steps": 9, "device": "cpu", "world": 1},
    )
    journal.add_row("metric", step=4, examples=8, data={"loss": 1.5})
    journal.close()
    return attempt


def ended(workspace: Workspace, submission: Submission, outcome: str) -> None:
    """An attempt of the run that has told its end."""
    attempts.end_attempt(
        workspace.root / ITEM,
        started(workspace, submission),
        outcome,
        cause="why",
        steps=9,
    )


def state(workspace: Workspace, slurm: FakeSlurm | None = None) -> JobState:
    """What is found."""
    return collect_states(workspace, [ITEM], Ledger(workspace), slurm or FakeSlurm())[
        ITEM
    ]


def begins(workspace: Workspace, text: str, rank: int = 0, link: int = 0) -> None:
    """A new attempt under the newest submission, in a link of its chain; its rank logs
    its mark and a text."""
    last = Ledger(workspace).last(ITEM)
    assert last
    attempt = attempts.begin_attempt(workspace.root / ITEM, last.id)
    mark = log_marks.format_attempt_mark(attempt, rank, 2, "n1")
    folder = workspace.submission(last.id)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{last.job_ids(ITEM)[link]}_{rank}_log.out").open("a") as file:
        file.write(f"submitit INFO\n{mark}\n{text}")
