"""Is what does not fit between a task of the harness and its own data told before
anything is submitted?"""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.lib.harness_goldens import write_task
from zsg_core.data import harness_data
from zsg_core.data.harness_data import OwnTask, check_own_task, read_columns
from zsg_core.data.harness_tasks import TaskShelf
from zsg_core.errors import UserError

ROWS = [{"question": "2 + 3?", "answer": "5"}, {"question": "1 + 1?", "hint": "two"}]
TASK = {
    "task": "own",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "rows.jsonl", "dev": "rows.jsonl"}},
    "test_split": "test",
    "output_type": "generate_until",
    "doc_to_text": "{{question}}",
    "doc_to_target": "answer",
}


def find_task(folder: Path, **changes: Any) -> None:
    """Looks a task up whose settings are changed; beside it lie its data."""
    lines = "".join(f"{json.dumps(row)}\n" for row in ROWS)
    (folder / "rows.jsonl").write_text(lines, encoding="utf-8")
    write_task(folder, "own", TASK | changes)
    TaskShelf([folder]).find("own")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"test_split": "tset"}, r"test_split names 'tset', .*\(dev, test\).*'test'"),
        ({"test_split": ["test"]}, "test_split names .*which is none of"),
        (
            {"filter_list": [{"filter": [{"function": ["regex"]}]}]},
            "filter_list names .*which is none of",
        ),
        ({"test_split": None}, "names neither test_split nor validation_split"),
        ({"fewshot_split": "train"}, "fewshot_split names 'train'"),
        ({"output_type": "multiple_choise"}, "output_type names.*'multiple_choice'"),
        ({"doc_to_text": "questoin"}, r"doc_to_text names 'questoin'.*'question'"),
        ({"doc_to_target": "anwser"}, r"doc_to_target names 'anwser'.*'answer'"),
        ({"doc_to_choice": "options"}, "doc_to_choice names 'options'"),
        ({"filter_list": [{"filter": [{"function": "regx"}]}]}, "'regx'.*'regex'"),
        (
            {
                "filter_list": [
                    {"filter": [{"function": "regex", "regex_pattern": "("}]}
                ]
            },
            "regex_pattern '\\(' is none",
        ),
    ],
)
def test_what_the_harness_could_not_do_is_told(
    tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    """With the task's file, what there is and what may be meant."""
    with pytest.raises(UserError, match=rf"own\.yaml: .*{problem}"):
        find_task(tmp_path, **changes)


@pytest.mark.engine
@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{{questoin}} A:", r"doc_to_text names 'questoin'.*answer, hint, question"),
        ("{% for x in options %}{{x}}{% endfor %}", "doc_to_text names 'options'"),
        (
            "{{ question | regex_raplace('a', '') }}",
            "'regex_raplace' is no filter.*'regex_replace'",
        ),
        ("{% for x in question %}", "cannot be read as a template"),
    ],
)
def test_columns_that_a_template_names_are_there(
    tmp_path: Path, text: str, problem: str
) -> None:
    """Else the harness ends with an error, behind the queue and the training."""
    pytest.importorskip("jinja2")
    with pytest.raises(UserError, match=problem):
        find_task(tmp_path, doc_to_text=text)


@pytest.mark.engine
@pytest.mark.parametrize(
    "text",
    [
        "{{ question }} {{ hint | default('') }} {{ other | default('') }}",
        "{% if other is defined %}{{ other }}{% endif %}{{ question }}",
        "{% set x = question %}{% for i in range(3) %}{{ x[i] }}{% endfor %}",
        "{{ question | regex_replace('a', '') }}",
        "{% for x in question %}{{ loop.index }}{% endfor %}",
        "{% macro twice(x) %}{{ x }}{{ x }}{% endmacro %}{{ twice(question) }}",
        "{{ 9 ** 999999999 }}{{ ('x' * 99999999999) | center(99999999999) }}",
        "Say anything.",
        "",
    ],
)
def test_templates_that_can_be_rendered_pass(tmp_path: Path, text: str) -> None:
    """Names that they set, ask for or have something in place of are none of the data's;
    and nothing of them is computed."""
    find_task(tmp_path, doc_to_text=text)


def test_an_option_that_is_always_right_is_no_column(tmp_path: Path) -> None:
    """It stands among the options."""
    find_task(tmp_path, doc_to_choice=["yes", "no"], doc_to_target="yes")


