"""Are partitions looked at as Slurm does: one, a list of them, and under a QoS that lifts
their limits?"""

from dataclasses import replace

import pytest

from launcher.clusters.accounting import Grants
from launcher.clusters.cluster import Cluster
from launcher.clusters.profiles import Profile
from launcher.planning import partition_limits
from launcher.planning.accounting_limits import find_terms
from launcher.planning.job_request import JobRequest
from launcher.planning.partition_limits import Findings
from tests.lib.slurm_answers import a_cluster, profile

LONG = "partition long grants"


def with_long(config: dict[str, str] | None = None, **fields: str) -> Cluster:
    """The cluster, with a partition `long` beside main: of a week, and of one node."""
    cluster = a_cluster(config)
    known = dict(cluster.partitions)
    row = {**known["main"], "Default": "NO", "MaxTime": "7-00:00:00", "MaxNodes": "1"}
    known["long"] = {**row, **fields}
    return Cluster(
        config=cluster.config, partitions=known, grants=cluster.grants, user="ada"
    )


def judged(own: Profile, cluster: Cluster) -> Findings:
    """What becomes of a train job in the partitions that a profile names."""
    names = partition_limits.list_partitions(own, cluster)
    terms_of = {name: find_terms(own, cluster, name) for name in names}
    request = JobRequest(own, "train", own.train)
    return partition_limits.judge_request(request, cluster, terms_of)


@pytest.mark.parametrize(
    ("partition", "train", "refused", "noted"),
    [
        pytest.param("main,long", {"time_min": 60}, [], [], id="granted by both"),
        pytest.param("long", {"time_min": 90}, [], [], id="the longer"),
        pytest.param(
            "main,long",
            {"time_min": 90},
            [],
            ["train jobs do not start in partition main: train.time_min is 90, but"],
            id="granted by one",
        ),
        pytest.param(
            "long,main",
            {"time_min": 90, "nodes": 2},
            ["train.nodes is 2, but partition long grants 1 (MaxNodes)"],
            [],
            id="granted by none",
        ),
    ],
)
def test_of_several_partitions_the_one_that_grants_most_counts(
    partition: str, train: dict[str, int], refused: list[str], noted: list[str]
) -> None:
    """Slurm starts a job in any of them that grants it; those that do not are told."""
    own = profile(slurm={"partition": partition}, train=train)
    found = judged(own, with_long())

    assert [len(found.refusals), len(found.notes)] == [len(refused), len(noted)]
    assert [words for words in refused if words not in found.refusals[0]] == []
    assert [words for words in noted if words not in found.notes[0]] == []


def test_a_site_may_ask_that_each_partition_grants_a_job() -> None:
    """With EnforcePartLimits=ALL one that does not is a refusal."""
    own = profile(slurm={"partition": "main,long"}, train={"time_min": 90})
    found = judged(own, with_long({"EnforcePartLimits": "ALL"}))

    assert len(found.refusals) == 1
    assert "partition main grants 60" in found.refusals[0]


def test_an_unknown_partition_of_a_list_is_named() -> None:
    """sbatch refuses the whole list; the others are there."""
    own = profile(slurm={"partition": "main,lnog,,long"})
    found = partition_limits.check_names(own, with_long())

    assert found.refusals == (
        "there is no partition 'lnog'; set slurm.partition in the profile to one of main, gpu,"
        " long",
    )


@pytest.mark.parametrize(
    ("settings", "config", "main", "words"),
    [
        (
            {"partition": "magic"},
            {"JobSubmitPlugins": "lua"},
            {},
            "there is no partition 'magic', but a job_submit plugin",
        ),
        (
            {},
            {"JobSubmitPlugins": "job_submit/lua"},
            {"Default": "NO"},
            "there is no default partition, but a job_submit plugin",
        ),
    ],
)
def test_where_a_plugin_may_choose_the_partition_it_is_told_and_submitted(
    settings: dict[str, str], config: dict[str, str], main: dict[str, str], words: str
) -> None:
    """A program of the site changes jobs as they come: nobody knows from here."""
    own, cluster = profile(slurm=settings), a_cluster(config, main)
    found = partition_limits.check_names(own, cluster)

    assert found.refusals == ()
    assert words in found.notes[0]


@pytest.mark.parametrize(
    ("qos", "train", "main", "words"),
    [
        pytest.param("long", {"time_min": 90}, {}, None, id="time"),
        pytest.param("LONG", {"time_min": 90}, {}, None, id="in any case"),
        pytest.param("long", {"nodes": 3}, {}, None, id="most nodes"),
        pytest.param("long", {"nodes": 1}, {"MinNodes": "2"}, None, id="least nodes"),
        pytest.param(
            "normal", {"time_min": 90}, {}, "main grants 60", id="another QoS"
        ),
        pytest.param(
            "normal",
            {"nodes": 1},
            {"MinNodes": "2"},
            "takes no job of less than 2 (MinNodes)",
            id="least nodes of another QoS",
        ),
        pytest.param(
            "long",
            {"nodes": 5},
            {},
            "grants 4 (nodes in all)",
            id="more than there are",
        ),
        pytest.param(
            "long",
            {"time_min": 7 * 24 * 60 + 1},
            {},
            "QoS long grants 10080 (MaxWall)",
            id="its own limit",
        ),
    ],
)
def test_a_qos_lifts_limits_of_partitions(
    qos: str, train: dict[str, int], main: dict[str, str], words: str | None
) -> None:
    """By its flags PartitionTimeLimit, PartitionMaxNodes and PartitionMinNodes."""
    found = judged(profile(slurm={"qos": qos}, train=train), a_cluster(main=main))

    assert len(found.refusals) == (words is not None)
    assert words is None or words in found.refusals[0]


