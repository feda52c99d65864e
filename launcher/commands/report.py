"""The commands that show what the runs of a grid came to: each parses, calls one
function, prints."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from launcher.commands.options import (
    AsJson,
    GridName,
    GridNames,
    Replace,
    Workspace,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobs.contract.folder import Workspace as WorkspaceFolder
    from jobs.deciding.judged_claims import JudgedClaim
    from launcher.reporting.data.grid_comparison import ReportOptions


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
    grids: GridNames,
    workspace: Workspace = None,
    metric: Annotated[
        str,
        typer.Option(
            "--metric",
            metavar="KEY[,KEY…]",
            help=(
                "which metrics, parted by commas, the first of them in large; all has every metric"
                " and the summaries of each"
            ),
        ),
    ] = "loss",
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
    claims: Annotated[
        Path | None,
        typer.Option(
            "--claims",
            metavar="FILE.YAML",
            readable=False,
            help="a file of claims that compare runs of several grids: claims, and points",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help=(
                "folder to write to, or FILE.html for the page alone; default: grids/GRID/report in"
                " the workspace, of several grids grids/GRID/report-with-OTHER. A file there that"
                " zsg did not write, or that was changed since, is never replaced or removed"
            ),
        ),
    ] = None,
    show_only: Annotated[
        bool,
        typer.Option(
            "--show", help="show the last values here, and write no page or file"
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write a page that compares the runs of a grid, or of several. Beside it lie its figure
    and its numbers.

    One file of HTML that needs no network: curves with replicates as bands, final
    values with intervals, sudden drops of test tasks, and the runs, data and code it
    stands on. From the journals, also while runs go on. In its CSV files, texts that a
    spreadsheet would compute get an apostrophe before them. With --show or --json the
    values are printed, and nothing is written.

    Runs of several grids stand side by side on one page, each counted once. A file of
    claims compares them: `points` gives runs of these grids a name, and `claims` go along
    it, with the keys that claims of a grid have.

    \b
    Examples:
      zsg report wsd-order --panel lr --x examples
      zsg report t0-mixing --metric prompts/median/rank_accuracy,loss
      zsg report wsd-order --metric all --show
      zsg report dmt-single dmt-mixed --claims between.yaml
    """
    from launcher.api import results
    from launcher.reporting import report as reports
    from launcher.reporting import verdict_lines
    from launcher.reporting.data.grid_comparison import ReportOptions
    from launcher.views import show

    first, metrics = results.choose_metrics(metric)
    options = ReportOptions(first, x.value, panel, stage, over_splits, metrics=metrics)
    if show_only or as_json:
        if out is not None:
            raise typer.BadParameter(
                "--out goes with a page: leave out --show and --json"
            )
        _print_values(grids, claims, options, workspace, as_json)
        return
    written = results.write_reports(grids, options, out, workspace, claims)
    page = written.page
    beside = reports.files_beside(page) if page != out else []
    if claims is not None:
        for line in verdict_lines.describe_verdicts(written.decided):
            show.print_result(line)
    if beside:
        show.print_result(f"wrote {page} and, beside it, {', '.join(beside)}")
    else:
        show.print_result(f"wrote {page}: one file that needs no other")


def _print_values(
    grids: list[str],
    claims: Path | None,
    options: "ReportOptions",
    workspace: Path | None,
    as_json: bool,
) -> None:
    """Prints what each metric comes to at each point; of several grids, or with a file of
    claims, the verdicts, too."""
    from launcher.reporting import report as reports
    from launcher.reporting import verdict_lines
    from launcher.views import metrics_view, show
    from launcher.workspace import workspaces

    opened = workspaces.find_to_read(workspace)
    subject = reports.find_subject(opened, grids, claims)
    rows = reports.list_values(opened, subject, options)
    decided: Sequence[JudgedClaim] = subject.judge() if subject.is_joined else ()
    if as_json and subject.is_joined:
        show.as_json(verdict_lines.make_report_row(grids, rows, decided))
    elif as_json:
        show.as_json(rows)
    else:
        show.print_block(metrics_view.draw_metrics(rows))
        for line in verdict_lines.describe_verdicts(decided):
            show.print_result(line)


