"""Writes the pages of docs/reference: every key of a grid, every key of a profile, the
help of every command, every check of nodes, every public name of `import zsg`, every
mapping of a published set.

`python -m launcher.reference_pages`, called in the root of the repository, makes the
pages anew, and the table of keys in cluster_profiles/README.md. A test compares them
with the code. Nothing of zsg imports this.
"""

import importlib
import inspect
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import typer

from jobs.node_check.registry import CHECKS, NodeCheck
from launcher import cli
from launcher.doctor.node_report import ON_ANY_DEVICE
from launcher.grids import key_reference
from launcher.grids.key_reference import KeyEntry
from zsg_core.data.published_sets import MAPPINGS, PublishedSet

GENERATED = "<!-- Made from the code by `python -m launcher.reference_pages`; change it there. -->"
PROFILE_README = "cluster_profiles/README.md"
PROFILE_TABLE = "| key | default | meaning |\n|---|---|---|\n"
MOST_ITEMS = 5  # of a list that are shown
WIDTH, MARGIN = 80, 2  # columns of a terminal; those that help leaves free

GRID_INTRO = """\
# Every key of a grid

A grid is one YAML file: what all its runs have in common (`defaults`), and the axes in which they
differ (`grid`). The first table begins with the keys of the file. All others are settings: they
stand in `defaults`, and in blocks of `grid`, nested (`train: {lr: 1e-5}`) or dotted
(`train.lr: 1e-5`). Unknown keys are refused, with file and line.

- **values**: what is allowed. `null` (or nothing behind the colon) is a value too.
- **default**: what counts if the key is not set. *must be set*: there is none.
- **run id**: whether the key is part of what makes two runs the same. *yes*: another value is
  another run, where the key has an effect at all (the seed of an order that draws nothing has
  none). *no*: it may be changed, and the runs that are there stay the same runs. *its content*: a
  file may be moved; with other content it is another run.

The same in a terminal: `zsg schema grid train.tuning`, or `zsg schema grid lr` for one key. For
editors: `zsg schema grid > grid.schema.json`.
"""
PROFILE_INTRO = """\
# Every key of a cluster profile

A profile is one YAML file that describes a cluster; [its README](../../cluster_profiles/README.md)
says where profiles are looked for, and how one is laid over another. No key of a profile enters a
run's id: the same run may be computed anywhere.

The same in a terminal: `zsg schema profile slurm`, or `zsg schema profile account` for one key.
"""
NODE_CHECKS_INTRO = """\
# What nodes must confirm

`zsg doctor --on-node` checks each of these on the nodes of a profile, in this order, and says of
each: `ok`, `warning` (it works, otherwise than `zsg plan` assumes), `problem`, or `skipped` and
why. The suite of tests runs on CPUs: what only a GPU can confirm is open on every new kind of GPU
until this command has confirmed it there. [Part 2 of the tutorial](../slurm.md#check-the-nodes)
shows a report.
"""
COMMANDS_INTRO = """\
# Every command

What `zsg COMMAND --help` prints. A command ends with exit code 0 (done), 1 (a bug in zsg), 2 (a
mistake on the command line or in a file), 3 (the cluster or this machine), 130 (Ctrl-C). Those that
compare end with 1, too, where they find a fault: `zsg verify`, and `zsg doctor --on-node`.
"""
PUBLISHED_SETS_INTRO = """\
# Published sets that have a mapping

`data: {set: records, mapping: NAME, path: …}` reads rows of these layouts. The path is a file, a
folder, or a name on the hub, such as `cais/mmlu:all/test`. `fields` beside it count before what is
listed here, key by key: `fields: {task: null}` takes the task away. Of translations say the
languages, too: `mapping: {name: wmt, languages: is-en}`; `<source>` and `<target>` are their codes.

What is listed here enters the run id, and the name of the mapping does not. Data of another layout
are refused with the mapping that fits. [Your own data](../data.md) says what each field is, and
which further sets are formats of their own.
"""
PYTHON_INTRO = """\
# Every public name of `import zsg`

What a program may import, with what each takes, gives and raises. [From Python](../python-api.md)
shows them at work and says what is promised of them.
"""


def grid_page() -> str:
    """docs/reference/grid.md."""
    return _keys_page(GRID_INTRO, key_reference.list_keys("grid"), has_run_id=True)


def profile_page() -> str:
    """docs/reference/profile.md."""
    return _keys_page(
        PROFILE_INTRO, key_reference.list_keys("profile"), has_run_id=False
    )


def commands_page() -> str:
    """docs/reference/commands.md."""
    blocks = [COMMANDS_INTRO.strip(), GENERATED]
    for words, text in list_help():
        blocks += [f"## {words}", f"```text\n{text.strip()}\n```"]
    return "\n\n".join(blocks) + "\n"


