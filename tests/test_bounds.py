"""Do small inputs take small memory and little time, whatever they unpack to, count to
or name twice?

Each piece of work has a real limit of memory and of time, in a process of its own,
where it could take more.
"""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.contract import folder, journal
from launcher.grids import input_checks, inputs, model_files
from launcher.grids.input_checks import Judged
from tests.lib.builders import write_niv2
from tests.lib.command_line import Zsg
from tests.lib.resource_limits import seconds_of, within
from zsg_core.data.readers import FORMATS, columns, json_array, keyed, names, niv2
from zsg_core.data.readers.intake import Intake
from zsg_core.errors import UserError, ZsgError
from zsg_core.settings.run import Settings
from zsg_core.training import schedule

GIB, MIB = 1 << 30, 1 << 20
STRIDES = st.one_of(
    st.integers(1, 50),
    st.lists(st.integers(1, 300), min_size=1, max_size=9).map(tuple),
    st.sampled_from(["1-50:7, 50-100:10, 100-:50", "3-9:1", "1-:3"]),
)


@settings(deadline=None)
@given(st.integers(0, 300), STRIDES, STRIDES, st.one_of(st.none(), STRIDES))
def test_checkpoints_are_counted_as_they_are_listed(
    total: int, every: Any, full: Any, snapshots: Any
) -> None:
    """Every loss has as many steps as are listed for it, with a quick set and without,
    and so have snapshots."""
    quick = {"items": 5, "full_every": full}

    for one in (None, quick):
        listed = schedule.list_measured_steps(total, every, one, snapshots)
        assert schedule.count_measured_steps(total, every, one, snapshots) == {
            key: len(own) for key, own in listed.items()
        }
    assert schedule.count_snapshots(total, snapshots) == len(
        schedule.list_snapshot_steps(total, snapshots)
    )


@pytest.mark.parametrize(
    ("every", "count"),
    [
        (2, 5 * 10**17 + 2),
        ("1-:1", 10**18 + 1),
        ("1-9:1, 9-:1000", 10**15 + 11),
        ((1, 2, 10**6), 5),
    ],
    ids=["a stride", "a span without an end", "spans", "steps"],
)
def test_checkpoints_of_a_huge_number_of_steps_are_counted_and_not_listed(
    every: Any, count: int
) -> None:
    """Of 10^18 steps: all that a stride names, 0 and the last included; the count is
    exact but for these two."""
    told = within(GIB // 4, 10, lambda: schedule.count_checkpoints(10**18, every))

    assert 0 <= told - count + 2 <= 3


def test_more_checkpoints_than_a_million_are_refused_before_they_are_listed() -> None:
    """A node that meets them says which settings ask for them."""
    with pytest.raises(
        UserError,
        match=r"1,000,000,001, more than 1,000,000; .*checkpoints\.every.* train\.epochs",
    ):
        schedule.list_checkpoint_steps(10**9, 1)


GRID = (
    "name: g\nprofile: local\ndefaults:\n  data: {path: data, sampling: first, %s}\n  train:"
    " {batch: 4, %s}\n"
)


@pytest.mark.parametrize("count", [2**62])
def test_all_examples_by_a_huge_count_can_be_planned(zsg: Zsg, count: int) -> None:
    """`train_per_task: 1000000000` is how some say all: the bound of steps and
    checkpoints is told, none is listed."""
    write_niv2(zsg.folder / "data")
    grid = zsg.write(
        "grid.yaml", GRID % (f"train_per_task: {count}, train_tasks: 1", "")
    )

    estimate = json.loads(zsg("plan", grid, "--json"))[0]["estimate"]

    assert estimate["steps"] == -(-count // 4)
    assert estimate["checkpoints"] in (
        count // 40 + 1,
        count // 40 + 2,
        count // 40 + 3,
    )


def test_a_run_with_too_many_checkpoints_whatever_its_data_is_refused_by_plan(
    zsg: Zsg,
) -> None:
    """A billion epochs of one example or more are steps enough for that: the keys are
    named, nothing is submitted."""
    write_niv2(zsg.folder / "data")
    grid = zsg.write("grid.yaml", GRID % ("train_per_task: 2", "epochs: 1000000000"))

    zsg("plan", grid, code=2)

    assert "more than 1,000,000" in zsg.said
    assert "train.epochs" in zsg.said


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("stages", [{"train": {"lr": 1e-5}}] * 101),
        ("model", {"layers": 10**9}),
        ("model", {"hidden": 2**40, "heads": 1}),
        ("model", {"vocab": 10**12}),
        ("resources", {"nodes": 10**9}),
        ("resources", {"evaluators": 10**9}),
    ],
)
def test_counts_of_what_is_made_one_by_one_have_a_bound(key: str, value: Any) -> None:
    """A slip of the finger is refused where it is read, before anything is made so often."""
    with pytest.raises(ValueError, match=r"less than or equal|at most 100 stages"):
        Settings.model_validate({"data": {"path": "x"}, key: value})


