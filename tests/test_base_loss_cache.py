"""Are the losses of the base computed once, and anew where they cannot be read?"""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from jobs.contract.folder import Damaged, publish_folder
from jobs.training.base_loss_cache import LOSSES, publish_losses, read_losses


def test_losses_that_cannot_be_read_are_made_anew(tmp_path: Path) -> None:
    """A file of the right size with other content is set aside by who finds it, so that
    what is computed again is kept for the next."""
    folder = tmp_path / "first_losses/a"
    losses = np.array([1.5, 2.5])
    publish_losses(folder, losses)
    path = folder / LOSSES
    path.write_bytes(b"\0" * path.stat().st_size)
    assert read_losses(folder) is None and not folder.exists()

    publish_losses(folder, losses)
    found = read_losses(folder)
    assert found is not None and found.tolist() == losses.tolist()


def forbid_renames_of(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """As the kernel does in a sticky folder, to all but whose a folder is."""
    rename = Path.rename

    def rename_or_refuse(path: Path, target: Path) -> Path:
        if path == folder:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(path))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", rename_or_refuse)


def test_losses_of_another_member_that_are_broken_end_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    """They cannot be replaced in a group's workspace: each run computes its own, and is
    told why, also where a file of them is missing."""
    folder = tmp_path / "first_losses/a"
    losses = np.array([1.5, 2.5])
    publish_losses(folder, losses)
    path = folder / LOSSES
    path.write_bytes(b"\0" * path.stat().st_size)
    forbid_renames_of(monkeypatch, folder)
    assert read_losses(folder) is None
    assert str(folder) in logged[-1] and "cannot be replaced" in logged[-1]
    publish_losses(folder, losses)

    path.unlink()
    assert read_losses(folder) is None
    publish_losses(folder, losses)
    assert "cannot be replaced" in logged[-1] and "are not kept" in logged[-1]
    assert [folder] == list(folder.parent.iterdir())


def test_losses_that_cannot_be_read_here_stay_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    """A right that lacks, or a file system that fails on one node, breaks nothing."""
    folder = tmp_path / "first_losses/a"
    losses = np.array([1.5, 2.5])
    publish_losses(folder, losses)

    def refuse(path: Path) -> None:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))

    with monkeypatch.context() as stale:
        stale.setattr(np, "load", refuse)
        assert read_losses(folder) is None
    with monkeypatch.context() as stale:
        stale.setattr(Path, "stat", refuse)
        assert read_losses(folder) is None
    assert [str(folder) in line for line in logged] == [True, True]
    kept = read_losses(folder)
    assert kept is not None and kept.tolist() == losses.tolist()


def test_a_remnant_of_another_member_is_named_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has lost a file and cannot be replaced is one error: which, why, what next."""
    folder = tmp_path / "corpora/a"
    with publish_folder(folder) as draft:
        (draft / "ids").write_text("1")
    (folder / "ids").unlink()
    forbid_renames_of(monkeypatch, folder)

    with pytest.raises(
        Damaged, match=r"ids is missing; .* cannot be replaced: .* rm -r"
    ):
        with publish_folder(folder) as draft:
            (draft / "ids").write_text("1")
