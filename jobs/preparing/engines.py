"""Chooses what proposes nearest neighbours on this machine: faiss on a GPU, torch on a
GPU, or NumPy.

An engine may only be used after it has shown that its similarities lie within the error
bound that the orders rely on (TF32, for one, does not); then every order is the
canonical one, whichever engine it is.
"""

import logging
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zsg_core.orders.distance import Vectors, error_bound
from zsg_core.orders.nearest import Blas, Engine, Found, Indices, Singles

logger = logging.getLogger(__name__)

FEW = 64  # neighbours that faiss is asked for first


class Torch:
    """torch's matrix product in float32, on the device named."""

    def __init__(self, device: str) -> None:
        import torch

        torch.set_float32_matmul_precision("highest")
        self._torch, self._device = torch, device
        self.name = f"torch on {device}"

    def load(self, test: Vectors) -> Any:
        return self._torch.from_numpy(np.array(test, np.float32)).to(self._device)

    def closest(
        self, rows: Vectors, test: Any, margin: float
    ) -> tuple[Indices, Indices, Indices]:
        similarities = self._product(rows, test)
        best, top = similarities.max(dim=1, keepdim=True)
        near = similarities >= best - margin
        near.scatter_(1, top, False)
        return _array(top[:, 0]), *(
            _array(column) for column in near.nonzero(as_tuple=True)
        )

    def above(self, rows: Vectors, test: Any, least: Singles) -> Found:
        similarities = self._product(rows, test)
        return self._find(similarities, similarities >= self.load(least))

    def at_both_ends(
        self, rows: Vectors, test: Any, least: Singles, most: Singles
    ) -> tuple[Found, Found]:
        similarities = self._product(rows, test)
        highest = self._find(similarities, similarities >= self.load(least))
        return highest, self._find(similarities, similarities <= self.load(most))

    def _find(self, similarities: Any, marks: Any) -> Found:
        """The similarities of a block (n, m) that are marked."""
        found = marks.nonzero(as_tuple=True)
        return _array(found[0]), _array(found[1]), _array(similarities[found])

    def _product(self, rows: Vectors, test: Any) -> Any:
        return self.load(rows) @ test.T


class Faiss:
    """faiss' exact search by inner product, on the first GPU or on the CPU."""

    def __init__(self, on_gpu: bool) -> None:
        import faiss

        self._faiss, self._one = faiss, threading.Lock()
        self._resources = faiss.StandardGpuResources() if on_gpu else None
        self.name = "faiss on a GPU" if on_gpu else "faiss"

    def load(self, test: Vectors) -> Vectors:
        return np.ascontiguousarray(test, np.float32)

    def closest(
        self, rows: Vectors, test: Vectors, margin: float
    ) -> tuple[Indices, Indices, Indices]:
        limit = np.float32(margin)
        values, found = self._nearest(rows, test, lambda values: values[:, :1] - limit)
        near = values >= values[:, :1] - limit
        near[:, 0] = False
        places, columns = np.nonzero(near)
        return found[:, 0], places, found[places, columns]

    def above(self, rows: Vectors, test: Vectors, least: Singles) -> Found:
        """As Engine.above: all pairs with a similarity of at least `least` (test
        items,), as three arrays of one length: training row, test item and similarity.

        faiss asks for the nearest of each query, so test items search among the rows
        and not the other way round. Id −1 stands for no result.
        """
        values, found = self._nearest(test, rows, lambda values: least[:, None])
        columns, places = np.nonzero((values >= least[:, None]) & (found >= 0))
        return found[columns, places], columns, values[columns, places]

    def at_both_ends(
        self, rows: Vectors, test: Vectors, least: Singles, most: Singles
    ) -> tuple[Found, Found]:
        """As Engine.at_both_ends, in two searches: an index finds the largest, and what
        is farthest from a vector is nearest to its negative."""
        lowest_rows, columns, values = self.above(rows, -test, -most)
        return self.above(rows, test, least), (lowest_rows, columns, -values)

    def _nearest(
        self, asking: Vectors, among: Vectors, limit: Callable[[Singles], Singles]
    ) -> tuple[Singles, NDArray[np.int64]]:
        """As many neighbours of each as reach past its limit."""
        asking, among, k = self.load(asking), self.load(among), min(FEW, len(among))
        while True:
            values, found = self._search(asking, among, k)
            if k == len(among) or not (values[:, -1:] >= limit(values)).any():
                return values, found
            k = min(4 * k, len(among))

    def _search(
        self, asking: Vectors, among: Vectors, k: int
    ) -> tuple[Singles, NDArray[np.int64]]:
        metric = self._faiss.METRIC_INNER_PRODUCT
        # a search has threads of its own, and the memory of a GPU serves one at a time
        with self._one:
            if self._resources is not None and k <= 2048:  # what a GPU can sort
                return self._faiss.knn_gpu(
                    self._resources, asking, among, k, metric=metric
                )
            return self._faiss.knn(asking, among, k, metric=metric)


