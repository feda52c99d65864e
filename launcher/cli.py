"""The commands: each parses, calls one function, prints. Only here do exceptions become exit codes.

A command imports what it calls when it is called: `zsg --help` and `zsg status` must
not wait for pydantic, numpy and submitit, half a second together.
"""

import atexit
import copy
import gc
import os
import shlex
import sys
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from typer.core import TyperGroup

from jobs.contract.states import ShownState
from jobs.files import ownership
from launcher.commands import answers as answers_cli
from launcher.commands import arrange as arrange_cli
from launcher.commands import data as data_cli
from launcher.commands import doctor as doctor_cli
from launcher.commands import lifecycle as lifecycle_cli
from launcher.commands import merge as merge_cli
from launcher.commands import report as report_cli
from launcher.commands import tracking as tracking_cli
from launcher.commands import verify as verify_cli
from launcher.commands.options import (
    RUN_ID,
    AllowPlugins,
    AsJson,
    Detach,
    Except,
    GridFile,
    GridNameOrAll,
    NoLimits,
    Only,
    ProfileName,
    Workspace,
    WorkspaceOverProfile,
    Yes,
)
from zsg_core.errors import ClusterError, ZsgError
from zsg_core.shown_text import make_showable

# The parent of what typer refuses a command line with, whichever click it brings.
UsageError = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[1])
# the options of zsg that its commands take as well
VERBOSITY = (VERBOSE, QUIET) = ("verbose", "quiet")


class ShowingGroup(TyperGroup):
    """Commands whose refusals show what was written on the command line; typer prints
    them as they are. They take -v and -q as zsg itself does."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        own = [option for option in self.params if option.name in VERBOSITY]
        _take_verbosity(self, own)

    def make_context(self, *args: Any, **more: Any) -> Any:
        """Reads the command line's own options."""
        with _refusals_showable():
            return super().make_context(*args, **more)

    def invoke(self, *args: Any, **more: Any) -> Any:
        """Reads the options of a command and runs it."""
        with _refusals_showable():
            return super().invoke(*args, **more)


def _take_verbosity(group: TyperGroup, options: Sequence[Any]) -> None:
    """Has every command below a group take the options that say how much is shown.
    Their help is that of zsg: it would be the same in each."""
    for command in group.commands.values():
        for option in options:
            repeated = copy.copy(option)
            repeated.hidden, repeated.expose_value = True, False
            repeated.callback = _choose_verbosity
            command.params.append(repeated)
        if isinstance(command, TyperGroup):
            _take_verbosity(command, options)


def _choose_verbosity(context: Any, option: Any, is_asked: bool) -> None:
    """Acts on -v or -q behind the name of a command."""
    if is_asked:
        _configure_console(context, **{option.name: True})


@contextmanager
def _refusals_showable() -> Generator[None]:
    try:
        yield
    except UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            from launcher.views import show

            show.print_line(error.message)  # the help, where no command is given
            raise typer.Exit(error.exit_code) from None
        error.message = make_showable(error.message, keep="")
        raise


app = typer.Typer(
    cls=ShowingGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # help is text: examples can be copied, and no line is ragged
    help=(
        "One YAML grid becomes a cluster's worth of instruction-tuning runs and one page to compare"
        " them on."
    ),
)


def _print_version(asked: bool) -> None:
    if asked:
        import importlib.metadata

        from launcher.views import show

        show.print_result(f"zsg {importlib.metadata.version('zsg')}")
        raise typer.Exit


@app.callback()
def zsg(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001 (its callback acts)
        bool,
        typer.Option(
            "--version",
            help="print the version and end",
            is_eager=True,
            callback=_print_version,
        ),
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose",
            "-v",
            help="also show what zsg calls and reads, each line with its time",
        ),
    ] = False,
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet",
            "-q",
            help="show results, warnings and errors, and no progress",
        ),
    ] = False,
) -> None:
    """What all commands share."""
    _configure_console(context, verbose, quiet)


def _configure_console(
    context: Any, verbose: bool = False, quiet: bool = False
) -> None:
    """Shows more or less from now on. BadParameter for both, wherever they stand."""
    from launcher.views.console_log import Verbosity, configure_console

    asked = context.find_root().meta
    asked[VERBOSE] = asked.get(VERBOSE, False) or verbose
    asked[QUIET] = asked.get(QUIET, False) or quiet
    if asked[VERBOSE] and asked[QUIET]:
        raise typer.BadParameter("give one of --verbose and --quiet")
    if verbose:
        configure_console(Verbosity.VERBOSE)
    elif quiet:
        configure_console(Verbosity.QUIET)
    else:
        configure_console(Verbosity.NORMAL)


