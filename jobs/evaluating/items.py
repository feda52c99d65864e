"""Puts a suite's items to a model in the run's own template: the test set, GSM8K,
HumanEval, MT-Bench.

Which items are asked depends on the suite alone, so it is the same at every checkpoint
and in every run. MT-Bench's second turn is asked after what the model said in the
first, without what it thought, both at FastChat's temperature for the category.

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
from jobs.model.chat_encoder import ChatEncoder
from jobs.model.generate import Ids, cut_at_stops
from jobs.model.vocabulary import Vocabulary
from zsg_core.data import prompts, readers, splits
from zsg_core.data.examples import Example
from zsg_core.data.prompts import EncodedExample, Template
from zsg_core.data.readers import evaluation
from zsg_core.data.readers.evaluation import Problem
from zsg_core.data.readers.intake import Intake
from zsg_core.metrics import human_eval, mt_bench
from zsg_core.metrics.metrics import GSM8K, HUMANEVAL, MT_BENCH, TEST_SET
from zsg_core.metrics.reasoning import cut_answers
from zsg_core.metrics.scoring import Answered
from zsg_core.suites import Suite, find_marks

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

    @cached_property
    def _chat(self) -> ChatEncoder | None:
        """What writes by the model's own chat template, where the run does."""
        if self.template.name != prompts.CHAT:
            return None
        return self.vocabulary.open_chat(self.template)

    def add_ends(self, how: Mapping[str, Any]) -> Mapping[str, Any]:
        """A way of answering, with the token at which the chat template closes an answer
        for one of its ends."""
        end = self._chat.end_of_turn if self._chat else None
        if end is None:
            return how
        return {**how, "ends": sorted({*how.get("ends", ()), end})}

    def prompt(self, example: Example) -> list[int]:
        """What stands before the example's last answer, uncut."""
        if self._chat:
            ids = self._chat.encode_prompt(example, UNCUT).ids
            assert ids is not None, "all fits what has no limit"
            return ids
        encoded = self._encoded(example, UNCUT, "prompt")
        return encoded.ids[: encoded.spans[-1][0]]

    def test_prompt(self, example: Example) -> tuple[list[int] | None, bool]:
        """What stands before a test item's last answer within `max_length`, and whether
        that is less than all of it.

        None where it leaves out the last turn. The prompt is the same whatever the
        item's own answer is.
        """
        if self._chat:
            asked = self._chat.encode_prompt(example, self.max_length, self.truncate)
            return asked.ids, asked.is_cut
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

    def decode_answer(self, prompt: Ids, answer: Ids) -> str:
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
        return [
            self._asker.test_prompt(self._examples[number]) for number in self.places
        ]

    @property
    def prompts(self) -> list[list[int]]:
        """What stands before the last answer of each of those that can be asked."""
        return [prompt for prompt, _ in self._prompted if prompt is not None]

    @property
    def shortened(self) -> dict[str, int]:
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
            number
            for number, (prompt, _) in zip(self.places, self._prompted, strict=True)
            if prompt is not None
        ]
        names = [self.ids[number] for number in asked]
        answers = generate(self._asker.add_ends(self._how), self.prompts, names)
        words, stops = self._asker.vocabulary, self._how.get("stops", ())
        marks = find_marks(self._how)
        texts = [words.text(prompt) for prompt in self.prompts]
        return [
            Answered(
                id=self.ids[number],
                task=self.tasks[number],
                prompt=prompt,
                references=self._examples[number].right_answers,
                answer=cut_at_stops(words.text(tokens), stops, marks, prompt),
            )
            for number, prompt, tokens in zip(asked, texts, answers, strict=True)
            if tokens is not None
        ]

    @property
    def instructions(self) -> dict[str, str]:
        """What a user would have said before each answer, without the run's template,
        as a reward model reads it."""
        return {
            self.ids[number]: self._instruction(self._examples[number])
            for number in self.places
        }

    def _instruction(self, example: Example) -> str:
        """What a judge reads as the question: the system text, the question with its
        shots, and in a dialogue every turn before the last with its reference as the
        assistant's answer."""
        question = prompts.build_question(example, self._asker.template.shots)
        if example.system:
            question = f"{example.system}\n\n{question}"
        turns = [(question, example.turns[0][1]), *example.turns[1:]]
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
        questions = [self._read[number] for number in self.places]
        names = [question.id for question in questions]
        return _answers(self._how, questions, names, self._asker, generate)


