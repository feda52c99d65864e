"""Collects a run's metadata for MLflow, all that is no metric: its params, tags and
datasets. Knows files, not MLflow.

What decides a run's numbers is a parameter; facts of its attempts are tags, for a
parameter can never change.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jobs.contract import exit_record, job_file, journal, journal_rows, stages
from jobs.contract.exit_record import replace_unset
from jobs.contract.folder import META, Damaged, Workspace, read_json
from jobs.contract.job_file import MadeThings, TrainJob
from jobs.contract.journal_rows import AnswersKept, EventRow, InsideTaken, Start
from jobs.contract.states import Outcome, State
from zsg_core import recipe as recipes
from zsg_core.shown_text import format_value

Row = Mapping[str, Any]
MOST_VERSIONS = 10
MOST_SOURCES = 20
MOST_KEYS, MOST_OF_SOURCES = 100, 60
NAMED_KEYS = 20
MOST_FLAGS = 5
_COUNTS = re.compile(r"[0-9]+|'.*'")  # by which flags of one kind differ


class DataSet(NamedTuple):
    """A data set by name and digest; `context` says what the run used it for, `source`
    where in a workspace it is.

    MLflow keeps one row of it for all runs, and its first source for ever, wherever the
    workspace is moved.
    """

    name: str
    digest: str
    context: str
    source: str


def name_of(row: Row) -> str:
    """How MLflow's tables name a run: by what varies."""
    return (
        " ".join(
            f"{key.split('.')[-1]}={format_value(value)}"
            for key, value in row["axes"].items()
        )
        or row["run"]
    )


def flatten_params(row: Row) -> dict[str, str]:
    """What varies first, under the names of the grid file; then the recipe, flattened."""
    named = {key: format_value(value) for key, value in row["axes"].items()} | {
        "model.name": row["model"]
    }
    first, *others = row["recipe"]["stages"]
    later = {f"stage{number}": stage for number, stage in enumerate(others, start=2)}
    for key, value in _flat({**first, **later, "base": row["recipe"]["base"]}):
        named.setdefault(key, format_value(value))
    return named


def read_run_state(folders: Sequence[Path], disagree: Sequence[str]) -> dict[str, str]:
    """How far a run is whose stages are in `folders`: state, attempt, the scheduler's
    ids, its end, a flag."""
    attempt, record = stages.read_newest_stage(folders)
    told = {"state": str(State.RUNNING)}
    told |= {
        key: str(getattr(attempt, key, None))
        for key in ("attempt", "host", "slurm_job_id", "restart_count")
    }
    if record:
        if record.outcome != Outcome.CONTINUE:
            told["state"] = str(record.outcome)
        told["ended"] = str(record.ended)
        why = {
            key: replace_unset(getattr(record, key))
            for key in ("cause", "evidence", "digest", "skipped")
        }
        told |= {key: str(value) for key, value in why.items() if value}
    if disagree:
        told["flag"] = (
            f"a restart computed other values ({len(disagree)}): {disagree[0]}"
        )
    return told


def collect_doubts(rows: Iterable[journal_rows.Row]) -> dict[str, str]:
    """What evaluators found strange in scores, as a tag; `rows` of all writers of a run's journals.

    Of several kinds, as answers that were cut and scores that are all 0, the first of each is told.
    """
    told = [
        (row.step, flag)
        for row in rows
        if isinstance(row, EventRow) and isinstance(row.data, AnswersKept | InsideTaken)
        for flag in row.data.flags
    ]
    if not told:
        return {}
    kinds: dict[str, tuple[int, str]] = {}
    for step, flag in told:
        kinds.setdefault(_COUNTS.sub("", flag), (step, flag))
    steps = len({step for step, _ in told})
    first, *others = [
        f"step {step}: {flag}" for step, flag in list(kinds.values())[:MOST_FLAGS]
    ]
    return {
        "scores_flag": "; ".join(
            [f"at {steps} checkpoint{'s' * (steps > 1)}; the first, {first}", *others]
        )
    }


