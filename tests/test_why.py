"""Does `zsg why` name the cause that the others follow from, and the line that proves it?"""

from pathlib import Path
from typing import Any

import pytest

from jobs.contract import attempt as attempts
from jobs.contract import folder as folder_files
from jobs.contract.causes import Cause
from jobs.contract.folder import Workspace
from jobs.contract.grid_record import GridRecord, ListedRun
from jobs.contract.model_proof import AttentionProof
from jobs.contract.states import State
from jobs.files import ownership
from launcher.lifecycle.retry import RetryChoice
from launcher.status import logs, why
from launcher.status.next_steps import NEXT, Outlook
from launcher.status.status import collect_states
from launcher.workspace import recorded_grids
from launcher.workspace.job_state import (
    HELD_BY_USER,
    JOURNAL_UNREADABLE,
    RECORD_UNREADABLE,
    JobState,
    JournalDamage,
)
from launcher.workspace.ledger import Ledger
from tests.lib.job_records import write_job_file
from tests.lib.log_lines import NCCL
from tests.lib.recorded_run import (
    ITEM,
    FakeSlurm,
    begins,
    started,
    submitted,
    workspace,
)

__all__ = ["workspace"]

GLOO = """\
[rank0]: Traceback (most recent call last):
  File "/venv/lib/python3.11/site-packages/torch/distributed/distributed_c10d.py", line 3003, in all_reduce
    work.wait()
RuntimeError: [/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:29716
"""
OOM = """\
Traceback (most recent call last):
  File "/code/jobs/training/train.py", line 244, in _forward
    return self.engine(*micro.on(self.device))
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.15 GiB
"""
BUG = (
    'Traceback (most recent call last):\n  File "/a/jobs/training/train.py", line 1, in run\n   '
    " x\nKeyError: 'x'\n"
)
KILLED = "srun: error: n2: task 1: Killed\n"
CANCELLED = (
    "slurmstepd: error: *** STEP 7.0 ON n1 CANCELLED AT 2026-11-25T10:00:00 ***\n"
)


@pytest.mark.parametrize(
    ("text", "cause", "proof"),
    [
        (GLOO, Cause.PEER_LOST, "Connection closed by peer"),
        (OOM + CANCELLED + KILLED, Cause.OUT_OF_MEMORY, "torch.OutOfMemoryError"),
        (GLOO + KILLED + CANCELLED, Cause.DIED, "task 1: Killed"),
        (GLOO + CANCELLED + KILLED, Cause.PEER_LOST, "Connection closed"),
        (NCCL + "\n" + GLOO, Cause.NCCL_TIMEOUT, "Watchdog caught"),
        (BUG + NCCL, Cause.TRACEBACK, "KeyError"),
        ("all is well\n", None, None),
    ],
)
def test_a_log_proves_what_came_first(
    text: str, cause: Cause | None, proof: str | None
) -> None:
    """Of all that a rank complains about, the cause that the rest follows from, with its line."""
    found = why.in_log(text.encode())

    assert (found.cause if found else None) == cause
    if found:
        assert proof and proof in found.text
        assert text.encode()[found.offset :].startswith(found.text.encode())


@pytest.mark.parametrize(
    ("logs", "rank"),
    [
        ([GLOO, OOM, GLOO], 1),
        ([GLOO, BUG], 1),
        ([NCCL, GLOO], 0),
        (["", "", GLOO], 2),
        (["", ""], None),
    ],
)
def test_the_rank_that_failed_is_found(logs: list[str], rank: int | None) -> None:
    """Ranks that lost a peer are no reason."""
    assert why.among_ranks([why.in_log(log.encode()) for log in logs]) == rank


def explain(workspace: Workspace, sacct: str = "") -> dict[str, Any]:
    """What `zsg why RUN --json` says; the run's last sign of life is long ago."""
    state = collect_states(
        workspace, [ITEM], Ledger(workspace), FakeSlurm(sacct=sacct)
    )[ITEM]
    return why.make_why_row("r", "g", state, why.of_job(workspace, ITEM, state))


