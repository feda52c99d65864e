"""Turns texts into unit vectors with a sentence-transformers model from a local folder,
and keeps them by content.

The vectors of a list of texts are one file, `embeddings/<id>/vectors.npy`, (texts, d)
float32, that every order maps into memory. The id is that of the texts and the model,
so that corpora with the same test set share its file. A file half made is gone on with
where it stopped, with the same result: texts are embedded in fixed blocks, and equal
texts once in a workspace, for equal texts must tie exactly.
"""

import contextlib
import functools
import hashlib
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from jobs.contract import removal
from jobs.contract.folder import (
    META,
    Workspace,
    is_whole,
    lock_folder,
    publish_folder,
    write_json,
    write_text,
)
from jobs.files import ownership
from jobs.model import content
from jobs.preparing import embedding_code, embedding_reuse
from zsg_core.digest import content_id
from zsg_core.errors import UserError

logger = logging.getLogger(__name__)

# texts embedded and written together; another size might change the last bits
BLOCK = 1024
BATCH = 64
SHOWN = 80  # characters of a text that an error quotes
# of sentence-transformers: before, it runs code of a local folder without being asked to
FLOOR = 6

# places of a list of texts, and their vectors
Lent = tuple[NDArray[np.int64], NDArray[np.float32]]
Encode = Callable[[list[str]], NDArray[np.float32]]


def embed_texts(
    workspace: Workspace, texts: Sequence[str], model: Path, model_digest: str
) -> Path:
    """The folder with the vectors of the texts, in their order; made now unless it is there."""
    digest = texts_digest(texts)
    folder = workspace.embedding(
        content_id({"kind": "embedding", "texts": digest, "model": model_digest})
    )
    if is_whole(folder):
        return folder
    content.refuse_changed(model, content.embedding_files, model_digest)
    with _draft(folder) as draft:
        if is_whole(folder):  # another job has made it while this one waited
            return folder
        marks = embedding_reuse.mark_texts(texts)
        begin_draft(
            draft,
            texts,
            embedding_reuse.find_known_vectors(folder.parent, marks, model_digest),
        )
        fill_draft(draft, texts, make_encoder(model))
        with publish_folder(folder) as made:
            shutil.move(draft / "vectors.npy", made / "vectors.npy")
            np.save(made / embedding_reuse.MARKS, marks)
            write_json(
                made / META,
                _meta(texts, digest, model_digest, made / "vectors.npy"),
            )
    return folder


def map_vectors(folder: Path) -> NDArray[np.float32]:
    """The vectors of a folder, mapped and not read."""
    return np.load(folder / "vectors.npy", mmap_mode="r")


def begin_draft(draft: Path, texts: Sequence[str], known: Iterable[Lent]) -> None:
    """Writes what is known to draft/vectors.npy, and to draft/left.npy the places of
    the texts left to embed.

    A draft that has been begun keeps its list, whatever has become known since.
    """
    if (draft / "left.npy").exists():
        return
    first = np.array(_first_of_equals(texts), np.int64)
    left = first == np.arange(len(first))
    different = int(left.sum())
    for number, (places, found) in enumerate(known):
        file = _file(draft, "w+" if number == 0 else "r+", (len(texts), found.shape[1]))
        is_finite = _find_finite(found)  # an older zsg kept others, too
        if not is_finite.all():
            places, found = places[is_finite], found[is_finite]
        file[places] = found
        file.flush()
        left[places] = False
    if lent := different - int(left.sum()):
        logger.info(f"{lent} of {different} texts are embedded already")
    np.save(draft / "unfinished.npy", np.flatnonzero(left))
    (draft / "unfinished.npy").rename(draft / "left.npy")


