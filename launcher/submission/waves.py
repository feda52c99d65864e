"""Parts the runs of a grid whose claims are looked at into waves: the runs of a wave wait
for the look before it.

Pure but for decisions, which are read. All waves are submitted at once; nothing on a node
submits anything. What a look is of stands in its id, so the same look is never made twice,
and a changed grid has looks of its own.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from jobs.contract import look_decision
from jobs.contract.causes import Cause
from jobs.contract.folder import Workspace
from jobs.contract.look_decision import LookDecision
from jobs.contract.states import State
from jobs.deciding import run_axes
from launcher.grids import grid_claims
from launcher.grids.grid import Grid
from launcher.grids.runs import Run
from launcher.planning.plan import (
    SKIP,
    SUBMIT,
    TRAINING,
    Action,
    Look,
    Plan,
    TrainGroup,
    run_item,
)
from launcher.workspace.job_state import JobState
from zsg_core.digest import content_id

SPARED_BY = "spared: "


def list_looks(grid: Grid, runs: Sequence[Run]) -> list[Look]:
    """The looks before the last of a grid, each between two waves; none where claims are
    looked at once."""
    if grid.looks is None:
        return []
    waves = run_axes.assign_waves([run.axes for run in runs], grid.looks.at)
    claims = [grid_claims.make_claim_key(claim) for claim in grid.claims]
    settings = grid.looks.model_dump(mode="json", exclude={"expect"})
    looks: list[Look] = []
    for number in range(1, len(grid.looks.at)):
        before = [run for run, wave in zip(runs, waves, strict=True) if wave < number]
        behind = [run for run, wave in zip(runs, waves, strict=True) if wave >= number]
        ids = [run.id for run in before]
        name = content_id([grid.name, number, claims, settings, ids])
        item = f"{look_decision.FOLDER}/{name}"
        looks.append(Look(item, number, before, behind, claims, settings))
    return looks


def read_decisions(
    workspace: Workspace, looks: Sequence[Look]
) -> dict[str, LookDecision]:
    """The decisions that were made, by the folders of the looks."""
    decisions: dict[str, LookDecision] = {}
    for look in looks:
        decision = look_decision.read_decision(workspace.root / look.item)
        if decision is not None:
            decisions[look.item] = decision
    return decisions


def spare_actions(
    actions: Sequence[Action],
    looks: Sequence[Look],
    decisions: Mapping[str, LookDecision],
    states: Mapping[str, JobState],
) -> list[Action]:
    """The actions, with nothing trained that a look has found needless; what an earlier
    design has spared and this one wants is submitted."""
    if not looks:
        return list(actions)
    spared = _find_spared(looks, decisions)
    return [
        _spare_action(action, spared.get(action.run.id), states[run_item(action.run)])
        for action in actions
    ]


def is_spared(action: Action) -> bool:
    """Whether nothing is done about a run since a look has found it needless."""
    return action.kind == SKIP and action.reason.startswith(SPARED_BY)


def _find_spared(
    looks: Sequence[Look], decisions: Mapping[str, LookDecision]
) -> dict[str, str]:
    """The runs that are not needed any more, each with why; of several looks the first."""
    spared: dict[str, str] = {}
    for look in looks:
        decision = decisions.get(look.item)
        if decision is None or not decision.is_over:
            continue
        for run in look.spares:
            spared.setdefault(run.id, decision.why)
    return spared


def _spare_action(action: Action, why: str | None, state: JobState) -> Action:
    """An action, by why its run is not needed; None where it is."""
    if why is not None:
        is_cancelled = state.state == State.CANCELLED
        if action.kind not in TRAINING and not is_cancelled:
            return action
        return replace(action, kind=SKIP, reason=f"{SPARED_BY}{why}")
    was_spared = state.cause == Cause.SPARED
    if action.kind != SKIP or not was_spared or state.is_active:
        return action
    return replace(action, kind=SUBMIT, reason="spared before, wanted now")


def with_looks(
    plan: Plan,
    looks: Sequence[Look],
    decided: Collection[str],
    is_active: Callable[[str], bool],
) -> Plan:
    """The plan, in which the runs of each wave wait for the look before it.

    `decided`: the folders of looks that were taken; `is_active`: whether a job is under
    way. A look that is under way is waited for, and not made again.
    """
    pending = [look for look in looks if look.item not in decided]
    if not pending:
        return plan
    gates = _find_gates(pending)
    groups: list[TrainGroup] = []
    for group in plan.groups:
        groups += _divide_group(group, gates)
    order = [look.item for look in pending]
    groups.sort(key=lambda group: _rank_group(group, gates, order))
    needed: dict[str, tuple[str, ...]] = {}
    for run, after in plan.needed.items():
        needed[run] = (*after, gates[run]) if run in gates else after
    new = _choose_looks(pending, groups, gates, is_active)
    return replace(plan, groups=groups, needed=needed, looks=new)


def _find_gates(pending: Sequence[Look]) -> dict[str, str]:
    """The last look before each run of a later wave, by the run's id."""
    gates: dict[str, str] = {}
    for look in pending:
        for run in look.spares:
            gates[run.id] = look.item
    return gates


def _choose_looks(
    pending: Sequence[Look],
    groups: Sequence[TrainGroup],
    gates: Mapping[str, str],
    is_active: Callable[[str], bool],
) -> list[Look]:
    """The looks that are to be made: those that runs of the plan wait for and that are
    not under way; each with the jobs that it waits for. The look before it is one of
    them, or the runs behind a look that failed would only be missing at the next."""
    runs = [run for group in groups for run in group.runs]
    planned = {run_item(run) for run in runs}
    awaited = {gates[run.id] for run in runs if run.id in gates}
    chosen: list[Look] = []
    earlier: list[str] = []
    for look in pending:
        if is_active(look.item):
            earlier = [look.item]
        elif look.item in awaited:
            runs_before = _list_before(look, planned, is_active)
            chosen.append(replace(look, after=[*earlier, *runs_before]))
            earlier = [look.item]
    return chosen


def _list_before(
    look: Look, planned: Collection[str], is_active: Callable[[str], bool]
) -> list[str]:
    """The runs that a look waits for: of those that it is of, which are planned or under
    way."""
    items = map(run_item, look.runs)
    return [item for item in items if item in planned or is_active(item)]


def _divide_group(group: TrainGroup, gates: Mapping[str, str]) -> list[TrainGroup]:
    """A group by the looks that its runs wait for."""
    by_gate: dict[str | None, list[Run]] = {}
    for run in group.runs:
        by_gate.setdefault(gates.get(run.id), []).append(run)
    divided: list[TrainGroup] = []
    for gate, runs in by_gate.items():
        after = group.after if gate is None else (*group.after, gate)
        divided.append(replace(group, after=after, runs=runs))
    return divided


def _rank_group(
    group: TrainGroup, gates: Mapping[str, str], order: Sequence[str]
) -> int:
    """How many looks come before a group."""
    gate = gates.get(group.runs[0].id)
    return 0 if gate is None else 1 + order.index(gate)
