"""The commands under `zsg arrange`: each parses, calls one function, prints."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from launcher.commands.options import (
    AllowPlugins,
    AsJson,
    GridFile,
    Replace,
    Workspace,
)

if TYPE_CHECKING:  # numpy
    from launcher.reporting.data.arrangements import Arrangement
    from launcher.reporting.data.learnt_runs import Asked, Learnt, ShownRun
    from launcher.reporting.data.order_comparison import OrderComparison
    from launcher.reporting.figures.order_charts import Values

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help=(
        "Make, look at, compare and draw training orders.\n\n"
        "\b\nExample:\n  zsg arrange make grid.yaml"
    ),
)

OrderId = Annotated[
    str,
    typer.Argument(help="arrangement or run id, or a unique prefix", metavar="ID"),
]


@app.command()
def make(
    grid: GridFile,
    workspace: Workspace = None,
    allow_plugins: AllowPlugins = False,
    json: AsJson = False,
) -> None:
    """Make the orders of a grid on this machine, and train nothing.

    \b
    Example:
      zsg arrange make grid.yaml
    """
    from launcher.submission import arrange_make
    from launcher.views import asking, show

    orders = arrange_make.make_arrangements(
        grid,
        workspace,
        allows_plugins=allow_plugins,
        ask=asking.find_asker(yes=False),
    )
    if json:
        rows = [
            {"arrangement": order.id, "new": order.new, "axes": order.axes}
            for order in orders
        ]
        show.as_json(rows)
        return
    for order in orders:
        points = "; ".join(
            " ".join(f"{key}={value}" for key, value in axes.items())
            for axes in order.axes
        )
        show.print_result(
            f"{order.id}  {'made' if order.new else 'there already'}  {points}"
        )


@app.command("show")
def show_one(
    order: OrderId,
    workspace: Workspace = None,
    json: AsJson = False,
    head: Annotated[
        int, typer.Option("--head", help="how many first examples", min=0)
    ] = 10,
    text: Annotated[
        bool,
        typer.Option(
            "--text",
            help="of a run: the batch of a step as the model gets it, targets marked",
        ),
    ] = False,
    step: Annotated[
        int | None,
        typer.Option("--step", help="the step of --text; default: the first", min=0),
    ] = None,
    problems: Annotated[
        bool,
        typer.Option(
            "--problems",
            help="of a run: examples that are cut, empty or without a target",
        ),
    ] = False,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html",
            help="write what is learnt as a page to this file",
            readable=False,
        ),
    ] = None,
    replace: Replace = False,
    grid: Annotated[
        Path | None,
        typer.Option(
            "--grid",
            help="the run is one of this grid file, not submitted yet",
            metavar="GRID.YAML",
            readable=False,
        ),
    ] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            "--tokenizer",
            help="folder of the base's tokenizer, where the base is not here",
            readable=False,
        ),
    ] = None,
) -> None:
    """Show how an order was made, and what it begins with. It prints the first
    examples, the tasks by position, and the rounds; or what is learnt of them.

    \b
    Examples:
      zsg arrange show 3f2a
      zsg arrange show 3f2a --step 137 --text
      zsg arrange show 3f2a --problems
      zsg arrange show 3f2a --step 137 --problems --html batch.html
    """
    if any((text, problems, html, step is not None)):
        from launcher.reporting.data.learnt_runs import Asked

        is_text = any((text, step is not None, html and not problems))
        asked = Asked(step, text=is_text, problems=problems, tokenizer=tokenizer)
        shown_head = None if json else head
        _show_learnt(order, workspace, grid, asked, html, replace, shown_head)
        return
    from launcher.reporting.data import arrangements
    from launcher.views import show
    from launcher.workspace import workspaces

    summary = arrangements.summarize_arrangement(
        arrangements.find_arrangement(workspaces.find_to_read(workspace), order), head
    )
    if json:
        show.as_json(summary)
        return
    for line in [*_format_summary(summary), *_format_notes(summary["notes"])]:
        show.print_result(line)


@app.command()
def compare(
    first: OrderId,
    second: OrderId,
    batch: Annotated[
        int | None,
        typer.Option(
            "--batch",
            min=1,
            help="examples of a step; by default those of the runs on either order",
        ),
    ] = None,
    workspace: Workspace = None,
    json: AsJson = False,
) -> None:
    """Compare two orders by rank, by what their beginnings share, and step by step. Two
    orders with the same examples at every step are one experiment.

    \b
    Examples:
      zsg arrange compare 3f2a 81bc
      zsg arrange compare 3f2a 81bc --batch 16
    """
    from launcher.reporting.data import arrangements, order_comparison
    from launcher.views import show
    from launcher.workspace import workspaces

    workspace_folder = workspaces.find_to_read(workspace)
    comparison = order_comparison.compare_orders(
        arrangements.find_arrangement(workspace_folder, first),
        arrangements.find_arrangement(workspace_folder, second),
        batch,
    )
    if json:
        show.as_json(asdict(comparison))
        return
    for line in _format_comparison(comparison):
        show.print_result(line)


def _format_comparison(comparison: "OrderComparison") -> Iterator[str]:
    """The lines that tell how alike two orders are."""
    count = comparison.count
    yield f"{count['one']} and {count['two']} examples, {count['both']} in both"
    rho = "–" if comparison.spearman is None else f"{comparison.spearman:.4f}"
    yield f"rank correlation (Spearman): {rho}"
    for length, share in comparison.overlap.items():
        yield f"of the first {length}: {share:.1%} in both"
    for shared in comparison.same_steps:
        yield shared.describe()
    for name, looked_at in comparison.looks_at.items():
        if looked_at is not None:
            yield f"{name} looks at {looked_at}"
    if not comparison.same_steps:
        yield "no run trains on either yet: --batch N compares them step by step"


@app.command()
def draw(
    ids: Annotated[
        list[str],
        typer.Argument(help="arrangement or run ids, or unique prefixes", metavar="ID"),
    ],
    score: Annotated[
        str | None,
        typer.Option(
            "--score",
            help="draw scores of a file in place of similarity: JSON lines, Parquet,"
            " tab-separated text or .npy, as order scores reads them",
            metavar="FILE[#COLUMN]",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="the PNG file to write  \\[default: similarity.png, or scores.png]",
        ),
    ] = None,
    workspace: Workspace = None,
    replace: Replace = False,
) -> None:
    """Draw along one or more orders the similarity to the set that each looks at, its
    target set or the test set, or any score that a file gives the examples.

    \b
    Examples:
      zsg arrange draw 3f2a 81bc --out nft-fft.png
      zsg arrange draw 3f2a --score scores.parquet#ifd
    """
    from launcher.reporting import outputs
    from launcher.reporting.data import arrangements
    from launcher.views import show
    from launcher.workspace import workspaces

    picture = out or Path("scores.png" if score else "similarity.png")
    outputs.refuse_existing(picture, replace)
    workspace_folder = workspaces.find_to_read(workspace)
    chosen = [arrangements.find_arrangement(workspace_folder, prefix) for prefix in ids]
    if score:
        _draw_scores(chosen, score, picture)
    else:
        _draw_similarity(chosen, picture)
    show.print_result(f"wrote {picture}")


def _draw_similarity(chosen: "Sequence[Arrangement]", picture: Path) -> None:
    """Draws along each order the similarity to the set that it looks at."""
    from launcher.reporting.data import arrangements
    from launcher.reporting.figures import order_charts

    curves = {
        arrangements.label_arrangement(order): arrangements.measure_similarity(order)
        for order in chosen
    }
    looked_at = "test"
    if any("target" in order.recipe for order in chosen):
        looked_at = "test or target"
    order_charts.draw_similarity(curves, picture, looked_at)


def _draw_scores(chosen: "Sequence[Arrangement]", score: str, picture: Path) -> None:
    """Draws the scores of a file along each order, and says how many examples have
    none."""
    from launcher.reporting.data import arrangements, order_scores
    from launcher.reporting.figures import order_charts
    from launcher.views import show

    scores = order_scores.read_drawn_scores(score)
    curves: dict[str, Values] = {}
    for order in chosen:
        label = arrangements.label_arrangement(order)
        curves[label] = order_scores.place_scores(order, scores)
        if unscored := order_scores.count_unscored(curves[label]):
            show.print_message(
                f"{label}: {unscored} of {len(order.ids)} examples have no score"
            )
    order_charts.draw_scores(curves, order_scores.name_scores(score), picture)


@app.command()
def seen(
    run: Annotated[
        str, typer.Argument(help="run id, or a unique prefix of it", metavar="RUN")
    ],
    task: Annotated[
        list[str] | None,
        typer.Option(
            "--task",
            help="a test task to draw; may be given again  \\[default: the four that fall"
            " most suddenly]",
        ),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(
            "--out", help="the picture (.png, .pdf), or table (.csv), to write"
        ),
    ] = Path("seen.png"),
    workspace: Workspace = None,
    replace: Replace = False,
    json: AsJson = False,
) -> None:
    """Show how similar what a run has seen so far is to its test tasks, beside their loss.

    By the nine measures of Dynamics of Zero-Shot Generalization: cosine and Euclidean
    distance (mean, least, largest, of the centroids), and the divergence of bigrams. It
    also says how far changes of each go together with changes of the loss, against
    chance: levels all fall with time and say nothing. The data must be embedded, as for
    an order by similarity.

    \b
    Examples:
      zsg arrange seen 81bc
      zsg arrange seen 81bc --task task851_synthetic_multiply_evens --out task851.png
    """
    from launcher.reporting import frames, outputs
    from launcher.reporting.data import seen_similarity
    from launcher.reporting.figures import seen_charts
    from launcher.views import show
    from launcher.workspace import workspaces

    outputs.refuse_existing(out, replace)
    measured = seen_similarity.measure_seen(workspaces.find_to_read(workspace), run)
    chosen = seen_similarity.choose_tasks(measured, task or [])
    if out.suffix == ".csv":
        rows = seen_similarity.list_rows(measured, chosen)
        frames.write_csv(out, frames.rows_to_columns(rows))
    else:
        seen_charts.draw_seen(measured, chosen, out)
    together = seen_similarity.compare_measures(measured)
    if json:
        show.as_json({name: asdict(found) for name, found in together.items()})
        return
    for line in seen_similarity.describe_changes(measured, together):
        show.print_result(line)
    show.print_result(f"wrote {out}")


def _show_learnt(
    prefix: str,
    workspace: Path | None,
    grid: Path | None,
    asked: "Asked",
    html: Path | None,
    replace: bool,
    head: int | None,
) -> None:
    """Shows what a run learns, one of the workspace or of a grid's file; as a page
    where `html` names one. `head`: see `_print_learnt`."""
    from launcher.reporting import outputs
    from launcher.reporting.data import learnt_runs
    from launcher.workspace import workspaces

    if html:
        outputs.refuse_existing(html, replace, option="--html")
    folder = workspaces.find_to_read(workspace)
    if grid:
        run = _find_planned(grid, workspace, prefix)
    else:
        run = learnt_runs.find_submitted(folder, prefix)
    learnt = learnt_runs.read_learnt(folder, run, asked)
    if html:
        _write_learnt(learnt, html)
    else:
        _print_learnt(learnt, head)


def _find_planned(grid: Path, workspace: Path | None, prefix: str) -> "ShownRun":
    """A run as a grid's file says it, submitted or not."""
    from launcher.reporting.data import learnt_runs
    from launcher.submission import workflow

    opened = workflow.resolve_grid(grid, None, workspace, only_looks=True)
    opened.tell_notes()
    return learnt_runs.find_planned(opened.site.workspace, opened.runs, prefix)


