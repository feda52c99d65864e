"""Is a job on a real Slurm touched only if it is ours, whatever a wrapper prints and
the user's shell is full of?"""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lib.command_line import Zsg, wait_until
from tests.lib.light_grid import LIGHT
from tests.lib.slurm_cluster import SlurmCluster
from tests.lib.slurm_runs import wait_until_ended
from tests.lib.small_runs import small_grid

pytestmark = pytest.mark.slurm

PROFILE = """
name: ours
kind: slurm
prepare: {{time_min: 30}}
train: {{nodes: 1, ranks_per_node: 1, time_min: 30}}
slurm: {{partition: main{settings}}}
environment: {{set: {{PYTHONPATH: {light}, LIGHT_STEP_S: "0"}}}}
setup: [env > job.env]
"""


def light_profile(zsg: Zsg, settings: str = "") -> Path:
    """A profile whose train jobs compute nothing; they write their environment down."""
    return zsg.write("ours.yaml", PROFILE.format(light=LIGHT, settings=settings))


def queued(slurm: SlurmCluster, shown: str = "%i %j") -> list[str]:
    """A line for each job in the queue."""
    return slurm.run("squeue", "-h", "-r", "-o", shown).splitlines()


@pytest.fixture
def thesis(slurm: SlurmCluster) -> Iterator[str]:
    """The id of another job of the user's, which waits."""
    job = slurm.run(
        "sbatch",
        "--parsable",
        "-p",
        "main",
        "-J",
        "thesis",
        "-H",
        "-o",
        "/dev/null",
        "--wrap",
        "sleep 9",
    )
    yield job.strip()
    slurm.run("scancel", job.strip())


def stand_before(zsg: Zsg, name: str, text: str) -> None:
    """Puts a script before a program of Slurm's on the PATH; `REAL` in it is that program."""
    real = subprocess.run(
        ["which", name], capture_output=True, text=True, env=zsg.env, check=True
    ).stdout.strip()
    folder = zsg.folder / "bin"
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text.replace('REAL', real)}")
    (folder / name).chmod(0o755)
    zsg.env["PATH"] = f"{folder}:{zsg.env['PATH']}"


@pytest.mark.parametrize(
    "printed",
    [
        pytest.param(
            'echo "reminder: your job {job} holds 1 of your 4 GPUs"; exec REAL "$@"',
            id="a line before",
        ),
        pytest.param(
            'echo "Submitted batch job {job}"; REAL "$@" > /dev/null',
            id="its line in place of sbatch's",
        ),
    ],
)
def test_another_job_of_the_users_is_not_taken_for_ours(
    prepared_on_slurm: Zsg, slurm: SlurmCluster, tasks: Path, thesis: str, printed: str
) -> None:
    """Whatever sbatch's wrapper says: our own job is released and shown, and cancel
    ends it and leaves the other."""
    zsg = prepared_on_slurm
    slurm.run("scontrol", "update", "partitionname=main", "state=down")
    stand_before(zsg, "sbatch", printed.format(job=thesis))
    zsg("submit", small_grid(zsg, tasks), "--profile", light_profile(zsg))
    [ours] = [line.split()[0] for line in queued(slurm) if "zsg-small-train" in line]
    [row] = zsg.status()
    zsg("cancel", "small", "--yes")

    assert (row["slurm"], row["state"]) == (ours, "queued")
    assert "JobHeldUser" not in row["reason"]
    assert queued(slurm) == [f"{thesis} thesis"]
    assert zsg.status()[0]["state"] == "cancelled"


def test_a_number_that_is_anothers_now_is_not_touched(
    prepared_on_slurm: Zsg, slurm: SlurmCluster, tasks: Path, thesis: str
) -> None:
    """The ledger names the user's other job, as after Slurm began to count anew:
    unknown, told, and left alone."""
    zsg = prepared_on_slurm
    slurm.run("scontrol", "update", "partitionname=main", "state=down")
    zsg("submit", small_grid(zsg, tasks), "--profile", light_profile(zsg))
    [ours] = [line.split()[0] for line in queued(slurm) if "zsg-small-train" in line]
    slurm.run("scancel", ours)
    ledger = zsg.work / "ledger.jsonl"
    ledger.write_text(
        ledger.read_text().replace(f'"ids": ["{ours}"]', f'"ids": ["{thesis}"]')
    )
    [row] = zsg.status()
    zsg("cancel", "small", "--yes")

    assert row["state"] == "unknown"
    assert row["cause"].startswith(f"job {thesis} is not zsg-small-train-")
    assert "but thesis of user 0; it was not touched" in zsg.said
    assert queued(slurm) == [f"{thesis} thesis"]


def test_variables_of_squeue_change_nothing(
    prepared_on_slurm: Zsg, slurm: SlurmCluster, tasks: Path
) -> None:
    """With SQUEUE_*, SLURM_TIME_FORMAT and the like: queued, nothing is submitted
    twice, cancel ends it."""
    zsg = prepared_on_slurm
    slurm.run("scontrol", "update", "partitionname=main", "state=down")
    grid, place = small_grid(zsg, tasks), light_profile(zsg)
    zsg("submit", grid, "--profile", place)
    zsg.env |= {
        "SQUEUE_STATES": "RUNNING",
        "SQUEUE_PARTITION": "urgent",
        "SQUEUE_FORMAT": "%N",
        "SCANCEL_STATE": "R",
    }
    zsg.env |= {
        "SLURM_TIME_FORMAT": "relative",
        "SACCT_FORMAT": "User",
        "SLURM_BITSTR_LEN": "3",
    }
    [row] = zsg.status()
    again = zsg("submit", grid, "--profile", place, "--retry")
    before = len(queued(slurm))
    zsg("cancel", "small", "--yes")

    assert (row["state"], before) == ("queued", 1)
    assert "nothing to submit" in again
    assert queued(slurm) == []


