"""Makes few tags of many spellings: InsTag's normalisation (arXiv 2308.07074, section
3.2).

1. frequency: a tag of fewer than `at_least` dialogues is dropped
2. rules: lower case, special characters to blanks, the stem of every word (Porter)
3. meaning: tags whose embeddings lie close together are one (DBSCAN)
4. association: a tag that stands only beside another one is that other one, again and
   again until no such pair is left

Published are the steps in this order, with 20, 0.05, a support of 40 and a confidence
of 99 %. Dropping before the rules loses what is frequent in several spellings, so the
first step may also come second. Not published is which tag stands for a group: here the
most frequent one, of equals the shortest, of these the first in the alphabet. Tags are
counted by dialogues: a dialogue counts once, however often it has a tag.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import Any

from zsg_core.errors import UserError
from zsg_core.makers.density_clusters import ALONE, cluster_by_density
from zsg_core.makers.registry import Encode

Tags = tuple[str, ...]

# when rare tags are dropped: as the model wrote them, or once the rules are through
RAW, RULES = FREQUENCY_STEPS = ("raw", "rules")
# what the threshold of step 3 is: the published text may mean either
DISTANCE, SIMILARITY = THRESHOLD_KINDS = ("distance", "similarity")

_SPECIAL = re.compile(r"[\W_]+")


@dataclass(frozen=True, kw_only=True)
class MeaningRule:
    """How close in meaning two tags are one: at a cosine distance of at most
    `threshold`, or at a similarity of at least that. `least_neighbours`: of DBSCAN, the
    tag itself included; 1 joins every two that are close."""

    threshold: float
    kind: str
    least_neighbours: int

    @property
    def least_similarity(self) -> float:
        """The smallest cosine at which two tags are close."""
        if self.kind == SIMILARITY:
            return self.threshold
        return 1.0 - self.threshold


@dataclass(frozen=True, kw_only=True)
class TagRule:
    """What decides the normalisation. `meaning`: None leaves step 3 out; `support`:
    dialogues that must have both tags of a pair, and 0 leaves step 4 out; `confidence`:
    the share of the first tag's dialogues that must have the second."""

    at_least: int
    frequency: str
    support: int
    confidence: float
    meaning: MeaningRule | None = None


@dataclass(frozen=True)
class Association:
    """A rule `tag` → `implied`: both stand in `support` dialogues, which are the share
    `confidence` of those with `tag`."""

    tag: str
    implied: str
    support: int
    confidence: float


@dataclass(frozen=True)
class StepCount:
    """How many different tags there are after a step, and how many dialogues have
    any."""

    step: str
    tags: int
    dialogues: int


@dataclass(frozen=True)
class NormalisedTags:
    """The tags of every dialogue, in the order given, each dialogue's sorted;
    `spellings`: for each tag of the model's what has become of it, None where it was
    dropped; `steps`: the counts after each step."""

    rows: list[Tags]
    spellings: dict[str, str | None]
    steps: list[StepCount]


def normalise_tags(
    rows: Sequence[Sequence[str]], rule: TagRule, encode: Encode | None = None
) -> NormalisedTags:
    """The tags of dialogues after all steps that the rule has; `encode` embeds tags and
    is asked only where the rule has step 3.

    UserError where the stemmer is not installed.
    """
    chain = _Chain(rows)
    chain.note("written")
    if rule.frequency == RAW:
        chain.replace("frequency", drop_rare(chain.rows, rule.at_least))
    stems = {tag: apply_rules(tag) or None for tag in count_tags(chain.rows)}
    chain.replace("rules", stems)
    if rule.frequency == RULES:
        chain.replace("frequency", drop_rare(chain.rows, rule.at_least))
    if rule.meaning is not None:
        assert encode is not None, "who asks for step 3 brings an encoder"
        groups = join_by_meaning(
            count_tags(chain.rows), rule.meaning, encode, chain.choose_spellings()
        )
        chain.replace("meaning", groups)
    if rule.support:
        groups = join_by_association(chain.rows, rule.support, rule.confidence)
        chain.replace("association", groups)
    return NormalisedTags(chain.rows, chain.spellings, chain.steps)