class Problems:
    """HumanEval's problems, each as often as the suite says."""

    def __init__(self, suite: Suite, asker: Asker) -> None:
        """Reads every problem of the suite's file and draws those to ask.

        `ids` and `tasks` have an entry for each problem, asked or not; `places` are the
        indices among them of the problems that are asked, `suite.how["items"]` of them
        or all.
        """
        self._how, self._asker = suite.how, asker
        self.problems: list[Problem] = list(
            evaluation.read_problems(_path(suite), Intake())
        )
        self.name = _name(suite)
        self.ids = [problem.task_id for problem in self.problems]
        self.tasks = [HUMANEVAL] * len(self.ids)
        self.places = _drawn(self.tasks, suite.how["items"])

    def answer(self, generate: Generate) -> list[Answered]:
        """The answers of the model as its weights are now, blanks at their beginning
        kept: they are code."""
        is_plain = self._asker.template.name == WITHOUT_TEMPLATE
        examples, names = [], []
        for problem in (self.problems[number] for number in self.places):
            text = problem.prompt if is_plain else human_eval.build_instruction(problem)
            example = Example(id=problem.task_id, task=HUMANEVAL, turns=((text, ""),))
            examples += [example] * self._how["samples"]
            names += [
                f"{problem.task_id}~{number}" for number in range(self._how["samples"])
            ]
        answers = _answers(self._how, examples, names, self._asker, generate)
        return answers if is_plain else [_without_blank(answer) for answer in answers]


def _without_blank(answer: Answered) -> Answered:
    """An answer without the blank that a template has between its tag and an answer: it
    is not the model's."""
    text = answer.answer
    if text[:1] != " " or text[1:2].isspace():
        return answer
    return Answered(
        id=answer.id, task=answer.task, prompt=answer.prompt, answer=text[1:]
    )


