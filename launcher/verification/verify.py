"""Verifies a run from its folder: every look at its records, then some of its steps
replayed and compared."""

import logging
from collections.abc import Callable
from pathlib import Path

from jobs.contract import job_file
from jobs.contract.folder import Workspace
from jobs.contract.journal_rows import MetricRow
from launcher.status import queries
from launcher.verification import record_checks, replay
from launcher.verification.evidence import Evidence, Row
from launcher.verification.finding import DIFFERS, Finding, NotChecked, run_check
from launcher.verification.journal_check import replayable_values
from launcher.verification.replay import Span, Start
from launcher.verification.replay_comparison import (
    Replayed,
    check_same_bits,
    compare_replay,
)
from launcher.workspace import extras
from zsg_core.errors import UserError

logger = logging.getLogger(__name__)


def verify_run(
    text: str,
    find_workspace: Callable[[], Workspace],
    steps: int,
    start: Start = replay.start_processes,
) -> list[Finding]:
    """What was found, with what differs first. `text`: a run's folder, or the unique
    prefix of its id in a workspace."""
    evidence = Evidence.of(_folder(text, find_workspace))
    replay_checks = ReplayChecks(evidence, steps, start)
    looks = [
        *record_checks.list_checks(evidence),
        ("replay", replay_checks.equal),
        ("same bits", replay_checks.same_bits),
    ]
    looks.append(("other steps", replay_checks.other_steps))
    if evidence.job.before:
        looks.append(("stages before", lambda: _stages_before(evidence)))
    return sorted(
        (run_check(*check_row) for check_row in looks),
        key=lambda check: check.verdict != DIFFERS,
    )


def _folder(text: str, find_workspace: Callable[[], Workspace]) -> Path:
    if job_file.has_job(Path(text)):
        return Path(text)
    item = queries.find_item(find_workspace(), text)
    if not item.startswith("runs/"):
        raise UserError(f"{text}: is no run, and zsg verify looks at runs")
    return find_workspace().root / item


class ReplayChecks:
    """The steps that are replayed when the first check asks for it; later checks ask
    what came of it."""

    def __init__(self, evidence: Evidence, steps: int, start: Start) -> None:
        self._evidence, self._steps, self._start = (
            evidence,
            steps,
            start,
        )
        self._over: Span | None = None
        self._replayed: Replayed | None = None

    def equal(self) -> str:
        """What is journalled comes out of a replay alike."""
        e = self._evidence
        if not self._steps:
            raise NotChecked("--steps 0: nothing is replayed")
        record_checks.base_folder(
            e
        )  # without it nothing is trained, and nothing said of it
        if why := extras.describe_missing(
            "a replay", ("torch", "transformers", "deepspeed"), "train"
        ):
            raise NotChecked(why)
        over = self._over = replay.choose_span(e, self._steps)
        started = replay.way_of_step(e, over.begin + 1)
        ranks = f"{started['world']} rank{'s' * (started['world'] > 1)} on {started['device']}"
        scope = f"steps {over.begin + 1}–{over.end} from {over.origin}, {ranks}"
        logger.info(
            f"replaying {scope}; this runs the code and loads the state beside the run"
            " (--steps 0: neither)"
        )
        self._replayed = replay.run_replay(e, over, self._start)
        recorded = {
            cell: value
            for cell, value in replayable_values(e.rows).items()
            if over.covers(cell[0])
        }
        return f"{scope}: {compare_replay(recorded, self._starts, self._replayed)}"

    def same_bits(self) -> str:
        """The last bits can be expected to be the same here."""
        if self._replayed is None:
            raise NotChecked("nothing was replayed")
        return check_same_bits(self._starts, self._replayed.start)

    def other_steps(self) -> str:
        """No step is left that was not replayed."""
        e, over = self._evidence, self._over
        trained = over.end - over.begin if over and self._replayed else 0
        if trained < e.last - e.first:
            raise NotChecked(
                f"{e.last - e.first - trained} of {e.last - e.first} were not replayed"
                " (--steps)"
            )
        return "none is left"

    @property
    def _starts(self) -> list[Row]:
        """What the attempts told that have journalled the steps."""
        e, over = self._evidence, self._over
        assert over
        attempts = {
            row.attempt
            for row in e.rows
            if isinstance(row, MetricRow) and over.covers(row.step)
        }
        return [start for start in e.starts if start["attempt"] in attempts]


def _stages_before(e: Evidence) -> str:
    raise NotChecked(
        f"they are runs of their own: {', '.join(f'zsg verify {run}' for run in e.job.before)}"
    )
