"""Does the benchmark of evaluation measure what it says beside the job itself?"""

import importlib.util
import json
import time
from pathlib import Path

import pytest

from benchmarks import evaluate, lag


def write_row(run: Path, step: int, **data: object) -> None:
    """A row of an evaluator's journal."""
    path = run / "journal/1-evaluate-0.jsonl"
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps({"step": step, "data": data}) + "\n")


def test_a_lag_is_told_beside_what_an_evaluation_takes(tmp_path: Path) -> None:
    """From a snapshot's commit; the median and the longest of all, and the evaluator's
    own seconds as the peer."""
    lags, seconds = {10: 4.0, 20: 5.0, 30: 9.0}, {0: 100.0, 10: 1.0, 20: 2.0, 30: 6.0}
    for step in lags:
        (tmp_path / f"snapshots/{step}").mkdir(parents=True)
        (tmp_path / f"snapshots/{step}/COMMIT").touch()
    for step in seconds:
        write_row(tmp_path, step, event="evaluates")
        write_row(tmp_path, step, event="answers", swap_s=0.5, generate_s=seconds[step])
    rows = lag.summed(lags, lag.evaluations_s(tmp_path))

    assert [(row.value, row.peer, row.unit) for row in rows] == [
        (5.0, 2.5, "s"),
        (9.0, 2.5, "s"),
    ]
    committed = lag.committed(tmp_path)
    assert committed.keys() == lags.keys() and all(
        0 <= time.time() - at < 60 for at in committed.values()
    )


@pytest.mark.soak(part="models")
def test_a_run_under_way_is_followed_to_a_real_server(tmp_path: Path) -> None:
    """Its snapshots' metrics are read from MLflow; none can be there before it was evaluated."""
    median, longest = evaluate.under_way(tmp_path, snapshots=2, between=10)

    assert 0 < median.peer < median.value <= longest.value


@pytest.mark.soak(part="models")
@pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None,
    reason="no lm-evaluation-harness: extra bench",
)
def test_the_harness_takes_the_same_losses() -> None:
    """To 1e-4, or the benchmark is an error; its goal is twice the harness."""
    row = evaluate.against_harness("toy", tasks=2, repeats=1)

    assert row.value > 0 < row.peer and row.goal == pytest.approx(2 * row.peer)
