"""Is what a cluster, a disk or a guard would refuse told before anything is submitted,
with the smallest change?"""

import subprocess
from collections.abc import Sequence
from types import SimpleNamespace

import pytest

from launcher.clusters.cluster import Cluster
from launcher.clusters.profiles import Profile
from launcher.planning import admission, limits
from launcher.planning.limits import SubmitQuota
from launcher.planning.plan import Action, Plan, make_plan
from tests.lib.planned_runs import a_run
from tests.lib.slurm_answers import ASSOC_MGR, a_cluster, profile


def planned(count: int = 3, made: bool = False, **size: int) -> Plan:
    """The plan for so many new runs of one corpus, of the default size or this one."""
    runs = [
        a_run("random", seed=seed, data={"sample_seed": 0}, nodes=size.get("nodes", 1))
        for seed in range(count)
    ]
    return remake([Action(run, "submit", "new") for run in runs], made)


def remake(actions: list[Action], made: bool = False) -> Plan:
    """The plan of these actions."""
    return make_plan(actions, lambda need: made, {})


def refused(own: Profile, cluster: Cluster | None = None, **size: int) -> list[str]:
    """What is refused of a plan whose runs are of the profile's size."""
    plan = planned()
    plan.groups[0].size = own.train
    return list(limits.judge_plan(own, plan, cluster or a_cluster()).refusals)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        pytest.param({}, [], id="nothing"),
        pytest.param(
            {"train": {"time_min": 90}},
            [
                "train.time_min is 90, but partition main grants 60",
                "resources.time_min in the grid, to at most 60",
            ],
            id="MaxTime",
        ),
        pytest.param(
            {"train": {"nodes": 3}},
            ["train.nodes is 3, but partition main grants 2 (MaxNodes)"],
            id="nodes",
        ),
        pytest.param(
            {"prepare": {"time_min": 61}},
            ["set prepare.time_min to at most 60"],
            id="prepare",
        ),
        pytest.param(
            {"train": {"nodes": 2}, "slurm": {"gpus_per_node": 5}},
            [
                "asks for 10 GPUs, but partition main has 8 in all",
                "slurm.gpus_per_node",
            ],
            id="GPUs",
        ),
        pytest.param(
            {"slurm": {"partition": "mian"}},
            ["no partition 'mian'", "one of main, gpu"],
            id="partition",
        ),
        pytest.param(
            {"slurm": {"account": "nl"}},
            ["slurm.account nl is none of ada's accounts"],
            id="account",
        ),
        pytest.param(
            {"slurm": {"qos": "shrt"}},
            ["there is no QoS shrt", "normal, short"],
            id="QoS",
        ),
        pytest.param(
            {"slurm": {"qos": "short"}},
            ["but QoS short grants 30 (MaxWall)"],
            id="MaxWall of a QoS",
        ),
        pytest.param(
            {"slurm": {"qos": "short", "gpus_per_node": 5}, "train": {"time_min": 30}},
            ["gres/gpu=5, but QoS short grants 4 a job"],
            id="GPUs of a QoS",
        ),
    ],
)
def test_what_slurm_would_refuse_is_refused_first(
    settings: dict, said: list[str]
) -> None:
    """Each refusal says what, where it is set and what is granted."""
    found = refused(profile(**settings))

    assert bool(found) == bool(said)
    assert [part for part in said if part not in "; ".join(found)] == []


def test_a_partition_that_takes_other_accounts_refuses_ours() -> None:
    """AllowAccounts and AllowQos are looked at where the profile names one."""
    cluster = a_cluster(main={"AllowAccounts": "vision,bio", "DenyQos": "short"})
    own = profile(
        slurm={"account": "nlp", "qos": "short"},
        train={"time_min": 20},
        prepare={"time_min": 20},
    )
    found = refused(own, cluster)

    assert found == [
        "partition main does not take slurm.account nlp; it takes vision,bio",
        "partition main does not take slurm.qos short; it takes all but short",
    ]


def test_limits_that_accounting_does_not_enforce_bind_nobody() -> None:
    """Slurm keeps limits in its database that a site has not switched on."""
    cluster = a_cluster({"AccountingStorageEnforce": "none"})

    assert limits.find_submit_quota(profile(), cluster) is None
    assert refused(profile(slurm={"qos": "short"}), cluster) == []


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, SubmitQuota(10, "MaxSubmitJobs of account nlp is 50, and 40 are there")),
        ({"slurm": {"account": "vision"}}, None),
        (
            {"slurm": {"account": "vision", "qos": "short"}},
            SubmitQuota(44, "MaxSubmitJobsPU of QoS short is 45, and 1 are there"),
        ),
    ],
)
def test_the_tightest_limit_says_how_much_room_there_is(
    settings: dict, expected: SubmitQuota | None
) -> None:
    """Of account, user and QoS the one that leaves the least."""
    assert limits.find_submit_quota(profile(**settings), a_cluster()) == expected


