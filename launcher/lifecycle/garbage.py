"""Finds what no run needs any more, and frees it: never what an active job or an
unfinished run of a grid may read.

Every folder loses its name before it is removed, so nobody reads half of one; killed
half-way it is simply run again. A workspace may be a folder of the user's with files of
hers beside ours: only what has a name that zsg gives, in a folder that zsg makes, is
found, and no link is followed (jobs.contract.removal). What stays for such a reason is
told.
"""

import contextlib
import logging
import os
import re
import stat
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path

from msgspec import UNSET

from jobs.contract import (
    asking,
    evaluations,
    exit_record,
    grid_record,
    job_file,
    model_proof,
    node_check,
    removal,
    snapshots,
    stages,
)
from jobs.contract import attempt as attempts
from jobs.contract.exit_record import replace_unset
from jobs.contract.folder import (
    CHAT_TRIALS,
    SCORES,
    Damaged,
    Workspace,
    is_committed,
)
from jobs.contract.grid_record import GridRecord, ListedRun
from jobs.contract.job_file import Recipe, SampleJob, SubmittedCode, TrainJob
from jobs.contract.states import State
from jobs.files import file_errors
from jobs.training import state as kept_states
from jobs.training.tokens import tokens_id
from launcher.clusters import slurm
from launcher.status.status import collect_states
from launcher.workspace import kept_snapshots, recorded_grids
from launcher.workspace.disk_usage import measure_size
from launcher.workspace.job_state import JobState
from launcher.workspace.kept_snapshots import RunKeeping, SnapshotUsers
from launcher.workspace.ledger import Ledger, Submission
from launcher.workspace.submit_lock import submit_lock
from zsg_core import recipe as recipes
from zsg_core.shown_text import name_few

logger = logging.getLogger(__name__)

STATES, SNAPSHOTS, WEIGHTS, DRAFTS = "states", "snapshots", "weights", "drafts"
CHECKS, PROOFS, REPLIES = "checks", "model proofs", "replies"
UNFINISHED = "unfinished answers and scores"
VECTORS = "unfinished embeddings"
MOST_NAMED = 3  # paths in a line
DRAFT_AGE_S = 24 * 3600.0  # no job leaves a draft untouched for so long

_ID = re.compile(r"[0-9a-f]{12}")  # of a run, and of what is made for runs
# in a group's workspace with the number of the member whose it is
_CODE = re.compile(r"[0-9a-f]{16}(-[0-9]{1,10})?")
_SUBMISSION = re.compile(r"[0-9a-f]{8}")
_PICKLE = re.compile(r"[0-9]+(_[0-9]+)?(_[0-9]+)?_(submitted|result)\.pkl")
_GRID = re.compile(r"[^./][^/]*")
_OF_JOB = re.compile(r"(job|attempt|exit|cancel|heartbeat|rendezvous)\.json")
_OF_RUN = re.compile(rf"{_OF_JOB.pattern}|weights|[a-z_]+(-[0-9a-f]+)?\.json")
# Where a write that died leaves a draft: folders that zsg makes, by the names that it
# gives them and, in each, the names of what is written there. The name of a draft is
# that of what it was to become, and eight hexadecimal digits.
_DRAFTS_IN: tuple[tuple[tuple[str | re.Pattern[str], ...], re.Pattern[str]], ...] = (
    (
        (),
        re.compile(
            r"digests\.json|ended\.json|journals\.json|proven\.json|mlflow\.db\.draft"
        ),
    ),
    (("downloads", re.compile(r"[\w.-]+(\+[\w.-]+)?")), re.compile(r"revisions\.json")),
    (("speeds",), re.compile(rf"{_ID.pattern}\.json")),
    (("records",), _ID),
    (("corpora",), _ID),
    (("embeddings",), _ID),
    (("arrangements",), _ID),
    ((SCORES,), _ID),
    (("first_losses",), _ID),
    (("tokens",), _ID),
    (("bases",), _ID),
    ((CHAT_TRIALS,), _ID),
    ((model_proof.FOLDER,), model_proof.NAME),
    (("code",), _CODE),
    (("code", _CODE), re.compile(r"[0-9a-f]{12}\.patch")),
    (("grids", _GRID), re.compile(r"grid\.json")),
    (("runs", _ID), _OF_RUN),
    (("runs", _ID, "delivery"), re.compile(r"[^./][^/]*\.json")),
    (("runs", _ID, "state"), removal.STEP),
    (("runs", _ID, "snapshots"), removal.STEP),
    (("runs", _ID, "queue"), re.compile(r"[0-9]+\.[\w.-]+\.lease(\.[0-9a-f]{8})?")),
    (("prepare", _ID), _OF_JOB),
    (("evaluate", _ID), _OF_JOB),
    (("canary", _ID), _OF_JOB),
    (("looks", _ID), re.compile(rf"{_OF_JOB.pattern}|decision\.json")),
    ((node_check.FOLDER, _ID), re.compile(rf"{_OF_JOB.pattern}|report\.(json|txt)")),
    ((node_check.FOLDER, _ID, node_check.RANKS), re.compile(r"[0-9]+\.json")),
    (("submissions",), _SUBMISSION),
)


