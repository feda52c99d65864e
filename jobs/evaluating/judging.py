"""Has the answers to a benchmark rated by its judge, and tells what is missing and what
it took."""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from jobs.contract.journal_rows import JudgeSpent
from jobs.evaluating import judge
from jobs.evaluating.items import Dialogues
from jobs.evaluating.judge import Judge, Judged, Kept, Reading
from jobs.model import content
from zsg_core.errors import ClusterError
from zsg_core.metrics import mt_bench, pairs
from zsg_core.metrics.mt_bench import JudgeRequest
from zsg_core.metrics.scoring import Answered
from zsg_core.settings.fields import MILLION
from zsg_core.suites import BASELINE, PROMPTS, Suite


@dataclass
class JudgedAnswers:
    """What a judge said of all conversations about a benchmark.

    `wanted`: what a judge is asked for, a rating or a verdict, and `ratings` the numbers
    that stand for it. `asked`: how many were to be had; `missing`: why an item has none;
    `reasons`: how often each kind of that came; `drawn`: how many ratings were drawn at
    the judge's own temperature. `answered`: how many answers there are; `uncompared`:
    of these, which turns could not be compared, since the baseline says nothing there.
    `widened`: how often a reply was cut and asked for again with more room.
    """

    wanted: str = "rating"
    ratings: list[dict[str, float]] = field(default_factory=list[dict[str, float]])
    asked: int = 0
    missing: dict[str, str] = field(default_factory=dict[str, str])
    reasons: Counter[str] = field(default_factory=Counter[str])
    drawn: int = 0
    answered: int = 0
    uncompared: list[str] = field(default_factory=list[str])
    widened: int = 0
    spent: JudgeSpent = field(default_factory=JudgeSpent)

    def add(self, asked: int, judged: Judged) -> None:
        """What it said of one conversation about each question."""
        self.ratings.append(judged.ratings)
        self.asked += asked
        self.missing |= judged.missing
        self.reasons += judged.reasons
        self.drawn += judged.drawn
        self.widened += judged.widened
        self.spent = self.spent.plus(judged.spent)

    def list_flags(self) -> list[str]:
        """Sentences on what is to be known of the ratings."""
        flags: list[str] = []
        if self.uncompared:
            flags.append(
                f"the baseline has no answer beside {len(self.uncompared)} of the model's"
                f" {self.answered}, and these count for nothing: the first is"
                f" {self.uncompared[0]!r}"
            )
        what = "answers" if self.wanted == "rating" else "comparisons"
        if self.reasons:
            kinds = [f"{kind} ({count})" for kind, count in self.reasons.most_common()]
            flags.append(
                f"the judge gave {self.reasons.total()} of {self.asked} {what} no {self.wanted},"
                f" and these count for nothing: {', '.join(kinds)}"
            )
        if self.widened:
            flags.append(
                f"{self.widened} of the judge's replies to {self.asked} {what} were cut, and asked"
                f" for once more with {judge.WIDER} times the room: raise"
                " checkpoints.suites.mt_bench.judge.max_tokens"
            )
        if self.drawn:
            flags.append(
                f"the judge takes no temperature: {self.drawn} of {self.asked} {self.wanted}s were"
                " drawn at its own, and would differ if they were drawn again"
            )
        if self.spent.uncounted:
            flags.append(
                f"the judge did not say the tokens of {self.spent.uncounted} of"
                f" {self.spent.requests} replies, which are not among those counted"
            )
        return flags


