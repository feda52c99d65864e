"""Is a job that ended before zsg began told as that, with the line that says why?"""

from pathlib import Path

import pytest

from jobs.contract import attempt as attempts
from jobs.contract.folder import Workspace
from launcher.lifecycle import retry
from launcher.status import why
from launcher.status.launch import explain_launch
from launcher.status.status import collect_states
from launcher.workspace.ledger import Ledger
from tests.lib.job_records import write_job_file
from tests.lib.recorded_run import ITEM, FakeSlurm, state, submitted, workspace

__all__ = ["workspace"]

START = "=== zsg start 0, job 7, node n3, 2026-11-28T22:00:00Z ===\n"
SETUP = f"{START}=== zsg setup line 1 of 1: . env ===\nenv: line 2: nvcc: command not found\n\n"
DONE = "=== zsg setup done ===\n"
PYTHON = "slurmstepd: error: execve(): /env/bin/python: No such file or directory"
EXITED = "srun: error: n3: task 0: Exited with exit code 2\n"
SRUN = "/var/spool/slurmd/job00007/slurm_script: line 30: srun: command not found"
MEMORY = "srun: fatal: SLURM_MEM_PER_CPU and SLURM_MEM_PER_NODE are mutually exclusive"
STEP = "srun: error: Unable to create step for job 7: Invalid generic resource (gres)"
MODULE = "/env/bin/python: No module named submitit"
NO_SUCH = "env: ‘/env/bin/python’: No such file or directory"
OTHERS = "zsg: others may write /w/code, and nothing from there is run; see zsg doctor"
BUG = (
    'Traceback (most recent call last):\n  File "/x/submitit/core/_submit.py", line 9, in <module>\n'
    "    import x\nFileNotFoundError: [Errno 2] No such file or directory: '/w/7_submitted.pkl'\n"
)


@pytest.mark.parametrize(
    ("printed", "exit_code", "evidence"),
    [
        pytest.param(f"{PYTHON}\n{EXITED}", "2:0", PYTHON, id="no Python"),
        pytest.param(f"{PYTHON}\n{EXITED}", None, PYTHON, id="no accounting either"),
        pytest.param(f"{SRUN}\n", "127:0", SRUN, id="no srun"),
        pytest.param(f"{MEMORY}\n", "1:0", MEMORY, id="srun refuses"),
        pytest.param(f"srun: Job 7 waits\n{STEP}\n", "1:0", STEP, id="no step"),
        pytest.param(f"{MODULE}\n{EXITED}", "1:0", MODULE, id="another Python"),
        pytest.param(f"{OTHERS}\n", "1:0", OTHERS, id="a guard of zsg's"),
        pytest.param(
            f"submitit INFO (x) - Starting\n{BUG}{EXITED}",
            "1:0",
            "FileNotFoundError: [Errno 2] No such file or directory: '/w/7_submitted.pkl'",
            id="a traceback",
        ),
        pytest.param(
            f"{SETUP}{DONE}the licence server says no\n",
            "3:0",
            "the licence server says no",
            id="a last word, and not what a setup line has printed",
        ),
        pytest.param(f"{NO_SUCH}\n{EXITED}", "127:0", NO_SUCH, id="no Python there"),
        pytest.param(f"no licence\n{EXITED}", "2:0", "no licence", id="a program"),
        pytest.param(EXITED, "2:0", EXITED.strip(), id="only that it exited"),
        pytest.param("", "127:0", "is not on the node (exit 127:0)", id="no word"),
        pytest.param(
            None,
            "0:53",
            "Slurm could not open the job's log: is /w/submissions/s there, and writable, on the"
            " nodes?",
            id="no log",
        ),
    ],
)
def test_a_job_that_ended_before_it_began_says_why(
    printed: str | None, exit_code: str | None, evidence: str
) -> None:
    """By the one line of its log that says it, else by its exit code."""
    text = None if printed is None else f"{START}{printed}"
    found = explain_launch(text, exit_code, Path("/w/submissions/s"))

    assert found is not None
    assert found.cause == "launch failed"
    assert evidence in found.evidence


