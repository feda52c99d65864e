"""Plans and submits loaded grids for programs."""

from collections.abc import Sequence

from launcher.api.calls import as_library
from launcher.api.grids import resolve_again
from launcher.api.observing import list_states
from launcher.api.records import Grid, Plan, PlannedRun, Run, RunStatus
from launcher.grids.selection import Selection
from launcher.planning.plan import Allow
from launcher.submission import plugin_consent, workflow


@as_library()
def plan(
    grid: Grid,
    *,
    only: Sequence[str] = (),
    leave_out: Sequence[str] = (),
    retry: bool = False,
    retrain: bool = False,
) -> Plan:
    """What a submit would do now, as `zsg plan` shows it. Submits nothing.

    Args:
        grid: a loaded grid.
        only: only these runs: "KEY=VALUE" of a setting, a prefix of run ids, or
            "state=STATE"; a run that any of them names.
        leave_out: all but these runs, written in the same way.
        retry: also runs that failed, were cancelled or are unknown.
        retrain: also done runs that lack checkpoints which the grid wants.

    Raises:
        UserError: for a term that names no run, and where the grid has changed since it
            was loaded. Why a submit would refuse is no error: it is in `refusals`.
    """
    allow = _make_allow(only, leave_out, retry, retrain)
    preview = workflow.preview_submit(resolve_again(grid, only_looks=True), allow)
    takes = workflow.describe_runs(preview.opened)
    planned = tuple(
        PlannedRun(
            run=Run(id=action.run.id, axes=dict(action.run.axes)),
            action=action.kind,
            reason=action.reason,
            estimate=takes[action.run.id],
        )
        for action in preview.plan.actions
    )
    return Plan(
        grid=grid,
        runs=planned,
        refusals=tuple(map(str, preview.refusals)),
        only=tuple(only),
        leave_out=tuple(leave_out),
        retry=retry,
        retrain=retrain,
    )


@as_library()
def submit(
    planned: Plan | Grid, *, wait: bool = True, allow_plugins: bool = False
) -> list[RunStatus]:
    """Submits what the plan says, without a question; of a grid, what is new in it.

    Twice is the same as once: what is done, queued or running is left alone. On Slurm it
    returns once the jobs are handed over. On a local profile it runs them, and returns
    when all have ended; without `wait` it leaves them running and returns. Of a grid
    with plugins that you have not allowed yet, `allow_plugins` says that you have read
    them and that jobs may run them.

    Returns:
        Where the grid's runs stand. Whether one has failed is in its `state`.

    Raises:
        UserError: where a submit is refused: what does not fit, what is gone, what has
            changed since the grid was loaded, plugins that are not allowed.
        ClusterError: where Slurm or a disk does not do its part.
    """
    if isinstance(planned, Grid):
        planned = Plan(grid=planned, runs=())
    allow = _make_allow(planned.only, planned.leave_out, planned.retry, planned.retrain)
    opened = resolve_again(planned.grid, only_looks=False)
    plugin_consent.settle_consent(opened.grid, allows=allow_plugins, ask=None)
    if wait or opened.site.profile.kind == "slurm":
        workflow.submit_grid(opened, allow, lambda _: True)
    else:
        workflow.submit_detached(opened, allow, write_command(planned))
    return list_states(opened.site.workspace, opened.grid.name)


def _make_allow(
    only: Sequence[str], leave_out: Sequence[str], retry: bool, retrain: bool
) -> Allow:
    return Allow(retry, retrain, Selection.parse(list(only), list(leave_out)))


def write_command(planned: Plan) -> list[str]:
    """The arguments by which the command line submits the same."""
    grid = planned.grid
    words = ["submit", str(grid.file), "--profile", grid.profile]
    words += ["--workspace", str(grid.workspace), "--yes"]
    for option, terms in (
        ("--set", grid.overrides),
        ("--only", planned.only),
        ("--except", planned.leave_out),
    ):
        for term in terms:
            words += [option, term]
    for option, is_asked in (
        ("--smoke", grid.smoke),
        ("--retry", planned.retry),
        ("--retrain", planned.retrain),
    ):
        if is_asked:
            words.append(option)
    return words
