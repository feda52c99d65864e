"""Does a report lay hidden states out as they were kept, once each, and only where
there are any?"""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.manifold import TSNE

from jobs.contract.folder import Workspace
from jobs.evaluating import hidden_state_store
from jobs.evaluating.hidden_state_store import HiddenStates
from launcher.reporting import report
from launcher.reporting.data.grid_comparison import ReportOptions
from launcher.reporting.figures import map_charts
from tests.lib.reported_grid import make, rows, written
from zsg_core.metrics.silhouette import compute_silhouettes

GROUPS = ["code"] * 8 + ["general"] * 8 + ["math"] * 8
LAYER = "silhouette/layer_15"


def states(apart: float, seed: int = 0) -> np.ndarray:
    """(24, 10) of which those of math lie so far from the others."""
    made = np.random.default_rng(seed).normal(size=(24, 10)).astype(np.float32)
    made[16:] += np.float32(apart)
    return made


def keep(
    place: Workspace,
    run: str,
    step: int,
    apart: float,
    seed: int = 0,
    key: str = LAYER,
    **more: Any,
) -> HiddenStates:
    """Keeps states of a run, as an evaluator does."""
    table = states(apart, seed)
    way = {"layer": 15, "items": 8, "by": None, "pooling": "last"}
    ids = [f"{group}/x:{number}" for number, group in enumerate(GROUPS)]
    one = HiddenStates(
        step, key, way, ids, GROUPS, "source", table, compute_silhouettes(table, GROUPS)
    )
    hidden_state_store.keep_states(place.run(run), one)
    return one


def titles(page: str) -> list[str]:
    """The titles of the maps on a page."""
    section = page.partition("<h2>Hidden states of test items</h2>")[2].partition(
        "<h2>"
    )[0]
    return re.findall(r"<h3>(.*?)</h3>", section)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A grid of two runs with a base in common, which keep states before training,
    half-way and at the end."""
    place = Workspace(tmp_path_factory.mktemp("maps"))
    runs = make(
        place,
        "g",
        [({"arrangement.order": name}, None, 1.0) for name in ("nft", "fft")],
    )
    for number, run in enumerate(runs):
        keep(place, run, 0, apart=1.0)
        keep(place, run, 20, apart=2.0)
        keep(place, run, 50, apart=9.0, seed=number)
    report.write_report(place, "g", ReportOptions())
    return place


def test_a_page_has_the_base_once_and_every_end(place: Workspace) -> None:
    """With the silhouettes of all items and of each source in the title; what is
    between is in MLflow."""
    end = keep(place, "g1", 50, apart=9.0, seed=1)
    page = (place.grid("g") / "report/report.html").read_text()
    base, nft, fft = titles(page)

    assert base.startswith("before training, layer 15: silhouette ")
    assert nft.startswith("nft, after step 50, layer 15: ")
    means = [
        end.silhouettes.mean(),
        *(end.silhouettes[at : at + 8].mean() for at in (0, 8, 16)),
    ]
    said = "fft, after step 50, layer 15: silhouette {:.2f} (code {:.2f}, general {:.2f}, math {:.2f})"
    assert fft == said.format(*means)
    assert (
        page.count(">code/x:0, silhouette") == 0
        and page.count("<title>code: code/x:0, silhouette") == 2 * 3
    )


def test_the_table_beside_the_page_has_every_item(place: Workspace) -> None:
    """Where it is by PCA, to the sign, and by t-SNE, which is the same whenever it is made."""
    found = rows(place, "g", "maps.csv")
    own = [row for row in found if row["of"] == "nft, after step 50"]
    assert (len(found), len(own), {row["run"] for row in own}) == (3 * 24, 24, {"g0"})

    pca, tsne = (
        [[float(row[f"{name}_{axis}"]) for axis in (1, 2)] for row in own]
        for name in ("pca", "tsne")
    )
    centred = states(9.0) - states(9.0).mean(0)
    plain = centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T
    np.testing.assert_allclose(np.abs(pca), np.abs(plain), atol=1e-4)
    again = TSNE(perplexity=23 / 3, init="pca", random_state=0).fit_transform(
        states(9.0).astype(np.float64)
    )
    np.testing.assert_allclose(tsne, again, rtol=1e-4)
    assert (
        compute_silhouettes(
            np.array(tsne), ["math" if group == "math" else "other" for group in GROUPS]
        ).mean()
        > 0.3
    )


def test_bases_that_differ_are_told_apart(tmp_path: Path) -> None:
    """Each with the runs that start from it. Of a model that has diverged there is no map."""
    place = Workspace(tmp_path)
    for number, run in enumerate(
        make(
            place,
            "g",
            [({"arrangement.order": name}, None, 1.0) for name in ("rt", "fft")],
        )
    ):
        keep(place, run, 0, apart=1.0 + number)
    keep(place, "g1", 50, apart=np.nan)

    assert [title.partition(":")[0] for title in titles(written(place, "g"))] == [
        "rt, before training, layer 15",
        "fft, before training, layer 15",
    ]


def test_without_hidden_states_nothing_is_said_of_them(tmp_path: Path) -> None:
    """Nor are pictures left of an older report that had some."""
    place = Workspace(tmp_path)
    make(place, "g", [({"strategy": "dmt"}, None, 1.0)])
    old = place.grid("g") / "report/maps.png"
    old.parent.mkdir()
    old.touch()
    page = report.write_report(place, "g", ReportOptions())

    assert report.files_beside(page) == list(report.BESIDE) and not old.exists()
    assert "Hidden states" not in page.read_text()


def test_many_groups_differ_in_colour_or_mark() -> None:
    """Tasks may be more than there are colours."""
    assert len({map_charts.choose_mark(number) for number in range(64)}) == 64


def test_odd_states_are_drawn_or_named(tmp_path: Path) -> None:
    """States that t-SNE cannot square in 32 bits are scaled first; of those that are no
    numbers, or all the same, the page says why they have no map."""
    place = Workspace(tmp_path)
    axes = [({"arrangement.order": name}, None, 1.0) for name in ("nft", "fft", "rt")]
    large, broken, same = make(place, "odd", axes)
    for run, table in (
        (large, states(9.0) * np.float32(1e37)),
        (broken, np.full((24, 10), np.nan, np.float32)),
        (same, np.full((24, 10), 7, np.float32)),
    ):
        keep_table(place, run, table)
    page = written(place, "odd")

    [title] = titles(page)
    assert title.startswith("nft, after step 50")
    assert f"{broken}, {LAYER} at step 50: some of the states are no numbers" in page
    assert f"{same}, {LAYER} at step 50: the states of all items are the same" in page
    map_rows = rows(place, "odd", "maps.csv")
    assert len(map_rows) == 24
    assert all(np.isfinite(float(row["tsne_1"])) for row in map_rows)


def keep_table(place: Workspace, run: str, table: np.ndarray) -> None:
    """Keeps such states of a run at its last step."""
    ids = [f"{group}/x:{number}" for number, group in enumerate(GROUPS)]
    way = {"layer": 15, "items": 8, "by": None, "pooling": "last"}
    silhouettes = np.zeros(len(ids), np.float32)
    kept = HiddenStates(50, LAYER, way, ids, GROUPS, "source", table, silhouettes)
    hidden_state_store.keep_states(place.run(run), kept)
