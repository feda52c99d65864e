"""Prints plans and states for people, and JSON for scripts.

Results go to stdout, progress to stderr. rich honours NO_COLOR and the width of the terminal.

All that zsg shows in a terminal is printed here, and made showable here, whoever wrote
it: nothing is markup, and no character reaches the terminal that it would obey. Only
rich's own colours and movements do.
"""

import contextlib
import json
import logging
import re
import sys
import time
import traceback
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, cast

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.live import Live
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from jobs.contract.states import State
from launcher.views.columns import LONG, format_columns
from launcher.views.learnt_view import BETWEEN_TEXTS, mark_targets
from launcher.views.status_tables import Screen, draw_status
from launcher.views.tables import (
    find_differing_keys,
    format_cell,
    format_short,
    make_cell_text,
    make_table,
    shorten_keys,
)
from launcher.workspace.job_state import JobState
from zsg_core.secrets import hide_known
from zsg_core.shown_text import ShownLog, format_value, make_showable, name_few

if TYPE_CHECKING:  # plans bring pydantic and numpy, which `zsg status` can do without
    from jobs.training.learnt_texts import Piece
    from launcher.planning.effects import Effect
    from launcher.planning.estimates import Line
    from launcher.planning.plan import Evaluation, Plan, TrainGroup

# underlined, so that a blank or a line end that is learnt is seen, too
STYLE_OF_TARGETS = "green underline"
PLAIN_EVERY_S = 10.0
PAGE = 50  # lines of a screen that is none
LEAST_HEIGHT = 12
BESIDE = 3  # lines of a terminal that are left for the prompt and for notes
MOST_NAMED = 8


# a program that calls zsg prints for itself
_is_silent: ContextVar[bool] = ContextVar("_is_silent", default=False)


@contextlib.contextmanager
def silenced() -> Generator[None]:
    """While it lasts, nothing is printed by this thread."""
    token = _is_silent.set(True)
    try:
        yield
    finally:
        _is_silent.reset(token)


class ShowingConsole(Console):
    """A console for which every text is a text: no markup, no `:code:` for a picture,
    no character that it obeys."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def print(self, *objects: Any, **options: Any) -> None:
        """Prints, unless all is silent."""
        if not _is_silent.get():
            super().print(*objects, **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        """What is written, piece by piece: rich's controls as they are, texts made showable.

        Cells are so before, or their columns would be too narrow; here nothing is forgotten.
        """
        for segment in super().render(renderable, options):
            text = segment.text if segment.control else make_showable(segment.text)
            yield segment if text is segment.text else Segment(text, segment.style)


_LINE_END = re.compile(r"\n(?! )")

_out = ShowingConsole()
_err = ShowingConsole(stderr=True)
logger = logging.getLogger(__name__)


def print_message(text: str) -> None:
    """A line beside the results, on stderr: what zsg logs is printed by this."""
    _err.print(Text(_as_lines(text)), soft_wrap=True)


def print_result(text: str) -> None:
    """A line of result, on stdout."""
    _out.print(Text(_as_lines(text)), soft_wrap=True)


def print_pieces(pieces: "Sequence[Piece]") -> None:
    """The text of an example, on stdout, indented: its targets in colour, or between
    brackets where there are no colours."""
    if not has_colours():
        _out.print(Text(_indent(mark_targets(pieces))), soft_wrap=True)
        return
    text = Text("  ")
    number = 0
    for piece in pieces:
        if piece.text_number != number:
            text.append(BETWEEN_TEXTS.replace("\n", "\n  "), "dim")
            number = piece.text_number
        style = STYLE_OF_TARGETS if piece.is_target else ""
        if piece.is_control:
            style += " bold"
        text.append(make_showable(piece.text).replace("\n", "\n  "), style.strip())
    _out.print(text, soft_wrap=True)


def has_colours() -> bool:
    """Whether what is printed on stdout may be coloured."""
    return _out.color_system is not None and not _out.no_color


def _indent(text: str) -> str:
    return "  " + text.replace("\n", "\n  ")


def _as_lines(text: str) -> str:
    """A showable text whose further lines are indented: a line end within a name begins
    no line of zsg's own."""
    return _LINE_END.sub("\n  ", make_showable(text))


