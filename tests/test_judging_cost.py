"""Does a plan say how often a judge will be asked, and what that may cost?"""

import json
from pathlib import Path

import pytest

from launcher.planning import job_lines
from launcher.planning.plan import Allow
from launcher.submission import workflow
from launcher.submission.submit_plan import SubmitPlanner
from launcher.workspace.ledger import Ledger
from zsg_core.errors import UserError
from zsg_core.metrics import pairs
from zsg_core.metrics.mt_bench import NAMES

GRID = """
name: judged
defaults:
  model: {name: tiny, hidden: 64, layers: 1, vocab: 300}
  data: {set: alpaca, path: rows.json, test_path: rows.json}
  train: {batch: 2, steps: 4, epochs: 4, max_length: 64, precision: fp32}
  checkpoints:
    snapshots: 2
    metrics: [loss, mt_bench]
    suites:
      mt_bench:
        path: question.jsonl
        max_new_tokens: 10
        samples: 2
        judge:
          base_url: https://j.example/v1
          model: thinker
          prompts: judge_prompts.jsonl
          PRICES
grid: {seed: [0, 1]}
"""


def write_files(folder: Path) -> None:
    """Data, one question in two turns, and prompts of nothing but what is judged."""
    rows = [{"instruction": f"Say {n}.", "input": "", "output": "1"} for n in range(4)]
    (folder / "rows.json").write_text(json.dumps(rows))
    question = {"question_id": 1, "category": "writing", "turns": ["abcd", "efgh"]}
    (folder / "question.jsonl").write_text(json.dumps(question) + "\n")
    prompts = [
        {"name": name, "system_prompt": "1234", "prompt_template": template}
        for name, template in zip(
            NAMES.values(),
            [
                "{question}{answer}",
                "{question}{ref_answer_1}{answer}",
                "{question_1}{answer_1}{question_2}{answer_2}",
                "{question_1}{ref_answer_1}{answer_1}{question_2}{ref_answer_2}{answer_2}",
            ],
            strict=True,
        )
    ]
    lines = "".join(json.dumps(row) + "\n" for row in prompts)
    (folder / "judge_prompts.jsonl").write_text(lines)


def add_pair_prompts(folder: Path) -> None:
    """The prompts that compare two answers, beside those that rate one."""
    rows = [
        {"name": name, "system_prompt": "", "prompt_template": "{answer_a}{answer_b}"}
        for name in pairs.NAMES.values()
    ]
    with (folder / "judge_prompts.jsonl").open("a") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows))


def describe_plan(folder: Path, prices: str) -> str:
    """The last of a plan's lines on its jobs."""
    return describe_grid(folder, GRID.replace("PRICES", prices))[-1]


def describe_grid(folder: Path, text: str) -> list[str]:
    """A plan's lines on its jobs."""
    path = folder / "grid.yaml"
    path.write_text(text)
    opened = workflow.open_grid(path, "local", folder / "work")
    plan = SubmitPlanner(
        opened.site, opened.grid, opened.runs, Ledger(opened.site.workspace), Allow()
    ).plan_submit()
    lines = job_lines.describe_jobs(plan, opened.site.profile, opened.estimates.of)
    return [line.words for line in lines]


def test_a_plan_says_what_judging_costs_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs of three checkpoints, the base one of them, two conversations of two
    turns: 24 requests. The first turn has 8 bytes and an answer of 10 tokens, the second
    12 and two answers, each with two texts that a template may write 16 tokens around."""
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path)
    read = 12 * (8 + 10 + 32) + 12 * (12 + 20 + 32)
    asked = (
        f"judge thinker at https://j.example/v1 rates answers: 24 requests at most, of at"
        f" most {read:,} tokens (one for each byte), and 49,152 tokens of replies at most"
    )

    again = "; one without a rating is asked for up to 3 times"
    assert describe_plan(tmp_path, "") == asked + again
    cost = (read * 1 + 24 * 5000 * 10) / 1_000_000
    priced = "price_read: 1\n          price_written: 10\n          max_tokens: 5000"
    told = asked.replace("49,152", "120,000")
    words = f"{told}, a cost of {cost:,.4g} at most"
    assert describe_plan(tmp_path, priced) == words + again


def test_each_longest_reply_of_a_judge_is_counted_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not all by that of the first run."""
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path)
    key = "checkpoints.suites.mt_bench.judge.max_tokens"
    axis = f"grid: [{{seed: 0, {key}: 10}}, {{seed: 1, {key}: 20}}]"
    text = GRID.replace("PRICES", "").replace("grid: {seed: [0, 1]}", axis)
    lines = describe_grid(tmp_path, text)

    assert "and 120 tokens of replies" in lines[-2]
    assert "and 240 tokens of replies" in lines[-1]


def test_a_baseline_that_lacks_answers_is_told_and_one_that_has_none_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anybody is asked; the judge's requests are those of the turns that it has."""
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path)
    add_pair_prompts(tmp_path)
    text = GRID.replace("PRICES", "").replace("mt_bench]", "win_rate]")
    text = text.replace("samples: 2", "baseline: baseline.jsonl")
    row = {"id": "mt_bench/1:1", "answer": "abc"}
    (tmp_path / "baseline.jsonl").write_text(json.dumps(row))
    asked, told = describe_grid(tmp_path, text)[-2:]

    assert "rates answers: 12 requests at most" in asked
    assert told == (
        f"win_rate: the baseline {tmp_path / 'baseline.jsonl'} has no answer to 1 of 2 turns,"
        " or to one before them, and these enter no win rate; the first is 'mt_bench/1:2'"
    )
    row["id"] = "quiz/1"
    (tmp_path / "baseline.jsonl").write_text(json.dumps(row))
    with pytest.raises(
        UserError, match=r"answers no question of .*'quiz/1'.*bench/1:1"
    ):
        describe_grid(tmp_path, text)
