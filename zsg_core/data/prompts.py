"""Turns an example into token ids and says which of them are learnt.

Four templates. `zsg`: `<s>User: {q}\\nAssistant: {a}</s>`, further turns `\\nUser: …`,
each piece tokenised separately without special tokens (Dynamics of Zero-Shot
Generalization, training code); a system text stands before the first question.
`vicuna`: `<s>{system} USER: {q} ASSISTANT: {a}</s>USER: …` (FastChat's v1.1, used by
DMT). `llama2`: `<s>[INST] {q} [/INST] {a} </s><s>[INST] …`, a system text as
`<<SYS>>\\n{system}\\n<</SYS>>\\n\\n` before the first question (Llama-2-chat's, used by
DELIA). `plain`: the texts themselves, nothing added or stripped, for sets whose prompt
the answer goes on from. In all of them exactly the assistant's answers and the `</s>`
that closes each are learnt. Where a tokenizer has no beginning of sequence, nothing stands in
its place. A Natural Instructions question follows Tk-Instruct: definition, at most two
positive examples, input.
"""

import hashlib
import itertools
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from msgspec import structs

from zsg_core.data.examples import Example

Tokenize = Callable[[str], list[int]]
Fits = Callable[[str], bool]
# which tokens of an example are learnt
ANSWER, PROMPT, ALL = TARGETS = ("answer", "prompt", "all")
# what an example loses that is too long: its prompt, whatever is behind its head, or its
# system text before the rest of its prompt
CUT_PROMPT, HEAD, CUT_SYSTEM = TRUNCATIONS = ("prompt", "head", "system")
# the model's own chat template, which jobs.model.chat writes with
CHAT = "chat"
OTHER_SYSTEM = "x"  # stands for a system text, to see where one stands in a prompt
# ids of the question, of the tag after it, of the answer
Turn = tuple[list[int], list[int], list[int]]

VICUNA_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)


@dataclass(frozen=True)
class Template:
    """How examples are written out: a name of STYLES or CHAT, and how many positive
    examples a prompt shows.

    Of CHAT: the digest of the model's chat template, what it is called with, and how a
    system text is written (jobs.model.chat_encoder).
    """

    name: str
    shots: int = 0
    digest: str = ""
    arguments: tuple[tuple[str, Any], ...] = ()
    system: str = "template"

    @classmethod
    def from_recipe(cls, recipe: dict[str, Any]) -> "Template":
        """The template of a corpus' recipe."""
        return cls(
            recipe["name"],
            recipe.get("positive_examples", 0),
            recipe.get("digest", ""),
            tuple((key, value) for key, value in recipe.get("arguments", ())),
            recipe.get("system", "template"),
        )


AS_IT_IS = Template("plain")


def digest_chat_template(source: str) -> str:
    """The SHA-256 of a chat template's text, whose lines end as Jinja reads them: a
    tokenizer that is saved anew ends them otherwise than the base's file."""
    lines = source.replace("\r\n", "\n").replace("\r", "\n")
    return hashlib.sha256(lines.encode("utf-8", "surrogatepass")).hexdigest()


def explain_date(*, takes_date: bool) -> str:
    """Why no run is written with a chat template that asks for the day's date; by
    whether it asks only where no `date_string` is given."""
    advice = "write a date in its place in a copy of the model's folder"
    if takes_date:
        advice = "give it one: data.chat_template_kwargs: {date_string: 26 Jul 2024}"
    return (
        "writes the day's date (strftime_now), so that a run would change with the day;"
        f" {advice}"
    )


