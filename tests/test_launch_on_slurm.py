"""Is a job told rightly on a real Slurm that never began, that is being cleared up after,
or that Slurm cannot be asked for?"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.clusters import slurm as slurm_queries
from launcher.status import slurm_states
from tests.lib.command_line import Zsg, wait_until
from tests.lib.light_grid import LIGHT
from tests.lib.slurm_cluster import SlurmCluster
from tests.lib.slurm_runs import status_rows, wait_until_ended
from tests.lib.small_runs import small_grid

pytestmark = pytest.mark.slurm

PROFILE = """
name: launch
kind: slurm
prepare: {{time_min: 30}}
train: {{nodes: 1, ranks_per_node: 1, time_min: 30}}
slurm: {{partition: main}}
container: {container}
environment: {{set: {{PYTHONPATH: {light}, LIGHT_STEP_S: "0"}}}}
"""


def write_profile(zsg: Zsg, container: str = "{}") -> Path:
    """A profile whose train jobs compute nothing; `container`: how they start Python."""
    text = PROFILE.format(light=LIGHT, container=container)
    return zsg.write("launch.yaml", text)


@pytest.fixture
def slow_epilog(slurm: SlurmCluster, tmp_path: Path) -> Iterator[None]:
    """A site that checks each node for half a minute after a job."""
    epilog, conf = tmp_path / "epilog", slurm.folder / "slurm.conf"
    epilog.write_text("#!/bin/sh\nexec sleep 25\n")
    epilog.chmod(0o755)
    before = conf.read_text()
    conf.write_text(f"{before}Epilog={epilog}\n")
    slurm.run("scontrol", "reconfigure")
    yield
    conf.write_text(before)
    slurm.run("scontrol", "reconfigure")


def test_a_job_that_never_began_is_told_as_that(
    prepared_on_slurm: Zsg, slurm: SlurmCluster, tasks: Path
) -> None:
    """Without the workspace on the node, and without Python: each with what says it, and
    no advice of memory; mended, retry runs it."""
    zsg = prepared_on_slurm
    slurm.run("scontrol", "update", "partitionname=main", "state=down")
    zsg("submit", small_grid(zsg, tasks), "--profile", write_profile(zsg))
    folders = zsg.work / "submissions"
    shutil.move(folders, zsg.folder / "elsewhere")
    slurm.run("scontrol", "update", "partitionname=main", "state=up")
    [row] = wait_until_ended(zsg, 60)
    shutil.move(zsg.folder / "elsewhere", folders)
    [folder] = folders.iterdir()
    assert (row["state"], row["cause"]) == ("failed", "launch failed")
    assert row["evidence"].startswith(
        f"Slurm could not open the job's log: is {folder} there, and writable, on the nodes?"
    )

    write_profile(zsg, "{prefix: [env], python: /nowhere/python}")
    zsg("retry", "small", "--yes")
    [row] = wait_until_ended(zsg, 60)
    told = json.loads(zsg("why", row["run"], "--json"))
    assert told["cause"] == "launch failed"
    assert "/nowhere/python’: No such file" in told["evidence"]
    log = (zsg.work / told["file"]).read_text().splitlines()
    assert log[told["line"] - 1] == told["evidence"]
    assert "memory" not in told["next"]

    write_profile(zsg)
    zsg("retry", "small", "--yes")
    [row] = wait_until_ended(zsg, 60)
    assert row["state"] == "done"


def test_an_epilog_and_an_absent_controller_hide_no_end(
    prepared_on_slurm: Zsg,
    slurm: SlurmCluster,
    tasks: Path,
    slow_epilog: None,
    monkeypatch: pytest.MonkeyPatch,
    logged: list[str],
) -> None:
    """A run that has failed within seconds has failed while its job is COMPLETING, for
    longer than it ran; so it has while nobody can be asked."""
    zsg = prepared_on_slurm
    slurm.run("scontrol", "update", "partitionname=main", "state=down")
    zsg("submit", small_grid(zsg, tasks), "--profile", write_profile(zsg))
    shutil.rmtree(zsg.work / "corpora")
    slurm.run("scontrol", "update", "partitionname=main", "state=up")
    state = lambda: slurm.run("squeue", "-h", "-o", "%T %M").split()  # noqa: E731
    wait_until(lambda: state()[:1] == ["COMPLETING"], 60)
    ended = lambda: status_rows(zsg)[0]["state"] == "failed"  # noqa: E731
    wait_until(ended, 20)
    [row] = status_rows(zsg)
    assert (row["cause"], row["doing"]) == ("prepare failed", slurm_states.LEAVING)
    word, elapsed = state()
    wait_until(lambda: state()[1:] == [elapsed], 5)
    assert (word, status_rows(zsg)[0]["state"]) == ("COMPLETING", "failed")

    monkeypatch.setattr(slurm_queries, "ASK_S", 1.0)
    slurm.stop_controller()
    try:
        [row] = status_rows(zsg)
    finally:
        slurm.start_controller()
    assert (row["state"], row["cause"]) == ("failed", "prepare failed")
    assert "Slurm does not answer" in logged[-1]
