"""Do a job's end and whoever looks later see the same thing, and tell it once?"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from jobs.contract import attempt as attempts
from jobs.contract import grid_record, job_file
from jobs.contract import notices as records
from jobs.contract.folder import Workspace
from jobs.contract.grid_record import GridRecord, ListedRun
from jobs.contract.notices import Kind, Receiver, Way
from jobs.contract.states import Outcome
from jobs.files import locks
from jobs.notices import at_end, sender
from launcher.clusters import profiles
from launcher.clusters.profiles import Profile
from launcher.commands import watching
from launcher.doctor import doctor, notice_trial
from launcher.lifecycle import notices
from launcher.submission import job_files
from launcher.workspace.ledger import Ledger
from tests.lib.job_records import job_record, write_job_file
from tests.lib.notice_receiver import HOOK, VARIABLE, NoticeReceiver
from tests.lib.recorded_run import ITEM, ended, started, submitted, workspace
from zsg_core.errors import UserError

__all__ = ["workspace"]

RUN = ITEM.removeprefix("runs/")


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[NoticeReceiver]:
    made = NoticeReceiver()
    monkeypatch.setenv(VARIABLE, made.address)
    yield made
    made.close()


def record_grid(workspace: Workspace, *receivers: Receiver) -> None:
    """A grid of the one run, whose submit named receivers."""
    workspace.grid("g").mkdir(parents=True)
    listed = [ListedRun(run=RUN, axes={})]
    record = GridRecord(name="g", runs=listed, notify=list(receivers or (HOOK,)))
    grid_record.write_grid_record(workspace, record)


def end_job(workspace: Workspace, outcome: str) -> None:
    """The run is submitted, ends, and tells."""
    submission = submitted(workspace, "local")
    write_submitted(workspace, submission.id)
    ended(workspace, submission, outcome)
    at_end.tell_end(workspace.root / ITEM, _job(workspace))


def write_submitted(workspace: Workspace, submission: str, run: str = RUN) -> None:
    """The job.json of a run, as a submit writes it."""
    receivers = [msgspec.to_builtins(HOOK)]
    folder = workspace.run(run)
    write_job_file(folder, notify=receivers, submission=submission)


def look(workspace: Workspace) -> None:
    """What `zsg sync` does for notices."""
    notices.tell_grids(workspace, None)


@pytest.mark.parametrize("outcome", ["failed", "done"])
def test_a_job_tells_its_end_and_who_looks_tells_nothing_more(
    workspace: Workspace, hook: NoticeReceiver, outcome: str
) -> None:
    """The failure, and that with it all of its grid has ended: both by the ids that
    the look would give them."""
    record_grid(workspace)

    end_job(workspace, outcome)
    told = hook.list_told()
    look(workspace)

    kinds = {each.partition(":")[0] for each in told}
    assert kinds == {outcome, "done"}
    assert hook.list_told() == told


def test_a_grid_has_not_ended_while_a_run_of_it_waits_to_be_tried_again(
    workspace: Workspace, hook: NoticeReceiver
) -> None:
    """Its record still says how it failed; its job is a newer submission's."""
    record_grid(workspace)
    end_job(workspace, "failed")
    write_submitted(workspace, "newer")
    other = GridRecord(
        name="g",
        runs=[ListedRun(run=RUN, axes={}), ListedRun(run="other", axes={})],
        notify=[HOOK],
    )
    grid_record.write_grid_record(workspace, other)
    folder = workspace.run("other")
    submission = Ledger(workspace).intend(
        scheduler="local", kind="train", grid="g", items=["runs/other"]
    )
    write_submitted(workspace, submission.id, "other")
    attempt = attempts.begin_attempt(folder, submission.id)
    attempts.end_attempt(folder, attempt, Outcome.DONE)
    before = len(hook.posts)

    at_end.tell_end(folder, job_file.read_job(folder))

    assert len(hook.posts) == before


def test_who_looks_tells_what_a_job_could_not(
    workspace: Workspace, hook: NoticeReceiver
) -> None:
    """A job that died without a word, and the end of its grid."""
    record_grid(workspace)
    started(workspace, submitted(workspace, "local"))

    look(workspace)
    look(workspace)

    assert [post["kind"] for post in hook.posts] == ["failed", "done"]
    assert hook.posts[0]["notices"][0]["cause"] == "died"
    assert "all 1 runs have ended: 1 failed" in hook.posts[1]["text"]


