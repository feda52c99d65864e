"""Samples a model's own answers to the questions of a data set, as records that a
corpus draws from (DELIA).

records/<id>/          as of any data set; meta.json tells how many questions have no answer and why
records/.<id>.draft/   answers.jsonl while they are made, a line for each batch: [[id, text], …]
                       batches.json: the most tokens of a batch, as it was planned first
                       cut.jsonl, a line for each batch before its answers: the ids of
                       those that are cut off

The model reads a system text, a question, the answer that the data have, and the
question again; it answers the second time, so that length and form are those of the
data and the words its own (build_cache.py of DELIA's code). Killed at any moment it
goes on after the last whole line. The draws are seeded by question, and batches are
those of all prompts, as they were planned first: a job that went on has the answers
that one in one go would have had.
"""

import contextlib
import importlib.metadata
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from jobs.contract import removal
from jobs.contract.folder import (
    META,
    Workspace,
    is_whole,
    lock_folder,
    publish_folder,
    read_json,
    write_json,
)
from jobs.contract.prepared import SamplingFacts
from jobs.files import ownership
from jobs.model import content
from jobs.model.vocabulary import Vocabulary, load_vocabulary, refuse_lossy
from jobs.preparing import reading_notes, records
from jobs.runtime import devices
from zsg_core.data import prompts, readers, splits
from zsg_core.data.examples import Example
from zsg_core.data.prompts import Template
from zsg_core.data.readers.intake import Intake
from zsg_core.errors import UserError
from zsg_core.families.registry import position_count
from zsg_core.recipe import Recipe

if TYPE_CHECKING:
    from jobs.model.generate import Generator

logger = logging.getLogger(__name__)

VERSIONS = ("torch", "transformers")
BATCHES = "batches.json"
LEAST_ROOM = 16  # tokens of what zsg's own templates write around texts
TRIED = 8  # examples whose questions the tokenizer is tried on

Answers = dict[str, str]  # id → text as the model wrote it


@dataclass(frozen=True)
class Asked:
    """The questions that are asked, the ids of each prompt, and how many are passed
    over as too long."""

    examples: list[Example]
    prompts: list[list[int]]
    too_long: int


def make_answers(
    workspace: Workspace,
    made_id: str,
    source: Recipe,
    path: Path,
    base: Path,
    gpus: int = 0,
) -> None:
    """Publishes records/<made_id> unless it is there. `gpus`: those that the job was
    given. UserError where no question can be asked, or none is answered."""
    from jobs.model import placement
    from jobs.model.batching import choose_attention

    folder = workspace.records(made_id)
    draft = removal.name_unfinished(folder)
    with lock_folder(folder):
        if is_whole(folder):  # another job has made it while this one waited
            return
        content.refuse_changed(
            path, content.data_files(source["reader"]), source["digest"]
        )
        content.refuse_other_reading(source["reader"], path, source)
        rule, intake = source["self_sample"], Intake(source.get("on_bad_row") == "skip")
        vocabulary, context = (
            load_vocabulary(base, rule),
            position_count(read_json(base / "config.json") or {}),
        )
        fields = source.get("fields")
        read = readers.read_examples(source["reader"], path, intake, fields)
        examples = list(read)
        refuse_lossy(
            base,
            vocabulary,
            (asked for example in examples[:TRIED] for asked, _ in example.turns),
        )
        asked = encode_questions(
            choose_questions(examples, rule), rule, vocabulary, context
        )
        if not asked.examples:
            room = f"{context} positions with answers of {rule['how']['max_new_tokens']} tokens"
            raise UserError(
                f"{path}: its questions are too long for {room}; lower self_sample.max_new_tokens"
            )
        ownership.make_folder(draft)
        attention = choose_attention(base, workspace)
        load = partial(
            placement.load_on,
            folder=base,
            precision=rule["precision"],
            attention=attention,
        )
        used = _answer(asked, draft / "answers.jsonl", rule, load, vocabulary, gpus)
        facts = {
            "asked": len(asked.examples),
            "too_long": asked.too_long,
            "device": ", ".join(used),
        }
        facts |= {
            "versions": {name: importlib.metadata.version(name) for name in VERSIONS}
        }
        facts |= {"at_limit": len(_cut(draft / "cut.jsonl"))}
        _publish(
            folder,
            source,
            asked,
            read_answers(draft / "answers.jsonl"),
            facts | intake.facts(),
        )
        shutil.rmtree(draft, ignore_errors=True)


