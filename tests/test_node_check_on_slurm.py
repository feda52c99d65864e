"""Does a check of nodes go its whole way on a real Slurm of two nodes?"""

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from jobs.contract import node_check
from tests.lib.command_line import Zsg, wait_until
from tests.lib.slurm_cluster import SlurmCluster

pytestmark = pytest.mark.slurm
LACKING = Path(__file__).parent / "lib/without_torch"
# With torch the checks take minutes on a small machine.
ENGINES = pytest.mark.parametrize(
    "engine", ["none", pytest.param("torch", marks=pytest.mark.soak(part="slurm"))]
)

PROFILE = """
name: nodes
kind: slurm
train: {{nodes: 2, ranks_per_node: 1, time_min: 30}}
slurm: {{partition: main, signal_before_end_s: 60}}
setup: {setup}
environment: {{set: {{{variables}}}}}
"""
CHECK = ("doctor", "--on-node", "--time", "4", "--profile")
FAILING = "[echo fine, 'TOKEN=hush-hush-hush; echo no such module >&2; false']"


def write_profile(zsg: Zsg, engine: str, setup: str = "[echo fine]") -> Path:
    """Two nodes with a rank each; engine `none`: they lack torch."""
    variables = f"PYTHONPATH: {LACKING}" if engine == "none" else ""
    text = PROFILE.format(setup=setup, variables=variables)
    return zsg.write("nodes.yaml", text)


def queue(slurm: SlurmCluster) -> list[str]:
    """The names of all jobs that Slurm has."""
    return slurm.run("squeue", "-h", "-o", "%j").split()


def read_report(zsg: Zsg, printed: str) -> dict[str, Any]:
    """The report that --json printed, which is kept beside the text."""
    report = json.loads(printed)
    folder = zsg.work / "checks" / report["id"]
    assert json.loads((folder / node_check.REPORT).read_text()) == report
    assert (folder / node_check.TEXT).is_file()
    return report


@ENGINES
def test_a_check_of_two_nodes_goes_its_whole_way(
    zsg_on_slurm: Zsg, slurm: SlurmCluster, engine: str
) -> None:
    """One that does not start is left with Slurm's reason, and taken up; each rank tells
    of its node; a setup line that fails is told as that; Ctrl-C ends the job."""
    zsg = zsg_on_slurm
    profile = write_profile(zsg, engine)
    slurm.run("scontrol", "update", "partitionname=main", "state=down")
    zsg(*CHECK, profile, "--wait", "0.1", code=3)
    assert "has not started" in zsg.said
    assert "PartitionDown" in zsg.said
    [name] = queue(slurm)
    assert name.startswith("zsg-check-")

    slurm.run("scontrol", "update", "partitionname=main", "state=up")
    report = read_report(zsg, zsg(*CHECK, profile, "--json", code=(0, 1)))
    assert f"job {report['job']} of an earlier call is taken up" in zsg.said
    wait_until(lambda: queue(slurm) == [], 60)
    assert (report["ranks"], report["seen"]) == (2, 2)
    assert len(set(report["nodes"])) == 2
    records, troubles = node_check.read_rank_records(zsg.work / "checks" / report["id"])
    assert [record.node for record in records] == report["nodes"]
    assert all(record.ended for record in records), troubles
    problems = [f for f in report["findings"] if f["state"] == "problem"]
    if engine == "torch":
        assert problems == []
    else:
        assert any("no torch on this node" in found["text"] for found in problems)
    assert str(zsg.folder) not in json.dumps(report)

    write_profile(zsg, engine, FAILING)
    text = " ".join(zsg(*CHECK, profile, code=1).split())
    assert "problem setup, lines: the job failed" in text
    assert "setup line 2 of 2 ended with 1: TOKEN=… (it printed" in text
    assert "it printed: no such module" in text
    assert "mend the line in the profile's setup" in text
    assert "hush-hush" not in text
    wait_until(lambda: queue(slurm) == [], 60)

    write_profile(zsg, engine, "[sleep 600]")
    process = zsg.start(*CHECK, profile, stderr=subprocess.PIPE)
    wait_until(lambda: queue(slurm) != [], 60)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "was cancelled" in said
    wait_until(lambda: queue(slurm) == [], 60)