def test_a_record_proves_itself(workspace: Workspace) -> None:
    """What the job has said of its end is shown with the line of its record."""
    attempt = started(workspace, submitted(workspace))
    attempts.end_attempt(
        workspace.root / ITEM,
        attempt,
        "failed",
        cause=Cause.DISK_FULL,
        evidence="x: No space left on device",
    )
    told = explain(workspace)

    assert (told["cause"], told["evidence"]) == (
        "disk full",
        "x: No space left on device",
    )
    assert told["file"] == f"{ITEM}/exit.json"
    assert (
        "No space"
        in (workspace.root / told["file"]).read_text().splitlines()[told["line"] - 1]
    )


def test_a_peers_log_outweighs_the_record_of_who_lost_it(workspace: Workspace) -> None:
    """Rank 0 has recorded that it lost a peer; the log of rank 1 says why, and is
    quoted with file and line."""
    submitted(workspace)
    begins(workspace, GLOO, rank=0)
    attempt = attempts.read_attempt(workspace.root / ITEM)
    assert attempt is not None
    last = Ledger(workspace).last(ITEM)
    assert last
    (workspace.submission(last.id) / "7_1_log.out").write_text("starting\n" + OOM)
    attempts.end_attempt(
        workspace.root / ITEM,
        attempt,
        "failed",
        cause=Cause.PEER_LOST,
        evidence="Connection closed by peer",
    )
    told = explain(workspace)

    assert (told["cause"], told["rank"]) == ("out of memory", 1)
    line = (workspace.root / told["file"]).read_text().splitlines()[told["line"] - 1]
    assert line == told["evidence"]
    assert "Tried to allocate" in line


def test_ranks_that_are_silent_are_named(workspace: Workspace) -> None:
    """Where a rank waited in vain, the one to look at is that which says nothing."""
    submitted(workspace)
    begins(workspace, NCCL + "\n", rank=0)
    begins(workspace, "step 3\n", rank=1)
    rest(workspace)

    told = explain(workspace, "7|FAILED|6:0")
    assert (told["cause"], told["rank"], told["silent"]) == ("nccl timeout", 0, [1])


def test_what_ended_without_a_word_shows_its_last_line(workspace: Workspace) -> None:
    """Killed, a job leaves no record; its log's last line is where to look."""
    submitted(workspace)
    begins(workspace, "loading\nstep 3\n")
    rest(workspace)
    told = explain(workspace, "7|FAILED|9:0")

    assert (told["cause"], told["evidence"]) == ("died", "Slurm says FAILED, exit 9:0")
    assert (workspace.root / told["file"]).read_text().splitlines()[
        told["line"] - 1
    ] == "step 3"


def rest(workspace: Workspace) -> None:
    """Makes the last sign of life an hour old."""
    import os
    import time

    for path in (workspace.root / ITEM).glob("*.json"):
        os.utime(path, (time.time() - 3600,) * 2)


def test_a_failed_prepare_is_quoted(workspace: Workspace) -> None:
    """The record of the prepare job is the proof."""
    submitted(workspace)
    write_job_file(workspace.root / ITEM, after=["prepare/p"])
    attempt = attempts.begin_attempt(workspace.root / "prepare/p", "s")
    attempts.end_attempt(
        workspace.root / "prepare/p",
        attempt,
        "failed",
        cause=Cause.BAD_DATA,
        evidence="t.json: row 3: bad",
    )
    told = explain(workspace, "7|CANCELLED by 0|0:0")

    assert (told["cause"], told["file"]) == ("prepare failed", "prepare/p/exit.json")
    assert "row 3" in told["evidence"]


def test_a_run_that_a_proof_refused_tells_both_numbers(workspace: Workspace) -> None:
    """Whether its own start saw that, or the job that was to prove its model."""
    refusal = AttentionProof(
        model_type="m", batching="refused", packed=7.5, padded=3.5, largest_logit=9.0
    ).find_refusal(64)
    attempt = started(workspace, submitted(workspace))
    attempts.end_attempt(
        workspace.root / ITEM,
        attempt,
        "failed",
        cause=Cause.PREPARE_FAILED,
        evidence=f"model-proofs/a of /models/m: {refusal}",
    )
    told = explain(workspace)

    assert told["cause"] == "prepare failed"
    assert "packed: logits are 7.5 of 9 off" in told["evidence"]
    assert "padded: logits are 3.5 of 9 off" in told["evidence"]


