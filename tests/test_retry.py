"""Is tried again what may succeed, as often as makes sense, and off the nodes that failed?"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from jobs.contract import attempt as attempts
from jobs.contract.attempt import Attempt, now_ms
from jobs.contract.causes import Cause
from jobs.contract.folder import Workspace
from jobs.contract.grid_record import GridRecord, ListedRun
from jobs.contract.ledger_rows import Retried
from launcher.clusters import slurm
from launcher.grids.selection import EVERYTHING, Selection
from launcher.lifecycle import failed_nodes, retry
from launcher.lifecycle.retry import MOST, Failure, refuse_retry
from launcher.workspace import recorded_grids
from launcher.workspace.job_state import JobState
from launcher.workspace.ledger import Ledger
from tests.lib.command_line import Zsg, wait_until
from tests.lib.light_grid import write_local_profile
from tests.lib.small_runs import small_grid, wait_for_step
from zsg_core.errors import UserError

DAY_MS = 24 * 3600 * 1000


def failure(
    cause: str | None, evidence: str = "why", signature: str | None = None
) -> Failure:
    """A run that failed."""
    return Failure("failed", cause, evidence, signature)


@pytest.mark.parametrize(
    ("now", "earlier", "refusal"),
    [
        pytest.param(
            failure("node failure"),
            [Retried(cause="node failure")] * 4,
            None,
            id="a node, again",
        ),
        pytest.param(
            failure("node failure"),
            [Retried(cause="node failure")] * 5,
            "5 times already",
            id="nodes, for ever",
        ),
        pytest.param(
            failure("nccl timeout"),
            [Retried(cause="node failure")] * 9,
            None,
            id="each cause for itself",
        ),
        pytest.param(
            failure("out of memory"),
            [],
            "it would fail again: out of memory: why",
            id="memory",
        ),
        pytest.param(failure("bad data"), [], "it would fail again", id="data"),
        pytest.param(failure("spared"), [], "nothing went wrong: spared", id="spared"),
        pytest.param(
            failure("traceback", signature="ab"), [], None, id="an error, once"
        ),
        pytest.param(
            failure("traceback", signature="ab"),
            [Retried(cause="traceback", signature="ab")],
            "once already",
            id="the same error",
        ),
        pytest.param(
            failure("traceback", signature="ab"),
            [Retried(cause="traceback", signature="cd")],
            None,
            id="another error",
        ),
        pytest.param(
            failure("prepare failed", "bad data: row 3"),
            [],
            "it would fail again",
            id="data of prepare",
        ),
        pytest.param(
            failure("prepare failed", "node failure: n1"),
            [],
            None,
            id="node of prepare",
        ),
        pytest.param(
            failure("cancelled"),
            [Retried(cause="cancelled")] * 99,
            None,
            id="cancelled by the user",
        ),
        pytest.param(failure(None), [Retried(cause=None)] * 2, None, id="nobody knows"),
        pytest.param(
            failure(None),
            [Retried(cause=None)] * 3,
            "3 times already",
            id="nobody knows, again and again",
        ),
    ],
)
def test_what_is_tried_again(now, earlier, refusal):
    """As often as its cause allows, counted over the run's retries; then it is said
    that it would fail again."""
    why = refuse_retry(now, earlier)

    assert why is None if refusal is None else why and refusal in why


def test_every_cause_has_a_rule():
    """No cause falls through: those of a job before are judged by its own."""
    assert {*MOST, Cause.PREPARE_FAILED, Cause.STAGE_FAILED} == set(Cause)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("n1", ["n1"]),
        ("n[1-2],m3", ["n1", "n2", "m3"]),
        ("gpu[09-11,20]", ["gpu09", "gpu10", "gpu11", "gpu20"]),
        ("None assigned", []),
        ("", []),
    ],
)
def test_nodes_are_named_one_by_one(names, expected):
    """The lists of accounting as the nodes they stand for."""
    assert slurm.parse_hosts(names) == expected


def test_only_what_ended_lately_counts():
    """Nodes of jobs that ended before the time asked for, or have not ended, are not bad ones."""
    old, new = ("2026-01-01T00:00:00", "2026-01-03T00:00:00")
    text = f"7_0|{old}|n1|0|a\n7_1|{new}|n[2-3]|0|a\n8|Unknown|n4|0|a\n"

    assert slurm.parse_nodes(text, time.mktime((2026, 1, 2, 0, 0, 0, 0, 0, -1))) == {
        ("7_1", "0", "a"): ["n2", "n3"]
    }


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Grid g with runs a1 (failed, a node), b2 (failed, memory), c3 (cancelled) and d4
    (done), of one submission."""
    made = Workspace(tmp_path / "work")
    (tmp_path / "g.yaml").write_text("name: g\n")
    rows = [
        ListedRun(run=run, axes={"seed": seed})
        for seed, run in enumerate(("a1", "b2", "c3", "d4"))
    ]
    grid = tmp_path / "g.yaml"
    record = GridRecord(name="g", file=str(grid), opened_with="local", runs=rows)
    recorded_grids.write_grid(made, grid, record)
    ledger = Ledger(made)
    submission = ledger.intend(
        scheduler="local",
        kind="train",
        grid="g",
        items=[f"runs/{row.run}" for row in rows],
    )
    ledger.submitted(submission, ["local"] * 4)
    ends = [
        ("failed", "node failure"),
        ("failed", "out of memory"),
        ("cancelled", "signal"),
        ("done", None),
    ]
    for row, (outcome, cause) in zip(rows, ends, strict=True):
        folder = made.run(row.run)
        attempts.end_attempt(
            folder,
            attempts.begin_attempt(folder, submission.id),
            outcome,
            cause=cause,
            evidence="line",
        )
    return made


