"""Is what a run has seen so far measured against test tasks as in the paper, and are changes
held against chance?"""

import numpy as np
import pytest

from zsg_core.orders import prefix_similarity as similarity
from zsg_core.stats.shared_changes import compare_changes

TEXTS = ["a b c", "a b", "b c d", "x y", "a b d", "x y z"]
TEST_TEXTS = ["a b d", "x y"]


def at_angles(*degrees: float) -> np.ndarray:
    """Unit vectors of a plane."""
    radians = np.radians(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("cosine_avg", [-0.3291, -0.5759, -0.6788]),
        ("cosine_min", [-0.6428, -0.9848, -1]),
        ("cosine_max", [0, 0, 0]),
        ("cosine_centroid", [-0.3420, -0.6914, -0.8391]),
        ("euclidean_avg", [1.1363, 0.8230, 0.6774]),
        ("euclidean_min", [0.8452, 0.1743, 0]),
        ("euclidean_max", [1.4142, 1.4142, 1.4142]),
        ("euclidean_centroid", [1.1257, 0.7245, 0.5261]),
    ],
)
def test_prefixes_are_measured_as_published(
    monkeypatch: pytest.MonkeyPatch, name: str, wanted: list[float]
) -> None:
    """Worked out by hand; however many examples are looked at together."""
    train, test = at_angles(90, 80, 10, 60, 0, 45), at_angles(0, 30)
    whole = similarity.measure_prefixes(train, test, [2, 4, 6])
    monkeypatch.setattr(similarity, "BLOCK", 1)
    singly = similarity.measure_prefixes(train, test, [2, 4, 6])

    assert whole[name] == pytest.approx(wanted, abs=1e-4)
    assert singly[name] == pytest.approx(whole[name])


def test_texts_are_measured_as_published_and_as_coded() -> None:
    """By the formula, and with each bigram as often as it stands in all texts."""
    repeats = similarity.count_bigrams([*TEXTS, *TEST_TEXTS])
    found = similarity.measure_prefix_texts(TEXTS, TEST_TEXTS, [2, 4, 6], repeats)

    assert found["kl"] == pytest.approx([7.7712, 10.7326, 8.1738], abs=1e-4)
    assert found["kl_repeated"] == pytest.approx([16.4666, 17.8106, 12.0375], abs=1e-4)


def test_a_prefix_without_words_has_no_divergence() -> None:
    """Nor is it an error."""
    found = similarity.measure_prefix_texts(["one", "a b"], ["a b"], [1, 2], {})

    assert found["kl"].tolist() == pytest.approx([0, 0], abs=1e-6)


STEPS = list(range(10, 410, 10))


def falling(at: int, size: float, tasks: int = 6) -> np.ndarray:
    """Curves (steps, tasks) that wander a little and fall once, each at a checkpoint
    of its own after this one."""
    moves = np.random.default_rng(at).uniform(-0.01, 0.01, (len(STEPS), tasks))
    moves[at + np.arange(tasks), np.arange(tasks)] -= size
    return np.cumsum(moves, axis=0)


def test_changes_that_come_together_are_told_from_chance() -> None:
    """A distance that falls where the losses do; one that falls elsewhere is none."""
    names = [f"t{number}" for number in range(6)]
    losses = falling(10, 0.5)
    together = compare_changes(STEPS, names, losses, losses + falling(25, 0.0))
    apart = compare_changes(STEPS, names, losses, falling(25, 0.5))

    assert together.sudden_falls == 6
    assert together.shared_falls == 1
    assert together.correlation is not None and together.correlation > 0.4
    assert together.correlation_by_chance == pytest.approx(1 / 39)
    assert apart.correlation_by_chance is not None
    assert apart.correlation_by_chance > 0.05


def test_what_does_not_change_has_no_correlation() -> None:
    """As a largest distance that is reached at once; and too few checkpoints have none."""
    names = [f"t{number}" for number in range(6)]
    found = compare_changes(STEPS, names, falling(10, 0.5), np.zeros((40, 6)))

    assert (found.correlation, found.shared_falls) == (None, 0)
    with pytest.raises(ValueError, match="at least 9"):
        compare_changes(STEPS[:4], names, falling(10, 0.5)[:4], np.zeros((4, 6)))
