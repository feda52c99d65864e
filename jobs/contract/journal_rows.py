"""The rows of a journal as typed records: one class a kind of row, one class an event.

A row: {seq, ts (ms), attempt, stage, step, examples, kind, data}. `kind` says which
class a row is of, and of an event `data.event` which class its data are of. What is
unset, that writer does not tell, or an older zsg did not.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, Struct, UnsetType, field

from jobs.contract.folder import Damaged, get_object
from jobs.contract.json_values import DECODE_ERRORS, convert_json
from zsg_core.metrics.keys import INSIDE

Number = float | int | str  # one that is not finite is a text

METRIC, REWIND, EVENT, DIGEST, ITEMS = "metric", "rewind", "event", "digest", "items"


class Event(Struct, frozen=True, kw_only=True, tag_field="event"):
    """Something that happened, at a step."""


class Start(Event, frozen=True, kw_only=True, tag="start"):
    """A trainer begins: how it computes, from which step it resumes, what it found.

    `from_step`: 0, or the step of the state that is loaded. `passed_over`: why newer
    states are not. `steps`: the last step of the job. `shortened`, `unanswered`,
    `questionless`: how many examples were, by split; `apart`, `control`: the same of what
    a chat template has met, see TokensMeta. `tokens`: the sums of lengths and
    of their squares, by split. `code`: which packages run. `test_sets`: digests by the
    metric that is taken of them. `parameters`, `trained`: how many there are, and how
    many are trained; `adapted`: by the name of a module, how many of it have LoRA's
    adapters; `silenced`: the rates of the base's dropouts and the like that were set to
    0, by name. `other_versions`: which of the node's are others than those of the submit,
    in a sentence.
    """

    device: str | UnsetType = UNSET
    world: int | UnsetType = UNSET
    zero_stage: int | UnsetType = UNSET
    from_step: int | UnsetType = field(default=UNSET, name="from")
    passed_over: str | UnsetType | None = UNSET
    slurm_job_id: str | UnsetType | None = UNSET
    nodes: str | UnsetType = UNSET
    steps: int | UnsetType = UNSET
    train: int | UnsetType = UNSET
    test: int | UnsetType = UNSET
    shortened: Any = UNSET
    unanswered: Any = UNSET
    questionless: Any = UNSET
    apart: Any = UNSET
    control: Any = UNSET
    tokens: dict[str, dict[str, int]] | UnsetType = UNSET
    precision: str | UnsetType = UNSET
    threads: int | UnsetType = UNSET
    recomputed: Any = UNSET
    compiled: bool | UnsetType = UNSET
    versions: dict[str, Any] | UnsetType = UNSET
    code: dict[str, Any] | UnsetType = UNSET
    test_sets: dict[str, Any] | UnsetType = UNSET
    machine: Any = UNSET
    parameters: int | UnsetType = UNSET
    trained: int | UnsetType = UNSET
    adapted: dict[str, int] | UnsetType = UNSET
    silenced: list[str] | UnsetType = UNSET
    other_versions: str | UnsetType = UNSET


class SnapshotWritten(Event, frozen=True, kw_only=True, tag="snapshot"):
    """A snapshot is on disk. `digest`: of its weights. `seconds`: since its copy was
    made. `probe_loss`: the test loss measured at its step."""

    digest: str
    bytes: int | UnsetType = UNSET
    seconds: float | UnsetType = UNSET
    probe_loss: Number | None = None


class SnapshotRemoved(Event, frozen=True, kw_only=True, tag="snapshot removed"):
    """The rule keeps the snapshot of this step no longer."""


class SnapshotDiffers(Event, frozen=True, kw_only=True, tag="snapshot differs"):
    """A resumed run has come to other weights at a step than its snapshot has."""

    first: str
    again: str


class HoleClosed(Event, frozen=True, kw_only=True, tag="hole closed"):
    """A journal file had lost rows: it counts up to byte `at` only, where `line` begins,
    and what came after is computed again."""

    file: str
    line: int
    at: int


class LossTaken(Event, frozen=True, kw_only=True, tag="taken"):
    """The items' losses of the base were computed by another run. `metric`: the key
    that is their mean. `from_folder`: where they lie in the workspace."""

    metric: str = field(name="what")
    from_folder: str = field(name="from")


class JudgeSpent(Struct, frozen=True, kw_only=True):
    """What a judge's replies took.

    `requests`: replies that came, those without a rating too; `uncounted`: of these,
    where the server did not say how many tokens it read and wrote. `cost`: by the grid's
    prices, where it says some.
    """

    requests: int = 0
    read: int = 0
    written: int = 0
    uncounted: int = 0
    cost: float | UnsetType = UNSET

    def plus(self, other: "JudgeSpent") -> "JudgeSpent":
        """Both together, without a cost."""
        return JudgeSpent(
            requests=self.requests + other.requests,
            read=self.read + other.read,
            written=self.written + other.written,
            uncounted=self.uncounted + other.uncounted,
        )


class AnswersKept(Event, frozen=True, kw_only=True, tag="answers"):
    """The answers of a step are kept, and metrics were taken of them.

    `how`: how they were made; `scored_by`: what decides each key's score beside that.
    `keys`: the metrics taken. `file`, `at`, `bytes`: where the answers are. `asked`
    counts how they came about: see jobs.evaluating.asking. `flags`: what is strange in
    them. `failed`: why keys cannot be had. `judged`: what a judge took to rate them.
    `libraries`: the versions of packages that scored. What
    follows `flags` is told where the answers were generated.
    """

    suite: str
    how: dict[str, Any]
    keys: list[str]
    scored_by: dict[str, dict[str, Any]] | UnsetType = UNSET
    file: str
    at: int
    bytes: int
    flags: list[str] = []
    weights: str | UnsetType | None = UNSET
    probe_loss: Number | UnsetType | None = UNSET
    engine: str | UnsetType = UNSET
    device: str | UnsetType = UNSET
    versions: dict[str, Any] | UnsetType = UNSET
    swap_s: float | UnsetType = UNSET
    generate_s: float | UnsetType = UNSET
    tokens: int | UnsetType = UNSET
    asked: dict[str, Any] | UnsetType = UNSET
    slurm_job_id: str | UnsetType | None = UNSET
    nodes: str | UnsetType = UNSET
    by: str | UnsetType = UNSET
    source: str | UnsetType = UNSET
    step: int | UnsetType = UNSET
    failed: dict[str, str] | UnsetType = UNSET
    judged: JudgeSpent | UnsetType = UNSET
    libraries: dict[str, str] | UnsetType = UNSET


class InsideTaken(Event, frozen=True, kw_only=True, tag=INSIDE):
    """Metrics were taken inside the model of a step. `ways`: how, by key. `files`: what
    was kept of it."""

    ways: dict[str, dict[str, Any]]
    files: Any = UNSET
    weights: str | UnsetType | None = UNSET
    probe_loss: Number | UnsetType | None = UNSET
    device: str | UnsetType = UNSET
    seconds: float | UnsetType = UNSET
    slurm_job_id: str | UnsetType | None = UNSET
    nodes: str | UnsetType = UNSET
    by: str | UnsetType = UNSET
    flags: list[str] = []


class Note(Struct, frozen=True):
    """What a job without steps is doing, in words; also an event that this zsg does not
    know."""

    event: str


class Sizes(Struct, frozen=True):
    """By a journal file's name, how many of its bytes count."""

    sizes: dict[str, int]


