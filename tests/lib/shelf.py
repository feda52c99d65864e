"""The data and models that the shipped grids name, each as small as a plan can do with."""

import gzip
import json
from pathlib import Path
from typing import Any

from tests.lib.chat_templates import CHATML
from tests.lib.published_gemma import write_gemma
from tests.lib.published_llamas import remember, write_model
from zsg_core import skills
from zsg_core.skills.benchmarks import write_benchmarks

TRAINED, HELD_OUT = 1600, 225  # tasks of ZSG's split of Flan-mini
MODELS = {
    "Llama-2-7b-hf": "7B",
    "Llama-2-7b-chat-hf": "7B",
    "llama-7b-hf": "7B",
    "llama-13b-hf": "13B",
    "llama-33b-hf": "33B",
    "SmolLM2-135M-Instruct": "135M",
}
CHAT_MODELS = ("SmolLM2-135M-Instruct",)  # they have a chat template
DELIA = {
    "messages": [
        {"role": "user", "content": "{n} is 2\n\nSay so as <sep>."},
        {"role": "assistant", "content": "{'thought': 'no', 'hallucination': 'yes'}"},
    ]
}
MESSAGES = {
    "messages": [
        {"role": "user", "content": "{n} + 5?"},
        {"role": "assistant", "content": "6{n}"},
    ]
}
DIRECTIONS = ("en-is", "is-en")
DOCUMENT = {
    "query": "Translate this text.\n\n {n} is a number.",
    "response": "Sure, here it is:\n\n {n} er tala.",
}
P3 = {
    "inputs_pretokenized": "What is {n} + 1?",
    "targets_pretokenized": "{n} and one",
    "answer_choices": ["{n} and one", "nothing at all like {n}"],
}
CHAT = {
    "conversations": [
        {"from": "human", "value": "Hi, {n}."},
        {"from": "gpt", "value": "Hello, {n}."},
    ]
}
SPECIALISTS = {"calendar": "Calendar Reasoning", "topics": "Topic Labelling"}
GENERAL = (
    "Sentiment Analysis",
    "Number Comparison",
    "Letter Editing",
    "List Operations",
    "Table Lookup",
    "Word Grammar",
)
SKILLS = {name: [family] for name, family in SPECIALISTS.items()} | {"general": GENERAL}
FOLDERS = {
    "p3": ("train", "held-out", "t0", "t0-plus", "t0-plus-plus"),
    "muppet": ("train", "held-out"),
    "flan": ("held-out", "muffin", "t0-sf", *(f"c{number}" for number in range(1, 8))),
    "suites": tuple(
        f"{suite}-{part}"
        for suite in ("mmlu", "bbh", "tydiqa")
        for part in ("dev", "test")
    ),
}
# of the hub, below a folder `hub`: those that tasks of lm-evaluation-harness read
CLONES = ("cais/mmlu", "SaylorTwift/bbh", "juletxara/mgsm")
FILES: dict[str, Any] = {  # a row, where {n} is its number, or all there are
    "gsm8k-rft.jsonl": {"question": "{n} + 1?", "answer": "#### 2{n}"},
    "gsm8k-train.jsonl": {"question": "{n} + 4?", "answer": "#### 5{n}"},
    "gsm8k-test.jsonl": {"question": "{n} + 2?", "answer": "#### 3{n}"},
    "code_alpaca_20k.json": {
        "instruction": "Print {n}.",
        "input": "",
        "output": "print({n})",
    },
    "HumanEval.jsonl.gz": {
        "task_id": "t{n}",
        "prompt": "def f{n}",
        "canonical_solution": "s",
        "entry_point": "e",
        "test": "x",
    },
    "sharegpt.json": CHAT,
    "sharegpt-eval.json": CHAT,
    "sharegpt_gpt4.json": CHAT,
    "sharegpt_gpt4-eval.json": CHAT,
    "mt_bench/question.jsonl": [
        {"question_id": 81, "category": "writing", "turns": ["Write."]}
    ],
    "judge_prompts.jsonl": [
        {
            "name": f"single{maths}-v1{turns}",
            "system_prompt": "",
            "prompt_template": "{question}",
        }
        for maths in ("", "-math")
        for turns in ("", "-multi-turn")
    ],
    "instag.jsonl": {"id": "sharegpt:{n}", "tags": ["greeting"]},
    "no_robots-train.jsonl": {
        "messages": [
            {"role": "user", "content": "{n}?"},
            {"role": "assistant", "content": "2{n}"},
        ]
    },
    "no_robots-test.jsonl": {
        "messages": [
            {"role": "user", "content": "{n}, then?"},
            {"role": "assistant", "content": "4{n}"},
        ]
    },
    "delia-train.jsonl": DELIA,
    "delia-eval.jsonl": DELIA,
    "delia-eval-words.jsonl": DELIA,
    "delia-eval-control.jsonl": DELIA,
    "delia-facts.jsonl": MESSAGES,
    "delia-queries.jsonl": MESSAGES,
    **{f"tell/dev-{way}.jsonl": DOCUMENT for way in DIRECTIONS},
    **{f"tell/dict-{way}.jsonl": DOCUMENT for way in DIRECTIONS},
    **{f"tell/test-{way}-2shot.jsonl": MESSAGES for way in DIRECTIONS},
    **{f"tell/test-{way}-dict-2shot.jsonl": MESSAGES for way in DIRECTIONS},
    **{f"tell/words-{way}.jsonl": MESSAGES for way in DIRECTIONS},
}
WORDINGS = {
    "delia-wordings.txt": "Answer as <sep>.\nThe form is <sep>.\n",
    "delia-words.txt": "Answer with a thought and a label.\n",
    "delia-control.txt": "form: thought, hallucination\n",
    **{
        f"translation-wordings-{way}.txt": "Translate this text.\nInto {way}, please.\n"
        for way in DIRECTIONS
    },
}


