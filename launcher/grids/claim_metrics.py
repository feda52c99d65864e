"""Tells whether runs of a grid take the metric that a claim is of.

What every run has (its loss, what it journals of training), what the settings of
checkpoints ask for, and what follows from these: values of a source, of a further
metric of a task of lm-evaluation-harness, summaries. Scores that `zsg score` takes in
may have any other name; so such a name is refused only where nothing is answered that
could be scored elsewhere, or where another metric is meant.
"""

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence

from zsg_core.metrics import external_scores, summaries
from zsg_core.metrics.keys import HARNESS, is_answers, is_harness
from zsg_core.metrics.means import LOSS
from zsg_core.metrics.metrics import NAMES, SUITES
from zsg_core.schema_errors import format_brief, suggest_nearest
from zsg_core.settings.checkpoints import CheckpointSettings
from zsg_core.settings.gradients import GRADIENT_RATIO
from zsg_core.settings.run import Settings

OF_TRAINING = ("train/", "speed/")  # journalled at every step by every run
BESIDE_GRADIENTS = (
    "gradient_norm",
    "gradient_mean_norm",
    "gradient_cosine",
    "weights_moved",
)
# the name that a metric gets of which an older zsg took some values otherwise
_VERSION = re.compile(r"[/-]v\d+(?=/|$)")
ALIKE = 0.85  # of two names, from which on one is taken for the other, mistyped
SHOWN = 12


def is_taken(key: str, points: Iterable[Settings]) -> bool:
    """Whether runs with one of these settings take a metric, or what a summary is of."""
    measured = summaries.list_measured(key)
    return any(_is_taken(each, settings) for settings in points for each in measured)


def _is_taken(key: str, settings: Settings) -> bool:
    """Whether such a run takes a metric that is no summary of others."""
    kind = key.partition("/")[0]
    if kind == summaries.AVERAGE or key.startswith(OF_TRAINING):
        return True
    key = _VERSION.sub("", key)
    for taken_key in _list_taken(settings.checkpoints):
        if key == taken_key:
            return True
        tail = key.removeprefix(f"{taken_key}/")
        if tail != key and _may_follow(taken_key, tail, settings):
            return True
    return False


def _may_follow(taken_key: str, tail: str, settings: Settings) -> bool:
    """Whether the key of a metric may go on so: by a further metric of a task of the
    harness, by a name within a plugin's, else by one of several sources."""
    if is_harness(taken_key) or taken_key.partition("/")[0] not in _OWN_WORDS:
        return True
    return tail in settings.data.by_source()


def _list_taken(checkpoints: CheckpointSettings) -> Iterator[str]:
    """The keys that a run with such checkpoints takes itself, without what is of one
    source; those of benchmarks whose answers others score."""
    yield LOSS
    if checkpoints.quick is not None:
        yield f"loss_quick_{checkpoints.quick.items}"
    for key in checkpoints.scored:
        if is_answers(key):
            yield from SUITES[key.split("/")[1]]
            continue
        yield _VERSION.sub("", key)
        metric, slash, tail = key.partition("/")
        if metric == GRADIENT_RATIO:
            for beside in BESIDE_GRADIENTS:
                yield f"{beside}{slash}{tail}"
    for metric in checkpoints.metrics:
        # whose further metrics stand before a name of the user's
        if is_harness(metric):
            yield metric


_OWN_WORDS = frozenset(
    {
        *(name.partition("/")[0] for name in NAMES),
        *("silhouette", "token_distance", GRADIENT_RATIO),
        *BESIDE_GRADIENTS,
    }
)


def list_taken(points: Iterable[Settings]) -> list[str]:
    """The keys that runs with these settings take themselves, each once."""
    seen: dict[str, None] = {}
    for settings in points:
        seen.update(dict.fromkeys(_list_taken(settings.checkpoints)))
    return list(seen)


def explain_untaken(key: str, points: Sequence[Settings]) -> str | None:
    """Why no run has a metric that none with these settings takes; None where it may
    be a score that `zsg score` takes in."""
    taken_keys = list_taken(points)
    measured = summaries.list_measured(key)
    if any(_may_be_scored_elsewhere(each, taken_keys, points) for each in measured):
        return None
    choices = ", ".join(taken_keys[:SHOWN]) + (", …" if len(taken_keys) > SHOWN else "")
    hint = _find_alike(measured[-1], taken_keys) or suggest_nearest(
        measured[-1], taken_keys
    )
    if measured[-1] in NAMES or measured[-1].startswith(f"{HARNESS}/"):
        hint = " Add it to checkpoints.metrics."
    return f"no run of this grid takes the metric {format_brief(key)}.{hint} They take: {choices}"


def _may_be_scored_elsewhere(
    key: str, taken_keys: Sequence[str], points: Sequence[Settings]
) -> bool:
    """Whether a name that is no metric of the grid may be that of others' scores of what
    its models answer."""
    is_name = external_scores.is_name(key) and key.partition("/")[0] not in _OWN_WORDS
    if not is_name or is_harness(key) or _find_alike(key, [*taken_keys, *NAMES]):
        return False
    return any(_answers(settings.checkpoints) for settings in points)


def _answers(checkpoints: CheckpointSettings) -> bool:
    """Whether a model answers anything at such checkpoints, and the answers are kept."""
    return any(checkpoints.keys(suite) for suite in SUITES)


def _find_alike(key: str, names: Iterable[str]) -> str:
    """The metric that a mistyped name is of, as a question; empty where it is of none."""
    for name in names:
        matcher = difflib.SequenceMatcher(None, key[:100].lower(), name.lower())
        if matcher.ratio() >= ALIKE:
            return f" Did you mean {name!r}?"
    return ""