def published_sets_page() -> str:
    """docs/reference/published-sets.md."""
    titles = ["mapping", "set", "columns", "read as"]
    rows = [titles, ["---"] * len(titles)]
    for name, published in MAPPINGS.items():
        cells = _describe_mapping(published)
        rows.append([f"`{name}`", *cells])
    table = "\n".join(f"| {' | '.join(map(_cell, row))} |" for row in rows)
    return "\n\n".join([PUBLISHED_SETS_INTRO.strip(), GENERATED, table]) + "\n"


def _describe_mapping(published: PublishedSet) -> list[str]:
    """What the table of published sets says of one: which it is and where it lies, its
    columns, and which is what."""
    places = ", ".join(_code(place) for place in published.places)
    note = (
        f". {published.note[0].upper()}{published.note[1:]}" if published.note else ""
    )
    columns = [f"`{column}` ({kind})" for column, kind in published.layout.items()]
    read_as: list[str] = []
    for field, value in published.fields.items():
        written = json.dumps(_shorten(value), ensure_ascii=False)
        plain = isinstance(value, str) and "\n" not in value
        read_as.append(f"`{field}: {value if plain else written}`")
    return [
        f"{published.about} ({places}){note}",
        ", ".join(columns),
        "; ".join(read_as),
    ]


def _shorten(value: list[str] | str) -> list[str] | str:
    """A list with its first items, where it is long; another value as it is."""
    if isinstance(value, str) or len(value) <= MOST_ITEMS:
        return value
    return [*value[:MOST_ITEMS], f"… {len(value)} in all"]


def node_checks_page() -> str:
    """docs/reference/node-checks.md."""
    of_gpus = [check for check in CHECKS if check.needs_gpu]
    of_all = [check for check in CHECKS if not check.needs_gpu]
    anew = [check for check in of_all if check.section not in ON_ANY_DEVICE]
    same = [check for check in of_all if check.section in ON_ANY_DEVICE]
    blocks = [NODE_CHECKS_INTRO.strip(), GENERATED]
    blocks += ["## What only a GPU can confirm", _table_checks(of_gpus)]
    blocks += ["## What a CPU confirms for CPUs, and a GPU anew", _table_checks(anew)]
    blocks += ["## What is the same on any node", _table_checks(same)]
    return "\n\n".join(blocks) + "\n"


def python_page() -> str:
    """docs/reference/python.md."""
    # by its name: nothing of the launcher rests on what stands above it
    public = importlib.import_module("zsg")
    values = {name: getattr(public, name) for name in public.__all__}
    functions = {name: value for name, value in values.items() if callable(value)}
    records = {
        name: value for name, value in functions.items() if isinstance(value, type)
    }
    blocks = [PYTHON_INTRO.strip(), GENERATED, "## Functions"]
    for name, value in functions.items():
        if name not in records:
            blocks += [f"### `{name}`", _describe_function(name, value)]
    blocks.append("## Records and errors")
    for name, value in records.items():
        blocks += [f"### `{name}`", _describe_class(value)]
    return "\n\n".join(blocks) + "\n"


def _describe_function(name: str, function: Any) -> str:
    """The signature of a function, and its docstring with its parts as lists."""
    signature = inspect.signature(function)
    lines: list[str] = []
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in lines:
            lines.append("*")
        lines.append(_describe_parameter(parameter))
    arguments = "".join(f"    {line},\n" for line in lines)
    result = _name_type(signature.return_annotation)
    code = f"```python\nzsg.{name}(\n{arguments}) -> {result}\n```"
    about = _as_markdown(inspect.getdoc(function) or "")
    return f"{code}\n\n{about}"


def _describe_parameter(parameter: inspect.Parameter) -> str:
    """A parameter as its function's signature has it."""
    kind = _name_type(parameter.annotation)
    words = f"{parameter.name}: {kind}"
    if parameter.default is not parameter.empty:
        words = f"{words} = {parameter.default!r}"
    return words


def _name_type(annotation: Any) -> str:
    """A type as a program writes it, without the modules that it is of."""
    text = (
        annotation
        if isinstance(annotation, str)
        else inspect.formatannotation(annotation)
    )
    return re.sub(r"\b(?:[a-z_]+\.)+(?=[A-Z])", "", text).replace(
        "DataFrame", "pandas.DataFrame"
    )


def _describe_class(kind: type) -> str:
    """The docstring of a record or an error, and its fields and properties."""
    lines = [_as_markdown(inspect.getdoc(kind) or ""), ""]
    for name in getattr(kind, "__annotations__", {}):
        lines.append(f"- `{name}`")
    for name, value in vars(kind).items():
        is_public = not name.startswith("_")
        if is_public and isinstance(value, property):
            about = inspect.cleandoc(value.__doc__ or "")
            first, _, _ = about.partition("\n\n")
            lines.append(f"- `{name}` (computed): {_flow(first)}")
    return "\n".join(lines).strip()