app.add_typer(arrange_cli.app, name="arrange")
app.add_typer(answers_cli.app, name="answers")
app.add_typer(data_cli.app, name="data")

INTERRUPTED = 130
# how many new objects there are before Python looks for circles among them, and how
# often it then looks at all
SPARSE_COLLECTION = (100_000, 50, 100)

Retry = Annotated[
    bool,
    typer.Option(
        "--retry",
        help=(
            "also submit runs that failed, were cancelled or are unknown: all that zsg retry"
            " chooses from"
        ),
    ),
]
Smoke = Annotated[
    bool,
    typer.Option(
        "--smoke",
        help="a small trial of the whole grid: tiny model, few tasks and steps, other ids",
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="a setting laid over the grid's defaults; may be repeated",
        metavar="KEY=VALUE",
    ),
]
NoCanary = Annotated[
    bool,
    typer.Option(
        "--no-canary",
        help="Slurm: of more than 8 runs none goes first; all start without waiting for it",
    ),
]
Retrain = Annotated[
    bool,
    typer.Option("--retrain", help="also train done runs that lack wanted checkpoints"),
]


@app.command()
def init(
    folder: Annotated[
        Path,
        typer.Argument(help="where to write", metavar="FOLDER", readable=False),
    ] = Path(),
    model: Annotated[
        Path | None,
        typer.Option(
            "--model",
            help="a model's folder to train, in place of a tiny one",
            metavar="PATH",
            readable=False,
        ),
    ] = None,
) -> None:
    """Write a first grid, a cluster profile and a small data set. Overwrites nothing.

    Of a model with a chat template the grid has data.template: chat.

    \b
    Example:
      zsg init my-study
    """
    from launcher.grids import starter
    from launcher.views import show

    made = starter.write_starter(folder, model)
    go = "" if folder == Path() else f"cd {shlex.quote(str(folder))} && "
    show.print_result(f"wrote {', '.join(made)}")
    show.print_result(f"next: {go}zsg plan grid.yaml && zsg submit grid.yaml")


@app.command()
def plan(
    grid: GridFile,
    profile: ProfileName = None,
    workspace: WorkspaceOverProfile = None,
    sets: Set = None,
    only: Only = None,
    except_: Except = None,
    smoke: Smoke = False,
    retry: Retry = False,
    retrain: Retrain = False,
    no_canary: NoCanary = False,
    no_limits: NoLimits = False,
    memory: Annotated[
        bool,
        typer.Option(
            "--memory", help="also show what a GPU holds by ZeRO stage, and its basis"
        ),
    ] = False,
    whole: Annotated[
        bool,
        typer.Option("--all", help="a line for every run and job, however many"),
    ] = False,
    json: AsJson = False,
) -> None:
    """Show what submit would do: which runs, why, and in which jobs. Submits nothing.

    It says how long that takes at most, how much memory of a GPU, how many GPU-hours and
    how much disk. It lists what the grid's and the profile's files have run (setup
    lines, variables, programs) and sent to whom. Where submit would refuse, it says why
    and ends as submit would: with 2, or with 3 if it is the machine's or the cluster's
    doing.

    \b
    Example:
      zsg plan grid.yaml --only order=nft --except state=failed
    """
    from launcher.grids.selection import Selection
    from launcher.planning.plan import Allow
    from launcher.submission import workflow

    allow = Allow(
        retry,
        retrain,
        Selection.parse(only, except_),
        canary=not no_canary,
        limits=not no_limits,
    )
    opened = workflow.resolve_grid(
        grid, profile, workspace, smoke, sets or (), only_looks=True
    )
    look = workflow.PlanLook(memory, whole, workflow.name_submit(sys.argv[1:]))
    if refusal := workflow.show_plan(opened, allow, json, look):
        raise typer.Exit(refusal.exit_code)


