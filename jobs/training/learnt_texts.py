"""Reads back as text what a run learns: the tokens of each example as the model gets
them, which of them are targets, what max_length has taken of it, and what is wrong
with it.

The tokens are those that the run's train job keeps (see jobs.training.tokens); before
it has made them, those that it would make. Nothing is computed on them, so no GPU is
needed, and no weights: only the folder's tokenizer.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from jobs.contract.folder import Workspace, is_whole
from jobs.contract.job_file import MadeThings, Recipe
from jobs.model.vocabulary import load_vocabulary
from jobs.model.written_tokens import WrittenTokens
from jobs.preparing.corpus import Corpus
from jobs.training.tokens import Tokens, how_encoded, tokens_id
from jobs.training.train_sets import (
    UNLIMITED,
    encoder_of,
    list_targets,
    ordered_ids,
)
from zsg_core.data.examples import Example
from zsg_core.data.prompts import CHAT, EncodedExample, Template
from zsg_core.training import schedule

TRAIN, TEST = "train", "test"
# what may be wrong with an example
CUT, EMPTY, NO_TARGET, CONTROL_WORD = PROBLEMS = (
    "cut",
    "empty",
    "no target",
    "control word",
)
# told of what is shown, too, and no fault of the example's
FEWER_SHOTS, OTHER_TOKENS, APART = "fewer examples", "other tokens", "prompt apart"


@dataclass(frozen=True)
class LearntStage:
    """What decides which tokens a stage of a run learns. `recipe`: of the stages up to
    this one; `tokenizer`: the folder that it is read from; `first`: the steps of the
    stages before."""

    workspace: Workspace
    recipe: Recipe
    made: MadeThings
    tokenizer: Path
    first: int = 0

    @property
    def stage(self) -> Recipe:
        """The recipe of this stage alone."""
        return self.recipe["stages"][-1]


class Piece(NamedTuple):
    """A stretch of an example's tokens as text. `is_target`: it is learnt; `is_control`:
    it is one token that is no text, as `</s>` is. `text_number`: in which of the
    texts that the example is, from 0; see EncodedExample.sequences."""

    text: str
    is_target: bool
    is_control: bool
    text_number: int = 0


class Problem(NamedTuple):
    """What is wrong with an example: one of PROBLEMS, and a sentence."""

    kind: str
    text: str


@dataclass(frozen=True)
class LearntExample:
    """An example as the model gets it. `place`: in the training list or the test set,
    from 0; `step`: at which it is first learnt, None in the test set; `tokens` and
    `targets` are counts."""

    id: str
    place: int
    step: int | None
    tokens: int
    targets: int
    pieces: tuple[Piece, ...] = ()
    problems: tuple[Problem, ...] = ()


class LearntTexts:
    """The training list and the test set of a stage, to be read back."""

    def __init__(self, learnt_stage: LearntStage) -> None:
        """UserError or ClusterError where what prepare jobs make is missing or not what
        it was; UserError for a tokenizer that cannot be used."""
        self._source = learnt_stage
        stage = learnt_stage.stage
        self._train = stage["train"]
        self._corpus = Corpus(learnt_stage.workspace, learnt_stage.made.corpus)
        base = learnt_stage.recipe["base"]
        vocabulary = load_vocabulary(learnt_stage.tokenizer, base)
        template = Template.from_recipe(how_encoded(stage)["template"])
        self._is_chat = template.name == CHAT
        self._encode = encoder_of(stage, vocabulary)
        self._encode_whole = encoder_of(stage, vocabulary, UNLIMITED)
        self._written = WrittenTokens(learnt_stage.tokenizer)
        added = base.get("added", {}).get("tokens", ())
        # those that zsg added to a base are tokens where a text has them, too
        self._words = [word for word in self._written.control if word not in added]
        arrangement = learnt_stage.made.arrangement
        self.ids = ordered_ids(learnt_stage.workspace.arrangement(arrangement))

    @cached_property
    def steps(self) -> int:
        """How many steps the stage has."""
        train = self._train
        return schedule.count_steps(
            len(self.ids), train["batch"], train["epochs"], train["steps"]
        )

    @property
    def first_step(self) -> int:
        """The step of the run that is this stage's first."""
        return self._source.first + 1

    @property
    def sizes(self) -> dict[str, int]:
        """How many examples each split has; of the training list those that some step
        learns."""
        reached = min(len(self.ids), self.steps * self._train["batch"])
        return {TRAIN: reached, TEST: len(self._corpus.test)}

    def read_batch(self, step: int) -> list[LearntExample]:
        """The batch of a step of the run, in its order; steps count from the run's
        first stage."""
        train = self._train
        positions = schedule.list_batch_positions(
            step - self._source.first, train["batch"], len(self.ids), train["epochs"]
        )
        return [self._read_trained(position, step) for position in positions]

    def list_problems(self, split: str) -> Iterator[LearntExample]:
        """The examples of a split that have any problem, without their texts, each
        once. Of the training list those that some step learns."""
        read = {TRAIN: self._find_in_train, TEST: self._find_in_test}[split]
        return (example for example in read() if example.problems)

    def _find_in_train(self) -> Iterator[LearntExample]:
        """The training examples, each once, by their first occurrence in the list: a
        repeated example is not learnt anew at its later places."""
        positions: dict[str, int] = {}
        for position, example_id in enumerate(self.ids[: self.sizes[TRAIN]]):
            positions.setdefault(example_id, position)
        for example_id, position in positions.items():
            example = self._corpus.train[self._index_of[example_id]]
            encoded = self._encoded(position, example)
            yield self._describe(example, position, encoded, self._find_step(position))

    def _find_in_test(self) -> Iterator[LearntExample]:
        for position, example in enumerate(self._corpus.test):
            yield self._describe(example, position, self._encode(example))

    def _find_step(self, position: int) -> int:
        """The first step that learns the example at a place."""
        return self._source.first + position // self._train["batch"] + 1

    def _read_trained(self, position: int, step: int) -> LearntExample:
        """The example at a place of the training list, with its text."""
        example = self._corpus.train[self._index_of[self.ids[position]]]
        encoded = self._encoded(position, example)
        described = self._describe(example, position, encoded, step)
        problems = list(described.problems)
        if not encoded.cut:
            problems += self._explain_cut(example, encoded)
        problems += self._compare_tokens(example, encoded)
        if self._encode(example).apart:
            text = "its last token of the prompt joins the answer: alone it is another"
            problems.append(Problem(APART, text))
        return LearntExample(
            id=described.id,
            place=position,
            step=step,
            tokens=described.tokens,
            targets=described.targets,
            pieces=tuple(self._make_pieces(encoded, self._rules[example.id])),
            problems=tuple(problems),
        )

    def _describe(
        self,
        example: Example,
        position: int,
        encoded: EncodedExample,
        step: int | None = None,
    ) -> LearntExample:
        """The counts and the problems of an example."""
        rule = None if step is None else self._rules[example.id]
        spans = _target_spans(encoded, rule)
        targets = sum(stop - start for start, stop in spans)
        problems = list(find_empty(example))
        problems += self._find_control_words(example)
        if encoded.cut:
            problems += self._explain_cut(example, encoded)
        if not targets:
            problems.append(Problem(NO_TARGET, "no token of it is a target"))
        return LearntExample(
            id=example.id,
            place=position,
            step=step,
            tokens=len(encoded.ids),
            targets=targets,
            problems=tuple(problems),
        )

    def _find_control_words(self, example: Example) -> list[Problem]:
        """Which control tokens' words the example has as text.

        The marks of a thought, which a chat template looks for in an answer and writes
        itself, are tokens: of a chat its encoder counts those that stayed text.
        """
        problems = list(find_control_words(example, self._words))
        if problems and self._is_chat and not self._encode(example).control:
            return []
        return problems

    def _explain_cut(self, example: Example, encoded: EncodedExample) -> list[Problem]:
        """What max_length has taken of an example, by what it is without a limit."""
        now = self._encode(example)
        if now.lost_shots:
            return [_tell_lost_shots(example, now, self._train["max_length"])]
        whole = self._encode_whole(example)
        loss = measure_loss(encoded, whole)
        if loss.tokens <= 0:
            return []
        limit = f"train.max_length {self._train['max_length']}"
        text = f"{limit} left out {loss.tokens} of {len(whole.ids)} tokens"
        text += f": {loss.describe()}"
        if now.lost_question:
            text += "; nothing of its question is left"
        return [Problem(FEWER_SHOTS if loss.shots else CUT, text)]

    def _compare_tokens(
        self, example: Example, encoded: EncodedExample
    ) -> list[Problem]:
        """Whether the kept tokens are others than would be made now."""
        if list(encoded.ids) == list(self._encode(example).ids):
            return []
        text = (
            "the tokens that its train job keeps, shown here, are not those that this version of"
            " zsg and this tokenizer make"
        )
        return [Problem(OTHER_TOKENS, text)]

    @cached_property
    def _kept(self) -> Tokens | None:
        """The tokens that a train job has made, if one has."""
        source = self._source
        made_id = tokens_id(source.recipe, source.made.arrangement)
        folder = source.workspace.tokens(made_id)
        return Tokens(folder) if is_whole(folder) else None

    @cached_property
    def _index_of(self) -> dict[str, int]:
        """Where in the corpus an example is."""
        return {made_id: index for index, made_id in enumerate(self._corpus.train.ids)}

    @cached_property
    def _rules(self) -> dict[str, str]:
        """Which tokens are learnt of each example of the training list, by its id: the
        stage's rule or that of its source."""
        rules = list_targets(self._source.stage, self._corpus, self.ids)
        return dict(zip(self.ids, rules, strict=True))

    def _encoded(self, position: int, example: Example) -> EncodedExample:
        """The tokens of an example of the training list."""
        return self._kept[position] if self._kept else self._encode(example)

    def _make_pieces(self, encoded: EncodedExample, rule: str) -> Iterator[Piece]:
        """The example's tokens as text, cut where targets begin and end, and around
        control tokens; each of its texts by itself."""
        is_target = [False] * len(encoded.ids)
        for start, stop in _target_spans(encoded, rule):
            is_target[start:stop] = [True] * (stop - start)
        for number, (begin, end) in enumerate(encoded.bounds):
            ids = [int(token) for token in encoded.ids[begin:end]]
            yield from self._make_pieces_of_text(ids, is_target[begin:end], number)

    def _make_pieces_of_text(
        self, ids: Sequence[int], is_target: Sequence[bool], number: int
    ) -> Iterator[Piece]:
        """The pieces of one text. `is_target`: of each of its tokens."""
        control = set(self._written.control.values())
        kinds = [
            (target, token if token in control else None)
            for target, token in zip(is_target, ids, strict=True)
        ]
        bounds = [0, *_find_changes(kinds), len(ids)]
        texts = self._written.write_stretches(ids, bounds)
        for start, text in zip(bounds, texts, strict=False):
            target, token = kinds[start]
            yield Piece(text, target, token is not None, number)


