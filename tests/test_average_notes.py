"""Does a plan say which suites of an average nobody takes?"""

import json
from pathlib import Path

import pytest

from launcher.submission import workflow

GRID = """
name: averaged
defaults:
  model: {name: tiny, hidden: 64, layers: 1, vocab: 300}
  data:
    sources:
      mine: {set: alpaca, path: rows.json, test_path: rows.json}
      other: {set: alpaca, path: rows.json, test_path: rows.json}
  train: {batch: 2, steps: 4, epochs: 4, max_length: 64, precision: fp32}
  checkpoints: {snapshots: 2, metrics: [loss, exact_match]}
summaries:
  averages:
    suites:
      source/mine/exact_match: 0
      source/theirs/exact_match: 0
      prompts/median/source/other/exact_match: 0
      lm_eval/bbh_cot_fewshot: 25.7
    mine: {source/mine/exact_match: 0, task/a/b/exact_match: 0}
grid:
  - {seed: 0}
  - {seed: 1, checkpoints.metrics: [[loss, gsm8k/strict]], checkpoints.suites.gsm8k.path: asked.jsonl}
"""


def test_a_suite_that_nobody_takes_is_told_before_anything_is_submitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the reason: no such source is tested, no such metric is taken."""
    monkeypatch.chdir(tmp_path)
    rows = [{"instruction": f"Say {n}.", "input": "", "output": "1"} for n in range(4)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    asked = {"question": "1 + 1?", "answer": "#### 2"}
    (tmp_path / "asked.jsonl").write_text(json.dumps(asked) + "\n")
    path = tmp_path / "grid.yaml"
    path.write_text(GRID)
    notes = workflow.open_grid(path, "local", tmp_path / "work").notes

    [of_all] = [note for note in notes if note.startswith("average/suites")]
    assert "where all its 4 suites have one, and 2 of 2 runs lack some" in of_all
    assert "source/theirs/exact_match (no source 'theirs' is tested)" in of_all
    assert "lm_eval/bbh_cot_fewshot (no metric of checkpoints.metrics" in of_all
    [of_one] = [note for note in notes if note.startswith("average/mine")]
    assert "1 of 2 runs lack some: source/mine/exact_match (no metric" in of_one
    assert "task/a/b/exact_match (no metric of checkpoints.metrics is that)" in of_one
