"""A few of the published benchmarks' questions, and data of which a tiny model learns
their answers by heart."""

import gzip
import json
from pathlib import Path
from typing import Any

from zsg_core.data.readers import evaluation
from zsg_core.data.readers.intake import Intake
from zsg_core.metrics import human_eval

COUNT = 3
ASKED = (81, 101, 111)  # MT-Bench: writing, reasoning, math


def cut(real: Path, folder: Path) -> Path:
    """Writes the shortest questions of GSM8K and HumanEval, three of MT-Bench, and
    `rows.json` with answers."""
    folder.mkdir(exist_ok=True)
    asked = _shortest((real / "gsm8k/test.jsonl").read_text(encoding="utf-8"))
    problems = _shortest(
        gzip.open(real / "humaneval/HumanEval.jsonl.gz", "rt", encoding="utf-8").read()
    )
    _write(folder / "gsm8k.jsonl", asked)
    _write(folder / "HumanEval.jsonl", problems)
    rows = [
        {"instruction": row["question"], "input": "", "output": row["answer"]}
        for row in asked
    ]
    for one in evaluation.read_problems(folder / "HumanEval.jsonl", Intake()):
        code = (
            f"```python\n{one.prompt.strip()}\n{one.canonical_solution.rstrip()}\n```"
        )
        rows.append(
            {
                "instruction": human_eval.build_instruction(one),
                "input": "",
                "output": code,
            }
        )
    (folder / "rows.json").write_text(json.dumps(rows))
    for name in ("question.jsonl", "reference_answer/gpt-4.jsonl"):
        lines = (
            (real / "mt_bench/mt_bench" / name).read_text(encoding="utf-8").splitlines()
        )
        (folder / name).parent.mkdir(exist_ok=True)
        _write(
            folder / name,
            [row for row in map(json.loads, lines) if row["question_id"] in ASKED],
        )
    (folder / "judge_prompts.jsonl").write_bytes(
        (real / "mt_bench/judge_prompts.jsonl").read_bytes()
    )
    return folder


def _shortest(text: str) -> list[dict[str, Any]]:
    return sorted(
        map(json.loads, text.splitlines()), key=lambda row: sum(map(len, row.values()))
    )[:COUNT]


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def reward_model(folder: Path) -> Path:
    """A tiny reward model of random weights, as UltraRM."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig

    from jobs.evaluating import reward
    from jobs.model import base_model

    shape = {
        "vocab": 300,
        "hidden": 32,
        "layers": 2,
        "heads": 2,
        "context": 1024,
        "seed": 3,
    }
    base_model.make_tiny(
        folder / "base", shape, ["Human: say it and go on. Assistant: it"]
    )
    torch.manual_seed(5)
    model = reward._with_regression_head()(LlamaConfig.from_pretrained(folder / "base"))
    model.regression_head.weight.data.normal_()
    model.save_pretrained(folder / "reward")
    AutoTokenizer.from_pretrained(folder / "base").save_pretrained(folder / "reward")
    return folder / "reward"
