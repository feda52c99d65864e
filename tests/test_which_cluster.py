"""Is it known at any time on which cluster a job is, and has a run one job whatever its
earlier submissions left?"""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.contract.folder import Workspace
from launcher.clusters import slurm, which_cluster
from launcher.clusters.cluster import Cluster
from launcher.clusters.slurm import JobQueue, SlurmState
from launcher.planning.site import Site
from launcher.submission import submit as submits
from launcher.submission.submit_plan import find_unreachable_needs
from launcher.workspace.ledger import Ledger
from tests.lib.job_records import write_job_file
from tests.lib.planned_runs import a_run, planned
from tests.lib.slurm_answers import owned, profile
from zsg_core.errors import ClusterError, UserError

BIG = profile(slurm={"sbatch": {"clusters": "big"}})


@pytest.mark.parametrize(
    ("own", "variable", "expected"),
    [
        (profile(), None, None),
        (profile(), "moon", "moon"),
        (BIG, None, "big"),
        (BIG, "moon", "big"),
    ],
    ids=["the default one", "by the variable", "by the profile", "the profile counts"],
)
def test_the_cluster_of_a_profile(own, variable, expected):
    """Named by the profile, or else by SLURM_CLUSTERS; each is told that the user may
    not think of."""
    environ = {"SLURM_CLUSTERS": variable} if variable else {}

    assert which_cluster.choose_cluster(own, environ) == expected
    assert len(which_cluster.explain_choice(own, environ)) == (variable is not None)


@pytest.mark.parametrize("several", ["a,b", "all", "a b"])
def test_one_cluster_is_wanted(several):
    """Of several sbatch takes the one that starts first, and nobody could tell where a job is."""
    with pytest.raises(UserError, match="needs one cluster"):
        which_cluster.choose_cluster(profile(), {"SLURM_CLUSTERS": several})


def test_variables_of_sbatch_are_told_as_not_honoured():
    """SBATCH_CLUSTERS would choose one, too."""
    [told] = which_cluster.explain_choice(profile(), {"SBATCH_CLUSTERS": "moon"})
    assert "SBATCH_CLUSTERS is not honoured" in told


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """The ledger of a workspace in which a run was submitted to cluster `a`, and again
    to the default one of `b`."""
    made = Ledger(Workspace(tmp_path))
    first = made.intend(
        scheduler="slurm",
        kind="train",
        grid="g",
        items=["runs/r"],
        cluster="a",
        named=True,
    )
    made.submitted(first, ["7"])
    second = made.intend(
        scheduler="slurm",
        kind="train",
        grid="g",
        items=["runs/r"],
        cluster="b",
        chain=1,
    )
    made.submitted(second, ["7"])
    made.linked(second, ["8"])
    return made


def test_jobs_keep_their_cluster_and_their_name(ledger: Ledger, tmp_path: Path):
    """Read anew: two jobs of one number on two clusters are two; a link has a name of its own."""
    read = Ledger(Workspace(tmp_path))
    facts = [(job.id, job.cluster, job.named) for job in read.jobs_of("runs/r")]
    newest = read.last("runs/r")

    assert facts == [("7", "a", True), ("7", "b", False), ("8", "b", False)]
    assert newest and [job.name for job in newest.jobs] == [
        newest.name,
        newest.link_name(1),
    ]
    assert read.replaced(["runs/r"]) == {"runs/r": read.jobs_of("runs/r")[:1]}


