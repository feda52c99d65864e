"""Rejection-sampling fine-tuning: k answers to each problem, of which the right ones
stay that differ in their equations (Yuan et al. 2023, arXiv 2308.01825).

An answer is right if its number is that of the problem's own answer, and all of its
equations hold. Of several with the same equations the one stays that is farther from
the others: the summed edits to the other kept answers decide, one after the other.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from zsg_core.data.examples import Example
from zsg_core.makers import equations
from zsg_core.makers.edit_distance import count_edits
from zsg_core.makers.registry import Made, Reply, Request, Sampling, Steps, ask, maker
from zsg_core.metrics.gsm8k import read_flexible, read_strict
from zsg_core.settings.makers import RftSettings

ReadNumber = Callable[[str], float | None]

# why an answer is refused, as users read it
CUT = "not over after max_new_tokens"
EMPTY = "empty"
NO_NUMBER = "no final number"
WRONG_NUMBER = "another number than the problem's answer"
WRONG_EQUATION = "an equation that does not hold"
KNOWN = "the same equations as another, and no farther from the others"
REPLACED = "the same equations as another, which is farther from the others"
# why a problem is not asked
NO_GOLD = "problems not asked: no number in their own answer"
SEVERAL_TURNS = "problems not asked: a dialogue of several turns"


@dataclass
class KeptPaths:
    """The answers to one problem that stay: by their equations, in the order in which
    these came."""

    by_key: dict[str, str] = field(default_factory=dict[str, str])

    def add(self, text: str) -> str | None:
        """Takes an answer that is right; the reason for which it or the one whose place
        it takes is refused, None where its equations are new."""
        key = equations.join_equations(equations.list_equations(text))
        known = self.by_key.get(key)
        if known is None:
            self.by_key[key] = text
            return None
        others = [path for other, path in self.by_key.items() if other != key]
        if self._sum_edits(text, others) > self._sum_edits(known, others):
            self.by_key[key] = text
            return REPLACED
        return KNOWN

    @staticmethod
    def _sum_edits(text: str, others: Sequence[str]) -> int:
        return sum(count_edits(text, other) for other in others)


@dataclass(frozen=True)
class Problem:
    """A problem that is asked, and the number that is right."""

    example: Example
    answer: float


@maker(
    "rft",
    RftSettings,
    about="right answers of a model to problems, which differ in their equations",
    keeps=("read", "gold"),
)
def make_rft(examples: Sequence[Example], settings: RftSettings) -> Steps:
    """The right answers of a model, after each problem's own."""
    made = Made()
    problems = choose_problems(examples, made)
    requests = [
        request
        for problem in problems
        for request in write_requests(problem.example, settings)
    ]
    replies = yield requests
    read = choose_reading(settings)
    answered = 0
    kept = 0
    for number, problem in enumerate(problems):
        first = number * settings.samples
        own = replies[first : first + settings.samples]
        paths = choose_paths(own, problem.answer, read, made)
        made.examples += write_examples(problem.example, paths, settings)
        answered += bool(paths)
        kept += len(paths)
    made.facts["problems asked"] = len(problems)
    made.facts["problems with a right answer"] = answered
    made.facts["right answers kept"] = kept
    return made


def choose_problems(examples: Sequence[Example], made: Made) -> list[Problem]:
    """The problems whose answer holds a number; the others are counted."""
    problems: list[Problem] = []
    for example in examples:
        if len(example.turns) != 1:
            made.refuse(SEVERAL_TURNS)
            continue
        answer = read_gold(example.answer)
        if answer is None:
            made.refuse(NO_GOLD)
            continue
        problems.append(Problem(example, answer))
    return problems


def read_gold(text: str) -> float | None:
    """The number of a problem's own answer: after `####`, or the last."""
    marked = read_strict(text)
    return read_flexible(text) if marked is None else marked


def choose_reading(settings: RftSettings) -> ReadNumber:
    """What finds the number of a model's answer."""
    return read_strict if settings.read == "marked" else read_flexible


def write_requests(example: Example, settings: RftSettings) -> list[Request]:
    """The requests of one problem, each a sample of its own."""
    question = example.input
    if settings.wording:
        question = f"{question}\n\n{settings.wording}"
    sampling = Sampling(
        max_new_tokens=settings.max_new_tokens,
        temperature=settings.temperature,
        top_p=settings.top_p,
        stops=tuple(settings.stops),
    )
    return [
        Request(
            id=f"{example.id}/{number}",
            turns=(ask(question),),
            system=settings.system or example.system,
            sampling=sampling,
        )
        for number in range(settings.samples)
    ]


def choose_paths(
    replies: Sequence[Reply], answer: float, read: ReadNumber, made: Made
) -> list[str]:
    """The answers to one problem that stay, in the order in which their equations came;
    the others are counted."""
    kept = KeptPaths()
    for reply in replies:
        reason = explain_refusal(reply, answer, read)
        if reason is None:
            reason = kept.add(reply.text.strip())
        if reason is not None:
            made.refuse(reason)
    return list(kept.by_key.values())


def explain_refusal(reply: Reply, answer: float, read: ReadNumber) -> str | None:
    """Why a reply is no right answer; None where it is."""
    if reply.refused:
        return reply.refused
    if not reply.text.strip():
        return EMPTY
    if reply.is_cut:
        return CUT
    number = read(reply.text)
    if number is None:
        return NO_NUMBER
    if number != answer:
        return WRONG_NUMBER
    if not all(map(equations.holds, equations.list_equations(reply.text))):
        return WRONG_EQUATION
    return None


def write_examples(
    example: Example, paths: Sequence[str], settings: RftSettings
) -> list[Example]:
    """A problem with its own answer, then with each that stays."""
    answers = list(paths)
    names = [f"{example.id}/{number}" for number in range(len(answers))]
    if settings.gold:
        answers.insert(0, example.answer)
        names.insert(0, f"{example.id}/gold")
    return [
        msgspec.structs.replace(
            example,
            id=name,
            turns=((example.input, answer),),
            references=(),
            options=(),
        )
        for name, answer in zip(names, answers, strict=True)
    ]
