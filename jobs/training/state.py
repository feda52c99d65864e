"""Saves the full state of a train job, and finds the one from which an interrupted run resumes.

<run>/state/<step>/   state.json, and in ranks/ what DeepSpeed writes: weights,
                      optimiser, every rank's RNG

A state is written under a hidden name that only this attempt uses and renamed when all
of it is on disk, so what has a number for a name was whole then. The newest is kept; it
goes when the run is done. One that is not whole any more is passed over for the next
older one, or the run starts over. Engines are imported only where states are saved and loaded: the
launcher asks for steps.
"""

import logging
import pickle
import random
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from jobs.contract import attempt as attempts
from jobs.contract import journal as journals
from jobs.contract import removal
from jobs.contract.attempt import Attempt
from jobs.contract.folder import Damaged, sync_to_disk
from jobs.contract.journal import Journal
from jobs.contract.saved_state import (
    NAME,
    RANKS,
    SavedState,
    find_broken_content,
    find_fault,
    read_saved_state,
    write_saved_state,
)
from jobs.files import ownership
from jobs.runtime.ranks import Ranks
from jobs.runtime.together import share_errors, share_first
from zsg_core.errors import ClusterError

logger = logging.getLogger(__name__)

SCRIPT = ".py"  # DeepSpeed adds two to every checkpoint
# of an attempt, by its nonce
_DRAFT = re.compile(r"\.[0-9]+\.([0-9a-f]{32}|[0-9a-f]{8}|gone)")

# what DeepSpeed and torch raise for files that are missing, cut or of another kind
_UNREADABLE = (
    OSError,
    RuntimeError,
    ValueError,
    EOFError,
    LookupError,
    AssertionError,
    AttributeError,
    TypeError,
    pickle.UnpicklingError,
)

Cells = frozenset[tuple[int, str]]


@dataclass(frozen=True, kw_only=True)
class Job:
    """What the job at hand is, to be compared with what was saved."""

    what: dict[str, Any]
    way: dict[str, Any]
    digests: Mapping[int, str]  # of the ids consumed after each step
    cells: Cells  # (step, key) of every loss that is wanted
    # steps whose snapshots are wanted and were never written
    lacking: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Choice:
    """The state to resume from, if any, why newer ones do not serve, and why nothing may
    be trained at all."""

    saved: SavedState | None = None
    passed_over: str | None = None
    refusal: str | None = None


def choose_state(
    states: Sequence[SavedState], job: Job, sizes: Mapping[str, int], measured: Cells
) -> Choice:
    """The newest state that is this job's. `sizes` are the journal's bytes, `measured`
    the losses that it has.

    Refused is a state that is this job's and yet was trained on other ids than its schedule says.
    """
    reasons = []
    for saved in sorted(states, key=lambda state: -state.step):
        reason = _explain_unusable(saved, job, sizes, measured)
        if reason:
            reasons.append(f"the state of step {saved.step} {reason}")
            continue
        expected = job.digests.get(saved.step)
        if saved.ids != expected:
            return Choice(
                refusal=f"the digest of the ids consumed is {saved.ids}, by the schedule {expected}"
            )
        return Choice(saved, "; ".join(reasons) or None)
    return Choice(passed_over="; ".join(reasons) or None)


def _explain_unusable(
    saved: SavedState, job: Job, sizes: Mapping[str, int], measured: Cells
) -> str | None:
    """Why a state does not serve the job; None if it does."""
    return (
        _compare(job.what, saved.what)
        or _compare(job.way, saved.way)
        or _find_lost_rows(saved, sizes)
        or _find_missing_loss(saved, job.cells - measured)
        or _find_missing_snapshot(saved, job.lacking)
    )


def _compare(now: Mapping[str, Any], before: Mapping[str, Any]) -> str | None:
    """How a saved state's description differs from the run's of now, with both values
    of each key; None where it does not. Keys that only the saved state has do not
    count: an older or newer zsg may have written more."""
    differing = [key for key in now if now[key] != before.get(key)]
    if not differing:
        return None
    return "is of another " + " and ".join(
        f"{key} ({before.get(key)}, now {now[key]})" for key in differing
    )


def _find_lost_rows(saved: SavedState, sizes: Mapping[str, int]) -> str | None:
    for name, size in saved.journal.items():
        if sizes.get(name, 0) < size:
            return f"has lost rows of its journal {name}"
    return None


