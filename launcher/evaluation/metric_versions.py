"""Gives keys of their own to metrics that an older zsg took otherwise, so that they are
taken anew and never mixed.

A key is of one way of being taken only. Where a run of a grid has values that an older
zsg took, and zsg itself takes them otherwise now, all runs of the grid get the metric
under a new name, as if the grid had given one: `gsm8k/strict/v2`. The old values stay
under the old key. Where the user's own settings differ, nothing is named: that is the
user's to say (see launcher.evaluation.evaluation_plan).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from jobs.contract import evaluations, journal
from jobs.contract.folder import Damaged, Workspace
from launcher.grids.runs import Run
from zsg_core.metrics.keys import INSIDE
from zsg_core.metrics.metrics import RANK_ACCURACY, TEST_SET
from zsg_core.settings.checkpoints import CheckpointSettings
from zsg_core.suites import SINCE

NAME = "v2"

Ways = Mapping[str, dict[str, Any]]


def name_older_metrics(
    workspace: Workspace, runs: Sequence[Run]
) -> tuple[list[Run], list[str]]:
    """The runs, with keys of their own for what an older zsg took otherwise of any of
    them; notes that say which."""
    older: dict[str, dict[str, None]] = {}
    for run in runs:
        for stage in [*run.all_before, run]:
            for suite, keys in _older(stage, _ways(workspace, stage)).items():
                older.setdefault(suite, {}).update(dict.fromkeys(keys))
    if not older:
        return list(runs), []
    notes = [
        f"{' and '.join(keys)} {'was' if len(keys) == 1 else 'were'} taken by an older zsg in"
        " another way; its values stay, and what is taken from now on, of all runs, has the name"
        f" {NAME}: {_renamed(next(iter(keys)))}"
        for keys in map(list, older.values())
    ]
    return [_with_names(run, older) for run in runs], notes


def _ways(workspace: Workspace, run: Run) -> Ways:
    """How a run's keys were taken; nothing of one whose journal cannot be read, of
    which the plan tells."""
    folder = workspace.run(run.id)
    has_any = bool(run.checkpoints.scored) and bool(journal.guest_files(folder))
    try:
        return evaluations.collect_key_ways(folder) if has_any else {}
    except Damaged:
        return {}


def _older(run: Run, recorded: Ways) -> dict[str, list[str]]:
    """The keys, by suite, that were taken as now but for what zsg has since come to do
    otherwise."""
    older_keys: dict[str, list[str]] = {}
    for suite in run.suites:
        for key in suite.keys:
            settings = suite.find_definition(key)
            without = {
                name: value for name, value in settings.items() if name not in SINCE
            }
            if (
                key in recorded
                and recorded[key] != settings
                and recorded[key] == without
            ):
                name = key.partition("/")[0] if suite.name == INSIDE else suite.name
                older_keys.setdefault(name, []).append(key)
    return older_keys


def _with_names(run: Run, older: Iterable[str]) -> Run:
    before = _with_names(run.before, older) if run.before else None
    return replace(run, before=before, checkpoints=_settings(run.checkpoints, older))


def _settings(
    checkpoints: CheckpointSettings, older: Iterable[str]
) -> CheckpointSettings:
    """The settings as if the grid had named those suites."""
    changed: dict[str, Any] = {}
    suites = {}
    for name in older:
        if name == TEST_SET:
            changed["generation"] = _with_name(checkpoints.generation)
        elif name == RANK_ACCURACY:
            changed["rank_accuracy"] = _with_name(checkpoints.rank_accuracy)
        elif checkpoints.suites.find_benchmark(name) is not None:
            suites[name] = _with_name(checkpoints.suites.find_benchmark(name))
    if suites:
        changed["suites"] = checkpoints.suites.model_copy(update=suites)
    return checkpoints.model_copy(update=changed)


def _with_name(settings: Any) -> Any:
    return settings.model_copy(
        update={"name": f"{settings.name}-{NAME}" if settings.name else NAME}
    )


def _renamed(key: str) -> str:
    return f"{key}/{NAME}"
