"""Do tasks of lm-evaluation-harness go through a grid, from plan to MLflow and the page,
beside the loss?"""

import json
import sqlite3
from pathlib import Path

import pytest

from tests.lib import harness_goldens
from tests.lib.command_line import Zsg
from zsg_core import skills

pytestmark = [pytest.mark.soak(part="users"), pytest.mark.engine]

pytest.importorskip("lm_eval", reason="no lm-evaluation-harness: extra harness")
METRICS = ("lm_eval/tiny_mmlu", "lm_eval/tiny_gsm")
MEMBER = "lm_eval/tiny_mmlu_birds"  # of the group before


def write_grid(folder: Path) -> None:
    """A grid of one run of a tiny model, asked in its own template before and after
    training, with the tasks and the data that it names."""
    harness_goldens.write_tasks(folder / "benchmarks")
    skills.write_tasks(folder / "tasks", per_task=20)
    checkpoints = {
        "every": 2,
        "snapshots": 2,
        "metrics": ["loss", *METRICS, MEMBER],
        "suites": {"lm_eval": {"tasks_path": "benchmarks", "chat": "run", "limit": 3}},
    }
    data = {"path": "tasks", "train_per_task": 8, "test_per_task": 2}
    defaults = {
        "model": {"name": "tiny"},
        "data": data | {"positive_examples": 0},
        "train": {"batch": 8, "lr": 1e-3, "max_length": 128, "steps": 4},
        "checkpoints": checkpoints,
    }
    grid = {"arrangement.order": ["random"]}
    whole = {"name": "g", "profile": "local", "defaults": defaults, "grid": [grid]}
    (folder / "grid.yaml").write_text(json.dumps(whole), encoding="utf-8")


def test_tasks_are_planned_taken_delivered_and_drawn(zsg: Zsg) -> None:
    """Each key once for each checkpoint in MLflow, its curve on the page; a task and its
    group are asked once; a second submit finds nothing to do; another limit is told as
    another way of asking."""
    write_grid(zsg.folder)
    assert METRICS[0] in zsg("plan", "grid.yaml")
    zsg("submit", "grid.yaml")

    with sqlite3.connect(zsg.work / "mlflow.db") as connection:
        points = connection.execute(
            "select key, step from metrics where key like 'lm_eval/%'"
            " and key not like '%stderr' order by key, step"
        ).fetchall()
    keys = [METRICS[1], f"{METRICS[1]}/exact_match/flexible-extract", METRICS[0]]
    keys += [f"{METRICS[0]}/weighted", MEMBER]
    assert points == [(key, step) for key in keys for step in (0, 2, 4)]
    [log] = (zsg.work / "evaluate").glob("*/log.txt")
    answered = "12 requests were answered for another key already"
    assert log.read_text(encoding="utf-8").count(answered) == 3
    zsg("report", "g", "--metric", METRICS[0])
    page = (zsg.work / "grids/g/report/report.html").read_text(encoding="utf-8")
    assert METRICS[0] in page
    assert "1 done" in zsg("plan", "grid.yaml")

    text = (zsg.folder / "grid.yaml").read_text(encoding="utf-8")
    (zsg.folder / "grid.yaml").write_text(text.replace('"limit": 3', '"limit": 2'))
    told = zsg("plan", "grid.yaml")
    assert "limit 3, now 2" in told and "checkpoints.suites.lm_eval a name" in told
