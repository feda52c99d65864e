"""Do scores from a file order examples in the published shapes, and is a wrong score
told by line?"""

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.lib.builders import digests as make_digests
from tests.lib.command_line import Zsg
from zsg_core.errors import BadData
from zsg_core.orders.by_scores import arrange_by_scores, shape_by_scores
from zsg_core.orders.order_list import ListFile
from zsg_core.orders.registry import ORDERS, OrderInputs
from zsg_core.orders.score_list import ScoreList, read_scores
from zsg_core.orders.shaping import DEFAULTS
from zsg_core.recipe import arrangement_id, make_recipe
from zsg_core.settings.run import Settings

SMALL = [7 * place % 10 for place in range(23)]  # with many ties
LARGE = [7919 * place % 1000 for place in range(10_000)]
ENDS = {"front": 10, "back": 10, "front_of": "low", "back_of": "high"}
HIGH_ENDS = {"front": 20, "back": 20, "front_of": "high", "back_of": "high"}

# the lists of the authors' code, microsoft/data-efficacy at 2250d2a9
PUBLISHED = [
    ({"shape": "sort"}, "0 10 20 3 13 6 16 9 19 2 12 22 5 15 8 18 1 11 21 4 14 7 17"),
    (
        {"shape": "sort", "direction": "descending"},
        "7 17 4 14 1 11 21 8 18 5 15 2 12 22 9 19 6 16 3 13 0 10 20",
    ),
    (
        {"shape": "fold", "layers": 3},
        "0 3 16 2 5 18 21 7 10 13 9 12 15 1 4 17 20 6 19 22 8 11 14",
    ),
    (
        {"shape": "zigzag", "layers": 3},
        "0 3 16 2 5 18 21 7 17 4 1 15 12 9 13 10 20 6 19 22 8 11 14",
    ),
    (
        {"shape": "stair", "bands": 2, "overlap": 0.225, "layers": 3},
        "0 10 20 3 13 6 16 9 12 15 1 19 22 8 2 5 18 11 21 4 14 7 17",
    ),
    (
        {"shape": "saw", "bands": 3, "overlap": 0.075, "layers": 2},
        "0 10 20 3 13 6 16 19 2 9 12 22 5 15 18 1 8 11 21 4 14 7 17",
    ),
    (  # whose windows touch
        {"shape": "saw", "bands": 4, "overlap": 0.2, "layers": 2},
        "0 10 3 6 9 2 12 19 16 13 20 22 15 18 1 8 5 11 4 7 14 21 17",
    ),
    (
        {"shape": "segment", **ENDS},
        "10 0 6 9 1 16 22 18 11 14 19 8 4 5 3 15 13 21 2 12 20 17 7",
    ),
    (
        {"shape": "segment", **HIGH_ENDS},
        "4 17 7 21 20 6 9 19 15 12 13 22 8 3 10 5 0 16 2 14 1 11 18",
    ),
    (
        {"shape": "sort", "jitter": 4},
        "3 20 10 0 9 16 13 6 19 22 12 2 8 18 5 15 21 4 1 11 7 14 17",
    ),
    (
        {"shape": "fold", "layers": 3, "jitter": 4},
        "2 16 3 0 7 21 5 18 10 12 9 13 4 17 15 1 19 22 20 6 11 8 14",
    ),
    (
        {"shape": "sort", "noise": 2},
        "0 20 10 6 3 16 9 13 22 2 12 15 5 19 8 1 21 18 4 14 17 11 7",
    ),
]
# and the first 16 digits of the SHA-256 of longer ones, a place in a line
PUBLISHED_DIGESTS = [
    ({"shape": "sort"}, "70abb87504079c00"),
    ({"shape": "sort", "direction": "descending"}, "e7735c86b9405f09"),
    ({"shape": "fold", "layers": 3}, "0cd736098f1b9ad3"),
    ({"shape": "fold", "layers": 5}, "21bed341dbf376be"),
    ({"shape": "zigzag", "layers": 5}, "ba71b2cddabed6e2"),
    ({"shape": "stair", **DEFAULTS["stair"]}, "dec3a7948e3d433d"),
    ({"shape": "saw", **DEFAULTS["saw"]}, "61c927178c49c0cc"),
    ({"shape": "segment", **DEFAULTS["segment"]}, "d2c0157d997875b8"),
    ({"shape": "sort", "jitter": 4}, "7d56ae9ba1f86a8c"),
]


