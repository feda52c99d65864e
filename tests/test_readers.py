"""Are the published formats read as they are in the wild, and is everything else met by
the declared error?"""

import gzip
import importlib
import json
import pkgutil

import msgspec
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zsg_core.data import readers
from zsg_core.data.examples import Example
from zsg_core.data.readers import json_array, niv2_csv, rows
from zsg_core.data.readers.format import find_files, root_folder
from zsg_core.data.readers.intake import Intake
from zsg_core.errors import UserError

# Folder and README of the shared data → rows; examples are as many.
COUNTS = [
    ("niv2", "niv2", 8520),
    ("niv2", "niv2_variants/early_2021_schema/*.json", 5 * 60),
    ("niv2", "niv2_variants/sapt_continual/SuperNI/*/train.json", 3 * 60),
    ("niv2", "niv2_variants/sapt_continual/SuperNI/*/test.json", 60 + 18 + 60),
    (
        "niv2_csv",
        "niv2_variants/tk_instruct_csv/with_instructions/*/hundred.csv",
        94 + 100,
    ),
    ("niv2_csv", "niv2_variants/tk_instruct_csv/with_instructions/*/ten.csv", 20),
    (
        "niv2_csv",
        "niv2_variants/tk_instruct_csv/without_instructions/*/hundred.csv",
        94 + 100,
    ),
    ("niv2_csv", "niv2_variants/tk_instruct_csv/without_instructions/*/ten.csv", 20),
    ("p3", "p3_t0/data_per_template", 3608),
    ("sharegpt", "sharegpt/fastchat_dummy_conversation.json", 500),
    ("sharegpt", "sharegpt/llamafactory_glaive_toolcall_en_demo.first120.json", 120),
    ("messages", "messages_format/delia_train_dataset.jsonl", 100),
    (
        "messages",
        "messages_format/llamafactory_reason_tool_use_demo.filtered.jsonl",
        25,
    ),
    ("messages", "messages_format/llamafactory_v1_dpo_demo.jsonl", 10),
    ("delia", "delia_tell/delia/train_dataset.jsonl", 100),
    ("delia", "delia_tell/delia/eval_dataset.jsonl", 11),
    ("tell", "delia_tell/tell/dev-en-is.first12.jsonl", 12),
    ("tell", "delia_tell/tell/test-is-en.first12.jsonl", 12),
    ("tell", "delia_tell/tell/test_Halu_CoT_JSON.first60.jsonl", 60),
    ("gsm8k", "gsm8k", 7473),
    ("gsm8k", "gsm8k/test.jsonl", 1319),
    ("gsm8k", "gsm8k/test_socratic.first50.jsonl", 50),
    ("gsm8k", "gsm8k/example_model_solutions.first200.jsonl", 200),
    ("gsm8k", "gsm8k/ScRel_sft_format/test_*.jsonl", 200),
    ("gsm8k", "gsm8k/ScRel_sft_format/train_*.jsonl", 1000),
    ("alpaca", "alpaca/*.json", 5000 + 300 + 91),
    ("alpaca", "code_alpaca/*.json", 2017 + 4535),
    ("self_instruct", "code_alpaca/seed_tasks.jsonl", 21),
    ("self_instruct", "self_instruct/*.jsonl", 175 + 249),
    ("cot_tsv", "flan_collection/cot_data", 1400),
    ("humaneval", "humaneval", 164),
    ("humaneval", "humaneval/example_problem.jsonl", 1),
    ("mt_bench", "mt_bench/mt_bench", 80),
    ("mt_bench", "mt_bench/vicuna_bench", 80),
]


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "path", "count"), COUNTS, ids=[path for _, path, _ in COUNTS]
)
def test_real_files_have_the_counts_of_their_readmes(real_data, name, path, count):
    """Every row of a published file is an example, under an id of its own."""
    intake = Intake()

    made = list(readers.read_examples(name, real_data / path, intake))

    assert len(made) == len({example.id for example in made}) == count
    assert intake.skipped == 0


