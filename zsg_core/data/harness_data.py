"""Says what does not fit between a task of lm-evaluation-harness and its own data,
without the harness: splits and columns that are not there, files without rows, templates
and filters that cannot be read.

The harness finds these when it loads a task, which is behind the queue and the training;
and a name of a column that is none is a text to it, the same for every item. Nothing is
rendered here: templates are parsed for the names that they cannot do without.
"""

import csv
import importlib.util
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zsg_core.errors import UserError
from zsg_core.schema_errors import format_brief, suggest_nearest
from zsg_core.shown_text import make_showable

# from how much of a file the library `datasets` learns which columns there are
READ_BYTES = 10_000_000
ASKED = ("test_split", "validation_split")  # the first of them that is there is asked
SPLITS = (*ASKED, "training_split", "fewshot_split")
TEMPLATES = ("doc_to_text", "doc_to_target", "doc_to_choice", "description")
UTF_8 = ("utf-8", "utf8", "UTF-8", "utf-8-sig")
OUTPUTS = (
    "generate_until",
    "loglikelihood",
    "loglikelihood_rolling",
    "multiple_choice",
)
FILTERS = frozenset(  # lm_eval/filters, those that need no Python of the task's own
    "decontaminate format_span lowercase majority_vote map multi_choice_regex regex"
    " regex_pos remove_whitespace take_first take_first_k uppercase".split()
)
OF_HARNESS = ("regex_replace",)  # what templates call beside Jinja's own filters
OF_JINJA = (
    "caller",
    "kwargs",
    "loop",
    "self",
    "super",
    "varargs",
)  # where it sets them
_NAME = re.compile(r"[^\W\d]\w*")
_MARKS = re.compile(r"\{\{|\{%")


@dataclass(frozen=True)
class OwnTask:
    """A task of a user's: its file, what is in force of it, and its files of data by
    splits; none where they are of the hub, and so not looked into. `has_code`: whether it
    names functions, which may make other columns, prompts and filters."""

    path: Path
    settings: Mapping[str, Any]
    files: Mapping[str, Sequence[Path]]
    has_code: bool = False

    @property
    def data_options(self) -> Mapping[str, Any]:
        """How its files are read."""
        return self.settings.get("dataset_kwargs") or {}


def check_own_task(task: OwnTask) -> None:
    """UserError for what the harness could not do, or would do without a word."""
    problem = next(_list_problems(task), None)
    if problem is not None:
        raise UserError(f"{make_showable(str(task.path), keep='')}: {problem}")


def list_files_by_split(files: Any) -> dict[str, list[Any]]:
    """The names in `data_files` by their splits, as the library `datasets` reads them:
    what stands under no name is `train`."""
    if not isinstance(files, Mapping):
        files = {"train": files}
    return {
        str(split): named if isinstance(named, list) else [named]
        for split, named in files.items()
    }


def _list_problems(task: OwnTask) -> Iterator[str]:
    """Sentences on what does not fit."""
    output = task.settings.get("output_type", OUTPUTS[0])
    if output not in OUTPUTS:
        yield _describe_unknown("output_type", output, OUTPUTS)
    if task.files:
        yield from _list_split_problems(task)
    if not task.has_code:
        yield from _list_filter_problems(task)
        yield from _list_column_problems(task)


def _list_column_problems(task: OwnTask) -> Iterator[str]:
    """Sentences on files that are asked and have no row, and on what templates name."""
    columns: frozenset[str] | None = None
    named = [task.settings[key] for key in ASKED if task.settings.get(key)]
    if task.files and named:
        by_file = [read_columns(file, task) for file in task.files[named[0]]]
        for file, of_file in zip(task.files[named[0]], by_file, strict=True):
            if of_file is not None and not of_file:
                yield f"{named[0]}: {format_brief(file.name)} has no row"
        known = [of_file for of_file in by_file if of_file is not None]
        if len(known) == len(by_file):
            columns = frozenset[str]().union(*known)
    yield from _list_template_problems(task, columns)