def test_a_job_that_was_replaced_is_seen_and_ended(
    prepared_on_slurm: Zsg, slurm: SlurmCluster, tasks: Path
) -> None:
    """A squeue that hid the first job made its run unknown, and it was tried again:
    status tells, cancel ends both."""
    zsg = prepared_on_slurm
    slurm.run("scontrol", "update", "partitionname=main", "state=down")
    grid, place = small_grid(zsg, tasks), light_profile(zsg)
    zsg("submit", grid, "--profile", place)
    [first] = [line.split()[0] for line in queued(slurm)]
    stand_before(zsg, "squeue", '[ -e hides ] || exec REAL "$@"\n')
    stand_before(zsg, "sbatch", 'rm -f hides; exec REAL "$@"\n')
    (zsg.folder / "hides").touch()
    [lost] = zsg.status()
    zsg("submit", grid, "--profile", place, "--retry")
    [second] = [line.split()[0] for line in queued(slurm) if line.split()[0] != first]
    [row] = zsg.status()
    zsg("cancel", "small", "--yes")

    assert lost["state"] == "unknown"
    assert (row["state"], row["slurm"], row["replaced"]) == ("queued", second, [first])
    assert queued(slurm) == []


def test_a_named_cluster_is_named_in_every_call(
    prepared_on_slurm: Zsg, slurm: SlurmCluster, tasks: Path
) -> None:
    """Submitted under SLURM_CLUSTERS, looked at and cancelled without it; another name
    later moves nothing."""
    zsg = prepared_on_slurm
    slurm.run("scontrol", "update", "partitionname=main", "state=down")
    grid, place = small_grid(zsg, tasks), light_profile(zsg)
    zsg.env["SLURM_CLUSTERS"] = "zsg"
    zsg("submit", grid, "--profile", place)
    assert "note: jobs go to cluster zsg, since SLURM_CLUSTERS says so" in zsg.said
    zsg.env["SLURM_CLUSTERS"] = "moon"
    stand_before(zsg, "squeue", 'echo "$@" >> calls; exec REAL "$@"\n')
    [row] = zsg.status()
    zsg("cancel", "small", "--yes")

    assert row["state"] == "queued"
    assert {line[:7] for line in (zsg.folder / "calls").read_text().splitlines()} == {
        "-M zsg "
    }
    assert queued(slurm) == []
    zsg.env["SLURM_CLUSTERS"] = "zsg,moon"
    zsg("plan", grid, "--profile", place, code=2)
    assert "SLURM_CLUSTERS is 'zsg,moon': zsg needs one cluster" in zsg.said


def test_submitted_from_inside_an_allocation(
    prepared_on_slurm: Zsg, slurm: SlurmCluster, tasks: Path
) -> None:
    """In salloc with memory per CPU, where the profile asks for memory per node: the run is done.

    Its script sees none of the allocation's settings, only the variables to keep and
    what Slurm says of the job itself.
    """
    zsg = prepared_on_slurm
    grid, place = small_grid(zsg, tasks), light_profile(zsg, ", mem_gb: 1")
    home = zsg.folder / "home"
    home.mkdir()
    (home / ".bash_profile").write_text("export FROM_LOGIN_FILE=1\n")
    zsg.env |= {"HOME": str(home), "SECRET": "of the shell"}
    program, allocation = (
        zsg.program,
        ["salloc", "-Q", "-p", "main", "-n2", "--mem-per-cpu=100"],
    )
    zsg.program = [*allocation, *program]
    zsg("submit", grid, "--profile", place, "--yes")
    zsg.program = program
    [row] = wait_until_ended(zsg, 120)
    seen = dict(
        line.split("=", 1)
        for line in (zsg.folder / "job.env").read_text().splitlines()
        if "=" in line
    )

    assert (row["state"], row["cause"]) == ("done", None)
    assert (
        not {"SLURM_MEM_PER_CPU", "FROM_LOGIN_FILE", "SECRET", "SLURM_TIME_FORMAT"}
        & seen.keys()
    )
    assert (seen["SLURM_NTASKS"], seen["SLURM_MEM_PER_NODE"]) == ("1", "1024")
    assert seen["SLURM_CONF"] == slurm.env["SLURM_CONF"]


def test_submitted_from_an_array_task(
    prepared_on_slurm: Zsg, slurm: SlurmCluster, tasks: Path
) -> None:
    """A driver that is itself a task of an array: the run is done under its own id."""
    zsg = prepared_on_slurm
    grid, place = small_grid(zsg, tasks), light_profile(zsg)
    words = [*zsg.program, "submit", str(grid), "--profile", str(place), "--yes"]
    quoted = " ".join("'" + word.replace("'", "'\\''") + "'" for word in words)
    driver = zsg.write(
        "driver.sh",
        f"#!/bin/bash\n#SBATCH --array=3 --output=driver.log -p main\n{quoted}\n",
    )
    done = subprocess.run(
        ["sbatch", "--parsable", driver],
        cwd=zsg.folder,
        env=zsg.env,
        capture_output=True,
        text=True,
        check=True,
    )
    log = zsg.folder / "driver.log"
    wait_until(lambda: log.exists() and "small: 1 run submitted" in log.read_text(), 60)
    [row] = wait_until_ended(zsg, 120)

    assert row["state"] == "done"
    assert row["slurm"].isdigit() and row["slurm"] != done.stdout.strip()
