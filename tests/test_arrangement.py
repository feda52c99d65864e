"""Does the prepare job make every order that a grid can ask for, from one embedding?"""

import json
from typing import Any

import numpy as np
import pytest

from benchmarks.report import listed_run, record_run
from jobs.contract import item_losses
from jobs.contract.folder import Workspace, read_json, write_json
from jobs.preparing.corpus import Corpus
from launcher.reporting.data import (
    arrangements,
    order_comparison,
    order_scores,
    seen_similarity,
)
from launcher.reporting.figures import order_charts
from tests.lib.command_line import Zsg
from zsg_core.digest import digest_ids
from zsg_core.errors import UserError

GRID = """\
name: orders
defaults:
  data: {{path: {tasks}, train_per_task: null}}
grid:
  - {{arrangement.order: [nft, rt, fft, random]}}
  - {{arrangement.order: nft, arrangement.measure: [cosine_max, euclidean_centroid, kl, ot]}}
  - {{arrangement.order: nft, arrangement.granularity: coarse}}
  - {{arrangement.order: tma, arrangement.list: [min, max]}}
  - {{arrangement.order: tma, arrangement.list: [min-max, random], arrangement.cap: 40}}
  - {{arrangement.order: tma, arrangement.rounds: ["0:1", "1:2"]}}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory, tasks):
    """A workspace with the arrangements of a grid, and their rows by axes."""
    zsg = Zsg(tmp_path_factory.mktemp("orders"))
    rows = json.loads(
        zsg(
            "arrange",
            "make",
            "--json",
            zsg.write("grid.yaml", GRID.format(tasks=tasks)),
        )
    )
    return zsg, {" ".join(map(str, row["axes"][0].values())): row for row in rows}


def opened(made, name: str) -> arrangements.Arrangement:
    """One arrangement of the workspace."""
    zsg, rows = made
    return arrangements.find_arrangement(Workspace(zsg.work), rows[name]["arrangement"])


def shown(made, *argv: Any) -> Any:
    """What a command under `zsg arrange` prints as JSON."""
    return json.loads(made[0]("arrange", *argv, "--json"))


def test_every_order_of_the_grid_is_made(made):
    """All fifteen differ, none holds an example twice, and each says how many of the
    corpus it leaves out."""
    rows = made[1]
    everything = dict(
        zip(
            opened(made, "random").places.tolist(),
            opened(made, "random").ids,
            strict=True,
        )
    )

    assert len({row["arrangement"] for row in rows.values()}) == len(rows) == 15
    for name in rows:
        one = opened(made, name)
        assert (
            len(set(one.ids))
            == len(one.ids)
            == one.meta["count"]
            == len(everything) - one.meta["left_out"]
        )
        assert [everything[place] for place in one.places.tolist()] == one.ids
        assert one.meta["ids_digest"] == digest_ids(one.ids)


def test_only_capped_orders_leave_something_out(made):
    """Uncapped orders hold the full set."""
    short = {name for name in made[1] if opened(made, name).meta["left_out"]}

    assert short == {"tma min-max 40", "tma random 40", "tma 0:1", "tma 1:2"}


def test_all_orders_share_one_embedding_of_each_split(made):
    """Texts are embedded once for all orders."""
    assert (
        len([path for path in (made[0].work / "embeddings").iterdir() if path.is_dir()])
        == 2
    )


def test_making_again_makes_nothing(made):
    """What is there is left alone."""
    zsg, rows = made
    again = json.loads(zsg("arrange", "make", "--json", zsg.folder / "grid.yaml"))

    assert {row["arrangement"]: row["new"] for row in again} == {
        row["arrangement"]: False for row in rows.values()
    }


def test_rounds_are_parts_of_the_list(made):
    """Rounds 0 and 1 follow one another at the head of `min`; their sizes are told."""
    whole, first, second = (
        opened(made, name) for name in ("tma min", "tma 0:1", "tma 1:2")
    )

    assert whole.ids[: len(first.ids) + len(second.ids)] == first.ids + second.ids
    assert whole.meta["rounds"][:2] == [len(first.ids), len(second.ids)]


def test_show_tells_the_order(made):
    """Its recipe, its head, its rounds and which tasks stand where."""
    one = opened(made, "tma min")
    told = shown(made, "show", one.id[:8], "--head", "3")

    assert (told["recipe"]["list"], told["head"], sum(told["rounds"])) == (
        "min",
        one.ids[:3],
        one.meta["count"],
    )
    assert [(part["from"], part["to"]) for part in told["parts"]] == [
        (round(len(one.ids) * k / 10), round(len(one.ids) * (k + 1) / 10))
        for k in range(10)
    ]
    assert "first: " + ", ".join(one.ids[:3]) in made[0](
        "arrange", "show", one.id, "--head", "3"
    )


def test_compare_measures_how_alike_two_orders_are(made):
    """fft is nft backwards: rank correlation −1 and nothing in common before the middle."""
    told = shown(made, "compare", opened(made, "nft").id, opened(made, "fft").id)
    itself = shown(made, "compare", opened(made, "nft").id, opened(made, "nft").id)

    assert told["spearman"] == pytest.approx(-1)
    assert list(told["overlap"].values()) == [0, 0, 0, 0, 0, 1]
    assert (itself["spearman"], set(itself["overlap"].values())) == (1, {1})


def test_orders_of_different_lengths_are_compared_by_what_both_hold():
    """Ranks are counted among the shared examples."""
    rank_correlation = order_comparison.rank_correlation

    assert rank_correlation([(0, 5), (3, 9), (4, 7)]) == pytest.approx(0.5)
    assert rank_correlation([(1, 1)]) is None


@pytest.mark.parametrize(
    ("second", "same", "first_different"),
    [
        ("badcfe", 3, None),
        ("abdcef", 3, None),
        ("abcfed", 1, 2),
        ("abcd", 2, 3),
        ("fedcba", 1, 1),
    ],
)
def test_two_orders_are_compared_step_by_step(second, same, first_different):
    """Within a step the order of the examples does not count; a step that only one
    order has is a difference."""
    shared = order_comparison.count_same_steps("abcdef", second, batch=2)

    assert (shared.steps, shared.same) == (3, same)
    assert shared.first_different == first_different


def test_examples_that_stand_twice_are_counted_in_each_step():
    """A step of twice the same example is not a step of it and another."""
    shared = order_comparison.count_same_steps("aabb", "abab", batch=2)
    again = order_comparison.count_same_steps("aabb", "aabb", batch=2)

    assert (shared.same, again.same) == (0, 2)


def test_compare_says_when_two_orders_are_one_experiment(made):
    """By the batch that is asked; without runs it says how to ask."""
    zsg, _ = made
    nft = opened(made, "nft").id
    alike = zsg("arrange", "compare", nft, nft, "--batch", "8")
    apart = shown(made, "compare", nft, opened(made, "fft").id, "--batch", "8")
    asked = zsg("arrange", "compare", nft, nft)

    assert "batch of 8: the same examples at every one of" in alike
    assert apart["same_steps"][0]["first_different"] == 1
    assert "--batch N compares them step by step" in asked


def test_any_score_is_drawn_along_an_order(made):
    """By ids or by places; examples without a score are told, and left out of the
    means."""
    zsg, _ = made
    order = opened(made, "nft")
    rows = [
        {"id": example, "ifd": rank / 10} for rank, example in enumerate(order.ids[:-3])
    ]
    text = "".join(f"{json.dumps(row)}\n" for row in rows)
    zsg.write("scores.jsonl", text)
    scores = str(zsg.folder / "scores.jsonl#ifd")
    zsg("arrange", "draw", order.id, "--score", scores, "--out", "scores.png")
    placed = order_scores.place_scores(order, order_scores.read_drawn_scores(scores))

    assert placed[:3].tolist() == [0, 0.1, 0.2]
    assert np.isnan(placed[-3:]).all()
    assert f"3 of {len(order.ids)} examples have no score" in zsg.said
    assert (zsg.folder / "scores.png").read_bytes().startswith(b"\x89PNG")


def test_scores_by_place_are_those_of_the_training_list(made, tmp_path):
    """The score of place 7 is that of the seventh training example wherever the order
    puts it."""
    order = opened(made, "fft")
    everything = opened(made, "random").meta["count"]
    np.save(tmp_path / "scores.npy", np.arange(float(everything)))
    scores = order_scores.read_drawn_scores(str(tmp_path / "scores.npy"))

    assert order_scores.place_scores(order, scores).tolist() == order.places.tolist()


def test_scores_of_other_examples_are_not_drawn(made, tmp_path):
    """The error shows an id of each side; so for too few scores by place."""
    order = opened(made, "nft")
    (tmp_path / "other.tsv").write_text("elsewhere:1\t0.5\n")
    np.save(tmp_path / "short.npy", np.arange(3.0))
    other = order_scores.read_drawn_scores(str(tmp_path / "other.tsv"))
    short = order_scores.read_drawn_scores(str(tmp_path / "short.npy"))

    with pytest.raises(UserError, match="such as 'elsewhere:1', is in arrangement"):
        order_scores.place_scores(order, other)
    with pytest.raises(UserError, match="has 3 scores by place, and corpus"):
        order_scores.place_scores(order, short)


def test_windows_leave_out_what_has_no_score():
    """A window of nothing but unknown values has no mean."""
    values = np.array([np.nan, 2.0, np.nan, np.nan, 5.0])
    _, means = order_charts.average_windows(values)

    assert np.isnan(means[0]) and means[1] == 2.0 and means[4] == 5.0


def test_the_picture_is_drawn_from_the_distances(made):
    """A PNG; similarity falls along nft, and a random order takes the embedding of its
    neighbours."""
    zsg, _ = made
    nearest, average = arrangements.measure_similarity(opened(made, "nft"))
    weight = nearest.mean() / average.mean()
    by_chance = arrangements.measure_similarity(opened(made, "random"))
    zsg(
        "arrange",
        "draw",
        opened(made, "nft").id,
        opened(made, "random").id,
        "--out",
        "a.png",
    )

    assert (np.diff(nearest + weight * average) <= 1e-12).all()
    assert sorted(by_chance[0].tolist()) == sorted(nearest.tolist())
    assert (zsg.folder / "a.png").read_bytes().startswith(b"\x89PNG")


def test_windows_of_a_picture_cover_the_order():
    """Each mean is of 160 examples, the last of those that are left."""
    where, means = order_charts.average_windows(np.arange(3300.0))

    assert (where[0], means[0], where[-1], means[-1]) == (80, 79.5, 3250, 3249.5)


@pytest.mark.parametrize(
    ("asked", "told"), [("zz", "no arrangement or run 'zz'"), ("", "give more of it")]
)
def test_an_id_that_names_none_or_many_is_refused(made, asked, told):
    """One clear message."""
    zsg, _ = made
    zsg("arrange", "show", asked, code=2)

    assert told in zsg.said


def test_a_grid_that_cannot_be_arranged_says_why(made):
    """The reason of the failed prepare job, and where its log is."""
    zsg, _ = made
    text = (zsg.folder / "grid.yaml").read_text().split("grid:")[
        0
    ] + "grid: [{arrangement.rounds: ['90:99']}]\n"
    text = text.replace("defaults:", "defaults:\n  arrangement: {order: tma}")
    zsg("arrange", "make", zsg.write("far.yaml", text), code=2)

    assert "90:99 was asked, but all is taken after" in zsg.said


def record_trained(made, order: arrangements.Arrangement) -> Any:
    """A run of the workspace that was trained on an order and tested on its corpus."""
    zsg, _ = made
    place = Workspace(zsg.work)
    tests = Corpus(place, order.corpus).test
    steps = list(range(12))
    listed = listed_run("5eeb", {})
    losses = np.random.default_rng(0).normal(2, 0.1, (len(steps), len(tests.ids)))
    record_run(place, listed, steps, tests.tasks, losses)
    job = place.run("5eeb") / "job.json"
    row = read_json(job)
    row["made"] = {"corpus": order.corpus, "arrangement": order.id}
    write_json(job, row)
    item_losses.describe_items(
        place.run("5eeb"), tests.ids, tests.tasks, [1] * len(tests.ids), {}
    )
    return seen_similarity.measure_seen(place, "5ee")


def test_what_a_run_has_seen_is_measured_against_its_test_tasks(made):
    """At every checkpoint but the first, where nothing was seen; the nearest test item
    of the whole order is that of the whole corpus."""
    order = opened(made, "fft")
    seen = record_trained(made, order)
    nearest, _ = arrangements.measure_similarity(order)
    lowest = seen.measures["cosine_min"].min(axis=1)

    assert list(seen.steps) == list(range(1, 12))
    assert set(seen.measures) == {
        f"{kind}_{name}"
        for kind in ("cosine", "euclidean")
        for name in ("avg", "min", "max", "centroid")
    } | {"kl", "kl_repeated"}
    assert all(table.shape == seen.losses.shape for table in seen.measures.values())
    assert (np.diff(lowest) <= 0).all()
    first = min(seen.examples[0], len(order.ids))
    assert -lowest[0] == pytest.approx(nearest[:first].max(), abs=1e-6)


def test_what_was_seen_is_drawn_and_written(made):
    """A picture, a table, and a task that there is none of."""
    zsg, _ = made
    seen = record_trained(made, opened(made, "fft"))
    said = zsg("arrange", "seen", "5eeb", "--out", "seen.csv", "--task", seen.tasks[0])
    zsg("arrange", "seen", "5eeb", "--out", "seen.png")
    lines = (zsg.folder / "seen.csv").read_text(encoding="utf-8").splitlines()

    assert "cosine_min" in said
    assert len(lines) == 1 + len(seen.steps)
    assert (zsg.folder / "seen.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UserError, match="is not tested on it"):
        seen_similarity.choose_tasks(seen, ["nothing"])
