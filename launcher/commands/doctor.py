"""The command that checks machine, cluster and nodes: parses, calls, prints."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from launcher.commands.options import AsJson, ProfileName, WorkspaceOverProfile
from zsg_core.errors import ClusterError

MINUTES, WAIT_MINUTES = 15, 60.0
FOUND_PROBLEM = 1  # of a check of the nodes
INTERRUPTED = 130

ModelFolder = Annotated[
    Path | None,
    typer.Option(
        "--model",
        help=(
            "a model's folder: load it, try a forward pass and its tokenizer, and prove how its"
            " examples may meet in a batch"
        ),
        readable=False,
    ),
]
OnNode = Annotated[
    bool,
    typer.Option(
        "--on-node",
        help=(
            "run a short job on the profile's nodes that measures what plan assumes of them,"
            " wait for it, and show where it is wrong"
        ),
    ),
]
Nodes = Annotated[
    int | None,
    typer.Option(
        "--nodes",
        help="--on-node: on how many nodes; default: those of a train job",
        min=1,
        max=1024,
    ),
]
Minutes = Annotated[
    int | None,
    typer.Option(
        "--time",
        help="--on-node: time limit of the job, in minutes; default: 15",
        min=3,
        max=1440,
    ),
]
WaitMinutes = Annotated[
    float | None,
    typer.Option(
        "--wait",
        help=(
            "--on-node: minutes to wait for the job to start, default: 60; it then stays in the"
            " queue, and the same command takes it up again"
        ),
        min=0,
    ),
]
WriteMfu = Annotated[
    bool,
    typer.Option(
        "--write-mfu",
        help="--on-node: write the measured gpu.mfu into the profile's file",
    ),
]
SendsTest = Annotated[
    bool,
    typer.Option(
        "--notify",
        help="send a test message to everybody whom the profile's `notify` names",
    ),
]


def doctor(
    profile: ProfileName = None,
    workspace: WorkspaceOverProfile = None,
    json: AsJson = False,
    model: ModelFolder = None,
    on_node: OnNode = False,
    nodes: Nodes = None,
    minutes: Minutes = None,
    wait_minutes: WaitMinutes = None,
    write_mfu: WriteMfu = False,
    notify: SendsTest = False,
) -> None:
    """Check that this machine, Python and Slurm are as zsg needs them. Changes nothing.

    With --model, a model's folder is loaded, too, and a small model of its config shows
    whether its examples can be packed one after the other, must be padded, or cannot
    meet at all. What was proven is kept in the workspace for `zsg plan` and for jobs.
    Ends with 3 if there is a problem; a warning is no problem yet.

    With --on-node, a short job is submitted as a train job of the profile would be: it
    runs `setup`, sees the workspace and the GPUs, lets all ranks speak to one another,
    and measures memory, speed and snapshots. Its report lies in the workspace as
    checks/ID/report.txt and report.json, without secrets, to be sent to whoever helps.
    Then it ends with 1 if there is a problem. Ctrl-C cancels the job.

    \b
    Examples:
      zsg doctor --profile slurm-minimal
      zsg doctor --profile a800 --on-node --nodes 2
    """
    if on_node:
        if model is not None:
            raise typer.BadParameter(
                "--model loads a folder on this machine; give one of --model and --on-node"
            )
        if notify:
            raise typer.BadParameter(
                "--notify sends from this machine; give one of --notify and --on-node"
            )
        if minutes is None:
            minutes = MINUTES
        if wait_minutes is None:
            wait_minutes = WAIT_MINUTES
        _check_nodes(profile, workspace, json, nodes, minutes, wait_minutes, write_mfu)
        return
    _refuse_without_node(nodes, minutes, wait_minutes, write_mfu)
    _check_machine(profile, workspace, json, model, notify)


def _refuse_without_node(
    nodes: int | None,
    minutes: int | None,
    wait_minutes: float | None,
    write_mfu: bool,
) -> None:
    """BadParameter for an option that says something of a job, where none is sent."""
    values = {
        "--nodes": nodes,
        "--time": minutes,
        "--wait": wait_minutes,
        "--write-mfu": write_mfu or None,
    }
    for name, value in values.items():
        if value is not None:
            raise typer.BadParameter(
                f"{name} is of --on-node, which sends a job; give that, too, or leave {name} out"
            )


def _check_machine(
    profile: str | None,
    workspace: Path | None,
    json: bool,
    model: Path | None,
    notify: bool,
) -> None:
    """Checks this machine and asks its Slurm; prints a line for each check."""
    from launcher.clusters import profiles
    from launcher.doctor import doctor as doctors
    from launcher.views import show
    from launcher.workspace import workspaces

    chosen = profiles.load_profile(profile or "local", Path())
    asked = workspaces.choose_folder(workspace, chosen.workspace)
    place = workspaces.find_workspace(asked)  # refuses what can be no workspace
    checks = doctors.run_checks(chosen, asked.expanduser())
    if model is not None:
        from launcher.doctor import proofs

        checks.append(proofs.prove_model(model, place))
    if notify:
        from launcher.doctor import notice_trial

        checks += notice_trial.send_trials(chosen.receivers)
    if json:
        show.as_json([asdict(check) for check in checks])
    else:
        for check in checks:
            show.print_result(check.line)
    if any(check.verdict == doctors.PROBLEM for check in checks):
        raise typer.Exit(ClusterError.exit_code)


def _check_nodes(
    profile: str | None,
    workspace: Path | None,
    json: bool,
    nodes: int | None,
    minutes: int,
    wait_minutes: float,
    write_mfu: bool,
) -> None:
    """Has the nodes checked, prints the report and says where it is kept."""
    from msgspec import to_builtins

    from jobs.contract.node_check import FindingState
    from launcher.submission import on_node
    from launcher.submission.on_node import Wanted
    from launcher.views import show

    wanted = Wanted(
        profile=profile or "local",
        workspace=workspace,
        nodes=nodes,
        minutes=minutes,
        wait_min=wait_minutes,
        writes_mfu=write_mfu,
    )
    try:
        checked = on_node.check_nodes(wanted)
    except KeyboardInterrupt:
        show.print_error(
            "interrupted; the same command submits a new check, or takes up what was not cancelled"
        )
        raise typer.Exit(INTERRUPTED) from None
    if json:
        show.as_json(to_builtins(checked.report))
    else:
        show.print_line(checked.text.removesuffix("\n"))
    show.print_message(f"kept as {' and '.join(map(str, checked.files))}")
    if write_mfu:
        on_node.write_mfu(checked)
    if checked.report.state == FindingState.PROBLEM:
        raise typer.Exit(FOUND_PROBLEM)