@app.command()
def submit(
    grid: GridFile,
    profile: ProfileName = None,
    workspace: WorkspaceOverProfile = None,
    sets: Set = None,
    only: Only = None,
    except_: Except = None,
    smoke: Smoke = False,
    retry: Retry = False,
    retrain: Retrain = False,
    no_canary: NoCanary = False,
    no_limits: NoLimits = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="only show what would be done, as plan does"),
    ] = False,
    because: Annotated[
        str,
        typer.Option(
            "--because",
            help="why the grid's claims changed since its first submit; stands in the report",
            metavar="TEXT",
        ),
    ] = "",
    allow_plugins: AllowPlugins = False,
    yes: Yes = False,
    detach: Detach = False,
) -> None:
    """Submit the runs that are not there yet. Twice is the same as once; killed, it is
    simply run again.

    On Slurm it asks (in a terminal), submits and returns. On a local profile it runs
    the jobs and shows their progress. Plugins of the grid are shown first, and jobs run
    them only once you have allowed them.

    \b
    Examples:
      zsg submit grid.yaml --smoke
      zsg submit grid.yaml
    """
    from launcher.grids.selection import Selection
    from launcher.planning.plan import Allow
    from launcher.submission import plugin_consent, workflow
    from launcher.views import asking, show

    allow = Allow(
        retry,
        retrain,
        Selection.parse(only, except_),
        canary=not no_canary,
        limits=not no_limits,
        because=because.strip(),
    )
    opened = workflow.resolve_grid(
        grid,
        profile,
        workspace,
        smoke,
        sets or (),
        only_looks=dry_run,
    )
    if dry_run:
        look = workflow.PlanLook(submit=workflow.name_submit(sys.argv[1:]))
        if refusal := workflow.show_plan(opened, allow, json=False, look=look):
            raise typer.Exit(refusal.exit_code)
        return
    plugin_consent.settle_consent(
        opened.grid, allows=allow_plugins, ask=asking.find_asker(yes)
    )
    if detach and opened.site.profile.kind == "local":
        workflow.submit_detached(
            opened, allow, [word for word in sys.argv[1:] if word != "--detach"]
        )
        return
    try:
        failed = workflow.submit_grid(opened, allow, asking.make_consent(yes))
    except KeyboardInterrupt:
        show.print_error(
            "interrupted; zsg submit again continues from here "
            "(zsg retry GRID --only state=cancelled takes up runs that were cancelled)"
        )
        raise typer.Exit(INTERRUPTED) from None
    if failed:
        raise typer.Exit(ClusterError.exit_code)


@app.command()
def status(
    grid: GridNameOrAll = None,
    workspace: Workspace = None,
    json: AsJson = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="look again every 20 seconds")
    ] = False,
    whole: Annotated[
        bool, typer.Option("--all", help="a line for every run, however many they are")
    ] = False,
    states: Annotated[
        list[ShownState] | None,
        typer.Option(
            "--state",
            help=f"only runs in this state ({', '.join(ShownState)}); may be repeated",
            metavar="STATE",
        ),
    ] = None,
) -> None:
    """Show where every run stands. Asks the scheduler once.

    Many runs are shown in groups, with those that need a look below.

    \b
    Examples:
      zsg status wsd-order --json
      zsg status --state failed
    """
    from launcher.commands import watching
    from launcher.status import queries, version_notes
    from launcher.views import show
    from launcher.workspace import workspaces

    place = workspaces.find_to_look(workspace)
    if watch:
        watching.watch(watching.Watched(place, grid, states or (), whole, json))
        return
    rows = queries.status_rows(place, grid, states or ())
    if json:
        show.as_json(rows)
        return
    show.print_status(rows, whole or bool(states))
    show.data_notes(queries.data_notes(place, grid, rows))
    show.look_notes(queries.look_notes(place, grid))
    show.version_notes(version_notes.of_rows(rows))


@app.command()
def logs(
    run: Annotated[
        str,
        typer.Argument(help=f"{RUN_ID}; or prepare/KEY, evaluate/KEY", metavar="RUN"),
    ],
    workspace: Workspace = None,
    rank: Annotated[int, typer.Option("--rank", help="which rank's log", min=0)] = 0,
    attempt: Annotated[
        int | None,
        typer.Option("--attempt", help="which attempt; default: newest", min=1),
    ] = None,
    lines: Annotated[
        int, typer.Option("--lines", help="how many lines from the end", min=0)
    ] = 200,
    whole: Annotated[
        bool, typer.Option("--all", help="from the attempt's beginning")
    ] = False,
    follow: Annotated[
        bool,
        typer.Option("-f", "--follow", help="follow the log until the run is done"),
    ] = False,
) -> None:
    """Print the end of a run's log. It is that of the newest attempt, unless --attempt
    says which.

    \b
    Examples:
      zsg logs 3f2a -f
      zsg logs 3f2a --attempt 1 --rank 1 --all
    """
    from launcher.status import queries
    from launcher.views import show
    from launcher.workspace import workspaces

    if follow and attempt is not None:
        raise typer.BadParameter(
            "an attempt that has ended does not grow; leave out one of --follow and --attempt"
        )
    try:
        place = workspaces.find_to_read(workspace)
        show.print_log(
            queries.read_log(
                place, run, rank, attempt, None if whole else lines, follow
            )
        )
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


