"""Are data sets of the Hugging Face hub fetched once, at an exact commit, and only
where the profile says so?"""

import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from jobs.contract.folder import Workspace
from launcher.grids import hub as hubs
from launcher.grids.hub import DatasetFile, DatasetName, parse_name
from tests.lib.command_line import QUIET, Zsg
from tests.lib.hugging_face_hub import Hub
from zsg_core.errors import UserError

OLD, NEW = "a" * 40, "b" * 40
SECRET = "hf_abcdefghijklmnop"
GRID = """
name: hub
defaults:
  data: {set: huggingface, path: %s, test_path: %s}
  train: {batch: 4, steps: 2}
"""


def shard(first: int, count: int) -> bytes:
    """A Parquet file of questions and answers."""
    rows = [
        {"question": f"What is {i} + 1?", "answer": str(i + 1)}
        for i in range(first, first + count)
    ]
    parquet.write_table(pa.Table.from_pylist(rows), made := io.BytesIO())
    return made.getvalue()


FILES = {
    "README.md": b"# sums",
    "main/train-00000-of-00002.parquet": shard(0, 30),
    "main/train-00001-of-00002.parquet": shard(30, 30),
    "main/test-00000-of-00001.parquet": shard(60, 5),
}


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A hub that holds org/sums, of which `main` is at OLD."""
    with Hub(
        {("org/sums", OLD): FILES, ("org/sums", NEW): FILES},
        {("org/sums", "main"): OLD},
    ) as made:
        yield made


@pytest.fixture
def zsg(tmp_path: Path, hub: Hub) -> Zsg:
    """The command line where the hub can be reached, with a profile that says so."""
    env = {
        "HF_HUB_OFFLINE": "0",
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_TOKEN": SECRET,
    }
    made = Zsg(tmp_path, env)
    made.write("online.yaml", "name: online\ninherits: local\ninternet: true\n")
    return made


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("org/sums", DatasetName("org/sums", "main", None)),
        ("org/sums:main/train", DatasetName("org/sums", "main", "main/train")),
        ("org/sums@v1.0:data/train", DatasetName("org/sums", "v1.0", "data/train")),
        (
            "org/sums@refs/convert/parquet:default/train",
            DatasetName("org/sums", "refs/convert/parquet", "default/train"),
        ),
        (f"org/sums@{OLD}", DatasetName("org/sums", OLD, None)),
    ],
)
def test_a_name_says_data_set_revision_and_split(
    text: str, wanted: DatasetName
) -> None:
    """What is left out is `main`, and the only split there is."""
    assert parse_name(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "sums",
        "/org/sums",
        "./org/sums",
        "../org",
        "org/../sums",
        "org/sums/x",
        "org/su ms",
        "org/sums:",
        "org/sums:/x",
        "org/sums:../x",
        "org/sums:x/./y",
        "org/sums@",
        "org/sums@../x",
        "~/sums",
        "org/*",
        "org--x/sums",
        "-org/sums",
    ],
)
def test_what_can_be_no_name_is_a_path(text: str) -> None:
    """Nothing that leads elsewhere becomes part of a path."""
    assert parse_name(text) is None


@pytest.mark.parametrize(
    ("files", "split", "wanted"),
    [
        (
            FILES,
            "main/train",
            ["main/train-00000-of-00002.parquet", "main/train-00001-of-00002.parquet"],
        ),
        (
            ["default/train/0000.parquet", "default/test/0000.parquet"],
            "default/train",
            ["default/train/0000.parquet"],
        ),
        (
            ["data/train-00000-of-00001-0123abcd.parquet", "x.json"],
            None,
            ["data/train-00000-of-00001-0123abcd.parquet"],
        ),
        (
            ["train.parquet", "../train2.parquet", "train/x.parquet"],
            "train",
            ["train.parquet"],
        ),
        (
            FILES,
            None,
            "has several splits; give one of org/sums:main/test, org/sums:main/train",
        ),
        (FILES, "main", "has no split main; give one of org/sums:main/test"),
        (
            ["data.json"],
            None,
            "no Parquet files at main; org/sums@refs/convert/parquet",
        ),
    ],
)
def test_a_split_is_the_beginning_of_its_files_names(
    files: list[str], split: str | None, wanted: list[str] | str
):
    """It is never guessed: where there are several, their names are told."""
    held = [DatasetFile(path, None, None) for path in files]

    if isinstance(wanted, list):
        assert [
            file.path
            for file in hubs.choose_files(
                "data.path", DatasetName("org/sums", "main", split), held
            )
        ] == wanted
    else:
        with pytest.raises(UserError, match=wanted):
            hubs.choose_files("data.path", DatasetName("org/sums", "main", split), held)


def test_a_data_set_of_the_hub_is_fetched_once_and_then_a_folder(
    zsg: Zsg, hub: Hub, tmp_path: Path
) -> None:
    """It makes the runs that its files make in a folder; a branch stays where it was,
    and plan says if it moved."""
    grid = zsg.write("hub.yaml", GRID % ("org/sums:main/train", "org/sums:main/test"))
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        for name in FILES:
            if split in name:
                (tmp_path / split / Path(name).name).write_bytes(FILES[name])
    here = zsg.write("here.yaml", GRID % ("train", "test"))

    zsg("plan", grid, code=2)
    assert "only a profile with `internet: true` may fetch it" in " ".join(
        zsg.said.split()
    )
    assert hub.asked == []
    fetched = json.loads(zsg("plan", grid, "--profile", "online.yaml", "--json"))
    [told] = fetched[0]["effects"]
    assert told["what"].startswith(
        "internet: data sets that the grid names are fetched from http://127.0.0.1:"
    )
    assert f"fetching org/sums at {OLD}: 2 files" in zsg.said
    assert [row["run"] for row in fetched] == [
        row["run"] for row in json.loads(zsg("plan", here, "--json"))
    ]
    offline = [row | {"effects": []} for row in fetched]
    assert json.loads(zsg("plan", grid, "--json")) == offline, (
        "what is there needs no internet"
    )
    assert sorted(
        path.name for path in (zsg.work / "downloads/org+sums" / OLD).iterdir()
    ) == [
        "main+test",
        "main+train",
    ]

    hub.branches["org/sums", "main"] = NEW
    hub.asked.clear()
    assert (
        json.loads(zsg("plan", grid, "--profile", "online.yaml", "--json")) == fetched
    )
    assert f"org/sums@main has moved to {NEW}" in " ".join(zsg.said.split())
    assert not any("resolve" in asked for asked in hub.asked)


CALLS = """
import sys
from pathlib import Path
from jobs.contract.folder import Workspace
from launcher.grids.hub import Downloads, parse_name
from zsg_core.errors import ZsgError
for text in sys.argv[2:]:
    try:
        print(Downloads(Workspace(Path(sys.argv[1])), True).folder("data.path", parse_name(text)))
    except ZsgError as error:
        print(type(error).__name__, error)