class ItemValues(Struct, frozen=True):
    """The values of the items that a metric is the mean of.

    `values`: float32 in base64. `places`: which items of the list these are. `of`: the
    list, where it is not the test set: see jobs.contract.item_losses.
    """

    set: str
    values: str
    places: list[int] | UnsetType = UNSET
    of: str | UnsetType = UNSET


class Row(Struct, frozen=True, kw_only=True, tag_field="kind"):
    """What every row tells. `seq` counts the rows of a file. `ts`: ms since the epoch.
    `examples`: how many the run was trained on up to `step`."""

    seq: int
    ts: int
    attempt: int
    stage: str
    step: int
    examples: int


class MetricRow(Row, frozen=True, kw_only=True, tag=METRIC):
    """Values of metrics at a step, by their keys."""

    data: dict[str, Number]


class RewindRow(Row, frozen=True, kw_only=True, tag=REWIND):
    """A later writer takes over at `step`: what counts of those before it."""

    data: Sizes


class EventRow(Row, frozen=True, kw_only=True, tag=EVENT):
    """Something happened."""

    data: (
        Start
        | SnapshotWritten
        | SnapshotRemoved
        | SnapshotDiffers
        | HoleClosed
        | LossTaken
        | AnswersKept
        | InsideTaken
    )


