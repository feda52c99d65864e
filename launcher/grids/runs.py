"""Turns a grid's points into runs: resolved recipes with ids, equal ones merged, files named."""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from jobs.contract import model_proof
from jobs.contract.folder import CHAT_TRIALS, SCORES, get_object, read_json
from jobs.preparing.source_files import SourceFiles
from launcher.clusters.profiles import JobSize, Profile
from launcher.grids import harness_tasks, inputs
from launcher.grids.grid import Grid, Point
from launcher.grids.grid_blocks import Label
from zsg_core import recipe as recipes
from zsg_core import suites
from zsg_core.by_object import ByObject
from zsg_core.orders import order_list
from zsg_core.orders.order_list import ListFile
from zsg_core.recipe import InputDigests, Recipe, RecipeIds, RecipeMaker
from zsg_core.settings.checkpoints import CheckpointSettings
from zsg_core.settings.makers import AskedSettings, MakeSettings
from zsg_core.settings.run import ResourceSettings, Settings
from zsg_core.settings.strategy import StrategySettings
from zsg_core.suites import Suite, SuiteFile


@dataclass(frozen=True)
class Asked:
    """Who makes the examples of a source: a server, the model of a folder, or with
    neither the run's own. `make`: how; `embedder`: by which model meanings are
    compared, if they are."""

    make: MakeSettings
    folder: Path | None = None
    embedder: Path | None = None

    @property
    def server(self) -> AskedSettings | None:
        """The server that is asked, if one is."""
        return self.make.by if self.make.is_on_server else None

    @property
    def is_own_model(self) -> bool:
        """Whether the model that is trained is asked."""
        return self.folder is None and self.server is None


@dataclass(frozen=True, kw_only=True)
class Run:
    """One fully resolved point of a grid. The ids of what it needs are derived from its recipe.

    Of several stages a run trains the last; `before` is the run of the stages before
    it, whose weights it starts from and which all runs that begin alike share.
    """

    id: str
    recipe: Recipe
    axes: dict[str, Any]
    checkpoints: CheckpointSettings
    size: JobSize
    sources: Mapping[str, SourceFiles]
    base: Path | None
    embedding: Path | None
    order_file: ListFile | None = None
    # the users' models that score for its order, the later and the earlier one
    scorer: Path | None = None
    since: Path | None = None
    # the files of the target set that its order looks at
    target: Path | None = None
    before: "Run | None" = None
    strategy: str = ""
    evaluators: int = 1
    suite_files: Mapping[str, SuiteFile] = field(default_factory=dict[str, SuiteFile])
    # by which digest it is known how examples of its base may meet (jobs.contract.model_proof),
    # where that must be proven
    proof: str | None = None
    # ids at which its base says that an answer is over, beside its tokenizer's EOS
    ends: tuple[int, ...] = ()
    # the texts between which its base thinks, as its tokenizer has tokens for them
    reasoning: tuple[str, str] | None = None
    # by source, who makes its examples, where a maker does
    asked: Mapping[str, Asked] = field(default_factory=dict[str, Asked])
    # shared by the runs of a grid
    ids: RecipeIds = field(default_factory=RecipeIds, compare=False, repr=False)

    @cached_property
    def corpus_id(self) -> str:
        return self.ids.find_corpus_id(self.recipe)

    @cached_property
    def arrangement_id(self) -> str:
        return self.ids.find_arrangement_id(self.recipe)

    @cached_property
    def base_id(self) -> str | None:
        return self.ids.find_base_id(self.recipe)

    @cached_property
    def suites(self) -> tuple[Suite, ...]:
        """What evaluators take of its checkpoints."""
        return suites.select_suites(
            self.checkpoints,
            self.suite_files,
            self.stage["data"]["template"]["name"],
            self.ends,
            self.reasoning,
        )

    @cached_property
    def scored(self) -> list[str]:
        """The keys that evaluators take of its checkpoints."""
        return self.checkpoints.scored

    @property
    def arrangement_item(self) -> str:
        """The folder of the workspace that its training order is in."""
        return f"arrangements/{self.arrangement_id}"

    @cached_property
    def scores_item(self) -> str | None:
        """The folder of the workspace with the scores by a model that its order is made
        of; None where it is made of none."""
        made_id = recipes.scores_id(self.recipe)
        return None if made_id is None else f"{SCORES}/{made_id}"

    @property
    def scoring_run(self) -> "Run | None":
        """The run of the stages before whose weights score for its order; None where
        other weights do."""
        score = self.stage["arrangement"].get("score", {})
        return self.before if "run" in score.get("model", {}) else None

    @property
    def needs(self) -> frozenset[str]:
        """What must have been made before this run can start, as folders of the workspace."""
        folders = {self.arrangement_item}
        if self.before:
            folders.add(self.before.weights)
        elif self.base_id:
            folders.add(f"bases/{self.base_id}")
        folders.update(filter(None, (self.proof_item, self.chat_trial_item)))
        return frozenset(folders)

    @property
    def proof_item(self) -> str | None:
        """The proof of the workspace that its examples may meet; None where none is
        needed."""
        return model_proof.name_proof(self.proof) if self.proof else None

    @cached_property
    def chat_trial_id(self) -> str | None:
        return self.ids.find_chat_trial_id(self.recipe)

    @property
    def chat_trial_item(self) -> str | None:
        """What tells that its model's chat template writes its examples; None where they
        are written otherwise."""
        trial = self.chat_trial_id
        return f"{CHAT_TRIALS}/{trial}" if trial and self.base else None

    @cached_property
    def answers(self) -> dict[str, str]:
        """The sources whose examples a model makes, each with the folder of the
        workspace that they are in."""
        digests = recipes.find_self_sampled(self.stage["data"])
        return {name: f"records/{digest}" for name, digest in digests.items()}

    @property
    def servers(self) -> dict[str, AskedSettings]:
        """By source, the servers that make its examples, of all its stages."""
        servers: dict[str, AskedSettings] = {}
        for stage in [*self.all_before, self]:
            for name in stage.answers:
                teacher = stage.asked.get(name)
                if teacher is not None and teacher.server is not None:
                    servers[name] = teacher.server
        return servers

    @property
    def model_name(self) -> str:
        """The name of its model, for people and for a selection of runs."""
        return inputs.name_model(self.base)

    @property
    def settings(self) -> dict[str, Any]:
        """What a selection of runs may name: the axes, and below them the sections of
        the stage it trains."""
        return {
            "model": {"name": self.model_name},
            "resources": self.size.model_dump(),
            **self.stage,
            **self.axes,
        }

    @property
    def all_before(self) -> list["Run"]:
        """The runs of the stages before, the first first."""
        return [*self.before.all_before, self.before] if self.before else []

    @property
    def weights(self) -> str:
        """Where a run leaves its weights if another starts from them."""
        return f"runs/{self.id}/weights"

    @property
    def stage(self) -> Recipe:
        """The recipe of the stage that this run trains: the last of its stages."""
        return self.recipe["stages"][-1]