def _as_markdown(docstring: str) -> str:
    """A docstring, its `Args:`, `Returns:` and `Raises:` as headed lists."""
    blocks: list[str] = []
    for block in docstring.split("\n\n"):
        title, _, body = block.partition("\n")
        if title not in ("Args:", "Returns:", "Raises:"):
            blocks.append(_flow(block))
            continue
        rows = re.split(r"\n(?! )", inspect.cleandoc(body))
        if title == "Returns:":
            blocks.append(f"Returns: {_flow(' '.join(rows))}")
            continue
        named = [row.partition(": ") for row in rows]
        items = [f"- `{name}`: {_flow(about)}" for name, _, about in named]
        blocks.append("\n".join([title, "", *items]))
    return "\n\n".join(blocks)


def _flow(text: str) -> str:
    return " ".join(text.split())


def _table_checks(checks: Sequence[NodeCheck]) -> str:
    """A table of some checks, in the order in which they run."""
    rows = [["check", "part of the report", "what it confirms"], ["---"] * 3]
    for check in checks:
        rows.append([f"`{check.name}`", check.section, check.confirms])
    return "\n".join(f"| {' | '.join(map(_cell, row))} |" for row in rows)


def profile_readme(readme: str) -> str:
    """cluster_profiles/README.md with its table of keys made anew."""
    entries = key_reference.list_keys("profile")
    rows = [
        f"| `{entry.path}` | {_code(entry.default)} | {entry.description} |"
        for entry in entries
        if entry.allowed != key_reference.MAPPING
    ]
    return readme.partition(PROFILE_TABLE)[0] + PROFILE_TABLE + "\n".join(rows) + "\n"


def list_help() -> list[tuple[str, str]]:
    """Every command with what its --help prints at 80 columns; groups before their commands."""
    return list(_walk_commands(typer.main.get_command(cli.app), "zsg", None))


def _walk_commands(command: Any, words: str, parent: Any) -> Iterator[tuple[str, str]]:
    """A command's help, and that of all commands below it."""
    context = command.context_class(
        command,
        info_name=words.rpartition(" ")[2],
        parent=parent,
        terminal_width=WIDTH - MARGIN,
    )
    yield words, command.get_help(context)
    for name, inner in getattr(command, "commands", {}).items():
        yield from _walk_commands(inner, f"{words} {name}", context)


def _keys_page(intro: str, entries: Sequence[KeyEntry], *, has_run_id: bool) -> str:
    """A table for the top of the file, and one for each section."""
    sections = [entry.path for entry in entries if entry.is_section]
    blocks = [intro.strip(), GENERATED, "## At the top"]
    blocks.append(_table(_within("", entries, sections), sections, has_run_id))
    for section in sections:
        rows = _within(section, entries, sections)
        if rows:
            blocks += [f"## `{section}`", _table(rows, sections, has_run_id)]
    return "\n\n".join(blocks) + "\n"


def _within(
    section: str, entries: Sequence[KeyEntry], sections: Sequence[str]
) -> list[KeyEntry]:
    """The entries that stand in a section itself, not in one within it."""
    return [entry for entry in entries if _section_of(entry, sections) == section]


def _section_of(entry: KeyEntry, sections: Sequence[str]) -> str:
    """The nearest section above a key; empty for the file."""
    above = entry.path
    while above := above.rpartition(".")[0]:
        if above in sections:
            return above
    return ""


def _table(
    entries: Sequence[KeyEntry], sections: Sequence[str], has_run_id: bool
) -> str:
    """The keys of one section, each in a row of its own."""
    titles = [
        "key",
        "values",
        "default",
        *(["run id"] if has_run_id else []),
        "meaning",
    ]
    rows = [titles, ["---"] * len(titles)]
    for entry in entries:
        key = f"`{entry.path}`"
        if entry.path in sections:
            key = f"[{key}](#{_anchor(entry.path)})"
        default = "*must be set*" if entry.must_be_set else _code(entry.default)
        run_id = [entry.run_id] if has_run_id else []
        rows.append([key, entry.allowed, default, *run_id, entry.description])
    return "\n".join(f"| {' | '.join(map(_cell, row))} |" for row in rows)


def _anchor(heading: str) -> str:
    """The anchor that code hosts and Markdown's own table of contents give a heading."""
    return re.sub(r"[^\w\s-]", "", heading).lower()


def _cell(text: str) -> str:
    """A text as Markdown shows it: no bar ends the cell, no `<sep>` is taken for HTML."""
    by_backtick = text.replace("|", r"\|").split("`")
    by_backtick[::2] = [words.replace("<", "&lt;") for words in by_backtick[::2]]
    return "`".join(by_backtick)


def _code(text: str) -> str:
    """A text in the type of code; nothing of an empty one."""
    return f"`{text}`" if text else ""


def write(root: Path) -> None:
    """Writes all pages below the root of the repository."""
    folder = root / "docs/reference"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "grid.md").write_text(grid_page())
    (folder / "profile.md").write_text(profile_page())
    (folder / "commands.md").write_text(commands_page())
    (folder / "node-checks.md").write_text(node_checks_page())
    (folder / "python.md").write_text(python_page())
    (folder / "published-sets.md").write_text(published_sets_page())
    readme = root / PROFILE_README
    readme.write_text(profile_readme(readme.read_text()))


if __name__ == "__main__":
    write(Path())
