"""Is what Slurm says understood, asked for once, and never taken for more than it is?"""

import os
from collections.abc import Callable
from functools import partial
from subprocess import CompletedProcess

import pytest

from launcher.clusters import slurm
from launcher.clusters.slurm import (
    SlurmState,
    find_job_ids,
    parse_sacct,
    parse_squeue,
    query_states,
    release_jobs,
)
from launcher.workspace.scheduler_job import Job
from tests.lib.slurm_answers import owned
from zsg_core.errors import ClusterError

NAME = "zsg-g-train-1"

Answer = str | tuple[int, str] | OSError


def job(job_id: str, **facts: object) -> Job:
    """A job of ours."""
    return Job(job_id, NAME, **facts)


class FakeRun:
    """Answers commands by their first word: a text, (exit code, stderr) or an OSError;
    remembers the calls.

    squeue's and sacct's lines are those of our jobs, unless they say whose they are.
    """

    def __init__(self, **answers: Answer) -> None:
        self.answers = answers
        self.calls: list[list[str]] = []

    def __call__(self, argv: list[str], **options: object) -> CompletedProcess[str]:
        self.calls.append(argv)
        answer = self.answers[argv[0]]
        if isinstance(answer, OSError):
            raise answer
        code, printed, complaint = (
            (0, answer, "") if isinstance(answer, str) else (answer[0], "", answer[1])
        )
        if printed and argv[0] in ("squeue", "sacct") and "thesis" not in printed:
            columns = 1 if "--name" in argv else 6 if argv[0] == "squeue" else 3
            printed = owned(printed, NAME, columns)
        return CompletedProcess(argv, code, printed, complaint)

    @property
    def programs(self) -> list[str]:
        return [argv[0] for argv in self.calls]


ABSENT = FileNotFoundError(2, "No such file or directory")
INVALID = (1, "slurm_load_jobs error: Invalid job id specified\n")


@pytest.mark.parametrize(
    ("line", "job", "expected"),
    [
        ("7|RUNNING|None", "7", SlurmState("running")),
        ("7_3|RUNNING|None", "7_3", SlurmState("running")),
        ("7_10|PENDING|Priority", "7_10", SlurmState("queued", "Priority")),
        ("7_3|PENDING|Dependency", "7_3", SlurmState("waiting", "Dependency")),
        ("7_3|PENDING|JobHeldUser", "7_3", SlurmState("queued", "JobHeldUser")),
        (
            "7|PENDING|DependencyNeverSatisfied",
            "7",
            SlurmState("queued", "DependencyNeverSatisfied"),
        ),
        (
            "7|PENDING|Nodes required|for job|||",
            "7",
            SlurmState("queued", "Nodes required|for job"),
        ),
        ("7|PENDING|", "7", SlurmState("queued", "")),
        ("7|REQUEUED|BeginTime", "7", SlurmState("queued", "BeginTime")),
        ("7|CONFIGURING|None", "7", SlurmState("running")),
        ("7|COMPLETING|None", "7", SlurmState("running")),
        ("7|SUSPENDED|None", "7", SlurmState("running")),
        ("7|BRAND_NEW|None", "7", SlurmState("running", "Slurm says BRAND_NEW")),
    ],
)
def test_a_line_of_squeue(line, job, expected):
    """squeue's word becomes one of ours; what is in the queue is active, also in a
    state that we do not know."""
    [told] = parse_squeue(owned(line, NAME))[job]

    assert told.state == expected


