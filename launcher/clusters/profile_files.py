"""Finds the files of a profile, and lays each over the one it inherits from."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from launcher.workspace import yaml_file
from launcher.workspace.shipped import find_shipped
from launcher.workspace.yaml_file import Document, Place
from zsg_core.errors import UserError
from zsg_core.schema_errors import format_brief, suggest_nearest

INHERITS = "inherits"
LONGEST_NAME = 64


@dataclass(frozen=True)
class Layers:
    """A profile's files, the asked-for one first and each followed by its parent, and
    their values laid together."""

    documents: tuple[Document, ...]
    value: dict[str, Any]

    @property
    def files(self) -> list[Path]:
        """Where the values come from; the first file's count most."""
        return [document.path for document in self.documents]

    def error(self, place: Place, message: str) -> UserError:
        """An error that names file and line of a place: of the uppermost file in which
        it stands."""
        while place and not any(place in document.lines for document in self.documents):
            place = place[:-1]
        for document in self.documents:
            if place in document.lines:
                return document.error(place, message)
        return self.documents[0].error(place, message)


def read_layers(name: str, beside: Path) -> Layers:
    """The layers of a profile's name, or of a path that ends in .yaml.

    Names are looked for in cluster_profiles/ beside the grid, then in the current
    folder, then among the shipped ones; those of a parent first beside the file that
    inherits, from where its paths are taken too. Raises UserError for what is not
    found, is no mapping, or inherits from itself.
    """
    folders = [
        beside / "cluster_profiles",
        Path("cluster_profiles"),
        find_shipped("cluster_profiles"),
    ]
    documents = [_load(_find(name, folders))]
    while documents[-1].value.get(INHERITS) is not None:
        parent = _parent(documents[-1], folders)
        chain = [document.path for document in documents]
        if parent.resolve() in [path.resolve() for path in chain]:
            heritage = " inherits ".join(str(path) for path in [*chain, parent])
            raise documents[-1].error(
                (INHERITS,), f"a profile cannot inherit from itself: {heritage}"
            )
        documents.append(_load(parent))
    value: dict[str, Any] = {}
    for document in reversed(documents):
        # a file that says who it is must not pass for its parent
        value.pop("name", None)
        value = lay_over(value, document.value)
    return Layers(tuple(documents), value)


def lay_over(parent: Mapping[str, Any], child: Mapping[str, Any]) -> dict[str, Any]:
    """The child's values over the parent's: mappings key by key, everything else (lists
    too) replaced whole."""
    merged = dict(parent)
    for key, value in child.items():
        below = merged.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            value = lay_over(
                cast("Mapping[str, Any]", below), cast("Mapping[str, Any]", value)
            )
        merged[key] = value
    return merged


def _load(path: Path) -> Document:
    document = yaml_file.load_document(path)
    if not isinstance(document.value, dict):
        raise document.error(
            (), "a profile is a mapping; see cluster_profiles/README.md"
        )
    return document


def _parent(document: Document, folders: list[Path]) -> Path:
    """The file that a profile inherits from: a path relative to its own folder, or a
    name that is looked for there and then in `folders`. Raises UserError, with the line
    of the key, where it is no text or there is no such profile."""
    name, folder = document.value[INHERITS], document.path.parent
    if not isinstance(name, str):
        raise document.error(
            (INHERITS,),
            f"inherits: a profile's name or the path of a .yaml file, found {name!r}",
        )
    if _is_path(name) and not (folder / name).is_file():
        raise document.error((INHERITS,), f"inherits: there is no file {folder / name}")
    try:
        return folder / name if _is_path(name) else _find(name, [folder, *folders])
    except UserError as error:
        raise document.error((INHERITS,), f"inherits: {error}") from None


def _find(name: str, folders: list[Path]) -> Path:
    if _is_path(name):
        return Path(name)
    if "/" not in name and len(name) <= LONGEST_NAME:
        for folder in folders:
            if (folder / f"{name}.yaml").is_file():
                return folder / f"{name}.yaml"
    known = sorted(
        {
            path.stem
            for folder in folders
            if folder.is_dir()
            for path in folder.glob("*.yaml")
        }
    )
    hint = suggest_nearest(name, known)
    raise UserError(
        f"profile {format_brief(name)} not found.{hint} Known: {', '.join(known)}; or give the path"
        " of a .yaml file"
    )


def _is_path(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))
