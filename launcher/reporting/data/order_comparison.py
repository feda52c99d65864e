"""Compares two orders: which examples both have, how alike they put them, and at which
steps of training they are the same.

A step learns from one mean over the target tokens of its batch, so two orders that
differ only inside steps are one experiment under two digests.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from jobs.contract.folder import Workspace, list_paths
from jobs.contract.job_file import TrainJob, read_job_if_sound
from launcher.reporting.data.arrangements import Arrangement, describe_looked_at

SHARES = (1, 5, 10, 25, 50, 100)  # percent of the shorter order


@dataclass(frozen=True)
class SharedSteps:
    """At how many of `steps` steps, `batch` examples each, two orders have the same
    examples. `first_different`: the first step, from 1, where they have not."""

    batch: int
    steps: int
    same: int
    first_different: int | None

    def describe(self) -> str:
        """A sentence for people."""
        if self.first_different is None:
            return (
                f"batch of {self.batch}: the same examples at every one of {self.steps} steps;"
                " runs on the two differ by nothing but rounding"
            )
        return (
            f"batch of {self.batch}: the same examples at {self.same} of {self.steps} steps;"
            f" the first that differs is step {self.first_different}"
        )


@dataclass(frozen=True)
class OrderComparison:
    """How much two orders share, and how alike they put it.

    `count`: examples of each and of both. `spearman`: the rank correlation over the
    examples that both hold, each at the first place where it stands; None for fewer than
    two. `overlap`: by length, the share of the first so many that both have there.
    `same_steps`: for each batch size. `looks_at`: to which set each measures similarity,
    in words, where one of them looks at a target set.
    """

    arrangements: tuple[str, str]
    count: dict[str, int]
    spearman: float | None
    overlap: dict[str, float]
    same_steps: list[SharedSteps]
    looks_at: dict[str, str | None]


def compare_orders(
    first: Arrangement, second: Arrangement, batch: int | None = None
) -> OrderComparison:
    """Compares two orders; step by step for `batch` examples a step, or for the batch
    sizes of the workspace's runs on either."""
    shared_ranks = _pair_ranks(first.ids, second.ids)
    batches = [batch] if batch else find_batches(first.workspace, first, second)
    return OrderComparison(
        arrangements=(first.id, second.id),
        count={
            "one": len(first.ids),
            "two": len(second.ids),
            "both": len(shared_ranks),
        },
        spearman=rank_correlation(shared_ranks),
        overlap=_measure_overlap(first.ids, second.ids),
        same_steps=[count_same_steps(first.ids, second.ids, size) for size in batches],
        looks_at=_tell_looked_at(first, second),
    )


def _tell_looked_at(first: Arrangement, second: Arrangement) -> dict[str, str | None]:
    """To which set each of the two measures similarity, where one has a target set;
    nothing of two that look at the test set."""
    if "target" not in first.recipe and "target" not in second.recipe:
        return {}
    return {
        "one": describe_looked_at(first),
        "two": describe_looked_at(second),
    }


def count_same_steps(
    first: Sequence[str], second: Sequence[str], batch: int
) -> SharedSteps:
    """Compares the examples of each step of one epoch, in any order within the step."""
    steps = 0
    same = 0
    first_different = None
    for one, other in _pair_batches(first, second, batch):
        steps += 1
        if Counter(one) == Counter(other):
            same += 1
        elif first_different is None:
            first_different = steps
    return SharedSteps(batch, steps, same, first_different)


def find_batches(workspace: Workspace, *arrangements: Arrangement) -> list[int]:
    """The batch sizes, in examples, of the workspace's runs on any of the orders;
    smallest first."""
    wanted = {arrangement.id for arrangement in arrangements}
    sizes: set[int] = set()
    for folder in list_paths(workspace.root / "runs", "[!.]*"):
        job = read_job_if_sound(folder)
        if isinstance(job, TrainJob) and job.made.arrangement in wanted:
            sizes.add(job.train["batch"])
    return sorted(sizes)


def rank_correlation(pairs: Sequence[tuple[int, int]]) -> float | None:
    """The rank correlation of pairs of distinct places; None for fewer than two."""
    if len(pairs) < 2:
        return None
    ranks = [
        np.argsort(np.argsort(np.array(column))) for column in zip(*pairs, strict=True)
    ]
    n = len(pairs)
    return float(1 - 6 * np.sum((ranks[0] - ranks[1]) ** 2) / (n * (n * n - 1)))


def _pair_ranks(first: Sequence[str], second: Sequence[str]) -> list[tuple[int, int]]:
    """The places of each example that both have: the first one in each order."""
    second_ranks = _find_first_places(second)
    pairs = []
    for example, rank in _find_first_places(first).items():
        if example in second_ranks:
            pairs.append((rank, second_ranks[example]))
    return pairs


def _find_first_places(ids: Sequence[str]) -> dict[str, int]:
    """Where each id of an order stands, by its first place: an example may come again."""
    places: dict[str, int] = {}
    for place, example in enumerate(ids):
        places.setdefault(example, place)
    return places


def _measure_overlap(first: Sequence[str], second: Sequence[str]) -> dict[str, float]:
    """By length: the share of the first so many that both have among them."""
    shortest = min(len(first), len(second))
    lengths = sorted({max(1, shortest * share // 100) for share in SHARES})
    return {
        str(length): len(set(first[:length]) & set(second[:length])) / length
        for length in lengths
    }


def _pair_batches(
    first: Sequence[str], second: Sequence[str], batch: int
) -> Iterator[tuple[Sequence[str], Sequence[str]]]:
    """The examples of each step in both; nothing where one has ended."""
    for start in range(0, max(len(first), len(second)), batch):
        stop = start + batch
        yield first[start:stop], second[start:stop]
