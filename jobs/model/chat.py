"""Writes dialogues by a model's own chat template, and finds which tokens are the answers'.

The text is what transformers' `apply_chat_template` makes of the whole dialogue. An
answer is found by two more texts: the prompt, which is the dialogue before the answer
with what opens one (`add_generation_prompt`), and the dialogue up to the answer. The
first must begin the second, and what the second has more, up to the last end of turn,
is learnt. Where the whole does not begin with the second, as templates of thinking
models write an answer otherwise once others follow it, each answer is a text of its
own, and nothing is learnt twice.

Nothing of this is taken on trust. The same dialogue with a private word in place of
each text says what the template itself writes; that and the texts, put together, must
be the whole. So it is known, too, where each text stands: words of control tokens in it
stay text, and nothing but answers is learnt. What a template makes of its own is a
ChatFault, which says why.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from jobs.model.text_tokens import ChatTokens, PlacedIds
from zsg_core.errors import UserError

SYSTEM, USER, ASSISTANT = "system", "user", "assistant"
THINKING = (
    "enable_thinking"  # what templates call whether an answer may be thought over
)
# stands for a text while the template's own words are found
_PRIVATE = re.compile("\ue000([0-9]+)\ue001")
MOST_FRAMES = 1000  # kept for dialogues of the same form
_SHOWN = 60  # characters of a text in a message


class ChatFault(UserError):
    """Why a dialogue cannot be written by a template, or not learnt from."""


class Message(NamedTuple):
    """What one side says."""

    role: str
    content: str


class Content(NamedTuple):
    """Where in a written dialogue the text of a message stands, or a part of it."""

    message: int
    start: int
    stop: int


@dataclass(frozen=True)
class Written:
    """A dialogue as a template writes it: where its messages' texts stand, and where
    the control tokens that are the template's own."""

    text: str
    contents: tuple[Content, ...]
    tokens: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class ChatSequence:
    """Token ids of a written dialogue; those in the half-open `spans` are answers'."""

    ids: list[int]
    spans: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class EncodedDialogue:
    """A dialogue as token ids: one sequence, or one for each answer.

    `apart`: the answers whose prompts have other tokens where they stand alone, as for
    generation. `control`: how many words of control tokens stayed text.
    """

    sequences: list[ChatSequence]
    apart: tuple[int, ...]
    control: int


@dataclass(frozen=True)
class _Frame:
    """What a template writes around texts: `literals` with the texts of these `numbers`
    between them, and in each literal the places of control tokens."""

    literals: tuple[str, ...]
    numbers: tuple[int, ...]
    tokens: tuple[tuple[tuple[int, int], ...], ...]


@dataclass(frozen=True)
class _Marked:
    """Messages with private words in place of their texts; `owners` says which message
    each text is of."""

    messages: tuple[Message, ...]
    texts: tuple[str, ...]
    owners: tuple[int, ...]


@dataclass(frozen=True)
class _Answer:
    """An answer in the dialogue up to it: learnt from `start` to `stop`, in characters."""

    message: int
    prompt: Written
    upto: Written
    start: int
    stop: int