@dataclass(frozen=True)
class _SharedFolder:
    """A folder of things that runs share. `kind`: what people call them; `names`:
    patterns of all that may lie in one; `name`: of one itself."""

    kind: str
    names: Sequence[str]
    name: re.Pattern[str] = _ID


_SHARED = {
    "tokens": _SharedFolder("tokens", removal.IN_TOKENS),
    "first_losses": _SharedFolder("first losses", removal.IN_FIRST_LOSSES),
    "arrangements": _SharedFolder("arrangements", removal.IN_ARRANGEMENT),
    SCORES: _SharedFolder("scores", removal.IN_SCORES),
    "bases": _SharedFolder("bases", removal.IN_WEIGHTS),
    CHAT_TRIALS: _SharedFolder("chat trials", removal.IN_CHAT_TRIAL),
    "code": _SharedFolder("code", removal.IN_CODE, _CODE),
}
_ENDS = re.compile(r"\.(?P<name>.+)\.(?P<end>[0-9a-f]{8}|[0-9a-f]{32}|gone)")
# by removal.name_unfinished
_UNFINISHED = re.compile(rf"\.(?P<name>{_ID.pattern})\.draft")
_DATE = re.compile(r"(19|20)[0-9]{6}")


@dataclass(frozen=True)
class Piece:
    """A file or folder that nobody needs, and why."""

    kind: str
    path: Path
    reason: str
    size: int
    names: Sequence[str] | None = None  # patterns of all that may lie in a folder


@dataclass
class Scene:
    """What there is and who may still need it. `listed`: the recipes of all grids,
    `open`: of what is not done."""

    workspace: Workspace
    ledger: Ledger
    states: Mapping[str, JobState]
    runs: list[str]  # the run folders that are asked about and can be read
    # the job folders that are asked about: all, or those of a grid
    requested: set[str] = field(default_factory=set[str])
    listed: list[Recipe] = field(default_factory=list[Recipe])
    open: list[Recipe] = field(default_factory=list[Recipe])
    listed_runs: set[str] = field(default_factory=set[str])  # runs of recorded grids
    # the digests of the proofs that grids need; None: of some it is not known
    proofs: set[str] | None = None
    # what active prepare jobs are making
    makes: set[str] = field(default_factory=set[str])
    # what jobs are making that are active, or of which nobody knows whether they are
    may_make: set[str] = field(default_factory=set[str])
    # the recipes of the corpora for which such jobs ask a model
    asked: list[Recipe] = field(default_factory=list[Recipe])
    # what nobody needs and is not removed, and why
    remarks: list[str] = field(default_factory=list[str])
    # job folders of which a record cannot be read, and why
    unreadable: dict[str, str] = field(default_factory=dict[str, str])
    # what the grids want to keep, by run
    keeping: dict[str, RunKeeping] = field(default_factory=dict[str, RunKeeping])
    # the keys that active evaluate jobs take, by run
    under_evaluation: dict[str, set[str]] = field(default_factory=dict[str, set[str]])

    @cached_property
    def snapshot_users(self) -> SnapshotUsers:
        """The jobs that use snapshots of other runs; asked where some could go."""
        return kept_snapshots.find_snapshot_users(self.workspace)

    def find_keeping(self, run: str) -> RunKeeping:
        """What is to stay of a run by the grids that list it."""
        return self.keeping.get(run, kept_snapshots.UNLISTED)

    def is_done(self, run: str) -> bool:
        state = self.states.get(f"runs/{run}")
        return state is not None and state.state == State.DONE


