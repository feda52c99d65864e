"""Turns texts into unit vectors with a sentence-transformers model from a local folder, and keeps them by content.

The vectors of a list of texts are one file, `embeddings/<id>/vectors.npy`, (texts, d) float32, that every order maps
into memory. The id is that of the texts and the model, so that corpora with the same test set share its file. A file
half made is gone on with where it stopped, with the same result: texts are embedded in fixed blocks, and equal texts
once, for equal texts must tie exactly.
"""

import contextlib
import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.folder import Workspace, alone, is_committed, publish, write_json, write_text
from jobs.preparing import content
from zsg_core.digest import content_id

BLOCK = 1024  # texts embedded and written together; another size might change the last bits
BATCH = 64

Say = Callable[[str], None]
Encode = Callable[[list[str]], NDArray[np.float32]]


def embedded(workspace: Workspace, texts: Sequence[str], model: Path, model_digest: str, say: Say) -> Path:
    """The folder with the vectors of the texts, in their order; made now unless it is there."""
    digest = texts_digest(texts)
    folder = workspace.embedding(content_id({"kind": "embedding", "texts": digest, "model": model_digest}))
    if is_committed(folder):
        return folder
    content.refuse_changed(model, content.embedding_files, model_digest)
    with _draft(folder) as draft:
        if is_committed(folder):  # another job has made it while this one waited
            return folder
        fill(draft, texts, encoder(model), say)
        with publish(folder) as made:
            shutil.move(draft / "vectors.npy", made / "vectors.npy")
            write_json(made / "meta.json", _meta(texts, digest, model_digest, made / "vectors.npy"))
    return folder


def vectors(folder: Path) -> NDArray[np.float32]:
    """The vectors of a folder, mapped and not read."""
    return np.load(folder / "vectors.npy", mmap_mode="r")


def fill(draft: Path, texts: Sequence[str], encode: Encode, say: Say) -> None:
    """Writes draft/vectors.npy block by block; `draft/done` counts the texts whose vectors are on the disk."""
    first = _first_of_equals(texts)
    new = [place for place, earlier in enumerate(first) if place == earlier]
    path, mark = draft / "vectors.npy", draft / "done"
    done = int(mark.read_text()) if mark.exists() else 0
    if done:
        say(f"embedding {len(new)} texts, going on after {done}")
    for start in range(done, len(new), BLOCK):
        block = new[start : start + BLOCK]
        made = encode([texts[place] for place in block]).astype(np.float32)
        if start == 0:
            np.lib.format.open_memmap(path, "w+", np.float32, (len(texts), made.shape[1])).flush()
        file = np.lib.format.open_memmap(path, "r+")
        file[block] = made
        file.flush()
        write_text(mark, str(start + len(block)))
        say(f"embedded {start + len(block)} of {len(new)} texts")
    file = np.lib.format.open_memmap(path, "r+")
    for place, earlier in enumerate(first):
        if place != earlier:
            file[place] = file[earlier]
    file.flush()


def encoder(folder: Path) -> Encode:
    """The model of a folder as a function, on a GPU if there is one. Texts beyond the model's limit are cut by it.

    all-MiniLM-L6-v2 sees 256 word pieces. The same machine gives the same vectors; other machines may differ in the
    last bits, which is why the file is an input with a digest of its own.
    """
    import torch
    from sentence_transformers import SentenceTransformer

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = SentenceTransformer(str(folder), device=device, local_files_only=True)
    asked: dict[str, Any] = {"batch_size": BATCH, "show_progress_bar": False, "convert_to_numpy": True}
    return lambda texts: model.encode(texts, normalize_embeddings=True, **asked)


def texts_digest(texts: Sequence[str]) -> str:
    """SHA-256 of a list of texts, each preceded by its length, so that no two lists look alike."""
    sha = hashlib.sha256()
    for text in texts:
        encoded = text.encode("utf-8", "surrogatepass")
        sha.update(f"{len(encoded)}\n".encode())
        sha.update(encoded)
    return sha.hexdigest()


@contextlib.contextmanager
def _draft(folder: Path) -> Iterator[Path]:
    """The folder in which an embedding is made, held by one job at a time; removed once the embedding is there."""
    draft = folder.parent / f".{folder.name}.draft"
    with alone(folder):
        draft.mkdir(exist_ok=True, mode=0o700)
        yield draft
        shutil.rmtree(draft, ignore_errors=True)


def _meta(texts: Sequence[str], digest: str, model_digest: str, path: Path) -> dict[str, Any]:
    return {
        "schema": 1,
        "texts": len(texts),
        "texts_digest": digest,
        "model_digest": model_digest,
        "vectors_digest": content.sha256_of([path])[0],
    }


def _first_of_equals(texts: Sequence[str]) -> list[int]:
    seen: dict[str, int] = {}
    return [seen.setdefault(text, place) for place, text in enumerate(texts)]