@pytest.mark.parametrize(
    ("only", "causes", "force", "runs", "refused"),
    [
        (None, (), False, ["a1"], ["b2"]),
        (None, (), True, ["a1", "b2"], []),
        (None, ("out of memory",), False, [], ["b2"]),
        (None, ("signal",), False, ["c3"], []),
        (["state=cancelled"], (), False, ["c3"], []),
        (["seed=0"], (), False, ["a1"], []),
        (["state=done"], (), False, [], []),
    ],
    ids=[
        "what failed",
        "forced",
        "by a cause",
        "by another",
        "what was cancelled",
        "by a setting",
        "never done ones",
    ],
)
def test_what_is_chosen(workspace, only, causes, force, runs, refused):
    """Failed runs, others where they are asked for, as far as the rules allow."""
    made = retry.choose_retries(
        workspace, "g", Selection.parse(only, None), causes, force
    )

    assert (made.runs, list(made.refused)) == (runs, refused)


def test_an_unknown_cause_is_an_error():
    """The word is one of those that status shows; the nearest is named."""
    with pytest.raises(UserError, match="node failure"):
        retry.known_causes(["node failur"])


def test_a_changed_file_is_an_error():
    """A run that is to be tried again must still be in the file."""
    with pytest.raises(UserError, match="no longer lists b2"):
        retry.refuse_changed("g.yaml", ["a1", "b2"], ["a1"])


def test_failed_nodes_are_kept_off_for_a_day(workspace, monkeypatch):
    """The nodes of a retry's failure and of those of the last day are left out; older
    ones serve again."""
    before = Ledger(workspace).intend(
        scheduler="slurm", kind="train", grid="g", items=["runs/a1"]
    )
    Ledger(workspace).submitted(before, ["7_0"])
    monkeypatch.setattr(
        slurm,
        "find_nodes",
        lambda jobs, since: {job: ["n1", "n2"] for job in jobs if job.id == "7_0"},
    )
    state = JobState(state="failed", cause=Cause.NODE_FAILURE, slurm="7_0")
    found = failed_nodes.find_failed_nodes(
        workspace, Ledger(workspace), {"runs/a1": state}
    )
    rows = retry.make_retry_rows(workspace, {"runs/a1": state}, found)
    assert rows == {"runs/a1": Retried(cause="node failure", nodes=["n1", "n2"])}
    assert list(failed_nodes.to_avoid(Ledger(workspace), rows)) == ["n1", "n2"]

    ledger = Ledger(workspace)
    ledger.intend(
        scheduler="slurm",
        kind="train",
        grid="g",
        items=["runs/a1"],
        retries=rows,
        exclude=["n1", "n2"],
    )
    assert list(failed_nodes.to_avoid(Ledger(workspace), {})) == ["n1", "n2"]
    assert Ledger(workspace).retries("runs/a1") == [rows["runs/a1"]]
    monkeypatch.setattr(failed_nodes, "KEPT_OFF_S", -1.0)
    assert failed_nodes.to_avoid(Ledger(workspace), {}) == {}