class _Chain:
    """The rows as they stand after the steps so far, and what became of each tag.

    `rows` and `steps` are those of NormalisedTags; `spellings` leads from each tag as
    the model wrote it to the present one.
    """

    rows: list[Tags]
    spellings: dict[str, str | None]
    steps: list[StepCount]

    def __init__(self, rows: Sequence[Sequence[str]]) -> None:
        self.written_counts = count_tags(rows)
        self.rows = replace_tags(rows, {})
        self.spellings = {}
        self.steps = []
        for tag in self.written_counts:
            self.spellings[tag] = tag

    def replace(self, step: str, names: Mapping[str, str | None]) -> None:
        """Gives each tag its new name; None drops it, and a tag without one stays.

        What the model wrote follows its present tag, so that `spellings` stays true of
        all steps together.
        """
        self.rows = replace_tags(self.rows, names)
        for written, tag in self.spellings.items():
            if tag is None:
                continue
            if tag in names:
                self.spellings[written] = names[tag]
        self.note(step)

    def note(self, step: str) -> None:
        """Counts what there is after a step."""
        tags: set[str] = set()
        dialogues = 0
        for row in self.rows:
            tags.update(row)
            if row:
                dialogues += 1
        self.steps.append(StepCount(step, len(tags), dialogues))

    def choose_spellings(self) -> dict[str, str]:
        """For each tag the best of the model's spellings of it: models of sentences
        know words, not stems."""
        ranks = rank_tags(self.written_counts)
        best: dict[str, str] = {}
        for written in sorted(self.spellings, key=ranks.__getitem__):
            tag = self.spellings[written]
            if tag is not None:
                best.setdefault(tag, written)
        return best


def count_tags(rows: Iterable[Iterable[str]]) -> Counter[str]:
    """In how many rows each tag stands."""
    counts: Counter[str] = Counter()
    for row in rows:
        counts.update(set(row))
    return counts


def rank_tags(counts: Mapping[str, int]) -> dict[str, int]:
    """The rank of each tag as the name of a group: the most frequent first, of equals
    the shortest, of these the first in the alphabet."""

    def order(tag: str) -> tuple[int, int, str]:
        return -counts[tag], len(tag), tag

    ranks: dict[str, int] = {}
    for rank, tag in enumerate(sorted(counts, key=order)):
        ranks[tag] = rank
    return ranks


def replace_tags(
    rows: Iterable[Iterable[str]], names: Mapping[str, str | None]
) -> list[Tags]:
    """The rows with each tag under its new name, sorted, each name once; None drops a
    tag, and a tag without a new name stays."""
    renamed: list[Tags] = []
    for row in rows:
        new_names: set[str] = set()
        for tag in row:
            name = names.get(tag, tag)
            if name is not None:
                new_names.add(name)
        renamed.append(tuple(sorted(new_names)))
    return renamed


def drop_rare(rows: Iterable[Iterable[str]], at_least: int) -> dict[str, str | None]:
    """None for each tag that fewer rows than `at_least` have."""
    names: dict[str, str | None] = {}
    for tag, count in count_tags(rows).items():
        if count < at_least:
            names[tag] = None
    return names


def apply_rules(tag: str) -> str:
    """The tag in lower case, special characters as blanks, every word as its stem:
    "Creative_writing" → "creativ write". Empty where nothing is left.

    Letters of all scripts stay, and only English words have stems. Signs are lost:
    "C++" and "C#" are both "c".
    """
    words = _SPECIAL.sub(" ", tag.lower()).split()
    stem_word = _load_stemmer()
    return " ".join(stem_word(word) for word in words)


@cache
def _load_stemmer() -> Callable[[str], str]:
    """NLTK's Porter stemmer in its default mode, whose stems are the ones compared
    with. UserError without NLTK."""
    try:
        # here, as it takes seconds to import
        from nltk.stem.porter import PorterStemmer
    except ModuleNotFoundError:
        raise UserError(
            "the rules for tags need the package nltk: pip install 'zsg[evaluate]'"
        ) from None
    stemmer: Any = PorterStemmer()
    return stemmer.stem