@pytest.mark.data
def test_zsg_holds_225_of_1825_tasks_out(real_data):
    """The authors' key list is read beside Flan-mini, in its order."""
    lists = readers.read_lists("flan_mini", real_data / "zsg")

    assert lists and (len(lists["train"]), len(lists["test"])) == (1600, 225)
    assert lists["train"][0] == "task150_afs_argument_quality_gun_control"


def line(value: object) -> str:
    """A row as a line of JSON."""
    return json.dumps(value, ensure_ascii=False) + "\n"


SHAREGPT = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
CALL = [{"from": "function_call", "value": "f"}, {"from": "observation", "value": "o"}]
TOOLS = [SHAREGPT[0], *CALL, SHAREGPT[1]]
THOUGHT = [{"type": "reasoning", "value": "r"}, {"type": "text", "text": "b"}]
PARTS = [
    {"role": "system", "content": "s"},
    {"role": "user", "content": [{"type": "text", "value": "a"}]},
    {"role": "assistant", "content": THOUGHT},
]
HISTORY = {"instruction": "c", "output": "d", "history": [["a", "b"]]}
PROBLEM = {
    "task_id": "H/0",
    "prompt": "a",
    "entry_point": "f",
    "canonical_solution": "b",
    "test": "t",
}
ROWS = [
    ("sharegpt", {"conversations": SHAREGPT}, (("a", "b"),)),
    ("sharegpt", {"items": SHAREGPT + SHAREGPT}, (("a", "b"), ("a", "b"))),
    ("sharegpt", {"conversations": TOOLS}, (("a", "f"), ("o", "b"))),
    ("sharegpt", {"conversations": [*SHAREGPT, SHAREGPT[0]]}, (("a", "b"),)),
    ("sharegpt", {"conversations": [SHAREGPT[1], *SHAREGPT]}, (("a", "b"),)),
    ("flan_mini", {"source": "t", "conversations": SHAREGPT}, (("a", "b"),)),
    ("messages", {"messages": PARTS}, (("a", "r\nb"),)),
    ("messages", {"chosen_messages": PARTS, "rejected_messages": []}, (("a", "r\nb"),)),
    ("gsm8k", {"question": "a", "answer": "b"}, (("a", "b"),)),
    ("gsm8k", {"query": "a", "response": "b"}, (("a", "b"),)),
    ("tell", {"prompt": "a", "response": "b"}, (("a", "b"),)),
    (
        "p3",
        {"inputs_pretokenized": "a", "targets_pretokenized": "b", "inputs": [1]},
        (("a", "b"),),
    ),
    ("p3", {"prompt": "a\n", "completion": "b<|endoftext|>"}, (("a\n", "b"),)),
    (
        "alpaca",
        {"instruction": "a", "input": "x", "output": "b", "response": "b"},
        (("a\nx", "b"),),
    ),
    ("alpaca", {"instruction": "a", "input": "", "output": "b"}, (("a", "b"),)),
    ("alpaca", HISTORY, (("a", "b"), ("c", "d"))),
    (
        "self_instruct",
        {"instruction": "a", "instances": [{"input": "", "output": "b"}]},
        (("a", "b"),),
    ),
    ("humaneval", PROBLEM, (("a", "b"),)),
    (
        "mt_bench",
        {"question_id": 1, "category": "c", "turns": ["a", "c"]},
        (("a", ""), ("c", "")),
    ),
]


@pytest.mark.parametrize(("name", "row", "turns"), ROWS)
def test_a_row_becomes_the_turns_that_it_holds(tmp_path, name, row, turns):
    """Each dialect of each format."""
    (tmp_path / "x.jsonl").write_text(line(row))

    [made] = readers.read_examples(name, tmp_path / "x.jsonl", Intake())

    assert made.turns == turns


def test_a_chain_of_thought_ends_with_the_answer(tmp_path):
    """Question, answer and rationale of a line become one turn; `\\n` of two characters
    is a newline."""
    (tmp_path / "aqua_train.tsv").write_text("q\\nOptions\t(A)\twhy\n")

    [made] = readers.read_examples("cot_tsv", tmp_path, Intake())

    assert (made.task, made.turns) == (
        "aqua",
        (("q\nOptions", "why\nThe answer is (A)."),),
    )


