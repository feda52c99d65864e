"""Has the answers to a benchmark rated by its judge, and tells what is missing and what
it took."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from jobs.contract.journal_rows import JudgeSpent
from jobs.evaluating import judge
from jobs.evaluating.items import Dialogues
from jobs.evaluating.judge import Judge, Judged, Kept
from jobs.model import content
from zsg_core.errors import ClusterError
from zsg_core.metrics import mt_bench
from zsg_core.metrics.mt_bench import JudgePrompt
from zsg_core.metrics.scoring import Answered, ByItem
from zsg_core.settings.fields import MILLION
from zsg_core.suites import PROMPTS, Suite


@dataclass
class JudgedAnswers:
    """What a judge said of all conversations about a benchmark.

    `asked`: of how many answers a rating was to be had; `missing`: why an item has none;
    `reasons`: how often each kind of that came; `drawn`: how many ratings were drawn at
    the judge's own temperature.
    """

    ratings: list[dict[str, float]] = field(default_factory=list[dict[str, float]])
    asked: int = 0
    missing: dict[str, str] = field(default_factory=dict[str, str])
    reasons: Counter[str] = field(default_factory=Counter[str])
    drawn: int = 0
    spent: JudgeSpent = field(default_factory=JudgeSpent)

    def add(self, asked: int, judged: Judged) -> None:
        """What it said of one conversation about each question."""
        self.ratings.append(judged.ratings)
        self.asked += asked
        self.missing |= judged.missing
        self.reasons += judged.reasons
        self.drawn += judged.drawn
        self.spent = self.spent.plus(judged.spent)

    @property
    def by_item(self) -> dict[str, ByItem]:
        """The ratings of each turn, by metric."""
        return mt_bench.score_ratings(self.ratings)

    def list_flags(self) -> list[str]:
        """Sentences on what is to be known of the ratings."""
        flags: list[str] = []
        if self.reasons:
            kinds = [f"{kind} ({count})" for kind, count in self.reasons.most_common()]
            flags.append(
                f"the judge gave {self.reasons.total()} of {self.asked} answers no rating, and"
                f" these count for nothing: {', '.join(kinds)}"
            )
        if self.drawn:
            flags.append(
                f"the judge takes no temperature: {self.drawn} of {self.asked} ratings were drawn"
                " at its own, and would differ if they were drawn again"
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
        assert suite.judge is not None, "without a judge answers are only kept"
        prompts = _read_prompts(suite)
        by = self._open(suite.judge)
        self._kept = self._kept or Kept(self._ratings)
        found = JudgedAnswers()
        for conversation in mt_bench.split_conversations(answered):
            requests = mt_bench.build_requests(items.questions, prompts, conversation)
            found.add(len(requests), judge.rate_requests(requests, by, self._kept))
        found.spent = _price(found.spent, suite.judge)
        return found

    def _open(self, how: Mapping[str, Any]) -> Judge:
        """A judge, which keeps what it has learnt of how it is to be asked."""
        key = msgspec.json.encode(how, order="sorted").decode()
        if key not in self._judges:
            self._judges[key] = Judge.of(how, self._environment)
        return self._judges[key]


def refuse_none(suite: Suite, found: JudgedAnswers, answers: int) -> None:
    """ClusterError where a judge has rated nothing."""
    if any(found.ratings):
        return
    assert suite.judge is not None
    first = next(iter(found.missing.values()), "there is none")
    raise ClusterError(
        f"the judge {suite.judge['model']} rated none of {answers} answers: {first}"
    )


def _read_prompts(suite: Suite) -> dict[str, JudgePrompt]:
    """The judge's prompts. UserError where the file is not that which was planned with."""
    file = suite.files[PROMPTS]
    content.refuse_changed(Path(file.path), content.suite_files(PROMPTS), file.digest)
    return mt_bench.read_judge_prompts(Path(file.path))


def _price(spent: JudgeSpent, how: Mapping[str, Any]) -> JudgeSpent:
    """What the replies took, with what that costs where prices are said."""
    if "price_read" not in how:
        return spent
    cost = spent.read * how["price_read"] + spent.written * how["price_written"]
    return msgspec.structs.replace(spent, cost=cost / MILLION)
