"""Does a train job see for itself that what it needs was not made, and say whose fault that is?"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec import structs

from jobs.contract import attempt as attempts
from jobs.contract import model_proof
from jobs.contract.causes import Known
from jobs.contract.folder import Workspace, find_damage, publish_folder, read_json
from jobs.contract.job_file import TrainJob, write_job
from jobs.contract.model_proof import AttentionProof
from jobs.runtime.prerequisites import check_prerequisites
from tests.lib.job_records import job_record

NEEDS = ("corpora/c", "arrangements/a", "bases/b")


def a_job(
    root: Path, *made: str, after: tuple[str, ...] = ("prepare/p", "prepare/q")
) -> TrainJob:
    """A train job in a workspace where these of the things it needs are there."""
    for name in made:
        with publish_folder(root / name):
            pass
    return job_record(
        run_id="r",
        submission="s",
        checkpoints={"keep_state": False},
        after=list(after),
        made={"corpus": "c", "arrangement": "a", "base": "b"},
        paths={"workspace": str(root), "base": str(root / "bases/b")},
    )


def ended(root: Path, item: str, outcome: str = "failed") -> None:
    """A job that told its end."""
    attempt = attempts.begin_attempt(root / item, "s")
    attempts.end_attempt(
        root / item,
        attempt,
        outcome,
        cause="bad input",
        evidence="x.json: no Instances",
    )


def test_a_job_with_all_that_it_needs_goes_on(tmp_path: Path) -> None:
    """Whatever other jobs of the array's have come to."""
    job = a_job(tmp_path, *NEEDS)
    ended(tmp_path, "prepare/q")

    assert check_prerequisites(job) is None


@pytest.mark.parametrize("lacking", NEEDS)
def test_each_thing_needed_is_looked_for(tmp_path: Path, lacking: str) -> None:
    """A folder without its commit marker is not there."""
    job = a_job(tmp_path, *(set(NEEDS) - {lacking}))
    (tmp_path / lacking).mkdir(parents=True)
    ended(tmp_path, "prepare/p", "done")
    ended(tmp_path, "prepare/q")

    with pytest.raises(Known) as error:
        check_prerequisites(job)
    assert error.value.cause == "prepare failed"
    assert (
        str(error.value)
        == f"{lacking} is not there: prepare/q: bad input: x.json: no Instances"
    )


def test_a_stage_before_is_blamed_by_its_name(tmp_path: Path) -> None:
    """Weights that another run was to leave are that run's fault."""
    ended(tmp_path, "runs/f")

    with pytest.raises(Known, match=r"runs/f: bad input") as error:
        check_prerequisites(a_job(tmp_path, after=("runs/f",)))
    assert error.value.cause == "a stage before failed"


def test_what_has_lost_files_is_told_apart_from_what_was_never_made(
    tmp_path: Path,
) -> None:
    """What was made and is not whole any more is told with what it lacks and what to
    do; whoever made it is not blamed."""
    job = a_job(tmp_path, *NEEDS)
    with publish_folder(tmp_path / "corpora/other") as draft:
        (draft / "train.bin").write_bytes(b"text")
    (tmp_path / "corpora/c/COMMIT").unlink()
    (tmp_path / "corpora/c").rmdir()
    (tmp_path / "corpora/other").rename(tmp_path / "corpora/c")
    (tmp_path / "corpora/c/train.bin").unlink()
    ended(tmp_path, "prepare/p")

    with pytest.raises(Known) as error:
        check_prerequisites(job)
    assert error.value.cause == "prepare failed"
    assert str(error.value) == (
        f"corpora/c is not whole any more: {find_damage(tmp_path / 'corpora/c')};"
        " zsg retry makes it again"
    )
    assert "train.bin" in str(error.value)


@pytest.mark.parametrize(
    ("proof", "said"),
    [
        (
            {"batching": "refused", "packed": 7.5, "padded": 3.25},
            "7.5 of 9 off.*3.2 of 9",
        ),
        ({"batching": "refused", "fault": "its weights are quantised"}, "quantised"),
        ({"batching": "packed", "packed": 0.0, "longest": 32}, "set it to at most 32"),
    ],
)
def test_a_model_that_its_proof_refuses_is_not_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proof: dict, said: str
) -> None:
    """Whoever made the proof, and for whatever grid; with both numbers."""
    versions = {"torch": "2.13.0", "transformers": "5.23.0"}
    monkeypatch.setattr(model_proof, "read_proof_versions", lambda: versions)
    digest = "0123456789ab"
    job = structs.replace(a_job(tmp_path, *NEEDS), proof=digest)
    longer = job.train["max_length"] + 1
    long_enough = AttentionProof(
        model_type="m", batching="packed", largest_logit=9.0, longest=longer
    )
    kept = structs.replace(long_enough, versions=versions)
    check_prerequisites(job)  # none is kept: training makes it
    model_proof.write_proof(job.workspace, digest, kept)
    check_prerequisites(job)
    model_proof.write_proof(
        job.workspace, digest, structs.replace(kept, **{"longest": None, **proof})
    )

    with pytest.raises(Known, match=said) as error:
        check_prerequisites(job)
    assert error.value.cause == "prepare failed"
    assert f"model-proofs/{digest} of {job.base_folder}" in str(error.value)


def test_a_job_that_waits_for_nobody_says_what_to_do(tmp_path: Path) -> None:
    """Nobody has ended badly: what is missing was removed, or is still being made."""
    with pytest.raises(Known, match="submit again"):
        check_prerequisites(a_job(tmp_path, after=()))


def test_the_end_of_an_unprepared_job_is_recorded_at_once(tmp_path: Path) -> None:
    """`jobs.entry` ends with 1 and the cause in exit.json, and no engine is loaded for it."""
    ended(tmp_path, "prepare/p")
    folder = Workspace(tmp_path).run("r")
    write_job(folder, a_job(tmp_path))
    argv = [sys.executable, "-X", "importtime", "-m", "jobs.entry", str(folder)]
    done = subprocess.run(argv, env=dict(os.environ), capture_output=True, text=True)

    record = read_json(folder / "exit.json")
    assert (done.returncode, record["outcome"], record["cause"]) == (
        1,
        "failed",
        "prepare failed",
    )
    assert "prepare/p: bad input: x.json: no Instances" in record["evidence"]
    assert "| torch" not in done.stderr