def test_what_is_left_out_of_a_dialogue_is_counted(tmp_path):
    """An opening of the assistant and a last question stand in the notes, not in the example."""
    rows_ = [SHAREGPT[1], *SHAREGPT, SHAREGPT[0]]
    (tmp_path / "x.json").write_text(json.dumps([{"conversations": rows_}] * 2))
    intake = Intake()

    list(readers.read_examples("sharegpt", tmp_path / "x.json", intake))

    assert intake.notes == {
        "opening of the assistant": 2,
        "last message without an answer": 2,
    }


BAD_ROWS = [
    ("sharegpt", {"conversations": [SHAREGPT[0], *SHAREGPT]}, "has no answer yet"),
    ("sharegpt", {"conversations": [*SHAREGPT, SHAREGPT[1]]}, "nothing was asked"),
    ("sharegpt", {"conversations": []}, "no message of a user is answered"),
    (
        "sharegpt",
        {"conversations": [{"from": "elf", "value": "x"}]},
        "unknown role 'elf'",
    ),
    ("sharegpt", {"conversations": [{"value": "x"}]}, "needs `from` or `role`"),
    (
        "sharegpt",
        {"conversations": [*SHAREGPT, {"from": "system", "value": "x"}]},
        "after the dialogue has begun",
    ),
    ("sharegpt", {"id": 3}, "needs `conversations` or `items`"),
    (
        "messages",
        {"messages": [{"role": "user", "content": [{"type": "image", "value": "x"}]}]},
        "type 'image'",
    ),
    (
        "messages",
        {"messages": [{"role": "assistant", "content": "x", "loss_weight": 0.0}]},
        "loss_weight 0.0",
    ),
    ("flan_mini", {"source": "a\nb", "conversations": SHAREGPT}, "no name of a task"),
    ("flan_mini", {"source": "", "conversations": SHAREGPT}, "no name of a task"),
    ("gsm8k", {"question": "a"}, "needs question and answer, or query and response"),
    (
        "gsm8k",
        {"question": 3, "answer": "b"},
        "Expected `str | null`, got `int` - at `$.question`",
    ),
    ("alpaca", {"instruction": "a"}, "missing required field `output`"),
    ("self_instruct", {"instruction": "a", "instances": []}, "`instances` is empty"),
    ("p3", {"prompt": "a"}, "needs inputs_pretokenized"),
    ("mt_bench", {"question_id": 1, "category": "c", "turns": []}, "`turns` is empty"),
]


@pytest.mark.parametrize(("name", "row", "said"), BAD_ROWS)
@pytest.mark.parametrize("suffix", ["jsonl", "json"])
def test_a_bad_row_is_told_by_file_and_place_or_counted(
    tmp_path, name, row, said, suffix
):
    """A row in the middle: the error names its line or index and the reason; under skip
    the others are read."""
    good = next(good for format_name, good, _ in ROWS if format_name == name)
    others = [
        {**good, "question_id": n} if name == "mt_bench" else good for n in (8, 9)
    ]
    given_ = [others[0], row, others[1]]
    path = tmp_path / f"x.{suffix}"
    path.write_text(
        "".join(map(line, given_)) if suffix == "jsonl" else json.dumps(given_)
    )
    intake, where = Intake(skip=True), ":2" if suffix == "jsonl" else "[1]"

    with pytest.raises(UserError) as caught:
        list(readers.read_examples(name, path, Intake()))
    assert str(caught.value).startswith(f"{path}{where}: ")
    assert said in str(caught.value) and "on_bad_row: skip" in str(caught.value)
    assert len(list(readers.read_examples(name, path, intake))) == 2
    assert intake.skipped == 1 and said in intake.reasons[0]


def test_a_published_id_that_stands_twice_is_a_bad_row(tmp_path):
    """Problems and questions keep their ids, so these must differ."""
    (tmp_path / "x.jsonl").write_text(line(PROBLEM) * 2)

    with pytest.raises(UserError, match=r"x\.jsonl:2: 'H/0' stands more than once"):
        list(readers.read_examples("humaneval", tmp_path / "x.jsonl", Intake()))


