"""Does a cancel stop what was meant, for good, and never what somebody else still wants?"""

import json
import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest

from jobs.contract import attempt as attempts
from jobs.contract import cancellation
from jobs.contract.folder import Workspace
from jobs.contract.grid_record import GridRecord, ListedRun
from launcher.clusters.slurm import cancel_jobs as scancel
from launcher.clusters.slurm import compact_ids
from launcher.commands import lifecycle
from launcher.grids.selection import EVERYTHING, Selection
from launcher.lifecycle import cancel
from launcher.lifecycle.cancel import Decision, Scene, Wish, choose_cancellations
from launcher.status.status import collect_states
from launcher.views import asking
from launcher.workspace import recorded_grids
from launcher.workspace.job_state import JobState
from launcher.workspace.ledger import Ledger
from launcher.workspace.scheduler_job import Job
from launcher.workspace.submit_lock import submit_lock
from tests.lib.command_line import Zsg, wait_until
from tests.lib.job_records import write_job_file
from tests.lib.slurm_answers import owned
from tests.lib.small_runs import held, small_grid
from zsg_core.errors import ClusterError, UserError

RUNS, DONE, WAITS = (
    JobState(state="running"),
    JobState(state="done"),
    JobState(state="waiting"),
)
STOPPED = JobState(state="waiting", stopped=True)
B = Wish({"b"})
OF_B = {"runs/1": {"b"}, "runs/2": {"b"}}


def served(listed: dict[str, set[str]], first: JobState, second: JobState) -> Scene:
    """Two runs in these states, and an evaluate job that serves both."""
    states = {"runs/1": first, "runs/2": second, "evaluate/1": RUNS}
    return Scene(listed, states, serves={"evaluate/1": ["runs/1", "runs/2"]})


