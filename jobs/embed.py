"""Turns texts into unit vectors with a sentence-transformers model from a local folder."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def embed(texts: Sequence[str], folder: Path) -> NDArray[np.float32]:
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
        show_progress_bar=True,
        convert_to_numpy=True,
        normalize_embeddings=True,
    ).astype(np.float32)