def test_where_flags_are_not_known_it_is_told_and_submitted() -> None:
    """slurmdbd is away: a QoS may lift what the partition does not grant."""
    cluster = a_cluster()
    unknown = Cluster(config=cluster.config, partitions=cluster.partitions, user="ada")
    found = judged(profile(slurm={"qos": "long"}, train={"time_min": 90}), unknown)

    assert found.refusals == ()
    assert (
        "submitted all the same, as a QoS may lift that (PartitionTimeLimit)"
        in (found.notes[0])
    )


@pytest.mark.parametrize(
    ("settings", "main", "words"),
    [
        ({}, {"State": "DRAIN"}, "partition main is DRAIN: it takes no jobs"),
        ({}, {"ReqResv": "YES"}, "set slurm.reservation"),
        ({"reservation": "r"}, {"ReqResv": "YES"}, None),
        ({}, {"RootOnly": "YES"}, "takes jobs of root only"),
        ({}, {"MaxCPUsPerNode": "1"}, None),
        ({}, {"AllowAccounts": "bio"}, "does not take slurm.account nlp; it takes bio"),
        ({"account": "NLP"}, {"AllowAccounts": "Nlp,bio"}, None),
        ({}, {"AllowQos": "long"}, "does not take slurm.qos normal; it takes long"),
        ({"qos": "Long"}, {"AllowQos": "long", "DenyQos": "long"}, None),
        (
            {"account": "nlp"},
            {"AllowAccounts": "ALL", "DenyAccounts": "NLP"},
            "all but",
        ),
    ],
)
def test_who_may_use_a_partition(
    settings: dict[str, str], main: dict[str, str], words: str | None
) -> None:
    """Accounts and QoS in any case, those that a user has by default, too."""
    found = judged(profile(slurm=settings), a_cluster(main=main))

    assert len(found.refusals) == (words is not None)
    assert words is None or words in found.refusals[0]


def below_physics(version: str, main: dict[str, str]) -> Cluster:
    """A cluster of this version where ada's account is lab, below optics, below physics."""
    above = {"lab": "optics(7)", "optics": "physics(3)", "physics": ""}
    rows = {name: {"Account": name, "ParentAccount": above[name]} for name in above}
    own_row = {"Account": "lab", "UserName": "ada(1)", "DefAssoc": "Yes"}
    cluster = a_cluster({"SLURM_VERSION": version}, main)
    return replace(
        cluster, grants=Grants(associations=(own_row,), accounts=rows, is_whole=True)
    )


@pytest.mark.parametrize(
    ("version", "main", "refused", "noted"),
    [
        ("24.05.3", {"AllowAccounts": "bio,Physics"}, None, None),
        ("25.11.0-1", {"AllowAccounts": "optics"}, None, None),
        ("24.11.2", {"AllowAccounts": "bio"}, "it takes bio", None),
        ("24.11.2", {"DenyAccounts": "physics"}, "it takes all but physics", None),
        ("24.11.2", {"DenyAccounts": "bio"}, None, None),
        ("22.05.8", {"AllowAccounts": "physics"}, "it takes physics", None),
        ("22.05.8", {"DenyAccounts": "physics"}, None, None),
        ("23.11.1", {"AllowAccounts": "physics"}, None, "not every version of Slurm"),
        ("23.11.1", {"DenyAccounts": "optics"}, None, "not every version of Slurm"),
        ("23.11.1", {"AllowAccounts": "bio"}, "it takes bio", None),
    ],
)
def test_a_partition_that_lists_an_account_means_those_below_it(
    version: str, main: dict[str, str], refused: str | None, noted: str | None
) -> None:
    """Since a version of Slurm, both where accounts are taken and where they are not; of
    versions between nobody is sure, which is told."""
    found = judged(profile(), below_physics(version, main))

    for words, texts in ((refused, found.refusals), (noted, found.notes)):
        assert len(texts) == (words is not None)
        assert words is None or words in texts[0]


def test_where_accounts_above_are_not_told_a_partition_is_tried() -> None:
    """What takes another account may take one that is above ours; that is told."""
    cluster = below_physics("24.05.3", {"AllowAccounts": "science"})
    assert len(judged(profile(), cluster).refusals) == 1

    accounts = {**cluster.grants.accounts, "physics": {"Account": "physics"}}
    hidden = replace(cluster, grants=replace(cluster.grants, accounts=accounts))
    found = judged(profile(), hidden)
    assert found.refusals == ()
    assert "submitted all the same, as the accounts above lab are" in found.notes[0]


def test_what_a_partition_may_refuse_as_seen_from_here_is_told() -> None:
    """Its state, its groups and the machines it takes jobs from; nothing is refused for them."""
    cluster = a_cluster(
        main={"State": "DOWN", "AllowGroups": "bio", "AllocNodes": "login[1-2]"}
    )
    there = Cluster(
        partitions=cluster.partitions,
        user="ada",
        groups=frozenset({"nlp"}),
        host="login3",
    )

    assert list(partition_limits.list_notes("main", there)) == [
        "partition main: it is DOWN: jobs wait until it is up",
        "partition main takes users of the groups bio only, and ada is in none of them here",
        "partition main takes jobs from login[1-2] only, and this is login3",
    ]
