"""Asks for answers to MT-Bench's questions, writes a judge's prompts for them and reads
its ratings, as FastChat does.

Its data are those of `fastchat/llm_judge/data`: `mt_bench/question.jsonl` with
reference answers beside it, which zsg_core.data.readers reads, and
`judge_prompts.jsonl`.
"""

import re
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import msgspec

from zsg_core.data.examples import Example
from zsg_core.data.readers.intake import Intake
from zsg_core.data.readers.rows import json_rows
from zsg_core.digest import content_id
from zsg_core.errors import BadData
from zsg_core.metrics.registry import MT_BENCH, add_metric
from zsg_core.metrics.scoring import Answered, ByItem, mean_by_item

# categories whose judge sees GPT-4's answer
WITH_REFERENCE = ("math", "reasoning", "coding")
NAMES = {
    (1, False): "single-v1",
    (1, True): "single-math-v1",
    (2, False): "single-v1-multi-turn",
    (2, True): "single-math-v1-multi-turn",
}
# FastChat's patterns, `\d+\.?\d*`, written so that a long row of digits takes no time
# that grows with its square.
_RATING = re.compile(r"\[\[(\d+(?:\.\d*)?)\]\]")
_RATING_ELSE = re.compile(r"\[(\d+(?:\.\d*)?)\]")

add_metric(MT_BENCH, suite=MT_BENCH)  # where there is a judge


class JudgePrompt(msgspec.Struct, frozen=True):
    """One row of judge_prompts.jsonl."""

    name: str
    system_prompt: str
    prompt_template: str


class JudgeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a judge is asked of one turn of one question."""

    id: str
    task: str
    system: str
    user: str
    answer: str  # digest of what the model answered, in this turn and before
    prompt: str  # digest of all else that the judge is shown


def build_turn(question: Example, replies: Sequence[str]) -> Example:
    """The next turn to be answered, `<question's id>:<turn>` from 1 on, after the
    model's `replies` to earlier ones."""
    turns = (
        *zip(
            (question_text for question_text, _ in question.turns),
            replies,
            strict=False,
        ),
        question.turns[len(replies)],
    )
    return msgspec.structs.replace(
        question, id=turn_id(question, len(replies) + 1), turns=turns
    )


def turn_id(question: Example, number: int) -> str:
    """The item that a turn is, from 1 on."""
    return f"{question.id}:{number}"


def read_judge_prompts(
    path: Path, fields: Mapping[str, set[str]] | None = None
) -> dict[str, JudgePrompt]:
    """The prompts of judge_prompts.jsonl by name. `fields`: of those that are needed, by
    name; else those that grade single answers are.

    BadData where one of them is missing, or has a field that zsg does not fill.
    """
    needed = fields or {name: _fields(name) for name in NAMES.values()}
    prompts: dict[str, JudgePrompt] = {}
    with closing(json_rows(path, JudgePrompt, Intake())) as chunks:
        for chunk in chunks:
            for number, row in enumerate(chunk.rows, chunk.first):
                prompts[row.name] = row
                if row.name in needed:
                    location = f"{path}{chunk.where.format(number)}"
                    _refuse_other_fields(location, row, needed[row.name])
    if missing := needed.keys() - prompts.keys():
        raise BadData(
            f"{path}: has no prompt named {', '.join(sorted(missing))}; FastChat's"
            " judge_prompts.jsonl has all"
        )
    return prompts


def build_requests(
    questions: Iterable[Example],
    prompts: Mapping[str, JudgePrompt],
    answers: Iterable[Answered],
) -> list[JudgeRequest]:
    """What a judge is asked: each turn that the model has answered, together with those before it.

    `answers` are by `turn_id`; a turn is left out where it, or one before it, has no
    answer. BadData for a question in WITH_REFERENCE that has no reference answer, and
    for more than two turns.
    """
    replies = {answered.id: answered.answer for answered in answers}
    requests = []
    for question in questions:
        if len(question.turns) > 2:
            raise BadData(
                f"{question.id}: has {len(question.turns)} turns; the judge's prompts are for one"
                " and for two"
            )
        for number in range(1, len(question.turns) + 1):
            turn_replies = [
                replies.get(turn_id(question, before))
                for before in range(1, number + 1)
            ]
            if None not in turn_replies:
                requests.append(
                    _request(
                        question,
                        prompts,
                        [text for text in turn_replies if text is not None],
                    )
                )
    return requests


def read_rating(reply: str, *, is_cut: bool = False) -> float | None:
    """The first `[[rating]]` of a reply, or the first `[rating]`; None where there is
    none from 1 to 10.

    Of a reply that was cut only the first counts, which no later text could change.
    """
    match = _RATING.search(reply)
    if match is None and not is_cut:
        match = _RATING_ELSE.search(reply)
    value = float(match.group(1)) if match else 0.0
    return value if 1 <= value <= 10 else None


