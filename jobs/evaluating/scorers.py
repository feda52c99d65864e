"""Scores answers by whatever a metric needs: their texts alone, a reward model, a sandbox, a judge.

A metric that cannot be had, since there is no sandbox or the judge is away, is told and
stands in no other's way. What has failed so is not tried again by this job: a judge is
waited for for minutes, and the next job may find it.
"""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from jobs.contract.journal_rows import JudgeSpent
from jobs.evaluating import code_scores, judging, sandbox
from jobs.evaluating.items import Dialogues, Items, OwnTestSet, Problems
from jobs.evaluating.judging import JudgedAnswers, Judges
from jobs.evaluating.reward import Reward
from jobs.evaluating.sandbox import Sandbox
from jobs.evaluating.troubles import keep_error
from jobs.model import content
from jobs.runtime.devices import CPU
from zsg_core.errors import BadData, PluginError, ZsgError
from zsg_core.metrics import metrics, mt_bench, pairs
from zsg_core.metrics.metrics import HUMANEVAL, METRICS, MT_BENCH, REWARD
from zsg_core.metrics.pairs import WIN_RATE
from zsg_core.metrics.reasoning import cut_answers
from zsg_core.metrics.scoring import Answered, ByItem, Scores, aggregate_scores
from zsg_core.suites import Suite

logger = logging.getLogger(__name__)


class ScoresFound(NamedTuple):
    """The scores by keys of a suite, why the other keys have none, and what a judge took."""

    scores: Scores
    failed: dict[str, ZsgError]
    judged: JudgeSpent | None = None


class Scorers:
    """All scorers of a job; what takes long to load or to find is kept."""

    def __init__(
        self,
        ratings: Path,
        device: str,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        """`ratings`: the file that keeps what judges said."""
        self._device = device
        self._judges = Judges(ratings, environment)
        self._sandbox: Sandbox | None = None
        self._rewards: dict[str, Reward] = {}
        self._away: dict[str, ZsgError] = {}  # what cannot be had, and why
        # what a judge said of the answers that are being scored, and what of it is told
        self._judged: list[JudgedAnswers] = []
        self._told: list[str] = []
        # of reward models that are yet to be loaded, by digest
        self._bytes_to_come: dict[str, float] = {}

    def count_bytes_to_come(self) -> float:
        """What the reward models that are yet to be loaded will take of a GPU."""
        return sum(self._bytes_to_come.values())

    def look_ahead(self, suites: Sequence[Suite]) -> None:
        """Says at once, before hours of answering, that there is no sandbox where one
        will be needed; and counts what reward models will need."""
        if self._device != CPU:
            for suite in suites:
                if file := suite.files.get(REWARD):
                    size = content.count_loaded_bytes(Path(file.path))
                    self._bytes_to_come[file.digest] = size
        if any(suite.runs_code for suite in suites):
            try:
                logger.info(
                    f"HumanEval's programs are run by {self._found_sandbox().name}"
                )
            except ZsgError as error:
                self._away[HUMANEVAL] = keep_error(error, is_named=False)
                logger.warning(f"HumanEval's answers are kept and not scored: {error}")

    def score(
        self,
        suite: Suite,
        items: Items,
        keys: Sequence[str],
        answered: Sequence[Answered],
    ) -> ScoresFound:
        """The scores by keys of the suite, of answers without what was thought before
        them, and why the other keys have none."""
        self._judged = []
        self._told = []
        cut = cut_answers(answered, suite.marks)
        answered = cut.answers
        found: dict[str, ByItem] = {}
        failed: dict[str, ZsgError] = {}
        by_scorer: dict[str, list[str]] = {}
        for key in keys:
            by_scorer.setdefault(_scorer(key), []).append(key)
        for scorer, own in by_scorer.items():
            try:
                found |= self._scored(scorer, suite, items, own, answered)
            except Exception as error:
                if not isinstance(error, ZsgError):
                    logger.exception(f"{', '.join(own)}: scoring ends with an error")
                failed |= dict.fromkeys(own, keep_error(error))
        scores = aggregate_scores(found, answered)
        doubts = metrics.list_doubts(list(found), answered, suite.scored_by)
        doubts += cut.list_flags()
        doubts += self._told
        told = msgspec.structs.replace(scores, flags=[*scores.flags, *doubts])
        return ScoresFound(told, failed, judging.sum_spent(self._judged))

    def _scored(
        self,
        scorer: str,
        suite: Suite,
        items: Items,
        keys: list[str],
        answered: Sequence[Answered],
    ) -> dict[str, ByItem]:
        needed = _needed(scorer, suite)
        if needed in self._away:
            raise keep_error(self._away[needed], is_named=False)
        try:
            if isinstance(items, OwnTestSet) and scorer == REWARD:
                made = self._reward(suite).score(answered, items.instructions)
            elif isinstance(items, Problems):
                made = code_scores.score_answers(
                    self._found_sandbox(), items.problems, answered, _ks(keys)
                )
            elif isinstance(items, Dialogues):
                made = self._ask_judge(scorer, suite, items, answered)
            else:
                return metrics.score_items(keys, answered, suite.scored_by)
        except ZsgError as error:
            # Answers to another step may be sound, and a plugin may like them.
            if not isinstance(error, (BadData, PluginError)):
                self._away[needed] = keep_error(error, is_named=False)
            raise
        return {key: made[metrics.find_metric(key)] for key in keys}

    def _found_sandbox(self) -> Sandbox:
        self._sandbox = self._sandbox or sandbox.find_sandbox(allowed=True)
        return self._sandbox

    def _reward(self, suite: Suite) -> Reward:
        file = suite.files[REWARD]
        if file.digest not in self._rewards:
            content.refuse_changed(
                Path(file.path), content.suite_files(REWARD), file.digest
            )
            self._bytes_to_come.pop(file.digest, None)
            self._rewards[file.digest] = Reward(Path(file.path), self._device)
        return self._rewards[file.digest]

    def _ask_judge(
        self,
        scorer: str,
        suite: Suite,
        items: Dialogues,
        answered: Sequence[Answered],
    ) -> dict[str, ByItem]:
        """What a judge makes of the answers, alone or beside those of a baseline.
        ClusterError where it has rated none."""
        ask = self._judges.compare if scorer == WIN_RATE else self._judges.rate
        found = ask(suite, items, answered)
        self._judged.append(found)
        for item, why in found.missing.items():
            logger.warning(f"{item} has no {found.wanted}: {why}")
        self._told += found.list_flags()
        judging.refuse_none(suite, found, len(answered))
        if scorer != WIN_RATE:
            return mt_bench.score_ratings(found.ratings)
        compared = pairs.score_verdicts(found.ratings)
        self._told.append(compared.describe())
        return {WIN_RATE: compared.by_item}


def _scorer(key: str) -> str:
    """What keys are scored by together: a module of texts, or what a machine must have."""
    return METRICS[metrics.find_metric(key)].scorer


def _needed(scorer: str, suite: Suite) -> str:
    """What a scorer depends on, so that what is away for one suite is not so for another."""
    of = {
        REWARD: [one.path for name, one in suite.files.items() if name == REWARD],
        MT_BENCH: suite.judge,
        WIN_RATE: suite.judge,
    }
    return f"{scorer} {json.dumps(of[scorer])}" if scorer in of else scorer


def _ks(keys: Sequence[str]) -> list[int]:
    return [METRICS[metrics.find_metric(key)].samples for key in keys]
