"""Measures how far a token lies from words: DELIA's view of what a new token has come to mean.

DELIA (arXiv 2408.10841) plots the L2 distance between the representation of `<sep>` and
words of its description; it does not say of which layer. Here each text is read alone,
after the beginning of sequence if the tokenizer has one.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jobs.evaluating import hidden_states
from jobs.model.vocabulary import Vocabulary
from zsg_core.errors import UserError


def measure_distances(
    model: Any,
    vocabulary: Vocabulary,
    ways: Mapping[str, Mapping[str, Any]],
    device: str,
) -> dict[str, float]:
    """The distance under each key, of which `ways` says token, word and layer.

    A word of several tokens has the mean of their representations. UserError for a
    token that the vocabulary does not have, or a layer that the model does not.
    """
    if not ways:
        return {}
    ids = {
        ("token", way["token"]): [_id(vocabulary, way["token"])]
        for way in ways.values()
    }
    ids |= {
        ("word", way["word"]): list(map(int, vocabulary.tokenize(way["word"])))
        for way in ways.values()
    }
    beginning = vocabulary.beginning
    texts = [[*beginning, *own] for own in ids.values()]
    layers = sorted({way["layer"] for way in ways.values()})
    found = hidden_states.average_spans(
        model,
        texts,
        [(len(beginning), len(text)) for text in texts],
        layers,
        device,
    )
    of_layer = {
        layer: dict(zip(ids, states, strict=True))
        for layer, states in zip(layers, found, strict=True)
    }
    made = {}
    for key, way in ways.items():
        states = of_layer[way["layer"]]
        made[key] = float(
            np.linalg.norm(states["token", way["token"]] - states["word", way["word"]])
        )
    return made


def _id(vocabulary: Vocabulary, token: str) -> int:
    found = vocabulary.id_of(token)
    if found is None:
        raise UserError(
            f"checkpoints.token_distance: the model's vocabulary has no token {token!r}; write it"
            " as the tokenizer does, or add it to the model"
        )
    return found
