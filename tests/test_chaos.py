"""Is every run done once, with the numbers of an undisturbed one, whatever is killed,
and was status never false?"""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lib.builders import copy_made
from tests.lib.command_line import Zsg, wait_until
from tests.lib.light_grid import CLUSTER, LIGHT, write_grid, write_local_profile
from tests.lib.mlflow_contents import assert_exactly_once
from tests.lib.requirements import new_slurm
from tests.lib.slurm_cluster import SlurmCluster
from tests.lib.storm import Storm, digests, values

pytestmark = pytest.mark.slurm

DEEPSPEED = """
name: storm
kind: slurm
prepare: {time_min: 30}
train: {nodes: 2, ranks_per_node: 1, time_min: 30}
slurm: {partition: main, array_parallelism: 2}
"""


@pytest.fixture
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    """A Slurm for each storm: what one leaves of it, a node that is draining, a job
    that hangs, is nobody else's."""
    with new_slurm(tmp_path_factory) as cluster:
        yield cluster


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, small enough to be filled."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", folder], check=True
    )
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def undisturbed(zsg: Zsg, made: Path, tasks: Path, runs: int, steps: int) -> Path:
    """The workspace of the grid's runs as this machine makes them without torch when
    nothing happens."""
    grid, calm = write_grid(zsg, tasks, runs, steps), zsg.folder / "calm"
    copy_made(made, calm)
    zsg(
        "submit",
        grid,
        "--workspace",
        calm,
        "--profile",
        write_local_profile(zsg, step_s=0),
    )
    return calm


def storm(
    zsg: Zsg, slurm: SlurmCluster, disk: Path, calm: Path, cluster: str, seed: int
) -> Storm:
    """A storm over the grid, in a workspace on a disk that can be filled; what prepare
    makes is there."""
    work = disk / "work"
    work.mkdir(mode=0o700)
    copy_made(calm, work)
    zsg.env["ZSG_WORKSPACE"] = str(work)
    zsg.__class__ = type("Elsewhere", (Zsg,), {"work": work})
    return Storm(
        zsg,
        slurm,
        zsg.folder / "grid.yaml",
        zsg.write("storm.yaml", cluster),
        seed,
        disk,
    )


def judge(raging: Storm, calm: Path, rows: list[dict]) -> None:
    """Every run once, no job or process left, the undisturbed run's numbers, MLflow's
    too, and no lie of status."""
    wait_until(lambda: not raging.jobs_of(), 60)
    wait_until(lambda: not raging._ranks(), 60)
    for row in rows:
        assert values(raging.zsg.work, row["run"]) == values(calm, row["run"])
        assert digests(raging.zsg.work, row["run"]) == digests(calm, row["run"])
    raging.zsg("sync")
    assert_exactly_once(raging.zsg.work, "storm", [row["run"] for row in rows])
    assert raging.lies() == []


@pytest.mark.parametrize(
    ("events", "runs", "steps", "step_s"),
    [
        # as long as events last: each is to find runs under way
        pytest.param(10, 8, 100, 0.3),
        pytest.param(90, 40, 500, 0.2, marks=pytest.mark.soak(part="slurm")),
    ],
)
def test_events(
    zsg_on_slurm: Zsg,
    slurm: SlurmCluster,
    made: Path,
    tasks: Path,
    disk: Path,
    events: int,
    runs: int,
    steps: int,
    step_s: float,
) -> None:
    """As many of each kind, over runs of an engine without torch."""
    calm = undisturbed(zsg_on_slurm, made, tasks, runs, steps)
    raging = storm(
        zsg_on_slurm,
        slurm,
        disk,
        calm,
        CLUSTER.format(light=LIGHT, step_s=step_s),
        seed=events,
    )
    raging.rage(events)
    judge(raging, calm, raging.calm(limit_s=30 * runs))


@pytest.mark.soak(part="slurm")
def test_twelve_events_with_deepspeed(
    zsg_on_slurm: Zsg, slurm: SlurmCluster, tasks: Path, disk: Path
) -> None:
    """The events hit real ranks, two nodes to a run; the undisturbed runs were on two
    nodes as well."""
    zsg, calm = zsg_on_slurm, zsg_on_slurm.folder / "calm"
    grid = write_grid(zsg, tasks, runs=3, steps=60)
    profile = zsg.write("calm.yaml", DEEPSPEED)
    zsg("submit", grid, "--profile", profile, "--workspace", calm)
    wait_until(
        lambda: all(row["state"] == "done" for row in zsg.status("--workspace", calm)),
        600,
    )
    raging = storm(zsg, slurm, disk, calm, DEEPSPEED, seed=3)
    raging.rage(12)
    judge(raging, calm, raging.calm(900))
