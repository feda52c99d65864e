"""meta.json of what jobs prepare once for many runs, and a corpus' notes.json: as far as
others read them, or whole."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from jobs.contract.folder import META, NOTES, Damaged, read_json, write_json
from jobs.contract.json_values import convert_json
from jobs.contract.records import read_record, write_record
from zsg_core.data.target_sets import TargetSummary

TARGET_IDS = "target"  # of an arrangement: the ids of its target set, one a line
ADVICE = "remove the folder, and the next job that needs it makes it anew"


class CorpusDigests(msgspec.Struct, frozen=True, kw_only=True):
    """Of a corpus: the digests of its two lists of examples."""

    train_digest: str | None = None
    test_digest: str | None = None


class RecordsOfSource(msgspec.Struct, frozen=True, kw_only=True):
    """Of a source of a corpus: the ids of its records, by the split."""

    records: dict[str, str] = {}


class CorpusMeta(msgspec.Struct, frozen=True, kw_only=True):
    """Of a corpus: what it was made of, by the names of the sources."""

    sources: dict[str, RecordsOfSource] = {}

    @property
    def records(self) -> set[str]:
        """The ids of the records that it leads to."""
        return {
            records_id
            for source in self.sources.values()
            for records_id in source.records.values()
        }


class UsedEmbedding(msgspec.Struct, frozen=True, kw_only=True):
    """The vectors that an order was found by."""

    id: str


class UsedScores(msgspec.Struct, frozen=True, kw_only=True):
    """The scores by a model that an order was made of: their id, and the digest of what
    they say."""

    id: str
    digest: str


class ArrangementSources(msgspec.Struct, frozen=True, kw_only=True):
    """What an arrangement was made of."""

    corpus_meta: CorpusDigests | None = None
    scores: UsedScores | None = None
    train_embedding: UsedEmbedding | None = None
    test_embedding: UsedEmbedding | None = None
    target_embedding: UsedEmbedding | None = None

    @property
    def embeddings(self) -> set[str]:
        """The ids of the vectors that it was made by."""
        used = (self.train_embedding, self.test_embedding, self.target_embedding)
        return {embedding.id for embedding in used if embedding is not None}


class ListedExamples(msgspec.Struct, frozen=True, kw_only=True):
    """Of an order that a file lists, or gives scores for: how many examples are trained
    on, and how many of the file's are passed over, as they are held out or were not
    sampled."""

    count: int = 0
    passed_over: int = 0


class PresentExamples(msgspec.Struct, frozen=True, kw_only=True):
    """Of an order in which examples may come again: its length, how many different
    examples stand in it and how many of them several times, the most times of one, and
    how many training examples stand nowhere in it."""

    places: int = 0
    distinct: int = 0
    repeated: int = 0
    most: int = 0
    never: int = 0

    def describe(self) -> str:
        """The counts, in words."""
        text = f"the order has {self.places:,} places for {self.distinct:,} examples"
        if self.repeated:
            text += (
                f", of which {self.repeated:,} come again, {self.most:,} times at most"
            )
        if self.never:
            text += f"; {self.never:,} training examples are never seen"
        return text


class ArrangementMeta(msgspec.Struct, frozen=True, kw_only=True):
    """Of an arrangement: the digest of its list of ids, and what it was made of.
    `target`: the set that it looks at in place of the test set, if it does."""

    ids_digest: str | None = None
    target: TargetSummary | None = None
    listed: ListedExamples = ListedExamples()
    scored: ListedExamples = ListedExamples()
    presence: PresentExamples | None = None
    sources: ArrangementSources = ArrangementSources()

    @property
    def corpus(self) -> CorpusDigests:
        """The digests of its corpus, as far as they are known."""
        return self.sources.corpus_meta or CorpusDigests()


class ScoresMeta(msgspec.Struct, frozen=True, kw_only=True):
    """Of scores by a model, whole. `recipe`: the score's; `digest`: of what they say;
    `unscored`: how many examples have none; `weights`: what is known of each model's
    content; `tokens`: the most of a row of texts; `devices`, `versions`: on what they
    were computed; `with_length`: Spearman's correlation with the examples' tokens, None
    where one of both is all alike; `close`: the share of neighbours by score that are
    nearer than a loss is certain."""

    schema: int = 1
    recipe: dict[str, Any]
    count: int
    unscored: int
    digest: str
    weights: dict[str, str]
    precision: str
    tokens: int | None
    devices: list[str]
    versions: dict[str, str]
    with_length: float | None
    close: float


class BaseMeta(msgspec.Struct, frozen=True, kw_only=True):
    """Of a base that zsg has made: the digest of its weights and tokenizer."""

    digest: str | None = None


class TokensMeta(msgspec.Struct, frozen=True, kw_only=True):
    """Of the token ids of an arrangement, whole. `questionless`: how many examples have
    lost their whole question; unset of an older zsg, which did not count them. Under a
    chat template, where there are any, `apart`: examples whose prompt has other tokens
    alone; `control`: words of control tokens that stayed text."""

    schema: int = 1
    examples: int
    tokens: int
    questionless: int | UnsetType = UNSET
    apart: int | UnsetType = UNSET
    control: int | UnsetType = UNSET


class ChatTrialMeta(msgspec.Struct, frozen=True, kw_only=True):
    """Of the trial of a chat template on a corpus, which went well: on how many
    examples."""

    schema: int = 1
    examples: int


class BaseLossesMeta(msgspec.Struct, frozen=True, kw_only=True):
    """Of the test losses of a base, whole."""

    items: int


class ReadingFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a reading of data met: rows that were passed over and why the first of them,
    what was left out of others, nulls read as absence by their key, and in `beside`
    which files were not read."""

    skipped: int = 0
    reasons: list[str] = []
    left_out: dict[str, int] = {}
    nulls: dict[str, int] = {}
    beside: list[str] = []