@pytest.mark.parametrize(
    ("line", "job", "expected"),
    [
        ("7|COMPLETED|0:0", "7", SlurmState("done")),
        (
            "7_3|FAILED|1:0",
            "7_3",
            SlurmState("failed", "died", "Slurm says FAILED, exit 1:0"),
        ),
        ("7_3|CANCELLED by 0|0:0", "7_3", SlurmState("cancelled", "cancelled")),
        ("7_3|CANCELLED by 1000|0:15", "7_3", SlurmState("cancelled", "cancelled")),
        ("7_3|CANCELLED|0:0", "7_3", SlurmState("cancelled", "cancelled")),
        (
            "7|TIMEOUT|0:0",
            "7",
            SlurmState("failed", "time limit", "Slurm says TIMEOUT, exit 0:0"),
        ),
        (
            "7|NODE_FAIL|1:0",
            "7",
            SlurmState("failed", "node failure", "Slurm says NODE_FAIL, exit 1:0"),
        ),
        (
            "7|BOOT_FAIL|1:0",
            "7",
            SlurmState("failed", "node failure", "Slurm says BOOT_FAIL, exit 1:0"),
        ),
        (
            "7|OUT_OF_MEMORY|0:125",
            "7",
            SlurmState(
                "failed", "out of memory", "Slurm says OUT_OF_MEMORY, exit 0:125"
            ),
        ),
        (
            "7|PREEMPTED|0:0",
            "7",
            SlurmState("failed", "preempted", "Slurm says PREEMPTED, exit 0:0"),
        ),
        (
            "7|DEADLINE|0:0",
            "7",
            SlurmState("failed", "time limit", "Slurm says DEADLINE, exit 0:0"),
        ),
        (
            "7|RUNNING|0:0",
            "7",
            SlurmState("unknown", "accounting says RUNNING, squeue nothing"),
        ),
        (
            "7|BRAND_NEW|0:0",
            "7",
            SlurmState("unknown", "accounting says BRAND_NEW, squeue nothing"),
        ),
    ],
)
def test_a_line_of_sacct(line, job, expected):
    """sacct's word becomes one of ours, with the cause; what is not known is `unknown`."""
    [told] = parse_sacct(owned(line, NAME, 3))[job]

    assert told.state == expected


@pytest.mark.parametrize(
    ("shown", "tasks"),
    [
        pytest.param("1_[0-1,3-4]", [0, 1, 3, 4], id="ranges"),
        pytest.param("1_[5]", [5], id="one task"),
        pytest.param("1_[0-3%2]", [0, 1, 2, 3], id="a limit of parallel tasks"),
        pytest.param("1_[0-6:3,7]", [0, 3, 6, 7], id="a stride"),
        pytest.param("1_[0,2,11...]", [0, 2], id="a list cut short"),
        pytest.param("1_[1-9:2%4]", [1, 3, 5, 7, 9], id="a half-cancelled array"),
    ],
)
def test_tasks_that_never_started_are_one_line_of_sacct(shown, tasks):
    """Accounting shows pending tasks of an array together (Slurm 22.05); each of them
    has the state."""
    told = parse_sacct(owned(f"{shown}|CANCELLED by 0|0:0", NAME, 3))

    assert {job: lines[0].state for job, lines in told.items()} == {
        f"1_{task}": SlurmState("cancelled", "cancelled") for task in tasks
    }


@pytest.mark.parametrize("parse", [parse_squeue, parse_sacct])
def test_nothing_said_is_nothing_known(parse: Callable[[str], dict]):
    """An empty answer is no error."""
    assert parse("") == {}


def test_many_lines_are_many_jobs():
    """Tasks of one array have states of their own."""
    told = parse_squeue(
        owned("7_0|RUNNING|None\n7_1|PENDING|Priority\n8|PENDING|Dependency\n", NAME)
    )

    assert [told[job][0].state.state for job in ("7_0", "7_1", "8")] == [
        "running",
        "queued",
        "waiting",
    ]


@pytest.mark.parametrize(
    "word", ["COMPLETED", "FAILED", "CANCELLED", "REVOKED", "TIMEOUT"]
)
def test_what_has_ended_is_not_in_the_queue(word):
    """squeue may show ended jobs for some minutes, as it is told; they are none that
    could start or write."""
    assert parse_squeue(owned(f"7|{word}|None", NAME)) == {}


def test_lines_that_are_no_answer_are_passed_over():
    """A site's squeue prints a notice, or the cluster's name, before Slurm's lines."""
    printed = (
        "CLUSTER: big\n*** Maintenance | on | Monday | 8:00 | a | b | c | d ***\n\n"
        + owned("7|RUNNING|None", NAME)
    )

    assert list(parse_squeue(printed)) == ["7"]


