"""A grid's recorded values as tables: for a notebook as a pandas DataFrame, for other
tools as Parquet or CSV.

    from launcher.reporting.frames import metrics metrics("wsd-order",
    workspace="zsg-work").query("key == 'loss'").pivot_table("value", "step",
    "arrangement.order")

Read from the runs' journals, so it works offline, and while runs go on; the first value
of a key and step counts.
"""

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyarrow import csv, parquet

from jobs.contract.folder import Damaged, Workspace
from jobs.contract.grid_record import ListedRun
from jobs.deciding import recorded_runs
from jobs.deciding.recorded_runs import RecordedRun
from launcher.reporting.data import csv_cells
from launcher.workspace import extras, recorded_grids
from zsg_core.metrics.metrics import LOSS

if TYPE_CHECKING:
    import pandas as pd

Columns = Mapping[str, Sequence[Any]]
MakeSchema = Callable[[Sequence[ListedRun]], "pa.Schema"]
MakeColumns = Callable[[RecordedRun], Columns]


def metrics(grid: str, workspace: str | Path | None = None) -> "pd.DataFrame":
    """Every value of every run of a grid, one a row: run, the grid's axes, stage, step,
    examples, key, value, ts.

    `workspace`: the folder of all runs; else that of ZSG_WORKSPACE, or zsg-work here.
    `examples` counts those trained on up to the step. UserError if there is no such
    grid.
    """
    return _frame(grid, workspace, metric_schema, metric_columns)


def item_losses(
    grid: str, workspace: str | Path | None = None, metric: str = LOSS
) -> "pd.DataFrame":
    """The loss of every test item at every checkpoint, one a row: run, the grid's axes,
    step, item, task, loss. With another metric its values, and `value` for `loss`."""
    return _frame(grid, workspace, *_choose_item_columns(metric))


def _frame(
    grid: str, workspace: str | Path | None, schema_of: Any, columns_of: Any
) -> "pd.DataFrame":
    """A grid's values as a DataFrame, of the runs that can be read. UserError where there is
    no such grid, or no pandas."""
    from launcher.workspace import workspaces

    extras.require_extra("a DataFrame", "report", only=("pandas",))
    opened = workspaces.find_to_read(Path(workspace) if workspace else None)
    record = recorded_grids.read_grid(opened, grid)
    schema = schema_of(record.runs)
    tables = recorded_runs.take_from_sound_runs(
        opened, record, lambda run: _table(columns_of(run), schema)
    )
    return pa.concat_tables([schema.empty_table(), *tables]).to_pandas()


def metric_schema(listed: Sequence[ListedRun]) -> "pa.Schema":
    """The columns of the metrics of runs that a grid lists."""
    numbers = [("examples", pa.int64()), ("key", pa.string()), ("value", pa.float64())]
    return _schema(
        listed,
        [
            ("stage", pa.string()),
            ("step", pa.int64()),
            *numbers,
            ("ts", pa.timestamp("ms", tz="UTC")),
        ],
    )


def item_schema(listed: Sequence[ListedRun], metric: str = LOSS) -> "pa.Schema":
    """The columns of the values of a metric's items, of runs that a grid lists."""
    return _schema(
        listed,
        [
            ("step", pa.int64()),
            ("item", pa.string()),
            ("task", pa.string()),
            (_name_value(metric), pa.float32()),
        ],
    )


def _schema(
    listed: Sequence[ListedRun], value_columns: list[tuple[str, Any]]
) -> "pa.Schema":
    """The columns of a table: the run, the axes of the grid, and those of the values."""
    return pa.schema(
        [
            ("run", pa.string()),
            *((key, _kind(listed, key)) for key in _axes(listed)),
            *value_columns,
        ]
    )


def _axes(listed: Sequence[ListedRun]) -> list[str]:
    """All axes that a run has, in the order in which they come first."""
    return list(dict.fromkeys(key for row in listed for key in row.axes))


def _kind(listed: Sequence[ListedRun], key: str) -> "pa.DataType":
    """Numbers stay numbers where all values of an axis are; else they are texts, as a
    grid file has them."""
    kinds = {type(row.axes.get(key)) for row in listed} - {type(None)}
    if kinds == {int}:
        return pa.int64()
    return pa.float64() if kinds and kinds <= {int, float} else pa.string()


def metric_columns(run: RecordedRun) -> Columns:
    """The values of a run that count, in the order of its journals."""
    points = [point for stage in run.stages for point in stage.points]
    names = ("stage", "step", "examples", "key", "value", "ts")
    return {
        "run": run.run,
        **run.axes,
        **{name: [getattr(point, name) for point in points] for name in names},
    }


