"""Reads the arrangements of a workspace: finds one by its id or its run's, and sums it
up.

All but `measure_similarity` reads a few files; that one computes the distances of a corpus
to the set that an order looks at.
"""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.contract.folder import META, Workspace, is_committed, list_paths, read_json
from jobs.contract.prepared import describe_arrangement, read_arrangement_meta
from jobs.preparing.corpus import Corpus
from launcher.status import data_notes
from zsg_core.errors import UserError
from zsg_core.orders.curriculum import KINDS
from zsg_core.orders.nearest import minimum_and_average
from zsg_core.recipe import list_sources

PARTS = 10  # of an order's length, for its composition
MOST_TASKS = 5  # named of each part
# in the recipe of an order by similarity
LOOKING = frozenset({"measure", "similarity"})
# of meta.json, `sources`: the vectors of the set that it looks at
OF_TEST, OF_TARGET = "test_embedding", "target_embedding"


@dataclass(frozen=True)
class Arrangement:
    """A made arrangement."""

    workspace: Workspace
    id: str

    @property
    def folder(self) -> Path:
        """Where the arrangement lies in the workspace."""
        return self.workspace.arrangement(self.id)

    @cached_property
    def meta(self) -> dict[str, Any]:
        """What its job wrote of it; empty where there is nothing yet."""
        return read_json(self.folder / META) or {}

    @cached_property
    def ids(self) -> list[str]:
        """The ids of its examples, in the order of training."""
        return (self.folder / "ids").read_text(encoding="utf-8").splitlines()

    @property
    def places(self) -> NDArray[np.int64]:
        """The places of the examples in the corpus, and so in its embedding. UserError
        where none were kept."""
        try:
            return np.load(self.folder / "places.npy")
        except FileNotFoundError:
            raise UserError(
                f"arrangement {self.id} was made before places were kept; remove {self.folder} and"
                " make it again"
            ) from None

    @property
    def recipe(self) -> dict[str, Any]:
        """The rule by which it was made."""
        return self.meta["recipe"]

    @property
    def corpus(self) -> str:
        """The id of the corpus whose examples it orders."""
        return self.meta["sources"]["corpus"]

    @property
    def sources(self) -> list[str]:
        """The names of the data sets in its corpus; empty where it is of one."""
        return [
            name
            for name in self.meta["sources"]["corpus_meta"].get("sources", {})
            if name
        ]


def find_arrangement(workspace: Workspace, prefix: str) -> Arrangement:
    """The arrangement whose id, or the id of a run that trains on it, begins so.
    UserError for none or several."""
    made_ids = [
        path.name
        for path in list_paths(workspace.root / "arrangements", "[!.]*")
        if is_committed(path)
    ]
    matches = {name for name in made_ids if name.startswith(prefix)}
    for folder in list_paths(workspace.root / "runs", f"{prefix}*"):
        if job := read_json(folder / "job.json"):
            matches.add(job["made"]["arrangement"])
    if len(matches) > 1:
        raise UserError(
            f"{prefix!r} begins {len(matches)} ids: {', '.join(sorted(matches)[:5])}; give more"
            " of it"
        )
    if not matches:
        raise UserError(
            f"no arrangement or run {prefix!r} in {workspace.root} (arrangements:"
            f" {_name_some(made_ids)}); zsg arrange make GRID.YAML makes those of a grid"
        )
    arrangement_id = matches.pop()
    if arrangement_id not in made_ids:
        raise UserError(
            f"arrangement {arrangement_id} of run {prefix!r} is not made yet; zsg arrange make, or"
            " zsg submit"
        )
    return Arrangement(workspace, arrangement_id)


def _name_some(ids: Sequence[str]) -> str:
    """The first few of some ids in a sentence, and how many there are beside them."""
    if not ids:
        return "none yet"
    return f"{', '.join(sorted(ids)[:5])}{' …' if len(ids) > 5 else ''}"


def summarize_arrangement(arrangement: Arrangement, head: int) -> dict[str, Any]:
    """What `zsg arrange show` tells: recipe, count, first ids, composition over
    position, rounds, and what there is to know of the data."""
    keys = (
        "recipe",
        "count",
        "left_out",
        "ids_digest",
        "rounds",
        "in_both_halves",
        "presence",
        "target",
    )
    facts = {key: arrangement.meta[key] for key in keys if key in arrangement.meta}
    if sources := arrangement.sources:
        count = Counter(made_id.partition("/")[0] for made_id in arrangement.ids)
        facts["by_source"] = {name: count[name] for name in sources}
    return {
        "arrangement": arrangement.id,
        "corpus": arrangement.corpus,
        "looks_at": describe_looked_at(arrangement),
        **facts,
        "notes": data_notes.of_corpora(
            arrangement.workspace,
            [arrangement.corpus],
            describe_arrangement(arrangement.workspace.arrangement(arrangement.id)),
        ),
        "head": arrangement.ids[:head],
        "parts": describe_tenths(list_tasks(arrangement)),
    }


