"""Do many spellings become few tags, by InsTag's steps?"""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from zsg_core.makers import tag_rules
from zsg_core.makers.density_clusters import cluster_by_density
from zsg_core.makers.tag_rules import (
    MeaningRule,
    TagRule,
    apply_rules,
    count_tags,
    find_associations,
    normalise_tags,
)

pytestmark = pytest.mark.engine

# three spellings of one thing, each rare; two things that always come together
ROWS = [
    ["Math", "math problem"],
    ["math-problem", "Maths"],
    ["Math problems", "math"],
    ["cooking", "recipe"],
    ["cooking", "Recipes", "recipe"],
]


def make_rule(**changed: Any) -> TagRule:
    values = {"at_least": 2, "frequency": "rules", "support": 0, "confidence": 0.99}
    return TagRule(**{**values, **changed})


@pytest.fixture
def goldens(real_data: Path) -> dict[str, Any]:
    """Values of another implementation of the published rules."""
    path = real_data.parent / "goldens" / "makers_goldens.json"
    return json.loads(path.read_text(encoding="utf-8"))["instag"]


def test_tags_are_those_of_another_implementation(goldens: dict[str, Any]) -> None:
    """Counts, the frequency filter on raw tags, the rules, and the filter after them."""
    rows, at_least = goldens["raw"], goldens["alpha"]
    rare = tag_rules.drop_rare(rows, at_least)
    kept = [tag for tag in count_tags(rows) if tag not in rare]

    assert dict(count_tags(rows)) == goldens["counts"]
    assert sorted(kept) == sorted(goldens["kept_by_frequency_on_raw_tags"])
    assert {tag: apply_rules(tag) for tag in goldens["rule"]} == goldens["rule"]
    by_rules = tag_rules.replace_tags(rows, goldens["rule"])
    assert dict(count_tags(by_rules)) == goldens["counts_after_rule"]
    normalised = normalise_tags(rows, make_rule(at_least=at_least))
    assert [list(row) for row in normalised.rows] == goldens[
        "after_rule_then_frequency"
    ]


def test_associations_are_those_of_another_implementation(
    goldens: dict[str, Any],
) -> None:
    """Support and confidence of every rule between two tags."""
    wanted = goldens["association"]
    found = find_associations(
        goldens["after_rule_then_frequency"],
        wanted["min_support"],
        wanted["min_confidence"],
    )

    as_lists = [[r.tag, r.implied, r.support, r.confidence] for r in found]
    assert as_lists == wanted["rules"]


def test_dropping_rare_tags_before_the_rules_loses_what_has_many_spellings() -> None:
    """Each spelling of math is rare, and math is not."""
    raw = normalise_tags(ROWS, make_rule(frequency="raw"))
    rules = normalise_tags(ROWS, make_rule(frequency="rules"))

    assert raw.rows == [(), (), (), ("cook", "recip"), ("cook", "recip")]
    assert rules.rows[:3] == [("math", "math problem")] * 3


def test_every_step_is_counted_and_every_spelling_accounted_for() -> None:
    """What the model wrote leads to a tag, or to nothing."""
    rows = [*ROWS, ["poem"], ["---"]]
    normalised = normalise_tags(rows, make_rule(support=2))

    steps = [(step.step, step.tags, step.dialogues) for step in normalised.steps]
    assert steps == [
        ("written", 11, 7),
        ("rules", 5, 6),
        ("frequency", 4, 5),
        ("association", 2, 5),
    ]
    assert normalised.spellings["Math problems"] == "math"
    assert normalised.spellings["Recipes"] == "cook"
    assert normalised.spellings["poem"] is None
    assert normalised.spellings["---"] is None
    assert normalised.spellings.keys() == count_tags(rows).keys()


def test_a_dialogue_counts_once_however_often_it_has_a_tag() -> None:
    """Twenty spellings in one dialogue are no frequent tag."""
    normalised = normalise_tags([["poem", "Poem", "POEMS"], ["song"]], make_rule())

    assert normalised.rows == [(), ()]


def test_a_tag_goes_over_into_the_better_ranked_one_that_it_implies() -> None:
    """A chain ends with its last tag: bb stands 200 times, 198 of them beside cc."""
    rows = [("a", "bb")] * 2 + [("bb", "cc")] * 198 + [("cc",)] * 5

    names = tag_rules.join_by_association(rows, support=2, confidence=0.99)

    assert names == {"a": "cc", "bb": "cc"}


