"""Is a check of the nodes sent as a train job is, waited for with a limit, and read?"""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from jobs.contract import node_check
from jobs.contract.folder import Workspace
from jobs.contract.node_check import (
    KIND,
    FindingState,
    NodeCheckReport,
    NodeCheckRequest,
    RankRecord,
)
from jobs.contract.states import State
from launcher.clusters import profile_files, profiles, slurm, submitit_backend
from launcher.clusters.profiles import Profile
from launcher.doctor import node_request
from launcher.lifecycle import cancel, garbage
from launcher.planning.site import Site
from launcher.submission import job_files, on_node, sbatch
from launcher.submission import node_check as sending
from launcher.submission.node_check import Check, NotStarted, Waiter
from launcher.submission.on_node import Checked
from launcher.workspace.job_state import JobState
from launcher.workspace.ledger import Ledger
from launcher.workspace.scheduler_job import Job
from tests.lib.command_line import Zsg
from tests.lib.node_checks import REQUEST
from zsg_core.errors import ClusterError, UserError


def load(name: str) -> Profile:
    return profiles.load_profile(name, Path())


def make_check(folder: Path, nodes: int = 2) -> Check:
    """A check of two nodes that is in the queue as job 17."""
    workspace = Workspace(folder / "work")
    workspace.create()
    profile = load("slurm-minimal")
    site, ledger = Site(workspace, profile), Ledger(workspace)
    size = sending.choose_size(site, nodes, 15)
    submission = ledger.intend(
        kind=KIND, grid="", items=["checks/0a1b2c3d4e5f"], scheduler="slurm"
    )
    ledger.submitted(submission, ["17"])
    return Check(site, submission.items[0], submission, size)


def make_report(mfu: float | None) -> NodeCheckReport:
    return NodeCheckReport(
        id="0a1b2c3d4e5f",
        state=FindingState.OK,
        zsg="0.1.0",
        profile="p",
        kind="slurm",
        created=1,
        nodes=["n1", "n2"],
        ranks=8,
        seen=8,
        mfu=mfu,
        request=REQUEST,
        findings=[],
    )


