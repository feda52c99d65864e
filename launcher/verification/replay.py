"""Trains some steps of a run again, by the trainer itself, in a folder of its own that
is thrown away afterwards.

What the run was made of is linked into the folder, and the job is what was submitted
but for its paths: so the trainer finds a run to begin, or to go on with from a copied
journal and a linked state, and nothing of the user's is written to. Nothing is sent to
MLflow, and no state is saved. Ranks are processes of this machine.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec
from msgspec import UNSET

from jobs.contract import attempt as attempts
from jobs.contract import exit_record, job_file, journal, journal_rows, snapshots
from jobs.contract.folder import META, Workspace, list_paths, read_json
from jobs.contract.job_file import TrackingServer, TrainJob, TrainPaths
from jobs.contract.journal_rows import find_first_start, find_metrics
from jobs.contract.saved_state import SavedState
from jobs.contract.states import Outcome
from jobs.files import ownership
from jobs.training import safetensors_digests, state
from jobs.training.tokens import tokens_id
from launcher.verification.evidence import Evidence, Row
from launcher.verification.finding import Differs, NotChecked
from launcher.verification.journal_check import SNAPSHOT, replayable_values
from launcher.verification.record_checks import base_folder
from launcher.verification.replay_comparison import Replayed
from launcher.workspace import code_snapshot

POLL_S = 0.2
STOP_S = 60.0
TAIL = 400  # characters of a log
# variables of a job that verify may itself be run in
OF_JOBS = ("SLURM_", "ZSG_", "PMI")


class Rank(Protocol):
    """A rank of the replay, as `subprocess` knows processes."""

    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


# folder, ranks, environment
Start = Callable[[Path, int, Mapping[str, str]], Sequence[Rank]]


def start_processes(folder: Path, world: int, env: Mapping[str, str]) -> Sequence[Rank]:
    """Starts so many ranks of the job of a folder, as srun would, on this machine."""
    ranks = list[subprocess.Popen[bytes]]()
    for rank in range(world):
        rank_variables = {
            "SLURM_PROCID": str(rank),
            "SLURM_NTASKS": str(world),
            "SLURM_LOCALID": str(rank),
        }
        with (folder / f"rank{rank}.txt").open("wb") as log:
            argv = [sys.executable, "-u", "-m", "jobs.entry", str(folder)]
            nothing = subprocess.DEVNULL
            ranks.append(
                subprocess.Popen(
                    argv,
                    stdin=nothing,
                    stdout=log,
                    stderr=log,
                    env={**env, **rank_variables},
                )
            )
    return ranks


@dataclass(frozen=True)
class Span:
    """The steps to train again: those after `begin`, up to `end`; from a full state, or
    from the beginning."""

    begin: int
    end: int
    saved: SavedState | None

    @property
    def origin(self) -> str:
        return f"the state of step {self.saved.step}" if self.saved else "the beginning"

    def covers(self, step: int) -> bool:
        """Whether a replay computes anew what is journalled at a step."""
        return self.begin < step <= self.end or (
            step == self.begin and self.saved is None
        )


def choose_span(e: Evidence, steps: int) -> Span:
    """The first so many steps after the newest state that has any after it, or else
    from the beginning."""
    earlier = [
        saved_state
        for saved_state in state.find_whole_states(e.folder)[0]
        if saved_state.step < e.last
    ]
    saved = max(earlier, key=lambda saved_state: saved_state.step, default=None)
    begin = saved.step if saved else e.first
    if e.last == begin:
        raise NotChecked("no step has been journalled")
    return Span(begin, min(begin + steps, e.last), saved)


def way_of_step(e: Evidence, step: int) -> Row:
    """How the first attempt that journalled a step has computed it: what its start row tells."""
    losses = find_metrics(e.rows, "train/loss")
    attempt = min(row.attempt for row, _ in losses if row.step == step)
    return next(start for start in e.starts if start["attempt"] == attempt)


def run_replay(e: Evidence, over: Span, start: Start) -> Replayed:
    """What a replay journals. NotChecked where it cannot be made; Differs where the
    state cannot be read."""
    started = way_of_step(e, over.begin + 1)
    with tempfile.TemporaryDirectory(prefix="zsg-verify-") as root:
        folder = _lay_out(e, over, Workspace(Path(root)), started)
        world = over.saved.way["world"] if over.saved else started["world"]
        ranks = start(folder, world, _environment(e, started, world))
        try:
            is_whole = _wait(ranks, _is_there(e, over, folder))
        finally:
            _stop(ranks)
        rows = _own_rows(folder, over)
        if not is_whole:
            _refuse_stopped(folder, over)
        return Replayed(rows, _differing(e, folder, rows, over))


def _lay_out(e: Evidence, over: Span, scratch: Workspace, started: Row) -> Path:
    """The scratch workspace, with a run folder in which the trainer is to begin or to go on."""
    job = e.job
    for need in _needs(e):
        link = scratch.root / need
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(e.made(need).resolve())
    _link_proofs(e, scratch)
    tokens = f"tokens/{tokens_id(e.recipe, job.made.arrangement)}"
    if token_folder := e.find(tokens):
        (scratch.root / tokens).parent.mkdir()
        (scratch.root / tokens).symlink_to(token_folder.resolve())
    folder = scratch.run(job.run_id)
    folder.mkdir(parents=True)
    job_file.write_job(
        folder, _to_replay(e, scratch, is_on_cpu=started["device"] == "cpu")
    )
    if over.saved:
        _copy_past(e.folder, folder, over.saved)
    return folder


def _to_replay(e: Evidence, scratch: Workspace, *, is_on_cpu: bool) -> TrainJob:
    """The run's job in the scratch workspace. No state is due, and a SIGTERM leaves no
    time to save one."""
    job, replace = e.job, msgspec.structs.replace
    gpus = 0 if is_on_cpu else job.resources.gpus_per_node
    return replace(
        job,
        submission="verify",
        makes=[],
        go_on=None,
        tracking=TrackingServer(),
        paths=TrainPaths(
            workspace=str(scratch.root), base=str(base_folder(e).resolve())
        ),
        checkpoints=replace(
            job.checkpoints,
            state_every=None,
            state_every_min=None,
            keep_state=True,
            keep=None,
        ),
        resources=replace(job.resources, kill_wait_s=0, gpus_per_node=gpus),
    )


def _needs(e: Evidence) -> Iterator[str]:
    made_ids = e.job.made
    yield f"arrangements/{made_ids.arrangement}"
    yield f"corpora/{made_ids.corpus}"
    if made_ids.base:
        yield f"bases/{made_ids.base}"
    meta: dict[str, Any] = read_json(e.made(f"corpora/{made_ids.corpus}") / META) or {}
    yield from dict.fromkeys(
        f"records/{run}"
        for facts in meta["sources"].values()
        for run in facts["records"].values()
    )


def _link_proofs(e: Evidence, scratch: Workspace) -> None:
    """What is proven of the run's model is not proven again."""
    if e.job.proof is UNSET:
        return
    scratch.model_proofs.mkdir()
    for root in e.roots:
        folder = Workspace(root).model_proofs
        for path in list_paths(folder, f"{e.job.proof}.*.json"):
            link = scratch.model_proofs / path.name
            if not link.exists():
                link.symlink_to(path.resolve())


