"""Puts a suite's items to a model in the run's own template: the test set, GSM8K,
HumanEval, MT-Bench.

Which items are asked depends on the suite alone, so it is the same at every checkpoint
and in every run. MT-Bench's second turn is asked after what the model said in the
first, both at FastChat's temperature for the category.

A text ends where `how` says that an answer is over. An item that cannot be asked has no
answer, which is no empty answer: its prompt leaves the model no position for one, or
max_length leaves out the very turn that its references are of.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jobs.contract import item_losses
from jobs.model import content
from jobs.model.base_model import Vocabulary
from jobs.model.generate import Ids, cut_at_stops
from zsg_core.data import prompts, readers, splits
from zsg_core.data.examples import Example
from zsg_core.data.prompts import EncodedExample, Template
from zsg_core.data.readers import evaluation
from zsg_core.data.readers.evaluation import Problem
from zsg_core.data.readers.intake import Intake
from zsg_core.metrics import human_eval, mt_bench
from zsg_core.metrics.metrics import GSM8K, HUMANEVAL, MT_BENCH, TEST_SET
from zsg_core.metrics.scoring import Answered
from zsg_core.suites import Suite

SEED = 0  # of which items are asked where not all are
UNCUT = 1 << 30  # tokens; what stands beyond the model's positions the generator sees
# stands for the answer where a prompt is cut into tokens: its first token must not melt
# into the prompt
ANSWER = "A"
WITHOUT_TEMPLATE = "plain"

# (how, prompts, names of their draws) → the tokens of each answer; None for a prompt
# that leaves no room for one.
Generate = Callable[
    [Mapping[str, Any], Sequence[Ids], Sequence[str]], Sequence[list[int] | None]
]


@dataclass(frozen=True)
class Asker:
    """How a run's model is asked: its template, its tokenizer, and how much of a test
    item it reads."""

    template: Template
    vocabulary: Vocabulary
    max_length: int = UNCUT
    truncate: str = "prompt"

    def prompt(self, example: Example) -> list[int]:
        """What stands before the example's last answer, uncut."""
        encoded = self._encoded(example, UNCUT, "prompt")
        return encoded.ids[: encoded.spans[-1][0]]

    def test_prompt(self, example: Example) -> tuple[list[int] | None, bool]:
        """What stands before a test item's last answer within `max_length`, and whether
        that is less than all of it.

        None where it leaves out the last turn. The prompt is the same whatever the
        item's own answer is.
        """
        encoded = self._encoded(example, self.max_length, self.truncate)
        if len(encoded.spans) < len(example.turns):
            return None, True
        return encoded.ids[: encoded.spans[-1][0]], encoded.cut > 0

    def _encoded(
        self, example: Example, max_length: int, truncate: str
    ) -> EncodedExample:
        words = self.vocabulary
        return prompts.encode_example(
            example.answering(ANSWER),
            template=self.template,
            tokenize=words.tokenize,
            bos=words.bos,
            eos=words.eos,
            max_length=max_length,
            truncate=truncate,
        )

    def said(self, prompt: Ids, answer: Ids) -> str:
        """An answer as it goes on from its prompt: alone, some tokenizers would take a
        blank off its beginning."""
        before = self.vocabulary.text(prompt[-4:])
        whole = self.vocabulary.text([*prompt[-4:], *answer])
        return (
            whole.removeprefix(before)
            if whole.startswith(before)
            else self.vocabulary.text(answer)
        )