class Clock:
    """A time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def make_waiter(check: Check, states: list[JobState], start_s: float = 60) -> Waiter:
    """One to which Slurm tells these states, the last for ever."""
    clock = Clock()
    answers = iter(states)

    def look(_check: Check) -> JobState:
        return next(answers, states[-1])

    return Waiter(check, start_s, look, clock.sleep, clock)


def test_a_check_asks_for_what_a_train_job_asks_for() -> None:
    """GPUs of all ranks, by each way of asking for them, and the model that fits."""
    profile = load("a800-80g")
    for by in ("gpus-per-node", "gres", "gpus", "gpus-per-task"):
        slurm = profile.slurm.model_copy(update={"gpus_by": by})
        asked = profile.model_copy(update={"slurm": slurm})
        parameters = [
            submitit_backend.make_parameters(asked, asked.train, "n", None, kind)
            for kind in ("train", KIND)
        ]
        # nothing is saved: a signal before its time limit would only end it
        options = parameters[1]["additional_parameters"]
        assert options.pop("signal") == submitit_backend.UNHEEDED
        assert parameters[0] == parameters[1]

    request = node_request.make_request(profile, profile.train)

    assert request.gpus_per_node == 8
    assert request.gpu is not None and request.gpu.name == "A800-80G"
    assert request.trial is not None and request.trial.name == "7B"
    assert request.trial.need_bytes < 80e9
    small = profile.model_copy(
        update={"gpu": profile.gpu.model_copy(update={"memory_gb": 24})}  # pyright: ignore
    )
    trial = node_request.make_request(small, small.train).trial
    assert trial is not None and trial.name in ("3B", "1B")


def test_gpus_that_are_written_out_are_counted() -> None:
    """By slurm.gres, which takes the place of gpus_per_node."""
    profile = load("slurm-minimal")
    slurm = profile.slurm.model_copy(update={"gres": "gpu:a800:4,nvme:1"})

    assert node_request.count_gpus(profile.model_copy(update={"slurm": slurm})) == 4
    assert node_request.count_gpus(profile) == 0


def test_what_a_profile_cannot_run_is_refused_before_the_queue(tmp_path: Path) -> None:
    """Several nodes of this machine; not a time limit that is shorter than the signal of
    train jobs, which no check is sent."""
    workspace = Workspace(tmp_path)
    with pytest.raises(UserError, match="leave --nodes out"):
        sending.choose_size(Site(workspace, load("local")), 2, 15)
    profile = load("slurm-minimal")
    slurm = profile.slurm.model_copy(update={"signal_before_end_s": 900})
    site = Site(workspace, profile.model_copy(update={"slurm": slurm}))
    assert sending.choose_size(site, None, 15).time_min == 15


@pytest.mark.parametrize("minutes", [3, 4, 15, 60])
def test_the_last_check_ends_before_the_time_limit(minutes: int) -> None:
    """One that begins at the last moment, and lasts as long as any may."""
    profile = load("a100-80g")
    size = profile.train.model_copy(update={"time_min": minutes})

    request = node_request.make_request(profile, size)

    assert 60 <= request.budget_s <= 60 * minutes - node_check.LONGEST_CHECK_S - 30


def test_a_job_that_does_not_start_is_left_in_the_queue_with_slurms_reason(
    tmp_path: Path, logged: list[str]
) -> None:
    """Once the wait has lasted long enough; each change of its state is told once."""
    check = make_check(tmp_path)
    states = [
        JobState(state=State.QUEUED, reason="None", in_queue=True),
        JobState(state=State.QUEUED, reason="Priority", in_queue=True),
        JobState(state=State.QUEUED, reason="Resources", in_queue=True),
    ]

    with pytest.raises(NotStarted) as refused:
        make_waiter(check, states).wait()

    words = str(refused.value)
    assert "has not started" in words
    assert "job 17: queued (Resources)" in words
    assert "scancel 17" in words
    told = [line for line in logged if line.startswith("job 17")]
    assert told == [
        "job 17: queued",
        "job 17: queued (Priority)",
        "job 17: queued (Resources)",
    ]


def test_a_job_is_waited_for_until_all_its_ranks_have_ended(tmp_path: Path) -> None:
    """Rank 0 may tell the end before the others have written theirs."""
    check = make_check(tmp_path)
    running = JobState(state=State.RUNNING, node="n[1-2]", in_queue=True)
    looks = 0

    def look(_check: Check) -> JobState:
        nonlocal looks
        looks += 1
        for rank in range(min(looks - 1, 2)):
            record = RankRecord(attempt=1, rank=rank, node=f"n{rank}", ended=True)
            node_check.write_rank_record(check.folder, record)
        return running if looks == 1 else JobState(state=State.DONE)

    clock = Clock()
    state = Waiter(check, 60, look, clock.sleep, clock).wait()

    assert (state.state, looks) == (State.DONE, 3)


def test_what_nobody_knows_is_asked_for_a_while_and_then_told(tmp_path: Path) -> None:
    """Slurm may be away: a job that it may have is waited for, one that is gone is not."""
    check = make_check(tmp_path)
    away = JobState(state=State.UNKNOWN, cause="Slurm does not answer", in_queue=True)
    gone = JobState(state=State.UNKNOWN, cause="not known to squeue or sacct")

    assert make_waiter(check, [away, away, gone]).wait() == gone
    with pytest.raises(NotStarted, match="Slurm does not answer"):
        make_waiter(check, [away]).wait()


def is_locked(workspace: Workspace) -> bool:
    """Whether this process has the lock of submits: it says so in its file."""
    return workspace.submit_lock.read_bytes() != b""


QUEUED = JobState(state=State.QUEUED, reason="Priority", in_queue=True)


def write_job(check: Check) -> NodeCheckRequest:
    """Its job.json, as it is sent; returns the request in it."""
    profile = check.site.profile
    request = node_request.make_request(profile, check.size)
    request = sending.note_scheduling(request, profile, check.size)
    job_files.write_node_check(
        check.site.workspace,
        check.item,
        request,
        profile,
        check.submission.id,
        check.size,
    )
    return request


def find_unread(
    check: Check, request: NodeCheckRequest, state: JobState = QUEUED
) -> Check | None:
    ledger = Ledger(check.site.workspace)
    return sending.find_unread(
        check.site, check.size, request, ledger, lambda _check: state
    )


def test_a_check_that_was_sent_and_not_read_is_taken_up(tmp_path: Path) -> None:
    """In the queue or ended; not one that was cancelled, by zsg or by scancel, nor one
    that nobody knows."""
    check = make_check(tmp_path)
    request = node_request.make_request(check.site.profile, check.size)
    assert find_unread(check, request) is None  # it has no job.json
    request = write_job(check)

    for state in (State.RUNNING, State.DONE, State.FAILED):
        taken = find_unread(check, request, JobState(state=state))
        assert taken is not None
        assert (taken.item, taken.job_id) == (check.item, "17")
    away = JobState(state=State.UNKNOWN, in_queue=True)
    assert find_unread(check, request, away) is not None
    for state in (State.CANCELLED, State.UNKNOWN):
        assert find_unread(check, request, JobState(state=state)) is None
    Ledger(check.site.workspace).cancelled(check.submission, [check.item])
    assert find_unread(check, request) is None


def test_a_check_that_asks_for_something_else_is_not_taken_up(
    tmp_path: Path, logged: list[str]
) -> None:
    """Another size, time limit, partition or setup; where it is in the queue still, that
    is told."""
    check = make_check(tmp_path)
    write_job(check)
    profile = check.site.profile
    slurm = profile.slurm.model_copy(update={"partition": "other"})
    changed = [
        (profile, check.size.model_copy(update={"nodes": 3})),
        (profile, check.size.model_copy(update={"time_min": 60})),
        (profile.model_copy(update={"slurm": slurm}), check.size),
        (profile.model_copy(update={"setup": ["module load cuda"]}), check.size),
    ]
    for other_profile, size in changed:
        request = node_request.make_request(other_profile, size)
        request = sending.note_scheduling(request, other_profile, size)
        assert find_unread(check, request) is None
        assert "scancel 17 ends it" in logged[-1]
        logged.clear()
        assert find_unread(check, request, JobState(state=State.DONE)) is None
        assert logged == []


def test_an_interrupt_while_the_job_is_sent_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    """It may be in the queue already, held, before its number is known; a check of an
    earlier call is left alone, and the lock is held by whoever writes the ledger."""
    earlier = make_check(tmp_path)
    write_job(earlier)
    site = earlier.site
    Ledger(site.workspace).released(earlier.submission)
    ended: list[str] = []

    def send(*_: object) -> Check:
        ledger = Ledger(site.workspace)
        submission = ledger.intend(
            kind=KIND, grid="", items=["checks/1a1b2c3d4e5f"], scheduler="slurm"
        )
        write_job(Check(site, submission.items[0], submission, earlier.size))
        raise KeyboardInterrupt

    def cancel_jobs(jobs: list[Job]) -> list[str]:
        assert is_locked(site.workspace)
        ended.extend(job.id for job in jobs)
        return []

    monkeypatch.setattr(sending, "send_check", send)
    monkeypatch.setattr(sbatch, "adopt_jobs", lambda *_: ["18"])
    monkeypatch.setattr(slurm, "cancel_jobs", cancel_jobs)
    with pytest.raises(KeyboardInterrupt):
        on_node.send_check(site, earlier.size)

    assert ended == ["18"]
    ledger = Ledger(site.workspace)
    newest = list(ledger.submissions.values())[-1]
    assert newest.cancelled == {"checks/1a1b2c3d4e5f"}
    assert ledger.unfinished() == []
    assert "cut short, was cancelled" in logged[-1]


def test_a_check_is_cancelled_under_the_lock_of_submits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that write the ledger at once may lose a line of it."""
    check = make_check(tmp_path)
    holders: list[bool] = []

    def carry_out(workspace: Workspace, *_: object, **__: object) -> list[str]:
        holders.append(is_locked(workspace))
        return []

    monkeypatch.setattr(cancel, "carry_out", carry_out)

    assert sending.cancel_check(check) == []
    assert holders == [True]