def choose_questions(examples: Sequence[Example], rule: Recipe) -> list[Example]:
    """The questions that are asked: all, or so many of them."""
    return splits.sample_nested(
        examples, rule.get("items", len(examples)), rule["how"]["seed"], "self_sample"
    )


def encode_questions(
    examples: Sequence[Example], rule: Recipe, vocabulary: Vocabulary, context: int
) -> Asked:
    """The prompts of questions. One is passed over where prompt and answer are beyond
    the model's positions."""
    template = Template.from_recipe(rule["template"])
    room = context - rule["how"]["max_new_tokens"]
    chat = vocabulary.open_chat(template) if template.name == prompts.CHAT else None
    fitting: list[Example] = []
    prompt_ids: list[list[int]] = []
    for example in examples:
        question, answer = example.turns[0]
        again = msgspec.structs.replace(
            example, system=rule["system"], turns=((question, answer), (question, ""))
        )
        if chat:
            ids = chat.encode_prompt(again, room).ids
        else:
            ids = _encode_question(again, template, vocabulary, room)
        if ids is not None:
            fitting.append(example)
            prompt_ids.append(ids)
    return Asked(fitting, prompt_ids, len(examples) - len(fitting))


def _encode_question(
    example: Example, template: Template, vocabulary: Vocabulary, room: int
) -> list[int] | None:
    """What stands before the second answer of a dialogue; None where it does not fit."""
    if room <= LEAST_ROOM:
        return None
    encoded = prompts.encode_example(
        example,
        template=template,
        tokenize=vocabulary.tokenize,
        bos=vocabulary.bos,
        eos=vocabulary.eos,
        max_length=room,
    )
    if len(encoded.spans) < 2 or encoded.cut:
        return None
    return encoded.ids[: encoded.spans[1][0]]


def read_answers(path: Path) -> Answers:
    """The answers of a draft's file; what a kill has cut off is taken away."""
    if not path.exists():
        return {}
    whole, newline, torn = path.read_bytes().rpartition(b"\n")
    if torn:
        os.truncate(path, len(whole + newline))
    return {
        made_id: text
        for line in whole.splitlines()
        for made_id, text in json.loads(line)
    }


def _cut(path: Path) -> set[str]:
    """Whose answers ended at max_new_tokens or the last position; what a kill has cut
    off of a line is passed over."""
    names: set[str] = set()
    for line in path.read_bytes().splitlines() if path.exists() else []:
        with contextlib.suppress(ValueError):
            names.update(json.loads(line))
    return names


