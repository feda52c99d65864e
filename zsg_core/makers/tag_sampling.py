"""Chooses few dialogues with many different tags: InsTag's complexity-first diverse
sampling (arXiv 2308.07074, algorithm 1), and what the paper measures of a set."""

from collections.abc import Sequence
from dataclasses import dataclass

from zsg_core.makers.tag_rules import count_tags


@dataclass(frozen=True)
class TagFigures:
    """Of a set of dialogues. `complexity`: tags of a dialogue on average; `diversity`:
    different tags; `untagged`: dialogues without any."""

    dialogues: int
    complexity: float
    diversity: int
    untagged: int


def measure_tags(rows: Sequence[Sequence[str]]) -> TagFigures:
    """The figures of a set; the complexity of an empty one is 0."""
    counts = count_tags(rows)
    complexity = 0.0
    if rows:
        complexity = counts.total() / len(rows)
    untagged = sum(not row for row in rows)
    return TagFigures(
        dialogues=len(rows),
        complexity=complexity,
        diversity=len(counts),
        untagged=untagged,
    )


def choose_diverse(rows: Sequence[Sequence[str]], count: int) -> list[int]:
    """The positions of `count` dialogues, in the order in which they are chosen.

    The dialogues are gone through by their number of tags, the most first; one is
    taken where it has a tag that none of this pass has. When a pass is through, the
    next begins with those not taken. Of dialogues with as many tags the earlier is the
    first, which the paper leaves open. Fewer than `count` are chosen where the rest has
    no tag.
    """

    def order(position: int) -> int:
        return -len(set(rows[position]))

    waiting = [position for position in range(len(rows)) if rows[position]]
    waiting.sort(key=order)
    chosen: list[int] = []
    while waiting and len(chosen) < count:
        taken, waiting = _take_pass(rows, waiting)
        chosen += taken
    return chosen[:count]


def _take_pass(
    rows: Sequence[Sequence[str]], waiting: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Which dialogues a pass takes, each of which brings a tag that those before it
    lack; and which it leaves for the next."""
    seen: set[str] = set()
    taken: list[int] = []
    passed_over: list[int] = []
    for position in waiting:
        tags = rows[position]
        if seen.issuperset(tags):
            passed_over.append(position)
            continue
        seen.update(tags)
        taken.append(position)
    return taken, passed_over
