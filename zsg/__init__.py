"""What programs may import of zsg: these names stay; modules below `launcher`, `jobs`
and `zsg_core` may move.

    import zsg

    grid = zsg.load_grid("grid.yaml")
    zsg.plan(grid)
    zsg.submit(grid)
    zsg.metrics(grid)

Nothing is printed, and every error is a `ZsgError`: a `UserError` for what is wrong in a
file or an argument, a `ClusterError` for what Slurm, a disk or MLflow did not do. Notes
are logged, below the logger "launcher". docs/python-api.md shows each function and says
what is promised.

A name is imported when it is first used: `import zsg` itself takes a few milliseconds,
and neither torch, mlflow nor pandas.
"""

import importlib
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from launcher.api.grids import load_grid, write_starter
    from launcher.api.observing import status
    from launcher.api.records import (
        Effect,
        Grid,
        Plan,
        PlannedRun,
        Run,
        RunStatus,
        Verdict,
    )
    from launcher.api.results import compare, item_losses, metrics, report
    from launcher.api.submitting import plan, submit
    from zsg_core.data.examples import Example
    from zsg_core.errors import ClusterError, UserError, ZsgError
    from zsg_core.metrics.scoring import Answered, OptionLosses
    from zsg_core.model_scores.registry import ScoreInputs, Text
    from zsg_core.plugins.decorators import metric, order, reader, score

    __version__: str

# where each name is
_HOMES = {
    "Answered": "zsg_core.metrics.scoring",
    "ClusterError": "zsg_core.errors",
    "Effect": "launcher.api.records",
    "Example": "zsg_core.data.examples",
    "Grid": "launcher.api.records",
    "OptionLosses": "zsg_core.metrics.scoring",
    "Plan": "launcher.api.records",
    "PlannedRun": "launcher.api.records",
    "Run": "launcher.api.records",
    "RunStatus": "launcher.api.records",
    "ScoreInputs": "zsg_core.model_scores.registry",
    "Text": "zsg_core.model_scores.registry",
    "UserError": "zsg_core.errors",
    "Verdict": "launcher.api.records",
    "ZsgError": "zsg_core.errors",
    "compare": "launcher.api.results",
    "item_losses": "launcher.api.results",
    "load_grid": "launcher.api.grids",
    "metric": "zsg_core.plugins.decorators",
    "metrics": "launcher.api.results",
    "order": "zsg_core.plugins.decorators",
    "plan": "launcher.api.submitting",
    "reader": "zsg_core.plugins.decorators",
    "report": "launcher.api.results",
    "score": "zsg_core.plugins.decorators",
    "status": "launcher.api.observing",
    "submit": "launcher.api.submitting",
    "write_starter": "launcher.api.grids",
}

__all__ = [
    "Answered",
    "ClusterError",
    "Effect",
    "Example",
    "Grid",
    "OptionLosses",
    "Plan",
    "PlannedRun",
    "Run",
    "RunStatus",
    "ScoreInputs",
    "Text",
    "UserError",
    "Verdict",
    "ZsgError",
    "__version__",
    "compare",
    "item_losses",
    "load_grid",
    "metric",
    "metrics",
    "order",
    "plan",
    "reader",
    "report",
    "score",
    "status",
    "submit",
    "write_starter",
]

# a program that wants zsg's notes configures logging; else Python would print them
for _package in ("launcher", "jobs", "zsg_core"):
    logging.getLogger(_package).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    """A public name, imported when it is first used."""
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("zsg")
    elif home := _HOMES.get(name):
        _require_linux(home)
        value = getattr(importlib.import_module(home), name)
    else:
        raise AttributeError(f"module 'zsg' has no attribute {name!r}")
    globals()[name] = value
    return value


def _require_linux(home: str) -> None:
    """UserError where a name's package would end the process: it needs Linux."""
    import sys

    from zsg_core.errors import UserError
    from zsg_core.linux import REFUSAL

    if home.startswith("launcher.") and not sys.platform.startswith("linux"):
        raise UserError(REFUSAL.format(system=sys.platform))


def __dir__() -> list[str]:
    return sorted(__all__)
