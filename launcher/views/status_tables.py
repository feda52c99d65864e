"""Draws the states of runs as tables, for people."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from jobs.contract.states import State
from launcher.status import status_view as view
from launcher.views.tables import (
    find_differing_keys,
    format_cell,
    format_short,
    make_cell_text,
    make_table,
    shorten_keys,
)

COLOURS = {
    State.DONE: "green",
    State.FAILED: "red",
    State.RUNNING: "cyan",
    State.UNKNOWN: "yellow",
    State.CANCELLED: "magenta",
}
# columns of what runs, and from what width on
LIVE = {"tok/s": 100, "left": 80, "beat": 120, "GPUs": 110}


def status_table(rows: Sequence[Mapping[str, Any]], width: int = 200) -> Table:
    """The states as a table; the wider the terminal, the more of what the runs show of
    themselves."""
    keys = find_differing_keys([row["axes"] for row in rows])
    live = any(row.get("heartbeat_s") is not None for row in rows)
    columns = [name for name, wide in LIVE.items() if live and width >= wide]
    table = make_table(
        "run", *shorten_keys(keys), "state", "step", "loss", *columns, "slurm", ""
    )
    for row in rows:
        table.add_row(*_make_status_cells(row, keys, columns))
    return table


def _make_status_cells(
    row: Mapping[str, Any], keys: Sequence[str], columns: Sequence[str]
) -> list[Text]:
    """A run's line of the states. `keys`: its axes; `columns`: of what runs."""
    step = "" if row["step"] is None else f"{row['step']}/{row['steps'] or '?'}"
    loss = "" if row["loss"] is None else f"{float(row['loss']):.4f}"
    live = _live(row)
    values = [format_cell(row["axes"].get(key)) for key in keys]
    live_values = [live[name] for name in columns]
    cells = [step, loss, *live_values, row["slurm"] or "", view.describe_run(row)]
    return [
        *map(make_cell_text, [row["run"], *values]),
        make_cell_text(row["state"], COLOURS.get(row["state"], "")),
        *map(make_cell_text, cells),
    ]


def _live(row: Mapping[str, Any]) -> dict[str, str]:
    speed, gpus = row.get("tokens_per_s"), row.get("gpus")
    return {
        "tok/s": format_short(speed) if speed else "",
        "left": view.format_duration(row.get("eta_s")),
        "beat": view.format_duration(row.get("heartbeat_s")),
        "GPUs": str(gpus) if gpus else "",
    }


def group_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """A line for each value of each grid's first axis: how many runs are where, their
    losses, what is left."""
    axis_of = _find_first_axes(rows)
    groups = view.group_rows(rows, axis_of)
    states = [
        state for state in view.STATES if any(group.states[state] for group in groups)
    ]
    is_one_grid = len(axis_of) == 1
    title = "grid, first axis"
    if is_one_grid:
        title = next(iter(axis_of.values())) or "runs"
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(make_cell_text(title.rpartition(".")[2]), overflow="fold")
    for name in [*states, "loss", "left", "GPUs", "flags"]:
        table.add_column(name, justify="right", no_wrap=True)
    for group in groups:
        value = format_cell(group.value) if axis_of[group.grid] else "all"
        name = value if is_one_grid else f"{group.grid} {value}"
        table.add_row(make_cell_text(name), *_make_group_cells(group, states))
    return table


def _find_first_axes(rows: Sequence[Mapping[str, Any]]) -> dict[str, str | None]:
    """Of each grid, the first key in which its runs differ; None where they have none."""
    axes_of: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        axes_of.setdefault(row["grid"], []).append(row["axes"])
    return {
        grid: next(iter(find_differing_keys(axes)), None)
        for grid, axes in axes_of.items()
    }


def _make_group_cells(group: "view.Group", states: Sequence[State]) -> list[Text]:
    """How many runs of a group are in each state, their losses and what is left."""
    counts = [
        make_cell_text(group.states[state] or "", COLOURS.get(state, ""))
        for state in states
    ]
    losses = "–".join(dict.fromkeys(f"{loss:.3f}" for loss in group.losses or ()))
    time_left = view.format_duration(group.eta_s)
    cells = (losses, time_left, str(group.gpus or ""), str(group.flags or ""))
    return [*counts, *map(make_cell_text, cells)]
