"""Does what jobs are told keep the links that the user has typed, and is a link of
somebody else's not trusted?"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.contract.folder import Workspace, read_json
from jobs.files import ownership, paths
from launcher.clusters import submitit_backend
from launcher.clusters.profiles import JobSize, Profile
from launcher.grids import inputs, suite_files
from launcher.submission import workflow
from launcher.workspace import code_snapshot, workspaces
from tests.lib.builders import write_niv2
from tests.lib.command_line import Zsg
from tests.lib.other_user import OtherUser

GRID = "name: g\ndefaults:\n  data: {path: DATA}\n  train: {batch: 4}\n"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home that is a link, as on a login node, and the current folder by that name."""
    (tmp_path / "real/proj").mkdir(parents=True)
    (tmp_path / "home").symlink_to("real")
    monkeypatch.chdir(tmp_path / "home/proj")
    monkeypatch.setenv("PWD", str(tmp_path / "home/proj"))
    return tmp_path / "home"


@pytest.mark.parametrize(
    ("typed", "named"),
    [
        ("w", "home/proj/w"),
        (".", "home/proj"),
        ("../w", "home/w"),
        ("HOME/a/../w", "home/w"),
        ("HOME/disk/w", "home/disk/w"),
        ("HOME/disk/../w", "elsewhere/w"),  # as the system goes, not back by the name
    ],
)
def test_a_path_stays_as_it_was_typed(home: Path, typed: str, named: str) -> None:
    """Absolute, its links as they are; `..` behind a link leads where the system goes."""
    (home.parent / "elsewhere/disk").mkdir(parents=True)
    (home / "disk").symlink_to("../elsewhere/disk")
    path = Path(typed.replace("HOME", str(home)))

    made = workspaces.find_workspace(path).root
    assert made == home.parent / named
    assert made.resolve() == path.resolve()


@pytest.mark.parametrize("typed", ["/nowhere", "proj", ""])
def test_a_wrong_name_of_the_current_folder_is_not_believed(
    home: Path, monkeypatch: pytest.MonkeyPatch, typed: str
) -> None:
    """PWD may be that of another folder, or missing: then the system's name counts."""
    monkeypatch.setenv("PWD", typed)

    assert workspaces.find_workspace(Path("w")).root == home.resolve() / "proj/w"


def test_a_job_is_told_the_path_as_it_was_typed(home: Path) -> None:
    """The script's logs, PYTHONPATH, job.json, and data, models and benchmarks by their
    settings: a node may know no other."""
    workspace = workspaces.find_workspace(home / "w")
    workspace.create()
    code = code_snapshot.take_snapshot(workspace)
    folder = workspace.submission("s")
    ownership.make_private_folder(folder)
    parameters = submitit_backend.make_parameters(
        Profile(name="p", kind="slurm"), JobSize(), "n", None, "train"
    )
    parameters["setup"] += code_snapshot.script_lines(code)
    parameters["setup"] += code_snapshot.guard_lines(code, folder)
    script = submitit_backend.make_script(folder, 1, parameters, "python")
    (home / "proj/x.jsonl").touch()

    assert f"#SBATCH --output={home}/w/submissions/s/" in script
    assert f"export PYTHONPATH={home}/w/code/" in script
    assert str(home.resolve()) not in script
    assert suite_files.locate_file("k", "x.jsonl") == home / "proj/x.jsonl"
    assert inputs.find_folder("k", str(home / "proj")) == home / "proj"


