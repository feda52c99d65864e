"""Says the setting of which published set's layout data have, and makes of it, and of
the columns that the user names herself, what is read."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from zsg_core.data.published_sets import CODE, MAPPINGS, fill_fields
from zsg_core.settings.fields import Strict

NAMES = tuple(MAPPINGS)
# fields of which one takes the place of another
_INSTEAD = (("prompt", "ask"), ("task", "task_from"))
# fields that need another, and go with it
_WITH = {"task_else": "task", "choice_scores": "choices"}


class MappingSettings(Strict):
    """The layout of a published set, by its name; of translations with two languages."""

    name: Literal[NAMES] = Field(  # type: ignore[valid-type]
        description="The layout of the data, such as mmlu."
    )
    languages: Annotated[str, Field(pattern=f"^{CODE}-{CODE}$")] | None = Field(
        default=None,
        description=(
            "Translations only, which need it: from which language to which, by their "
            "codes in the data, such as en-is or eng_Latn-isl_Latn."
        ),
    )

    @model_validator(mode="after")
    def _languages_of_translations(self) -> "MappingSettings":
        has_languages = MAPPINGS[self.name].has_languages
        if has_languages and self.languages is None:
            raise ValueError(
                f"{self.name} needs `languages`, from which to which, such as {{name:"
                f" {self.name}, languages: en-is}}"
            )
        if self.languages is not None:
            source, _, target = self.languages.partition("-")
            if source == target:
                raise ValueError(
                    f"`languages` are from {source} to {target}, and need two that differ"
                )
        if self.languages is not None and not has_languages:
            raise ValueError(
                f"`languages` are of translations, and {self.name} is none"
            )
        return self

    @property
    def fields(self) -> dict[str, Any]:
        """Which column is what, in the words of `data.fields`."""
        return fill_fields(self.name, self.languages)


def lay_over(
    fields: Mapping[str, Any], own_fields: Mapping[str, Any]
) -> dict[str, Any]:
    """The fields of a mapping with the user's own laid over them, key by key; null takes
    one away."""
    merged = dict(fields)
    for group in _INSTEAD:
        if any(own_fields.get(key) is not None for key in group):
            for key in group:
                merged.pop(key, None)
    merged |= own_fields
    for key, needed in _WITH.items():
        if merged.get(needed) is None and key not in own_fields:
            merged.pop(key, None)
    return {key: value for key, value in merged.items() if value is not None}
