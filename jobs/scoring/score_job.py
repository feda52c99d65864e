"""The score job: scores a corpus' training examples by a model, for orders that read
such scores.

scores/<id>/           scores.jsonl: a line for each example that has a score, in the
                       order of the corpus: {"id": …, "score": …}, as an order reads any
                       file of scores; meta.json: jobs.contract.prepared.ScoresMeta
scores/.<id>.draft/    blocks.jsonl while they are made, a line for each BLOCK examples, and
                       since.jsonl of an earlier model that the score compares with;
                       how.json: of which weights they are, and the most tokens of a row,
                       as it was chosen first

Killed at any moment it goes on after the last whole block. A block is scored alone, so a
job that went on has the scores that one in one go would have had; what is published is
read, and computed by nobody again. Scores are kept as float32.
"""

import importlib.metadata
import json
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from jobs.contract import removal, snapshots
from jobs.contract.folder import (
    Workspace,
    is_whole,
    lock_folder,
    publish_folder,
    read_json,
    write_json,
)
from jobs.contract.job_file import ScoreJob, Scorer, ScoresToMake
from jobs.contract.prepared import (
    ScoresMeta,
    read_base_meta,
    write_prepared_meta,
)
from jobs.files import ownership
from jobs.model import content
from jobs.model.vocabulary import Vocabulary, load_vocabulary
from jobs.preparing import corpus as corpora
from jobs.preparing import prepare
from jobs.preparing.corpus import Corpus
from jobs.preparing.source_files import SourceFiles
from jobs.runtime import devices
from jobs.training.train_sets import make_encoder
from zsg_core.data.prompts import CHAT, EncodedExample, Template
from zsg_core.errors import ClusterError, UserError
from zsg_core.families.registry import position_count
from zsg_core.model_scores.registry import SCORE_RULES, Score, ScoreInputs, ScoringModel
from zsg_core.orders.order_list import ListFile
from zsg_core.orders.score_list import read_scores
from zsg_core.recipe import Recipe, id_of_base
from zsg_core.stats.ranks import correlate_ranks

logger = logging.getLogger(__name__)

BLOCK = 256  # examples that are scored and written together
FILE = "scores.jsonl"
BLOCKS, SINCE, HOW = "blocks.jsonl", "since.jsonl", "how.json"
VERSIONS = ("torch", "transformers")
# relative; two machines may differ by so much: see launcher.verification
CERTAIN = {"fp32": 1e-5, "bf16": 1e-2, "fp16": 1e-2}


def score_examples(job: ScoreJob) -> None:
    """Publishes all scores that the job lists, unless they are there. UserError for a
    model or data that cannot be read, and where no example has a score."""
    workspace = job.workspace
    missing = [
        scores for scores in job.scores if not is_whole(workspace.scores(scores.id))
    ]
    if not missing:
        return
    files = {name: SourceFiles.of(paths) for name, paths in job.paths.sources.items()}
    corpus = corpora.make_corpus(workspace, job.corpus.id, job.corpus.recipe, files)
    bench = _Bench(workspace, corpus, job.resources.gpus_per_node)
    for scores in missing:
        with lock_folder(workspace.scores(scores.id)):
            if not is_whole(workspace.scores(scores.id)):
                _make_scores(bench, scores)


@dataclass(frozen=True)
class Weights:
    """Where the weights of a scorer lie, and what is known of their content."""

    folder: Path
    digest: str
    recipe: Recipe | None  # of a base, with the tokens that it adds