def test_functions_of_a_task_may_make_what_its_data_lack(tmp_path: Path) -> None:
    """Its columns are not known before they are run; its splits are."""
    settings = TASK | {"doc_to_text": "{{made}}", "filter_list": [{"filter": [{}]}]}
    path = tmp_path / "own.yaml"
    files = {"test": [tmp_path / "rows.jsonl"]}
    check_own_task(OwnTask(path, settings, files, has_code=True))

    with pytest.raises(UserError, match="test_split names 'tset'"):
        other = settings | {"test_split": "tset"}
        check_own_task(OwnTask(path, other, files, has_code=True))


@pytest.mark.parametrize(
    ("name", "text", "settings", "columns"),
    [
        ("a.jsonl", '{"x": 1}\n{"y": 2}\n', {"dataset_path": "json"}, {"x", "y"}),
        ("a.json", '[{"x": 1}]', {"dataset_path": "json"}, {"x"}),
        ("a.json", '{\n "x": 1\n}', {"dataset_path": "json"}, None),
        (
            "a.json",
            '{"rows": [{"x": 1}]}',
            {"dataset_path": "json", "dataset_kwargs": {"field": "rows"}},
            {"x"},
        ),
        ("a.csv", "x,y\n1,2\n", {"dataset_path": "csv"}, {"x", "y"}),
        ("a.csv", "x,y\n", {"dataset_path": "csv"}, set()),
        ("a.csv", "\nx,y\n\n1,2\n", {"dataset_path": "csv"}, {"x", "y"}),
        (
            "a.csv",
            "x,y\n1,2\n",
            {"dataset_path": "csv", "dataset_kwargs": {"encoding": "utf-16"}},
            None,
        ),
        ("a.jsonl", '{"x": "a\u2028b\x85c"}\n', {"dataset_path": "json"}, {"x"}),
        ("a.json", '["one", "two"]', {"dataset_path": "json"}, {"text"}),
        ("a.txt", "one\n", {"dataset_path": "text"}, {"text"}),
        ("a.jsonl", "", {"dataset_path": "json"}, set()),
        ("a.parquet", "PAR1", {"dataset_path": "parquet"}, None),
    ],
)
def test_columns_are_read_of_each_kind_of_file(
    tmp_path: Path, name: str, text: str, settings: Any, columns: set[str] | None
) -> None:
    """None where only the library reads them: nothing is said of those."""
    (tmp_path / name).write_text(text, encoding="utf-8")

    task = OwnTask(tmp_path / "own.yaml", settings, {})
    assert read_columns(tmp_path / name, task) == columns


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"x": 1}\nno row\n', "line 2 is no JSON"),
        ('{"x": 1}\n[1]\n', "row 2 is.* no mapping"),
        ("[1, 2", "is no JSON"),
    ],
)
def test_a_file_that_is_not_of_its_kind_is_told(
    tmp_path: Path, text: str, problem: str
) -> None:
    """With its line."""
    path = tmp_path / "a.json"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(UserError, match=problem):
        read_columns(path, OwnTask(path, {"dataset_path": "json"}, {}))


def test_a_field_that_is_no_key_is_told(tmp_path: Path) -> None:
    """A list, say."""
    path = tmp_path / "a.json"
    path.write_text('{"rows": []}', encoding="utf-8")
    settings = {"dataset_path": "json", "dataset_kwargs": {"field": ["rows"]}}

    with pytest.raises(UserError, match="is no key"):
        read_columns(path, OwnTask(path, settings, {}))


def test_a_row_longer_than_what_is_read_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no file without rows."""
    monkeypatch.setattr(harness_data, "READ_BYTES", 5)
    path = tmp_path / "a.jsonl"
    path.write_text('{"x": "a long row"}\n', encoding="utf-8")

    assert read_columns(path, OwnTask(path, {"dataset_path": "json"}, {})) is None


def test_columns_are_those_of_all_files_of_a_split(tmp_path: Path) -> None:
    """The last may lack some."""
    (tmp_path / "less.jsonl").write_text('{"question": "2 + 2?"}\n', encoding="utf-8")
    files = {"data_files": {"test": ["rows.jsonl", "less.jsonl"]}}
    find_task(tmp_path, dataset_kwargs=files)


def test_a_file_without_rows_is_told(tmp_path: Path) -> None:
    """A benchmark of no item has no value."""
    (tmp_path / "none.jsonl").write_text("", encoding="utf-8")
    files = {"data_files": {"test": "none.jsonl"}}

    with pytest.raises(UserError, match=r"test: 'none\.jsonl' has no row"):
        find_task(tmp_path, dataset_kwargs=files)
