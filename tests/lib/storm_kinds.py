"""What a storm does beyond what Slurm itself offers: processes of Slurm killed, a file
system frozen, files damaged, the controller away while people work, and people at work.

Each is a function of the storm that says whom it hit. What it did and what must be told
of it is noted in the storm's `marks`, and judged when all is calm.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.contract import journal
from jobs.contract.exit_record import replace_unset
from jobs.contract.folder import read_json
from jobs.contract.journal_rows import Event, EventRow, HoleClosed, Start
from tests.lib.command_line import wait_until
from tests.lib.slurm_cluster import ClusterError

if TYPE_CHECKING:
    from tests.lib.storm import Storm

LONG_FREEZE_S = 75.0  # longer than a job may go without a sign of life


@dataclass(frozen=True)
class Hole:
    """A hole that was made in a run's journal: the file, and the first line that does
    not count."""

    run: str
    file: str
    line: int


@dataclass
class Marks:
    """What was done to runs, to be found again in what zsg tells of them. `purged`: a
    run and the step of its state that has lost files; `trained_again`: runs that were
    done before their journal lost rows."""

    holes: list[Hole] = field(default_factory=list)
    purged: list[tuple[str, int]] = field(default_factory=list)
    trained_again: set[str] = field(default_factory=set)


# ------------------------------------------------------------------------------------
# processes of Slurm on a node


def step_daemon_killed(storm: Storm) -> str:
    """`kill -9` of the slurmstepd of a rank: no signal of Slurm reaches the rank any
    more, should it live on, and srun waits for ever."""
    job, rank = storm.pick_rank()
    killed = _kill(_find_step_daemon(rank))
    time.sleep(1)
    fate = "lives on" if Path(f"/proc/{rank}").exists() else "dies with it"
    return f"{job}: {killed}; the rank {fate}"


def batch_daemon_killed(storm: Storm) -> str:
    """`kill -9` of the slurmstepd that watches a job's script: nobody tells Slurm how the
    script ends."""
    job, rank = storm.pick_rank()
    daemon = _find_step_daemon(_find_script(storm, rank))
    return f"{job}: {_kill(daemon)}"


def batch_shell_killed(storm: Storm) -> str:
    """`kill -9` of a job's script, of the srun that it waits for, or of both: Slurm takes
    the job for failed, and ends the step that lives on."""
    job, rank = storm.pick_rank()
    shell = _find_script(storm, rank)
    srun = [child for child in _children_of(shell) if _name_of(child) == "srun"]
    victims = storm.chance.choice(([shell], srun, [*srun, shell]))
    killed = [_kill(victim) for victim in victims]
    return f"{job}: {' and '.join(killed) or 'nobody'}"


def _kill(process: int) -> str:
    """Kills a process of a job, if there is one; its name."""
    if not process:
        return "nobody"
    try:
        name = _name_of(process)
        os.kill(process, signal.SIGKILL)
    except OSError:
        return "nobody any more"
    return name


def _find_step_daemon(process: int) -> int:
    """The slurmstepd above a process, which is what tells it from those of others; 0 if
    there is none."""
    with contextlib.suppress(OSError):
        while process > 1:
            if _name_of(process) == "slurmstepd":
                return process
            process = _parent_of(process)
    return 0


def _find_script(storm: Storm, rank: int) -> int:
    """The shell that runs the script of a rank's job: known by the job's number and by
    the configuration of this storm's own Slurm; 0 if there is none."""
    job = storm.variables_of(rank).get("SLURM_JOB_ID") if rank else None
    if not job:
        return 0
    for process in _list_processes():
        with contextlib.suppress(OSError):
            command = (Path("/proc") / str(process) / "cmdline").read_bytes()
            if b"/slurm_script" not in command:
                continue
            variables = storm.variables_of(process)
            is_ours = variables.get("SLURM_CONF") == storm.slurm.env["SLURM_CONF"]
            if is_ours and variables.get("SLURM_JOB_ID") == job:
                return process
    return 0