class _Bench:
    """What the scores of a job share: the corpus, and one model at a time."""

    def __init__(self, workspace: Workspace, corpus: Corpus, gpus: int) -> None:
        self.workspace, self.corpus = workspace, corpus
        self._gpus = gpus
        self._held: tuple[str, ScoringModel] | None = None

    @cached_property
    def devices(self) -> list[str]:
        """The devices that models are put on."""
        return devices.choose_devices(self._gpus)

    def find_weights(self, scorer: Scorer) -> Weights:
        """The weights of a scorer; a base is made unless it is there. UserError for a
        folder that has changed since the job was submitted."""
        if scorer.run is not None:
            folder = self.workspace.run(scorer.run) / "weights"
            if not is_whole(folder):
                raise ClusterError(
                    f"{folder}: the weights of the stage before are not there; zsg submit"
                    " trains it again"
                )
            digest = snapshots.read_end_meta(folder).weights or ""
            return Weights(folder, digest, scorer.base)
        if scorer.base is not None:
            texts = prepare.texts_of_base(self.corpus)
            folder = prepare.make_base(
                self.workspace, scorer.base, scorer.folder, texts
            )
            return Weights(folder, _find_base_digest(folder, scorer.base), scorer.base)
        assert scorer.folder is not None, "a scorer is a folder, a base or a run's"
        assert scorer.digest is not None, "a folder has a digest"
        folder = Path(scorer.folder)
        content.refuse_changed(folder, content.model_files, scorer.digest)
        return Weights(folder, scorer.digest, None)

    def hold(
        self, weights: Weights, precision: str, tokens: int | None
    ) -> ScoringModel:
        """The model of these weights; of several the last is kept."""
        from jobs.scoring.scoring_model import LoadedModel

        key = f"{weights.folder} {precision} {tokens}"
        if self._held is None or self._held[0] != key:
            self._held = None  # two may be more than fit
            logger.info(f"loading {weights.folder} in {precision}")
            model = LoadedModel(
                weights.folder, precision, self.devices, self.workspace, tokens
            )
            self._held = key, model
        return self._held[1]


def _find_base_digest(folder: Path, recipe: Recipe) -> str:
    """The digest of a base: of one that zsg has made that of its files, else the one
    that its recipe knows it by."""
    if id_of_base(recipe) is None:
        return recipe["digest"]
    meta = read_base_meta(folder)
    return (meta and meta.digest) or ""


def _make_scores(bench: _Bench, scores: ScoresToMake) -> None:
    """Publishes one kind of scores, going on with what a killed job has left."""
    folder = bench.workspace.scores(scores.id)
    draft = removal.name_unfinished(folder)
    ownership.make_folder(draft)
    making = _Making(bench, scores, draft)
    making.drop_others()
    rows = making.score_all()
    _publish(folder, making, [_round(row) for row in rows])
    shutil.rmtree(draft, ignore_errors=True)