class Judges:
    """The judges of a job's suites; what they said is kept in a file."""

    def __init__(
        self, ratings: Path, environment: Mapping[str, str] = os.environ
    ) -> None:
        """`ratings`: the file that keeps what judges said."""
        self._ratings = ratings
        self._environment = environment
        self._kept: Kept | None = None
        self._judges: dict[str, Judge] = {}

    def rate(
        self, suite: Suite, items: Dialogues, answered: Sequence[Answered]
    ) -> JudgedAnswers:
        """The ratings of all answers. ClusterError and UserError as `rate_requests`
        raises them."""
        prompts = mt_bench.read_judge_prompts(_find_file(suite, PROMPTS))

        def build(conversation: Sequence[Answered]) -> list[JudgeRequest]:
            return mt_bench.build_requests(items.questions, prompts, conversation)

        return self._ask(suite, answered, build, judge.RATING)

    def compare(
        self, suite: Suite, items: Dialogues, answered: Sequence[Answered]
    ) -> JudgedAnswers:
        """The verdicts on all answers beside those of the baseline, in both places.
        Errors as of `rate`."""
        prompts = pairs.read_prompts(_find_file(suite, PROMPTS))
        baseline = pairs.read_baseline(_find_file(suite, BASELINE))

        def build(conversation: Sequence[Answered]) -> list[JudgeRequest]:
            return pairs.build_pairs(items.questions, prompts, conversation, baseline)

        compared = self._ask(suite, answered, build, judge.VERDICT)
        for conversation in mt_bench.split_conversations(answered):
            replied = {answer.id for answer in conversation}
            compared.answered += len(conversation)
            compared.uncompared += pairs.find_uncompared_turns(
                items.questions, replied, baseline
            )
        return compared

    def _ask(
        self,
        suite: Suite,
        answered: Sequence[Answered],
        build: Callable[[Sequence[Answered]], list[JudgeRequest]],
        reading: Reading,
    ) -> JudgedAnswers:
        """What the judge says to the requests of each conversation."""
        assert suite.judge is not None, "without a judge answers are only kept"
        by = self._open(suite.judge)
        self._kept = self._kept or Kept(self._ratings)
        answers_judged = JudgedAnswers(wanted=reading.wanted.partition(" ")[0])
        for conversation in mt_bench.split_conversations(answered):
            requests = build(conversation)
            judged = judge.rate_requests(requests, by, self._kept, reading=reading)
            answers_judged.add(len(requests), judged)
        answers_judged.spent = _price(answers_judged.spent, suite.judge)
        return answers_judged

    def _open(self, how: Mapping[str, Any]) -> Judge:
        """A judge, which keeps what it has learnt of how it is to be asked."""
        key = msgspec.json.encode(how, order="sorted").decode()
        if key not in self._judges:
            self._judges[key] = Judge.of(how, self._environment)
        return self._judges[key]


def sum_spent(judged: Sequence[JudgedAnswers]) -> JudgeSpent | None:
    """What all that a judge was asked took; None where none was asked."""
    if not judged:
        return None
    total = JudgeSpent()
    costs = [one.spent.cost for one in judged if isinstance(one.spent.cost, float)]
    for one in judged:
        total = total.plus(one.spent)
    return msgspec.structs.replace(total, cost=sum(costs)) if costs else total


def refuse_none(suite: Suite, answers_judged: JudgedAnswers, answers: int) -> None:
    """ClusterError where a judge has rated nothing."""
    if any(answers_judged.ratings):
        return
    assert suite.judge is not None
    first = next(iter(answers_judged.missing.values()), "there is none")
    if len(answers_judged.uncompared) == answers:
        first = "the baseline has an answer to none of their questions"
    raise ClusterError(
        f"the judge {suite.judge['model']} rated none of {answers} answers: {first}"
    )


def _find_file(suite: Suite, name: str) -> Path:
    """Where a file of a suite lies. UserError where it is not that which was planned
    with."""
    file = suite.files[name]
    content.refuse_changed(Path(file.path), content.suite_files(name), file.digest)
    return Path(file.path)


def _price(spent: JudgeSpent, how: Mapping[str, Any]) -> JudgeSpent:
    """What the replies took, with what that costs where prices are said."""
    if "price_read" not in how:
        return spent
    cost = spent.read * how["price_read"] + spent.written * how["price_written"]
    return msgspec.structs.replace(spent, cost=cost / MILLION)
