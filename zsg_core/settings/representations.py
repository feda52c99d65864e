"""Says every setting of what evaluators look at inside a model: how far apart tokens lie.

Layers are counted as transformers counts hidden states: 0 is the input embedding, N the output of the Nth decoder
layer, the last after the final norm. A key of metrics is of one way of looking only; `name` gives another way keys of
its own.
"""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from zsg_core.settings.fields import Strict, printable

DISTANCE = "token_distance"
_NOT_IN_A_KEY = re.compile(r"[^A-Za-z0-9_.: -]")  # what MLflow refuses in the name of a metric, and the slash

Text = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(printable)]
Layers = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]
Ways = dict[str, dict[str, Any]]  # key of a metric → all that decides its value


class TokenDistanceSettings(Strict):
    """The L2 distance between a token's representation and those of words that tell what it is to mean (DELIA).

    Each text is read alone, after the beginning of sequence. A word of several tokens has the mean of their
    representations.
    """

    token: Text = Field(description="a token of the model's vocabulary, as written there, such as <sep>")
    words: Annotated[list[Text], Field(min_length=1)] = Field(
        description="words, tokenised as they stand: where a tokenizer tells ' thought' from 'thought', say which"
    )
    layers: Layers = Field(default=[0], description="of which layers; 0 is the input embedding")
    name: Name | None = Field(default=None, description="a name that the keys carry, `token_distance/NAME/WORD`")

    @model_validator(mode="after")
    def _each_key_is_of_one(self) -> "TokenDistanceSettings":
        if len(self.ways) < len(self.words) * len(self.layers):
            raise ValueError(
                "words: two of them, or of the layers, would share a key; in keys all but letters, digits and _ . : - "
                "stand as _"
            )
        return self

    @property
    def ways(self) -> Ways:
        """`token_distance/WORD` for the input embedding, `token_distance/WORD/layer_N` for other layers."""
        return {
            "/".join([*_begins(DISTANCE, self.name), _in_a_key(word), *([f"layer_{layer}"] if layer else [])]): {
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
