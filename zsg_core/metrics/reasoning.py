"""Parts what a model thinks aloud before its answer from the answer.

A score is of the answer alone: a number within `<think>…</think>` is no rating, and a
right word in it no right answer.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from zsg_core.metrics.scoring import Answered

Marks = tuple[str, str]  # before and behind what was thought

# of gpt-oss: its template's channels, each begun by control tokens
CHANNELS: Marks = (
    "<|channel|>analysis<|message|>",
    "<|channel|>final<|message|>",
)
# As models of today write them: DeepSeek-R1, Qwen3 and SmolLM3; others that were told to
# think in marks of their own; Mistral's Magistral; ByteDance's Seed-OSS; gpt-oss.
KNOWN_MARKS: tuple[Marks, ...] = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    CHANNELS,
)
# What is left of them where control tokens were taken out of a text: its beginning, and
# the turn and channel of the answer. Such a text is parted where it is known to be of
# such a model only, as any text may have these words.
_STRIPPED: dict[Marks, Marks] = {CHANNELS: ("analysis", "assistantfinal")}
_CONTROL = re.compile(r"<\|[^<|>]+\|>")
_BLANK_LINES = re.compile(r"(?:[^\S\n]*\n)+")


@dataclass(frozen=True)
class Parted:
    """An answer without what was thought. `had_reasoning`: something was cut out of it;
    `is_open`: the thinking was not over, so what follows it is not known."""

    answer: str
    had_reasoning: bool = False
    is_open: bool = False


def list_control_tokens(mark: str) -> list[str]:
    """The control tokens within a mark that is a token itself or made of several, with
    words between them; nothing of a mark that has none."""
    return _CONTROL.findall(mark)


def is_of_channels(model: str) -> bool:
    """Whether a model's name says that it thinks and answers in channels."""
    return "gpt-oss" in model.lower().replace("_", "-")


def part_reasoning(
    text: str,
    all_marks: Sequence[Marks] = KNOWN_MARKS,
    before: str = "",
    *,
    has_channels: bool = False,
) -> Parted:
    """The answer in a text, without each part between one of the pairs of marks.

    Thinking may begin before the text, as some templates write the first mark at the
    end of the prompt: what stands before a closing mark without an opening one is
    thought. Where `before`, the prompt, ends with an opening mark that nothing closes,
    the whole text is. A text without marks stays as it is.

    `has_channels`: the text is known to be of a model that thinks in channels, so that
    what is left of these counts, where a server or a decoder took control tokens out.
    """
    had_reasoning = False
    for marks in all_marks:
        parted = _part(text, marks, _ends_open(before, marks))
        if has_channels and marks in _STRIPPED and not parted.had_reasoning:
            parted = _part_stripped(text, _STRIPPED[marks])
        had_reasoning |= parted.had_reasoning
        if parted.is_open:
            return parted
        text = parted.answer
    if not had_reasoning:
        return Parted(text)
    blank = _BLANK_LINES.match(text)
    answer = text[blank.end() :] if blank else text
    return Parted(answer, had_reasoning=True)


@dataclass(frozen=True)
class CutAnswers:
    """Answers without what was thought; `thought`: in how many there was something, and
    `is_open` of how many of these it was not over."""

    answers: list[Answered]
    thought: int = 0
    is_open: int = 0

    def list_flags(self) -> list[str]:
        """What is to be known of scores of these answers; nothing where no model thought."""
        if not self.thought:
            return []
        words = (
            f"{self.thought} of {len(self.answers)} answers have reasoning, which is cut before"
            " they are scored"
        )
        if self.is_open:
            words += (
                f"; in {self.is_open} it is not over, and what is left is scored: raise"
                " max_new_tokens"
            )
        return [words]


def cut_answers(answers: Iterable[Answered], marks: Marks | None) -> CutAnswers:
    """The answers as they are scored. `marks`: of what their model thinks; without some,
    they stay as they are."""
    listed = list(answers)
    if marks is None:
        return CutAnswers(listed)
    has_channels = marks == CHANNELS
    parted = [
        part_reasoning(one.answer, [marks], one.prompt, has_channels=has_channels)
        for one in listed
    ]
    return CutAnswers(
        answers=[
            msgspec.structs.replace(one, answer=each.answer)
            if each.had_reasoning
            else one
            for one, each in zip(listed, parted, strict=True)
        ],
        thought=sum(each.had_reasoning for each in parted),
        is_open=sum(each.is_open for each in parted),
    )


def find_answer(text: str, marks: Marks, before: str = "") -> tuple[int, int]:
    """Where the answer in a text begins and ends: behind its last closing mark, and
    before an opening one that nothing closes. Where `before`, the prompt, ends with an
    opening mark, there is no answer until a closing one stands in the text."""
    opening, closing = marks
    last = text.rfind(closing)
    if last < 0 and _ends_open(before, marks):
        return len(text), len(text)
    begin = 0 if last < 0 else last + len(closing)
    end = text.find(opening, begin)
    return begin, len(text) if end < 0 else end


def _part(text: str, marks: Marks, is_within: bool) -> Parted:
    """A text without what one pair of marks holds. `is_within`: it begins in a thought."""
    opening, closing = marks
    kept: list[str] = []
    position = 0
    end = text.find(closing)
    had_reasoning = end >= 0
    while end >= 0:
        start = text.find(opening, position, end)
        if start < 0:
            kept.clear()  # the thought began before
        else:
            kept.append(text[position:start])
        position = end + len(closing)
        end = text.find(closing, position)
    if is_within and not had_reasoning:
        return Parted("", had_reasoning=True, is_open=True)
    start = text.find(opening, position)
    if start < 0:
        kept.append(text[position:])
        return Parted("".join(kept), had_reasoning)
    kept.append(text[position:start])
    return Parted("".join(kept), had_reasoning=True, is_open=True)


def _part_stripped(text: str, marks: Marks) -> Parted:
    """A text whose marks have lost their control tokens: one that begins with the first
    of these words is thought up to the second."""
    opening, closing = marks
    if not text.lstrip().startswith(opening):
        return Parted(text)
    end = text.rfind(closing)
    if end < 0:
        return Parted("", had_reasoning=True, is_open=True)
    return Parted(text[end + len(closing) :], had_reasoning=True)


def _ends_open(before: str, marks: Marks) -> bool:
    """Whether a prompt ends within a thought: at its last words an opening mark stands,
    and nothing closes it."""
    opening, _ = marks
    return before.rstrip().endswith(opening)
