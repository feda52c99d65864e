"""Is no file outside of the folder of artifacts ever read, written or removed, whatever
leads there?"""

import os
import threading
import time
from pathlib import Path

import pytest

from jobs.tracking import artifact_folder
from jobs.tracking.artifact_folder import Entry, NotBelow


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of artifacts with a file, beside the private folder `home`; three links
    in it lead there."""
    root, home = tmp_path / "mlartifacts", tmp_path / "home"
    (root / "1").mkdir(parents=True)
    (root / "1" / "kept.txt").write_text("kept")
    home.mkdir()
    (home / "id_rsa").write_text("PRIVATE")
    (root / "1" / "folder").symlink_to(home)
    (root / "1" / "file").symlink_to(home / "id_rsa")
    (root / "1" / "gone").symlink_to(home / "new")
    return root


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file to be kept."""
    path = tmp_path / "source"
    path.write_text("sent")
    return path


def home_is_untouched(root: Path) -> bool:
    """Whether the private folder has what it had."""
    home = root.parent / "home"
    return [path.name for path in home.iterdir()] == ["id_rsa"] and (
        home / "id_rsa"
    ).read_text() == "PRIVATE"


@pytest.mark.parametrize(
    "path", ["1/file", "1/folder/id_rsa", "1/gone/x", "1/kept.txt/../../../home/id_rsa"]
)
def test_nothing_is_read_through_a_link(root: Path, tmp_path: Path, path: str) -> None:
    """Whether the file or a folder on the way is one; nor is anything written to where
    it was to be copied."""
    with pytest.raises((NotBelow, FileNotFoundError)):
        artifact_folder.read_file(
            root, artifact_folder.split_path(path), tmp_path / "copy"
        )
    assert not (tmp_path / "copy").exists()


def test_what_is_there_is_read_and_told(root: Path, tmp_path: Path) -> None:
    """Links are not told; a folder that is a link is none."""
    artifact_folder.read_file(root, ["1", "kept.txt"], tmp_path / "copy")

    assert (tmp_path / "copy").read_text() == "kept"
    assert artifact_folder.list_entries(root, []) == [Entry("1", True, None)]
    assert artifact_folder.list_entries(root, ["1"]) == [Entry("kept.txt", False, 4)]
    assert (
        artifact_folder.list_entries(root, ["2"])
        == artifact_folder.list_entries(root, ["1", "kept.txt"])
        == []
    )
    assert artifact_folder.is_folder(root, ["1"]) and not artifact_folder.is_folder(
        root, ["1", "folder"]
    )
    with pytest.raises(NotBelow, match="folder is a link, which is not followed"):
        artifact_folder.list_entries(root, ["1", "folder"])


def test_nothing_is_written_through_a_link(root: Path, source: Path) -> None:
    """A file takes the place of a link of its name; below a link nothing is made."""
    for parts in (
        ["1", "folder", "id_rsa"],
        ["1", "folder", "new", "x"],
        ["1", "gone", "x"],
    ):
        with pytest.raises(NotBelow):
            artifact_folder.write_file(root, parts, source)
    for name in ("file", "gone"):
        artifact_folder.write_file(root, ["1", name], source)

    assert home_is_untouched(root)
    assert (root / "1/file").read_text() == "sent" and not (
        root / "1/file"
    ).is_symlink()
    assert sorted(path.name for path in (root / "1").iterdir()) == [
        "file",
        "folder",
        "gone",
        "kept.txt",
    ]


def test_what_is_written_is_the_owners_alone(root: Path, source: Path) -> None:
    """In private folders, made where they lack; in place of what was there."""
    artifact_folder.write_file(root, ["2", "a", "kept.txt"], source)
    artifact_folder.write_file(root, ["1", "kept.txt"], source)

    assert [
        (root / path).stat().st_mode & 0o777 for path in ("2", "2/a", "2/a/kept.txt")
    ] == [
        0o700,
        0o700,
        0o600,
    ]
    assert (root / "1/kept.txt").read_text() == "sent"


