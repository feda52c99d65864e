"""Finds the last loss of a run that was a number, with its step and learning rate: where
it stood before it went wrong."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from jobs.contract import journal
from jobs.contract.folder import Damaged
from jobs.contract.journal_rows import MetricRow, Number, Row, find_metrics

TRAIN_LOSS = "train/loss"
TEST_LOSS = "loss"
RATE = "train/lr"
# bytes of a journal's end: hundreds of steps, past the values of a test set's items
TAIL = 1 << 20
MOST_FILES = 8  # attempts that died before a step are passed over, so many of them


@dataclass(frozen=True, kw_only=True)
class LastLoss:
    """A loss that is a number, taken at `step`. `rate`: the learning rate of that step,
    None where the journal does not tell it; `is_of_training`: of the step's examples,
    not of the test set."""

    loss: float
    step: int
    rate: float | None = None
    is_of_training: bool = True

    def describe(self) -> str:
        """In words: `loss 8.392 at step 1, lr 1e+20`."""
        kind = "loss" if self.is_of_training else "test loss"
        text = f"{kind} {self.loss:.4g} at step {self.step}"
        if self.rate is None:
            return text
        return f"{text}, lr {self.rate:g}"


def read_last_loss(folder: Path) -> LastLoss | None:
    """The last loss of a run that is a number, by the ends of its journals; None where
    no attempt has come to one, or they cannot be read."""
    try:
        files = journal.list_owned_files(folder)
    except (Damaged, OSError):
        return None
    newest_first = list(reversed(files))
    for path in newest_first[:MOST_FILES]:
        found = _read_end(path)
        if found is not None:
            return found
    return None


def _read_end(path: Path) -> LastLoss | None:
    """The last loss of one attempt. Lines that are no rows are passed over."""
    try:
        tail = journal.read_tail(path, TAIL)
    except (Damaged, OSError):
        return None
    return find_last_loss(tail.rows)


def find_last_loss(rows: Iterable[Row]) -> LastLoss | None:
    """The last loss among rows that is a number: of training where there is one, else
    of the test set. Pure."""
    all_rows = list(rows)
    rates = _find_rates(all_rows)
    for key in (TRAIN_LOSS, TEST_LOSS):
        found = _find_last_number(all_rows, key)
        if found is None:
            continue
        row, loss = found
        return LastLoss(
            loss=loss,
            step=row.step,
            rate=rates.get(row.step),
            is_of_training=key == TRAIN_LOSS,
        )
    return None


def _find_rates(rows: Iterable[Row]) -> dict[int, float]:
    """The learning rate of each step."""
    rates: dict[int, float] = {}
    for row, value in find_metrics(rows, RATE):
        rate = as_number(value)
        if rate is not None:
            rates[row.step] = rate
    return rates


def _find_last_number(rows: Iterable[Row], key: str) -> tuple[MetricRow, float] | None:
    """The last value of a metric that is a number, with its row."""
    last: tuple[MetricRow, float] | None = None
    for row, value in find_metrics(rows, key):
        number = as_number(value)
        if number is not None:
            last = (row, number)
    return last


def as_number(value: Number) -> float | None:
    """A finite number of a journal; None for a text, or an integer without end."""
    if isinstance(value, str):
        # numbers that are not finite are texts, and so is what somebody else wrote
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
