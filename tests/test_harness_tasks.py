"""Are tasks of lm-evaluation-harness read without the harness, and is what a user's own
hold of code refused before anything runs?"""

from pathlib import Path
from typing import Any

import pytest

from launcher.grids import harness_tasks
from tests.lib import harness_goldens
from tests.lib.harness_goldens import read_goldens, write_task
from zsg_core.data.harness_tasks import TaskShelf
from zsg_core.errors import UserError
from zsg_core.settings.checkpoints import CheckpointSettings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's folder with tasks, groups and their data."""
    return harness_goldens.write_tasks(tmp_path / "tasks")


def write_plain_task(folder: Path, **changes: Any) -> None:
    """A task `own`, with some settings changed."""
    task = dict(read_goldens()["tasks"]["tiny_full"], task="own")
    write_task(folder, "own", task | changes)


def test_a_group_is_all_that_decides_it(folder: Path) -> None:
    """Its file, those of its tasks, and their data; not its neighbours'."""
    task = TaskShelf([folder]).find("tiny_mmlu")

    names = {path.name for path in task.files}
    assert names == {
        "tiny_mmlu.yaml",
        *(f"tiny_mmlu_{one}.yaml" for one in harness_goldens.SUBJECTS),
        *(f"mmlu_{one}_dev.jsonl" for one in harness_goldens.SUBJECTS),
        *(f"mmlu_{one}_test.jsonl" for one in harness_goldens.SUBJECTS),
    }
    assert task.folders == (folder,) and task.data_sets == ()


def test_a_tag_is_the_tasks_that_carry_it(folder: Path) -> None:
    """And an included file is read under the one that includes it, whose keys win."""
    (folder / "_base").write_text("tag: letters\nmetadata: {version: 3}\n")
    for name in ("one", "two"):
        task = dict(read_goldens()["tasks"]["tiny_full"], task=name, include="_base")
        write_task(folder, name, task)
    write_task(folder, "two", task | {"metadata": {"version": 4}})
    found = TaskShelf([folder]).find("letters")

    assert found.version == "3,4"
    assert {path.name for path in found.files} == {
        "one.yaml",
        "two.yaml",
        "_base",
        "full.jsonl",
    }


def test_a_shipped_file_may_have_a_key_twice(tmp_path: Path) -> None:
    """The last counts, as in the harness: tinyBenchmarks is written so. In a file of the
    user's it is an error."""
    shipped = tmp_path / "lm_eval/tasks"
    shipped.mkdir(parents=True)
    text = "task: a\ndataset_path: owner/old\ndataset_path: owner/new\n"
    (shipped / "a.yaml").write_text(text)
    assert TaskShelf([], shipped).find("a").data_sets == ("owner/new",)

    with pytest.raises(UserError, match="not valid YAML"):
        TaskShelf([shipped]).find("a")


def test_shipped_tasks_are_found_where_the_package_lies(tmp_path: Path) -> None:
    """By the folder that is called as the name begins, or by a look into all."""
    shipped = tmp_path / "lm_eval/tasks"
    (shipped / "quiz/easy").mkdir(parents=True)
    (shipped / "elsewhere").mkdir()
    text = "task: {}\ndataset_path: owner/quiz\noutput_type: multiple_choice\n"
    (shipped / "quiz/easy/a.yaml").write_text(text.format("quiz_easy"))
    (shipped / "elsewhere/b.yaml").write_text(text.format("trivia"))
    shelf = TaskShelf([], shipped)

    easy, trivia = shelf.find("quiz_easy"), shelf.find("trivia")
    assert easy.folders == (shipped / "quiz/easy",)
    assert trivia.folders == (shipped / "elsewhere",)
    assert easy.data_sets == ("owner/quiz",)
    with pytest.raises(UserError, match=r"no task, group or tag 'quiz_esy'.*quiz_easy"):
        shelf.find("quiz_esy")


