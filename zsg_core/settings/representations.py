"""Says every setting of what evaluators look at inside a model: hidden states of test
items, distances of tokens.

Layers are counted as transformers counts hidden states: 0 is the input embedding, N the
output of the Nth decoder layer, the last after the final norm. A key of metrics is of
one way of looking only; `name` gives another way keys of its own.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from zsg_core.settings.fields import Count, Strict, check_printable

DISTANCE, SILHOUETTE = "token_distance", "silhouette"
# what MLflow refuses in the name of a metric, and the slash
_NOT_IN_A_KEY = re.compile(r"[^A-Za-z0-9_.: -]")

Text = Annotated[
    str, Field(min_length=1, max_length=64), AfterValidator(check_printable)
]
Layers = Annotated[
    list[Annotated[int, Field(ge=0)]], Field(min_length=1, max_length=1000)
]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]
Ways = dict[str, dict[str, Any]]  # key of a metric → all that decides its value


class RepresentationSettings(Strict):
    """Hidden states of test items' prompts, kept for the pictures of `zsg report`, and
    how well groups lie apart.

    How Abilities in LLMs are Affected by SFT Data Composition draws layer 15 of 100
    queries of each of three sources.
    """

    layers: Layers = Field(
        description=(
            "Layers whose hidden states are kept, such as [15]. 0 is the input embedding, "
            "N the output of the Nth decoder layer."
        )
    )
    items: Count | None = Field(
        default=100,
        description=(
            "How many test items of each group are read, the same at every checkpoint. "
            "Null means all."
        ),
    )
    by: Literal["source", "task"] | None = Field(
        default=None,
        description=(
            "What a group is. source needs several tested `data.sources`. Null means a "
            "source where several are tested, else a task."
        ),
    )
    pooling: Literal["last", "mean"] = Field(
        default="last",
        description=(
            "Which tokens of a prompt count: last = the last one, which has seen all "
            "others; mean = the mean of all."
        ),
    )
    name: Name | None = Field(
        default=None,
        description="A name of yours that the metrics' keys carry, `silhouette/NAME/layer_15`.",
    )

    @model_validator(mode="after")
    def _each_layer_once(self) -> "RepresentationSettings":
        if len(set(self.layers)) < len(self.layers):
            raise ValueError("layers: one of them stands there twice")
        return self

    @property
    def ways(self) -> Ways:
        """`silhouette/layer_N`; of sources each has its own as well,
        `silhouette/layer_N/SOURCE`."""
        how = {"items": self.items, "by": self.by, "pooling": self.pooling}
        begins = "/".join(_begins(SILHOUETTE, self.name))
        return {
            f"{begins}/layer_{layer}": {"layer": layer, **how} for layer in self.layers
        }


class TokenDistanceSettings(Strict):
    """The L2 distance between a token's representation and those of words that tell
    what it is to mean (DELIA).

    Each text is read alone, after the beginning of sequence. A word of several tokens
    has the mean of their representations.
    """

    token: Text = Field(
        description="A token of the model's vocabulary, as written there, such as <sep>."
    )
    words: Annotated[list[Text], Field(min_length=1, max_length=1000)] = Field(
        description=(
            "Words that the token is compared with, tokenized as they stand; some "
            "tokenizers tell ' thought' from 'thought'."
        )
    )
    layers: Layers = Field(
        default=[0],
        description=(
            "Layers at which the distance is taken. 0 is the input embedding, N the "
            "output of the Nth decoder layer."
        ),
    )
    name: Name | None = Field(
        default=None,
        description="A name of yours that the metrics' keys carry, `token_distance/NAME/WORD`.",
    )

    @model_validator(mode="after")
    def _each_key_is_of_one(self) -> "TokenDistanceSettings":
        if len(self.ways) < len(self.words) * len(self.layers):
            raise ValueError(
                "words: two of them, or of the layers, would share a key; in keys all but letters,"
                " digits and _ . : - stand as _"
            )
        return self

    @property
    def ways(self) -> Ways:
        """`token_distance/WORD` for the input embedding, `token_distance/WORD/layer_N`
        for other layers."""
        return {
            "/".join(
                [
                    *_begins(DISTANCE, self.name),
                    _in_a_key(word),
                    *([f"layer_{layer}"] if layer else []),
                ]
            ): {
                "token": self.token,
                "word": word,
                "layer": layer,
            }
            for word in self.words
            for layer in self.layers
        }


def _begins(metric: str, name: str | None) -> list[str]:
    return [metric, *([name] if name else [])]


def _in_a_key(word: str) -> str:
    return _NOT_IN_A_KEY.sub("_", word.replace(" ", "_")).strip(".") or "_"
