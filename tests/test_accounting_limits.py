"""Do limits of accounts and QoS bind as Slurm has them: the default QoS, the first that
sets one, and the accounts above?"""

from dataclasses import replace

import pytest

from launcher.clusters.cluster import Cluster
from launcher.planning import accounting_limits
from launcher.planning.accounting_limits import SubmitQuota, find_terms
from launcher.planning.job_request import JobRequest
from tests.lib.slurm_answers import a_cluster, profile


def with_qos(main: dict[str, str] | None = None, **rows: dict[str, str]) -> Cluster:
    """The cluster, with these settings of its QoS and of partition main."""
    cluster = a_cluster(main=main)
    qos = {name: {"Flags": ""} | row for name, row in cluster.grants.qos.items()}
    for name, row in rows.items():
        qos[name] = qos.get(name, {"Flags": ""}) | row
    return replace(cluster, grants=replace(cluster.grants, qos=qos))


def quota(cluster: Cluster, **settings: str) -> SubmitQuota | None:
    """How many jobs are left in main for the account vision, unless another is named."""
    own = profile(slurm={"account": "vision", "qos": "normal"} | settings)
    return accounting_limits.find_submit_quota(find_terms(own, cluster, "main"))


def refused(cluster: Cluster, **settings: object) -> list[str]:
    """What accounts and QoS do not grant a train job in main."""
    own = profile(**settings)
    terms = find_terms(own, cluster, "main")
    request = JobRequest(own, "train", own.train)
    return list(accounting_limits.check_job(terms, request))


def test_the_default_qos_binds_jobs_that_name_none() -> None:
    """The user's default, else the only one, else `normal`."""
    wall = {"MaxWallPJ": "00:10:00"}
    by_name = [
        find_terms(profile(slurm=s), a_cluster(), "main").qos
        for s in ({}, {"account": "vision"}, {"qos": "Long"})
    ]

    assert by_name == ["normal", "normal", "long"]
    assert refused(with_qos(normal=wall)) == [
        "train.time_min is 60, but QoS normal grants 10 (MaxWall); set train.time_min in the"
        " profile, or resources.time_min in the grid, to at most 10"
    ]


@pytest.mark.parametrize(
    ("cluster", "expected"),
    [
        pytest.param(with_qos(), None, id="none"),
        pytest.param(
            with_qos(normal={"MaxSubmitJobsPU": "5(0)"}),
            SubmitQuota(5, "MaxSubmitJobsPU of QoS normal is 5, and 0 are there"),
            id="of the job's QoS",
        ),
        pytest.param(
            with_qos(
                {"QoS": "Part"},
                normal={"MaxSubmitJobsPU": "5(0)"},
                part={"MaxSubmitJobsPU": "9(2)"},
            ),
            SubmitQuota(7, "MaxSubmitJobsPU of QoS part is 9, and 2 are there"),
            id="of the partition's QoS before the job's",
        ),
        pytest.param(
            with_qos(
                {"QoS": "part"},
                normal={"MaxSubmitJobsPU": "5(0)", "Flags": "OverPartQOS"},
                part={"MaxSubmitJobsPU": "9(2)"},
            ),
            SubmitQuota(5, "MaxSubmitJobsPU of QoS normal is 5, and 0 are there"),
            id="OverPartQOS",
        ),
    ],
)
def test_the_first_that_sets_a_limit_binds(
    cluster: Cluster, expected: SubmitQuota | None
) -> None:
    """Of the QoS of partition and job; what the other one sets does not count."""
    assert quota(cluster) == expected


def test_a_qos_takes_the_place_of_the_associations_limit() -> None:
    """Slurm does not look at MaxSubmitJobs of the user where a QoS sets one."""
    cluster = with_qos(normal={"MaxSubmitJobsPU": "70(1)"})

    assert quota(a_cluster(), account="nlp") == SubmitQuota(
        10, "MaxSubmitJobs of account nlp is 50, and 40 are there"
    )
    assert quota(cluster, account="nlp") == SubmitQuota(
        69, "MaxSubmitJobsPU of QoS normal is 70, and 1 are there"
    )