GOOD = {"source": "t", "conversations": SHAREGPT}
BROKEN = {
    "empty": b"",
    "blank": b" \n\n",
    "an empty array": b"[]",
    "no JSON": b"hello",
    "a number": b"3",
    "truncated in a line": line(GOOD).encode()[:-9],
    "truncated in an array": json.dumps([GOOD, GOOD]).encode()[:-9],
    "no end of the array": json.dumps([GOOD, GOOD]).encode()[:-1],
    "something after the array": json.dumps([GOOD]).encode() + b" x",
    "a missing comma": b"[" + line(GOOD).encode() * 2 + b"]",
    "not UTF-8": line(GOOD).encode().replace(b'"a"', b'"\xff"'),
    "not UTF-8 in an array": json.dumps([GOOD]).encode().replace(b'"a"', b'"\xff"'),
    "half a character": line(GOOD).encode().replace(b'"a"', b'"\\ud800"'),
    "a control character": line(GOOD).encode().replace(b'"a"', b'"\x01"'),
    "nested without end": b"[" * 100_000,
    "NUL": b"\x00" * 100,
    "UTF-16": line(GOOD).encode("utf-16"),
}


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_broken_file_meets_the_declared_error(tmp_path, content, skip):
    """UserError that names the file, and nothing else; passing bad rows over leaves no
    example either."""
    path = tmp_path / "flan_mini.json"
    path.write_bytes(content)

    with pytest.raises(UserError, match=r"flan_mini\.json"):
        list(readers.read_examples("flan_mini", path, Intake(skip)))


def test_a_broken_record_of_an_array_is_told_by_its_index(tmp_path):
    """The text of an array cannot be trusted after it, so this is an error under skip too."""
    path = tmp_path / "flan_mini.json"
    path.write_text(
        "["
        + ", ".join([json.dumps(GOOD)] * 5 + ['{"source": }'] + [json.dumps(GOOD)])
        + "]"
    )

    with pytest.raises(UserError, match=r"broken at its record \[5\]"):
        list(readers.read_examples("flan_mini", path, Intake(skip=True)))


@pytest.mark.parametrize(
    "content", [b'a,b\n"x', b"input\nx\n", b"", b"\xff", b'input,output\n"a"b,c\n']
)
def test_a_broken_csv_meets_the_declared_error(tmp_path, content):
    """Quotes that do not close, a missing column, no UTF-8."""
    (tmp_path / "task1").mkdir()
    (tmp_path / "task1/x.csv").write_bytes(content)

    with pytest.raises(UserError, match=r"x\.csv"):
        list(readers.read_examples("niv2_csv", tmp_path, Intake()))


def test_two_samples_of_one_task_are_refused(tmp_path):
    """Tk-Instruct's ten.csv is part of hundred.csv."""
    (tmp_path / "task1").mkdir()
    for name in ("ten", "hundred"):
        (tmp_path / f"task1/{name}.csv").write_text("input,output\na,b\n")

    with pytest.raises(UserError, match="choose one with a pattern"):
        list(readers.read_examples("niv2_csv", tmp_path, Intake()))


@pytest.mark.parametrize("suffix", ["json", "jsonl", "json.gz", "jsonl.gz"])
def test_byte_order_marks_gzip_and_blank_lines_are_no_rows(tmp_path, suffix):
    """What editors and archives add is left aside, and line numbers stay those of the file."""
    text = (
        json.dumps([GOOD, GOOD])
        if "jsonl" not in suffix
        else "\n" + line(GOOD) + "\n\n" + line(GOOD)
    )
    content = b"\xef\xbb\xbf" + text.encode()
    (tmp_path / f"x.{suffix}").write_bytes(
        gzip.compress(content) if suffix.endswith("gz") else content
    )

    assert [
        example.id
        for example in readers.read_examples(
            "flan_mini", tmp_path / f"x.{suffix}", Intake()
        )
    ] == ["t:0", "t:1"]


