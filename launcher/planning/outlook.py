"""Says what a design of looks can find, what one more split brings, and which GPU-hours it
takes: the lines of `zsg plan` about a grid whose claims are looked at before its end."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

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
class _Pilot:
    """What a pilot says of the spread of splits: of that effect which knows least."""

    spread: Spread
    splits: int
    name: str


def describe_design(
    workspace: Workspace,
    grid: Grid,
    runs: Sequence[Run],
    estimate_of: Callable[[Run], Estimate],
) -> list[tuple[str, str]]:
    """Lines about the looks of a grid, each with its label; none where it has none.

    UserError for a pilot that cannot say anything.
    """
    looks = grid.looks
    if looks is None:
        return []
    plan = boundaries.plan_looks(tuple(looks.at), looks.tail, looks.spending)
    lines = [("looks", _describe_looks(looks, plan, len(grid.claims)))]
    if looks.expect is None:
        lines.append(
            (
                "power",
                "not known: claims.looks.expect says which effect is to be found, and how"
                " far splits lie apart, or in which pilot",
            )
        )
        return lines
    pilot = None
    spread = Spread(looks.expect.split_sd or math.nan, looks.expect.shared)
    if looks.expect.pilot is not None:
        pilot = _read_pilot(workspace, grid, looks.expect)
        spread = pilot.spread
    outlook = power.foresee(plan, looks.expect.effect, spread, looks.futility)
    lines.append(("power", _describe_power(looks, looks.expect, spread, outlook)))
    if pilot is not None:
        lines.append(("pilot", _describe_pilot(looks, looks.expect, plan, pilot)))
    hours = _describe_hours(looks, runs, estimate_of, outlook)
    if hours is not None:
        lines.append(("expect", hours))
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


def _describe_power(
    looks: Looks, expected: Expectation, spread: Spread, outlook: Outlook
) -> str:
    """How often the effect is found, with how many splits, and what one more brings."""
    splits = looks.at[-1]
    fixed, extended = (
        power.compute_fixed_power(count, expected.effect, spread, looks.tail)
        for count in (splits, splits + 1)
    )
    words = (
        f"an effect of {expected.effect:g} where splits lie {spread.deviation:.3g} apart is"
        f" found in {outlook.power:.0%} of studies, with {outlook.splits:.1f} of {splits}"
        f" splits on average (one look at the end: {fixed:.0%}); one more split: {extended:.0%}"
    )
    if spread.shared:
        floor = spread.deviation * math.sqrt(spread.shared)
        words += (
            f"; splits are alike by {spread.shared:.2f}, so the error stays above"
            f" {floor:.3g} however many there are"
        )
    return words


def _describe_pilot(
    looks: Looks, expected: Expectation, plan: Sequence[Look], pilot: _Pilot
) -> str:
    """The range of the power, as a few splits know little of how far others lie apart."""
    low, high = power.bound_deviation(pilot.spread.deviation, pilot.splits)
    best, worst = (
        power.foresee(
            plan,
            expected.effect,
            Spread(deviation, pilot.spread.shared),
            looks.futility,
        ).power
        for deviation in (low, high)
    )
    return (
        f"{pilot.name}: {pilot.splits} splits, by which others lie {low:.2g} to {high:.2g}"
        f" apart, so the power is {worst:.0%} to {best:.0%}"
    )


def _describe_hours(
    looks: Looks,
    runs: Sequence[Run],
    estimate_of: Callable[[Run], Estimate],
    outlook: Outlook,
) -> str | None:
    """The GPU-hours that the design takes on average; None where nobody knows a run's."""
    waves = run_axes.assign_waves([run.axes for run in runs], looks.at)
    hours = [0.0] * len(looks.at)
    for run, wave in zip(runs, waves, strict=True):
        of_run = estimate_of(run).gpu_hours
        if of_run is None:
            return None
        hours[wave] += of_run
    total = sum(hours)
    up_to = 0.0
    expected = 0.0
    for of_wave, share in zip(hours, outlook.ends, strict=True):
        up_to += of_wave
        expected += share * up_to
    amount = costs.format_amount(expected)
    words = f"≈ {amount} of {costs.format_amount(total)} GPU-hours on average"
    if looks.gpu_hours is not None:
        words += f"; no more is begun after {looks.gpu_hours:g}"
    return words


def _read_pilot(workspace: Workspace, grid: Grid, expected: Expectation) -> _Pilot:
    """The spread of splits in a pilot's runs, by the claims of this grid.

    UserError where there is no such grid, or not two whole splits of it.
    """
    name = str(expected.pilot)
    record = recorded_grids.read_grid(workspace, name)
    pilots: list[_Pilot] = []
    for judged in judged_claims.judge_claims(workspace, record, grid.claims):
        for effect in judged.verdict.effects:
            splits = judged.verdict.splits
            if effect.found.is_over_splits and effect.is_known:
                spread = estimate_spread(effect.found, splits)
                pilots.append(_Pilot(spread, splits, name))
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