def test_merging_goes_on_until_no_tag_implies_another() -> None:
    """Merged tags make new pairs, which are looked for again."""
    draw = random.Random(1)
    rows = [draw.sample("abcdefghij", draw.randint(1, 4)) for _ in range(60)]

    names = tag_rules.join_by_association(rows, support=3, confidence=0.5)
    merged = tag_rules.replace_tags(rows, names)

    assert find_associations(merged, 3, 0.5) == []
    assert not set(names.values()) & names.keys()


def test_a_tag_that_implies_two_joins_one_and_leaves_them_apart() -> None:
    """A rare tag does not make one of two frequent ones."""
    rows = [("rare", "x"), ("rare", "x")] + [("x",)] * 3 + [("y",)] * 9
    rows = [("rare", "x", "y"), ("rare", "x", "y"), *rows[2:]]

    assert tag_rules.join_by_association(rows, 2, 0.99) == {"rare": "y"}


def test_associations_equal_a_plain_count() -> None:
    """On drawn rows: every pair, both ways, by definition."""
    draw = random.Random(3)
    rows = [draw.sample("abcdefg", draw.randint(0, 4)) for _ in range(120)]
    found = {(r.tag, r.implied): r for r in find_associations(rows, 5, 0.3)}

    for tag in "abcdefg":
        for implied in set("abcdefg") - {tag}:
            both = sum(tag in row and implied in row for row in rows)
            share = both / sum(tag in row for row in rows)
            assert ((tag, implied) in found) == (both >= 5 and share >= 0.3)


def encode_by_first_letter(texts: list[str]) -> NDArray[np.float32]:
    """Texts of one first letter are one direction."""
    vectors = np.zeros((len(texts), 26), np.float32)
    for row, text in enumerate(texts):
        vectors[row, ord(text[0].lower()) - ord("a")] = 1
    return vectors


def test_tags_of_one_meaning_take_the_name_of_the_most_frequent() -> None:
    """Of equals the shortest. What is embedded is the best spelling, not the stem."""
    embedded: list[str] = []

    def encode(texts: list[str]) -> NDArray[np.float32]:
        embedded.extend(texts)
        return encode_by_first_letter(texts)

    meaning = MeaningRule(threshold=0.05, kind="distance", least_neighbours=1)
    rows = [["Recipes"], ["Recipes"], ["recipe", "roast"], ["soup"]]
    normalised = normalise_tags(rows, make_rule(at_least=1, meaning=meaning), encode)

    assert normalised.rows == [("recip",), ("recip",), ("recip",), ("soup",)]
    assert embedded == ["Recipes", "soup", "roast"]


@pytest.mark.parametrize(("kind", "limit"), [("distance", 0.95), ("similarity", 0.05)])
def test_the_threshold_is_a_distance_or_a_similarity(kind: str, limit: float) -> None:
    """The published 0.05 may be read as either."""
    rule = MeaningRule(threshold=0.05, kind=kind, least_neighbours=1)

    assert rule.least_similarity == limit


@pytest.mark.parametrize("least_neighbours", [1, 2, 4])
def test_groups_are_those_of_scikit_learn(least_neighbours: int) -> None:
    """DBSCAN by cosine distance on drawn vectors: the same cores, groups and rest."""
    from sklearn.cluster import DBSCAN

    draw = np.random.default_rng(5)
    centres = draw.normal(size=(12, 8))
    vectors = np.repeat(centres, 25, axis=0) + draw.normal(0, 0.35, (300, 8))
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    wanted = DBSCAN(eps=0.04, min_samples=least_neighbours, metric="cosine").fit(unit)

    groups = cluster_by_density(unit, 1 - 0.04, least_neighbours)

    assert 1 < len(set(groups)) < 300
    assert groups == wanted.labels_.tolist()


def test_vectors_at_the_threshold_are_near() -> None:
    """The threshold itself counts, and rounding does not decide."""
    vectors = np.array([[1, 0], [0.6, 0.8], [0, 1]], np.float32)
    exact = float(np.float64(np.float32(0.6)))

    assert cluster_by_density(vectors, exact, 1) == [0, 0, 0]
    assert cluster_by_density(vectors, np.nextafter(exact, 1), 1) == [0, 1, 1]