class Dialogues:
    """MT-Bench's questions; an item is a turn."""

    def __init__(self, suite: Suite, asker: Asker) -> None:
        """Reads every question of the suite's file and draws those to ask.

        `ids` and `tasks` have an entry for each turn of each question, asked or not, so
        that a turn keeps its place whatever is drawn; `places` are the indices, among
        them, of the turns that are asked. A question is drawn whole: a second turn
        needs the answer to the first.
        """
        self._how, self._asker = suite.how, asker
        self._read = list(readers.read_examples(MT_BENCH, _path(suite), Intake()))
        self.name = _name(suite)
        self.ids = [turn for question in self._read for turn in _turn_ids(question)]
        self.tasks = [question.task for question in self._read for _ in question.turns]
        chosen = _drawn([question.task for question in self._read], suite.how["items"])
        self.questions: list[Example] = [self._read[number] for number in chosen]
        asked_ids = {
            turn for question in self.questions for turn in _turn_ids(question)
        }
        self.places = [n for n, turn in enumerate(self.ids) if turn in asked_ids]

    def answer(self, generate: Generate) -> list[Answered]:
        """The answers of the model as its weights are now, turn after turn, of one
        conversation after the other."""
        return [
            answer
            for sample in range(self._how.get("samples", 1))
            for answer in self._converse(sample, generate)
        ]

    def _converse(self, sample: int, generate: Generate) -> list[Answered]:
        """One conversation about each question: the answers to all their turns."""
        replies: dict[str, list[str]] = {question.id: [] for question in self.questions}
        answers: list[Answered] = []
        open_questions = list(self.questions)
        while open_questions:
            turn_answers = self._answer_turn(open_questions, replies, sample, generate)
            answers += turn_answers.values()
            # Where a turn cannot be asked, as what was said fills the model's
            # positions, nothing follows it.
            answered = [
                question
                for question in open_questions
                if _next_turn_id(question, replies) in turn_answers
            ]
            for question in answered:
                answer = turn_answers[_next_turn_id(question, replies)]
                [said] = cut_answers([answer], find_marks(self._how)).answers
                replies[question.id].append(said.answer)
            open_questions = [
                question
                for question in answered
                if len(replies[question.id]) < len(question.turns)
            ]
        order = {item: number for number, item in enumerate(self.ids)}
        return sorted(answers, key=lambda answer: order[answer.id])

    def _answer_turn(
        self,
        questions: Sequence[Example],
        replies: Mapping[str, Sequence[str]],
        sample: int,
        generate: Generate,
    ) -> dict[str, Answered]:
        """The answers to the next turn of each question, in their order, by the turn's id;
        nothing of one that cannot be asked."""
        turns = [
            mt_bench.build_turn(question, replies[question.id])
            for question in questions
        ]
        answers = self._ask_by_temperature(turns, sample, generate)
        return {
            turn.id: Answered(
                id=turn.id,
                task=turn.task,
                prompt=answers[turn.id].prompt,
                references=(turn.answer,) if turn.answer else (),
                answer=answers[turn.id].answer.strip(),
            )
            for turn in turns
            if turn.id in answers
        }

    def _ask_by_temperature(
        self, turns: Sequence[Example], sample: int, generate: Generate
    ) -> dict[str, Answered]:
        """Asks all turns with the same temperature together; the answers by turn."""
        temperatures = self._how["temperature"]
        groups: dict[float, list[Example]] = {}
        for turn in turns:
            groups.setdefault(temperatures.get(turn.task, 0), []).append(turn)
        answers: dict[str, Answered] = {}
        for temperature, group in sorted(groups.items()):
            decoding = (
                {"temperature": temperature} if temperature else {"decoding": "greedy"}
            )
            names = [f"{turn.id}~{sample}" if sample else turn.id for turn in group]
            for answer in _answers(
                self._how | decoding, group, names, self._asker, generate
            ):
                answers[answer.id] = answer
        return answers


def _turn_ids(question: Example) -> list[str]:
    """The items that a question of MT-Bench is: its turns."""
    return [
        mt_bench.turn_id(question, number)
        for number in range(1, len(question.turns) + 1)
    ]


def _next_turn_id(question: Example, replies: Mapping[str, Sequence[str]]) -> str:
    return mt_bench.turn_id(question, len(replies[question.id]) + 1)


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


def _facts(examples: Sequence[Example]) -> tuple[list[str], list[str]]:
    """Their ids and their tasks."""
    return [example.id for example in examples], [example.task for example in examples]


def _drawn(tasks: Sequence[str], count: int | None) -> list[int]:
    return (
        list(range(len(tasks)))
        if count is None
        else splits.sample_stratified(tasks, count, SEED)
    )


def _answers(
    how: Mapping[str, Any],
    examples: Sequence[Example],
    names: Sequence[str],
    asker: Asker,
    generate: Generate,
) -> list[Answered]:
    """What the model says to each example's last question; nothing of one that it
    cannot be asked."""
    prompt_ids = [asker.prompt(example) for example in examples]
    way = asker.add_ends(how)
    return [
        Answered(
            id=example.id,
            task=example.task,
            prompt=asker.vocabulary.text(prompt),
            references=example.right_answers,
            answer=cut_at_stops(
                asker.decode_answer(prompt, tokens),
                how.get("stops", ()),
                find_marks(how),
                asker.vocabulary.text(prompt),
            ),
        )
        for example, prompt, tokens in zip(
            examples, prompt_ids, generate(way, prompt_ids, names), strict=True
        )
        if tokens is not None
    ]
