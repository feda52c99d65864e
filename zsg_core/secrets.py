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
            host == service_host or host.endswith(f".{service_host}")
            for service_host in hosts
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
    if not all("!" <= character <= "~" for character in key):
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
    values += [match[1] for value in addresses if (match := _PASSWORD.search(value))]
    return hide_secrets(
        hide_in_addresses(text),
        (value for value in values if len(value) >= SHORTEST_KNOWN and value[0] != "/"),
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
    sorted_secrets = tuple(sorted({secret for secret in secrets if secret}))
    windows = _make_windows(sorted_secrets)
    if not windows:
        return text
    characters = [(index, index + 1) for index in range(len(text))]
    spans = [*_find_spans(text, characters, windows)]
    readings = [_keep_letters(text, characters)]
    if any(sign in text for sign in "\\%&="):
        unescaped = _undo_escapes(text)
        readings.append(_keep_letters(*unescaped))
        spans += _find_spans(*unescaped, windows)
    for letters, origins in readings:
        spans += _find_spans(letters, origins, _make_letter_windows(sorted_secrets))
    return _cut_out(text, spans) if spans else text


def _cut_out(text: str, spans: Iterable[Span]) -> str:
    """The text with a sign that something is hidden in place of each span."""
    pieces: list[str] = []
    end = 0
    for first, last in _join_spans(sorted(spans)):
        pieces += [text[end:first], HIDDEN]
        end = last
    return "".join(pieces) + text[end:]


def _find_spans(
    reading: str, origins: Sequence[Span], windows: Iterable[str]
) -> Iterator[Span]:
    """Where the windows stand in a text, of which each character of `reading` has its origin."""
    for window in windows:
        for first, last in _find_all(reading, window):
            yield origins[first][0], origins[last - 1][1]


def _keep_letters(text: str, origins: Sequence[Span]) -> tuple[str, list[Span]]:
    """A text's letters and digits in small, and their origins."""
    letters = [
        (character.lower(), origin)
        for character, origin in zip(text, origins, strict=True)
        if character.isascii() and character.isalnum()
    ]
    return "".join(letter for letter, _ in letters), [origin for _, origin in letters]


def _undo_escapes(text: str) -> tuple[str, list[Span]]:
    """The text with its escapes undone, and where each of its characters stands in the
    text as it is."""
    pieces: list[str] = []
    origins: list[Span] = []
    end = 0
    for escape in _ESCAPED.finditer(text):
        pieces += [text[end : escape.start()], _decode_escape(escape)]
        origins += [(index, index + 1) for index in range(end, escape.start())]
        origins.append(escape.span())
        end = escape.end()
    pieces.append(text[end:])
    origins += [(index, index + 1) for index in range(end, len(text))]
    return "".join(pieces), origins


def _decode_escape(escape: re.Match[str]) -> str:
    """The one character that an escape stands for."""
    kind, written = escape.lastgroup, escape[escape.lastgroup or 0]
    if kind == "one":
        return written
    if kind == "name":
        return _NAMED[written]
    number = int(written, _BASES.get(kind or "", 16))
    return chr(number) if number <= 0x10FFFF else "\ufffd"


def _find_all(text: str, window: str) -> Iterator[Span]:
    start = text.find(window)
    while start >= 0:
        yield start, start + len(window)
        start = text.find(window, start + 1)


def _join_spans(spans: Iterable[Span]) -> Iterator[Span]:
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
def _make_windows(secrets: tuple[str, ...]) -> frozenset[str]:
    """The shortest texts by which secrets are known, in each of their forms."""
    windows: set[str] = set()
    for secret in secrets:
        length = (
            len(secret) if len(secret) < PART else min(PART, max(6, len(secret) // 2))
        )
        windows |= _list_windows(secret, length) | _list_windows(secret[::-1], length)
        if len(secret) >= 6:
            for form in _list_encodings(secret.encode(errors="replace")):
                windows |= _list_windows(form, max(PART, 2 * length))
    return frozenset(windows)


@lru_cache(maxsize=64)
def _make_letter_windows(secrets: tuple[str, ...]) -> frozenset[str]:
    """The same of their letters and digits alone, in small; none of a secret that has
    few of them."""
    windows: set[str] = set()
    for secret in secrets:
        forms = [(secret, PART), (secret[::-1], PART)]
        forms += [
            (form, 2 * PART)
            for form in _list_encodings(secret.encode(errors="replace"))
        ]
        for form, length in forms:
            letters, _ = _keep_letters(form, [(0, 0)] * len(form))
            if len(letters) >= length:
                windows |= _list_windows(letters, length)
    return frozenset(windows)


def _list_windows(text: str, length: int) -> set[str]:
    """Every so many characters in a row of a text; the whole text if it is no longer."""
    return {
        text[start : start + length] for start in range(max(1, len(text) - length + 1))
    }


def _list_encodings(secret: bytes) -> Iterator[str]:
    """How a secret may stand within other text that was encoded as a whole."""
    yield secret.hex()
    yield secret.hex().upper()
    yield from _list_base64(secret)
    yield from _list_base32(secret)


def _list_base64(secret: bytes) -> Iterator[str]:
    """The three forms, by how many bytes stand before in its group of three."""
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + secret).decode().rstrip("=")
        determined = encoded[(8 * before + 5) // 6 :]
        # its last character holds other bits too
        determined = determined if (len(secret) + before) % 3 == 0 else determined[:-1]
        yield determined
        yield determined.replace("+", "-").replace("/", "_")


def _list_base32(secret: bytes) -> Iterator[str]:
    """The five forms, by how many bytes stand before in its group of five."""
    for before in range(5):
        encoded = base64.b32encode(b"\0" * before + secret).decode().rstrip("=")
        determined = encoded[(8 * before + 4) // 5 :]
        yield determined if (len(secret) + before) % 5 == 0 else determined[:-1]