def test_watching_tells_what_it_sees_and_says_what_it_could_not(
    workspace: Workspace, hook: NoticeReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First the receiver fails, then it answers; a key in a log's line is not sent."""
    record_grid(workspace)
    submitted(workspace, "local")
    monkeypatch.setenv("LAB_TOKEN", "tok-s3cr3t-12345")
    row = {"run": RUN, "grid": "g", "state": "failed", "attempt": 1, "step": 4}
    row |= {"cause": "traceback", "evidence": "401 for tok-s3cr3t-12345"}
    watched = watching.Watched(workspace, None, (), False)
    sight = watching.Sight(0.0, [row])
    hook.script = lambda number: 500
    monkeypatch.setattr(sender, "AGAIN_S", 0.0)

    first = watching._tell(watched, sight)
    hook.script = lambda number: 200
    second = watching._tell(watched, sight)

    assert "webhook:LAB_HOOK was not told: it answered 500" in first[0]
    assert second == []
    assert f"failed:{ITEM}:{_submission(workspace)}:1" in hook.list_told()
    assert "s3cr3t" not in repr(hook.posts)


def _submission(workspace: Workspace) -> str:
    last = Ledger(workspace).last(ITEM)
    assert last
    return last.id


def test_what_is_tried_again_and_fails_again_is_told_again(
    workspace: Workspace, hook: NoticeReceiver
) -> None:
    """Under another id: it is another submission."""
    record_grid(workspace)
    for _ in range(2):
        ended(workspace, submitted(workspace, "local"), "failed")
        look(workspace)

    assert len(set(hook.list_told())) == len(hook.list_told()) == 4


def test_a_job_that_hangs_is_told_once_at_each_step(
    workspace: Workspace, hook: NoticeReceiver
) -> None:
    """Only who looks can see it; twenty looks tell it once."""
    record_grid(workspace)
    submitted(workspace, "local")
    row: dict[str, Any] = {
        "run": RUN,
        "grid": "g",
        "state": "running",
        "attempt": 1,
        "cause": None,
        "evidence": None,
        "flag": "no step for 25 min",
        "hang_s": 1500.0,
    }

    for step in (4, 4, 7, 7):
        notices.tell_rows(workspace, None, [{**row, "step": step}], notices.ASKED)

    assert [post["kind"] for post in hook.posts] == ["hang", "hang"]
    assert "no step for 25 min" in hook.posts[0]["text"]


def test_verdicts_are_told_when_all_runs_have_ended(
    workspace: Workspace, hook: NoticeReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each claim with its verdict in a line; they are decided once."""
    record_grid(workspace)
    asked: list[str] = []

    def judge(place: Workspace, grid: str) -> list[str]:
        asked.append(grid)
        return ["holds: end of loss: shuffled < blocked"]

    monkeypatch.setattr(notices, "_judge_claims", judge)
    ended(workspace, submitted(workspace, "local"), "done")

    look(workspace)
    look(workspace)

    assert asked == ["g"]
    assert "holds: end of loss: shuffled < blocked" in hook.posts[-1]["text"]


def test_verdicts_wait_for_the_jobs_that_measure_what_claims_rest_on(
    workspace: Workspace, hook: NoticeReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An evaluate job goes on behind the last run: decided before, a claim would be told
    as undecided, and never again."""
    record_grid(workspace)
    monkeypatch.setattr(notices, "_judge_claims", lambda *_: ["holds"])
    submitted(workspace, "local")
    run: dict[str, Any] = {"run": RUN, "grid": "g", "state": "done"}
    evaluation: dict[str, Any] = {"run": "evaluate/e", "grid": "g", "state": "running"}

    notices.tell_rows(workspace, None, [run, evaluation], notices.ASKED)
    assert [post["kind"] for post in hook.posts] == ["done"]

    notices.tell_rows(workspace, None, [run], notices.ASKED)
    assert [post["kind"] for post in hook.posts] == ["done", "verdict"]


def test_a_receiver_that_fails_is_tried_once_at_a_look_at_all_grids(
    workspace: Workspace, hook: NoticeReceiver
) -> None:
    """One that hangs would keep `zsg sync` for a quarter of a minute at each grid."""
    record_grid(workspace)
    workspace.grid("h").mkdir()
    listed = [ListedRun(run=RUN, axes={})]
    second = GridRecord(name="h", runs=listed, notify=[HOOK])
    grid_record.write_grid_record(workspace, second)
    ended(workspace, submitted(workspace, "local"), "done")
    hook.script = lambda number: 500

    look(workspace)
    assert len(hook.posts) == 1

    hook.script = lambda number: 200
    look(workspace)
    assert {post["grid"] for post in hook.posts[1:]} == {"g", "h"}


def test_nothing_is_asked_or_written_where_no_submit_named_a_receiver(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then `zsg sync` asks Slurm nothing, as before."""
    record = GridRecord(name="g", runs=[ListedRun(run=RUN, axes={})])
    workspace.grid("g").mkdir(parents=True)
    grid_record.write_grid_record(workspace, record)
    submitted(workspace)

    look(workspace)

    assert not records.locate_notices(workspace).exists()


def test_a_job_ends_although_nobody_can_be_told(
    workspace: Workspace, hook: NoticeReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its receiver hangs, another process has the lock for ever, or a file is broken:
    the job ends after a moment, and its record stays."""
    record_grid(workspace)
    monkeypatch.setattr(at_end, "LIMIT_S", 0.2)
    hook.script = lambda number: -1

    end_job(workspace, "failed")
    with locks.hold_lock(records.locate_notices(workspace)):
        at_end.tell_end(workspace.root / ITEM, _job(workspace))
    workspace.ledger.write_text("{}\n")
    at_end.tell_end(workspace.root / ITEM, _job(workspace))

    record = attempts.end_of_newest(workspace.root / ITEM)
    assert record is not None
    assert record.outcome == "failed"


@pytest.mark.parametrize(
    "answer", [200, pytest.param(-1, marks=pytest.mark.soak(part="tracking"))]
)
def test_a_job_s_process_ends_as_it_would_whatever_its_receiver_does(
    tmp_path: Path, hook: NoticeReceiver, answer: int
) -> None:
    """With the exit code of its failure and its record whole; told where the receiver
    answers, and meant, so that the next look tells it, where it hangs."""
    place = Workspace(tmp_path / "work")
    place.create()
    hook.script = lambda number: answer
    write_submitted(place, "s1")
    argv = [sys.executable, "-m", "jobs.entry", str(place.run(RUN))]

    ended_job = subprocess.run(argv, capture_output=True, text=True, check=False)

    record = attempts.end_of_newest(place.run(RUN))
    assert record is not None
    assert (ended_job.returncode, record.outcome) == (1, "failed")
    assert [post["notices"][0]["cause"] for post in hook.posts] == [record.cause]
    assert "s3cr3t" not in ended_job.stdout + ended_job.stderr
    outbox = records.read_outboxes(place)[HOOK.key]
    assert bool(outbox.untold) == (answer == -1)


def _job(workspace: Workspace) -> Any:
    return job_file.read_job(workspace.root / ITEM)


def make_profile(folder: Path, text: str) -> Profile:
    (folder / "p.yaml").write_text(f"name: p\ninherits: local\n{text}\n")
    return profiles.load_profile("p.yaml", folder)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[{slack: https://hooks.example.org/s3cr3t}]", "holds an address"),
        ("[{webhook: s3cr3t-s3cr3t}]", "the name of an environment variable"),
        ("[{webhook: A, slack: B}]", "one of webhook, slack and command"),
        ("[{on: [failed]}]", "one of webhook, slack and command"),
        ("[{webhook: A, on: []}]", "on is empty"),
        ("[{command: []}]", "a program and its arguments"),
        ("[{webhook: SLURM_CONF}]", "take another name"),
        ("https://s3cr3t.example.org", "must be a list"),
        ("{slack: https://s3cr3t.example.org}", "must be a list"),
        ("[https://s3cr3t.example.org]", "must be a mapping of settings"),
        ("[{slack: [https://s3cr3t.example.org]}]", "must be a text"),
        ("[{slak: https://s3cr3t.example.org}]", "slak"),
        ("[{slack:https://s3cr3t.example.org}]", "unknown key 'slack:…'"),
        ("[{slack: A, slack: https://s3cr3t.example.org}]", "duplicate key"),
        ("[{slack: ['https://s3cr3t.example.org, found x']}]", "must be a text"),
        ("[{command: [./tell]}]", "whole path"),
        ("[{command: [curl, https://s3cr3t.example.org]}]", "has an address"),
    ],
)
def test_a_receiver_that_cannot_be_meant_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, why: str
) -> None:
    """With the file's line, and without the value, which may be a secret."""
    monkeypatch.chdir(tmp_path)

    with pytest.raises(UserError) as refusal:
        make_profile(tmp_path, f"notify: {text}")

    assert why in str(refusal.value)
    assert "p.yaml:3" in str(refusal.value)
    assert "s3cr3t" not in str(refusal.value)


def write_user_settings(
    folder: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> Path:
    """The user's own settings, in a home of its own."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))
    (folder / ".zsg").mkdir(mode=0o700)
    file = folder / ".zsg/settings.yaml"
    file.write_text(text)
    file.chmod(0o600)
    return file


def test_the_user_s_settings_count_under_profiles_that_name_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`notify: []` names nobody on purpose; for a group no program is run."""
    write_user_settings(
        tmp_path, monkeypatch, "notify: [{slack: MY_URL}, {command: [tell]}]"
    )

    texts = ("", "share: group", "notify: [{slack: LAB_URL}]", "notify: []")
    found = [make_profile(tmp_path, text).notify for text in texts]
    assert [[each.slack for each in notify] for notify in found] == [
        ["MY_URL", None],
        ["MY_URL"],
        ["LAB_URL"],
        [],
    ]


@pytest.mark.parametrize(
    ("text", "mode", "why"),
    [
        ("notify: [{slack: https://s3cr3t.example.org}]", 0o600, "holds an address"),
        ("notfy: []", 0o600, "notfy"),
        ("- 1", 0o600, "are a mapping"),
        ("notify: []", 0o666, "may be written by"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, mode: int, why: str
) -> None:
    """With their file; also those that others could have written."""
    file = write_user_settings(tmp_path, monkeypatch, text)
    file.chmod(mode)

    with pytest.raises(UserError, match=r"settings\.yaml") as refusal:
        make_profile(tmp_path, "")

    assert why in str(refusal.value)
    assert "s3cr3t" not in str(refusal.value)


def test_a_program_is_refused_for_a_group_s_workspace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others may change what is recorded there."""
    monkeypatch.chdir(tmp_path)

    with pytest.raises(UserError, match="share: group"):
        make_profile(tmp_path, "share: group\nnotify: [{command: [tell]}]")


def test_jobs_are_given_the_variable_and_know_who_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its name; without `notify` a job.json is what it was to the byte."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(job_files.code_snapshot, "take_snapshot", lambda _: {})
    profile = make_profile(tmp_path, "notify: [{slack: LAB_URL, on: [failed, hang]}]")

    head = job_files.make_head(
        "prepare", "s1", Workspace(tmp_path / "w"), profile.prepare, profile
    )

    assert "LAB_URL" in profile.environment.keep
    assert head["notify"] == [
        Receiver(
            way=Way.SLACK,
            variable="LAB_URL",
            on=[Kind.FAILED, Kind.HANG],
            user=head["notify"][0].user,
        )
    ]
    assert "notify" not in job_file.fields_of(job_record("prepare"))


def test_doctor_says_who_cannot_be_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable that is not set, a program that is none."""
    monkeypatch.chdir(tmp_path)
    profile = make_profile(
        tmp_path, "notify: [{slack: LAB_URL}, {command: [no-such-program, -x]}]"
    )

    found = doctor.check_receivers(profile.receivers, {})

    assert [each.found for each in found] == [
        "LAB_URL is not set",
        "no-such-program is no program here",
    ]


def test_doctor_sends_a_test_message_where_it_is_asked_to(
    hook: NoticeReceiver,
) -> None:
    """Each time under another id, and no run's; a receiver that refuses is a problem,
    told without the address."""
    (taken,) = notice_trial.send_trials([HOOK])
    hook.script = lambda number: 404
    (refused,) = notice_trial.send_trials([HOOK])

    assert (taken.verdict, refused.verdict) == ("ok", "problem")
    assert "404" in refused.advice
    assert [post["kind"] for post in hook.posts] == ["test", "test"]
    assert len(set(hook.list_told())) == 2
    assert "s3cr3t" not in repr([taken, refused])