def test_squeue_alone_is_asked_while_all_jobs_are_active():
    """One squeue answers for all; sacct is not bothered."""
    run = FakeRun(squeue="7_0|RUNNING|None\n7_1|PENDING|Priority\n8_0|RUNNING|None\n")
    told = query_states([job("7_0"), job("7_1"), job("8_0")], run)

    assert ["squeue"] == run.programs
    assert "7,8" in run.calls[0]
    assert [told[job(i)].state for i in ("7_0", "7_1", "8_0")] == [
        "running",
        "queued",
        "running",
    ]


def test_sacct_is_asked_once_and_for_vanished_ids_only():
    """What squeue still shows is not asked for again."""
    run = FakeRun(
        squeue="7_0|RUNNING|None\n",
        sacct="8_0|COMPLETED|0:0\n9_0|FAILED|2:0\n9_1|RUNNING|0:0\n",
    )
    told = query_states([job("7_0"), job("8_0"), job("9_0")], run)

    assert ["squeue", "sacct"] == run.programs
    assert run.calls[1][run.calls[1].index("-j") + 1] == "8,9"
    assert [told[job(i)].state for i in ("7_0", "8_0", "9_0")] == [
        "running",
        "done",
        "failed",
    ]
    assert told.keys() == {job("7_0"), job("8_0"), job("9_0")}


def test_no_ids_ask_nothing():
    """Without jobs Slurm is left alone."""
    run = FakeRun()

    assert (query_states([], run), run.calls) == ({}, [])


@pytest.mark.parametrize(
    "sacct",
    [
        pytest.param("", id="sacct knows nothing yet"),
        pytest.param(ABSENT, id="no sacct installed"),
        pytest.param(
            (1, "Slurm accounting storage is disabled\n"), id="accounting off"
        ),
        pytest.param(
            (1, "sacct: error: slurm_persist_conn_open: failed"), id="accounting down"
        ),
    ],
)
def test_without_accounting_a_vanished_job_is_unknown(sacct):
    """Absence is `unknown`, never dead."""
    told = query_states(
        [job("7_0"), job("8_0")], FakeRun(squeue="7_0|RUNNING|None\n", sacct=sacct)
    )

    assert told[job("8_0")] == SlurmState("unknown", "not known to squeue or sacct")
    assert told[job("7_0")].state == "running"


def test_accounting_that_may_not_be_asked_is_not() -> None:
    """Where a profile says `sacct: false`, what has left the queue is `unknown`, and
    nobody waits for slurmdbd."""
    run = FakeRun(squeue="")

    told = SlurmState("unknown", "not known to squeue, and there is no accounting")
    assert query_states([job("7_0")], run, sacct=False) == {job("7_0"): told}
    assert find_job_ids(NAME, run, sacct=False) == []
    assert run.programs == ["squeue", "squeue"]


def test_an_invalid_job_id_is_an_empty_queue():
    """When all jobs have left squeue's memory it calls the list invalid; sacct then answers."""
    told = query_states(
        [job("7_0")], FakeRun(squeue=INVALID, sacct="7_0|COMPLETED|0:0\n")
    )

    assert told == {job("7_0"): SlurmState("done")}


@pytest.mark.parametrize(
    ("squeue", "said"),
    [
        pytest.param(
            (1, "Unable to contact slurm controller\n"),
            "squeue failed: Unable to contact",
            id="it is down",
        ),
        pytest.param((3, ""), "squeue failed: exit 3", id="it says nothing"),
        pytest.param(ABSENT, "squeue cannot be started here", id="it is not installed"),
    ],
)
def test_a_failing_squeue_is_a_cluster_error(squeue, said):
    """Without squeue nothing can be said of anything."""
    with pytest.raises(ClusterError, match=said):
        query_states([job("7_0")], FakeRun(squeue=squeue, sacct=""))


def test_found_tasks_are_in_the_order_of_their_index():
    """Ten comes after nine, and an id shown twice is one."""
    run = FakeRun(squeue="7_10\n7_9\n7_0\n7_9\n")

    assert find_job_ids(NAME, run) == ["7_0", "7_9", "7_10"]
    assert run.calls[0][run.calls[0].index("--name") + 1] == NAME