def as_json(value: Any) -> None:
    """A result for scripts, on stdout. What is not ASCII is written as its escape: JSON
    gives back what it was."""
    if not isinstance(value, list):
        print(json.dumps(value, indent=1))
        return
    # A row on a line of its own: thousands of them are written in a moment, and found with grep.
    rows = cast("list[Any]", value)
    print("[" + ",".join(f"\n {json.dumps(row)}" for row in rows) + "\n]")


def print_line(text: str) -> None:
    """A line for scripts as it stands, on stdout: JSON of ASCII letters, which nothing
    is taken out of."""
    print(make_showable(text))


def print_log(pieces: Iterable[str]) -> None:
    """The pieces of a job's log, on stdout, as they come."""
    showing = ShownLog()
    for piece in pieces:
        sys.stdout.write(showing.show(piece))
        sys.stdout.flush()
    sys.stdout.write(showing.end())
    sys.stdout.flush()


def plan_table(plan: "Plan") -> None:
    """The runs with what differs between them, and what would be done."""
    _print_actions(plan)
    if plan.exclude:
        nodes = ", ".join(f"{node} ({why})" for node, why in plan.exclude.items())
        print_result(f"nodes left out of what is retried: {nodes}")
    for run in plan.stages_before:
        print_result(
            f"{run.id}: {len(run.recipe['stages'])} stage(s) that runs above begin with, trained"
            " once"
        )
    _print_unwanted(plan)
    _print_released(plan)
    if plan.left:
        print_result(plan.left)


def _print_actions(plan: "Plan") -> None:
    """The table of runs; where they are many, as columns that rich need not lay out."""
    from launcher.planning.plan import ACTING

    keys = find_differing_keys([action.run.axes for action in plan.actions])
    names = ["run", *shorten_keys(keys), "action", "why"]
    rows = [
        [
            a.run.id,
            *(format_cell(a.run.axes.get(key)) for key in keys),
            a.kind,
            a.reason,
        ]
        for a in plan.actions
    ]
    if len(rows) > LONG:
        print(format_columns(names, rows))
        return
    table = make_table(*names)
    for *cells, kind, reason in rows:
        colour = "bold" if kind in ACTING else "dim"
        table.add_row(
            *map(make_cell_text, cells),
            make_cell_text(kind, colour),
            make_cell_text(reason),
        )
    _out.print(table)


def _print_released(plan: "Plan") -> None:
    """The jobs that Slurm holds and that a submit lets start."""
    from launcher.clusters.slurm import compact_ids

    if not plan.held:
        return
    names = name_few(compact_ids(job.id for job in plan.held))
    print_result(
        f"released: {names}, which Slurm holds since a launch failed, its controller forgot the"
        " release, or you held them"
    )


def _print_unwanted(plan: "Plan") -> None:
    """The runs that are at work though the grid no longer lists them, and how to end them."""
    active = [run for run in plan.unwanted if run.state.is_active]
    for run in active:
        axes = " ".join(
            f"{key}={format_value(value)}" for key, value in run.axes.items()
        )
        print_result(
            f"no longer in the grid: {run.run} ({axes}) is {run.state.state} and continues"
        )
    if active:
        print_result(
            "to end what is no longer in the grid: zsg cancel"
            f" {' '.join(run.run for run in active)}"
        )


def job_graph(plan: "Plan") -> None:
    """Which jobs there would be, and what waits for what."""
    for prepare in plan.prepares:
        print_result(
            f"{prepare.item}: {prepare.description} {_name_first(sorted(prepare.makes))}"
        )
    for group in plan.groups:
        print_result(_describe_array(group))
        if plan.canary and group.runs == [plan.canary.run]:
            print_result(
                f"{plan.canary.item}: waits for that run's first checkpoint, one CPU; --no-canary"
                " does without"
            )
    for evaluation in plan.evaluations:
        print_result(_describe_evaluation(evaluation))


