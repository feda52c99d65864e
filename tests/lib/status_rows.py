"""A row of status."""

from typing import Any


def row(run: str, state: str, **facts: Any) -> dict[str, Any]:
    """A row of status."""
    known = {
        "run": run,
        "grid": "g",
        "state": state,
        "attempt": 1,
        "step": None,
        "steps": 30,
        "loss": None,
    }
    known |= {
        "slurm": None,
        "axes": {"arrangement.order": "nft"},
        "cause": None,
        "evidence": None,
        "wanted": True,
    }
    return known | facts