def join_by_meaning(
    counts: Mapping[str, int],
    rule: MeaningRule,
    encode: Encode,
    texts: Mapping[str, str],
) -> dict[str, str | None]:
    """For each tag of a group the group's name; a tag that is close to no other is of
    none, or alone in its own. `texts`: what is embedded of each tag."""
    ranks = rank_tags(counts)
    # the best ranked first, so that the first tag of a group is its name
    tags = list(ranks)
    if not tags:
        return {}
    vectors = encode([texts[tag] for tag in tags])
    clusters = cluster_by_density(vectors, rule.least_similarity, rule.least_neighbours)
    group_names: dict[int, str] = {}
    names: dict[str, str | None] = {}
    for tag, cluster in zip(tags, clusters, strict=True):
        if cluster == ALONE:
            continue
        group_names.setdefault(cluster, tag)
        names[tag] = group_names[cluster]
    return names


def find_associations(
    rows: Sequence[Sequence[str]], support: int, confidence: float
) -> list[Association]:
    """The rules between two tags with at least this support and confidence, sorted by
    tags: what FP-growth finds of itemsets of two, which are all that one tag's merging
    into another needs."""
    counts = count_tags(rows)
    pairs: Counter[tuple[str, str]] = Counter()
    for row in rows:
        tags = sorted(set(row))
        pairs.update(combinations(tags, 2))
    rules: list[Association] = []
    for (first, second), both in pairs.items():
        if both < support:
            continue
        forth = Association(first, second, both, both / counts[first])
        back = Association(second, first, both, both / counts[second])
        for rule in (forth, back):
            if rule.confidence >= confidence:
                rules.append(rule)
    rules.sort(key=_name_both)
    return rules


def _name_both(rule: Association) -> tuple[str, str]:
    return rule.tag, rule.implied


def join_by_association(
    rows: Sequence[Sequence[str]], support: int, confidence: float
) -> dict[str, str | None]:
    """For each tag that implies a better one the name that it ends with.

    Of several implied tags it takes that of the highest confidence, of equals the best
    ranked. Found anew after each round of merging, until a round finds nothing.
    """
    merged: dict[str, str] = {}
    current = replace_tags(rows, {})
    targets = _choose_implied(current, support, confidence)
    while targets:
        merged |= targets
        current = replace_tags(current, {tag: _follow(merged, tag) for tag in targets})
        targets = _choose_implied(current, support, confidence)
    names: dict[str, str | None] = {}
    for tag in merged:
        names[tag] = _follow(merged, tag)
    return names


def _choose_implied(
    rows: Sequence[Sequence[str]], support: int, confidence: float
) -> dict[str, str]:
    """For each tag the better ranked one that it is merged into.

    A tag that implies none but worse ranked ones stays, so that no two tags lead to
    each other: where both imply each other the better ranked one is the name.
    """
    ranks = rank_tags(count_tags(rows))
    strongest: dict[str, Association] = {}
    targets: dict[str, str] = {}
    for rule in find_associations(rows, support, confidence):
        if ranks[rule.implied] > ranks[rule.tag]:
            continue
        rival = strongest.get(rule.tag)
        if rival is not None and not _is_stronger(rule, rival, ranks):
            continue
        strongest[rule.tag] = rule
        targets[rule.tag] = rule.implied
    return targets


def _is_stronger(
    rule: Association, other: Association, ranks: Mapping[str, int]
) -> bool:
    """Whether a rule says more surely than another what its tag implies; of equals the
    one that leads to the better ranked tag."""
    if rule.confidence != other.confidence:
        return rule.confidence > other.confidence
    return ranks[rule.implied] < ranks[other.implied]


def _follow(targets: Mapping[str, str], tag: str) -> str:
    """Where a chain of merges ends that begins at a tag."""
    while tag in targets:
        tag = targets[tag]
    return tag
