"""Do jobs on a real Slurm tell how they end, with an address that stands in no file?"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.contract import attempt as attempts
from tests.lib.builders import copy_made
from tests.lib.command_line import Zsg, wait_until
from tests.lib.light_grid import LIGHT
from tests.lib.notice_receiver import VARIABLE, NoticeReceiver, find_two_ids
from tests.lib.slurm_runs import wait_until_ended
from tests.lib.small_runs import small_grid

pytestmark = [pytest.mark.slurm, pytest.mark.soak(part="slurm")]

PROFILE = f"""
name: told
kind: slurm
prepare: {{time_min: 30}}
train: {{nodes: 1, ranks_per_node: 1, time_min: 30}}
slurm: {{partition: main}}
notify: [{{webhook: {VARIABLE}, on: [failed, done]}}]
environment: {{set: {{PYTHONPATH: {LIGHT}, LIGHT_STEP_S: "0.05"}}}}
"""


@pytest.fixture
def hook() -> Iterator[NoticeReceiver]:
    receiver = NoticeReceiver()
    yield receiver
    receiver.close()


def submit(zsg: Zsg, tasks: Path, made: Path, hook: NoticeReceiver, steps: int) -> Path:
    """Submits one run, whose jobs are given the address and need no prepare job; its
    folder."""
    copy_made(made, zsg.work)
    zsg.env[VARIABLE] = hook.address
    place = zsg.write("told.yaml", PROFILE)
    zsg("submit", small_grid(zsg, tasks, steps=steps), "--profile", place)
    return zsg.work / "runs" / zsg.status()[0]["run"]


def list_kinds(hook: NoticeReceiver) -> list[str]:
    return [name.partition(":")[0] for name in hook.list_told()]


def test_the_job_that_ends_last_tells_it_from_its_node(
    zsg_on_slurm: Zsg, tasks: Path, made: Path, hook: NoticeReceiver
) -> None:
    """Before anybody looks; whoever then looks tells nothing more, and nothing that
    Slurm or zsg has written holds the address."""
    submit(zsg_on_slurm, tasks, made, hook, 8)
    wait_until_ended(zsg_on_slurm, 240)

    assert list_kinds(hook) == ["done"]
    zsg_on_slurm("sync")

    assert list_kinds(hook) == ["done"]
    written = [path for path in zsg_on_slurm.folder.rglob("*") if path.is_file()]
    assert [path for path in written if b"s3cr3t" in path.read_bytes()] == []


def test_a_job_that_is_killed_is_told_by_who_looks(
    zsg_on_slurm: Zsg, tasks: Path, made: Path, hook: NoticeReceiver
) -> None:
    """It left no word; looked for twice, it is told once."""
    folder = submit(zsg_on_slurm, tasks, made, hook, 2000)
    wait_until(lambda: (folder / "heartbeat.json").exists())
    attempt = attempts.read_attempt(folder)
    assert attempt
    os.kill(attempt.pid, signal.SIGKILL)
    wait_until_ended(zsg_on_slurm, 240)

    for _ in range(2):
        zsg_on_slurm("sync")

    assert list_kinds(hook) == ["failed", "done"]
    assert find_two_ids(hook) == []
