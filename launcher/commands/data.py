"""The commands that look at data: each parses, calls one function, prints."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from launcher.commands.options import AsJson, Replace, Workspace

if TYPE_CHECKING:  # brings numpy and pydantic
    from launcher.reporting.data.data_looks import DataReader
    from launcher.views.looked_data import GridLook
    from zsg_core.settings.record_fields import RecordFields

GRID_FILES = (".yaml", ".yml")

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help=(
        "Look at data before anything is planned.\n\n"
        "\b\nExample:\n  zsg data show mine.jsonl"
    ),
)


@app.callback()
def data() -> None:
    """Look at data before anything is planned."""


@app.command("show")
def show_data(
    which: Annotated[
        str,
        typer.Argument(
            help="a grid file, or a file, folder or pattern of rows",
            metavar="GRID.YAML|PATH",
        ),
    ],
    workspace: Workspace = None,
    fields: Annotated[
        str | None,
        typer.Option(
            "--fields",
            help="of a path: which columns are what, as data.fields; default: guessed",
            metavar="FIELDS",
        ),
    ] = None,
    format_name: Annotated[
        str | None,
        typer.Option(
            "--set", help="of a path: its format, as data.set", metavar="NAME"
        ),
    ] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            "--tokenizer",
            help="folder whose tokenizer counts tokens; default: the grid's model",
            readable=False,
        ),
    ] = None,
    sample: Annotated[
        int,
        typer.Option(
            "--sample",
            help="measure so many examples of each split at most; 0 = all",
            min=0,
        ),
    ] = 2000,
    head: Annotated[
        int, typer.Option("--head", help="how many examples are shown", min=0)
    ] = 3,
    json: AsJson = False,
    html: Annotated[
        Path | None,
        typer.Option("--html", help="write it as a page to this file", readable=False),
    ] = None,
    replace: Replace = False,
) -> None:
    """Show what data hold: examples by task, what is trained on and tested, duplicates,
    test questions that are trained on, lengths in tokens, what max_length would cut,
    and a few examples. Writes nothing and needs no GPU.

    Of a path all rows are shown, and its columns are guessed: what is guessed is said,
    and can be written into a grid as it stands.

    \b
    Examples:
      zsg data show mine.jsonl
      zsg data show grid.yaml
      zsg data show 'rows/*.parquet' --fields '{prompt: q, answer: a}'
      zsg data show natural-instructions --set niv2
      zsg data show grid.yaml --html data.html
    """
    from launcher.reporting import outputs
    from launcher.reporting.data import data_looks

    if html:
        outputs.refuse_existing(html, replace, option="--html")
    options = data_looks.Asked(sample=sample, shown=head, tokenizer=tokenizer)
    reader = data_looks.DataReader(options)
    if Path(which).suffix in GRID_FILES:
        if fields is not None or format_name is not None:
            raise typer.BadParameter(
                "--fields and --set go with a path; a grid has data.fields and data.set"
            )
        look = _look_at_grid(reader, Path(which), workspace)
    else:
        look = _look_at_path(reader, which, fields, format_name)
    if html:
        _write_page(look, html)
    elif json:
        _print_json(look)
    else:
        _print_look(look)


def _look_at_grid(
    reader: "DataReader", grid: Path, workspace: Path | None
) -> "GridLook":
    """The data of a grid's runs."""
    from launcher.submission import workflow

    opened = workflow.resolve_grid(grid, None, workspace, only_looks=True)
    opened.tell_notes()
    return reader.look_at_runs(opened.site.workspace, opened.runs)


def _look_at_path(
    reader: "DataReader", path: str, fields: str | None, format_name: str | None
) -> "GridLook":
    """The rows of a path."""
    from launcher.grids import inputs
    from launcher.views.looked_data import GridLook

    located = inputs.find_data("data", path, "")
    columns = None if fields is None else _parse_fields(fields)
    return GridLook(looks=(reader.look_at_path(located, columns, format_name),))


def _parse_fields(text: str) -> "RecordFields":
    """Fields as they are typed. UserError for what are none."""
    from pydantic import ValidationError

    from launcher.workspace import yaml_file
    from zsg_core.errors import UserError
    from zsg_core.schema_errors import describe_within
    from zsg_core.settings.record_fields import RecordFields

    def refuse(_: object, message: str) -> UserError:
        return UserError(f"--fields: {message}")

    values, _ = yaml_file.parse_yaml(text, refuse)
    try:
        return RecordFields.model_validate(values)
    except ValidationError as error:
        reason = describe_within("--fields", error, RecordFields)
        raise UserError(reason) from None


def _print_json(look: "GridLook") -> None:
    """All that was found, for scripts."""
    from launcher.views import looked_data, show

    rows = [looked_data.make_row(each) for each in look.looks]
    show.as_json({"data": rows, "more": look.more})


def _print_look(look: "GridLook") -> None:
    """All that was found, for people."""
    from launcher.views import data_view, show

    is_one = len(look.looks) == 1
    for number, each in enumerate(look.looks):
        if number:
            show.print_result("")
        for line in data_view.describe_look(each, heading=not is_one):
            show.print_result(line)
        for source in each.sources:
            for displayed in source.shown:
                show.print_result("")
                for line in data_view.describe_example(displayed):
                    show.print_result(line)
    if look.more:
        show.print_result(f"… and {look.more} more of other data in this grid")


def _write_page(look: "GridLook", path: Path) -> None:
    """All that was found, as a page."""
    from launcher.reporting.html import data_page
    from launcher.views import show

    data_page.write_page(look, path)
    show.print_result(f"wrote {path}")