def describe_looked_at(arrangement: Arrangement) -> str | None:
    """To which set an order by similarity measures it, in words; None of other orders.
    Of the test set itself, that it knows what no practitioner knows."""
    meta = read_arrangement_meta(arrangement.folder)
    if meta is not None and meta.target is not None:
        return f"a target set apart from the test set: {meta.target.describe()}"
    if LOOKING & arrangement.recipe.keys():
        return "the test set itself, an oracle (arrangement.target names another set)"
    return None


def label_arrangement(arrangement: Arrangement) -> str:
    """A name for a legend: what tells its recipe from others, and its id."""
    words = [
        arrangement.recipe[key]
        for key in ("order", "measure", "list", "granularity", "choose", "shape")
        if key in arrangement.recipe
    ]
    words += [
        f"{key} {arrangement.recipe[key]}"
        for key in ("cap", "rounds", "seed")
        if key in arrangement.recipe
    ]
    words += [kind for kind in KINDS if kind in arrangement.recipe]
    if "target" in arrangement.recipe:
        words.append(f"by target {arrangement.recipe['target']['by']}")
    return f"{' '.join(words)} ({arrangement.id[:6]})"


def list_tasks(arrangement: Arrangement) -> list[str]:
    """The task of each example of an order. Ids tell it, but for those of the data's own,
    whose records are looked at; without these every such example is a task."""
    data = arrangement.meta["sources"]["corpus_meta"].get("recipe", {})
    by_ids = [task_of(example_id) for example_id in arrangement.ids]
    has_own_ids = any(
        "id" in source.get("fields", {}) for source in list_sources(data).values()
    )
    if not has_own_ids:
        return by_ids
    try:
        tasks = Corpus(arrangement.workspace, arrangement.corpus).train.tasks
        return [tasks[place] for place in arrangement.places.tolist()]
    except (UserError, OSError, LookupError):
        return by_ids


def describe_tenths(task_names: Sequence[str]) -> list[dict[str, Any]]:
    """The composition of each tenth of an order, given the task of each example: how
    many tasks, and the most frequent with their counts."""
    edges = [round(len(task_names) * k / PARTS) for k in range(PARTS + 1)]
    tenths = []
    for start, stop in itertools.pairwise(edges):
        tasks = Counter(task_names[start:stop])
        if stop > start:
            tenths.append(
                {
                    "from": start,
                    "to": stop,
                    "tasks": len(tasks),
                    "most": dict(tasks.most_common(MOST_TASKS)),
                }
            )
    return tenths


def task_of(example_id: str) -> str:
    """The task in an example's id, `<task>:<place>`; of an id without a place, the id."""
    return example_id.rpartition(":")[0] or example_id


def measure_similarity(
    arrangement: Arrangement,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cosine to the nearest item and on average, by position in the order: of the items
    that it looks at, its target set's or the test set's.

    From the embedding that this order was made by, or that another order of the same
    corpus was found by, of its test set; UserError for none.
    """
    train, looked_at = load_embeddings(arrangement)
    nearest, average = minimum_and_average(train, looked_at)
    order = arrangement.places
    return -nearest[order], -average[order]


def load_embeddings(
    arrangement: Arrangement,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The vectors of an order's corpus, (examples, d), in the order of the corpus, and
    of the set that it looks at. UserError where that is not embedded."""
    sources = _read_sources(arrangement.folder)
    if OF_TARGET in sources:
        return _load_vectors(arrangement.workspace, sources, OF_TARGET)
    return load_test_embeddings(arrangement)


def load_test_embeddings(
    arrangement: Arrangement,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The same, with the vectors of the test set, whatever the order looks at."""
    sources = _find_embedded(arrangement)
    return _load_vectors(arrangement.workspace, sources, OF_TEST)


def _load_vectors(
    workspace: Workspace, sources: Mapping[str, Any], looked_at: str
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The vectors of the training list, and those of `looked_at`."""
    train, items = (
        np.load(
            workspace.embedding(sources[key]["id"]) / "vectors.npy",
            mmap_mode="r",
        )
        for key in ("train_embedding", looked_at)
    )
    return train, items


def _read_sources(folder: Path) -> dict[str, Any]:
    """What a folder's arrangement was made of."""
    return (read_json(folder / META) or {}).get("sources", {})


def _find_embedded(arrangement: Arrangement) -> dict[str, Any]:
    """What an order was made of that was found by similarity to the test set of this
    corpus: this one, or another."""
    for path in [
        arrangement.folder,
        *list_paths(arrangement.workspace.root / "arrangements", "[!.]*"),
    ]:
        sources = _read_sources(path)
        if sources.get("corpus") == arrangement.corpus and OF_TEST in sources:
            return sources
    by_target = ""
    if "target" in arrangement.recipe:
        by_target = ", for this one looks at a target set"
    raise UserError(
        f"corpus {arrangement.corpus} of arrangement {arrangement.id} is not embedded: no order by"
        f" similarity to its test set was made of it{by_target}; put arrangement.order: nft of the"
        " same data, without a target, into a grid and run zsg arrange make"
    )