def export(
    grid: GridName,
    out: Annotated[
        Path | None, typer.Option("--out", help="the file to write a table to")
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(
            "--bundle",
            metavar="FILE.tar.gz",
            help="write what it takes to redo the figures elsewhere, as one archive",
        ),
    ] = None,
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
    metric: Annotated[
        str,
        typer.Option(
            "--metric",
            metavar="KEY",
            help="of --items: the value of another metric, such as exact_match",
        ),
    ] = "loss",
    replace: Replace = False,
) -> None:
    """Write a grid's values as one long table, or a bundle. The values come from the
    runs' journals; a bundle is what its figures stand on, as one archive.

    Columns: run, the grid's axes, stage, step, examples, key, value, ts; with --items
    run, axes, step, item, task, loss, or value with --metric. In a notebook:

    \b
      from zsg import metrics

    In CSV, texts that a spreadsheet would compute (they begin with = + - @) get an
    apostrophe before them, and what does not print is written as its escape. Parquet
    has every text as it is.

    A bundle has the grid, jobs, journals, items and orders as they are recorded, the code
    of the jobs, and what is installed; no weights, no examples, no logs. zsg unpack makes
    a workspace of it.

    \b
    Examples:
      zsg export wsd-order --out losses.csv
      zsg export wsd-order --bundle wsd-order.tar.gz
    """
    from launcher.reporting import frames, outputs
    from launcher.views import show
    from launcher.workspace import workspaces

    is_metric_chosen = metric != "loss"
    if bundle is not None:
        if any((out, items, format, is_metric_chosen)):
            raise typer.BadParameter(
                "a bundle has all values; leave out --out, --items, --metric and --format"
            )
        outputs.refuse_existing(bundle, replace, "--bundle")
        _write_bundle(workspaces.find_to_read(workspace), grid, bundle)
        return
    if out is None:
        raise typer.BadParameter("say what to write: --out FILE, or --bundle FILE")
    if is_metric_chosen and not items:
        raise typer.BadParameter("--metric goes with --items; a table has all metrics")
    outputs.refuse_existing(out, replace)
    kind = format or (Format.CSV if out.suffix == ".csv" else Format.PARQUET)
    rows = frames.export_table(
        workspaces.find_to_read(workspace), grid, out, kind.value, items, metric
    )
    show.print_result(f"wrote {out}: {rows} rows")


def _write_bundle(opened: "WorkspaceFolder", grid: str, file: Path) -> None:
    from launcher.reporting import bundle_writer
    from launcher.views import show

    record = bundle_writer.write_bundle(opened, grid, file)
    show.print_result(
        f"wrote {file}: {len(record.runs)} runs, {len(record.files)} files. Its records name"
        " folders and hosts of this machine as they are; weights, examples and logs are not in it"
    )
    for licence in record.licences:
        told_by = f" ({licence.source})" if licence.source else ""
        show.print_result(f"{licence.kind} {licence.name}: {licence.licence}{told_by}")
    show.print_result(f"elsewhere: zsg unpack {file} FOLDER")


def unpack(
    bundle: Annotated[
        Path, typer.Argument(help="the archive", metavar="FILE", readable=False)
    ],
    folder: Annotated[
        Path,
        typer.Argument(help="the workspace to make of it", readable=False),
    ],
    with_code: Annotated[
        bool,
        typer.Option(
            "--with-code",
            help="also the code of its jobs, which zsg verify then runs: only of whom you trust",
        ),
    ] = False,
) -> None:
    """Make a workspace of a bundle. Its runs can be reported, exported and verified as
    where they ran.

    Only what the bundle lists is written, each file with the digest that is listed.

    \b
    Example:
      zsg unpack wsd-order.tar.gz theirs
    """
    import shlex

    from launcher.reporting import bundle_reader
    from launcher.views import show

    record = bundle_reader.unpack_bundle(bundle, folder, with_code)
    option = f"--workspace {shlex.quote(str(folder))}"
    show.print_result(f"{folder}: grid {record.grid}, {len(record.runs)} runs")
    show.print_result(f"next: zsg report {shlex.quote(record.grid)} {option}")
    if record.runs:
        steps = "" if with_code else " --steps 0"
        run = shlex.quote(record.runs[0].run)
        show.print_result(f"      zsg verify {run} {option}{steps}")
