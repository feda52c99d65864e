"""May tasks of lm-evaluation-harness name Python of the user's, of the files alone that the
grid names under `plugins`?"""

import importlib.metadata
from pathlib import Path
from typing import Any

import pytest

from launcher.grids import harness_tasks, plugin_files
from launcher.grids.grid import load_grid
from launcher.workspace import allowed_plugins, code_snapshot
from tests.lib import harness_goldens
from tests.lib.harness_goldens import read_goldens, write_task
from zsg_core.data.harness_tasks import TaskCode, TaskShelf
from zsg_core.errors import UserError
from zsg_core.plugins.declarations import read_plugins
from zsg_core.suites import Suite, select_suites

CODE = '''"""How our questions are asked."""

from functools import partial
from os import system

import shorten


def ask(doc):
    return shorten.shorten(doc["question"])


def choose(docs, count):
    return docs.select(range(count))


choose_two = partial(choose, count=2)
partial.help = "what makes others"
'''
SHORTEN = "def shorten(text):\n    return text[:40]\n"
GRID = """
name: g
plugins: [tasks/asking.py, tasks/shorten.py]
defaults:
  data: {path: data}
  checkpoints:
    snapshots: 5
    metrics: [loss, lm_eval/own]
    suites: {lm_eval: {tasks_path: TASKS}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's folder of tasks, with Python beside them."""
    tasks = harness_goldens.write_tasks(tmp_path / "tasks")
    (tasks / "asking.py").write_text(CODE)
    (tasks / "shorten.py").write_text(SHORTEN)
    return tasks


def write_own(folder: Path, added: str = "", **changes: Any) -> None:
    """A task `own`, with some settings changed, and with lines behind them."""
    task = dict(read_goldens()["tasks"]["tiny_full"], task="own")
    path = write_task(folder, "own", task | changes)
    with path.open("a") as file:
        file.write(added)


def list_code(folder: Path, **others: str) -> tuple[TaskCode, ...]:
    """The Python of the folder, as a grid above it names it. `others`: further files."""
    contents = {"tasks/asking.py": CODE, "tasks/shorten.py": SHORTEN}
    for name, text in others.items():
        contents[f"tasks/{name}.py"] = text
    read = read_plugins({name: text.encode() for name, text in contents.items()})
    return plugin_files.list_task_code(folder.parent / "grid.yaml", read)


def test_a_function_of_a_plugin_beside_the_task_is_allowed(folder: Path) -> None:
    """Wherever in the file it stands: for documents, in a list, as a metric; also a value
    that the file itself gives a name to."""
    added = (
        "process_docs: !function asking.choose_two\n"
        "doc_to_text: !function asking.ask\n"
        "metric_list: [{metric: !function asking.choose, aggregation: mean}]\n"
    )
    task = dict(read_goldens()["tasks"]["tiny_full"], task="own")
    kept = {key: task[key] for key in task if key not in ("doc_to_text", "metric_list")}
    path = write_task(folder, "own", kept)
    path.write_text(path.read_text() + added)
    found = TaskShelf([folder], code=list_code(folder)).find("own")

    assert [code.name for code in found.code] == ["tasks/asking.py"]
    assert {file.suffix for file in found.files} == {".yaml", ".jsonl"}
    with pytest.raises(
        UserError, match=r"unless the grid names asking\.py, beside it, under `plugins`"
    ):
        TaskShelf([folder]).find("own")


@pytest.mark.parametrize(
    ("added", "problem"),
    [
        ("process_docs: !function os.system", "names Python code"),
        ("process_docs: !function asking.system", "defines no system"),
        ("process_docs: !function asking.partial", "defines no partial"),
        ("process_docs: !function asking.shorten", "defines no shorten"),
        ("process_docs: !function asking.__loader__", "defines no __loader__"),
        ("process_docs: !function asking.chose", "Did you mean .choose"),
        ("process_docs: !function asking.ask.__globals__", "names Python code"),
        ("process_docs: !function ../tasks/asking.ask", "names Python code"),
        ("process_docs: !function /etc/asking.ask", "names Python code"),
        ("process_docs: !function inner.asking.ask", "names Python code"),
        ("process_docs: !function ask", "names Python code"),
        ("process_docs: !function [asking.ask]", "names Python code"),
        ("process_docs: !function ''", "names Python code"),
        ("process_docs: !function unlisted.ask", "names Python code"),
        ("process_docs: !function linked.ask", "names Python code"),
        ("process_docs: !function archive.zip.ask", "names Python code"),
        ("include: inner/base", "names Python code"),
        ("class: !function asking.ask", "names Python code"),
        ("custom_dataset: !function asking.ask", "is to be written out"),
        ("tag: !function asking.ask", "is to be written out"),
        ("process_results: !function scored.score", "takes a metric from the hub"),
    ],
)
def test_any_other_function_is_refused(folder: Path, added: str, problem: str) -> None:
    """Of a module that is installed, of a file that the grid does not name or that lies
    elsewhere, of what a file only imports; nothing of it was run."""
    run = "raise SystemExit('this was run')\n"
    (folder / "unlisted.py").write_text(run)
    (folder / "linked.py").symlink_to(folder / "asking.py")
    (folder / "archive.zip").write_bytes(b"PK")
    (folder / "inner").mkdir()
    (folder / "inner/asking.py").write_text(run)
    (folder / "inner/__init__.py").write_text(run)
    (folder / "inner/base").write_text("process_docs: !function asking.ask\n")
    write_own(folder, f"{added}\n")
    hub = "import evaluate\n\n\ndef score(doc, results):\n    evaluate.load('bleu')\n"

    with pytest.raises(UserError, match=problem):
        TaskShelf([folder], code=list_code(folder, scored=hub)).find("own")


