"""Selects runs by `--only` and `--except`: by a setting, by a prefix of the
run's id, by state.

Pure, and of plain values, so that runs of a plan and those of a recorded grid are selected alike.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, cast

from jobs.contract.states import ShownState, State
from zsg_core.errors import UserError
from zsg_core.schema_errors import format_brief, suggest_nearest
from zsg_core.shown_text import format_value

NEW = "new"  # as plan calls what was never submitted
STATES = (NEW, *map(str, ShownState))
STATE = "state"
MOST_SHOWN = 8
HELP = "KEY=VALUE, a prefix of run ids, or state=STATE"

_ID = re.compile(r"[0-9a-f]{1,12}")
_NUMBER = re.compile(
    r"-?\d{1,18}(?:\.\d{0,18})?(?:[eE][+-]?\d{1,3})?|\d{1,18}/\d{1,18}"
)
_MISSING = object()

Candidate = tuple[str, Mapping[str, Any], str]  # run id, settings, state


@dataclass(frozen=True)
class Term:
    """One option as it was written; without a key it is a prefix of run ids."""

    option: str
    key: str
    value: str

    def matches(self, run_id: str, axes: Mapping[str, Any], state: str) -> bool:
        """Whether a run is meant. UserError where a shortened key may be one of several."""
        if not self.key:
            return run_id.startswith(self.value)
        if self.key == STATE:
            return self.value == _shown_state(state)
        value = self._find_value(axes)
        return value is not _MISSING and _is(value, self.value)

    def _find_value(self, axes: Mapping[str, Any]) -> Any:
        """The value of the key: as it stands, inside a mapping that stands above it, or
        of a key that ends so."""
        if self.key in axes:
            return axes[self.key]
        ends = [key for key in axes if key.endswith(f".{self.key}")]
        if len(ends) > 1:
            raise UserError(
                f"{self}: several axes end so: {', '.join(ends)}; write the whole key"
            )
        if ends:
            return axes[ends[0]]
        names = self.key.split(".")
        for depth in range(len(names) - 1, 0, -1):
            value: Any = axes.get(".".join(names[:depth]), _MISSING)
            for name in names[depth:]:
                is_mapping = isinstance(value, Mapping)
                value = value.get(name, _MISSING) if is_mapping else _MISSING
            if value is not _MISSING:
                return value
        return _MISSING

    def explain_mismatch(self, runs: Sequence[Candidate]) -> str:
        """Why no run is meant, in words."""
        if not self.key:
            ids = _format_first([run_id for run_id, _, _ in runs])
            return f"{self}: no run's id begins so; the ids are {ids}"
        if self.key == STATE:
            states = sorted({_shown_state(state) for _, _, state in runs})
            return f"{self}: no run is in that state; there are {', '.join(states)}"
        settings = (self._find_value(axes) for _, axes, _ in runs)
        values = dict.fromkeys(
            format_value(value) for value in settings if value is not _MISSING
        )
        if values:
            examples = _format_first(list(values))
            return f"{self}: no run has this value; its values are {examples}"
        keys = _list_plain_axes(runs)
        about = "; this grid has no axes"
        if keys:
            about = f"; the axes are {', '.join(keys)}"
        hint = suggest_nearest(self.key, keys)
        return f"{self}: no run has such a setting.{hint}{about}"

    def __str__(self) -> str:
        return (
            f"{self.option} {self.key}={self.value}"
            if self.key
            else f"{self.option} {self.value}"
        )


@dataclass(frozen=True)
class Selection:
    """Which runs are meant: any that one of `only` names, all if it is empty, less
    those that one of `but` names."""

    only: tuple[Term, ...] = ()
    but: tuple[Term, ...] = ()

    @classmethod
    def parse(
        cls, only: Sequence[str] | None, except_: Sequence[str] | None
    ) -> "Selection":
        """The selection of the options' texts. UserError for one that is neither
        setting, id nor state."""
        return cls(
            tuple(_term("--only", text) for text in only or ()),
            tuple(_term("--except", text) for text in except_ or ()),
        )

    @classmethod
    def of_ids(cls, runs: Iterable[str]) -> "Selection":
        """The runs of these ids."""
        return cls(tuple(Term("--only", "", run) for run in runs))

    def matches(self, run_id: str, axes: Mapping[str, Any], state: str) -> bool:
        """Whether a run is selected. `axes` may hold further settings, in sections,
        below the axes' own keys."""
        named = not self.only or any(
            term.matches(run_id, axes, state) for term in self.only
        )
        return named and not any(term.matches(run_id, axes, state) for term in self.but)

    def check(self, runs: Iterable[Candidate]) -> None:
        """Raises UserError for a term that names none of the runs: a slip in it would
        do too little or too much.

        That nothing is in a state to be left out is no slip.
        """
        candidates = list(runs)
        for term in (*self.only, *(term for term in self.but if term.key != STATE)):
            if not any(term.matches(*run) for run in candidates):
                raise UserError(term.explain_mismatch(candidates))


EVERYTHING = Selection()


def _term(option: str, text: str) -> Term:
    """One condition of a selection: KEY=VALUE, or without an equals sign a run's id.

    Raises UserError where key or value is missing, where a state is none, and for texts
    that no terminal should show: more than 200 characters or any that does not print.
    """
    if not text.isprintable() or len(text) > 200:
        raise UserError(f"{option} {format_brief(text)}: write {HELP}")
    key, equals, value = text.partition("=")
    if not equals:
        return _id_term(option, text)
    if not key or not value:
        missing = "value" if key else "key"
        raise UserError(
            f"{option} {format_brief(text)} lacks its {missing}; write {HELP}"
        )
    if key == STATE and value not in STATES:
        raise UserError(
            f"{option} {text}: there is no such state.{suggest_nearest(value, STATES)} Known:"
            f" {', '.join(STATES)}"
        )
    return Term(option, key, value)


def _id_term(option: str, text: str) -> Term:
    if not _ID.fullmatch(text):
        hint = f", such as state={text}" if text in STATES else ""
        raise UserError(
            f"{option} {format_brief(text)} is no prefix of a run id (0-9, a-f); write"
            f" {HELP}{hint}"
        )
    return Term(option, "", text)


def _shown_state(state: str) -> str:
    return NEW if state == State.ABSENT else state


def _format_first(words: Sequence[str]) -> str:
    """The first few, and whether there are more."""
    ellipsis = " …" if len(words) > MOST_SHOWN else ""
    return ", ".join(words[:MOST_SHOWN]) + ellipsis


def _list_plain_axes(runs: Sequence[Candidate]) -> list[str]:
    """The axes of the runs whose values are no mappings, as the sections below them are."""
    keys = (
        key
        for _, axes, _ in runs
        for key, value in axes.items()
        if not isinstance(value, Mapping)
    )
    return list(dict.fromkeys(keys))


def _is(value: Any, text: str) -> bool:
    """Whether a setting is what was written: as text, as a number (1/4 is 0.25), or by
    the name within a mapping."""
    if format_value(value) == text:
        return True
    if isinstance(value, Mapping):
        return cast("Mapping[str, Any]", value).get("name") == text
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return False
    number = _number(format_value(value))
    return number is not None and number == _number(text)


def _number(text: str) -> Fraction | None:
    try:
        return Fraction(text) if _NUMBER.fullmatch(text) else None
    except ZeroDivisionError:
        return None
