"""Are Natural Instructions read as they stand on disk, and are broken ones told by file and instance?"""

import pytest
from builders import task, write_niv2
from hypothesis import given, settings
from hypothesis import strategies as st

from zsg_core import niv2
from zsg_core.errors import UserError
from zsg_core.examples import Example, read_jsonl, write_jsonl

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


def test_tasks_are_in_file_order(tmp_path):
    """The order of a split file is the order of the tasks; blank lines are none."""
    folder = write_niv2(tmp_path / "d")
    (folder / niv2.SPLITS["train"]).write_text("task002_b\n\n  task001_a  \n")

    assert niv2.task_names(folder, "train") == ["task002_b", "task001_a"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param("", "names no task", id="an empty list"),
        pytest.param("a\nb\na\n", "a is listed more than once", id="a task named twice"),
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
        niv2.task_names(folder, "test")


def test_a_missing_split_file_is_told_with_the_layout(tmp_path):
    """A folder of another layout gets the layout that is expected."""
    with pytest.raises(UserError, match=r"train_tasks\.txt: not found.*tasks/<task>\.json.*data\.path"):
        niv2.task_names(tmp_path, "train")


def test_a_named_task_without_a_file_is_told(tmp_path):
    """The file that is missing is named, with where its name comes from."""
    folder = write_niv2(tmp_path / "d")
    (folder / "tasks/task002_sort.json").unlink(missing_ok=True)
    (folder / niv2.SPLITS["train"]).write_text("task002_sort\n")

    with pytest.raises(UserError, match=r"task002_sort\.json: not found, but the split files"):
        niv2.files(folder)


def test_an_example_has_all_parts_of_its_instance(tmp_path):
    """Definition, positive examples, input and references stand in the example; its id is its place."""
    content = task(0, **{"Instances": [{"id": "x", "input": "in", "output": ["one", "two"]}]})
    folder = write_niv2(tmp_path / "d", {"task1": content, "task9": task(1)})

    assert niv2.read_task(folder, "task1") == [
        Example(
            id="task1:0",
            task="task1",
            definition="Do it",
            shots=(("shot 0", "yes 0"), ("shot 1", "yes 1"), ("shot 2", "yes 2")),
            input="in",
            answer="one",
            references=("one", "two"),
        )
    ]


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"Definition": "Do it"}, id="a bare definition"),
        pytest.param({"Definition": ["Do it", "another"]}, id="two definitions"),
        pytest.param({"Instances": [{"input": "in", "output": "out"}]}, id="a bare output"),
        pytest.param({"Positive Examples": []}, id="no positive example"),
        pytest.param({"Unknown": 1}, id="an unknown key"),
    ],
)
def test_older_dialects_are_read(tmp_path, changes):
    """What copies in the wild look like is read too."""
    folder = write_niv2(tmp_path / "d", {"task1": task(1, **changes), "task9": task(1)})

    assert [example.definition for example in niv2.read_task(folder, "task1")] == ["Do it"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        pytest.param({"Definition": []}, "'Definition' must be a text", id="no definition"),
        pytest.param({"Definition": "  "}, "'Definition' must be a text", id="a blank definition"),
        pytest.param({"Instances": {}}, "'Instances' must be a list, found dict", id="instances that are no list"),
        pytest.param({"Positive Examples": None}, "'Positive Examples' must be a list", id="no list of examples"),
        pytest.param({"Positive Examples": [{"input": "x"}]}, r"Examples\[0\] must have", id="half an example"),
        pytest.param({"Instances": [{"output": ["x"]}]}, r"Instances\[0\] must be an object", id="no input"),
        pytest.param({"Instances": ["x"]}, r"Instances\[0\] must be an object", id="an instance that is a text"),
        pytest.param({"Instances": [{"input": "x", "output": []}]}, r"Instances\[0\]: 'output'", id="no answer"),
        pytest.param({"Instances": [{"input": "x", "output": [3]}]}, r"Instances\[0\]: 'output'", id="a number"),
        pytest.param({"Instances": [{"input": "x"}]}, r"Instances\[0\]: 'output'", id="no output"),
    ],
)
def test_a_broken_task_is_refused_by_file_and_place(tmp_path, changes, said):
    """The message names the file, the place and what is expected."""
    folder = write_niv2(tmp_path / "d", {"task1": task(1, **changes), "task9": task(1)})

    with pytest.raises(UserError, match=rf"task1\.json: .*{said}"):
        niv2.read_task(folder, "task1")


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[]", b"3"], ids=["cut", "not UTF-8", "a list", "a number"])
def test_a_file_that_is_no_json_object_is_refused(tmp_path, content):
    """A task file that cannot be read names itself."""
    folder = write_niv2(tmp_path / "d")
    (folder / "tasks/task001_add.json").write_bytes(content)

    with pytest.raises(UserError, match=r"task001_add\.json: "):
        niv2.read_task(folder, "task001_add")


def test_files_are_the_splits_and_the_tasks_they_name(tmp_path):
    """What decides the data is listed once, in a fixed order."""
    folder = write_niv2(tmp_path / "d")
    (folder / "tasks/unused.json").write_text("{}")

    names = ["train_tasks.txt", "test_tasks.txt", "task001_add.json", "task002_sort.json", "task900_count.json"]
    assert [path.name for path in niv2.files(folder)] == names


@settings(deadline=None)
@given(
    st.builds(
        Example,
        id=TEXT,
        task=TEXT,
        definition=TEXT,
        shots=st.lists(st.tuples(TEXT, TEXT), max_size=2).map(tuple),
        input=TEXT,
        answer=TEXT,
        references=st.lists(TEXT, min_size=1, max_size=2).map(tuple),
    )
)
def test_what_is_written_is_read(tmp_path_factory, example):
    """Examples of any text, line separators too, come back as they were."""
    path = tmp_path_factory.getbasetemp() / "examples.jsonl"
    write_jsonl(path, [example, example])

    assert list(read_jsonl(path)) == [example, example]
