"""Says among how many answers a task chooses, and so by what its loss is divided to be
comparable with others.

Muppet (Aghajanyan et al. 2021, arXiv 2101.11038) divides a loss by ln n, n being the
number of classes, or the vocabulary where text is generated: whoever guesses uniformly
among the answers has loss 1 on every task. A language model writes the name of a class
in several tokens, which are one choice; of free text every token is one.
"""

import math
from collections.abc import Iterable

from zsg_core.data.examples import Example


def count_classes(examples: Iterable[Example]) -> dict[str, int]:
    """The number of different answers of each task that is a classification, by task; at least 2.

    That is a task of single turns whose different examples have at most half as many
    different answers.
    """
    answers: dict[str, dict[str, str | None]] = {}
    for example in examples:  # a mixture may hold an example several times
        answer = example.answer.strip() if len(example.turns) == 1 else None
        answers.setdefault(example.task, {})[example.id] = answer
    class_counts = {}
    for task, of_example in answers.items():
        different = set(of_example.values())
        if None not in different and 2 * len(different) <= len(of_example):
            class_counts[task] = max(2, len(different))
    return class_counts


def loss_divisor(classes: int | None, target_tokens: int, vocabulary: int) -> float:
    """What -log p, summed over an example's `target_tokens`, is divided by; `classes`
    is None for free text.

    1 for an example without target tokens.
    """
    if not target_tokens:
        return 1.0
    return (
        target_tokens * math.log(vocabulary) if classes is None else math.log(classes)
    )
