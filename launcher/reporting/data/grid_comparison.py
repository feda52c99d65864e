"""Holds what the runs of a grid come to, and what of it a report shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from jobs.contract.grid_record import GridRecord
from launcher.reporting.data import run_groups
from launcher.reporting.data.metric_overview import MetricCurves
from launcher.reporting.data.run_groups import Group, Member


@dataclass(frozen=True)
class ReportOptions:
    """What a report shows: a metric, over what, with a panel for each value of which
    axis, of which stage or all.

    `over_splits`: runs that differ in their held-out split alone are replicates.
    `is_alone`: the page goes without the files that else lie beside it. `metrics`: all
    that are to be shown, `metric` being that of the large figures; empty for it alone.
    """

    metric: str = "loss"
    x: str = "step"
    panel: str | None = None
    stage: int | None = None
    over_splits: bool = False
    is_alone: bool = False
    metrics: tuple[str, ...] = ()


@dataclass(frozen=True)
class GridComparison:
    """What the runs of a grid come to."""

    name: str
    options: ReportOptions
    record: GridRecord
    members: Sequence[Member]
    facts: Sequence[dict[str, str]]
    troubles: Sequence[str]  # flagged runs
    notes: Sequence[str]  # what runs made of their examples
    groups: Sequence[Group]
    keys: Sequence[str]
    panel: str | None
    overview: Sequence[MetricCurves] = ()
    # by metric that is shown, how it was taken
    ways: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def colour_keys(self) -> list[str]:
        """The axes whose values have colours: those that have no panels."""
        return [key for key in self.keys if key != self.panel]

    def label(self, group: Group) -> str:
        """What a curve is called in its panel."""
        return (
            run_groups.axes_label(group.axes, self.colour_keys)
            if self.colour_keys
            else self.options.metric
        )

    def full_label(self, group: Group) -> str:
        """What a group is called where it stands alone; nothing where there is but one."""
        return run_groups.axes_label(group.axes, self.keys) if self.keys else ""

    def panel_name(self, group: Group) -> str:
        """What the panel of a group is called; nothing where all are in one."""
        return run_groups.name_place(group.axes, self.panel) if self.panel else ""

    @cached_property
    def most_stages(self) -> int:
        """The most stages that a curve has."""
        return 1 + max((len(group.begins) for group in self.groups), default=0)

    @cached_property
    def colours(self) -> dict[str, int]:
        """The number of each curve's colour, the same in every panel."""
        return {
            name: number
            for number, name in enumerate(dict.fromkeys(map(self.label, self.groups)))
        }

    @cached_property
    def styles(self) -> dict[str, int]:
        """The number of each panel's style of line, where its curves stand among those
        of other panels."""
        return {
            name: number
            for number, name in enumerate(
                dict.fromkeys(map(self.panel_name, self.groups))
            )
        }
