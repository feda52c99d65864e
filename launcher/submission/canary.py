"""Lets one run of a large grid go first: the others wait until its first checkpoint has
shown that they may follow.

Pure. What the run must show, and the job that waits for it, are in jobs.runtime.canary.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

from launcher.grids.runs import Run
from launcher.planning.plan import Canary, Plan, TrainGroup, waits_for_a_run

AT_ONCE = 8  # so many runs are submitted without one that goes first


def item_of(run: Run) -> str:
    """The folder of the job that waits for a run's first checkpoint."""
    return f"canary/{run.id}"


def with_first(
    plan: Plan, need: Callable[[Run], float], proven: Collection[Run]
) -> Plan:
    """The plan, in which one run goes first if there are many: the one with the largest
    `need` of memory, among those whose model is not on trial in this plan, if there are
    any: a model that is refused would end the runs of all others, which wait for it.

    None does where a run of the same size is `proven` already: it trains. What starts
    from a stage's weights waits for that stage, and so for the first run too.
    """
    free = _list_free_runs(plan)
    if sum(len(group.runs) for group in plan.groups) <= AT_ONCE or not free:
        return plan
    sure = _list_sure_runs(plan, free)
    first = max(sure or free, key=need)  # of equals the first
    if any(_is_alike(first, run) for run in proven):
        return plan
    item = item_of(first)
    waiting = {run.id for run in free} - {first.id}
    needed = {
        run: (*after, item) if run in waiting else after
        for run, after in plan.needed.items()
    }
    return replace(
        plan,
        groups=_put_first(plan, first, item),
        needed=needed,
        canary=Canary(item, first, len(waiting)),
        # where the first run shows that none may follow, those of later waves do not, too
        looks=[replace(look, after=[item, *look.after]) for look in plan.looks],
    )


def _list_sure_runs(plan: Plan, runs: Sequence[Run]) -> list[Run]:
    """The runs of whose model nothing is proven or tried by this plan's prepare jobs."""
    made = {item for prepare in plan.prepares for item in prepare.makes}
    return [
        run
        for run in runs
        if made.isdisjoint(filter(None, (run.proof_item, run.chat_trial_item)))
    ]


def _list_free_runs(plan: Plan) -> list[Run]:
    """The runs that wait for no other run."""
    groups = [group for group in plan.groups if not waits_for_a_run(group)]
    return [run for group in groups for run in group.runs]


def _put_first(plan: Plan, first: Run, item: str) -> list[TrainGroup]:
    """The plan's groups: one of the first run, then all others, of which those that
    wait for no run wait for `item`."""
    groups: list[TrainGroup] = []
    for group in plan.groups:
        followers = [run for run in group.runs if run is not first]
        if len(followers) < len(group.runs):
            after = plan.needed[first.id] if group.whatever_they_made else group.after
            groups.insert(0, TrainGroup(group.size, after, [first]))
        if not followers:
            continue
        after = group.after if waits_for_a_run(group) else (*group.after, item)
        groups.append(replace(group, runs=followers, after=after))
    return groups


def _is_alike(first: Run, second: Run) -> bool:
    """Whether a run takes what the other takes: model, precision, length, nodes."""
    return _list_requirements(first) == _list_requirements(second)


def _list_requirements(run: Run) -> list[Any]:
    train = run.stage["train"]
    return [_describe_model(run), run.size, *(train[key] for key in _TAKES)]


_TAKES = ("precision", "max_length", "batch")


def _describe_model(run: Run) -> Any:
    return run.base or {
        key: value for key, value in run.recipe["base"].items() if key != "seed"
    }