def choose_engine() -> Engine:
    """The fastest engine here that keeps to its error bound; NumPy, which needs no
    proof, if no other does."""
    for make in (_faiss_gpu, _torch_gpu):
        engine = make()
        if engine is not None and keeps_its_bound(engine):
            return engine
        if engine is not None:
            logger.warning(
                f"{engine.name} is not exact enough for orders (TF32?); another engine is taken"
            )
    return Blas()


def keeps_its_bound(engine: Engine, dimensions: int = 384) -> bool:
    """Whether an engine finds what the canonical rule finds, among neighbours that only
    exact arithmetic can tell.

    Every similarity must lie within the error bound, and no neighbour within the margin
    may be missing.
    """
    train, test = _draw_close_vectors(dimensions)
    exact = train.astype(np.float64) @ test.astype(np.float64).T
    bound = error_bound(train, test)
    loaded = engine.load(test)
    least = np.full(len(test), -2, np.float32)  # below every similarity
    founds = [
        engine.above(train, loaded, least),
        *engine.at_both_ends(train, loaded, least, -least),
    ]
    if not all(_is_all_of(exact, found, bound) for found in founds):
        return False
    top, rows, columns = engine.closest(train, loaded, 2.1 * bound)
    found = np.zeros(exact.shape, bool)
    found[np.arange(len(train)), top] = True
    found[rows, columns] = True
    is_nearest = exact >= exact.max(axis=1, keepdims=True)
    return not (~found & is_nearest).any()


def _is_all_of(exact: Vectors, found: Found, bound: float) -> bool:
    """Whether what an engine found is every similarity of `exact` (n, m), each within
    `bound` of it."""
    rows, columns, values = found
    if len(rows) != exact.size:
        return False
    return bool(np.abs(exact[rows, columns] - values).max() <= bound)


def _draw_close_vectors(dimensions: int) -> tuple[Vectors, Vectors]:
    """300 training and 100 test vectors of unit length, the same at every call.

    The test vectors are copies of training vectors, copies that differ from them in the
    last bit of each number, so that rounding decides which is nearer, and opposites.
    """
    draw = np.random.RandomState(0)
    train = draw.randn(300, dimensions).astype(np.float32)
    train /= np.linalg.norm(train, axis=1, keepdims=True)
    next_to_train = np.nextafter(train[:40], np.float32(1))
    test = np.concatenate([train[:40], next_to_train, -train[40:60]])
    return train, test


def _faiss_gpu() -> Engine | None:
    try:
        import faiss
    except ImportError:
        return None
    return Faiss(on_gpu=True) if getattr(faiss, "get_num_gpus", int)() else None


def _torch_gpu() -> Engine | None:
    try:
        import torch
    except ImportError:
        return None
    return Torch("cuda") if torch.cuda.is_available() else None


def _array(tensor: Any) -> Any:
    return tensor.cpu().numpy()