def read_scene(workspace: Workspace, grid: str | None) -> Scene:
    """Reads the workspace; with a grid, asks only about what its own runs have left."""
    if grid is not None:  # before Slurm is asked for the sake of a misspelt name
        [grid] = recorded_grids.select_grids(workspace, grid)
    ledger = Ledger(workspace)
    records = {
        name: recorded_grids.read_grid(workspace, name)
        for name in _list_grids(workspace, ledger)
    }
    rows = list(chain(*(record.runs for record in records.values())))
    before = chain(*(record.before for record in records.values()))
    items = {*ledger.by_item(), *_items_of(row.run for row in rows)}
    scene = Scene(workspace, ledger, collect_states(workspace, items, ledger), [])
    scene.listed_runs = {row.run for row in chain(rows, before)}
    scene.keeping = kept_snapshots.collect_keeping(records.values())
    folders = {f"runs/{path.name}" for path in _runs(scene)}
    scene.unreadable = _find_unreadable(workspace, [*items, *folders])
    scene.requested = {*items, *folders}
    if grid is not None:
        scene.requested = _items_of_grid(ledger, records[grid])
    readable = (folders & scene.requested) - scene.unreadable.keys()
    scene.runs = sorted(item.removeprefix("runs/") for item in readable)
    _note_recipes(scene, rows)
    scene.proofs = _join_proofs(records.values())
    _note_active_jobs(scene)
    return scene


def _join_proofs(records: Iterable[GridRecord]) -> set[str] | None:
    """The digests of the proofs that grids need; None where one does not tell, as an
    older zsg recorded it."""
    needed = set[str]()
    for record in records:
        if record.proofs is UNSET:
            return None
        needed |= set(record.proofs)
    return needed


def _list_grids(workspace: Workspace, ledger: Ledger) -> list[str]:
    """The recorded grids; none where only nodes were checked. UserError where nothing
    was ever submitted."""
    if any(not submission.grid for submission in ledger.submissions.values()):
        return grid_record.list_grids(workspace)
    return recorded_grids.select_grids(workspace)


def _items_of_grid(ledger: Ledger, record: GridRecord) -> set[str]:
    """The job folders of a grid: the runs that it has or had, and the jobs beside them
    that it submitted."""
    jobs_beside = {
        item
        for item, last in ledger.by_item().items()
        if last.grid == record.name and not item.startswith("runs/")
    }
    return {*jobs_beside, *_items_of(row.run for row in record.all_runs)}


def _note_recipes(scene: Scene, rows: Iterable[ListedRun]) -> None:
    """Notes the recipes of what the grids list, and of these what is not done."""
    for row in rows:
        scene.listed.append(row.recipe)
        if not scene.is_done(row.run):
            scene.open.append(row.recipe)


def _note_active_jobs(scene: Scene) -> None:
    """Notes what active jobs are making, and their recipes, which no grid need list."""
    for item, state in scene.states.items():
        may_run = state.is_active or state.state == State.UNKNOWN
        if not may_run or item in scene.unreadable:
            continue
        job = job_file.read_job(scene.workspace.root / item)
        scene.may_make |= set(job.makes if job else ())
        if isinstance(job, SampleJob):
            scene.asked.append(job.corpus.recipe)
        if not state.is_active:
            continue
        scene.makes |= set(job.makes if job else ())
        for served in job_file.runs_served(job):
            scene.under_evaluation.setdefault(served.run, set()).update(served.keys)
        if isinstance(job, TrainJob):
            scene.listed.append(job.recipe)
            scene.open.append(job.recipe)


def _items_of(runs: Iterable[str]) -> list[str]:
    """The folders of runs, relative to the workspace."""
    return [f"runs/{run}" for run in runs]


def _find_unreadable(workspace: Workspace, items: Iterable[str]) -> dict[str, str]:
    """The job folders of which a record cannot be read, and why."""
    troubles: dict[str, str] = {}
    for item in dict.fromkeys(items):
        folder = workspace.root / item
        try:
            job_file.read_job(folder)
            attempts.read_attempt(folder)
            exit_record.read_exit_record(folder)
        except Damaged as error:
            troubles[item] = str(error)
    return troubles


def find_garbage(workspace: Workspace, grid: str | None = None) -> list[Piece]:
    """What may be freed; what nobody needs and yet stays is logged, with why.

    Nothing goes of a run whose records cannot be read, nor of what runs share while
    there is one: nobody knows what it needs. UserError for a grid that is not there;
    ClusterError where Slurm does not answer.
    """
    scene = read_scene(workspace, grid)
    scene.remarks += _describe_unreadable(scene, grid)
    kinds = [
        _states(scene),
        _snapshots(scene),
        _weights(scene),
        _submissions(scene, grid),
    ]
    if grid is None and not scene.unreadable:
        kinds += [_tokens(scene), _first_losses(scene), _made(scene), _code(scene)]
        kinds += [_proofs(scene), _replies(scene), _unfinished(scene)]
        kinds += [_unfinished_embeddings(scene)]
    if grid is None:
        kinds += [_checks(scene), _drafts(scene)]
    garbage = [piece for pieces in kinds for piece in pieces]
    for reason in dict.fromkeys(scene.remarks):
        logger.warning(f"left: {reason}")
    return garbage


