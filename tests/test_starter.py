"""Can a new user type `zsg init` and go on: plan, submit, a cluster's profile, an
editor that knows the keys?"""

import json
import re
from pathlib import Path

import pytest
from jsonschema import Draft7Validator

from launcher.clusters import profiles
from launcher.grids import grid, starter
from launcher.workspace import yaml_file
from tests.lib.chat_templates import CHATML
from tests.lib.command_line import Zsg
from tests.lib.model_folders import write_llama
from zsg_core import skills
from zsg_core.errors import UserError

OPTION = re.compile(r"^(\s*)# ([\w.]+: .*)$", re.M)


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `zsg init` was called."""
    folder = tmp_path_factory.mktemp("begun") / "study"
    starter.write_starter(folder)
    return folder


@pytest.mark.soak(part="users")
def test_init_plan_submit(zsg: Zsg) -> None:
    """The three commands that a new user types, the last one cut to two steps, end with
    two finished runs."""
    said = zsg("init")
    zsg("plan", "grid.yaml")
    zsg(
        "submit",
        "grid.yaml",
        "--set",
        "train.steps=2",
        "--set",
        "data.train_per_task=2",
    )

    assert "next: zsg plan grid.yaml && zsg submit grid.yaml" in said
    assert [(row["state"], row["step"]) for row in zsg.status("starter")] == [
        ("done", 2)
    ] * 2
    record = json.loads((zsg.work / "grids/starter/grid.json").read_text())
    assert record["overrides"] == ["train.steps=2", "data.train_per_task=2"]


def test_init_says_where_to_go(zsg: Zsg) -> None:
    """For another folder the next command begins with the way there, quoted for the shell."""
    said = zsg("init", "my study")

    assert "next: cd 'my study' && zsg plan grid.yaml" in said
    assert sorted(path.name for path in (zsg.folder / "my study").iterdir()) == [
        "cluster_profiles",
        "grid.yaml",
        "schema",
        "tasks",
    ]


def test_the_starter_is_the_same_data_as_the_command_makes(begun: Path) -> None:
    """The tasks are whole: writing the same ones again finds nothing to do."""
    before = sorted(path.stat().st_mtime_ns for path in (begun / "tasks").rglob("*"))
    skills.write_tasks(begun / "tasks", starter.PER_TASK)

    assert (
        sorted(path.stat().st_mtime_ns for path in (begun / "tasks").rglob("*"))
        == before
    )


def test_every_commented_setting_of_the_grid_is_a_setting(
    begun: Path, tmp_path: Path
) -> None:
    """Switched on together, the lines that are commented out still make a grid."""
    text, switched = OPTION.subn(r"\1\2", (begun / "grid.yaml").read_text())
    path = tmp_path / "grid.yaml"
    path.write_text(text.replace("name: tiny", "name: llama"))
    opened = grid.load_grid(path)

    assert switched == 9
    assert len(opened.points) == 2 * 3 * 2 * 2 - 3 * 2
    assert opened.notes == []


def test_every_commented_setting_of_the_profile_is_a_setting(
    begun: Path, tmp_path: Path
) -> None:
    """Switched on together, the lines that are commented out still make a profile, laid
    over the shipped one."""
    text, switched = OPTION.subn(
        r"\1\2", (begun / "cluster_profiles/my-cluster.yaml").read_text()
    )
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    profile = profiles.load_profile(str(path), tmp_path)

    assert switched == 5
    assert (
        profile.name,
        profile.kind,
        profile.slurm.partition,
        profile.train.nodes,
    ) == (
        "my-cluster",
        "slurm",
        "gpu",
        2,
    )


def test_a_grid_of_the_starter_finds_its_profile(begun: Path) -> None:
    """`--profile my-cluster` is the file beside the grid."""
    assert profiles.load_profile("my-cluster", begun).name == "my-cluster"


@pytest.mark.parametrize("name", ["grid.yaml", "cluster_profiles/my-cluster.yaml"])
def test_an_editor_finds_the_schema(begun: Path, name: str) -> None:
    """The first line names a schema, relative to the file, that the file holds to."""
    path = begun / name
    named = re.fullmatch(
        r"# yaml-language-server: \$schema=(\S+)", path.read_text().splitlines()[0]
    )
    assert named
    schema = json.loads((path.parent / named[1]).read_text())

    assert (
        list(Draft7Validator(schema).iter_errors(yaml_file.load_document(path).value))
        == []
    )


@pytest.mark.parametrize("part", starter.PARTS)
@pytest.mark.parametrize("is_link", [False, True], ids=["a file", "a link to nothing"])
def test_nothing_is_overwritten(tmp_path: Path, part: str, is_link: bool) -> None:
    """What is there already is named, stays as it is, and nothing is written beside it."""
    path = tmp_path / part
    path.parent.mkdir(exist_ok=True)
    path.symlink_to("nowhere") if is_link else path.write_text("mine")
    before = sorted(tmp_path.rglob("*"))

    with pytest.raises(UserError, match=f"{re.escape(str(path))} is there already"):
        starter.write_starter(tmp_path)

    assert sorted(tmp_path.rglob("*")) == before
    assert is_link or path.read_text() == "mine"


def test_what_is_beside_the_starter_stays(tmp_path: Path) -> None:
    """A folder with other files, other profiles too, may be begun in."""
    (tmp_path / "cluster_profiles").mkdir()
    (tmp_path / "cluster_profiles/other.yaml").write_text("name: other\n")

    starter.write_starter(tmp_path)

    assert (tmp_path / "cluster_profiles/other.yaml").read_text() == "name: other\n"
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("name", ["file", "file/below", "x" * 300])
def test_what_can_be_no_folder_is_refused(zsg: Zsg, name: str) -> None:
    """A file, what lies below one, and a name too long are refused in one line; nothing is left."""
    zsg.write("file", "")

    zsg("init", name, code=3 if "/" in name else 2)

    assert zsg.said.count("\n") == 1 and zsg.said.startswith(f"error: {name}: ")
    assert [path.name for path in zsg.folder.iterdir()] == ["file"]


@pytest.mark.parametrize("has_template", [True, False])
def test_a_grid_for_a_model_of_ones_own_is_whole(
    tmp_path: Path, has_template: bool
) -> None:
    """By the model's chat template where it has one; whatever its folder is called."""
    model = write_llama(tmp_path / "A \\1 'model'")
    if has_template:
        (model / "chat_template.jinja").write_text(CHATML)
    starter.write_starter(tmp_path / "study", model)

    [point, *_] = grid.load_grid(tmp_path / "study/grid.yaml").points

    expected = "chat" if has_template else "zsg"
    assert point.settings.data.template == expected
    assert point.settings.model.path == str(model)
    assert point.settings.model.name == "A-1-model"


ODD_NAMES = ["7", "1e3", "0x1f", "2024-01-01", "null", "True", "no", "on", "y", "n"]


@pytest.mark.parametrize("name", [*ODD_NAMES, "tiny", "12:30:45", "1_000", "inf", "é"])
def test_a_model_folder_of_any_name_begins_a_grid_that_loads(
    tmp_path: Path, name: str
) -> None:
    """Also one that YAML would read as a number, a date or a truth value, and one with
    the name of the model that zsg makes itself."""
    model = write_llama(tmp_path / name)
    starter.write_starter(tmp_path / "study", model)

    [point, *_] = grid.load_grid(tmp_path / "study/grid.yaml").points

    assert point.settings.model.path == str(model)
    assert isinstance(point.settings.model.name, str)


def test_what_is_no_model_is_not_begun_with(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no config\.json"):
        starter.write_starter(tmp_path / "study", tmp_path)
    assert not (tmp_path / "study").exists()
