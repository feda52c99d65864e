"""Are claims between metrics, labelled points and runs of one number decided of the right
values of a grid's runs?"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.report import listed_run, record_run, write_grid
from jobs.contract import attempt as attempts
from jobs.contract import item_losses
from jobs.contract.folder import Workspace
from jobs.contract.journal import Journal
from launcher.reporting import report
from launcher.reporting.data import verdicts
from launcher.reporting.data.grid_comparison import ReportOptions
from launcher.reporting.data.verdicts import JudgedClaim
from launcher.reporting.html import verdict_section
from zsg_core.stats import curves
from zsg_core.stats.verdict import HERE, NOT_SUPPORTED, OVER_SEEDS, SUPPORTED, TOO_FEW

STEPS = list(range(0, 410, 10))
TASKS = [f"t{number}" for number in range(8) for _ in range(2)]
SUPPORTED_HERE = f"{SUPPORTED} {HERE}"


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """As good on average as 2,000."""
    monkeypatch.setattr(curves, "REPEATS", 200)


def fall(level: float, early: float = 0.9) -> np.ndarray:
    """Losses (steps, items) that fall by 2 to a level, this share of it at once."""
    way = np.full(len(STEPS), 1.0)
    way[:2] = [0.0, early]
    way[2] = early
    height = np.random.default_rng(0).normal(0, 1, len(TASKS))
    return level + 2 + height - 2 * way[:, None]


def add_values(
    place: Workspace,
    run: str,
    values: Mapping[str, Sequence[float]],
    items: Mapping[str, tuple[Sequence[int], np.ndarray]] | None = None,
) -> None:
    """Metrics of a run at every checkpoint, with the values of their items if they have any."""
    attempt = attempts.begin_attempt(place.run(run), "s")
    journal = Journal(place.run(run), attempt, "train", "1")
    for number, step in enumerate(STEPS):
        for key, (places, table) in (items or {}).items():
            item_losses.journal_item_losses(
                journal, key, table[number], step=step, examples=step, places=places
            )
        row = {key: float(series[number]) for key, series in values.items()}
        journal.add_row("metric", step=step, examples=step, data=row)
    journal.close()
    attempts.end_attempt(place.run(run), attempt, "done", step=STEPS[-1])


def decide(
    place: Workspace, listed: Sequence[dict[str, Any]], claims: str
) -> list[JudgedClaim]:
    """The verdicts of a grid of these runs with these claims."""
    write_grid(place, "g", listed)
    (place.grid("g") / "grid.yaml").write_text(f"name: g\nclaims: [{claims}]\n")
    return verdicts.judge_grid(place, "g")


def record_scores(place: Workspace, early: float) -> dict[str, Any]:
    """A run whose loss is early, and whose ROUGE, of twelve of the sixteen items, is as
    early as this."""
    row = listed_run("run", {"seed": 0})
    record_run(place, row, STEPS, TASKS, fall(1.0))
    scores = 50 - 10 * fall(1.0, early)[:, :12]
    add_values(
        place,
        "run",
        {"rouge1": scores.mean(axis=1).tolist()},
        {"rouge1": (range(12), scores)},
    )
    return row


@pytest.mark.parametrize(
    ("early", "word"), [(0.4, SUPPORTED_HERE), (0.9, NOT_SUPPORTED)]
)
def test_metrics_of_a_run_are_compared_on_the_items_that_have_both(
    tmp_path: Path, early: float, word: str
) -> None:
    """Six tasks of the eight; what is drawn of them are the shares of their ways."""
    place = Workspace(tmp_path)
    row = record_scores(place, early)
    asked = "{claim: is_earlier, metric: loss, than: [rouge1]}"
    [decided] = decide(place, [row], asked)

    assert decided.verdict.word == word
    assert (decided.verdict.tasks, decided.verdict.runs) == (6, 1)
    assert decided.curves["loss"][1][-1] == pytest.approx(1.0, abs=0.1)
    assert decided.curves["rouge1"][1][1] == pytest.approx(early, abs=0.1)


def test_a_metric_that_a_run_lacks_decides_nothing(tmp_path: Path) -> None:
    """And the note says that of the run."""
    place = Workspace(tmp_path)
    row = record_scores(place, 0.4)
    [decided] = decide(place, [row], "{claim: is_earlier, than: [exact_match]}")

    assert decided.verdict.word == TOO_FEW
    assert decided.verdict.notes[-1].startswith("1 runs are not done, or have no")


def test_labelled_points_are_compared_whatever_they_differ_in(tmp_path: Path) -> None:
    """At each amount that both blocks have: a label stands for all that a block sets."""
    place, listed = Workspace(tmp_path), []
    for label, level in (("cleaned", 1.0), ("raw", 1.2)):
        for amount in ("1", "1/4"):
            axes = {"label": label, "data.fraction": amount}
            listed.append(listed_run(f"{label}{len(listed)}", axes))
            noise = np.random.default_rng(len(listed)).normal(0, 0.02, len(TASKS))
            record_run(place, listed[-1], STEPS, TASKS, fall(level) + noise)
    asked = "{claim: rises, along: label, values: [cleaned, raw]}"
    decided = decide(place, listed, asked)

    assert [(one.group, one.verdict.word) for one in decided] == [
        ({"data.fraction": "1"}, SUPPORTED_HERE),
        ({"data.fraction": "1/4"}, SUPPORTED_HERE),
    ]


def test_axes_that_change_with_the_claims_own_do_not_part_its_places(
    tmp_path: Path,
) -> None:
    """As the path of a model does with its name; the verdict says so. One that does not
    makes groups."""
    place, listed = Workspace(tmp_path), []
    for number, name in enumerate(("7b", "13b", "33b")):
        for rate in (1e-3, 2e-3):
            axes = {"model.name": name, "model.path": f"m/{name}", "train.lr": rate}
            listed.append(listed_run(f"m{len(listed)}", axes))
            noise = np.random.default_rng(len(listed)).normal(0, 0.02, len(TASKS))
            record_run(place, listed[-1], STEPS, TASKS, fall(2.0 - number / 5) + noise)
    asked = "{claim: trends, along: model.name, values: [33b, 13b, 7b], positions: [-33, -13, -7]}"
    decided = decide(place, listed, asked)

    assert [(one.group, one.verdict.word) for one in decided] == [
        ({"train.lr": 1e-3}, SUPPORTED_HERE),
        ({"train.lr": 2e-3}, SUPPORTED_HERE),
    ]
    assert "the places differ in model.path, too" in decided[0].verdict.notes


@pytest.mark.parametrize(
    ("seeds", "word"), [(4, f"{SUPPORTED} {OVER_SEEDS}"), (3, TOO_FEW)]
)
def test_a_metric_without_items_is_decided_over_seeds(
    tmp_path: Path, seeds: int, word: str
) -> None:
    """As the distance of a token is: one number a run."""
    place, listed = Workspace(tmp_path), []
    for ratio, level in ((260, 4.9), (0, 6.9)):
        for seed in range(seeds):
            axes = {"data.ratio": ratio, "seed": seed}
            listed.append(listed_run(f"r{ratio}s{seed}", axes, seed))
            record_run(place, listed[-1], STEPS, TASKS, fall(1.0))
            series = [22.0] * (len(STEPS) - 1) + [level + seed / 10]
            add_values(place, listed[-1]["run"], {"token_distance/sep": series})
    asked = "{claim: rises, metric: token_distance/sep, along: data.ratio, values: [260, 0]}"
    [decided] = decide(place, listed, asked)

    assert (decided.verdict.word, decided.verdict.tasks) == (word, 0)
    assert decided.verdict.levels["260"] == pytest.approx(4.9 + (seeds - 1) / 20)
    assert verdict_section.verdict_rows([decided])[0]["over"] == "seeds"


def test_one_source_lies_further_apart_than_others_in_the_same_runs(
    tmp_path: Path,
) -> None:
    """Silhouettes of sources are one number a run each."""
    place, listed = Workspace(tmp_path), []
    for seed in range(4):
        listed.append(listed_run(f"s{seed}", {"seed": seed}, seed))
        record_run(place, listed[-1], STEPS, TASKS, fall(1.0))
        values = {
            f"silhouette/layer_15/{source}": [at + seed / 50] * len(STEPS)
            for source, at in (("math", 0.6), ("code", 0.1), ("general", 0.2))
        }
        add_values(place, f"s{seed}", values)
    keys = ", ".join(f"silhouette/layer_15/{name}" for name in ("code", "general"))
    asked = f"{{claim: is_higher, metric: silhouette/layer_15/math, than: [{keys}]}}"
    [decided] = decide(place, listed, asked)

    assert decided.verdict.word == f"{SUPPORTED} {OVER_SEEDS}"
    assert decided.verdict.runs == 4


@pytest.mark.engine  # needs matplotlib
def test_the_report_shows_claims_between_metrics(tmp_path: Path) -> None:
    """In words, with curves of both on one axis."""
    place = Workspace(tmp_path)
    row = record_scores(place, 0.4)
    decide(
        place,
        [row],
        "{claim: is_earlier, than: [rouge1]}, {claim: is_steadier, than: [rouge1]},"
        " {claim: rises_early, metric: rouge1}",
    )
    page = report.write_report(place, "g", ReportOptions()).read_text(encoding="utf-8")

    assert "loss is earlier than rouge1, in the first 1/20 of the steps" in page
    assert "loss is steadier than rouge1" in page
    assert "rouge1: 4/5 of its rise within the first 1/20 of the steps" in page
    assert "share of the way here" in page
