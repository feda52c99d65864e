"""Forgets grids and runs: removes what only they need, so that a workspace is as if they
had never been submitted. What others need stays, and is told.

A forget can be killed at any moment. What is to go is on disk before anything goes
(launcher.workspace.forgetting), and every folder loses its name before it is removed, so
that nobody reads half of one. The next forget carries on with what was left, but for
what was submitted again meanwhile.
"""

import logging
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import msgspec
from msgspec import UNSET

from jobs.contract import (
    asking,
    grid_record,
    job_file,
    model_proof,
    prepared,
    removal,
    stages,
)
from jobs.contract.attempt import now_ms
from jobs.contract.delivery_cursor import locate_cursor
from jobs.contract.exit_record import replace_unset
from jobs.contract.folder import CHAT_TRIALS, SCORES, Damaged, Workspace
from jobs.contract.grid_record import GridRecord
from jobs.contract.job_file import (
    AnyJob,
    CanaryJob,
    EvaluateJob,
    Recipe,
    SampleJob,
    TrainJob,
)
from jobs.contract.states import State
from jobs.training.tokens import tokens_id
from launcher.lifecycle.garbage import name_code
from launcher.status import queries
from launcher.status.status import collect_states
from launcher.workspace import forgetting, kept_snapshots, recorded_grids
from launcher.workspace.disk_usage import measure_size
from launcher.workspace.forgetting import ForgetRecord
from launcher.workspace.job_state import JobState
from launcher.workspace.ledger import Ledger
from launcher.workspace.submit_lock import submit_lock
from zsg_core import recipe as recipes
from zsg_core.errors import UserError
from zsg_core.shown_text import name_few

logger = logging.getLogger(__name__)

# by the folder of the workspace, the names of all that may lie in one of its folders
NAMES: Mapping[str, Sequence[str]] = {
    "runs": removal.IN_RUN,
    "prepare": removal.IN_JOB,
    "evaluate": removal.IN_JOB,
    "canary": removal.IN_JOB,
    "looks": removal.IN_LOOK,
    "tokens": removal.IN_TOKENS,
    "first_losses": removal.IN_FIRST_LOSSES,
    CHAT_TRIALS: removal.IN_CHAT_TRIAL,
    "arrangements": removal.IN_ARRANGEMENT,
    SCORES: removal.IN_SCORES,
    "embeddings": removal.IN_EMBEDDING,
    "corpora": removal.IN_CORPUS,
    "records": removal.IN_RECORDS,
    asking.FOLDER: removal.IN_REPLIES,
    "bases": removal.IN_WEIGHTS,
    "code": removal.IN_CODE,
    "submissions": removal.IN_SUBMISSION,
    "grids": removal.IN_GRID,
}
RUNS = "runs/"
_PATH = re.compile(r"[a-z_-]+/[\w-]+")
PROOF = f"{model_proof.FOLDER}/"  # each of these is a file
CONTINUED = ("records/", f"{SCORES}/")  # a killed job leaves what it has of these
BESIDE = ("prepare/", "evaluate/", "canary/", "looks/")  # jobs that are no runs


@dataclass(frozen=True)
class Forgetting:
    """What a forget removes, as `ForgetRecord` has it. `left`: what was asked for and
    stays, and why; `size`: bytes that become free; `claims`: how many the grids had;
    `listed`: the named runs that a grid goes on listing, and which."""

    record: ForgetRecord
    left: dict[str, str]
    size: int
    claims: int
    listed: dict[str, str]

    @property
    def is_empty(self) -> bool:
        """Whether nothing would change."""
        record = self.record
        return not (record.grids or record.items or record.things)

    def goes_beyond(self, agreed: "Forgetting") -> bool:
        """Whether it removes what another does not."""
        return not (
            set(self.record.grids) <= set(agreed.record.grids)
            and set(self.record.items) <= set(agreed.record.items)
            and set(self.record.things) <= set(agreed.record.things)
        )


