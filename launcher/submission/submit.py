"""Carries a plan out: intent on disk, held jobs to Slurm, ids on disk, then release.
Killed anywhere, it resumes.

What a killed submit left behind is settled first by the next one: jobs that Slurm has
under the intent's name are adopted, intents that never reached it are given up. So
there is one job per run, whatever died when.
"""

import logging
import shutil
import uuid
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, filterfalse
from pathlib import Path
from typing import Any, TypeVar

from msgspec import UNSET

from jobs.contract import exit_record, grid_record, job_file, node_check
from jobs.contract.attempt import now_ms
from jobs.contract.folder import write_bytes
from jobs.contract.grid_record import AllowedPlugin, GridRecord, Keeping, ListedRun
from jobs.contract.job_file import SubmittedCode
from jobs.contract.ledger_rows import Retried
from jobs.contract.states import Outcome
from jobs.files import locks, ownership
from jobs.notices import approved_commands
from launcher.clusters import profiles, slurm, slurm_retry
from launcher.clusters.profiles import JobSize, Profile
from launcher.grids import claim_deviations, grid_claims, kept_summaries
from launcher.grids.grid import Grid
from launcher.grids.runs import Run
from launcher.planning import freed_snapshots
from launcher.planning.estimates import Estimates
from launcher.planning.plan import (
    EVALUATE,
    Canary,
    Evaluation,
    Look,
    Plan,
    Prepare,
    TrainGroup,
    evaluation_later,
    evaluation_of,
    run_item,
)
from launcher.planning.site import Site
from launcher.status.status import collect_states
from launcher.submission import job_files, local, sbatch
from launcher.workspace import code_snapshot, recorded_grids
from launcher.workspace.ledger import Ledger, Submission
from launcher.workspace.scheduler_job import Job
from launcher.workspace.side_by_side import write_side_by_side
from zsg_core.errors import ClusterError
from zsg_core.shown_text import name_few
from zsg_core.suites import list_key_variables

logger = logging.getLogger(__name__)

T = TypeVar("T")
LOOK_MIN = 60  # minutes that a look may take: journals of many runs are read
# of prepare jobs, in the order in which those that wait for none of the same plan come
KINDS = ("sample", "score", "prepare")


def refuse_without_slurm() -> None:
    """Raises ClusterError where Slurm's commands are not at hand."""
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        raise ClusterError(
            "sbatch and srun are not on the PATH; submit from a login node of the cluster"
        )


def record_grid(
    site: Site,
    grid: Grid,
    runs: Sequence[Run],
    opened_by: Mapping[str, Any],
    because: str = "",
) -> None:
    """Keeps which runs the grid wants, for status, sync and whoever asks later.

    `opened_by`: the file and the profile by which `zsg retry` opens it again;
    `because`: why its claims changed. UserError for locked ones that change without a
    reason.
    """
    earlier = grid_record.read_grid_record(site.workspace, grid.name)
    count_done = partial(_count_done, site, runs)
    deviations = claim_deviations.collect_deviations(
        earlier,
        grid,
        now_ms(),
        count_done,
        because,
        [run.axes for run in runs],
    )
    dated = earlier.claims if earlier is not None else None
    claims = grid_claims.date_claims(grid.claims, dated or [], now_ms(), count_done)
    keeping = freed_snapshots.collect_wanted(runs)
    if changed := kept_summaries.find_refusal(earlier, grid):
        raise changed
    record = GridRecord(
        name=grid.name,
        **opened_by,
        profile=site.profile.name,
        tracking=site.profile.tracking.uri,
        overrides=list(grid.overrides),
        submitted=now_ms(),
        code=SubmittedCode(**code_snapshot.take_snapshot(site.workspace)),
        corpora=_list_corpora(runs),
        proofs=sorted({run.proof for run in runs if run.proof}),
        before=_list_stages_before(runs, keeping),
        claims=claims,
        runs=[_make_listed_run(run, keeping[run.id]) for run in runs],
        notify=site.profile.receivers or UNSET,
        looks=claim_deviations.keep_looks(grid.looks),
        deviations=claim_deviations.keep_deviations(deviations),
        summaries=kept_summaries.make_record(grid),
        locked=claim_deviations.keep_lock(earlier, grid.looks),
        plugins=_list_plugins(grid) or UNSET,
    )
    approved_commands.approve_commands(site.profile.receivers)
    copies = {plugin.name: plugin.content for plugin in grid.plugins}
    recorded_grids.write_grid(site.workspace, grid.path, record, copies)