@pytest.mark.parametrize(("recipe", "expected"), PUBLISHED)
def test_the_shapes_are_those_of_the_authors(
    recipe: dict[str, Any], expected: str
) -> None:
    """Also where scores tie: the first place comes first in both directions. Seed 42."""
    assert shape_by_scores(SMALL, recipe, 42) == list(map(int, expected.split()))


@pytest.mark.parametrize(("recipe", "expected"), PUBLISHED_DIGESTS)
def test_long_lists_are_those_of_the_authors(
    recipe: dict[str, Any], expected: str
) -> None:
    """Ten thousand places, by their digest. Seed 42."""
    shaped = shape_by_scores(LARGE, recipe, 42)
    text = "\n".join(map(str, shaped))
    digests = {
        hashlib.sha256(f"{text}{end}".encode()).hexdigest() for end in ("", "\n")
    }

    assert expected in {digest[:16] for digest in digests}


@given(
    st.lists(st.integers(-3, 3), max_size=40),
    st.sampled_from([recipe for recipe, _ in PUBLISHED]),
    st.integers(1, 50),
    st.floats(0, 1),
)
def test_every_shape_is_a_permutation(
    scores: list[int], recipe: dict[str, Any], number: int, share: float
) -> None:
    """Whatever the numbers: no example is lost, none comes twice."""
    changed = dict(recipe)
    for key in ("layers", "bands", "jitter"):
        if key in changed:
            changed[key] = number
    for key, value in (("overlap", share), ("front", 100 * share), ("back", number)):
        if key in changed:
            changed[key] = value

    assert sorted(shape_by_scores(scores, changed, 1)) == list(range(len(scores)))


NAMES = ["b:1", "a:2", "a:0"]
VALUES = [0.5, -2.0, 1e300]


def write_text(path: Path) -> None:
    rows = zip(NAMES, VALUES, strict=True)
    path.write_text("".join(f"{name}\t{value!r}\n" for name, value in rows))


def write_json(key: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        rows = reversed(list(zip(NAMES, VALUES, strict=True)))
        lines = (json.dumps({"id": name, key: value}) for name, value in rows)
        path.write_text("".join(f"{line}\n" for line in lines))

    return write


def write_parquet(path: Path) -> None:
    parquet.write_table(pa.table({"id": NAMES, "ifd": VALUES}), path)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("x.tsv", write_text),
        ("x.jsonl", write_json("score")),
        ("x.jsonl#ifd", write_json("ifd")),
        ("x.parquet#ifd", write_parquet),
    ],
)
def test_scores_are_the_same_from_every_format(
    tmp_path: Path, name: str, write: Callable[[Path], None]
) -> None:
    """Their digest, which is what a run id knows of them, does not ask for the order of
    rows."""
    write(tmp_path / name.partition("#")[0])

    read = read_scores(ListFile.parse(str(tmp_path / name)))

    assert read.ids is not None
    assert dict(zip(read.ids, read.scores, strict=True)) == dict(
        zip(NAMES, VALUES, strict=True)
    )
    assert read.digest == ScoreList(Path("x"), VALUES, NAMES).digest
    assert read.digest != ScoreList(Path("x"), VALUES[::-1], NAMES).digest


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("x.tsv", "", "x.tsv: has no score"),
        ("x.tsv", "a\t1\nb 2\n", "x.tsv:2: has no tab"),
        ("x.tsv", "a\t1\nb\tnan\n", "x.tsv:2: 'nan' is no score"),
        ("x.tsv", "a\thigh\n", "x.tsv:1: 'high' is no score"),
        ("x.tsv", "a\t1\na\t1\n", "x.tsv:2: 'a' has a score already"),
        ("x.jsonl", '{"id": "a"}\n', "x.jsonl:1: has no key 'score'"),
        ("x.jsonl", '{"id": "a", "score": null}\n', "x.jsonl:1: None is no score"),
        ("x.jsonl", '{"id": "a", "score": true}\n', "x.jsonl:1: True is no score"),
        ("x.jsonl", '{"id": "a", "score": 1e999}\n', "x.jsonl:1: "),
        ("x.jsonl", '{"id": 1.5, "score": 1}\n', "x.jsonl:1: 1.5 is no id"),
        ("x.npy", "a", "x.npy: cannot be read as .npy"),
        ("x.parquet", "a", "x.parquet: "),
    ],
)
def test_what_is_no_score_is_told_by_line(
    tmp_path: Path, name: str, text: str, said: str
) -> None:
    """NaN, too: it would have no place in an order."""
    (tmp_path / name).write_text(text)

    with pytest.raises(BadData) as caught:
        read_scores(ListFile(tmp_path / name))

    assert str(caught.value).startswith(f"{tmp_path}/{said}")