@pytest.mark.parametrize("asked_before", [(), ("english_a",), ("native_a",)])
def test_a_shipped_tag_is_of_all_folders_that_carry_it(
    tmp_path: Path, asked_before: tuple[str, ...]
) -> None:
    """As in the harness, whatever was asked for before; and so it is in the job, which
    knows which folders these were."""
    shipped = tmp_path / "lm_eval/tasks"
    text = "task: {}\ntag: sums_with_thoughts\ndataset_path: owner/sums\n"
    for folder in ("sums/english", "sums/native", "elsewhere"):
        (shipped / folder).mkdir(parents=True)
        name = folder.rpartition("/")[2]
        path = shipped / folder / "a.yaml"
        path.write_text(text.format(f"{name}_a") + "output_type: generate_until\n")
    shelf = TaskShelf([], shipped)
    for name in asked_before:
        assert len(shelf.find(name).files) == 1
    found = shelf.find("sums_with_thoughts")
    in_job = TaskShelf([], shipped, found.folders).find("sums_with_thoughts")

    assert set(found.folders) == {path.parent for path in shipped.rglob("a.yaml")}
    assert found.files == in_job.files and len(found.files) == 3
    assert set(in_job.folders) == set(found.folders)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"unsafe_code": True}, "runs code that the model wrote"),
        ({"use_prompt": "promptsource:all"}, "another library"),
        ({"metric_list": [{"metric": "./evil"}]}, "no metric of the harness"),
        ({"metric_list": [{"metric": "acc", "hf_evaluate": True}]}, "from the hub"),
        ({"dataset_path": "../elsewhere"}, "neither OWNER/NAME"),
        ({"dataset_path": "pandas/../x"}, "neither OWNER/NAME"),
        ({"dataset_kwargs": {"data_files": {"test": "gone.jsonl"}}}, "is no file"),
        ({"dataset_kwargs": {"data_files": "https://x/y.json"}}, "no name of a file"),
        ({"dataset_kwargs": {"data_files": "full.pkl"}}, "ends in none of"),
        ({"dataset_kwargs": {"loader": "x"}}, "none of data_dir"),
        ({"dataset_kwargs": {"trust_remote_code": True}}, "none of data_dir"),
        ({"metric_list": [{"metric": ["acc"]}]}, "no metric of the harness"),
        ({"dataset_kwargs": {}}, "names no file"),
        ({"include": "../../secret.yaml"}, "outside its folder"),
        ({"class": "own.Task"}, "names Python code"),
    ],
)
def test_what_a_task_may_not_hold_is_refused_by_name(
    folder: Path, changes: dict[str, Any], problem: str
) -> None:
    """With its file; nothing of it was run or fetched."""
    (folder / "full.pkl").write_bytes(b"")
    (folder.parent.parent / "secret.yaml").write_text("a: 1\n")
    write_plain_task(folder, **changes)

    with pytest.raises(UserError, match=problem):
        TaskShelf([folder]).find("own")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("task: own\nprocess_docs: !function code.run\n", "names Python code"),
        (
            f"task: own\nx: {'[' * 30}!function code.run{']' * 30}\n",
            "names Python code",
        ),
        ("task: own\n!function code.run : 1\n", "names Python code"),
        ("task: own\nx: !!omap [a: !function code.run]\n", "names Python code"),
        ("task: own\ninclude: _hidden\nx: 1\n", "names Python code"),
        ("task: own\nx: &x [*x]\n", "aliases repeat more values"),
        ("task: own\nx: !!python/object/apply:os.system [echo]\n", "not valid YAML"),
        ("task: own\nx: !evil y\n", "not valid YAML"),
        ("- a list\n", "is no mapping"),
        ("task: [\n", "not valid YAML"),
        (f"task: own\nx: {'[' * 500}\n", "not valid YAML"),
        ("task: own\ninclude: own.yaml\n", "nested in a circle"),
    ],
)
def test_odd_files_are_one_clear_error(folder: Path, text: str, problem: str) -> None:
    """A tag of YAML's that would make objects among them."""
    (folder / "code.py").write_text("raise SystemExit('this was run')\n")
    (folder / "_hidden").write_text("x: !function code.run\n")
    (folder / "own.yaml").write_text(text)

    with pytest.raises(UserError, match=problem):
        TaskShelf([folder]).find("own")


@pytest.mark.parametrize(
    "options",
    [
        {"data_files": {"test": ["a.jsonl", "/etc/passwd"]}},
        {"data_files": "https://elsewhere/x.csv"},
        {"data_dir": "../../elsewhere"},
        {"data_dir": "~"},
    ],
)
def test_a_data_set_of_the_hub_has_its_own_files(
    folder: Path, options: dict[str, Any]
) -> None:
    """Such a task could read any file of the machine, or of another address."""
    inside = {"data_files": {"test": "data/*.jsonl"}, "data_dir": "data"}
    write_plain_task(folder, dataset_path="owner/quiz", dataset_kwargs=inside)
    assert TaskShelf([folder]).find("own").data_sets == ("owner/quiz",)

    write_plain_task(folder, dataset_path="owner/quiz", dataset_kwargs=options)
    with pytest.raises(UserError, match="is no file of the data set"):
        TaskShelf([folder]).find("own")


