"""Are Natural Instructions read as they stand on disk, and are broken ones told by file
and instance?"""

import re
from pathlib import Path

import pytest

from tests.lib.builders import task, write_niv2
from zsg_core.data.examples import Example
from zsg_core.data.readers import niv2
from zsg_core.data.readers.intake import Intake
from zsg_core.errors import UserError


def read_task(folder: Path, name: str, intake: Intake | None = None) -> list[Example]:
    """The instances of a task of the official folder."""
    return list(niv2.read_task(folder / f"tasks/{name}.json", intake or Intake()))


def test_tasks_are_in_file_order(tmp_path):
    """The order of a split file is the order of the tasks; blank lines are none."""
    folder = write_niv2(tmp_path / "d")
    (folder / niv2.SPLITS["train"]).write_text("task002_b\n\n  task001_a  \n")

    assert niv2.read_task_names(folder, "train") == ["task002_b", "task001_a"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param("", "names no task", id="an empty list"),
        pytest.param(
            "a\nb\na\n", "a is listed more than once", id="a task named twice"
        ),
        pytest.param("../secret\n", "not a task name", id="a way out of the folder"),
        pytest.param("a\\b\n", "not a task name", id="a backslash"),
        pytest.param(".hidden\n", "not a task name", id="a leading dot"),
    ],
)
def test_a_bad_split_file_is_refused(tmp_path, content, said):
    """The message names the file and what is wrong in it."""
    folder = write_niv2(tmp_path / "d")
    (folder / niv2.SPLITS["test"]).write_text(content)

    with pytest.raises(UserError, match=rf"test_tasks\.txt: .*{said}"):
        niv2.read_task_names(folder, "test")


def test_a_missing_split_file_is_told_with_the_layout(tmp_path):
    """A folder of another layout gets the layout that is expected."""
    with pytest.raises(
        UserError, match=r"train_tasks\.txt: not found.*tasks/<task>\.json.*data\.path"
    ):
        niv2.read_task_names(tmp_path, "train")


def test_a_named_task_without_a_file_is_told(tmp_path):
    """The file that is missing is named, with where its name comes from."""
    folder = write_niv2(tmp_path / "d")
    (folder / "tasks/task002_sort.json").unlink(missing_ok=True)
    (folder / niv2.SPLITS["train"]).write_text("task002_sort\n")

    with pytest.raises(
        UserError, match=r"task002_sort\.json: not found, but the split files"
    ):
        niv2.list_files(folder)


def test_an_example_has_all_parts_of_its_instance(tmp_path):
    """Definition, positive examples, input and references stand in the example; its id
    is its place."""
    content = task(
        0, **{"Instances": [{"id": "x", "input": "in", "output": ["one", "two"]}]}
    )
    folder = write_niv2(tmp_path / "d", {"task1": content, "task9": task(1)})

    assert read_task(folder, "task1") == [
        Example(
            id="task1:0",
            task="task1",
            definition="Do it",
            shots=(("shot 0", "yes 0"), ("shot 1", "yes 1"), ("shot 2", "yes 2")),
            turns=(("in", "one"),),
            references=("one", "two"),
        )
    ]


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"Definition": "Do it"}, id="a bare definition"),
        pytest.param({"Definition": ["Do it", "another"]}, id="two definitions"),
        pytest.param(
            {"Instances": [{"input": "in", "output": "out"}]}, id="a bare output"
        ),
        pytest.param({"Positive Examples": []}, id="no positive example"),
        pytest.param({"Unknown": 1}, id="an unknown key"),
    ],
)
def test_older_dialects_are_read(tmp_path, changes):
    """What copies in the wild look like is read too."""
    folder = write_niv2(tmp_path / "d", {"task1": task(1, **changes), "task9": task(1)})

    assert [example.definition for example in read_task(folder, "task1")] == ["Do it"]


