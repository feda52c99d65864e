"""Finds groups of vectors that lie close together: DBSCAN (Ester et al. 1996) by cosine
similarity, the same on every machine.

A vector with enough neighbours is the core of a group; neighbouring cores are of one
group, and a neighbour of a core that is none itself joins the first such group. The
rest is of none. Fast products propose who are neighbours; pairs too close to call are
settled by the canonical similarity (zsg_core.orders.distance).
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from zsg_core.orders.distance import error_bound, iterate_slices, pair_dots

BLOCK = 256  # vectors compared with all others at a time
ALONE = -1  # the number of no group


def cluster_by_density(
    vectors: NDArray[np.float32], least_similarity: float, least_neighbours: int
) -> list[int]:
    """For each of the vectors, (n, d) and of unit length, the number of its group, from
    0 in the order in which groups begin; -1 for one of no group.

    `least_similarity`: the smallest cosine of neighbours; `least_neighbours`: how many
    a core has, itself included. UserError where vectors are not finite.
    """
    if not len(vectors):
        return []
    neighbours = list(_list_neighbours(vectors, least_similarity))
    is_core = [len(near) >= least_neighbours for near in neighbours]
    groups = [ALONE] * len(neighbours)
    count = 0
    for start in range(len(neighbours)):
        if not is_core[start] or groups[start] != ALONE:
            continue
        _grow_group(start, count, groups, neighbours, is_core)
        count += 1
    return groups


def _grow_group(
    start: int,
    number: int,
    groups: list[int],
    neighbours: list[NDArray[np.int64]],
    is_core: list[bool],
) -> None:
    """Writes the number of a group to its first core and to all that it reaches."""
    groups[start] = number
    waiting = [start]
    while waiting:
        core = waiting.pop()
        for near in neighbours[core].tolist():
            if groups[near] != ALONE:
                continue
            groups[near] = number
            if is_core[near]:
                waiting.append(near)


def _list_neighbours(
    vectors: NDArray[np.float32], least_similarity: float
) -> Iterator[NDArray[np.int64]]:
    """For each vector the positions of those at least so similar to it, itself among
    them."""
    doubt = error_bound(vectors, vectors)
    for block in iterate_slices(len(vectors), BLOCK):
        proposed = vectors[block] @ vectors.T
        similarities = proposed.astype(np.float64)
        is_near = similarities >= least_similarity
        # the product of a fast library may be wrong by so much, on either side
        distances = np.abs(similarities - least_similarity)
        rows, columns = np.nonzero(distances <= doubt)
        canonical = pair_dots(vectors[block], vectors, rows, columns)
        is_near[rows, columns] = canonical >= least_similarity
        for row, near in enumerate(is_near):
            # a vector is its own neighbour, whatever rounding makes of its length
            near[block.start + row] = True
            yield np.flatnonzero(near)
