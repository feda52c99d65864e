"""Are rows under anybody's column names read as the fields say, in every form of file,
and is each row that is no example told by its place or counted?"""

import csv
import gzip
import html
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from ruamel.yaml import YAML

from jobs.contract.folder import Workspace
from jobs.model import content
from jobs.preparing import records
from jobs.preparing.source_dataset import SourceDataset
from jobs.preparing.source_files import SourceFiles
from tests.lib.builders import digests
from tests.lib.command_line import Zsg
from zsg_core.data import readers, splits
from zsg_core.data.examples import Example
from zsg_core.data.prompts import Template, encode_example
from zsg_core.data.readers.intake import Intake
from zsg_core.data.readers.wrong_format import describe
from zsg_core.errors import UserError
from zsg_core.recipe import make_recipe, records_id, run_id
from zsg_core.settings.data import HeldOut
from zsg_core.settings.record_fields import RecordFields
from zsg_core.settings.run import Settings

PAIR = {"prompt": "question", "answer": "answer"}


def read(
    path: Path, fields: dict[str, Any], intake: Intake | None = None
) -> list[Example]:
    """The examples of a path, by fields as a grid has them."""
    recipe = RecordFields.model_validate(fields).recipe
    return list(readers.read_examples("records", path, intake or Intake(), recipe))