@pytest.mark.parametrize(
    ("room", "runs"), [(9, 5), (6, 5), (5, 4), (2, 1), (1, 0), (0, 0)]
)
def test_what_fits_is_submitted_and_the_rest_is_left_by_name(
    room: int, runs: int
) -> None:
    """The first runs of the grid with the prepare job that they wait for; every other
    run says why it is left."""
    plan = planned(5)
    fitted = limits.cut_to_quota(
        plan, SubmitQuota(room, "MaxSubmitJobs is 9"), 0, remake
    )

    assert [action.kind for action in fitted.actions] == ["submit"] * runs + [
        "skip"
    ] * (5 - runs)
    assert fitted.jobs(0) == (runs + 1 if runs else 0)
    assert fitted.left == (
        f"{5 - runs} run{'s' * (5 - runs > 1)} left for later: MaxSubmitJobs is 9"
        if runs < 5
        else ""
    )
    assert all(
        "left for the next submit: MaxSubmitJobs is 9" == one.reason
        for one in fitted.actions[runs:]
    )


@pytest.mark.parametrize(
    ("wish", "config", "expected"),
    [
        (1000, {"MaxArraySize": "101"}, 101),
        (50, {"MaxArraySize": "101"}, 50),
        (5000, {}, 1001),
    ],
)
def test_arrays_are_as_large_as_both_allow(
    wish: int, config: dict[str, str], expected: int
) -> None:
    """Indices begin at 0, so an array may have MaxArraySize tasks."""
    assert (
        limits.array_size(profile(slurm={"max_array_size": wish}), config) == expected
    )


@pytest.mark.parametrize(
    ("settings", "hours", "said"),
    [
        ({"max_gpus": 24}, 0, None),
        (
            {"max_gpus": 23},
            0,
            "24 GPUs would be held at once, more than the profile's max_gpus 23",
        ),
        (
            {"max_gpus": 23},
            0,
            "slurm.array_parallelism: 2, or a higher max_gpus, lets it pass",
        ),
        ({"max_gpus": 7}, 0, "--only with fewer runs"),
        ({"max_gpu_hours": 12}, 12.0, None),
        (
            {"max_gpu_hours": 12},
            12.5,
            "12.5 GPU-hours as estimated, more than the profile's max_gpu_hours 12",
        ),
    ],
)
def test_the_profiles_guards_hold(
    settings: dict, hours: float, said: str | None
) -> None:
    """GPUs held at once and GPU-hours of a submit, each with what would let it pass."""
    own = profile(slurm={"gpus_per_node": 8, "array_parallelism": 4}, **settings)
    found = limits.check_guards(own, planned(3), 1000, hours, by_limits=False)

    assert (said is None and found == []) or (said or "") in found[0]


def test_the_throttle_counts_for_each_array() -> None:
    """A group that is split into arrays runs so many of each at once."""
    own = profile(slurm={"gpus_per_node": 1, "array_parallelism": 2}, max_gpus=5)

    assert limits.check_guards(own, planned(6), 3, 0, by_limits=False) == []
    assert (
        "6 GPUs would be held"
        in limits.check_guards(own, planned(6), 2, 0, by_limits=False)[0]
    )


@pytest.mark.parametrize(
    ("free_gb", "said"),
    [
        (1000, None),
        (300, "array_parallelism: 1 makes"),
        (100, "a workspace on a larger disk"),
    ],
)
def test_states_must_fit_the_disk(free_gb: float, said: str | None) -> None:
    """Two states of each run at work at once."""
    why = limits.check_disk(free_gb, state_gb=100, at_once=4)

    assert why is None if said is None else said in (why or "")


@pytest.mark.parametrize(
    ("used", "expected"),
    [
        (47, SubmitQuota(3, "MaxSubmitJobs of account nlp is 50, and 47 are there")),
        (None, SubmitQuota(10, "asked before")),
    ],
)
def test_a_submit_that_has_waited_asks_again_how_many_jobs_slurm_takes(
    used: int | None, expected: SubmitQuota
) -> None:
    """The one before it has used some; where accounting does not answer by then, what it
    said before counts."""

    def answer(
        argv: Sequence[str], **options: object
    ) -> subprocess.CompletedProcess[str]:
        text = ASSOC_MGR.replace("50(40)", f"50({used})")
        is_asked = argv[0] == "scontrol" and used is not None
        return subprocess.CompletedProcess(argv, 0, text if is_asked else "", "")

    site = SimpleNamespace(profile=profile(), cluster=a_cluster())
    before = SubmitQuota(10, "asked before")
    found = admission.renew_quota(site, before, answer)  # type: ignore[arg-type]

    assert found == expected
    assert admission.renew_quota(site, None, answer) is None  # type: ignore[arg-type]