@dataclass(frozen=True)
class EncodedExample:
    """Token ids of one example; those in the half-open `spans` are learnt. `cut` counts
    tokens left out; `lost_question`: whether no token of the first question is left,
    and its answer is.

    `sequences`: the lengths of the texts that the example is, one after the other in
    `ids`; empty where it is one. A chat template that writes an answer otherwise once
    others follow it makes one text for each answer. `apart`: whether the prompt of the
    last answer has other tokens where it stands alone, as for generation. `control`:
    how many words of control tokens the example has as text. `lost_shots`: how many
    of the shots drawn for it are left out, the first ones.
    """

    ids: list[int]
    spans: tuple[tuple[int, int], ...]
    cut: int = 0
    lost_question: bool = False
    sequences: tuple[int, ...] = ()
    apart: bool = False
    control: int = 0
    lost_shots: int = 0

    @property
    def answer_tokens(self) -> int:
        return sum(stop - start for start, stop in self.spans)

    @property
    def bounds(self) -> list[tuple[int, int]]:
        """Where each of its texts begins in `ids`, and where it ends."""
        ends = list(itertools.accumulate(self.sequences or (len(self.ids),)))
        return list(zip([0, *ends[:-1]], ends, strict=True))

    def target_spans(self, which: str) -> list[tuple[int, int]]:
        """The spans of tokens that are learnt: of the answers, the prompts or all, but
        never the first token.

        Nothing comes before the first, so there is nothing to predict it from.
        """
        if which == ANSWER:
            later = [(max(1, start), stop) for start, stop in self.spans]
            return [(start, stop) for start, stop in later if start < stop]
        return [
            span
            for begin, end in self.bounds
            for span in self._list_targets(which, begin, end)
        ]

    def _list_targets(self, which: str, begin: int, end: int) -> list[tuple[int, int]]:
        """The same of the text that stands from `begin` to `end`."""
        answers = [span for span in self.spans if begin <= span[0] < end]
        bounds = [
            begin + 1,
            *(itertools.chain(*answers) if which == PROMPT else ()),
            end,
        ]
        return [
            (start, stop)
            for start, stop in zip(bounds[::2], bounds[1::2], strict=True)
            if start < stop
        ]

    @property
    def texts(self) -> list["EncodedExample"]:
        """Each of its texts alone; itself where it is one."""
        if not self.sequences:
            return [self]
        return [
            replace(
                self,
                ids=self.ids[begin:end],
                spans=tuple(
                    (start - begin, stop - begin)
                    for start, stop in self.spans
                    if begin <= start < end
                ),
                sequences=(),
            )
            for begin, end in self.bounds
        ]

    @property
    def last(self) -> "EncodedExample":
        """The last of its texts alone: the whole dialogue."""
        return self.texts[-1]

    @property
    def prompt(self) -> list[int]:
        """What stands before the last answer; the whole where no answer is left."""
        last = self.last
        return list(map(int, last.ids[: last.spans[-1][0]] if last.spans else last.ids))


def encode_example(
    example: Example,
    *,
    template: Template,
    tokenize: Tokenize,
    bos: int | None,
    eos: int,
    max_length: int,
    truncate: str = CUT_PROMPT,
) -> EncodedExample:
    """The token ids of an example, at most `max_length`; `truncate` says what a longer one loses.

    `prompt`: the prompt is shortened before the answer. Of the first turn, positive
    examples are dropped, then the prompt is cut at its tail; an answer is cut only when
    it alone is too long, and keeps its `</s>`. A later turn that does not fit whole is
    left out, and so are all after it. `max_length` must leave room for the fixed pieces
    (16 or more).

    `system`: as `prompt`, but the system text is cut at its tail before the question is.

    `head`: the first `max_length` tokens of the whole, so that a long prompt can push
    answers out (the published code). Positive examples are dropped only while the
    question alone is longer than `max_length`.

    A raw text is written as it is, whatever the template.
    """
    template = choose_template(example, template)
    if truncate == HEAD:
        return _head(example, template, tokenize, bos, eos, max_length)
    ids, spans, lost, lost_question = _begin(bos), [], 0, False
    for index in range(len(example.turns)):
        opened = _opened(template, index, bos)
        room = max_length - len(ids) - 1 - len(opened)
        prompt, tag, answer = _turn(example, index, template, tokenize, room)
        over = max(0, len(prompt) + len(tag) + len(answer) - room)
        if index and (over or lost):
            lost += len(prompt) + len(tag) + len(answer) + 1
            continue
        answer_room = room - len(tag)
        prompt_room = max(0, answer_room - len(answer))
        if len(prompt) > prompt_room:
            prompt, lost_question = _shorten(
                prompt, prompt_room, example, _FirstPrompt(template, tokenize), truncate
            )
        ids += [*opened, *prompt, *tag]
        spans.append((len(ids), len(ids) + min(len(answer), answer_room) + 1))
        ids += [*answer[:answer_room], eos]
        lost += over
    return EncodedExample(ids, tuple(spans), lost, lost_question)


def choose_template(example: Example, template: Template) -> Template:
    """The template that an example is written by: of a raw text one that adds nothing."""
    return AS_IT_IS if example.is_text else template


@dataclass(frozen=True)
class _FirstPrompt:
    """The prompt of the first turn of an example, without positive examples."""

    template: Template
    tokenize: Tokenize

    def of(self, example: Example) -> list[int]:
        """Its tokens."""
        question = build_question(example, 0)
        return _pieces(example, 0, self.template, self.tokenize, question)[0]


def _shorten(
    prompt: list[int],
    room: int,
    example: Example,
    first_prompt: _FirstPrompt,
    truncate: str,
) -> tuple[list[int], bool]:
    """The prompt of a first turn, cut to `room` tokens, and whether nothing of the
    question is left.

    A prompt ends with its question, so that a cut at the tail takes that first, and the
    system text before it stays whole.
    """
    over = len(prompt) - room
    begin = _find_question(prompt, example, first_prompt)
    if truncate == CUT_SYSTEM and example.system.strip():
        before, after = _find_system(prompt, example, first_prompt)
        cut = min(over, after - before)
        prompt = [*prompt[: after - cut], *prompt[after:]]
        begin -= cut
    is_lost = room <= begin and bool(example.input.strip())
    return prompt[:room], is_lost