@pytest.mark.parametrize(
    "array", [np.zeros((2, 2)), np.array(["a"]), np.array([1, math.inf])]
)
def test_an_array_that_is_no_row_of_scores_is_refused(
    tmp_path: Path, array: Any
) -> None:
    """Each score must be a finite number."""
    np.save(tmp_path / "x.npy", array)

    with pytest.raises(BadData, match=r"x\.npy"):
        read_scores(ListFile(tmp_path / "x.npy"))


ITEMS = ["a:0", "a:1", "a:2", "b:0", "b:1"]


def make_inputs(
    scores: ScoreList,
    published: Sequence[str | None] = (),
    others: Sequence[str] = (),
    **recipe: Any,
) -> OrderInputs:
    """What the order is made from, over five items of two tasks."""
    return OrderInputs(
        recipe={"order": "scores", "shape": "sort", **recipe},
        tasks=[name[0] for name in ITEMS],
        distances=list,
        rounds=lambda farthest, cap: iter(()),
        ids=ITEMS,
        published_ids=lambda: published,
        other_ids=lambda: {*ITEMS, *others},
        read_input=lambda: scores,
    )


def scores_of(*ids: str) -> ScoreList:
    """The score of each is its number."""
    return ScoreList(Path("x.tsv"), list(range(len(ids))), ids)


def test_scores_are_of_ids_or_of_places() -> None:
    """Of zsg's ids, of the data's own, or one of each place."""
    expected = [4, 2, 0, 3, 1]
    own = ["q0", "q1", "q2", "q3", "q4"]
    by_id = scores_of("b:1", "a:2", "a:0", "b:0", "a:1")
    by_own = scores_of("q4", "q2", "q0", "q3", "q1")
    by_place = ScoreList(Path("x.npy"), [2, 4, 1, 3, 0])

    assert arrange_by_scores(make_inputs(by_id)).places == expected
    assert arrange_by_scores(make_inputs(by_own, own)).places == expected
    assert arrange_by_scores(make_inputs(by_place)).places == expected


def test_examples_without_a_score_are_left_out_only_where_it_is_asked_for() -> None:
    """Else they are named."""
    part = scores_of("b:1", "a:2")

    assert arrange_by_scores(make_inputs(part, rest="drop")).places == [4, 2]
    with pytest.raises(BadData) as caught:
        arrange_by_scores(make_inputs(part))
    assert str(caught.value).startswith(
        "x.tsv: has no score of 3 of 5 training examples: a:0, a:1, b:0. Set"
    )


def test_scores_of_examples_that_are_not_trained_on_are_passed_over() -> None:
    """A file over all of the data is normal, and how many are passed over is kept with
    the order."""
    scores = scores_of("b:1", "held:1", "a:2", "a:0", "b:0", "a:1", "a:7")

    made = arrange_by_scores(make_inputs(scores, others=["held:1", "a:7"]))

    assert made.places == [4, 2, 0, 3, 1]
    assert made.facts["scored"] == {"count": 5, "passed_over": 2}