def row(
    run: str, cause: Cause, evidence: str, signature: str | None = None
) -> dict[str, Any]:
    """A failed run."""
    return {
        "run": run,
        "cause": cause,
        "evidence": evidence,
        "signature": signature,
        "file": None,
        "line": None,
    } | {"rank": None, "silent": None, "next": None}


def test_failures_are_grouped_by_cause() -> None:
    """Bugs by their hash, messages by what does not vary in them, the rest by the cause
    alone; the largest first."""
    rows = [row(f"b{n}", Cause.TRACEBACK, f"KeyError: {n}", "aa") for n in range(2)]
    rows += [row("c", Cause.TRACEBACK, "KeyError: 1", "bb")]
    rows += [
        row(f"o{n}", Cause.OUT_OF_MEMORY, f"Tried to allocate {n} GiB")
        for n in range(3)
    ]
    rows += [
        row(f"d{n}", Cause.BAD_DATA, f"/data/{n}/t.json: row {n}: no output")
        for n in range(4)
    ]

    found = why.by_cause(rows)
    assert [(group["count"], group["cause"], group["runs"][0]) for group in found] == [
        (4, "bad data", "d0"),
        (3, "out of memory", "o0"),
        (2, "traceback", "b0"),
        (1, "traceback", "c"),
    ]


def test_every_cause_has_a_next_step() -> None:
    """Whatever ended a run, the user is told what to do."""
    assert set(NEXT) == set(Cause)


def test_a_word_of_the_log_is_found_in_a_file(tmp_path: Path) -> None:
    """Lines are counted from one."""
    (tmp_path / "x").write_text("a\nb\n")

    assert why._line_of(tmp_path / "x", "b") == 2


@pytest.mark.parametrize(
    ("cause", "state", "refusal", "expected"),
    [
        pytest.param(
            Cause.DIED,
            JobState(state="failed"),
            None,
            "zsg retry g starts it again",
            id="failed, nothing saved",
        ),
        pytest.param(
            Cause.NODE_FAILURE,
            JobState(state="failed", saved=8),
            None,
            "zsg retry g resumes from step 8",
            id="saved",
        ),
        pytest.param(
            Cause.DIED,
            JobState(state="unknown"),
            None,
            "zsg retry g --only state=unknown starts it again",
            id="nobody knows",
        ),
        pytest.param(
            Cause.CANCELLED,
            JobState(state="cancelled", saved=4),
            None,
            "zsg retry g --only state=cancelled resumes from step 4",
            id="cancelled",
        ),
        pytest.param(
            Cause.TIME_LIMIT,
            JobState(state="waiting", stopped=True, saved=4),
            None,
            "zsg submit GRID.YAML resumes from step 4",
            id="stopped",
        ),
        pytest.param(
            Cause.DIED,
            JobState(state="failed", in_queue=True),
            None,
            "zsg cancel r, since Slurm still holds its job",
            id="still in the queue",
        ),
        pytest.param(
            Cause.OUT_OF_MEMORY,
            JobState(state="failed"),
            "it would fail again: out of memory: 2 GiB",
            "zsg retry g --force; without --force it is left, since it would fail again",
            id="what retry leaves",
        ),
        pytest.param(
            Cause.DIVERGED,
            JobState(state="failed", cause=Cause.DIVERGED),
            "it would fail again: diverged: step 2",
            "zsg submit with the change; zsg retry g leaves this run",
            id="what would diverge again",
        ),
    ],
)
def test_the_next_step_is_the_command_that_works(
    cause: Cause, state: JobState, refusal: str | None, expected: str
) -> None:
    """By the run's own state: which command takes it up, and from where; a saved state
    only where there is one."""
    outlook = Outlook(refusal=refusal)
    told = why.make_why_row("r", "g", state, why.ProvenCause(cause), outlook)["next"]

    assert told.rpartition("then: ")[2] == expected