def dictionary(text: str, count: int) -> pa.DictionaryArray:
    """A text once, and `count` rows that name it."""
    return pa.DictionaryArray.from_arrays(
        pa.array([0] * count, pa.int32()), pa.array([text])
    )


def dialogue(turns: int, text: str) -> pa.ListArray:
    """One row, of so many messages that name one text."""
    message = pa.StructArray.from_arrays(
        [dictionary("human", turns), dictionary(text, turns)], ["from", "value"]
    )
    return pa.ListArray.from_arrays(pa.array([0, turns], pa.int32()), message)


def views(text: str, count: int) -> pa.Array:
    """So many views of one text."""
    view = len(text).to_bytes(4, "little") + text[:4].encode() + bytes(8)
    buffers = [None, pa.py_buffer(view * count), pa.py_buffer(text.encode())]
    return pa.Array.from_buffers(pa.string_view(), count, buffers)


LONG = "a" * MIB
TABLES = {
    "a dictionary": lambda: pa.table(
        {"instruction": ["q"] * 1000, "output": dictionary(LONG, 1000)}
    ),
    "a long text in each row": lambda: pa.table(
        {"instruction": ["q"] * 30, "output": [LONG] * 30}
    ),
    "a dialogue": lambda: pa.table({"conversations": dialogue(100_000, LONG)}),
    "a text of 20 MiB": lambda: pa.table(
        {"instruction": ["q"], "output": ["a" * (20 * MIB)]}
    ),
    "views": lambda: pa.table(
        {"instruction": ["q"] * 1000, "output": views(LONG, 1000)}
    ),
}
PARQUET = {
    "a dictionary": {},
    "a long text in each row": {"use_dictionary": False},
    "a dialogue": {"store_schema": False},
    "a text of 20 MiB": {"use_dictionary": False},
}