def with_accounts() -> Cluster:
    """The cluster, whose account vision is below lab, and that below root."""
    cluster = a_cluster()
    accounts = {
        "vision": {
            "Account": "vision",
            "ParentAccount": "Lab(9)",
            "MaxSubmitJobs": "1(9)",
        },
        "lab": {
            "Account": "lab",
            "ParentAccount": "root",
            "GrpSubmitJobs": "30(28)",
            "GrpTRES": "cpu=8(3),mem=N(0),gres/gpu=N(0)",
        },
        "root": {"Account": "root", "ParentAccount": "root", "GrpSubmitJobs": "N(99)"},
    }
    return replace(cluster, grants=replace(cluster.grants, accounts=accounts))


def test_accounts_above_limit_their_groups() -> None:
    """Their Grp limits bind, those of a single job do not."""
    assert quota(with_accounts()) == SubmitQuota(
        2, "GrpSubmitJobs of all of account lab is 30, and 28 are there"
    )
    own = {"slurm": {"account": "vision", "qos": "normal"}}
    assert refused(with_accounts(), **own, train={"cpus_per_rank": 9}) == [
        "a train job asks for cpu=9, but all of account lab grants 8 in all (GrpTRES); ask for"
        " less"
    ]


@pytest.mark.parametrize(
    ("row", "settings", "words"),
    [
        ({"MaxTRESPU": "cpu=4"}, {"train": {"cpus_per_rank": 5}}, "4 a user"),
        ({"MaxTRESPU": "cpu=4"}, {"train": {"cpus_per_rank": 4}}, None),
        ({"MaxTRESPN": "cpu=4"}, {"train": {"cpus_per_rank": 5}}, "cpu=5 on each node"),
        (
            {"MaxTRESPN": "cpu=4"},
            {"train": {"cpus_per_rank": 4, "nodes": 2}},
            None,
        ),
        (
            {"GrpTRES": "mem=8G(0)"},
            {"slurm": {"mem_gb": 9}},
            "mem=9216, but QoS normal grants 8192",
        ),
        ({"GrpTRES": "mem=9000M"}, {"slurm": {"mem_gb": 8}}, None),
        ({"MinTRESPJ": "gres/gpu=1"}, {}, "takes none below 1 (MinTRES)"),
        (
            {"MaxTRESPJ": "gres/gpu:a800=4"},
            {"slurm": {"gres": "gpu:a800:8"}},
            "gres/gpu:a800=8, but",
        ),
        ({"GrpJobs": "0(0)"}, {}, "lets no job run (GrpJobs is 0)"),
    ],
)
def test_what_never_starts_is_seen(
    row: dict[str, str], settings: dict[str, dict[str, object]], words: str | None
) -> None:
    """What a single job asks for beyond a limit of a job, a node, a user or a group."""
    found = refused(with_qos(normal=row), **settings)

    assert len(found) == (words is not None)
    assert words is None or words in found[0]


def test_accounts_are_taken_in_any_case() -> None:
    """Slurm keeps them in small letters, and takes them as they are written."""
    assert (
        list(
            accounting_limits.check_account(
                profile(slurm={"account": "NLP"}), a_cluster()
            )
        )
        == []
    )
    assert quota(a_cluster(), account="NLP") is not None


def test_a_qos_that_the_account_lacks_is_refused() -> None:
    """It is there, but the user's association does not list it; an operator may use any."""
    own = profile(slurm={"account": "vision", "qos": "long"})

    assert list(accounting_limits.check_qos(own, a_cluster())) == [
        "account vision does not grant ada the QoS long; set slurm.qos in the profile to one of"
        " normal, short"
    ]
    assert not list(accounting_limits.check_qos(own, replace(a_cluster(), user="root")))


def test_a_qos_may_take_jobs_in_reservations_only() -> None:
    """RequiresReservation is seen before the queue."""
    cluster = with_qos(normal={"Flags": "RequiresReservation"})
    terms = find_terms(profile(), cluster, "main")

    assert list(accounting_limits.check_reservation(terms, profile()))
    reserved = profile(slurm={"reservation": "r"})
    assert not list(accounting_limits.check_reservation(terms, reserved))
