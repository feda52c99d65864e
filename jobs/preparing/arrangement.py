"""Makes an arrangement: embeds the corpus where its order needs that, puts it in order,
writes ids and facts."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from jobs.contract import prepared
from jobs.contract.exit_record import replace_unset
from jobs.contract.folder import (
    META,
    Workspace,
    is_whole,
    publish_folder,
    read_json,
    write_json,
)
from jobs.contract.job_file import PreparePaths
from jobs.contract.prepared import read_scores_meta
from jobs.preparing import engines
from jobs.preparing.corpus import Corpus
from jobs.preparing.embed import embed_texts, map_vectors
from jobs.preparing.source_files import SourceFiles
from jobs.preparing.target_set import TargetSet, make_target
from zsg_core.data import prompts, target_sets
from zsg_core.data.examples import Example
from zsg_core.digest import digest_ids
from zsg_core.errors import ClusterError, UserError
from zsg_core.orders import curriculum, measures, score_list, tma
from zsg_core.orders.arrange import arrange_items
from zsg_core.orders.distance import Vectors
from zsg_core.orders.nearest import Engine
from zsg_core.orders.order_list import ListFile
from zsg_core.orders.registry import ORDERS, Arranged, OrderInput
from zsg_core.recipe import Recipe, scores_id

logger = logging.getLogger(__name__)


def make_arrangement(
    workspace: Workspace,
    corpus: Corpus,
    made_id: str,
    recipe: Recipe,
    paths: PreparePaths,
) -> None:
    """Writes arrangements/<made_id>. UserError for an order that the data do not allow."""
    logger.info(f"arrangement {made_id}: {recipe['order']}")
    sources = _Sources(workspace, corpus, recipe, paths)
    made = arrange_items(
        recipe,
        corpus.train.tasks,
        sources.distances,
        sources.rounds,
        ids=corpus.train.ids,
        published_ids=sources.published_ids,
        other_ids=sources.other_ids,
        read_input=sources.read_input,
        sources=lambda: corpus.train.sources,
        examples=lambda: list(corpus.train),
        rounds_of_both_ends=sources.rounds_of_both_ends,
    )
    _publish(workspace, corpus, made_id, recipe, made, sources)


class _Sources:
    """What orders by similarity are made from, made itself only when it is asked for."""

    def __init__(
        self,
        workspace: Workspace,
        corpus: Corpus,
        recipe: Recipe,
        paths: PreparePaths,
    ) -> None:
        self._workspace, self._corpus = workspace, corpus
        self._recipe, self._paths = recipe, paths
        self.facts: dict[str, Any] = {}

    @cached_property
    def engine(self) -> Engine:
        made = engines.choose_engine()
        self.facts["engine"] = made.name
        return made

    def distances(self) -> Sequence[float]:
        """What the orders by similarity sort by."""
        tasks = self._corpus.train.tasks
        return measures.compute_distances(
            self._recipe, tasks, self._vectors, self._texts, self.engine
        ).tolist()

    def rounds(self, farthest: bool, cap: int | None) -> Iterator[list[int]]:
        """The rounds of TMA."""
        return tma.pick_rounds(
            *self._vectors(), farthest=farthest, cap=cap, engine=self.engine
        )

    def rounds_of_both_ends(
        self, cap: int | None
    ) -> tuple[list[list[int]], list[list[int]]]:
        """The nearest and the farthest rounds of TMA."""
        return tma.pick_rounds_of_both_ends(
            *self._vectors(), cap=cap, engine=self.engine
        )

    def read_input(self) -> OrderInput:
        """What the user's file says. UserError if that is other than when it was submitted.

        Scores by a model are read as they were published: nobody scores again.
        """
        if "score" in self._recipe:
            return self._read_scores()
        read, digest = ORDERS[self._recipe["order"]].reads, self._recipe["input"]
        file = (replace_unset(self._paths.lists) or {}).get(digest)
        if file is None or read is None:
            raise UserError(
                "this job does not say where the file of its order lies; zsg submit again"
            )
        may_repeat = curriculum.KEPT_REPEATS in self._recipe
        order_input = read(
            ListFile(Path(file.path), file.column, file.kind, may_repeat)
        )
        if order_input.digest != digest:
            raise UserError(
                f"{file.path} says something else than when the grid was submitted; zsg submit"
                " again makes runs of what it is now"
            )
        return order_input

    def _read_scores(self) -> OrderInput:
        """The scores by a model that a job before has made. ClusterError where they are
        not what it has written."""
        order = {"data": self._corpus.recipe, "arrangement": self._recipe}
        made_id = scores_id({"stages": [order]})
        assert made_id is not None, "the order is made of scores"
        folder = self._workspace.scores(made_id)
        meta = read_scores_meta(folder) if is_whole(folder) else None
        if meta is None:
            raise ClusterError(
                f"{folder}: the scores that this order is made of are not there; zsg submit"
                " has them made again"
            )
        scores = score_list.read_scores(ListFile(folder / "scores.jsonl"))
        if scores.digest != meta.digest:
            raise ClusterError(
                f"{folder}: scores.jsonl is not what its meta.json describes; remove the folder"
            )
        self.facts["scores"] = {"id": made_id, "digest": meta.digest}
        return scores

    def published_ids(self) -> list[str | None]:
        """The ids that the training examples' rows were published with."""
        return self._corpus.read_published_ids(self._files)

    def other_ids(self) -> set[str]:
        """The ids of all examples of the sources, trained on or not."""
        return self._corpus.list_other_ids(self._files)

    @property
    def _files(self) -> dict[str, SourceFiles]:
        paths_by_source = self._paths.sources
        return {name: SourceFiles.of(paths) for name, paths in paths_by_source.items()}

    @cached_property
    def target(self) -> TargetSet | None:
        """The target set of the order; None where it looks at the test set."""
        rule = self._recipe.get("target")
        if rule is None:
            return None
        files = replace_unset(self._paths.targets) or {}
        return make_target(self._workspace, self._corpus, rule, files)

    @property
    def _looked_at(self) -> Iterable[Example]:
        """The items to which similarity is measured: no test item, where there is a
        target set."""
        if self.target is None:
            return self._corpus.test
        if self._recipe["target"].get("answers") == target_sets.HIDDEN:
            return map(target_sets.hide_answers, self.target.items)
        return self.target.items

    def _texts(self) -> tuple[list[str], list[str]]:
        shots = self._corpus.template.shots
        train, looked_at = (
            [prompts.embedding_text(e, shots) for e in s]
            for s in (self._corpus.train, self._looked_at)
        )
        return train, looked_at

    def _vectors(self) -> tuple[Vectors, Vectors]:
        digest = self._recipe["embedding"]
        folders = [
            embed_texts(self._workspace, t, Path(str(self._paths.embedding)), digest)
            for t in self._texts()
        ]
        looked_at = "test" if self.target is None else "target"
        for split, folder in zip(("train", looked_at), folders, strict=True):
            self.facts[f"{split}_embedding"] = {
                "id": folder.name,
                **(read_json(folder / META) or {}),
            }
        return map_vectors(folders[0]), map_vectors(folders[1])