@dataclass
class _Scene:
    """What there is. `record`: what is asked for, and what an earlier forget has left;
    `staying`: the grids that stay, by name; `going`: those that go and are there."""

    workspace: Workspace
    ledger: Ledger
    record: ForgetRecord
    staying: dict[str, GridRecord]
    going: dict[str, GridRecord]
    left: dict[str, str] = field(default_factory=dict[str, str])

    @cached_property
    def jobs(self) -> dict[str, AnyJob]:
        """The jobs of all run folders, by run. Damaged where one cannot be read: nobody
        knows what it needs."""
        folders = removal.list_names(self.workspace.root, self.workspace.root / "runs")
        jobs_by_run: dict[str, AnyJob] = {}
        for name in folders:
            job = job_file.read_job(self.workspace.run(name))
            if job is not None:
                jobs_by_run[name] = job
        return jobs_by_run

    @cached_property
    def listing(self) -> dict[str, list[str]]:
        """By run, the grids that stay and list it, or once did."""
        listing: dict[str, list[str]] = {}
        for name, record in self.staying.items():
            for row in record.all_runs:
                listing.setdefault(row.run, []).append(name)
        return listing

    def was_submitted_later(self, item: str) -> bool:
        """Whether a job was submitted after the forget that was to remove it."""
        last = self.ledger.last(item)
        return last is not None and last.created > self.record.created


def forget(
    workspace: Workspace,
    names: Sequence[str],
    agreed: Forgetting | None = None,
    before_removal: Callable[[Forgetting], None] = lambda chosen: None,
) -> tuple[Forgetting, list[str]]:
    """Removes what `plan_forgetting` chooses at this moment; returns that, and what
    could not be removed, in words.

    Waits for a submit that is at work. `before_removal` is called when it is known what
    goes and before anything does. UserError as of `plan_forgetting`, and where more
    would go than somebody has `agreed` to.
    """
    with submit_lock(workspace):
        chosen = plan_forgetting(workspace, names)
        if agreed is not None and chosen.goes_beyond(agreed):
            raise UserError(
                "the workspace has changed meanwhile, and more would be removed than was shown;"
                " nothing was; zsg forget again"
            )
        before_removal(chosen)
        return chosen, _carry_out(workspace, chosen.record)


def find_unfinished(workspace: Workspace) -> list[str]:
    """The names that a forget was given that has not come to its end; none where all
    have."""
    record = forgetting.read_forget_record(workspace)
    return [*record.grids, *record.runs] if record else []


def plan_forgetting(workspace: Workspace, names: Sequence[str]) -> Forgetting:
    """What goes if these grids and runs are forgotten, with what an earlier forget has
    left to be removed.

    UserError for a name that is neither a grid nor the unique prefix of a run's id, and
    while something of it is queued or running. Damaged where a record cannot be read:
    nobody knows what is needed.
    """
    scene = _read_scene(workspace, names)
    runs = _choose_runs(scene)
    _leave_what_runs_need(scene, runs)
    items = [*(f"{RUNS}{run}" for run in runs), *_choose_jobs_beside(scene, runs)]
    _refuse_under_way(scene, items)
    things = _choose_things(scene, runs, items)
    root = workspace.root
    items = [item for item in items if _can_go(scene, item)]
    things = [thing for thing in things if _can_go(scene, thing)]
    gone = [*items, *things, *(f"grids/{name}" for name in scene.record.grids)]
    claims = [record.claims or [] for record in scene.going.values()]
    return Forgetting(
        record=msgspec.structs.replace(scene.record, items=items, things=things),
        left=scene.left,
        size=sum(measure_size(root / path) for path in gone),
        claims=sum(map(len, claims)),
        listed=_find_listed(scene, runs),
    )


def _read_scene(workspace: Workspace, names: Sequence[str]) -> _Scene:
    """What there is, and what is asked for."""
    unfinished = forgetting.read_forget_record(workspace)
    recorded = grid_record.list_grids(workspace)
    if unfinished is None:
        recorded_grids.select_grids(workspace)  # UserError where there is nothing
    request = _add_names(workspace, unfinished, recorded, names)
    records = {name: recorded_grids.read_grid(workspace, name) for name in recorded}
    again = _find_submitted_again(records, unfinished, names)
    grids = [name for name in request.grids if name not in again]
    return _Scene(
        workspace=workspace,
        ledger=Ledger(workspace),
        record=msgspec.structs.replace(request, grids=grids),
        staying=_select_records(records, set(recorded) - set(grids)),
        going=_select_records(records, set(grids)),
    )


