"""Writes what a run learns as lines for people: an example's text with its targets
marked, its counts, what is wrong with it."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zsg_core.shown_text import make_showable

if TYPE_CHECKING:  # brings torch
    from jobs.training.learnt_texts import LearntExample, Piece

# Brackets that prompts and data seldom have: `[INST]` is full of the usual ones.
OPEN, CLOSE = "⟦", "⟧"
# between the texts of an example that is several, one for each answer
BETWEEN_TEXTS = "\n--- the same example, next text ---\n"
LEGEND = f"targets stand between {OPEN} and {CLOSE}"
SPLITS = {"train": "training examples", "test": "test items"}


def mark_targets(pieces: "Iterable[Piece]") -> str:
    """The text of an example, its targets between brackets. Brackets of its own are
    written as escapes. Where it is several texts, a line stands between them."""
    marked: list[str] = []
    is_open = False
    number = 0
    for piece in pieces:
        is_next = piece.text_number != number
        number = piece.text_number
        if is_open and (is_next or not piece.is_target):
            marked.append(CLOSE)
            is_open = False
        if is_next:
            marked.append(BETWEEN_TEXTS)
        if piece.is_target and not is_open:
            marked.append(OPEN)
            is_open = True
        marked.append(_escape_brackets(make_showable(piece.text)))
    if is_open:
        marked.append(CLOSE)
    return "".join(marked)


def _escape_brackets(text: str) -> str:
    return text.replace(OPEN, "\\u27e6").replace(CLOSE, "\\u27e7")


def describe_batch(step: int, examples: "Sequence[LearntExample]") -> str:
    """The counts of a step's batch, in one line."""
    tokens = sum(example.tokens for example in examples)
    targets = sum(example.targets for example in examples)
    longest = max((example.tokens for example in examples), default=0)
    return (
        f"step {step}: {len(examples)} examples, {tokens:,} tokens, {targets:,} of them"
        f" targets; the longest has {longest:,}"
    )


def describe_example(example: "LearntExample") -> list[str]:
    """The lines above an example's text: who it is, its counts, its problems."""
    counts = f"{example.tokens:,} tokens, {example.targets:,} targets"
    head = f"{example.id}  (place {example.place}): {counts}"
    return [head, *(f"  {kind}: {text}" for kind, text in example.problems)]


def list_problems(
    problems: "Mapping[str, Sequence[LearntExample]]",
    sizes: Mapping[str, int],
    head: int,
) -> list[str]:
    """Of each split how many examples have which problem, and the first `head` of
    them."""
    lines: list[str] = []
    for split, examples in problems.items():
        name = SPLITS[split]
        if not examples:
            lines.append(f"no problem in {sizes[split]:,} {name}")
            continue
        lines.append(
            f"{len(examples):,} of {sizes[split]:,} {name} have problems:"
            f" {_count_kinds(examples)}"
        )
        lines += [f"  {_describe_problems(example)}" for example in examples[:head]]
        if len(examples) > head:
            lines.append(f"  … and {len(examples) - head:,} more (--head, or --json)")
    return lines


def _describe_problems(example: "LearntExample") -> str:
    """What is wrong with an example, in one line."""
    position = f"place {example.place}"
    if example.step is not None:
        position = f"step {example.step}"
    problems = "; ".join(f"{kind}: {text}" for kind, text in example.problems)
    return f"{example.id} ({position}): {problems}"


def _count_kinds(examples: "Iterable[LearntExample]") -> str:
    """How many examples have each kind of problem."""
    kinds = Counter(
        kind
        for example in examples
        for kind in dict.fromkeys(kind for kind, _ in example.problems)
    )
    return ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common())


def example_row(example: "LearntExample") -> dict[str, Any]:
    """An example for scripts."""
    row: dict[str, Any] = {
        "id": example.id,
        "place": example.place,
        "step": example.step,
        "tokens": example.tokens,
        "targets": example.targets,
        "problems": [{"kind": kind, "text": text} for kind, text in example.problems],
    }
    if example.pieces:
        row["pieces"] = [
            {
                "text": piece.text,
                "target": piece.is_target,
                "control": piece.is_control,
                "text_number": piece.text_number,
            }
            for piece in example.pieces
        ]
    return row
