"""Does the benchmark of evaluation measure what it says beside the job itself?"""

import importlib.util
import json
import time
from pathlib import Path

import pytest

from benchmarks import evaluate, lag


def write_row(run: Path, **data: object) -> None:
    """A row of an evaluator's journal."""
    path = run / "journal/1-evaluate-0.jsonl"
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps({"data": data}) + "\n")


def test_a_lag_is_told_beside_what_an_evaluation_takes(tmp_path: Path) -> None:
    """From a snapshot's commit; the median and the longest of all, and the evaluator's own seconds as the peer."""
    folder = tmp_path / "snapshots/10"
    folder.mkdir(parents=True)
    (folder / "COMMIT").touch()
    write_row(tmp_path, event="evaluates")
    for seconds in (1.0, 2.0, 6.0):
        write_row(tmp_path, event="answers", swap_s=0.5, generate_s=seconds)
    rows = lag.summed({10: 4.0, 20: 5.0, 30: 9.0}, lag.evaluations_s(tmp_path))

    assert [(row.value, row.peer, row.unit) for row in rows] == [(5.0, 2.5, "s"), (9.0, 2.5, "s")]
    assert list(lag.committed(tmp_path)) == [10] and 0 <= time.time() - lag.committed(tmp_path)[10] < 60


@pytest.mark.soak
def test_a_run_under_way_is_followed_to_a_real_server(tmp_path: Path) -> None:
    """Its snapshots' metrics are read from MLflow; none can be there before it was evaluated."""
    median, longest = evaluate.under_way(tmp_path, snapshots=2, between=10)

    assert 0 < median.peer < median.value <= longest.value


@pytest.mark.soak
@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="no lm-evaluation-harness: extra bench")
def test_the_harness_takes_the_same_losses() -> None:
    """To 1e-4, or the benchmark is an error; its goal is twice the harness."""
    row = evaluate.against_harness("toy", tasks=2, repeats=1)

    assert row.value > 0 < row.peer and row.goal == pytest.approx(2 * row.peer)