def _describe_unreadable(scene: Scene, grid: str | None) -> list[str]:
    """What stays since records cannot be read, and why; of a grid, its own jobs."""
    extent = " and what runs share" if grid is None else ""
    return [
        f"{item}{extent}, since {why}"
        for item, why in scene.unreadable.items()
        if item in scene.requested
    ]


def free_garbage(
    workspace: Workspace,
    grid: str | None = None,
    before: Callable[[Piece], None] = lambda piece: None,
) -> list[Piece]:
    """Frees what `find_garbage` finds at this moment, and returns what was freed of it.
    Waits for a submit that is at work (UserError where that takes too long).

    `before` is called with each piece before it goes. What could not be removed says so
    in its reason, and counts only with what has gone of it.
    """
    with submit_lock(workspace):
        freed: list[Piece] = []
        for piece in find_garbage(workspace, grid):
            before(piece)
            why = ""
            # of no rights, which the rest of it shows
            with contextlib.suppress(OSError):
                why = _remove(workspace, piece)
            nameless = piece.path.with_name(f".{piece.path.name}.gone")
            remaining = measure_size(piece.path) + measure_size(nameless)
            if remaining or os.path.lexists(piece.path):
                why = (
                    why
                    or f"{remaining / 1e6:.1f} MB could not be removed: {piece.path}"
                )
                piece = replace(
                    piece,
                    reason=f"{piece.reason}, but {why}",
                    size=max(0, piece.size - remaining),
                )
            freed.append(piece)
        return freed


def _remove(workspace: Workspace, piece: Piece) -> str:
    """Removes a piece; why it, or some of it, stays."""
    path = piece.path
    if piece.kind == STATES:
        return "; ".join(kept_states.remove_states(path.parent))
    if piece.kind == DRAFTS:
        name = re.compile(re.escape(path.name))
        return "; ".join(removal.remove_drafts(workspace.root, path.parent, name))
    if piece.kind == PROOFS or path.suffix == ".pkl":
        return removal.remove_file(workspace.root, path)
    if piece.kind == WEIGHTS:  # with the marks of runs that never will
        start = path.parent.name
        for user in stages.list_weights_users(workspace, start):
            stages.release_weights(workspace, start, user)
    return removal.discard_folder(workspace.root, path, piece.names)


def _piece(
    kind: str, path: Path, reason: str, names: Sequence[str] | None = None
) -> Piece:
    return Piece(kind, path, reason, measure_size(path), names)


def _whole(
    scene: Scene, kind: str, path: Path, reason: str, names: Sequence[str]
) -> Iterator[Piece]:
    """A folder that nobody needs, unless something lies in it that is not ours, or it
    is a link or behind one."""
    if why := removal.why_it_stays(scene.workspace.root, path, names):
        scene.remarks.append(why)
    else:
        yield _piece(kind, path, reason, names)


def _real(scene: Scene, folder: Path) -> list[Path]:
    """What lies in a folder of the workspace, but for what is hidden; nothing where the
    folder is a link."""
    try:
        with removal.open_folder(scene.workspace.root, folder) as handle:
            return [
                folder / name
                for name in removal.names_in(handle)
                if not name.startswith(".")
            ]
    except FileNotFoundError:
        return []
    except removal.Linked as error:
        scene.remarks.append(str(error))
        return []
    except PermissionError as error:  # another member's, in a group's workspace
        scene.remarks.append(file_errors.describe_error(error))
        return []


def _runs(scene: Scene) -> Iterator[Path]:
    """The run folders that are there."""
    for path in _real(scene, scene.workspace.root / "runs"):
        is_known = f"runs/{path.name}" in scene.states or _ID.fullmatch(path.name)
        if path.is_symlink():
            scene.remarks.append(f"{path} is a link; zsg removes nothing behind it")
        elif is_known and job_file.has_job(path):
            yield path


