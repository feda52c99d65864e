"""Reads the errors of MLflow: which may pass in a moment, and what to do about those
that will not. Pure.

MLflow says much with one code: a server without free connections to its database
answers 400, as for a wrong request, and a full disk is an internal error. So the texts
decide too.
"""

import re
import shlex
from urllib.parse import SplitResult, urljoin, urlsplit

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
NAMES = (
    "its server does not take this name for its own. Start it with --allowed-hosts {names}, or"
    " as zsg server, which allows the names of its machine; or use an address that it allows"
)
# A page for people where an answer of MLflow's is due. One that comes with 500 or more is
# of a server that is busy.
_PAGE = re.compile(
    r"(?:not in a valid JSON format|error code 405 != \d+)\. Response body: '\s*<"
)
_NO_SUCH_PAGE = re.compile(r"error code 404 != \d+\. Response body: '\s*<")
_BODY_OF_PAGE = re.compile(r"Response body: '\s*<.*", re.DOTALL)
LOGIN_PAGE = (
    "a web page answers in MLflow's place: what stands before it sends programs to a login that is"
    " made for browsers, or the address is another server's. Name an address that programs"
    " reach, or put the token that it takes from them into MLFLOW_TRACKING_TOKEN"
)
BY_SERVER = (
    "let MLflow's server pass them on (--serve-artifacts and --artifacts-destination, as zsg server"
    " does)"
)
NOT_THERE = (
    "no MLflow answers there: check the host, the port and the path of its address (with its"
    " --static-prefix, where it has one)"
)
# models of snapshots, which MLflow's pages rank, came with it
OLDEST = (3, 0)
OLDEST_TEXT = ".".join(map(str, OLDEST))
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
    "Invalid Host header": NAMES,
    # of zsg server
    "is not called by that name": "start it with --allow and the name in the address",
    "error code 401": LOGIN,
    "error code 403": LOGIN,
    "CERTIFICATE_VERIFY_FAILED": (
        "this machine does not trust its certificate: name the file of the authority that signed"
        " it by MLFLOW_TRACKING_SERVER_CERT_PATH"
    ),
    "WRONG_VERSION_NUMBER": "it speaks plain http there, not https: check tracking.uri",
}
MOST_SHOWN = 500


def may_pass(status: int, text: str) -> bool:
    """Whether the same request may succeed in a moment: an overloaded server, a locked database."""
    is_busy = (
        status >= 500
        or status in TRANSIENT_STATUS
        or any(known_text in text for known_text in TRANSIENT_TEXT)
    )
    return is_busy and not advise_on_error(text)


class NotSeen(Exception):
    """A file was written to a folder of this machine, and the server does not see it."""

    def __str__(self) -> str:
        return "its server does not see there what this machine writes"


def explain_not_kept(location: str, error: Exception, is_server: bool) -> str:
    """Why files cannot be kept where a run's artifacts are to be, and what to do;
    `is_server`: a server named the place."""
    root = shorten_error(location.removesuffix("/artifacts").rpartition("/")[0])
    why = shorten_error(str(error)) or type(error).__name__
    is_folder = urlsplit(location).scheme in ("", "file")
    if isinstance(error, ModuleNotFoundError):
        advice = f"install {error.name} where zsg runs, or {BY_SERVER}"
    elif is_server and is_folder:
        advice = f"where that is a folder of the server's machine, {BY_SERVER}"
    elif is_server:
        advice = f"give zsg what it takes to write there, or {BY_SERVER}"
    else:
        advice = "see that it may be written, and that there is room"
    return f"artifacts cannot be kept in {root} ({why}): {advice}"


def is_there_already(text: str) -> bool:
    """Whether a row was to be made that is there already: by another request a moment
    ago, or by this one."""
    return any(known_text in text for known_text in THERE_ALREADY)


def advise_on_error(text: str, address: str = "") -> str:
    """What a person can do about an error that will not pass, to end a message with;
    nothing where none is known.

    `address`: the address of the MLflow that said it, without a password.
    """
    advice = next(
        (advice for known_text, advice in ADVICE.items() if known_text in text),
        _advise_on_page(text),
    )
    advice = advice.replace("{database}", _database(address))
    advice = advice.replace("{names}", _allowed_hosts(address))
    return f": {advice}" if advice else ""


def _advise_on_page(text: str) -> str:
    """What to do about a page for people that came in place of MLflow's answer; nothing
    for what is none."""
    if is_page(text):
        return LOGIN_PAGE
    if not _NO_SUCH_PAGE.search(text):
        return ""
    if "/logged-models" in text:
        return f"it is older than MLflow {OLDEST_TEXT}, which zsg needs"
    return NOT_THERE


def is_page(text: str) -> bool:
    """Whether an error tells that a page for people came in place of MLflow's answer."""
    return _PAGE.search(text) is not None


def describe_redirect(address: str, location: str) -> str:
    """Where a server sends on who asks it for MLflow, to end a message with; `location`
    is its answer's header."""
    source, target = _split(address), _split(urljoin(address, location))
    if source is None or target is None:
        return ""
    is_same_host = source.hostname == target.hostname
    if is_same_host and (source.scheme, target.scheme) == ("http", "https"):
        base = f"https://{target.netloc}{source.path.rstrip('/')}"
        return f"; it sends on to {shorten_error(base)}: name that as tracking.uri"
    page = f"{target.scheme}://{target.netloc}{target.path}"
    return f"; it sends on to {shorten_error(page)}"


def _split(address: str) -> SplitResult | None:
    try:
        return urlsplit(address)
    except ValueError:
        return None


def bring_back(address: str, experiment: str, is_own_server: bool = False) -> str:
    """The commands that bring a deleted experiment back, or free its name; each names
    the store, as MLflow needs it, and of the user's own server the token."""
    login = ""
    if is_own_server:
        token_file = shlex.quote(urlsplit(address).netloc.lower())
        login = f'MLFLOW_TRACKING_TOKEN="$(cat ~/.zsg/mlflow/{token_file})" '
    command = f"{login}MLFLOW_TRACKING_URI={shlex.quote(address)} mlflow"
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


def _allowed_hosts(address: str) -> str:
    """The names for MLflow's --allowed-hosts, which takes a star for a pattern and
    forgets its defaults: this machine's and the address's."""
    split_url = _split(address)
    host = (split_url.hostname if split_url else None) or "NAME"
    name = f"[{host}]" if ":" in host else host
    names = ("localhost", "localhost:*", name, f"{name.replace('[', '[[]')}:*")
    return shlex.quote(",".join(names))


def shorten_error(text: str) -> str:
    """An error's text as people may see it: short, on one line, no password of an
    address and no token in it, and of a page for people that it is one."""
    text = _BODY_OF_PAGE.sub("a web page", text.partition("\n[SQL:")[0])
    message = secrets.hide_known(text[: 10 * MOST_SHOWN])
    return make_showable(" ".join(message.split())[:MOST_SHOWN])


def without_password(text: str) -> str:
    """A text whose addresses name neither user nor password."""
    return secrets.hide_in_addresses(text)


def is_too_old(version: str) -> bool:
    """Whether a server of this version lacks what zsg asks of it; of one that tells
    none nothing is known."""
    match = re.match(r"(\d+)\.(\d+)", version)
    return bool(match) and (int(match[1]), int(match[2])) < OLDEST