def _find_missing_loss(saved: SavedState, unmeasured: Cells) -> str | None:
    missed = [cell for cell in unmeasured if cell[0] <= saved.step]
    if not missed:
        return None
    step, key = min(missed)
    return f"has no {key} of step {step}, which is a checkpoint now"


def _find_missing_snapshot(saved: SavedState, lacking: frozenset[int]) -> str | None:
    missed = [step for step in lacking if step <= saved.step]
    if not missed:
        return None
    return f"is past step {min(missed)}, of which a snapshot is wanted and was never written"


def find_states(run: Path) -> list[SavedState]:
    """All committed states of a run folder whose record can be read; what else is wrong
    with them nobody has looked at."""
    return [state for _, state in _read_states(run) if isinstance(state, SavedState)]


def find_whole_states(run: Path) -> tuple[list[SavedState], list[str]]:
    """The states of a run folder of which no file is missing or cut, and why not the
    others."""
    whole: list[SavedState] = []
    faults: list[str] = []
    for folder, state in _read_states(run):
        if isinstance(state, SavedState):
            fault = find_fault(folder, state)
        else:
            fault = state
        if fault:
            faults.append(f"the state of step {folder.name} is not whole: {fault}")
        elif isinstance(state, SavedState):
            whole.append(state)
    return whole, faults


def _read_states(run: Path) -> Iterator[tuple[Path, SavedState | str | None]]:
    """The folder of each state with its record, or why that cannot be read; None for
    one of another schema."""
    for folder in sorted(_committed(run), key=lambda path: int(path.name)):
        try:
            state = read_saved_state(folder)
        except Damaged as error:
            yield folder, str(error)
            continue
        is_gone = state is None and not (folder / NAME).exists()
        yield folder, f"{NAME} is missing" if is_gone else state


def of_the_user(
    run: Path, states: Sequence[SavedState]
) -> tuple[list[SavedState], list[str]]:
    """Those that nobody else may have written, and why not the others: a state is a
    pickle, and to load it is to run what it says.
    """
    trusted, strange = [], []
    for saved in states:
        folder = run.absolute() / "state" / str(saved.step)
        fault = ownership.find_fault_on_path(
            folder.parents[3], folder
        ) or ownership.find_fault_within(folder)
        if fault:
            strange.append(f"the state of step {saved.step} is not loaded: {fault}")
        else:
            trusted.append(saved)
    return trusted, strange


def newest_step(run: Path) -> int | None:
    """The step of the newest committed state, whole or not, or None."""
    return max((int(path.name) for path in _committed(run)), default=None)


def newest_whole_step(run: Path) -> int | None:
    """The step of the newest state of which all files are there, or None."""
    states, _ = find_whole_states(run)
    return max((state.step for state in states), default=None)


def remove_states(run: Path) -> list[str]:
    """Removes all states, and the folder unless something else lies in it; why some of it stays."""
    root, folder = run.parent.parent, run / "state"
    reasons = removal.remove_drafts(root, folder, _DRAFT)
    reasons += [
        removal.discard_folder(root, path, removal.IN_STATE)
        for path in removal.list_step_folders(root, folder)
    ]
    removal.remove_empty(root, folder)
    return list(filter(None, reasons))


def has_any(run: Path) -> bool:
    """Whether there are states, or an empty folder of them."""
    folder = run / "state"
    return bool(removal.list_step_folders(run.parent.parent, folder)) or not any(
        folder.iterdir()
    )


def why_it_stays(run: Path) -> str:
    """Why `remove_states` would leave something of the states; "" if it would not."""
    root, folder = run.parent.parent, run / "state"
    inside = [
        removal.why_it_stays(root, path, removal.IN_STATE)
        for path in removal.list_step_folders(root, folder)
    ]
    return next(filter(None, [removal.why_it_stays(root, folder, None), *inside]), "")


def _committed(run: Path) -> list[Path]:
    return [
        path for path in (run / "state").glob("*") if removal.STEP.fullmatch(path.name)
    ]


