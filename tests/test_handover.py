"""Is a submission handed over once, whatever sbatch says and however long the controller is away?"""

from collections.abc import Callable
from pathlib import Path

import pytest
from slurm_answers import profile

from jobs.folder import Workspace
from launcher.clusters import arrays, slurm
from launcher.submission import handover
from launcher.submission.ledger import Ledger
from zsg_core.errors import ClusterError

ITEMS = ["runs/a", "runs/b"]
AWAY = "sbatch failed: sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"
DOWN = "squeue failed: slurm_load_jobs error: Unable to contact slurm controller (connect failure)"
REFUSED = "sbatch failed: sbatch: error: invalid partition specified: nowhere"


@pytest.fixture
def send(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ledger]:
    """Hands two jobs over: `sbatch` and `squeue` say what is given, in turn; the ledger, and what happened."""

    def run(sbatch: list[str | list[str]], squeue: list[str | list[str]]) -> Ledger:
        def answer(answers: list[str | list[str]], name: str) -> list[str]:
            run.calls.append(name)
            said = answers.pop(0)
            if isinstance(said, str):
                raise ClusterError(said)
            return said

        monkeypatch.setattr(arrays, "submit", lambda *_: answer(sbatch, "sbatch"))
        monkeypatch.setattr(arrays, "adopt", lambda *_: run.calls.append("adopt"))
        monkeypatch.setattr(slurm, "find", lambda name, sacct=True: answer(squeue, "squeue"))
        workspace = Workspace(tmp_path)
        ledger, own = Ledger(workspace), profile()
        run.submission = ledger.intend(scheduler="slurm", kind="train", grid="g", items=ITEMS)
        sleep = lambda seconds: run.calls.append("sleep")  # noqa: E731
        handover.send(workspace, own, run.submission, own.train, None, ledger, run.said.append, sleep)
        return Ledger(workspace)

    run.calls, run.said = [], []
    return run


def test_what_sbatch_takes_is_recorded(send: Callable[..., Ledger]) -> None:
    """One call, no look-up."""
    ledger = send([["7_0", "7_1"]], [])

    assert send.calls == ["sbatch"]
    assert ledger.last("runs/b").job_ids("runs/b") == ["7_1"]


def test_a_time_out_that_did_submit_is_adopted(send: Callable[..., Ledger]) -> None:
    """Slurm has it under its name: no second sbatch."""
    ledger = send([AWAY], [["7_0", "7_1"]])

    assert send.calls == ["sbatch", "squeue", "adopt"]
    assert ledger.last("runs/a").ids == ["7_0", "7_1"]


def test_a_time_out_that_did_not_submit_is_tried_again(send: Callable[..., Ledger]) -> None:
    """Only after Slurm has said that it has nothing of that name, and after a pause, which is told."""
    ledger = send([AWAY, ["7_0", "7_1"]], [[]])

    assert send.calls == ["sbatch", "squeue", "sleep", "sbatch"]
    assert "Socket timed out" in send.said[0] and "trying again in 2 s" in send.said[0]
    assert ledger.last("runs/a").ids == ["7_0", "7_1"]


def test_a_controller_that_restarts_is_waited_for(send: Callable[..., Ledger]) -> None:
    """While it cannot say what it has, nothing is submitted again."""
    send([AWAY, ["7_0", "7_1"]], [DOWN, DOWN, []])

    assert send.calls == ["sbatch", "squeue", "sleep", "squeue", "sleep", "squeue", "sleep", "sbatch"]


def test_a_refusal_is_not_tried_again(send: Callable[..., Ledger]) -> None:
    """An invalid partition stays invalid: the submission is given up, in Slurm's words."""
    with pytest.raises(ClusterError, match="nowhere"):
        send([REFUSED], [[]])
    assert send.calls == ["sbatch", "squeue"]
    assert send.submission.void == "sbatch failed"


def test_a_controller_that_stays_away_leaves_the_intent(send: Callable[..., Ledger]) -> None:
    """Nobody knows whether it was submitted: the next submit looks it up, and nothing is given up."""
    with pytest.raises(ClusterError, match="Unable to contact"):
        send([AWAY], [DOWN] * 10)
    assert send.calls.count("sbatch") == 1
    assert send.submission.void is None


def test_a_controller_that_never_takes_it_gives_up_at_last(send: Callable[..., Ledger]) -> None:
    """It answers and has nothing, and sbatch times out again and again."""
    with pytest.raises(ClusterError, match="Socket timed out"):
        send([AWAY] * 10, [[]] * 10)
    assert send.calls.count("sbatch") == 1 + len(handover.PAUSES_S)
    assert send.submission.void == "sbatch failed"
