"""Writes what a new user starts from: a commented grid, a cluster profile, their
schemas, a small data set."""

import contextlib
import json
import os
import shutil
import uuid
from pathlib import Path

from launcher.grids import json_schema
from launcher.workspace.shipped import find_shipped
from launcher.workspace.yaml_file import format_path
from zsg_core import skills
from zsg_core.errors import ClusterError, UserError

PER_TASK = 40
# Each is there whole or not at all; none may be there before.
PARTS = ("grid.yaml", "cluster_profiles/my-cluster.yaml", "schema", "tasks")


def write_starter(folder: Path) -> list[str]:
    """Writes the starter into a folder, new or not; returns what was made.

    UserError names what is there already: nothing is overwritten, and nothing is written then.
    """
    _refuse_taken(folder)
    is_new = not folder.exists()
    draft = folder / f".zsg-init.{uuid.uuid4().hex[:8]}"
    try:
        for name, text in _files().items():
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            (draft / name).write_text(text, encoding="utf-8", newline="\n")
        _publish(draft, folder)
    except OSError as error:
        raise ClusterError(
            f"{format_path(folder)}: nothing was written: {error.strerror}; choose another folder"
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        if is_new:
            with contextlib.suppress(OSError):  # what is not empty stays
                folder.rmdir()
    return list(PARTS)


def _refuse_taken(folder: Path) -> None:
    try:
        if not folder.is_dir() and (folder.exists() or folder.is_symlink()):
            raise UserError(
                f"{format_path(folder)}: is no folder;"
                " zsg init writes into a new or an existing one"
            )
        taken = [name for name in PARTS if os.path.lexists(folder / name)]
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(
            f"{format_path(folder)}: cannot be a folder: {reason}"
        ) from error
    if taken:
        raise UserError(
            f"{format_path(folder / taken[0])} is there already and stays as it is;"
            " zsg init in another"
            " folder"
        )


def _publish(draft: Path, folder: Path) -> None:
    """Moves the parts to their places, all or none."""
    moved: list[Path] = []
    try:
        for name in PARTS:
            (folder / name).parent.mkdir(exist_ok=True)
            moved.append((draft / name).rename(folder / name))
    except OSError:
        for path in moved:
            path.rename(draft / path.relative_to(folder))
        raise


def _files() -> dict[str, str]:
    """Every file of the starter as relative path -> text."""
    templates = find_shipped("templates") / "starter"
    files = {
        name: (templates / name).read_text(encoding="utf-8")
        for name in PARTS
        if name.endswith(".yaml")
    }
    for name, schema in (
        ("grid", json_schema.make_grid_schema()),
        ("profile", json_schema.make_profile_schema()),
    ):
        files[f"schema/{name}.json"] = (
            json.dumps(schema, ensure_ascii=False, indent=1) + "\n"
        )
    return files | {
        f"tasks/{name}": text
        for name, text in skills.make_task_files(PER_TASK, seed=0).items()
    }
