"""Says in words what max_length has taken of a run's examples, as its trainer told it
when it began, and what a chat template has met in them."""

from typing import Any

from jobs.contract.exit_record import replace_unset
from jobs.contract.folder import get_object
from jobs.contract.job_file import Recipe
from jobs.contract.journal_rows import Start

KINDS = {"train": "training", "test": "test"}


def describe_lengths(start: Start, train: Recipe) -> list[str]:
    """A sentence for each split of which examples were shortened; none of a start of an
    older zsg that did not tell it. `train`: the recipe of the run's training."""
    sentences = (_describe_split(start, split, train) for split in KINDS)
    return [sentence for sentence in sentences if sentence]


def describe_chat(start: Start) -> list[str]:
    """What a chat template has met in a run's examples; nothing where it met nothing."""
    sentences: list[str] = []
    for split, kind in KINDS.items():
        if apart := _count(start.apart, split):
            sentences.append(
                f"under the chat template the last prompt of {apart} {kind} examples has other"
                " tokens where it stands alone, as for generation: its last token goes on in the"
                " answer"
            )
        if control := _count(start.control, split):
            sentences.append(
                f"{control} words of control tokens in {kind} examples were read as text:"
                " model.add_tokens names those that are to stay tokens"
            )
    return sentences


def _describe_split(start: Start, split: str, train: Recipe) -> str | None:
    """How many examples of a split were shortened, and what they lost by it; None where
    none was.

    An example that kept its answer and nothing of its question teaches to answer
    without being asked, which is worse than a shorter question.
    """
    shortened = _count(start.shortened, split)
    if not shortened:
        return None
    size = replace_unset(getattr(start, split))
    of_all = "" if size is None else f" of {size}"
    sentence = (
        f"train.max_length {train['max_length']} has shortened {shortened}{of_all}"
        f" {KINDS[split]} examples"
    )
    losses: list[str] = []
    if questionless := _count(start.questionless, split):
        losses.append(
            f"{questionless} have lost their whole question and kept the answer (train.truncate:"
            " system cuts system texts first)"
        )
    if unanswered := _count(start.unanswered, split):
        losses.append(f"{unanswered} have no target token left")
    return f"{sentence}; {', '.join(losses)}" if losses else sentence


def _count(by_split: Any, split: str) -> int:
    """How many examples of a split; 0 where that was not told."""
    count = get_object(replace_unset(by_split)).get(split)
    return count if isinstance(count, int) else 0