def test_scores_of_more_data_are_passed_over_where_all_examples_have_one() -> None:
    """One file for several sets of data is normal: then no id can be a mistake that
    matters, and the others are counted."""
    scores = scores_of("b:1", "other:1", "a:2", "a:0", "b:0", "a:1", "other:2")

    made = arrange_by_scores(make_inputs(scores))

    assert made.places == [4, 2, 0, 3, 1]
    assert made.facts["scored"] == {"count": 5, "passed_over": 2}


@pytest.mark.parametrize("rest", [{"rest": "drop"}, {}])
def test_a_score_of_what_is_no_example_is_told_by_line(rest: dict[str, str]) -> None:
    """With the name that may be meant, also where examples without a score may be left
    out: else wrong ids would leave nearly all of them out, and nothing would tell."""
    scores = scores_of("b:1", "a:2", "a:0", "a:O", "b;1")

    with pytest.raises(BadData) as caught:
        arrange_by_scores(make_inputs(scores, **rest))

    assert str(caught.value).startswith(
        "x.tsv:4: no training example has the id 'a:O'; ids look like 'a:0'. Did you mean"
    )
    assert str(caught.value).endswith("So it is with 1 further entries.")


def test_scores_of_held_out_examples_alone_are_told_to_be_that() -> None:
    held = scores_of("held:1", "held:2")

    with pytest.raises(BadData, match=r"x\.tsv:1: 'held:1' is held out, or was not"):
        arrange_by_scores(make_inputs(held, others=held.ids or (), rest="drop"))


def test_a_wrong_row_of_parquet_is_told_by_its_number(tmp_path: Path) -> None:
    """From 0 on, as of a list."""
    parquet.write_table(
        pa.table({"id": ITEMS, "score": [1] * 5}), tmp_path / "x.parquet"
    )
    scores = read_scores(ListFile(tmp_path / "x.parquet"))

    with pytest.raises(BadData, match=r"x\.parquet\[4\]: no training example has the"):
        arrange_by_scores(
            replace(make_inputs(scores), ids=[*ITEMS[:4], "b:9"], other_ids=set)
        )


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        (scores_of("c", "d"), r"x\.tsv:1: no training example has the id 'c'"),
        (ScoreList(Path("x.npy"), [1.0]), "has 1 scores by place, and there are 5"),
    ],
)
def test_scores_of_other_data_are_refused(scores: ScoreList, said: str) -> None:
    with pytest.raises(BadData, match=said):
        arrange_by_scores(make_inputs(scores))


def settings_of(**arrangement: Any) -> Settings:
    """A run in an order by scores."""
    arrangement = {"order": "scores", "path": "x.tsv", **arrangement}
    return Settings.model_validate(
        {"data": {"path": "tasks"}, "train": {"lr": 1}, "arrangement": arrangement}
    )