def resolve_runs(
    grid: Grid, profile: Profile, digests: inputs.Inputs
) -> tuple[list[Run], list[str]]:
    """The runs of a grid in its order, and notes: on points that became one run, on a
    prompt that is not DMT's, on lists by place."""
    runs: dict[str, Run] = {}
    merged: dict[str, list[dict[str, Any]]] = {}
    labels: dict[str, Label] = {}
    maker = _RunMaker(profile, digests)
    for point in grid.points:
        run = maker.make_run(point)
        if point.label is not None:
            label = labels.setdefault(run.id, point.label)
            _refuse_two_labels(run.id, label, point.label)
        if run.id in runs:
            merged.setdefault(run.id, [runs[run.id].axes]).append(run.axes)
        runs.setdefault(run.id, run)
    digests.save()
    notes = [
        f"{len(points)} points are one run, {run_id}: they differ only in settings that change"
        f" nothing in it ({_differing(points)}); the first of them stands for all"
        for run_id, points in merged.items()
    ]
    stages = [stage for run in runs.values() for stage in run.recipe["stages"]]
    if any(map(_lacks_prompt_of_dmt, stages)):
        notes.append(
            "preset dmt sets training only; the prompt that was published with it is data.template:"
            " vicuna"
        )
    notes += _note_lists_by_place(runs.values())
    notes += harness_tasks.note_absent_data(
        (run.checkpoints for run in runs.values()),
        profile.environment.select_variables(os.environ),
        code=digests.task_code,
    )
    return list(runs.values()), notes


def _note_lists_by_place(runs: Iterable[Run]) -> Iterator[str]:
    """A note for each file that orders several samples of data by places: a place is
    another example in each, which no size of a list can tell."""
    corpora: dict[ListFile, set[str]] = {}
    for run in runs:
        for stage in [*run.all_before, run]:
            if stage.order_file is not None:
                corpora.setdefault(stage.order_file, set()).add(stage.corpus_id)
    for file, of_file in corpora.items():
        if len(of_file) > 1 and order_list.is_by_place(file):
            yield (
                f"arrangement.path {file.path} is by place, and orders {len(of_file)} different"
                " samples of data: a place is another example in each; give ids, or each sample a"
                " file of its own"
            )


def _refuse_two_labels(run: str, first: Label, second: Label) -> None:
    """UserError where two labels name one run: it could stand under one of them only."""
    if first.text != second.text:
        raise second.error(
            f"run {run} has two labels, {second.text!r} and {first.text!r}"
            f" ({first.origin}): their settings make the same run; give it one"
        )


def _lacks_prompt_of_dmt(stage: Recipe) -> bool:
    template = stage["data"]["template"]["name"]
    return stage["train"]["preset"] == "dmt" and template != "vicuna"