def _write_learnt(learnt: "Learnt", path: Path) -> None:
    """What a run learns, as a page."""
    from launcher.reporting.html import learnt_page
    from launcher.views import show

    learnt_page.write_page(learnt, path)
    show.print_result(f"wrote {path}")


def _print_learnt(learnt: "Learnt", head: int | None) -> None:
    """What a run learns; of each split's problems the first `head`. As JSON, whole,
    where that is None."""
    from launcher.views import learnt_view, show

    if head is None:
        show.as_json(learnt.row)
        return
    if learnt.batch is not None:
        show.print_result(learnt_view.describe_batch(learnt.step, learnt.batch))
        if not show.has_colours():
            show.print_result(learnt_view.LEGEND)
    for example in learnt.batch or ():
        show.print_result("")
        for line in learnt_view.describe_example(example):
            show.print_result(line)
        show.print_pieces(example.pieces)
    if learnt.problems is not None:
        for line in learnt_view.list_problems(learnt.problems, learnt.sizes, head):
            show.print_result(line)


def _format_summary(summary: dict[str, Any]) -> list[str]:
    """The lines that `zsg arrange show` prints of an arrangement."""
    lines = _format_heading(summary)
    if "rounds" in summary:
        lines += _round_lines(summary["rounds"])
    if summary.get("in_both_halves"):
        lines.append(f"{summary['in_both_halves']} were in both halves and count once")
    if summary["head"]:
        lines.append("first: " + ", ".join(summary["head"]))
    for stretch in summary["parts"]:
        tasks = ", ".join(f"{task} {count}" for task, count in stretch["most"].items())
        lines.append(
            f"{stretch['from']:>8}–{stretch['to']:<8} {stretch['tasks']:>5} tasks: {tasks}"
        )
    return lines


