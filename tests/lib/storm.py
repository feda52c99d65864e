"""Disturbs a grid on a real Slurm, event after event; watches what `zsg status` says,
and judges it in the end.

A seed decides which event comes when and whom it hits. What Slurm makes of it takes its
own time, so a seed gives the same events, not the same milliseconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.contract import journal
from jobs.contract.folder import read_json
from jobs.contract.heartbeat import STARTING
from launcher.status.slurm_states import LEAVING, START_S
from launcher.workspace.job_state import JOURNAL_UNREADABLE
from tests.lib import storm_kinds
from tests.lib.command_line import Zsg
from tests.lib.journal_rows import plain_rows
from tests.lib.slurm_cluster import ClusterError, SlurmCluster
from tests.lib.small_disk import SmallDisk
from tests.lib.storm_kinds import Marks, Rates

ENDED = ("done", "failed", "cancelled")
# after its last process has died, a run may be called running for so long
GONE_S = 60.0
# for so long status says of what has ended that it leaves: Slurm still clears up
CLEARING_S = START_S
STUCK_S = 60.0  # an operator looks after a job that has been leaving for longer
CLOCK_S = 1.5  # between a look at the processes and the answer of `zsg status`


@dataclass
class Look:
    """What was to be seen at one time: the rows of `zsg status`, and which jobs had a
    process, by Slurm's ids."""

    asked: float
    told: float
    rows: list[dict[str, Any]]


