"""The kinds of values that settings have: exact fractions, counts, seeds, names that
show all they are."""

import re
from fractions import Fraction
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    PlainSerializer,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
)

from zsg_core.registry import Registry

# Short numbers only: Fraction("1e-400000000") would keep a machine busy for hours.
_FRACTION = re.compile(
    r"\d{1,18}/\d{1,18}|(?:\d{1,18}\.?\d{0,18}|\.\d{1,18})(?:[eE][+-]?\d{1,3})?"
)


class Strict(BaseModel):
    """A mapping whose keys are all known and whose values have exactly the stated types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Itself: nothing in it changes, and a default would be copied for every point
        of a grid."""
        return self


def or_of_plugin(registry: Registry[Any]) -> WrapValidator:
    """What lets a setting that names a built-in thing of a registry name one of a plugin
    as well: the value is then the name with its digest, which enters recipes."""

    def choose(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        name = registry.find_offered(value)
        return handler(value) if name is None else name

    return WrapValidator(choose)


def parse_fraction(value: Any) -> Fraction:
    """`1/256`, `0.25` or `1` as an exact fraction: 0.25 is 1/4, never a binary neighbour of it."""
    is_number = isinstance(value, int | float | str | Fraction) and not isinstance(
        value, bool
    )
    if not is_number or not _FRACTION.fullmatch(text := str(value).strip()):
        raise ValueError("must be a fraction such as 1/4 or 0.25")
    try:
        return Fraction(text)
    except ZeroDivisionError:
        raise ValueError("must be a fraction such as 1/4 or 0.25") from None


def check_printable(text: str) -> str:
    """The text, if every character of it shows: a line break or a mark that turns the
    writing deceives a reader."""
    if not text.isprintable():
        raise ValueError(
            "must not hold line breaks, control characters or other marks that do not show"
        )
    return text


def check_token_text(text: str) -> str:
    """A text that can be one token: it shows, and no blank could be lost at its ends."""
    if check_printable(text) != text.strip():
        raise ValueError("must not begin or end with a blank")
    return text


def _shown(**bounds: int) -> WithJsonSchema:
    """The JSON Schema of an exact fraction: a number within bounds, or its text."""
    written = {"type": "string", "pattern": rf"^\s*({_FRACTION.pattern})\s*$"}
    return WithJsonSchema({"anyOf": [{"type": "number", **bounds}, written]})


_Exact = Annotated[
    Fraction, BeforeValidator(parse_fraction), PlainSerializer(str, return_type=str)
]
ExactFraction = Annotated[
    _Exact, Field(gt=0, le=1), _shown(exclusiveMinimum=0, maximum=1)
]
ExactPart = Annotated[_Exact, Field(ge=0, le=1), _shown(minimum=0, maximum=1)]
ExactRatio = Annotated[_Exact, Field(ge=0), _shown(minimum=0)]
ExactWeight = Annotated[_Exact, Field(gt=0), _shown(exclusiveMinimum=0)]
TokenText = Annotated[
    str, Field(min_length=1, max_length=64), AfterValidator(check_token_text)
]
FolderName = Annotated[str, Field(min_length=1), AfterValidator(check_printable)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Count = Annotated[int, Field(ge=1)]
# Counts of what is made, one by one, whatever the data are: more is a slip, and would
# fill a memory or a queue.
Nodes = Annotated[int, Field(ge=1, le=100_000)]
RanksPerNode = Annotated[int, Field(ge=1, le=1024)]
Minutes = Annotated[int, Field(ge=1, le=10_000_000)]  # 19 years
Positive = Annotated[FiniteFloat, Field(gt=0)]
Share = Annotated[FiniteFloat, Field(ge=0, lt=1)]
Price = Annotated[FiniteFloat, Field(ge=0)]  # of MILLION tokens, in any currency
MILLION = 1_000_000