def test_a_broken_archive_meets_the_declared_error(tmp_path):
    """A gzip file that ends too early, or is none."""
    whole = gzip.compress(line(GOOD).encode() * 1000)
    for content in (whole[:-20], whole[:40] + b"xxxx" + whole[44:], b"none"):
        (tmp_path / "x.jsonl.gz").write_bytes(content)
        with pytest.raises(UserError, match=r"x\.jsonl\.gz"):
            list(readers.read_examples("flan_mini", tmp_path / "x.jsonl.gz", Intake()))


@pytest.mark.parametrize("array", [True, False])
def test_a_row_of_a_hundred_megabytes_is_read(tmp_path, array):
    """Long is not wrong."""
    text = "x }, { " * (100_000_000 // 7)
    row = {**GOOD, "conversations": [SHAREGPT[0], {"from": "gpt", "value": text}]}
    path = tmp_path / "x.json"
    path.write_text(
        json.dumps([GOOD, row, GOOD]) if array else line(GOOD) + line(row) + line(GOOD)
    )

    made = list(readers.read_examples("flan_mini", path, Intake()))

    assert [example.answer == text for example in made] == [False, True, False]


@pytest.mark.parametrize("begin", [b"[", b""])
def test_a_row_without_end_is_refused_before_memory_is(tmp_path, begin, monkeypatch):
    """Beyond a limit a row is no text to train on."""
    monkeypatch.setattr(json_array, "LONGEST", 1 << 20)
    (tmp_path / "x.json").write_bytes(begin + b'{"source": "' + b"x" * (4 << 20))

    with pytest.raises(UserError, match="no row ends within 1 MiB"):
        list(readers.read_examples("flan_mini", tmp_path / "x.json", Intake(skip=True)))


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.text(st.sampled_from('}{[]," \\a\n'), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["source", "a"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.dictionaries(st.sampled_from(["source", "b"]), VALUES, max_size=3)),
    st.integers(1, 60),
    st.sampled_from([None, 1]),
)
def test_an_array_is_cut_between_its_records_and_nowhere_else(records, block, indent):
    """However texts imitate the end of a record, and wherever blocks end: the pieces
    hold the same records in order."""
    text = json.dumps(records, indent=indent).encode()
    rest = text[1 + block :]

    def read(size: int) -> bytes:
        nonlocal rest
        taken, rest = rest[: max(size, block)], rest[max(size, block) :]
        return taken

    found = [
        record
        for _, made in json_array.cut_array(
            text[1 : 1 + block], read, msgspec.json.decode
        )
        for record in made or []
    ]

    assert found == records


@settings(
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    max_examples=80,
)
@given(
    st.sampled_from(sorted(readers.FORMATS)),
    st.binary(max_size=80),
    st.lists(VALUES, max_size=4),
    st.booleans(),
    st.integers(0, 200),
    st.integers(0, 255),
)
def test_no_bytes_meet_anything_but_the_declared_error(
    tmp_path, name, noise, values, skip, place, byte
):
    """Noise, rows of any type, and good rows with one byte changed: an example or a
    UserError, for every format."""
    good = [row for format_name, row, _ in ROWS if format_name == name]
    changed = bytearray("".join(map(line, good)).encode() or b"a\tb\tc\n")
    changed[place % len(changed)] = byte
    for content in (
        noise,
        "".join(map(line, values)).encode(),
        json.dumps(values).encode(),
        bytes(changed),
    ):
        for path in (
            tmp_path / f"x.{end}"
            for end in ("json", "jsonl", "tsv", "csv", "parquet", "arrow")
        ):
            path.write_bytes(content)
            try:
                assert all(
                    isinstance(made, Example)
                    for made in readers.read_examples(name, path, Intake(skip))
                )
            except UserError as error:
                assert str(tmp_path) in str(error)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("", ["train.jsonl"]),
        ("b.json", ["b.json"]),
        ("*.json", ["b.json", "c.json"]),
        ("d/*.json", ["e.json"]),
    ],
)
def test_a_path_is_a_file_a_folder_or_a_pattern(tmp_path, path, found):
    """A folder stands for its train file; names are told from the folder above a file
    or pattern."""
    (tmp_path / "d").mkdir()
    for name in ("b.json", "c.json", "train.jsonl", "d/e.json"):
        (tmp_path / name).touch()

    assert [
        file.name for file in find_files(tmp_path / path, (".jsonl", ".json"))
    ] == found
    assert root_folder(tmp_path / path) == (
        tmp_path / "d" if path.startswith("d") else tmp_path
    )


