"""Says in words what the making of records has passed over and left out, from what their
meta.json keeps of it."""

from jobs.contract.prepared import (
    MakingFacts,
    ReadingFacts,
    RecordsMeta,
    SamplingFacts,
)


def describe_records(meta: RecordsMeta) -> list[str]:
    """What whoever uses these records must know."""
    notes = describe_reading(meta)
    if meta.sampled:
        notes += describe_sampling(meta.sampled)
    if meta.made:
        notes += describe_making(meta.made)
    return notes


def describe_reading(facts: ReadingFacts) -> list[str]:
    """What a reading has passed over, left out and taken for absent."""
    notes: list[str] = []
    if facts.skipped:
        notes.append(
            f"{facts.skipped} bad rows were passed over; the first: {facts.reasons[0]}"
        )
    notes += [
        f"left out {count} times: {omission}"
        for omission, count in facts.left_out.items()
    ]
    notes += [
        f"{count} rows have a null in `{key}`, which is read as absent; an older zsg passed such"
        " rows over"
        for key, count in facts.nulls.items()
    ]
    return notes


def describe_sampling(facts: SamplingFacts) -> list[str]:
    """What was strange in the questions and in the answers that a model gave of its own."""
    counts = {
        "questions were left out: too long for the model": facts.too_long,
        f"of {facts.asked} questions were left out: the model's answer is empty": facts.empty,
        f"of {facts.asked} answers were not over after max_new_tokens, and are cut off there": (
            facts.at_limit
        ),
        f"of {facts.asked} answers go on into what would be the user's next question": (
            facts.runs_on
        ),
        f"of {facts.asked} answers lost more than blanks to self_sample.cut; set it to 0 where the"
        " model does not begin with blanks": facts.cut_words,
    }
    notes = [
        f"{count} {what_happened}" for what_happened, count in counts.items() if count
    ]
    return describe_reading(facts) + notes


def describe_making(facts: MakingFacts) -> list[str]:
    """How a maker's examples came about, and every item and reply that became none."""
    summary = (
        f"{facts.maker} made {facts.examples:,} examples of {facts.items:,} items by"
        f" {facts.requests:,} requests to {facts.asked}: {facts.read:,} tokens read and"
        f" {facts.written:,} written"
    )
    if facts.cost is not None:
        summary += f", at a cost of {facts.cost:,.4g}"
    if facts.facts:
        counted = (f"{name} {value}" for name, value in facts.facts.items())
        summary += f"; {', '.join(counted)}"
    refused = [
        f"{facts.maker} refused {count:,}: {reason}"
        for reason, count in facts.refused.items()
    ]
    return [*describe_reading(facts), summary, *refused]