def read_three(path: Path) -> list[int] | str:
    """How long the answers of the first three examples are; or the error."""
    try:
        found = FORMATS["huggingface"].read(path, Intake())
        return [len(one.answer) for _, one in zip(range(3), found, strict=False)]
    except UserError as error:
        return str(error)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bounds a sixteenth as large, so that what is beyond them is soon made."""
    monkeypatch.setattr(columns, "LONGEST", columns.LONGEST // 16)
    monkeypatch.setattr(columns, "AT_ONCE", columns.AT_ONCE // 16)
    monkeypatch.setattr(json_array, "LONGEST", json_array.LONGEST // 128)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", PARQUET)
def test_what_a_small_parquet_unpacks_to_is_bounded(tmp_path: Path, name: str) -> None:
    """Kilobytes that stand for gigabytes are read row by row, or refused by the row
    that has too many bytes."""
    parquet.write_table(
        TABLES[name](), tmp_path / "x.parquet", compression="zstd", **PARQUET[name]
    )

    told = within(GIB // 2, 60, lambda: read_three(tmp_path / "x.parquet"))

    assert (tmp_path / "x.parquet").stat().st_size < MIB
    if isinstance(told, list):
        assert told == [len(LONG)] * 3
    else:
        assert name in ("a dialogue", "a text of 20 MiB")
        assert (
            "x.parquet: row [0] has " in told
            or "together unpack to more than the memory holds" in told
        )


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", ["a dictionary", "a dialogue", "views"])
@pytest.mark.parametrize("compression", [None, "zstd"])
def test_what_a_small_arrow_stream_unpacks_to_is_bounded(
    tmp_path: Path, name: str, compression: str | None
) -> None:
    """As of Parquet: dictionaries, and views of one text, are counted where they stand."""
    table = TABLES[name]()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with (
        pa.OSFile(str(tmp_path / "x.arrow"), "wb") as file,
        pa.ipc.new_stream(file, table.schema, options=options) as to,
    ):
        to.write_table(table)

    told = within(GIB // 2, 60, lambda: read_three(tmp_path / "x.arrow"))

    assert (
        told == [len(LONG)] * 3
        if isinstance(told, list)
        else "x.arrow: row [0] has " in told
    )


def test_a_compressed_batch_beyond_a_gigabyte_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sizes before its buffers tell."""
    table = pa.table({"instruction": ["q"] * 10, "output": ["a" * MIB] * 10})
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with (
        pa.OSFile(str(tmp_path / "x.arrow"), "wb") as file,
        pa.ipc.new_stream(file, table.schema, options=options) as to,
    ):
        to.write_table(table)
    monkeypatch.setattr(columns, "AT_ONCE", MIB)

    assert "has a batch that unpacks to 10,485,8" in str(
        read_three(tmp_path / "x.arrow")
    )


def nested(depth: int) -> pa.DataType:
    """Lists of lists."""
    made = pa.string()
    for _ in range(depth):
        made = pa.list_(made)
    return made


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (lambda: pa.table({f"c{n}": ["a"] for n in range(10_001)}), "10,001 columns"),
        (
            lambda: pa.table({"output": pa.array([None], nested(300))}),
            "more than 64 deep",
        ),
    ],
    ids=["columns", "columns within columns"],
)
def test_a_parquet_of_endless_columns_is_refused(
    tmp_path: Path, table: Any, said: str
) -> None:
    """In number, or within one another, which would overflow the stack."""
    parquet.write_table(table(), tmp_path / "x.parquet", store_schema=False)

    with pytest.raises(UserError, match=said):
        columns.read_schema(tmp_path / "x.parquet")


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    "text",
    [b"a" * 3 * MIB, b'input,output\n"' + b'x\n","' * MIB],
    ids=["a line", "a record"],
)
def test_a_csv_record_that_does_not_end_is_refused(tmp_path: Path, text: bytes) -> None:
    """A line without end, or a record of endless quotes, in a gzipped file of some kilobytes."""
    (tmp_path / "t").mkdir()
    (tmp_path / "t/x.csv.gz").write_bytes(gzip.compress(text, 1))

    with pytest.raises(UserError, match="no row ends within 1 MiB"):
        list(FORMATS["niv2_csv"].read(tmp_path / "t/x.csv.gz", Intake()))


NAMES = [f"task{number}" for number in range(20_000)] * 2


def doubled_list(root: Path) -> None:
    (root / "splits/default").mkdir(parents=True)
    (root / "splits/default/train_tasks.txt").write_text("\n".join(NAMES))
    niv2.read_task_names(root, "train")


def doubled_keys(root: Path) -> None:
    (root / keyed.KEY_LIST).write_text(
        json.dumps({"train_key_list": NAMES, "eval_key_list": []})
    )
    keyed.read_lists(root)