def test_without_accounting_the_attempts_own_node_is_left_out(workspace, monkeypatch):
    """Where sacct knows nothing, the host of rank 0 stands for the job; of an old
    attempt nothing does."""
    monkeypatch.setattr(slurm, "find_nodes", lambda jobs, since: {})
    state = {"runs/a1": JobState(state="failed", cause=Cause.NODE_FAILURE, slurm="7_0")}
    newest = Attempt(1, "s", None, 0, "n", "n9", now_ms())
    attempts.write_attempt(workspace.run("a1"), newest)
    assert failed_nodes.find_failed_nodes(workspace, Ledger(workspace), state) == {
        "runs/a1": ["n9"]
    }
    attempts.write_attempt(
        workspace.run("a1"),
        msgspec.structs.replace(newest, started=now_ms() - 2 * DAY_MS),
    )
    assert failed_nodes.find_failed_nodes(workspace, Ledger(workspace), state) == {
        "runs/a1": []
    }


def test_a_killed_run_is_tried_again_and_what_is_done_is_not(
    prepared: Zsg, tasks: Path
) -> None:
    """By the recorded file, profile and settings, from any folder; only the failed run;
    twice is once."""
    zsg = prepared
    grid = small_grid(zsg, tasks, "[cluster, random]", steps=48)
    place = write_local_profile(zsg, parallel=1)
    options = ("--profile", place, "--set", "train.lr=1e-3")
    submit = zsg.start(
        "submit", grid, *options, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.kill(wait_for_step(zsg.work, 3), signal.SIGKILL)
    assert submit.wait(120) == 3
    states = {row["run"]: (row["state"], row["cause"]) for row in zsg.status()}
    assert sorted(states.values()) == [("done", None), ("failed", "died")]

    zsg.env["ZSG_WORKSPACE"] = str(zsg.work)
    zsg.folder = zsg.folder / "elsewhere"
    zsg.folder.mkdir()
    zsg("retry", "small", "--yes")
    assert {row["run"]: row["state"] for row in zsg.status()} == dict.fromkeys(
        states, "done"
    )
    assert zsg("retry", "small", "--yes") == "small: nothing to retry\n"
    grid.unlink()
    zsg("retry", "small", "--only", "state=done", "--yes")


def test_the_file_must_be_there(workspace, tmp_path):
    """A grid whose file is gone is not guessed at; its copy is named."""
    from launcher.submission import workflow

    (tmp_path / "g.yaml").unlink()
    assert retry.choose_retries(workspace, "g", EVERYTHING, (), False).runs == ["a1"]
    with pytest.raises(
        UserError,
        match=r"which is gone; put it back, or submit its copy, .*grids/g/grid\.yaml",
    ):
        workflow.reopen_grid(workspace, "g")


def test_what_is_left_is_told_with_what_takes_it(workspace):
    """A cancelled run is left unless it is asked for, by its state or by its id; done
    ones are not spoken of."""
    left = retry.choose_retries(workspace, "g", EVERYTHING, (), False)
    assert left.describe_left("g") == [
        "left: 1 cancelled (c3); zsg retry g --only state=cancelled"
    ]

    assert retry.choose_retries(
        workspace, "g", Selection.parse(["c3"], None), (), False
    ).runs == ["c3"]


def test_a_killed_run_of_a_living_submit_is_failed_and_a_retry_may_be_detached(
    prepared: Zsg, tasks: Path
) -> None:
    """Killed with -9 while another run of its submit trains, a run does not wait;
    retried, the terminal is free."""
    zsg = prepared
    zsg.env["PATH"] = f"{Path(sys.executable).parent}:{zsg.env['PATH']}"
    place = write_local_profile(zsg, step_s=0.2, parallel=1)
    grid = small_grid(zsg, tasks, "[cluster, random]", steps=24)
    submit = zsg.start(
        "submit",
        grid,
        "--profile",
        place,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.kill(wait_for_step(zsg.work, 2), signal.SIGKILL)
    wait_until(lambda: "failed" in {row["state"] for row in zsg.status()}, 30)
    assert submit.poll() is None
    assert submit.wait(120) == 3

    write_local_profile(zsg, step_s=0, parallel=1)
    said = zsg("retry", "small", "--detach")
    assert "running on as process" in said
    wait_until(lambda: {row["state"] for row in zsg.status()} == {"done"}, 60)
    log = zsg.work / "grids/small/submit.log"
    wait_until(lambda: "zsg ui small" in log.read_text(), 60)
    assert "launcher.cli" not in log.read_text()
