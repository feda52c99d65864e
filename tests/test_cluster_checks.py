"""Does `zsg doctor` see where a profile and its cluster disagree, and name the line to change?"""

import json

import pytest

from launcher.clusters import cluster
from launcher.doctor import cluster_checks
from launcher.doctor.diagnosis import OK, PROBLEM, WARNING
from tests.lib.command_line import Zsg
from tests.lib.slurm_answers import CONFIG, PARTITIONS, a_cluster, profile


def test_scontrol_is_read_line_by_line() -> None:
    """`scontrol show config` becomes names and values; heads and tails are no settings."""
    config = cluster.parse_config(CONFIG)

    assert len(config) == 7
    assert (config["KillWait"], config["AuthInfo"]) == ("30 sec", "socket=/run/munge")


def test_partitions_are_read_one_a_line() -> None:
    """`scontrol show partition -o` becomes a mapping for each partition."""
    found = cluster.parse_partitions(PARTITIONS)

    assert list(found) == ["main", "gpu"]
    assert (found["main"]["MaxTime"], found["gpu"]["State"]) == ("01:00:00", "DOWN")
    assert cluster.parse_partitions("") == {}


@pytest.mark.parametrize(
    ("gres", "expected"),
    [
        ("gpu:a800:8", {"a800": 8}),
        ("gpu:8", {"": 8}),
        ("gpu:a800:8(S:0-1),nvme:2", {"a800": 8}),
        ("gpu:a100:2(IDX:0,3),gpu:h100:4", {"a100": 2, "h100": 4}),
        ("(null)", {}),
        ("", {}),
    ],
)
def test_the_gpus_of_a_node_are_counted_by_type(
    gres: str, expected: dict[str, int]
) -> None:
    """Sockets and indices in brackets are no GPUs, and other resources neither."""
    assert cluster.parse_gpus(gres) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("01:00:00", 60),
        ("7-00:30:00", 7 * 24 * 60 + 30),
        ("00:00:30", 0.5),
        ("UNLIMITED", float("inf")),
    ],
)
def test_time_limits_are_minutes(text: str, expected: float) -> None:
    """Days, hours, minutes and seconds; no limit is infinite."""
    assert cluster.parse_minutes(text) == expected


@pytest.mark.parametrize(
    ("changes", "settings", "what", "verdict", "said"),
    [
        pytest.param(
            {},
            {},
            "arrays",
            OK,
            "up to 101 jobs each, Slurm's MaxArraySize",
            id="arrays that are split",
        ),
        pytest.param({}, {}, "KillWait", OK, "30 s", id="the site's KillWait"),
        pytest.param(
            {},
            {"slurm": {"kill_wait_s": 60}},
            "KillWait",
            WARNING,
            "kill_wait_s: 30",
            id="less than said",
        ),
        pytest.param({}, {}, "accounting", OK, "slurmdbd", id="accounting"),
        pytest.param(
            {"AccountingStorageType": "accounting_storage/none"},
            {},
            "accounting",
            WARNING,
            "unknown",
            id="none",
        ),
        pytest.param(
            {"AccountingStorageType": "(null)"},
            {"slurm": {"sacct": False}},
            "accounting",
            OK,
            "not asked",
            id="not wanted",
        ),
        pytest.param(
            {"MaxJobCount": "50"},
            {},
            "MaxJobCount",
            WARNING,
            "smaller",
            id="a short queue",
        ),
        pytest.param(
            {"JobRequeue": "0"},
            {},
            "requeue",
            OK,
            "where a job asks for it",
            id="no requeue by default",
        ),
    ],
)
def test_the_cluster_is_compared_with_the_profile(
    changes: dict[str, str],
    settings: dict[str, object],
    what: str,
    verdict: str,
    said: str,
) -> None:
    """Each setting of the cluster that contradicts the profile is told with the line to change."""
    config = cluster.parse_config(CONFIG) | changes
    checks = {
        check.what: check
        for check in cluster_checks.check_settings(config, profile(**settings))
    }

    assert checks[what].verdict == verdict
    assert said in checks[what].line
    assert bool(checks[what].advice) == (verdict != OK)


