"""Finds out which settings of a request an OpenAI-compatible server does not take, and
how it is asked since.

Models that think before they answer refuse a temperature, and a most of tokens under its
old name: HTTP 400 or 422 with an error that names the setting, in the fields `param` and
`code` or in words alone. Such a refusal is of every question, so it is no answer to the
one that was asked: that is asked again, as the server takes it.
"""

import json
import re
import threading
from collections.abc import Mapping
from typing import Any

_STATUSES = (400, 422)
# the name under which newer models take it
_RENAMED = {"max_tokens": "max_completion_tokens"}
_CODES = ("unsupported_parameter", "unsupported_value", "unknown_parameter")
_WORDS = re.compile(
    r"unsupported|not support|not allowed|not permitted|deprecated|unknown|unrecognized"
    r"|unexpected keyword|extra inputs|only the default|may only be",
    re.IGNORECASE,
)
MOST_READ = 4000  # characters of an error


class Adaptation:
    """How requests are written for one server; for several threads."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._left_out: set[str] = set()
        self._lock = threading.Lock()

    def apply(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The settings as the server takes them."""
        with self._lock:
            return {
                self._names.get(name, name): value
                for name, value in settings.items()
                if name not in self._left_out
            }

    def learn(self, refused: frozenset[str], does_without: frozenset[str]) -> str:
        """Takes to heart what the server refuses, and returns a sentence on what is new;
        nothing where nothing is, or where nothing can be done. `does_without`: what may
        be left out."""
        told: list[str] = []
        with self._lock:
            for name in sorted(refused):
                if name in _RENAMED and name not in self._names:
                    self._names[name] = _RENAMED[name]
                    told.append(f"takes no {name}: it is asked by {_RENAMED[name]}")
                elif name in does_without and name not in self._left_out:
                    self._left_out.add(name)
                    told.append(f"takes no {name}: it is asked without one")
        return ", and ".join(told)


def find_refused(
    status: int, body: bytes, settings: Mapping[str, Any]
) -> frozenset[str]:
    """The settings of a request that its refusal says are not taken at all."""
    if status not in _STATUSES:
        return frozenset()
    error = _read_error(body)
    named: Any = error.get("param")
    message: Any = error.get("message")
    text = message if isinstance(message, str) else body.decode(errors="replace")
    text = text[:MOST_READ]
    is_of_setting = error.get("code") in _CODES or _WORDS.search(text) is not None
    if not is_of_setting:
        return frozenset()
    if isinstance(named, str) and named in settings:
        return frozenset({named})
    words = set(re.findall(r"\w+", text))
    return frozenset(name for name in settings if name in words)


def _read_error(body: bytes) -> Mapping[str, Any]:
    """The fields of an error, where a server gives it some."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    error: Any = said.get("error") if isinstance(said, dict) else None
    return error if isinstance(error, dict) else {}