@dataclass(frozen=True)
class _StageInputs:
    """What a stage reads: where it lies, and its digests."""

    digests: InputDigests
    sources: Mapping[str, SourceFiles]
    base: Path | None
    proof: str | None
    embedding: Path | None
    order_file: ListFile | None
    scorer: Path | None
    since: Path | None
    target: Path | None
    asked: Mapping[str, Asked]


class _RunMaker:
    """Makes the runs of a grid; what they have in common is made once."""

    def __init__(self, profile: Profile, digests: inputs.Inputs) -> None:
        self._profile, self._digests = profile, digests
        self._recipes = RecipeMaker()
        self._ids = RecipeIds()
        self._inputs = ByObject[_StageInputs]()
        self._sizes = ByObject[JobSize]()
        self._suite_files = ByObject[dict[str, SuiteFile]]()

    def make_run(self, point: Point) -> Run:
        """The run of a point's last stage, which holds those of the stages before it."""
        settings, run = point.settings, None
        stages = settings.by_stage()
        size = self._find_size(settings.resources)
        suite_files = self._find_suite_files(settings.checkpoints)
        stage_inputs = [self._find_inputs(stage) for stage in stages]
        recipe = self._recipes.make_recipe(
            stages, [stage_input.digests for stage_input in stage_inputs]
        )
        prefixes = recipes.list_prefixes(recipe)
        for prefix, stage_input in zip(prefixes, stage_inputs, strict=True):
            run = Run(
                id=recipes.run_id(prefix),
                recipe=prefix,
                axes=point.axes,
                checkpoints=settings.checkpoints,
                size=size,
                sources=stage_input.sources,
                base=stage_input.base,
                proof=stage_input.proof,
                embedding=stage_input.embedding,
                order_file=stage_input.order_file,
                scorer=stage_input.scorer,
                since=stage_input.since,
                target=stage_input.target,
                before=run,
                strategy=_strategy(settings.strategy),
                evaluators=settings.resources.evaluators,
                suite_files=suite_files,
                ends=stage_input.digests.ends,
                reasoning=stage_input.digests.reasoning,
                asked=stage_input.asked,
                ids=self._ids,
            )
        assert run is not None, "a run has at least one stage"
        return run

    def _find_size(self, resources: ResourceSettings) -> JobSize:
        """What a train job asks for: the profile's, with what the grid says otherwise."""

        def make() -> JobSize:
            size = resources.model_dump(exclude_none=True, exclude={"evaluators"})
            return self._profile.train.model_copy(update=size)

        return self._sizes.get((resources,), None, make)

    def _find_suite_files(
        self, checkpoints: CheckpointSettings
    ) -> dict[str, SuiteFile]:
        return self._suite_files.get(
            (checkpoints,), None, lambda: self._digests.digest_suites(checkpoints)
        )

    def _find_inputs(self, stage: Settings) -> _StageInputs:
        return self._inputs.get(
            (stage.data, stage.model, stage.arrangement),
            None,
            lambda: _read_inputs(stage, self._digests),
        )


def _read_inputs(stage: Settings, digests: inputs.Inputs) -> _StageInputs:
    embedding = None
    if recipes.uses_embedding(stage):
        embedding = inputs.embedding_folder(stage)
    base = inputs.base_folder(stage)
    target = inputs.find_target_source(stage)
    return _StageInputs(
        digests=digests.digest_inputs(stage),
        sources=digests.find_files(stage),
        base=base,
        proof=_find_proof(base) if base else None,
        embedding=embedding,
        order_file=inputs.find_order_file(stage) if recipes.reads_file(stage) else None,
        scorer=_find_scorer("scorer", stage.arrangement.scorer),
        since=_find_scorer("since", stage.arrangement.since),
        target=inputs.find_target(target, digests.downloads) if target else None,
        asked=_find_asked(stage),
    )


def _find_scorer(key: str, path: str | None) -> Path | None:
    return None if path is None else inputs.find_scorer(key, path)


def _find_asked(stage: Settings) -> dict[str, Asked]:
    """By source, who makes its examples, where a maker does."""
    return {
        name: Asked(
            source.make,
            inputs.asked_folder(name, source),
            inputs.find_embedder(name, source),
        )
        for name, source in stage.data.by_source().items()
        if source.make is not None
    }


def _find_proof(base: Path) -> str | None:
    """By which digest it is known how examples of a model may meet; None where nothing
    need be proven."""
    config = get_object(read_json(base / "config.json"))
    if model_proof.needs_proof(config):
        return model_proof.digest_config(config)
    return None


def _strategy(strategy: StrategySettings | None) -> str:
    """For tables: the name, and the share of dmt."""
    if strategy is None:
        return ""
    return strategy.name if strategy.k is None else f"{strategy.name} k={strategy.k}"


def _differing(points: list[dict[str, Any]]) -> str:
    """The axes in which points differ."""
    keys = sorted({key for point in points for key in point})
    differing = [
        key for key in keys if len({repr(point.get(key)) for point in points}) > 1
    ]
    return ", ".join(differing) or "nothing"