class SamplingFacts(ReadingFacts, frozen=True, kw_only=True):
    """The same of the questions that a model was asked, and counts of its answers: see
    jobs.preparing.reading_notes."""

    asked: int = 0
    too_long: int = 0
    empty: int = 0
    at_limit: int = 0
    runs_on: int = 0
    cut_words: int = 0


class MakingFacts(ReadingFacts, frozen=True, kw_only=True):
    """The same of the items that a maker asked a model about, with what became of it.

    `maker`: its name; `asked`: who, for people; `refused`: how many items or replies
    became no example, by the reason; `facts`: what the maker counted; `read` and
    `written`: tokens of all requests and replies; `cost`: theirs, None where no prices
    are said.
    """

    maker: str = ""
    asked: str = ""
    items: int = 0
    requests: int = 0
    examples: int = 0
    refused: dict[str, int] = {}
    facts: dict[str, int | float | str] = {}
    read: int = 0
    written: int = 0
    cost: float | None = None


class RecordsMeta(ReadingFacts, frozen=True, kw_only=True):
    """Of the records of a data set: how they were read. `sampled`: where they are a
    model's own answers; `made`: where a maker has made them."""

    sampled: SamplingFacts | None = None
    made: MakingFacts | None = None


def read_records_meta(folder: Path) -> RecordsMeta | None:
    """What the records of a data set tell of their making; None where they have no
    meta.json. Damaged for what is no such record."""
    return read_record(folder / META, RecordsMeta, ADVICE)


def read_corpus_meta(folder: Path) -> CorpusMeta | None:
    """What a corpus tells of its making; None where it has no meta.json. Damaged for
    what is no such record."""
    return read_record(folder / META, CorpusMeta, ADVICE)


def read_arrangement_meta(folder: Path) -> ArrangementMeta | None:
    """What an arrangement's folder tells of itself; None where it has no meta.json.
    Damaged for what is no such record."""
    return read_record(folder / META, ArrangementMeta, ADVICE)


def read_scores_meta(folder: Path) -> ScoresMeta | None:
    """The same of scores by a model."""
    return read_record(folder / META, ScoresMeta, ADVICE)


def read_base_meta(folder: Path) -> BaseMeta | None:
    """The same of a base."""
    return read_record(folder / META, BaseMeta, ADVICE)


def read_tokens_meta(folder: Path) -> TokensMeta | None:
    """The same of the token ids of an arrangement."""
    return read_record(folder / META, TokensMeta, ADVICE)


def describe_arrangement(folder: Path) -> list[str]:
    """What there is to know of an order, for whoever reads a run's numbers."""
    meta = read_arrangement_meta(folder)
    if meta is None:
        return []
    notes: list[str] = []
    if meta.listed.passed_over:
        notes.append(
            f"arrangement.path lists {meta.listed.passed_over:,} examples that are not trained on"
            " (they are held out, or were not sampled); they were passed over, and"
            f" {meta.listed.count:,} stand in the order of the list"
        )
    if meta.scored.passed_over:
        notes.append(
            f"arrangement.path has scores of {meta.scored.passed_over:,} examples that are not"
            " trained on (held out, not sampled, or of other data); they were passed over, and"
            f" {meta.scored.count:,} stand in the order of their scores"
        )
    if meta.presence is not None:
        notes.append(meta.presence.describe())
    if meta.target is not None:
        notes.append(
            "the order looks at a target set apart from the test set:"
            f" {meta.target.describe()}"
        )
    return notes


def read_corpus_notes(folder: Path) -> list[str]:
    """What whoever reads results of a corpus must know of its data, in words; where the
    file cannot be read, that."""
    try:
        notes = read_json(folder / NOTES)
        return [] if notes is None else convert_json(notes, list[str])
    except (Damaged, OSError) as error:
        return [str(error)]
    except msgspec.ValidationError as error:
        return [f"{folder / NOTES}: is not what zsg writes there: {error}; {ADVICE}"]


def write_corpus_notes(folder: Path, notes: Sequence[str]) -> None:
    """Writes the notes of a corpus; no file where there are none."""
    if notes:
        write_json(folder / NOTES, list(notes))


def write_prepared_meta(
    folder: Path, meta: TokensMeta | BaseLossesMeta | ChatTrialMeta | ScoresMeta
) -> None:
    """Writes what a folder tells of itself."""
    write_record(folder / META, meta)
