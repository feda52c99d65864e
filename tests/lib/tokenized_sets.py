"""Examples as the tokens that a trainer takes."""

from collections.abc import Sequence

from jobs.model.vocabulary import Vocabulary
from jobs.training.batches import TokenizedSet
from jobs.training.train_sets import make_encoder
from zsg_core.data.examples import Example
from zsg_core.data.prompts import ANSWER, Template


def tokenized(
    items: Sequence[Example],
    vocabulary: Vocabulary,
    template: Template,
    max_length: int,
    learnt: str | Sequence[str] = ANSWER,
) -> TokenizedSet:
    """Examples as a train job has them."""
    encode = make_encoder(vocabulary, template, max_length)
    return TokenizedSet(
        [e.id for e in items],
        [encode(e) for e in items],
        [e.task for e in items],
        learnt,
    )
