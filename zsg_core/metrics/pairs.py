"""Has a judge compare answers to MT-Bench's questions with those of a baseline, each pair
in both places, and reads its verdicts as FastChat does (`pair-v2`).

Judges favour a place. So each pair is shown twice, with the places changed, and an
answer wins only where both verdicts say so; what differs is a tie, and counted.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import msgspec

from zsg_core.data.examples import Example
from zsg_core.data.readers.intake import Intake
from zsg_core.data.readers.rows import json_rows
from zsg_core.digest import content_id
from zsg_core.errors import BadData
from zsg_core.metrics.mt_bench import (
    WITH_REFERENCE,
    JudgePrompt,
    JudgeRequest,
    fill_template,
    read_judge_prompts,
    turn_id,
)
from zsg_core.metrics.registry import MT_BENCH, add_metric
from zsg_core.metrics.scoring import Answered, ByItem, mean_by_item

WIN_RATE = "win_rate"
# by turns and whether there is a reference answer
NAMES = {
    (1, False): "pair-v2",
    (1, True): "pair-math-v1",
    (2, False): "pair-v2-multi-turn",
    (2, True): "pair-math-v1-multi-turn",
}
# what stands first, and what behind its id
FIRST, SECOND = "first", "second"
# verdicts as numbers, as a judge's ratings are kept; in FastChat's order of looking
A, B, TIE = 1.0, 2.0, 3.0
_VERDICTS = (("[[A]]", A), ("[[B]]", B), ("[[C]]", TIE))

add_metric(WIN_RATE, suite=MT_BENCH)  # where there is a judge


class BaselineRow(msgspec.Struct, frozen=True):
    """A line of a baseline: what `zsg answers export` prints, of its keys these two."""

    id: str
    answer: str


def read_prompts(path: Path) -> dict[str, JudgePrompt]:
    """The prompts that compare two answers. BadData where one is missing."""
    return read_judge_prompts(
        path, {name: list_fields(name) for name in NAMES.values()}
    )


def read_baseline(path: Path) -> dict[str, str]:
    """The answers of a baseline by `turn_id`. BadData for a file without one, and for two
    answers to one turn, as of several steps."""
    answers: dict[str, str] = {}
    with closing(json_rows(path, BaselineRow, Intake())) as chunks:
        for chunk in chunks:
            for number, row in enumerate(chunk.rows, chunk.first):
                if answers.setdefault(row.id, row.answer) != row.answer:
                    raise BadData(
                        f"{path}{chunk.where.format(number)}: {row.id} has two answers; take"
                        " those of one run at one step, and of one sample"
                    )
    if not answers:
        raise BadData(f"{path}: holds no answers")
    return answers


def list_fields(name: str) -> set[str]:
    """The fields that a prompt of that name may have."""
    turns, has_reference = next(
        kind for kind, prompt_name in NAMES.items() if prompt_name == name
    )
    kinds = ["question", "answer_a", "answer_b"]
    fields = set(kinds)
    if has_reference:
        kinds.append("ref_answer")
    return fields | {f"{kind}_{turn}" for kind in kinds for turn in range(1, turns + 1)}


def read_verdict(reply: str, *, is_cut: bool = False) -> float | None:
    """Which of the two is better by a reply: A, B or TIE; None where it says nothing, or
    was cut, as FastChat looks for A before B in all of it."""
    if is_cut:
        return None
    return next((value for mark, value in _VERDICTS if mark in reply), None)


def build_pairs(
    questions: Iterable[Example],
    prompts: Mapping[str, JudgePrompt],
    answers: Iterable[Answered],
    baseline: Mapping[str, str],
) -> list[JudgeRequest]:
    """What a judge is asked of each turn that both the model and the baseline have
    answered, those before it included: once with the model's answer as A, once as B.

    `answers` are of one conversation about each question, `baseline` texts by
    `turn_id`. BadData for a question that needs a reference answer and has none.
    """
    replies = {answered.id: answered.answer for answered in answers}
    requests: list[JudgeRequest] = []
    for question in questions:
        for number in range(1, len(question.turns) + 1):
            names = _list_turns_until(question, number)
            if not all(name in replies and name in baseline for name in names):
                continue
            model_texts = [replies[name] for name in names]
            baseline_texts = [baseline[name] for name in names]
            requests.append(
                _make_request(question, prompts, model_texts, baseline_texts, FIRST)
            )
            requests.append(
                _make_request(question, prompts, model_texts, baseline_texts, SECOND)
            )
    return requests


def find_uncompared_turns(
    questions: Iterable[Example],
    answered: Collection[str],
    baseline: Collection[str],
) -> list[str]:
    """The turns that the model has answered, those before them included, and that are
    compared with nothing all the same: the baseline has no answer to them, or to one
    before them. All are ids of turns, in the order of the questions."""
    uncompared: list[str] = []
    for question in questions:
        for number in range(1, len(question.turns) + 1):
            names = _list_turns_until(question, number)
            is_answered = all(name in answered for name in names)
            has_baseline = all(name in baseline for name in names)
            if is_answered and not has_baseline:
                uncompared.append(names[-1])
    return uncompared


def list_turns(questions: Iterable[Example]) -> list[str]:
    """The ids of all turns of these questions, in their order."""
    turns: list[str] = []
    for question in questions:
        turns += _list_turns_until(question, len(question.turns))
    return turns


def _list_turns_until(question: Example, number: int) -> list[str]:
    """The ids of a question's turns, from the first to that of this number."""
    return [turn_id(question, turn) for turn in range(1, number + 1)]