def test_a_retry_ends_what_was_submitted_before(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, logged: list[str]
):
    """Every job that a run was ever given and Slurm still has is cancelled first; a
    cluster that is away is told."""
    jobs = ledger.jobs_of("runs/r")
    found = JobQueue(
        active={
            jobs[1]: SlurmState("queued"),
            jobs[2]: SlurmState("running", word="COMPLETING"),
        }
    )
    found.away[jobs[0]] = "on cluster a, which cannot be asked here: no route"
    cancelled = []
    monkeypatch.setattr(
        slurm, "query_queue", lambda asked: found if list(asked) == jobs else None
    )
    monkeypatch.setattr(slurm, "cancel_jobs", cancelled.append)
    run = a_run()
    plan = planned([run])
    monkeypatch.setattr(submits, "run_item", lambda run: "runs/r")
    submits.end_replaced(replace(plan, prepares=[]), ledger)

    assert cancelled == [[jobs[1]]]
    assert logged[0].startswith(
        "Slurm still has 7 of earlier submissions of these jobs: cancelled"
    )
    assert logged[1].startswith(
        "job 7 of an earlier submission is on cluster a, which cannot be asked here"
    )


def test_no_job_waits_for_one_on_another_cluster(tmp_path: Path):
    """A number there is another job's here: plan and submit refuse, and say where the job is."""
    made = Ledger(Workspace(tmp_path))
    run = a_run()
    plan = planned([run])
    [group] = plan.groups
    item = group.after[0]
    maker = made.intend(
        scheduler="slurm",
        kind="prepare",
        grid="g",
        items=[item],
        cluster="a",
        named=True,
    )
    made.submitted(maker, ["7"])
    here = replace(plan, prepares=[])

    on = lambda name: Site(Workspace(tmp_path), profile(), Cluster(named=name))  # noqa: E731
    [told] = find_unreachable_needs(on("b"), made, here, {})
    assert (
        f"{item} is under way on cluster a, and a job on cluster b cannot wait for it"
        in told
    )
    assert find_unreachable_needs(on("a"), made, here, {}) == []
    assert find_unreachable_needs(on("b"), made, plan, {}) == []  # it is made anew


def test_a_job_whose_place_a_later_submission_has_taken_does_nothing(tmp_path: Path):
    """Slurm may start it all the same: it neither takes the folder over nor writes into it."""
    write_job_file(tmp_path, submission="later", run_id="r")
    done = subprocess.run(
        [sys.executable, "-m", "jobs.entry", str(tmp_path)],
        env=os.environ | {"ZSG_SUBMISSION": "earlier"},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 1
    assert "a later submission has taken this job's place" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["job.json"]


def test_status_does_not_call_a_job_gone_whose_cluster_is_away(
    ledger: Ledger, tmp_path: Path
):
    """It is unknown, says on which cluster it is, and is not submitted again meanwhile."""
    from launcher.status.status import collect_states

    gone = ledger.intend(
        scheduler="slurm",
        kind="train",
        grid="g",
        items=["runs/s"],
        cluster="moon",
        named=True,
    )
    ledger.submitted(gone, ["9"])

    def answer(argv: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        if "moon" in argv or "a" in argv:
            return subprocess.CompletedProcess(argv, 1, "", "can't be reached now")
        names = {job.id: job.name for job in ledger.jobs_of("runs/r")[1:]}
        return subprocess.CompletedProcess(
            argv, 0, owned("7|RUNNING|None\n8|PENDING|Dependency", names), ""
        )

    found = collect_states(Workspace(tmp_path), ["runs/r", "runs/s"], ledger, answer)
    assert (found["runs/r"].state, found["runs/r"].slurm) == ("running", "7")
    assert (found["runs/s"].state, found["runs/s"].is_active) == ("unknown", True)
    assert (
        found["runs/s"].cause
        == "on cluster moon, which cannot be asked here: squeue failed: can't be reached now"
    )


def test_a_default_cluster_that_does_not_answer_is_an_error(ledger: Ledger):
    """Then nothing can be said of anything."""
    answer = lambda argv, **options: subprocess.CompletedProcess(  # noqa: E731
        argv, 1, "", "Unable to contact"
    )
    with pytest.raises(ClusterError, match="Unable to contact"):
        slurm.query_queue(ledger.jobs_of("runs/r"), answer)
