"""Gives keys of their own to metrics that an older zsg took otherwise, so that they are
taken anew and never mixed.

A key is of one way of being taken only. Where a run of a grid has values that an older
zsg took, and zsg itself takes them otherwise now, all runs of the grid get the metric
under a new name, as if the grid had given one: `gsm8k/strict/v2`, or `v3` where values
of that name are older, too. The old values stay under the old key. Where the user's own
settings differ, nothing is named: that is the user's to say (see
launcher.evaluation.evaluation_plan).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from jobs.contract import evaluations, journal
from jobs.contract.folder import Damaged, Unreadable, Workspace
from launcher.grids.runs import Run
from launcher.workspace.run_folders import list_names
from zsg_core.metrics.keys import INSIDE
from zsg_core.metrics.metrics import RANK_ACCURACY, TEST_SET
from zsg_core.settings.checkpoints import CheckpointSettings
from zsg_core.suites import SINCE, is_older_way

MOST_VERSIONS = 100


def name_older_metrics(
    workspace: Workspace, runs: Sequence[Run]
) -> tuple[list[Run], list[str]]:
    """The runs, with keys of their own for what an older zsg took otherwise of any of
    them; notes that say which."""
    recorded = _collect_ways(workspace, runs)
    if not recorded:
        return list(runs), []
    notes = _describe_untold(runs, recorded)
    older = _collect_older_keys(runs, recorded)
    versions: dict[str, int] = {}
    named, taken = list(runs), older
    # what was taken under such a name may be an older zsg's, too
    while taken and max(versions.values(), default=0) < MOST_VERSIONS:
        versions |= {suite: versions.get(suite, 1) + 1 for suite in taken}
        named = [_with_names(run, versions) for run in runs]
        taken = _collect_older_keys(named, recorded)
    notes += [
        f"{' and '.join(keys)} {'was' if len(keys) == 1 else 'were'} taken by an older zsg in"
        " another way; its values stay, and what is taken from now on, of all runs, has the name"
        f" v{versions[suite]}: {_renamed(next(iter(keys)), versions[suite])}"
        for suite, keys in older.items()
    ]
    return named, list(dict.fromkeys(notes))


@dataclass(frozen=True)
class RecordedWays:
    """How a run's keys were taken. Of a journal with rows that cannot be read
    (`trouble`): what the others tell, and the keys with values of which none tells."""

    ways: Mapping[str, dict[str, Any]] = field(
        default_factory=dict[str, dict[str, Any]]
    )
    untold: Collection[str] = ()
    trouble: str | None = None


def _collect_ways(workspace: Workspace, runs: Iterable[Run]) -> dict[str, RecordedWays]:
    """How keys were taken, by run or stage; of those that evaluators have written of."""
    recorded: dict[str, RecordedWays] = {}
    names = list_names(workspace.root / "runs")
    for run in runs:
        for stage in [*run.all_before, run]:
            if not stage.scored or stage.id in recorded:
                continue
            if names is not None and stage.id not in names:
                continue
            ways = _read_ways(workspace.run(stage.id))
            if ways is not None:
                recorded[stage.id] = ways
    return recorded


def _read_ways(folder: Path) -> RecordedWays | None:
    """None where no evaluator has written."""
    try:
        if not journal.guest_files(folder):
            return None
        return RecordedWays(evaluations.collect_key_ways(folder))
    except Unreadable as error:
        return RecordedWays(trouble=str(error))
    except Damaged as error:
        sound = evaluations.collect_sound_key_ways(folder)
        return RecordedWays(sound.ways, sound.untold, str(error))


def _collect_older_keys(
    runs: Iterable[Run], recorded: Mapping[str, RecordedWays]
) -> dict[str, dict[str, None]]:
    """By suite, the keys that an older zsg took otherwise of any of the runs, in order."""
    older: dict[str, dict[str, None]] = {}
    for run in runs:
        for stage in [*run.all_before, run]:
            if stage.id not in recorded:
                continue
            for suite, keys in _find_older_keys(stage, recorded[stage.id]).items():
                older.setdefault(suite, {}).update(dict.fromkeys(keys))
    return older


def _describe_untold(
    runs: Iterable[Run], recorded: Mapping[str, RecordedWays]
) -> list[str]:
    """The keys of which a damaged journal does not tell how they were taken."""
    notes: list[str] = []
    for run in runs:
        for stage in [*run.all_before, run]:
            if stage.id not in recorded:
                continue
            if untold := _find_untold_keys(stage, recorded[stage.id]):
                notes.append(
                    f"{recorded[stage.id].trouble}: how {' and '.join(untold)} of {stage.id} was"
                    " taken cannot be read, so it counts as taken by an older zsg"
                )
    return notes


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
            if may_be or is_older_way(way, settings):
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


def _with_names(run: Run, versions: Mapping[str, int]) -> Run:
    """The run, and those before it, with names for what is of a version."""
    before = _with_names(run.before, versions) if run.before else None
    checkpoints = _settings(run.checkpoints, versions)
    return replace(run, before=before, checkpoints=checkpoints)


def _settings(
    checkpoints: CheckpointSettings, versions: Mapping[str, int]
) -> CheckpointSettings:
    """The settings as if the grid had named those suites."""
    changed: dict[str, Any] = {}
    suites: dict[str, Any] = {}
    for name, version in versions.items():
        if name == TEST_SET:
            changed["generation"] = _with_name(checkpoints.generation, version)
        elif name == RANK_ACCURACY:
            changed["rank_accuracy"] = _with_name(checkpoints.rank_accuracy, version)
        elif checkpoints.suites.find_benchmark(name) is not None:
            benchmark = checkpoints.suites.find_benchmark(name)
            suites[name] = _with_name(benchmark, version)
    if suites:
        changed["suites"] = checkpoints.suites.model_copy(update=suites)
    return checkpoints.model_copy(update=changed)


def _with_name(settings: Any, version: int) -> Any:
    """The settings of a suite, with the version behind the user's own name."""
    name = f"{settings.name}-v{version}" if settings.name else f"v{version}"
    return settings.model_copy(update={"name": name})


def _renamed(key: str, version: int) -> str:
    return f"{key}/v{version}"