HANG = "no step for 40 min while training"


@pytest.mark.parametrize(
    ("state", "flag", "is_ended"),
    [
        ("running", HANG, True),
        ("running", f"{HANG}; {JOURNAL_UNREADABLE}: 2-train-0.jsonl: line 9", True),
        ("done", "its Slurm job 7 still holds 8 GPUs", True),
        ("running", f"{JOURNAL_UNREADABLE}: 1-evaluate-3.jsonl: line 4", False),
        ("queued", f"{RECORD_UNREADABLE}: heartbeat.json: cut off", False),
    ],
)
def test_only_a_job_that_hangs_or_outlives_its_run_is_to_be_cancelled(
    state: str, flag: str, is_ended: bool
) -> None:
    """A job at work of which a file cannot be read is no reason to end it."""
    seen = JobState(state=State(state), attempt=2, in_queue=True, slurm="7", flag=flag)
    row = why.make_why_row("r", "g", seen, None)

    expected = "zsg cancel r ends the Slurm job" if is_ended else None
    assert (row["next"], row["reason"]) == (expected, flag)


def test_advice_to_submit_names_the_file_of_the_grid(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the options that the grid was submitted with, quoted as a shell needs it, and
    with the workspace, unless a submit takes that without being told."""
    grid = workspace.root / "g.yaml"
    grid.write_text("name: g\n")
    record = GridRecord(
        name="g",
        file="/data/my grid.yaml",
        opened_with="a800",
        overrides=["train.lr=1e-5"],
        runs=[ListedRun(run="r", axes={})],
    )
    recorded_grids.write_grid(workspace, grid, record)
    file = recorded_grids.name_file(workspace, "g")
    words = "'/data/my grid.yaml' --profile a800 --set train.lr=1e-5"
    monkeypatch.setenv("ZSG_WORKSPACE", str(workspace.root))
    without_workspace = recorded_grids.name_file(workspace, "g")
    damage = JournalDamage(file="j", line=3, reason="zeros", is_own=True)
    choice = RetryChoice(file=file)
    choice.note_damaged("r", JobState(state=State.DONE, damage=damage))

    assert without_workspace == words
    assert file == f"{words} --workspace {workspace.root}"
    assert recorded_grids.name_file(workspace, "never") == "GRID.YAML"
    assert f"zsg submit {file} --retrain" in choice.describe_left("g")[0]


def test_advice_in_a_groups_workspace_names_no_file(workspace: Workspace) -> None:
    """Any member can write there which file and profile a grid was opened with, and a
    profile runs code: no line to paste is made of it."""
    grid = workspace.root / "g.yaml"
    grid.write_text("name: g\n")
    record = GridRecord(
        name="g", file="/home/m/g.yaml", opened_with="/home/m/p.yaml", runs=[]
    )
    recorded_grids.write_grid(workspace, grid, record)
    assert "/home/m/p.yaml" in recorded_grids.name_file(workspace, "g")
    ownership.open_to_group(workspace.root)

    assert recorded_grids.name_file(workspace, "g") == "GRID.YAML"


@pytest.mark.parametrize(
    ("profile", "variable", "is_named"),
    [
        ("a800", None, False),
        ("/home/me/mine.yaml", None, True),
        ("/home/me/mine.yaml", "zsg-work", False),
        ("a800", "elsewhere", True),
    ],
)
def test_advice_names_the_workspace_where_a_submit_would_take_another(
    profile: str,
    variable: str | None,
    is_named: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The line would submit the whole grid anew there. A profile may name another."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ZSG_WORKSPACE", raising=False)
    if variable:
        monkeypatch.setenv("ZSG_WORKSPACE", variable)
    workspace = Workspace(tmp_path / "zsg-work")
    grid = tmp_path / "g.yaml"
    grid.write_text("name: g\n")
    workspace.root.mkdir()
    record = GridRecord(name="g", file=str(grid), opened_with=profile, runs=[])
    recorded_grids.write_grid(workspace, grid, record)

    words = recorded_grids.name_file(workspace, "g")
    assert (f"--workspace {workspace.root}" in words) == is_named


def test_what_why_says_is_what_retry_does(workspace: Workspace) -> None:
    """Of a job that died where no accounting says so, both name the same command, and
    it takes the run."""
    submission = submitted(workspace)
    begins(workspace, KILLED)
    rest(workspace)
    grid = workspace.root / "g.yaml"
    grid.write_text("name: g\n")
    record = GridRecord(name="g", runs=[ListedRun(run="r", axes={})])
    recorded_grids.write_grid(workspace, grid, record)
    told = explain(workspace)
    assert submission.id
    assert (told["state"], told["cause"]) == ("unknown", "died")
    assert told["next"].endswith("zsg retry g --only state=unknown starts it again")


def test_the_words_of_a_setup_are_no_reason_of_a_later_end() -> None:
    """What a job's script printed before its attempt proves nothing of how that ended;
    a line that failed does."""
    mark = "=== zsg attempt 1, rank 0 of 1, job 7, node n1, 2026-11-28T22:00:00Z ===\n"
    found = why.in_log(f"cp: No space left on device\n{mark}{KILLED}".encode())
    assert found is not None
    assert found.cause == Cause.DIED

    failed = why.in_log(
        b"module: command not found\n=== zsg setup line 1 of 2 ended with 127 ===\n"
    )
    assert failed is not None
    assert failed.cause == Cause.SETUP


def test_the_failures_of_a_grid_are_found_by_one_look(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many failed runs the ledger is read once, and the folder of their logs listed
    once; each has the line of its own log."""
    items = [f"runs/{number:012x}" for number in range(20)]
    ledger = Ledger(workspace)
    submission = ledger.intend(scheduler="slurm", kind="train", grid="g", items=items)
    ledger.submitted(submission, [f"7_{number}" for number in range(20)])
    folder = workspace.submission(submission.id)
    folder.mkdir(parents=True)
    for number in range(20):
        (folder / f"7_{number}_0_log.out").write_text(f"fine\n{OOM}number {number}\n")
    listed: list[Path] = []
    ledgers: list[Workspace] = []

    def list_paths(folder: Path, pattern: str) -> list[Path]:
        listed.append(folder)
        return folder_files.list_paths(folder, pattern)

    def read_ledger(workspace: Workspace) -> Ledger:
        ledgers.append(workspace)
        return Ledger(workspace)

    monkeypatch.setattr(logs, "list_paths", list_paths)
    monkeypatch.setattr(logs, "Ledger", read_ledger)
    look = why.Look(workspace)
    state = JobState(state=State.FAILED, cause=Cause.DIED)
    causes = [why.of_job(workspace, item, state, look) for item in items]

    assert (len(listed), len(ledgers)) == (1, 1)
    assert [cause.file if cause else None for cause in causes] == [
        f"submissions/{submission.id}/7_{number}_0_log.out" for number in range(20)
    ]
    assert {cause.line if cause else None for cause in causes} == {5}


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (State.CANCELLED, "somebody wanted it to end; then: zsg doctor --on-node"),
        (State.FAILED, "give it more minutes: zsg doctor --on-node --time"),
    ],
)
def test_a_check_of_nodes_is_given_advice_of_its_own(state: State, words: str) -> None:
    """No grid has it, so it is neither submitted nor retried, and it trains nothing."""
    cause = Cause.CANCELLED if state == State.CANCELLED else Cause.TIME_LIMIT
    item = "checks/0a1b2c3d4e5f"

    row = why.make_why_row(item, None, JobState(state=state), why.ProvenCause(cause))
    waits = JobState(state=State.QUEUED, reason=HELD_BY_USER, in_queue=True)
    row_held = why.make_why_row(item, None, waits, None)

    assert row["next"].startswith(words)
    assert "retry" not in row["next"]
    assert "scontrol release" in row_held["next"]
