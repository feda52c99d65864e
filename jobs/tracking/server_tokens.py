"""Keeps the tokens of the user's own MLflow servers where the user's jobs find them,
and nobody else.

`zsg server` lets in who knows its token. While it runs, the token stands in
~/.zsg/mlflow/HOST:PORT, one file for every name by which a profile's `tracking.uri` may
call it, readable by its owner only; `zsg sync` and the jobs, whose home is the same on
most clusters, take it from there and send it to that address alone. Where nodes have
another home, a copy of that file there does the same. MLFLOW_TRACKING_TOKEN is for
servers behind https: it would go to whatever address a profile names, so over plain
http it is sent to this machine only.
"""

import contextlib
import os
import re
import stat
import uuid
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

from jobs.files.paths import find_home

MOST_BYTES = 1000
PLACE = re.compile(r"([\w.-]+|\[[\da-f:.]+\]):\d+", re.ASCII)


class Exposed(Exception):
    """A token, or a folder of tokens, that another user of the machine may read or has made."""


def locate_tokens() -> Path:
    """Where they lie. FileNotFoundError where the user has no home folder."""
    home = find_home()
    if home is None:
        raise FileNotFoundError("this user has no home folder; set HOME")
    return home / ".zsg" / "mlflow"


def publish_token(addresses: Iterable[str], token: str) -> list[Path]:
    """Writes the token of a server that answers at these HOST:PORT. Returns the files.
    Exposed, OSError."""
    _make_private(locate_tokens())
    return [
        write_private(locate_tokens() / address.lower(), token) for address in addresses
    ]


def withdraw_token(files: Iterable[Path], token: str) -> None:
    """Removes the files that still hold this token: a later server at the same address
    has another."""
    for file in files:
        with contextlib.suppress(OSError, Exposed):
            if read_private(file) == token:
                file.unlink()


def find_token(url: str) -> str | None:
    """The token of the server at this address, if it is one of the user's own that
    runs. Exposed."""
    split_url = urlsplit(url)
    address = split_url.netloc.lower()
    if split_url.scheme != "http" or PLACE.fullmatch(address) is None:
        return None
    try:
        _refuse_exposed(locate_tokens().parent)
        _refuse_exposed(locate_tokens())
        return read_private(locate_tokens() / address)
    except FileNotFoundError:
        return None


def write_private(path: Path, text: str) -> Path:
    """Writes a file that only its owner may read, in place of what was there; links are
    not followed."""
    draft = path.with_name(f".{uuid.uuid4().hex}")
    with os.fdopen(
        os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "w"
    ) as file:
        file.write(f"{text}\n")
    draft.replace(path)
    return path


def read_private(path: Path) -> str:
    """The text of such a file. FileNotFoundError where there is none; Exposed for one
    that others may read."""
    try:
        opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Exposed(
            f"{path} cannot be read as a plain file ({error.strerror}); remove it"
        ) from None
    try:
        status = os.fstat(opened)
        if (
            not stat.S_ISREG(status.st_mode)
            or status.st_uid != os.getuid()
            or status.st_mode & 0o077
        ):
            raise Exposed(
                f"{path} holds a token, but is not yours alone (mode 0600); remove it"
            )
        return os.read(opened, MOST_BYTES).decode("ascii", "replace").strip()
    finally:
        os.close(opened)


def _make_private(path: Path) -> None:
    for folder in (path.parent, path):
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        _refuse_exposed(folder)


def _refuse_exposed(path: Path) -> None:
    status = path.lstat()
    if (
        not stat.S_ISDIR(status.st_mode)
        or status.st_uid != os.getuid()
        or status.st_mode & 0o022
    ):
        raise Exposed(
            f"{path} is no folder that only you may write; tokens are neither kept there nor read"
            " from it"
        )
