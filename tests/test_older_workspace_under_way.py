"""Is a workspace of an older zsg (e79a027) taken over while its jobs are under way, with
runs done, failed, requeued and running, and nothing doubled?

`golden/older_workspace_under_way` was taken from a real Slurm at that moment: the
records of the workspace, its journals shortened (and their rows numbered anew), and what squeue, sacct and scontrol
answered. `@FOLDER@` stands for the folder it lay in, `@UID@` for its user.
"""

import json
import os
import time
from pathlib import Path

import pytest

from tests.lib.builders import write_niv2
from tests.lib.command_line import Zsg

KEPT = Path(__file__).parent / "golden/older_workspace_under_way"
FAILED, REQUEUED, RUNNING, STARTING = (
    "846c20a17ca4",
    "8bdb150ca12a",
    "f74bfebbfeb0",
    "e02be09ce834",
)
DONE = ("1c582c3f7793", "49e969418f85")
ANSWER = """#!/bin/sh
case $(basename "$0") in
  scontrol) exec cat "{answers}/scontrol_$2" ;;
  sbatch | srun) echo "$0 $*" >> "{answers}/submitted"; exit 1 ;;
  *) exec cat "{answers}/$(basename "$0")" ;;
esac
"""


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Zsg:
    """The command line in the user's folder, on a Slurm that answers as it did then."""
    folder = tmp_path_factory.mktemp("older")
    write_niv2(folder / "tasks")
    for path in KEPT.rglob("*"):
        if path.is_file():
            target = folder / path.relative_to(KEPT)
            target.parent.mkdir(parents=True, exist_ok=True)
            text = path.read_text().replace("@FOLDER@", str(folder))
            target.write_text(text.replace("@UID@", str(os.getuid())))
    # DeepSpeed's files of the saved state were too large to keep
    ranks = folder / f"zsg-work/runs/{FAILED}/state/580/ranks"
    ranks.mkdir()
    for kind in ("mp_rank_00_model_states", "zero_pp_rank_0_mp_rank_00_optim_states"):
        (ranks / f"{kind}.pt").touch()
    silent_since = time.time() - 600  # the failed run; the others have just written
    for path in (folder / f"zsg-work/runs/{FAILED}").rglob("*"):
        os.utime(path, (silent_since, silent_since))
    commands = folder / "bin"
    commands.mkdir()
    for name in ("squeue", "sacct", "scontrol", "sbatch", "srun"):
        (commands / name).write_text(ANSWER.format(answers=folder / "slurm"))
        (commands / name).chmod(0o755)
    return Zsg(folder, {"PATH": f"{commands}:{os.environ['PATH']}"})


def test_each_run_has_the_state_that_the_older_zsg_saw(older: Zsg) -> None:
    """By the records of the older zsg and the answers of Slurm."""
    assert {row["run"]: row["state"] for row in older.status()} == {
        FAILED: "failed",
        REQUEUED: "queued",
        RUNNING: "running",
        STARTING: "running",
        **dict.fromkeys(DONE, "done"),
    }


@pytest.mark.engine
def test_a_second_submit_doubles_nothing(older: Zsg) -> None:
    """What is queued, running or done is left alone; no job reaches Slurm, and the
    ledger stays as it is."""
    ledger = older.work / "ledger.jsonl"
    before = ledger.read_bytes()
    for grid in ("long.yaml", "short.yaml"):
        rows = json.loads(older("plan", grid, "--profile", "cluster.yaml", "--json"))
        assert {row["action"] for row in rows} == {"skip"}
        older("submit", grid, "--profile", "cluster.yaml")

    assert not (older.folder / "slurm/submitted").exists()
    assert ledger.read_bytes() == before


@pytest.mark.engine
def test_a_failed_run_of_the_older_zsg_would_resume_from_its_state(older: Zsg) -> None:
    """From the step that the older zsg saved, and it alone."""
    printed = older(
        "plan", "long.yaml", "--profile", "cluster.yaml", "--retry", "--json"
    )
    retried = [row for row in json.loads(printed) if row["action"] != "skip"]

    assert [(row["run"], row["action"]) for row in retried] == [(FAILED, "retry")]
    assert "resumes from step 580" in retried[0]["reason"]


@pytest.mark.engine
def test_a_report_shows_what_the_older_zsg_measured(older: Zsg) -> None:
    """The values in the journals that it wrote, of a run that is still under way, too."""
    older("report", "long")
    curves = (older.work / "grids/long/report/curves.csv").read_text()

    assert curves.splitlines()[0].startswith('"arrangement.order","step","mean"')
    assert {line.split(",")[0] for line in curves.splitlines()[1:]} == {
        '"random"',  # failed
        '"nft"',  # running
    }  # as the older zsg had it: the requeued run is shown once it runs