def write_lines(path: Path, rows: list[Any]) -> Path:
    """Rows as JSON lines; a text is written as it is."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


# What the rows are, how they are read, and what they then are: the turns, and other
# parts of an example.
LAYOUTS: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    (
        "question, answer and category",
        {"question": "2+2?", "answer": "4", "category": "sums"},
        {**PAIR, "task": "category"},
        {"turns": (("2+2?", "4"),), "task": "sums", "id": "sums:0"},
    ),
    (
        "inputs and targets",
        {"inputs": "Say hi.", "targets": "hi", "task": "greet"},
        {"prompt": "inputs", "answer": "targets", "task": "task"},
        {"turns": (("Say hi.", "hi"),), "task": "greet"},
    ),
    (
        "problem and solution, with an id",
        {"problem": "x=1, x?", "solution": "1", "level": 5, "unique_id": "alg/7"},
        {"prompt": "problem", "answer": "solution", "id": "unique_id"},
        {"turns": (("x=1, x?", "1"),), "id": "alg/7", "task": "records"},
    ),
    (
        "an instruction with a context",
        {"instruction": "Sum up.", "context": "Rain.", "response": "It rains."},
        {"prompt": ["instruction", "context"], "answer": "response"},
        {"turns": (("Sum up.\nRain.", "It rains."),)},
    ),
    (
        "an instruction without its context",
        {"instruction": "Say hi.", "context": "", "response": "hi"},
        {"prompt": ["instruction", "context"], "answer": "response"},
        {"turns": (("Say hi.", "hi"),)},
    ),
    (
        "nested columns and a number as answer",
        {"data": {"q": "2+2?", "a": 4}, "meta": {"topic": 7}},
        {"prompt": "data.q", "answer": "data.a", "task": "meta.topic"},
        {"turns": (("2+2?", "4"),), "task": "7"},
    ),
    (
        "a column whose name has a dot",
        {"data.q": "2+2?", "a": True},
        {"prompt": "data.q", "answer": "a"},
        {"turns": (("2+2?", "true"),)},
    ),
    (
        "messages of other names",
        {
            "dialog": [
                {"speaker": "customer", "said": "Hello"},
                {"speaker": "agent", "said": "Hi"},
            ]
        },
        {
            "messages": "dialog",
            "role": "speaker",
            "content": "said",
            "roles": {"customer": "user", "agent": "assistant"},
        },
        {"turns": (("Hello", "Hi"),)},
    ),
    (
        "messages of ShareGPT with a system text",
        {
            "conversations": [
                {"from": "system", "value": "Be kind."},
                {"from": "human", "value": "Hello"},
                {"from": "gpt", "value": "Hi"},
            ]
        },
        {"messages": "conversations"},
        {"turns": (("Hello", "Hi"),), "system": "Be kind."},
    ),
    (
        "a dialogue of bare texts",
        {"dialog": ["Hello", "Hi", "Bye", "See you"], "emotion": "calm"},
        {"messages": "dialog", "task": "emotion"},
        {"turns": (("Hello", "Hi"), ("Bye", "See you")), "task": "calm"},
    ),
    (
        "choices with the place of the right one",
        {"question": "Sky?", "choices": ["red", "blue"], "answer": 1},
        {**PAIR, "choices": "choices"},
        {"turns": (("Sky?", "blue"),), "options": ("red", "blue")},
    ),
    (
        "choices that are numbers as texts, with the place of the right one",
        {"question": "Degree?", "choices": ["3", "2", "0"], "answer": 0},
        {**PAIR, "choices": "choices"},
        {"turns": (("Degree?", "3"),), "options": ("3", "2", "0")},
    ),
    (
        "choices that are numbers, with the right one",
        {"question": "Degree?", "choices": [3, 2, 0], "answer": 0},
        {**PAIR, "choices": "choices"},
        {"turns": (("Degree?", "0"),), "options": ("3", "2", "0")},
    ),
    (
        "choices within a mapping, with a letter",
        {"question": "Sky?", "c": {"text": ["red", "blue"]}, "answerKey": "B"},
        {"prompt": "question", "answer": "answerKey", "choices": "c.text"},
        {"turns": (("Sky?", "blue"),), "options": ("red", "blue")},
    ),
    (
        "several right answers",
        {"question": "Sky?", "answers": {"text": ["blue", "azure"]}},
        {"prompt": "question", "answer": "answers.text"},
        {"turns": (("Sky?", "blue"),), "references": ("blue", "azure")},
    ),
    (
        "a system text and tags beside the pair",
        {"question": "2+2?", "answer": "4", "sys": "Short.", "labels": ["sum", "easy"]},
        {**PAIR, "system": "sys", "tags": "labels"},
        {"turns": (("2+2?", "4"),), "system": "Short.", "tags": ("sum", "easy")},
    ),
    (
        "raw text",
        {"text": "Once upon a time."},
        {"text": "text"},
        {"turns": (("", "Once upon a time."),), "is_text": True},
    ),
]


@pytest.mark.parametrize(
    ("row", "fields", "wanted"), [a[1:] for a in LAYOUTS], ids=[a[0] for a in LAYOUTS]
)
def test_a_layout_is_read_as_its_fields_say(tmp_path, row, fields, wanted) -> None:
    """The same from JSON lines and from Parquet."""
    lines = write_lines(tmp_path / "a.jsonl", [row])
    parquet.write_table(pa.Table.from_pylist([row]), tmp_path / "a.parquet")
    for path in (lines, tmp_path / "a.parquet"):
        (made,) = read(path, fields)
        assert {name: getattr(made, name) for name in wanted} == wanted


ROWS = [
    {"question": f"q, {n}?", "answer": f'"a"\n{n}', "category": "cd"[n % 2]}
    for n in range(5)
]


def _write_table(rows: list[dict[str, str]], delimiter: str) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _write_arrow(path: Path, table: pa.Table) -> None:
    with (
        pa.OSFile(str(path), "wb") as file,
        pa.ipc.new_stream(file, table.schema) as out,
    ):
        out.write_table(table)


def test_every_form_of_file_gives_the_same_examples(tmp_path) -> None:
    """JSON lines, an array, CSV, tab-separated values, Parquet, Arrow, a folder of
    `datasets`, and the text forms packed."""
    lines = "".join(f"{json.dumps(row)}\n" for row in ROWS).encode()
    zstd = pa.compress(lines, codec="zstd", asbytes=True)
    table = pa.Table.from_pylist(ROWS)
    forms = {
        "a.jsonl": lines,
        "a.ndjson": lines,
        "a.json": json.dumps(ROWS).encode(),
        "a.csv": _write_table(ROWS, ","),
        "a.tsv": _write_table(ROWS, "\t"),
        "a.jsonl.gz": gzip.compress(lines),
        "a.csv.gz": gzip.compress(_write_table(ROWS, ",")),
        "a.jsonl.zst": zstd,
    }
    for name, packed in forms.items():
        (tmp_path / name).write_bytes(packed)
    parquet.write_table(table, tmp_path / "a.parquet")
    _write_arrow(tmp_path / "a.arrow", table)
    saved = tmp_path / "saved"
    saved.mkdir()
    _write_arrow(saved / "data.arrow", table)
    state = {"_data_files": [{"filename": "data.arrow"}]}
    (saved / "state.json").write_text(json.dumps(state))

    fields = {**PAIR, "task": "category"}
    wanted = read(tmp_path / "a.jsonl", fields)
    assert [made.id for made in wanted] == ["c:0", "d:0", "c:1", "d:1", "c:2"]
    for name in (*forms, "a.parquet", "a.arrow", "saved"):
        assert read(tmp_path / name, fields) == wanted, name


def test_a_long_file_packed_by_zstandard_is_read_whole(tmp_path) -> None:
    """More than one block, and a file that is cut short is told."""
    rows = [{"question": f"q{n} " * 50, "answer": "a"} for n in range(5000)]
    lines = "".join(f"{json.dumps(row)}\n" for row in rows).encode()
    packed = pa.compress(lines, codec="zstd", asbytes=True)
    (tmp_path / "a.jsonl.zst").write_bytes(packed)
    assert len(read(tmp_path / "a.jsonl.zst", PAIR)) == 5000
    (tmp_path / "cut.jsonl.zst").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(UserError, match=r"cut\.jsonl\.zst: cannot be read"):
        read(tmp_path / "cut.jsonl.zst", PAIR)


# A row that is no example, the fields, and what is said of it.
HOSTILE: list[tuple[str, Any, dict[str, Any], str]] = [
    ("not JSON", "{", PAIR, "truncated"),
    ("a list", "[1]", PAIR, "Expected `object`"),
    ("no answer", {"question": "q"}, PAIR, "has no `answer`"),
    ("null", {"question": None, "answer": "a"}, PAIR, "`question` is null"),
    ("a blank question", {"question": " ", "answer": "a"}, PAIR, "`question` is blank"),
    ("a mapping", {"question": {"a": 1}, "answer": "a"}, PAIR, "a mapping of a"),
    ("a list of questions", {"question": ["q"], "answer": "a"}, PAIR, "a list of 1"),
    ("no answer of a list", {"question": "q", "answer": []}, PAIR, "empty list"),
    (
        "no task",
        {"question": "q", "answer": "a"},
        {**PAIR, "task": "c"},
        "has no `c`",
    ),
    (
        "a task that deceives",
        {"question": "q", "answer": "a", "c": "a\u202eb"},
        {**PAIR, "task": "c"},
        "no name of a task",
    ),
    (
        "an id of two lines",
        {"question": "q", "answer": "a", "i": "a\nb"},
        {**PAIR, "id": "i"},
        "no id",
    ),
    (
        "an id that stands twice",
        {"question": "q", "answer": "a", "i": 1},
        {**PAIR, "id": "i"},
        "more than once",
    ),
    (
        "an answer that is no choice",
        {"question": "q", "answer": 2, "c": ["a", "b"]},
        {**PAIR, "choices": "c"},
        "none of `c`",
    ),
    (
        "one choice twice",
        {"question": "q", "answer": "a", "c": ["a", "a"]},
        {**PAIR, "choices": "c"},
        "two choices or more",
    ),
    ("no messages", {"m": "Hello"}, {"messages": "m"}, "no list of messages"),
    (
        "messages of unknown keys",
        {"m": [{"who": "user", "what": "q"}]},
        {"messages": "m"},
        "it has who, what",
    ),
    (
        "an unknown speaker",
        {"m": [{"role": "customer", "content": "q"}]},
        {"messages": "m"},
        "fields.roles",
    ),
    (
        "an image in a message",
        {"m": [{"role": "user", "content": [{"type": "image", "url": "x"}]}]},
        {"messages": "m"},
        "is no text",
    ),
    ("a blank text", {"t": "\n"}, {"text": "t"}, "`t` is blank"),
    ("half a character", '{"t": "\\ud800"}', {"text": "t"}, "truncated"),
]
GOOD = {
    "question": "q",
    "answer": "a",
    "c": ["a", "b"],
    "i": 1,
    "m": ["q", "a"],
    "t": "t",
}


@pytest.mark.parametrize(
    ("row", "fields", "told"), [a[1:] for a in HOSTILE], ids=[a[0] for a in HOSTILE]
)
def test_a_row_that_is_no_example_is_told_by_its_line_or_counted(
    tmp_path, row, fields, told
) -> None:
    """The second of three lines: refused with file and line, or passed over."""
    good, other = dict(GOOD), {**GOOD, "i": 2}
    if fields.get("task") == "c":
        good, other = {**good, "c": "task"}, {**other, "c": "task"}
    path = write_lines(tmp_path / "a.jsonl", [good, row, other])
    with pytest.raises(UserError) as refused:
        read(path, fields)
    assert f"{path}:2: " in str(refused.value)
    assert told in str(refused.value)
    intake = Intake(skip=True)
    assert len(read(path, fields, intake)) == 2
    assert intake.skipped == 1


def test_marks_of_what_is_not_to_be_learnt_are_refused(tmp_path) -> None:
    """In a row and in a message; a column that is read under that name is no mark."""
    row = {"question": "q", "answer": "a", "weight": 0}
    with pytest.raises(UserError, match="not to be trained on"):
        read(write_lines(tmp_path / "a.jsonl", [row]), PAIR)
    assert read(tmp_path / "a.jsonl", {**PAIR, "answer": "weight"})[0].answer == "0"
    said = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    said[1]["train"] = False  # type: ignore[assignment]
    with pytest.raises(UserError, match=r"m\[1\]: `train: false`"):
        read(write_lines(tmp_path / "b.jsonl", [{"m": said}]), {"messages": "m"})


# What a file of columns lacks is told once, of the file.
TABLES = [
    ("a.csv", b"q,a\n1,2\n", "the first line must name the columns question, answer"),
    ("a.csv", b"question;answer\n1;2\n", "save it with commas"),
    ("a.csv", b"question,answer,answer\n1,2,3\n", "names 'answer' twice"),
    ("a.csv", b'question,answer\n1,2\n"1,2\n', "after line 2"),
    ("a.csv", b"question,answer\n1,2,3\n", "a.csv:2: has 3 fields, the header 2"),
    ("a.tsv", b"question,answer\n1,2\n", "must name the columns"),
    ("a.txt", b"x", "must end in .jsonl"),
    ("a.jsonl.bz2", b"BZh", "must end in .jsonl"),
    ("a.jsonl", b"", "holds no example of the format records"),
]


@pytest.mark.parametrize(("name", "content", "told"), TABLES)
def test_a_file_that_cannot_be_read_is_told(tmp_path, name, content, told) -> None:
    """With its name, and what is wrong with it."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as refused:
        read(tmp_path / name, PAIR)
    assert told in str(refused.value)
    assert name in str(refused.value)