def _name_value(metric: str) -> str:
    """The column of an item's value."""
    return LOSS if metric == LOSS else "value"


def _choose_item_columns(metric: str) -> tuple[MakeSchema, MakeColumns]:
    """How the items of a metric become a table."""
    return partial(item_schema, metric=metric), partial(item_columns, metric=metric)


def item_columns(run: RecordedRun, metric: str = LOSS) -> Columns:
    """The loss of each of a run's test items at each checkpoint, or its value of another
    metric that is taken of items."""
    items = run.items(metric)
    if items is None:
        return {
            "run": run.run,
            **run.axes,
            "step": [],
            "item": [],
            "task": [],
            _name_value(metric): [],
        }
    count = len(items.ids)
    values = {
        "step": [step for step in items.steps for _ in range(count)],
        _name_value(metric): items.losses.ravel(),
    }
    return {
        "run": run.run,
        **run.axes,
        **values,
        "item": items.ids * len(items.steps),
        "task": items.tasks * len(items.steps),
    }


def _table(columns: Columns, schema: "pa.Schema") -> "pa.Table":
    """Columns as a table: what is one value stands in every row. Damaged for a number
    that no run comes to."""
    length = len(columns["step"])
    try:
        arrays = [
            _array(columns.get(field.name), field.type, length) for field in schema
        ]
    except OverflowError:
        raise Damaged(
            f"{columns['run']}: its journal has a step, a time or a count of examples beyond 64"
            " bits"
        ) from None
    return pa.table(arrays, schema=schema)


def _array(values: Any, kind: "pa.DataType", length: int) -> "pa.Array":
    """A column: a value for each row, or one that stands in all of them."""
    if (
        isinstance(values, str)
        or not hasattr(values, "__len__")
        or isinstance(values, dict)
    ):
        return pa.repeat(_scalar(values, kind), length)
    if len(values) != length:  # an axis whose value is a list
        return pa.repeat(_scalar(values, kind), length)
    return pa.array(values, kind)


def _scalar(value: Any, kind: "pa.DataType") -> "pa.Scalar":
    """A value that stands in every row; what is no text in a column of texts is written as
    JSON."""
    is_text = isinstance(value, str) or value is None or not pa.types.is_string(kind)
    return pa.scalar(value if is_text else json.dumps(value, ensure_ascii=False), kind)


class TableWriter:
    """Writes a table run by run, as Parquet or as CSV; the file is there when it is whole.

    Parquet has every text as it is, CSV as `csv_cells` makes it.
    """

    def __init__(self, path: Path, schema: "pa.Schema", kind: str = "parquet") -> None:
        self.rows = 0
        self._path, self._schema = path, schema
        self._draft = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        self._is_csv = kind == "csv"
        if self._is_csv:
            self._file = csv.CSVWriter(
                self._draft, csv_cells.make_cells(schema.empty_table()).schema
            )
        else:
            self._file = parquet.ParquetWriter(self._draft, schema)

    def add(self, columns: Columns) -> None:
        """The rows of one run."""
        table = _table(columns, self._schema)
        self.rows += table.num_rows
        self._file.write_table(csv_cells.make_cells(table) if self._is_csv else table)

    def __enter__(self) -> "TableWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._file.close()
        if error is None:
            self._draft.replace(self._path)
        else:
            self._draft.unlink(missing_ok=True)


def write_csv(path: Path, table_columns: Columns) -> None:
    """Writes columns as CSV, its texts as cells that no spreadsheet computes."""
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    csv.write_csv(csv_cells.make_cells(pa.table(dict(table_columns))), draft)
    draft.replace(path)


def rows_to_columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Rows as columns."""
    return {
        name: [row[name] for row in rows]
        for name in dict.fromkeys(name for row in rows for name in row)
    }


def export_table(
    workspace: Workspace,
    grid: str,
    path: Path,
    kind: str,
    items: bool,
    metric: str = LOSS,
) -> int:
    """Writes a grid's metrics, or its items' values of one, as `parquet` or `csv`; how
    many rows. UserError for no such grid."""
    record = recorded_grids.read_grid(workspace, grid)
    schema_of, columns_of = metric_schema, metric_columns
    if items:
        schema_of, columns_of = _choose_item_columns(metric)
    with TableWriter(path, schema_of(record.runs), kind) as file:
        added = recorded_runs.take_from_sound_runs(
            workspace, record, lambda run: file.add(columns_of(run))
        )
        for _ in added:
            pass
    return file.rows