class ChatWriter:
    """Writes dialogues by the chat template of a tokenizer, with `arguments` for the
    template. `kept_words` are control tokens wherever a text has them."""

    def __init__(
        self,
        tokenizer: Any,
        arguments: Mapping[str, Any] | None = None,
        kept_words: Collection[str] = (),
    ) -> None:
        """UserError for a tokenizer without a template, and for a template that cannot
        be read or that writes the day's date."""
        # needs jinja2, which comes with torch: not all that import this module have it
        from jobs.model import chat_source

        self._tokenizer = tokenizer
        self._arguments = dict(arguments or {})
        self.source = get_template(tokenizer)
        tree = chat_source.parse_template(self.source)
        problem = chat_source.find_date_problem(tree, self._arguments)
        if problem:
            raise UserError(f"the chat template {problem}")
        self._sought = frozenset[str]()
        self._tokens = ChatTokens(tokenizer)
        self._kept = frozenset(kept_words)
        self._control_ids = {
            token_id
            for word, token_id in self._tokens.words.items()
            if word not in self._kept
        }
        self._control = _match_any(self._tokens.words.keys() - self._kept)
        self._kept_words = _match_any(self._tokens.words.keys() & self._kept)
        self._frames: dict[tuple[tuple[Message, ...], bool], _Frame] = {}
        # what begins and ends texts is no word that data may say, whoever looks for it
        self._sought = chat_source.find_sought_words(tree) - self._list_bounds()

    @property
    def sought_words(self) -> frozenset[str]:
        """The words of an answer that the template looks for, such as `</think>`."""
        return self._sought

    def write(self, messages: Sequence[Message], asks: bool = False) -> Written:
        """A dialogue as text; with what opens an answer where it `asks` for one.
        ChatFault where the template refuses it, or changes what is said."""
        text = self._render(messages, asks)
        marked = self._mark(messages)
        written = _fill(self._find_frame(marked, asks), marked)
        if written.text != text:
            raise ChatFault(_explain_change(messages, text, written))
        return written

    def encode_prompt(self, messages: Sequence[Message]) -> tuple[list[int], int]:
        """The token ids with which a model is asked for its next answer, and how many
        words of control tokens stayed text."""
        written = self.write(messages, asks=True)
        return self._encode(written).ids, self._count_control(written)

    def encode(self, messages: Sequence[Message]) -> EncodedDialogue:
        """A dialogue that ends with an answer as token ids. ChatFault where its answers
        cannot be told from the rest."""
        answers = [
            self._find_answer(messages, number)
            for number, message in enumerate(messages)
            if message.role == ASSISTANT
        ]
        whole = answers[-1].upto.text
        is_one = all(
            whole.startswith(answer.upto.text[: answer.stop]) for answer in answers
        )
        groups = [answers] if is_one else [[answer] for answer in answers]
        sequences: list[ChatSequence] = []
        apart: list[int] = []
        control = 0
        for group in groups:
            written = group[-1].upto
            _refuse_other_texts(written, group, messages)
            control += self._count_control(written)
            sequence = self._encode_answers(written, group)
            sequences.append(sequence)
            apart += self._list_apart(sequence, group)
        return EncodedDialogue(sequences, tuple(apart), control)

    def _encode_answers(
        self, written: Written, answers: Sequence[_Answer]
    ) -> ChatSequence:
        """A written dialogue as token ids, of which the answers' are learnt."""
        encoding = self._encode(written)
        _refuse_two_beginnings(encoding.ids, self._tokenizer.bos_token_id)
        spans: list[tuple[int, int]] = []
        for answer in answers:
            span = _find_tokens(encoding, answer.start, answer.stop)
            spans.append(span)
        return ChatSequence(encoding.ids, tuple(spans))

    def _list_apart(
        self, sequence: ChatSequence, answers: Sequence[_Answer]
    ) -> list[int]:
        """The answers whose prompts alone have other tokens than before the answer."""
        apart: list[int] = []
        for answer, span in zip(answers, sequence.spans, strict=True):
            prompt_ids = self._encode(answer.prompt).ids
            if sequence.ids[: span[0]] != prompt_ids:
                apart.append(answer.message)
        return apart

    def list_token_ends(self, text: str) -> list[int]:
        """After which character of a text each of its tokens ends."""
        return self._tokens.encode(text).stops

    def find_end_of_turn(self) -> int | None:
        """The token with which the template closes an answer; None where that cannot be
        told."""
        messages = [Message(USER, "A"), Message(ASSISTANT, "B")]
        try:
            answer = self._find_answer(messages, 1)
        except ChatFault:
            return None
        words = [
            answer.upto.text[start:stop]
            for start, stop in answer.upto.tokens
            if stop == answer.stop
        ]
        return self._tokens.words[words[0]]

    def _list_bounds(self) -> set[str]:
        """The words with which texts and turns begin and end."""
        bounds = {self._tokenizer.bos_token, self._tokenizer.eos_token} - {None}
        end_of_turn = self.find_end_of_turn()
        for word, token_id in self._tokens.words.items():
            if token_id == end_of_turn:
                bounds.add(word)
        return bounds

    def _find_answer(self, messages: Sequence[Message], number: int) -> _Answer:
        """What is learnt of an answer. ChatFault where the prompt does not begin it, or
        nothing ends it."""
        before = messages[:number]
        prompt = self.write(before, asks=True)
        upto = self.write(messages[: number + 1])
        if not upto.text.startswith(prompt.text):
            asks_no_thought = self._arguments.get(THINKING) is False
            raise ChatFault(
                _explain_prompt(prompt.text, upto.text, number, asks_no_thought)
            )
        start = len(prompt.text)
        contents = [content for content in upto.contents if content.message == number]
        if contents:
            begin = min(content.start for content in contents)
            self._refuse_unasked(before, upto, start, begin)
        stop = _find_end_of_answer(upto, contents, start, self._sought)
        if stop is None:
            raise ChatFault(
                f"the template closes message {number + 1}, an answer, with no token of its own, so"
                " that a model would not learn where to stop"
            )
        return _Answer(number, prompt, upto, max(start, 1), stop)

    def _refuse_unasked(
        self, before: Sequence[Message], upto: Written, start: int, begin: int
    ) -> None:
        """ChatFault where the template opens an answer with words that it does not write
        when it is asked for one."""
        opening = upto.text[start:begin].strip()
        unasked = self._render(before, False)
        if not opening or not unasked.startswith(upto.text[:start]):
            return
        raise ChatFault(
            f"the template opens an answer with {opening[:_SHOWN]!r}, and does not write that when"
            " it is asked for one (add_generation_prompt), so that a model would be asked"
            " otherwise than it learns"
        )

    def _render(self, messages: Sequence[Message], asks: bool) -> str:
        rows = [message._asdict() for message in messages]
        try:
            text = self._tokenizer.apply_chat_template(
                rows, tokenize=False, add_generation_prompt=asks, **self._arguments
            )
        except Exception as error:  # whatever a template does, it is told as its own
            raise ChatFault(
                f"the template refuses it: {str(error)[:200] or type(error).__name__}"
            ) from None
        return str(text)

    def _mark(self, messages: Sequence[Message]) -> _Marked:
        """The messages with private words for their texts. Of an answer the words that
        the template looks for stay, and the blanks around a text, which it may take off."""
        marked: list[Message] = []
        texts: list[str] = []
        owners: list[int] = []
        for number, message in enumerate(messages):
            pieces: list[str] = []
            for text in self._divide(message):
                core = text.strip()
                is_sought = message.role == ASSISTANT and text in self._sought
                if not core or is_sought:
                    pieces.append(text)
                    continue
                before, _, after = text.partition(core)
                pieces.append(f"{before}\ue000{len(texts)}\ue001{after}")
                texts.append(core)
                owners.append(number)
            marked.append(Message(message.role, "".join(pieces)))
        return _Marked(tuple(marked), tuple(texts), tuple(owners))

    def _divide(self, message: Message) -> list[str]:
        """The text of a message; of an answer what stands between the words that the
        template looks for, and these words."""
        if message.role != ASSISTANT:
            return [message.content]
        words = sorted(
            (word for word in self._sought if word in message.content),
            key=len,
            reverse=True,
        )
        if not words:
            return [message.content]
        pattern = "|".join(map(re.escape, words))
        return re.split(f"({pattern})", message.content)

    def _find_frame(self, marked: _Marked, asks: bool) -> _Frame:
        """What the template writes around the texts. ChatFault where it writes one twice."""
        key = marked.messages, asks
        if key in self._frames:
            return self._frames[key]
        text = self._render(marked.messages, asks)
        pieces = _PRIVATE.split(text)
        literals, numbers = tuple(pieces[::2]), tuple(map(int, pieces[1::2]))
        if len(set(numbers)) < len(numbers) or any(
            number >= len(marked.texts) for number in numbers
        ):
            raise ChatFault("the template writes the text of a message more than once")
        _refuse_lost(marked, numbers)
        frame = _Frame(literals, numbers, self._place_tokens(text, literals))
        if len(self._frames) >= MOST_FRAMES:
            self._frames.clear()
        self._frames[key] = frame
        return frame

    def _place_tokens(
        self, text: str, literals: Sequence[str]
    ) -> tuple[tuple[tuple[int, int], ...], ...]:
        """In each literal of a text the places of control tokens."""
        control = self._tokens.find_control_tokens(text)
        by_literal: list[tuple[tuple[int, int], ...]] = []
        begins = [0]
        for match in _PRIVATE.finditer(text):
            begins.append(match.end())
        for begin, literal in zip(begins, literals, strict=True):
            end = begin + len(literal)
            inside: list[tuple[int, int]] = []
            for start, stop in control:
                if begin <= start and stop <= end:
                    inside.append((start - begin, stop - begin))
            by_literal.append(tuple(inside))
        return tuple(by_literal)

    def _encode(self, written: Written) -> PlacedIds:
        """The token ids of a written dialogue. Words of control tokens in what is said
        are text, but for those that are kept."""
        if not self._count_control(written):
            encoding = self._tokens.encode(written.text)
            if self._count_tokens(encoding) == self._count_own_tokens(written):
                return encoding
        spans = list(written.tokens)
        for content in written.contents:
            text = written.text[content.start : content.stop]
            for match in self._kept_words.finditer(text):
                start = content.start + match.start()
                spans.append((start, start + len(match.group())))
        return self._tokens.encode_with(written.text, sorted(spans))

    def _count_tokens(self, encoding: PlacedIds) -> int:
        """How many control tokens there are, but for those that are kept."""
        count = 0
        for token_id in encoding.ids:
            if token_id in self._control_ids:
                count += 1
        return count

    def _count_own_tokens(self, written: Written) -> int:
        """How many control tokens the template writes, but for those that are kept."""
        count = 0
        for start, stop in written.tokens:
            word = written.text[start:stop]
            if word not in self._kept:
                count += 1
        return count

    def _count_control(self, written: Written) -> int:
        return sum(
            len(self._control.findall(written.text[content.start : content.stop]))
            for content in written.contents
        )