def _add_names(
    workspace: Workspace,
    unfinished: ForgetRecord | None,
    recorded: Sequence[str],
    names: Sequence[str],
) -> ForgetRecord:
    """What an earlier forget has left, with what is asked for now."""
    earlier = unfinished or ForgetRecord(created=now_ms())
    grid_names = {*recorded, *earlier.grids}
    grids = [name for name in names if name in grid_names]
    runs = [
        _find_run(workspace, name)
        for name in names
        if name not in grid_names and name not in earlier.runs
    ]
    return msgspec.structs.replace(
        earlier,
        # what is named now was submitted before now
        created=now_ms() if names else earlier.created,
        grids=list(dict.fromkeys([*earlier.grids, *grids])),
        runs=list(dict.fromkeys([*earlier.runs, *runs])),
    )


def _select_records(
    records: Mapping[str, GridRecord], names: Collection[str]
) -> dict[str, GridRecord]:
    """The records of some grids."""
    return {name: record for name, record in records.items() if name in names}


def _find_submitted_again(
    records: Mapping[str, GridRecord],
    unfinished: ForgetRecord | None,
    names: Sequence[str],
) -> set[str]:
    """The grids that were submitted again since a killed forget was to remove them."""
    return {
        name
        for name, record in records.items()
        if name not in names and _is_newer(record, unfinished)
    }


def _is_newer(record: GridRecord, unfinished: ForgetRecord | None) -> bool:
    """Whether a grid was submitted after a forget had begun that was killed."""
    return unfinished is not None and record.submitted > unfinished.created


def _find_run(workspace: Workspace, name: str) -> str:
    """The run whose id begins so. UserError if there is none, or another job's is
    meant."""
    kind, _, run = queries.find_item(workspace, name).partition("/")
    if kind != "runs":
        raise UserError(
            f"{name} is no run; such a job is forgotten with the grid that it was submitted for"
        )
    return run


def _choose_runs(scene: _Scene) -> dict[str, None]:
    """The runs that go: those of the grids that no other lists, and those that are
    named and that one grid lists."""
    runs: dict[str, None] = {}
    for record in scene.going.values():
        for row in record.all_runs:
            runs[row.run] = None
    for item in scene.record.items:
        if item.startswith(RUNS) and not scene.was_submitted_later(item):
            runs[item.removeprefix(RUNS)] = None
    for run in list(runs):
        if run in scene.listing and run not in scene.record.runs:
            scene.left[run] = f"{_name_grids(scene.listing[run])} has it, too"
            del runs[run]
    for run in scene.record.runs:
        _choose_named(scene, run, runs)
    return runs


def _choose_named(scene: _Scene, run: str, runs: dict[str, None]) -> None:
    """Adds a run that is asked for by its id, unless more than one grid needs it."""
    grids = scene.listing.get(run, [])
    begun_with = [
        name
        for name in grids
        if any(row.run == run for row in scene.staying[name].before)
    ]
    if begun_with:
        scene.left[run] = f"runs of {_name_grids(begun_with)} begin with it"
    elif len(grids) > 1:
        scene.left[run] = f"it is in {name_few(grids)}; forget the grids to remove it"
    else:
        runs[run] = None
        return
    runs.pop(run, None)


def _name_grids(grids: Sequence[str]) -> str:
    """The first grid, and how many more."""
    ending = f" and {len(grids) - 1} more" if len(grids) > 1 else ""
    return f"grid {grids[0]}{ending}"


def _leave_what_runs_need(scene: _Scene, runs: dict[str, None]) -> None:
    """Takes out of the runs that go those from which a run that stays starts."""
    needs = {
        run: _find_starts(scene.workspace, job)
        for run, job in scene.jobs.items()
        if isinstance(job, TrainJob)
    }
    users = kept_snapshots.find_snapshot_users(scene.workspace)
    for (start, _), items in users.jobs.items():
        for item in items:
            if item.startswith(RUNS):
                needs.setdefault(item.removeprefix(RUNS), set()).add(start)
    is_changed = True
    while is_changed:
        is_changed = False
        for run, starts in needs.items():
            if run in runs:
                continue
            for start in starts & runs.keys():
                del runs[start]
                scene.left[start] = f"run {run} starts from it"
                is_changed = True


