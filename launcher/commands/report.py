"""The commands that show what the runs of a grid came to: each parses, calls one
function, prints."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from launcher.commands.options import GridName, Replace, Workspace


class Over(StrEnum):
    """What the curves of a report run over."""

    STEP = "step"
    EXAMPLES = "examples"
    TOKENS = "tokens"


class Format(StrEnum):
    """The formats of an exported table."""

    PARQUET = "parquet"
    CSV = "csv"


def report(
    grid: GridName,
    workspace: Workspace = None,
    metric: Annotated[str, typer.Option("--metric", help="which metric")] = "loss",
    x: Annotated[
        Over, typer.Option("--x", help="what the curves run over")
    ] = Over.STEP,
    panel: Annotated[
        str | None,
        typer.Option(
            "--panel",
            metavar="AXIS",
            help=(
                "the axis that gets a panel for each value, or none; default: of several that with"
                " fewest values"
            ),
        ),
    ] = None,
    stage: Annotated[
        int | None,
        typer.Option(
            "--stage",
            min=1,
            help="only this stage of the runs, counted from its beginning",
        ),
    ] = None,
    over_splits: Annotated[
        bool,
        typer.Option(
            "--over-splits", help="average over held-out splits as over seeds"
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help=(
                "folder to write to, or FILE.html for the page alone; default: grids/GRID/report in"
                " the workspace. A file there that zsg did not write, or that was changed since, is"
                " never replaced or removed"
            ),
        ),
    ] = None,
) -> None:
    """Write a page that compares the runs of a grid. Beside it lie its figure and its
    numbers.

    One file of HTML that needs no network: curves with replicates as bands, final
    values with intervals, sudden drops of test tasks, and the runs, data and code it
    stands on. From the journals, also while runs go on. In its CSV files, texts that a
    spreadsheet would compute get an apostrophe before them.

    \b
    Example:
      zsg report wsd-order --panel lr --x examples
    """
    from launcher.api import results
    from launcher.reporting import report as reports
    from launcher.reporting.data.grid_comparison import ReportOptions
    from launcher.views import show

    options = ReportOptions(metric, x.value, panel, stage, over_splits)
    page = results.write_report(grid, options, out, workspace)
    beside = reports.files_beside(page) if page != out else []
    if beside:
        show.print_result(f"wrote {page} and, beside it, {', '.join(beside)}")
    else:
        show.print_result(f"wrote {page}: one file that needs no other")


def export(
    grid: GridName,
    out: Annotated[Path, typer.Option("--out", help="the file to write")],
    workspace: Workspace = None,
    format: Annotated[
        Format | None,
        typer.Option(
            "--format", help="default: csv where the file ends so, else parquet"
        ),
    ] = None,
    items: Annotated[
        bool,
        typer.Option(
            "--items", help="the loss of every test item instead of the metrics"
        ),
    ] = False,
    replace: Replace = False,
) -> None:
    """Write every value of a grid's runs as one long table. The values come from the
    runs' journals.

    Columns: run, the grid's axes, stage, step, examples, key, value, ts; with --items
    run, axes, step, item, task, loss. In a notebook, with the same columns:

    \b
      from zsg import metrics

    In CSV, texts that a spreadsheet would compute (they begin with = + - @) get an
    apostrophe before them, and what does not print is written as its escape. Parquet
    has every text as it is.

    \b
    Example:
      zsg export wsd-order --out losses.csv
    """
    from launcher.reporting import frames, outputs
    from launcher.views import show
    from launcher.workspace import workspaces

    outputs.refuse_existing(out, replace)
    kind = format or (Format.CSV if out.suffix == ".csv" else Format.PARQUET)
    rows = frames.export_table(
        workspaces.find_to_read(workspace), grid, out, kind.value, items
    )
    show.print_result(f"wrote {out}: {rows} rows")
