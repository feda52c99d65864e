"""Says before anything is submitted which averages of a grid can have no value, since a
suite of theirs is not taken.

An average has a value where all its suites have one, and none where a suite is lacking:
a mean over fewer would look like the paper's and be another.
"""

from collections.abc import Mapping, Sequence

from launcher.grids.runs import Run
from zsg_core.metrics import summaries
from zsg_core.metrics.summaries import AVERAGE, SOURCE
from zsg_core.recipe import list_tested

Chances = Mapping[str, float]


def note_lacking_suites(
    averages: Mapping[str, Chances], runs: Sequence[Run]
) -> list[str]:
    """A sentence for each average of which some runs lack a suite: which, and why."""
    notes: list[str] = []
    for name, chances in averages.items():
        reasons: dict[str, None] = {}
        lacking = 0
        for run in runs:
            lacks = _explain_lacks(run, chances)
            lacking += bool(lacks)
            reasons.update(dict.fromkeys(lacks))
        if lacking:
            notes.append(
                f"{AVERAGE}/{name} has a value where all its {len(chances)} suites have one, and"
                f" {lacking} of {len(runs)} runs lack some: {'; '.join(reasons)}. `zsg score` can"
                " add a metric that is taken elsewhere"
            )
    return notes


def _explain_lacks(run: Run, chances: Chances) -> list[str]:
    """Which suites of an average a run lacks, and why."""
    reasons: list[str] = []
    for suite in chances:
        lacked = _find_lacked_source(run, suite)
        if lacked is not None:
            reasons.append(f"{suite} (no source {lacked!r} is tested)")
        elif not _is_taken(run, suite):
            reasons.append(f"{suite} (no metric of checkpoints.metrics is that)")
    return reasons


def _find_lacked_source(run: Run, suite: str) -> str | None:
    """The source that a suite is of and that the run has no test items of; None where it
    has them, or the suite is of no source."""
    kind, word, inner = summaries.split_key(suite)
    if kind == SOURCE and word not in list_tested(run.stage["data"]):
        return word
    if kind in (SOURCE, summaries.PROMPTS) and inner:
        return _find_lacked_source(run, inner)
    return None


def _is_taken(run: Run, suite: str) -> bool:
    """Whether evaluators take what a suite is of; a key that goes on from a metric's is
    of the metric."""
    for measured in summaries.list_measured(suite):
        for key in run.scored:
            if measured == key or measured.startswith(f"{key}/"):
                return True
    return False
