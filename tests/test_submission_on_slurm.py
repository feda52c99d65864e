"""Does a large or limited submission reach a real Slurm as planned? Its partition is
down, so that nothing starts."""

import json
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lib.command_line import Zsg
from tests.lib.slurm_cluster import SlurmCluster
from tests.lib.slurm_runs import profile
from tests.lib.small_runs import UGLY, small_grid

pytestmark = pytest.mark.slurm

GRID = """
name: many
profile: slurm-minimal
defaults:
  data: {{path: {tasks}, train_per_task: 2}}
  train: {{batch: 4, steps: 4}}
grid:
  {axis}: [{values}]
"""
MAX_ARRAY = 101  # the suite's


@pytest.fixture
def zsg_waiting(zsg_on_slurm: Zsg, slurm: SlurmCluster, tasks: Path) -> Iterator[Zsg]:
    """The command line, data under an ugly name, and a cluster that takes jobs and starts none."""
    slurm.run("scontrol", "update", "partitionname=main", "state=down")
    (zsg_on_slurm.folder / UGLY).symlink_to(tasks)
    yield zsg_on_slurm
    slurm.run("sacctmgr", "-i", "modify", "user", "root", "set", "MaxSubmitJobs=-1")


def many(zsg: Zsg, count: int, axis: str = "train.init_seed") -> Path:
    """A grid of so many runs."""
    data = json.dumps(str(zsg.folder / UGLY), ensure_ascii=False)
    return zsg.write(
        "many.yaml",
        GRID.format(tasks=data, axis=axis, values=", ".join(map(str, range(count)))),
    )


def queued(slurm: SlurmCluster, shown: str = "%F %r %j") -> list[str]:
    """A line for each job of the queue, array tasks one by one."""
    return slurm.run("squeue", "-h", "-r", "--user", "root", "-o", shown).splitlines()


def test_a_large_grid_is_few_arrays(zsg_waiting: Zsg, slurm: SlurmCluster) -> None:
    """Arrays are as large as Slurm's MaxArraySize, whatever the profile allows; no job
    is held, no name is run."""
    said = zsg_waiting("submit", many(zsg_waiting, 120), "--no-canary")
    arrays = Counter(line.split()[0] for line in queued(slurm) if "-train-" in line)

    assert sorted(arrays.values()) == [120 - MAX_ARRAY, MAX_ARRAY]
    assert not [line for line in queued(slurm) if "JobHeldUser" in line]
    assert "120 runs submitted" in said
    scripts = [
        path.read_text()
        for path in (zsg_waiting.work / "submissions").glob("*/*_submission.sh")
    ]
    assert len(scripts) == 3
    assert not [text for text in scripts if "pwned" in text]
    assert "nothing to submit" in zsg_waiting(
        "submit", many(zsg_waiting, 120), "--no-canary"
    )


def test_half_an_array_is_cancelled_and_submitted_again(
    zsg_waiting: Zsg, slurm: SlurmCluster
) -> None:
    """Of tasks cancelled one by one before they start Slurm keeps nothing: they are
    unknown, and just they go again."""
    grid = many(zsg_waiting, 9)
    zsg_waiting("submit", grid, "--no-canary")
    [array] = {line.split()[0] for line in queued(slurm) if "-train-" in line}
    slurm.run("scancel", f"{array}_[1,3,5,7]")
    shown = slurm.run("squeue", "-h", "-o", "%i", "-j", array).strip()
    states = [row["state"] for row in zsg_waiting.status()]
    said = zsg_waiting(
        "submit",
        grid,
        "--no-canary",
        "--retry",
        "--only",
        "state=unknown",
        "--except",
        "init_seed=7",
    )

    assert shown == f"{array}_[0,2,4,6,8%9]"
    # Which reason Slurm gives first for a task that waits is a matter of moments.
    assert [state if state == "unknown" else "there" for state in states] == [
        "there",
        "unknown",
    ] * 4 + ["there"]
    assert set(states) <= {"waiting", "queued", "unknown"}
    assert "many: 3 runs submitted again, " in said
    assert len([line for line in queued(slurm) if "-train-" in line]) == 5 + 3