class NoteRow(Row, frozen=True, kw_only=True, tag=EVENT):
    """A job without steps tells what it is doing."""

    data: Note


class DigestRow(Row, frozen=True, kw_only=True, tag=DIGEST):
    """Digests at a checkpoint: of the ids consumed, and at the end of the weights."""

    data: dict[str, str]


class ItemsRow(Row, frozen=True, kw_only=True, tag=ITEMS):
    """The values of the items behind a metric of this step."""

    data: ItemValues


class OtherRow(Row, frozen=True, kw_only=True, tag="other"):
    """A row of a kind that this zsg does not know: a later one wrote it."""

    data: Any


_KNOWN = MetricRow | RewindRow | EventRow | DigestRow | ItemsRow
_DECODER: msgspec.json.Decoder[_KNOWN] = msgspec.json.Decoder(_KNOWN)
_KINDS = {METRIC, REWIND, EVENT, DIGEST, ITEMS}

E = TypeVar("E", bound=Event)


def decode_row(path: Path, line: bytes, number: int | None = None) -> Row:
    """The row of a line, whose number in the file counts from 1. Damaged, with the
    file's path and the number, for what is none."""
    try:
        return _DECODER.decode(line)
    except DECODE_ERRORS:
        return _decode_unusual(path, line, number)


def _decode_unusual(path: Path, line: bytes, number: int | None) -> Row:
    """The row, where it is a note, or Python's JSON reads more than msgspec's (halves
    of characters); else why it is none."""
    location = "" if number is None else f", line {number}"
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Damaged(
            f"{path}: holds a row that is no JSON any more{location}: {_describe(line, error)}"
        ) from None
    try:
        return convert_row(value)
    except msgspec.ValidationError as error:
        raise Damaged(
            f"{path}: holds a row that is none of a journal{location} ({error}): {line[:80]!r}"
        ) from None


def _describe(line: bytes, error: Exception) -> str:
    """Why a line is no JSON."""
    if zeros := line.count(0):
        return f"{zeros} zero bytes, as a machine that crashed leaves them"
    return str(error)[:200]


def convert_row(value: Any) -> Row:
    """The row of parsed JSON. ValidationError for what is none."""
    try:
        return convert_json(value, _KNOWN)
    except msgspec.ValidationError:
        row = get_object(value)
        kind = row.get("kind")
        if kind == EVENT and not _is_known_event(row.get("data")):
            return convert_json(row, NoteRow)
        if isinstance(kind, str) and kind not in _KINDS and "data" in row:
            return convert_json({**row, "kind": "other"}, OtherRow)
        raise


def _is_known_event(data: Any) -> bool:
    names = {kind.__struct_config__.tag for kind in Event.__subclasses__()}
    return get_object(data).get("event") in names


def find_events(rows: Iterable[Row], kind: type[E]) -> Iterator[tuple[EventRow, E]]:
    """The events of a kind, each with the row that tells of it."""
    for row in rows:
        if isinstance(row, EventRow) and isinstance(row.data, kind):
            yield row, row.data


def find_starts(rows: Iterable[Row]) -> Iterator[tuple[EventRow, Start]]:
    """What each attempt of a trainer told when it began."""
    return find_events(rows, Start)


def find_first_start(rows: Iterable[Row]) -> Start | None:
    """What the first attempt told when it began; None before it has."""
    return next((start for _, start in find_starts(rows)), None)


def find_metrics(rows: Iterable[Row], key: str) -> Iterator[tuple[MetricRow, Number]]:
    """The values of one metric, each with its row; those, too, that were computed again."""
    for row in rows:
        if isinstance(row, MetricRow) and key in row.data:
            yield row, row.data[key]


def name_event(row: Row) -> str | None:
    """The name of the event that a row tells of; None for other rows."""
    if isinstance(row, NoteRow):
        return row.data.event
    if isinstance(row, EventRow):
        return str(row.data.__struct_config__.tag)
    return None


def as_mapping(event: Event) -> dict[str, Any]:
    """What an event tells, by the names in the file; what is unset is not there."""
    return msgspec.to_builtins(event)
