"""Says what one look at a run came to: it holds, it differs, or nobody could look, and why."""

from collections.abc import Callable
from dataclasses import dataclass

HOLDS, DIFFERS, NOT_CHECKED = "holds", "differs", "not checked"


class Differs(Exception):
    """Something is not what was recorded; the message says what, then and now."""


class NotChecked(Exception):
    """Something could not be looked at; the message says why, and what would help."""


@dataclass(frozen=True)
class Finding:
    """One line of what `zsg verify` found."""

    name: str
    verdict: str
    says: str


def run_check(name: str, at: Callable[[], str]) -> Finding:
    """What a look came to that returns what holds, or raises Differs or NotChecked."""
    try:
        return Finding(name, HOLDS, at())
    except Differs as found:
        return Finding(name, DIFFERS, str(found))
    except NotChecked as why:
        return Finding(name, NOT_CHECKED, str(why))
    except ModuleNotFoundError as lacking:
        return Finding(name, NOT_CHECKED, f"{lacking.name} is not installed here")
    except OSError as error:
        return Finding(name, NOT_CHECKED, f"{error.filename}: {error.strerror}")