def _find_finite(vectors: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which rows are finite; looked at block by block, so that nothing of the size of
    all is made beside them."""
    is_finite = np.empty(len(vectors), bool)
    for start in range(0, len(vectors), BLOCK):
        block = vectors[start : start + BLOCK]
        is_finite[start : start + BLOCK] = np.isfinite(block).all(axis=1)
    return is_finite


def fill_draft(draft: Path, texts: Sequence[str], encode: Encode) -> None:
    """Embeds what `begin_draft` left, block by block; `draft/done` counts the texts whose
    vectors are on the disk. UserError for a vector that is not finite."""
    first = _first_of_equals(texts)
    mark: Path = draft / "done"
    left: list[int] = np.load(draft / "left.npy").tolist()
    is_new = len(left) == len(set(first))
    done = int(mark.read_text()) if mark.exists() else 0
    if done:
        logger.info(f"embedding {len(left)} texts, continuing after {done}")
    for start in range(done, len(left), BLOCK):
        block = left[start : start + BLOCK]
        made = encode([texts[int(place)] for place in block]).astype(np.float32)
        _refuse_not_finite(made, [texts[int(place)] for place in block])
        file = _file(
            draft, "w+" if is_new and start == 0 else "r+", (len(texts), made.shape[1])
        )
        file[block] = made
        file.flush()
        write_text(mark, str(start + len(block)))
        logger.info(f"embedded {start + len(block)} of {len(left)} texts")
    file = _file(draft, "r+")
    for place, earlier in enumerate(first):
        if place != earlier:
            file[place] = file[earlier]
    file.flush()


def _refuse_not_finite(vectors: NDArray[np.float32], texts: Sequence[str]) -> None:
    """UserError where a vector of these texts has a number that is none.

    Some measures would order by it all the same, and nobody would see that the order
    means nothing.
    """
    is_finite = np.isfinite(vectors).all(axis=1)
    if not is_finite.all():
        first = int(np.argmin(is_finite))
        raise UserError(
            f"the embedding model makes vectors that are not finite of {int((~is_finite).sum())}"
            f" texts, the first of which is {texts[first][:SHOWN]!r}: no order can be made of them;"
            " set arrangement.embedding to another model, or take these texts out of the data"
        )


def _file(
    draft: Path, mode: Literal["r+", "w+"], shape: tuple[int, int] | None = None
) -> Any:
    """The vectors of a draft, mapped; made anew by w+."""
    return np.lib.format.open_memmap(draft / "vectors.npy", mode, np.float32, shape)


def make_encoder(folder: Path) -> Encode:
    """The model of a folder as a function, on a GPU if there is one. Texts beyond the
    model's limit are cut by it.

    all-MiniLM-L6-v2 sees 256 word pieces. The same machine gives the same vectors;
    other machines may differ in the last bits, which is why the file is an input with a
    digest of its own.
    """

    @functools.cache
    # only where a text is left to embed: the imports alone take seconds
    def loaded() -> Any:
        embedding_code.refuse_own_code(folder)
        import sentence_transformers
        import torch

        version = sentence_transformers.__version__
        if int(version.partition(".")[0]) < FLOOR:
            raise UserError(
                f"sentence-transformers {version} is installed, which runs code of a model's"
                f" folder; zsg needs {FLOOR} or later: pip install 'zsg[train]'"
            )
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return sentence_transformers.SentenceTransformer(
            str(folder), device=device, local_files_only=True, trust_remote_code=False
        )

    asked: dict[str, Any] = {
        "batch_size": BATCH,
        "show_progress_bar": False,
        "convert_to_numpy": True,
    }
    return lambda texts: loaded().encode(texts, normalize_embeddings=True, **asked)


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
    """The folder in which an embedding is made, held by one job at a time; removed once
    the embedding is there."""
    draft = removal.name_unfinished(folder)
    with lock_folder(folder):
        ownership.make_folder(draft)
        yield draft
        shutil.rmtree(draft, ignore_errors=True)


def _meta(
    texts: Sequence[str], digest: str, model_digest: str, path: Path
) -> dict[str, Any]:
    return {
        "schema": 1,
        "texts": len(texts),
        "texts_digest": digest,
        "model_digest": model_digest,
        "vectors_digest": content.sha256_of([path])[0],
    }


def _first_of_equals(texts: Sequence[str]) -> list[int]:
    """For each text the place of the first one that equals it: each is embedded once."""
    seen: dict[str, int] = {}
    return [seen.setdefault(text, place) for place, text in enumerate(texts)]