@pytest.mark.parametrize(
    ("config", "row", "verdict", "said"),
    [
        ({"PreemptType": "preempt/none"}, {}, OK, "off"),
        ({}, {"PreemptMode": "OFF"}, OK, "off"),
        ({}, {"PreemptMode": "GANG,SUSPEND"}, OK, "is suspended"),
        (
            {},
            {"PreemptMode": "REQUEUE", "GraceTime": "0"},
            WARNING,
            "preempt_send_user_signal",
        ),
        (
            {},
            {"PreemptMode": "CANCEL", "GraceTime": "60"},
            WARNING,
            "zsg submit resumes",
        ),
        (
            {"SlurmctldParameters": "enable_configless,preempt_send_user_signal"},
            {"PreemptMode": "REQUEUE", "GraceTime": "60"},
            OK,
            "told 60 s before",
        ),
    ],
)
def test_how_a_preempted_run_is_warned(
    config: dict, row: dict, verdict: str, said: str
) -> None:
    """Without a signal of its own a run has the grace time and KillWait, which the check says."""
    found = a_cluster({"PreemptType": "preempt/partition_prio", **config}, main=row)

    [check] = cluster_checks.check_preemption(found, profile())

    assert (check.verdict, said in check.line) == (verdict, True), check.line


@pytest.mark.parametrize(
    ("settings", "verdict", "said"),
    [
        pytest.param({}, OK, "main (the default), 4 nodes", id="the default"),
        pytest.param(
            {"slurm": {"partition": "main"}}, OK, "main (the default)", id="named"
        ),
        pytest.param(
            {"slurm": {"partition": "man"}},
            PROBLEM,
            "there is no 'man'; slurm.partition",
            id="unknown",
        ),
        pytest.param({"slurm": {"partition": "gpu"}}, PROBLEM, "it is DOWN", id="down"),
        pytest.param(
            {"train": {"time_min": 61}},
            PROBLEM,
            "train.time_min is 61, but",
            id="too long",
        ),
        pytest.param(
            {"prepare": {"time_min": 90}},
            PROBLEM,
            "prepare.time_min is 90",
            id="prepare too long",
        ),
        pytest.param(
            {"train": {"nodes": 3}},
            PROBLEM,
            "train.nodes is 3, but",
            id="too many nodes",
        ),
    ],
)
def test_the_partition_grants_what_is_asked(
    settings: dict[str, object], verdict: str, said: str
) -> None:
    """The profile's partition, or the default one, exists, is up, and has the time and
    the nodes."""
    [check] = cluster_checks.check_partitions(a_cluster(), profile(**settings))

    assert check.verdict == verdict
    assert said in check.line


def test_a_cluster_without_a_default_partition_needs_a_name() -> None:
    """Where no partition is the default, the profile must name one, and the message lists them."""
    without = a_cluster(main={"Default": "NO"})
    [check] = cluster_checks.check_partitions(without, profile())

    assert (check.verdict, check.advice) == (
        PROBLEM,
        "slurm.partition in the profile, one of: main, gpu",
    )


@pytest.mark.parametrize(
    ("settings", "what", "verdict", "said"),
    [
        ({}, "account", OK, "nlp"),
        ({"account": "vision"}, "account", OK, "vision"),
        (
            {"account": "nlpp"},
            "account",
            PROBLEM,
            "none of ada's accounts; set it to one of nlp, vision",
        ),
        ({"qos": "shrt"}, "account", PROBLEM, "there is no QoS shrt"),
        ({}, "limits", OK, "10 more jobs now: MaxSubmitJobs of account nlp is 50"),
        (
            {"qos": "short"},
            "limits",
            WARNING,
            "train.time_min is 60, but QoS short grants 30",
        ),
    ],
)
def test_account_and_qos_are_the_users(
    settings: dict, what: str, verdict: str, said: str
) -> None:
    """What accounting does not know, or does not grant, is told before a job is refused for it."""
    checks = {
        check.what: check
        for check in cluster_checks.check_accounts(a_cluster(), profile(slurm=settings))
    }

    assert (checks[what].verdict, said in checks[what].line) == (verdict, True), checks[
        what
    ].line


