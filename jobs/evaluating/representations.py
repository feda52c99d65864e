"""Takes the metrics that are looked at inside a model, from its representations of tokens and of test items."""

from collections.abc import Mapping
from typing import Any

from jobs.evaluating import token_distance
from jobs.preparing.base_model import Vocabulary


def take(llama: Any, vocabulary: Vocabulary, ways: Mapping[str, Mapping[str, Any]], device: str) -> dict[str, float]:
    """The metrics by key; `ways` says how each is taken, as zsg_core.settings.representations has it."""
    return token_distance.measure(llama, vocabulary, ways, device)
