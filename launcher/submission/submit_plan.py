"""Plans what a submit would do now, from what the workspace has and what is under way.

Reads the workspace and Slurm's answers; changes nothing.
"""

import logging
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

from jobs.contract import job_file
from jobs.contract.folder import Workspace, find_damage, is_committed
from jobs.contract.grid_record import ListedRun
from jobs.contract.job_file import jobs_before, runs_served
from jobs.contract.ledger_rows import Retried
from jobs.contract.look_decision import LookDecision
from jobs.contract.states import State
from jobs.runtime.slurm_calls import run_program
from launcher.clusters import slurm
from launcher.evaluation import evaluation_plan
from launcher.grids.grid import Grid
from launcher.grids.runs import Run
from launcher.lifecycle import failed_nodes, retry
from launcher.planning import freed_snapshots, limits, model_proofs
from launcher.planning.accounting_limits import SubmitQuota
from launcher.planning.plan import (
    EVALUATE,
    NOT_SELECTED,
    RETRY,
    Action,
    Allow,
    Look,
    Plan,
    Unwanted,
    choose_actions,
    make_plan,
    run_item,
)
from launcher.planning.site import Site
from launcher.status.journal_checks import flag_journals
from launcher.status.status import collect_states
from launcher.submission import canary, waves
from launcher.workspace import recorded_grids
from launcher.workspace.job_state import HELD_AFTER_LAUNCH, HELD_BY_USER, JobState
from launcher.workspace.ledger import Ledger, Submission
from launcher.workspace.scheduler_job import Job

logger = logging.getLogger(__name__)


def need_nothing(run: Run) -> float:  # noqa: ARG001  as an estimate is asked
    """The memory of a run where nobody estimates it: of many none takes the most."""
    return 0.0


@dataclass(frozen=True)
class _Facts:
    """What the workspace had when the plan was begun."""

    former: Sequence[ListedRun]  # rows of runs that the grid wanted once
    states: Mapping[str, JobState]  # of runs, by job folder
    beside: Mapping[str, JobState]  # of jobs beside them, that may hold them up
    makers: dict[str, str]  # what active jobs are going to make: the job folder of each
    is_made: Callable[[str], bool]
    looks: Sequence[Look] = ()  # between waves of the grid's runs
    # what looks have decided, by their folders
    decisions: Mapping[str, LookDecision] = field(
        default_factory=dict[str, LookDecision]
    )

    def is_made_or_coming(self, need: str) -> bool:
        return self.is_made(need) or need in self.makers

    def is_under_way(self, item: str) -> bool:
        """Whether a run of the grid, or a job beside, may still make something."""
        state = self.states.get(item) or self.beside.get(item)
        return state is not None and _is_under_way(state)

    def state_of(self, run: Run) -> JobState:
        return self.states[run_item(run)]