def _find_starts(workspace: Workspace, job: TrainJob) -> set[str]:
    """The runs that a run starts from: those of its first stages, and one whose weights
    it was given as a model."""
    starts = set(job.before)
    folder = job.base_folder
    # where the workspace is, and where it was when the run was submitted
    for owner in (workspace, job.workspace):
        runs = owner.root / "runs"
        if folder.is_relative_to(runs):
            starts.update(folder.relative_to(runs).parts[:1])
    return starts - {job.run_id}


def _choose_jobs_beside(scene: _Scene, runs: Mapping[str, None]) -> list[str]:
    """The jobs that are no runs and go: prepares and samples of the grids, and those
    that serve only runs that go."""
    chosen: dict[str, None] = {}
    for item, last in scene.ledger.by_item().items():
        if item.startswith(BESIDE) and _serves_only(scene, item, last.grid, runs):
            chosen[item] = None
    for item in scene.record.items:
        if item.startswith(BESIDE) and not scene.was_submitted_later(item):
            chosen[item] = None
    return list(chosen)


def _serves_only(scene: _Scene, item: str, grid: str, runs: Mapping[str, None]) -> bool:
    """Whether a job beside the runs was only there for what goes."""
    job = job_file.read_job(scene.workspace.root / item)
    if isinstance(job, EvaluateJob):
        return all(served.run in runs for served in job.serves)
    if isinstance(job, CanaryJob):
        return job.canary.run in runs
    return grid in scene.record.grids


def _refuse_under_way(scene: _Scene, items: Sequence[str]) -> None:
    """UserError while something that goes is queued or running, or may be."""
    states = collect_states(scene.workspace, items, scene.ledger)
    busy = [item for item in items if _may_run(states[item])]
    if not busy:
        return
    names = name_few([item.removeprefix(RUNS) for item in busy], 3)
    advice = f"zsg cancel {_name_submitters(scene, busy)}"
    if all(states[item].state == State.UNKNOWN for item in busy):
        raise UserError(
            f"nobody knows whether {names} still runs; nothing is forgotten before that is"
            f" settled: zsg why RUN, or {advice}, then forget again"
        )
    raise UserError(
        f"{len(busy)} of what would go is queued or running ({names}): {advice}, or wait, then"
        " forget again"
    )


def _name_submitters(scene: _Scene, items: Sequence[str]) -> str:
    """The grids for which some jobs were submitted."""
    submissions = map(scene.ledger.last, items)
    grids = {last.grid for last in submissions if last is not None}
    return " ".join(sorted(grids - {""})) or "GRID"


def _may_run(state: JobState) -> bool:
    """Whether a job may still write, or Slurm may start it."""
    return state.is_active or state.state == State.UNKNOWN or bool(state.replaced)


def _can_go(scene: _Scene, path: str) -> bool:
    """Whether a folder of the workspace can be removed: no link, and nothing in it that
    zsg did not write. Why not is noted."""
    root = scene.workspace.root
    if path.startswith(PROOF):
        name = model_proof.NAME.fullmatch(path.removeprefix(PROOF))
        return name is not None and not (root / path).is_symlink()
    if not _PATH.fullmatch(path) or path.partition("/")[0] not in NAMES:
        return False  # zsg gives no such name
    reason = removal.why_it_stays(root, root / path, _names_in(path))
    if reason:
        scene.left[path.removeprefix(RUNS)] = reason
    return not reason


def _names_in(path: str) -> Sequence[str]:
    """The names of all that may lie in a folder of the workspace."""
    return NAMES[path.partition("/")[0]]


def _find_listed(scene: _Scene, runs: Mapping[str, None]) -> dict[str, str]:
    """The named runs that go and that a grid goes on listing, with its name."""
    listed: dict[str, str] = {}
    for name, record in scene.staying.items():
        for row in record.runs:
            if row.run in runs:
                listed[row.run] = name
    return listed


# What runs share