@pytest.mark.parametrize(
    ("chosen", "wish", "scene", "stop", "left"),
    [
        pytest.param(
            ["runs/1"], B, Scene(OF_B, {"runs/1": RUNS}), ["runs/1"], [], id="one's own"
        ),
        pytest.param(
            ["runs/1"], B, Scene(OF_B, {"runs/1": DONE}), [], [], id="done already"
        ),
        pytest.param(
            ["runs/1"],
            B,
            Scene(OF_B, {"runs/1": STOPPED}),
            ["runs/1"],
            [],
            id="waiting for a submit",
        ),
        pytest.param(
            ["runs/1"],
            B,
            Scene({"runs/1": {"a", "b"}}, {"runs/1": RUNS}),
            [],
            ["runs/1"],
            id="A wants it",
        ),
        pytest.param(
            ["runs/1"],
            Wish({"b"}, force=True),
            Scene({"runs/1": {"a", "b"}}, {"runs/1": RUNS}),
            ["runs/1"],
            [],
            id="A wants it, forced",
        ),
        pytest.param(
            ["runs/1"],
            Wish({"a", "b"}),
            Scene({"runs/1": {"a", "b"}}, {"runs/1": RUNS}),
            ["runs/1"],
            [],
            id="both",
        ),
        pytest.param(
            ["runs/1"],
            Wish((), {"1"}),
            Scene({"runs/1": {"a"}}, {"runs/1": RUNS}),
            ["runs/1"],
            [],
            id="by its id",
        ),
        pytest.param(
            ["runs/1"],
            Wish((), {"1"}),
            Scene({}, {"runs/1": RUNS}),
            ["runs/1"],
            [],
            id="nobody lists it",
        ),
        pytest.param(
            ["runs/1"],
            Wish((), {"1"}),
            Scene({"runs/1": {"a", "b"}}, {"runs/1": RUNS}),
            [],
            ["runs/1"],
            id="by id, two grids want it",
        ),
        pytest.param(
            ["runs/1"],
            B,
            Scene(OF_B, {"runs/1": RUNS, "runs/2": WAITS}, {"runs/2": ["runs/1"]}),
            [],
            ["runs/1"],
            id="another starts from it",
        ),
        pytest.param(
            ["runs/1", "runs/2"],
            B,
            served(OF_B, DONE, RUNS),
            ["runs/2", "evaluate/1"],
            [],
            id="with its evaluator",
        ),
        pytest.param(
            ["runs/1"],
            B,
            served(OF_B, RUNS, RUNS),
            ["runs/1"],
            [],
            id="its evaluator serves another",
        ),
        pytest.param(
            ["runs/1", "runs/2"],
            B,
            served({**OF_B, "runs/1": {"a", "b"}}, DONE, RUNS),
            ["runs/2"],
            [],
            id="A waits for the evaluation",
        ),
        pytest.param(
            ["runs/1", "runs/2"],
            B,
            Scene(OF_B, {"runs/1": RUNS, "runs/2": WAITS}, {"runs/2": ["runs/1"]}),
            ["runs/1", "runs/2"],
            [],
            id="with what starts from it",
        ),
        pytest.param(
            ["runs/1"],
            B,
            Scene(
                OF_B,
                {"runs/1": WAITS, "prepare/p": RUNS},
                {"runs/1": ["prepare/p"]},
                ["prepare/p"],
            ),
            ["runs/1", "prepare/p"],
            [],
            id="a prepare job for it alone",
        ),
        pytest.param(
            ["runs/1"],
            B,
            Scene(
                OF_B,
                {"runs/1": WAITS, "runs/2": WAITS, "prepare/p": RUNS},
                {"runs/1": ["prepare/p"], "runs/2": ["prepare/p"]},
                ["prepare/p"],
            ),
            ["runs/1"],
            [],
            id="a prepare job for another too",
        ),
        pytest.param(
            ["runs/1"],
            B,
            Scene(
                OF_B | {"runs/0": {"b"}},
                {"runs/1": WAITS, "runs/0": WAITS, "prepare/p": RUNS},
                {"runs/1": ["runs/0"], "runs/0": ["prepare/p"]},
                ["prepare/p", "runs/0"],
            ),
            ["runs/1", "runs/0", "prepare/p"],
            [],
            id="a stage before it and its prepare job",
        ),
    ],
)
def test_what_is_stopped(chosen, wish, scene, stop, left):
    """What is active and only of the cancelled grids, with the jobs that only it waits
    for; the rest is left."""
    made = choose_cancellations(chosen, wish, scene)

    assert (made.stop, list(made.left)) == (stop, left)


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        (["7"], ["7"]),
        (["7_0", "7_1", "7_2", "7_5"], ["7_[0-2,5]"]),
        (["8_3", "7", "8_1"], ["8_[1,3]", "7"]),
        ([f"9_{n}" for n in range(1000)], ["9_[0-999]"]),
    ],
)
def test_tasks_of_an_array_are_one_word(ids, words):
    """A thousand tasks are cancelled in one call."""
    assert compact_ids(ids) == words


@pytest.mark.parametrize(
    ("stderr", "fails"),
    [
        ("", False),
        ("scancel: error: Invalid job id specified for 7\n", False),
        ("scancel: error: Socket timed out", True),
    ],
)
def test_what_has_ended_needs_no_cancel(stderr, fails):
    """A job that Slurm has forgotten is no error; Slurm that does not answer is."""

    def answer(argv: list[str], **how: object) -> subprocess.CompletedProcess[str]:
        if argv[0] == "squeue":
            return subprocess.CompletedProcess(
                argv, 0, owned("7|PENDING|Priority", "zsg-b"), ""
            )
        return subprocess.CompletedProcess(argv, int(bool(stderr)), "", stderr)

    if fails:
        with pytest.raises(
            ClusterError, match="Socket timed out; run zsg cancel again"
        ):
            scancel([Job("7", "zsg-b")], run=answer)
    else:
        assert scancel([Job("7", "zsg-b")], run=answer) == []


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A workspace in which grid b wants run a1 with seed 0 and b2 with seed 1,
    submitted to Slurm as 7_0 and 7_1."""
    made = Workspace(tmp_path / "work")
    grid = tmp_path / "b.yaml"
    grid.write_text("name: b\n")
    rows = [
        ListedRun(run=run, axes={"seed": seed}) for seed, run in enumerate(("a1", "b2"))
    ]
    recorded_grids.write_grid(made, grid, GridRecord(name="b", runs=rows))
    ledger = Ledger(made)
    submission = ledger.intend(
        scheduler="slurm", kind="train", grid="b", items=["runs/a1", "runs/b2"]
    )
    ledger.submitted(submission, ["7_0", "7_1"])
    ledger.released(submission)
    for run in ("a1", "b2"):
        write_job_file(made.run(run), submission=submission.id, after=[])
    return made


class Slurm:
    """squeue with both jobs in the queue until scancel was called; all calls are kept."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace, self.calls, self.seen, self.others = workspace, [], [], {}
        self.jobs = ["7_0", "7_1"]

    def __call__(
        self, argv: list[str], **options: object
    ) -> subprocess.CompletedProcess[str]:
        self.calls.append(argv)
        if argv[0] == "scancel":
            self.seen.append(
                sorted(
                    path.parent.name
                    for path in self.workspace.root.glob("runs/*/cancel.json")
                )
            )
        gone = any(call[0] == "scancel" for call in self.calls)
        queue = (
            ""
            if gone or argv[0] != "squeue"
            else "".join(f"{job}|PENDING|Priority\n" for job in self.jobs)
        )
        names = {
            job.id: job.name
            for one in Ledger(self.workspace).submissions.values()
            for job in one.jobs
        }
        return subprocess.CompletedProcess(
            argv, 0, owned(queue, names | self.others), ""
        )


