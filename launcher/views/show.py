"""Prints plans and states for people, and JSON for scripts.

Results go to stdout, progress to stderr. rich honours NO_COLOR and the width of the terminal.

All that zsg shows in a terminal is printed here, and made showable here, whoever wrote
it: nothing is markup, and no character reaches the terminal that it would obey. Only
rich's own colours and movements do.
"""

import contextlib
import json
import logging
import os
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
from rich.text import Text

from jobs.contract.states import State
from launcher.views.columns import LONG
from launcher.views.learnt_view import BETWEEN_TEXTS, mark_targets
from launcher.views.live_screen import (
    expect_loss,
    fit_frame,
    limit_notes,
    measure_terminal,
)
from launcher.views.status_tables import Line, Screen, draw_status
from launcher.views.tables import (
    make_cell_text,
)
from launcher.views.why_view import draw_group, draw_why
from launcher.workspace.job_state import JobState
from zsg_core.secrets import hide_known
from zsg_core.shown_text import ShownLog, make_showable

if TYPE_CHECKING:  # plans bring pydantic and numpy, which `zsg status` can do without
    from jobs.training.learnt_texts import Piece

# underlined, so that a blank or a line end that is learnt is seen, too
STYLE_OF_TARGETS = "green underline"
PLAIN_EVERY_S = 10.0
PAGE = 50  # lines of a screen that is none
LEAST_HEIGHT = 12
# what a terminal obeys
HOME, ERASE_LINE, ERASE_BELOW = "\x1b[H", "\x1b[2K", "\x1b[J"
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


def _print_plainly(text: str, end: str = "\n", *, to_stderr: bool = False) -> None:
    """Prints a showable text as it stands, without rich, unless all is silent."""
    if not _is_silent.get():
        print(text, end=end, file=sys.stderr if to_stderr else sys.stdout)


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


def print_block(lines: Sequence[str]) -> None:
    """Lines of a table, showable each, on stdout. Thousands of them take no longer than
    to write them."""
    _print_plainly("\n".join(map(make_showable, lines)))


def get_width() -> int:
    """How many columns what is printed on stdout has."""
    return _out.width


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
        _print_plainly(json.dumps(value, indent=1))
        return
    # A row on a line of its own: thousands of them are written in a moment, and found with grep.
    rows = cast("list[Any]", value)
    _print_plainly("[" + ",".join(f"\n {json.dumps(row)}" for row in rows) + "\n]")


def print_line(text: str) -> None:
    """A line for scripts as it stands, on stdout: JSON of ASCII letters, which nothing
    is taken out of."""
    _print_plainly(make_showable(text))


def print_log(pieces: Iterable[str]) -> None:
    """The pieces of a job's log, on stdout, as they come."""
    showing = ShownLog()
    for piece in pieces:
        _print_plainly(showing.show(piece), end="")
        sys.stdout.flush()
    _print_plainly(showing.end(), end="")
    sys.stdout.flush()


def print_status(rows: Sequence[Mapping[str, Any]], whole: bool = False) -> None:
    """Prints the states: on one screen, unless `whole`, which has a line for every run."""
    height = None if whole else _measure_height(_out)
    lines = draw_status(rows, Screen(_out.width, height, time.time()))
    is_long = len(lines) > LONG
    for line in lines:
        if is_long:
            # plain: styles of many lines take seconds
            texts = [text for text, _ in line]
            _print_plainly("".join(texts))
        else:
            styled = Text.assemble(*line)
            _out.print(styled, soft_wrap=True)


def _measure_height(console: Console) -> int:
    """The lines of a screen, with room for the prompt; of what is no terminal a page's."""
    if not console.is_terminal:
        return PAGE
    return max(console.height - BESIDE, LEAST_HEIGHT)


def data_notes(notes: Sequence[str]) -> None:
    """Says what there is to know of the data, on stderr."""
    for note in notes:
        logger.warning(f"note on the data: {note}")