@dataclass(frozen=True)
class SubmitPlanner:
    """Plans a submit of a grid's runs, with no more jobs than `quota` has room for.

    `need_gb`: the memory that a run takes; of many on Slurm the one that takes most
    goes first. `only_looks`: nothing is submitted by the plan, so it is made also where
    Slurm cannot be asked.
    """

    site: Site
    grid: Grid
    runs: Sequence[Run]
    ledger: Ledger
    allow: Allow
    quota: SubmitQuota | None = None
    need_gb: Callable[[Run], float] = need_nothing
    only_looks: bool = False

    def plan_submit(self) -> Plan:
        """What a submit would do now."""
        facts = self._read_facts()

        def plan_actions(actions: list[Action]) -> Plan:
            return self._plan_actions(actions, facts)

        decided = choose_actions(
            self.runs, facts.states, self.allow, facts.is_made_or_coming
        )
        decided = waves.spare_actions(
            decided, facts.looks, facts.decisions, facts.states
        )
        plan = plan_actions(self._add_evaluations(decided, facts))
        chain = self.site.profile.slurm.chain_length
        plan = limits.cut_to_quota(plan, self.quota, chain, plan_actions)
        failures = self._describe_failures(plan, facts)
        plan = replace(
            plan,
            unwanted=[
                Unwanted(row.run, row.axes, facts.states[f"runs/{row.run}"])
                for row in facts.former
            ],
            failures=failures,
            exclude=self._choose_excluded_nodes(failures),
            held=self._find_held_jobs(plan, facts),
            is_local=self._is_local,
            freed=self._describe_freed(facts),
        )
        if self._is_local:
            return plan
        return replace(
            plan,
            elsewhere=find_unreachable_needs(
                self.site, self.ledger, plan, facts.states
            ),
        )

    def _describe_freed(self, facts: _Facts) -> str:
        """What `zsg gc` frees of the grid's runs after a submit; empty for nothing."""
        freed = freed_snapshots.find_freed_snapshots(
            self.site.workspace, self.grid.name, self.runs, facts.states
        )
        return freed.words if freed else ""

    @property
    def _is_local(self) -> bool:
        return self.site.profile.kind == "local"

    def _read_facts(self) -> _Facts:
        workspace = self.site.workspace
        former = recorded_grids.find_former(
            workspace, self.grid.name, {run.id for run in self.runs}
        )
        before = {run_item(stage) for run in self.runs for stage in run.all_before}
        items = {
            *map(run_item, self.runs),
            *before,
            *(f"runs/{row.run}" for row in former),
        }

        def is_made(need: str) -> bool:
            return _is_made(self.site, need)

        looks = waves.list_looks(self.grid, self.runs)
        beside = self._collect_beside(before)
        states = self._collect_states(items)
        return _Facts(
            former,
            freed_snapshots.mark_removed(workspace, self.runs, states),
            beside,
            self._find_makers(before, beside),
            cache(is_made),
            looks,
            waves.read_decisions(workspace, looks),
        )

    def _collect_states(self, items: Iterable[str]) -> dict[str, JobState]:
        run = run_program
        is_slurm_away = not self._is_local and not self.site.cluster.config
        if self.only_looks and is_slurm_away:
            run = slurm.run_without_queue  # each call would wait as long as the last
        workspace = self.site.workspace
        states = collect_states(
            workspace, items, self.ledger, run, only_looks=self.only_looks
        )
        return flag_journals(workspace, states, keeps=False)

    def _collect_beside(self, before: Collection[str]) -> dict[str, JobState]:
        """The states of prepare jobs, and of the runs of `before`, that have not made all;
        and of this grid's canaries and evaluate jobs."""
        scheduler = self.site.profile.kind
        # A job on this machine cannot wait for one on Slurm, nor the other way round.
        items = [
            item
            for item, last in self.ledger.by_item().items()
            if last.scheduler == scheduler and self._may_hold_up(item, last, before)
        ]
        return self._collect_states(items)

    def _may_hold_up(
        self, item: str, last: Submission, before: Collection[str]
    ) -> bool:
        """Whether a job beside the grid's runs may keep them from something."""
        if _is_maker(item, before):
            return not _has_made_all(self.site, item)
        return last.grid == self.grid.name and not item.startswith("runs/")

    def _find_makers(
        self, before: Collection[str], beside: Mapping[str, JobState]
    ) -> dict[str, str]:
        """What active prepare jobs, and the runs of `before`, are going to make, and in
        which folder."""
        makers: dict[str, str] = {}
        for item, state in beside.items():
            if _is_maker(item, before) and _is_under_way(state):
                makes = _list_made(self.site.workspace, item)
                makers |= dict.fromkeys(makes, item)
        return makers

    def _plan_actions(self, actions: list[Action], facts: _Facts) -> Plan:
        plan = make_plan(actions, facts.is_made, facts.makers)
        plan = waves.with_looks(
            plan,
            facts.looks,
            {item for item in facts.decisions if not facts.decisions[item].is_over},
            facts.is_under_way,
        )
        if self._is_local or not self.allow.canary:
            return plan
        proven = [a.run for a in actions if _has_trained(facts.state_of(a.run))]
        return canary.with_first(plan, self.need_gb, proven)

    def _add_evaluations(self, actions: list[Action], facts: _Facts) -> list[Action]:
        """The actions, with runs evaluated that lack metrics of answers; reads the
        folders of runs that want any."""
        workspace = self.site.workspace
        evaluated = {
            a.run.id: evaluation_plan.read_evaluation_state(workspace, a.run)
            for a in actions
            if a.run.scored
        }
        if not evaluated:
            return actions
        last = self.ledger.by_item()
        items = [item for item, job in last.items() if job.kind == "evaluate"]
        states = self._collect_states(items)
        active = [item for item, state in states.items() if _is_under_way(state)]
        return evaluation_plan.add_evaluations(
            actions,
            facts.states,
            self.allow,
            evaluated,
            evaluation_plan.keys_under_evaluation(workspace, active),
        )

    def _describe_failures(self, plan: Plan, facts: _Facts) -> dict[str, Retried]:
        """How each run failed that the plan retries, by job folder."""
        failed = {
            run_item(a.run): facts.state_of(a.run)
            for a in plan.actions
            if a.kind == RETRY
        }
        nodes: dict[str, list[str]] = {}
        if self.site.profile.kind == "slurm":
            nodes = failed_nodes.find_failed_nodes(
                self.site.workspace, self.ledger, failed
            )
        return retry.make_retry_rows(self.site.workspace, failed, nodes)

    def _choose_excluded_nodes(self, failures: Mapping[str, Retried]) -> dict[str, str]:
        """The nodes that new jobs are kept off, each with why."""
        if not failures or self.site.profile.kind != "slurm":
            return {}
        return failed_nodes.to_avoid(self.ledger, failures)

    def _find_held_jobs(self, plan: Plan, facts: _Facts) -> list[Job]:
        """Jobs that Slurm holds and would never start: those that a node could not launch,
        and, where failures are tried again, those that their own user holds, as far as
        what is selected needs them.

        A submit has released each of its jobs; but a controller that crashes forgets the
        last seconds, and nothing tells that from what somebody has put on hold since.
        """
        states = {**facts.states, **facts.beside}
        needed = set[str]()
        if self.allow.retry and any(map(_is_held_by_user, states.values())):
            needed = self._list_needed(plan, facts)
        stuck = {
            item: state.slurm
            for item, state in states.items()
            if state.reason == HELD_AFTER_LAUNCH
            or (item in needed and _is_held_by_user(state))
        }
        return [
            job
            for item, job_id in stuck.items()
            for job in self.ledger.jobs_of(item)
            if job.id == job_id
        ]

    def _list_needed(self, plan: Plan, facts: _Facts) -> set[str]:
        """The job folders of the selected runs, of what these and new jobs wait for, and
        of evaluate jobs that serve them."""
        selected = {run_item(a.run) for a in plan.actions if a.reason != NOT_SELECTED}
        waiting = {item for item in selected if facts.states[item].is_active}
        for new_job in (*plan.prepares, *plan.groups):
            waiting.update(new_job.after)
        return self._add_jobs_before(waiting) | self._list_serving(selected, facts)

    def _add_jobs_before(self, items: set[str]) -> set[str]:
        """Jobs with all that they wait for, and what that waits for."""
        root = self.site.workspace.root
        needed = set[str]()
        unread = items
        while unread:
            needed |= unread
            jobs = [job_file.read_job_if_sound(root / item) for item in unread]
            unread = {item for job in jobs for item in jobs_before(job)} - needed
        return needed

    def _list_serving(self, items: set[str], facts: _Facts) -> set[str]:
        """The evaluate jobs that serve any of these runs."""
        root = self.site.workspace.root
        serving = set[str]()
        for item in facts.beside:
            served = runs_served(job_file.read_job_if_sound(root / item))
            if not items.isdisjoint(f"runs/{run.run}" for run in served):
                serving.add(item)
        return serving


