"""Decides a claim while held-out splits come in: at the first look at which all its effects
are beyond the bound of that look.

A look is of whole waves of splits. It is taken from the first to the last, so that what it
says does not depend on when it is asked: runs of later waves do not change a verdict that
was reached before them. Effects of a claim must all cross at one look; none that crossed
before is remembered. The interval at a look, value ± t(tail of the look) · error, holds at
all looks at once (repeated confidence intervals, Jennison and Turnbull 2000, chapter 9).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from zsg_core.stats import boundaries, student
from zsg_core.stats.boundaries import Look
from zsg_core.stats.curves import Interval
from zsg_core.stats.effects import EffectEstimate
from zsg_core.stats.questions import Curve
from zsg_core.stats.verdict import (
    NOT_SUPPORTED,
    OPPOSITE,
    SUPPORTED,
    TOO_FEW,
    ClaimEffect,
    ClaimVerdict,
    Looked,
)

UNDECIDED = "not decided yet"

# curves of the waves so far, and the tail ↦ the verdict of these
Judge = Callable[[Sequence[Curve], float], ClaimVerdict]


def judge_in_looks(
    waves: Sequence[Sequence[Curve] | None],
    looks: Sequence[Look],
    judge: Judge,
    futility: float = 0.0,
) -> ClaimVerdict:
    """The verdict of a claim at the looks that can be taken.

    `waves`: the curves of each look's new splits, None where runs are not done: no look
    is taken from there on. `futility`: see `is_futile`.
    """
    decided = ClaimVerdict(UNDECIDED, looked=Looked(0, len(looks), is_over=False))
    so_far: list[Curve] = []
    for number, wave in enumerate(waves):
        if wave is None:
            return decided
        so_far += wave
        decided = judge_look(so_far, looks, number, judge, futility)
        if decided.looked and decided.looked.is_over:
            return decided
    return decided


def judge_look(
    curves: Sequence[Curve],
    looks: Sequence[Look],
    number: int,
    judge: Judge,
    futility: float = 0.0,
) -> ClaimVerdict:
    """The verdict at one look, counted from 0, on the curves of all splits up to it."""
    look = looks[number]
    judged = judge(curves, look.tail)
    is_last = number == len(looks) - 1
    count = len(looks)
    if judged.word in (SUPPORTED, OPPOSITE):
        unbiased = _estimate_unbiased(judged.effects, looks, number)
        looked = Looked(number + 1, count, is_over=True, unbiased=unbiased)
        notes = [_tell_stop(looks, number), *judged.notes]
        return replace(judged, looked=looked, notes=notes)
    looked = Looked(number + 1, count, is_over=is_last)
    if is_last:
        return replace(judged, looked=looked)
    if (
        futility
        and judged.word != TOO_FEW
        and is_futile(judged, looks, number, futility)
    ):
        note = (
            f"given up at {look.splits} of {looks[-1].splits} splits: going on as it did, it"
            f" would be decided in fewer than {futility:.0%} of studies"
        )
        looked = replace(looked, is_over=True)
        return replace(
            judged, word=NOT_SUPPORTED, looked=looked, notes=[note, *judged.notes]
        )
    return replace(judged, word=UNDECIDED, looked=looked)


def _tell_stop(looks: Sequence[Look], number: int) -> str:
    look = looks[number]
    return (
        f"decided at look {number + 1} of {len(looks)}, after {look.splits} of"
        f" {looks[-1].splits} splits; sizes are those seen there, which lean away from"
        " nothing: the unbiased estimates do not"
    )


def is_futile(
    judged: ClaimVerdict, looks: Sequence[Look], number: int, futility: float
) -> bool:
    """Whether some effect would hardly cross if it went on as it did, and some hardly the
    other way: then neither word would come.

    It binds nobody: bounds are those of studies that always go on.
    """
    values = [effect.compute_p() for effect in judged.effects]
    if not values:
        return False

    def power(p: float) -> float:
        return boundaries.compute_conditional_power(looks, number, p)

    least_supported = min(power(above) for above, _ in values)
    least_opposite = min(power(below) for _, below in values)
    return least_supported < futility and least_opposite < futility


def _estimate_unbiased(
    effects: Sequence[ClaimEffect], looks: Sequence[Look], number: int
) -> list[tuple[float, Interval]]:
    """The median-unbiased estimate of each effect; of one look none is needed, and it is
    the value with its interval."""
    return [_estimate_one(effect, looks, number) for effect in effects]


def _estimate_one(
    effect: ClaimEffect, looks: Sequence[Look], number: int
) -> tuple[float, Interval]:
    """The median-unbiased estimate of an effect with its 95 % interval.

    How far each lies from the value is found for a known error, in units of it, and
    taken to Student's t by its probability: at the first look the interval is that of
    one look.
    """
    found = effect.found
    distance = found.value - effect.null
    z = boundaries.convert_to_z(min(found.compute_p(effect.null)))
    if not distance or z <= 0:
        return found.value, found.interval
    sign = math.copysign(1.0, distance)
    stopped = boundaries.estimate_after_stop(looks, number, z)
    root = math.sqrt(looks[number].share)

    def place(theta: float) -> float:
        bound = found.value + sign * _reach(found, theta * root - z)
        return _clip_correlation(bound) if effect.chance is not None else bound

    low, high = sorted(map(place, stopped.interval))
    return place(stopped.value), (low, high)


def _reach(found: EffectEstimate, deviations: float) -> float:
    """How far from an effect's value so many standard errors are, of which the one that
    reaches furthest counts, as in its interval."""
    reaches = [
        error * student.convert_from_normal(deviations, free)
        for error, free in found.errors
    ]
    return max(reaches, key=abs, default=0.0)


def _clip_correlation(value: float) -> float:
    return max(-1.0, min(value, 1.0))
