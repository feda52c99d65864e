"""Is what a prepare job found in the data told where people look?"""

import json
from pathlib import Path

from jobs.contract.folder import Workspace, write_json
from launcher.status import data_notes
from tests.lib.command_line import Zsg

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
        "and 10 more; they stand in corpora/*/notes.json",
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