def _answer(
    asked: Asked,
    path: Path,
    rule: Recipe,
    load: Callable[[Sequence[str]], Any],
    vocabulary: Vocabulary,
    gpus: int,
) -> list[str]:
    """Answers what has no answer in the file yet, batch by batch; the devices that it
    was done on."""
    from jobs.model.generate import Generator

    used_devices = devices.choose_devices(gpus)
    answers, names = read_answers(path), [example.id for example in asked.examples]
    if all(name in answers for name in names):
        return used_devices
    if answers:
        logger.info(f"sampling {len(names)} answers, continuing after {len(answers)}")
    model = load(used_devices)
    ends = list_ends(rule, vocabulary)
    generator = Generator(
        model.eval().requires_grad_(False),
        {**rule["how"], **ends},
        vocabulary.bos,
        vocabulary.eos,
        used_devices[0],
    )
    batches = _plan_batches(generator, asked.prompts, path.parent)
    is_answered = [name in answers for name in names]
    done = len(answers)
    not_over = path.with_name("cut.jsonl")
    with path.open("ab") as file, not_over.open("a", encoding="utf-8") as cut:
        cut.write("\n")  # after what a kill may have left of a line
        for batch in _select_unanswered(batches, is_answered):
            batch_names = [names[index] for index in batch]
            prompt_ids = [asked.prompts[index] for index in batch]
            answer_ids = generator.answers(prompt_ids, batch_names)
            cut_names = _list_cut(generator, batch_names, prompt_ids, answer_ids)
            cut.write(f"{json.dumps(cut_names)}\n")
            cut.flush()
            rows = [
                [name, vocabulary.text(ids)]
                for name, ids in zip(batch_names, answer_ids, strict=True)
            ]
            file.write(json.dumps(rows).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
            done += len(batch)
            logger.info(f"sampled {done} of {len(names)} answers")
    return used_devices


def list_ends(rule: Recipe, vocabulary: Vocabulary) -> dict[str, list[int]]:
    """The tokens at which an answer is over, beside the tokenizer's end of sequence."""
    ends = set(rule.get("ends", ()))
    template = Template.from_recipe(rule["template"])
    if template.name == prompts.CHAT:
        end_of_turn = vocabulary.open_chat(template).end_of_turn
        ends |= set() if end_of_turn is None else {end_of_turn}
    return {"ends": sorted(ends)} if ends else {}


def _select_unanswered(
    batches: list[list[int]], is_answered: list[bool]
) -> Iterator[list[int]]:
    """What of each batch has no answer yet, where that is anything."""
    for batch in batches:
        if unanswered := [index for index in batch if not is_answered[index]]:
            yield unanswered


def _list_cut(
    generator: "Generator",
    names: list[str],
    prompt_ids: list[list[int]],
    answer_ids: list[list[int]],
) -> list[str]:
    """The names of the answers that are cut off."""
    return [
        name
        for name, prompt, answer in zip(names, prompt_ids, answer_ids, strict=True)
        if generator.is_cut(prompt, answer)
    ]


def _plan_batches(
    generator: "Generator", prompt_ids: list[list[int]], draft: Path
) -> list[list[int]]:
    """The batches of all prompts: those of the draft's first start, whatever memory is
    free now."""
    path = draft / BATCHES
    plan = read_json(path) or {"tokens": generator.choose_tokens(prompt_ids)}
    write_json(path, plan)
    generator.budget.keep_within(plan["tokens"])
    return generator.plan_batches(prompt_ids)


def _publish(
    folder: Path,
    source: Recipe,
    asked: Asked,
    answers: Answers,
    facts: dict[str, Any],
) -> None:
    """Writes the examples whose answers a model made, with how it was asked. UserError
    where all answers are empty."""
    rule = source["self_sample"]
    sampled_examples = list(_examples(asked.examples, answers, rule["cut"]))
    turn = prompts.next_turn(rule["template"]["name"])
    facts |= {
        "empty": len(asked.examples) - len(sampled_examples),
        "runs_on": sum(turn in text for text in answers.values()) if turn else 0,
        "cut_words": sum(
            bool(answers[example.id][: rule["cut"]].strip())
            for example in asked.examples
        ),
    }
    logger.info(
        f"records {folder.name}: {len(sampled_examples)} answers of the model's own"
    )
    sampled = msgspec.convert(facts, SamplingFacts)
    for note in reading_notes.describe_sampling(sampled):
        logger.warning(note)
    if not sampled_examples:
        raise UserError(
            "self_sample: every answer is empty; is this a model that was taught to chat?"
        )
    with publish_folder(folder) as draft:
        records.write_records(draft, sampled_examples, folder.name)
        records.Records(draft).refuse_doubled(folder)
        facts |= {"digest": content.sha256_of([draft / records.DATA])[0]}
        meta = {
            "reader": source["reader"],
            "source": source["digest"],
            "lists": None,
            "count": len(sampled_examples),
        }
        write_json(draft / META, {**meta, "self_sample": rule, "sampled": facts})


def _examples(
    asked: Sequence[Example], answers: Answers, cut: int
) -> Iterator[Example]:
    """The questions with the model's answers, in their order; without those that are blank."""
    for example in asked:
        text = answers[example.id][cut:]
        if text.strip():
            turn = example.turns[0][0], text
            yield msgspec.structs.replace(
                example, system="", turns=(turn,), references=(), options=()
            )