NODES = cluster.parse_nodes(
    "n1|gpu:a800:8(S:0-1)|512000|64|ib\nn2|gpu:a800:8|512000|64|ib\nn3|gpu:v100:4|64000|32|\n"
)


@pytest.mark.parametrize(
    ("settings", "what", "verdict", "said"),
    [
        ({}, "GPUs", OK, "a node has gpu:a800:8 or gpu:v100:4, asked for are 0"),
        (
            {"slurm": {"gpus_per_node": 8}, "train": {"nodes": 2}},
            "GPUs",
            OK,
            "asked for are 8",
        ),
        (
            {"slurm": {"gpus_per_node": 8}, "train": {"nodes": 3}},
            "GPUs",
            PROBLEM,
            "2 nodes have 8, a run wants 3",
        ),
        (
            {"slurm": {"gpus_per_node": 8, "gpu_type": "a100"}},
            "GPUs",
            PROBLEM,
            "0 nodes have 8 of type a100",
        ),
        (
            {"slurm": {"gres": "gpu:v100:8"}},
            "GPUs",
            PROBLEM,
            "slurm.gres in the profile",
        ),
        ({"slurm": {"mem_gb": 600}}, "memory", PROBLEM, "slurm.mem_gb: 500 or less"),
        ({"slurm": {"mem_gb": 500}}, "memory", OK, "asked for is 500 GB"),
        (
            {"train": {"ranks_per_node": 8, "cpus_per_rank": 16}},
            "CPUs of train jobs",
            PROBLEM,
            "cpus_per_rank: 8",
        ),
    ],
)
def test_the_nodes_offer_what_a_job_asks_for(
    settings: dict, what: str, verdict: str, said: str
) -> None:
    """GPUs by type and count, memory and CPUs, against what sinfo says of each node."""
    checks = {
        check.what: check
        for check in cluster_checks.check_nodes(NODES, profile(**settings))
    }

    assert (checks[what].verdict, said in checks[what].line) == (verdict, True), checks[
        what
    ].line


@pytest.mark.slurm
def test_the_doctor_of_a_cluster(zsg_on_slurm: Zsg) -> None:
    """On a real Slurm it finds what the profile gets wrong, with the line to change;
    mended, there is no problem."""
    text = "name: mine\ninherits: slurm-minimal\nslurm: {partition: PARTITION, mem_gb: MEMORY}\n"
    wrong = zsg_on_slurm.write(
        "wrong.yaml", text.replace("PARTITION", "nowhere").replace("MEMORY", "3")
    )
    large = zsg_on_slurm.write(
        "large.yaml", text.replace("PARTITION", "main").replace("MEMORY", "4000")
    )
    right = zsg_on_slurm.write(
        "right.yaml", text.replace("PARTITION", "main").replace("MEMORY", "3")
    )
    said = zsg_on_slurm("doctor", "--profile", wrong, code=3)
    too_large = zsg_on_slurm("doctor", "--profile", large, code=3)
    rows = {
        row["what"]: row
        for row in json.loads(zsg_on_slurm("doctor", "--profile", right, "--json"))
    }

    assert (
        "problem  partition: there is no 'nowhere'; slurm.partition in the profile, one of: main,"
        " urgent" in said
    )
    assert "slurm.mem_gb: 3 or less in the profile" in too_large
    sound = (
        "slurm",
        "arrays",
        "KillWait",
        "accounting",
        "partition",
        "account",
        "limits",
        "GPUs",
        "memory",
    )
    assert {rows[what]["verdict"] for what in sound} == {OK}
    assert rows["accounting"]["found"] == "slurmdbd"
    assert rows["arrays"]["found"].startswith("up to 101 jobs each")
    assert rows["preemption"]["found"] == "REQUEUE, a run is told by SIGTERM only"
