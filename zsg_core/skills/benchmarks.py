"""Makes two small benchmarks for lm-evaluation-harness, and data to tune a model on.

One has the shape of MMLU: a group of four subjects, options A to D, of which the model
says the letter. The other has that of GSM8K: a problem in words, an answer that is
written out and ends in `#### ` and the number. The data to tune on have the shape of
both; none of their questions is asked in a benchmark, and the right words of the first
are others there. So what a model gains is how such a question is answered, on
questions that it has not seen.

Our own words, free to use (MIT).
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from zsg_core.skills.data_set import write_files
from zsg_core.skills.skill import PEOPLE, draw_option, draw_options, split_words

LETTERS = "ABCD"
CHOICES, WORDS = "zsg_choices", "zsg_sums"  # the names of the benchmarks
KINDS = {  # of things, each with its words; the last third of these is only asked in tests
    "animal": split_words(
        "dog horse sheep rabbit eagle shark frog mouse lion goat duck snake tiger bee cow"
        " wolf camel pig cat bear fox whale goose spider"
    ),
    "food": split_words(
        "bread cheese soup rice honey apple butter cake potato onion banana sugar pasta"
        " carrot egg salad tomato lemon pizza yogurt bean grape pear salt"
    ),
    "clothing": split_words(
        "shirt coat hat sock glove skirt scarf jacket boot belt dress sweater shoe trousers"
        " cap vest apron sandal tie robe blouse jeans mitten slipper"
    ),
    "profession": split_words(
        "doctor teacher farmer baker pilot nurse lawyer sailor painter tailor judge soldier"
        " cook miner poet barber dentist plumber writer singer butcher actor miller engineer"
    ),
}
ARTICLES = {"food": "a kind of food", "clothing": "a piece of clothing"}
STORIES = (
    "{who} has {a} {thing} and buys {b} more. How many {thing} does {who} have now?",
    "There are {a} {thing} in the red box and {b} in the blue one. How many {thing} are"
    " there?",
    "{who} found {a} {thing} on Monday and {b} on Tuesday. How many {thing} did {who} find?",
)
COUNTED = split_words(
    "apples pencils shells cards stamps buttons coins eggs marbles nuts"
)
MOST_ADDED = 10  # numbers are from 2 to this


def write_benchmarks(
    folder: Path, trained: int = 600, per_subject: int = 12, seed: int = 0
) -> None:
    """Writes `train.jsonl`, `test.jsonl` and the folder `benchmarks`, whole or not at
    all; the same ones again change nothing.

    `trained`: examples of each benchmark's shape to tune on; `per_subject`: items of each
    subject, and twice as many problems. UserError if `folder` holds anything else.
    """
    write_files(folder.resolve(), make_benchmark_files(trained, per_subject, seed))


def make_benchmark_files(trained: int, per_subject: int, seed: int) -> dict[str, str]:
    """The whole as relative path -> text."""
    rng = Random(f"benchmarks {seed}")
    problems = _draw_apart(_draw_problem, rng, trained + 2 * per_subject)
    tests, train = problems[: 2 * per_subject], problems[2 * per_subject :]
    files = {
        f"benchmarks/{WORDS}.jsonl": _encode(tests),
        f"benchmarks/{WORDS}.yaml": SUMS,
    }
    examples = [
        {"task": WORDS, "question": row["question"], "answer": row["answer"]}
        for row in train
    ]
    held_out = [{**row, "task": WORDS} for row in tests]
    for kind in KINDS:
        items = _draw_apart(_drawer(kind, is_test=True), rng, per_subject)
        name = f"{CHOICES}_{kind}"
        files[f"benchmarks/{name}.jsonl"] = _encode(items)
        files[f"benchmarks/{name}.yaml"] = SUBJECT.replace("NAME", name)
        held_out += [_make_example(row) for row in items]
        few = _draw_apart(_drawer(kind, is_test=False), rng, trained // len(KINDS))
        examples += [_make_example(row) for row in few]
    members = "".join(f"  - {CHOICES}_{kind}\n" for kind in KINDS)
    files[f"benchmarks/{CHOICES}.yaml"] = GROUP.format(members=members)
    files["train.jsonl"] = _encode(examples)
    files["test.jsonl"] = _encode(held_out)
    return files


GROUP = f"""\
# Which of four words is of a kind: as MMLU, a group of subjects.
group: {CHOICES}
task:
{{members}}aggregate_metric_list:
  - {{{{metric: acc, weight_by_size: true}}}}