def _describe_array(group: "TrainGroup") -> str:
    ends = "the end of " if group.whatever_they_made else ""
    after = f" after {ends}{_name_first(group.after)}" if group.after else ""
    ranks = (
        f"{group.size.nodes} node(s) × {group.size.ranks_per_node} rank(s),"
        f" {group.size.time_min} min"
    )
    names = _name_first([run.id for run in group.runs])
    return f"train array of {len(group.runs)}, {ranks}{after}: {names}"


def _describe_evaluation(evaluation: "Evaluation") -> str:
    beside = ""
    if evaluation.beside:
        beside = f"{evaluation.beside} beside their training, "
    keys = ", ".join(
        dict.fromkeys(key for run in evaluation.runs for key in run.scored)
    )
    names = _name_first([run.id for run in evaluation.runs])
    return (
        f"evaluate jobs, {beside}{evaluation.after} for what is left: {keys} of {names}"
    )


def print_effects(effects: "Sequence[Effect]") -> None:
    """What the grid's and the profile's files have run and sent, a line each; nothing
    where they have nothing."""
    if effects:
        print_result("what your files run, send and set, beyond what zsg itself does:")
    for effect in effects:
        print_result(f"  {effect.line}")


def _name_first(names: Sequence[str]) -> str:
    """The first names of many, and how many there are."""
    count = f", … ({len(names)})" if len(names) > 2 * MOST_NAMED else ""
    return ", ".join(names[: 2 * MOST_NAMED]) + count


def estimates_table(lines: "Sequence[Line]", assumptions: Sequence[str]) -> None:
    """What the runs take, one line per model and size, and what the numbers rest on."""
    table = Table(box=None, pad_edge=False, collapse_padding=True, header_style="bold")
    numbers = (
        "ZeRO:tensors",
        "act.",
        "need",
        "steps",
        "tokens",
        "GPU-h",
        "total",
        "state",
    )
    for name in ("model", "params", "GPUs", *numbers):
        folds = name in ("model", numbers[0])
        table.add_column(
            name,
            overflow="fold",
            no_wrap=not folds,
            justify="left" if folds else "right",
        )
    for line in lines:
        table.add_row(*map(make_cell_text, _estimated(line)))
    _out.print(table)
    for text in assumptions:
        _out.print(make_cell_text(text, "dim"))


def _estimated(line: "Line") -> list[str]:
    first = line.first
    mark = {first.layout.zero_stage: "*"}
    tensors = " ".join(
        f"{stage}:{format_short(gb)}{mark.get(stage, '')}"
        for stage, gb in first.tensors_gb.items()
    )
    steps_at_most = "≤" if first.work.examples_are == "at most" else ""
    at_most = "≤" if first.work.tokens_are == "at most" else ""
    total = None if line.total_gpu_hours is None else (line.total_gpu_hours,)
    gpus = f"{first.layout.nodes}×{first.layout.ranks_per_node}"
    return [
        first.model,
        format_short(first.load.shape.parameters),
        gpus,
        tensors,
        format_short(line.activations_gb),
        format_short(line.need_gb),
        _range(steps_at_most, line.steps),
        _range(at_most, line.tokens),
        _range(at_most, line.gpu_hours),
        _range(at_most, total),
        format_short(first.state_gb),
    ]


def _range(sign: str, span: "Sequence[float] | None") -> str:
    return (
        "–"
        if span is None
        else sign + "–".join(dict.fromkeys(format_short(value) for value in span))
    )


def summarize_plan(plan: "Plan") -> str:
    """One line: how many runs of each action."""
    counts = Counter(action.kind for action in plan.actions)
    words = [f"{count} {kind}" for kind, count in sorted(counts.items())]
    if before := len(plan.stages_before):
        words.append(f"{before} stage{'s' * (before > 1)} before them")
    if released := len(plan.held):
        words.append(f"{released} held job{'s' * (released > 1)} released")
    return ", ".join(words)


