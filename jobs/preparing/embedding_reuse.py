"""Reuses vectors of another embedding of the workspace, for texts with equal digests.

Studies hold out many splits of the same tasks and draw many samples of them: their
lists of texts differ, and most of the texts do not.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jobs.contract.folder import META, is_whole, read_json

Marks = NDArray[np.uint64]  # (texts, 2): the first 128 bits of each text's digest
MARKS = "texts.npy"  # beside vectors.npy, in the same order


def mark_texts(texts: Sequence[str]) -> Marks:
    """A mark for each text, (texts, 2): equal for equal texts, and in practice for no others."""
    digests = b"".join(_digest(text) for text in texts)
    return np.frombuffer(digests, np.uint64).reshape(len(texts), 2)


def find_known_vectors(
    embeddings: Path, wanted: Marks, model_digest: str
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """(places among the wanted, their vectors) out of every embedding by the same
    model; a place comes once."""
    left = np.arange(len(wanted))
    for folder in sorted(embeddings.glob("[!.]*")):
        if not len(left):
            return
        if (found := _marks_of(folder, model_digest)) is None:
            continue
        order = np.argsort(found[:, 0], kind="stable")
        there = np.searchsorted(found[order, 0], wanted[left, 0]).clip(
            max=len(order) - 1
        )
        rows = order[there]
        same = (found[rows] == wanted[left]).all(axis=1)
        if same.any():
            yield left[same], np.load(folder / "vectors.npy", mmap_mode="r")[rows[same]]
            left = left[~same]


def _marks_of(folder: Path, model_digest: str) -> Marks | None:
    """The marks of an embedding by this model; None of another, an unfinished one or
    one of an older zsg."""
    if not is_whole(folder) or not (folder / MARKS).exists():
        return None
    meta = read_json(folder / META) or {}
    return np.load(folder / MARKS) if meta.get("model_digest") == model_digest else None


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16]