def _children_of(process: int) -> list[int]:
    found = []
    for other in _list_processes():
        with contextlib.suppress(OSError):
            if process and _parent_of(other) == process:
                found.append(other)
    return found


def _list_processes() -> Iterator[int]:
    return (int(path.name) for path in Path("/proc").glob("[0-9]*"))


def _name_of(process: int) -> str:
    return Path(f"/proc/{process}/comm").read_text().strip()


def _parent_of(process: int) -> int:
    stat = Path(f"/proc/{process}/stat").read_text()
    return int(stat.rpartition(")")[2].split()[1])


# ------------------------------------------------------------------------------------
# the file system


def disk_frozen(storm: Storm) -> str:
    """The workspace's file system takes no write for some seconds, or for longer than a
    job may be silent; whoever writes hangs, and nothing can kill it meanwhile."""
    assert storm.disk
    is_long = storm.has_time and storm.chance.random() < 0.3
    for_s = LONG_FREEZE_S if is_long else storm.chance.uniform(3, 12)
    storm.disk.freeze()
    try:
        time.sleep(for_s)
    finally:
        storm.disk.thaw()
    return f"for {for_s:.0f} s"


def journal_hole(storm: Storm) -> str:
    """The file system has lost a piece of a run's journal, of one under way or between
    two attempts: zeros, or a line that is cut. It is told with file and line before
    anybody mends it."""
    is_paused = storm.chance.random() < 0.5
    run = _pause_run(storm) if is_paused else _pick_run_at_work(storm)
    if not run:
        return "nobody"
    hole = _make_hole(storm, run)
    if hole is None:
        return f"{run} has no rows to lose"
    storm.marks.holes.append(hole)
    when = "between attempts" if is_paused else "under way"
    return (
        f"{run} {when}: {hole.file}, line {hole.line}; {_wait_until_told(storm, hole)}"
    )


