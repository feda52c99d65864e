"""Says what a design of looks can find, what one more split brings, and which GPU-hours it
takes: the lines of `zsg plan` about a grid whose claims are looked at before its end."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jobs.contract.folder import Workspace
from jobs.deciding import judged_claims, run_axes
from launcher.grids.grid import Grid
from launcher.grids.runs import Run
from launcher.planning import costs
from launcher.planning.estimates import Estimate
from launcher.workspace import recorded_grids
from zsg_core.errors import UserError
from zsg_core.settings.looks import OBRIEN_FLEMING, Expectation, Looks
from zsg_core.stats import boundaries, power
from zsg_core.stats.boundaries import Look
from zsg_core.stats.effects import EffectEstimate
from zsg_core.stats.power import Outlook, Spread

MOST_ALIKE = 0.99


@dataclass(frozen=True)
class Pilot:
    """What a pilot says of the spread of splits: of that effect which knows least."""

    spread: Spread
    splits: int
    name: str


@dataclass(frozen=True)
class Power:
    """How often the expected effect is found.

    `fixed`: by one look at the end; `one_more`: by one look at one split more; `pilot`:
    what says how far splits lie apart, with the ranges that it leaves: of the
    deviation, `deviations`, and of the power, `powers`.
    """

    effect: float
    spread: Spread
    outlook: Outlook
    fixed: float
    one_more: float
    pilot: Pilot | None = None
    deviations: tuple[float, float] | None = None
    powers: tuple[float, float] | None = None


@dataclass(frozen=True)
class GpuHours:
    """The GPU-hours that a design takes on average, and those of all its runs."""

    expected: float
    whole: float


@dataclass(frozen=True)
class Design:
    """The looks of a grid, and what comes of them as far as it is known: no `power`
    where the grid does not say what it expects, no `hours` where nobody knows a run's."""

    looks: Looks
    plan: Sequence[Look]
    claims: int
    power: Power | None = None
    hours: GpuHours | None = None


def foresee_design(
    workspace: Workspace,
    grid: Grid,
    runs: Sequence[Run],
    estimate_of: Callable[[Run], Estimate],
) -> Design | None:
    """What the looks of a grid can find, and what they take; None where it has none.

    UserError for a pilot that cannot say anything.
    """
    looks = grid.looks
    if looks is None:
        return None
    plan = boundaries.plan_looks(tuple(looks.at), looks.tail, looks.spending)
    design = Design(looks, plan, len(grid.claims))
    if looks.expect is None:
        return design
    pilot = None
    spread = Spread(looks.expect.split_sd or math.nan, looks.expect.shared)
    if looks.expect.pilot is not None:
        pilot = _read_pilot(workspace, grid, looks.expect)
        spread = pilot.spread
    forecast = _foresee_power(looks, plan, looks.expect, spread)
    hours = _foresee_hours(looks, runs, estimate_of, forecast.outlook)
    if pilot is not None:
        forecast = _add_pilot(forecast, looks, plan, pilot)
    return replace(design, power=forecast, hours=hours)


def _foresee_power(
    looks: Looks, plan: Sequence[Look], expected: Expectation, spread: Spread
) -> Power:
    """How often the effect is found by the looks, by one, and by one split more."""
    splits = looks.at[-1]
    fixed, one_more = (
        power.compute_fixed_power(count, expected.effect, spread, looks.tail)
        for count in (splits, splits + 1)
    )
    outlook = power.foresee(plan, expected.effect, spread, looks.futility)
    return Power(expected.effect, spread, outlook, fixed, one_more)


def _add_pilot(
    forecast: Power, looks: Looks, plan: Sequence[Look], pilot: Pilot
) -> Power:
    """The power with its range, as a few splits know little of how far others lie apart."""
    low, high = power.bound_deviation(pilot.spread.deviation, pilot.splits)
    best, worst = (
        power.foresee(
            plan,
            forecast.effect,
            Spread(deviation, pilot.spread.shared),
            looks.futility,
        ).power
        for deviation in (low, high)
    )
    return replace(forecast, pilot=pilot, deviations=(low, high), powers=(worst, best))


def _foresee_hours(
    looks: Looks,
    runs: Sequence[Run],
    estimate_of: Callable[[Run], Estimate],
    outlook: Outlook,
) -> GpuHours | None:
    """The GPU-hours that the design takes on average; None where nobody knows a run's."""
    waves = run_axes.assign_waves([run.axes for run in runs], looks.at)
    hours = [0.0] * len(looks.at)
    for run, wave in zip(runs, waves, strict=True):
        of_run = estimate_of(run).gpu_hours
        if of_run is None:
            return None
        hours[wave] += of_run
    up_to = 0.0
    expected = 0.0
    for of_wave, share in zip(hours, outlook.ends, strict=True):
        up_to += of_wave
        expected += share * up_to
    return GpuHours(expected, sum(hours))


def make_design_row(design: Design | None) -> dict[str, Any] | None:
    """A design as `zsg plan --json` has it; None where claims are looked at once.

    `at` with the t-value of each look in `t`; shares between 0 and 1; what is not known
    is null.
    """
    if design is None:
        return None
    looks = design.looks
    hours = design.hours
    return {
        "at": [look.splits for look in design.plan],
        "t": [look.t_bound for look in design.plan],
        "error_rate": looks.error_rate,
        "spending": looks.spending,
        "futility": looks.futility,
        "claims": design.claims,
        "power": _make_power_row(design.power),
        "gpu_hours": hours.expected if hours else None,
        "gpu_hours_of_all": hours.whole if hours else None,
        "gpu_hours_at_most": looks.gpu_hours,
    }