def doubled_files(root: Path) -> None:
    names.find_tasks(
        [root / f"a/{number % 2}/x{number // 2}.jsonl" for number in range(20_000)],
        root,
    )


def doubled_tensors(root: Path) -> None:
    tensor = '{"dtype":"F32","shape":[],"data_offsets":[0,4]}'
    header = ("{" + ",".join(f'"{name}":{tensor}' for name in NAMES) + "}").encode()
    (root / "x.safetensors").write_bytes(
        len(header).to_bytes(8, "little") + header + bytes(4)
    )
    model_files.read_tensors(root / "x.safetensors")


@pytest.mark.parametrize(
    "read", [doubled_list, doubled_keys, doubled_files, doubled_tensors]
)
def test_doubled_names_take_linear_time(tmp_path: Path, read: Any) -> None:
    """Twenty thousand, each twice, are told in a moment; each with each compared they
    would take a minute or more."""

    def told() -> None:
        try:
            read(tmp_path)
        except UserError as error:
            assert "more than once" in str(error) or "twice" in str(error)

    assert seconds_of(told) < 30


def test_added_tokens_are_looked_up_in_a_dictionary_that_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many tokens and points there are: a tokenizer.json has megabytes."""
    read: list[Path] = []
    monkeypatch.setattr(inputs, "base_folder", lambda settings: tmp_path)
    for check in ("check_decoder", "check_length"):
        monkeypatch.setattr(input_checks.model_folder, check, lambda *given: None)
    monkeypatch.setattr(
        input_checks.added_tokens,
        "known_tokens",
        lambda folder: read.append(folder) or {"t7": 1},
    )
    model = {
        "name": "m",
        "path": "x",
        "add_tokens": [f"t{number}" for number in range(9)],
    }
    points = [
        Settings.model_validate({"data": {"path": "x"}, "model": model, "seed": seed})
        for seed in range(3)
    ]

    faults = input_checks.find_input_faults(
        [Judged(point, frozenset({"model"})) for point in points]
    )

    assert ["'t7' is a token of" in str(fault.error) for fault in faults] == [True]
    assert read == [tmp_path]


@pytest.mark.parametrize(
    "text", [b"[" * 100_000, b"{", b"\xff", b'{"a": ' + b"9" * 5000 + b"}"]
)
def test_a_damaged_file_of_a_workspace_is_one_clear_error(
    tmp_path: Path, text: bytes
) -> None:
    """Told with its path, for whatever wrote over it: of JSON records, and of journals."""
    (tmp_path / "exit.json").write_bytes(text)
    (tmp_path / "1-train-0.jsonl").write_bytes(text + b"\n")

    with pytest.raises(ZsgError, match=r"exit\.json: "):
        folder.read_json(tmp_path / "exit.json")
    with pytest.raises(ZsgError, match=r"1-train-0\.jsonl: holds a row"):
        list(journal.read_file(tmp_path / "1-train-0.jsonl"))


def test_a_file_that_is_read_whole_has_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list of tasks, of wordings, a record: none is read that has more bytes than any
    could have."""
    for module in (niv2, keyed):
        monkeypatch.setattr(module, "LONGEST", 10)
    monkeypatch.setattr(niv2, "MOST_OF_A_TASK", 10)
    monkeypatch.setattr(folder, "MOST_JSON", 10)
    (tmp_path / "x.json").write_text("{}" + " " * 10)
    (tmp_path / keyed.KEY_LIST).write_text("{}" + " " * 10)

    with pytest.raises(UserError, match="has more than 10 bytes"):
        list(niv2.read_task(tmp_path / "x.json", Intake()))
    with pytest.raises(UserError, match="has more than 10 bytes"):
        keyed.read_lists(tmp_path)
    with pytest.raises(ZsgError, match="has more than 10 bytes"):
        folder.read_json(tmp_path / "x.json")


assert json_array.LONGEST == 128 * MIB
