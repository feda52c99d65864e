"""Asks for answers to MT-Bench's questions, writes a judge's prompts for them and reads
its ratings, as FastChat does.

Its data are those of `fastchat/llm_judge/data`: `mt_bench/question.jsonl` with
reference answers beside it, which zsg_core.data.readers reads, and
`judge_prompts.jsonl`.
"""

import re
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
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


def build_turn(question: Example, said: Sequence[str]) -> Example:
    """The next turn to be answered, `<question's id>:<turn>` from 1 on, after what the
    model `said` in earlier ones."""
    turns = (
        *zip((asked for asked, _ in question.turns), said, strict=False),
        question.turns[len(said)],
    )
    return msgspec.structs.replace(
        question, id=turn_id(question, len(said) + 1), turns=turns
    )


def turn_id(question: Example, number: int) -> str:
    """The item that a turn is, from 1 on."""
    return f"{question.id}:{number}"


def read_judge_prompts(path: Path) -> dict[str, JudgePrompt]:
    """The prompts of judge_prompts.jsonl by name.

    BadData where one of those that grade single answers is missing, or has a field that
    zsg does not fill.
    """
    found: dict[str, JudgePrompt] = {}
    for chunk in json_rows(path, JudgePrompt, Intake()):
        for number, row in enumerate(chunk.rows, chunk.first):
            found[row.name] = row
            if row.name in NAMES.values():
                _refuse_other_fields(f"{path}{chunk.where.format(number)}", row)
    if missing := set(NAMES.values()) - found.keys():
        raise BadData(
            f"{path}: has no prompt named {', '.join(sorted(missing))}; FastChat's"
            " judge_prompts.jsonl has all"
        )
    return found


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
    said = {one.id: one.answer for one in answers}
    asked = []
    for question in questions:
        if len(question.turns) > 2:
            raise BadData(
                f"{question.id}: has {len(question.turns)} turns; the judge's prompts are for one"
                " and for two"
            )
        for number in range(1, len(question.turns) + 1):
            known = [
                said.get(turn_id(question, before)) for before in range(1, number + 1)
            ]
            if None not in known:
                asked.append(
                    _request(
                        question, prompts, [text for text in known if text is not None]
                    )
                )
    return asked


def read_rating(reply: str) -> float | None:
    """The first `[[rating]]` of a reply, or the first `[rating]`; None where there is
    none from 1 to 10."""
    found = _RATING.search(reply) or _RATING_ELSE.search(reply)
    value = float(found.group(1)) if found else 0.0
    return value if 1 <= value <= 10 else None


def split_conversations(answers: Iterable[Answered]) -> list[list[Answered]]:
    """Answers apart by sample, as they stand one conversation after the other.

    A turn that comes again begins the next. One may lack turns that another has: that
    could not be asked.
    """
    made: list[list[Answered]] = []
    known: set[str] = set()
    for one in answers:
        if not made or one.id in known:
            made.append([])
            known = set()
        made[-1].append(one)
        known.add(one.id)
    return made


def score_ratings(ratings: Iterable[Mapping[str, float]]) -> dict[str, ByItem]:
    """Ratings from 1 to 10 of each conversation by turn ↦ their means.

    A turn without a rating is left out, as FastChat leaves out its −1.
    """
    return {"mt_bench": mean_by_item(pair for one in ratings for pair in one.items())}


def _fields(name: str) -> set[str]:
    """The fields that a prompt of that name may have."""
    turns, has_reference = next(kind for kind, known in NAMES.items() if known == name)
    kinds = ["question", "answer", *(["ref_answer"] if has_reference else [])]
    return {"question", "answer"} | {
        f"{kind}_{turn}" for kind in kinds for turn in range(1, turns + 1)
    }


def _refuse_other_fields(where: str, prompt: JudgePrompt) -> None:
    """BadData for a template with anything in braces but the name of a field.

    Python's own format would look into objects, and fill memory by a width that the file names.
    """
    known = _fields(prompt.name)
    try:
        other = [
            given
            for _, given in _pieces(prompt.prompt_template)
            if given is not None and given not in known
        ]
    except ValueError as error:
        raise BadData(
            f"{where}: prompt_template of {prompt.name}: {error}; write braces that are text twice"
        ) from None
    if other:
        raise BadData(
            f"{where}: prompt_template of {prompt.name} has {{{other[0][:80]}}}; its fields are"
            f" {', '.join(f'{{{field}}}' for field in sorted(known))}, plain and without any"
            " format; write braces that are text twice"
        )


def _pieces(template: str) -> Iterator[tuple[str, str | None]]:
    """A template as texts, each with what stands in braces after it, if anything.
    ValueError for single braces."""
    for text, name, width, conversion in string.Formatter().parse(template):
        if name is None:
            yield text, None
            continue
        shown = (
            name
            + (f"!{conversion}" if conversion else "")
            + (f":{width}" if width else "")
        )
        yield text, shown


def _filled(template: str, fields: Mapping[str, str]) -> str:
    """A template with its fields filled. BadData for any other, which `read_judge_prompts`
    refuses before."""
    made = []
    for text, name in _pieces(template):
        if name is not None and name not in fields:
            raise BadData(
                f"a judge's prompt has {{{name[:80]}}}, which is none of its fields"
            )
        made += [text, "" if name is None else fields[name]]
    return "".join(made)


def _request(
    question: Example, prompts: Mapping[str, JudgePrompt], said: list[str]
) -> JudgeRequest:
    number, needs = len(said), question.task in WITH_REFERENCE
    prompt = prompts[NAMES[number, needs]]
    references = [reference for _, reference in question.turns[:number]]
    if needs and not all(references):
        raise BadData(
            f"{question.id}: a question in {question.task} is judged beside a reference answer, and"
            " has none"
        )
    shown: dict[str, str] = {"question": question.turns[0][0]}
    for place, ((asked, _), reference) in enumerate(
        zip(question.turns[:number], references, strict=True), 1
    ):
        shown |= {f"question_{place}": asked} | (
            {f"ref_answer_{place}": reference} if needs else {}
        )
    answers = {"answer": said[0]} | {
        f"answer_{place}": text for place, text in enumerate(said, 1)
    }
    return JudgeRequest(
        id=turn_id(question, number),
        task=question.task,
        system=prompt.system_prompt,
        user=_filled(prompt.prompt_template, shown | answers),
        answer=content_id(said, length=64),
        prompt=content_id(
            [prompt.system_prompt, prompt.prompt_template, shown], length=64
        ),
    )
