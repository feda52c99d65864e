"""Chooses in which unit of time people read what runs have cost: of a minute's run, hours
would be 0.00."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MINUTES_FROM = 1 / 60  # hours; what is shorter is told in seconds
HOURS_FROM = 0.1


@dataclass(frozen=True)
class CostUnit:
    """A unit of cost. `name`: before a sentence; `heading`: above a column; `per_hour`:
    how many of it are an hour; `decimals`: of a number below ten."""

    name: str
    heading: str
    per_hour: float
    decimals: int

    def format(self, hours: float) -> str:
        """So many hours in this unit, in about three digits."""
        amount = hours * self.per_hour
        if amount and amount < 10:
            return f"{amount:.{self.decimals}f}"
        return f"{amount:,.0f}"


def choose_unit(hours: float, has_gpus: bool) -> CostUnit:
    """The unit in which so many hours, of GPUs or of a machine, are read best."""
    if hours and hours < MINUTES_FROM:
        return _make_unit("seconds", "s", 3600, 1, has_gpus)
    if hours and hours < HOURS_FROM:
        return _make_unit("minutes", "min", 60, 1, has_gpus)
    return _make_unit("hours", "h", 1, 2, has_gpus)


def _make_unit(
    name: str, short: str, per_hour: float, decimals: int, has_gpus: bool
) -> CostUnit:
    if has_gpus:
        return CostUnit(f"GPU-{name}", f"GPU-{short}", per_hour, decimals)
    return CostUnit(name, name, per_hour, decimals)


def choose_unit_of_rows(rows: Sequence[Mapping[str, Any]]) -> CostUnit:
    """The unit for a column: that of the run which has cost most."""
    costs = [row["gpu_hours"] for row in rows if row.get("gpu_hours")]
    most_hours = max(map(sum_spent, costs), default=0.0)
    has_gpus = any(cost["has_gpus"] for cost in costs)
    return choose_unit(most_hours, has_gpus)


def sum_spent(cost: Mapping[str, float]) -> float:
    """The hours that a run has taken, whatever became of them."""
    return cost["useful"] + cost["repeated"] + cost["lost"]
