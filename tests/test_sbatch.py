"""Is a submission handed over once, whatever sbatch says and however long the
controller is away?"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.contract.folder import Workspace
from jobs.runtime.slurm_calls import NoAnswer
from launcher.clusters import slurm, slurm_retry, submitit_backend
from launcher.submission import sbatch as sbatch_calls
from launcher.submission.sbatch import SbatchSubmitter
from launcher.workspace.ledger import Ledger
from tests.lib.slurm_answers import profile
from zsg_core.errors import ClusterError

ITEMS = ["runs/a", "runs/b"]
AWAY = (
    "sbatch failed: sbatch: error: Batch job submission failed: Socket timed out on send/recv"
    " operation"
)
DOWN = "squeue failed: slurm_load_jobs error: Unable to contact slurm controller (connect failure)"
SILENT = "sbatch failed: it did not answer within 180 s"
TWO = ["7_0", "7_1"]
REFUSED = "sbatch failed: sbatch: error: invalid partition specified: nowhere"


@pytest.fixture
def send(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> Callable[..., Ledger]:
    """Hands two jobs over: `sbatch` and `squeue` say what is given, in turn; the
    ledger, and what happened.

    A number is what sbatch prints of a job, another text its error.
    """

    def run(
        sbatch: list[str], squeue: list[str | list[str]], named: str | None = None
    ) -> Ledger:
        def submit(*_: object) -> submitit_backend.SbatchAnswer:
            run.calls.append("sbatch")
            said = sbatch.pop(0)
            if said == SILENT:
                raise NoAnswer(said)
            if said and not said[0].isdigit() and said != "?":
                raise ClusterError(said)
            return (
                submitit_backend.SbatchAnswer(*said.split(";"))
                if said != "?"
                else submitit_backend.SbatchAnswer(None)
            )

        def find(
            name: str, sacct: bool = True, cluster: str | None = None
        ) -> list[str]:
            run.asked.append((name, cluster))
            return answer(squeue, "squeue")

        def answer(answers: list[str | list[str]], name: str) -> list[str]:
            run.calls.append(name)
            said = answers.pop(0)
            if isinstance(said, str):
                raise ClusterError(said)
            return said

        monkeypatch.setattr(submitit_backend, "submit_held", submit)
        monkeypatch.setattr(
            submitit_backend,
            "complete_submission",
            lambda *_: run.calls.append("adopt"),
        )
        monkeypatch.setattr(slurm, "find_job_ids", find)
        workspace = Workspace(tmp_path)
        ledger, own = Ledger(workspace), profile()
        where = {"cluster": named, "named": True} if named else {}
        run.submission = ledger.intend(
            scheduler="slurm", kind="train", grid="g", items=ITEMS, **where
        )
        sleep = lambda seconds: run.calls.append("sleep")  # noqa: E731
        submitter = SbatchSubmitter(workspace, ledger, sleep)
        submitter.send_submission(own, run.submission, own.train, None)
        return Ledger(workspace)

    run.calls, run.said, run.asked = [], logged, []
    return run


def test_what_sbatch_takes_is_recorded(send: Callable[..., Ledger]) -> None:
    """One call, and a look whether Slurm has it under its name before anything is written."""
    ledger = send(["7"], [TWO])

    assert send.calls == ["sbatch", "squeue", "adopt"]
    assert send.asked == [(send.submission.name, None)]
    assert ledger.last("runs/b").job_ids("runs/b") == ["7_1"]


@pytest.mark.parametrize(
    "said", ["60", "?"], ids=["another's number", "no number for certain"]
)
def test_what_sbatch_prints_is_not_believed(
    send: Callable[..., Ledger], said: str
) -> None:
    """Taken is what Slurm has under our name and for our user, whatever number a wrapper prints."""
    ledger = send([said], [TWO])

    assert ledger.last("runs/a").ids == ["7_0", "7_1"]
    assert said == "?" or any(
        f"sbatch names job 60, but the jobs {send.submission.name} are 7" in t
        for t in send.said
    )


def test_without_a_job_of_our_name_nothing_is_taken(
    send: Callable[..., Ledger],
) -> None:
    """One error; the ledger has no id, and the intent stays for the next submit to settle."""
    with pytest.raises(
        ClusterError,
        match=r"names job 60, but Slurm has no job zsg-g-train-.* of yours: nothing was",
    ):
        send(["60"], [[], [], []])

    assert send.calls == ["sbatch", "squeue", "sleep", "squeue", "sleep", "squeue"]
    assert (send.submission.ids, send.submission.void) == ([], None)


def test_the_cluster_is_kept(send: Callable[..., Ledger]) -> None:
    """The one that sbatch names is asked for the jobs and is in the ledger, and every
    later call names it."""
    ledger = send(["7;big"], [TWO])

    assert send.asked == [(send.submission.name, "big")]
    [job, _] = ledger.last("runs/a").jobs
    assert (job.id, job.cluster, job.named) == ("7_0", "big", True)


def test_what_was_cut_short_is_looked_for_on_its_cluster(
    send: Callable[..., Ledger],
) -> None:
    """The intent names it."""
    send([AWAY], [TWO], named="big")

    assert send.asked == [(send.submission.name, "big")]


def test_a_time_out_that_did_submit_is_adopted(send: Callable[..., Ledger]) -> None:
    """Slurm has it under its name: no second sbatch."""
    ledger = send([AWAY], [["7_0", "7_1"]])

    assert send.calls == ["sbatch", "squeue", "adopt"]
    assert ledger.last("runs/a").ids == ["7_0", "7_1"]


def test_a_time_out_that_did_not_submit_is_tried_again(
    send: Callable[..., Ledger],
) -> None:
    """Only after Slurm has said that it has nothing of that name, and after a pause,
    which is told."""
    ledger = send([AWAY, "7"], [[], TWO])

    assert send.calls == ["sbatch", "squeue", "sleep", "sbatch", "squeue", "adopt"]
    assert "Socket timed out" in send.said[0] and "retrying in 2 s" in send.said[0]
    assert ledger.last("runs/a").ids == ["7_0", "7_1"]


def test_an_sbatch_that_did_not_end_in_time_is_looked_for_more_than_once(
    send: Callable[..., Ledger],
) -> None:
    """It may have asked just before it was ended: found late it is adopted; not found
    it is called again."""
    ledger = send([SILENT], [[], [], TWO])
    looks = ["squeue", "sleep", "squeue", "sleep", "squeue"]
    assert send.calls == ["sbatch", *looks, "adopt"]
    assert ledger.last("runs/a").ids == TWO

    send.calls.clear()
    send([SILENT, "7"], [[], [], [], TWO])
    again = ["sleep", "sbatch", "squeue", "adopt"]
    assert send.calls == ["sbatch", *looks, *again]


def test_an_sbatch_that_hangs_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After its time; one that an earlier submit left behind is told, not waited for
    without end."""
    program = tmp_path / "sbatch"
    program.write_text("#!/bin/sh\nsleep 300\n")
    program.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    monkeypatch.setenv("PATH", path)
    monkeypatch.setattr(submitit_backend, "SUBMIT_S", 0.3)
    monkeypatch.setattr(sbatch_calls, "SUBMIT_S", 0.3)
    parameters = {"job_name": "zsg-g-train-1", "time": 1}
    with pytest.raises(NoAnswer, match=r"did not answer within 0\.3 s"):
        submitit_backend.submit_held(tmp_path, 1, parameters, "python", {"PATH": path})

    monkeypatch.setattr(sbatch_calls, "_sbatch_lives", lambda submission: True)
    submission = Ledger(Workspace(tmp_path)).intend(
        scheduler="slurm", kind="train", grid="g", items=ITEMS
    )
    with pytest.raises(ClusterError, match="is still at work after"):
        sbatch_calls.find_jobs(submission, submission.name)


