"""InsTag: a model writes tags of every dialogue, and few steps make few tags of them
(Lu et al. 2023, arXiv 2308.07074).

The examples stay as they are, with their tags, so `keep_tags` and `drop_tags` choose
among them: DMT's ablation drops what has a tag with `code` or `math`. With `choose` the
few are taken that have many different tags.

A reply that cannot be read costs its dialogue the tags, and is counted; the dialogue
itself stays unless `untagged` drops it.
"""

import json
from collections.abc import Sequence

import msgspec

from zsg_core.data.examples import Example
from zsg_core.makers import tag_replies
from zsg_core.makers.registry import (
    Encode,
    Made,
    Reply,
    Request,
    Sampling,
    Steps,
    ask,
    maker,
)
from zsg_core.makers.tag_rules import (
    MeaningRule,
    NormalisedTags,
    TagRule,
    Tags,
    count_tags,
    normalise_tags,
)
from zsg_core.makers.tag_sampling import choose_diverse, measure_tags
from zsg_core.settings.makers import InstagSettings, MeaningSettings

# beside the examples: the tags by the examples' ids, in the form that `tags` reads; and
# what has become of each tag that the model wrote
TAGS_FILE, SPELLINGS_FILE = "tags.jsonl", "spellings.jsonl"

UNTAGGED = "dialogues left out: no tag in the end"
NOT_CHOSEN = "dialogues left out: not chosen"

# settings that decide only what becomes of the tags
KEEPS = (
    "at_least",
    "frequency",
    "meaning",
    "support",
    "confidence",
    "choose",
    "untagged",
)


@maker(
    "instag",
    InstagSettings,
    about="tags of every dialogue, normalised; few diverse dialogues, if wanted",
    keeps=KEEPS,
    packages=("nltk",),
)
def make_tags(
    examples: Sequence[Example],
    settings: InstagSettings,
    encode: Encode | None = None,
) -> Steps:
    """The dialogues with their tags; `encode` is of tags of one meaning."""
    made = Made()
    requests = write_requests(examples, settings, made)
    replies = yield requests
    rows = read_replies(replies, made)
    normalised = normalise_tags(rows, choose_rule(settings), encode)
    tell_figures(normalised, made)
    tagged = attach_tags(examples, normalised.rows)
    made.files[TAGS_FILE] = write_tags(tagged)
    made.files[SPELLINGS_FILE] = write_spellings(rows, normalised)
    made.examples += choose_examples(tagged, settings, made)
    return made


def write_requests(
    examples: Sequence[Example], settings: InstagSettings, made: Made
) -> list[Request]:
    """One request for each dialogue, under its id; queries that are cut are counted."""
    sampling = Sampling(max_new_tokens=settings.max_new_tokens)
    requests: list[Request] = []
    cut = 0
    for example in examples:
        query = tag_replies.write_query(example, settings.turns)
        longest = settings.longest_query
        if longest is not None and len(query) > longest:
            query = query[:longest]
            cut += 1
        prompt = tag_replies.write_prompt(settings.prompt, query)
        request = Request(
            id=example.id,
            turns=(ask(prompt),),
            system=settings.system,
            sampling=sampling,
        )
        requests.append(request)
    if settings.longest_query is not None:
        made.facts["queries that were cut"] = cut
    return requests


def read_replies(replies: Sequence[Reply], made: Made) -> list[Tags]:
    """The tags of each reply; none of one that is refused, which is counted."""
    rows: list[Tags] = []
    bad_tags = 0
    for reply in replies:
        if reply.refused:
            made.refuse(reply.refused)
            rows.append(())
            continue
        read = tag_replies.read_tags(reply.text, reply.is_cut)
        if read.refusal is not None:
            made.refuse(read.refusal)
        bad_tags += read.bad_tags
        rows.append(read.tags)
    made.facts["dialogues whose reply has tags"] = sum(bool(row) for row in rows)
    made.facts["tags that were no tags"] = bad_tags
    return rows


def choose_rule(settings: InstagSettings) -> TagRule:
    """What decides the normalisation."""
    return TagRule(
        at_least=settings.at_least,
        frequency=settings.frequency,
        support=settings.support,
        confidence=settings.confidence,
        meaning=choose_meaning(settings.meaning),
    )


def choose_meaning(settings: MeaningSettings | None) -> MeaningRule | None:
    """How close in meaning two tags are one; None where that does not count."""
    if settings is None:
        return None
    return MeaningRule(
        threshold=settings.threshold,
        kind=settings.kind,
        least_neighbours=settings.least_neighbours,
    )


def tell_figures(normalised: NormalisedTags, made: Made) -> None:
    """Counts what each step leaves, and the set's complexity and diversity."""
    for count in normalised.steps:
        made.facts[f"different tags, {count.step}"] = count.tags
    figures = measure_tags(normalised.rows)
    made.facts["dialogues with tags"] = figures.dialogues - figures.untagged
    made.facts["tags of a dialogue on average"] = round(figures.complexity, 4)


def attach_tags(examples: Sequence[Example], rows: Sequence[Tags]) -> list[Example]:
    """The examples with these tags in place of what tags they had."""
    tagged: list[Example] = []
    for example, tags in zip(examples, rows, strict=True):
        tagged.append(msgspec.structs.replace(example, tags=tags))
    return tagged


def choose_examples(
    tagged: Sequence[Example], settings: InstagSettings, made: Made
) -> list[Example]:
    """The dialogues that stay, in the order of the data, or as diverse sampling takes
    them; the others are counted."""
    chosen = list(tagged)
    if settings.untagged == "drop":
        chosen = [example for example in tagged if example.tags]
        for _ in range(len(tagged) - len(chosen)):
            made.refuse(UNTAGGED)
    if settings.choose is None:
        return chosen
    positions = choose_diverse([example.tags for example in chosen], settings.choose)
    for _ in range(len(chosen) - len(positions)):
        made.refuse(NOT_CHOSEN)
    return [chosen[position] for position in positions]


def write_tags(tagged: Sequence[Example]) -> str:
    """The tags of all dialogues, a line each, by the id of the example."""
    lines: list[str] = []
    for example in tagged:
        row = {"id": example.id, "tags": list(example.tags)}
        lines.append(_write_row(row))
    return "".join(lines)


def write_spellings(rows: Sequence[Tags], normalised: NormalisedTags) -> str:
    """What has become of each tag that the model wrote, the most frequent first; null
    where it was dropped."""
    lines: list[str] = []
    for written, count in sorted(count_tags(rows).items(), key=_order_of_spelling):
        tag = normalised.spellings[written]
        row = {"written": written, "dialogues": count, "tag": tag}
        lines.append(_write_row(row))
    return "".join(lines)


def _order_of_spelling(entry: tuple[str, int]) -> tuple[int, str]:
    written, count = entry
    return -count, written


def _write_row(row: dict[str, object]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"
