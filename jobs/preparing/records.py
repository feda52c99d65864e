"""Keeps normalised examples as a memory-mapped Arrow folder, which Hugging Face
`datasets.load_from_disk` opens too.

A folder of records holds all examples of one data set as published, before any choice:
it is made once, and every corpus and job maps it instead of parsing again. What the
examples of a task share, definition and positive examples, stands once in tasks.json.
Only formats that may have options have a column of them, and only raw texts one that
says that they are.
"""

import contextlib
import gc
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from jobs.contract.folder import read_json, write_json
from zsg_core.data.examples import Example, Turn
from zsg_core.errors import BadData

DATA, TASKS = "data-00000-of-00001.arrow", "tasks.json"
ROWS, BYTES = 1000, 64 << 20  # of a batch, at most: text is addressed by 31 bits
_TURN = pa.struct([("user", pa.string()), ("assistant", pa.string())])
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("task", pa.string()),
        ("system", pa.string()),
        ("turns", pa.list_(_TURN)),
        ("references", pa.list_(pa.string())),
        ("tags", pa.list_(pa.string())),
    ]
)
OPTIONS = pa.field("options", pa.list_(pa.string()))
IS_TEXT = pa.field("is_text", pa.bool_())


def write_records(
    folder: Path,
    examples: Iterable[Example],
    name: str = "zsg",
    with_options: bool = False,
    are_texts: bool = False,
) -> int:
    """Writes the records; how many they are. `name` tells them from others in the
    caches of `datasets`.

    Options are kept only `with_options`; that they are raw texts, where they `are_texts`.
    """
    count, tasks, schema = 0, {}, SCHEMA
    schema = schema.append(OPTIONS) if with_options else schema
    schema = schema.append(IS_TEXT) if are_texts else schema
    with (
        pa.OSFile(str(folder / DATA), "wb") as file,
        pa.ipc.new_stream(file, schema) as stream,
        _uncollected(),
    ):
        for batch in _batches(examples):
            stream.write_batch(_arrow(batch, schema))
            count += len(batch)
            tasks |= {
                e.task: {"definition": e.definition, "shots": e.shots}
                for e in batch
                if e.definition
            }
    write_json(folder / TASKS, tasks)
    _write_state(folder, name)
    return count


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    # Millions of small tuples, none in a cycle: looking for cycles among them takes a
    # tenth of the time.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class Records(Sequence[Example]):
    """The examples of a folder; each is made when it is asked for. BadData if two have one id."""

    def __init__(self, folder: Path) -> None:
        self._file = pa.memory_map(str(folder / DATA))
        self._batches = list(pa.ipc.open_stream(self._file))
        self._starts = np.cumsum([0, *(len(batch) for batch in self._batches)])
        self._readers: dict[int, Callable[[int], Example]] = {}
        shared = read_json(folder / TASKS) or {}
        self._tasks = {task: _shared(**parts) for task, parts in shared.items()}

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, place: int) -> Example:  # type: ignore[override]
        if not 0 <= place < len(self):
            raise IndexError(place)
        batch = int(np.searchsorted(self._starts, place, side="right")) - 1
        return self._batch(batch)(place - int(self._starts[batch]))

    def _batch(self, number: int) -> Callable[[int], Example]:
        # A scalar of Arrow costs ten times what its bytes do, and a corpus is read in any order.
        if number not in self._readers:
            self._readers[number] = _reading(self._batches[number], self._tasks)
        return self._readers[number]

    def texts(self, column: str, places: NDArray[np.int64]) -> list[str]:
        """The `id` or `task` of the examples at some places."""
        return self._column(column).take(pa.array(places)).to_pylist()

    def places(self) -> dict[str, NDArray[np.int64]]:
        """Where the examples of each task stand, tasks in the order in which they come first."""
        coded = self._column("task").dictionary_encode()
        codes = coded.indices.to_numpy()
        order = np.argsort(codes, kind="stable")
        ends = np.cumsum(np.bincount(codes, minlength=len(coded.dictionary)))
        return dict(
            zip(coded.dictionary.to_pylist(), np.split(order, ends[:-1]), strict=True)
        )

    def refuse_doubled(self, source: Path) -> None:
        """BadData where an id stands twice: orders and journals name examples by it."""
        counts = self._column("id").value_counts()
        most = int(np.argmax(counts.field("counts").to_numpy()))
        if counts[most]["counts"].as_py() > 1:
            raise BadData(
                f"{source}: the id {counts[most]['values'].as_py()!r} stands more than once"
            )

    def _column(self, name: str) -> Any:
        chunks = pa.chunked_array(
            [batch.column(name) for batch in self._batches], SCHEMA.field(name).type
        )
        return chunks.combine_chunks()