def _target_spans(encoded: EncodedExample, rule: str | None) -> list[tuple[int, int]]:
    """Which tokens are learnt by a rule; of a test item, which has none, those of which
    its loss is taken."""
    if rule is None:
        return list(encoded.spans)
    return encoded.target_spans(rule)


def _find_changes(kinds: Sequence[tuple[bool, int | None]]) -> list[int]:
    """Where a stretch of equal tokens ends; every control token is one by itself."""
    return [
        position
        for position in range(1, len(kinds))
        if kinds[position] != kinds[position - 1] or kinds[position][1] is not None
    ]


def _tell_lost_shots(
    example: Example, encoded: EncodedExample, max_length: int
) -> Problem:
    """How many of an example's shots max_length has left out."""
    shots = len(example.few_shot.shots) if example.few_shot else 0
    text = (
        f"train.max_length {max_length} left out {encoded.cut} tokens: the first"
        f" {encoded.lost_shots} of the {shots} examples of data.few_shot"
    )
    if encoded.lost_shots == shots:
        text = f"{text}, and may have cut its own"
    return Problem(CUT, text)


def find_empty(example: Example) -> Iterator[Problem]:
    """What of an example's texts is empty or blank; of a raw text nothing is asked."""
    for number, (question, answer) in enumerate(example.turns, start=1):
        turn = f" of turn {number}" if len(example.turns) > 1 else ""
        if not question.strip() and not example.is_text:
            yield Problem(EMPTY, f"its question{turn} is empty")
        if not answer.strip():
            yield Problem(
                EMPTY, f"its answer{turn} is empty: only the answer's end is learnt"
            )