def state_half_gone(storm: Storm) -> str:
    """Half of the files of a run's newest state are removed between two attempts, as a
    scratch file system does."""
    run = _pause_run(storm)
    folder = storm.zsg.work / "runs" / run / "state"
    steps = [path for path in folder.glob("[0-9]*") if path.is_dir()] if run else []
    if not steps:
        return f"{run or 'nobody'} has no state"
    newest = max(steps, key=lambda path: int(path.name))
    files = sorted(path for path in newest.rglob("*") if path.is_file())
    for path in storm.chance.sample(files, max(1, len(files) // 2)):
        path.unlink()
    storm.marks.purged.append((run, int(newest.name)))
    return f"{run}, step {newest.name}"


def _pick_run_at_work(storm: Storm) -> str:
    """A run that has a rank and that the grid lists, "" if none has."""
    run = _run_of(storm, storm.pick_rank()[1])
    return run if _is_listed(storm, run) else ""


def _is_listed(storm: Storm, run: str) -> bool:
    """Whether the grid lists a run: of one that it lists no more, and that nobody trains,
    no command says anything, and no submit starts it again."""
    rows = _list_rows(storm)
    return any(row["run"] == run and row["wanted"] for row in rows)


def _list_rows(storm: Storm) -> list[dict[str, Any]]:
    """What status says of all runs, be it from disk alone, as the controller is away."""
    return json.loads(storm.zsg("status", "--json", code=(0, 3)))


def _pause_run(storm: Storm) -> str:
    """A run whose job has been requeued or cancelled and has left, so that it stands
    between two attempts until somebody submits again; "" if there is none."""
    job, rank = storm.pick_rank()
    run = _run_of(storm, rank)
    if not _is_listed(storm, run):
        return ""
    command = storm.chance.choice((("scontrol", "requeue"), ("scancel",)))
    with contextlib.suppress(ClusterError):  # it has just ended
        storm.ask(*command, job)
    wait_until(lambda: job not in {other for other, _ in storm.ranks()}, 90)
    record = read_json(storm.zsg.work / "runs" / run / "exit.json") or {}
    return "" if record.get("outcome") == "done" else run


def _run_of(storm: Storm, rank: int) -> str:
    """The run whose journal a rank has open; "" if it has none."""
    runs = storm.zsg.work.resolve() / "runs"
    with contextlib.suppress(OSError):
        for handle in Path(f"/proc/{rank}/fd").iterdir() if rank else ():
            with contextlib.suppress(OSError):
                path = handle.readlink()
                if path.is_relative_to(runs) and path.parent.name == journal.FOLDER:
                    return path.relative_to(runs).parts[0]
    return ""


def _make_hole(storm: Storm, run: str) -> Hole | None:
    """Damages a line in the midst of a journal's file, in place: its writer may have it
    open. None where no row that counts is hit."""
    folder = storm.zsg.work / "runs" / run
    files = [path for path in journal.list_owned_files(folder) if path.stat().st_size]
    if not files or journal.find_holes(folder):
        return None
    path = storm.chance.choice(files)
    lines = path.read_bytes().splitlines(keepends=True)
    if len(lines) < 4:
        return None
    number = storm.chance.randrange(1, len(lines) - 2)
    begins, line = sum(map(len, lines[:number])), lines[number]
    cut = storm.chance.randrange(1, len(line) - 1)
    pieces = {"zeros": bytes(len(line)), "cut": b"\n" * (len(line) - cut)}
    kind = storm.chance.choice(sorted(pieces))
    with path.open("r+b", buffering=0) as file:
        file.seek(begins if kind == "zeros" else begins + cut)
        file.write(pieces[kind])
    holes = journal.find_holes(folder)
    return Hole(run, holes[0].path.name, holes[0].line) if holes else None


def _wait_until_told(storm: Storm, hole: Hole) -> str:
    """Until status and why name the file and the line; or until the run has a new
    attempt, which has closed the hole by then."""
    said: list[str] = []
    wait_until(lambda: _is_told(storm, hole, said), 120)
    return said[0]


def _is_told(storm: Storm, hole: Hole, said: list[str]) -> bool:
    if not journal.find_holes(storm.zsg.work / "runs" / hole.run):
        said.append("closed by the next attempt")
        return True
    rows = _list_rows(storm)
    [flag] = [row["flag"] or "" for row in rows if row["run"] == hole.run] or [""]
    if hole.file in flag and "line " in flag:
        said.append("told by status")
        return True
    return False


# ------------------------------------------------------------------------------------
# people


def controller_away(storm: Storm) -> str:
    """The controller is down while people look, submit, deliver and cancel: each is
    answered in words, be it that it comes back while they wait."""
    run = _pick_run_at_work(storm)
    submit = ("submit", storm.grid, "--profile", storm.profile, "--retry", "--yes")
    commands = [("status",), submit, ("sync",)]
    commands += [("cancel", run, "--yes")] if run else []
    with storm.at_work:
        storm.slurm.daemons["slurmctld"].kill()
        storm.slurm.daemons["slurmctld"].wait()
        processes = [
            storm.zsg.start(*argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            for argv in commands
        ]
        away_s = storm.chance.choice((3.0, 8.0, 45.0 if storm.has_time else 8.0))
        time.sleep(away_s)
        storm.slurm.start_controller()
    codes = []
    for argv, process in zip(commands, processes, strict=True):
        printed, _ = process.communicate(timeout=300)
        assert process.returncode in (0, 2, 3), (argv, printed)
        assert "Traceback" not in printed, (argv, printed)
        codes.append(f"{argv[0]} {process.returncode}")
    return f"for {away_s:.0f} s: {', '.join(codes)}"


def garbage_collected(storm: Storm) -> str:
    """Somebody frees what no run needs any more."""
    printed = storm.zsg("gc", "--yes", code=(0, 3))
    return (printed or storm.zsg.said).strip().splitlines()[-1]


def grid_edited(storm: Storm) -> str:
    """Somebody gives the grid one run more, or another value in the place of one, and
    submits."""
    assert storm.rates
    text = storm.rates.edit(storm.chance)
    storm.write_grid(storm.rates.listed)
    return text


def delivered(storm: Storm) -> str:
    """Somebody delivers to MLflow what is there."""
    storm.zsg("sync", code=(0, 2, 3))
    return (storm.zsg.said or "all").strip().splitlines()[-1]


@dataclass
class Rates:
    """The values of a storm's axis: what the grid lists now, what else it may list, and
    all that it has ever listed."""

    listed: list[str]
    spare: list[str]
    ever: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ever = list(self.listed)

    def edit(self, chance: random.Random) -> str:
        """Adds a value, or puts one in the place of another."""
        if not self.spare:
            return "no values left"
        rate = self.spare.pop()
        self.ever.append(rate)
        if chance.random() < 0.5:
            self.listed.append(rate)
            return f"{rate} is new"
        place = chance.randrange(len(self.listed))
        before, self.listed[place] = self.listed[place], rate
        return f"{rate} in the place of {before}"


# ------------------------------------------------------------------------------------
# the judgement


def untold(storm: Storm) -> list[str]:
    """What was done to runs and is not in their journals: which line was lost, which
    state was passed over."""
    found = []
    for hole in storm.marks.holes:
        closed = _find_events(storm, hole.run, HoleClosed)
        if not any(
            (event.file, event.line) == (hole.file, hole.line) for event in closed
        ):
            found.append(f"nothing tells that the hole was closed: {hole}")
    for run, step in storm.marks.purged:
        starts = _find_events(storm, run, Start)
        told = [replace_unset(start.passed_over) or "" for start in starts]
        if not any(f"state of step {step} is not whole" in text for text in told):
            found.append(f"nothing tells of the state of {run}, step {step}: {told}")
    return found


def _find_events(storm: Storm, run: str, kind: type[Event]) -> list[Any]:
    """The events of a kind in all files of a run's journal, also where they count no
    more."""
    files = journal.list_owned_files(storm.zsg.work / "runs" / run)
    return [
        row.data
        for path in files
        for row in journal.read_sound_rows(path)
        if isinstance(row, EventRow) and isinstance(row.data, kind)
    ]


def doubled_jobs(storm: Storm) -> list[str]:
    """The runs of which Slurm has more than one job to start or at work. What watches
    the first run sees within seconds that this was submitted again, and leaves."""
    with contextlib.suppress(ClusterError):
        states = "PENDING,RUNNING,CONFIGURING"
        queued = storm.ask("squeue", "-hr", "-p", "main", "-t", states, "-o", "%i")
        active = set(queued.split())
        jobs: dict[str, set[str]] = {}
        for line in (storm.zsg.work / "ledger.jsonl").read_text().splitlines():
            row = json.loads(line)
            _note_jobs(row, storm.items_of, jobs)
        return [
            f"{item}: {sorted(ids & active)}"
            for item, ids in jobs.items()
            if len(ids & active) > 1 and not item.startswith("canary/")
        ]
    return []


def _note_jobs(
    row: dict, items_of: dict[str, list[str]], jobs: dict[str, set[str]]
) -> None:
    """Adds what a row of the ledger says of which job is of which run."""
    if row["event"] == "intent":
        items_of[row["submission"]] = row["items"]
    if row["event"] == "submitted":
        for item, job in zip(items_of[row["submission"]], row["ids"], strict=True):
            jobs.setdefault(item, set()).add(job)


KINDS: list[Callable[[Storm], str]] = [
    step_daemon_killed,
    batch_daemon_killed,
    batch_shell_killed,
    journal_hole,
    state_half_gone,
    controller_away,
    garbage_collected,
    delivered,
]
