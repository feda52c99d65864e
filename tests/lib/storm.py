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
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.contract import journal
from jobs.contract.folder import read_json
from tests.lib.command_line import Zsg
from tests.lib.journal_rows import plain_rows
from tests.lib.slurm_cluster import ClusterError, SlurmCluster

ENDED = ("done", "failed", "cancelled")
# after its last process has died, a run may be called running for so long
GONE_S = 60.0
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
    """A grid under way on a cluster. `disk` is the file system of its workspace, or
    None where it cannot be filled."""

    zsg: Zsg
    slurm: SlurmCluster
    grid: Path
    profile: Path
    seed: int
    disk: Path | None = None
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
        self._at_work = threading.Lock()
        watches = (self._look_on, self._look_for_ranks, self._keep_controller)
        self._watchers = [threading.Thread(target=one, daemon=True) for one in watches]
        self.events: list[Callable[[], str]] = [
            self.submit_killed,
            self.rank_killed,
            self.slurmd_killed,
            self.node_down,
            self.requeued,
            self.preempted,
            self.half_cancelled,
            self.controller_restarted,
            self.accounting_stopped,
        ]
        self.events += [self.disk_full] if self.disk else []

    # --------------------------------------------------------------------------------
    # the course

    def rage(self, events: int) -> None:
        """So many events, each kind as often as any other, in an order that the seed decides."""
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
            self._say(f"{number + 1} {event.__name__}: {event()}")
            time.sleep(self.chance.uniform(0.5, 2))
            self._submit()

    def calm(self, limit_s: float) -> list[dict[str, Any]]:
        """Submits again until all runs are done; returns their rows."""
        until = time.monotonic() + limit_s
        while True:
            self._submit()
            rows = self.zsg.status()
            if all(row["state"] == "done" for row in rows):
                break
            assert time.monotonic() < until, [
                row for row in rows if row["state"] != "done"
            ]
            time.sleep(2)
        self._over.set()
        for watcher in self._watchers:
            watcher.join()
        attempts = [row["attempt"] for row in rows]
        self._say(
            f"{len(rows)} runs done in {sum(attempts)} attempts; {len(self.looks)} looks at zsg"
            " status"
        )
        return rows

    def _submit(self) -> None:
        """What a user does who looks by: submit again what failed or was cancelled;
        requeued jobs need not wait."""
        self._tend()
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
            self._say(f"submit: {printed.strip().splitlines()[-1]}")

    def _tend(self) -> None:
        """What an operator does: a node that drains works again, a job of an event that
        hangs goes."""
        with contextlib.suppress(ClusterError):
            hanging = self._ask(
                "squeue", "-h", "-p", "urgent", "-o", "%i %M"
            ).splitlines()
            for job in [
                line.split()[0] for line in hanging if line.split()[1] >= "0:10"
            ]:
                self._ask("scancel", job)
            for node in self.slurm.node_names:
                if (state := self._node_state(node)).startswith(
                    ("drain", "drng", "down")
                ):
                    self._say(f"{node} is {state}: resumed")
                    self._resume(node)

    def _start_held_jobs(self) -> None:
        with contextlib.suppress(ClusterError):
            waiting = self._ask(
                "squeue", "-h", "-r", "-t", "PENDING", "-o", "%i %r"
            ).splitlines()
            for job in [
                line.split()[0] for line in waiting if line.endswith("BeginTime")
            ]:
                self._ask("scontrol", "update", f"jobid={job}", "StartTime=now")

    def _until_something_runs(self) -> None:
        until = time.monotonic() + 30
        while not self._ranks() and time.monotonic() < until and not self._all_done():
            self._start_held_jobs()
            time.sleep(0.3)

    def _all_done(self) -> bool:
        folders = (self.zsg.work / "runs").glob("*")
        records = [read_json(folder / "exit.json") or {} for folder in folders]
        return {record.get("outcome") for record in records} == {"done"}

    def _say(self, what: str) -> None:
        print(f"{time.monotonic() - self._began:.0f} s: {what}", flush=True)

    def _shuffled(self, events: list[Callable[[], str]]) -> list[Callable[[], str]]:
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
        job, pid = self._some_rank()
        if pid:
            os.kill(pid, signal.SIGKILL)
        return job

    def slurmd_killed(self) -> str:
        """The daemon of a node dies, its ranks live; Slurm gives the node up and starts
        their jobs elsewhere."""
        node = self.chance.choice(self.slurm.node_names)
        self.slurm.daemons[node].kill()
        self._ask(
            "scontrol", "update", f"nodename={node}", "state=down", "reason=storm"
        )
        self._start_held_jobs()
        time.sleep(self.chance.uniform(1, 4))
        self.slurm.start_node(node)
        self._resume(node)
        return node

    def node_down(self) -> str:
        node = self.chance.choice(self.slurm.node_names)
        self._ask(
            "scontrol", "update", f"nodename={node}", "state=down", "reason=storm"
        )
        time.sleep(self.chance.uniform(0.5, 2))
        self._resume(node)
        return node

    def requeued(self) -> str:
        job, _ = self._some_rank()
        with contextlib.suppress(ClusterError):  # it has just ended
            self._ask("scontrol", "requeue", job)
        return job

    def preempted(self) -> str:
        wrap = ("-o", "/dev/null", "--wrap", "sleep 1")
        return self._ask(
            "sbatch", "--parsable", "-p", "urgent", "-N1", "--exclusive", *wrap
        ).strip()

    def half_cancelled(self) -> str:
        return self._cancel(2)

    def controller_restarted(self) -> str:
        self._restart("slurmctld", self._start_controller)
        return "back"

    def accounting_stopped(self) -> str:
        database = f"{self.slurm._base}/run/database"
        start = lambda: self.slurm._spawn(  # noqa: E731
            "slurmdbd", "slurmdbd", "-D", MYSQL_UNIX_PORT=database
        )
        self._restart("slurmdbd", start)
        return "back"

    def disk_full(self) -> str:
        assert self.disk
        filler, block = self.disk / "filler", bytes(1 << 20)
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(block)
        time.sleep(self.chance.uniform(1, 3))
        filler.unlink()
        return "freed"

    def _ask(self, *argv: str) -> str:
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

    def _start_controller(self) -> None:
        self.slurm._spawn("slurmctld", "slurmctld", "-D")

    def _restart(self, name: str, start: Callable[[], None]) -> None:
        with self._at_work:
            self.slurm.daemons[name].kill()
            self.slurm.daemons[name].wait()
            time.sleep(self.chance.uniform(0.5, 3))
            start()

    def _resume(self, node: str) -> None:
        until = time.monotonic() + 30
        while (state := self._node_state(node)).startswith(("drain", "drng", "down")):
            with contextlib.suppress(ClusterError):
                self._ask("scontrol", "update", f"nodename={node}", "state=resume")
            assert time.monotonic() < until, state
            time.sleep(0.5)

    def _node_state(self, node: str) -> str:
        return self._ask("sinfo", "-h", "-p", "main", "-n", node, "-o", "%t").strip()

    def _cancel(self, one_in: int) -> str:
        """Cancels one of so many of the jobs in the queue, and at the least one."""
        jobs = self._ask(
            "squeue", "-h", "-r", "--partition", "main", "-o", "%i"
        ).split()
        chosen = self.chance.sample(
            sorted(jobs),
            min(len(jobs), max(1, len(jobs) // one_in if one_in > 1 else 1)),
        )
        if chosen:
            self._ask("scancel", *chosen)
        return f"{len(chosen)} of {len(jobs)} cancelled"

    def _some_rank(self) -> tuple[str, int]:
        found = sorted(self._ranks())
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
            with self._at_work:
                if (code := self.slurm.daemons["slurmctld"].poll()) is not None:
                    self._say(f"the controller crashed: {code}")
                    self._start_controller()

    def _look_for_ranks(self) -> None:
        while not self._over.wait(0.5):
            now = time.time()
            for job in {job for job, _ in self._ranks()}:
                self.alive.setdefault(job, []).append(now)
            for path in (self.zsg.work / "runs").glob("*/attempt.json"):
                row = read_json(path) or {}
                self.begun.setdefault(path.parent.name, {})[row["attempt"]] = (
                    row["started"] / 1000
                )

    def _ranks(self) -> list[tuple[str, int]]:
        """Slurm's id and process id of everything that a job of this workspace has started."""
        found, mark = [], str(self.zsg.work).encode()
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (
                    b"submitit" not in (command := (process / "cmdline").read_bytes())
                    or mark not in command
                ):
                    continue
                pairs = [
                    word.partition(b"=")
                    for word in (process / "environ").read_bytes().split(b"\0")
                ]
                env = {
                    key: value.decode()
                    for key, _, value in pairs
                    if key.startswith(b"SLURM_")
                }
                job = env.get(b"SLURM_JOB_ID", "")
                if b"SLURM_ARRAY_JOB_ID" in env:
                    job = f"{env[b'SLURM_ARRAY_JOB_ID']}_{env[b'SLURM_ARRAY_TASK_ID']}"
                # not srun itself, nor the script that starts it
                if b"SLURM_PROCID" in env:
                    found.append((job, int(process.name)))
        return found

    # --------------------------------------------------------------------------------
    # the judgement

    def lies(self) -> list[str]:
        """Every time that `zsg status` said what was not so."""
        found = []
        for run in sorted({row["run"] for look in self.looks for row in look.rows}):
            rows = plain_rows(self.zsg.work / "runs" / run)
            begun = _begun(rows) | self.begun.get(run, {})
            for look in self.looks:
                for row in look.rows:
                    if row["run"] == run and (lie := self._lie(look, row, rows, begun)):
                        found.append(f"{run} at {look.told:.1f}: {lie}; {row}")
        return found

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
        if state == "running" and row["slurm"] in self.alive:
            seen = [when for when in self.alive[row["slurm"]] if when < look.told]
            if seen and look.asked - seen[-1] > GONE_S:
                return f"called running {look.asked - seen[-1]:.0f} s after its last process died"
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

    def jobs_of(self) -> dict[str, int]:
        """How many jobs of this workspace Slurm still has, by name."""
        names = self._ask(
            "squeue", "-h", "-r", "--partition", "main", "-o", "%j"
        ).split()
        return {name: names.count(name) for name in set(names)}


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