class OwnTestSet:
    """Items of the run's own test set, asked as its loss reads them, but that the
    answer takes no room of a prompt.

    Of an item whose last turn is left out no earlier one is asked instead: its
    references are of the last.
    """

    def __init__(
        self, how: Mapping[str, Any], test: tuple[Any, Sequence[Example]], asker: Asker
    ) -> None:
        self._how, self._asker = how, asker
        self._tokens, self._examples = test
        self.name, self.ids, self.tasks = (
            item_losses.TEST_ITEMS,
            self._tokens.ids,
            self._tokens.tasks,
        )

    @cached_property
    def places(self) -> list[int]:
        """Which of the items are answered."""
        return _drawn(self.tasks, self._how["items"])

    @cached_property
    def _prompted(self) -> list[tuple[list[int] | None, bool]]:
        return [self._asker.test_prompt(self._examples[place]) for place in self.places]

    @property
    def prompts(self) -> list[list[int]]:
        """What stands before the last answer of each of those that can be asked."""
        return [prompt for prompt, _ in self._prompted if prompt is not None]

    @property
    def told(self) -> dict[str, int]:
        """Of how many items max_length leaves out the turn that is asked, and of how
        many a part of the prompt."""
        unasked = sum(prompt is None for prompt, _ in self._prompted)
        return {
            "turns_left_out": unasked,
            "prompts_cut": sum(is_cut for _, is_cut in self._prompted) - unasked,
        }

    def answer(self, generate: Generate) -> list[Answered]:
        """The answers of the model as its weights are now, of those items that can be asked."""
        asked = [
            place
            for place, (prompt, _) in zip(self.places, self._prompted, strict=True)
            if prompt is not None
        ]
        made = generate(self._how, self.prompts, [self.ids[place] for place in asked])
        words, stops = self._asker.vocabulary, self._how.get("stops", ())
        return [
            Answered(
                id=self.ids[place],
                task=self.tasks[place],
                prompt=words.text(prompt),
                references=self._examples[place].right_answers,
                answer=cut_at_stops(words.text(tokens), stops),
            )
            for place, prompt, tokens in zip(asked, self.prompts, made, strict=True)
            if tokens is not None
        ]

    @property
    def instructions(self) -> dict[str, str]:
        """What a user would have said before each answer, without the run's template,
        as a reward model reads it."""
        return {
            self.ids[place]: self._instruction(self._examples[place])
            for place in self.places
        }

    def _instruction(self, example: Example) -> str:
        asked = prompts.build_question(example, self._asker.template.shots)
        asked = f"{example.system}\n\n{asked}" if example.system else asked
        turns = [(asked, example.turns[0][1]), *example.turns[1:]]
        before = "".join(
            f"{question}\n\nAssistant: {answer}\n\nHuman: "
            for question, answer in turns[:-1]
        )
        return before + turns[-1][0]


class Questions:
    """GSM8K's questions."""

    def __init__(self, suite: Suite, asker: Asker) -> None:
        self._how, self._asker = suite.how, asker
        self._read = list(readers.read_examples(GSM8K, _path(suite), Intake()))
        self.name, self.ids, self.tasks = _name(suite), *_facts(self._read)
        self.places = _drawn(self.tasks, suite.how["items"])

    def answer(self, generate: Generate) -> list[Answered]:
        """The answers of the model as its weights are now."""
        asked = [self._read[place] for place in self.places]
        return _answers(
            self._how, asked, [one.id for one in asked], self._asker, generate
        )


class Problems:
    """HumanEval's problems, each as often as the suite says."""

    def __init__(self, suite: Suite, asker: Asker) -> None:
        self._how, self._asker = suite.how, asker
        self.problems: list[Problem] = list(
            evaluation.read_problems(_path(suite), Intake())
        )
        self.name, self.ids = _name(suite), [one.task_id for one in self.problems]
        self.tasks = [HUMANEVAL] * len(self.ids)
        self.places = _drawn(self.tasks, suite.how["items"])

    def answer(self, generate: Generate) -> list[Answered]:
        """The answers of the model as its weights are now, blanks at their beginning
        kept: they are code."""
        is_plain = self._asker.template.name == WITHOUT_TEMPLATE
        asked, names = [], []
        for problem in (self.problems[place] for place in self.places):
            text = problem.prompt if is_plain else human_eval.build_instruction(problem)
            example = Example(id=problem.task_id, task=HUMANEVAL, turns=((text, ""),))
            asked += [example] * self._how["samples"]
            names += [
                f"{problem.task_id}~{number}" for number in range(self._how["samples"])
            ]
        made = _answers(self._how, asked, names, self._asker, generate)
        if is_plain:
            return made
        # The template has a blank between its tag and an answer. It is not the model's.
        return [
            (
                Answered(
                    id=one.id, task=one.task, prompt=one.prompt, answer=one.answer[1:]
                )
                if one.answer[:1] == " " and not one.answer[1:2].isspace()
                else one
            )
            for one in made
        ]


