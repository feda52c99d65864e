"""Makes paths absolute as they were typed, and lists what the system passes on the way
to one.

A link may lead elsewhere on another machine: a home that is a link on the login node and
another one on the nodes is the same folder by its name alone. So links are kept in what
is written down, and followed where a file is opened or two paths are compared.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from zsg_core.errors import UserError

MOST_LINKS = 40  # on one way; the system follows no more


def get_current_folder() -> Path:
    """The current folder by the name that the shell has for it: the system's own has no
    links in it."""
    typed = os.environ.get("PWD", "")
    is_plain = typed.startswith("/") and os.path.normpath(typed) == typed
    try:
        if is_plain and os.path.samefile(typed, "."):  # noqa: PTH121  Path drops none of it
            return Path(typed)
    except (OSError, ValueError):
        pass
    return Path.cwd()


def find_home() -> Path | None:
    """The user's home folder; None where HOME is not set and nobody knows the user, as
    in a container."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def expand_home(path: Path) -> Path:
    """A path whose `~` or `~NAME` is that home. UserError where there is none."""
    try:
        return path.expanduser()
    except RuntimeError:
        raise UserError(
            f"{path}: no home folder is known for {path.parts[0]}; write the whole path, or set"
            " HOME"
        ) from None


def make_absolute(path: Path) -> Path:
    """A path from the root on, its links as they are; `..` is taken out.

    Behind a link `..` leads out of the link's target, not back: then the links before it
    are followed. OSError and RuntimeError as from Path.resolve.
    """
    whole = path if path.is_absolute() else get_current_folder() / path
    if ".." not in whole.parts:
        return whole
    plain = Path(os.path.normpath(whole))
    target = whole.resolve()
    return plain if plain.resolve() == target else target


def list_passed(path: Path) -> Iterator[Path]:
    """The folders and links that the system passes on the way to an absolute path, from
    the root on, and its target last; as far as they are there."""
    at, names = Path(path.anchor), list(path.parts[1:])
    links = 0
    yield at
    while names:
        name = names.pop(0)
        if name == "..":
            at = at.parent
            continue
        step = at / name
        yield step
        if not step.is_symlink():
            at = step
            continue
        links += 1
        if links > MOST_LINKS:
            return
        target = step.readlink()
        if target.is_absolute():
            at = Path(target.anchor)
            yield at
        names = [*target.relative_to(target.anchor).parts, *names]