@pytest.mark.parametrize(
    ("sacct", "expected"),
    [
        pytest.param("7_10\n7_9\n", ["7_9", "7_10"], id="ended tasks"),
        pytest.param("7_[0-2]\n", ["7_0", "7_1", "7_2"], id="tasks that never started"),
        pytest.param("", [], id="none"),
        pytest.param(ABSENT, [], id="no accounting"),
    ],
)
def test_jobs_that_left_the_queue_are_found_in_accounting(sacct, expected):
    """A name that squeue does not show is looked up in sacct."""
    assert find_job_ids(NAME, FakeRun(squeue="", sacct=sacct)) == expected


def test_a_queue_that_cannot_be_asked_finds_nothing_but_an_error():
    """That squeue failed is not that there is no job."""
    with pytest.raises(ClusterError):
        find_job_ids(NAME, FakeRun(squeue=(1, "timeout"), sacct=""))


HELD = "7_0|PENDING|JobHeldUser\n7_1|PENDING|JobHeldUser\n8_0|PENDING|JobHeldUser\n"
HELD_JOBS = [job("8_0"), job("7_1"), job("7_0")]
NOTHING_LEFT = slurm.ReleaseAnswer([], [])


def test_arrays_are_released_whole():
    """One scontrol releases all arrays of the ids."""
    run = FakeRun(squeue=HELD, scontrol="")
    release_jobs(HELD_JOBS, run)

    assert run.calls[1:] == [["scontrol", "release", "7", "8"]]


@pytest.mark.parametrize(
    ("held_jobs", "names"),
    [
        (["7_0", "7_1", "8_0"], ["7", "8"]),
        (["7_1", "8_0"], ["7_1", "8"]),
        (["7_0"], ["7_0"]),
    ],
)
def test_tasks_are_released_by_one_call_and_no_task_beside_them(held_jobs, names):
    """An array is named whole where no task of it waits but those that are released."""
    run = FakeRun(squeue=HELD, scontrol="")
    jobs = [job(job_id) for job_id in held_jobs]
    release_jobs(jobs, run, whole_arrays=False)

    assert run.calls[1:] == [["scontrol", "release", *names]]


def test_a_task_of_an_array_that_is_refused_is_refused():
    """What is told as released leaves it out, whatever name Slurm was called with."""
    run = RefusingRun("JobHeldUser", "Job violates policy")
    answer = release_jobs(HELD_JOBS, run, whole_arrays=False)

    assert [answer.is_refused(each) for each in HELD_JOBS] == [False, True, True]


def test_a_job_that_has_ended_needs_no_release():
    """Releasing twice does no harm: what is not in the queue is not asked for."""
    run = FakeRun(squeue="")

    assert release_jobs([job("7_0")], run) == NOTHING_LEFT
    assert run.programs == ["squeue"]


@pytest.mark.parametrize(
    "complaint",
    ["Job has already finished for job 7", "Invalid job id specified for job 7"],
)
def test_a_job_that_ends_under_its_release_is_no_error(complaint):
    """It may end between the look and the release."""
    run = FakeRun(squeue=HELD, scontrol=(1, complaint))

    assert release_jobs(HELD_JOBS, run) == NOTHING_LEFT


@pytest.mark.parametrize(
    "answer", [(1, "Unable to contact slurm controller (connect failure)"), ABSENT]
)
def test_a_release_that_nobody_answers_is_an_error(answer):
    """It is asked again while the controller is away."""
    with pytest.raises(ClusterError, match="scontrol"):
        release_jobs(HELD_JOBS, FakeRun(squeue=HELD, scontrol=answer))


class RefusingRun(FakeRun):
    """A Slurm that does not let go of array 7, also where others are named with it."""

    def __init__(self, reason: str, complaint: str) -> None:
        super().__init__(squeue=HELD.replace("JobHeldUser", reason, 2), scontrol="")
        self._refusal = (1, complaint)

    def __call__(self, argv, **options):
        is_refused = argv[0] == "scontrol" and "7" in argv
        self.answers["scontrol"] = self._refusal if is_refused else ""
        return super().__call__(argv, **options)