def find_control_words(example: Example, words: Iterable[str]) -> Iterator[Problem]:
    """Which control tokens' words stand in an example's texts."""
    drawn = example.few_shot.shots if example.few_shot else ()
    turns = itertools.chain(*example.turns, *example.shots, *drawn)
    text = "\n".join([example.system, example.definition, *turns])
    standing = [word for word in words if word in text]
    if standing:
        names = ", ".join(standing)
        yield Problem(
            CONTROL_WORD, f"its text has {names}, which is read as text, not as a token"
        )


@dataclass(frozen=True)
class Loss:
    """What max_length has taken of an example: counts of tokens, and of turns.

    `shots`: whether its positive examples alone are fewer, which is no cut.
    """

    prompt: int
    answers: int
    later_turns: int
    turns: int
    shots: bool = False

    @property
    def tokens(self) -> int:
        """All tokens that are lost."""
        return self.prompt + self.answers + self.later_turns

    def describe(self) -> str:
        """In words, by what was lost."""
        losses: list[str] = []
        if self.prompt:
            source = "positive examples" if self.shots else "prompt"
            losses.append(f"{self.prompt} of its {source}")
        if self.answers:
            losses.append(f"{self.answers} of its answers")
        if self.later_turns:
            turns = (
                "its last turn" if self.turns == 1 else f"its last {self.turns} turns"
            )
            losses.append(f"{self.later_turns}, {turns}")
        return "; ".join(losses)


def measure_loss(encoded: EncodedExample, whole: EncodedExample) -> Loss:
    """What an example has lost, beside what it is without a limit."""
    begun = max(1, len(encoded.spans))  # turns of which anything may be left
    turns = len(whole.spans) - begun
    answers = sum(stop - start for start, stop in whole.spans[:begun])
    answers -= encoded.answer_tokens
    later_turns = len(whole.ids) - whole.spans[begun - 1][1] if turns > 0 else 0
    prompt = len(whole.ids) - len(encoded.ids) - answers - later_turns
    return Loss(
        prompt=prompt,
        answers=answers,
        later_turns=later_turns,
        turns=turns,
        shots=not encoded.cut,
    )