def test_groups_in_a_circle_end(folder: Path) -> None:
    """Each names the other."""
    write_task(folder, "a", {"group": "a", "task": ["b"]})
    write_task(folder, "b", {"group": "b", "task": ["a"]})

    with pytest.raises(UserError, match="nested in a circle"):
        TaskShelf([folder]).find("a")


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ("process_docs: !function code.run", "names Python code"),
        ("metric_list: [{metric: ./evil}]", "no metric of the harness"),
        ("metric_list: [{metric: acc, hf_evaluate: true}]", "from the hub"),
        ("dataset_kwargs: {data_files: /etc/passwd}", "cannot change dataset_kwargs"),
        ("dataset_path: owner/other", "cannot change dataset_path"),
        ("unsafe_code: true", "runs code that the model wrote"),
    ],
)
@pytest.mark.parametrize(
    "text",
    [
        "group: sly\ntask: [{{task: tiny_full, {}}}]\n",
        "group: sly\ntask: [tiny_full]\n{}\n",
        "group: sly\ntask: [{{group: inner, task: [tiny_full], {}}}]\n",
    ],
)
def test_a_group_makes_no_task_do_what_it_may_not(
    folder: Path, text: str, changed: str, problem: str
) -> None:
    """Settings of a group, and of a member as it stands in one, go before the task's."""
    (folder / "sly.yaml").write_text(text.format(changed))

    with pytest.raises(UserError, match=problem):
        TaskShelf([folder]).find("sly")


def test_a_group_may_change_how_its_tasks_are_asked(folder: Path) -> None:
    """As their shots; and groups that share members are read once each."""
    member = {"task": "tiny_full", "num_fewshot": 1}
    write_task(folder, "g0", {"group": "g0", "task": [member]})
    for number in range(1, 15):
        inner = [f"g{number - 1}"] * 9
        write_task(folder, f"g{number}", {"group": f"g{number}", "task": inner})

    assert len(TaskShelf([folder]).find("g14").files) == 17


def test_a_name_of_two_files_is_refused(folder: Path) -> None:
    """What is judged and what the harness takes could be two tasks."""
    write_plain_task(folder)
    (folder / "more").mkdir()
    write_plain_task(folder / "more")

    with pytest.raises(UserError, match=r"own.yaml: defines 'own', as .*more/own.yaml"):
        TaskShelf([folder]).find("own")


def test_data_that_no_cache_has_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the setting and what helps; not where a cache or `data_path` has them."""
    tasks, hub = tmp_path / "tasks", tmp_path / "home/hub"
    tasks.mkdir()
    hub.mkdir(parents=True)
    write_plain_task(tasks, dataset_path="owner/quiz", dataset_kwargs=None)
    shipped = tmp_path / "shipped"
    shipped.mkdir()
    monkeypatch.setattr(harness_tasks, "locate_shipped", lambda: shipped)

    def note(**settings: str) -> list[str]:
        made = CheckpointSettings.model_validate(
            {
                "metrics": ["lm_eval/own"],
                "snapshots": 1,
                "suites": {"lm_eval": {"tasks_path": str(tasks), **settings}},
            }
        )
        return harness_tasks.note_absent_data(
            [made], {"HF_HOME": str(tmp_path / "home")}
        )

    [told] = note()
    assert "lm_eval/own reads owner/quiz" in told and "data_path" in told
    (hub / "datasets--owner--quiz").mkdir()
    assert note() == []
    (hub / "datasets--owner--quiz").rmdir()
    (tmp_path / "clones/owner/quiz").mkdir(parents=True)
    assert note(data_path=str(tmp_path / "clones")) == []


def test_jobs_that_are_told_there_is_no_hub_are_not_submitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is a cache counted that only this shell is told of: jobs see what the profile
    keeps."""
    tasks, home = tmp_path / "tasks", tmp_path / "home"
    tasks.mkdir()
    (tmp_path / "shipped").mkdir()
    write_plain_task(tasks, dataset_path="owner/quiz", dataset_kwargs=None)
    shipped = tmp_path / "shipped"
    monkeypatch.setattr(harness_tasks, "locate_shipped", lambda: shipped)
    suites = {"lm_eval": {"tasks_path": str(tasks)}}
    made = CheckpointSettings.model_validate(
        {"metrics": ["lm_eval/own"], "snapshots": 1, "suites": suites}
    )
    nowhere = {"HF_HOME": str(tmp_path / "nowhere")}

    with pytest.raises(UserError, match=r"owner/quiz.*sets HF_HUB_OFFLINE"):
        harness_tasks.note_absent_data([made], nowhere | {"HF_HUB_OFFLINE": "1"}, {})
    (home / "hub/datasets--owner--quiz").mkdir(parents=True)
    shell = {"HF_HOME": str(home)}
    [told] = harness_tasks.note_absent_data([made], nowhere, shell)
    assert "where jobs do not look" in told
    assert f"environment.set: {{HF_HOME: {home}}}" in told
    offline = shell | {"HF_DATASETS_OFFLINE": "true"}
    assert harness_tasks.note_absent_data([made], offline, {}) == []
