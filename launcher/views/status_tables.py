"""Draws the states of runs for people: a table for each grid under its name, a line for
each run, what there is to explain below, and all of it on one screen.

Pure: what comes out are lines of pieces, each a text and its style; launcher.views.show
prints them.
"""

import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jobs.contract.states import ACTIVE, State
from launcher.status import status_view as view
from launcher.status.reasons import (
    ReasonGroup,
    format_moment,
    group_reasons,
    is_troubled,
    list_reasons,
)
from launcher.views.cost_units import (
    CostUnit,
    choose_unit,
    choose_unit_of_rows,
    sum_spent,
)
from launcher.views.fitting import Column, Piece, cut_text, fit_table
from launcher.views.sparkline import draw_sparkline
from launcher.views.tables import (
    find_differing_keys,
    format_cell,
    format_short,
    shorten_keys,
)
from zsg_core.shown_text import make_showable

Line = list[Piece]
Row = Mapping[str, Any]

COLOURS = {
    State.DONE: "green",
    State.FAILED: "red",
    State.RUNNING: "cyan",
    State.UNKNOWN: "yellow",
    State.CANCELLED: "magenta",
}
# what is shown first where not all fits
RANKS = {
    State.RUNNING: 0,
    State.FAILED: 1,
    State.UNKNOWN: 1,
    State.CANCELLED: 1,
    State.DONE: 3,
}
OTHER_RANK = 2
LEAST_AXIS = 4  # cells of the terminal to which the value of an axis may be cut
FEW_ROWS = 3  # of a grid whose rows do not all fit
MOST_VALUES = 8  # of a first axis, whose runs are counted apart
MOST_REASONS = 4  # of a grid, where not all fits
REASON_LINES = 3  # of one reason
SMALL = 12  # lines of a screen which has none for what words mean
MOST_NAMED = 3  # grids in the line that says what comes next
LEFT_ALIGNED = ("left", "expected", "train loss")
LEGEND = (
    "waiting: for a job before it, or for the next zsg submit; queued: for Slurm to start"
    " it"
)


@dataclass(frozen=True)
class Screen:
    """Where states are shown. `width`: cells; `height`: lines, None for as many as
    there are; `now`: s since the epoch."""

    width: int
    height: int | None
    now: float


@dataclass(frozen=True)
class Section:
    """The jobs of one grid."""

    grid: str
    rows: Sequence[Row]

    @cached_property
    def reasons(self) -> list[ReasonGroup]:
        """What there is to explain of them."""
        return group_reasons(self.rows)

    @cached_property
    def is_busy(self) -> bool:
        """Whether one of them is under way, or needs a look."""
        return any(map(_needs_a_look, self.rows))


def _needs_a_look(row: Row) -> bool:
    """Whether a job is under way, or did not end well."""
    has_ended = row["state"] in (State.DONE, State.CANCELLED)
    return not has_ended or is_troubled(row)


def draw_status(rows: Sequence[Row], screen: Screen) -> list[Line]:
    """The states of runs, grid by grid, on one screen where that has a height."""
    by_grid: dict[str, list[Row]] = {}
    for row in rows:
        by_grid.setdefault(row["grid"], []).append(row)
    sections = [Section(grid, members) for grid, members in by_grid.items()]
    last = _draw_last(rows, sections, screen)
    if not sections:
        return [[("no run", "")]]
    lines = _draw_sections(sections, screen, len(last))
    return [*lines, *last]


def _draw_sections(
    sections: Sequence[Section], screen: Screen, used: int
) -> list[Line]:
    """The grids, in lines of which `used` are taken by what stands below all."""
    whole = [_draw_whole(section, screen) for section in sections]
    needed = sum(map(len, whole)) + len(whole) - 1 + used
    if screen.height is None or needed <= screen.height:
        return _join_with_blanks(whole)
    height = screen.height - used
    if len(sections) == 1:
        return _draw_cut(sections[0], screen, height)
    if len(sections) + 1 > height:
        return _draw_heads(sections, screen, height)
    return _draw_shares(sections, whole, screen, height)


