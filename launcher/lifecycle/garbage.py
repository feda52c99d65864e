"""Finds what no run needs any more, and frees it: never what an active job or an unfinished run of a grid may read.

Every folder loses its name before it is removed, so nobody reads half of one; killed half-way it is simply run again.
"""

import contextlib
import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from jobs.evaluating import evaluations
from jobs.folder import Workspace, discard, is_committed, read_json
from jobs.training import stages
from jobs.training.tokens import tokens_id
from launcher.clusters import slurm
from launcher.clusters.slurm import DONE
from launcher.grids import grid_record
from launcher.observing.job_state import JobState
from launcher.observing.status import collect
from launcher.submission.ledger import Ledger, submit_lock
from zsg_core import recipe as recipes

Recipe = dict[str, Any]

WEIGHTS = "weights"
DRAFT_AGE_S = 24 * 3600.0  # no job leaves a draft untouched for so long
_DRAFT = re.compile(r"\..+\.([0-9a-f]{8}|gone)")
_DRAFTS_IN = (
    "*", "grids/*", "runs/*", "prepare/*", "evaluate/*", "records", "corpora", "embeddings", "arrangements",
    "first_losses", "tokens", "bases", "code", "submissions/*", "runs/*/state", "runs/*/snapshots",
)  # fmt: skip


@dataclass(frozen=True)
class Piece:
    """A file or folder that nobody needs, and why."""

    kind: str
    path: Path
    reason: str
    size: int


@dataclass
class Scene:
    """What there is and who may still need it. `listed`: the recipes of all grids, `open`: of what is not done."""

    place: Workspace
    ledger: Ledger
    states: Mapping[str, JobState]
    runs: list[str]  # the run folders that are asked about
    listed: list[Recipe] = field(default_factory=list)
    open: list[Recipe] = field(default_factory=list)
    wanted: set[str] = field(default_factory=set)  # runs of recorded grids
    makes: set[str] = field(default_factory=set)  # what active prepare jobs are making

    def is_done(self, run: str) -> bool:
        state = self.states.get(f"runs/{run}")
        return state is not None and state.state == DONE


def look(place: Workspace, grid: str | None) -> Scene:
    """Reads the workspace; with a grid, asks only about what its own runs have left."""
    ledger, names = Ledger(place), grid_record.names(place)
    records = {name: grid_record.read(place, name) for name in names}
    chosen = {grid: grid_record.read(place, grid)} if grid else records
    rows = [row for record in records.values() for row in record["runs"]]
    before = {row["run"] for record in records.values() for row in record.get("before", [])}
    items = {*ledger.by_item(), *(f"runs/{row['run']}" for row in rows)}
    states = collect(place, items, ledger)
    scene = Scene(place, ledger, states, [])
    scene.wanted = {row["run"] for row in rows} | before
    on_disk = {path.name for path in (place.root / "runs").glob("[!.]*")}
    own = {row["run"] for one in chosen.values() for row in grid_record.all_rows(one)}
    scene.runs = sorted(on_disk & own if grid else on_disk)
    scene.listed = [row["recipe"] for row in rows]
    scene.open = [row["recipe"] for row in rows if not scene.is_done(row["run"])]
    for item, state in states.items():
        if state.is_active:
            job = read_json(place.root / item / "job.json") or {}
            scene.makes |= set(job.get("makes", ()))
            if "recipe" in job:
                scene.listed.append(job["recipe"])
                scene.open.append(job["recipe"])
    return scene


def find(place: Workspace, grid: str | None = None) -> list[Piece]:
    """What may be freed. UserError for a grid that is not there; ClusterError where Slurm does not answer."""
    scene = look(place, grid)
    kinds = [_states(scene), _snapshots(scene), _weights(scene), _submissions(scene, grid)]
    if grid is None:
        kinds += [_tokens(scene), _first_losses(scene), _made(scene), _code(scene), _drafts(place)]
    return [piece for pieces in kinds for piece in pieces]


def free(place: Workspace, grid: str | None = None) -> list[Piece]:
    """Frees what `find` finds at this moment, and returns what was freed of it. UserError while a submit is at work.

    What could not be removed says so in its reason, and counts only with what has gone of it.
    """
    with submit_lock(place):
        freed = []
        for piece in find(place, grid):
            if piece.kind == WEIGHTS:  # with the marks of runs that never will
                start = piece.path.parent.name
                for user in stages.users(place, start):
                    stages.release(place, start, user)
            with contextlib.suppress(OSError):  # of no rights, which the rest of it shows
                if piece.path.is_dir():
                    discard(piece.path)
                else:
                    piece.path.unlink(missing_ok=True)
            left = _size(piece.path) + _size(piece.path.with_name(f".{piece.path.name}.gone"))
            if left or piece.path.exists():
                why = f"{piece.reason}, but {left / 1e6:.1f} MB could not be removed: {piece.path}"
                piece = replace(piece, reason=why, size=max(0, piece.size - left))
            freed.append(piece)
        return freed


def _piece(kind: str, path: Path, reason: str) -> Piece:
    return Piece(kind, path, reason, _size(path))


def _size(path: Path) -> int:
    """The bytes that are free once a file or folder is gone; a file that another name keeps frees none."""
    files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file() and not one.is_symlink()]
    names: dict[tuple[int, int], int] = {}
    size = 0
    for file in files:
        with contextlib.suppress(FileNotFoundError):
            found = file.stat()
            key = (found.st_dev, found.st_ino)
            names[key] = names.get(key, 0) + 1
            if names[key] == found.st_nlink:
                size += found.st_size
    return size


