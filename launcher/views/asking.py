"""Asks in a terminal whether to go on; a script that calls zsg has decided already."""

import sys
from collections.abc import Callable

import typer

from zsg_core.shown_text import make_showable


def can_ask(yes: bool) -> bool:
    """Whether somebody is there to answer, and `yes` was not said."""
    return sys.stdin.isatty() and sys.stderr.isatty() and not yes


def make_consent(yes: bool) -> Callable[[str], bool]:
    """A function that puts a question to the user, and always agrees where nobody is
    there or `yes` was said."""
    ask = can_ask(yes)
    return lambda question: (
        typer.confirm(make_showable(question), default=True, err=True) if ask else True
    )


def find_asker(yes: bool) -> Callable[[str], bool] | None:
    """What asks about something that nobody may decide for the user; None where nobody
    is there, or no questions are wanted."""
    return confirm_loss if can_ask(yes) else None


def confirm_loss(question: str) -> bool:
    """Asks about what cannot be undone; Enter alone is a no."""
    shown = make_showable(question)
    return typer.confirm(shown, default=False, err=True)