class _Making:
    """One kind of scores, while they are made in a draft."""

    def __init__(self, bench: _Bench, scores: ScoresToMake, draft: Path) -> None:
        self.bench, self.scores, self.draft = bench, scores, draft
        self.recipe = scores.recipe
        self.rule = SCORE_RULES[self.recipe["name"]]
        self.scorer = bench.find_weights(scores.scorer)
        self.earlier = bench.find_weights(scores.earlier) if scores.earlier else None

    @property
    def precision(self) -> str:
        """In which the models compute."""
        return self.recipe["precision"]

    @property
    def weights(self) -> dict[str, str]:
        """What is known of the content of each model."""
        digests = {"scorer": self.scorer.digest}
        if self.earlier is not None:
            digests["since"] = self.earlier.digest
        return digests

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The scorer's."""
        return load_vocabulary(self.scorer.folder, self.scorer.recipe)

    @cached_property
    def encode(self) -> Callable[[Any], EncodedExample]:
        """How an example becomes token ids: as the run trains on it."""
        self._refuse_short_positions()
        return make_encoder(
            self.vocabulary,
            self.template,
            self.recipe["max_length"],
            self.recipe.get("truncate", "prompt"),
        )

    @property
    def template(self) -> Template:
        """How examples are written."""
        return self.bench.corpus.template

    def _refuse_short_positions(self) -> None:
        """UserError where a model reaches less far than the examples."""
        for weights in (self.scorer, self.earlier):
            if weights is None:
                continue
            positions = position_count(read_json(weights.folder / "config.json") or {})
            if self.recipe["max_length"] > positions:
                raise UserError(
                    f"train.max_length {self.recipe['max_length']} is beyond the"
                    f" {positions} positions of {weights.folder}; lower it"
                )

    @cached_property
    def ends(self) -> frozenset[int]:
        """The tokens that end an answer."""
        ends = {self.vocabulary.eos}
        if self.template.name == CHAT:
            end_of_turn = self.vocabulary.open_chat(self.template).end_of_turn
            ends |= set() if end_of_turn is None else {end_of_turn}
        return frozenset(ends)

    @property
    def tokens(self) -> int | None:
        """The most tokens of a row, as they were chosen first; None before."""
        return (read_json(self.draft / HOW) or {}).get("tokens")

    def _hold(self, weights: Weights) -> ScoringModel:
        """A model, whose rows are as they were when the draft was begun."""
        model = self.bench.hold(weights, self.precision, self.tokens)
        if self.tokens is None:
            self._note(tokens=getattr(model, "tokens", None))
        return model

    def drop_others(self) -> None:
        """Takes away what the draft has of other weights: those of a run may have been
        trained again since, elsewhere, and one list is of one model."""
        how = read_json(self.draft / HOW) or {}
        if how.get("weights", self.weights) != self.weights:
            logger.warning(
                f"{self.rule.name}: the scores in {self.draft} are of other weights; all are"
                " made anew"
            )
            for name in (BLOCKS, SINCE, HOW):
                (self.draft / name).unlink(missing_ok=True)
        self._note(tokens=self.tokens)

    def _note(self, tokens: int | None) -> None:
        """Writes down how the draft is made."""
        write_json(self.draft / HOW, {"weights": self.weights, "tokens": tokens})

    def score_all(self) -> list["_Row"]:
        """All examples with their scores: of two models how far the number falls from
        the earlier to the later one."""
        if self.earlier is None:
            return self._score_blocks(self.scorer, BLOCKS)
        # one model after the other: two may be more than fit
        before = self._score_blocks(self.earlier, SINCE)
        after = self._score_blocks(self.scorer, BLOCKS)
        return [_subtract(*pair) for pair in zip(before, after, strict=True)]

    def _score_blocks(self, weights: Weights, name: str) -> list["_Row"]:
        """All examples with their scores by one model; what is in the draft's file is
        not scored again."""
        path = self.draft / name
        rows = _read_blocks(path)
        ids = self.bench.corpus.train.ids
        if rows:
            logger.info(f"{self.rule.name}: going on after {len(rows)} examples")
        with path.open("ab") as file:
            for start in range(len(rows), len(ids), BLOCK):
                block = self._score_block(weights, start, ids[start : start + BLOCK])
                file.write(_encode_block(block, self._describe_devices()))
                file.flush()
                os.fsync(file.fileno())
                rows += block
                logger.info(f"{self.rule.name}: scored {len(rows)} of {len(ids)}")
        return rows

    def _score_block(
        self, weights: Weights, start: int, ids: Sequence[str]
    ) -> list["_Row"]:
        """The scores of the examples that begin at `start`."""
        train = self.bench.corpus.train
        encoded = [self.encode(train[start + number]) for number in range(len(ids))]
        inputs = ScoreInputs(
            examples=encoded,
            model=lambda: self._hold(weights),
            tokenize=self.vocabulary.tokenize,
            beginning=self.vocabulary.beginning,
            ends=self.ends,
        )
        values = self.rule.compute(inputs)
        return [
            _Row(name, value, len(example.ids))
            for name, value, example in zip(ids, values, encoded, strict=True)
        ]

    def _describe_devices(self) -> list[str]:
        """What scores; nothing where a tokenizer is enough."""
        return self.bench.devices if self.rule.passes else []

    def list_devices(self) -> list[str]:
        """On what all blocks were scored."""
        used: set[str] = set()
        for path in self.draft.glob("*.jsonl"):
            for line in path.read_bytes().splitlines():
                used.update(json.loads(line)["devices"])
        return sorted(used)


