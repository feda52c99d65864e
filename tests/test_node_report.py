"""Does the report of a node check say what is wrong, of whom, and what is still open?"""

import msgspec
import pytest

from jobs.contract.causes import Cause
from jobs.contract.node_check import Finding, FindingState, RankRecord, Section
from jobs.contract.states import State
from jobs.node_check.registry import NodeCheck
from launcher.doctor import node_report, node_report_text
from launcher.doctor.node_report import CheckedJob, describe_ranks
from launcher.doctor.setup_evidence import hide_arguments
from launcher.workspace.job_state import JobState
from tests.lib.node_checks import REQUEST, make_finding

OK, WARNING, PROBLEM = FindingState.OK, FindingState.WARNING, FindingState.PROBLEM
CHECKS = (
    NodeCheck("gpus", Section.GPUS, "Every rank has a GPU.", lambda _: [], True),
    NodeCheck("all-reduce", Section.COMMUNICATION, "Ranks add up.", lambda _: []),
    NodeCheck("kernel", Section.ATTENTION, "The kernel is right.", lambda _: [], True),
)
DONE = JobState(state=State.DONE, node="n[1-2]")


def make_record(rank: int, *findings: Finding, **changes: object) -> RankRecord:
    node = f"n{1 + rank // 4}"
    stamped = [
        msgspec.structs.replace(found, rank=rank, node=node) for found in findings
    ]
    record = RankRecord(
        attempt=1,
        rank=rank,
        node=node,
        gpu="NVIDIA A800",
        versions={"torch": "2.13"},
        ended=True,
        findings=stamped,
    )
    return msgspec.structs.replace(record, **changes)


def make_job(records: list[RankRecord], state: JobState = DONE) -> CheckedJob:
    return CheckedJob(
        id="0a1b2c3d4e5f",
        zsg="0.1.0",
        profile="p",
        kind="slurm",
        job="17",
        created=1_795_951_996_778,
        request=REQUEST,
        state=state,
        records=records,
        private={"/data/me/zsg": "WORKSPACE", "/home/me": "~"},
    )


def measured(value: float, state: FindingState = OK) -> Finding:
    return Finding(
        state=state,
        text=f"{value} GB/s",
        check="all-reduce",
        what="bandwidth",
        assumed=4.0,
        measured=value,
        unit="GB/s",
    )


def read_text(job: CheckedJob) -> str:
    """The report as one line, so that sentences are found wherever they are folded."""
    report = node_report.make_report(job, CHECKS)
    text = node_report_text.format_report(report, CHECKS)
    assert max(map(len, text.splitlines())) <= 80
    return " ".join(text.split())


def test_ranks_that_found_the_same_are_told_once() -> None:
    """With the range of what they measured; a rank that differs stands by itself."""
    records = [make_record(rank, measured(5.0 + rank / 10)) for rank in range(7)]
    records.append(make_record(7, measured(0.5, PROBLEM)))

    report = node_report.make_report(make_job(records), CHECKS)

    found = {f.state: f for f in report.findings if f.check == "all-reduce"}
    assert found[OK].measured == 5.3
    assert found[OK].figures == {"lowest": 5.0, "highest": 5.6}
    assert found[OK].ranks == list(range(7))
    assert (found[PROBLEM].rank, found[PROBLEM].node) == (7, "n2")
    assert report.state == PROBLEM
    assert report.gpus == {"NVIDIA A800": 8}
    assert report.nodes == ["n1", "n2"]


def test_a_rank_that_never_wrote_is_a_problem_that_names_node_and_rank() -> None:
    """And one that did not come to its end names the check that it was at."""
    records = [make_record(rank) for rank in range(5)]
    records.append(make_record(5, ended=False, at_work="all-reduce"))

    report = node_report.make_report(make_job(records), CHECKS)
    text = read_text(make_job(records))

    missing, cut = [f for f in report.findings if f.check == node_report.RANKS]
    assert (missing.node, missing.ranks, missing.state) == ("n2", [6, 7], PROBLEM)
    assert (cut.node, cut.ranks, cut.what) == ("n2", [5], "in-all-reduce")
    assert "ranks 6, 7 on n2 never wrote a word" in text
    assert "rank 5 on n2 did not come past the check all-reduce" in text
    assert "zsg logs checks/0a1b2c3d4e5f --rank 6" in text


