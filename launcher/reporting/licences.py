"""Finds under which licence a model or a data set is, by the files that lie beside it.

What a file says is passed on as it stands; nobody has judged it.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from jobs.contract.folder import list_paths
from launcher.reporting.bundle_record import BundledLicence
from zsg_core.shown_text import make_showable

UNKNOWN = "not known: no licence lies beside it"
CARD = "README.md"
# as repositories name the text of a licence
TEXTS = ("LICENSE*", "LICENCE*", "COPYING*", "NOTICE*", "*TERMS*")
PAGES = (".html", ".pdf")  # which are named, not quoted
MOST_READ = 1 << 16  # bytes of a file's head
LONGEST = 200  # characters of what is passed on

# before and after the head of a model's or a data set's card on the hub
MARK = "---"
_LICENCE = re.compile(r"^licen[sc]e(?:_name)?:[ \t]*(\S.*)$", re.M)


def describe_licences(kind: str, paths: Iterable[Path]) -> Iterator[BundledLicence]:
    """The licence of each model or data set, by its folder, each once. `kind`: model or
    data."""
    for path in dict.fromkeys(paths):
        folder = path if path.is_dir() else path.parent
        source, text = find_licence(folder)
        yield BundledLicence(kind=kind, name=path.name, licence=text, source=source)


def find_licence(folder: Path) -> tuple[str, str]:
    """The file of a folder that tells its licence, and what it tells; no file and
    UNKNOWN where none does."""
    card = _LICENCE.search(read_card_head(_read(folder / CARD)))
    if card:
        return CARD, _shorten(card[1])
    for path in _list_texts(folder):
        if path.suffix.lower() in PAGES:
            return path.name, "as this file says"
        lines = map(str.strip, _read(path).splitlines())
        first_line = next(filter(None, lines), "")
        if first_line:
            return path.name, _shorten(first_line)
    return "", UNKNOWN


def _list_texts(folder: Path) -> list[Path]:
    """The texts of licences in a folder, the likeliest first."""
    try:
        return [path for pattern in TEXTS for path in list_paths(folder, pattern)]
    except OSError:  # a folder that may not be read tells nothing
        return []


def read_card_head(card: str) -> str:
    """What stands between the first line, a mark, and the next mark; line by line, as a
    pattern may look from each blank line over all that follows."""
    lines = card.splitlines()
    if not lines or lines[0].rstrip() != MARK:
        return ""
    for number, line in enumerate(lines[1:], start=1):
        if line.rstrip() == MARK:
            return "\n".join(lines[1:number])
    return ""


def _read(path: Path) -> str:
    """The head of an ordinary file as text; nothing of any other."""
    try:
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            return file.read(MOST_READ).decode("utf-8", "replace")
    except OSError:
        return ""


def _shorten(text: str) -> str:
    return make_showable(text.strip().strip("\"'"), keep="")[:LONGEST]