def test_lines_are_numbered_across_blocks(tmp_path, monkeypatch):
    """A bad row far into a file is told by its line in the file."""
    monkeypatch.setattr(rows, "BLOCK", 300)
    (tmp_path / "x.jsonl").write_text(line(GOOD) * 70 + "{}\n" + line(GOOD))

    with pytest.raises(UserError, match=r"x\.jsonl:71: "):
        list(readers.read_examples("flan_mini", tmp_path / "x.jsonl", Intake()))


def test_a_hugging_face_folder_is_read_by_its_columns(tmp_path):
    """What `save_to_disk` writes, one split of it, and Parquet files: the same examples."""
    datasets = pytest.importorskip("datasets")
    talk = {
        "messages": [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b"},
        ]
    }
    made = datasets.Dataset.from_list(
        [{**talk, "category": "Chat", "prompt_id": str(n)} for n in range(3)]
    )
    made.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"train": made, "test": made}).save_to_disk(
        str(tmp_path / "dict")
    )
    (tmp_path / "hub").mkdir()
    made.to_parquet(str(tmp_path / "hub/train-00000-of-00001.parquet"))

    read = [
        list(readers.read_examples("huggingface", tmp_path / name, Intake()))
        for name in ("one", "dict/train", "hub")
    ]

    assert [example.id for example in read[0]] == ["Chat:0", "Chat:1", "Chat:2"]
    assert read[0] == read[1] == read[2]
    with pytest.raises(
        UserError, match="a folder of splits; give one of them: test, train"
    ):
        list(readers.read_examples("huggingface", tmp_path / "dict", Intake()))


def test_unknown_columns_are_told_with_those_that_are_known(tmp_path):
    """zsg does not guess which column is the answer."""
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list([{"text": "a"}]).to_parquet(str(tmp_path / "x.parquet"))

    with pytest.raises(
        UserError,
        match=r"x\.parquet: the columns text are none that zsg knows\. Known: conversations",
    ):
        list(readers.read_examples("huggingface", tmp_path, Intake()))


def _structs_of_readers() -> list[type[msgspec.Struct]]:
    """Every type that a module of the readers decodes rows by."""
    modules = [
        importlib.import_module(f"{readers.__name__}.{found.name}")
        for found in pkgutil.iter_modules(readers.__path__)
    ]
    kinds = {
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, msgspec.Struct)
    } - {msgspec.Struct, Example}
    return sorted(kinds, key=lambda kind: f"{kind.__module__}.{kind.__name__}")


@pytest.mark.parametrize(
    "kind", _structs_of_readers(), ids=lambda kind: f"{kind.__module__}.{kind.__name__}"
)
def test_a_key_that_may_be_absent_may_be_null(kind):
    """pandas and Parquet write null for what is not there: no reader has a key with a
    default that refuses it."""
    optional = {
        field.encode_name: field.type
        for field in msgspec.structs.fields(kind)
        if not field.required
    }

    def refuses(wanted) -> bool:
        try:
            msgspec.convert(None, wanted)
        except msgspec.ValidationError:
            return True
        return False

    assert [key for key, wanted in optional.items() if refuses(wanted)] == []


NULLS = [
    (
        "alpaca",
        {"instruction": "q", "input": None, "output": "a", "system": None}
        | {"history": None},
        ["history", "input", "system"],
    ),
    (
        "self_instruct",
        {"instruction": "q", "instances": [{"input": None, "output": "a"}]},
        ["instances[].input"],
    ),
]


