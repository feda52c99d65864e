"""Do status, logs and why tell the truth of jobs on a real Slurm that are killed,
frozen or requeued?"""

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lib.command_line import Zsg, wait_until
from tests.lib.slurm_cluster import SlurmCluster
from tests.lib.slurm_runs import LONG, profile, wait_for_step, wait_until_ended
from tests.lib.small_runs import small_grid

pytestmark = pytest.mark.slurm


def ranks_of(zsg: Zsg) -> dict[int, int]:
    """The process of each rank of the one train job."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended while we looked
            command = (process / "cmdline").read_bytes()
            variables = dict(
                v.split(b"=", 1)
                for v in (process / "environ").read_bytes().split(b"\0")
                if b"=" in v
            )
            if (
                b"submitit.core._submit" in command
                and str(zsg.work).encode() in command
                and b"srun" not in command
            ):
                found[int(variables[b"SLURM_PROCID"])] = int(process.name)
    return found


@contextlib.contextmanager
def frozen(processes: list[int]) -> Iterator[None]:
    """Within, these processes stand still."""
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGCONT)


def test_a_rank_that_is_killed_is_named(
    prepared_on_slurm: Zsg, slurm: SlurmCluster, tasks: Path
) -> None:
    """While it runs status shows its heart; killed on the second node, its rank is what
    why names, and logs show."""
    zsg = prepared_on_slurm
    zsg(
        "submit", small_grid(zsg, tasks, steps=LONG), "--profile", profile(zsg, nodes=2)
    )
    wait_for_step(zsg, 4)
    [live] = zsg.status()
    os.kill(ranks_of(zsg)[1], signal.SIGKILL)
    [row] = wait_until_ended(zsg, 240)
    told = json.loads(zsg("why", row["run"], "--json"))

    assert (live["state"], live["attempt"], live["node"]) == ("running", 1, "n[1-2]")
    assert live["heartbeat_s"] < 20
    assert row["state"] == "failed"
    assert (told["cause"], "task 1: Killed" in told["evidence"]) == ("died", True), told
    proof = (
        (zsg.work / told["file"]).read_bytes().split(b"\n")[told["line"] - 1].decode()
    )
    assert proof == told["evidence"]
    assert (
        "=== zsg attempt 1, rank 1 of 2"
        in zsg("logs", row["run"], "--rank", "1", "--all").splitlines()[0]
    )
    [group] = json.loads(zsg("why", "small", "--json"))
    assert (group["cause"], group["count"], group["runs"]) == ("died", 1, [row["run"]])


@pytest.mark.soak(part="slurm")
def test_a_run_that_shows_nothing_is_unknown(
    prepared_on_slurm: Zsg, tasks: Path
) -> None:
    """A minute after its processes froze a run is no longer called running; awake again
    it is, and ends done."""
    zsg = prepared_on_slurm
    zsg("submit", small_grid(zsg, tasks, steps=LONG), "--profile", profile(zsg))
    wait_for_step(zsg, 4)
    with frozen(list(ranks_of(zsg).values())):
        time.sleep(45)
        assert zsg.status()[0]["state"] == "running"
        wait_until(lambda: zsg.status()[0]["state"] == "unknown", 30)
        [row] = zsg.status()
        assert row["cause"].startswith("no sign of life for ")
        assert "Slurm still holds" in zsg(
            "plan", zsg.folder / "small.yaml", "--profile", profile(zsg), "--retry"
        )
    wait_until(lambda: zsg.status()[0]["state"] in ("running", "done"), 60)
    assert wait_until_ended(zsg, 300)[0]["state"] == "done"