def _join_with_blanks(blocks: Sequence[list[Line]]) -> list[Line]:
    lines: list[Line] = []
    for block in blocks:
        if lines:
            lines.append([])
        lines += block
    return lines


def _draw_heads(sections: Sequence[Section], screen: Screen, height: int) -> list[Line]:
    """A line for each grid, those with something under way or wrong first."""
    ordered = sorted(sections, key=lambda section: not section.is_busy)
    visible = ordered[: max(height - 1, 1)]
    lines = [_draw_head(section, screen) for section in visible]
    hidden = len(ordered) - len(visible)
    if hidden:
        lines.append(_draw_more(hidden, "grids"))
    return lines


def _draw_shares(
    sections: Sequence[Section],
    whole: Sequence[list[Line]],
    screen: Screen,
    height: int,
) -> list[Line]:
    """Grids that are busy as far as they fit, of the others the first line."""
    blocks = [[_draw_head(section, screen)] for section in sections]
    left = height - len(blocks)
    places = [place for place, each in enumerate(sections) if each.is_busy]
    # small ones first: what they do not need is left for the others
    places.sort(key=lambda place: len(whole[place]))
    while places:
        place = places.pop(0)
        # the first line is counted, and a blank one parts blocks of several
        share = 1 + left // (len(places) + 1) - 2
        block = whole[place]
        if len(block) > share:
            block = _draw_cut(sections[place], screen, share)
        if len(block) <= share:
            blocks[place] = block
            left -= len(block) + 1
    return _join_blocks(blocks)


def _join_blocks(blocks: Sequence[list[Line]]) -> list[Line]:
    """Blocks one below the other; those of several lines stand apart."""
    lines: list[Line] = []
    is_apart = False
    for block in blocks:
        is_long = len(block) > 1
        if lines and (is_long or is_apart):
            lines.append([])
        lines += block
        is_apart = is_long
    return lines


def _draw_whole(section: Section, screen: Screen) -> list[Line]:
    """All of a grid. What does not fit into a screen is not drawn to its end."""
    limit = len(section.rows)
    if screen.height is not None:
        limit = min(limit, screen.height + 1)
    return [
        _draw_head(section, screen),
        *draw_runs(section.rows[:limit], screen),
        *_draw_below(section, screen, None),
    ]


def _draw_cut(section: Section, screen: Screen, height: int) -> list[Line]:
    """A grid in so many lines: counts, what runs and what failed, and how many more
    there are."""
    head = [_draw_head(section, screen)]
    below = _draw_below(section, screen, MOST_REASONS)
    # one line says how many more there are
    room = height - len(head) - len(below) - 1
    groups = _draw_values(section, screen)
    needed = len(groups) + FEW_ROWS + 2
    if groups and needed <= room:
        head += groups
        head.append([])
        room -= len(groups) + 1
    limit = max(room - 1, FEW_ROWS)
    visible = choose_foremost(section.rows, limit)
    hidden = len(section.rows) - len(visible)
    return [
        *head,
        *draw_runs(visible, screen),
        _draw_more(hidden, ""),
        *below,
    ]


def _draw_more(count: int, of: str) -> Line:
    words = f"… and {count:,} more {of}".rstrip()
    return [(f"{words} (--all)", "dim")]