def _states(scene: Scene) -> Iterator[Piece]:
    for run in scene.runs:
        folder = scene.workspace.run(run)
        if not scene.is_done(run) or not os.path.lexists(folder / "state"):
            continue
        if _keeps_state(scene, run):
            continue
        if why := kept_states.why_it_stays(folder):
            scene.remarks.append(why)
        elif kept_states.has_any(folder):
            yield _piece(STATES, folder / "state", "its run is done")


def _keeps_state(scene: Scene, run: str) -> bool:
    """Whether a grid wants to keep what a resume of a run needs."""
    job = job_file.read_train_job(scene.workspace.run(run))
    at_training = job is not None and job.checkpoints.keep_state
    return scene.find_keeping(run).keeps_state(at_training)


@dataclass
class _NeededSnapshots:
    """The snapshots that no grid keeps and that stay all the same, by why."""

    paths_by_reason: dict[str, list[str]] = field(default_factory=dict[str, list[str]])

    def add(self, path: str, reason: str) -> None:
        self.paths_by_reason.setdefault(reason, []).append(path)

    def describe(self) -> Iterator[str]:
        """A line for each reason."""
        for reason, paths in self.paths_by_reason.items():
            count = "1 snapshot" if len(paths) == 1 else f"{len(paths):,} snapshots"
            names = name_few(paths, MOST_NAMED)
            yield f"{count} beyond what checkpoints.keep keeps: {reason}: {names}"


def _snapshots(scene: Scene) -> Iterator[Piece]:
    """The snapshots that the grids which list a run keep no longer and nobody needs."""
    needed = _NeededSnapshots()
    for run in filter(scene.is_done, scene.runs):
        try:
            beyond = _find_beyond(scene, run)
            for path in beyond:
                reason = _find_need(scene, run, path)
                if not reason:
                    yield from _whole(
                        scene,
                        SNAPSHOTS,
                        path,
                        kept_snapshots.BEYOND_PRESENT,
                        removal.IN_WEIGHTS,
                    )
                    continue
                needed.add(str(path.relative_to(scene.workspace.root)), reason)
        except Damaged as error:
            scene.remarks.append(f"the snapshots of runs/{run}, since {error}")
    scene.remarks += needed.describe()


def _find_beyond(scene: Scene, run: str) -> list[Path]:
    """The snapshots of a run that is done that no grid keeps, in the order of steps."""
    folder = scene.workspace.run(run)
    by_step = {
        int(path.name): path
        for path in _real(scene, folder / snapshots.FOLDER)
        if removal.STEP.fullmatch(path.name)
    }
    if not by_step:
        return []
    state = scene.states[f"runs/{run}"]
    keeping = scene.find_keeping(run)
    kept = kept_snapshots.select_kept(folder, state, by_step.keys(), keeping)
    return [path for step, path in sorted(by_step.items()) if step not in kept]


def _find_need(scene: Scene, run: str, snapshot: Path) -> str:
    """Why a snapshot that no grid keeps stays; empty where nobody needs it. Damaged
    where evaluators' journals cannot be read."""
    if _is_to_be_scored(scene, run, snapshot):
        return "evaluators are still to read it"
    return scene.snapshot_users.find_reason(run, int(snapshot.name))


def _is_to_be_scored(scene: Scene, run: str, snapshot: Path) -> bool:
    """Whether evaluators are still going to read a snapshot, for what it was trained
    with, for what a grid wants now, or in a job that is queued or running."""
    folder = scene.workspace.run(run)
    job = job_file.read_train_job(folder)
    keys = dict.fromkeys(job.scored if job else ())
    keys |= dict.fromkeys(scene.find_keeping(run).scored)
    keys |= dict.fromkeys(scene.under_evaluation.get(run, ()))
    return evaluations.is_needed(folder, list(keys), int(snapshot.name))


def _weights(scene: Scene) -> Iterator[Piece]:
    """The weights of stages from which no run that is wanted or active is going to start."""
    for run in scene.runs:
        folder = scene.workspace.run(run)
        if is_committed(folder / "weights") and not any(
            _still_starts(scene, user)
            for user in stages.list_weights_users(scene.workspace, run)
        ):
            yield from _whole(
                scene,
                WEIGHTS,
                folder / "weights",
                "no run that is wanted starts from them",
                removal.IN_WEIGHTS,
            )


def _still_starts(scene: Scene, run: str) -> bool:
    """Whether a run that left its mark has yet to start from the weights, or has kept
    adapters of them."""
    state = scene.states.get(f"runs/{run}")
    if f"runs/{run}" in scene.unreadable:
        return True
    if scene.is_done(run):
        folder = scene.workspace.run(run)
        job = job_file.read_train_job(folder)
        return job is not None and stages.is_still_needed(folder, job)
    return run in scene.listed_runs or (state is not None and state.is_active)