@pytest.mark.parametrize(
    ("reason", "complaint", "told", "settled"),
    [
        ("JobHeldAdmin", "no", "held by an administrator (JobHeldAdmin: no)", True),
        (
            "JobHeldUser",
            "Access/permission denied for job 7",
            "held by an administrator (JobHeldUser: Access/permission denied for job 7)",
            True,
        ),
        ("JobHeldUser", "Job violates policy", "could not be released (JobHeld", False),
        ("None", "Job is no longer pending execution", "could not be rel", False),
    ],
)
def test_a_refused_release_stops_no_other(reason, complaint, told, settled):
    """The others are released one by one; what only an administrator can release is not
    asked for again."""
    run = RefusingRun(reason, complaint)
    answer = release_jobs(HELD_JOBS, run)

    assert ["scontrol", "release", "8"] in run.calls
    [refusal] = answer.refused
    assert refusal.words.startswith(f"job 7 {'is ' * settled}{told}")
    assert "the others go on" in refusal.words
    assert answer.is_settled([job("7_0"), job("8_0")]) == settled
    assert answer.is_settled([job("8_0")])


def test_a_job_that_starts_under_its_release_is_not_refused():
    """What was refused is looked up once more: it may run by now, or be gone."""
    running = HELD.replace("7_0|PENDING|JobHeldUser", "7_0|RUNNING|None")
    running = running.replace("7_1|PENDING|JobHeldUser\n", "")
    run = RefusingRun("JobHeldUser", "Job is no longer pending execution")
    run.answers["squeue"] = running

    assert release_jobs(HELD_JOBS, run) == NOTHING_LEFT


MINE = os.getuid()
STRANGERS = {
    "another user's": "7|RUNNING|None|N/A|0:10|n1|4242|zsg-g-train-1",
    "another job of ours": f"7|RUNNING|None|N/A|0:10|n1|{MINE}|thesis",
    "two": f"7|RUNNING|None|N/A|0:10|n1|{MINE}|thesis\n7|RUNNING|a|N/A|0:1|n1|{MINE}|{NAME}",
}
PREFIXES = ("SLURM", "SQUEUE", "SACCT", "SCANCEL", "SINFO", "SCONTROL")
OF_SLURM = (
    *(
        "SQUEUE_STATES",
        "SQUEUE_PARTITION",
        "SACCT_FEDERATION",
        "SCANCEL_STATE",
        "SINFO_PARTITION",
        "SCONTROL_ALL",
    ),
    *("SLURM_JOB_ID", "SLURM_MEM_PER_CPU", "SLURMD_NODENAME", "SLURM_CLUSTERS"),
)


@pytest.mark.parametrize("shown", STRANGERS.values(), ids=STRANGERS.keys())
@pytest.mark.parametrize(
    "touch",
    [
        slurm.release_jobs,
        partial(slurm.release_jobs, whole_arrays=False),
        slurm.cancel_jobs,
    ],
    ids=["release", "release_tasks", "cancel"],
)
def test_a_job_that_is_not_ours_is_never_touched(touch, shown):
    """Its number alone fits: neither scancel nor scontrol is called, and it is told whose it is."""
    run = FakeRun(squeue=f"thesis\n{shown}\n")
    answer = touch([job("7")], run=run)
    [told] = answer.untouched if isinstance(answer, slurm.ReleaseAnswer) else answer

    assert run.programs == ["squeue"]
    assert told.startswith(f"job 7 is not {NAME}, but ")


@pytest.mark.parametrize("shown", STRANGERS.values(), ids=STRANGERS.keys())
def test_the_state_of_a_job_that_is_not_ours_is_not_taken_for_ours(shown):
    """A number that Slurm has given anew: our job is `unknown`, whose the number is now is told."""
    told = query_states([job("7")], FakeRun(squeue=f"thesis\n{shown}\n", sacct=""))[
        job("7")
    ]

    assert told.state == "unknown"
    assert told.detail and "job 7 is not zsg-g-train-1" in told.detail


