"""Parts the runs of a grid whose claims are looked at into waves: the runs of a wave wait
for the look before it.

Pure but for decisions, which are read. All waves are submitted at once; nothing on a node
submits anything. What a look is of stands in its id, so the same look is never made twice,
and a changed grid has looks of its own.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from jobs.contract import look_decision
from jobs.contract.folder import Workspace
from jobs.contract.look_decision import LookDecision
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
    spared: dict[str, str] = {}
    for look in looks:
        decision = decisions.get(look.item)
        if decision is not None and decision.is_over:
            spared |= {
                run.id: decision.why for run in look.spares if run.id not in spared
            }
    changed: list[Action] = []
    for action in actions:
        evidence = states[run_item(action.run)].evidence or ""
        if action.run.id in spared:
            if action.kind in TRAINING:
                reason = f"{SPARED_BY}{spared[action.run.id]}"
                action = replace(action, kind=SKIP, reason=reason)
        elif looks and action.kind == SKIP and evidence.startswith(SPARED_BY):
            if not states[run_item(action.run)].is_active:
                action = replace(
                    action, kind=SUBMIT, reason="spared before, wanted now"
                )
        changed.append(action)
    return changed


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
    gate_of: dict[str, str] = {}
    for look in pending:
        gate_of |= {run.id: look.item for run in look.spares}
    groups = [part for group in plan.groups for part in _part_group(group, gate_of)]
    order = {look.item: number for number, look in enumerate(pending)}
    groups.sort(key=lambda group: _rank(group, gate_of, order))
    planned = {run_item(run) for group in groups for run in group.runs}
    gates = {
        gate_of[run.id] for group in groups for run in group.runs if run.id in gate_of
    }
    new: list[Look] = []
    for look in pending:
        if look.item not in gates or is_active(look.item):
            continue
        items = [run_item(run) for run in look.runs]
        after = [item for item in items if item in planned or is_active(item)]
        new.append(replace(look, after=after))
    needed = {
        run: (*after, gate_of[run]) if run in gate_of else after
        for run, after in plan.needed.items()
    }
    return replace(plan, groups=groups, needed=needed, looks=new)


def _part_group(group: TrainGroup, gate_of: Mapping[str, str]) -> list[TrainGroup]:
    """A group by the looks that its runs wait for."""
    by_gate: dict[str | None, list[Run]] = {}
    for run in group.runs:
        by_gate.setdefault(gate_of.get(run.id), []).append(run)
    parts: list[TrainGroup] = []
    for gate, runs in by_gate.items():
        after = group.after if gate is None else (*group.after, gate)
        parts.append(replace(group, after=after, runs=runs))
    return parts


def _rank(
    group: TrainGroup, gate_of: Mapping[str, str], order: Mapping[str, int]
) -> int:
    """How many looks come before a group."""
    gate = gate_of.get(group.runs[0].id)
    return 0 if gate is None else 1 + order[gate]