def _format_heading(summary: dict[str, Any]) -> list[str]:
    """What an arrangement is made by, of which and how many examples."""
    recipe = ", ".join(
        f"{key} {_short(value)}"
        for key, value in summary["recipe"].items()
        if key != "target"
    )
    left_out = ""
    unit = "places" if "presence" in summary else "examples"
    if summary.get("left_out"):
        left_out = f", {summary['left_out']} of the corpus left out"
    lines = [
        f"{summary['arrangement']}: {recipe}",
        f"{summary['count']} {unit}{left_out}; corpus {summary['corpus']}",
    ]
    if summary["looks_at"]:
        lines.append(f"looks at {summary['looks_at']}")
    if by_source := summary.get("by_source"):
        shares = (
            f"{name} {count} ({count / summary['count']:.2%})"
            for name, count in by_source.items()
        )
        lines.append(f"sources: {', '.join(shares)}")
    return lines


def _format_notes(notes: list[str]) -> list[str]:
    """The notes in the words of the other commands, which say them on stderr."""
    return [f"note on the data: {note}" for note in notes]


def _round_lines(rounds: list[int] | dict[str, list[int]]) -> list[str]:
    named = rounds if isinstance(rounds, dict) else {"": rounds}
    return [
        f"{len(sizes)} {name}{' ' if name else ''}rounds of {', '.join(map(str, sizes[:12]))}"
        f"{' …' if len(sizes) > 12 else ''}"
        for name, sizes in named.items()
    ]


def _short(value: object) -> str:
    text = str(value)
    return text[:12] if len(text) == 64 else text