def has_rating(reply: str) -> bool:
    """Whether a reply has a number where its rating stands, on the scale or off it."""
    match = _RATING.search(reply) or _RATING_ELSE.search(reply)
    return match is not None


def split_conversations(answers: Iterable[Answered]) -> list[list[Answered]]:
    """Answers apart by sample, as they stand one conversation after the other.

    A turn that comes again begins the next. One may lack turns that another has: that
    could not be asked.
    """
    conversations: list[list[Answered]] = []
    turn_ids: set[str] = set()
    for answered in answers:
        if not conversations or answered.id in turn_ids:
            conversations.append([])
            turn_ids = set()
        conversations[-1].append(answered)
        turn_ids.add(answered.id)
    return conversations


def score_ratings(ratings: Iterable[Mapping[str, float]]) -> dict[str, ByItem]:
    """Ratings from 1 to 10 of each conversation by turn ↦ their means.

    A turn without a rating is left out, as FastChat leaves out its −1.
    """
    return {
        "mt_bench": mean_by_item(
            pair for conversation in ratings for pair in conversation.items()
        )
    }


def _fields(name: str) -> set[str]:
    """The fields that a prompt of that name may have."""
    turns, has_reference = next(
        kind for kind, prompt_name in NAMES.items() if prompt_name == name
    )
    kinds = ["question", "answer", *(["ref_answer"] if has_reference else [])]
    return {"question", "answer"} | {
        f"{kind}_{turn}" for kind in kinds for turn in range(1, turns + 1)
    }


def _refuse_other_fields(location: str, prompt: JudgePrompt, fields: set[str]) -> None:
    """BadData for a template with anything in braces but the name of a field.

    Python's own format would look into objects, and fill memory by a width that the file names.
    """
    try:
        unknown = [
            field_name
            for _, field_name in _pieces(prompt.prompt_template)
            if field_name is not None and field_name not in fields
        ]
    except ValueError as error:
        raise BadData(
            f"{location}: prompt_template of {prompt.name}: {error}; write braces"
            " that are text twice"
        ) from None
    if unknown:
        raise BadData(
            f"{location}: prompt_template of {prompt.name} has {{{unknown[0][:80]}}}; its"
            f" fields are {', '.join(f'{{{field}}}' for field in sorted(fields))}, plain and"
            " without any format; write braces that are text twice"
        )


def _pieces(template: str) -> Iterator[tuple[str, str | None]]:
    """A template as texts, each with what stands in braces after it, if anything.
    ValueError for single braces."""
    for text, name, width, conversion in string.Formatter().parse(template):
        if name is None:
            yield text, None
            continue
        field_text = (
            name
            + (f"!{conversion}" if conversion else "")
            + (f":{width}" if width else "")
        )
        yield text, field_text


def fill_template(template: str, fields: Mapping[str, str]) -> str:
    """A template with its fields filled. BadData for any other, which `read_judge_prompts`
    refuses before."""
    pieces = []
    for text, name in _pieces(template):
        if name is not None and name not in fields:
            raise BadData(
                f"a judge's prompt has {{{name[:80]}}}, which is none of its fields"
            )
        pieces += [text, "" if name is None else fields[name]]
    return "".join(pieces)


def _request(
    question: Example, prompts: Mapping[str, JudgePrompt], replies: list[str]
) -> JudgeRequest:
    """What the judge is asked about the last of a dialogue's replies: the prompt of its
    turn, with a reference where the category has one."""
    number, needs = len(replies), question.task in WITH_REFERENCE
    prompt = prompts[NAMES[number, needs]]
    references = [reference for _, reference in question.turns[:number]]
    if needs and not all(references):
        raise BadData(
            f"{question.id}: a question in {question.task} is judged beside a reference answer, and"
            " has none"
        )
    fields: dict[str, str] = {"question": question.turns[0][0]}
    for turn_number, ((question_text, _), reference) in enumerate(
        zip(question.turns[:number], references, strict=True), 1
    ):
        fields |= {f"question_{turn_number}": question_text} | (
            {f"ref_answer_{turn_number}": reference} if needs else {}
        )
    answers = {"answer": replies[0]} | {
        f"answer_{turn_number}": text for turn_number, text in enumerate(replies, 1)
    }
    return JudgeRequest(
        id=turn_id(question, number),
        task=question.task,
        system=prompt.system_prompt,
        user=fill_template(prompt.prompt_template, fields | answers),
        answer=content_id(replies, length=64),
        prompt=content_id(
            [prompt.system_prompt, prompt.prompt_template, fields], length=64
        ),
    )
