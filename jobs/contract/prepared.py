"""meta.json of what jobs prepare once for many runs: as far as others read it, or whole."""

from pathlib import Path

import msgspec

from jobs.contract.folder import META
from jobs.contract.records import read_record, write_record

ADVICE = "remove the folder, and the next job that needs it makes it anew"


class CorpusDigests(msgspec.Struct, frozen=True, kw_only=True):
    """Of a corpus: the digests of its two lists of examples."""

    train_digest: str | None = None
    test_digest: str | None = None


class ArrangementSources(msgspec.Struct, frozen=True, kw_only=True):
    """What an arrangement was made of."""

    corpus_meta: CorpusDigests | None = None


class ArrangementMeta(msgspec.Struct, frozen=True, kw_only=True):
    """Of an arrangement: the digest of its list of ids, and what it was made of."""

    ids_digest: str | None = None
    sources: ArrangementSources = ArrangementSources()

    @property
    def corpus(self) -> CorpusDigests:
        """The digests of its corpus, as far as they are known."""
        return self.sources.corpus_meta or CorpusDigests()


class BaseMeta(msgspec.Struct, frozen=True, kw_only=True):
    """Of a base that zsg has made: the digest of its weights and tokenizer."""

    digest: str | None = None


class TokensMeta(msgspec.Struct, frozen=True, kw_only=True):
    """Of the token ids of an arrangement, whole."""

    schema: int = 1
    examples: int
    tokens: int


class BaseLossesMeta(msgspec.Struct, frozen=True, kw_only=True):
    """Of the test losses of a base, whole."""

    items: int


def read_arrangement_meta(folder: Path) -> ArrangementMeta | None:
    """What an arrangement's folder tells of itself; None where it has no meta.json.
    Damaged for what is no such record."""
    return read_record(folder / META, ArrangementMeta, ADVICE)


def read_base_meta(folder: Path) -> BaseMeta | None:
    """The same of a base."""
    return read_record(folder / META, BaseMeta, ADVICE)


def write_prepared_meta(folder: Path, meta: TokensMeta | BaseLossesMeta) -> None:
    """Writes what a folder tells of itself."""
    write_record(folder / META, meta)
