"""Says when two things are the same: canonical JSON, content ids and the running digest
of example ids."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

_JSON = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
)

# 48 bits: among a million runs, one chance in 500 of any two sharing an id
ID_LENGTH = 12


def canonical_json(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no spaces, UTF-8, shortest exact
    floats; NaN is refused."""
    return _JSON.encode(value)


def content_id(value: Any, length: int = ID_LENGTH) -> str:
    """The first `length` hex digits of the SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:length]


class IdDigest:
    """A running digest over the example ids consumed: a chain, one SHA-256 per step.

    digest(step) = SHA-256 of the line `digest(step − 1)<TAB>step<TAB>id,id,…`, in hex,
    ids in the order of the schedule; digest(0) is that of nothing. So it depends on the
    order and on the grouping into steps, and on nothing else: not on ranks, nodes or
    restarts; and 64 hex digits are all it takes to resume from a step.
    """

    def __init__(self, so_far: str = hashlib.sha256().hexdigest()) -> None:
        self._hex = so_far

    def add(self, step: int, ids: Iterable[str]) -> None:
        self._hex = hashlib.sha256(
            f"{self._hex}\t{step}\t{','.join(ids)}\n".encode()
        ).hexdigest()

    def hex(self) -> str:
        """The digest of all steps so far."""
        return self._hex


def digest_ids(ids: Iterable[str]) -> str:
    """SHA-256 of an ordered list of ids, one per line."""
    return hashlib.sha256("".join(f"{i}\n" for i in ids).encode()).hexdigest()


def combine_digests(digests: Mapping[str, str]) -> str:
    """One SHA-256 over tensors by name, however they were shared out."""
    lines = "".join(f"{name}\t{digest}\n" for name, digest in sorted(digests.items()))
    return hashlib.sha256(lines.encode()).hexdigest()