class States:
    """The states of one run, as one attempt sees them; every method is called by all
    ranks together."""

    def __init__(
        self,
        run: Path,
        attempt: Attempt,
        ranks: Ranks,
        job: Job,
        journal: Journal | None,
    ) -> None:
        self._run, self._attempt, self._ranks, self._job, self._journal = (
            run,
            attempt,
            ranks,
            job,
            journal,
        )
        self._root = run / "state"
        if self._root.is_symlink():
            raise ClusterError(
                f"{self._root} is a link; zsg saves and removes states in a folder of its own:"
                " remove the link, and zsg retry"
            )
        self.step = 0  # of the newest state that is ours
        self.save_s: float | None = None  # how long the last save took
        self._files: dict[str, int] = {}  # of the state that is being written

    def choose(self) -> Choice:
        """Rank 0's choice, told to all, of which all have looked at a share of the files.
        Removes what dead attempts left half written; raises on a refusal."""
        share_first(self._remove_drafts)
        broken: dict[int, str] = {}  # by its step, why a state cannot be read
        while True:
            choice = share_first(partial(self._choose_unless, broken))
            if choice.refusal:
                raise ClusterError(
                    f"{self._root} cannot be resumed from: {choice.refusal}. The data or the code"
                    " have changed; remove the folder to train from the start"
                )
            if choice.saved is None:
                break
            fault = self._find_broken(choice.saved)
            if fault is None:
                self.step, self.save_s = choice.saved.step, choice.saved.seconds
                break
            broken[choice.saved.step] = fault
        if choice.passed_over and self._ranks.is_main:
            outcome = (
                f"resumes from step {self.step}" if choice.saved else "starts over"
            )
            logger.warning(f"{choice.passed_over}; this attempt {outcome}")
        return choice

    def _remove_drafts(self) -> None:
        removal.remove_drafts(self._run.parent.parent, self._root, _DRAFT)

    def _choose_unless(self, broken: Mapping[int, str]) -> Choice:
        """Rank 0's choice among the states that are not known to be broken."""
        assert self._journal
        rows = journals.read_measured(self._run, self._journal.before)
        states, reasons = find_whole_states(self._run)
        if self._journal.hole:
            reasons.insert(0, str(self._journal.hole))
        states, strange = of_the_user(self._run, states)
        reasons += [
            f"the state of step {step} is not whole: {fault}"
            for step, fault in broken.items()
        ]
        sound = [saved for saved in states if saved.step not in broken]
        sizes = self._journal.before
        measured = journals.list_metric_cells(rows)
        choice = choose_state(sound, self._job, sizes, measured)
        reasons += strange
        if choice.passed_over:
            reasons.insert(0, choice.passed_over)
        passed_over = "; ".join(filter(None, reasons))
        return replace(choice, passed_over=passed_over or None)

    def _find_broken(self, saved: SavedState) -> str | None:
        """What is wrong with the content of a state's files, each of which one rank
        reads; told to all. OSError on all where one could not read its share."""
        import torch.distributed as dist

        folder = self._root / str(saved.step)
        files = sorted((folder / RANKS).glob("*.pt"))
        share = files[self._ranks.rank :: self._ranks.world]
        fault = share_errors(
            lambda: next(filter(None, map(find_broken_content, share)), None)
        )
        faults: list[Any] = [None] * self._ranks.world
        dist.all_gather_object(faults, fault)
        return next(filter(None, faults), None)

    def load(self, engine: Any, saved: SavedState) -> None:
        """Puts weights, optimiser and RNG back. Raises ClusterError if a file cannot be read."""
        folder = self._root / str(saved.step)
        try:
            path, client = engine.load_checkpoint(str(folder), RANKS)
        except _UNREADABLE as error:
            raise ClusterError(
                f"{folder} cannot be read: {_reason(error)}; remove it to train from the start"
            ) from error
        if path is None:
            raise ClusterError(
                f"{folder} has no files of DeepSpeed; remove it to train from the start"
            )
        _set_rng(client["rng"][self._ranks.rank])

    def save(self, engine: Any, step: int, ids: str, loss: float | None) -> None:
        """Commits the state after `step`, then removes older ones. Raises ClusterError
        if it cannot be written."""
        if step == self.step:
            return  # nothing has happened since
        started = time.monotonic()
        draft = self._root / f".{step}.{self._attempt.nonce}"
        try:
            self._write(engine, draft)
            share_first(partial(self._publish, draft, step, ids, loss, started))
        except attempts.Superseded:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        except (OSError, RuntimeError) as error:
            # a full disk must take the record of this end
            shutil.rmtree(draft, ignore_errors=True)
            former = (
                f"that of step {self.step} is intact"
                if self.step
                else "there is none before it"
            )
            raise ClusterError(
                f"the state of step {step} could not be saved in {self._root} "
                f"({_reason(error)}); {former}"
            ) from error
        self.step, self.save_s = step, time.monotonic() - started

    def _write(self, engine: Any, draft: Path) -> None:
        """Writes the state of all ranks into a draft, brings it to the disk, and notes
        how large each file is, so that one that is lost later is seen."""
        import torch.distributed as dist

        share_first(partial(self._make_room, draft))
        states: list[Any] = [None] * self._ranks.world
        dist.all_gather_object(states, _rng())
        engine.save_checkpoint(
            str(draft), RANKS, client_state={"rng": states}, save_latest=False
        )
        sizes = share_errors(partial(_bring_to_disk, draft))
        gathered: list[Any] = [None] * self._ranks.world
        dist.all_gather_object(gathered, sizes)  # nobody is past it before all are here
        self._files = {
            name: max(seen.get(name, 0) for seen in gathered)
            for name in sorted({name for seen in gathered for name in seen})
        }

    def _make_room(self, draft: Path) -> None:
        # in a group's workspace, too: others' states are not loaded
        ownership.make_private_folder(self._root)
        ownership.make_private_folder(draft)

    def _publish(
        self, draft: Path, step: int, ids: str, loss: float | None, started: float
    ) -> None:
        """Makes a complete draft the run's newest state, in an order that survives a
        crash at any point.

        The journal is on disk first: a state must not be ahead of it. The draft is
        synced before its rename, the folder after it, and older states go last. Raises
        where a newer attempt has begun meanwhile; the draft then counts for nothing.

        `ids` is the digest of the training list so far, `started` when saving began, by
        the monotonic clock.
        """
        assert self._journal
        self._journal.commit()
        for script in draft.glob(f"*{SCRIPT}"):
            script.unlink()
        seconds = time.monotonic() - started
        write_saved_state(draft, self._describe(step, ids, loss, seconds))
        sync_to_disk(draft)
        attempts.check_attempt(self._run, self._attempt)
        final = self._root / str(step)
        if final.exists():
            self._discard(final)  # `choose` has passed it over
        draft.rename(final)
        sync_to_disk(self._root)
        for older in removal.list_step_folders(self._run.parent.parent, self._root):
            if int(older.name) < step:
                self._discard(older)

    def _discard(self, state: Path) -> None:
        if reason := removal.discard_folder(
            self._run.parent.parent, state, removal.IN_STATE
        ):
            logger.warning(f"a state is not removed: {reason}")

    def _describe(
        self, step: int, ids: str, loss: float | None, seconds: float
    ) -> SavedState:
        assert self._journal
        return SavedState(
            step=step,
            ids=ids,
            what=self._job.what,
            way=self._job.way,
            journal=self._journal.measure(),
            seconds=seconds,
            loss=loss,
            attempt=self._attempt.attempt,
            saved=attempts.now_ms(),
            versions=read_versions(),
            files=self._files,
        )


def _bring_to_disk(draft: Path) -> dict[str, int]:
    """Brings to the disk what this rank sees of a draft; the size of each file.

    On a network file system only who wrote a file can bring it to the disk, and sees how
    large it is; who that was is DeepSpeed's affair.
    """
    sizes: dict[str, int] = {}
    for path in draft.rglob("*"):
        sync_to_disk(path)
        if path.is_file() and path.suffix != SCRIPT:
            sizes[str(path.relative_to(draft))] = path.stat().st_size
    return sizes


def read_versions() -> dict[str, str]:
    """Of what a state is written and read with."""
    import importlib.metadata  # slow, and `zsg status` imports this module

    return {name: importlib.metadata.version(name) for name in ("torch", "deepspeed")}


def _rng() -> dict[str, Any]:
    import numpy as np
    import torch

    rng_states: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        rng_states["cuda"] = torch.cuda.get_rng_state()
    return rng_states


def _set_rng(state: dict[str, Any]) -> None:
    import numpy as np
    import torch

    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"])


def _reason(error: BaseException) -> str:
    return (
        str(error).strip().splitlines()[0]
        if str(error).strip()
        else type(error).__name__
    )