def look_notes(notes: Sequence[str]) -> None:
    """Says what looks at claims have decided, on stderr."""
    for note in notes:
        logger.warning(f"note on looks: {note}")


def version_notes(notes: Sequence[str]) -> None:
    """Says which runs compute with other versions than those of the submit, on stderr."""
    for note in notes:
        logger.warning(f"note on versions: {note}")


def is_terminal() -> bool:
    """Whether what is printed on stdout is seen in a terminal that can be drawn over."""
    return _out.is_terminal and sys.stdout.isatty() and not _out.is_dumb_terminal


def draw_page(
    title: str, rows: Sequence[Mapping[str, Any]], notes: Sequence[str], whole: bool
) -> os.terminal_size:
    """Draws the states over what the terminal shows: no line is wider, and not more
    lines are drawn than it has now. Returns its size. LostTerminal where it is gone."""
    size = measure_terminal()
    # the last line is the cursor's
    height = max(size.lines - 1, 1)
    note_lines = limit_notes(notes, height)
    room = None if whole else max(height - 1 - len(note_lines), 1)
    body = draw_status(rows, Screen(size.columns, room, time.time()))
    frame = fit_frame(title, body, note_lines, height)
    texts = [_render_line(line, size.columns) for line in frame]
    end = "\n" if size.lines > height else ""
    drawn = "\n".join(ERASE_LINE + text for text in texts)
    with expect_loss():
        sys.stdout.write(HOME + drawn + end + ERASE_BELOW)
        sys.stdout.flush()
    return size


def _render_line(line: Line, width: int) -> str:
    """A line in the terminal's colours, cut to its width."""
    text = Text.assemble(*((_as_cell(text), style) for text, style in line))
    text.truncate(width, overflow="ellipsis")
    with _out.capture() as capture:
        _out.print(text, soft_wrap=True, end="")
    return capture.get()


def _as_cell(text: str) -> str:
    return make_showable(text, keep="")


def print_why(row: Mapping[str, Any]) -> None:
    """Prints why a run stands where it stands."""
    _print_lines(draw_why(row, _choose_width()))


def print_causes(groups: Sequence[Mapping[str, Any]]) -> None:
    """Prints failures by cause: how many, which runs, and the line that proves the
    first of them."""
    if not groups:
        print_result("no run has failed")
    for group in groups:
        _print_lines(draw_group(group, _choose_width()))


def _choose_width() -> int:
    """To how many cells sentences are broken: those of a terminal; for a file, in which
    somebody may search for them, not at all."""
    return _out.width if _out.is_terminal else sys.maxsize


def _print_lines(lines: Sequence[Line]) -> None:
    """Prints lines that are not to be broken, each of pieces in their styles."""
    for line in lines:
        _out.print(Text.assemble(*line), soft_wrap=True)


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
        f"{row['run']}{_format_progress(row['step'], row['steps'], row['loss'])}"
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


def _format_progress(
    step: int | None, steps: int | None, loss: float | str | None
) -> str:
    """How far a job has come: step, of how many, and the loss, which is a text where it
    is not finite; empty before its first step."""
    if step is None:
        return ""
    progress = f" {step}/{steps or '?'}"
    if loss is None:
        return progress
    return f"{progress}, loss {float(loss):.3f}"


def print_error(text: str) -> None:
    """An error, on stderr."""
    _print_plainly(f"error: {_as_lines(text)}", to_stderr=True)


def print_bug(error: BaseException) -> None:
    """An error that nobody has foreseen, with its traceback, on stderr."""
    text = hide_known("".join(traceback.format_exception(error)))
    _print_plainly(make_showable(text), end="", to_stderr=True)


def library_warning(
    message: Warning | str, category: type[Warning], file: str, line: int, *_: Any
) -> None:
    """A warning that a library gives, on stderr; stands in for `warnings.showwarning`."""
    text = make_showable(f"{file}:{line}: {category.__name__}: {message}")
    _print_plainly(text, to_stderr=True)
