"""Do jobs of a real Slurm find their workspace where links differ from node to node?"""

from pathlib import Path

import pytest

from tests.lib.builders import copy_made
from tests.lib.command_line import Zsg
from tests.lib.slurm_cluster import SlurmCluster
from tests.lib.slurm_runs import profile, wait_until_ended
from tests.lib.small_runs import small_grid

pytestmark = pytest.mark.slurm


def test_a_link_that_leads_elsewhere_on_the_nodes(
    zsg_on_slurm: Zsg, slurm: SlurmCluster, tasks: Path, made: Path
) -> None:
    """Jobs find the workspace by the link that was typed, though it leads to another
    folder by the time that they start, as it does on other machines."""
    zsg, real = zsg_on_slurm, zsg_on_slurm.folder / "real"
    copy_made(made, real / "w")
    link = zsg.folder / "home"
    link.symlink_to("real")
    zsg.env["ZSG_WORKSPACE"] = str(link / "w")
    slurm.run("scontrol", "update", "partitionname=main", "state=down")
    zsg("submit", small_grid(zsg, tasks), "--profile", profile(zsg, engine="light"))
    real.rename(zsg.folder / "of-the-node")
    link.unlink()
    link.symlink_to("of-the-node")
    slurm.run("scontrol", "update", "partitionname=main", "state=up")
    [row] = wait_until_ended(zsg, 120)

    assert row["state"] == "done", row
    assert not real.exists()
