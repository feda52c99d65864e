"""Makes the words of a message of notices, and the bytes that each way takes.

Names, causes and lines of logs may hold anything: what a terminal or Slack would obey is
escaped, and every text has a bound. The same notices make the same bytes, whoever sends
them and whenever.
"""

from collections import Counter
from collections.abc import Sequence

import msgspec

from jobs.contract.folder import to_json
from jobs.contract.notices import Kind, Notice, Way
from zsg_core.shown_text import make_showable

MOST_IDS = 500  # notices of one message
MOST_TOLD = 20  # notices that a message tells one by one
MOST_NAMED = 5  # jobs that its text names
MOST_REASONS = 3
MOST_MORE = 12
MOST_WORD = 120  # characters of a name
MOST_LINE = 400  # characters of a line
# of a notice that is kept: characters of a text, which `shorten` looks at; lines
MOST_KEPT = 4 * MOST_LINE
MOST_KEPT_LINES = 200


def bound_notice(notice: Notice) -> Notice:
    """A notice as it is kept: with no more of its texts than a message may need. A line
    of a log may have megabytes, and too long a row would be passed over."""
    return msgspec.structs.replace(
        notice,
        cause=_cut(notice.cause),
        evidence=_cut(notice.evidence),
        more=[line[:MOST_LINE] for line in notice.more[:MOST_KEPT_LINES]],
    )


def _cut(text: str | None) -> str | None:
    """The beginning of a text."""
    return text[:MOST_KEPT] if text else text


def write_message(way: Way, message: str, notices: Sequence[Notice]) -> bytes:
    """The body of a message of at least one notice, as JSON in UTF-8.

    For Slack it has the text alone, by whose last line a message that came twice is
    known; else there is what is known of each notice, too.

    `message`: the id of the message.
    """
    text = write_text(notices)
    if way == Way.SLACK:
        numbered = f"{text}\n(notice {message})"
        return to_json({"text": escape_for_slack(numbered)}).encode()
    first = notices[0]
    fields = {
        "id": message,
        "kind": str(first.kind),
        "grid": shorten(first.grid, MOST_WORD),
        "count": len(notices),
        "text": text,
        "notices": [_list_fields(notice) for notice in notices[:MOST_TOLD]],
        "ids": [shorten(notice.id, MOST_LINE) for notice in notices],
    }
    return to_json(fields).encode()


def _list_fields(notice: Notice) -> dict[str, str | int | list[str] | None]:
    """What a message tells of one notice. Null is what is not known of it, and of a
    grid what only jobs have."""
    more_lines = notice.more[:MOST_MORE]
    return {
        "id": shorten(notice.id, MOST_LINE),
        "kind": str(notice.kind),
        "grid": shorten(notice.grid, MOST_WORD),
        "job": shorten(notice.item, MOST_WORD) or None,
        "attempt": notice.attempt or None,
        "step": notice.step,
        "cause": shorten(notice.cause, MOST_WORD) or None,
        "evidence": shorten(notice.evidence, MOST_LINE) or None,
        "more": [shorten(line, MOST_LINE) for line in more_lines],
        "at": notice.at,
    }


def write_text(notices: Sequence[Notice]) -> str:
    """What people read: what happened to how many, why, and to which.

    Notices of jobs name the commonest causes and a few of the jobs; those of a grid
    what each says, with its further lines.
    """
    if notices[0].item is None:
        lines = _write_grid_lines(notices[:MOST_NAMED])
    else:
        lines = _write_job_lines(notices)
    return "\n".join(lines)


def _write_grid_lines(notices: Sequence[Notice]) -> list[str]:
    """The lines of a few notices that are of grids, not of jobs."""
    lines: list[str] = []
    for notice in notices:
        grid = shorten(notice.grid, MOST_WORD)
        words = shorten(notice.evidence, MOST_LINE)
        lines.append(f"zsg: {grid}: {words}")
        lines += _bound_lines(notice.more)
    return lines


def _write_job_lines(notices: Sequence[Notice]) -> list[str]:
    """The lines of notices that are of jobs: the head, the reasons, the names of
    several, and the command that says more."""
    first_name = _name_job(notices[0])
    lines = [_write_head(notices)]
    lines += _list_reasons(notices)
    if len(notices) > 1:
        lines.append(_name_jobs(notices))
    lines.append(f"zsg why {first_name} says more")
    return lines


def _write_head(notices: Sequence[Notice]) -> str:
    """What happened to how many jobs of which grid, in one line."""
    first = notices[0]
    count = len(notices)
    grid = shorten(first.grid, MOST_WORD) or "no grid"
    has_failed = first.kind == Kind.FAILED
    if count == 1:
        event = "failed" if has_failed else "runs and takes no step"
        return f"zsg: {_name_job(first)} of {grid} {event}"
    event = "failed" if has_failed else "run and take no step"
    return f"zsg: {count:,} jobs of {grid} {event}"


def _list_reasons(notices: Sequence[Notice]) -> list[str]:
    """The commonest causes, each with a line that proves it, and where there are
    several with how many jobs ended by it."""
    examples: dict[str | None, Notice] = {}
    counts: Counter[str | None] = Counter()
    for notice in notices:
        examples.setdefault(notice.cause, notice)
        counts[notice.cause] += 1
    lines: list[str] = []
    for cause, count in counts.most_common(MOST_REASONS):
        line = _tell_reason(examples[cause])
        if len(counts) > 1:
            line = f"{line} ({count:,})"
        lines.append(line)
    unnamed = len(counts) - MOST_REASONS
    if unnamed > 0:
        lines.append(f"and {unnamed:,} more reasons")
    return lines


def _tell_reason(notice: Notice) -> str:
    """Why a job failed, in one line: its cause, and the line that proves it."""
    cause = shorten(notice.cause, MOST_WORD)
    evidence = shorten(notice.evidence, MOST_LINE)
    if cause and evidence:
        return f"{cause}: {evidence}"
    return cause or evidence or "no reason is known"


def _name_jobs(notices: Sequence[Notice]) -> str:
    """The names of the first few jobs, and how many more there are."""
    named = notices[:MOST_NAMED]
    unnamed = len(notices) - len(named)
    names = ", ".join(map(_name_job, named))
    if unnamed:
        return f"{names} and {unnamed:,} more"
    return names


def _name_job(notice: Notice) -> str:
    """A run by its id, another job by its folder."""
    item = notice.item or ""
    return shorten(item.removeprefix("runs/"), MOST_WORD)


def _bound_lines(lines: Sequence[str]) -> list[str]:
    """The first of some lines, each cut to its bound, and how many more there are."""
    bounded: list[str] = []
    for line in lines[:MOST_MORE]:
        bounded.append(shorten(line, MOST_LINE))
    unnamed = len(lines) - len(bounded)
    if unnamed:
        bounded.append(f"and {unnamed:,} more")
    return bounded


def shorten(text: str | None, limit: int) -> str:
    """A text on one line, showable, of at most so many characters; empty for none.

    Only its beginning is looked at, so that a text of megabytes costs nothing.
    """
    if not text:
        return ""
    beginning = text[: 4 * limit]
    line = " ".join(beginning.split())
    showable = make_showable(line, keep="")
    if len(showable) <= limit:
        return showable
    return f"{showable[: limit - 1]}…"


def escape_for_slack(text: str) -> str:
    """A text in which Slack finds no link, no mention and no channel.

    Its three signs of control are written out, as Slack's documentation of the
    formatting of texts for app surfaces says.
    """
    escaped = text.replace("&", "&amp;")
    escaped = escaped.replace("<", "&lt;")
    return escaped.replace(">", "&gt;")
