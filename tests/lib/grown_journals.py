"""Writes the folders of runs without training: journals that grow by attempts, killed
and resumed as a seed decides."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

from jobs.contract import attempt as attempts
from jobs.contract.attempt import Attempt
from jobs.contract.folder import Workspace, read_json, write_json
from jobs.contract.journal import GUEST, Journal
from tests.lib.job_records import write_job_file

RECIPE = {
    "schema": 1,
    "base": {"kind": "tiny"},
    "stages": [{"arrangement": {"order": "nft"}, "train": {"lr": 1e-3}}],
}
START = {"event": "start", "device": "cpu", "world": 1}


def write_job(work: Path, run: str) -> Path:
    """The folder of a run that has not begun."""
    made = {"corpus": "c", "arrangement": "a", "base": None}
    write_job_file(
        work / "runs" / run,
        run_id=run,
        paths={"workspace": str(work)},
        made=made,
        code={"zsg": "0"},
        stage_id="s",
    )
    return work / "runs" / run


def write_run(
    work: Path,
    run: str,
    attempts_rows: list[list[dict[str, Any]]],
    outcome: str | None = "done",
) -> None:
    """A run's folder with one journal per attempt, each row a dict of metrics for the next step."""
    folder = write_job(work, run)
    for rows in attempts_rows:
        attempt = attempts.begin_attempt(folder, "submission")
        journal = Journal(folder, attempt, "train", "s")
        journal.add_row("event", step=0, examples=0, data=START)
        for step, data in enumerate(rows):
            journal.add_row("metric", step=step, examples=step, data=data)
        journal.close()
    if outcome:
        attempts.end_attempt(folder, attempt, outcome)


def write_guest(
    work: Path, run: str, writer: int, rows: list[dict[str, Any]], first_step: int = 0
) -> None:
    """An evaluator's journal in a run's folder, each row a dict of metrics for the next step."""
    folder = work / "runs" / run
    attempt = Attempt(1, "evaluation", None, 0, f"guest {writer}", "node", 0)
    journal = Journal(folder, attempt, GUEST, "s", writer, fence=lambda: None)
    for step, data in enumerate(rows, start=first_step):
        journal.add_row("metric", step=step, examples=step, data=data)
    journal.close()


def write_grid(
    work: Path, name: str, runs: list[str], tracking: str | None = None
) -> None:
    """The record of a submitted grid."""
    rows = [
        {"run": run, "axes": {"train.lr": number}, "recipe": RECIPE, "model": "tiny"}
        for number, run in enumerate(runs)
    ]
    write_json(
        Workspace(work).grid(name) / "grid.json",
        {"name": name, "tracking": tracking, "runs": rows},
    )


class GrowingRun:
    """A run whose attempts go some steps and are killed, and whose next goes on from a
    saved step before."""

    def __init__(self, work: Path, run: str, steps: int, chance: random.Random) -> None:
        self.folder, self.steps, self._chance = write_job(work, run), steps, chance
        self._saved = 0

    @property
    def is_done(self) -> bool:
        """Whether it has come to its end."""
        return (read_json(self.folder / "exit.json") or {}).get("outcome") == "done"

    def attempt(self) -> None:
        """One attempt: to the end, or killed, if so perhaps in the middle of a row."""
        attempt = attempts.begin_attempt(self.folder, "submission")
        journal = Journal(self.folder, attempt, "train", "s")
        journal.rewind(step=self._saved, examples=self._saved)
        journal.add_row("event", step=self._saved, examples=self._saved, data=START)
        last = min(self.steps, self._saved + self._chance.randint(1, self.steps))
        for step in range(self._saved + (self._saved > 0), last + 1):
            journal.add_row(
                "metric",
                step=step,
                examples=step,
                data={"train/loss": value(step, 1), "train/lr": 1e-3},
            )
            if step % 5 == 0:
                data = {
                    f"loss{part}": value(step, number)
                    for number, part in enumerate(("", "_token_mean", "/gsm"))
                }
                journal.add_row("metric", step=step, examples=step, data=data)
                journal.commit()
        journal.close()
        if last == self.steps:
            attempts.end_attempt(self.folder, attempt, "done")
            return
        path = self.folder / "journal" / f"{attempt.attempt}-train-0.jsonl"
        os.truncate(path, path.stat().st_size - self._chance.choice([0, 0, 1, 17]))
        self._saved = self._chance.randint(self._saved, last)


def value(step: int, number: int) -> float:
    """What a step computes, the same whenever it is computed."""
    return float("nan") if step == 3 and number == 1 else 1 / (1 + step) + number
