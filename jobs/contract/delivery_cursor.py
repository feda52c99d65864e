"""delivery/<grid>.json: how far a run has been delivered to the MLflow of one grid.

It only saves work: without it MLflow is asked what it has, and all is sent once more,
which changes nothing there.
"""

from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from jobs.contract.journal_rows import Number
from jobs.contract.records import read_record, write_record

FOLDER = "delivery"
ADVICE = "remove it, and zsg sync sends the whole run once more, which changes nothing"
# as `uri`: the store that lies in the workspace, and moves with it
OWN_STORE = "mlflow.db of the workspace"
SQLITE = "sqlite:///"


class LostRow(msgspec.Struct, frozen=True, array_like=True):
    """A point that MLflow has, whose row the journal has lost. `ts`: ms since the
    epoch; a value that is not finite is a text."""

    key: str
    step: int
    ts: int
    value: Number


class DeliveryCursor(msgspec.Struct, frozen=True, kw_only=True):
    """What MLflow has of a run; an older zsg's has less.

    `sent`: points by stage and writer. `state`: the tags of the run's state. `seen`: how
    the run's files looked when all of it had been sent. `results`: what is compared to
    tell whether item losses and snapshots are to be sent. `run`: the MLflow run, which
    is filled from the journal that began at `began`. `doubtful`: a request to create
    the run got no answer, so there may be a second one. `refilling`: the flag for which
    the run is to be filled anew, `refilled` that for which it was, `old` the MLflow run
    that this one replaces. `keys`: the metric keys that MLflow is told, for ever; an
    older zsg chose them anew each time. `last`: by stage and writer, how many points
    were sent, and key, step and time of the last. `unkept`: whether the run's tables
    are yet to be kept as artifacts. `lost`: the points that MLflow has and the journal
    lost; they count there in place of what is computed again. `attempts`: how many of
    the run's own attempts had journalled when that was asked last.
    """

    sent: dict[str, int] | int = {}
    params: bool | UnsetType = UNSET
    state: dict[str, str] | None = None
    # of these two is only asked whether they are equal; some zsg wrote them as a text
    seen: Any = None
    results: Any = None
    uri: str = ""
    run: str = ""
    began: str | None = None
    doubtful: bool = False
    refilled: str | None = None
    old: str | None = None
    refilling: str | UnsetType | None = UNSET
    keys: list[str] | UnsetType = UNSET
    last: dict[str, tuple[int, str, int, int]] | UnsetType = UNSET
    unkept: bool | UnsetType = UNSET
    lost: list[LostRow] | UnsetType = UNSET
    attempts: int | UnsetType = UNSET

    def is_of(self, store: str) -> bool:
        """Whether a zsg that counts by stage wrote it, of this MLflow. The workspace's
        own may be named by where it lay once."""
        is_own = store == OWN_STORE and self.uri.startswith(SQLITE)
        counts_by_stage = isinstance(self.sent, dict) and self.params is not UNSET
        return counts_by_stage and (is_own or self.uri == store)

    @property
    def is_flagged(self) -> bool:
        """Whether the run is flagged, and not refilled since."""
        flag = (self.state or {}).get("flag")
        if not flag:
            return False
        return not (self.refilled and flag.endswith(self.refilled))

    @property
    def refill_reason(self) -> str | None:
        """The flag for which a refill has begun that is not done; None if there is none."""
        return self.refilling or None

    def count_sent(self, writer: str) -> int:
        """How many points of a stage's writer MLflow has."""
        return self.sent.get(writer, 0) if isinstance(self.sent, dict) else 0

    def find_last_sent(self, writer: str) -> tuple[str, int, int] | None:
        """Key, step and time of the last of them; None where none was noted."""
        last = self.last.get(writer) if isinstance(self.last, dict) else None
        if last is None or last[0] != self.count_sent(writer):
            return None
        return last[1:]

    @property
    def chosen_keys(self) -> list[str]:
        """The metric keys that MLflow is told; none where an older zsg noted none."""
        return self.keys if isinstance(self.keys, list) else []

    @property
    def lost_rows(self) -> list[LostRow]:
        """The points that MLflow has and the journal lost."""
        return self.lost if isinstance(self.lost, list) else []

    @property
    def is_unkept(self) -> bool:
        """Whether the run's tables are yet to be kept."""
        return self.unkept is True


def locate_cursor(run_folder: Path, grid: str) -> Path:
    """Where the cursor of a run is, for the MLflow of a grid."""
    return run_folder / FOLDER / f"{grid}.json"


def read_cursor(run_folder: Path, grid: str) -> DeliveryCursor:
    """How far a run has been delivered; nothing of it, if there is no file. Damaged for
    what is no cursor."""
    path = locate_cursor(run_folder, grid)
    return read_record(path, DeliveryCursor, ADVICE) or DeliveryCursor()


def write_cursor(run_folder: Path, grid: str, cursor: DeliveryCursor) -> None:
    """Writes how far a run has been delivered."""
    write_record(locate_cursor(run_folder, grid), cursor)
