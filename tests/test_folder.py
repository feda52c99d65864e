"""Is a made thing that has lost files since told, and made again?"""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from jobs.contract import folder as folders
from jobs.contract import snapshots
from jobs.contract.folder import (
    COMMIT,
    find_damage,
    is_committed,
    is_whole,
    publish_folder,
    to_json,
)


def publish(folder: Path, text: str = "abc") -> Path:
    """A made thing of two files."""
    with publish_folder(folder) as draft:
        (draft / "ids").write_text(text)
        (draft / "inner").mkdir()
        (draft / "inner/vectors.npy").write_text("12")
    return folder


@pytest.mark.parametrize(
    ("name", "content", "damage"),
    [
        ("ids", None, "ids is missing"),
        ("inner/vectors.npy", None, "inner/vectors.npy is missing"),
        ("ids", b"", "ids has 0 bytes, 3 were written"),
        ("ids", b"abc\0", "ids has 4 bytes, 3 were written"),
    ],
)
def test_a_file_that_is_missing_or_cut_is_named_and_all_is_made_again(
    tmp_path: Path, name: str, content: bytes | None, damage: str, logged: list[str]
) -> None:
    """Whoever makes it again sets what is left of it aside, and says so."""
    folder = publish(tmp_path / "arrangements/a")
    assert is_whole(folder)
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)

    assert (find_damage(folder), is_whole(folder)) == (damage, False)
    assert is_committed(folder)
    publish(folder)
    assert is_whole(folder)
    assert logged == [f"{folder}: {damage}; it is made again"]


def test_a_thing_whose_marker_is_gone_is_made_again(tmp_path: Path) -> None:
    """What is left of it does not stand in the way of the new one."""
    folder = publish(tmp_path / "a")
    (folder / COMMIT).unlink()
    publish(folder, "new")

    assert is_whole(folder) and (folder / "ids").read_text() == "new"


def test_who_comes_second_changes_nothing(tmp_path: Path) -> None:
    """Two make the same at once: the first that ends counts."""
    folder = publish(tmp_path / "a", "one")
    publish(folder, "two")

    assert (folder / "ids").read_text() == "one"


def test_what_an_older_zsg_has_made_is_whole_with_its_marker(tmp_path: Path) -> None:
    """It listed no files; further files change nothing."""
    folder = publish(tmp_path / "a")
    (folder / "users").write_text("")
    assert is_whole(folder)
    (folder / COMMIT).write_text("")
    (folder / "ids").unlink()

    assert is_whole(folder)


def test_a_marker_that_cannot_be_read_is_damage(tmp_path: Path) -> None:
    """As every file that a disk has changed."""
    folder = publish(tmp_path / "a")
    (folder / COMMIT).write_bytes(b"\0" * 20)

    assert str(folder / COMMIT) in (find_damage(folder) or "")


@pytest.mark.parametrize(
    "value",
    [
        {},
        [],
        {"a": [], "b": {}, "c": [[1, -0.0, 1e-05, 1e22, 10**30], [None, True]]},
        ['"\\/\b\f\n\r\t\x00\x1f\x7f', "é \u2028 \U0001f600 {}[]:,"],
        {"half of a character \udc80": "\udc80 é"},
        "one text",
        7,
    ],
)
def test_json_on_many_lines_is_what_python_writes(value: Any) -> None:
    """To the byte: records and job.json are as they were, whoever indents them."""
    try:
        text = json.dumps(value, indent=1, ensure_ascii=False)
        text.encode()
    except UnicodeEncodeError:
        text = json.dumps(value, indent=1)

    assert to_json(value, indent=1) == text


def test_what_another_process_has_made_again_is_not_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two that find the same remnant one may be done before the other renames: what
    is whole by then stays, and a remnant that is gone already is no error."""
    folder = publish(tmp_path / "corpora/a")
    monkeypatch.setattr(folders, "find_damage", lambda path: "ids is missing")
    judged = [False, True]
    monkeypatch.setattr(folders, "is_whole", lambda path: judged.pop(0))
    folders._set_remnant_aside(folder)
    monkeypatch.undo()

    assert is_whole(folder) and [folder] == list(folder.parent.iterdir())
    assert not folders.set_aside(folder.with_name("b")).exists()


def test_whole_snapshots_are_looked_through_once_a_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An evaluator asks every few seconds. One that was damaged, or made anew, is looked
    at again."""
    for step in (3, 6):
        publish(tmp_path / f"snapshots/{step}")
    (tmp_path / "snapshots/6/ids").unlink()
    looked_at: list[str] = []

    def look(folder: Path) -> bool:
        looked_at.append(folder.name)
        return is_whole(folder)

    monkeypatch.setattr(snapshots, "is_whole", look)
    assert [snapshots.find_steps(tmp_path) for _ in range(3)] == [[3]] * 3
    assert looked_at == ["3", "6", "6", "6"]
    marker = tmp_path / "snapshots/3" / COMMIT
    os.utime(marker, ns=(1, 1))
    (tmp_path / "snapshots/3/ids").unlink()
    assert snapshots.find_steps(tmp_path) == []
    marker.unlink()
    assert snapshots.find_steps(tmp_path) == []


@pytest.mark.parametrize("looks_before", range(5))
def test_a_snapshot_that_is_removed_while_it_is_looked_at_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looks_before: int
) -> None:
    """Whichever look at its files comes first after it: an evaluator polls while the
    run that trains removes what is not kept."""
    folder = publish(tmp_path / "snapshots/8")
    looks: list[Path] = []
    look = Path.stat

    def remove_and_look(path: Path, **options: Any) -> os.stat_result:
        if path.parent == folder:
            looks.append(path)
        if len(looks) > looks_before and os.path.lexists(folder):
            folder.rename(tmp_path / "removed")
        return look(path, **options)

    monkeypatch.setattr(Path, "stat", remove_and_look)
    steps = snapshots.find_steps(tmp_path)
    is_removed_in_time = looks_before < len(looks)
    assert steps == ([] if is_removed_in_time else [8])

    looks.clear()
    if is_removed_in_time:
        (tmp_path / "removed").rename(folder)
    assert snapshots.find_damaged(tmp_path) == {}
