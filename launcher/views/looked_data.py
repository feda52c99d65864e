"""What a look at data has found, as pages, terminals and scripts show it."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from zsg_core.data.data_look import Overlap, Repeats, Spread
from zsg_core.data.examples import Example

TRAIN, TEST = "train", "test"
TOKENS, CHARACTERS = "tokens", "characters"


@dataclass(frozen=True, kw_only=True)
class Cut:
    """What max_length takes of the measured examples of a split: of how many examples,
    in how many tokens, and how many lose their whole question."""

    max_length: int
    examples: int
    tokens: int
    questionless: int
    worst: tuple[str, ...]  # ids of those that lose most


@dataclass(frozen=True, kw_only=True)
class SplitLook:
    """A split of a source: its examples by task, how many of them were measured, the
    spread of their lengths (`prompt`, `answer` and `whole`, or `whole` alone), and
    what is cut. `blank`: how many have an empty answer or question."""

    tasks: dict[str, int]
    blank: int
    measured: int = 0
    lengths: dict[str, Spread] = field(default_factory=dict[str, Spread])
    cut: Cut | None = None

    @property
    def count(self) -> int:
        """How many examples it has."""
        return sum(self.tasks.values())


@dataclass(frozen=True, kw_only=True)
class ShownExample:
    """An example that is shown, and of which split it is; empty of one that is in none."""

    split: str
    example: Example


@dataclass(frozen=True, kw_only=True)
class SourceLook:
    """A source. `fields` as YAML has them, empty of a format with columns of its own;
    `guessed`: whether format and fields were. `reasons` are of the first rows that are
    no examples, of which there are `bad_rows`; `skips`: whether a run passes them over.
    """

    name: str
    path: Path
    test_path: Path | None
    reader: str
    fields: str
    guessed: bool
    mapping: str | None
    tasks: dict[str, int]
    repeats: Repeats
    bad_rows: int
    reasons: tuple[str, ...]
    is_bound: bool
    splits: dict[str, SplitLook]
    shown: tuple[ShownExample, ...]
    notes: tuple[str, ...] = ()
    skips: bool = False


@dataclass(frozen=True, kw_only=True)
class DataLook:
    """What is trained on and tested by some runs. `unit`: of the lengths; `counted_by`
    says whose tokens they are, or why they are none. `overlap`: None where nothing is
    tested. `targets`: the target sets that orders look at, each as a line."""

    title: str
    unit: str
    counted_by: str
    sources: tuple[SourceLook, ...]
    overlap: Overlap | None
    targets: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class GridLook:
    """The data of a grid, each once; `more`: how many others its runs have."""

    looks: tuple[DataLook, ...]
    more: int = 0


def make_row(look: DataLook) -> dict[str, Any]:
    """A look for scripts."""
    return {
        "title": look.title,
        "unit": look.unit,
        "counted_by": look.counted_by,
        "overlap": None if look.overlap is None else asdict(look.overlap),
        "targets": list(look.targets),
        "sources": [_make_source_row(source) for source in look.sources],
    }


def _make_source_row(source: SourceLook) -> dict[str, Any]:
    """A source for scripts."""
    test_path = source.test_path
    return {
        "name": source.name,
        "path": str(source.path),
        "test_path": None if test_path is None else str(test_path),
        "set": source.reader,
        "fields": source.fields or None,
        "guessed": source.guessed,
        "mapping": source.mapping,
        "examples": sum(source.tasks.values()),
        "tasks": source.tasks,
        "repeats": asdict(source.repeats),
        "bad_rows": {"count": source.bad_rows, "reasons": list(source.reasons)},
        "is_bound": source.is_bound,
        "splits": {
            name: _make_split_row(split) for name, split in source.splits.items()
        },
        "shown": [_make_example_row(displayed) for displayed in source.shown],
        "notes": list(source.notes),
    }


def _make_split_row(split: SplitLook) -> dict[str, Any]:
    """A split for scripts."""
    lengths = {section: asdict(spread) for section, spread in split.lengths.items()}
    return {
        "examples": split.count,
        "tasks": split.tasks,
        "blank": split.blank,
        "measured": split.measured,
        "lengths": lengths,
        "cut": None if split.cut is None else asdict(split.cut),
    }


def _make_example_row(shown: ShownExample) -> dict[str, Any]:
    """An example for scripts, its texts whole."""
    example = shown.example
    return {
        "id": example.id,
        "task": example.task,
        "split": shown.split or None,
        "system": example.system,
        "definition": example.definition,
        "turns": [list(turn) for turn in example.turns],
        "references": list(example.references),
        "options": list(example.options),
    }