@pytest.mark.parametrize(
    ("arrangement", "said"),
    [
        ({"path": None}, "order scores needs `path`"),
        ({"layers": 3}, "`layers` does nothing in shape sort, only in fold and zigzag"),
        ({"shape": "fold", "bands": 3}, "`bands` does nothing in shape fold"),
        ({"shape": "saw", "front": 3}, "`front` does nothing in shape saw"),
        ({"shape": "segment", "direction": "descending"}, "take `direction` out"),
        ({"shape": "segment", "jitter": 4}, "take `jitter` out"),
        ({"shape": "fold", "noise": 1}, "`noise` goes with shape sort"),
        ({"order": "random", "path": None, "shape": "fold"}, "`shape` does nothing"),
    ],
)
def test_settings_that_do_nothing_are_refused(
    arrangement: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        settings_of(**arrangement)


def identify(digest: str, **arrangement: Any) -> str:
    """The id of the arrangement."""
    settings = settings_of(**arrangement)
    digests = make_digests("d" * 64, order_input=digest)
    return arrangement_id(make_recipe(settings, digests))


def test_scores_shape_and_its_numbers_make_the_run() -> None:
    """A default that is written out is the same; a seed counts where something is drawn."""
    made = identify("d1", shape="saw")

    assert identify("d1", shape="saw", bands=3, layers=2, overlap=0.075) == made
    assert identify("d1", seed=5, shape="saw", path="elsewhere.parquet#x") == made
    assert identify("d1", seed=5, shape="saw", jitter=4) != identify(
        "d1", shape="saw", jitter=4
    )
    others = [
        identify("d2", shape="saw"),
        identify("d1", shape="saw", bands=4),
        identify("d1", shape="saw", direction="descending"),
        identify("d1", shape="stair"),
        identify("d1"),
    ]
    assert len({made, *others}) == 6


GRID = """
name: scored
defaults:
  data: {{path: {tasks}, train_per_task: 2, test_per_task: 1}}
  train: {{batch: 8, lr: 1e-3}}
  arrangement: {{order: scores, path: scores.npy}}
grid:
  arrangement.shape: [sort, zigzag, segment]
"""


def test_a_grid_of_shapes_is_arranged(zsg: Zsg, tasks: Path) -> None:
    """The three orders of one score file, from the command line."""
    scores = [7 * place % 10 for place in range(48)]
    np.save(zsg.folder / "scores.npy", np.array(scores))
    rows = json.loads(
        zsg("arrange", "make", "--json", zsg.write("g.yaml", GRID.format(tasks=tasks)))
    )

    shapes = {
        row["axes"][0]["arrangement.shape"]: np.load(
            zsg.work / "arrangements" / row["arrangement"] / "places.npy"
        ).tolist()
        for row in rows
    }
    for shape, places in shapes.items():
        recipe = {"shape": shape, **DEFAULTS[shape]}
        assert places == shape_by_scores(scores, recipe, 0)
    assert ORDERS["scores"].leaves_out == ("rest",)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.csv", 'id,other,score\n"a:0",9,2\na:1,8,-.5\n"b,0",7,1e3\n'),
        (
            "x.json",
            '[{"id": "a:0", "score": 2}, {"id": "a:1", "score": -0.5},\n'
            ' {"id": "b,0", "score": 1000.0}]',
        ),
        (
            "x.jsonl",
            '{"id": "a:0", "score": 2}\n{"id": "a:1", "score": -0.5}\n'
            '{"id": "b,0", "score": 1000}\n',
        ),
        ("x.tsv", "a:0\t2\na:1\t-.5\nb,0\t1e3\n"),
    ],
)
def test_scores_count_however_they_are_written(
    tmp_path: Path, name: str, text: str
) -> None:
    """CSV with a header, an array of JSON, JSON lines and text have one digest."""
    (tmp_path / name).write_text(text)
    scores = read_scores(ListFile(tmp_path / name))

    assert scores.ids == ["a:0", "a:1", "b,0"] and scores.scores == [2, -0.5, 1000]
    expected = ScoreList(Path("y"), [2.0, -0.5, 1000.0], ["a:0", "a:1", "b,0"])
    assert scores.digest == expected.digest


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.tsv", "a:0\t3_0\n", r"x\.tsv:1: '3_0' is no score"),
        ("x.tsv", "a:0\t1\na:1\t\u0663\n", r"x\.tsv:2: '\u0663' is no score"),
        ("x.tsv", "a:0\tinf\n", r"x\.tsv:1: 'inf' is no score"),
        ("x.csv", "id,score\na:0,nan\n", r"x\.csv:2: 'nan' is no score"),
        ("x.csv", "id,value\na:0,1\n", r"x\.csv:1: the header has no column 'score'"),
        (
            "x.csv",
            "id,score\na:0,1,2\n",
            r"x\.csv:2: has 3 cells, and the header has 2",
        ),
        ("x.json", '{"a:0": 1}', r"x\.json: is no array of JSON"),
        ("x.json", '[{"id": "a:0"}]', r"x\.json\[0\]: has no key 'score'"),
        ("x.pt", "PK", r"x\.pt: \.pt is not read.*save the one as \.npy"),
        ("x.pkl", "", r"x\.pkl: \.pkl is not read"),
        ("x.npz", "PK", r"x\.npz: \.npz is not read"),
    ],
)
def test_what_is_no_file_of_scores_is_told(
    tmp_path: Path, name: str, content: str, said: str
) -> None:
    """With line, row or form."""
    (tmp_path / name).write_text(content)
    with pytest.raises(BadData, match=said):
        read_scores(ListFile(tmp_path / name))
