"""Is what a prepare job found in the data told where people look?"""

import html
import json
from pathlib import Path

from jobs.contract.folder import Workspace, write_json
from launcher.status import data_notes
from tests.lib.command_line import Zsg
from tests.lib.mlflow_contents import child_runs

GRID = """
name: notes
defaults:
  data: {set: alpaca, path: train.json, test_path: train.json}
  train: {batch: 4, steps: 1}
grid: {arrangement.order: [cluster]}
"""
NOTE = (
    "note on the data: 4 test prompts stand in the training examples too, 4 of them with the same"
    " answer"
)


def test_notes_of_corpora_are_told_once_each(tmp_path: Path) -> None:
    """Runs share corpora and corpora share sources; of very many the first are shown
    and the rest counted."""
    place = Workspace(tmp_path)
    for corpus, notes in {
        "a": ["one", "two"],
        "b": ["two", "three"],
        "many": [str(n) for n in range(30)],
    }.items():
        write_json(place.corpus(corpus) / "notes.json", notes)

    assert data_notes.of_corpora(place, ["a", "b", "a", "gone"]) == [
        "one",
        "two",
        "three",
    ]
    assert data_notes.of_corpora(place, ["many"])[19:] == [
        "19",
        "and 10 more; those of corpora stand in corpora/*/notes.json",
    ]
    with_runs = data_notes.of_corpora(place, ["many", "a"], ["lost questions", "two"])
    assert with_runs[:3] == ["lost questions", "two", "0"]
    assert with_runs[20:] == [
        "and 13 more; those of corpora stand in corpora/*/notes.json"
    ]


def test_plan_and_arrange_tell_of_contamination(tmp_path: Path) -> None:
    """Every test prompt is trained on: whoever makes the order, and whoever plans after
    it, is told."""
    zsg = Zsg(tmp_path)
    rows = [
        {"instruction": f"q {n}", "input": "", "output": f"a {n}"} for n in range(4)
    ]
    (tmp_path / "train.json").write_text(json.dumps(rows))
    grid = zsg.write("grid.yaml", GRID)

    zsg("arrange", "make", grid)
    assert NOTE in " ".join(zsg.said.split())
    zsg("plan", grid)
    assert NOTE in " ".join(zsg.said.split())


LONG_RULES = "Rule " * 60
SKEWED = """
name: skewed
defaults:
  model: {name: tiny}
  data:
    {set: alpaca, path: data, test_path: test.json, on_bad_row: skip}
  train: {batch: 4, steps: 1, max_length: 32, precision: fp32}
  checkpoints: {every: 1}
grid: {arrangement.order: [cluster]}
"""
CUT = (
    "train.max_length 32 has shortened 5 of 6 training examples; 5 have lost their whole question"
    " and kept the answer (train.truncate: system cuts system texts first)"
)


def test_what_is_wrong_with_the_data_stands_beside_the_run(
    tmp_path: Path, forked: Path
) -> None:
    """Rows passed over, files left out, nulls, empty answers, contamination, questions
    that max_length cuts off: submit, status, report, arrange show and MLflow tell them."""
    zsg = Zsg(tmp_path)
    rows = [
        {"instruction": f"q {n}", "output": f"a {n}", "system": LONG_RULES}
        for n in range(5)
    ]
    rows += [{"instruction": 3}, {"instruction": "q", "output": "", "input": None}]
    (tmp_path / "data").mkdir()
    (tmp_path / "data/train.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows)
    )
    (tmp_path / "data/train.json.zst").write_bytes(b"packed")
    tested = [{"instruction": "q 0", "output": "a 0"}]
    (tmp_path / "test.json").write_text(json.dumps(tested))
    expected = [
        "1 bad rows were passed over",
        "train.jsonl is read; left out: train.json.zst",
        "1 rows have a null in `input`",
        "1 of 6 answers of the 6 training examples are empty",
        "1 test prompts stand in the training examples too",
        CUT,
    ]

    zsg("submit", zsg.write("grid.yaml", SKEWED), "--profile", forked)
    seen = {"submit": zsg.said}
    zsg("sync")
    (row,) = zsg.status("skewed")
    seen |= {"mlflow": _tag(zsg, row["run"]), "row": row["notes"]}
    zsg("status", "skewed")
    seen["status"] = zsg.said
    seen["show"] = zsg("arrange", "show", row["run"])
    zsg("plan", tmp_path / "grid.yaml", "--json")
    seen["plan"] = zsg.said
    zsg("report", "skewed")
    page = zsg.work / "grids/skewed/report/report.html"
    seen["report"] = html.unescape(page.read_text())

    assert seen.pop("row") == [CUT]
    for place, said in seen.items():
        words = " ".join(str(said).split())
        of_place = expected[: -1 if place in ("show", "plan") else None]
        assert [note for note in of_place if note not in words] == [], place


def _tag(zsg: Zsg, run: str) -> str:
    """What MLflow says of the data of a run."""
    return child_runs(zsg.work, "skewed")[run]["tags"]["zsg.data.notes"]
