"""Reads the errors of MLflow: which may pass in a moment, and what to do about those
that will not. Pure.

MLflow says much with one code: a server without free connections to its database
answers 400, as for a wrong request, and a full disk is an internal error. So the texts
decide too.
"""

import re
import shlex

from zsg_core import secrets
from zsg_core.shown_text import make_showable

TRANSIENT_STATUS = (408, 429)  # and all from 500 on
# Two requests at once make the same row: a data set, a parameter, a point. sqlite's
# words, PostgreSQL's and MySQL's.
THERE_ALREADY = (
    "UNIQUE constraint failed",
    "duplicate key value violates unique constraint",
    "Duplicate entry",
)
# which come as 400
TRANSIENT_TEXT = ("QueuePool limit", "database is locked", *THERE_ALREADY)
LOGIN = (
    "check what lets you in: of a zsg server its token, in ~/.zsg/mlflow of this machine (zsg"
    " server says how); of others the name and the password, MLFLOW_TRACKING_USERNAME and"
    " MLFLOW_TRACKING_PASSWORD, or for nodes too the file ~/.mlflow/credentials"
)
ROOM, RIGHTS = "make room on its disk", "its file or folder may not be written"
# By a part of the text what a person has to do, whatever the status; the first that is
# found counts.
ADVICE = {
    "out-of-date database schema": (
        "another MLflow made this database. If an older one: back it up, then `mlflow db "
        "upgrade {database}`; if a newer one: install that"
    ),
    "database or disk is full": ROOM,
    "No space left on device": ROOM,
    "Disk quota exceeded": ROOM,
    "disk I/O error": "its disk is full, or broken",
    "attempt to write a readonly database": RIGHTS,
    "unable to open database file": RIGHTS,
    "error code 401": LOGIN,
    "error code 403": LOGIN,
}
OLDEST = (3, 0)  # models of snapshots, which MLflow's pages rank, came with it
MOST_SHOWN = 500


def may_pass(status: int, text: str) -> bool:
    """Whether the same request may succeed in a moment: an overloaded server, a locked database."""
    is_busy = (
        status >= 500
        or status in TRANSIENT_STATUS
        or any(known_text in text for known_text in TRANSIENT_TEXT)
    )
    return is_busy and not advise_on_error(text)


def is_there_already(text: str) -> bool:
    """Whether a row was to be made that is there already: by another request a moment
    ago, or by this one."""
    return any(known_text in text for known_text in THERE_ALREADY)


def advise_on_error(text: str, address: str = "") -> str:
    """What a person can do about an error that will not pass, to end a message with;
    nothing where none is known.

    `address`: the address of the MLflow that said it, without a password.
    """
    found_advice = [
        advice for known_text, advice in ADVICE.items() if known_text in text
    ]
    advice = f": {found_advice[0]}" if found_advice else ""
    return advice.replace("{database}", _database(address))


def bring_back(address: str, experiment: str) -> str:
    """The commands that bring a deleted experiment back, or free its name; each names
    the store, as MLflow needs it."""
    command = f"MLFLOW_TRACKING_URI={shlex.quote(address)} mlflow"
    store = f"--backend-store-uri {_database(address)}"
    free_name = f"`{command} gc {store} --experiment-ids {experiment}`"
    if address.startswith("http"):
        free_name = (
            f"where its server runs, {free_name} with the address of its database,"
        )
    return (
        f"`{command} experiments restore -x {experiment}`, or {free_name} to begin anew"
    )


def _database(address: str) -> str:
    return "DATABASE" if address.startswith("http") else shlex.quote(address)


def shorten_error(text: str) -> str:
    """An error's text as people may see it: short, on one line, no password of an
    address and no token in it."""
    message = secrets.hide_known(text.partition("\n[SQL:")[0][: 10 * MOST_SHOWN])
    return make_showable(" ".join(message.split())[:MOST_SHOWN])


def without_password(text: str) -> str:
    """A text whose addresses name neither user nor password."""
    return secrets.hide_in_addresses(text)


def is_too_old(version: str) -> bool:
    """Whether a server of this version lacks what zsg asks of it; of one that tells
    none nothing is known."""
    match = re.match(r"(\d+)\.(\d+)", version)
    return bool(match) and (int(match[1]), int(match[2])) < OLDEST
