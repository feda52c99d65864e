"""Is what Slurm says understood, asked for once, and never taken for more than it is?"""

from collections.abc import Callable
from subprocess import CompletedProcess

import pytest

from launcher.clusters.slurm import SlurmState, find, parse_sacct, parse_squeue, release, states
from zsg_core.errors import ClusterError

Answer = str | tuple[int, str] | OSError


class FakeRun:
    """Answers commands by their first word: a text, (exit code, stderr) or an OSError; remembers the calls."""

    def __init__(self, **answers: Answer) -> None:
        self.answers = answers
        self.calls: list[list[str]] = []

    def __call__(self, argv: list[str], **options: object) -> CompletedProcess[str]:
        self.calls.append(argv)
        answer = self.answers[argv[0]]
        if isinstance(answer, OSError):
            raise answer
        code, printed, complaint = (0, answer, "") if isinstance(answer, str) else (answer[0], "", answer[1])
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
        ("7|PENDING|DependencyNeverSatisfied", "7", SlurmState("queued", "DependencyNeverSatisfied")),
        ("7|PENDING|Nodes required|for job", "7", SlurmState("queued", "Nodes required|for job")),
        ("7|PENDING|", "7", SlurmState("queued", "")),
        ("7|REQUEUED|BeginTime", "7", SlurmState("queued", "BeginTime")),
        ("7|CONFIGURING|None", "7", SlurmState("running")),
        ("7|COMPLETING|None", "7", SlurmState("running")),
        ("7|SUSPENDED|None", "7", SlurmState("running")),
        ("7|BRAND_NEW|None", "7", SlurmState("running", "Slurm says BRAND_NEW")),
    ],
)
def test_a_line_of_squeue(line, job, expected):
    """squeue's word becomes one of ours; what is in the queue is active, also in a state that we do not know."""
    assert parse_squeue(line + "\n") == {job: expected}


@pytest.mark.parametrize(
    ("line", "job", "expected"),
    [
        ("7|COMPLETED|0:0", "7", SlurmState("done")),
        ("7_3|FAILED|1:0", "7_3", SlurmState("failed", "died", "Slurm says FAILED, exit 1:0")),
        ("7_3|CANCELLED by 0|0:0", "7_3", SlurmState("cancelled", "cancelled")),
        ("7_3|CANCELLED by 1000|0:15", "7_3", SlurmState("cancelled", "cancelled")),
        ("7_3|CANCELLED|0:0", "7_3", SlurmState("cancelled", "cancelled")),
        ("7|TIMEOUT|0:0", "7", SlurmState("failed", "time limit", "Slurm says TIMEOUT, exit 0:0")),
        ("7|NODE_FAIL|1:0", "7", SlurmState("failed", "node failure", "Slurm says NODE_FAIL, exit 1:0")),
        ("7|BOOT_FAIL|1:0", "7", SlurmState("failed", "node failure", "Slurm says BOOT_FAIL, exit 1:0")),
        ("7|OUT_OF_MEMORY|0:125", "7", SlurmState("failed", "out of memory", "Slurm says OUT_OF_MEMORY, exit 0:125")),
        ("7|PREEMPTED|0:0", "7", SlurmState("failed", "preempted", "Slurm says PREEMPTED, exit 0:0")),
        ("7|DEADLINE|0:0", "7", SlurmState("failed", "time limit", "Slurm says DEADLINE, exit 0:0")),
        ("7|RUNNING|0:0", "7", SlurmState("unknown", "accounting says RUNNING, squeue nothing")),
        ("7|BRAND_NEW|0:0", "7", SlurmState("unknown", "accounting says BRAND_NEW, squeue nothing")),
    ],
)
def test_a_line_of_sacct(line, job, expected):
    """sacct's word becomes one of ours, with the cause; what is not known is `unknown`."""
    assert parse_sacct(line + "\n") == {job: expected}


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
    """Accounting shows pending tasks of an array together (Slurm 22.05); each of them has the state."""
    assert parse_sacct(f"{shown}|CANCELLED by 0|0:0\n") == {
        f"1_{task}": SlurmState("cancelled", "cancelled") for task in tasks
    }


@pytest.mark.parametrize("parse", [parse_squeue, parse_sacct])
def test_nothing_said_is_nothing_known(parse: Callable[[str], dict]):
    """An empty answer is no error."""
    assert parse("") == {}


def test_many_lines_are_many_jobs():
    """Tasks of one array have states of their own."""
    told = parse_squeue("7_0|RUNNING|None\n7_1|PENDING|Priority\n8|PENDING|Dependency\n")

    assert [told[job].state for job in ("7_0", "7_1", "8")] == ["running", "queued", "waiting"]


