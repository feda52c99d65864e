"""Makes the cells and tables that views share: which axes have a column, how a value and
a number are written.

Every text of a cell is made showable here, or its column would be too narrow.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from zsg_core.shown_text import format_value, make_showable

NARROW = (
    "run",
    "state",
    "step",
    "loss",
    "tok/s",
    "left",
    "beat",
    "GPUs",
    "slurm",
    "action",
)


def make_cell_text(text: object, style: str = "") -> Text:
    """A text of anybody's for one cell: showable, on one line, and never taken for markup."""
    return Text(make_showable(str(text), keep=""), style)


def format_cell(value: Any) -> str:
    """A value of an axis; a dash where a run has none."""
    return "–" if value is None else format_value(value)


def format_short(value: float) -> str:
    """A number in three or four digits: 6.74B, 15.5M, 12.3k, 950, 53.9, 0.02."""
    for threshold, unit, sign in ((1e9, 1e9, "B"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if value >= threshold:
            return f"{value / unit:.3g}{sign}"
    if value >= 100 or value == int(value):
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def find_differing_keys(axes: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys in which the runs differ, in the order of the grid."""
    keys = list(dict.fromkeys(key for values in axes for key in values))
    differing = [
        key for key in keys if len({repr(values.get(key)) for values in axes}) > 1
    ]
    return differing or keys


def shorten_keys(keys: Sequence[str]) -> list[str]:
    """The last word of each dotted key, where that is not ambiguous."""
    short = [key.rpartition(".")[2] for key in keys]
    return [
        word if short.count(word) == 1 and word not in NARROW else key
        for word, key in zip(short, keys, strict=True)
    ]


def make_table(*names: str) -> Table:
    """An empty table with these headings; the columns of NARROW are never folded."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        table.add_column(make_cell_text(name), overflow="fold", no_wrap=name in NARROW)
    return table