@pytest.mark.parametrize(("name", "row", "keys"), NULLS)
def test_null_is_absence(tmp_path, name, row, keys):
    """The row is read as one without the keys; where an older zsg passed such rows
    over, that is counted."""
    (tmp_path / "x.jsonl").write_text(json.dumps(row) + "\n")
    for skip in (False, True):
        intake = Intake(skip)

        (made,) = readers.read_examples(name, tmp_path / "x.jsonl", intake)

        assert (made.turns, made.system) == ((("q", "a"),), "")
        assert intake.skipped == 0
        assert intake.facts().get("nulls", {}) == {key: 1 for key in keys if skip}


def test_a_source_that_is_null_names_no_task(tmp_path):
    """A column `source` beside `conversations`, as of OpenHermes: rows without one are
    dialogues of no task of their own; in Flan-mini, where it names the task, bad rows."""
    talk = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    found = [
        {"source": source, "conversations": talk} for source in (None, "cot", None)
    ]
    parquet.write_table(pa.Table.from_pylist(found), tmp_path / "x.parquet")
    (tmp_path / "x.json").write_text(json.dumps(found))

    made = list(readers.read_examples("huggingface", tmp_path / "x.parquet", Intake()))

    assert [example.id for example in made] == ["sharegpt:0", "cot:0", "sharegpt:1"]
    with pytest.raises(UserError, match=r"x\.json\[0\]: `source` is null"):
        list(readers.read_examples("flan_mini", tmp_path / "x.json", Intake()))


FLAN = [
    {
        "source": "t",
        "conversations": [
            {"from": "human", "value": "q"},
            {"from": "gpt", "value": "a"},
        ],
    }
]
# a format, the files of its folder and their text: each is one example
FOLDERS = [
    (
        "p3",
        {f"{name}.jsonl": '{"prompt": "q", "completion": "a"}\n' for name in "ab"},
    ),
    ("cot_tsv", {f"{name}_train.tsv": "q\ta\tr\n" for name in "ab"}),
    ("niv2_csv", {f"{name}/x.csv": "input,output\nq,a\n" for name in "ab"}),
    ("flan_mini", {"flan_mini.json": json.dumps(FLAN)}),
    ("humaneval", {"HumanEval.jsonl": json.dumps(PROBLEM)}),
    (
        "mt_bench",
        {"question.jsonl": '{"question_id": 1, "category": "c", "turns": ["q"]}\n'},
    ),
    ("gsm8k", {"train.jsonl": '{"question": "q", "answer": "a"}\n'}),
]


def _write(path, content: str, packed: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if packed:
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(content.encode()))
    else:
        path.write_text(content)


@pytest.mark.parametrize(("name", "files"), FOLDERS, ids=[name for name, _ in FOLDERS])
def test_gzipped_files_of_a_folder_are_read(tmp_path, name, files):
    """Alone, and beside plain ones: whatever one file may be, a folder may hold."""
    for number, (file, content) in enumerate(files.items()):
        _write(tmp_path / "packed" / file, content, True)
        _write(tmp_path / "both" / file, content, bool(number))

    for folder in ("packed", "both"):
        made = list(readers.read_examples(name, tmp_path / folder, Intake()))
        assert len(made) == len(files), folder
        assert readers.inspect_files(name, tmp_path / folder).notes == ()