OFTEN = [
    pytest.param({"Definition": []}, "'Definition' must be a text", id="no definition"),
    pytest.param(
        {"Definition": "  "}, "'Definition' must be a text", id="a blank definition"
    ),
    pytest.param(
        {"Instances": {}},
        "Expected `array`, got `object` - at `$.Instances`",
        id="no list of instances",
    ),
    pytest.param(
        {"Positive Examples": None},
        "Expected `array`, got `null`",
        id="no list of examples",
    ),
    pytest.param(
        {"Positive Examples": [{"input": "x"}]},
        "missing required field `output`",
        id="half an example",
    ),
]
INSTANCES = [
    pytest.param({"output": ["x"]}, "missing required field `input`", id="no input"),
    pytest.param("x", "Expected `object`, got `str`", id="an instance that is a text"),
    pytest.param(
        {"input": "x", "output": []},
        "'output' must be a list of at least one text",
        id="no answer",
    ),
    pytest.param(
        {"input": "x", "output": [3]},
        "Expected `str`, got `int` - at `$.output[0]`",
        id="a number",
    ),
    pytest.param({"input": "x"}, "missing required field `output`", id="no output"),
]


@pytest.mark.parametrize(("changes", "said"), OFTEN)
def test_a_broken_task_is_refused_by_file_and_place(tmp_path, changes, said):
    """The message names the file, the place and what is expected."""
    folder = write_niv2(tmp_path / "d", {"task1": task(1, **changes), "task9": task(1)})

    with pytest.raises(UserError, match=rf"task1\.json: .*{re.escape(said)}"):
        read_task(folder, "task1", Intake(skip=True))


@pytest.mark.parametrize(("row", "said"), INSTANCES)
def test_a_broken_instance_is_refused_or_counted(tmp_path, row, said):
    """The message names file, place and reason; under skip the others are read and keep
    their ids."""
    good = {"input": "in", "output": "out"}
    folder = write_niv2(
        tmp_path / "d", {"task1": task(0, Instances=[row, good]), "task9": task(1)}
    )
    intake = Intake(skip=True)

    with pytest.raises(
        UserError,
        match=rf"task1\.json: Instances\[0\]: .*{re.escape(said)}.*on_bad_row: skip",
    ):
        read_task(folder, "task1")
    assert [example.id for example in read_task(folder, "task1", intake)] == ["task1:1"]
    assert (intake.skipped, len(intake.reasons)) == (1, 1)


@pytest.mark.parametrize(
    "content",
    [b"{", b"\xff", b"[]", b"3"],
    ids=["cut", "not UTF-8", "a list", "a number"],
)
def test_a_file_that_is_no_json_object_is_refused(tmp_path, content):
    """A task file that cannot be read names itself."""
    folder = write_niv2(tmp_path / "d")
    (folder / "tasks/task001_add.json").write_bytes(content)

    with pytest.raises(UserError, match=r"task001_add\.json: "):
        read_task(folder, "task001_add")


def test_files_are_the_splits_and_the_tasks_they_name(tmp_path):
    """What decides the data is listed once, in a fixed order."""
    folder = write_niv2(tmp_path / "d")
    (folder / "tasks/unused.json").write_text("{}")

    names = [
        "train_tasks.txt",
        "test_tasks.txt",
        "task001_add.json",
        "task002_sort.json",
        "task900_count.json",
    ]
    assert [path.name for path in niv2.list_files(folder)] == names


def test_a_task_in_both_splits_is_refused(tmp_path):
    """A held-out task must not be trained on."""
    folder = write_niv2(tmp_path / "d")
    (folder / niv2.SPLITS["train"]).write_text("task900_count\n")

    with pytest.raises(UserError, match="task900_count is in both splits"):
        niv2.read_lists(folder)


def test_task_files_by_a_pattern_have_no_published_split(tmp_path):
    """Copies that keep a task's splits in a folder of its name are read by a pattern;
    the folder names the task."""
    folder = write_niv2(tmp_path / "d", {"task1": task(2), "task9": task(1)})
    (folder / "task1").mkdir()
    (folder / "tasks/task1.json").rename(folder / "task1/train.json")

    assert [
        example.id for example in niv2.read_examples(folder / "*/train.json", Intake())
    ] == [
        "task1:0",
        "task1:1",
    ]
    assert niv2.read_lists(folder / "*/train.json") is None