def plan_rows(
    plan: "Plan",
    estimates: Mapping[str, Any],
    refused: Sequence[str] = (),
    effects: Sequence[Mapping[str, str]] = (),
) -> list[dict[str, Any]]:
    """The plan for scripts, with the estimate of each run by its id; null for what the
    grid wants no longer.

    `refused`: why submit would do nothing of it; in every row, so that no reader of
    rows takes them for submitted. `effects`: what the grid's and the profile's files
    have run and sent; in every row too, as it is of every run.
    """
    rows: list[dict[str, Any]] = [
        {"run": a.run.id, "action": a.kind, "reason": a.reason, "axes": a.run.axes}
        for a in plan.actions
    ]
    for run in plan.unwanted:
        reason = f"no longer in the grid; {run.state.state}"
        if run.state.is_active:
            reason += f" (zsg cancel {run.run} ends it)"
        rows.append(
            {"run": run.run, "action": "unwanted", "reason": reason, "axes": run.axes}
        )
    of_all = {"refused": list(refused), "effects": list(effects)}
    return [row | {"estimate": estimates.get(row["run"])} | of_all for row in rows]


def print_status(rows: Sequence[Mapping[str, Any]], whole: bool = False) -> None:
    """Prints the states: on one screen, unless `whole`, which has a line for every run."""
    height = None if whole else _measure_height(_out)
    lines = draw_status(rows, Screen(_out.width, height, time.time()))
    if len(lines) > LONG:
        print("\n".join("".join(text for text, _ in line) for line in lines))
        return
    for line in lines:
        _out.print(Text.assemble(*line), soft_wrap=True)


def _measure_height(console: Console) -> int:
    """The lines of a screen, with room for the prompt; of what is no terminal a page's."""
    if not console.is_terminal:
        return PAGE
    return max(console.height - BESIDE, LEAST_HEIGHT)


def data_notes(notes: Sequence[str]) -> None:
    """Says what there is to know of the data, on stderr."""
    for note in notes:
        logger.warning(f"note on the data: {note}")


def version_notes(notes: Sequence[str]) -> None:
    """Says which runs compute with other versions than those of the submit, on stderr."""
    for note in notes:
        logger.warning(f"note on versions: {note}")


def new_page(title: str) -> None:
    """Begins a page of what is shown again and again: on a cleared screen, or where
    there is none under the last."""
    if _out.is_terminal:
        _out.clear()
    print_result(title)


def print_why(row: Mapping[str, Any]) -> None:
    """Prints why a run stands where it stands."""
    at = "" if row["attempt"] is None else f", attempt {row['attempt']}"
    at += "" if row["step"] is None else f", step {row['step']}"
    print_result(
        f"{row['run']}: {row['state']}{at}"
        + (f" ({row['reason']})" if row["reason"] else "")
    )
    _reason(row)


def print_causes(groups: Sequence[Mapping[str, Any]]) -> None:
    """Prints failures by cause: how many, which runs, and the line that proves the
    first of them."""
    if not groups:
        print_result("no run has failed")
    for group in groups:
        named = ", ".join(group["runs"][:MOST_NAMED]) + (
            ", …" if group["count"] > MOST_NAMED else ""
        )
        print_result(f"{group['count']} × {group['cause']}: {named}")
        _reason({**group, "cause": None})


def _reason(row: Mapping[str, Any]) -> None:
    rank = "" if row["rank"] is None else f" (rank {row['rank']})"
    for name, text in (
        ("cause", row["cause"]),
        ("proof", row["evidence"]),
        ("in", f"{row['file']}:{row['line']}{rank}" if row["file"] else None),
        (
            "mute",
            f"rank {', '.join(map(str, row['silent']))}" if row["silent"] else None,
        ),
        ("hash", row["signature"]),
        ("note", row.get("other_versions")),
        ("next", row["next"]),
    ):
        if text:
            _out.print(
                Text.assemble("  ", (f"{name:5}", "bold"), " ", make_cell_text(text)),
                soft_wrap=True,
            )


