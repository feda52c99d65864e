"""Owns what is secret: which variables hold keys, what a key may look like, and how
none is ever shown or kept.

A server may send back what it was sent, whole or in part, escaped or encoded; an error
of a library may quote a header. So every text that comes from outside passes `hide_secrets` or
`hide_known` before it is kept or told.
"""

import base64
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from urllib.parse import urlsplit

from zsg_core.errors import UserError

HIDDEN = "…"
PART = 8  # characters in a row of a key that are hidden wherever they stand
SHORTEST_KNOWN = 8  # of variables' values: a shorter one could be any word of a message

# How the names of variables end that hold a key for a server of the user's own choice.
_KEY_NAME = re.compile(
    r"(?:[A-Za-z0-9_]*_)?(?:API_?KEY|JUDGE_KEY|TOKEN)(?:_?[0-9]{1,3})?", re.IGNORECASE
)
# Keys that belong to one service: by how their names begin, and the hosts of that
# service that serve models, if any.
_OF_SERVICES: Mapping[str, tuple[str, ...]] = {
    "AWS_": (),
    "AZURE_DEVOPS": (),
    "CI_": (),
    "DOCKER": (),
    "GH_TOKEN": ("github.ai", "githubcopilot.com"),
    "GITHUB_": ("github.ai", "githubcopilot.com"),
    "GITLAB_": (),
    "HF_": ("huggingface.co",),
    "HUGGING": ("huggingface.co",),
    "KUBE": (),
    "MLFLOW_": (),
    "NPM_": (),
    "PYPI_": (),
    "SLURM_": (),
    "SSH_": (),
    "TWINE_": (),
    "VAULT_": (),
    "WANDB_": (),
}
_SECRET_NAME = re.compile(
    r"(?:^|_)(?:API_?KEY|KEY|TOKEN|PASSWORD|PASSWD|PASS|PASSPHRASE|SECRET|CREDENTIALS?|JWT|PAT)(?:$|_)",
    re.IGNORECASE,
)
# of a text: the place of the first character, and that behind the last
Span = tuple[int, int]
_NAMES_A_FILE = re.compile(r"_(?:FILE|PATH|DIR|HOME|SOCK)$", re.IGNORECASE)
_NAMES_AN_ADDRESS = re.compile(r"(?:_PROXY|_URL|_URI|_DSN|_ENDPOINT)$", re.IGNORECASE)

_USER = re.compile(r"://[^/\s'\"]*@")
# A password may hold a slash; what follows a colon and is a number is a port.
_USER_WITH_SLASH = re.compile(r"://[^/\s'\":]{0,200}:(?!\d+(?:/|$))[^\s'\"]{0,400}@")
_IN_QUERY = re.compile(
    r"([?&;][\w.-]{0,40}(?:key|token|secret|passw|pwd|auth|sig|credential)[\w.-]{0,40}=)[^&;\s'\"#]+",
    re.IGNORECASE,
)
_PASSWORD = re.compile(r"://[^/\s:]*:([^\s]*)@")

_ESCAPED = re.compile(
    r"\\+u\{?(?P<u>[0-9a-fA-F]{4})\}?|\\+U(?P<long>[0-9a-fA-F]{8})|\\+x(?P<x>[0-9a-fA-F]{2})|\\+(?P<octal>[0-7]{3})"
    r"|%(?:25)*(?P<percent>[0-9a-fA-F]{2})|=(?P<quoted>[0-9A-F]{2})"
    r"|&\#[xX](?P<hex>[0-9a-fA-F]{1,6});|&\#(?P<decimal>[0-9]{1,7});|&(?P<name>amp|lt|gt|quot|apos);|\\+(?P<one>.)",
    re.DOTALL,
)
_BASES = {"decimal": 10, "octal": 8}
_NAMED = {"amp": "&", "lt": "<", "gt": ">", "quot": '"', "apos": "'"}


def explain_name_refusal(name: str, address: str) -> str | None:
    """Why the value of a variable may not be sent to an address as its key; None if it may.

    A grid that somebody sent names the variable: it must not reach for what was meant for others.
    """
    if not _KEY_NAME.fullmatch(name):
        return (
            f"{name} is not sent to anybody: only variables whose names end in _API_KEY or _TOKEN"
            " are taken for a judge's key. Put the key into one, such as JUDGE_API_KEY"
        )
    host = (urlsplit(address).hostname or "").lower().rstrip(".")
    for begins, hosts in _OF_SERVICES.items():
        if name.upper().startswith(begins) and not any(
            host == one or host.endswith(f".{one}") for one in hosts
        ):
            return (
                f"{name} is a key of another service's, and {host or 'this address'} is none of its"
                " hosts. If it is "
                "meant to be sent there, say so by a variable of its own: export"
                f' JUDGE_API_KEY="${name}", and name '
                "JUDGE_API_KEY"
            )
    return None


def read_key(name: str, environment: Mapping[str, str] = os.environ) -> str | None:
    """The key that a variable holds, without blanks and line ends around it; None where
    there is none.

    UserError, without the value, for characters that no key has and no header of HTTP can carry.
    """
    key = environment.get(name, "").strip()
    if not all("!" <= one <= "~" for one in key):
        raise UserError(
            f"the value of {name} is no key: it holds a blank, a line end, a control character or a"
            " letter beyond ASCII. Set it anew, to the key alone"
        )
    return key or None


def is_secret(name: str) -> bool:
    """Whether a variable of this name holds what nobody else may see."""
    return _SECRET_NAME.search(name) is not None and not _NAMES_A_FILE.search(name)


