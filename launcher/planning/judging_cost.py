"""Says how often judges will be asked to rate answers, and what that may cost, before
anybody is asked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher.grids.runs import Run
from zsg_core.data import readers
from zsg_core.data.examples import Example
from zsg_core.data.readers.intake import Intake
from zsg_core.errors import UserError
from zsg_core.metrics import mt_bench, pairs
from zsg_core.metrics.metrics import MT_BENCH
from zsg_core.metrics.mt_bench import JudgeRequest
from zsg_core.metrics.pairs import WIN_RATE
from zsg_core.metrics.scoring import Answered
from zsg_core.settings.fields import MILLION
from zsg_core.settings.suites import MOST_ATTEMPTS, MOST_JUDGED
from zsg_core.suites import BASELINE, PROMPTS, Suite
from zsg_core.training import schedule

AROUND = 16  # tokens that a server's template may write around a text, at most


@dataclass(frozen=True)
class Judging:
    """What a judge is asked, at most: requests, tokens of these and of the replies. A
    text of a file has a token for each byte at most, an answer its own."""

    requests: int
    read: int
    written: int

    def times(self, number: float) -> "Judging":
        """The same so many times."""
        return Judging(
            requests=round(self.requests * number),
            read=round(self.read * number),
            written=round(self.written * number),
        )

    def plus(self, other: "Judging") -> "Judging":
        """Both together."""
        return Judging(
            requests=self.requests + other.requests,
            read=self.read + other.read,
            written=self.written + other.written,
        )


def describe_judging(
    runs: Sequence[Run], steps_of: Mapping[str, int | None]
) -> list[str]:
    """A sentence on each judge of these runs; nothing of one whose files cannot be read,
    which is told elsewhere. `steps_of`: by run, how many steps it has, where that is
    known."""
    totals: dict[str, Judging] = {}
    judges: dict[str, Suite] = {}
    uncounted: set[str] = set()
    checkpoints: dict[str, Judging | None] = {}
    for run in runs:
        for suite in run.suites:
            if suite.judge is None:
                continue
            # another longest reply or price is another line
            judge = str(suite.judge)
            judges[judge] = suite
            key = str((suite.judge, suite.how, suite.files, suite.keys))
            if key not in checkpoints:
                checkpoints[key] = estimate_checkpoint(suite)
            count = _count_checkpoints(run, steps_of[run.id])
            once = checkpoints[key]
            if once is None or count is None:
                uncounted.add(judge)
                continue
            total = totals.get(judge, Judging(0, 0, 0))
            totals[judge] = total.plus(once.times(count))
    lines: list[str] = []
    for judge, suite in judges.items():
        total = totals.get(judge)
        is_whole = judge not in uncounted
        words = _describe(_name_judge(suite), suite, total, is_whole=is_whole)
        if total is not None and is_whole:
            words += f"; one without a rating is asked for up to {MOST_ATTEMPTS} times"
        lines.append(words)
    return lines + _describe_baselines(runs)


def _describe_baselines(runs: Sequence[Run]) -> list[str]:
    """A sentence on each baseline that has no answer to some turns."""
    suites: dict[str, Suite] = {}
    for run in runs:
        for suite in run.suites:
            if WIN_RATE in suite.metrics and suite.judge is not None:
                suites.setdefault(str(suite.files), suite)
    lines: list[str] = []
    for suite in suites.values():
        lines += _describe_baseline(suite)
    return lines


def _describe_baseline(suite: Suite) -> list[str]:
    """A sentence on the turns that enter no win rate, as the baseline has no answer to
    them; nothing where it has all, or where files cannot be read."""
    path = suite.files[BASELINE].path
    try:
        file = Path(suite.files[MT_BENCH].path)
        questions = list(readers.read_examples(MT_BENCH, file, Intake()))
        baseline = pairs.read_baseline(Path(path))
    except (UserError, OSError):
        return []
    turns = pairs.list_turns(questions)
    uncompared = pairs.find_uncompared_turns(questions, set(turns), baseline)
    if not uncompared:
        return []
    return [
        f"{WIN_RATE}: the baseline {path} has no answer to {len(uncompared):,} of"
        f" {len(turns):,} turns, or to one before them, and these enter no win rate; the first"
        f" is {uncompared[0]!r}"
    ]


def _name_judge(suite: Suite) -> str:
    assert suite.judge is not None
    return f"{suite.judge['model']} at {suite.judge['base_url']}"


def estimate_checkpoint(suite: Suite) -> Judging | None:
    """What a judge is asked of the answers of one checkpoint; None where the files of the
    suite cannot be read."""
    try:
        questions = list(
            readers.read_examples(MT_BENCH, Path(suite.files[MT_BENCH].path), Intake())
        )
        prompts = mt_bench.read_judge_prompts(Path(suite.files[PROMPTS].path))
        turns = [turn for question in questions for turn in _answer_nothing(question)]
        requests: list[JudgeRequest] = []
        if MT_BENCH in suite.metrics:
            requests += mt_bench.build_requests(questions, prompts, turns)
        if WIN_RATE in suite.metrics:
            baseline = pairs.read_baseline(Path(suite.files[BASELINE].path))
            requests += pairs.build_pairs(questions, prompts, turns, baseline)
    except (UserError, OSError):
        return None
    read = sum(
        len(f"{request.system}{request.user}".encode(errors="replace"))
        + 2 * AROUND
        + suite.how["max_new_tokens"] * _turn_number(request.id)
        for request in requests
    )
    assert suite.judge is not None
    most_written = suite.judge.get("max_tokens", MOST_JUDGED)
    whole = Judging(len(requests), read, len(requests) * most_written)
    count = suite.how["items"]
    share = min(1.0, count / max(1, len(questions))) if count else 1.0
    return whole.times(share * suite.how.get("samples", 1))


def _answer_nothing(question: Example) -> list[Answered]:
    """Each turn of a question with an empty answer."""
    return [
        Answered(
            id=mt_bench.turn_id(question, number),
            task=question.task,
            prompt="",
            answer="",
        )
        for number in range(1, len(question.turns) + 1)
    ]


def _turn_number(item: str) -> int:
    return int(item.rpartition(":")[2].partition("|")[0])


def _count_checkpoints(run: Run, steps: int | None) -> int | None:
    """How many checkpoints of a run are rated, its base included; None where nobody knows
    yet."""
    if steps is None or run.checkpoints.snapshots is None:
        return None
    return schedule.count_snapshots(steps, run.checkpoints.snapshots) + 1


def _describe(
    name: str, suite: Suite, judging: Judging | None, *, is_whole: bool
) -> str:
    """How often a judge is asked and what that may cost."""
    begins = f"judge {name} rates answers"
    if judging is None or not is_whole:
        return f"{begins}; how often, nobody knows yet"
    words = (
        f"{begins}: {judging.requests:,} requests at most, of at most {judging.read:,} tokens"
        f" (one for each byte), and {judging.written:,} tokens of replies at most"
    )
    judge = suite.judge or {}
    if "price_read" not in judge:
        return words
    cost = judging.read * judge["price_read"] + judging.written * judge["price_written"]
    return f"{words}, a cost of {cost / MILLION:,.4g} at most"