def test_job_files_and_records_name_what_was_typed(zsg: Zsg) -> None:
    """A submit through links leaves no other name in job.json and in the grid's record;
    a plan by the real name reads no file again."""
    (zsg.folder / "real").mkdir()
    write_niv2(zsg.folder / "real/data")
    (zsg.folder / "home").symlink_to("real")
    home = zsg.folder / "home"
    (home / "grid.yaml").write_text(GRID.replace("DATA", f"{home}/data"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workflow.local, "run_all", lambda *_: None)
        patch.setattr(workflow, "start_delivery", _Nobody)
        opened = workflow.open_grid(home / "grid.yaml", "local", home / "w")
        workflow.submit_grid(opened, workflow.Allow(), lambda _: True)
    work = home / "w"
    [prepare] = (work / "prepare").iterdir()
    job, record = read_json(prepare / "job.json"), read_json(work / "grids/g/grid.json")

    assert job and record
    assert job["paths"]["workspace"] == str(work)
    assert job["paths"]["sources"][""]["data"] == f"{home}/data"
    assert job["code"]["folder"].startswith(f"{work}/code/")
    assert record["file"] == str(home / "grid.yaml")
    known = read_json(work / "digests.json") or {}
    named = [key for key in known if str(zsg.folder) in key]
    assert named and not [key for key in named if str(home) in key]


class _Nobody:
    """A delivery that sends nothing."""

    returncode = 0

    def __init__(self, *_: object) -> None:
        pass

    def terminate(self) -> None:
        pass

    def wait(self, *_: object) -> int:
        return 0


def test_mlflow_knows_the_workspace_by_the_folder_itself(home: Path) -> None:
    """Its store keeps whole addresses, which were those of the folder up to now."""
    workspace = workspaces.find_workspace(home / "w")

    assert workspaces.follow_links(workspace) == Workspace(home.resolve() / "w")


def test_what_is_passed_on_the_way_is_listed(tmp_path: Path) -> None:
    """Each link and each folder, also of a chain of links; a circle has an end."""
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "one").symlink_to(tmp_path / "two")
    (tmp_path / "two").symlink_to("a")
    (tmp_path / "x").symlink_to("y")
    (tmp_path / "y").symlink_to("x")
    passed = [
        str(path.relative_to(tmp_path))
        for path in paths.list_passed(tmp_path / "one/b")
        if path.is_relative_to(tmp_path)
    ]

    assert passed == [".", "one", ".", "two", "a", "a/b"]
    assert len(list(paths.list_passed(tmp_path / "x/z"))) < 100


def lead(home: Path, stranger: OtherUser) -> None:
    """The stranger's own link, where anybody may make one."""
    home.chmod(0o1777)
    assert stranger.can('ln -s "$1" "$2"', home / "mine", home / "way")


def lead_in_two_steps(home: Path, stranger: OtherUser) -> None:
    """A link of ours to a link of the stranger's."""
    home.chmod(0o1777)
    assert stranger.can('ln -s "$1" "$2"', home / "mine", home / "theirs")
    (home / "way").symlink_to("theirs")


@pytest.mark.parametrize("plant", [lead, lead_in_two_steps])
def test_a_link_that_a_stranger_can_lead_elsewhere_is_refused(
    stranger: OtherUser,
    open_to_all: Path,
    plant: Callable[[Path, OtherUser], None],
) -> None:
    """It leads to a folder of the user's own today; by our own link it is fine."""
    (open_to_all / "mine").mkdir(mode=0o700)
    plant(open_to_all, stranger)
    (open_to_all / "ours").symlink_to("mine")
    refused = workspaces.find_refusal(
        workspaces.find_workspace(open_to_all / "way/work")
    )

    assert refused is not None
    assert f"is a link of {stranger.name}'s, so that others can" in str(refused)
    ours = workspaces.find_workspace(open_to_all / "ours/work")
    assert workspaces.find_refusal(ours) is None
    os.lchown(open_to_all / "ours", stranger.uid, stranger.gid)
    assert workspaces.find_refusal(ours) is not None


def test_a_model_has_one_name_whichever_way_it_was_typed(tmp_path: Path) -> None:
    """Runs of one grid are compared by it, in MLflow and in tables: links are followed.
    What zsg makes is called tiny."""
    (tmp_path / "llama-7b").mkdir()
    (tmp_path / "today").symlink_to("llama-7b")
    (tmp_path / "latest").symlink_to(tmp_path / "today")
    names = [inputs.name_model(tmp_path / way) for way in ("llama-7b", "latest")]

    assert names == ["llama-7b", "llama-7b"]
    assert inputs.name_model(None) == "tiny"