@dataclass
class Storm:
    """A grid under way on a cluster, in a workspace on a `disk` of its own. `rates`: the
    values of the grid's axis, where the grid may be edited by `write_grid`; `has_time`:
    events may take a minute."""

    zsg: Zsg
    slurm: SlurmCluster
    grid: Path
    profile: Path
    seed: int
    disk: SmallDisk
    rates: Rates | None = None
    write_grid: Callable[[list[str]], object] = list
    has_time: bool = False
    marks: Marks = field(default_factory=Marks)
    doubled: list[str] = field(default_factory=list)
    # the folders of jobs of each submission
    items_of: dict[str, list[str]] = field(default_factory=dict)
    looks: list[Look] = field(default_factory=list)
    # when a job was seen to have a process
    alive: dict[str, list[float]] = field(default_factory=dict)
    # when each attempt of a run began, as far as seen
    begun: dict[str, dict[int, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self._began = time.monotonic()
        self._over = threading.Event()
        # held by an event that stops a daemon, until it has started it again
        self.at_work = threading.Lock()
        watches = (self._look_on, self._look_for_ranks, self._keep_controller)
        self._watchers = [threading.Thread(target=one, daemon=True) for one in watches]
        self.events: list[Kind] = [*OF_SLURM, *storm_kinds.KINDS]
        self.events += [storm_kinds.disk_frozen] if self.disk.can_freeze else []
        self.events += [storm_kinds.grid_edited] if self.rates else []
        self.counts: Counter[str] = Counter()

    # --------------------------------------------------------------------------------
    # the course

    def rage(self, events: int) -> None:
        """So many events, each kind as often as any other, in an order that the seed decides."""
        try:
            self._rage(events)
        except BaseException:
            self._over.set()  # or its watchers would go on into the next test
            raise

    def _rage(self, events: int) -> None:
        order = [
            event
            for _ in range(-(-events // len(self.events)))
            for event in self._shuffled(self.events)
        ]
        self._submit()
        for watcher in self._watchers:
            watcher.start()
        for number, event in enumerate(order[:events]):
            self._until_something_runs()
            self.say(f"{number + 1} {event.__name__}: {event(self)}")
            self.counts[event.__name__] += 1
            time.sleep(self.chance.uniform(0.5, 2))
            self._submit()

    def calm(self, limit_s: float) -> list[dict[str, Any]]:
        """Submits again until all runs are done; returns their rows."""
        until = time.monotonic() + limit_s
        if self.rates:
            self.write_grid(self.rates.ever)
        while True:
            self._submit()
            rows = self.zsg.status()
            self._train_again(rows)
            if all(row["state"] == "done" and not _is_damaged(row) for row in rows):
                break
            assert time.monotonic() < until, [
                row for row in rows if row["state"] != "done" or row["flag"]
            ]
            time.sleep(2)
        self._over.set()
        for watcher in self._watchers:
            watcher.join()
        attempts = [row["attempt"] for row in rows]
        for failure in sorted(self.failures()):
            self.say(f"failed: {' '.join(failure)}")
        self.say(
            f"seed {self.seed}: {len(rows)} runs done in {sum(attempts)} attempts;"
            f" {len(self.looks)} looks at zsg status; events: {dict(self.counts)}"
        )
        return rows

    def leave(self, limit_s: float) -> None:
        """Until Slurm has no job of this workspace and no rank lives; what status flags
        meanwhile is ended as it says."""
        began = time.monotonic()
        while self.jobs_of() or self.ranks():
            waited_s = time.monotonic() - began
            assert waited_s < limit_s, (self._describe_queue(), self.ranks())
            self._tend()
            self._start_held_jobs()
            self._follow_advice(self.zsg.status())
            if waited_s > STUCK_S and not self.ranks():
                self._clear_stuck_nodes()
            time.sleep(2)

    def _describe_queue(self) -> str:
        """What Slurm says of the jobs and nodes that are left: id, name, state, reason,
        node and age."""
        jobs = self.ask("squeue", "-h", "-r", "-o", "%i %j %T %r %N %M")
        return f"{jobs}\n{self.ask('sinfo', '-h', '-N', '-o', '%N %T %E')}"

    def _clear_stuck_nodes(self) -> None:
        """What an operator does about a job that Slurm clears up after for ever, since
        its daemons on the node were killed: the node goes down, and comes back."""
        for node in self.slurm.node_names:
            if not self.ask("squeue", "-h", "-t", "COMPLETING", "-w", node):
                continue
            self.say(f"{node} clears up for ever: down and resumed")
            self.ask(
                "scontrol", "update", f"nodename={node}", "state=down", "reason=stuck"
            )
            self._resume(node)

    def _submit(self) -> None:
        """What a user does who looks by: submit again what failed or was cancelled;
        requeued jobs need not wait."""
        self._tend()
        self._follow_advice(self.looks[-1].rows if self.looks else [])
        self._start_held_jobs()
        argv = ("submit", self.grid, "--profile", self.profile, "--retry", "--yes")
        process = self.zsg.start(
            *argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        printed, _ = process.communicate(timeout=120)
        # Where the cluster does not answer, or a disk is full, a user reads one message
        # and tries again.
        assert process.returncode in (0, 2, 3), printed
        if process.returncode:
            self.say(f"submit: {printed.strip().splitlines()[-1]}")
        self.doubled += storm_kinds.doubled_jobs(self)

    def _follow_advice(self, rows: list[dict[str, Any]]) -> None:
        """What a user does about a run of which Slurm still holds a job that lives no
        more: what `zsg why` says."""
        for row in rows:
            if row["state"] != "unknown" and "zsg cancel" not in (row["flag"] or ""):
                continue
            printed = self.zsg("why", row["run"], "--json", code=(0, 3))
            answer = json.loads(printed) if printed else {"next": self.zsg.said}
            advice = answer["next"] or f"nothing to do: {answer['state']}"
            self.say(f"{row['run']}, {row['cause'] or row['flag']}: {advice}")
            if f"zsg cancel {row['run']}" in advice:
                self.zsg("cancel", row["run"], "--yes", code=(0, 2, 3))

    def _train_again(self, rows: list[dict[str, Any]]) -> None:
        """What a user does about a run that was done before its journal lost rows."""
        runs = [
            row["run"] for row in rows if row["state"] == "done" and _is_damaged(row)
        ]
        if not runs:
            return
        self.say(f"trained again, for their journals: {runs}")
        self.marks.trained_again |= set(runs)
        argv = ("submit", self.grid, "--profile", self.profile, "--retrain", "--yes")
        self.zsg(*argv, code=(0, 2, 3))

    def _tend(self) -> None:
        """What an operator does: a node that drains works again, a job of an event that
        hangs goes."""
        with contextlib.suppress(ClusterError):
            hanging = self.ask(
                "squeue", "-h", "-p", "urgent", "-o", "%i %M"
            ).splitlines()
            for job in [
                line.split()[0] for line in hanging if line.split()[1] >= "0:10"
            ]:
                self.ask("scancel", job)
            for node in self.slurm.node_names:
                if (state := self._node_state(node)).startswith(
                    ("drain", "drng", "down")
                ):
                    self.say(f"{node} is {state}: resumed")
                    self._resume(node)

    def _start_held_jobs(self) -> None:
        with contextlib.suppress(ClusterError):
            waiting = self.ask(
                "squeue", "-h", "-r", "-t", "PENDING", "-o", "%i %r"
            ).splitlines()
            for job in [
                line.split()[0] for line in waiting if line.endswith("BeginTime")
            ]:
                self.ask("scontrol", "update", f"jobid={job}", "StartTime=now")

    def _until_something_runs(self) -> None:
        until = time.monotonic() + 30
        while not self.ranks() and time.monotonic() < until and not self._all_done():
            self._start_held_jobs()
            time.sleep(0.3)

    def _all_done(self) -> bool:
        folders = (self.zsg.work / "runs").glob("*")
        records = [read_json(folder / "exit.json") or {} for folder in folders]
        return {record.get("outcome") for record in records} == {"done"}

    def say(self, what: str) -> None:
        print(f"{time.monotonic() - self._began:.0f} s: {what}", flush=True)

    def _shuffled(self, events: list[Kind]) -> list[Kind]:
        return self.chance.sample(events, len(events))

    # --------------------------------------------------------------------------------
    # the events

    def submit_killed(self) -> str:
        """`kill -9` somewhere in a `zsg submit` that has work: a run is cancelled just before."""
        self._cancel(1)
        argv = ("submit", self.grid, "--profile", self.profile, "--retry", "--yes")
        process = self.zsg.start(
            *argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        after_s = self.chance.uniform(0.2, 2.5)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(after_s)
        process.kill()
        process.wait()
        return f"after {after_s:.2f} s"

    def rank_killed(self) -> str:
        job, pid = self.pick_rank()
        if pid:
            os.kill(pid, signal.SIGKILL)
        return job

    def slurmd_killed(self) -> str:
        """The daemon of a node dies, its ranks live; Slurm gives the node up and starts
        their jobs elsewhere."""
        node = self.chance.choice(self.slurm.node_names)
        self.slurm.daemons[node].kill()
        self.ask("scontrol", "update", f"nodename={node}", "state=down", "reason=storm")
        self._start_held_jobs()
        time.sleep(self.chance.uniform(1, 4))
        self.slurm.start_node(node)
        self._resume(node)
        return node

    def node_down(self) -> str:
        node = self.chance.choice(self.slurm.node_names)
        self.ask("scontrol", "update", f"nodename={node}", "state=down", "reason=storm")
        time.sleep(self.chance.uniform(0.5, 2))
        self._resume(node)
        return node

    def requeued(self) -> str:
        job, _ = self.pick_rank()
        with contextlib.suppress(ClusterError):  # it has just ended
            self.ask("scontrol", "requeue", job)
        return job

    def preempted(self) -> str:
        wrap = ("-o", "/dev/null", "--wrap", "sleep 1")
        return self.ask(
            "sbatch", "--parsable", "-p", "urgent", "-N1", "--exclusive", *wrap
        ).strip()

    def half_cancelled(self) -> str:
        return self._cancel(2)

    def controller_restarted(self) -> str:
        self._restart("slurmctld", self.start_controller)
        return "back"

    def accounting_stopped(self) -> str:
        database = f"{self.slurm._base}/run/database"
        start = lambda: self.slurm._spawn(  # noqa: E731
            "slurmdbd", "slurmdbd", "-D", MYSQL_UNIX_PORT=database
        )
        self._restart("slurmdbd", start)
        return "back"

    def disk_full(self) -> str:
        filler, block = self.disk.folder / "filler", bytes(1 << 20)
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(block)
        time.sleep(self.chance.uniform(1, 3))
        filler.unlink()
        return "freed"

    def ask(self, *argv: str) -> str:
        """What Slurm answers, be it after its controller has come back."""
        until = time.monotonic() + 60
        while True:
            try:
                return self.slurm.run(*argv)
            except ClusterError as error:
                if (
                    "Unable to contact slurm controller" not in str(error)
                    or time.monotonic() > until
                ):
                    raise
            time.sleep(0.5)

    def start_controller(self) -> None:
        self.slurm._spawn("slurmctld", "slurmctld", "-D")

    def _restart(self, name: str, start: Callable[[], None]) -> None:
        with self.at_work:
            self.slurm.daemons[name].kill()
            self.slurm.daemons[name].wait()
            time.sleep(self.chance.uniform(0.5, 3))
            start()

    def _resume(self, node: str) -> None:
        until = time.monotonic() + 30
        while (state := self._node_state(node)).startswith(("drain", "drng", "down")):
            with contextlib.suppress(ClusterError):
                self.ask("scontrol", "update", f"nodename={node}", "state=resume")
            assert time.monotonic() < until, state
            time.sleep(0.5)

    def _node_state(self, node: str) -> str:
        return self.ask("sinfo", "-h", "-p", "main", "-n", node, "-o", "%t").strip()

    def _cancel(self, one_in: int) -> str:
        """Cancels one of so many of the jobs in the queue, and at the least one."""
        jobs = self.ask("squeue", "-h", "-r", "--partition", "main", "-o", "%i").split()
        chosen = self.chance.sample(
            sorted(jobs),
            min(len(jobs), max(1, len(jobs) // one_in if one_in > 1 else 1)),
        )
        if chosen:
            self.ask("scancel", *chosen)
        return f"{len(chosen)} of {len(jobs)} cancelled"

    def pick_rank(self) -> tuple[str, int]:
        found = sorted(self.ranks())
        return self.chance.choice(found) if found else ("nobody", 0)

    # --------------------------------------------------------------------------------
    # the watch

    def _look_on(self) -> None:
        while not self._over.wait(1.5):
            asked = time.time()
            process = self.zsg.start(
                "status", "--json", stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            printed, said = process.communicate(timeout=120)
            assert process.returncode in (0, 3), said  # 3: Slurm does not answer
            if process.returncode == 0:
                self.looks.append(Look(asked, time.time(), json.loads(printed)))

    def _keep_controller(self) -> None:
        """Starts a controller that has crashed again, as a site's init does: Slurm's
        has been seen to."""
        while not self._over.wait(0.5):
            with self.at_work:
                if (code := self.slurm.daemons["slurmctld"].poll()) is not None:
                    self.say(f"the controller crashed: {code}")
                    self.start_controller()

    def _look_for_ranks(self) -> None:
        while not self._over.wait(0.5):
            now = time.time()
            for job in {job for job, _ in self.ranks()}:
                self.alive.setdefault(job, []).append(now)
            for path in (self.zsg.work / "runs").glob("*/attempt.json"):
                row = read_json(path) or {}
                self.begun.setdefault(path.parent.name, {})[row["attempt"]] = (
                    row["started"] / 1000
                )

    def ranks(self) -> list[tuple[str, int]]:
        """Slurm's id and process id of everything that a job of this workspace has started."""
        found, mark = [], str(self.zsg.work).encode()
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (
                    b"submitit" not in (command := (process / "cmdline").read_bytes())
                    or mark not in command
                ):
                    continue
                env = self.variables_of(int(process.name))
                job = env.get("SLURM_JOB_ID", "")
                if "SLURM_ARRAY_JOB_ID" in env:
                    job = f"{env['SLURM_ARRAY_JOB_ID']}_{env['SLURM_ARRAY_TASK_ID']}"
                if "SLURM_PROCID" in env and not _is_srun(process):
                    found.append((job, int(process.name)))
        return found

    @staticmethod
    def variables_of(process: int) -> dict[str, str]:
        """Slurm's variables of a process."""
        words = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
        pairs = [word.decode(errors="replace").partition("=") for word in words]
        return {key: value for key, _, value in pairs if key.startswith("SLURM_")}

    # --------------------------------------------------------------------------------
    # the judgement

    def lies(self) -> list[str]:
        """Every time that `zsg status` said what was not so."""
        found = []
        for run in sorted({row["run"] for look in self.looks for row in look.rows}):
            rows = plain_rows(self.zsg.work / "runs" / run)
            begun = _begun(rows) | self.begun.get(run, {})
            found += self._done_twice(run, begun)
            for look in self.looks:
                for row in look.rows:
                    if row["run"] == run and (lie := self._lie(look, row, rows, begun)):
                        found.append(f"{run} at {look.told:.1f}: {lie}; {row}")
        return found

    def _done_twice(self, run: str, begun: dict[int, float]) -> list[str]:
        """Whether a run began again though it was done and nothing of it was lost."""
        if run in self.marks.trained_again:
            return []
        attempts = [
            row["attempt"]
            for look in self.looks
            for row in look.rows
            if row["run"] == run and row["state"] == "done"
        ]
        if attempts and max(begun) > min(attempts):
            return [f"{run} was done in attempt {min(attempts)}, and began again"]
        return []

    def _lie(
        self,
        look: Look,
        row: dict[str, Any],
        rows: list[dict[str, Any]],
        begun: dict[int, float],
    ) -> str | None:
        state, attempt = row["state"], row["attempt"]
        if state in ENDED and attempt is not None:
            later = [
                r
                for r in rows
                if r["attempt"] == attempt and r["ts"] / 1000 > look.told + CLOCK_S
            ]
            if any(r["kind"] == "metric" for r in later):
                return "called ended, but the attempt made progress afterwards"
        is_at_work = state == "running" and row["doing"] != STARTING
        if is_at_work and row["slurm"] in self.alive:
            seen = [when for when in self.alive[row["slurm"]] if when < look.told]
            allowed_s = CLEARING_S if row["doing"] == LEAVING else GONE_S
            if seen and look.asked - seen[-1] > allowed_s:
                return (
                    f"called running ({row['doing']}) {look.asked - seen[-1]:.0f} s after its last"
                    " process died"
                )
        if attempt is not None:
            there = {
                number
                for number, since in begun.items()
                if since <= look.told + CLOCK_S
            }
            newest = max(
                (
                    number
                    for number, since in begun.items()
                    if since <= look.asked - CLOCK_S
                ),
                default=0,
            )
            if attempt not in there or attempt < newest:
                return f"the attempt was {newest}"
        return None

    def failures(self) -> set[tuple[str, str, str]]:
        """How runs failed, as `zsg status` said: run, cause, evidence."""
        return {
            (row["run"], row["cause"], str(row["evidence"]))
            for look in self.looks
            for row in look.rows
            if row["state"] == "failed"
        }

    def jobs_of(self) -> dict[str, int]:
        """How many jobs of this workspace Slurm still has, by name."""
        names = self.ask(
            "squeue", "-h", "-r", "--partition", "main", "-o", "%j"
        ).split()
        return {name: names.count(name) for name in set(names)}


Kind = Callable[[Storm], str]
OF_SLURM: list[Kind] = [
    Storm.submit_killed,
    Storm.rank_killed,
    Storm.slurmd_killed,
    Storm.node_down,
    Storm.requeued,
    Storm.preempted,
    Storm.half_cancelled,
    Storm.controller_restarted,
    Storm.accounting_stopped,
    Storm.disk_full,
]


def _is_damaged(row: dict[str, Any]) -> bool:
    """Whether status says that a run's journal has lost rows."""
    return JOURNAL_UNREADABLE in (row["flag"] or "")


def _is_srun(process: Path) -> bool:
    """Whether it is srun itself, whose command names what it starts."""
    return (process / "comm").read_text().strip() == "srun"


def _begun(rows: list[dict[str, Any]]) -> dict[int, float]:
    """When each attempt wrote its first row, in seconds."""
    found: dict[int, float] = {}
    for row in rows:
        found.setdefault(row["attempt"], row["ts"] / 1000)
    return found


def values(work: Path, run: str) -> dict[tuple[int, str], float]:
    """What counts of a run's journal: (step, key) → value, but for what measures the machine."""
    points, disagree = journal.first_points(journal.read_journal(work / "runs" / run))
    assert not disagree, disagree
    return {
        (p.step, p.key): p.value for p in points if not p.key.startswith(journal.SPEED)
    }


def digests(work: Path, run: str) -> dict[int, dict[str, str]]:
    """The digests at each checkpoint, each told alike by all attempts."""
    found: dict[int, dict[str, str]] = {}
    for row in plain_rows(work / "runs" / run):
        if row["kind"] == "digest":
            assert found.setdefault(row["step"], row["data"]) == row["data"]
    return found
