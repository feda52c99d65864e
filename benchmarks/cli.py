"""How long does a person wait for the command line? Whole processes, against an empty Typer app.

    python -m benchmarks.cli --json

Medians of seven, zsg and its peer by turns. The peer has as many commands as zsg, each
of which does nothing; `zsg status` looks at 30 finished runs of one grid.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.rows import Row, show
from jobs.contract import attempt as attempts
from jobs.contract.journal import Journal
from jobs.contract.states import Outcome
from launcher import cli
from launcher.planning.plan import run_item
from launcher.submission import submit, workflow
from launcher.workspace.ledger import Ledger
from zsg_core import skills

REPEATS = 7
RUNS = 30
HELP_GOAL, STATUS_GOAL = 1.4, 2.0  # times the peer
GRID = """\
name: finished
defaults:
  data: {{path: {tasks}}}
  train: {{steps: 60}}
grid:
  seed: [{seeds}]
"""


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cli", description="How long the command line takes."
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--repeats",
        type=int,
        default=REPEATS,
        help="processes of each kind; the median counts",
    )
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        show(measure(Path(folder), asked.repeats), asked.json)


def measure(folder: Path, repeats: int = REPEATS) -> list[Row]:
    """The rows; `folder` takes the peer and a workspace of finished runs."""
    zsg, peer = (
        _script(folder, "launcher.cli"),
        _peer(folder, len(cli.app.registered_commands)),
    )
    work = finished_grid(folder)
    commands = [
        [*peer, "--help"],
        [*zsg, "--help"],
        [*zsg, "status", "finished", "--workspace", str(work)],
    ]
    empty, helped, told = medians(commands, repeats)
    return [
        Row(
            "zsg --help, to an empty Typer app",
            helped,
            "s",
            empty,
            HELP_GOAL * empty,
            helped <= HELP_GOAL * empty,
        ),
        Row(
            f"zsg status of {RUNS} runs",
            told,
            "s",
            empty,
            STATUS_GOAL * empty,
            told <= STATUS_GOAL * empty,
        ),
    ]


def medians(commands: Sequence[Sequence[str]], repeats: int) -> list[float]:
    """The median seconds of each command. By turns, so that a busy machine is busy for
    all of them."""
    # the first start of each compiles it and reads it from disk
    for command in commands:
        _seconds(command)
    taken = [[_seconds(command) for command in commands] for _ in range(repeats)]
    return [statistics.median(column) for column in zip(*taken, strict=True)]


def _seconds(command: Sequence[str]) -> float:
    began = time.perf_counter()
    subprocess.run(
        command, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL
    )
    return time.perf_counter() - began


def finished_grid(folder: Path) -> Path:
    """A workspace with a grid of finished runs: all that a trainer leaves behind but
    the training."""
    skills.write_tasks(folder / "tasks", per_task=2)
    path = folder / "grid.yaml"
    path.write_text(
        GRID.format(tasks=folder / "tasks", seeds=", ".join(map(str, range(RUNS)))),
        encoding="utf-8",
    )
    opened = workflow.open_grid(path, "local", folder / "work")
    submit.record_grid(opened.site, opened.grid, opened.runs, opened.opened_by)
    ledger = Ledger(opened.site.workspace)
    items = [run_item(run) for run in opened.runs]
    submission = ledger.intend(
        scheduler="local", kind="train", grid=opened.grid.name, items=items
    )
    ledger.submitted(submission, ["local"] * len(items))
    ledger.released(submission)
    for item in items:
        _finish(opened.site.workspace.root / item, submission.id)
    return opened.site.workspace.root


def _finish(run: Path, submission: str) -> None:
    run.mkdir(parents=True)
    attempt = attempts.begin_attempt(run, submission)
    journal = Journal(run, attempt, "train", "stage")
    journal.add_row("event", step=0, examples=0, data={"event": "start", "steps": 60})
    for step in range(0, 61, 10):
        journal.add_row(
            "metric", step=step, examples=16 * step, data={"loss": 2.0 - step / 100}
        )
    journal.close()
    facts = {
        "step": 60,
        "steps": 60,
        "loss": 1.4,
        "checkpoints": list(range(0, 61, 10)),
    }
    attempts.end_attempt(run, attempt, Outcome.DONE, **facts)


def _peer(folder: Path, commands: int) -> list[str]:
    lines = [
        "import typer",
        "app = typer.Typer(no_args_is_help=True, add_completion=False)",
    ]
    for number in range(commands):
        lines += [
            "@app.command()",
            f"def command_{number}() -> None:",
            '    """Do nothing."""',
        ]
    lines += ["def main() -> None:", "    app()"]
    (folder / "empty_app.py").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return _script(folder, "empty_app")


def _script(folder: Path, module: str) -> list[str]:
    """What pip makes of an entry point, for both alike."""
    path = folder / f"{module.replace('.', '_')}_script.py"
    path.write_text(
        f"import sys\nfrom {module} import main\nsys.exit(main())\n", encoding="utf-8"
    )
    return [sys.executable, str(path)]


if __name__ == "__main__":
    main()