class Dialogues:
    """MT-Bench's questions; an item is a turn."""

    def __init__(self, suite: Suite, asker: Asker) -> None:
        self._how, self._asker = suite.how, asker
        self._read = list(readers.read_examples(MT_BENCH, _path(suite), Intake()))
        turns = [
            (one, number)
            for one in self._read
            for number in range(1, len(one.turns) + 1)
        ]
        self.name, self.ids = (
            _name(suite),
            [mt_bench.turn_id(one, number) for one, number in turns],
        )
        self.tasks = [one.task for one, _ in turns]
        chosen = _drawn([one.task for one in self._read], suite.how["items"])
        self.questions: list[Example] = [self._read[place] for place in chosen]
        ids = {
            mt_bench.turn_id(one, n)
            for one in self.questions
            for n in range(1, len(one.turns) + 1)
        }
        self.places = [place for place, one in enumerate(self.ids) if one in ids]

    def answer(self, generate: Generate) -> list[Answered]:
        """The answers of the model as its weights are now, turn after turn, of one
        conversation after the other."""
        return [
            one
            for sample in range(self._how.get("samples", 1))
            for one in self._converse(sample, generate)
        ]

    def _converse(self, sample: int, generate: Generate) -> list[Answered]:
        said: dict[str, list[str]] = {one.id: [] for one in self.questions}
        made: list[Answered] = []
        asked = list(self.questions)
        while asked:
            turn = [mt_bench.build_turn(one, said[one.id]) for one in asked]
            answers = {
                answer.id: answer for answer in self._turn(turn, sample, generate)
            }
            # Where a turn cannot be asked, as what was said fills the model's
            # positions, nothing follows it.
            asked = [
                one for one, own in zip(asked, turn, strict=True) if own.id in answers
            ]
            for one in asked:
                said[one.id].append(
                    answers[mt_bench.turn_id(one, len(said[one.id]) + 1)].answer
                )
            asked = [one for one in asked if len(said[one.id]) < len(one.turns)]
            made += answers.values()
        order = {item: place for place, item in enumerate(self.ids)}
        return sorted(made, key=lambda one: order[one.id])

    def _turn(
        self, asked: Sequence[Example], sample: int, generate: Generate
    ) -> list[Answered]:
        made: dict[str, Answered] = {}
        temperatures = self._how["temperature"]
        for temperature in sorted({temperatures.get(one.task, 0) for one in asked}):
            own = [one for one in asked if temperatures.get(one.task, 0) == temperature]
            how = self._how | (
                {"temperature": temperature} if temperature else {"decoding": "greedy"}
            )
            names = [f"{one.id}~{sample}" if sample else one.id for one in own]
            for answer in _answers(how, own, names, self._asker, generate):
                made[answer.id] = answer
        return [
            Answered(
                id=one.id,
                task=one.task,
                prompt=made[one.id].prompt,
                references=(one.answer,) if one.answer else (),
                answer=made[one.id].answer.strip(),
            )
            for one in asked
            if one.id in made
        ]


Items = OwnTestSet | Questions | Problems | Dialogues
_OF_FILES = {GSM8K: Questions, HUMANEVAL: Problems, MT_BENCH: Dialogues}


def read_items(
    suite: Suite, test: Callable[[], tuple[Any, Sequence[Example]]], asker: Asker
) -> Items:
    """The items of a suite. UserError for a file that is not what was planned with."""
    return (
        OwnTestSet(suite.how, test(), asker)
        if suite.name == TEST_SET
        else _OF_FILES[suite.name](suite, asker)
    )


def _name(suite: Suite) -> str:
    return item_losses.name_of(suite.name, suite.how)


def _path(suite: Suite) -> Path:
    file = suite.files[suite.name]
    content.refuse_changed(
        Path(file.path), content.suite_files(suite.name), file.digest
    )
    return Path(file.path)


def _facts(read: Sequence[Example]) -> tuple[list[str], list[str]]:
    return [one.id for one in read], [one.task for one in read]


def _drawn(tasks: Sequence[str], count: int | None) -> list[int]:
    return (
        list(range(len(tasks)))
        if count is None
        else splits.sample_stratified(tasks, count, SEED)
    )


def _answers(
    how: Mapping[str, Any],
    asked: Sequence[Example],
    names: Sequence[str],
    asker: Asker,
    generate: Generate,
) -> list[Answered]:
    """What the model says to each example's last question; nothing of one that it
    cannot be asked."""
    shown = [asker.prompt(one) for one in asked]
    return [
        Answered(
            id=one.id,
            task=one.task,
            prompt=asker.vocabulary.text(prompt),
            references=one.right_answers,
            answer=cut_at_stops(asker.said(prompt, tokens), how.get("stops", ())),
        )
        for one, prompt, tokens in zip(
            asked, shown, generate(how, shown, names), strict=True
        )
        if tokens is not None
    ]
