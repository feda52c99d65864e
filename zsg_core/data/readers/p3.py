"""Reads P3 rows, one file per template: as on the hub (`inputs_pretokenized`), or
GPT-3's `prompt`/`completion`.

A template is a task. It is named by the row's `task`, where there is one, or by the
file, or by the folder of a file that is a shard, see `names.find_tasks`. What a row's
`answer_choices` offer are the example's options, see `match_options`.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from zsg_core.data.examples import Example
from zsg_core.data.readers import keyed, names
from zsg_core.data.readers.format import (
    Facts,
    Inspection,
    bare_name,
    find_files,
    list_folder,
    note_unread_files,
    parse_rows,
    reader,
    root_folder,
)
from zsg_core.data.readers.intake import Intake, Malformed
from zsg_core.data.readers.keys import RowKeys
from zsg_core.data.readers.rows import json_rows

END = "<|endoftext|>"  # closes a completion in GPT-3's form
# The data sets of T0's datasets.csv, as the names of their templates' tasks begin.
SETS = (
    "adversarial_qa_dbert",
    "adversarial_qa_dbidaf",
    "adversarial_qa_droberta",
    "ag_news",
    "ai2_arc_ARC_Challenge",
    "ai2_arc_ARC_Easy",
    "amazon_polarity",
    "anli",
    "app_reviews",
    "cnn_dailymail_3.0.0",
    "common_gen",
    "cos_e_v1.11",
    "cosmos_qa",
    "crows_pairs",
    "dbpedia_14",
    "dream",
    "duorc_ParaphraseRC",
    "duorc_SelfRC",
    "gigaword",
    "glue_mrpc",
    "glue_qqp",
    "hellaswag",
    "imdb",
    "jigsaw_toxicity_pred",
    "kilt_tasks_hotpotqa",
    "multi_news",
    "openbookqa_main",
    "paws_labeled_final",
    "piqa",
    "qasc",
    "quail",
    "quarel",
    "quartz",
    "quoref",
    "race_high",
    "race_middle",
    "ropes",
    "rotten_tomatoes",
    "samsum",
    "sciq",
    "social_i_qa",
    "squad_v2",
    "story_cloze_2016",
    "super_glue_axg",
    "super_glue_boolq",
    "super_glue_cb",
    "super_glue_copa",
    "super_glue_multirc",
    "super_glue_record",
    "super_glue_rte",
    "super_glue_wic",
    "super_glue_wsc.fixed",
    "trec",
    "trivia_qa_unfiltered",
    "web_questions",
    "wiki_bio",
    "wiki_hop_original",
    "wiki_qa",
    "wino_bias_type1_anti",
    "wino_bias_type1_pro",
    "wino_bias_type2_anti",
    "wino_bias_type2_pro",
    "winogrande_winogrande_xl",
    "wiqa",
    "xsum",
    "yelp_review_full",
)


class P3Row(RowKeys):
    """Either form; token ids are left aside."""

    inputs_pretokenized: str | None = None
    targets_pretokenized: str | None = None
    prompt: str | None = None
    completion: str | None = None
    task: str | None = None
    answer_choices: Any = None


def parse_row(row: P3Row, name: str, intake: Intake) -> list[Example]:
    """One example. Malformed without both sides."""
    if row.inputs_pretokenized is not None and row.targets_pretokenized is not None:
        prompt, target = row.inputs_pretokenized, row.targets_pretokenized
    elif row.prompt is not None and row.completion is not None:
        prompt, target = row.prompt, row.completion.removesuffix(END)
    else:
        raise Malformed(
            "needs inputs_pretokenized and targets_pretokenized, or prompt and completion"
        )
    task = row.task or name
    choices = match_options(row.answer_choices, target, intake)
    return [
        Example(
            id=intake.next_id(task),
            task=task,
            turns=((prompt, target),),
            options=choices,
        )
    ]


def match_options(published: Any, answer: str, intake: Intake) -> tuple[str, ...]:
    """The different choices of a row, each with the blanks around it that the answer
    has; () where there is no choice.

    A row is trained on whatever its choices are, so what is wrong with them costs it
    its options and nothing else: choices that are no texts, fewer than two that differ
    (blank ones are none), or an answer that is none of them. All are counted in
    `intake`, but for a row that offers nothing, as those of generative templates do.
    """
    if not published:
        return ()
    if not isinstance(published, list) or not all(
        isinstance(text, str) for text in published
    ):
        intake.note("answer_choices that are no list of texts")
        return ()
    choices = dict.fromkeys(bare for text in published if (bare := text.strip()))
    if len(choices) < 2:
        intake.note("answer_choices of which no two differ")
        return ()
    if (right := answer.strip()) not in choices:
        intake.note("answer_choices that the answer is none of")
        return ()
    begin = len(answer) - len(answer.lstrip())
    before, after = answer[:begin], answer[begin + len(right) :]
    return tuple(f"{before}{text}{after}" for text in choices)


def find_data_set(task: str) -> str:
    """The data set that a task is a template of; of a task of none of SETS, the task itself."""
    return next((name for name in SETS if task.startswith(f"{name}_")), task)


def _rows(path: Path) -> list[Path]:
    if path.is_dir():
        return list_folder(path, (".jsonl",), names_are_tasks=True)
    return find_files(path, (".jsonl", ".json"), names_are_tasks=True)


def find_file_tasks(path: Path) -> list[str] | None:
    """The tasks as the files name them, before rows are read; None where rows name their own."""
    files = _rows(path)
    first = next(json_rows(files[0], P3Row, Intake(skip=True)), None)
    if first is not None and any(row.task for row in first.rows):
        return None
    return list(dict.fromkeys(names.find_tasks(files, root_folder(path))[0].values()))


def task_marks(path: Path, files: Sequence[Path]) -> dict[str, str]:
    """The mark of templates that earlier versions called by their shards, or by a
    split; none where they did not.

    The digest of the files knows their names within the folder: one that comes from
    above it stands in the mark.
    """
    tasks, outside = names.find_tasks(files, root_folder(path))
    if all(task == bare_name(file) for file, task in tasks.items()):
        return {}
    return {"tasks": "templates"} | ({} if outside is None else {"template": outside})


def inspect_files(path: Path, facts: Facts) -> Inspection:
    """Whether templates are named otherwise than they were, and which files of a folder
    are not read."""
    files = _rows(path)
    notes: tuple[str, ...] = ()
    if path.is_dir():
        notes = note_unread_files(
            path, [*files, *keyed.list_files(path)], (".jsonl", ".json")
        )
    return Inspection(task_marks(path, files), notes)


@reader(
    "p3",
    about=f"P3: a folder of <template>.jsonl, and {keyed.KEY_LIST} where a list holds tasks out",
    files=lambda path: _rows(path) + keyed.list_files(path),
    lists=keyed.read_lists,
    many_tasks=True,
    options=True,
    inspect=inspect_files,
)
def read_examples(path: Path, intake: Intake) -> Iterator[Example]:
    """The rows of every template, in the order of the files' names."""
    files = _rows(path)
    tasks, _ = names.find_tasks(files, root_folder(path))
    for file in files:
        yield from parse_rows(
            file, json_rows(file, P3Row, intake), parse_row, intake, tasks[file]
        )
