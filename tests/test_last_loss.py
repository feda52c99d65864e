"""Is the last loss that was a number found, whatever a journal holds?"""

from pathlib import Path

import pytest

from jobs.contract import attempt as attempts
from jobs.contract.journal import Journal
from launcher.status.last_loss import LastLoss, read_last_loss


def write_steps(folder: Path, rows: list[dict[str, float | str]]) -> None:
    """A new attempt with the values of so many steps."""
    attempt = attempts.begin_attempt(folder, "s")
    journal = Journal(folder, attempt, "train", "1")
    for step, values in enumerate(rows, 1):
        journal.add_metrics(values, step=step, examples=step)
    journal.close()


def test_the_last_number_counts_with_the_rate_of_its_step(tmp_path: Path) -> None:
    """A loss that is no number is passed over, and so is an attempt without any."""
    good: dict[str, float | str] = {"train/loss": 2.5, "train/lr": 0.01}
    bad: dict[str, float | str] = {"train/loss": float("inf"), "train/lr": 0.02}
    write_steps(tmp_path, [{**good, "loss": 7.0}, good, bad])
    write_steps(tmp_path, [])

    assert read_last_loss(tmp_path) == LastLoss(loss=2.5, step=2, rate=0.01)


def test_without_a_training_loss_that_of_the_test_set_is_told(tmp_path: Path) -> None:
    """And called so; a rate that is not known is left out."""
    write_steps(tmp_path, [{"loss": 3.25}])
    found = read_last_loss(tmp_path)

    assert found is not None
    assert found.describe() == "test loss 3.25 at step 1"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 4096,
        b"not a row\n[1, 2]\n",
        b'{"kind": "metric"',
        b'{"seq": 0, "ts": 1, "attempt": 1, "stage": "1", "step": 1, "examples": 1,'
        b' "kind": "metric", "data": {"train/loss": "\x1b[2J1e3", "loss": 1'
        + b"0" * 400
        + b"}}\n",
    ],
)
def test_a_journal_of_anybodys_breaks_nothing(content: bytes, tmp_path: Path) -> None:
    """Torn, empty, of zeros, or with values that are no numbers: there is no last loss."""
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal" / "1-train-0.jsonl").write_bytes(content)

    assert read_last_loss(tmp_path) is None
    assert read_last_loss(tmp_path / "nowhere") is None