@dataclass(frozen=True)
class _Row:
    """An example's score, None where it has none, and how many tokens it is."""

    id: str
    score: Score
    length: int


def _subtract(before: _Row, after: _Row) -> _Row:
    """A row with the earlier score less the later one."""
    assert before.id == after.id, "both are of one corpus"
    if before.score is None or after.score is None:
        return replace(after, score=None)
    return replace(after, score=before.score - after.score)


def _round(row: _Row) -> _Row:
    """The row with the float32 next to its score; without one where it is no number."""
    if row.score is None:
        return row
    rounded = float(np.float32(row.score))
    return replace(row, score=rounded if np.isfinite(rounded) else None)


def _encode_block(rows: Sequence[_Row], used: Sequence[str]) -> bytes:
    """A line of a draft."""
    block = {
        "devices": list(used),
        "rows": [[row.id, row.score, row.length] for row in rows],
    }
    return json.dumps(block).encode() + b"\n"


def _read_blocks(path: Path) -> list[_Row]:
    """The rows of a draft; what a kill has cut off is taken away."""
    if not path.exists():
        return []
    whole, newline, torn = path.read_bytes().rpartition(b"\n")
    if torn:
        os.truncate(path, len(whole + newline))
    return [
        _Row(*row) for line in whole.splitlines() for row in json.loads(line)["rows"]
    ]


def _publish(folder: Path, making: _Making, rows: Sequence[_Row]) -> None:
    """Writes the scores, and how they came about. UserError where there are none."""
    scored = [row for row in rows if row.score is not None]
    name = making.rule.name
    if not scored:
        raise UserError(
            f"arrangement.score: {name}: none of {len(rows):,} training examples has such a score:"
            " no answer is left whole within train.max_length; raise it"
        )
    unscored = len(rows) - len(scored)
    if unscored:
        logger.warning(
            f"{name}: {unscored:,} of {len(rows):,} training examples have no score, as their"
            " answers are cut or empty"
        )
    with publish_folder(folder) as draft:
        with (draft / FILE).open("w", encoding="utf-8") as file:
            for row in scored:
                line = {"id": row.id, "score": row.score}
                file.write(f"{json.dumps(line)}\n")
        meta = ScoresMeta(
            recipe=making.recipe,
            count=len(scored),
            unscored=unscored,
            digest=read_scores(ListFile(draft / FILE)).digest,
            weights=making.weights,
            precision=making.precision,
            tokens=making.tokens,
            devices=making.list_devices(),
            versions=_read_versions(),
            with_length=_correlate_with_length(scored),
            close=_count_close(scored, CERTAIN[making.precision]),
        )
        write_prepared_meta(draft, meta)
    logger.info(f"scores {folder.name}: {len(scored)} of {name}")


def _read_versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in VERSIONS}


def _correlate_with_length(rows: Sequence[_Row]) -> float | None:
    """Spearman's correlation of scores with lengths, the confounder of nearly all of
    them; None where one of both is all alike."""
    scores = [row.score or 0.0 for row in rows]
    lengths = [float(row.length) for row in rows]
    return correlate_ranks(scores, lengths)


def _count_close(rows: Sequence[_Row], tolerance: float) -> float:
    """The share of neighbours in the sorted list that are nearer than the tolerance, but
    for those that are alike: another machine may order them otherwise."""
    scores = np.sort(np.array([row.score for row in rows], np.float64))
    if len(scores) < 2:
        return 0.0
    gaps = np.diff(scores)
    near = (gaps > 0) & (gaps <= tolerance * np.abs(scores[1:]))
    return float(near.mean())
