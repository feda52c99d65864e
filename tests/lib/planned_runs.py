"""Runs that nothing has been submitted of yet, and plans for them."""

from launcher.clusters.profiles import JobSize
from launcher.grids.runs import Run
from launcher.planning.plan import (
    Action,
    Plan,
    make_plan,
)
from tests.lib.builders import digests
from zsg_core import recipe as recipes
from zsg_core.settings.run import Settings


def a_run(order: str = "cluster", nodes: int = 1, every: int = 10, **changes) -> Run:
    """A run; `changes` are mappings of its settings."""
    wanted = {
        "arrangement": {"order": order},
        "checkpoints": {"every": every},
        **changes,
    }
    settings = Settings.model_validate(
        {**wanted, "data": {"path": "/d", **changes.get("data", {})}}
    )
    embedding = "e" if order in ("nft", "rt", "fft") else None
    recipe = recipes.make_recipe(settings, digests(embedding=embedding))
    return Run(
        id=recipes.run_id(recipe),
        recipe=recipe,
        axes={},
        checkpoints=settings.checkpoints,
        size=JobSize(nodes=nodes),
        sources={},
        base=None,
        embedding=None,
    )


def planned(
    runs: list[Run], made: set[str] = frozenset(), makers: dict[str, str] | None = None
) -> Plan:  # type: ignore[assignment]
    """The plan for new runs, with what is made and what active prepare jobs will make."""
    actions = [Action(run, "submit", "new") for run in runs]
    return make_plan(actions, lambda need: need in made, makers or {})
