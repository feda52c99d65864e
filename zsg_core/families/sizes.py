"""Reads the sizes of a model from its config.json, or takes its class's own where the file
says nothing."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any, TypeGuard

# of one size; no model's is near
MOST_SIZE = 10**9
MOST_LAYERS = 10_000
NEEDED = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "vocab_size",
)


class NotKnownError(ValueError):
    """A variant of a family that its module does not know; its tensors tell its shape."""


def is_size(value: object) -> TypeGuard[int]:
    """Whether a value is a number that a size of a model may be."""
    return type(value) is int and 0 < value < MOST_SIZE


def explain_no_size(value: object) -> str:
    """What a value is instead of a size, as the end of a sentence."""
    if type(value) is int and value >= MOST_SIZE:
        return "more than any model has"
    return "not a count"


class Sizes:
    """The sizes of one config.json. ValueError names one that is missing or is no count.

    `family`: for messages. `defaults`: what the family's class takes where a key is
    missing. `keys`: how config.json calls a size, where not as a Llama's.
    """

    def __init__(
        self,
        family: str,
        config: Mapping[str, Any],
        defaults: Mapping[str, Any],
        keys: Mapping[str, tuple[str, ...]],
    ) -> None:
        self._family, self._config = family, config
        self._defaults, self._keys = defaults, keys

    def get(self, key: str) -> Any:
        """A value as it stands in the file, or the class's own."""
        for name in self._keys.get(key, (key,)):
            if name in self._config:
                return self._config[name]
        return self._defaults.get(key)

    def count(self, key: str) -> int:
        """A number of 1 or more."""
        value = self.get(key)
        if is_size(value):
            return value
        names = self._keys.get(key, (key,))
        present = [name for name in names if name in self._config]
        problem = "is missing"
        if present:
            problem = f"is {repr(value)[:80]}, {explain_no_size(value)}"
        raise ValueError(
            f"{(present or list(names))[0]} {problem}; the config of a {self._family} has"
            f" {', '.join(NEEDED)}"
        )

    def optional(self, key: str) -> int | None:
        """A number of 1 or more; None where neither the file nor the class has one."""
        return None if self.get(key) is None else self.count(key)

    def number(self, key: str) -> int:
        """A number of 0 or more; 0 where there is none."""
        value = self.get(key)
        if value in (None, 0) and not isinstance(value, bool):
            return 0
        return self.count(key)

    def flag(self, key: str) -> bool:
        """Whether a key is on. ValueError for what is neither true nor false."""
        value = self.get(key)
        if value is not None and value not in (True, False):
            raise ValueError(f"{key} is {repr(value)[:80]}, neither true nor false")
        return bool(value)

    @cached_property
    def hidden(self) -> int:
        return self.count("hidden_size")

    @cached_property
    def intermediate(self) -> int:
        """The width of the MLP; four times the hidden size where the class derives it."""
        if "intermediate_size" in self._defaults and (
            self.get("intermediate_size") is None
        ):
            return 4 * self.hidden
        return self.count("intermediate_size")

    @cached_property
    def layers(self) -> int:
        count = self.count("num_hidden_layers")
        if count >= MOST_LAYERS:
            raise ValueError(
                f"num_hidden_layers must be a number of layers, less than {MOST_LAYERS}"
            )
        return count

    @cached_property
    def heads(self) -> int:
        return self.count("num_attention_heads")

    @cached_property
    def vocab(self) -> int:
        return self.count("vocab_size")

    @cached_property
    def kv_heads(self) -> int:
        """Heads of keys and values; as many as of queries where nothing else is said."""
        return self.optional("num_key_value_heads") or self.heads

    @cached_property
    def head_dim(self) -> int:
        """The width of a head; the hidden size over the heads where nothing else is said."""
        return self.optional("head_dim") or self.hidden // self.heads

    @property
    def queries(self) -> int:
        """All heads of queries together."""
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        """All heads of keys together."""
        return self.kv_heads * self.head_dim

    @property
    def is_tied(self) -> bool:
        """Whether embedding and output layer are one table."""
        return self.flag("tie_word_embeddings")

    @property
    def numbers(self) -> range:
        """The numbers of the layers."""
        return range(self.layers)

    def windows(self, every: int | None = None, full: int = -1) -> list[int | None]:
        """How many tokens each layer sees; None: all.

        By `layer_types` where the file has them; else every `every`-th layer sees all,
        the last of each group or, with `full` 0, the first; without `every` all layers
        have the window.
        """
        window = self.number("sliding_window") or None
        types = self.get("layer_types")
        if window is None:
            return [None] * self.layers
        if isinstance(types, list):
            sliding = [kind == "sliding_attention" for kind in types[: self.layers]]  # pyright: ignore[reportUnknownVariableType]
            sliding += [False] * (self.layers - len(sliding))
        elif every is None:
            sliding = [True] * self.layers
        else:
            sliding = [number % every != full % every for number in self.numbers]
        return [window if slides else None for slides in sliding]
