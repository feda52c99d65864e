"""Gives keys of their own to metrics that an older zsg took otherwise, so that they are
taken anew and never mixed.

A key is of one way of being taken only. Where a run of a grid has values that an older
zsg took, and zsg itself takes them otherwise now, all runs of the grid get the metric
under a new name, as if the grid had given one: `gsm8k/strict/v2`. The old values stay
under the old key. Where the user's own settings differ, nothing is named: that is the
user's to say (see launcher.evaluation.evaluation_plan).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from jobs.contract import evaluations, journal
from jobs.contract.folder import Damaged, Workspace
from launcher.grids.runs import Run
from zsg_core.metrics.keys import INSIDE
from zsg_core.metrics.metrics import RANK_ACCURACY, TEST_SET
from zsg_core.settings.checkpoints import CheckpointSettings
from zsg_core.suites import SINCE

NAME = "v2"


def name_older_metrics(
    workspace: Workspace, runs: Sequence[Run]
) -> tuple[list[Run], list[str]]:
    """The runs, with keys of their own for what an older zsg took otherwise of any of
    them; notes that say which."""
    older: dict[str, dict[str, None]] = {}
    notes: list[str] = []
    for run in runs:
        for stage in [*run.all_before, run]:
            recorded = _read_ways(workspace, stage)
            for suite, keys in _find_older_keys(stage, recorded).items():
                older.setdefault(suite, {}).update(dict.fromkeys(keys))
            if untold := _find_untold_keys(stage, recorded):
                notes.append(
                    f"{recorded.trouble}: how {' and '.join(untold)} of {stage.id} was taken"
                    " cannot be read, so it counts as taken by an older zsg"
                )
    if not older:
        return list(runs), []
    notes += [
        f"{' and '.join(keys)} {'was' if len(keys) == 1 else 'were'} taken by an older zsg in"
        " another way; its values stay, and what is taken from now on, of all runs, has the name"
        f" {NAME}: {_renamed(next(iter(keys)))}"
        for keys in map(list, older.values())
    ]
    return [_with_names(run, older) for run in runs], list(dict.fromkeys(notes))


@dataclass(frozen=True)
class RecordedWays:
    """How a run's keys were taken. Of a journal with rows that cannot be read
    (`trouble`): what the others tell, and the keys with values of which none tells."""

    ways: Mapping[str, dict[str, Any]] = field(
        default_factory=dict[str, dict[str, Any]]
    )
    untold: Collection[str] = ()
    trouble: str | None = None


def _read_ways(workspace: Workspace, run: Run) -> RecordedWays:
    folder = workspace.run(run.id)
    if not run.checkpoints.scored or not journal.guest_files(folder):
        return RecordedWays()
    try:
        return RecordedWays(evaluations.collect_key_ways(folder))
    except Damaged as error:
        sound = evaluations.collect_sound_key_ways(folder)
        return RecordedWays(sound.ways, sound.untold, str(error))


def _find_older_keys(run: Run, recorded: RecordedWays) -> dict[str, list[str]]:
    """The keys, by suite, that were taken as now but for what zsg has since come to do
    otherwise, and those that may have been."""
    older_keys: dict[str, list[str]] = {}
    for suite in run.suites:
        for key in suite.keys:
            settings = suite.find_definition(key)
            without = _strip_later_settings(settings)
            way = recorded.ways.get(key, settings)
            may_be = key in recorded.untold and without != settings
            if may_be or (way != settings and way == without):
                name = key.partition("/")[0] if suite.name == INSIDE else suite.name
                older_keys.setdefault(name, []).append(key)
    return older_keys


def _find_untold_keys(run: Run, recorded: RecordedWays) -> list[str]:
    """The keys with values that may have been taken otherwise: no readable row tells."""
    return [
        key
        for suite in run.suites
        for key in suite.keys
        if key in recorded.untold
        and _strip_later_settings(suite.find_definition(key))
        != suite.find_definition(key)
    ]


def _strip_later_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings without what zsg has come to do otherwise since e79a027."""
    return {name: value for name, value in settings.items() if name not in SINCE}


def _with_names(run: Run, older: Iterable[str]) -> Run:
    before = _with_names(run.before, older) if run.before else None
    return replace(run, before=before, checkpoints=_settings(run.checkpoints, older))


def _settings(
    checkpoints: CheckpointSettings, older: Iterable[str]
) -> CheckpointSettings:
    """The settings as if the grid had named those suites."""
    changed: dict[str, Any] = {}
    suites: dict[str, Any] = {}
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
