"""Is what a real Slurm grants, by partitions, accounts and QoS, what zsg takes it to grant?"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lib.command_line import Zsg, wait_until
from tests.lib.slurm_cluster import SlurmCluster
from tests.lib.small_runs import small_grid

pytestmark = pytest.mark.slurm

PROFILE = """
name: cluster
kind: slurm
prepare: {{time_min: {minutes}}}
train: {{time_min: {minutes}}}
slurm: {{partition: "{partition}", {more}}}
"""
SET_BACK = (
    "modify qos normal set MaxSubmitJobsPerUser=-1 MaxWall=-1",
    "modify account upper set GrpSubmitJobs=-1",
)


def account(slurm: SlurmCluster, *words: str) -> None:
    """A change of accounting, which slurmdbd tells the controller."""
    slurm.run("sacctmgr", "-i", "-Q", *words)


def shown(slurm: SlurmCluster, *what: str) -> str:
    return slurm.run("scontrol", "show", "assoc_mgr", *what)


@pytest.fixture(scope="module")
def site(slurm: SlurmCluster) -> Iterator[SlurmCluster]:
    """The cluster with a hidden partition, accounts below one another, and a QoS that
    lifts limits of partitions."""
    slurm.run("scontrol", "create", "partition=secret", "nodes=ALL", "hidden=YES")
    slurm.run("scontrol", "update", "partition=secret", "maxtime=30", "state=down")
    account(slurm, "add", "account", "upper")
    account(slurm, "add", "account", "lower", "parent=upper")
    account(slurm, "add", "user", "root", "account=lower")
    account(slurm, "add", "qos", "longer", "flags=PartitionTimeLimit,PartitionMaxNodes")
    account(slurm, "modify", "user", "root", "set", "qos+=longer")
    wait_until(lambda: "Account=lower" in shown(slurm, "users=root"))
    yield slurm
    slurm.run("scontrol", "delete", "partition=secret")
    account(slurm, "delete", "user", "root", "account=lower")
    account(slurm, "delete", "account", "lower,upper")
    account(slurm, "delete", "qos", "longer")


@pytest.fixture
def zsg_waiting(zsg_on_slurm: Zsg, site: SlurmCluster) -> Iterator[Zsg]:
    """The command line, and a cluster that takes jobs and starts none. What an earlier
    test cancelled stands in the queue until its processes are gone."""
    wait_until(lambda: not queued(site))
    for name in ("main", "urgent"):
        site.run("scontrol", "update", f"partition={name}", "state=down")
    yield zsg_on_slurm
    site.run("scancel", "--user", "root")
    site.run("scontrol", "update", "partition=urgent", "state=up", "maxtime=60")
    for words in SET_BACK:
        account(site, *words.split())


def place(zsg: Zsg, partition: str = "main", minutes: int = 30, more: str = "") -> Path:
    """A profile of the cluster."""
    text = PROFILE.format(partition=partition, minutes=minutes, more=more)
    return zsg.write(f"{len(list(zsg.folder.iterdir()))}.yaml", text)


def queued(slurm: SlurmCluster, shown: str = "%j") -> list[str]:
    """A line for each job of the queue, array tasks one by one."""
    return slurm.run("squeue", "-h", "-r", "-a", "-u", "root", "-o", shown).split("\n")[
        :-1
    ]


def doctor(zsg: Zsg, profile: Path) -> str:
    """What doctor says of a cluster whose partitions are down, which is a problem."""
    return zsg("doctor", "--profile", profile, code=3)


def test_partitions_are_those_that_sbatch_takes(
    zsg_waiting: Zsg, site: SlurmCluster, tasks: Path
) -> None:
    """Several, of which one grants enough; a hidden one; in a list none that is not there."""
    zsg, grid = zsg_waiting, small_grid(zsg_waiting, tasks)
    site.run("scontrol", "update", "partition=urgent", "maxtime=100")
    both = place(zsg, "main,urgent", 90)
    unknown = zsg("plan", grid, "--profile", place(zsg, "main,nope"), code=2)
    checks = zsg("doctor", "--profile", both)
    zsg("submit", grid, "--profile", both)
    noted = zsg.said
    of_list = set(queued(site, "%P %l"))
    site.run("scancel", "--user", "root")
    hidden = place(zsg, "secret", 31)
    planned = zsg("plan", grid, "--profile", hidden, "--retry", code=2)

    assert "there is no partition 'nope'" in unknown
    assert of_list == {"main,urgent 1:30:00"}
    assert "partition secret grants 30 (MaxTime)" in planned
    assert (
        "note: train jobs do not start in partition main: train.time_min is 90" in noted
    )
    assert "warning  partition main: main (the default), 2 nodes; " in checks
    assert "partition urgent: urgent, 2 nodes" in checks


def test_a_qos_lifts_what_a_partition_does_not_grant(
    zsg_waiting: Zsg, site: SlurmCluster, tasks: Path
) -> None:
    """Accounts and QoS in any case, values with brackets and blanks; --no-limits leaves
    the rest to Slurm."""
    zsg, grid = zsg_waiting, small_grid(zsg_waiting, tasks)
    note = 'a note; with #1, \\"quotes\\" and it\'s %j'
    options = f"sbatch: {{exclude: 'n[2]', comment: \"{note}\"}}"
    lifted = place(zsg, "main", 90, f"account: LOWER, qos: Longer, {options}")
    zsg("submit", grid, "--profile", lifted)
    jobs = set(queued(site, "%a %q %l %x %k"))
    site.run("scancel", "--user", "root")
    zsg("submit", grid, "--profile", place(zsg, "main", 90), "--retry", code=2)
    refused = zsg.said
    zsg("submit", grid, "--profile", place(zsg, "main", 90), "--retry", "--no-limits")

    assert jobs == {"lower longer 1:30:00 n2 " + note.replace("\\", "")}
    assert "main grants 60" in refused
    assert "(--no-limits submits all the same)" in refused
    assert "note: submitted all the same (--no-limits): " in zsg.said
    assert len(queued(site)) == 2


def test_the_default_qos_and_accounts_above_limit_a_submit(
    zsg_waiting: Zsg, site: SlurmCluster, tasks: Path
) -> None:
    """No profile names them: what there is room for goes, the rest is left by name."""
    zsg = zsg_waiting
    grid = small_grid(zsg, tasks, "[random, cluster, round_robin]")
    own = place(zsg, "main", 30)
    account(site, *"modify qos normal set MaxSubmitJobsPerUser=3".split())
    wait_until(lambda: "limits: 3 more jobs now" in doctor(zsg, own))
    said, count = zsg("submit", grid, "--profile", own), len(queued(site))
    account(site, *"modify qos normal set MaxSubmitJobsPerUser=-1 MaxWall=10".split())
    wait_until(lambda: "MaxWallPJ=10" in shown(site, "flags=qos"))
    planned = zsg("plan", grid, "--profile", own, code=2)
    site.run("scancel", "--user", "root")
    account(site, *"modify qos normal set MaxWall=-1".split())
    account(site, *"modify account upper set GrpSubmitJobs=2".split())
    wait_until(lambda: "GrpSubmitJobs=2(" in shown(site, "accounts=upper"))
    below = place(zsg, "main", 30, "account: lower")

    assert count == 3
    assert "MaxSubmitJobsPU of QoS normal is 3, and 0 are there" in said
    assert "train.time_min is 30, but QoS normal grants 10 (MaxWall)" in planned
    assert (
        "2 more jobs now: GrpSubmitJobs of all of account upper is 2, and 0 are there"
        in doctor(zsg, below)
    )
