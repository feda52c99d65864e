"""Writes what a look at data has found as lines for people."""

from collections.abc import Iterable, Sequence

from launcher.views.columns import align_columns
from launcher.views.looked_data import (
    TEST,
    TOKENS,
    TRAIN,
    Cut,
    DataLook,
    ShownExample,
    SourceLook,
    SplitLook,
)
from zsg_core.data.data_look import Overlap, Repeats

MOST_TASKS = 20  # lines of the table of tasks
MOST_REASONS = 3
MOST_SHOWN = 400  # characters of a text
WIDEST_NAME = 40  # of a task
CONTINUED = "    ↵ "  # before each further line of a text
SPLITS = {TRAIN: "trained on", TEST: "tested"}
ITEMS = {TRAIN: "training examples", TEST: "test items"}


def describe_look(look: DataLook, heading: bool = True) -> list[str]:
    """All lines of a look; the first says whose data they are, if `heading`."""
    lines = [look.title] if heading else []
    for source in look.sources:
        lines += describe_source(source, look)
    if look.overlap is not None:
        lines.append(describe_overlap(look.overlap, look))
    return [*lines, *look.targets]


def describe_source(source: SourceLook, look: DataLook) -> list[str]:
    """The lines of a source: how it is read, its counts, its lengths."""
    lines = [describe_reading(source)]
    if source.test_path is not None:
        lines.append(f"tests: {source.test_path}")
    lines += describe_bad_rows(source)
    lines += [f"note: {note}" for note in source.notes]
    lines.append("")
    lines += align_columns(list_tasks(source))
    lines.append("")
    lines.append(describe_repeats(source.repeats))
    lines += describe_blanks(source)
    lines.append("")
    lines.append(describe_unit(source, look))
    lines += align_columns(list_lengths(source))
    lines += describe_cuts(source)
    return lines


def describe_reading(source: SourceLook) -> str:
    """Where a source lies, and how it is read."""
    how = f"set {source.reader}"
    if source.mapping:
        how += f", mapping: {source.mapping}"
    elif source.fields:
        how += f", fields: {source.fields}"
    if source.guessed:
        how += " (guessed)"
    name = f"source {source.name}: " if source.name else ""
    return f"{name}{source.path}: {how}"


def describe_bad_rows(source: SourceLook) -> list[str]:
    """How many rows are no examples, and why the first are none."""
    if not source.bad_rows:
        return []
    rows = "1 row is" if source.bad_rows == 1 else f"{source.bad_rows:,} rows are"
    what_then = "zsg submit stops there, unless data.on_bad_row: skip"
    if source.skips:
        what_then = "passed over, by data.on_bad_row: skip"
    lines = [f"{rows} no example: {what_then}"]
    for reason in source.reasons[:MOST_REASONS]:
        lines.append(f"  {reason}")
    return lines


def list_tasks(source: SourceLook) -> list[list[str]]:
    """The table of tasks, the largest first, with its heading and its sums."""
    splits = [TRAIN, TEST] if TEST in source.splits else []
    tasks = dict(source.tasks)
    for split in splits:
        for task in source.splits[split].tasks:
            tasks.setdefault(task, 0)
    largest = sorted(tasks, key=lambda task: -tasks[task])
    listed = _choose_tasks(largest, source)
    rows = [["task", "examples", *(SPLITS[split] for split in splits)]]
    for task in listed:
        counts = [source.splits[split].tasks.get(task, 0) for split in splits]
        name = shorten_text(task, WIDEST_NAME)
        rows.append([name, *_write([tasks[task], *counts])])
    if len(listed) < len(largest):
        rows.append([f"… {len(largest) - len(listed):,} more tasks (--json)"])
    rows.append([f"all {len(tasks):,}", *_list_sums(source, splits)])
    return rows


def _list_sums(source: SourceLook, splits: Sequence[str]) -> list[str]:
    """The last line of the table of tasks: all examples, and those of each split."""
    sums = _write([sum(source.tasks.values())])
    for split in splits:
        is_bound = split == TRAIN and source.is_bound
        bound = "≤" if is_bound else ""
        sums.append(f"{bound}{source.splits[split].count:,}")
    return sums