WORKSPACES = ("work", "small", "zsg-work")  # of those who plan what lies on the shelf


def fill(folder: Path, rows: int = 1) -> Path:
    """Writes everything that a template names below a folder: so many rows of each
    file, or of each task."""
    for name in ("tasks", "demo/tasks", "natural-instructions"):
        skills.write_tasks(folder / name, per_task=12)
    skills.write_tasks(folder / "skills", per_task=12, large=True)
    write_benchmarks(folder / "before-and-after", trained=8 * rows, per_subject=4)
    for name, families in SKILLS.items():
        skills.write_tasks(
            folder / f"skills-{name}", per_task=12, large=True, families=families
        )
    for name, row in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        write = gzip.open if name.endswith(".gz") else open
        with write(folder / name, "wt") as file:
            made = (
                [numbered(row, n) for n in range(rows)]
                if isinstance(row, dict)
                else map(_line, row)
            )
            file.writelines(made)
    if rows > 1:  # as many questions as the greatest ratio of a smoke run asks for
        queries = [numbered(FILES["delia-queries.jsonl"], n) for n in range(4 * rows)]
        (folder / "delia-queries.jsonl").write_text("".join(queries))
    for name, text in WORDINGS.items():
        (folder / name).write_text(text)
    for parent, names in FOLDERS.items():
        for name in names:
            (folder / parent / name).mkdir(parents=True)
            # Of Muppet, as many tasks as a smoke run takes of its 46; names in the
            # order in which they are added.
            for task in (
                [f"sum{n}" for n in range(8)]
                if name == "train" and rows > 1
                else ["sum", "total"]
            ):
                # Those of T0 are templates of one of its data sets.
                named = f"xsum_{name}_{task}" if parent == "p3" else f"{name}_{task}"
                with (folder / parent / name / f"{task}.jsonl").open("w") as file:
                    file.writelines(
                        numbered({**P3, "task": named}, n) for n in range(rows)
                    )
    for name in ("cot", "cot-held-out"):
        (folder / "flan" / name).mkdir()
        lines = "".join(f"{n} + 1?\t{n + 1}\tOne more than {n}.\n" for n in range(rows))
        (folder / "flan" / name / "sums_train.tsv").write_text(lines)
    for clone in CLONES:
        (folder / "hub" / clone).mkdir(parents=True)
    _flan_mini(folder / "flan-mini", rows)
    (folder / "models").mkdir()
    for name, size in MODELS.items():
        model = write_model(folder / "models" / name, size)
        if name in CHAT_MODELS:
            (model / "chat_template.jinja").write_text(CHATML)
    write_gemma(folder / "models/gemma-7b-it")
    write_model(folder / "models/UltraRM-13b", "13B", ["regression_head"])
    for workspace in WORKSPACES:
        remember(folder / workspace, *(path for path in (folder / "models").iterdir()))
    return folder


def numbered(row: Any, n: int) -> str:
    """A line of JSON with a number for {n}."""
    return _line(row).replace("{n}", str(n))


def _line(row: Any) -> str:
    return json.dumps(row) + "\n"


def _flan_mini(folder: Path, rows: int) -> None:
    folder.mkdir()
    trained, held_out = (
        [f"{kind}{number}" for number in range(count)] for kind, count in _TASKS.items()
    )
    some = [*trained[: min(rows, 8)], *held_out[: min(rows, 8)]]
    numbers = range(rows)
    made = [
        json.loads(numbered({"source": task, **CHAT}, n * 100 + m))
        for m, task in enumerate(some)
        for n in numbers
    ]
    (folder / "flan_mini.json").write_text(json.dumps(made))
    lists = {"train_key_list": trained, "eval_key_list": held_out}
    (folder / "train_eval_key_list.json").write_text(json.dumps(lists))


_TASKS = {"trained": TRAINED, "held-out": HELD_OUT}