def test_a_setup_line_that_fails_is_told_as_that() -> None:
    """With the line, what it printed, and what to do; not as ranks that are missing."""
    evidence = "setup line 2 of 3 ended with 127: module load cuda (it printed nothing)"
    state = JobState(
        state=State.FAILED, cause=Cause.SETUP, evidence=evidence, node="n1"
    )

    report = node_report.make_report(make_job([], state), CHECKS)
    text = read_text(make_job([], state))

    [failed] = [f for f in report.findings if f.state == PROBLEM]
    assert (failed.check, failed.section) == ("setup", Section.SETUP)
    assert evidence in failed.text
    assert "mend the line in the profile's setup" in text
    assert "not reached: the job had ended before" in text


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (Cause.LAUNCH_FAILED, "nothing of zsg has run"),
        (Cause.NODE_FAILURE, "the node failed under it"),
        (Cause.TIME_LIMIT, "zsg doctor --on-node --time"),
        ("launch failed", "nothing of zsg has run"),
        ("Slurm says COMPLETED, but the job left no record", "zsg logs checks/0a1b"),
        (None, "zsg logs checks/0a1b"),
    ],
)
def test_a_job_that_died_is_told_with_the_advice_of_its_cause(
    cause: str | None, words: str
) -> None:
    """Whatever cause status gives it, as a word of its own or as a sentence."""
    state = JobState(state=State.FAILED, cause=cause, evidence="/bin/python: gone")

    text = read_text(make_job([], state))

    assert words in text
    assert "/bin/python: gone" in text


def test_the_report_says_what_is_assumed_and_where_that_is_wrong() -> None:
    """In this order, before the sections; what nobody confirmed comes last."""
    skipped = Finding(
        state=FindingState.SKIPPED, text="this rank has no GPU", check="kernel"
    )
    records = [
        make_record(rank, measured(3.0, WARNING), skipped, make_finding())
        for rank in range(8)
    ]

    text = read_text(make_job(records))

    order = (
        "what zsg plan assumes",
        "A800-80G: 80 GB, 312 TFLOPS in bf16, of which training reaches 0.4",
        "where that is wrong",
        "all-reduce, bandwidth: assumed 4 GB/s, measured 3 GB/s",
        "what must still be confirmed",
        "not reached: the job had ended before: - gpus: Every rank has a GPU.",
        "this rank has no GPU: - kernel: The kernel is right.",
    )
    places = [text.index(words) for words in order]
    assert places == sorted(places)


def test_rank_0_speaks_for_all_where_it_alone_tells_of_a_check() -> None:
    """As of a sum over all ranks; of what each rank tells, it is named."""
    records = [make_record(0, measured(5.0), gpu="A")]
    records += [make_record(rank) for rank in range(1, 8)]

    report = node_report.make_report(make_job(records), CHECKS)

    [found] = [f for f in report.findings if f.check == "all-reduce"]
    assert (found.rank, found.ranks, found.node) == (None, [], "")


def test_what_is_skipped_for_the_same_reason_is_told_together() -> None:
    """In one entry of its part of the report, with all names."""
    state = JobState(state=State.FAILED, cause=Cause.DIED)

    text = read_text(make_job([], state))

    assert text.count("skipped ") == 3
    assert "skipped gpus: not reached: the job had ended before" in text


