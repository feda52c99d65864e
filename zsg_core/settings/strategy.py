"""Says how several sources follow one another, and makes stages of it (DMT, arXiv
2310.05492, section 3.5)."""

from collections.abc import Mapping
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from zsg_core.settings.data import Source, SourceName
from zsg_core.settings.fields import ExactPart, Strict

Overlay = dict[str, dict[str, Any]]  # what a stage says of its data

MULTITASK, SEQUENTIAL, MIXED, DMT = "multitask", "sequential", "mixed", "dmt"
BY_NAME = (MULTITASK, SEQUENTIAL, MIXED)  # which a word may stand for


class StrategySettings(Strict):
    """A strategy; its name alone will do, but for dmt, which needs k."""

    name: Literal[MULTITASK, SEQUENTIAL, MIXED, DMT] = Field(  # type: ignore[valid-type]
        description=(
            "multitask: all sources in one stage; sequential: one source after the other; "
            "mixed: the special sources, then the general ones; dmt: the special ones, "
            "then the general ones with share k of the special ones again. mixed and dmt "
            "need sources of both roles."
        )
    )
    k: ExactPart | None = Field(
        default=None,
        description=(
            "Strategy dmt only, which needs it: the exact share of the special data that "
            "comes again, such as 1/256."
        ),
    )
    order: Annotated[list[SourceName], Field(min_length=1)] | None = Field(
        default=None,
        description=(
            "Strategy sequential only: the names of all sources in their order. Null "
            "means as they are written, general ones last."
        ),
    )

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _only_what_counts(self) -> "StrategySettings":
        if (self.k is None) == (self.name == DMT):
            raise ValueError(
                "`k` is needed by dmt, such as {name: dmt, k: 1/256}, and by nothing else"
            )
        if self.order is not None and self.name != SEQUENTIAL:
            raise ValueError(
                f"`order` is that of sequential; the strategy is {self.name}"
            )
        return self

    def stages(self, sources: Mapping[str, Source]) -> list[Overlay] | None:
        """What each stage trains on; None for one stage of all. ValueError where the
        sources do not allow it."""
        if self.name == MULTITASK:
            return None
        if len(sources) < 2:
            raise ValueError(
                f"strategy {self.name} is for several data sets; give data.sources"
            )
        general = _names_of_role("general", sources)
        special = _names_of_role("special", sources)
        if self.name == SEQUENTIAL:
            return [
                _make_overlay({name: Fraction(1)}, sources)
                for name in self._sequence(special + general)
            ]
        if not (general and special):
            raise ValueError(
                f"strategy {self.name} needs special and general data: say `role: general` of the"
                " sources to come last"
            )
        return self._special_first(sources, special, general)

    def _special_first(
        self, sources: Mapping[str, Source], special: list[str], general: list[str]
    ) -> list[Overlay]:
        """The special sources, then the general ones with share k of the special ones."""
        repeated = dict.fromkeys(special, self.k or Fraction(0))
        return [
            _make_overlay(dict.fromkeys(special, Fraction(1)), sources),
            _make_overlay(repeated | dict.fromkeys(general, Fraction(1)), sources),
        ]

    def _sequence(self, all_of_them: list[str]) -> list[str]:
        if self.order is not None and sorted(self.order) != sorted(all_of_them):
            raise ValueError(
                f"strategy.order must name each source once: {', '.join(all_of_them)}"
            )
        return self.order or all_of_them


def _names_of_role(role: str, sources: Mapping[str, Source]) -> list[str]:
    """The names of the sources that have a role, in the order of the grid."""
    return [name for name, source in sources.items() if source.role == role]


def _make_overlay(
    shares: Mapping[str, Fraction], sources: Mapping[str, Source]
) -> Overlay:
    """A stage on these shares of the sources and on nothing of the others."""
    scales = {name: source.k * shares.get(name, 0) for name, source in sources.items()}
    changed = {name: k for name, k in scales.items() if k != sources[name].k}
    return {"data": {"sources": {name: {"k": k} for name, k in changed.items()}}}