def get_template(tokenizer: Any) -> str:
    """The chat template that transformers takes by itself. UserError where there is none."""
    try:
        source = tokenizer.get_chat_template()
    except ValueError as error:
        raise UserError(
            f"{tokenizer.name_or_path}: data.template is chat, and the model has no chat template"
            f" to take: {str(error)[:200]}; take another data.template"
        ) from None
    if not isinstance(source, str):
        raise UserError(f"{tokenizer.name_or_path}: its chat template is no text")
    return source


def _match_any(words: Collection[str]) -> re.Pattern[str]:
    """A pattern that finds any of the words, the longest where several begin at one
    place; of no words it finds nothing."""
    longest_first = sorted(words, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


def _fill(frame: _Frame, marked: _Marked) -> Written:
    """The text of a frame with the messages' texts in it."""
    pieces: list[str] = []
    contents: list[Content] = []
    tokens: list[tuple[int, int]] = []
    length = 0
    for number, literal in enumerate(frame.literals):
        for start, stop in frame.tokens[number]:
            tokens.append((length + start, length + stop))
        pieces.append(literal)
        length += len(literal)
        if number < len(frame.numbers):
            which = frame.numbers[number]
            text = marked.texts[which]
            stop = length + len(text)
            contents.append(Content(marked.owners[which], length, stop))
            pieces.append(text)
            length = stop
    return Written("".join(pieces), tuple(contents), tuple(tokens))


def _refuse_lost(marked: _Marked, numbers: Collection[int]) -> None:
    """ChatFault where a text is not written. Of an answer that others follow a part may
    be left out: templates of thinking models drop earlier thoughts."""
    last = len(marked.messages) - 1
    for number, owner in enumerate(marked.owners):
        message = marked.messages[owner]
        may_be_lost = message.role == ASSISTANT and owner < last
        if number not in numbers and not may_be_lost:
            raise ChatFault(
                f"the template leaves out what message {owner + 1} ({message.role}) says, or a part"
                f" of it: {marked.texts[number][:_SHOWN]!r}"
            )


def _explain_change(messages: Sequence[Message], text: str, written: Written) -> str:
    """Which message a template changes: the one in which the text and what was expected
    begin to differ."""
    same = _count_common(text, written.text)
    behind = [content for content in written.contents if content.stop >= same]
    number = behind[0].message if behind else len(messages) - 1
    begin = max(0, same - 10)
    return (
        f"the template changes what message {number + 1} ({messages[number].role}) says, or writes"
        f" otherwise because of it: {text[begin : begin + _SHOWN]!r} where"
        f" {written.text[begin : begin + _SHOWN]!r} was expected"
    )


def _count_common(first: str, second: str) -> int:
    """How many characters two texts begin with in common."""
    count = 0
    for one_letter, other_letter in zip(first, second, strict=False):
        if one_letter != other_letter:
            break
        count += 1
    return count


def _explain_prompt(prompt: str, upto: str, number: int, asks_no_thought: bool) -> str:
    same = _count_common(prompt, upto)
    if asks_no_thought:
        advice = (
            f"Asked with {THINKING}: false an answer may hold no thought; leave it out"
        )
    else:
        advice = (
            "Of a template that opens a thought which the answers do not hold,"
            f" data.chat_template_kwargs: {{{THINKING}: false}} may ask for none"
        )
    return (
        f"the prompt before message {number + 1} does not begin what the template writes with the"
        f" answer: {prompt[same : same + _SHOWN]!r} in the prompt,"
        f" {upto[same : same + _SHOWN]!r} with the answer. {advice}"
    )


def _find_end_of_answer(
    upto: Written, contents: Sequence[Content], start: int, sought: Collection[str]
) -> int | None:
    """Where the last end of turn behind an answer's `contents` ends; None where there is
    no token of the template's. The first token there is what ends a turn, but for words
    of the answer's own that the template has `sought`."""
    behind = start
    for content in contents:
        behind = max(behind, content.stop)
    closing = [
        (begin, end)
        for begin, end in upto.tokens
        if begin >= behind and upto.text[begin:end] not in sought
    ]
    if not contents:
        # of a blank answer: what the template writes first may open it
        closing = closing[-1:]
    if not closing:
        return None
    first_start, first_stop = closing[0]
    word = upto.text[first_start:first_stop]
    ends = [end for begin, end in closing if upto.text[begin:end] == word]
    return max(ends)


def _refuse_other_texts(
    written: Written, answers: Sequence[_Answer], messages: Sequence[Message]
) -> None:
    """ChatFault unless the answers' texts stand whole in what is learnt of them, and no
    other text does."""
    learnt = {answer.message: (answer.start, answer.stop) for answer in answers}
    for content in written.contents:
        own_start, own_stop = learnt.get(content.message, (0, 0))
        is_whole = own_start <= content.start and content.stop <= own_stop
        if content.message in learnt and not is_whole:
            raise ChatFault(
                f"what message {content.message + 1} says, an answer, does not stand between its"
                " prompt and its end of turn"
            )
        for number, (start, stop) in learnt.items():
            is_other = number != content.message
            if is_other and content.start < stop and content.stop > start:
                raise ChatFault(
                    f"the template writes what message {content.message + 1}"
                    f" ({messages[content.message].role}) says within the answer of message"
                    f" {number + 1}"
                )


def _refuse_two_beginnings(ids: Sequence[int], bos: int | None) -> None:
    if bos is not None and list(ids[:2]) == [bos, bos]:
        raise ChatFault("the template begins a dialogue with two BOS tokens")


def _find_tokens(placed: PlacedIds, start: int, stop: int) -> tuple[int, int]:
    """The tokens of the characters from `start` to `stop`. One that begins before them
    and ends within is of them, as transformers has it."""
    first = bisect_right(placed.stops, start)
    last = bisect_left(placed.starts, stop)
    return max(first, 1), last