def _list_split_problems(task: OwnTask) -> Iterator[str]:
    """Sentences on splits that are named and have no file, or where none is named."""
    settings, data = task.settings, task.files
    if not any(settings.get(key) for key in ASKED):
        yield f"names neither {' nor '.join(ASKED)}, so nothing would be asked"
    for key in SPLITS:
        split = settings.get(key)
        is_there = isinstance(split, str) and split in data
        if split is not None and not is_there:
            yield _describe_unknown(key, split, data, "splits of data_files")


def _list_filter_problems(task: OwnTask) -> Iterator[str]:
    """Sentences on filters that the harness does not have, and on regular expressions
    that are none."""
    for named in _list_mappings(task.settings.get("filter_list")):
        for step in _list_mappings(named.get("filter")):
            function = step.get("function")
            if not isinstance(function, str) or function not in FILTERS:
                yield _describe_unknown("filter_list", function, FILTERS)
            pattern = step.get("regex_pattern")
            if pattern is not None:
                yield from _list_pattern_problems(pattern)


def _list_pattern_problems(pattern: Any) -> Iterator[str]:
    """A sentence where a regular expression is none."""
    try:
        re.compile(pattern)
    except (re.error, TypeError, RecursionError, OverflowError) as error:
        yield f"filter_list: regex_pattern {format_brief(pattern)} is none: {error}"


def _list_mappings(value: Any) -> list[Mapping[str, Any]]:
    """The mappings in a list; none of what is no list."""
    items = value if isinstance(value, list) else []
    return [item for item in items if isinstance(item, Mapping)]


def _list_template_problems(
    task: OwnTask, columns: frozenset[str] | None
) -> Iterator[str]:
    """Sentences on templates that cannot be read, and on columns that they name and that
    are not there. `columns`: None where they are not known."""
    for key in TEMPLATES:
        text = task.settings.get(key)
        if not isinstance(text, str):
            continue
        if _MARKS.search(text):
            yield from _list_name_problems(key, text, columns)
        elif columns and _is_lost_column(key, text, columns, task):
            unknown = _describe_unknown(key, text, columns, "columns")
            yield f"{unknown} A text that is the same for all items is {{{{'…'}}}}"


def _is_lost_column(
    key: str, text: str, columns: frozenset[str], task: OwnTask
) -> bool:
    """Whether a text without marks of a template is a word that looks like a column, and
    is none, nor an option that is always right."""
    choices = task.settings.get("doc_to_choice")
    is_option = isinstance(choices, list) and text in choices
    is_text = key == "description"
    is_word = _NAME.fullmatch(text) is not None
    return is_word and text not in columns and not is_option and not is_text


def _list_name_problems(
    key: str, text: str, columns: frozenset[str] | None
) -> Iterator[str]:
    """Sentences on a template. Nothing is said where Jinja is not installed: the
    harness brings it."""
    if importlib.util.find_spec("jinja2") is None:
        return
    from jinja2 import Environment, TemplateError, nodes

    library = Environment(autoescape=False)
    try:
        tree = library.parse(text)  # compiling it would compute what is constant in it
    except (TemplateError, RecursionError) as error:
        reason = str(error).partition("\n")[0][:200]
        yield f"{key} cannot be read as a template: {reason}"
        return
    filters = {*library.filters, *OF_HARNESS}
    for used in tree.find_all(nodes.Filter):
        if used.name not in filters:
            nearest = suggest_nearest(used.name, sorted(filters))
            yield f"{key}: {format_brief(used.name)} is no filter of Jinja.{nearest}"
    if columns is not None:
        needed = _find_needed(tree).difference(library.globals, columns)
        for name in sorted(needed):
            yield _describe_unknown(key, name, columns, "columns")


def _find_needed(tree: Any) -> set[str]:
    """The names that a parsed template cannot do without: not those that it sets itself,
    asks whether they are there, or gives something in place of."""
    from jinja2 import nodes

    excused = {macro.name for macro in tree.find_all(nodes.Macro)}.union(OF_JINJA)
    read: set[str] = set()
    for name in tree.find_all(nodes.Name):
        (read if name.ctx == "load" else excused).add(name.name)
    for test in tree.find_all(nodes.Test):
        if test.name in ("defined", "undefined"):
            excused.update(name.name for name in test.find_all(nodes.Name))
    for used in tree.find_all(nodes.Filter):
        if used.name in ("default", "d"):
            excused.update(name.name for name in used.find_all(nodes.Name))
    return read - excused