def test_more_than_the_account_may_have_is_submitted_in_part(
    zsg_waiting: Zsg, slurm: SlurmCluster
) -> None:
    """What MaxSubmitJobs has room for goes, the rest is left by name; with no room
    nothing goes, which is an error."""
    slurm.run("sacctmgr", "-i", "modify", "user", "root", "set", "MaxSubmitJobs=6")
    time.sleep(0.5)  # slurmdbd tells the controller
    grid = many(zsg_waiting, 9)
    planned = zsg_waiting("plan", grid)
    said = zsg_waiting("submit", grid)
    zsg_waiting("submit", grid, code=3)

    assert (
        planned.count(
            "left for the next submit: MaxSubmitJobs of account root is 6, and 0 are there"
        )
        == 4
    )
    assert (
        "4 runs left for later" in said
        and "many: 5 runs submitted, 4 left for later" in said
    )
    assert len(queued(slurm)) == 6
    assert (
        "nothing was submitted: 4 runs left for later: MaxSubmitJobs of account root is 6"
        in zsg_waiting.said
    )


def test_what_slurm_would_never_start_is_refused(
    zsg_waiting: Zsg, slurm: SlurmCluster
) -> None:
    """More time than the partition grants, which this Slurm would take and never run,
    leaves no trace."""
    zsg_waiting(
        "submit", many(zsg_waiting, 2), "--set", "resources.time_min=61", code=2
    )

    assert "train.time_min is 61, but partition main grants 60" in zsg_waiting.said
    assert queued(slurm) == []
    assert not (zsg_waiting.work / "ledger.jsonl").exists()


def test_many_groups_are_one_array_that_waits_for_the_end_of_all(
    zsg_waiting: Zsg, slurm: SlurmCluster
) -> None:
    """21 samples are 21 prepare jobs in one array, and their runs one array after it."""
    zsg_waiting("submit", many(zsg_waiting, 21, "data.sample_seed"), "--no-canary")
    waits = {line for line in queued(slurm, "%j %E") if "-train-" in line}
    prepares = {
        line.split()[1] for line in queued(slurm, "%j %F") if "-prepare-" in line
    }

    assert len(prepares) == 1
    assert {line.split()[1] for line in waits} == {
        f"afterany:{prepares.pop()}_*(unfulfilled)"
    }
    jobs = [
        json.loads(path.read_text())
        for path in (zsg_waiting.work / "runs").glob("*/job.json")
    ]
    assert {len(job["after"]) for job in jobs} == {1}


def test_a_controller_that_restarts_meanwhile_is_waited_for(
    zsg_waiting: Zsg, slurm: SlurmCluster
) -> None:
    """Stopped before anything is asked, and back some seconds later: each run is submitted once."""
    slurm.stop_controller()
    back = threading.Timer(4, slurm.start_controller)
    back.start()
    try:
        zsg_waiting("submit", many(zsg_waiting, 3))
    finally:
        back.join()

    assert len(queued(slurm)) == 1 + 3
    assert not [line for line in queued(slurm) if "JobHeldUser" in line]