@pytest.mark.parametrize(("name", "files"), FOLDERS, ids=[name for name, _ in FOLDERS])
@pytest.mark.parametrize("suffix", [".zst", ".xz", ".bz2"])
def test_what_is_packed_otherwise_is_told(tmp_path, name, files, suffix):
    """Beside files that are read a note names it; alone it is refused, with the way
    out."""
    first, content = next(iter(files.items()))
    _write(tmp_path / "beside" / first, content, False)
    last = [*files][-1]
    for folder in ("beside", "alone"):
        _write(tmp_path / folder / f"{last}{suffix}", "packed", False)

    made = list(readers.read_examples(name, tmp_path / "beside", Intake()))

    assert len(made) == 1
    (note,) = readers.inspect_files(name, tmp_path / "beside").notes
    assert "left out: " in note and f"{last}{suffix}" in note
    with pytest.raises(UserError, match="no such file"):
        list(readers.read_examples(name, tmp_path / "alone", Intake()))
    if "/" not in last:
        with pytest.raises(UserError, match=r"zsg unpacks \.gz alone"):
            path = tmp_path / "alone" / f"{last}{suffix}"
            list(readers.read_examples(name, path, Intake()))


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("packing", rows.PACKED.items(), ids=rows.PACKED.values())
def test_a_packed_file_under_a_plain_name_is_told_as_that(tmp_path, packing, skip):
    """Not as thousands of bad rows."""
    mark, tool = packing
    for name, file in (("gsm8k", "x.jsonl"), ("cot_tsv", "x.tsv")):
        (tmp_path / file).write_bytes(mark + b"\x00\xff\n" * 9)

        with pytest.raises(UserError, match=f"is packed by {tool}, which its name"):
            list(readers.read_examples(name, tmp_path / file, Intake(skip)))


def test_gzipped_tasks_of_natural_instructions_are_read(tmp_path):
    """By a pattern and in the official folder; where a pattern names them beside plain
    ones, which an older zsg read alone, the recipe says so."""
    task = {"Definition": "d", "Positive Examples": [], "Categories": None} | {
        "Instances": [{"input": "q", "output": ["a"]}]
    }
    for name, packed in (("task1_a", False), ("task2_b", True)):
        _write(tmp_path / "tasks" / f"{name}.json", json.dumps(task), packed)
    for split, name in (("train", "task1_a"), ("test", "task2_b")):
        _write(tmp_path / "splits/default" / f"{split}_tasks.txt", name, False)

    for path in (tmp_path, tmp_path / "tasks/*.json*"):
        made = list(readers.read_examples("niv2", path, Intake()))
        assert [example.id for example in made] == ["task1_a:0", "task2_b:0"]
    marks = {
        pattern: readers.inspect_files("niv2", tmp_path / "tasks" / pattern).marks
        for pattern in ("*.json*", "*.json", "*.json.gz")
    }
    assert marks == {"*.json*": {"packed": "read"}, "*.json": {}, "*.json.gz": {}}


def test_files_beside_those_of_a_hub_folder_are_told(tmp_path):
    """Rows in another form or packed, at any depth; and a packed Parquet is no Arrow."""
    table = pa.table({"question": ["q"], "answer": ["a"]})
    parquet.write_table(table, tmp_path / "train.parquet")
    (tmp_path / "more").mkdir()
    for name in ("more.jsonl.gz", "more/extra.parquet.zst", "README.md"):
        (tmp_path / name).write_bytes(b"x")
    packed = tmp_path / "more/train.parquet.gz"
    packed.write_bytes(gzip.compress((tmp_path / "train.parquet").read_bytes()))

    (note,) = readers.inspect_files("huggingface", tmp_path).notes

    assert note.endswith(
        "left out: more/extra.parquet.zst, more/train.parquet.gz, more.jsonl.gz"
    )
    with pytest.raises(UserError, match="reads Parquet and Arrow files as they are"):
        list(readers.read_examples("huggingface", packed, Intake()))


def test_a_csv_that_lies_there_packed_too_is_read_once(tmp_path):
    """The plain one, as before; which is left out is told. Two of one task are refused."""
    for task in ("task1", "task2"):
        (tmp_path / task).mkdir()
        (tmp_path / task / "x.csv").write_text("input,output\na,b\n")
    with gzip.open(tmp_path / "task1/x.csv.gz", "wt") as file:
        file.write("input,output\nc,d\n")
    files = niv2_csv.list_files(tmp_path)
    assert files == [tmp_path / "task1/x.csv", tmp_path / "task2/x.csv"]

    [note] = niv2_csv.inspect_files(tmp_path, None).notes
    assert note.startswith(
        f"{tmp_path}: left out: task1/x.csv.gz (the same beside them"
    )
    (tmp_path / "task2/y.csv.gz").write_bytes(gzip.compress(b"input,output\n"))
    with pytest.raises(UserError, match="are of one task"):
        niv2_csv.list_files(tmp_path)