metadata: {{{{version: 1}}}}
"""
SUBJECT = """\
task: NAME
dataset_path: json
dataset_kwargs: {data_files: {test: NAME.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}\\nA. {{options[0]}}\\nB. {{options[1]}}\\n\\
  C. {{options[2]}}\\nD. {{options[3]}}\\nAnswer:"
doc_to_choice: [A, B, C, D]
doc_to_target: answer
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
metadata: {version: 1}
"""
SUMS = f"""\
# Problems in words: as GSM8K, the number after `#### `, or the last one.
task: {WORDS}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {WORDS}.jsonl}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer.split('#### ')[-1]}}}}"
generation_kwargs: {{until: ["\\n\\n"], do_sample: false, max_gen_toks: 40}}
filter_list:
  - name: strict-match
    filter:
      - {{function: regex, regex_pattern: '#### (-?[0-9]+)'}}
      - {{function: take_first}}
  - name: flexible-extract
    filter:
      - {{function: regex, group_select: -1, regex_pattern: '(-?[0-9]+)'}}
      - {{function: take_first}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
metadata: {{version: 1}}
"""


def _draw_apart(
    draw: Callable[[Random, int], dict[str, Any]], rng: Random, count: int
) -> list[dict[str, Any]]:
    """So many rows, no two with the same question and options. `draw` is also given how
    many there are already."""
    rows: dict[str, dict[str, Any]] = {}
    while len(rows) < count:
        row = draw(rng, len(rows))
        rows.setdefault(json.dumps(row), row)
    return list(rows.values())


def _draw_problem(rng: Random, number: int) -> dict[str, Any]:
    """A problem in words, its answer as GSM8K writes one."""
    del number
    a, b = (2 + int(rng.random() * (MOST_ADDED - 1)) for _ in range(2))
    story = draw_option(rng, STORIES)
    who, thing = draw_option(rng, PEOPLE), draw_option(rng, COUNTED)
    question = story.format(who=who, thing=thing, a=a, b=b)
    answer = f"There are {a} + {b} = {a + b} {thing}.\n#### {a + b}"
    return {"question": question, "answer": answer}


def _drawer(kind: str, *, is_test: bool) -> Callable[[Random, int], dict[str, Any]]:
    """Draws questions whose right word is of a kind. Each letter is right equally often:
    a model that always says the same one is to gain nothing by that."""

    def draw(rng: Random, number: int) -> dict[str, Any]:
        others = [other for other in KINDS if other != kind]
        right = draw_option(rng, _select_words(kind, is_test))
        options = [draw_option(rng, _select_words(other, is_test)) for other in others]
        position = number % len(LETTERS)
        options = draw_options(rng, options, len(options))
        options.insert(position, right)
        named = ARTICLES.get(kind, f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}")
        question = f"Which of these is {named}?"
        return {
            "question": question,
            "options": options,
            "answer": position,
            "kind": kind,
        }

    return draw


def _select_words(kind: str, is_test: bool) -> Sequence[str]:
    """The words of a kind that are asked in tests, or those that are trained on."""
    words = KINDS[kind]
    first = len(words) * 2 // 3
    return words[first:] if is_test else words[:first]


def _make_example(row: dict[str, Any]) -> dict[str, str]:
    """An item of the first benchmark as it is tuned on: the question as the harness
    writes it, the letter as its answer."""
    lines = [
        f"{letter}. {word}"
        for letter, word in zip(LETTERS, row["options"], strict=True)
    ]
    question = "\n".join([row["question"], *lines, "Answer:"])
    return {
        "task": f"{CHOICES}_{row['kind']}",
        "question": question,
        "answer": LETTERS[row["answer"]],
    }


def _encode(rows: Sequence[dict[str, Any]]) -> str:
    return "".join(f"{json.dumps(row)}\n" for row in rows)