def _submissions(scene: Scene, grid: str | None) -> Iterator[Piece]:
    newest = {last.id: last for last in scene.ledger.by_item().values()}
    superseded = [
        submission
        for submission in scene.ledger.submissions.values()
        if submission.id not in newest and _is_asked(scene, submission, grid)
    ]
    yield from _superseded_folders(scene, superseded)
    for submission in newest.values():
        if _is_asked(scene, submission, grid) and _is_all_done(scene, submission):
            yield from _pickles(scene, submission.id)


def _is_asked(scene: Scene, submission: Submission, grid: str | None) -> bool:
    """Whether a submission is of the grid, has a name that zsg gives, and jobs that can
    all be read."""
    return (
        grid in (None, submission.grid)
        and _SUBMISSION.fullmatch(submission.id) is not None
        and scene.unreadable.keys().isdisjoint(submission.items)
    )


def _superseded_folders(
    scene: Scene, submissions: Iterable[Submission]
) -> Iterator[Piece]:
    """The folders of submissions whose jobs were all submitted again since."""
    present = [
        submission
        for submission in submissions
        if scene.workspace.submission(submission.id).is_dir()
    ]
    jobs = [job for submission in present for job in submission.jobs]
    queue = slurm.query_queue(jobs)
    alive = queue.active.keys() | queue.away.keys()
    for submission in present:
        if alive.isdisjoint(submission.jobs):
            folder = scene.workspace.submission(submission.id)
            reason = "all its jobs were submitted again since"
            yield from _whole(
                scene, "submissions", folder, reason, removal.IN_SUBMISSION
            )


def _is_all_done(scene: Scene, submission: Submission) -> bool:
    states = [scene.states[item] for item in submission.items if item in scene.states]
    return all(state.state == State.DONE for state in states)


def _pickles(scene: Scene, submission: str) -> Iterator[Piece]:
    """What submitit needed to start the jobs of a submission."""
    for path in _real(scene, scene.workspace.submission(submission)):
        if _PICKLE.fullmatch(path.name):
            reason = "all its jobs are done; their logs stay"
            yield _piece("submissions", path, reason)


def _prefixes(recipe: Recipe) -> Iterator[Recipe]:
    """The recipes of a run and of the stages before it."""
    for count in range(1, len(recipe["stages"]) + 1):
        yield {**recipe, "stages": recipe["stages"][:count]}


def _tokens(scene: Scene) -> Iterator[Piece]:
    needed = {
        tokens_id(prefix, recipes.arrangement_id(prefix))
        for recipe in scene.open
        for prefix in _prefixes(recipe)
    }
    reason = "no unfinished run trains on it"
    yield from _unneeded(scene, "tokens", needed, reason)


def _first_losses(scene: Scene) -> Iterator[Piece]:
    if not scene.open:  # their names do not tell whose they are
        reason = "every recorded run is done"
        yield from _unneeded(scene, "first_losses", (), reason)


def _made(scene: Scene) -> Iterator[Piece]:
    prefixes = [prefix for recipe in scene.listed for prefix in _prefixes(recipe)]
    of_kinds = (
        ("arrangements", recipes.arrangement_id),
        (SCORES, recipes.scores_id),
        ("bases", recipes.base_id),
        (CHAT_TRIALS, recipes.chat_trial_id),
    )
    for kind, compute_id in of_kinds:
        ids = {compute_id(prefix) for prefix in prefixes}
        needed = (ids - {None}) | _list_making(scene, kind)
        yield from _unneeded(scene, kind, needed, "no recorded grid needs it")


def _list_making(scene: Scene, kind: str) -> set[str]:
    """What active prepare jobs are making in a folder of the workspace, by its names."""
    begin = f"{kind}/"
    return {need.removeprefix(begin) for need in scene.makes if need.startswith(begin)}


def _proofs(scene: Scene) -> Iterator[Piece]:
    """The proofs of models of no grid, but for those of the last day: a model may be
    proven before it is in a grid."""
    if scene.proofs is None:
        return
    needed = scene.proofs | _list_making(scene, model_proof.FOLDER)
    since = time.time() - DRAFT_AGE_S
    for path in _real(scene, scene.workspace.model_proofs):
        name = model_proof.NAME.fullmatch(path.name)
        if name is None or name["digest"] in needed or path.is_symlink():
            continue
        if _last_touched(path) < since:
            yield _piece(PROOFS, path, "no recorded grid needs it")


