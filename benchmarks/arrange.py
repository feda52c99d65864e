"""How long do orders by similarity take, against the bare matrix product that they
cannot do without?

    python -m benchmarks.arrange --json

100,000 training and 1,125 test vectors of 384 dimensions, in 1,600 tasks as
Flan-mini's; then 1,340,000 from a file mapped into memory. The best of nine, zsg and
its peer by turns, with the same threads: what else the machine does slows some turns of
both, hardly all of one. The peer is `np.matmul` into a buffer made before; for the
authors' code it is their shape of it, a row at a time and `id in list`, on a slice.
Stderr says which kernel of BLAS multiplies for both. Memory is the peak of a process of
its own that only makes the order; pages of a mapped file count.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_info

from benchmarks.rows import Row, show
from zsg_core import threads
from zsg_core.orders import tma, tma_lists
from zsg_core.orders.distance import weighted_distance
from zsg_core.orders.nearest import CHUNK, minimum_and_average

Vectors = NDArray[np.float32]

REPEATS, LARGE_REPEATS, AUTHORS_REPEATS = 9, 2, 3
TRAIN, LARGE, TEST, DIMENSIONS, TASKS, CAP = (
    100_000,
    1_340_000,
    1_125,
    384,
    1_600,
    30_000,
)
SLICE = 20_000
MOST_TIMES = 1.2  # as long as the product alone, for all that an order is made of
SAME = 200


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.arrange", description="How long orders take."
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--train", type=int, default=TRAIN, help="training vectors")
    parser.add_argument(
        "--large",
        type=int,
        default=LARGE,
        help="training vectors of the mapped file; 0: leave it out",
    )
    parser.add_argument(
        "--slice",
        type=int,
        default=SLICE,
        help="training vectors for the authors' code",
    )
    parser.add_argument(
        "--peak", nargs=2, metavar=("FILE", "ORDER"), help=argparse.SUPPRESS
    )
    asked = parser.parse_args()
    if asked.peak:
        print(peak_of(Path(asked.peak[0]), asked.peak[1]))
        return
    print("; ".join(kernels()), file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        rows = in_memory(Path(folder), asked.train) + authors(asked.slice)
        show(
            rows + (mapped(Path(folder), asked.large) if asked.large else []),
            asked.json,
        )


def kernels() -> list[str]:
    """What multiplies matrices here, and the setting that can force a slower kernel on it."""
    of = ("internal_api", "version", "architecture")
    made = [
        " ".join(str(blas.get(key)) for key in of)
        for blas in threadpool_info()
        if blas["user_api"] == "blas"
    ]
    forced = os.environ.get("OPENBLAS_CORETYPE")
    return [
        *made,
        f"{threads.count_threads()} threads",
        *([f"OPENBLAS_CORETYPE={forced}"] if forced else []),
    ]


def in_memory(folder: Path, count: int) -> list[Row]:
    """TMA and WSD against the product, also where many test items are equal, and their memory."""
    train, test = vectors(np.empty((count, DIMENSIONS), np.float32)), test_vectors()
    same = test.copy()
    same[:SAME] = same[0]
    cap, out = CAP * count // TRAIN, np.empty((count, len(test)), np.float32)
    product, rounds, order, equal = best(
        [
            lambda: np.matmul(train, test.T, out=out),
            lambda: tma_order(train, test, cap),
            lambda: wsd_order(train, test),
            lambda: tma_order(train, same, cap),
        ],
        REPEATS,
    )
    size = f"{count:,} × {len(test):,}"
    np.save(folder / "train.npy", train)
    return [
        against(f"TMA, {size}, cap {cap:,}", rounds, product, MOST_TIMES),
        against(f"WSD order, {size}", order, product, MOST_TIMES),
        against(f"TMA, {SAME} equal test items", equal, product, MOST_TIMES),
        memory(f"TMA, {size}, peak", folder / "train.npy", "tma", 1.2),
        memory(f"WSD order, {size}, peak", folder / "train.npy", "wsd", 1.2),
        memory(f"min-max list, {size}, peak", folder / "train.npy", "min-max", 1.2),
    ]


def mapped(folder: Path, count: int) -> list[Row]:
    """TMA from a mapped file against the product streamed from it."""
    path, test = folder / "large.npy", test_vectors()
    vectors(np.lib.format.open_memmap(path, "w+", np.float32, (count, DIMENSIONS)))
    train = np.load(path, mmap_mode="r")
    out = np.empty((CHUNK, len(test)), np.float32)

    def streamed() -> None:
        for start in range(0, count, CHUNK):
            block = train[start : start + CHUNK]
            np.matmul(block, test.T, out=out[: len(block)])

    product, rounds = best(
        [streamed, lambda: tma_order(train, test, CAP)], LARGE_REPEATS
    )
    size = f"{count:,} × {len(test):,}, mapped"
    return [
        against(f"TMA, {size}", rounds, product, 2.5),
        memory(f"TMA, {size}, peak", path, "tma", 4.0),
    ]


def authors(count: int) -> list[Row]:
    """min-max with three quarters of the items as cap, against the authors' way."""
    train, test = vectors(np.empty((count, DIMENSIONS), np.float32)), test_vectors()
    cap = count * 3 // 4
    ours, theirs = best(
        [lambda: min_max(train, test, cap), lambda: as_published(train, test, cap)],
        AUTHORS_REPEATS,
    )
    assert min_max(train, test, cap) == as_published(train, test, cap)
    return [
        Row(
            f"min-max list, {count:,} × {len(test):,}",
            ours,
            "s",
            theirs,
            theirs / 20,
            ours <= theirs / 20,
        )
    ]