def _copy_past(run: Path, folder: Path, saved: SavedState) -> None:
    """What an attempt that resumes from a state looks at: the state, and the journal as
    it was when it was saved."""
    journal.folder_of(folder).mkdir()
    for name, size in saved.journal.items():
        with (journal.folder_of(run) / name).open("rb") as file:
            (journal.folder_of(folder) / name).write_bytes(file.read(size))
    if newest := attempts.read_attempt(run):
        attempts.write_attempt(
            folder, msgspec.structs.replace(newest, attempt=saved.attempt)
        )
    (folder / "state").mkdir()
    (folder / "state" / str(saved.step)).symlink_to(
        (run / "state" / str(saved.step)).resolve()
    )


def _environment(e: Evidence, started: Row, world: int) -> dict[str, str]:
    """The variables of every rank: the run's own code if that is kept, its threads,
    nothing of a job around us."""
    on_gpu = started["device"] != "cpu"
    if on_gpu and (have := _gpus()) < world:
        lack = f"it was trained on {world} GPUs, this machine has {have}"
        raise NotChecked(f"{lack}; call zsg verify where there are as many")
    variables = {
        key: value for key, value in os.environ.items() if not key.startswith(OF_JOBS)
    }
    variables |= {
        "PYTHONSAFEPATH": "1",
        "OMP_NUM_THREADS": str(started["threads"]),
        "HF_HUB_OFFLINE": "1",
    }
    variables |= {} if on_gpu else {"CUDA_VISIBLE_DEVICES": ""}
    code_name = code_snapshot.name_folder(started["code"])
    if code_folder := e.find(f"code/{code_name}"):
        root = code_folder.parent.parent
        if fault := ownership.find_fault_on_path(
            root, code_folder
        ) or ownership.find_fault_within(code_folder):
            raise NotChecked(f"its code is not run, since {fault}")
        variables["PYTHONPATH"] = (
            f"{code_folder}:{variables.get('PYTHONPATH', '')}".rstrip(":")
        )
    return variables