@pytest.mark.parametrize(
    ("printed", "exit_code", "cause"),
    [
        pytest.param("cp: No space left on device\n", "1:0", "disk full", id="full"),
        pytest.param("loading\n", "0:9", None, id="killed"),
        pytest.param("loading\n", "137:0", None, id="killed under a shell"),
        pytest.param("loading\n", None, None, id="nobody knows its end"),
        pytest.param(DONE, "1:0", None, id="without a word"),
    ],
)
def test_what_another_cause_explains_is_no_failed_launch(
    printed: str, exit_code: str | None, cause: str | None
) -> None:
    """A full disk is a full disk; what was killed was killed."""
    found = explain_launch(f"{START}{printed}", exit_code, Path("/w"))

    assert (found.cause if found else None) == cause


def log_of(workspace: Workspace, kind: str, job: str, item: str) -> Path:
    """The log of a job that was submitted, which is not there yet."""
    ledger = Ledger(workspace)
    submission = ledger.intend(scheduler="slurm", kind=kind, grid="g", items=[item])
    ledger.submitted(submission, [job])
    log = workspace.submission(submission.id) / f"{job}_0_log.out"
    log.parent.mkdir(parents=True)
    return log


@pytest.mark.parametrize("kind", ["train", "prepare", "evaluate"])
def test_why_shows_the_line_and_no_advice_of_memory(
    workspace: Workspace, kind: str
) -> None:
    """Of every kind of job, with file and line; retry takes it three times."""
    item = {"train": "runs/r"}.get(kind, f"{kind}/p")
    log = log_of(workspace, kind, "6", item)
    log.write_text(f"a banner\n{START}{PYTHON}\n{EXITED}")
    slurm = FakeSlurm(sacct="6|FAILED|2:0")
    found = collect_states(workspace, [item], Ledger(workspace), slurm)[item]
    proven = why.of_job(workspace, item, found)
    told = why.make_why_row(item, "g", found, proven)

    assert (found.state, told["cause"], told["evidence"]) == (
        "failed",
        "launch failed",
        PYTHON,
    )
    assert (told["file"], told["line"]) == (str(log.relative_to(workspace.root)), 3)
    assert "memory" not in told["next"]
    failure = retry.read_failure(workspace, item, found)
    assert retry.refuse_retry(failure, []) is None


def test_a_run_whose_prepare_job_never_began_shows_its_line(
    workspace: Workspace,
) -> None:
    """The run has failed for it, and the proof is in the prepare job's log."""
    log = log_of(workspace, "prepare", "6", "prepare/p")
    log.write_text(f"{START}{SRUN}\n")
    submitted(workspace)
    write_job_file(workspace.root / ITEM, after=["prepare/p"])
    found = state(workspace, FakeSlurm(sacct="7|CANCELLED by 0|0:0\n6|FAILED|127:0"))
    proven = why.of_job(workspace, ITEM, found)

    assert (found.state, found.cause) == ("failed", "prepare failed")
    assert found.evidence == f"launch failed: {SRUN} (prepare/p)"
    assert proven is not None
    assert (proven.file, proven.line) == (str(log.relative_to(workspace.root)), 2)
    assert retry.read_failure(workspace, ITEM, found).root == "launch failed"


def test_an_exit_without_a_word_is_no_matter_of_memory(workspace: Workspace) -> None:
    """Nothing proves why; it is told that it did not begin. What was killed may have
    been killed for memory."""
    log = log_of(workspace, "train", "7", ITEM)
    log.write_text(f"{START}\n{DONE}")
    told = []
    for code in ("1:0", "0:9"):
        found = state(workspace, FakeSlurm(sacct=f"7|FAILED|{code}"))
        told.append(
            why.make_why_row("r", "g", found, why.of_job(workspace, ITEM, found))
        )

    assert [row["cause"] for row in told] == ["died", "died"]
    assert told[0]["evidence"] == "Slurm says FAILED, exit 1:0, before it began"
    assert ["memory" in row["next"] for row in told] == [False, True]
    assert attempts.read_attempt(workspace.root / ITEM) is None