@pytest.fixture
def queue(workspace, monkeypatch) -> Slurm:
    """A Slurm that answers in place of the real commands."""
    made = Slurm(workspace)
    monkeypatch.setattr(subprocess, "run", made)
    for function in (collect_states, scancel):
        monkeypatch.setattr(
            function, "__defaults__", (*function.__defaults__[:-1], made)
        )
    return made


def test_the_wish_is_on_disk_before_slurm_is_asked(workspace, queue):
    """Run folders and ledger know it when scancel is called; afterwards the runs are
    cancelled, not unknown."""
    decision = cancel.plan_cancellation(
        workspace, ["b"], Selection.parse(["seed=1"], None), force=False
    )
    cancel.carry_out(workspace, decision.stop, save=False)

    assert [call for call in queue.calls if call[0] == "scancel"] == [
        ["scancel", "--quiet", "7_[1]"]
    ]
    assert queue.seen == [["b2"]]
    states = collect_states(workspace, ["runs/a1", "runs/b2"], Ledger(workspace))
    assert (states["runs/b2"].state, states["runs/b2"].evidence) == (
        "cancelled",
        "by zsg cancel",
    )
    assert states["runs/a1"].state == "unknown"


def test_what_a_submit_sends_while_cancel_waits_for_it_is_cancelled(workspace, queue):
    """Also a grid that has no record yet when cancel is called; what is not selected
    stays."""
    grid = workspace.root.parent / "late.yaml"
    grid.write_text("name: late\n")
    is_held = threading.Event()
    queue.jobs += ["8_0", "8_1"]

    def submit() -> None:
        with submit_lock(workspace, "late"):
            is_held.set()
            time.sleep(0.5)
            rows = [
                ListedRun(run=run, axes={"k": k}) for run, k in (("c3", 3), ("d4", 4))
            ]
            record = GridRecord(name="late", runs=rows)
            recorded_grids.write_grid(workspace, grid, record)
            items = [f"runs/{row.run}" for row in rows]
            ledger = Ledger(workspace)
            late = ledger.intend(
                scheduler="slurm", kind="train", grid="late", items=items
            )
            ledger.submitted(late, ["8_0", "8_1"])
            ledger.released(late)
            for row in rows:
                write_job_file(workspace.run(row.run), submission=late.id, after=[])

    other = threading.Thread(target=submit)
    other.start()
    is_held.wait()
    decision, troubles = cancel.cancel_selected(
        workspace, ["late", "a1"], Selection.parse(None, ["k=3"]), False, save=False
    )
    other.join()

    assert (sorted(decision.stop), troubles) == (["runs/a1", "runs/d4"], [])
    [call] = [call for call in queue.calls if call[0] == "scancel"]
    assert sorted(call) == ["--quiet", "7_[0]", "8_[1]", "scancel"]


