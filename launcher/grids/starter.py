"""Writes what a new user starts from: a commented grid, a cluster profile, their
schemas, a small data set."""

import contextlib
import json
import os
import re
import shutil
import uuid
from pathlib import Path

from jobs.files.paths import make_absolute
from launcher.grids import chat_template, json_schema
from launcher.workspace.shipped import find_shipped
from launcher.workspace.yaml_file import format_path
from zsg_core import skills
from zsg_core.errors import ClusterError, UserError

PER_TASK = 40
# Each is there whole or not at all; none may be there before.
PARTS = ("grid.yaml", "cluster_profiles/my-cluster.yaml", "schema", "tasks")


def write_starter(folder: Path, model: Path | None = None) -> list[str]:
    """Writes the starter into a folder, new or not; returns what was made. Its runs are
    of the tiny model, or of the one in the folder `model`, by its own chat template
    where it has one.

    UserError names what is there already: nothing is overwritten, and nothing is written then.
    """
    _refuse_taken(folder)
    is_new = not folder.exists()
    draft = folder / f".zsg-init.{uuid.uuid4().hex[:8]}"
    try:
        for name, text in _files(model).items():
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


def _files(model: Path | None) -> dict[str, str]:
    """Every file of the starter as relative path -> text."""
    templates = find_shipped("templates") / "starter"
    files = {
        name: (templates / name).read_text(encoding="utf-8")
        for name in PARTS
        if name.endswith(".yaml")
    }
    if model is not None:
        files["grid.yaml"] = _name_model(files["grid.yaml"], model)
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


def _name_model(grid: str, model: Path) -> str:
    """The grid with a model in place of the tiny one, at a rate that pretrained weights
    bear; and with its chat template, where it has one. UserError for no model's folder."""
    if not (model / "config.json").is_file():
        raise UserError(
            f"{format_path(model)}: no model's folder: it holds no config.json; give a local"
            " Hugging Face folder"
        )
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", model.resolve().name).strip("-._") or "base"
    if name == "tiny":
        name = "tiny-base"  # `tiny` is the model that zsg makes, which has no path
    path = json.dumps(str(make_absolute(model)), ensure_ascii=False)
    changes = {
        r"two runs of a tiny model, a minute or two on a laptop": f"two runs of {name}",
        r"(?m)^    name: tiny .*$": f"    name: {_write_name(name)}",
        r"(?m)^    # path: models/.*$": f"    path: {path}",
        r"(?m)^    lr: 2e-3 .*$": "    lr: 1e-5                     # peak learning rate",
    }
    if chat_template.has_template(model):
        changes[r"(?m)^    path: tasks .*$"] = (
            r"\g<0>\n    template: chat               # written by the model's own chat template"
        )
    for pattern, text in changes.items():
        grid = re.sub(pattern, text if "\\g" in text else _as_literal(text), grid)
    return grid


def _write_name(name: str) -> str:
    """A name as YAML reads it back: in quotes if it begins like a number or a date, or
    is a word that YAML takes for no text."""
    begins_as_number = re.match(r"[0-9.]", name) is not None
    is_word = name.lower() in ("null", "true", "false", "yes", "no", "on", "off")
    return json.dumps(name) if begins_as_number or is_word else name


def _as_literal(text: str) -> str:
    """A text as what `re.sub` puts in place, whatever backslashes it has."""
    return text.replace("\\", "\\\\")