def test_the_measured_mfu_is_told_before_and_after_it_is_written(
    tmp_path: Path, logged: list[str]
) -> None:
    """What was not measured leaves the profile as it is."""
    path = tmp_path / "p.yaml"
    path.write_text("name: p\ninherits: a800-80g\ngpu:\n  mfu: 0.40  # by hand\n")
    layers = profile_files.read_layers(str(path), tmp_path)
    checked = Checked(make_report(0.3712), "", tmp_path, layers)

    on_node.write_mfu(checked)

    assert path.read_text().endswith("gpu:\n  mfu: 0.371  # by hand\n")
    assert [line.removeprefix(f"{path}: ") for line in logged[-2:]] == [
        "gpu.mfu is 0.40 there, 0.371 was measured",
        "gpu.mfu is 0.371 now; all else is as it was",
    ]
    with pytest.raises(UserError, match="no share of a peak"):
        on_node.write_mfu(Checked(make_report(0.0004), "", tmp_path, layers))
    assert "mfu: 0.371" in path.read_text()
    on_node.write_mfu(Checked(make_report(1.0), "", tmp_path, layers))
    assert path.read_text().endswith("mfu: 1  # by hand\n")
    with pytest.raises(ClusterError, match="not measured"):
        on_node.write_mfu(Checked(make_report(None), "", tmp_path, layers))