def _count_done(site: Site, runs: Iterable[Run]) -> int:
    """How many of these runs are done."""
    return sum(_is_done(site, run) for run in runs)


def _list_corpora(runs: Iterable[Run]) -> list[str]:
    """The corpora of all stages of the runs, each once."""
    stages = chain.from_iterable([*run.all_before, run] for run in runs)
    return list(dict.fromkeys(stage.corpus_id for stage in stages))


def _list_plugins(grid: Grid) -> list[AllowedPlugin]:
    """The plugins of a grid, as its record has them."""
    return [
        AllowedPlugin(
            file=plugin.name,
            digest=plugin.digest,
            declares=[f"{one.kind} {one.full_name}" for one in plugin.declared],
        )
        for plugin in grid.plugins
    ]


def _list_stages_before(
    runs: Sequence[Run], keeping: Mapping[str, list[Keeping]]
) -> list[ListedRun]:
    """The runs that others begin with and that the grid does not list itself.
    `keeping`: what each run keeps."""
    return [
        ListedRun(
            run=run,
            axes={"stages": f"the first {count}"},
            keeping=keeping[run],
        )
        for run, count in _count_stages_before(runs).items()
    ]


def _count_stages_before(runs: Sequence[Run]) -> dict[str, int]:
    """How many stages each run has that others begin with and that the grid does not
    list itself."""
    listed = {run.id for run in runs}
    return {
        stage.id: len(stage.recipe["stages"])
        for run in runs
        for stage in run.all_before
        if stage.id not in listed
    }


def _make_listed_run(run: Run, keeping: list[Keeping]) -> ListedRun:
    """What a grid's record says of a run."""
    return ListedRun(
        run=run.id,
        axes=run.axes,
        recipe=run.recipe,
        model=run.model_name,
        strategy=run.strategy,
        keeping=keeping,
    )


def _is_done(site: Site, run: Run) -> bool:
    record = exit_record.read_if_sound(site.workspace.run(run.id))
    return record is not None and record.outcome == Outcome.DONE


def settle_submissions(site: Site, ledger: Ledger) -> None:
    """Finishes or gives up what an earlier submit left unfinished on Slurm; local jobs
    need no settling."""
    for submission in ledger.unfinished():
        if submission.scheduler == "local":
            continue
        if site.profile.kind == "local":
            logger.warning(
                f"{submission.name} was cut short; a submit with its Slurm profile settles it"
            )
            continue
        logger.info(
            "an earlier submit was cut short; looking for"
            f" {submission.name}{_on_cluster(submission)}"
        )
        if not submission.ids:
            ids = sbatch.adopt_jobs(site.workspace, submission, submission.name)
            if not ids:
                ledger.void(submission, "never reached Slurm")
                continue
            ledger.submitted(submission, ids)
        if submission.kind == node_check.KIND:
            _end_cut_check(ledger, submission)
            continue
        while len(submission.links) < submission.chain:
            ids = sbatch.adopt_jobs(
                site.workspace,
                submission,
                submission.link_name(len(submission.links) + 1),
            )
            if not ids:
                break  # a chain of fewer links does with fewer
            ledger.linked(submission, ids)
        answer = slurm.release_jobs(submission.jobs)
        _tell_release(answer)
        if answer.is_settled(submission.jobs):
            ledger.released(submission)