def choose_foremost(rows: Sequence[Row], limit: int) -> Sequence[Row]:
    """As many rows as fit: all in the grid's order, or else those that run, then those
    that did not end well. Of both some are shown where there are both."""
    limit = max(limit, 1)
    if len(rows) <= limit:
        return rows
    ordered = sorted(rows, key=_rank_row)
    counts = Counter(map(_rank_row, rows))
    running = counts[0]
    for_troubled = min(counts[1], limit // 3)
    for_running = max(limit - for_troubled, 1)
    foremost = [
        *ordered[: min(running, for_running)],
        *ordered[running:],
    ]
    return foremost[:limit]


def _rank_row(row: Row) -> int:
    """The place of a row where not all fit; the lowest comes first."""
    return RANKS.get(row["state"], OTHER_RANK)


def _draw_head(section: Section, screen: Screen) -> Line:
    """The grid's name, and how many of its runs are in which state."""
    runs = _select_runs(section.rows)
    counts = Counter(row["state"] for row in runs)
    parts: list[Piece] = []
    for state in view.STATES:
        count = counts[state]
        if count:
            parts.append((f"{count:,} {state}", COLOURS.get(state, "")))
    beside = len(section.rows) - len(runs)
    if beside:
        jobs = "job" if beside == 1 else "jobs"
        parts.append((f"{beside} other {jobs}", ""))
    name = make_showable(section.grid, keep="")
    pieces: Line = [
        (name, "bold"),
        (": ", ""),
        *_join_with_commas(parts),
    ]
    return _cut_line(pieces, screen.width)


def _select_runs(rows: Sequence[Row]) -> list[Row]:
    """The rows of runs, without those of jobs beside them."""
    return [row for row in rows if "/" not in row["run"]]


def _join_with_commas(parts: Sequence[Piece]) -> Line:
    line: Line = []
    for part in parts:
        if line:
            line.append((", ", ""))
        line.append(part)
    return line


def _cut_line(pieces: Line, width: int) -> Line:
    """A line that is no wider than the terminal; of a name only the end is lost."""
    visible: Line = []
    for text, style in pieces:
        room = width - sum(len(text) for text, _ in visible)
        if room <= 0:
            break
        visible.append((cut_text(text, room), style))
    return visible


def draw_runs(rows: Sequence[Row], screen: Screen) -> list[Line]:
    """A line for each run, below the headings; and which axes have no column, where
    not all fit."""
    keys = find_differing_keys([row["axes"] for row in rows])
    axes = dict(zip(shorten_keys(keys), keys, strict=True))
    columns = [
        Column("run", [row["run"] for row in rows]),
        *_make_axis_columns(rows, axes),
        *_make_state_columns(rows, screen),
    ]
    table = fit_table(columns, screen.width)
    hidden = [axes[heading] for heading in table.left if heading in axes]
    lines = list(table.lines)
    if hidden:
        names = ", ".join(hidden)
        lines += _wrap(f"too narrow to show {names}", screen.width, 2)
    return lines


def _make_axis_columns(
    rows: Sequence[Row], axes: Mapping[str, str]
) -> Iterator[Column]:
    """A column for each axis. `axes`: their keys, by the heading of each."""
    for heading, key in axes.items():
        texts = [format_cell(row["axes"].get(key)) for row in rows]
        yield Column(heading, texts, least=LEAST_AXIS)


def _make_state_columns(rows: Sequence[Row], screen: Screen) -> list[Column]:
    """The columns behind the axes. Those that say nothing of any run are left out."""
    states = [row["state"] for row in rows]
    colours = [COLOURS.get(state, "") for state in states]
    losses = [_format_loss(row["loss"], row["step"]) for row in rows]
    steps = [_format_step(row["step"], row["steps"]) for row in rows]
    columns = [
        Column("state", list(map(str, states)), colours),
        Column("step", steps),
        Column("loss", losses, is_number=True),
        *_make_extra_columns(rows, screen),
    ]
    ids = [row["slurm"] or "" for row in rows]
    if any(ids):
        columns.append(Column("slurm", ids))
    columns.append(Column("", [_name_reason(row) for row in rows]))
    return columns


def _make_extra_columns(rows: Sequence[Row], screen: Screen) -> Iterator[Column]:
    """The columns that go first where a terminal is narrow."""
    unit = choose_unit_of_rows(rows)
    writers: dict[str, Callable[[Row], str]] = {
        "left": _format_left,
        "train loss": _draw_curve,
        "expected": lambda row: _format_expected(row, screen.now),
        unit.heading: lambda row: _format_cost(row, unit),
        "tok/s": _format_speed,
        "GPUs": _format_gpus,
        "beat": _format_beat,
    }
    for heading, write in writers.items():
        texts = [write(row) for row in rows]
        if any(texts):
            is_number = heading not in LEFT_ALIGNED
            yield Column(heading, texts, is_number=is_number, is_extra=True)


def _format_left(row: Row) -> str:
    return view.format_duration(row.get("eta_s"))


def _draw_curve(row: Row) -> str:
    """The newest training losses, where they were read: while somebody watches."""
    return draw_sparkline(row.get(view.CURVE) or ())


def _format_beat(row: Row) -> str:
    return view.format_duration(row.get("heartbeat_s"))


def _format_gpus(row: Row) -> str:
    return str(row.get("gpus") or "")


def _format_step(step: int | None, steps: int | None) -> str:
    """How far a run has come, of how many steps; "" before its first attempt has begun,
    and a question mark where the data's size is not known yet."""
    if step is None:
        return ""
    return f"{step}/{steps or '?'}"


def _format_loss(loss: float | str | None, step: int | None) -> str:
    """The last test loss; a dash where a run has begun and has none. One that is not
    finite comes as a text."""
    if loss is None:
        return "" if step is None else "–"
    return f"{float(loss):.4f}"


def _format_speed(row: Row) -> str:
    speed = row.get("tokens_per_s")
    return format_short(speed) if speed else ""


def _format_cost(row: Row, unit: CostUnit) -> str:
    """What a run has cost so far, whatever became of it."""
    cost = row.get("gpu_hours")
    return "" if cost is None else unit.format(sum_spent(cost))


def _format_expected(row: Row, now: float) -> str:
    """When a run is expected to start, or to end."""
    starts, ends = row.get("expected_start"), row.get("expected_end")
    if starts is not None:
        return f"starts {format_moment(starts, now)}"
    return "" if ends is None else f"ends {format_moment(ends, now)}"


def _name_reason(row: Row) -> str:
    """The most important reason of a run, in a word."""
    words = (reason.word for reason in list_reasons(row))
    return next((word for word in words if word), "")


def _draw_values(section: Section, screen: Screen) -> list[Line]:
    """A line for each value of the grid's first axis: how many runs are where, their
    losses, what is left. None where there are too many values, or one."""
    axes = find_differing_keys([row["axes"] for row in section.rows])
    if not axes:
        return []
    axis = axes[0]
    groups = view.group_rows(section.rows, {section.grid: axis})
    if not 1 < len(groups) <= MOST_VALUES:
        return []
    values = [format_cell(group.value) for group in groups]
    heading = axis.rpartition(".")[2]
    columns = [
        Column(heading, values, least=LEAST_AXIS),
        *_make_count_columns(groups),
        *_make_group_columns(groups),
    ]
    return fit_table(columns, screen.width).lines


def _make_count_columns(groups: "Sequence[view.Group]") -> Iterator[Column]:
    """How many runs of each group are in each state."""
    for state in view.STATES:
        counts = [str(group.states[state] or "") for group in groups]
        if any(counts):
            styles = [COLOURS.get(state, "")] * len(groups)
            yield Column(state, counts, styles, is_number=True)


def _make_group_columns(groups: "Sequence[view.Group]") -> Iterator[Column]:
    """The losses of groups of runs, what is left of them, and what they hold."""
    texts = {
        "loss": [_format_losses(group) for group in groups],
        "left": [view.format_duration(group.eta_s) for group in groups],
        "GPUs": [str(group.gpus or "") for group in groups],
        "flags": [str(group.flags or "") for group in groups],
    }
    for heading, cells in texts.items():
        if any(cells):
            yield Column(heading, cells, is_number=True, is_extra=True)


def _format_losses(group: "view.Group") -> str:
    """The lowest and the highest loss of a group; one number where they are equal."""
    losses = [f"{loss:.3f}" for loss in group.losses or ()]
    different = dict.fromkeys(losses)
    return "–".join(different)


def _draw_below(section: Section, screen: Screen, most: int | None) -> list[Line]:
    """What stands below a grid's runs: the reasons, when it starts and ends."""
    groups = section.reasons
    visible = groups[:most]
    lines: list[Line] = []
    for group in visible:
        lines += _draw_reason(group, section.grid, screen.width)
    hidden = len(groups) - len(visible)
    if hidden:
        lines.append([(f"… and {hidden:,} more reasons (zsg why {section.grid})", "")])
    lines += _draw_cost(section.rows, screen.width)
    lines += _draw_expected(section.rows, screen)
    return lines


def _draw_reason(group: ReasonGroup, grid: str, width: int) -> list[Line]:
    """How many runs stand where they stand for a reason, and the sentence of it."""
    count = len(group.runs)
    named = grid if count > 1 else group.runs[0]
    hint = ""
    if group.is_trouble:
        hint = f" (zsg why {named})"
    sentence = f"{count:,} × {group.reason.title}"
    text = make_showable(group.reason.text, keep="")
    if text:
        sentence = f"{sentence}: {text}"
    return _wrap(sentence, width, REASON_LINES, hint)


def _wrap(text: str, width: int, most: int, hint: str = "") -> list[Line]:
    """A text in so many lines at most, the further ones indented; what does not fit is
    cut before the hint."""
    text = make_showable(text, keep="")
    lines = textwrap.wrap(text + hint, width, subsequent_indent="  ")
    if len(lines) > most:
        room = most * (width - 2) - len(hint) - width // 8
        lines = textwrap.wrap(
            cut_text(text, room) + hint, width, subsequent_indent="  "
        )
    return [[(line, "")] for line in lines]


def _draw_cost(rows: Sequence[Row], width: int) -> list[Line]:
    """What the runs of a grid have cost, what became of it, and what is left."""
    runs = _select_runs(rows)
    cost = view.sum_cost(runs)
    if cost is None:
        return []
    spent = cost.useful + cost.repeated + cost.lost
    unit = choose_unit(max(spent, cost.left or 0.0), cost.has_gpus)
    parts = [f"{unit.format(cost.useful)} useful"]
    if cost.repeated:
        parts.append(f"{unit.format(cost.repeated)} repeated after a stop")
    if cost.lost:
        parts.append(f"{unit.format(cost.lost)} lost")
    if cost.left:
        parts.append(f"≈ {unit.format(cost.left)} left")
    if cost.left is None and _is_any_active(runs):
        parts.append("left unknown until a run is measured")
    if cost.unknown:
        runs_word = "run" if cost.unknown == 1 else "runs"
        parts.append(
            f"not known of all attempts of {cost.unknown:,} {runs_word} (older zsg)"
        )
    listed = ", ".join(parts)
    return _wrap(f"{unit.name}: {listed}", width, 2)


def _is_any_active(rows: Sequence[Row]) -> bool:
    return any(row["state"] in ACTIVE for row in rows)


def _draw_expected(rows: Sequence[Row], screen: Screen) -> list[Line]:
    """When the first run that waits is to start, and the last that runs to end."""
    starts = _list_moments(rows, "expected_start")
    ends = _list_moments(rows, "expected_end")
    words: list[str] = []
    if starts:
        first = format_moment(min(starts), screen.now)
        words.append(f"next start {first} (Slurm)")
    if ends:
        last = format_moment(max(ends), screen.now)
        words.append(f"what runs ends by {last}")
    if not words:
        return []
    listed = ", ".join(words)
    return [[(f"expected: {listed}", "")]]


def _list_moments(rows: Sequence[Row], key: str) -> list[float]:
    """What rows say of one moment, where they know it."""
    moments = [row.get(key) for row in rows]
    return [moment for moment in moments if moment]


def _draw_last(
    rows: Sequence[Row], sections: Sequence[Section], screen: Screen
) -> list[Line]:
    """What stands below all grids: what words mean, and what comes next."""
    lines: list[Line] = []
    is_small = screen.height is not None and screen.height < SMALL
    is_waiting = any(row["state"] == State.WAITING for row in rows)
    if is_waiting and not is_small:
        lines += _wrap(LEGEND, screen.width, 2)
    failing = [section.grid for section in sections if _has_failed(section)]
    commands = [f"zsg why {grid}" for grid in failing[:MOST_NAMED]]
    if len(failing) > MOST_NAMED:
        commands.append("…")
    if commands:
        listed = ", ".join(commands)
        lines += _wrap(f"next: {listed}", screen.width, 2)
    return lines


def _has_failed(section: Section) -> bool:
    return any(row["state"] in (State.FAILED, State.UNKNOWN) for row in section.rows)
