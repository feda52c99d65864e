"""Looks whether what a train job needs has been made, before any engine is loaded, and
says who did not make it; and whether the proof of its model lets it be trained.

A train job may wait for the ends of many prepare jobs, not all of them its own: that
they ended says nothing.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from msgspec import UNSET

from jobs.contract import exit_record, model_proof
from jobs.contract.causes import Cause, Known
from jobs.contract.folder import Workspace, find_damage, is_committed, is_whole
from jobs.contract.job_file import TrainJob
from jobs.contract.states import Outcome


def check_prerequisites(job: TrainJob) -> None:
    """Raises Known, the cause, if corpus, order or weights are missing or half made,
    with what their maker said; or if a proof tells that its examples cannot meet."""
    workspace = job.workspace
    _refuse_unproven(workspace, job)
    missing = [
        folder for folder in _list_prerequisites(workspace, job) if not is_whole(folder)
    ]
    if not missing:
        return
    _refuse_damaged(workspace, missing)
    names = ", ".join(str(folder.relative_to(workspace.root)) for folder in missing)
    culprit = _find_culprit(workspace, job.after)
    if culprit is None:
        raise Known(
            Cause.PREPARE_FAILED,
            f"{names} is not there: no job that makes it has ended yet; submit again when it has",
        )
    item, why = culprit
    is_stage = item.startswith("runs/")
    raise Known(
        Cause.STAGE_FAILED if is_stage else Cause.PREPARE_FAILED,
        f"{names} is not there: {item}: {why}",
    )


def _refuse_unproven(workspace: Workspace, job: TrainJob) -> None:
    """Raises Known where the model's proof, with the versions that are installed here,
    refuses it or is of shorter texts. Where there is none, training makes it."""
    versions = model_proof.read_proof_versions()
    if job.proof is UNSET or versions is None:
        return
    proof = model_proof.read_proof(workspace, job.proof, versions)
    why = proof.find_refusal(job.train["max_length"]) if proof else None
    if why is not None:
        name = model_proof.name_proof(job.proof)
        raise Known(Cause.PREPARE_FAILED, f"{name} of {job.base_folder}: {why}")


def _refuse_damaged(workspace: Workspace, folders: Iterable[Path]) -> None:
    """Raises Known for the first of these that was made and has lost files since."""
    for folder in folders:
        if is_committed(folder):
            raise Known(
                Cause.PREPARE_FAILED,
                f"{folder.relative_to(workspace.root)} is not whole any more:"
                f" {find_damage(folder)}; zsg retry makes it again",
            )


def _list_prerequisites(workspace: Workspace, job: TrainJob) -> Iterator[Path]:
    """The folders that must be there before the job can train."""
    ids = job.made
    yield workspace.corpus(ids.corpus)
    yield workspace.arrangement(ids.arrangement)
    if ids.base or job.before:
        yield job.base_folder


def _find_culprit(workspace: Workspace, items: Iterable[str]) -> tuple[str, str] | None:
    """The first of the jobs waited for that has failed, and why; None if none has."""
    for item in items:
        if why := _explain_failure(workspace.root / item):
            return item, why
    return None


def _explain_failure(folder: Path) -> str:
    """How a job ended badly, in its own words; empty where it has not, or has not said."""
    record = exit_record.read_exit_record(folder)
    return "" if record is None or record.outcome == Outcome.DONE else record.why