def _choose_things(
    scene: _Scene, runs: Mapping[str, None], items: Sequence[str]
) -> list[str]:
    """What was made for the runs that go and that nothing else needs, relative to the
    workspace."""
    going, staying = _collect_recipes(scene, runs)
    needed = _collect_made(staying)
    needed |= _list_corpora(scene.staying)
    makes = _find_active_makes(scene, items)
    proven, still_proven = _collect_proven(scene, runs, makes)
    needed |= makes | _list_proofs(scene.workspace, still_proven)
    needed |= _list_needed_replies(scene, staying, items)
    candidates = _collect_made(going)
    candidates |= _name_replies(asking.collect_askings(_list_data(going)) or ())
    candidates |= _list_corpora(scene.going)
    candidates |= _list_proofs(scene.workspace, proven)
    candidates.update(scene.record.things)
    candidates -= needed
    candidates |= _list_led_to(scene.workspace, candidates)
    candidates |= _choose_code(scene, items)
    candidates |= _choose_submissions(scene, items)
    if not staying:
        candidates |= _list_first_losses(scene.workspace)
    candidates -= needed
    candidates -= _list_led_to_elsewhere(scene.workspace, candidates)
    return sorted(path for path in candidates if _is_there(scene.workspace, path))


def _list_needed_replies(
    scene: _Scene, staying: Sequence[Recipe], items: Sequence[str]
) -> set[str]:
    """The replies of makers' models of which what stays is made; all, where that cannot
    be told."""
    of_jobs = _list_asked_corpora(scene, items)
    needed = asking.collect_askings([*_list_data(staying), *of_jobs])
    if needed is not None:
        return _name_replies(needed)
    root = scene.workspace.root
    names = removal.list_names(root, root / asking.FOLDER)
    if names:
        reason = "a grid that stays has data made by a maker that this zsg lacks"
        scene.left[asking.FOLDER] = reason
    return _name_replies(names)


def _name_replies(names: Iterable[str]) -> set[str]:
    """Where replies lie, relative to the workspace."""
    return {f"{asking.FOLDER}/{name}" for name in names}


def _list_data(of_recipes: Iterable[Recipe]) -> list[Recipe]:
    """The recipes of the corpora of runs, stage by stage."""
    return [stage["data"] for recipe in of_recipes for stage in recipe["stages"]]


def _list_asked_corpora(scene: _Scene, items: Sequence[str]) -> list[Recipe]:
    """The recipes of the corpora for which jobs that stay ask a model."""
    corpora: list[Recipe] = []
    for item in scene.ledger.by_item().keys() - set(items):
        if item.startswith("prepare/"):
            job = job_file.read_job(scene.workspace.root / item)
            if isinstance(job, SampleJob):
                corpora.append(job.corpus.recipe)
    return corpora


def _list_corpora(records: Mapping[str, GridRecord]) -> set[str]:
    """The corpora that grids say that they have."""
    return {
        f"corpora/{corpus}" for record in records.values() for corpus in record.corpora
    }


def _list_proofs(workspace: Workspace, digests: Collection[str] | None) -> set[str]:
    """The proofs of models that are there, whatever versions they are of; None: all."""
    proofs: set[str] = set()
    for name in removal.list_names(workspace.root, workspace.model_proofs):
        match = model_proof.NAME.fullmatch(name)
        if match is not None and (digests is None or match["digest"] in digests):
            proofs.add(f"{PROOF}{name}")
    return proofs


def _collect_proofs_of_jobs(
    scene: _Scene, runs: Mapping[str, None]
) -> tuple[set[str], set[str]]:
    """The digests of the proofs of runs that go, and those of runs that stay."""
    going: set[str] = set()
    staying: set[str] = set()
    for run, job in scene.jobs.items():
        if isinstance(job, TrainJob) and job.proof is not UNSET:
            (going if run in runs else staying).add(job.proof)
    return going, staying


def _collect_proven(
    scene: _Scene, runs: Mapping[str, None], makes: Collection[str]
) -> tuple[set[str], set[str] | None]:
    """The digests of the proofs that what goes needs, and of those that what stays does;
    None where a grid that stays does not tell them, as an older zsg recorded it.
    `makes`: what jobs that stay are to make."""
    going, staying = _collect_proofs_of_jobs(scene, runs)
    staying |= {need.removeprefix(PROOF) for need in makes if need.startswith(PROOF)}
    for record in scene.going.values():
        going.update(replace_unset(record.proofs) or ())
    for record in scene.staying.values():
        if record.proofs is UNSET:
            return going, None
        staying.update(record.proofs)
    return going, staying