def test_squeue_alone_is_asked_while_all_jobs_are_active():
    """One squeue answers for all; sacct is not bothered."""
    run = FakeRun(squeue="7_0|RUNNING|None\n7_1|PENDING|Priority\n8_0|RUNNING|None\n")
    told = states(["7_0", "7_1", "8_0"], run)

    assert ["squeue"] == run.programs
    assert "7,8" in run.calls[0]
    assert [told[i].state for i in ("7_0", "7_1", "8_0")] == ["running", "queued", "running"]


def test_sacct_is_asked_once_and_for_vanished_ids_only():
    """What squeue still shows is not asked for again."""
    run = FakeRun(squeue="7_0|RUNNING|None\n", sacct="8_0|COMPLETED|0:0\n9_0|FAILED|2:0\n9_1|RUNNING|0:0\n")
    told = states(["7_0", "8_0", "9_0"], run)

    assert ["squeue", "sacct"] == run.programs
    assert run.calls[1][run.calls[1].index("-j") + 1] == "8,9"
    assert [told[i].state for i in ("7_0", "8_0", "9_0")] == ["running", "done", "failed"]
    assert told.keys() == {"7_0", "8_0", "9_0"}


def test_no_ids_ask_nothing():
    """Without jobs Slurm is left alone."""
    run = FakeRun()

    assert (states([], run), run.calls) == ({}, [])


@pytest.mark.parametrize(
    "sacct",
    [
        pytest.param("", id="sacct knows nothing yet"),
        pytest.param(ABSENT, id="no sacct installed"),
        pytest.param((1, "Slurm accounting storage is disabled\n"), id="accounting off"),
        pytest.param((1, "sacct: error: slurm_persist_conn_open: failed"), id="accounting down"),
    ],
)
def test_without_accounting_a_vanished_job_is_unknown(sacct):
    """Absence is `unknown`, never dead."""
    told = states(["7_0", "8_0"], FakeRun(squeue="7_0|RUNNING|None\n", sacct=sacct))

    assert told["8_0"] == SlurmState("unknown", "neither squeue nor sacct knows it")
    assert told["7_0"].state == "running"


def test_accounting_that_may_not_be_asked_is_not() -> None:
    """Where a profile says `sacct: false`, what has left the queue is `unknown`, and nobody waits for slurmdbd."""
    run = FakeRun(squeue="")

    told = SlurmState("unknown", "squeue does not know it, and there is no accounting")
    assert states(["7_0"], run, sacct=False) == {"7_0": told}
    assert find("n", run, sacct=False) == []
    assert run.programs == ["squeue", "squeue"]


def test_an_invalid_job_id_is_an_empty_queue():
    """When all jobs have left squeue's memory it calls the list invalid; sacct then answers."""
    told = states(["7_0"], FakeRun(squeue=INVALID, sacct="7_0|COMPLETED|0:0\n"))

    assert told == {"7_0": SlurmState("done")}


@pytest.mark.parametrize(
    ("squeue", "said"),
    [
        pytest.param((1, "Unable to contact slurm controller\n"), "squeue failed: Unable to contact", id="it is down"),
        pytest.param((3, ""), "squeue failed: exit 3", id="it says nothing"),
        pytest.param(ABSENT, "squeue cannot be started here", id="it is not installed"),
    ],
)
def test_a_failing_squeue_is_a_cluster_error(squeue, said):
    """Without squeue nothing can be said of anything."""
    with pytest.raises(ClusterError, match=said):
        states(["7_0"], FakeRun(squeue=squeue, sacct=""))


def test_found_tasks_are_in_the_order_of_their_index():
    """Ten comes after nine, and an id shown twice is one."""
    run = FakeRun(squeue="7_10\n7_9\n7_0\n7_9\n")

    assert find("zsg-g-train-1", run) == ["7_0", "7_9", "7_10"]
    assert run.calls[0][run.calls[0].index("--name") + 1] == "zsg-g-train-1"


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
    assert find("n", FakeRun(squeue="", sacct=sacct)) == expected


def test_a_queue_that_cannot_be_asked_finds_nothing_but_an_error():
    """That squeue failed is not that there is no job."""
    with pytest.raises(ClusterError):
        find("n", FakeRun(squeue=(1, "timeout"), sacct=""))


def test_arrays_are_released_whole():
    """One scontrol releases all arrays of the ids."""
    run = FakeRun(scontrol="")
    release(["8_0", "7_1", "7_0"], run)

    assert run.calls == [["scontrol", "release", "7", "8"]]


@pytest.mark.parametrize("complaint", ["Job has already finished for job 7", "Invalid job id specified for job 7"])
def test_a_job_that_has_ended_needs_no_release(complaint):
    """Releasing twice does no harm."""
    assert release(["7_0"], FakeRun(scontrol=(1, complaint))) is None


@pytest.mark.parametrize("answer", [(1, "Access/permission denied"), ABSENT])
def test_a_failed_release_is_told(answer):
    """Held jobs that cannot be released are the cluster's error."""
    with pytest.raises(ClusterError, match="scontrol"):
        release(["7_0"], FakeRun(scontrol=answer))
