"""The decorators by which a plugin declares what it adds; `import zsg` gives them their
public names.

They note what a file declares while that file is loaded by a job. At any other time, as
in a test or a notebook of the user's, they leave the function as it is.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Noted:
    """A function that was registered as `name` while a file was loaded."""

    kind: str
    name: object
    function: Callable[..., Any]


_NOTES: ContextVar[list[Noted] | None] = ContextVar("notes", default=None)


@contextmanager
def noting() -> Generator[list[Noted]]:
    """What is registered while it lasts."""
    notes: list[Noted] = []
    token = _NOTES.set(notes)
    try:
        yield notes
    finally:
        _NOTES.reset(token)


def metric(
    name: str,
    *,
    of: Literal["answers", "choices"] = "answers",
    higher_is_better: bool = True,
) -> Callable[[Function], Function]:
    """Registers a function that scores test items, as the metric `name`.

    It is given a sequence of `zsg.Answered`, all answers of a checkpoint; with
    `of="choices"` a sequence of `zsg.OptionLosses`, what the model makes of each option
    of the items that have some. It yields (id, number) pairs, at most one for each id;
    an item without a score is left out. `higher_is_better` is told by plan.
    """
    del of, higher_is_better  # read from the file
    return _note("metric", name)


def order(name: str, *, seeded: bool = True) -> Callable[[Function], Function]:
    """Registers a function that puts training examples in order, as the order `name`.

    It is given a sequence of `zsg.Example` and a seed, and returns a list of their
    places, counted from 0, each at most once. `seeded`: whether the seed changes it; one
    that it does not change stays out of run ids.
    """
    del seeded  # read from the file
    return _note("order", name)


def score(name: str, *, passes: int = 1) -> Callable[[Function], Function]:
    """Registers a function that scores training examples by a model, as the score
    `name`, for `order: scores`.

    It is given a `zsg.ScoreInputs` and returns a list with a number for each of its
    examples, None for one without a score. `passes`: how many forward passes over an
    example it takes, by which its cost is told, a gradient counting as three; 0 where it
    asks for no model.
    """
    del passes  # read from the file
    return _note("score", name)


def reader(name: str, *, files: str = "*.jsonl") -> Callable[[Function], Function]:
    """Registers a function that reads the rows of data, as the set `name`.

    It is given a row of JSON, a mapping, and the name of the row's file without its
    suffix, and yields `zsg.Example`s. `files`: how the names of its files end, such as
    `*.jsonl`.
    """
    del files  # read from the file
    return _note("reader", name)


def _note(kind: str, name: str) -> Callable[[Function], Function]:
    def register(function: Function) -> Function:
        notes = _NOTES.get()
        if notes is not None:
            notes.append(Noted(kind, name, function))
        return function

    return register