def _list_first_losses(workspace: Workspace) -> set[str]:
    """All losses of bases: their names do not tell whose they are."""
    names = removal.list_names(workspace.root, workspace.root / "first_losses")
    return {f"first_losses/{name}" for name in names}


def _is_there(workspace: Workspace, path: str) -> bool:
    """Whether a folder, or what a killed forget has left of it, is there."""
    folder = workspace.root / path
    traces = [folder, removal.name_gone(folder)]
    if path.startswith(CONTINUED):
        traces.append(removal.name_unfinished(folder))
    return any(trace.exists() for trace in traces)


def _collect_recipes(
    scene: _Scene, runs: Mapping[str, None]
) -> tuple[list[Recipe], list[Recipe]]:
    """The recipes of what goes, and those of what stays: of what grids list, and of
    every run folder."""
    going: list[Recipe] = []
    staying: list[Recipe] = []
    records = [*scene.going.values(), *scene.staying.values()]
    for record in records:
        for row in record.all_runs:
            if row.recipe:
                (going if row.run in runs else staying).append(row.recipe)
    for run, job in scene.jobs.items():
        if isinstance(job, TrainJob):
            (going if run in runs else staying).append(job.recipe)
    return going, staying


def _collect_made(of_recipes: Iterable[Recipe]) -> set[str]:
    """What prepare jobs make for runs of these recipes, stage by stage."""
    paths: set[str] = set()
    for recipe in of_recipes:
        for prefix in recipes.list_prefixes(recipe):
            paths |= _list_made(prefix)
    return paths


def _list_made(recipe: Recipe) -> set[str]:
    """What is made for the last stage of a recipe."""
    arrangement = recipes.arrangement_id(recipe)
    base = recipes.base_id(recipe)
    trial = recipes.chat_trial_id(recipe)
    data = recipes.last_stage(recipe)["data"]
    paths = {
        f"corpora/{recipes.corpus_id(recipe)}",
        f"arrangements/{arrangement}",
        f"tokens/{tokens_id(recipe, arrangement)}",
    }
    paths |= {f"bases/{base}"} if base else set()
    paths |= {f"{CHAT_TRIALS}/{trial}"} if trial else set()
    scores = recipes.scores_id(recipe)
    paths |= {f"{SCORES}/{scores}"} if scores else set()
    sampled = recipes.find_self_sampled(data).values()
    return paths | {f"records/{records}" for records in sampled}


def _find_active_makes(scene: _Scene, items: Sequence[str]) -> set[str]:
    """What jobs that stay are to make."""
    makes: set[str] = set()
    for item in scene.ledger.by_item().keys() - set(items):
        if item.startswith("prepare/"):
            job = job_file.read_job(scene.workspace.root / item)
            makes |= set(job.makes if job else ())
    return makes


def _list_led_to(workspace: Workspace, things: Iterable[str]) -> set[str]:
    """The records that corpora were sampled of, and the vectors that arrangements were
    made by."""
    led_to: set[str] = set()
    for path in things:
        folder = workspace.root / path
        if path.startswith("corpora/"):
            corpus = prepared.read_corpus_meta(folder)
            records = corpus.records if corpus else set[str]()
            led_to |= {f"records/{name}" for name in records}
        elif path.startswith("arrangements/"):
            meta = prepared.read_arrangement_meta(folder)
            vectors = meta.sources.embeddings if meta else set[str]()
            led_to |= {f"embeddings/{name}" for name in vectors}
    return led_to


def _list_led_to_elsewhere(workspace: Workspace, going: set[str]) -> set[str]:
    """The same of the corpora and arrangements that stay."""
    staying: set[str] = set()
    for kind in ("corpora", "arrangements"):
        names = removal.list_names(workspace.root, workspace.root / kind)
        staying |= {f"{kind}/{name}" for name in names}
    return _list_led_to(workspace, staying - going)


