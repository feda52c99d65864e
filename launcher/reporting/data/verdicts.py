"""Decides the claims of a submitted grid, as its file said when it was last submitted, and
says which were not fixed before results."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from jobs.contract.folder import Workspace
from jobs.contract.grid_record import GridRecord
from jobs.deciding import judged_claims
from jobs.deciding.judged_claims import JudgedClaim
from launcher.grids import grid_claims
from launcher.workspace import recorded_grids, yaml_file
from zsg_core.settings.claims import Claim
from zsg_core.settings.looks import Looks


def judge_grid(workspace: Workspace, name: str) -> list[JudgedClaim]:
    """The verdicts of a grid, claim by claim, as its file said when it was last
    submitted; none without claims.

    UserError if there is no such grid.
    """
    record = recorded_grids.read_grid(workspace, name)
    file = workspace.grid(record.name) / "grid.yaml"
    if not file.is_file():
        return []
    document = yaml_file.load_document(file)
    rows = record.runs
    stages = max((len(row.recipe["stages"]) for row in rows), default=0)
    claims = grid_claims.read_claims(document, None, lambda: stages)
    looks = grid_claims.read_looks(document, None)
    return _judge_claims(workspace, record, claims, looks)


def judge_question(
    workspace: Workspace, name: str, question: Mapping[str, Any]
) -> list[JudgedClaim]:
    """The verdicts of a comparison that is no claim of the grid, with the keys of one.

    UserError if there is no such grid, or no run has the axis or a value of it.
    """
    record = recorded_grids.read_grid(workspace, name)
    claim = grid_claims.read_question(question, [row.axes for row in record.runs])
    return _judge_claims(workspace, record, [claim])


def _judge_claims(
    workspace: Workspace,
    record: GridRecord,
    claims: Sequence[Claim],
    looks: Looks | None = None,
) -> list[JudgedClaim]:
    """The verdicts of claims on a grid's runs, claim by claim, with what makes one
    doubtful."""
    return [
        _with_doubt(judged, grid_claims.find_doubt(judged.claim, record.claims))
        for judged in judged_claims.judge_claims(workspace, record, claims, looks)
    ]


def _with_doubt(judged: JudgedClaim, doubt: str | None) -> JudgedClaim:
    """The verdict with what makes it doubtful among its notes; as it is where nothing does."""
    return (
        replace(
            judged,
            verdict=replace(judged.verdict, notes=[*judged.verdict.notes, doubt]),
        )
        if doubt
        else judged
    )
