"""Says what one instruction example is, and how a list of them stands on disk."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Example:
    """One instruction example in Natural Instructions' parts.

    `id` is `<task>:<position in the task file>`, unique in its data set. `shots` are (input, output) pairs of
    the task's positive examples. `answer` is the reference to learn or to score by loss; `references` are all.
    """

    id: str
    task: str
    definition: str
    shots: tuple[tuple[str, str], ...]
    input: str
    answer: str
    references: tuple[str, ...]


def write_jsonl(path: Path, examples: Iterable[Example]) -> None:
    """Writes one JSON object per line."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for example in examples:
            file.write(json.dumps(asdict(example), ensure_ascii=False, sort_keys=True) + "\n")


def read_jsonl(path: Path) -> Iterator[Example]:
    """Reads what `write_jsonl` wrote."""
    with path.open(encoding="utf-8", newline="\n") as file:
        for line in file:
            row = json.loads(line)
            row["shots"] = tuple((given, wanted) for given, wanted in row["shots"])
            row["references"] = tuple(row["references"])
            yield Example(**row)