def test_a_controller_that_restarts_is_waited_for(send: Callable[..., Ledger]) -> None:
    """While it cannot say what it has, nothing is submitted again."""
    send([AWAY, "7"], [DOWN, DOWN, [], TWO])

    looks = ["squeue", "sleep", "squeue", "sleep", "squeue", "sleep"]
    assert send.calls == ["sbatch", *looks, "sbatch", "squeue", "adopt"]


def test_a_refusal_is_not_tried_again(send: Callable[..., Ledger]) -> None:
    """An invalid partition stays invalid: the submission is given up, in Slurm's words."""
    with pytest.raises(ClusterError, match="nowhere"):
        send([REFUSED], [[]])
    assert send.calls == ["sbatch", "squeue"]
    assert send.submission.void == "sbatch failed"


def test_a_controller_that_stays_away_leaves_the_intent(
    send: Callable[..., Ledger],
) -> None:
    """Nobody knows whether it was submitted: the next submit looks it up, and nothing
    is given up."""
    with pytest.raises(ClusterError, match="Unable to contact"):
        send([AWAY], [DOWN] * 10)
    assert send.calls.count("sbatch") == 1
    assert send.submission.void is None


def test_a_controller_that_never_takes_it_gives_up_at_last(
    send: Callable[..., Ledger],
) -> None:
    """It answers and has nothing, and sbatch times out again and again."""
    with pytest.raises(ClusterError, match="Socket timed out"):
        send([AWAY] * 10, [[]] * 10)
    assert send.calls.count("sbatch") == 1 + len(slurm_retry.WAITS_S)
    assert send.submission.void == "sbatch failed"


@pytest.mark.parametrize(
    ("queued", "told", "expected"),
    [
        ([], ["7_0", "7_1", "9_0", "9_1"], []),  # both were cancelled, as was asked
        (["9_0", "9_1"], ["9_0", "9_1"], ["9_0", "9_1"]),
        ([], ["9_0", "9_1"], ["9_0", "9_1"]),
        (["7_0", "7_1", "9_0"], ["7_0", "7_1", "9_0"], None),
    ],
)
def test_what_was_sent_twice_and_cancelled_is_sent_anew(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    queued: list[str],
    told: list[str],
    expected: list[str] | None,
) -> None:
    """Accounting tells of it for days, which is no reason to refuse every submit; what
    is in the queue twice is one."""
    workspace = Workspace(tmp_path / "work")
    workspace.create()
    submission = Ledger(workspace).intend(
        scheduler="slurm", kind="train", grid="g", items=ITEMS
    )
    workspace.submission(submission.id).mkdir(parents=True)
    for item in ITEMS:
        (workspace.root / item).mkdir(parents=True)
    monkeypatch.setattr(
        sbatch_calls.slurm,
        "find_job_ids",
        lambda name, sacct=True, cluster=None: told if sacct else queued,
    )
    if expected is None:
        with pytest.raises(ClusterError, match="Slurm has 3 jobs of that name"):
            sbatch_calls.adopt_jobs(workspace, submission, submission.name)
        return
    found = sbatch_calls.adopt_jobs(workspace, submission, submission.name)
    assert found == expected