def _end_cut_check(ledger: Ledger, submission: Submission) -> None:
    """Ends a check of nodes that was not sent to its end: nobody waits for it, and
    released it would hold its GPUs for nobody."""
    ledger.cancelled(submission, submission.items)
    jobs = submission.jobs
    for reason in slurm_retry.retry_while_unreachable(lambda: slurm.cancel_jobs(jobs)):
        logger.warning(f"{reason}; it was not touched")
    ledger.released(submission)  # settled: nothing of it is left to do
    logger.warning(
        f"{submission.name}, a check of nodes that was cut short, was cancelled"
    )


def _on_cluster(submission: Submission) -> str:
    return f" on cluster {submission.cluster}" if submission.named else ""


def _tell_release(answer: slurm.ReleaseAnswer) -> None:
    for reason in answer.untouched:
        logger.warning(f"{reason}; it was not touched")
    for refusal in answer.refused:
        logger.warning(refusal.words)


def end_replaced(plan: Plan, ledger: Ledger) -> None:
    """Ends what earlier submissions of the plan's jobs may still have in the queue, or
    a run would have two jobs.

    Nobody knows what became of an `unknown` run; where Slurm has its job after all, the
    new one takes its place.
    """
    jobs = _list_earlier_jobs(plan, ledger)
    if not jobs:
        return
    queue = slurm_retry.retry_while_unreachable(lambda: slurm.query_queue(jobs))
    queued = [job for job, state in queue.active.items() if not state.is_leaving]
    if queued:
        ids = ", ".join(slurm.compact_ids(job.id for job in queued))
        logger.warning(
            f"Slurm still has {ids} of earlier submissions of these jobs: cancelled, as new ones"
            " take their place"
        )
        slurm_retry.retry_while_unreachable(lambda: slurm.cancel_jobs(queued))
    for job, why in queue.away.items():
        logger.warning(
            f"job {job.id} of an earlier submission is {why}; it was not cancelled"
        )


def _list_earlier_jobs(plan: Plan, ledger: Ledger) -> list[Job]:
    items = [prepare.item for prepare in plan.prepares]
    items += [run_item(run) for group in plan.groups for run in group.runs]
    return [job for item in items for job in ledger.jobs_of(item)]


def release_held_jobs(plan: Plan) -> None:
    """Lets jobs start that Slurm holds: it never would itself."""
    if not plan.held:
        return
    answer = slurm_retry.retry_while_unreachable(
        lambda: slurm.release_jobs(plan.held, whole_arrays=False)
    )
    _tell_release(answer)
    released = [job.id for job in plan.held if not answer.is_refused(job)]
    if released:
        logger.warning(
            f"Slurm held {name_few(slurm.compact_ids(released))}, since a launch had failed, its"
            " controller had forgotten the release, or you held them: released"
        )


