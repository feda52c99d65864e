"""Reads `--set key=value`: settings of the command line that are laid over a grid's defaults."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from launcher.workspace import yaml_file
from launcher.workspace.yaml_file import Place
from zsg_core.errors import UserError
from zsg_core.schema_errors import describe_unknown_key, list_leaf_keys
from zsg_core.secrets import hide_in_addresses
from zsg_core.settings.run import Settings
from zsg_core.shown_text import make_showable

EXAMPLE = "write key=value, such as --set train.lr=1e-4"
ELSEWHERE = {
    "profile": "use --profile NAME",
    "name": "change it in the file",
    "workspace": "use --workspace FOLDER",
}


@dataclass(frozen=True)
class Override:
    """One `--set`, as it was written and as it is read."""

    text: str
    key: str
    value: Any

    def error(self, _: Place, message: str, /) -> UserError:
        """An error that names the option, where one of a grid names file and line."""
        return _error(self.text, message)


def parse_overrides(texts: Sequence[str]) -> list[Override]:
    """Each `key=value` with its value as YAML 1.2: a scalar, [a, list] or {a: mapping}.
    UserError for others."""
    return [parse_override(text) for text in texts]


def parse_override(text: str) -> Override:
    """One `key=value`. UserError for what is none."""
    key, equals, written = text.partition("=")
    if not text.isprintable():
        raise _error(text, "holds a line break or another character that does not show")
    if not equals or not key:
        raise _error(text, EXAMPLE)
    if key in ELSEWHERE:
        raise _error(text, f"`{key}` is no setting; {ELSEWHERE[key]}")
    valid_keys = list_leaf_keys(Settings, key)
    if key not in valid_keys:
        raise _error(text, describe_unknown_key(key, valid_keys))
    return Override(text, key, _value(text, written.strip()))


def _value(text: str, written: str) -> Any:
    value, _ = yaml_file.parse_yaml(written, lambda _, message: _error(text, message))
    if isinstance(value, dict | list) and written[0] not in "[{":
        raise _error(
            text,
            "write a mapping as {key: value}, a list as [a, b], and quote a text with ': ' in it",
        )
    if isinstance(value, str) and " #" in written and written[0] not in "'\"":
        raise _error(text, "' #' begins a comment in YAML; quote the value")
    return cast("Any", value)


def _error(text: str, message: str) -> UserError:
    """A fault of one --set, whose text is cut, hidden where it is a password within an
    address, and shown without control characters: it came from a command line and may
    be anything."""
    text = hide_in_addresses(text)
    excerpt = text if len(text) <= 100 else f"{text[:60]}… ({len(text):,} characters)"
    return UserError(f"--set {make_showable(excerpt, keep='')}: {message}")