"""


def ask(zsg: Zsg, workspace: Path, *names: str, **env: str) -> list[str]:
    """What is said of each name, one after the other, by one process."""
    command = [sys.executable, "-c", CALLS, str(workspace), *names]
    done = subprocess.run(
        command,
        env={**QUIET, **zsg.env, **env},
        capture_output=True,
        text=True,
        check=True,
    )
    assert SECRET not in done.stdout + done.stderr
    return done.stdout.splitlines()


def test_what_the_hub_refuses_is_told_and_the_token_never(
    zsg: Zsg, hub: Hub, tmp_path: Path
) -> None:
    """Who must do what: the user for a name, a login or terms; later again for a hub that fails."""
    hub.refused = {
        "org/gated": (403, "GatedRepo"),
        "org/mine": (403, ""),
        "org/down": (503, ""),
    }
    said = ask(
        zsg,
        tmp_path / "w",
        "org/none",
        "org/gated",
        "org/mine",
        "org/down",
        "org/sums@v2",
        "org/sums",
    )

    wanted = [
        "UserError .*shows you no data set",
        "UserError .*is gated",
        "UserError .*refuses org/mine",
        "ClusterError .*answered 503; try again",
        "UserError .*has no revision v2",
        "UserError .*several splits",
    ]
    for line, pattern in zip(said, wanted, strict=True):
        assert re.match(pattern, line), line


def test_a_commit_is_asked_for_once_and_a_silent_hub_is_told(
    zsg: Zsg, hub: Hub, tmp_path: Path
) -> None:
    """What is at an exact commit needs no hub again; what is not there does."""
    exact = f"org/sums@{NEW}:main/test"
    assert ask(zsg, tmp_path / "w", exact)[-1] == str(
        tmp_path / "w/downloads/org+sums" / NEW / "main+test"
    )
    asked = len(hub.asked)
    ask(zsg, tmp_path / "w", exact)
    assert len(hub.asked) == asked

    gone = {"HF_ENDPOINT": "http://127.0.0.1:9"}
    assert (
        "does not answer"
        in ask(zsg, tmp_path / "w", f"org/sums@{NEW}:main/train", **gone)[-1]
    )
    assert (
        "HF_HUB_OFFLINE is set"
        in ask(zsg, tmp_path / "w", "org/sums", HF_HUB_OFFLINE="1")[-1]
    )


def test_a_file_that_comes_damaged_is_not_kept(
    zsg: Zsg, hub: Hub, tmp_path: Path
) -> None:
    """The hub's own digest decides; the next try begins with the file anew."""
    name = f"org/sums@{NEW}:main/test"
    hub.broken = 1
    assert "came damaged; try again" in ask(zsg, tmp_path / "w", name)[-1]
    hub.broken = 0

    assert (
        Path(ask(zsg, tmp_path / "w", name)[-1]) / "test-00000-of-00001.parquet"
    ).read_bytes() == FILES["main/test-00000-of-00001.parquet"]


def test_what_came_before_a_failure_is_not_fetched_again(
    zsg: Zsg, hub: Hub, tmp_path: Path
) -> None:
    """A data set appears whole or not at all; the next try fetches what is missing."""
    name, files = (
        f"org/sums@{NEW}:main/train",
        [path for path in FILES if "train" in path],
    )
    hub.lost = {files[1]}
    assert "answered 404; try again" in ask(zsg, tmp_path / "w", name)[-1]
    assert not list((tmp_path / "w").rglob("COMMIT"))
    hub.lost = set()

    made = Path(ask(zsg, tmp_path / "w", name)[-1])
    assert {path.name for path in made.iterdir()} == {
        "COMMIT",
        "meta.json",
        *(Path(file).name for file in files),
    }
    assert [
        sum(asked.startswith("GET") and file in asked for asked in hub.asked)
        for file in files
    ] == [1, 1]


def test_without_the_hubs_client_the_error_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A login node need not have it."""
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)

    with pytest.raises(UserError, match="pip install huggingface_hub"):
        hubs.Downloads(Workspace(tmp_path), True).folder(
            "data.path", DatasetName("org/sums", "main", None)
        )
