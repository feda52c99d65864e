"""The data and models that the shipped grids name, each as small as a plan can do with."""

import gzip
import json
from pathlib import Path
from typing import Any

from published_llamas import write_model

from zsg_core import skills

TRAINED, HELD_OUT = 1600, 225  # tasks of ZSG's split of Flan-mini
MODELS = {"Llama-2-7b-hf": "7B", "llama-7b-hf": "7B", "llama-13b-hf": "13B", "llama-33b-hf": "33B"}
P3 = {"inputs_pretokenized": "1 + 1?", "targets_pretokenized": "2"}
CHAT = {"conversations": [{"from": "human", "value": "Hi."}, {"from": "gpt", "value": "Hello."}]}
FOLDERS = {
    "p3": ("train", "held-out", "t0", "t0-plus", "t0-plus-plus"),
    "flan": ("held-out", "muffin", "t0-sf", *(f"c{number}" for number in range(1, 8))),
}
FILES: dict[str, Any] = {
    "gsm8k-rft.jsonl": {"question": "1 + 1?", "answer": "#### 2"},
    "gsm8k-test.jsonl": {"question": "1 + 2?", "answer": "#### 3"},
    "code_alpaca_20k.json": {"instruction": "Print 1.", "input": "", "output": "print(1)"},
    "HumanEval.jsonl.gz": {"task_id": "t", "prompt": "p", "canonical_solution": "s", "entry_point": "e", "test": "x"},
    "sharegpt.json": CHAT,
    "sharegpt-eval.json": CHAT,
    "sharegpt_gpt4.json": CHAT,
    "sharegpt_gpt4-eval.json": CHAT,
    "mt_bench/question.jsonl": {"question_id": 81, "category": "writing", "turns": ["Write."]},
    "judge_prompts.jsonl": [
        {"name": f"single{maths}-v1{turns}", "system_prompt": "", "prompt_template": "{question}"}
        for maths in ("", "-math")
        for turns in ("", "-multi-turn")
    ],
    "instag.jsonl": {"id": "sharegpt:0", "tags": ["greeting"]},
    "no_robots-train.jsonl": {"messages": [{"role": "user", "content": "1?"}, {"role": "assistant", "content": "2"}]},
    "no_robots-test.jsonl": {"messages": [{"role": "user", "content": "3?"}, {"role": "assistant", "content": "4"}]},
}


def fill(folder: Path) -> Path:
    """Writes everything that a template names below a folder."""
    for name in ("tasks", "demo/tasks", "natural-instructions"):
        skills.write_tasks(folder / name, per_task=12)
    for name, rows in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        write = gzip.open if name.endswith(".gz") else open
        with write(folder / name, "wt") as file:
            file.writelines(json.dumps(row) + "\n" for row in (rows if isinstance(rows, list) else [rows]))
    for parent, names in FOLDERS.items():
        for name in names:
            (folder / parent / name).mkdir(parents=True)
            (folder / parent / name / "sum.jsonl").write_text(json.dumps({**P3, "task": f"{name}_sum"}) + "\n")
    for name in ("cot", "cot-held-out"):
        (folder / "flan" / name).mkdir()
        (folder / "flan" / name / "sums_train.tsv").write_text("1 + 1?\t2\tOne and one is two.\n")
    _flan_mini(folder / "flan-mini")
    (folder / "models").mkdir()
    for name, size in MODELS.items():
        write_model(folder / "models" / name, size)
    return folder


def _flan_mini(folder: Path) -> None:
    folder.mkdir()
    trained, held_out = ([f"{kind}{number}" for number in range(count)] for kind, count in _TASKS.items())
    rows = [{"source": task, **CHAT} for task in (trained[0], held_out[0])]
    (folder / "flan_mini.json").write_text(json.dumps(rows))
    lists = {"train_key_list": trained, "eval_key_list": held_out}
    (folder / "train_eval_key_list.json").write_text(json.dumps(lists))


_TASKS = {"trained": TRAINED, "held-out": HELD_OUT}
