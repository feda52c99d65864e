"""Draws for people why runs are not done: the cause, the line that proves it, where the
run stood before, and what to do next.

Pure: what comes out are lines of pieces, each a text and its style; launcher.views.show
prints them.
"""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from launcher.status.last_loss import LastLoss
from launcher.views.status_tables import Line
from zsg_core.shown_text import make_showable

Row = Mapping[str, Any]

LABEL = 5  # cells of a label
INDENT = " " * (2 + LABEL + 1)
LEAST_WIDTH = 40  # to which lines are broken in a narrower terminal
MOST_NAMED = 8  # runs of a group
THEN = "; then: "  # between what helps and the command


def draw_why(row: Row, width: int) -> list[Line]:
    """Why a run stands where it stands, in lines of at most `width` cells; what has no
    blank in it is not broken."""
    parts = [row["run"], ": ", row["state"]]
    if row["attempt"] is not None:
        parts.append(f", attempt {row['attempt']}")
    if row["step"] is not None:
        parts.append(f", step {row['step']}")
    if row["reason"]:
        parts.append(f" ({row['reason']})")
    head = _break_text("".join(map(str, parts)), width, INDENT)
    return [*head, *_draw_reason(row, width)]


def draw_group(group: Row, width: int) -> list[Line]:
    """Failures of one cause, with the line that proves the first of them."""
    runs: Sequence[str] = group["runs"]
    named = ", ".join(runs[:MOST_NAMED])
    if len(runs) > MOST_NAMED:
        named += ", …"
    head = f"{group['count']} × {group['cause']}: {named}"
    return [
        *_break_text(head, width, INDENT),
        *_draw_reason({**group, "cause": None}, width),
    ]


def _draw_reason(row: Row, width: int) -> list[Line]:
    """A line or some for each thing there is to say, behind a word for what it is."""
    lines: list[Line] = []
    for label, text in _list_facts(row):
        if not text:
            continue
        broken = _break_text(text, width - len(INDENT), "")
        for number, line in enumerate(broken):
            word = f"  {label:{LABEL}} " if number == 0 else INDENT
            lines.append([(word, "bold"), *line])
    return lines


def _list_facts(row: Row) -> list[tuple[str, str | None]]:
    """What there is to say of a failure, each with its label."""
    facts: list[tuple[str, str | None]] = [
        ("cause", row["cause"]),
        ("proof", row["evidence"]),
        ("in", _name_place(row)),
        ("mute", _name_silent_ranks(row["silent"])),
        ("last", _describe_last_loss(row)),
        ("hash", _describe_hash(row["signature"])),
        ("note", row.get("other_versions")),
    ]
    help_text, _, command = (row["next"] or "").partition(THEN)
    facts.append(("next", help_text))
    facts.append(("then", command))
    return facts


def _name_place(row: Row) -> str | None:
    """The file, the line and the rank of the proof."""
    if not row["file"]:
        return None
    location = f"{row['file']}:{row['line']}"
    if row["rank"] is None:
        return location
    return f"{location} (rank {row['rank']})"


def _name_silent_ranks(ranks: Sequence[int] | None) -> str | None:
    """The ranks whose logs say nothing; None where there are none."""
    if not ranks:
        return None
    numbers = ", ".join(map(str, ranks))
    return f"rank {numbers}"


def _describe_last_loss(row: Row) -> str | None:
    """Where a run stood when its loss was a number for the last time."""
    if row.get("last_loss") is None:
        return None
    last = LastLoss(
        loss=row["last_loss"],
        step=row["last_loss_step"],
        rate=row["lr"],
        is_of_training=row["last_loss_of"] == "train",
    )
    text = f"good {last.describe()}"
    runs: Sequence[str] = row.get("runs") or ()
    # of a group it is that of the first
    return f"{text} ({runs[0]})" if len(runs) > 1 else text


def _describe_hash(signature: str | None) -> str | None:
    """The hash of a failure and what it is good for; None of a cause that tells enough
    by itself."""
    if not signature:
        return None
    return f"{signature} (equal failures share it)"


def _break_text(text: str, width: int, indent: str) -> list[Line]:
    """A text of anybody's in lines, the later ones indented. Words are not broken, so
    that what is copied is whole."""
    safe_text = make_showable(text, keep="")
    broken = textwrap.wrap(
        safe_text,
        max(width, LEAST_WIDTH),
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [[(line, "")] for line in broken]