@app.command()
def why(
    what: Annotated[
        str,
        typer.Argument(help=f"{RUN_ID}; or the name of a grid", metavar="RUN|GRID"),
    ],
    workspace: Workspace = None,
    json: AsJson = False,
) -> None:
    """Say why a run is not done, and which line proves it. Of a grid it shows the
    failures by cause.

    \b
    Examples:
      zsg why 3f2a
      zsg why wsd-order --json
    """
    from jobs.contract import grid_record
    from launcher.lifecycle import explain
    from launcher.views import show
    from launcher.workspace import workspaces

    place = workspaces.find_to_look(workspace)
    if what in grid_record.list_grids(place):
        groups = explain.why_grid(place, what)
        show.as_json(groups) if json else show.print_causes(groups)
        return
    row = explain.why_run(place, what)
    show.as_json(row) if json else show.print_why(row)


app.command()(tracking_cli.sync)
app.command()(tracking_cli.ui)
app.command()(tracking_cli.server)


app.command()(doctor_cli.doctor)
app.command()(answers_cli.score)
app.command()(report_cli.report)
app.command()(report_cli.export)
app.command()(report_cli.unpack)
app.command()(verify_cli.verify)
app.command()(merge_cli.merge)
app.command()(lifecycle_cli.cancel)
app.command()(lifecycle_cli.retry)
app.command()(lifecycle_cli.gc)
app.command()(lifecycle_cli.forget)


class Schema(StrEnum):
    """The kinds of file that zsg reads."""

    GRID = "grid"
    PROFILE = "profile"


@app.command()
def schema(
    of: Annotated[Schema, typer.Argument(help="which file's", metavar="grid|profile")],
    key: Annotated[
        str | None,
        typer.Argument(
            help="a key such as train.lr, or its last part",
            metavar="KEY",
        ),
    ] = None,
    json: AsJson = False,
) -> None:
    """Explain a key of a grid or a profile, or print the JSON Schema.

    Of a key it shows the values, the default, what it means, whether it enters a run's
    id, and the same of all keys within it. Without KEY it prints the JSON Schema of the
    file, by which editors complete and check; with --json, that of the key.

    \b
    Examples:
      zsg schema grid train.tuning
      zsg schema grid > grid.schema.json
    """
    from launcher.grids import json_schema, key_reference
    from launcher.views import key_view, show

    file: key_reference.File = "grid" if of is Schema.GRID else "profile"
    if key is None:
        show.as_json(
            json_schema.make_grid_schema()
            if file == "grid"
            else json_schema.make_profile_schema()
        )
    elif json:
        show.as_json(key_reference.schema_of_key(file, key))
    else:
        for line in key_view.key_lines(key_reference.find_keys(file, key)):
            show.print_result(line)


def main() -> None:
    """Runs a command; exit codes 0 ok, 1 bug, 2 the user's, 3 the cluster's, 130 interrupted."""
    # or what we start would take a user's own jobs.py for ours
    os.environ["PYTHONSAFEPATH"] = "1"
    warnings.showwarning = _show_warning
    # thousands of runs hold millions of objects, which no circle keeps alive
    gc.set_threshold(*SPARSE_COLLECTION)
    atexit.register(gc.freeze)  # nor is anything looked for once all is done
    ownership.forbid_writes_by_others()
    try:
        app()
    except Exception as error:
        sys.exit(_tell_error(error))


def _tell_error(error: Exception) -> int:
    """Shows an error; the exit code. What is neither the user's nor the cluster's is a
    bug, whose message may hold texts of others as well."""
    from launcher.views import show
    from launcher.workspace import disk

    try:
        if isinstance(error, OSError):
            raise disk.explain_disk_error(error)
        raise error
    except ZsgError as explained:
        show.print_error(str(explained))
        return explained.exit_code
    except Exception as bug:
        show.print_bug(bug)
        return ZsgError.exit_code


def _show_warning(*told: Any) -> None:
    """Shows what a library warns of; the module that shows is not imported for commands
    that warn of nothing."""
    from launcher.views import show

    show.library_warning(*told)


if __name__ == "__main__":
    main()
