"""Scores lists of entities by micro-averaged F1: answers such as `GPE: Iceland; DATE:
1944`, as zsg writes the entities of tagged sentences."""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from zsg_core.metrics.corpus_scores import share_by_task
from zsg_core.metrics.registry import metric
from zsg_core.metrics.scoring import Answered, ByItem

ENTITY_F1 = "entity_f1"
NOTHING = "none"

# a type and its words
Entities = Counter[tuple[str, str]]


@metric(ENTITY_F1)
def score_answers(answers: Iterable[Answered]) -> dict[str, ByItem]:
    """F1 × 100 over all entities of a task: an entity is found where an answer has its
    type and its words, but for case and blanks.

    Each task is a corpus, as in CoNLL's evaluation (Tjong Kim Sang and De Meulder 2003),
    and an item's value its share: see zsg_core.metrics.corpus_scores. Of several
    references the one counts of which most is found; items without any are left out.
    """
    return {ENTITY_F1: share_by_task(list(answers), _count_all, compute_f1)}


def read_entities(text: str) -> Entities:
    """The entities of an answer, each as often as it stands there. A piece without a
    type is an entity of no type, so that it counts as a wrong one."""
    entities: Entities = Counter()
    for piece in text.replace("\n", ";").split(";"):
        written = " ".join(piece.split()).casefold()
        if not written or written.rstrip(".") == NOTHING:
            continue
        kind, colon, words = written.partition(":")
        if not colon:
            kind, words = "", written
        entities[kind.strip(), words.strip()] += 1
    return entities


def compute_f1(sums: NDArray[np.float64]) -> float:
    """F1 × 100 of (found rightly, answered, to be found). Where there is nothing to
    find and nothing is answered, all is right."""
    right, answered, wanted = sums
    if answered + wanted == 0:
        return 100.0
    return float(200.0 * right / (answered + wanted))


def _count_all(answers: Sequence[Answered]) -> list[list[float]]:
    return [_count(answered) for answered in answers]


def _count(answered: Answered) -> list[float]:
    """Of one answer: found rightly, answered, to be found; by the reference that it
    fits best."""
    said = read_entities(answered.answer)
    counts: list[list[float]] = []
    for reference in answered.references:
        wanted = read_entities(reference)
        right = (said & wanted).total()
        counts.append([right, said.total(), wanted.total()])
    return max(counts, key=lambda count: compute_f1(np.array(count)))