@pytest.mark.parametrize(
    "text",
    [
        "group: sly\ntask: [{task: tiny_full, process_docs: !function evil.run}]\n",
        "group: sly\ntask: [tiny_full]\nprocess_docs: !function evil.run\n",
        "group: sly\ntask: [{group: inner, task: [tiny_full], x: !function evil.run}]\n",
        "group: sly\ntask: [{task: tiny_full, dataset_name: !function asking.ask}]\n",
        "group: sly\ntask: [!function asking.ask]\n",
        "group: sly\ntask: [{task: tiny_full, process_results: null}]\n",
        "group: sly\ntask: [tiny_full]\nprocess_results: null\n",
    ],
)
def test_a_group_names_no_other_function_for_its_tasks(folder: Path, text: str) -> None:
    """Wherever in it that stands."""
    (folder / "sly.yaml").write_text(text)

    with pytest.raises(
        UserError, match=r"Python code|no task|cannot take process_results"
    ):
        TaskShelf([folder], code=list_code(folder)).find("sly")


def test_a_function_of_scores_gives_them_names_of_its_own(folder: Path) -> None:
    """As most shipped tasks with Python do; nothing is looked for on the hub."""
    task = dict(read_goldens()["tasks"]["tiny_full"], task="own")
    task["metric_list"] = [{"metric": "whole_right", "aggregation": "mean"}]
    path = write_task(folder, "own", task)
    with path.open("a") as file:
        file.write("process_results: !function asking.ask\n")

    found = TaskShelf([folder], code=list_code(folder)).find("own")
    assert [code.name for code in found.code] == ["tasks/asking.py"]

    path.write_text(path.read_text().replace("!function ", ""))
    with pytest.raises(UserError, match="'whole_right' is no metric of the harness"):
        TaskShelf([folder], code=list_code(folder)).find("own")


def test_a_score_of_a_function_says_how_it_is_aggregated(folder: Path) -> None:
    """The harness would end with an error, behind the queue and the training."""
    task = dict(read_goldens()["tasks"]["tiny_full"], task="own")
    path = write_task(folder, "own", task | {"metric_list": [{"metric": "whole"}]})
    with path.open("a") as file:
        file.write("process_results: !function asking.ask\n")

    with pytest.raises(UserError, match="'whole' needs an `aggregation`"):
        TaskShelf([folder], code=list_code(folder)).find("own")


def test_a_group_may_name_a_function_of_a_plugin(folder: Path) -> None:
    """As its tasks may."""
    text = (
        "group: own\ntask: [{task: tiny_full, process_docs: !function asking.choose}]\n"
    )
    (folder / "own.yaml").write_text(text)
    found = TaskShelf([folder], code=list_code(folder)).find("own")

    assert [code.name for code in found.code] == ["tasks/asking.py"]


@pytest.fixture
def grid(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A grid that asks for a task with Python, on a machine without the harness; its user
    has allowed nothing."""
    (shipped := folder.parent / "shipped").mkdir()
    (home := folder.parent / "home").mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(allowed_plugins, "_ALLOWED_NOW", set())
    monkeypatch.setattr(harness_tasks, "locate_shipped", lambda: shipped)
    monkeypatch.setattr(importlib.metadata, "version", lambda _name: "0.4.13")
    write_own(folder, "process_docs: !function asking.choose_two\n")
    path = folder.parent / "grid.yaml"
    path.write_text(GRID.replace("TASKS", str(folder)))
    return path


def select_suite(path: Path) -> Suite:
    """The suite of the tasks that a grid asks for."""
    grid = load_grid(path)
    checkpoints = grid.points[0].settings.checkpoints
    files = harness_tasks.digest_tasks(checkpoints, grid.task_code)
    [suite] = select_suites(checkpoints, files)
    return suite


def test_an_edited_function_makes_another_key_and_asks_again(grid: Path) -> None:
    """Also one of a file that it imports; the task's own files have their digest beside
    it. Nothing is copied before the word."""
    before = select_suite(grid).find_definition("lm_eval/own")
    (grid.parent / "tasks/shorten.py").write_text(f"{SHORTEN}\nLONGEST = 40\n")
    edited = select_suite(grid).find_definition("lm_eval/own")

    assert {key for key in before if before[key] != edited[key]} == {"task_code"}
    unallowed = allowed_plugins.find_unallowed(load_grid(grid).plugins)
    assert [plugin.name for plugin in unallowed] == [
        "tasks/asking.py",
        "tasks/shorten.py",
    ]
    with pytest.raises(UserError, match="is not allowed yet"):
        with code_snapshot.carrying(load_grid(grid).plugins):
            pass


def test_a_task_without_functions_is_defined_as_ever(grid: Path) -> None:
    """Its key has no word of code, though the grid names plugins."""
    write_own(grid.parent / "tasks")
    definition = select_suite(grid).find_definition("lm_eval/own")

    assert {"task", "task_digest", "task_version"} <= definition.keys()
    assert "task_code" not in definition