def _describe_unknown(
    key: str, word: Any, allowed: Iterable[str], which: str = ""
) -> str:
    """That a key names what there is not, what there is, and what may be meant. `which`:
    what the known ones are called."""
    names = sorted(map(str, allowed))
    some = ", ".join(make_showable(name[:40], keep="") for name in names[:20])
    listed = f"the {which} ({some})" if which else some
    nearest = suggest_nearest(str(word), names)
    return f"{key} names {format_brief(word)}, which is none of {listed}.{nearest}"


def read_columns(file: Path, task: OwnTask) -> frozenset[str] | None:
    """The columns of a file of data; none where it has no row, None where they are not
    read here. UserError for what is not of its kind."""
    kind = task.settings.get("dataset_path")
    try:
        with file.open("rb") as opened:
            content = opened.read(READ_BYTES + 1)
    except OSError as error:
        raise _refuse(file, f"cannot be read: {error.strerror}") from None
    is_whole = len(content) <= READ_BYTES
    encoding = task.data_options.get("encoding") or UTF_8[0]
    if encoding not in UTF_8:
        return None  # which the library alone decodes
    text = content.decode("utf-8-sig", "replace")
    if kind == "text":
        return frozenset({"text"}) if content else frozenset()
    if kind == "csv":
        return _read_csv_columns(text, task)
    if kind == "json":
        return _read_json_columns(file, text, task.data_options.get("field"), is_whole)
    return None


def _read_csv_columns(text: str, task: OwnTask) -> frozenset[str] | None:
    """The names in the first line; none where no line follows it."""
    options = task.data_options
    delimiter = options.get("delimiter") or options.get("sep") or ","
    if not isinstance(delimiter, str) or len(delimiter) != 1:
        return None
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        rows = (row for row in lines if row)  # empty lines are passed over
        first = next(rows, [])
        second = next(rows, None)
    except csv.Error:
        return None
    return frozenset() if second is None else frozenset(first)


def _read_json_columns(
    file: Path, text: str, field: Any, is_whole: bool
) -> frozenset[str] | None:
    """The keys of all rows: a row a line, one list of rows, or one below a key."""
    stripped = text.lstrip()
    if field is not None or stripped.startswith("["):
        if not is_whole:
            return None
        return _collect_keys(file, _find_rows(file, text, field))
    # only these end a line of JSON: a text in it may hold what Unicode has besides
    lines = [line for line in re.split(r"[\r\n]+", text) if line.strip()]
    if not is_whole:
        lines = lines[:-1]  # the last may be cut
        if not lines:
            return None
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except (ValueError, RecursionError):
            if number == 1:
                return None  # a row over several lines, which only the library reads
            raise _refuse(file, f"line {number} is no JSON") from None
    return _collect_keys(file, rows)


def _find_rows(file: Path, text: str, field: Any) -> Any:
    """The rows in one JSON value, below a key of it where one is named."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise _refuse(file, "is no JSON") from None
    if field is None:
        return value
    if not isinstance(field, str):
        raise _refuse(file, f"field: {format_brief(field)} is no key")
    if not isinstance(value, Mapping) or field not in value:
        raise _refuse(file, f"has no key {format_brief(field)}")
    return value[field]


def _collect_keys(file: Path, rows: Any) -> frozenset[str] | None:
    """The keys of rows; of a list of texts the column that the library makes of it.
    UserError for a row that is no mapping."""
    if not isinstance(rows, list):
        return None
    if rows and all(isinstance(row, str) for row in rows):
        return frozenset({"text"})
    columns: set[str] = set()
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise _refuse(file, f"row {number} is {format_brief(row)}, no mapping")
        columns.update(row)
    return frozenset(columns)


def _refuse(file: Path, problem: str) -> UserError:
    return UserError(f"{make_showable(str(file), keep='')}: {problem}")