def _make_request(
    question: Example,
    prompts: Mapping[str, JudgePrompt],
    model_texts: Sequence[str],
    baseline_texts: Sequence[str],
    place: str,
) -> JudgeRequest:
    """What the judge is asked of one turn, with the model's answers in one place."""
    number = len(model_texts)
    has_reference = question.task in WITH_REFERENCE
    prompt = prompts[NAMES[number, has_reference]]
    sides = (
        (model_texts, baseline_texts)
        if place == FIRST
        else (baseline_texts, model_texts)
    )
    fields = {"question": question.turns[0][0]}
    for letter, texts in zip("ab", sides, strict=True):
        fields[f"answer_{letter}"] = texts[0]
        for turn, text in enumerate(texts, 1):
            fields[f"answer_{letter}_{turn}"] = text
    for turn, (text, reference) in enumerate(question.turns[:number], 1):
        fields[f"question_{turn}"] = text
        if has_reference:
            fields[f"ref_answer_{turn}"] = _need_reference(question, reference)
    return JudgeRequest(
        id=f"{turn_id(question, number)}|{place}",
        task=question.task,
        system=prompt.system_prompt,
        user=fill_template(prompt.prompt_template, fields),
        answer=content_id(list(model_texts), length=64),
        prompt=content_id(
            [prompt.system_prompt, prompt.prompt_template, fields], length=64
        ),
    )


def _need_reference(question: Example, reference: str) -> str:
    if not reference:
        raise BadData(
            f"{question.id}: a question in {question.task} is judged beside a reference answer,"
            " and has none"
        )
    return reference


@dataclass(frozen=True)
class Compared:
    """Scores of turns, 100 for one that won, 50 for a tie, 0 for one that lost, and how
    many of them changed their winner with the places."""

    by_item: ByItem
    compared: int
    turned: int

    def describe(self) -> str:
        """How often the place decided, for people."""
        return (
            f"{self.turned} of {self.compared} comparisons had another winner when the answers"
            " changed places, and count as ties"
        )


def score_verdicts(conversations: Iterable[Mapping[str, float]]) -> Compared:
    """The scores of verdicts by the ids of requests. A turn with one verdict of two has
    none."""
    scored: list[tuple[str, float]] = []
    turned = 0
    for verdicts in conversations:
        for request, first in verdicts.items():
            item, _, place = request.rpartition("|")
            second = verdicts.get(f"{item}|{SECOND}")
            if place != FIRST or second is None:
                continue
            has_won = (first == A, second == B)
            has_lost = (first == B, second == A)
            turned += any(has_won) and any(has_lost)
            score = 100.0 if all(has_won) else 0.0 if all(has_lost) else 50.0
            scored.append((item, score))
    return Compared(mean_by_item(scored), len(scored), turned)