def _choose_tasks(largest: Sequence[str], source: SourceLook) -> Sequence[str]:
    """The tasks that have a line: all, or the first of those that are trained on and of
    those that are tested alone."""
    if len(largest) <= MOST_TASKS:
        return largest
    trained = source.splits[TRAIN].tasks
    tested = source.splits[TEST].tasks if TEST in source.splits else {}
    alone = [task for task in largest if task in tested and task not in trained]
    shown_alone = alone[: MOST_TASKS // 4]
    trainable = [task for task in largest if task not in alone]
    return [*trainable[: MOST_TASKS - len(shown_alone)], *shown_alone]


def _write(numbers: Iterable[int]) -> list[str]:
    return [f"{number:,}" for number in numbers]


def describe_repeats(repeats: Repeats) -> str:
    """How often the same is asked."""
    if not repeats.asked:
        return "duplicates: no two examples ask the same"
    line = (
        f"duplicates: {_count(repeats.asked, 'example')} ask what an earlier one asks"
    )
    line += f", {repeats.whole:,} of them with the same answer"
    if repeats.answered_otherwise:
        line += (
            f"; {_count(repeats.answered_otherwise, 'question')} with different answers"
        )
    return line


def _count(number: int, name: str) -> str:
    """A number of things, whose name has an s where there are several."""
    return f"{number:,} {name}" if number == 1 else f"{number:,} {name}s"


def describe_blanks(source: SourceLook) -> list[str]:
    """How many examples of each split have an empty answer, or question."""
    lines: list[str] = []
    for name, split in source.splits.items():
        if split.blank:
            lines.append(
                f"empty: {split.blank:,} of {split.count:,} {ITEMS[name]} have an empty"
                " answer or question"
            )
    return lines


def describe_overlap(overlap: Overlap, look: DataLook) -> str:
    """How many tested questions are trained on, too."""
    tested = sum(
        source.splits[TEST].count for source in look.sources if TEST in source.splits
    )
    if not overlap.asked:
        return f"overlap: none of {tested:,} test items is asked in training"
    return (
        f"overlap: {overlap.asked:,} of {tested:,} test items are asked in training, too,"
        f" {overlap.whole:,} with the same answer"
    )


def describe_unit(source: SourceLook, look: DataLook) -> str:
    """What lengths are counted in, and of how many examples."""
    if look.unit == TOKENS:
        line = f"lengths in {look.counted_by}"
    else:
        line = f"lengths in characters ({look.counted_by})"
    for name, split in source.splits.items():
        if split.measured < split.count:
            line += f"; of {split.measured:,} {ITEMS[name]} from all over them"
    return line


def list_lengths(source: SourceLook) -> list[list[str]]:
    """The table of lengths, with its heading."""
    rows = [["", "shortest", "median", "mean", "95 %", "longest"]]
    for name, split in source.splits.items():
        for section, spread in split.lengths.items():
            means = [f"{spread.median:,.0f}", f"{spread.mean:,.1f}"]
            bounds = [f"{spread.most:,.0f}", f"{spread.longest:,}"]
            label = section if len(source.splits) == 1 else f"{SPLITS[name]}: {section}"
            rows.append([label, f"{spread.shortest:,}", *means, *bounds])
    return rows


def describe_cuts(source: SourceLook) -> list[str]:
    """What max_length takes of each split."""
    lines: list[str] = []
    for name, split in source.splits.items():
        if split.cut is not None:
            lines.append(describe_cut(ITEMS[name], split, split.cut))
    return lines


def describe_cut(items: str, split: SplitLook, cut: Cut) -> str:
    """What max_length takes of a split."""
    limit = f"train.max_length {cut.max_length:,}"
    if not cut.examples:
        return f"cut: {limit} cuts none of {split.measured:,} {items}"
    share = cut.examples / split.measured
    line = f"cut: {limit} cuts {cut.examples:,} of {split.measured:,} {items}"
    line += f" ({share:.1%}), {cut.tokens:,} tokens together"
    if cut.questionless:
        line += f"; {cut.questionless:,} lose their whole question"
    return f"{line}: {', '.join(cut.worst)}{', …' if cut.examples > 3 else ''}"


def describe_example(shown: ShownExample) -> list[str]:
    """An example as it is read: who it is, and its texts, long ones shortened."""
    example = shown.example
    split = f" ({SPLITS[shown.split]})" if shown.split else ""
    lines = [f"{example.id}{split}"]
    texts = [("system", example.system), ("task", example.definition)]
    for question, answer in example.turns:
        if not example.is_text:
            texts.append(("asked", question))
        texts.append(("text" if example.is_text else "answer", answer))
    if example.options:
        texts.append(("options", " | ".join(example.options)))
    for label, text in texts:
        if text:
            shortened = shorten_text(text, MOST_SHOWN)
            lines.append(f"  {label}: {_mark_line_ends(shortened)}")
    return lines


def _mark_line_ends(text: str) -> str:
    """A text whose lines cannot be taken for those around it: each but the first begins
    with a mark, below the text."""
    return text.replace("\n", f"\n{CONTINUED}")


def shorten_text(text: str, most: int) -> str:
    """The beginning of a text, with how much is left out."""
    if len(text) <= most:
        return text
    return f"{text[:most]}… ({len(text) - most:,} more characters)"
