"""Reads the user's own settings, which hold for every profile that does not say
otherwise: `~/.zsg/settings.yaml`."""

from pathlib import Path

from jobs.files import ownership, paths
from launcher.workspace import yaml_file
from launcher.workspace.yaml_file import Document
from zsg_core.errors import UserError

FILE = (".zsg", "settings.yaml")


def read_user_settings() -> Document | None:
    """The file with the user's settings; None without one.

    UserError for one that others may write, as it names programs, or that is no YAML
    mapping.
    """
    home = paths.find_home()
    if home is None:
        return None
    path = home.joinpath(*FILE)
    if not path.is_file():
        return None
    _refuse_foreign(path)
    document = yaml_file.load_document(path)
    if not isinstance(document.value, dict):
        raise document.error((), "settings are a mapping, such as notify: […]")
    return document


def _refuse_foreign(path: Path) -> None:
    """UserError where others may have written a file of settings."""
    for part in (path.parent, path):
        fault = ownership.find_fault(part)
        if fault is not None:
            mend = fault.mend or f"remove {path}"
            raise UserError(f"{fault}, and its programs would run as yours: {mend}")