@dataclass(frozen=True)
class SlurmSubmitter:
    """Submits a plan's jobs to Slurm, in arrays of at most `longest_array` jobs."""

    site: Site
    grid: Grid
    plan: Plan
    ledger: Ledger
    longest_array: int

    def submit_plan(self) -> None:
        """Submits prepare jobs, then train jobs that wait for them, then releases all.

        If one is refused, those accepted before it are released all the same: they are
        wanted and complete.
        """
        end_replaced(self.plan, self.ledger)
        sent = list[Submission]()
        try:
            # One by one: what is in Slurm is released even if the next is refused.
            for submission in self._submit_all():
                sent.append(submission)
        finally:
            self._release(sent)

    def _submit_all(self) -> Iterator[Submission]:
        beside: list[Submission] = []  # evaluate jobs that a look waits for, too
        looks = {look.item: look for look in self.plan.looks}
        for array in order_arrays(self.plan):
            if isinstance(array, TrainGroup):
                yield from self._submit_wave(array, looks, beside)
            else:
                for prepares in _split(array, self.longest_array):
                    yield self._submit_prepares(prepares)
        trained = [a.run for a in self.plan.actions if a.kind == EVALUATE]
        if trained:
            yield from self._submit_evaluation_later(evaluation_later(trained))

    def _submit_wave(
        self,
        group: TrainGroup,
        looks: dict[str, Look],
        beside: list[Submission],
    ) -> Iterator[Submission]:
        """A group of runs, and before it the look that it waits for, where that is not
        submitted yet. `beside`: the evaluate jobs so far."""
        for item in group.after:
            if item in looks:
                yield self._submit_look(looks.pop(item), beside)
        for sent in self._submit_array(group):
            if sent.kind == "evaluate":
                beside.append(sent)
            yield sent

    def _submit_array(self, group: TrainGroup) -> Iterator[Submission]:
        """A group of runs, in arrays as long as Slurm takes them."""
        for runs in _split(group.runs, self.longest_array):
            yield from self._submit_group(replace(group, runs=runs))

    def _submit_group(self, group: TrainGroup) -> Iterator[Submission]:
        """An array of runs, the evaluate jobs that serve it, and the job that watches
        the run that goes first."""
        trained = self._submit_runs(group)
        yield trained
        yield from self._submit_evaluators(evaluation_of(group.runs), trained)
        first = self.plan.canary
        if first and group.runs == [first.run]:
            yield self._submit_canary(first, trained)

    def _release(self, sent: Sequence[Submission]) -> None:
        if not sent:
            return
        jobs = [job for submission in sent for job in submission.jobs]
        answer = slurm_retry.retry_while_unreachable(lambda: slurm.release_jobs(jobs))
        _tell_release(answer)
        for submission in sent:
            if answer.is_settled(submission.jobs):
                self.ledger.released(submission)

    def _send(
        self,
        submission: Submission,
        size: JobSize,
        after: str | None,
        profile: Profile | None = None,
    ) -> Submission:
        submitter = sbatch.SbatchSubmitter(self.site.workspace, self.ledger)
        return submitter.send_submission(
            profile or self.site.profile, submission, size, after
        )

    def _submit_prepares(self, prepares: Sequence[Prepare]) -> Submission:
        first, profile = prepares[0], self.site.profile
        kind, size = "prepare", profile.prepare
        if first.on_gpus:
            kind, size = _name_kind(first), profile.evaluate
        last = self.ledger.by_item()
        submission = self.ledger.intend(
            kind=kind,
            grid=self.grid.name,
            items=[prepare.item for prepare in prepares],
            exclude=list(self.plan.exclude),
            **self.site.scheduling,
        )
        for prepare in prepares:
            job_files.write_prepare(
                self.site.workspace, prepare, profile, submission.id
            )
        ids = [last[item].job_ids(item) for item in sorted(first.after)]
        after = sbatch.build_dependency([links[-1] for links in ids if links])
        keys = [key for each in prepares for key in job_files.list_asked_keys(each)]
        profile = profiles.keep_variables(profile, keys)
        return self._send(submission, size, after, profile)

    def _submit_runs(self, group: TrainGroup) -> Submission:
        items, plan = [run_item(run) for run in group.runs], self.plan
        last = self.ledger.by_item()
        ids = [last[item].job_ids(item) for item in group.after if item in last]
        after = [links[-1] for links in ids if links]
        is_behind_canary = plan.canary and plan.canary.item in group.after
        canary_job = after[-1] if is_behind_canary else None
        submission = self.ledger.intend(
            kind="train",
            grid=self.grid.name,
            items=items,
            chain=self.site.profile.slurm.chain_length,
            retries=_select_failures(items, plan.failures),
            exclude=list(plan.exclude),
            **self.site.scheduling,
        )
        self._write_jobs(group, submission)
        dependency = sbatch.build_dependency(
            after, group.whatever_they_made, canary_job
        )
        return self._send(submission, group.size, dependency)

    def _write_jobs(self, group: TrainGroup, submission: Submission) -> None:
        """Writes the job.json of each run of an array. They are encoded here: writers
        side by side are to wait for the disk, not for one another's Python."""
        workspace, starts = self.site.workspace, self.plan.starts
        estimates = Estimates(workspace, self.site.profile, group.runs)
        head = job_files.make_head(
            "train", submission.id, workspace, group.size, self.site.profile
        )
        contents: dict[Path, bytes] = {}
        for run in group.runs:
            job = job_files.make_train(
                workspace,
                run,
                estimates,
                head,
                self.plan.needed[run.id],
                run.id in starts,
            )
            path = job_file.job_path(workspace.root / run_item(run))
            contents[path] = job_file.encode_job(job)

        def write(path: Path) -> None:
            write_bytes(path, contents[path])

        write_side_by_side(write, contents)

    def _submit_canary(self, first: Canary, trained: Submission) -> Submission:
        """Submits the job that watches the first run, once that has begun; it takes one CPU."""
        size = JobSize(time_min=first.run.size.time_min)
        watch = self.ledger.intend(
            kind="canary",
            grid=self.grid.name,
            items=[first.item],
            **self.site.scheduling,
        )
        job_files.write_canary(
            self.site.workspace, first, self.site.profile, watch.id, trained, size
        )
        sent = self._send(watch, size, f"after:{trained.ids[0]}")
        logger.info(
            f"run {first.run.id} goes first: {first.waiting} others wait for its first checkpoint"
            " (--no-canary: none does)"
        )
        return sent

    def _submit_look(self, look: Look, beside: Sequence[Submission]) -> Submission:
        """Submits the job that looks at the claims once the waves before it have ended,
        and the evaluate jobs beside them; it takes one CPU.

        The look before it and the job that watches the first run must have ended well:
        where they have not, none of the runs behind this look is to start.
        """
        # a partition may grant no more than the runs take
        longest = max(run.size.time_min for run in look.runs)
        size = JobSize(time_min=min(LOOK_MIN, longest))
        sent = self.ledger.intend(
            kind="look",
            grid=self.grid.name,
            items=[look.item],
            **self.site.scheduling,
        )
        job_files.write_look(
            self.site.workspace,
            look,
            self.grid.name,
            self.site.profile,
            sent.id,
            size,
        )
        ended = self._list_last_jobs(filter(job_file.is_run_item, look.after))
        ended += [job_id for evaluate in beside for job_id in evaluate.ids]
        well = self._list_last_jobs(filterfalse(job_file.is_run_item, look.after))
        after = [
            sbatch.build_dependency(ended, whatever_they_made=True),
            sbatch.build_dependency(well),
        ]
        return self._send(sent, size, ",".join(filter(None, after)) or None)

    def _list_last_jobs(self, items: Iterable[str]) -> list[str]:
        """The ids of jobs, or of the last links of their chains, as far as Slurm has
        any."""
        last = self.ledger.by_item()
        links = [last[item].job_ids(item) for item in items if item in last]
        return [ids[-1] for ids in links if ids]

    def _submit_evaluators(
        self, evaluation: Evaluation, trained: Submission
    ) -> Iterator[Submission]:
        """Submits the evaluate jobs of an array of runs: some that start once runs of
        it have, one after all have ended."""
        if not evaluation.runs:
            return
        for number in range(evaluation.beside):
            # they begin as the array's tasks do
            first = trained.ids[number * len(trained.ids) // evaluation.beside]
            yield self._submit_evaluate(evaluation.runs, f"after:{first}", drains=False)
        ids = [trained.job_ids(item)[-1] for item in trained.items]
        ends = sbatch.build_dependency(ids, whatever_they_made=True)
        yield self._submit_evaluate(evaluation.runs, ends, drains=True)

    def _submit_evaluation_later(self, evaluation: Evaluation) -> Iterator[Submission]:
        """Submits the evaluate jobs of runs that were submitted before; where some
        still train, after their ends."""
        last = self.ledger.by_item()
        items = [run_item(run) for run in evaluation.runs]
        states = collect_states(self.site.workspace, items, self.ledger)
        ids = [
            last[item].job_ids(item)[-1]
            for item, state in states.items()
            if state.is_active and item in last
        ]
        ends = sbatch.build_dependency(ids, whatever_they_made=True)
        for _ in range(evaluation.after):
            yield self._submit_evaluate(evaluation.runs, ends, drains=True)

    def _submit_evaluate(
        self, runs: Sequence[Run], after: str | None, drains: bool
    ) -> Submission:
        item, profile = _name_evaluate_item(runs), self.site.profile
        intent = self.ledger.intend(
            kind="evaluate",
            grid=self.grid.name,
            items=[item],
            **self.site.scheduling,
        )
        job_files.write_evaluate(
            self.site.workspace, item, runs, profile, intent.id, drains
        )
        keys = list_key_variables(suite for run in runs for suite in run.suites)
        profile = profiles.keep_variables(profile, keys)
        return self._send(intent, profile.evaluate, after, profile)


def _group_prepares(prepares: Iterable[Prepare]) -> list[list[Prepare]]:
    """Prepare jobs that are one array: of one kind, and waiting for the same jobs,
    which come before them."""
    groups: dict[tuple[int, bool, frozenset[str]], list[Prepare]] = {}
    for prepare in prepares:
        rank = KINDS.index(_name_kind(prepare))
        # what is asked of a server comes before what is made of it
        key = (rank, prepare.server is None, frozenset(prepare.after))
        groups.setdefault(key, []).append(prepare)
    return [
        groups[key]
        for key in sorted(groups, key=lambda key: (key[0], key[1], sorted(key[2])))
    ]


def _name_kind(prepare: Prepare) -> str:
    """The kind of job that a prepare job is for Slurm."""
    if prepare.samples:
        # to ask a server takes no GPU
        return "sample" if prepare.server is None else "prepare"
    return "score" if prepare.scores else "prepare"


def order_arrays(plan: Plan) -> list[list[Prepare] | TrainGroup]:
    """The arrays of a plan in an order in which each comes after all that it waits for:
    prepare jobs before runs, but where these score examples by a stage's weights."""
    waiting: list[list[Prepare] | TrainGroup] = [
        *_group_prepares(plan.prepares),
        *plan.groups,
    ]
    ordered: list[list[Prepare] | TrainGroup] = []
    while waiting:
        unsent = {item for array in waiting for item in _list_items(array)}
        ready = [
            array
            for array in waiting
            if unsent.isdisjoint(_list_awaited(array, plan.looks))
        ]
        assert ready, "jobs wait for one another in a circle"
        # one at a time: the next may be one that comes first among those now ready
        ordered.append(ready[0])
        waiting.remove(ready[0])
    return ordered


def _list_items(array: list[Prepare] | TrainGroup) -> list[str]:
    """The job folders of an array."""
    if isinstance(array, TrainGroup):
        return [run_item(run) for run in array.runs]
    return [prepare.item for prepare in array]


def _list_awaited(array: list[Prepare] | TrainGroup, looks: Sequence[Look]) -> set[str]:
    """The job folders that an array waits for, but for its own; behind a look, what that
    waits for."""
    after = set(array.after if isinstance(array, TrainGroup) else array[0].after)
    for look in looks:
        if look.item in after:
            after |= set(look.after)
    return after - set(_list_items(array))


def _name_evaluate_item(runs: Sequence[Run]) -> str:
    """A folder that no evaluate job had: several serve the same runs."""
    return f"evaluate/{runs[0].id}-{uuid.uuid4().hex[:4]}"


def _split(jobs: Sequence[T], length: int) -> Iterator[list[T]]:
    for start in range(0, len(jobs), length):
        yield list(jobs[start : start + length])


def _select_failures(
    items: Iterable[str], failures: Mapping[str, Retried]
) -> dict[str, Retried]:
    return {item: failures[item] for item in items if item in failures}


def submit_local(
    site: Site, grid: Grid, plan: Plan, ledger: Ledger
) -> tuple[list[local.LocalJob], list[int]]:
    """Records the plan's jobs for this machine; returns them, and locks that say that
    this process runs them.

    The locks are descriptors; they must stay open for as long as the caller runs the jobs.
    """
    recorder = _LocalRecorder(site, grid, plan, ledger)
    recorder.record_prepares()
    recorder.record_runs()
    recorder.record_looks()
    recorder.record_evaluation()
    return recorder.jobs, recorder.locks


@dataclass(frozen=True)
class _LocalRecorder:
    """Records jobs that this process is going to run, and holds a lock for each submission."""

    site: Site
    grid: Grid
    plan: Plan
    ledger: Ledger
    jobs: list[local.LocalJob] = field(default_factory=list[local.LocalJob])
    locks: list[int] = field(default_factory=list[int])

    def record_prepares(self) -> None:
        if not self.plan.prepares:
            return
        items = [prepare.item for prepare in self.plan.prepares]
        with self._record("prepare", items) as submission:
            for prepare in self.plan.prepares:
                job_files.write_prepare(
                    self.site.workspace, prepare, self.site.profile, submission
                )
                needs, after = frozenset(prepare.needs), tuple(sorted(prepare.after))
                self.jobs.append(local.LocalJob(prepare.item, needs, after))

    def record_runs(self) -> None:
        runs = self._runs
        if not runs:
            return
        retries, starts = _select_failures(runs, self.plan.failures), self.plan.starts
        with self._record("train", list(runs), retries) as submission:
            for item, run in runs.items():
                needed = self.plan.needed[run.id]
                job_files.write_train(
                    self.site.workspace,
                    run,
                    self.site.profile,
                    submission,
                    needed,
                    run.id in starts,
                )
                looks = tuple(filter(job_file.is_look_item, needed))
                job = local.LocalJob(
                    item,
                    run.needs,
                    needed,
                    waits=bool(looks),
                    well=looks,
                    max_length=run.stage["train"]["max_length"],
                )
                self.jobs.append(job)

    def record_looks(self) -> None:
        """Looks take place once the waves before them have ended. Where one fails, no
        wave and no look behind it starts, as on Slurm."""
        for look in self.plan.looks:
            with self._record("look", [look.item]) as submission:
                job_files.write_look(
                    self.site.workspace,
                    look,
                    self.grid.name,
                    self.site.profile,
                    submission,
                    JobSize(time_min=LOOK_MIN),
                )
                job = local.LocalJob(
                    look.item,
                    after=tuple(look.after),
                    waits=True,
                    well=tuple(filter(job_file.is_look_item, look.after)),
                )
                self.jobs.append(job)

    def record_evaluation(self) -> None:
        scored = [run for group in self.plan.evaluations for run in group.runs]
        if not scored:
            return
        item = _name_evaluate_item(scored)
        with self._record("evaluate", [item]) as submission:
            job_files.write_evaluate(
                self.site.workspace,
                item,
                scored,
                self.site.profile,
                submission,
                drains=True,
            )
            job = local.LocalJob(item, after=tuple(self._runs), waits=True)
            self.jobs.append(job)

    @property
    def _runs(self) -> dict[str, Run]:
        return {run_item(run): run for group in self.plan.groups for run in group.runs}

    @contextmanager
    def _record(
        self,
        kind: str,
        items: Sequence[str],
        retries: Mapping[str, Retried] | None = None,
    ) -> Generator[str]:
        """The id of a submission, intended and locked, which counts as submitted once
        its files are written."""
        submission = self.ledger.intend(
            scheduler="local",
            kind=kind,
            grid=self.grid.name,
            items=items,
            retries=retries,
        )
        self.locks.append(hold_submission(self.site, submission))
        yield submission.id
        self.ledger.submitted(submission, ["local"] * len(items))
        self.ledger.released(submission)


def hold_submission(site: Site, submission: Submission) -> int:
    """The descriptor of a lock that says that this process runs the submission's jobs."""
    folder = site.workspace.submission(submission.id)
    ownership.make_private_folder(folder)
    lock = ownership.open_lock(folder / "lock")
    locks.wait_for_lock(lock, folder / "lock")
    return lock