@pytest.mark.parametrize(
    ("stop", "ended", "is_beyond"),
    [
        (["runs/a", "runs/b"], ["runs/b"], False),
        (["runs/a"], [], False),
        (["runs/a"], ["runs/a"], False),
        (["runs/a", "runs/b"], [], True),
        (["runs/a", "runs/b", "runs/c"], ["runs/b", "runs/c"], True),
    ],
)
def test_what_stops_beyond_what_was_agreed_to(stop, ended, is_beyond):
    """Also a run whose job was to be cleared up after its end, and that is at work by now."""
    agreed = Decision(["runs/a", "runs/b"], ended=["runs/b"])

    assert Decision(stop, ended=ended).stops_beyond(agreed) == is_beyond


@pytest.mark.parametrize("agrees_again", [True, False])
def test_a_cancel_asks_again_where_there_is_more_to_stop(
    agrees_again, workspace, queue, monkeypatch
):
    """What was submitted while the question stood is not stopped unasked."""
    questions = list[str]()
    whole = cancel.plan_cancellation(workspace, ["b"], EVERYTHING, False)
    plans = [Decision(whole.stop[:1]), whole, whole]

    def make_consent(yes):
        assert not yes
        return lambda text: questions.append(text) or len(questions) < 2 + agrees_again

    monkeypatch.setattr(cancel, "plan_cancellation", lambda *_: plans.pop(0))
    monkeypatch.setattr(asking, "can_ask", lambda yes: not yes)
    monkeypatch.setattr(asking, "make_consent", make_consent)
    lifecycle.cancel(["b"], workspace.root, None, None)

    assert [text[:5] for text in questions] == ["1 run", f"{len(whole.stop)} run"]
    assert ("scancel" in {call[0] for call in queue.calls}) == agrees_again
    assert len(plans) == (not agrees_again)


def test_a_job_of_another_name_is_not_touched(workspace, queue):
    """The ledger's number is somebody else's now: scancel is not called, and whose it
    is is told."""
    queue.others = {"7_1": "thesis"}
    [told] = cancel.carry_out(workspace, ["runs/b2"], save=False)

    assert "scancel" not in {call[0] for call in queue.calls}
    assert told.startswith("job 7_1 is not zsg-b-train-") and told.endswith(
        "; it was not touched"
    )
    assert "but thesis of user" in told


def test_jobs_of_an_earlier_submission_are_stopped_too(workspace, queue):
    """A run that was tried again while Slurm had its first job all the same: both go."""
    ledger = Ledger(workspace)
    ledger.submitted(
        ledger.intend(scheduler="slurm", kind="train", grid="b", items=["runs/a1"]),
        ["9"],
    )
    found = collect_states(workspace, ["runs/a1"], ledger)["runs/a1"]
    cancel.carry_out(workspace, ["runs/a1"], save=False)

    assert found.replaced == ("7_0",)
    assert [call for call in queue.calls if call[0] == "scancel"] == [
        ["scancel", "--quiet", "7_[0]"]
    ]


def test_a_copied_workspace_stops_nothing_of_the_one_it_was_copied_from(
    workspace, queue, tmp_path
):
    """Its ledger lists the other's jobs, whose name and user fit: they are not asked
    for, and not touched."""
    shutil.copytree(workspace.root, tmp_path / "copy")
    copy = Workspace(tmp_path / "copy")
    state = collect_states(copy, ["runs/b2"], Ledger(copy))["runs/b2"]
    cancel.carry_out(copy, ["runs/b2"], save=False)

    assert queue.calls == []
    cause = f"it was submitted from {workspace.root}, of which this workspace is a copy"
    assert (state.state, state.cause) == ("unknown", cause)


def test_a_moved_workspace_keeps_its_jobs(workspace, queue, tmp_path):
    """Nobody else has them."""
    workspace.root.rename(tmp_path / "moved")
    moved = queue.workspace = Workspace(tmp_path / "moved")
    cancel.carry_out(moved, ["runs/b2"], save=False)

    assert [call for call in queue.calls if call[0] == "scancel"] == [
        ["scancel", "--quiet", "7_[1]"]
    ]


def test_to_save_runs_are_told_by_usr1(workspace, queue):
    """What waits is cancelled, what runs is told to save: it leaves by itself."""
    cancel.carry_out(
        workspace,
        cancel.plan_cancellation(workspace, ["b"], EVERYTHING, force=False).stop,
        save=True,
    )

    assert [call[2:] for call in queue.calls if call[0] == "scancel"] == [
        ["--state=PENDING", "7_[0-1]"],
        ["--signal=USR1", "--state=RUNNING", "7_[0-1]"],
    ]


