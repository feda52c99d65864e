"""grid.json: which runs a submitted grid lists, and how it was submitted; written by
the launcher, read by status, reports and the delivery to MLflow.

What is optional came to grid.json later: where it is absent, an older zsg wrote the
file.
"""

from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from jobs.contract.folder import SCHEMA, Workspace, list_paths
from jobs.contract.job_file import Recipe, SubmittedCode
from jobs.contract.notices import Receiver
from jobs.contract.records import read_record, write_record

NAME = "grid.json"
# of the axes the name that a block of the grid gives its points
LABEL = "label"
WHOLE = -1  # bytes; the file has the recipes of all runs, and is read at once


class Keeping(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a grid wants to keep of a run that is done, in the words of its
    `checkpoints`.

    `snapshots`: at which steps it wants weights, None for none; `keep`: which of them
    stay, None for all; `keep_state`: whether what a resume needs stays; `scored`: the
    keys that evaluators are to take of each.
    """

    snapshots: int | str | list[int] | None = None
    keep: dict[str, int | None] | None = None
    keep_state: bool = False
    scored: list[str] = []


class ListedRun(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A run of a grid, by its id. `axes`: what varies; `model`: its name; `strategy`:
    in the grid file's words; `is_stage`: it was listed only as the first stages of
    other runs. Such stages have no recipe, model or strategy. `keeping`: what is to
    stay of it, by each point of the grid that has it; none of an older zsg."""

    run: str
    axes: dict[str, Any]
    recipe: Recipe = {}
    model: str | None = None
    strategy: str | None = None
    is_stage: bool = False
    keeping: list[Keeping] = []


class DatedClaim(msgspec.Struct, frozen=True, kw_only=True):
    """A claim of a grid: its text, when it was first submitted, in ms since the epoch,
    and how many of the grid's runs were done by then."""

    claim: str
    since: int
    done: int


class LockedLook(msgspec.Struct, frozen=True, kw_only=True):
    """A look at the claims of a grid: after how many splits, below which one-sided
    p-value they are decided, and the t-value of that."""

    splits: int
    tail: float
    t: float


class LockedLooks(msgspec.Struct, frozen=True, kw_only=True):
    """When the claims of a grid are looked at, by its file (zsg_core.settings.looks);
    the bounds that come of it, and the seed of the draws by which these are calibrated."""

    settings: dict[str, Any]
    looks: list[LockedLook]
    seed: int


class Deviation(msgspec.Struct, frozen=True, kw_only=True):
    """A change of a grid's claims after its first submit. `at`: ms since the epoch;
    `done`: how many of the grid's runs were done by then; `reason`: the user's words,
    empty for none."""

    at: int
    done: int
    changes: list[str]
    reason: str = ""


class Summaries(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a grid names of zsg_core.metrics.summaries. `data_sets`: set → names and
    patterns of its prompts' tasks, by T0's names where empty; `averages`: name → metric
    → what a guess would have, in per cent; `tracked`: which keys MLflow is to have."""

    data_sets: dict[str, list[str]] = {}
    averages: dict[str, dict[str, float]] = {}
    tracked: list[str] = []


class AllowedPlugin(msgspec.Struct, frozen=True, kw_only=True):
    """A plugin of a grid: the name and the SHA-256 of the file that its submitter has
    allowed, and what it declares, each with its digest."""

    file: str
    digest: str
    declares: list[str]


class GridRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A submitted grid.

    `file`, `opened_with`, `smoke` and `overrides` open it again; `tracking`: the
    address of MLflow, None for the workspace's own; `submitted`: ms since the epoch;
    `corpora`: their ids; `proofs`: the digests of its models' proofs
    (jobs.contract.model_proof), unset of an older zsg; `claims`: None of an older zsg.
    `runs`: those that the grid lists now; `before`: the first stages of those that are
    runs of their own; `former`: what it listed once. `notify`: who is told what befalls
    them. `looks`: when its claims are looked at, unset of one look at the end;
    `deviations`: what of the claims changed since the first submit, unset where nothing
    did; `summaries`: of several values, by its file, unset where it names none;
    `locked`: whether its claims were ever submitted with looks, unset where not. `plugins`: unset
    of a grid without any.
    """

    schema: int = SCHEMA
    name: str
    file: str = ""
    opened_with: str | None = None
    smoke: bool = False
    profile: str = ""
    tracking: str | None = None
    overrides: list[str] = []
    submitted: int = 0
    code: SubmittedCode | None = None
    corpora: list[str] = []
    proofs: list[str] | UnsetType = UNSET
    before: list[ListedRun] = []
    claims: list[DatedClaim] | None = None
    runs: list[ListedRun]
    former: list[ListedRun] = []
    notify: list[Receiver] | UnsetType = UNSET
    looks: LockedLooks | UnsetType = UNSET
    deviations: list[Deviation] | UnsetType = UNSET
    summaries: Summaries | UnsetType = UNSET
    locked: bool | UnsetType = UNSET
    plugins: list[AllowedPlugin] | UnsetType = UNSET

    @property
    def has_locked_claims(self) -> bool:
        """Whether its claims change with a reason only: once they were submitted with
        looks, also where these were left out since."""
        return self.looks is not UNSET or self.locked is True

    @property
    def all_runs(self) -> list[ListedRun]:
        """Every run that the grid has or had."""
        return [*self.runs, *self.before, *self.former]


class RunName(msgspec.Struct, frozen=True, kw_only=True):
    """A run of a grid without its recipe."""

    run: str
    axes: dict[str, Any]


class GridOutline(msgspec.Struct, frozen=True, kw_only=True):
    """A submitted grid without the recipes of its runs, which are most of the file."""

    schema: int = SCHEMA
    name: str
    corpora: list[str] = []
    before: list[RunName] = []
    runs: list[RunName]
    former: list[RunName] = []
    notify: list[Receiver] | UnsetType = UNSET

    @property
    def all_runs(self) -> list[RunName]:
        """Every run that the grid has or had."""
        return [*self.runs, *self.before, *self.former]


def read_grid_record(workspace: Workspace, name: str) -> GridRecord | None:
    """The record of a grid; None if none of that name was submitted.

    Damaged for what is no such record.
    """
    return read_record(locate_grid_record(workspace, name), GridRecord, size=WHOLE)


def read_grid_outline(workspace: Workspace, name: str) -> GridOutline | None:
    """The same without the recipes, which takes a fraction of the time."""
    return read_record(locate_grid_record(workspace, name), GridOutline, size=WHOLE)


def write_grid_record(workspace: Workspace, record: GridRecord) -> None:
    """Writes the record of a grid, whose folder is there."""
    write_record(locate_grid_record(workspace, record.name), record)


def locate_grid_record(workspace: Workspace, name: str) -> Path:
    """Where the record of a grid is."""
    return workspace.grid(name) / NAME


def list_grids(workspace: Workspace) -> list[str]:
    """The names of the grids that were submitted, in order; with those whose folders
    this user may not read."""
    folders = list_paths(workspace.root / "grids", "*")
    return [folder.name for folder in folders if _may_have_record(folder)]


def _may_have_record(folder: Path) -> bool:
    try:
        (folder / NAME).stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True  # who reads it is told why not
    return True
