"""Tells which names of a user's file are training examples, which are other examples of
the data, and which are none at all.

A file over all of the data is normal, and names more examples than are trained on.
A name that the data do not have is a mistake, and so is told with its line.
"""

from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path
from typing import Protocol

from zsg_core.errors import BadData
from zsg_core.schema_errors import suggest_nearest

FEW = 20_000  # examples among which a name like a wrong one is looked for


class NamedRows(Protocol):
    """A file whose rows name examples."""

    @property
    def path(self) -> Path: ...

    def locate(self, number: int) -> str:
        """Where the row of this number, from 0 on, stands."""
        ...


def find_places(
    rows: NamedRows,
    names: Sequence[str],
    position_of: Mapping[str, int],
    list_others: Callable[[], Set[str]],
) -> list[int]:
    """The place of each name that is trained on, in the order of the names.

    `position_of`: of each training example. `list_others` gives the names of all examples
    of the data, and is asked only where a name is of no training example. BadData for
    the first name that is of no example, with how many more there are, and where no
    name is trained on.
    """
    positions = [position_of[name] for name in names if name in position_of]
    if len(positions) == len(names):
        return positions
    untrained = list_others()
    unknown = [
        number
        for number, name in enumerate(names)
        if name not in position_of and name not in untrained
    ]
    if unknown:
        raise BadData(explain_unknown(rows, names, unknown, list(position_of)))
    if not positions:
        raise BadData(_explain_untrained(rows, names))
    return positions


def explain_unknown(
    rows: NamedRows,
    names: Sequence[str],
    unknown: Sequence[int],
    trained: Sequence[str],
) -> str:
    """Which name is of no example, what it might be, and how many more there are.
    `unknown`: the numbers of their rows."""
    name = names[unknown[0]]
    hint = ""
    if len(trained) <= FEW:
        hint = suggest_nearest(name, trained)
    further = ""
    if len(unknown) > 1:
        further = f" So it is with {len(unknown) - 1:,} further entries."
    first = next(iter(trained), "none")
    return (
        f"{rows.locate(unknown[0])}: no training example has the id {name!r}; ids look like"
        f" {first!r}.{hint}{further}"
    )


def _explain_untrained(rows: NamedRows, names: Sequence[str]) -> str:
    """That no name of a file is trained on, though the data have each."""
    return (
        f"{rows.locate(0)}: {names[0]!r} is held out, or was not sampled, and so is each of the"
        f" {len(names):,} examples that the file names; none is trained on"
    )