def _find_question(
    prompt: Sequence[int], example: Example, first_prompt: _FirstPrompt
) -> int:
    """Where the question begins in the tokens of a prompt: as far as it is that of the
    same example without one."""
    turns = (("", example.turns[0][1]), *example.turns[1:])
    return _shared(prompt, first_prompt.of(structs.replace(example, turns=turns)))


def _find_system(
    prompt: Sequence[int], example: Example, first_prompt: _FirstPrompt
) -> tuple[int, int]:
    """Where the system text begins in the tokens of a prompt, and where it ends.

    Found by another text in its place: what both prompts have in common is not of it,
    however the template and the tokenizer join them.
    """
    other_prompt = first_prompt.of(structs.replace(example, system=OTHER_SYSTEM))
    before = _shared(prompt, other_prompt)
    after = _shared(prompt[::-1], other_prompt[::-1])
    return before, max(before, len(prompt) - after)


def _head(
    example: Example,
    template: Template,
    tokenize: Tokenize,
    bos: int | None,
    eos: int,
    max_length: int,
) -> EncodedExample:
    """An example's encoding that is cut behind `max_length` tokens: what is too long
    loses its end, never its begin, and answers that lie behind the cut are not learnt.

    Each of `spans` is half open and goes from an answer's first token to behind its
    `eos`. The last value is how many tokens were cut off.
    """
    ids, spans = _begin(bos), []
    for index in range(len(example.turns)):
        question = _question(
            example, index, template, lambda text: len(tokenize(text)) <= max_length
        )
        prompt, tag, answer = _pieces(example, index, template, tokenize, question)
        ids += [*_opened(template, index, bos), *prompt, *tag, *answer, eos]
        spans.append((len(ids) - len(answer) - 1, len(ids)))
    spans_left = tuple(
        (start, min(stop, max_length)) for start, stop in spans if start < max_length
    )
    return EncodedExample(ids[:max_length], spans_left, max(0, len(ids) - max_length))


def build_question(example: Example, shots: int, fits: Fits = lambda text: True) -> str:
    """The question of the first turn: its text, or the Tk-Instruct prompt with up to
    `shots` positive examples.

    A positive example after which the prompt no longer `fits` is left out, and so are
    all after it. Shots drawn for the example stand before its text, or after the
    positive examples, and all of them are there.
    """
    drawn = example.few_shot.shots if example.few_shot else ()
    if not example.definition:
        return "".join([*map(_write_shot, drawn), example.input])
    head = f"Definition: {_stop(example.definition.strip())}\n\n"
    tail = ask_input(example.input)
    body = ""
    for number, shot in enumerate((*example.shots[:shots], *drawn), start=1):
        block = _write_positive(number, shot)
        if not drawn and not fits(head + body + block + tail):
            break
        body += block
    return head + body + tail


def ask_input(text: str) -> str:
    """What asks for the output of an input, in Tk-Instruct's words."""
    return (
        f"Now complete the following example -\nInput: {_stop(text.strip())}\nOutput: "
    )


def _write_positive(number: int, shot: tuple[str, str]) -> str:
    """A solved example in Tk-Instruct's words."""
    shot_input, shot_output = shot
    return (
        f" Positive Example {number} -\nInput: {_stop(shot_input.strip())}\n Output:"
        f" {_stop(shot_output.strip())}\n\n"
    )


def _write_shot(shot: tuple[str, str]) -> str:
    """A solved example before a question: a blank before its answer, unless there is
    one, and a blank line after it (as in lm-evaluation-harness)."""
    question, answer = shot
    is_apart = question[-1:].isspace() or answer[:1].isspace() or not question
    blank = "" if is_apart else " "
    return f"{question}{blank}{answer}\n\n"


def embedding_text(example: Example, shots: int) -> str:
    """What similarity is measured on: the whole prompt and the answer, and all later
    turns, joined by one space. Shots drawn for the example are no part of it."""
    example = structs.replace(example, few_shot=None)
    later = [text.strip() for turn in example.turns[1:] for text in turn]
    return " ".join(
        [build_question(example, shots).strip(), example.turns[0][1].strip(), *later]
    )


def training_texts(examples: Sequence[Example], template: Template) -> list[str]:
    """What a tokenizer of our own is trained on: each example as the model will see it."""
    return [
        "".join(
            text
            for i in range(len(e.turns))
            for text in _texts(e, i, choose_template(e, template))
        )
        for e in examples
    ]


