"""Do jobs on a real Slurm fill MLflow while they train, and does a server that goes
away cost them nothing?"""

import os
import signal
import statistics
from pathlib import Path

import pytest

from jobs.tracking import live
from tests.lib.command_line import Zsg, start_server, wait_until
from tests.lib.light_grid import LIGHT
from tests.lib.mlflow_contents import assert_exactly_once, child_runs, journal_points
from tests.lib.processes import group
from tests.lib.small_runs import small_grid

pytestmark = [pytest.mark.slurm, pytest.mark.soak(part="slurm")]

STEPS, STEP_S = 600, 0.2
ONE_WORKER = ("--workers", "1")
PROFILE = """
name: live
kind: slurm
prepare: {{time_min: 30}}
train: {{nodes: 1, ranks_per_node: 1, time_min: 30}}
slurm: {{partition: main}}
tracking: {{uri: {uri}, live: true}}
environment: {{set: {{PYTHONPATH: {light}, LIGHT_STEP_S: "{step_s}"}}}}
"""


def submit(zsg: Zsg, tasks: Path, uri: str) -> str:
    """Submits one run of slow steps, without torch; its id."""
    place = zsg.write("live.yaml", PROFILE.format(uri=uri, light=LIGHT, step_s=STEP_S))
    zsg("submit", small_grid(zsg, tasks, steps=STEPS), "--profile", place)
    return zsg.status()[0]["run"]


def arrived(zsg: Zsg, uri: str, run: str) -> int:
    """The last step of which MLflow has the training loss."""
    try:
        held = child_runs(zsg.work, "small", uri)
    except AssertionError:  # there is no experiment yet
        return 0
    return (
        max(
            (step for key, step, *_ in held[run]["points"] if key == "train/loss"),
            default=0,
        )
        if held
        else 0
    )


def trained(zsg: Zsg, run: str) -> dict[int, int]:
    """The steps so far, and when each was journalled (ms)."""
    return {
        step: ts
        for key, step, _, ts in journal_points(zsg.work, run)
        if key == "train/loss"
    }


def is_under_way(zsg: Zsg, run: str) -> bool:
    """Whether it has not ended."""
    return not (zsg.work / "runs" / run / "exit.json").exists()


def assert_undisturbed(steps: dict[int, int], first: int, last: int) -> None:
    """Between two steps, while no server answered, steps took what they take: no step
    waited for one."""
    apart = {step: (steps[step] - steps[step - 1]) / 1000 for step in steps if step > 1}
    during = [apart[step] for step in apart if first < step <= last]
    others = [apart[step] for step in apart if step not in range(first + 1, last + 1)]
    assert len(during) >= 10
    assert statistics.median(during) < 1.5 * statistics.median(others)


def test_a_server_that_is_killed_and_started_again_has_everything(
    prepared_on_slurm: Zsg, tasks: Path
) -> None:
    """Points arrive while a run trains; no step waits for a server after its `kill -9`;
    back again it gets them all."""
    zsg, folder = prepared_on_slurm, prepared_on_slurm.folder / "server"
    server, uri = start_server(folder, *ONE_WORKER)
    try:
        run = submit(zsg, tasks, uri)
        wait_until(lambda: arrived(zsg, uri, run))
        for process in group(server.pid):
            os.kill(process, signal.SIGKILL)
        server.wait()
        first = max(trained(zsg, run))
        wait_until(lambda: max(trained(zsg, run)) >= first + 50)
        last = max(trained(zsg, run))
        server, _ = start_server(folder, *ONE_WORKER, port=int(uri.rpartition(":")[2]))
        wait_until(lambda: arrived(zsg, uri, run) > last)
        assert is_under_way(zsg, run)
        wait_until(lambda: not is_under_way(zsg, run))
        wait_until(lambda: arrived(zsg, uri, run) == STEPS, 60)
        wait_until(
            lambda: child_runs(zsg.work, "small", uri)[run]["status"] == "FINISHED", 60
        )
        assert_exactly_once(zsg.work, "small", [run], uri)
        assert (
            "does not answer"
            in (zsg.work / "runs" / run / "delivery" / live.LOG).read_text()
        )
        assert_undisturbed(trained(zsg, run), first, last)
    finally:
        server.terminate()
        server.wait(30)
