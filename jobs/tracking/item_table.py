"""Writes the loss of every test item at every checkpoint as tables, for MLflow and for
whoever reads Parquet."""

from pathlib import Path

import numpy as np

from jobs.contract.item_losses import ItemLosses, read_test_losses

ITEMS, TASKS = "item_losses.parquet", "task_losses.parquet"


def write_item_tables(runs: list[Path], folder: Path) -> list[Path]:
    """The tables of a run whose stages are journalled in `runs`, its own last; none
    where no item was measured.

    item_losses.parquet: step, item, task, tokens, loss; task_losses.parquet: step,
    task, loss. Rows stand by step, and items in the order of the test set. A step that
    two stages have counts as the earlier has it.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with_losses = [
        losses for run in runs if len((losses := read_test_losses(run)).steps)
    ]
    if not with_losses:
        return []
    items, tasks, seen = [], [], set[int]()
    for losses in with_losses:
        rows = [number for number, step in enumerate(losses.steps) if step not in seen]
        seen.update(losses.steps)
        items.append(_items(losses, rows))
        tasks.append(_tasks(losses, rows))
    written = [folder / ITEMS, folder / TASKS]
    for path, tables in zip(written, (items, tasks), strict=True):
        columns = {
            key: np.concatenate([table[key] for table in tables]) for key in tables[0]
        }
        pq.write_table(pa.table(columns), path, compression="zstd")
    return written


def _items(losses: ItemLosses, rows: list[int]) -> dict[str, np.ndarray]:
    """The columns of the long table of items, one row for each step and item, steps
    outermost.

    `rows` are indices of `losses.steps`; each column has `len(rows) × len(losses.ids)`
    entries. Names are Python objects: a fixed-width array would take the longest for
    all.
    """
    steps = np.array([losses.steps[row] for row in rows], np.int32)
    return {
        "step": np.repeat(steps, len(losses.ids)),
        "item": np.tile(np.array(losses.ids, object), len(rows)),
        "task": np.tile(np.array(losses.tasks, object), len(rows)),
        "tokens": np.tile(np.array(losses.tokens, np.int32), len(rows)),
        "loss": losses.losses[rows].reshape(-1),
    }


def _tasks(losses: ItemLosses, rows: list[int]) -> dict[str, np.ndarray]:
    """The columns of the table of tasks, one row for each step and task, steps
    outermost; `loss` is the mean over a task's items, as ItemLosses.by_task computes
    it."""
    names, means = losses.by_task()
    steps = np.array([losses.steps[row] for row in rows], np.int32)
    return {
        "step": np.repeat(steps, len(names)),
        "task": np.tile(np.array(names, object), len(rows)),
        "loss": means[rows].reshape(-1),
    }