def hide_known(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """A text without the secrets of this process: the values of variables whose names
    say so, passwords in others."""
    values = [value.strip() for name, value in environment.items() if is_secret(name)]
    addresses = [
        value for name, value in environment.items() if _NAMES_AN_ADDRESS.search(name)
    ]
    values += [found[1] for value in addresses if (found := _PASSWORD.search(value))]
    return hide_secrets(
        hide_in_addresses(text),
        (one for one in values if len(one) >= SHORTEST_KNOWN and one[0] != "/"),
    )


def hide_in_addresses(text: str) -> str:
    """A text whose addresses name neither user nor password nor key."""
    text = _USER_WITH_SLASH.sub("://", _USER.sub("://", text))
    return _IN_QUERY.sub(rf"\1{HIDDEN}", text)


def hide_secrets(text: str, secrets: Iterable[str]) -> str:
    """A text without these secrets: not whole, not in part, and neither escaped nor
    encoded nor backwards.

    Nor with signs or blanks between its characters, or in other case.
    """
    known = tuple(sorted({one for one in secrets if one}))
    windows = _windows(known)
    if not windows:
        return text
    spans = [span for window in windows for span in _found(text, window)]
    readings = [_only_letters(text, [(place, place + 1) for place in range(len(text))])]
    if any(sign in text for sign in "\\%&="):
        unescaped = _unescaped(text)
        readings.append(_only_letters(*unescaped))
        spans += _spans_in(*unescaped, windows)
    for plain, places in readings:
        spans += _spans_in(plain, places, _windows_of_letters(known))
    if not spans:
        return text
    made: list[str] = []
    end = 0
    for first, last in _joined(sorted(spans)):
        made += [text[end:first], HIDDEN]
        end = last
    return "".join(made) + text[end:]


def _spans_in(
    plain: str, places: Sequence[Span], windows: Iterable[str]
) -> Iterator[Span]:
    """Where the windows stand in a text, of which each character of `plain` has its place."""
    for window in windows:
        for first, last in _found(plain, window):
            yield places[first][0], places[last - 1][1]


def _only_letters(text: str, places: Sequence[Span]) -> tuple[str, list[Span]]:
    """A text's letters and digits in small, and their places."""
    kept = [
        (one.lower(), place)
        for one, place in zip(text, places, strict=True)
        if one.isascii() and one.isalnum()
    ]
    return "".join(one for one, _ in kept), [place for _, place in kept]


def _unescaped(text: str) -> tuple[str, list[Span]]:
    """The text with its escapes undone, and where each of its characters stands in the
    text as it is."""
    made: list[str] = []
    places: list[Span] = []
    end = 0
    for found in _ESCAPED.finditer(text):
        made.append(text[end : found.start()])
        places += [(place, place + 1) for place in range(end, found.start())]
        made.append(_meant(found))
        places.append(found.span())
        end = found.end()
    made.append(text[end:])
    places += [(place, place + 1) for place in range(end, len(text))]
    return "".join(made), places


def _meant(escape: re.Match[str]) -> str:
    """The one character that an escape stands for."""
    kind, said = escape.lastgroup, escape[escape.lastgroup or 0]
    if kind == "one":
        return said
    if kind == "name":
        return _NAMED[said]
    number = int(said, _BASES.get(kind or "", 16))
    return chr(number) if number <= 0x10FFFF else "\ufffd"


def _found(text: str, window: str) -> Iterator[Span]:
    place = text.find(window)
    while place >= 0:
        yield place, place + len(window)
        place = text.find(window, place + 1)


def _joined(spans: Iterable[Span]) -> Iterator[Span]:
    """Spans in order, those that touch as one."""
    first, last = -1, -1
    for begin, end in spans:
        if begin > last:
            if last >= 0:
                yield first, last
            first = begin
        last = max(last, end)
    yield first, last


@lru_cache(maxsize=64)
def _windows(secrets: tuple[str, ...]) -> frozenset[str]:
    """The shortest texts by which secrets are known, in each of their forms."""
    found: set[str] = set()
    for secret in secrets:
        least = (
            len(secret) if len(secret) < PART else min(PART, max(6, len(secret) // 2))
        )
        found |= _cut(secret, least) | _cut(secret[::-1], least)
        if len(secret) >= 6:
            for form in _encoded(secret.encode(errors="replace")):
                found |= _cut(form, max(PART, 2 * least))
    return frozenset(found)


@lru_cache(maxsize=64)
def _windows_of_letters(secrets: tuple[str, ...]) -> frozenset[str]:
    """The same of their letters and digits alone, in small; none of a secret that has
    few of them."""
    found: set[str] = set()
    for secret in secrets:
        forms = [(secret, PART), (secret[::-1], PART)]
        forms += [
            (form, 2 * PART) for form in _encoded(secret.encode(errors="replace"))
        ]
        for form, least in forms:
            letters, _ = _only_letters(form, [(0, 0)] * len(form))
            if len(letters) >= least:
                found |= _cut(letters, least)
    return frozenset(found)


def _cut(text: str, least: int) -> set[str]:
    """Every so many characters in a row of a text; the whole text if it is no longer."""
    return {
        text[place : place + least] for place in range(max(1, len(text) - least + 1))
    }


def _encoded(secret: bytes) -> Iterator[str]:
    yield secret.hex()
    yield secret.hex().upper()
    # base64 has three forms, by how many bytes stand before in its group of three
    for before in range(3):
        whole = base64.b64encode(b"\0" * before + secret).decode().rstrip("=")
        own = whole[(8 * before + 5) // 6 :]
        # its last character holds other bits too
        own = own if (len(secret) + before) % 3 == 0 else own[:-1]
        yield own
        yield own.replace("+", "-").replace("/", "_")
    for before in range(5):  # and base32 five
        whole = base64.b32encode(b"\0" * before + secret).decode().rstrip("=")
        own = whole[(8 * before + 4) // 5 :]
        yield own if (len(secret) + before) % 5 == 0 else own[:-1]
