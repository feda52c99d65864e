"""Vectors with ties and near-ties, and a small table of similarities."""

import numpy as np

# science 1.6: with the unit vectors as test items, a training item's coordinates are its cosines.
SIMILARITY = np.array(
    [
        [0.9, 0.1, 0.2],
        [0.9, 0.8, 0.1],
        [0.3, 0.8, 0.7],
        [0.2, 0.2, 0.7],
        [0, 0.5, 0.6],
        [-0.2, 0.4, 0.5],
    ],
    np.float32,
)
TEST = np.eye(3, dtype=np.float32)


def crowded(
    seed: int, count: int, tests: int, dimensions: int, distinct: int
) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of which many are equal, many differ in the last bit, and many have equal
    similarities."""
    draw = np.random.RandomState(seed)
    some = draw.randn(distinct, dimensions).astype(np.float32)
    # small integers: exact ties between different vectors
    some[::3] = np.round(some[::3])
    train = some[draw.randint(distinct, size=count)]
    moved = draw.rand(count) < 0.3
    train[moved, draw.randint(dimensions)] = np.nextafter(
        train[moved, 0], np.float32(2)
    )
    test = np.concatenate(
        [some[: tests // 2], draw.randn(tests - tests // 2, dimensions)]
    ).astype(np.float32)
    test[tests // 3 :: 2] = test[0]
    return train, test