def test_nothing_is_removed_through_a_link(root: Path) -> None:
    """A link itself is; what it leads to stays, and so does the folder of artifacts."""
    with pytest.raises(NotBelow):
        artifact_folder.delete_entry(root, ["1", "folder", "id_rsa"])
    with pytest.raises(NotBelow):
        artifact_folder.delete_entry(root, [])
    artifact_folder.delete_entry(root, ["1", "file"])
    artifact_folder.delete_entry(root, ["none", "x"])
    artifact_folder.delete_entry(root, ["1"])

    assert home_is_untouched(root) and list(root.iterdir()) == []


def test_a_folder_of_artifacts_that_is_a_link_is_refused(
    root: Path, source: Path
) -> None:
    """It would be any folder of the user's."""
    linked = root.with_name("linked")
    linked.symlink_to(root.parent / "home")
    for do in (
        lambda: artifact_folder.list_entries(linked, []),
        lambda: artifact_folder.read_file(linked, ["id_rsa"], root / "copy"),
        lambda: artifact_folder.write_file(linked, ["id_rsa"], source),
        lambda: artifact_folder.delete_entry(linked, ["id_rsa"]),
    ):
        with pytest.raises(NotBelow, match="is a link"):
            do()
    assert home_is_untouched(root)


def test_what_is_no_plain_file_is_not_read(root: Path, tmp_path: Path) -> None:
    """A pipe would be waited for; a folder is none."""
    os.mkfifo(root / "pipe")
    with pytest.raises(NotBelow, match="pipe is no plain file"):
        artifact_folder.read_file(root, ["pipe"], tmp_path / "copy")
    with pytest.raises((NotBelow, IsADirectoryError)):
        artifact_folder.read_file(root, ["1"], tmp_path / "copy")


@pytest.mark.parametrize("path", ["/etc/passwd", "..", "a/../../b", "a\0b", "/"])
def test_paths_that_lead_out_are_refused(path: str) -> None:
    """Before anything is opened."""
    with pytest.raises(NotBelow, match="leads out"):
        artifact_folder.split_path(path)


def test_which_addresses_are_below(root: Path) -> None:
    """The folder, and what lies in it, also where the way to the workspace has a link;
    no sibling, nothing with ..."""
    way = root.parent / "way"
    way.symlink_to(root.parent)

    assert artifact_folder.split_below(root, str(root)) == []
    assert artifact_folder.split_below(root, f"{root}/1/a") == ["1", "a"]
    assert artifact_folder.split_below(way / "mlartifacts", f"{root}/1") == ["1"]
    for path in (
        f"{root}2/x",
        f"{root}/../home",
        str(root.parent),
        "/",
        "1/a",
        "",
        f"{root}/1/../../home",
    ):
        with pytest.raises(NotBelow):
            artifact_folder.split_below(root, path)


def test_a_folder_that_is_swapped_for_a_link_meanwhile_is_not_followed(
    root: Path, tmp_path: Path
) -> None:
    """While another process swaps a folder and a link to a private one, no read ever
    has the private file."""
    (root / "now").mkdir()
    (root / "now" / "id_rsa").write_text("own")
    (root / "link").symlink_to(root.parent / "home")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for one, other in (
                ("now", "then"),
                ("link", "now"),
                ("now", "link"),
                ("then", "now"),
            ):
                (root / one).rename(root / other)

    swapping = threading.Thread(target=swap)
    swapping.start()
    read = set()
    try:
        # as long as it takes until both were met: on a busy machine one of the two
        # threads may run alone for long
        until = time.monotonic() + 120
        number = 0
        while number < 1500 or (
            {"own", "NotBelow"} - read and time.monotonic() < until
        ):
            number += 1
            try:
                artifact_folder.read_file(root, ["now", "id_rsa"], tmp_path / "copy")
                read.add((tmp_path / "copy").read_text())
            except (NotBelow, OSError) as error:
                read.add(type(error).__name__)
    finally:
        stop.set()
        swapping.join()

    assert {"own", "NotBelow"} <= read
    assert "PRIVATE" not in read
