"""Shows what a grid or a profile may say under a key, in 80 columns."""

import textwrap
from collections.abc import Sequence

from launcher.grids.key_reference import KeyEntry
from zsg_core.shown_text import make_showable

WIDTH = 80
INDENT = "  "


def key_lines(entries: Sequence[KeyEntry]) -> list[str]:
    """The lines about a key and those within it; a blank line between keys."""
    lines: list[str] = []
    for entry in entries:
        if lines:
            lines.append("")
        lines.append(make_showable(entry.path, keep=""))
        lines += _wrap(entry.description)
        for label, words in _facts(entry):
            lines += _wrap(words, f"{label + ':':9}")
    return lines


def _facts(entry: KeyEntry) -> list[tuple[str, str]]:
    facts = [("values", entry.allowed.replace("`", ""))]
    if entry.must_be_set:
        facts.append(("default", "none: it must be set"))
    elif entry.default:
        facts.append(("default", entry.default))
    if entry.run_id:
        facts.append(("run id", entry.run_id))
    return facts


def _wrap(text: str, label: str = "") -> list[str]:
    return textwrap.wrap(
        make_showable(text, keep=""),
        WIDTH,
        initial_indent=INDENT + label,
        subsequent_indent=INDENT + " " * len(label),
        break_on_hyphens=False,
    )