def test_a_parquet_file_without_a_column_tells_those_it_has(tmp_path) -> None:
    """Before a row is read."""
    parquet.write_table(pa.table({"q": ["1"], "answer": ["2"]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="has no column question; found: q, answer"):
        read(tmp_path / "a.parquet", PAIR)


def test_tasks_may_be_called_as_files_or_folders(tmp_path) -> None:
    """A folder of files, a task each; or a pattern over folders."""
    for task in ("sums", "words"):
        (tmp_path / task).mkdir()
        write_lines(tmp_path / f"{task}.jsonl", [{"question": task, "answer": "a"}])
        write_lines(tmp_path / task / "a.jsonl", [{"question": task, "answer": "a"}])
    by_file = read(tmp_path, {**PAIR, "task_from": "file"})
    assert [made.task for made in by_file] == ["sums", "words"]
    by_folder = read(tmp_path / "*/a.jsonl", {**PAIR, "task_from": "folder"})
    assert [made.id for made in by_folder] == ["sums:0", "words:0"]
    with pytest.raises(UserError, match="give a pattern such as"):
        read(tmp_path / "sums.jsonl", {**PAIR, "task_from": "folder"})


def test_a_folder_is_of_one_form_and_of_one_split(tmp_path) -> None:
    """What lies beside a train file is told; two forms or two splits are refused."""
    write_lines(tmp_path / "train.jsonl", [{"question": "q", "answer": "a"}])
    write_lines(tmp_path / "test.jsonl", [{"question": "t", "answer": "a"}])
    assert [made.input for made in read(tmp_path, PAIR)] == ["q"]
    recipe = RecordFields.model_validate(PAIR).recipe
    (note,) = readers.inspect_files("records", tmp_path, fields=recipe).notes
    assert "train.jsonl is read; left out: test.jsonl" in note
    with pytest.raises(UserError, match="several splits"):
        read(tmp_path / "*.jsonl", PAIR)
    (tmp_path / "train.jsonl").rename(tmp_path / "b.csv")
    with pytest.raises(UserError, match=r"several forms \(\.csv, \.jsonl\)"):
        read(tmp_path, PAIR)


def test_a_folder_that_came_from_the_hub_is_read(tmp_path) -> None:
    """The shards of a split, beside what zsg keeps of the download; and splits in
    folders of their own are named."""
    split = tmp_path / "main+test"
    split.mkdir()
    (split / "meta.json").write_text("{}")
    for number in range(2):
        table = pa.table({"question": [f"q{number}"], "answer": ["a"]})
        parquet.write_table(table, split / f"test-0000{number}-of-00002.parquet")
    assert [made.input for made in read(split, PAIR)] == ["q0", "q1"]
    with pytest.raises(UserError, match="lie in folders below it"):
        read(tmp_path, PAIR)


def test_columns_that_are_not_read_are_told(tmp_path) -> None:
    """Those of the first rows, of which no field speaks."""
    rows = [{"question": "q", "answer": "a", "level": 1}, {"url": "x"}]
    path = write_lines(tmp_path / "a.jsonl", rows)
    recipe = RecordFields.model_validate(PAIR).recipe
    (note,) = readers.inspect_files("records", path, fields=recipe).notes
    assert "columns that are not read: level, url" in note


MISFITS = [
    (
        "alpaca",
        {"question": "q", "answer": "a", "category": "c"},
        "a.jsonl is not of the format alpaca (instruction, input, output): its rows have"
        " answer, category, question, which set records reads with fields: {prompt:"
        " question, answer: answer, task: category}",
    ),
    (
        "gsm8k",
        {"conversations": [{"from": "human", "value": "q"}], "id": "x"},
        "which set records reads with fields: {messages: conversations}",
    ),
    ("sharegpt", {"text": "t"}, "with fields: {text: text}"),
    ("alpaca", {"a b": "t", "c": 1}, "set records reads rows of any columns"),
    (
        "huggingface",
        {"Question": "q", "Response": "a"},
        "with fields: {prompt: Question, answer: Response}",
    ),
]


@pytest.mark.parametrize(("name", "row", "told"), MISFITS)
def test_a_wrong_format_is_answered_with_the_one_that_fits(
    tmp_path, name, row, told
) -> None:
    """And with the columns that the rows have."""
    assert told in (describe(name, write_lines(tmp_path / "a.jsonl", [row] * 3)) or "")


def test_fields_that_fit_no_row_are_answered_with_those_that_do(tmp_path) -> None:
    """A misspelt column is not a bad row."""
    path = write_lines(tmp_path / "a.jsonl", [{"question": "q", "answer": "a"}] * 3)
    told = describe("records", path, {"prompt": ["question"], "answer": "anser"})
    assert told == (
        "a.jsonl has no row that data.fields fit (the first has no `anser`): its rows have"
        " answer, question, which set records reads with fields: {prompt: question, answer:"
        " answer}"
    )
    assert (
        describe("records", path, {"prompt": ["question"], "answer": "answer"}) is None
    )


def test_of_a_format_with_some_bad_rows_nothing_else_is_said(tmp_path) -> None:
    """The row is what is wrong with it, not the format."""
    rows = [{"question": "q"}, {"instruction": "q", "output": "a"}]
    assert describe("alpaca", write_lines(tmp_path / "a.jsonl", rows)) is None


BAD_FIELDS = [
    ({}, "needs `prompt` and `answer`, or `messages`, or `text`"),
    ({"prompt": "q"}, "`answer` is missing"),
    ({"answer": "q"}, "`prompt` is missing"),
    ({**PAIR, "text": "t"}, "only one of these; found prompt and answer, text"),
    ({**PAIR, "role": "r"}, "are of `messages`"),
    ({"messages": "m", "choices": "c"}, "`choices` go with"),
    ({"text": "t", "system": "s"}, "a raw text has none"),
    ({**PAIR, "task": "t", "task_from": "file"}, "give one of them"),
    ({"prompt": "a..b", "answer": "a"}, "a dot with no name"),
    ({"prompt": "a\x1b", "answer": "a"}, "line breaks, control characters"),
    ({"messages": "m", "roles": {"a": "bot"}}, "Input should be 'user'"),
]


@pytest.mark.parametrize(("fields", "told"), BAD_FIELDS)
def test_fields_that_make_no_sense_are_refused(fields, told) -> None:
    """Before any file is opened."""
    with pytest.raises(ValueError) as refused:
        RecordFields.model_validate(fields)
    assert told in str(refused.value)


CATEGORIES = ["sums", "capitals", "colours", "animals", "verbs", "food & drink"]


@pytest.mark.soak(part="users")
def test_rows_of_ones_own_from_init_to_losses_and_answers_by_category(
    zsg: Zsg,
) -> None:
    """Three hundred rows in six categories, with keys that the documents name: a look,
    a plan, three orders by three seeds, and by category the loss and the exact match."""
    zsg("init")
    write_categories(zsg)

    assert "9 to submit" in zsg("plan", "grid.yaml")
    zsg("submit", "grid.yaml")
    done = [(row["state"], row["step"]) for row in zsg.status("mine")]
    assert done == [("done", 15)] * 9
    for metric, column in (("loss", "loss"), ("exact_match", "value")):
        name = f"{metric}.csv"
        zsg("export", "mine", "--items", "--metric", metric, "--out", name)
        with (zsg.folder / name).open(encoding="utf-8", newline="") as file:
            items = list(csv.DictReader(file))
        by_category = Counter(row["task"] for row in items)
        assert by_category == {category: 10 * 9 * 2 for category in CATEGORIES}
        assert all(float(row[column]) >= 0 for row in items)
        zsg("report", "mine", "--metric", metric, "--out", f"{metric}.html")
        page = (zsg.folder / f"{metric}.html").read_text(encoding="utf-8")
        table = page.partition(f"{metric} by test task")[2].partition("</table>")[0]
        assert all(html.escape(category) in table for category in CATEGORIES)
    answers = [json.loads(row) for row in zsg("answers", "export", "mine").splitlines()]
    assert {row["task"] for row in answers} == set(CATEGORIES)
    assert all(len(row["references"]) == 1 for row in answers)


def write_categories(zsg: Zsg) -> None:
    """Three hundred rows in six categories, and the starter's grid with them: the fields
    as a look at the rows says them, three orders by three seeds."""
    rows = [
        {
            "question": f"{CATEGORIES[number % 6]} {number // 6}?",
            "answer": f"a{number % 7}",
            "category": CATEGORIES[number % 6],
        }
        for number in range(300)
    ]
    write_lines(zsg.folder / "mine.jsonl", rows)
    looked = json.loads(zsg("data", "show", "mine.jsonl", "--json"))
    [source] = looked["data"][0]["sources"]
    assert source["tasks"] == dict.fromkeys(CATEGORIES, 50)
    yaml = YAML(typ="safe")
    starter = yaml.load((zsg.folder / "grid.yaml").read_text())
    starter["name"] = "mine"
    starter["defaults"]["data"] = {
        "set": source["set"],
        "path": "mine.jsonl",
        "fields": yaml.load(source["fields"]),
        "held_out": {"share": "1/5"},
    }
    starter["defaults"]["checkpoints"] = {
        "every": 15,
        "snapshots": 15,
        "metrics": ["loss", "exact_match"],
        "generation": {"max_new_tokens": 4},
    }
    starter["grid"] = {
        "arrangement.order": ["random", "cluster", "round_robin"],
        "seed": [0, 1, 2],
    }
    zsg.write("grid.yaml", json.dumps(starter))


def test_rows_of_ones_own_are_planned_as_they_are_seen(zsg: Zsg) -> None:
    """From init to the plan of nine runs, with the fields that a look has guessed; their
    steps are told before anything has run."""
    zsg("init")
    write_categories(zsg)
    planned = json.loads(zsg("plan", "grid.yaml", "--json"))
    assert len(planned) == 9
    assert {run["estimate"]["examples"] for run in planned} == {240}


def test_of_every_task_the_share_of_its_rows_is_held_out() -> None:
    """Exact, rounded down, but one at least of two; another task changes no draw."""
    places = {"a": list(range(10)), "b": [10, 11], "c": [12]}
    held = splits.hold_out_rows(places, "1/5", seed=0)
    assert [len(held[task]) for task in "abc"] == [2, 1, 0]
    assert held["a"] == splits.hold_out_rows({"a": places["a"]}, "1/5", seed=0)["a"]
    assert held != splits.hold_out_rows(places, "1/5", seed=1)
    with pytest.raises(UserError, match="no task has two examples"):
        splits.hold_out_rows({"c": [12]}, "1/5", seed=0)


def test_a_share_of_the_tasks_is_held_out() -> None:
    """By seed; of one task none can be."""
    tasks = [f"t{number}" for number in range(10)]
    train, test = splits.hold_out(tasks, "seed", None, 0, "1/4")
    assert (len(train), len(test)) == (8, 2)
    with pytest.raises(UserError, match="hold out rows of it"):
        splits.hold_out(["t"], "seed", None, 0, "1/4")


HELD_OUT = [
    ({"by": "rows"}, "needs `share`"),
    ({"by": "seed"}, "needs `tasks`, or `share`"),
    ({"by": "seed", "tasks": 2, "share": "1/2"}, "give one of them"),
    ({"by": "family", "share": "1/2"}, "does nothing under `by: family`"),
    ({"tasks": 2}, "of `by: seed` alone"),
    ({"share": 1}, "nothing to train on"),
    ({"share": "3/2"}, "less than or equal to 1"),
]


@pytest.mark.parametrize(("rule", "told"), HELD_OUT)
def test_what_is_held_out_must_be_clear(rule, told) -> None:
    """Neither two amounts, nor none, nor one that does nothing."""
    with pytest.raises(ValueError) as refused:
        HeldOut.model_validate(rule)
    assert told in str(refused.value)


def test_rows_that_are_held_out_are_trained_on_by_no_run(tmp_path) -> None:
    """Nor does the tokenizer of a tiny model learn from them; both splits together are
    all rows."""
    path = write_lines(tmp_path / "a.jsonl", ROWS * 4)
    recipe = {
        "reader": "records",
        "digest": content.folder_digest(path, [path], content.sha256_of([path])),
        "fields": {"prompt": ["question"], "answer": "answer", "task": "category"},
        "held_out": {"by": "rows", "share": "1/4", "seed": 0},
        "test": {"per_task": None, "sampling": "all"},
        "train": {"per_task": None, "sampling": "all", "fraction": "1"},
    }
    workspace = Workspace(tmp_path / "work")
    source = SourceDataset(workspace, "", recipe, SourceFiles(path))
    trained, tested = source.train(), source.test()
    assert len(tested) == 5
    assert sorted(trained + tested) == list(range(20))
    learnt = np.concatenate(list(source.training_places().values()))
    assert sorted(learnt.tolist()) == sorted(trained)


def test_fields_enter_the_ids_and_no_other_format_has_them() -> None:
    """Other columns of the same file are other records and another run."""
    data = {"set": "records", "path": "/d", "held_out": {"share": "1/5"}}
    made = [
        make_recipe(
            Settings.model_validate({"data": {**data, "fields": fields}}),
            digests("d" * 64),
        )
        for fields in (PAIR, {**PAIR, "prompt": ["question"]}, {**PAIR, "task": "c"})
    ]
    assert run_id(made[0]) == run_id(made[1]) != run_id(made[2])
    assert records_id(made[0]["stages"][0]["data"], False) != records_id(
        made[2]["stages"][0]["data"], False
    )
    with pytest.raises(ValueError, match="needs `fields`"):
        Settings.model_validate({"data": data})
    with pytest.raises(ValueError, match="has columns of its own"):
        Settings.model_validate({"data": {"path": "/d", "fields": PAIR}})


def test_a_raw_text_is_learnt_whole_whatever_the_template() -> None:
    """The text between BOS and EOS, with no word of a template; what the records keep
    is the same example."""
    text = Example(id="a", task="t", turns=(("", "abc"),), is_text=True)
    for name in ("zsg", "vicuna", "llama2", "chat"):
        encoded = encode_example(
            text,
            template=Template(name),
            tokenize=lambda piece: [ord(letter) for letter in piece],
            bos=1,
            eos=2,
            max_length=64,
        )
        assert encoded.ids == [1, 97, 98, 99, 2]
        assert encoded.target_spans("answer") == [(1, 5)]


def test_records_keep_that_an_example_is_a_raw_text(tmp_path) -> None:
    """Only where they are texts: other folders have no such column."""
    text = Example(id="a", task="t", turns=(("", "abc"),), is_text=True)
    records.write_records(tmp_path, [text], are_texts=True)
    assert list(records.Records(tmp_path)) == [text]
    with pytest.raises(ValueError, match="a raw text"):
        Settings.model_validate(
            {
                "data": {
                    "set": "records",
                    "path": "/d",
                    "fields": {"text": "t"},
                    "held_out": {"share": "1/5"},
                },
                "checkpoints": {"metrics": ["loss", "exact_match"], "snapshots": 1},
            }
        )


@pytest.mark.engine
def test_a_raw_text_is_written_by_no_chat_template() -> None:
    """A dialogue beside it in the same run is."""
    from jobs.training.train_sets import make_encoder

    class Chat:
        def encode(self, example: Example, max_length: int, truncate: str) -> str:
            return f"chat of {example.id}"

    class Words:
        bos, eos = 1, 2

        def tokenize(self, text: str) -> list[int]:
            return [ord(letter) for letter in text]

        def open_chat(self, template: Template) -> Chat:
            return Chat()

    encode: Any = make_encoder(Words(), Template("chat"), 64)  # type: ignore[arg-type]
    text = Example(id="a", task="t", turns=(("", "abc"),), is_text=True)
    assert encode(text).ids == [1, 97, 98, 99, 2]
    assert encode(Example(id="b", task="t", turns=(("q", "a"),))) == "chat of b"


def test_a_raw_text_has_no_prompt_to_learn() -> None:
    """Learning prompts alone would learn nothing of it."""
    data = {"set": "records", "path": "/d", "fields": {"text": "t"}}
    data |= {"held_out": {"share": "1/5"}}
    Settings.model_validate({"data": data, "train": {"loss_on": "all"}})
    with pytest.raises(ValueError, match="a raw text"):
        Settings.model_validate({"data": data, "train": {"loss_on": "prompt"}})
    with pytest.raises(ValueError, match="`few_shot` goes with questions"):
        Settings.model_validate({"data": {**data, "few_shot": {"k": 2}}})


def test_raw_texts_overlap_where_they_are_the_same_text() -> None:
    """All of them answer an empty question, and that says nothing."""
    train, test = (
        [
            Example(id=f"{name}{text}", task="t", turns=(("", text),), is_text=True)
            for text in texts
        ]
        for name, texts in (("a", ("x", "y")), ("b", ("y", "z")))
    )
    assert splits.find_overlap(train, test) == [("by", "ay", True)]


def test_an_order_of_own_ids_is_summed_up_by_the_rows_tasks(zsg: Zsg) -> None:
    """An id of one's own says no task."""
    rows = [
        {
            "question": "q",
            "answer": "a",
            "key": f"k{number}",
            "category": "cd"[number % 2],
        }
        for number in range(20)
    ]
    write_lines(zsg.folder / "mine.jsonl", rows)
    fields = {**PAIR, "id": "key", "task": "category"}
    data = {"set": "records", "path": "mine.jsonl", "fields": fields}
    defaults = {"model": {"name": "tiny"}, "data": {**data, "test_path": "mine.jsonl"}}
    grid = {"name": "mine", "defaults": defaults, "grid": {"seed": [0]}}
    made = json.loads(
        zsg("arrange", "make", zsg.write("grid.yaml", json.dumps(grid)), "--json")
    )
    shown = json.loads(zsg("arrange", "show", made[0]["arrangement"], "--json"))
    assert set(shown["head"]) <= {f"k{number}" for number in range(20)}
    assert {task for part in shown["parts"] for task in part["most"]} == {"c", "d"}