def _replies(scene: Scene) -> Iterator[Piece]:
    """The replies of makers' models of which no grid that is recorded, and no job that
    may run, has a set made."""
    corpora = [stage["data"] for recipe in scene.listed for stage in recipe["stages"]]
    needed = asking.collect_askings([*corpora, *scene.asked])
    folder = scene.workspace.root / asking.FOLDER
    if needed is None:
        scene.remarks.append(
            f"{folder}, since a grid has data made by a maker that this zsg does not have"
        )
        return
    for path in _real(scene, folder):
        if _ID.fullmatch(path.name) and path.name not in needed:
            reason = "no recorded grid has a set made of them"
            yield from _whole(scene, REPLIES, path, reason, removal.IN_REPLIES)


def _unfinished(scene: Scene) -> Iterator[Piece]:
    """What jobs have left under way that were killed, of what no recorded grid needs any
    more: a model's own answers, and scores."""
    prefixes = [prefix for recipe in scene.listed for prefix in _prefixes(recipe)]
    sampled: set[str] = set()
    scored: set[str] = set()
    for prefix in prefixes:
        data = recipes.last_stage(prefix)["data"]
        sampled.update(recipes.find_self_sampled(data).values())
        scored.add(recipes.scores_id(prefix) or "")
    yield from _drafts_of_jobs(scene, "records", sampled)
    yield from _drafts_of_jobs(scene, SCORES, scored)


def _drafts_of_jobs(
    scene: Scene, folder: str, needed: Collection[str]
) -> Iterator[Piece]:
    """What killed jobs have left of what is made in a folder of the workspace, but for
    what is needed or may be under way."""
    begin = f"{folder}/"
    may_be_made = {path.removeprefix(begin) for path in scene.may_make}
    for made_id, draft in _list_drafts_of_jobs(scene, folder):
        if made_id in needed or made_id in may_be_made:
            continue
        reason = "left by a job that was killed; no recorded grid needs it"
        yield from _whole(scene, UNFINISHED, draft, reason, removal.IN_UNFINISHED)


def _list_drafts_of_jobs(scene: Scene, folder: str) -> Iterator[tuple[str, Path]]:
    """What jobs have under way in a folder of the workspace: the id of what it is to
    become, and where it lies. Nothing where the folder is a link, or not there."""
    root = scene.workspace.root
    try:
        with removal.open_folder(root, root / folder) as handle:
            names = removal.names_in(handle)
    except OSError:
        return
    for name in names:
        draft = _UNFINISHED.fullmatch(name)
        if draft is not None:
            yield draft["name"], root / folder / name


def _unfinished_embeddings(scene: Scene) -> Iterator[Piece]:
    """What killed jobs have left of vectors, where nobody may carry it on.

    The name of vectors is that of their texts, so it does not tell whose they are: all
    of them stay while a job may make something, while a run is open whose order or data
    need vectors, and for a day after they were touched, as an order may be made without
    a job.
    """
    if scene.may_make or any(_needs_vectors(recipe) for recipe in scene.open):
        return
    since = time.time() - DRAFT_AGE_S
    for _, draft in _list_drafts_of_jobs(scene, "embeddings"):
        if _last_touched(draft) < since:
            yield from _whole(
                scene,
                VECTORS,
                draft,
                "left by a job that was killed; no open run needs vectors",
                removal.IN_UNFINISHED_EMBEDDING,
            )


def _needs_vectors(recipe: Recipe) -> bool:
    """Whether the order of a stage, or a maker of its data, compares texts by vectors."""
    for stage in recipe["stages"]:
        if recipes.EMBEDDING in stage["arrangement"]:
            return True
        for source in recipes.list_sources(stage["data"]).values():
            if recipes.EMBEDDING in source.get(recipes.MAKE, {}):
                return True
    return False


def _code(scene: Scene) -> Iterator[Piece]:
    digests: set[str] = set()
    active = [
        scene.workspace.root / item
        for item, state in scene.states.items()
        if state.is_active
    ]
    for folder in [*map(scene.workspace.run, scene.listed_runs), *active]:
        job = job_file.read_job(folder)
        if job is not None:
            digests |= name_code(job.code)
    reason = "no recorded or active run was submitted with it"
    yield from _unneeded(scene, "code", digests, reason)


def name_code(code: SubmittedCode) -> set[str]:
    """The names that the folder of a job's code has: its digest, and that of the
    member's own in a group's workspace."""
    digest, folder = replace_unset(code.digest), replace_unset(code.folder)
    return {name for name in (digest, Path(folder or "").name) if name}