def _gpus() -> int:
    completed = subprocess.run(
        [sys.executable, "-c", "import torch; print(torch.cuda.device_count())"],
        capture_output=True,
        text=True,
    )
    return int(completed.stdout) if completed.returncode == 0 else 0


def _is_there(e: Evidence, over: Span, folder: Path) -> Callable[[], bool]:
    """Whether the replay has journalled all there is to compare: a step beyond the
    last, and each snapshot."""
    recorded = replayable_values(e.rows)
    snapshots = {
        cell for cell in recorded if cell[1] == SNAPSHOT and over.covers(cell[0])
    }
    cells = {cell for cell in recorded if over.covers(cell[0])}

    def is_there() -> bool:
        """Reads the replay's journal as it is by now, to be asked again and again.

        A row beyond the span means that its losses are all written, and only snapshots
        may still be under way. Raises NotChecked where the replay did not begin at the
        state it was given: it would then repeat something else.
        """
        rows = _own_rows(folder, over)
        start = find_first_start(rows)
        if start and start.from_step != over.begin:
            raise NotChecked(f"{over.origin} was passed over: {start.passed_over}")
        journalled = replayable_values(rows)
        beyond = any(step > over.end for step, _ in journalled)
        return (snapshots if beyond else cells) <= journalled.keys()

    return is_there


def _wait(ranks: Sequence[Rank], is_there: Callable[[], bool]) -> bool:
    """Returns once all is there, or a rank has ended: whether all is there then."""
    while not is_there():
        if any(rank.poll() is not None for rank in ranks):
            return is_there()
        time.sleep(POLL_S)
    return True


def _stop(ranks: Sequence[Rank]) -> None:
    for rank in ranks:
        rank.terminate()
    for rank in ranks:
        try:
            rank.wait(STOP_S)
        except subprocess.TimeoutExpired:
            rank.kill()
            rank.wait()


def _own_rows(folder: Path, over: Span) -> list[journal_rows.Row]:
    """The rows of the replay's own attempt."""
    attempt = over.saved.attempt + 1 if over.saved else 1
    return [
        row
        for path in journal.folder_of(folder).glob(f"{attempt}-*.jsonl")
        for row in journal.read_file(path)
    ]


def _differing(
    e: Evidence, folder: Path, rows: list[journal_rows.Row], over: Span
) -> dict[int, list[str]]:
    """By the step of a snapshot that came out differently, the tensors that differ;
    where both are on disk."""
    recorded, replayed = replayable_values(e.rows), replayable_values(rows)
    differing = dict[int, list[str]]()
    for step, key in replayed:
        if (
            key != SNAPSHOT
            or not over.covers(step)
            or replayed[step, key] == recorded.get((step, key))
        ):
            continue
        first, now = (
            safetensors_digests.compute_digests(snapshots.folder_of(run_folder, step))
            for run_folder in (e.folder, folder)
        )
        differing[step] = [
            name for name in now if name in first and first[name] != now[name]
        ]
    return differing


def _refuse_stopped(folder: Path, over: Span) -> None:
    """A replay that ended too early: because of the state, or of this machine. One that
    is done simply lacks rows."""
    record = exit_record.read_exit_record(folder)
    if record and record.outcome == Outcome.DONE:
        return
    evidence = (record.evidence if record else None) or ""
    if over.saved and evidence.startswith(str(folder / "state")):
        raise Differs(f"{over.origin} {evidence.partition(' ')[2]}")
    log = (
        (folder / "rank0.txt")
        .read_text(encoding="utf-8", errors="replace")[-TAIL:]
        .strip()
    )
    raise NotChecked(f"the replay failed: {evidence or log}")