def _states(scene: Scene) -> Iterator[Piece]:
    for run in scene.runs:
        folder = scene.place.run(run)
        keep = (read_json(folder / "job.json") or {}).get("checkpoints", {}).get("keep_state")
        if scene.is_done(run) and not keep and (folder / "state").is_dir():
            yield _piece("states", folder / "state", "its run is done")


def _snapshots(scene: Scene) -> Iterator[Piece]:
    for run in filter(scene.is_done, scene.runs):
        folder = scene.place.run(run)
        kept = {row["step"] for row in scene.states[f"runs/{run}"].snapshots if row["kept"]}
        for path in sorted((folder / "snapshots").glob("[0-9]*")):
            scored = (read_json(folder / "job.json") or {}).get("scored", ())
            if int(path.name) not in kept and not evaluations.is_needed(folder, scored, int(path.name)):
                yield _piece("snapshots", path, "beyond what checkpoints.keep keeps")


def _weights(scene: Scene) -> Iterator[Piece]:
    """The weights of stages from which no run that is wanted or active is going to start."""
    for run in scene.runs:
        folder = scene.place.run(run)
        if is_committed(folder / "weights") and not any(
            _still_starts(scene, user) for user in stages.users(scene.place, run)
        ):
            yield _piece(WEIGHTS, folder / "weights", "no run that is wanted starts from them")


def _still_starts(scene: Scene, run: str) -> bool:
    """Whether a run that left its mark has yet to start from the weights, or has kept adapters of them."""
    state = scene.states.get(f"runs/{run}")
    if scene.is_done(run):
        job = read_json(scene.place.run(run) / "job.json") or {}
        return bool(job) and stages.is_still_needed(scene.place.run(run), job)
    return run in scene.wanted or (state is not None and state.is_active)


def _submissions(scene: Scene, grid: str | None) -> Iterator[Piece]:
    newest = {one.id: one for one in scene.ledger.by_item().values()}
    old = [
        one
        for one in scene.ledger.submissions.values()
        if one.id not in newest and grid in (None, one.grid) and scene.place.submission(one.id).is_dir()
    ]
    queue = slurm.look([job for one in old for job in one.jobs])
    alive = queue.active.keys() | queue.away.keys()
    for one in old:
        if not alive & set(one.jobs):
            yield _piece("submissions", scene.place.submission(one.id), "all its jobs were submitted again since")
    for one in newest.values():
        done = all(scene.states[item].state == DONE for item in one.items if item in scene.states)
        if done and grid in (None, one.grid):
            for path in sorted(scene.place.submission(one.id).glob("*.pkl")):
                yield _piece("submissions", path, "all its jobs are done; their logs stay")


def _prefixes(recipe: Recipe) -> Iterator[Recipe]:
    """The recipes of a run and of the stages before it."""
    for count in range(1, len(recipe["stages"]) + 1):
        yield {**recipe, "stages": recipe["stages"][:count]}


def _tokens(scene: Scene) -> Iterator[Piece]:
    needed = {tokens_id(one, recipes.arrangement_id(one)) for recipe in scene.open for one in _prefixes(recipe)}
    yield from _unneeded(scene.place.root / "tokens", needed, "tokens", "no unfinished run trains on it")


def _first_losses(scene: Scene) -> Iterator[Piece]:
    if not scene.open:  # their names do not tell whose they are
        yield from _unneeded(scene.place.root / "first_losses", (), "first losses", "every recorded run is done")


def _made(scene: Scene) -> Iterator[Piece]:
    every = [one for recipe in scene.listed for one in _prefixes(recipe)]
    for kind, of in (("arrangements", recipes.arrangement_id), ("bases", recipes.base_id)):
        making = {need.partition("/")[2] for need in scene.makes if need.startswith(f"{kind}/")}
        needed = {made for one in every if (made := of(one))} | making
        yield from _unneeded(scene.place.root / kind, needed, kind, "no recorded grid needs it")


def _code(scene: Scene) -> Iterator[Piece]:
    kept = set()
    active = [scene.place.root / item for item, state in scene.states.items() if state.is_active]
    for folder in [*map(scene.place.run, scene.wanted), *active]:
        kept.add((read_json(folder / "job.json") or {}).get("code", {}).get("digest"))
    yield from _unneeded(scene.place.root / "code", kept, "code", "no recorded or active run was submitted with it")


def _unneeded(parent: Path, needed: Collection[str | None], kind: str, reason: str) -> Iterator[Piece]:
    for path in sorted(parent.glob("[!.]*")):
        if path.name not in needed and is_committed(path):
            yield _piece(kind, path, reason)


def _drafts(place: Workspace) -> Iterator[Piece]:
    """What dead processes have left under temporary names."""
    before = time.time() - DRAFT_AGE_S
    for parent in _folders(place.root):
        for path in sorted(parent.glob(".*")):
            if _DRAFT.fullmatch(path.name) and _last_touched(path) < before:
                yield _piece("drafts", path, "left under a temporary name by a process that died")


def _folders(root: Path) -> Sequence[Path]:
    found = {path for pattern in _DRAFTS_IN for path in root.glob(pattern) if path.is_dir()}
    return sorted({root, *(path for path in found if not path.name.startswith("."))})


def _last_touched(path: Path) -> float:
    times = [0.0]
    for one in (path, *path.rglob("*")):
        with contextlib.suppress(FileNotFoundError):
            times.append(one.stat().st_mtime)
    return max(times)


def totals(pieces: Iterable[Piece]) -> dict[str, tuple[int, int, list[str]]]:
    """How many pieces of each kind, their bytes together, and the reasons."""
    found: dict[str, tuple[int, int, list[str]]] = {}
    for piece in pieces:
        count, size, reasons = found.get(piece.kind, (0, 0, []))
        found[piece.kind] = (count + 1, size + piece.size, [*dict.fromkeys([*reasons, piece.reason])])
    return found