def _unneeded(
    scene: Scene, folder: str, needed: Collection[str | None], reason: str
) -> Iterator[Piece]:
    """What is made in a folder of the workspace, but for what is needed."""
    shared = _SHARED[folder]
    for path in _real(scene, scene.workspace.root / folder):
        is_named = shared.name.fullmatch(path.name) and path.name not in needed
        if is_named and _is_committed(scene, path):
            yield from _whole(scene, shared.kind, path, reason, shared.names)


def _is_committed(scene: Scene, path: Path) -> bool:
    """Whether a made thing is whole; one that this user may not look into is another
    member's in a group's workspace, and stays."""
    try:
        return is_committed(path)
    except PermissionError as error:
        scene.remarks.append(file_errors.describe_error(error))
        return False


def _checks(scene: Scene) -> Iterator[Piece]:
    """The checks of nodes that have ended, but for the newest of each profile."""
    newest = set[str]()
    items = [item for item in scene.states if item.startswith(f"{node_check.FOLDER}/")]
    for item in sorted(
        items, key=lambda item: _find_created(scene, item), reverse=True
    ):
        folder = scene.workspace.root / item
        job = None if item in scene.unreadable else job_file.read_job(folder)
        if job is None or scene.states[item].is_active:
            continue
        if job.resources.profile not in newest:
            newest.add(job.resources.profile)
            continue
        reason = "a newer check of the same profile is there"
        yield from _whole(scene, CHECKS, folder, reason, removal.IN_CHECK)


def _find_created(scene: Scene, item: str) -> int:
    """When a job folder was submitted last, in ms since the epoch; 0 of one that never
    was."""
    last = scene.ledger.last(item)
    return last.created if last else 0


def _drafts(scene: Scene) -> Iterator[Piece]:
    """What dead processes have left under temporary names."""
    root, since = scene.workspace.root, time.time() - DRAFT_AGE_S
    for names, written in _DRAFTS_IN:
        for parent in _folders(scene, root, names):
            for path in _drafts_in(scene, parent, written):
                if _last_touched(path) < since and not _is_unreadable(scene, path):
                    yield _piece(
                        DRAFTS,
                        path,
                        "left under a temporary name by a process that died",
                    )


def _is_unreadable(scene: Scene, path: Path) -> bool:
    """Whether a path is in the folder of a job of which a record cannot be read."""
    folders = {scene.workspace.root / item for item in scene.unreadable}
    return not folders.isdisjoint(path.parents)


def _folders(
    scene: Scene, parent: Path, path_names: Sequence[str | re.Pattern[str]]
) -> Iterator[Path]:
    """The folders that zsg makes by those names below a folder; links are passed over."""
    if not path_names:
        yield parent
        return
    first, *deeper = path_names
    if isinstance(first, str):
        names = [first] if (parent / first).is_dir() else []
    else:
        names = [
            path.name for path in _real(scene, parent) if first.fullmatch(path.name)
        ]
    for name in names:
        path = parent / name
        if stat.S_ISDIR(path.lstat().st_mode):
            yield from _folders(scene, path, deeper)


def _drafts_in(scene: Scene, parent: Path, written: re.Pattern[str]) -> list[Path]:
    """The drafts in a folder of what is written there; a backup that somebody dated is none."""
    try:
        with removal.open_folder(scene.workspace.root, parent) as handle:
            names = removal.names_in(handle)
    except OSError:
        return []
    drafts = [(name, match) for name in names if (match := _ENDS.fullmatch(name))]
    return [
        parent / name
        for name, match in drafts
        if written.fullmatch(match["name"])
        and not _DATE.fullmatch(match["end"])
        and not (parent / name).is_symlink()
    ]


def _last_touched(path: Path) -> float:
    times = [0.0]
    for file in (path, *path.rglob("*")):
        with contextlib.suppress(FileNotFoundError):
            times.append(file.lstat().st_mtime)
    return max(times)


def sum_by_kind(pieces: Iterable[Piece]) -> dict[str, tuple[int, int, list[str]]]:
    """How many pieces of each kind, their bytes together, and the reasons."""
    sums: dict[str, tuple[int, int, list[str]]] = {}
    for piece in pieces:
        count, size, reasons = sums.get(piece.kind, (0, 0, []))
        reasons = [*dict.fromkeys([*reasons, piece.reason])]
        sums[piece.kind] = (count + 1, size + piece.size, reasons)
    return sums
