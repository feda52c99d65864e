"""Reads what the prepare jobs found in the data of a grid: what whoever reads its
numbers must know.

Contamination, rows passed over, keys left out, empty answers: a prepare job says them
in its log and keeps them with the corpus. Here they are read for plan, submit, status
and report. Light: one small file for each corpus that has any.
"""

from collections.abc import Iterable

from jobs.contract.folder import NOTES, Workspace
from jobs.contract.prepared import read_corpus_notes
from launcher.status.status_view import Row

MOST = 20


def of_corpora(
    workspace: Workspace, corpora: Iterable[str], of_runs: Iterable[str] = ()
) -> list[str]:
    """The notes of runs, then those of corpora, each once, in their order; of very many
    the first, and how many more there are."""
    notes_once = dict.fromkeys(of_runs)
    for corpus in dict.fromkeys(corpora):
        notes_once |= dict.fromkeys(read_corpus_notes(workspace.corpus(corpus)))
    return _limit_notes(list(notes_once))


def of_rows(rows: Iterable[Row]) -> list[str]:
    """The notes of runs in rows of status, each once."""
    return list(dict.fromkeys(note for row in rows for note in row["notes"]))


def _limit_notes(notes: list[str]) -> list[str]:
    """The notes; of very many the first, and how many more there are."""
    overflow = (
        [f"and {len(notes) - MOST} more; those of corpora stand in corpora/*/{NOTES}"]
        if len(notes) > MOST
        else []
    )
    return notes[:MOST] + overflow