def test_accounting_of_another_job_of_that_number_is_not_ours():
    """After a reset of the database the number may be another's there too."""
    run = FakeRun(
        squeue="",
        sacct=f"7|COMPLETED|0:0|{os.getuid()}|thesis\n7|FAILED|1:0|4242|{NAME}\n",
    )

    assert query_states([job("7")], run)[job("7")] == SlurmState(
        "unknown", "not known to squeue or sacct"
    )


@pytest.mark.parametrize("user", ["4242", str(os.getuid())])
def test_a_job_is_found_by_its_name_and_its_user(user):
    """Anybody may name a job so: squeue and sacct are asked for ours only, and whose
    each is is seen again."""
    run = FakeRun(squeue=f"7|{user}|{NAME}\n8|{user}|thesis\n", sacct="")

    assert find_job_ids(NAME, run) == (["7"] if user == str(os.getuid()) else [])
    for call in run.calls:
        assert call[call.index("--user") + 1] == str(os.getuid())


def test_a_job_on_a_named_cluster_is_asked_for_there():
    """Each call names it, also where another cluster has a job of the same number; the
    default one is asked apart."""
    here, there = job("7", cluster="a"), job("7", cluster="b", named=True)
    run = FakeRun(squeue="7|PENDING|Priority\n", scancel="")
    told = query_states([here, there], run)
    slurm.cancel_jobs([there], run=run)

    assert [told[one].state for one in (here, there)] == ["queued", "queued"]
    assert [call[:3] for call in run.calls] == [
        ["squeue", "--noheader", "--array"],
        *[["squeue", "-M", "b"]] * 2,
        ["scancel", "-M", "b"],
    ]


def test_a_job_on_a_cluster_that_cannot_be_asked_is_not_gone():
    """It may well be at work: it is unknown, with the cluster's name, and nobody looks
    for it here."""
    there = job("7", cluster="b", named=True)
    told = query_states([there], FakeRun(squeue=(1, "'b' can't be reached now")))[there]

    assert (told.state, told.away) == ("unknown", True)
    assert (
        told.detail
        == "on cluster b, which cannot be asked here: squeue failed: 'b' can't be reached now"
    )


class TwoClusters(FakeRun):
    """A login node whose default cluster is b; only a, asked by its name, has job 7."""

    def __call__(self, argv, **options):
        if argv[0] == "squeue":
            self.answers["squeue"] = "7|PENDING|Priority\n" if "a" in argv else ""
        return super().__call__(argv, **options)


def test_a_job_of_another_default_cluster_is_looked_up_there():
    """Submitted where `a` was the default, asked for where `b` is: by its name, and not
    in b's accounting."""
    run = TwoClusters(scontrol="ClusterName             = b\n")
    of_a = job("7", cluster="a")

    assert query_states([of_a], run)[of_a].state == "queued"
    assert run.programs == ["squeue", "scontrol", "squeue"]


def test_calls_see_none_of_the_users_variables_of_slurm(monkeypatch):
    """Those of an allocation and those that are options of Slurm's programs; how Slurm
    is reached stays."""
    for name in OF_SLURM:
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("SLURM_CONF", "/etc/s.conf")
    monkeypatch.setenv("SLURM_TIME_FORMAT", "relative")
    monkeypatch.setenv("OF_THE_SITE", "1")
    seen = []

    def run(argv, env, **options):
        seen.append(
            {
                key: value
                for key, value in env.items()
                if key.startswith(("OF_THE", *PREFIXES))
            }
        )
        return CompletedProcess(argv, 0, "", "")

    query_states([job("7")], run)
    slurm.call_slurm(["sinfo"], run, "b")

    plain = {
        "SLURM_CONF": "/etc/s.conf",
        "SLURM_TIME_FORMAT": "standard",
        "SLURM_BITSTR_LEN": "0",
        "OF_THE_SITE": "1",
    }
    assert seen == [plain, plain, plain | {"SLURM_CLUSTERS": "b"}]
