"""Do a site's own ways with links, holds and several submits at once stop nobody, on a
real Slurm?"""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from jobs.contract.folder import Workspace
from launcher.workspace.submit_lock import find_submit_under_way
from tests.lib.builders import copy_made
from tests.lib.command_line import Zsg, wait_until
from tests.lib.slurm_cluster import SlurmCluster
from tests.lib.slurm_runs import profile, wait_until_ended
from tests.lib.small_runs import small_grid

pytestmark = pytest.mark.slurm

REFUSING = """#!/bin/sh
[ "$1" = release ] && { echo "Access/permission denied for job $2" >&2; exit 1; }
exec SCONTROL "$@"
"""
SLOW = """#!/bin/sh
while [ -e HOLD ]; do sleep 0.1; done
exec SBATCH "$@"
"""


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


def stand_before(zsg: Zsg, program: str, text: str) -> None:
    """Puts a script of that text before a program of Slurm's."""
    path = shutil.which(program, path=zsg.env["PATH"])
    folder = zsg.folder / "bin"
    folder.mkdir(exist_ok=True)
    (folder / program).write_text(text.replace(program.upper(), shlex.quote(str(path))))
    (folder / program).chmod(0o755)
    if str(folder) not in zsg.env["PATH"]:
        zsg.env["PATH"] = f"{folder}{os.pathsep}{zsg.env['PATH']}"


def test_a_refused_release_and_a_second_submit(
    prepared_on_slurm: Zsg, slurm: SlurmCluster, tasks: Path
) -> None:
    """A second submit waits for the first, of whose runs status says that they are being
    submitted; that Slurm refuses to release the jobs of both stops neither."""
    zsg = prepared_on_slurm
    slurm.run("scontrol", "update", "partitionname=main", "state=down")
    hold = zsg.folder / "hold"
    hold.touch()
    stand_before(zsg, "scontrol", REFUSING)
    stand_before(zsg, "sbatch", SLOW.replace("HOLD", shlex.quote(str(hold))))
    given = "--profile", profile(zsg)
    first = zsg.write("first.yaml", small_grid(zsg, tasks).read_text())
    second = zsg.write(
        "second.yaml",
        first.read_text()
        .replace("name: small", "name: other")
        .replace("lr: ", "lr: 2"),
    )
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    one = zsg.start("submit", first, *given, "--yes", **options)
    grid = Workspace(zsg.work).grid("small") / "grid.json"
    wait_until(lambda: grid.exists() and find_submit_under_way(Workspace(zsg.work)))
    [row] = zsg.status()
    assert row["state"] == "waiting", f"{one.poll()} {dict(row)!r}"
    assert row["cause"].startswith("being submitted: zsg submit (host ")
    assert f"process {one.pid})" in row["cause"]
    two = zsg.start("submit", second, *given, "--yes", **options)
    said = [two.stderr.readline() if two.stderr else ""]
    while "waiting for another" not in said[-1] and said[-1]:
        said.append(two.stderr.readline() if two.stderr else "")
    hold.unlink()
    ends = [process.communicate(timeout=60)[1] for process in (one, two)]

    assert f"process {one.pid}) to finish" in said[-1], said
    assert (one.returncode, two.returncode) == (0, 0), ends
    for end in ends:
        assert "is held by an administrator (" in end
        assert "Access/permission denied" in end and "the others go on" in end
    assert [row["state"] for row in zsg.status()] == ["queued", "queued"]
    assert "nothing to submit" in zsg("submit", first, *given)