def _choose_code(scene: _Scene, items: Sequence[str]) -> set[str]:
    """The copies of the code with which only jobs that go were submitted."""
    jobs = {f"{RUNS}{run}": job for run, job in scene.jobs.items()}
    for item in scene.ledger.by_item():
        if item.startswith(RUNS):
            continue
        job = job_file.read_job(scene.workspace.root / item)
        if job is not None:
            jobs[item] = job
    going: set[str] = set()
    staying: set[str] = set()
    for item, job in jobs.items():
        names = name_code(job.code)
        if item in items:
            going.update(names)
        else:
            staying.update(names)
    return {f"code/{name}" for name in going - staying}


def _choose_submissions(scene: _Scene, items: Sequence[str]) -> set[str]:
    """The folders of submissions of which no job stays, with their logs."""
    going = set(items)
    return {
        f"submissions/{submission.id}"
        for submission in scene.ledger.submissions.values()
        if submission.items and going | submission.forgotten >= set(submission.items)
    }


# The removal


def _carry_out(workspace: Workspace, record: ForgetRecord) -> list[str]:
    """Removes what a record tells of; returns what could not be removed, in words.

    The grids go first: from then on nobody counts on what goes after them. While
    something could not be removed the record stays, and the next forget carries on.
    """
    forgetting.write_forget_record(workspace, record)
    _note_in_ledger(workspace, record.items)
    troubles = [_remove_grid(workspace, name) for name in record.grids]
    for name in grid_record.list_grids(workspace):
        _take_out_former(workspace, name, record.runs)
    _remove_cursors(workspace, record.grids)
    for item in record.items:
        _release_weights(workspace, item)
    for path in [*record.items, *record.things]:
        troubles.append(_remove_made(workspace, path))
    in_words = [trouble for trouble in troubles if trouble]
    if not in_words:
        forgetting.remove_forget_record(workspace)
    return in_words


def _remove_made(workspace: Workspace, path: str) -> str:
    """Removes what was made, a folder or a proof; why that stays, if it does."""
    if path.startswith(PROOF):
        return removal.remove_file(workspace.root, workspace.root / path)
    folder = workspace.root / path
    trouble = removal.discard_folder(workspace.root, folder, _names_in(path))
    if path.startswith(CONTINUED) and not trouble:
        return removal.discard_folder(
            workspace.root, removal.name_unfinished(folder), removal.IN_UNFINISHED
        )
    return trouble


def _note_in_ledger(workspace: Workspace, items: Sequence[str]) -> None:
    """Writes down that no submission counts for these jobs any more."""
    ledger = Ledger(workspace)
    going = set(items)
    for submission in list(ledger.submissions.values()):
        forgotten = going & set(submission.items) - submission.forgotten
        if forgotten:
            ledger.forgotten(submission, sorted(forgotten))


def _remove_grid(workspace: Workspace, name: str) -> str:
    """Removes the record of a grid, then its folder; why that stays, if it does."""
    folder = workspace.grid(name)
    record = grid_record.locate_grid_record(workspace, name)
    trouble = removal.remove_file(workspace.root, record)
    if trouble:
        return trouble
    return removal.discard_folder(workspace.root, folder, removal.IN_GRID)


def _take_out_former(workspace: Workspace, name: str, runs: Sequence[str]) -> None:
    """Takes runs out of those that a grid once listed."""
    record = recorded_grids.read_grid(workspace, name)
    former = [row for row in record.former if row.run not in runs]
    if len(former) < len(record.former):
        grid_record.write_grid_record(
            workspace, msgspec.structs.replace(record, former=former)
        )


def _remove_cursors(workspace: Workspace, grids: Sequence[str]) -> None:
    """Removes what runs that stay keep of the deliveries to these grids."""
    root = workspace.root
    for run in removal.list_names(root, root / "runs"):
        for grid in grids:
            cursor = locate_cursor(workspace.run(run), grid)
            removal.remove_file(root, cursor)
            removal.remove_file(root, cursor.with_suffix(".lock"))


def _release_weights(workspace: Workspace, item: str) -> None:
    """Takes away the mark that a run has left at the weights that it was to start
    from."""
    try:
        job = job_file.read_job(workspace.root / item)
    except Damaged:
        return
    if isinstance(job, TrainJob) and job.before:
        start = job.before[-1]
        if job.run_id in stages.list_weights_users(workspace, start):
            stages.release_weights(workspace, start, job.run_id)