def test_a_controller_that_leaves_under_sbatch_doubles_nothing(
    zsg_waiting: Zsg, slurm: SlurmCluster
) -> None:
    """sbatch submits, the controller goes before it answers: what it kept is adopted
    when it is back."""
    broken = zsg_waiting.folder / "bin"
    broken.mkdir()
    real = subprocess.run(
        ["which", "sbatch"],
        capture_output=True,
        text=True,
        env=zsg_waiting.env,
        check=True,
    )
    flag, pid = zsg_waiting.folder / "gone", slurm.daemons["slurmctld"].pid
    (broken / "sbatch").write_text(
        f"#!/bin/sh\n{real.stdout.strip()} \"$@\" || exit 1\n[ -e '{flag.name}' ] && exit 0\ntouch"
        f" '{flag.name}'; kill {pid}; echo 'Socket timed out on send/recv operation' >&2; exit 1\n"
    )
    (broken / "sbatch").chmod(0o755)
    zsg_waiting.env["PATH"] = f"{broken}:{zsg_waiting.env['PATH']}"
    submit = zsg_waiting.start(
        "submit", many(zsg_waiting, 3), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    slurm.daemons["slurmctld"].wait(60)
    slurm.start_controller()
    _, said = submit.communicate(timeout=120)

    assert submit.returncode == 0, said
    assert len(queued(slurm)) == 1 + 3
    held = [line for line in queued(slurm) if "JobHeldUser" in line]
    assert not held, said
    assert sorted(row["slurm"] for row in zsg_waiting.status()) == sorted(
        line.split()[0] for line in queued(slurm, "%i %j") if "-train-" in line
    )


def test_an_sbatch_that_fails_leaves_nothing(
    zsg_on_slurm: Zsg, slurm: SlurmCluster, tasks: Path
) -> None:
    """A licence that does not exist is an error in Slurm's words; nothing is submitted,
    and nothing is stuck."""
    zsg = zsg_on_slurm
    place = profile(zsg)
    good = place.read_text()
    place.write_text(good.replace("slurm: {", "slurm: {sbatch: {licenses: nowhere}, "))
    zsg("submit", small_grid(zsg, tasks), "--profile", place, code=3)

    assert "Invalid license specification" in zsg.said
    assert slurm.run("squeue", "-h", "--user", "root") == ""
    place.write_text(good)
    slurm.run("scontrol", "update", "partitionname=main", "state=down")
    assert "1 run submitted" in zsg(
        "submit", small_grid(zsg, tasks), "--profile", place
    )


def test_a_refused_train_array_holds_nothing(
    zsg_on_slurm: Zsg, slurm: SlurmCluster, tasks: Path
) -> None:
    """If Slurm takes the prepare job and refuses the runs, the prepare job is released,
    and the next submit goes on."""
    zsg = zsg_on_slurm
    slurm.run("scontrol", "update", "partitionname=main", "state=down")
    place, grid = profile(zsg), small_grid(zsg, tasks)
    good = place.read_text()
    # asked for by train jobs only
    place.write_text(good.replace("slurm: {", "slurm: {gres: unheard-of:1, "))
    zsg("submit", grid, "--profile", place, code=3)

    assert "sbatch failed" in zsg.said
    [held] = slurm.run("squeue", "-h", "--user", "root", "-o", "%j %r").splitlines()
    assert "-prepare-" in held
    assert "JobHeldUser" not in held
    place.write_text(good)
    zsg("submit", grid, "--profile", place)
    assert (
        len(slurm.run("squeue", "-h", "-r", "--user", "root", "-o", "%i").split()) == 2
    )
    assert_held_jobs_are_released(zsg, slurm, place, grid)


def assert_held_jobs_are_released(
    zsg: Zsg, slurm: SlurmCluster, place: Path, grid: Path
) -> None:
    """What a controller has forgotten to have released is told, and released on request."""
    ids = slurm.run("squeue", "-h", "-r", "--user", "root", "-o", "%i").split()
    slurm.run("scontrol", "uhold", ",".join(ids))

    shown = " ".join(zsg("status").split())
    assert "zsg submit GRID.YAML --retry releases it" in shown
    held_jobs = [row["run"] for row in zsg.status() if row["reason"] == "JobHeldUser"]
    assert [job.startswith("prepare/") for job in held_jobs] == [False, True]
    for job in held_jobs:
        advice = zsg("why", job)
        assert f"/{grid.name}' --profile" in advice and "' --retry" in advice
    printed = zsg("submit", grid, "--profile", place)
    assert "but held (JobHeldUser): you hold it, or Slurm has forgotten" in printed
    held = slurm.run("squeue", "-h", "-r", "--user", "root", "-o", "%r").split()
    assert held == ["JobHeldUser"] * 2

    zsg("submit", grid, "--profile", place, "--retry")
    assert "forgotten the release, or you held them: released" in zsg.said
    assert "JobHeldUser" not in slurm.run("squeue", "-h", "-r", "-o", "%r")
