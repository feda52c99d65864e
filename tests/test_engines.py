"""Does every engine and every number of threads give the same order from the same
embedding file?"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from jobs.preparing import engines
from tests.lib.crowded_vectors import crowded
from tests.lib.search_engines import ENGINES
from zsg_core.orders import tma
from zsg_core.orders.nearest import Blas, minimum_and_average

ORDER = """
import sys, numpy as np
from tests.lib.search_engines import ENGINES
from zsg_core.orders import tma
from zsg_core.digest import digest_ids
from zsg_core.orders.distance import weighted_distance
from zsg_core.orders.nearest import minimum_and_average
train, test = np.load(sys.argv[1], mmap_mode="r"), np.load(sys.argv[2], mmap_mode="r")
engine = ENGINES[sys.argv[3]]()
orders = [weighted_distance(*minimum_and_average(train, test, engine), 1, 1).argsort(kind="stable")]
orders += [[item for one in tma.pick_rounds(train, test, farthest=far, cap=900, engine=engine) for item in one]
           for far in (False, True)]
print(*(digest_ids(map(str, order)) for order in orders))
"""

RECORDED = [
    "6a07b3428507cf4631e15e1ed7f5606fcffbdaf397c8654a2d8b8059a15d594b",
    "1369069bf5df1be3e4f553d1f2e2bcc65b5886e7053de2a6fddac38990594012",
    "810de4a0b14623c7a3b0aa5dfb2778794576353380420a703d1a43bf36891f50",
]


@pytest.mark.parametrize("threads", ["1", "2"])
def test_the_same_file_gives_the_same_digest(tmp_path: Path, threads: str) -> None:
    """numpy, torch and faiss, with one thread and with two: WSD, nearest and farthest rounds."""
    train, test = crowded(11, 3000, 60, 384, 800)
    for name, array in (("train.npy", train), ("test.npy", test)):
        np.save(tmp_path / name, array)
    env = os.environ | {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
    env["PYTHONPATH"] = str(Path(__file__).resolve().parents[1])

    digests = set()
    for engine in ENGINES:
        argv = [
            sys.executable,
            "-c",
            ORDER,
            str(tmp_path / "train.npy"),
            str(tmp_path / "test.npy"),
            engine,
        ]
        digests.add(
            subprocess.run(
                argv, env=env, capture_output=True, text=True, check=True
            ).stdout
        )
    assert digests == {" ".join(RECORDED) + "\n"}


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("seed", range(4))
def test_an_engine_changes_no_distance_and_no_round(name: str, seed: int) -> None:
    """Exact ties, near-ties and equal vectors are settled canonically, whoever proposes them."""
    train, test = crowded(seed, 500, 30, 33, 60)
    engine = ENGINES[name]()

    for mine, theirs in zip(
        minimum_and_average(train, test, engine),
        minimum_and_average(train, test),
        strict=True,
    ):
        assert mine.tolist() == theirs.tolist()
    nearest = list(tma.pick_rounds(train, test))
    farthest = list(tma.pick_rounds(train, test, farthest=True))
    assert list(tma.pick_rounds(train, test, engine=engine)) == nearest
    both = tma.pick_rounds_of_both_ends(train, test, engine=engine)
    assert both == (nearest, farthest)


@pytest.mark.parametrize("name", ENGINES)
def test_engines_that_are_exact_enough_prove_it(name: str) -> None:
    """float32 arithmetic lies within the bound."""
    assert engines.keeps_its_bound(ENGINES[name]())


class Coarse(Blas):
    """Rounds its vectors to half precision first, as tensor cores do."""

    def _product(self, rows, test):
        return super()._product(rows.astype(np.float16).astype(np.float32), test)


class Forgetful(Blas):
    """Proposes no more than the first of several equally near test items."""

    def closest(self, rows, test, margin):
        top, crowded_rows, columns = super().closest(rows, test, margin)
        return top, crowded_rows[:0], columns[:0]


class OneEnded(Blas):
    """Finds the farthest only among some of the test items."""

    def at_both_ends(self, rows, test, least, most):
        highest, (lowest_rows, columns, values) = super().at_both_ends(
            rows, test, least, most
        )
        some = columns < len(test) - 1
        return highest, (lowest_rows[some], columns[some], values[some])


@pytest.mark.parametrize("engine", [Coarse(), Forgetful(), OneEnded()])
def test_engines_that_are_not_are_found_out(engine: Blas) -> None:
    """An engine that is too coarse, or leaves ties out, is not used."""
    assert not engines.keeps_its_bound(engine)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_numpy_is_chosen(logged: list[str]) -> None:
    """What needs no proof is the engine of machines without a GPU."""
    assert engines.choose_engine().name == "numpy"
    assert logged == []