def _write_ids(path: Path, ids: Sequence[str]) -> None:
    """A file of ids, one on each line."""
    text = "".join(f"{i}\n" for i in ids)
    path.write_text(text, encoding="utf-8", newline="\n")


def _publish(
    workspace: Workspace,
    corpus: Corpus,
    made_id: str,
    recipe: Recipe,
    made: Arranged,
    sources: _Sources,
) -> None:
    presence = curriculum.count_presence(made.places, len(corpus.train.ids))
    if not curriculum.may_repeat(recipe):
        assert presence.most <= 1, "an order has an example twice"
    ids = [corpus.train.ids[place] for place in made.places]
    with publish_folder(workspace.arrangement(made_id)) as draft:
        # rows of the corpus, and of its embedding
        np.save(draft / "places.npy", np.array(made.places, np.int64))
        _write_ids(draft / "ids", ids)
        corpus_meta = read_json(corpus.folder / META)
        meta = {
            "schema": 1,
            "recipe": recipe,
            "count": len(ids),
            "left_out": presence.never,
            "ids_digest": digest_ids(ids),
            "sources": {
                "corpus": corpus.folder.name,
                "corpus_meta": corpus_meta,
                **sources.facts,
            },
            **made.facts,
        }
        if curriculum.changes_count(recipe):
            meta["presence"] = asdict(presence)
        if sources.target is not None:
            meta["target"] = asdict(sources.target.summary)
            _write_ids(draft / prepared.TARGET_IDS, sources.target.items.ids)
        write_json(draft / META, meta)
