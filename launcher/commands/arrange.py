"""The commands under `zsg arrange`: each parses, calls one function, prints."""

from pathlib import Path
from typing import Annotated, Any

import typer

from launcher.commands.options import AsJson, GridFile, Replace, Workspace

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
    json: AsJson = False,
) -> None:
    """Make the orders of a grid on this machine, and train nothing.

    \b
    Example:
      zsg arrange make grid.yaml
    """
    from launcher.submission import arrange_make
    from launcher.views import show

    made = arrange_make.make_arrangements(grid, workspace)
    if json:
        show.as_json(
            [{"arrangement": one.id, "new": one.new, "axes": one.axes} for one in made]
        )
        return
    for one in made:
        points = "; ".join(
            " ".join(f"{key}={value}" for key, value in axes.items())
            for axes in one.axes
        )
        show.print_result(
            f"{one.id}  {'made' if one.new else 'there already'}  {points}"
        )


@app.command("show")
def show_one(
    one: OrderId,
    workspace: Workspace = None,
    json: AsJson = False,
    head: Annotated[
        int, typer.Option("--head", help="how many first examples", min=0)
    ] = 10,
) -> None:
    """Show how an order was made, and what it begins with. It prints the first
    examples, the tasks by position, and the rounds.

    \b
    Example:
      zsg arrange show 3f2a
    """
    from launcher.reporting.data import arrangements
    from launcher.views import show
    from launcher.workspace import workspaces

    told = arrangements.summarize_arrangement(
        arrangements.find_arrangement(workspaces.find_to_read(workspace), one), head
    )
    if json:
        show.as_json(told)
        return
    for line in _lines(told):
        show.print_result(line)


@app.command()
def compare(
    one: OrderId, other: OrderId, workspace: Workspace = None, json: AsJson = False
) -> None:
    """Compare two orders by rank, and by what their beginnings share.

    \b
    Example:
      zsg arrange compare 3f2a 81bc
    """
    from launcher.reporting.data import arrangements
    from launcher.views import show
    from launcher.workspace import workspaces

    place = workspaces.find_to_read(workspace)
    told = arrangements.compare_orders(
        arrangements.find_arrangement(place, one),
        arrangements.find_arrangement(place, other),
    )
    if json:
        show.as_json(told)
        return
    count, rho = told["count"], told["spearman"]
    show.print_result(
        f"{count['one']} and {count['two']} examples, {count['both']} in both"
    )
    show.print_result(
        f"rank correlation (Spearman): {'–' if rho is None else f'{rho:.4f}'}"
    )
    for length, share in told["overlap"].items():
        show.print_result(f"of the first {length}: {share:.1%} in both")


@app.command()
def draw(
    ids: Annotated[
        list[str],
        typer.Argument(help="arrangement or run ids, or unique prefixes", metavar="ID"),
    ],
    out: Annotated[Path, typer.Option("--out", help="the PNG file to write")] = Path(
        "similarity.png"
    ),
    workspace: Workspace = None,
    replace: Replace = False,
) -> None:
    """Draw the similarity to the test set along one or more orders.

    \b
    Example:
      zsg arrange draw 3f2a 81bc --out nft-fft.png
    """
    from launcher.reporting import outputs
    from launcher.reporting.data import arrangements
    from launcher.reporting.figures import similarity_chart
    from launcher.views import show
    from launcher.workspace import workspaces

    outputs.refuse_existing(out, replace)
    place = workspaces.find_to_read(workspace)
    chosen = [arrangements.find_arrangement(place, prefix) for prefix in ids]
    curves = {
        arrangements.label_arrangement(made): arrangements.measure_similarity(made)
        for made in chosen
    }
    similarity_chart.draw_similarity(curves, out)
    show.print_result(f"wrote {out}")


def _lines(told: dict[str, Any]) -> list[str]:
    recipe = ", ".join(
        f"{key} {_short(value)}" for key, value in told["recipe"].items()
    )
    left = (
        f", {told['left_out']} of the corpus left out" if told.get("left_out") else ""
    )
    lines = [
        f"{told['arrangement']}: {recipe}",
        f"{told['count']} examples{left}; corpus {told['corpus']}",
    ]
    if by_source := told.get("by_source"):
        parts = (
            f"{name} {count} ({count / told['count']:.2%})"
            for name, count in by_source.items()
        )
        lines.append(f"sources: {', '.join(parts)}")
    if "rounds" in told:
        lines += _round_lines(told["rounds"])
    if told.get("in_both_halves"):
        lines.append(f"{told['in_both_halves']} were in both halves and count once")
    lines += ["first: " + ", ".join(told["head"])] if told["head"] else []
    for part in told["parts"]:
        most = ", ".join(f"{task} {count}" for task, count in part["most"].items())
        lines.append(
            f"{part['from']:>8}–{part['to']:<8} {part['tasks']:>5} tasks: {most}"
        )
    return lines


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
