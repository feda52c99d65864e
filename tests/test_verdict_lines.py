"""Is what a terminal is told of a claim, a metric or a run one line each, whatever the
values of axes are?"""

from types import SimpleNamespace
from typing import Any

import pytest

from launcher.reporting import verdict_lines
from launcher.views import metrics_view, plan_view
from zsg_core.settings.claims import Rises

SLY = "a\nconfirmed: all of it\x1b[2J"
SHOWN = r"a\nconfirmed: all of it\x1b[2J"


def test_a_verdict_is_one_line() -> None:
    """A value with a line end begins no verdict of its own, in the claim or its group."""
    claim = Rises.model_validate(
        {"claim": "rises", "metric": "loss", "along": "k", "values": [SLY, "b"]}
    )
    judged: Any = SimpleNamespace(
        claim=claim, group={"data.k": SLY}, verdict=SimpleNamespace(word="rejected")
    )
    [line] = verdict_lines.describe_verdicts([judged])
    assert line == f"rejected: end of loss: {SHOWN} < b (k {SHOWN})"


def test_a_metric_that_is_likely_broken_is_told_in_one_line() -> None:
    """Beside a table whose cells are."""
    row = dict.fromkeys(("step", "value", "lowest", "highest"), 1.0)
    broken = {"metric": "m", "axes": {"k": SLY}, "runs": 1, "broken": [SLY]}
    lines = metrics_view.draw_metrics([row | broken])
    assert lines[-1] == f"likely broken: m: {SHOWN}, at 1 of 1 points"
    assert len(lines) == 3 and SHOWN in lines[1]


def test_a_run_that_is_no_longer_wanted_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With its axes as they are, but for what does not print."""
    state = SimpleNamespace(is_active=True, state="running")
    run = SimpleNamespace(run="r", axes={"k": SLY}, state=state)
    plan: Any = SimpleNamespace(unwanted=[run])
    plan_view._print_unwanted(plan)
    first, *_ = capsys.readouterr().out.splitlines()
    assert first == f"no longer in the grid: r (k={SHOWN}) is running and continues"
