"""Lets one run of a large grid go first: the others wait until its first checkpoint has
shown that they may follow.

Pure. What the run must show, and the job that waits for it, are in jobs.runtime.canary.
"""

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

from launcher.grids.runs import Run
from launcher.planning.plan import Canary, Plan, TrainGroup, waits_for_a_run

AT_ONCE = 8  # so many runs are submitted without one that goes first


def item_of(run: Run) -> str:
    """The folder of the job that waits for a run's first checkpoint."""
    return f"canary/{run.id}"


def with_first(
    plan: Plan, need: Callable[[Run], float], shown: Collection[Run]
) -> Plan:
    """The plan, in which one run goes first if there are many: the one with the largest
    `need` of memory.

    None does where a run of the same size has `shown` already that it trains. What
    starts from a stage's weights waits for that stage, and so for the first run too.
    """
    free = [
        run for group in plan.groups if not waits_for_a_run(group) for run in group.runs
    ]
    if sum(len(group.runs) for group in plan.groups) <= AT_ONCE or not free:
        return plan
    first = max(free, key=need)  # of equals the first
    if any(_alike(first, run) for run in shown):
        return plan
    groups: list[TrainGroup] = []
    item, waiting = item_of(first), set[str]()
    for group in plan.groups:
        others = [run for run in group.runs if run is not first]
        if len(others) < len(group.runs):
            after = plan.needed[first.id] if group.whatever_they_made else group.after
            groups.insert(0, TrainGroup(group.size, after, [first]))
        if others and not waits_for_a_run(group):
            waiting |= {run.id for run in others}
            groups.append(replace(group, runs=others, after=(*group.after, item)))
        elif others:
            groups.append(replace(group, runs=others))
    needed = {
        run: (*after, item) if run in waiting else after
        for run, after in plan.needed.items()
    }
    return replace(
        plan, groups=groups, needed=needed, canary=Canary(item, first, len(waiting))
    )


def _alike(run: Run, other: Run) -> bool:
    """Whether a run takes what the other takes: model, precision, length, nodes."""
    mine, its = (
        [_model(one), one.size, *(one.stage["train"][key] for key in _TAKES)]
        for one in (run, other)
    )
    return mine == its


_TAKES = ("precision", "max_length", "batch")


def _model(run: Run) -> Any:
    return run.base or {
        key: value for key, value in run.recipe["base"].items() if key != "seed"
    }