def collect_facts(
    folder: Path, row: Row, starts: Sequence[tuple[EventRow, Start]]
) -> dict[str, str]:
    """Strategy, order, the digests, the code and the machines behind a run; `starts`
    are those of its journal.

    What is not known, as of things that were removed since, is not there: MLflow keeps
    what it was told before.
    """
    job = _submitted(folder)
    workspace, made = workspace_of(folder), job.made
    corpus = _corpus(workspace, made)
    # The values that count are the first attempt's, and so is the code that computed them.
    first = starts[0][1] if starts else Start()
    told = {
        f"code.{key}": str(value)
        for key, value in (replace_unset(first.code) or job.code.facts).items()
    }
    told |= {
        f"version.{key}": str(value)
        for key, value in list(replace_unset(first.versions, {}).items())[
            :MOST_VERSIONS
        ]
    }
    told |= {
        "order": " → ".join(
            stage["arrangement"]["order"] for stage in row["recipe"]["stages"]
        )
    }
    told |= {"strategy": str(row.get("strategy"))} if row.get("strategy") else {}
    told |= {
        "arrangement": made.arrangement,
        "corpus": made.corpus,
        "stage": job.stage_id,
    }
    digests = {
        "arrangement.ids_digest": _arrangement(workspace, made).get("ids_digest")
    }
    digests |= {key: corpus.get(key) for key in ("train_digest", "test_digest")}
    sources = _sources(row["recipe"]["stages"][-1])
    told |= {
        f"data.digest{name and '.'}{name}": digest
        for name, digest in list(sources.items())[:MOST_SOURCES]
    }
    told |= {"attempts": _attempts(starts)} if starts else {}
    if made.base:
        base = read_json(workspace.base(made.base) / META) or {}
        told |= {"base": made.base}
        digests |= {"base.digest": base.get("digest")}
    return told | {key: str(digest) for key, digest in digests.items() if digest}


def _submitted(folder: Path) -> TrainJob:
    """A run's job. Damaged where there is none."""
    job = job_file.read_train_job(folder)
    if job is None:
        raise Damaged(f"{job_file.job_path(folder)}: not found; zsg submit writes it")
    return job


def workspace_of(folder: Path) -> Workspace:
    """The workspace that a run's folder lies in by now; job.json names the one in which
    it was submitted."""
    return Workspace(folder.absolute().parent.parent)


def data_sets(folders: Sequence[Path]) -> list[DataSet]:
    """What a run is trained on in each stage and tested on, by zsg's own digests; none
    before prepare has made it."""
    found: list[DataSet] = []
    for folder in folders:
        workspace, made = workspace_of(folder), _submitted(folder).made
        if digest := _arrangement(workspace, made).get("ids_digest"):
            place = workspace.arrangement(made.arrangement).relative_to(workspace.root)
            found.append(
                DataSet(
                    f"arrangement {made.arrangement}", digest, "training", str(place)
                )
            )
        # which all stages share
        if folder == folders[-1] and (
            digest := _corpus(workspace, made).get("test_digest")
        ):
            place = workspace.corpus(made.corpus).relative_to(workspace.root)
            found.append(
                DataSet(f"test set of {made.corpus}", digest, "testing", str(place))
            )
    return list(dict.fromkeys(found))


def kept_snapshots(folder: Path) -> list[int]:
    """The steps of the snapshots that a run that has ended has kept, if its grid asked for any."""
    record = exit_record.read_exit_record(folder)
    return (
        [one["step"] for one in replace_unset(record.snapshots, []) if one["kept"]]
        if record
        else []
    )


class Keys:
    """Which metric keys MLflow is told: at most so many of a run, since its pages stand
    still beyond.

    Keys of single sources (`loss/NAME`) are the many; each is decided on when it first
    comes, and for ever.
    """

    def __init__(self) -> None:
        self._kept: dict[str, bool] = {}

    def keeps(self, key: str) -> bool:
        """Whether points of this key are sent."""
        if key not in self._kept:
            kept = [one for one, is_kept in self._kept.items() if is_kept]
            room = len(kept) < MOST_KEYS
            if _of_source(key):
                room = room and sum(map(_of_source, kept)) < MOST_OF_SOURCES
            self._kept[key] = room
        return self._kept[key]

    def left_out(self) -> dict[str, str]:
        """The tag that says which keys are not sent; none where all are."""
        keys = [key for key, is_kept in self._kept.items() if not is_kept]
        first = ", ".join(keys[:NAMED_KEYS]) + (", …" if len(keys) > NAMED_KEYS else "")
        return (
            {"keys_left_out": f"{len(keys)}, which zsg export has: {first}"}
            if keys
            else {}
        )


def _of_source(key: str) -> bool:
    return "/" in key and not key.startswith(("train/", journal.SPEED))


def _attempts(starts: Sequence[tuple[EventRow, Start]]) -> str:
    """Each attempt's start, step, Slurm job and nodes, the newest last."""
    told: list[str] = []
    for row, start in starts:
        names = (replace_unset(start.slurm_job_id), replace_unset(start.nodes))
        where = " ".join(name for name in names if name)
        from_step = replace_unset(start.from_step, 0)
        told.append(f"{row.attempt}: from step {from_step}{where and ' in '}{where}")
    return "; ".join(told)[-4000:]


def _sources(stage: Row) -> dict[str, str]:
    found = recipes.list_sources(stage["data"]) if "data" in stage else {}
    return {
        name: source["digest"] for name, source in found.items() if "digest" in source
    }


def _arrangement(workspace: Workspace, made: MadeThings) -> dict[str, Any]:
    return read_json(workspace.arrangement(made.arrangement) / META) or {}


def _corpus(workspace: Workspace, made: MadeThings) -> dict[str, Any]:
    return _arrangement(workspace, made).get("sources", {}).get("corpus_meta", {})


def _flat(tree: Row, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
