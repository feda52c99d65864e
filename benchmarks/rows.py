"""Prints what a benchmark measured: rows of a measure, its peer in the same run, and
whether the goal was met."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Row:
    """One measure. `goal` is a limit in `unit`; `met` says on which side of it the value lies."""

    measure: str
    value: float
    unit: str
    peer: float | None
    goal: float | None
    met: bool | None


def show(rows: Sequence[Row], as_json: bool) -> None:
    """The rows on stdout, as a JSON list or as a table."""
    if as_json:
        print(json.dumps([asdict(row) for row in rows], ensure_ascii=False, indent=1))
        return
    width = max(len(row.measure) for row in rows)
    print(f"{'measure':{width}}  {'value':>9}  {'peer':>9}  {'goal':>9}  unit  met")
    for row in rows:
        numbers = "  ".join(
            f"{_text(value):>9}" for value in (row.value, row.peer, row.goal)
        )
        print(f"{row.measure:{width}}  {numbers}  {row.unit:4}  {_verdict(row.met)}")


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _verdict(met: bool | None) -> str:
    return {True: "yes", False: "NO", None: "–"}[met]
