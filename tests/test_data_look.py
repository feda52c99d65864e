"""Does a look at data say what prepare jobs would make of them, before anything is made?"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.contract.folder import Workspace
from jobs.model import content
from jobs.preparing.source_files import SourceFiles
from launcher.reporting.data import data_looks
from launcher.reporting.data.data_looks import Asked, DataReader
from launcher.reporting.html.data_page import render_data_page
from launcher.views import columns, data_view, looked_data
from launcher.views.looked_data import GridLook
from tests.lib.command_line import Zsg
from zsg_core.data import data_look
from zsg_core.data.examples import Example
from zsg_core.data.readers.fields import Fields
from zsg_core.errors import UserError
from zsg_core.settings.record_fields import RecordFields

FIELDS = {"prompt": ["question"], "answer": "answer", "task": "kind"}
ROWS = [
    {"question": f"{kind} {number}?", "answer": str(number), "kind": kind}
    for kind, size in (("sums", 10), ("words", 5), ("tales", 1), ("signs", 4))
    for number in range(size)
]


def write_lines(path: Path, rows: Sequence[Any]) -> Path:
    """A file of JSON lines."""
    text = "".join(f"{json.dumps(row)}\n" for row in rows)
    path.write_text(text, encoding="utf-8")
    return path


def make_example(question: str, answer: str, task: str = "t") -> Example:
    """An example of one turn."""
    return Example(id=f"{task}:{question}", task=task, turns=((question, answer),))


def test_the_same_question_is_counted_whatever_its_case_and_blanks() -> None:
    """By hand: of six examples three ask what an earlier one asks, one of these answers
    otherwise."""
    examples = [
        make_example("What is it?", "this"),
        make_example("what  is it?", "This "),
        make_example("What is it?", "that"),
        make_example("Who?", "he"),
        make_example("Who?", "he"),
        make_example("When?", "now"),
    ]
    read = data_look.read_facts(examples)
    repeats = data_look.count_repeats(read)
    assert (repeats.asked, repeats.whole, repeats.answered_otherwise) == (3, 2, 1)
    trained = np.array([0, 3])
    tested = np.array([2, 4, 5])
    overlap = data_look.count_overlap([(read, trained)], [(read, tested)])
    assert (overlap.asked, overlap.whole) == (2, 1)


def test_lengths_are_spread_as_counted_by_hand() -> None:
    """The 95 % are a length that is there, not one between two."""
    spread = data_look.measure_spread([*range(1, 20), 100])
    assert spread is not None
    assert (spread.shortest, spread.longest, spread.count) == (1, 100, 20)
    assert (spread.mean, spread.median, spread.most) == (14.5, 11, 100)
    assert data_look.measure_spread([]) is None


def test_a_sample_is_from_all_over_the_data() -> None:
    """And all of them where there are no more."""
    places = np.arange(10)
    assert data_look.choose_evenly(places, 3).tolist() == [0, 3, 6]
    assert data_look.choose_evenly(places, 0).tolist() == list(range(10))
    assert data_look.choose_evenly(places, 10).tolist() == list(range(10))


ALL = {"per_task": None, "sampling": "all"}
CAPPED = {"per_task": 3, "sampling": "random", "seed": 5}
RULES = [
    pytest.param({"by": "rows", "share": "1/4", "seed": 0}, ALL, id="rows"),
    pytest.param({"by": "rows", "share": "1/3", "seed": 2}, CAPPED, id="rows, capped"),
    pytest.param({"by": "seed", "tasks": 2, "seed": 1}, CAPPED, id="tasks"),
    pytest.param({"by": "seed", "share": "1/2", "seed": 0}, ALL, id="a share of tasks"),
]


@pytest.mark.engine  # makes records, with datasets
@pytest.mark.parametrize(("held_out", "sampling"), RULES)
def test_a_look_splits_data_as_the_prepare_job_does(
    tmp_path: Path, held_out: dict[str, Any], sampling: dict[str, Any]
) -> None:
    """Example by example, whatever is held out and however tasks are cut."""
    from jobs.preparing.source_dataset import SourceDataset
    from zsg_core.data import readers
    from zsg_core.data.readers.intake import Intake

    path = write_lines(tmp_path / "a.jsonl", ROWS)
    rule = {
        "reader": "records",
        "digest": content.folder_digest(path, [path], content.sha256_of([path])),
        "fields": FIELDS,
        "held_out": held_out,
        "test": sampling,
        "train": {**sampling, "fraction": "1"},
    }
    source = SourceDataset(Workspace(tmp_path / "work"), "", rule, SourceFiles(path))

    examples = readers.read_examples("records", path, Intake(), FIELDS)
    split = data_look.split_examples(data_look.read_facts(examples), rule)

    assert split.train.tolist() == source.train()
    assert split.test.tolist() == source.test()
    assert not split.is_bound


LAYOUTS = [
    ({"question": "q", "answer": "a", "category": "c"}, "prompt: question, answer"),
    ({"instruction": "q", "input": "i", "output": "a"}, "[instruction, input]"),
    ({"instruction": "q", "context": "", "response": "a"}, "[instruction, context]"),
    ({"messages": [{"role": "user", "content": "q"}]}, "{messages: messages}"),
    ({"text": "a whole text"}, "{text: text}"),
]


@pytest.mark.parametrize(("row", "told"), LAYOUTS)
def test_the_columns_of_a_file_are_guessed_and_said(
    tmp_path: Path, row: dict[str, Any], told: str
) -> None:
    """As they may be written into a grid."""
    if "messages" in row:
        reply = {"role": "assistant", "content": "a"}
        row = {"messages": [*row["messages"], reply]}
    path = write_lines(tmp_path / "a.jsonl", [row] * 3)
    [source] = DataReader(Asked()).look_at_path(path, None).sources
    assert source.guessed
    assert told in source.fields
    assert sum(source.tasks.values()) == 3
    assert "(guessed)" in data_view.describe_reading(source)


def list_choices(*answers: object) -> list[dict[str, Any]]:
    """Rows with these answers among two choices."""
    rows: list[dict[str, Any]] = []
    for answer in answers:
        row = {"question": "q", "choices": ["red", "blue"], "answer": answer, "n": 1}
        rows.append(row)
    return rows


@pytest.mark.parametrize(
    ("answers", "is_sure"),
    [([1, 0], True), (["B", "A"], True), (["red"], True), ([1, 1], False)],
)
def test_choices_are_guessed_where_it_is_sure_which_one_is_meant(
    tmp_path: Path, answers: list[object], is_sure: bool
) -> None:
    """Otherwise a number would be learnt in place of a choice; places that may count from
    1 are left to the user."""
    path = write_lines(tmp_path / "a.jsonl", list_choices(*answers))
    [source] = DataReader(Asked()).look_at_path(path, None).sources
    assert ("choices: choices" in source.fields) == is_sure
    learnt = {displayed.example.answer for displayed in source.shown}
    assert (learnt <= {"red", "blue"}) == is_sure


def test_the_layout_of_a_published_set_is_said_by_its_name(tmp_path: Path) -> None:
    """Also of translations, by two of their languages; fields of any kind are written as
    a grid has them."""
    row = {"translation": {"en": "q", "is": "a"}}
    path = write_lines(tmp_path / "a.jsonl", [row] * 3)
    [source] = DataReader(Asked()).look_at_path(path, None).sources
    told = data_view.describe_reading(source)
    assert told.endswith("mapping: {name: wmt, languages: en-is} (guessed)")
    fields: dict[str, Any] = {"ask": "{q}?", "answer": "a", "labels": ["no", "yes"]}
    recipe = RecordFields.model_validate(fields).recipe
    assert data_looks.write_fields(recipe) == (
        '{answer: a, ask: "{q}?", labels: [no, yes]}'
    )
    recipe = RecordFields.model_validate({**fields, "labels": "file"}).recipe
    assert data_looks.write_fields(recipe).endswith("labels: file}")


def test_columns_that_say_nothing_are_refused_with_their_names(tmp_path: Path) -> None:
    """And with how they are named; what is named wrongly is answered likewise."""
    path = write_lines(tmp_path / "a.jsonl", [{"colour": "q", "shape": "a"}])
    reader = DataReader(Asked())
    with pytest.raises(UserError, match="mmlu is a mapping of set records; leave"):
        reader.look_at_path(path, None, "mmlu")
    with pytest.raises(UserError, match="--set records goes with --fields"):
        reader.look_at_path(path, None, "records")
    with pytest.raises(UserError, match=r"rows have colour, shape, .*prompt: COLUMN"):
        reader.look_at_path(path, None)
    named = RecordFields.model_validate({"prompt": "colour", "answer": "form"})
    with pytest.raises(UserError, match="has no `form`"):
        reader.look_at_path(path, named)


def test_rows_that_are_broken_are_not_answered_with_their_own_columns(
    tmp_path: Path,
) -> None:
    """What was tried and read none of them is not what reads them."""
    reader = DataReader(Asked())
    path = write_lines(tmp_path / "a.jsonl", [{"question": None, "answer": None}] * 3)
    with pytest.raises(UserError, match=r"is null.*repair the rows"):
        reader.look_at_path(path, None)
    pair = {"translation": {"e": "q", "i": "a"}}
    path = write_lines(tmp_path / "b.jsonl", [pair] * 3)
    # codes that no grid takes are not advised
    with pytest.raises(UserError, match="which do not say what is asked"):
        reader.look_at_path(path, None)


def test_lists_within_lists_are_no_text_however_deep(tmp_path: Path) -> None:
    """And end nothing."""
    nested: Any = "q"
    for _ in range(485):
        nested = [nested]
    path = write_lines(tmp_path / "a.jsonl", [{"data": nested, "answer": "a"}])
    fields = RecordFields.model_validate({"prompt": "data.q", "answer": "answer"})
    with pytest.raises(UserError, match="is a list of 1, not a text"):
        DataReader(Asked()).look_at_path(path, fields)


def test_fields_are_written_as_they_are_read() -> None:
    """All kinds of them, so that what is said can be used."""
    from ruamel.yaml import YAML

    from launcher.reporting.data.data_looks import write_fields

    roles = {"x y": "user", "null": "system", "\U0001f600": "assistant"}
    fields = {"messages": "a.b", "task": "true", "roles": roles}
    recipe = RecordFields.model_validate(fields).recipe
    written = YAML(typ="safe").load(write_fields(recipe))
    assert written == fields
    assert dict(Fields.from_recipe(recipe).roles) == roles


def test_rows_that_are_no_examples_are_counted_with_their_lines(tmp_path: Path) -> None:
    """A look goes on where a submit would stop, and says so; what is empty is counted."""
    rows = [{"question": "q", "answer": "a"}, {"question": "q"}, 7]
    path = write_lines(tmp_path / "a.jsonl", [*rows, {"question": " ", "answer": ""}])
    [source] = DataReader(Asked()).look_at_path(path, None).sources
    assert source.bad_rows == 3
    assert f"{path}:2" in source.reasons[0]
    lines = data_view.describe_bad_rows(source)
    assert "3 rows are no example: zsg submit stops there" in lines[0]
    skipping = dataclasses.replace(source, skips=True)
    [first, *_] = data_view.describe_bad_rows(skipping)
    assert first == "3 rows are no example: passed over, by data.on_bad_row: skip"


@pytest.mark.engine
def test_nothing_of_the_data_reaches_a_terminal_or_a_page_raw(tmp_path: Path) -> None:
    """Neither control characters nor markup; long texts are shortened."""
    row = {"question": "\x1b[2Jq <b>", "answer": "a" * 1000, "task": "t \u202e"}
    rows = [row, {**row, "question": "r", "task": "x"}]
    path = write_lines(tmp_path / "a.jsonl", rows)
    look = DataReader(Asked()).look_at_path(path, None)
    table = "\n".join(columns.align_columns(data_view.list_tasks(look.sources[0])))
    assert "\u202e" not in table
    shown = data_view.describe_example(look.sources[0].shown[0])
    assert shown[-1].endswith("… (600 more characters)")
    page = render_data_page(GridLook(looks=(look,)))
    assert "<b>" not in page
    assert "\x1b" not in page


def test_a_line_of_a_text_is_not_taken_for_one_of_the_look(tmp_path: Path) -> None:
    """Where a text has several lines, the further ones begin with a mark."""
    rows = [
        {"question": "one\n  answer: made up\n\nthree", "answer": "a", "task": "t"},
        {"question": "two", "answer": "b", "task": "t"},
    ]
    path = write_lines(tmp_path / "a.jsonl", rows)
    [source] = DataReader(Asked()).look_at_path(path, None).sources
    asked = next(each for each in source.shown if "one" in each.example.input)
    lines = "\n".join(data_view.describe_example(asked)).splitlines()

    assert [line for line in lines if line.startswith("  answer: ")] == ["  answer: a"]
    assert lines[1:5] == [
        "  asked: one",
        "    ↵   answer: made up",
        "    ↵ ",
        "    ↵ three",
    ]


def test_of_many_tasks_some_of_each_split_are_listed(tmp_path: Path) -> None:
    """The largest first; the others are counted."""
    rows = [
        {"question": f"{task} {number}", "answer": "a", "task": f"t{task}"}
        for task in range(30)
        for number in range(30 - task)
    ]
    path = write_lines(tmp_path / "a.jsonl", rows)
    [source] = DataReader(Asked()).look_at_path(path, None).sources
    table = data_view.list_tasks(source)
    assert [row[0] for row in table[1:3]] == ["t0", "t1"]
    assert table[-2] == ["… 10 more tasks (--json)"]
    assert table[-1] == ["all 30", "465"]


def test_a_grid_of_a_tiny_model_is_looked_at_before_its_plan(zsg: Zsg) -> None:
    """Its splits and what both ask; of a tokenizer that is not made characters are told.
    Nothing is written."""
    doubled = {"question": "SUMS 0?", "answer": "0", "kind": "words"}
    write_lines(zsg.folder / "mine.jsonl", [*ROWS, *[doubled] * 3])
    data = {
        "set": "records",
        "path": "mine.jsonl",
        "fields": {"prompt": "question", "answer": "answer", "task": "kind"},
        "held_out": {"by": "seed", "tasks": 1, "seed": 0},
    }
    grid = {
        "name": "looked",
        "defaults": {"model": {"name": "tiny"}, "data": data},
        "grid": {"arrangement.order": ["random", "cluster"], "seed": [0, 1]},
    }
    zsg.write("grid.yaml", json.dumps(grid))

    printed = json.loads(zsg("data", "show", "grid.yaml", "--json"))

    assert printed["more"] == 0
    [look] = printed["data"]
    [source] = look["sources"]
    splits = source["splits"]
    assert source["tasks"] == {"sums": 10, "words": 8, "tales": 1, "signs": 4}
    assert set(splits["train"]["tasks"]).isdisjoint(splits["test"]["tasks"])
    assert splits["train"]["examples"] + splits["test"]["examples"] == 23
    assert source["repeats"] == {"asked": 3, "whole": 3, "answered_otherwise": 0}
    assert look["overlap"]["asked"] in (0, 1, 3)
    assert look["unit"] == looked_data.CHARACTERS
    assert not zsg.work.exists()


def test_a_grid_may_hold_tasks_out_by_their_names(zsg: Zsg) -> None:
    """Two sources may name others, and each is checked."""
    write_lines(zsg.folder / "mine.jsonl", ROWS)
    source = {
        "set": "records",
        "path": "mine.jsonl",
        "fields": {"prompt": "question", "answer": "answer", "task": "kind"},
    }
    held_out = [{"tasks": ["sums"]}, {"tasks": ["w*"]}]
    defaults = {"model": {"name": "tiny"}, "data": source}
    grid = {"name": "g", "defaults": defaults, "grid": {"data.held_out": held_out}}
    zsg.write("grid.yaml", json.dumps(grid))

    printed = json.loads(zsg("data", "show", "grid.yaml", "--json"))

    tested = [look["sources"][0]["splits"]["test"]["tasks"] for look in printed["data"]]
    assert tested == [{"sums": 10}, {"words": 5}]
    source.update(tags=".", keep_tags="x", held_out={"share": "1/5"})
    zsg.write("grid.yaml", json.dumps({"name": "g", "defaults": defaults}))
    zsg("data", "show", "grid.yaml", code=2)
    assert "is a folder; name a file of tags" in zsg.said


@pytest.mark.engine
def test_lengths_are_those_of_what_is_trained_on(tmp_path: Path) -> None:
    """In tokens of a tokenizer, by the template, with what max_length would cut."""
    from jobs.training.example_lengths import LengthCounter, Writing
    from tests.lib.chat_templates import make_tokenizer
    from zsg_core.data.prompts import Template

    make_tokenizer("").save_pretrained(tmp_path)
    writing = Writing(
        tokenizer=tmp_path, base=None, template=Template("plain"), max_length=20
    )
    counter = LengthCounter(writing)
    short = counter.measure(make_example("ab", "cd"))
    # the tokenizer has a token for each byte; an answer ends with one of its own
    assert short.answer == 3
    assert short.loss is None
    long = counter.measure(make_example("q" * 50, "cd"))
    assert long.whole == short.whole + 48
    assert long.loss is not None
    assert long.loss.tokens == long.whole - 20


@pytest.mark.engine
def test_a_files_lengths_are_in_tokens_where_a_tokenizer_is_named(
    tmp_path: Path,
) -> None:
    """Without a grid, in the template and to the limit that a grid has by default."""
    from tests.lib.chat_templates import make_tokenizer

    zsg = Zsg(tmp_path)
    make_tokenizer("").save_pretrained(tmp_path / "base")
    zsg.write("rows.jsonl", json.dumps({"question": "Is it?", "answer": "Yes"}) + "\n")
    argv = ("data", "show", "rows.jsonl", "--tokenizer", tmp_path / "base", "--json")
    [look] = json.loads(zsg(*argv))["data"]

    assert look["unit"] == "tokens"
    assert "template zsg" in look["counted_by"]


def test_a_path_of_a_published_set_is_read_by_its_name(tmp_path: Path) -> None:
    """Whatever its columns would be guessed to be; a wrong name is answered with those
    that there are, and nothing that is guessed in vain leaves a reader alone."""
    path = write_lines(tmp_path / "a.jsonl", [{"query": "q", "response": "a"}])
    reader = DataReader(Asked())
    [source] = reader.look_at_path(path, None, "tell").sources
    assert (source.reader, source.guessed, source.fields) == ("tell", False, "")
    with pytest.raises(
        UserError, match=r"'tel' is no format of data; there are .*gsm8k"
    ):
        reader.look_at_path(path, None, "tel")
    fields = RecordFields.model_validate({"prompt": "query", "answer": "response"})
    with pytest.raises(UserError, match="goes with set records, not with tell"):
        reader.look_at_path(path, fields, "tell")
    with pytest.raises(UserError, match="named: --set NAME"):
        reader.look_at_path(tmp_path / "none", None)