def _shows_progress() -> bool:
    """Whether what moves is shown: in a terminal, unless -q was given or all is silent."""
    is_heard = logger.isEnabledFor(logging.INFO) and not _is_silent.get()
    return _err.is_terminal and is_heard


class Progress:
    """Shows the states of jobs while they run: a live table in a terminal, a line now
    and then in a log."""

    def __init__(self) -> None:
        self._live = (
            Live(console=_err, refresh_per_second=4, transient=True)
            if _shows_progress()
            else None
        )
        self._next = 0.0
        self._said = ""

    def __enter__(self) -> "Progress":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *ended: object) -> None:
        if self._live:
            self._live.stop()

    def due(self) -> bool:
        """Whether it is time to look again."""
        return time.monotonic() >= self._next

    def show(self, note: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Shows the states and what is being prepared."""
        line = progress_line(note, rows)
        if self._live:
            self._next = time.monotonic() + 1.0
            screen = Screen(_err.width, _err.height - BESIDE, time.time())
            lines = [Text.assemble(*each) for each in draw_status(rows, screen)]
            self._live.update(Group(*lines, make_cell_text(line)))
            return
        self._next = time.monotonic() + PLAIN_EVERY_S
        if line != self._said:
            logger.info(line)
        self._said = line


class Counting:
    """Shows how many of how many are done: a bar in a terminal, nothing in a log. For a
    `with` statement."""

    def __init__(self, label: str) -> None:
        from rich.markup import escape
        from rich.progress import Progress as Bar  # which no other command needs

        self._bar = Bar(console=_err, transient=True, disable=not _shows_progress())
        self._task = self._bar.add_task(
            escape(make_showable(label, keep="")), total=None
        )

    def __enter__(self) -> "Counting":
        self._bar.start()
        return self

    def __exit__(self, *ended: object) -> None:
        self._bar.stop()

    def show(self, completed: int, total: int) -> None:
        """So many of `total` are done."""
        self._bar.update(self._task, completed=completed, total=total)


def progress_line(note: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """One line: how many runs are in which state, and where those that run stand."""
    counts = Counter(row["state"] for row in rows)
    summary = [f"{counts.pop(State.DONE, 0)}/{len(rows)} done"]
    summary += [f"{count} {state}" for state, count in sorted(counts.items())]
    running = [
        f"{row['run']}{_at(row)}"
        for row in rows
        if row["state"] == State.RUNNING and row["step"] is not None
    ]
    sections = [", ".join(summary)]
    if note:
        sections.append(note)
    sections += running[:MOST_NAMED]
    if len(running) > MOST_NAMED:
        sections.append("…")
    return "; ".join(sections)


def prepare_note(states: Mapping[str, JobState]) -> str:
    """What the prepare jobs that have not finished are doing."""
    open_ones = {
        item: state for item, state in states.items() if state.state != State.DONE
    }
    return ", ".join(
        f"{item} {state.evidence or state.state}" for item, state in open_ones.items()
    )


def _at(row: Mapping[str, Any]) -> str:
    if row["step"] is None:
        return ""
    loss = "" if row["loss"] is None else f", loss {float(row['loss']):.3f}"
    return f" {row['step']}/{row['steps'] or '?'}{loss}"


def print_error(text: str) -> None:
    """An error, on stderr."""
    print(f"error: {_as_lines(text)}", file=sys.stderr)


def print_bug(error: BaseException) -> None:
    """An error that nobody has foreseen, with its traceback, on stderr."""
    text = hide_known("".join(traceback.format_exception(error)))
    print(make_showable(text), end="", file=sys.stderr)


def library_warning(
    message: Warning | str, category: type[Warning], file: str, line: int, *_: Any
) -> None:
    """A warning that a library gives, on stderr; stands in for `warnings.showwarning`."""
    print(
        make_showable(f"{file}:{line}: {category.__name__}: {message}"), file=sys.stderr
    )
