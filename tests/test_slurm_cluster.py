"""Is the suite's private Slurm a real one, and does it leave nothing behind?"""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lib import slurm_cluster
from tests.lib.slurm_cluster import ClusterError, SlurmCluster, conf_files, processes_of

pytestmark = pytest.mark.slurm
STUBBORN = "trap '' TERM; setsid sleep 300 & sleep 300"


def becomes_true(question: Callable[[], bool], limit_s: float = 60) -> bool:
    """Whether the answer turned to yes before the limit."""
    deadline = time.monotonic() + limit_s
    while not (answer := question()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return answer


def states(cluster: SlurmCluster, job: str) -> list[str]:
    """The states accounting knows for the tasks of one job."""
    return cluster.run("sacct", "-X", "-n", "-P", "-j", job, "-o", "state").split()


def is_running(cluster: SlurmCluster, job: str) -> bool:
    """What Slurm itself says; accounting learns of it some four seconds later."""
    return cluster.run("squeue", "-h", "-j", job, "-o", "%T") == "RUNNING\n"


def test_srun_reaches_every_node(slurm: SlurmCluster) -> None:
    """One srun over two nodes runs on both."""
    printed = slurm.run("srun", "-N2", "printenv", "SLURMD_NODENAME")

    assert sorted(printed.split()) == ["n1", "n2"]


def test_accounting_sees_an_array(slurm: SlurmCluster) -> None:
    """Each task of a finished array job is COMPLETED in sacct."""
    job = slurm.run(
        "sbatch", "--parsable", "--array=0-2", "-o", "/dev/null", "--wrap", "true"
    ).strip()

    assert becomes_true(lambda: states(slurm, job) == ["COMPLETED"] * 3), states(
        slurm, job
    )


def test_stop_ends_its_own_processes_only(slurm: SlurmCluster, tmp_path: Path) -> None:
    """A second cluster that runs a job deaf to SIGTERM leaves no process behind, and
    the first one lives on."""
    with SlurmCluster(tmp_path / "second", nodes=1) as second:
        job = second.run(
            "sbatch", "--parsable", "-o", "/dev/null", "--wrap", STUBBORN
        ).strip()
        assert becomes_true(lambda: is_running(second, job))
        assert processes_of(second.folder)

    assert processes_of(second.folder) == set()
    assert "n1" in slurm.run("srun", "-w", "n1", "printenv", "SLURMD_NODENAME")


def test_stop_may_be_called_twice(tmp_path: Path) -> None:
    """Stopping a cluster that never started does nothing."""
    cluster = SlurmCluster(tmp_path / "never")

    cluster.stop()
    cluster.stop()

    assert not cluster.folder.exists()


def test_a_killed_owner_leaves_nothing(slurm: SlurmCluster, tmp_path: Path) -> None:
    """A cluster whose owner is killed with SIGKILL ends by itself, its jobs included."""
    folder = tmp_path / "orphan"
    argv = [sys.executable, slurm_cluster.__file__, str(folder), "--nodes", "1"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout and any(line == "ready\n" for line in owner.stdout)
        orphan = SlurmCluster(folder)
        job = orphan.run(
            "sbatch", "--parsable", "-o", "/dev/null", "--wrap", STUBBORN
        ).strip()
        assert becomes_true(lambda: is_running(orphan, job))

        owner.send_signal(signal.SIGKILL)

    assert becomes_true(lambda: processes_of(folder) == set()), processes_of(folder)


def test_a_failed_start_quotes_the_log(
    slurm: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon that refuses its configuration is named with its own words, and the
    others are ended."""
    monkeypatch.setattr(
        slurm_cluster,
        "SLURM_CONF",
        slurm_cluster.SLURM_CONF + "SelectType=select/nonsense\n",
    )
    broken = SlurmCluster(tmp_path / "broken", nodes=1)

    with pytest.raises(
        ClusterError, match=r"(?s)slurmctld: waited for its port.*nonsense"
    ):
        broken.start()

    assert processes_of(broken.folder) == set()


def test_a_used_folder_is_refused(slurm: SlurmCluster) -> None:
    """Two clusters never share a folder."""
    with pytest.raises(ClusterError, match="is not empty; name a new folder"):
        SlurmCluster(slurm.folder).start()


def test_pretend_gpus_are_declared() -> None:
    """Each pretend GPU is a device file of its own, since slurmd counts files."""
    ports = {"slurmdbd": 1, "slurmctld": 2, "n1": 3}

    limits = {"kill_wait_s": 30, "max_array_size": 101, "max_jobs": 10_000}
    texts = conf_files(Path("/c"), "host", "10.0.0.1", ports, 4, 8, **limits)

    assert (
        "NodeName=n1 NodeAddr=127.0.0.1 Port=3 CPUs=4 RealMemory=4000 Gres=gpu:a800:8\n"
        in texts["slurm.conf"]
    )
    assert (
        texts["gres.conf"]
        == "AutoDetect=off\nName=gpu Type=a800 File=/c/dev/nvidia[0-7]\n"
    )