def test_a_stopped_run_that_is_cancelled_does_not_wait_for_a_submit(workspace, queue):
    """Cancelled while it waits for the next submit, a run is submitted by --retry only."""
    [submission] = Ledger(workspace).submissions.values()
    attempts.end_attempt(
        workspace.run("a1"),
        attempts.begin_attempt(workspace.run("a1"), submission.id),
        "continue",
        cause="time limit",
        saved=5,
    )
    queue.calls.append(["scancel"])  # the queue is empty
    cancel.carry_out(
        workspace,
        cancel.plan_cancellation(workspace, ["a1"], EVERYTHING, force=False).stop,
        save=False,
    )

    found = collect_states(workspace, ["runs/a1"], Ledger(workspace))["runs/a1"]
    assert (found.state, found.stopped, found.saved) == ("cancelled", False, 5)


def test_what_is_submitted_later_is_not_meant(tmp_path):
    """The wish names its submission: a retry starts."""
    cancellation.request_cancellation(tmp_path, "s", save=False)
    assert cancellation.read_cancellation(tmp_path, "s")
    assert not cancellation.read_cancellation(tmp_path, "later")


def test_a_name_that_is_nothing_is_an_error(workspace):
    """Neither a grid nor the beginning of a run's id: nothing is stopped."""
    with pytest.raises(UserError, match="no run 'c'"):
        cancel.plan_cancellation(workspace, ["c"], EVERYTHING, force=False)


def test_a_local_run_is_stopped_and_the_next_is_never_started(
    prepared: Zsg, tasks: Path
) -> None:
    """On this machine the process is told to end, what has not begun is dropped, and
    --retry takes both up again."""
    zsg = prepared
    grid = small_grid(zsg, tasks, "[cluster, random]", steps=96)
    place = zsg.write("one.yaml", "{name: one, kind: local, max_parallel: 1}")
    submit = zsg.start(
        "submit",
        grid,
        "--profile",
        place,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with held(zsg.work):
        said = zsg("cancel", "small", "--yes", "--save")
    assert "told to save and stop: 2 runs" in said
    assert submit.wait(60) == 3

    rows = zsg.status()
    assert [(row["state"], row["cause"], row["evidence"]) for row in rows] == [
        ("cancelled", "cancelled", "by zsg cancel")
    ] * 2
    begun, dropped = sorted(rows, key=lambda row: row["attempt"] or 0, reverse=True)
    assert (begun["attempt"], begun["step"] > 0, dropped["attempt"]) == (1, True, None)
    assert "nothing to submit" in zsg("submit", grid, "--profile", place)
    assert f"resumes from step {begun['step']}" in zsg(
        "plan", grid, "--profile", place, "--retry"
    )
    assert (
        json.loads((zsg.work / "runs" / begun["run"] / "exit.json").read_text())[
            "saved"
        ]
        == begun["step"]
    )
    wait_until(lambda: zsg("cancel", "small", "--yes") == "nothing to stop\n", 10)


def test_a_line_that_names_what_is_stopped_is_short() -> None:
    """Of ten thousand runs a few are named, and how many there are; zsg -v tells all."""
    items = [f"runs/{number:012x}" for number in range(10_000)]
    jobs = ["prepare/p", "canary/c"]

    text = lifecycle._name_items([*items, *jobs])
    assert text.startswith("10000 runs (000000000000, 000000000001, ")
    assert text.endswith("000000000007 and 9,992 more) and prepare/p, canary/c")
    assert lifecycle._name_items(items[:2]) == "2 runs (000000000000, 000000000001)"


def test_a_check_of_nodes_is_not_cancelled_as_a_run(workspace: Workspace) -> None:
    """No grid has it; the message says by what it ends, though no grid was submitted."""
    ledger = Ledger(workspace)
    submission = ledger.intend(
        kind="check", grid="", items=["checks/0a1b2c3d4e5f"], scheduler="slurm"
    )
    ledger.submitted(submission, ["17"])

    with pytest.raises(UserError, match=r"check of nodes.*scancel 17"):
        cancel.plan_cancellation(workspace, submission.items, EVERYTHING, force=False)
