"""Says by what the loss of each training example is divided, where a run scales the
losses of its tasks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs.model.vocabulary import count_rows
from jobs.preparing.corpus import Corpus
from zsg_core.data import output_space


def compute_scales(
    train: dict[str, Any],
    corpus: Corpus,
    ids: Sequence[str],
    learnt: Sequence[int],
    base: Path,
) -> list[float]:
    """The scale of each example of a list, of whose tokens so many are `learnt`; empty
    where nothing is scaled.

    Classes are counted in the whole corpus, so that they are the same for each of its orders.
    """
    if train.get("task_scale", "none") == "none":
        return []
    classes = output_space.count_classes(corpus.train)
    task_of = dict(zip(corpus.train.ids, corpus.train.tasks, strict=True))
    rows = count_rows(base)
    assert rows is not None, "a base has a config.json"
    return [
        output_space.loss_divisor(classes.get(task_of[example_id]), tokens, rows)
        for example_id, tokens in zip(ids, learnt, strict=True)
    ]