def tma_order(train: Vectors, test: Vectors, cap: int) -> list[int]:
    """The nearest rounds as one list."""
    return [item for one in tma.pick_rounds(train, test, cap=cap) for item in one]


def wsd_order(train: Vectors, test: Vectors) -> list[int]:
    """Nearest first by WSD."""
    return np.argsort(
        weighted_distance(*minimum_and_average(train, test)), kind="stable"
    ).tolist()


def min_max(train: Vectors, test: Vectors, cap: int) -> list[int]:
    """The list min-max as zsg makes it, by the function that arranges."""

    def rounds(cap: int | None) -> tuple[list[list[int]], list[list[int]]]:
        return tma.pick_rounds_of_both_ends(train, test, cap=cap)

    return tma_lists.list_halves("min-max", rounds, cap, seed=0).places


def as_published(train: Vectors, test: Vectors, cap: int) -> list[int]:
    """The list min-max in the shape of the authors' code."""
    halves = []
    for sign in (1, -1):
        matrix = np.array([-sign * (test @ row) for row in train])
        taken: list[int] = []
        while len(taken) < cap // 2:
            picked = sorted(set(matrix.argmin(axis=0).tolist()))
            taken += [item for item in picked if item not in taken]
            matrix[picked] = matrix.max() + 1
        halves.append(taken)
    ids: list[int] = []
    for item in halves[0] + halves[1][::-1]:
        if item not in ids:
            ids.append(item)
    return ids


def best(calls: Sequence[Callable[[], object]], repeats: int) -> list[float]:
    """The least seconds of each call, by turns."""
    taken: list[list[float]] = [[] for _ in calls]
    for _ in range(repeats):
        for seconds, call in zip(taken, calls, strict=True):
            began = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - began)
    return [min(seconds) for seconds in taken]


def against(measure: str, value: float, peer: float, times: float) -> Row:
    """A row whose goal is so many times the peer."""
    return Row(measure, value, "s", peer, times * peer, value <= times * peer)


def memory(measure: str, path: Path, order: str, most: float) -> Row:
    """A row of the peak memory of a process that only makes the order."""
    command = [sys.executable, "-m", "benchmarks.arrange", "--peak", str(path), order]
    peak = float(
        subprocess.run(command, check=True, capture_output=True, text=True).stdout
    )
    return Row(measure, peak, "GB", None, most, peak <= most)


def peak_of(path: Path, order: str) -> float:
    """Makes an order; the most memory that this process ever held, in GB."""
    train = np.load(path, mmap_mode="r")
    cap = min(CAP, CAP * len(train) // TRAIN)
    if order == "tma":
        tma_order(train, test_vectors(), cap)
    elif order == "min-max":
        min_max(train, test_vectors(), cap)
    else:
        wsd_order(np.array(train), test_vectors())
    # Not getrusage: what it tells of a child begins at its parent's size.
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return (
        next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
        * 1024
        / 1e9
    )


def vectors(into: Vectors) -> Vectors:
    """Unit vectors in tasks that stand together, all leaning one way as texts' do."""
    draw = np.random.default_rng(0)
    tasks = draw.standard_normal((TASKS, DIMENSIONS), np.float32)
    task_of = np.sort(draw.integers(0, TASKS, len(into)))
    for start in range(0, len(into), 1 << 16):
        block = tasks[task_of[start : start + (1 << 16)]]
        block += 0.8 * draw.standard_normal(block.shape, np.float32) + LEAN
        into[start : start + len(block)] = block / np.linalg.norm(
            block, axis=1, keepdims=True
        )
    return into


def test_vectors() -> Vectors:
    """Unit vectors of held-out tasks of five, some of which are near to training tasks."""
    draw = np.random.default_rng(0)
    known = draw.standard_normal((TASKS, DIMENSIONS), np.float32)[: TEST // 10]
    draw = np.random.default_rng(1)
    new = draw.standard_normal((TEST // 5 - len(known), DIMENSIONS), np.float32)
    made = np.repeat(np.concatenate([known, new]), 5, axis=0)
    made += 0.8 * draw.standard_normal(made.shape, np.float32) + LEAN
    return made / np.linalg.norm(made, axis=1, keepdims=True)


LEAN = np.random.default_rng(2).standard_normal(DIMENSIONS, np.float32) * np.float32(
    0.7
)

if __name__ == "__main__":
    main()