def _make_power_row(forecast: Power | None) -> dict[str, Any] | None:
    """The power of a design as `zsg plan --json` has it."""
    if forecast is None:
        return None
    return {
        "effect": forecast.effect,
        "split_sd": forecast.spread.deviation,
        "shared": forecast.spread.shared,
        "found": forecast.outlook.power,
        "splits": forecast.outlook.splits,
        "ends": list(forecast.outlook.ends),
        "found_by_one_look": forecast.fixed,
        "found_with_one_more_split": forecast.one_more,
        "pilot": forecast.pilot.name if forecast.pilot else None,
        "split_sd_range": list(forecast.deviations) if forecast.deviations else None,
        "found_range": list(forecast.powers) if forecast.powers else None,
    }


def describe_design(design: Design | None) -> list[tuple[str, str]]:
    """Lines about the looks of a grid, each with its label; none where it has none."""
    if design is None:
        return []
    looks = design.looks
    lines = [("looks", _describe_looks(looks, design.plan, design.claims))]
    if design.power is None:
        lines.append(
            (
                "power",
                "not known: claims.looks.expect says which effect is to be found, and how"
                " far splits lie apart, or in which pilot",
            )
        )
        return lines
    lines.append(("power", _describe_power(looks, design.power)))
    if pilot := _describe_pilot(design.power):
        lines.append(("pilot", pilot))
    if design.hours is not None:
        lines.append(("expect", _describe_hours(looks, design.hours)))
    return lines


def _describe_looks(looks: Looks, plan: Sequence[Look], claims: int) -> str:
    """When it is looked, beyond which t-value a claim is decided, and how often in error."""
    counts = ", ".join(str(look.splits) for look in plan)
    bounds = ", ".join(f"{look.t_bound:.2f}" for look in plan)
    spent = "late" if looks.spending == OBRIEN_FLEMING else "evenly"
    words = (
        f"after {counts} of {plan[-1].splits} held-out splits, decided beyond t ="
        f" {bounds}; error rate {looks.error_rate:.1%} over all looks, spent {spent}"
    )
    if claims > 1:
        highest = min(1.0, claims * looks.error_rate)
        words += f"; of {claims} claims at most {highest:.1%}"
    if looks.futility:
        words += (
            f"; given up where fewer than {looks.futility:.0%} of studies that went on so"
            " would be decided"
        )
    return words


def _describe_power(looks: Looks, forecast: Power) -> str:
    """How often the effect is found, with how many splits, and what one more brings."""
    spread = forecast.spread
    outlook = forecast.outlook
    words = (
        f"an effect of {forecast.effect:g} where splits lie {spread.deviation:.3g} apart is"
        f" found in {outlook.power:.0%} of studies, with {outlook.splits:.1f} of"
        f" {looks.at[-1]} splits on average (one look at the end: {forecast.fixed:.0%}); one"
        f" more split: {forecast.one_more:.0%}"
    )
    if spread.shared:
        floor = spread.deviation * math.sqrt(spread.shared)
        words += (
            f"; splits are alike by {spread.shared:.2f}, so the error stays above"
            f" {floor:.3g} however many there are"
        )
    return words


def _describe_pilot(forecast: Power) -> str | None:
    """The range of the power that a pilot leaves; None without one."""
    if forecast.pilot is None or forecast.deviations is None or forecast.powers is None:
        return None
    low, high = forecast.deviations
    worst, best = forecast.powers
    return (
        f"{forecast.pilot.name}: {forecast.pilot.splits} splits, by which others lie {low:.2g} to"
        f" {high:.2g} apart, so the power is {worst:.0%} to {best:.0%}"
    )


def _describe_hours(looks: Looks, hours: GpuHours) -> str:
    """The GPU-hours that a design takes on average."""
    amount = costs.format_amount(hours.expected)
    words = f"≈ {amount} of {costs.format_amount(hours.whole)} GPU-hours on average"
    if looks.gpu_hours is not None:
        words += f"; no more is begun after {looks.gpu_hours:g}"
    return words


def _read_pilot(workspace: Workspace, grid: Grid, expected: Expectation) -> Pilot:
    """The spread of splits in a pilot's runs, by the claims of this grid.

    UserError where there is no such grid, or not two whole splits of it.
    """
    name = str(expected.pilot)
    record = recorded_grids.read_grid(workspace, name)
    pilots: list[Pilot] = []
    for judged in judged_claims.judge_claims(workspace, record, grid.claims):
        for effect in judged.verdict.effects:
            splits = judged.verdict.splits
            if effect.found.is_over_splits and effect.is_known:
                spread = estimate_spread(effect.found, splits)
                pilots.append(Pilot(spread, splits, name))
    if not pilots:
        raise UserError(
            f"claims.looks.expect.pilot: {name} has no two held-out splits with values of"
            " these claims, so it does not say how far splits lie apart"
        )
    return max(pilots, key=lambda pilot: pilot.spread.deviation)


def estimate_spread(effect: EffectEstimate, splits: int) -> Spread:
    """How far splits lie apart by an effect of so many of them, and how alike they are:
    what the whole error has beyond that of splits does not shrink with their number."""
    of_splits = effect.over_replicates**2
    whole = effect.errors[0][0] ** 2 if effect.errors else of_splits
    alike = max(0.0, whole - of_splits)
    variance = of_splits * splits + alike
    if variance <= 0:
        raise UserError("the pilot's splits do not differ at all")
    return Spread(math.sqrt(variance), min(alike / variance, MOST_ALIKE))