def test_what_cpus_confirm_gpus_must_confirm_anew() -> None:
    """Many findings of one check that are all well take one entry, with all names."""
    heads = [
        Finding(state=OK, text="right", check="kernel", what=f"bf16_{size}")
        for size in (64, 80, 96, 128)
    ]
    records = [make_record(rank, *heads, gpu="") for rank in range(8)]

    text = read_text(make_job(records))

    assert "kernel: all of bf16_64, bf16_80, bf16_96, bf16_128; bf16_64: right" in text
    assert text.count("kernel:") == 1
    assert text.endswith("GPUs must confirm it anew: - kernel")
    on_gpus = read_text(make_job([make_record(rank, *heads) for rank in range(8)]))
    assert "anew" not in on_gpus


def test_a_report_shows_no_folder_of_the_user_and_no_secret() -> None:
    """A workspace, a home and the values of variables that are named as secrets."""
    words = "/data/me/zsg/checks and /home/me/x, /home/me2/y: export HF_TOKEN=hf_abcdefgh; K=1"
    state = JobState(state=State.FAILED, cause=Cause.SETUP, evidence=words)

    text = read_text(make_job([], state))

    assert "WORKSPACE/checks and ~/x, /home/me2/y" in text
    assert "K=1" in text
    assert "/home/me/" not in text
    assert "hf_abcdefgh" not in text


HARMLESS_LINES = (
    "module load cuda/12.4 gcc",
    "source /opt/conda/etc/profile.d/conda.sh",
    "conda activate zsg",
    "/opt/site/setup.sh",
    "false",
)
KEY_LINES = {
    "wandb login s3cr3t-key": "wandb …",
    "huggingface-cli login --token s3cr3t-key --quiet": "huggingface-cli …",
    "curl -H 'Authorization: Bearer s3cr3t-key' https://a.b/c; true": "curl …",
    "curl -u me:s3cr3t-key https://a.b": "curl …",
    "module load cuda; wandb login s3cr3t-key": "module …",
    "KEY_OF_MINE=s3cr3t-key wandb login": "KEY_OF_MINE=…",
    "export A='s3cr3t-key'": "export A=…",
    "echo s3cr3t-key | wandb login --relogin": "echo …",
    'echo "x (it printed y) s3cr3t-key"': "echo …",
    "$(cat f) s3cr3t-key": "…",
}


@pytest.mark.parametrize("head", ["ended with 127", "is the last that began"])
def test_a_setup_line_that_may_hold_a_key_is_told_by_its_program(head: str) -> None:
    """With what it printed, but for the line's own words; a harmless line stays whole."""
    beginning = f"setup line 1 of 2 {head}: "
    for line in HARMLESS_LINES:
        evidence = f"{beginning}{line} (it printed: no such file cuda/12.4)"
        assert hide_arguments(evidence) == evidence
    for line, program in KEY_LINES.items():
        evidence = f"{beginning}{line} (it printed: no key s3cr3t-key; go away)"
        expected = f"{beginning}{program} (it printed: no key …; go away)"
        assert hide_arguments(evidence) == expected
    assert hide_arguments(f"{beginning}wandb login s3cr3t-key") == f"{beginning}wandb …"
    assert hide_arguments("the node is gone") == "the node is gone"


def test_a_report_of_nothing_says_so() -> None:
    """Where there are no checks to run, and the job has ended well."""
    records = [make_record(rank) for rank in range(8)]
    report = node_report.make_report(make_job(records), ())

    text = node_report_text.format_report(report, ())

    assert "result: skipped (nothing was found)" in text


@pytest.mark.parametrize(
    ("ranks", "words"),
    [
        ([3], "rank 3 on n1"),
        ([0, 1, 2], "ranks 0 to 2 on n1"),
        ([0, 2], "ranks 0, 2 on n1"),
        (list(range(0, 40, 2)), "ranks 0, 2, 4, 6, 8, 10, 12, 14 and 12 more on n1"),
    ],
)
def test_ranks_are_named_in_few_words(ranks: list[int], words: str) -> None:
    """A span by its ends; of many the first."""
    assert describe_ranks(ranks, "n1") == words