def test_a_check_on_this_machine_is_no_run_and_can_be_read_again(zsg: Zsg) -> None:
    """Text and JSON say the same; status and report know nothing of it, logs do; gc
    keeps the newest of a profile."""
    lacking = Path(__file__).parent / "lib/without_torch"
    profile = (
        f"name: here\nkind: local\nenvironment: {{set: {{PYTHONPATH: {lacking}}}}}\n"
    )
    path = zsg.write("here.yaml", profile)

    text = zsg("doctor", "--on-node", "--profile", path, code=(0, 1))
    told = zsg.said
    report: dict[str, Any] = json.loads(
        zsg("doctor", "--on-node", "--profile", path, "--json", code=(0, 1))
    )

    assert "zsg doctor --on-node: profile here, 1 node, 1 rank" in text
    first, second = sorted(
        (zsg.work / "checks").iterdir(), key=lambda folder: folder.stat().st_mtime
    )
    assert (first / node_check.TEXT).read_text() == text
    assert str(first / node_check.REPORT) in told
    assert json.loads((second / node_check.REPORT).read_text()) == report
    assert (report["ranks"], report["seen"], report["job"]) == (1, 1, None)
    assert str(zsg.work) not in json.dumps(report)
    zsg("status", code=2)
    assert "no grid was submitted here" in zsg.said
    assert re.search("zsg attempt 1, rank 0 of 1", zsg("logs", f"checks/{second.name}"))
    garbage_found = garbage.find_garbage(Workspace(zsg.work))
    assert [p.path for p in garbage_found if p.kind == garbage.CHECKS] == [first]
    zsg("gc", "--yes")
    assert [path.name for path in (zsg.work / "checks").iterdir()] == [second.name]


def test_options_of_a_check_are_refused_without_it(zsg: Zsg) -> None:
    """And what a profile has no place for, before anything is submitted."""
    for option in (
        ("--nodes", "2"),
        ("--time", "9"),
        ("--wait", "0"),
        ("--write-mfu",),
    ):
        zsg("doctor", *option, code=2)
        assert f"{option[0]} is of --on-node" in zsg.said
    zsg("doctor", "--on-node", "--wait", "nan", code=2)
    assert "Invalid value for '--wait'" in zsg.said
    zsg("doctor", "--on-node", "--model", "x", code=2)
    zsg("doctor", "--on-node", "--write-mfu", code=2)
    assert "describes no GPUs" in zsg.said
    zsg("doctor", "--on-node", "--profile", "a800-80g", "--write-mfu", code=2)
    assert "inherits: a800-80g" in zsg.said
    assert not zsg.work.exists()
