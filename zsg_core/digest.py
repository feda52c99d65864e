"""Says when two things are the same: canonical JSON, content ids and the running digest of example ids."""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

ID_LENGTH = 12  # 48 bits: among a million runs, one chance in 500 of any two sharing an id


def canonical_json(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no spaces, UTF-8, shortest exact floats; NaN is refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def content_id(value: Any, length: int = ID_LENGTH) -> str:
    """The first `length` hex digits of the SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:length]


class IdDigest:
    """A running SHA-256 over the example ids consumed, step by step.

    Each step adds the line `step<TAB>id,id,…`, ids in the order of the schedule, so the digest depends on
    the order and on the grouping into steps, and on nothing else: not on ranks, nodes or restarts.
    """

    def __init__(self) -> None:
        self._sha = hashlib.sha256()

    def add(self, step: int, ids: Iterable[str]) -> None:
        self._sha.update(f"{step}\t{','.join(ids)}\n".encode())

    def hex(self) -> str:
        return self._sha.hexdigest()


def ids_digest(ids: Iterable[str]) -> str:
    """SHA-256 of an ordered list of ids, one per line."""
    return hashlib.sha256("".join(f"{i}\n" for i in ids).encode()).hexdigest()