def _reading(
    batch: pa.RecordBatch, tasks: dict[str, tuple[str, tuple[Turn, ...]]]
) -> Callable[[int], Example]:
    column = dict(zip(batch.schema.names, batch.columns, strict=True))
    made_id, task, system = (_text(column[name]) for name in ("id", "task", "system"))
    user, assistant = (
        _text(column["turns"].values.field(side)) for side in ("user", "assistant")
    )
    turns, references, tags = (
        _span(column["turns"]),
        _texts_of(column["references"]),
        _texts_of(column["tags"]),
    )
    options = _texts_of(column["options"]) if OPTIONS.name in column else lambda row: ()
    is_text = IS_TEXT.name in column

    def example(row: int) -> Example:
        name = task(row)
        definition, shots = tasks.get(name, ("", ()))
        return Example(
            id=made_id(row),
            task=name,
            turns=tuple((user(i), assistant(i)) for i in turns(row)),
            system=system(row),
            definition=definition,
            shots=shots,
            references=references(row),
            tags=tags(row),
            options=options(row),
            is_text=is_text,
        )

    return example


def _text(array: pa.StringArray) -> Callable[[int], str]:
    ends, data = _bounds(array), memoryview(array.buffers()[2] or b"")
    return lambda row: str(data[ends[row] : ends[row + 1]], "utf-8")


def _span(array: pa.ListArray) -> Callable[[int], range]:
    ends = _bounds(array)
    return lambda row: range(ends[row], ends[row + 1])


def _texts_of(array: pa.ListArray) -> Callable[[int], tuple[str, ...]]:
    span, text = _span(array), _text(array.values)
    return lambda row: tuple(map(text, span(row)))


def _bounds(array: pa.Array) -> memoryview:
    assert array.offset == 0, (
        "a batch that was read from a file begins where its buffers do"
    )
    return memoryview(array.buffers()[1] or bytes(4)).cast("i")


def _shared(definition: str, shots: list[list[str]]) -> tuple[str, tuple[Turn, ...]]:
    return definition, tuple((given, wanted) for given, wanted in shots)


def _batches(examples: Iterable[Example]) -> Iterator[list[Example]]:
    stream = iter(examples)
    while batch := list(islice(stream, ROWS)):
        if (
            sum(
                len(text)
                for e in batch
                for texts in (*e.turns, e.options)
                for text in texts
            )
            * 4
            < BYTES
        ):
            yield batch
        else:
            yield from ([example] for example in batch)


def _arrow(batch: Sequence[Example], schema: pa.Schema) -> pa.RecordBatch:
    """Examples as one Arrow batch; columns in the order of the schema."""
    arrays = [
        _texts([e.id for e in batch]),
        _texts([e.task for e in batch]),
        _texts([e.system for e in batch]),
        _dialogues(batch),
        _lists([e.references for e in batch]),
        _lists([e.tags for e in batch]),
    ]
    if OPTIONS.name in schema.names:
        arrays.append(_lists([e.options for e in batch]))
    if IS_TEXT.name in schema.names:
        arrays.append(pa.array([True] * len(batch), IS_TEXT.type))
    return pa.record_batch(arrays, schema=schema)


def _dialogues(batch: Sequence[Example]) -> pa.ListArray:
    """The turns of each example, as pairs of texts."""
    turns = [turn for example in batch for turn in example.turns]
    users, assistants = zip(*turns, strict=True) if turns else ((), ())
    pairs = pa.StructArray.from_arrays(
        [_texts(users), _texts(assistants)], fields=list(_TURN)
    )
    return pa.ListArray.from_arrays(_offsets([e.turns for e in batch]), pairs)


def _texts(texts: Sequence[str]) -> pa.StringArray:
    return pa.array(texts, pa.string())


def _lists(texts: Sequence[Sequence[str]]) -> pa.ListArray:
    return pa.ListArray.from_arrays(
        _offsets(texts), _texts([text for some in texts for text in some])
    )


def _offsets(lists: Sequence[Sequence[Any]]) -> pa.Int32Array:
    return pa.array(list(accumulate(map(len, lists), initial=0)), pa.int32())


def _write_state(folder: Path, name: str) -> None:
    # What `datasets` writes beside its Arrow files; it reads the columns' types from
    # the files themselves.
    state = {
        "_data_files": [{"filename": DATA}],
        "_fingerprint": name,
        "_format_columns": None,
    }
    state |= {
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    (folder / "state.json").write_text(
        json.dumps(state, indent=1) + "\n", encoding="utf-8"
    )
    (folder / "dataset_info.json").write_text("{}\n", encoding="utf-8")