def _is_held_by_user(state: JobState) -> bool:
    """Whether a job is held that its own submit has released."""
    return state.reason == HELD_BY_USER and not state.unreleased


def find_unreachable_needs(
    site: Site, ledger: Ledger, plan: Plan, states: Mapping[str, JobState]
) -> list[str]:
    """What new jobs would have to wait for and cannot: no job waits for one on another
    cluster."""
    cluster, last = site.cluster.name, ledger.by_item()
    refusals: list[str] = []
    for item in sorted(_list_awaited(plan, states) & last.keys()):
        its_cluster = last[item].cluster
        if its_cluster and cluster and its_cluster != cluster:
            refusals.append(
                f"{item} is under way on cluster {its_cluster}, and a job on cluster {cluster}"
                f" cannot wait for it: submit to {its_cluster} (SLURM_CLUSTERS,"
                " slurm.sbatch.clusters), or submit again when it has ended"
            )
    return refusals


def _list_awaited(plan: Plan, states: Mapping[str, JobState]) -> set[str]:
    """The job folders that new jobs of a plan wait for and that are not of the plan."""
    new = {prepare.item for prepare in plan.prepares}
    new |= {run_item(run) for group in plan.groups for run in group.runs}
    awaited = {item for job in (*plan.prepares, *plan.groups) for item in job.after}
    evaluated = [run_item(a.run) for a in plan.actions if a.kind == EVALUATE]
    active = {item for item in evaluated if states[item].is_active}
    return (awaited - new) | active


def _has_trained(state: JobState) -> bool:
    """Whether a run has trained to a finite loss."""
    has_stepped = state.state == State.DONE or (
        state.state == State.RUNNING and bool(state.step)
    )
    return has_stepped and state.loss is not None and math.isfinite(float(state.loss))


def _is_maker(item: str, before: Collection[str]) -> bool:
    """Whether runs wait for what a job makes: a prepare job, or a stage before them."""
    return item.startswith("prepare/") or item in before


def _is_under_way(state: JobState) -> bool:
    """Whether a job may still make something: not where Slurm only clears up after it."""
    has_ended = state.state in (State.DONE, State.FAILED, State.CANCELLED)
    return state.is_active and not (state.stopped or has_ended)


def _is_made(site: Site, need: str) -> bool:
    """Whether something made is whole; tells of what has lost files since."""
    folder = site.workspace.root / need
    damage = find_damage(folder) if is_committed(folder) else None
    if damage:
        logger.warning(f"note: {folder}: {damage}; it is made again")
    return model_proofs.is_made(site, need)


def _list_made(workspace: Workspace, item: str) -> list[str]:
    job = job_file.read_job_if_sound(workspace.root / item)
    return job.makes if job else []


def _has_made_all(site: Site, item: str) -> bool:
    makes = _list_made(site.workspace, item)
    return all(model_proofs.is_made(site, need) for need in makes)