@dataclass(frozen=True)
class Style:
    """How a turn is written: (example, index, question) → the texts of question, tag and answer.

    `apart`: each text is tokenised alone; else all three together, and a token that
    spans two belongs to the later. `reopens`: every turn begins with `<s>`, not the
    first alone. `next_turn`: what a model that does not stop writes where the user's
    next question would begin; empty where nothing tells.
    """

    texts: Callable[[Example, int, str], tuple[str, str, str]]
    apart: bool
    reopens: bool = False
    next_turn: str = ""


def next_turn(template: str) -> str:
    """The text at which an answer is over, as a question of the user's begins: of the
    name of a template. Of CHAT none: a token ends an answer there."""
    return "" if template == CHAT else STYLES[template].next_turn


def _begin(bos: int | None) -> list[int]:
    """What stands before everything: the beginning of sequence, of a tokenizer that has one."""
    return [] if bos is None else [bos]


def _opened(template: Template, index: int, bos: int | None) -> list[int]:
    return _begin(bos) if index and STYLES[template.name].reopens else []


def _question(
    example: Example, index: int, template: Template, fits: Fits = lambda text: True
) -> str:
    return (
        example.turns[index][0]
        if index
        else build_question(example, template.shots, fits)
    )


def _texts(example: Example, index: int, template: Template) -> tuple[str, str, str]:
    return STYLES[template.name].texts(
        example, index, _question(example, index, template)
    )


def _turn(
    example: Example, index: int, template: Template, tokenize: Tokenize, room: int
) -> Turn:
    def fits(question: str) -> bool:
        return (
            sum(map(len, _pieces(example, index, template, tokenize, question))) <= room
        )

    return _pieces(
        example, index, template, tokenize, _question(example, index, template, fits)
    )


def _pieces(
    example: Example, index: int, template: Template, tokenize: Tokenize, question: str
) -> Turn:
    style = STYLES[template.name]
    return (_apart if style.apart else _together)(
        style.texts(example, index, question), tokenize
    )


def _apart(texts: tuple[str, str, str], tokenize: Tokenize) -> Turn:
    prompt, tag, answer = texts
    return tokenize(prompt), tokenize(tag), tokenize(answer)


def _together(texts: tuple[str, str, str], tokenize: Tokenize) -> Turn:
    """Prompt, tag and answer as ids of one tokenization of the whole text, cut where
    the tokens of the parts alone go on otherwise.

    A token may reach over a border; it then belongs to what comes after, so that the
    model is asked with no token that the answer has a share in.
    """
    prompt, tag, answer = texts
    whole = tokenize(prompt + tag + answer)
    prompted = _shared(whole, tokenize(prompt))
    tagged = max(prompted, _shared(whole, tokenize(prompt + tag)))
    return whole[:prompted], whole[prompted:tagged], whole[tagged:]


def _shared(first: Sequence[int], second: Sequence[int]) -> int:
    differing = (
        i
        for i, pair in enumerate(zip(first, second, strict=False))
        if pair[0] != pair[1]
    )
    return next(differing, min(len(first), len(second)))


def _zsg(example: Example, index: int, question: str) -> tuple[str, str, str]:
    """Prompt, tag and answer of one turn in the format of the zsg paper.

    The system text stands before the first question only. A first question after a
    definition keeps its own white space; all others, and all answers, are stripped.
    """
    system = (
        f"{example.system.strip()}\n\n" if example.system.strip() and not index else ""
    )
    text = question if index == 0 and example.definition else question.strip()
    begin = "\nUser: " if index else "User: "
    return f"{begin}{system}{text}", "\nAssistant: ", example.turns[index][1].strip()


def _vicuna(example: Example, index: int, question: str) -> tuple[str, str, str]:
    system = "" if index else f"{example.system.strip() or VICUNA_SYSTEM} "
    return (
        f"{system}USER: {question.strip()}",
        " ASSISTANT:",
        f" {example.turns[index][1].strip()}",
    )


def _llama2(example: Example, index: int, question: str) -> tuple[str, str, str]:
    system_text = example.system.strip() if not index else ""
    system = f"<<SYS>>\n{system_text}\n<</SYS>>\n\n" if system_text else ""
    return (
        f"[INST] {system}{question.strip()}",
        " [/INST]",
        f" {example.turns[index][1].strip()} ",
    )


def _plain(example: Example, index: int, question: str) -> tuple[str, str, str]:
    return question, "", example.turns[index][1]


STYLES = {
    "zsg": Style(_zsg, True, next_turn="\nUser:"),
    "vicuna": Style(_vicuna, False, next_turn="USER:"),
    "llama2": Style(_llama2, False, reopens=True, next_turn="[INST]"),
    "plain": Style(_plain, False),
}


def _stop(text: str) -> str:
    return text if text and text[-1] in string.punctuation else text + "."
