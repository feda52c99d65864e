"""Estimates what a grid's runs take, before they run: memory, GPU-hours, disk. Loads no engine."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Any

from jobs.contract.folder import Workspace, read_json
from jobs.model import content
from launcher.clusters.profiles import Gpu, Profile, gpus_per_node
from launcher.grids import model_folder
from launcher.grids.runs import Run
from launcher.planning import evaluator_fit, host_memory, memory_fit, speeds
from launcher.planning.evaluator_fit import EvaluatorGpus
from launcher.planning.host_memory import HostNeed
from launcher.planning.memory_fit import Layout, Load
from launcher.planning.plan import TRAINING, Plan
from launcher.planning.scoring_cost import Scoring
from launcher.planning.site import get_runs_at_once
from launcher.planning.speeds import Speed
from launcher.planning.workload import (
    AT_MOST,
    COUNTED,
    MEAN,
    UNKNOWN,
    Work,
    Workloads,
    find_own_list,
)
from zsg_core import node_limits
from zsg_core.errors import UserError
from zsg_core.families.registry import position_count
from zsg_core.makers.registry import MAKERS
from zsg_core.metrics.metrics import REWARD
from zsg_core.recipe import MAKE, OF_OTHER, Recipe, list_sources
from zsg_core.settings.checkpoints import CheckpointSettings
from zsg_core.shown_text import format_value
from zsg_core.suites import Suite
from zsg_core.training import decoder, estimate, schedule
from zsg_core.training.decoder import BOUND, DecoderShape
from zsg_core.training.estimate import GB
from zsg_core.training.evaluation_memory import EvaluationLoad
from zsg_core.training.snapshots import bound_most_kept, count_most_kept
from zsg_core.training.tuning import count_trained_parameters, list_dropping

# of sbatch, by which a profile may ask for memory in place of slurm.mem_gb
MEMORY_OPTIONS = ("mem-per-cpu", "mem-per-gpu")


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What one run takes. None: unknown work, or no GPUs in the profile."""

    model: str
    load: Load
    layout: Layout
    work: Work
    gpu: Gpu | None
    checkpoints: CheckpointSettings
    is_lora: bool
    on_gpu: bool = False
    speed: Speed | None = None  # measured by a run like this one

    @cached_property
    def tensors_gb(self) -> dict[int, float]:
        """GB per GPU before activations, by ZeRO stage; of the stages that train in
        this precision."""
        nodes, ranks = self.layout.nodes, self.layout.ranks_per_node
        first = 0 if self.load.precision == "fp32" else 1
        layouts = [
            Layout(
                zero_stage=stage,
                nodes=nodes,
                ranks_per_node=ranks,
                hpz_ranks=self.layout.hpz_ranks if stage == 3 else None,
            )
            for stage in estimate.STAGES[first:]
        ]
        return {
            layout.zero_stage: self.load.tensors(layout).at_step / GB
            for layout in layouts
        }

    @property
    def memory_gb(self) -> float | None:
        """Of the profile's GPU."""
        return self.gpu and self.gpu.memory_gb

    @cached_property
    def activations_gb(self) -> float:
        """GB per GPU of the largest micro-batch."""
        return self.load.activations(self.layout, self.memory_gb) / GB

    @cached_property
    def recomputes(self) -> bool:
        """Whether the layers' activations are computed again for the backward pass."""
        return self.load.recomputes(self.layout, self.memory_gb)

    @cached_property
    def stage_without_recomputing(self) -> int | None:
        """The lowest ZeRO stage at which the run would not have to recompute; None if
        it does not, or must anyway."""
        if not self.recomputes or self.load.recompute or self.memory_gb is None:
            return None
        stages = range(self.layout.zero_stage + 1, estimate.STAGES[-1] + 1)
        layouts = [replace(self.layout, zero_stage=stage) for stage in stages]
        for layout in layouts:
            if not self.load.recomputes(layout, self.memory_gb):
                return layout.zero_stage
        return None

    @cached_property
    def need_gb(self) -> float:
        """GB per GPU at the worst moment."""
        return self.load.need(self.layout, self.memory_gb) / GB

    @cached_property
    def host_need(self) -> HostNeed:
        """What the run's ranks need of the memory of each node."""
        copied = _count_copied(self.load, self.checkpoints, self.is_lora)
        return host_memory.estimate_host_need(
            self.load,
            self.layout,
            copied,
            on_gpu=self.on_gpu,
            gpu_memory_gb=self.memory_gb,
        )

    @cached_property
    def start_gb(self) -> float:
        """GB per GPU of the weights once they are loaded: all, or of ZeRO 3 the rank's
        part and the largest tensor."""
        shape, size = self.load.shape, estimate.ELEMENT[self.load.precision]
        whole = size * shape.parameters
        if self.layout.zero_stage < 3:
            return whole / GB
        return (whole / self.layout.world + size * shape.head) / GB

    @cached_property
    def train_flops(self) -> float | None:
        """Operations of the training steps."""
        n = self.work.train
        return n and estimate.training_flops(self.load.shape, n.tokens, n.squares)

    @cached_property
    def test_flops(self) -> float | None:
        """Operations of the losses on the test set, at all checkpoints."""
        if self.work.test is None or self.work.evaluations is None:
            return None
        n = self.work.test.times(self.work.evaluations)
        return estimate.forward_flops(self.load.shape, n.tokens, n.squares)

    @cached_property
    def gpu_hours(self) -> float | None:
        """Of all the run's GPUs: by the speed that was measured, else by the profile's.

        That is of 16 bits, and fp32 is far slower: None then, unless it was measured.
        """
        if self.gpu is None or self.train_flops is None or self.test_flops is None:
            return None
        if self.speed and self.work.train:
            whole = self.work.train.tokens * (1 + self.test_flops / self.train_flops)
            return self.layout.world * whole / self.speed.tokens_per_s / 3600
        if self.load.precision == "fp32":
            return None
        return estimate.gpu_hours(
            self.train_flops + self.test_flops, self.gpu.tflops, self.gpu.mfu
        )

    @cached_property
    def state_gb(self) -> float:
        """GB on disk of one full resumable state."""
        return (
            estimate.state_bytes(
                self.load.shape.parameters,
                self.layout.zero_stage,
                self.load.precision,
                self.load.trained,
            )
            / GB
        )

    @cached_property
    def snapshots(self) -> int | None:
        """The most snapshots that are on disk at the same time."""
        settings, steps = self.checkpoints, self.work.steps
        if settings.snapshots is None:
            return 0
        if steps is None:
            return None
        # What is scored may wait for its evaluator, whatever the rule says.
        rule = None
        if settings.keep and not settings.scored:
            rule = settings.keep.model_dump()
        count = schedule.count_snapshots(steps, settings.snapshots)
        if count > schedule.MOST_CHECKPOINTS:
            return bound_most_kept(count, rule)
        snapshot_steps = schedule.list_snapshot_steps(steps, settings.snapshots)
        return count_most_kept(snapshot_steps, rule)

    @cached_property
    def snapshot_gb(self) -> float:
        """GB on disk of one snapshot: all weights, or LoRA's adapters alone."""
        count = self.load.trained if self.is_lora else self.load.shape.parameters
        return count * estimate.ELEMENT[self.load.precision] / GB

    @cached_property
    def snapshots_gb(self) -> float | None:
        """GB on disk of a run's snapshots."""
        return None if self.snapshots is None else self.snapshots * self.snapshot_gb

    @cached_property
    def as_json(self) -> dict[str, Any]:
        """For scripts; sizes in GB of 1e9 bytes."""
        layout, work = self.layout, self.work
        return {
            "model": self.model,
            "parameters": self.load.shape.parameters,
            "trained": self.load.trained,
            "precision": self.load.precision,
            "nodes": layout.nodes,
            "ranks_per_node": layout.ranks_per_node,
            "zero_stage": layout.zero_stage,
            "tensors_gb": {
                str(stage): round(size, 3) for stage, size in self.tensors_gb.items()
            },
            "activations_gb": round(self.activations_gb, 3),
            "recompute": self.recomputes,
            "need_gb": round(self.need_gb, 3),
            "start_gb": round(self.start_gb, 3),
            "host_gb": round(self.host_need.most_gb, 3),
            "gpu_memory_gb": self.memory_gb,
            "examples": work.examples,
            "examples_are": work.examples_are,
            "steps": work.steps,
            "checkpoints": work.checkpoints,
            "tokens": work.train and round(work.train.tokens),
            "test_tokens": work.test and round(work.test.tokens),
            "tokens_are": work.tokens_are,
            "train_flops": self.train_flops,
            "test_flops": self.test_flops,
            "gpu_hours": self.gpu_hours and round(self.gpu_hours, 4),
            "state_gb": round(self.state_gb, 3),
            "snapshots": self.snapshots,
            "snapshot_gb": round(self.snapshot_gb, 3),
            "snapshots_gb": None
            if self.snapshots_gb is None
            else round(self.snapshots_gb, 3),
        }


def _bound_made_row(run: Run, making: Recipe, positions: int) -> int:
    """The most tokens that a model which makes data for a run has at once: a prompt with
    its reply."""
    settings = MAKERS[making["maker"]].settings.model_validate(making["settings"])
    max_length = run.stage["train"]["max_length"]
    return evaluator_fit.bound_made_row(settings.most_tokens, max_length, positions)


class Estimates:
    """Estimates of a grid's runs on a profile; what runs have in common is worked out once."""

    def __init__(
        self, workspace: Workspace, profile: Profile, runs: Sequence[Run]
    ) -> None:
        self._root, self._profile, self._runs = workspace.root, profile, runs
        self._work = Workloads(workspace, runs)
        self._shapes: dict[Path, DecoderShape] = {}
        self._position_counts: dict[Path, int] = {}
        self._rewards: dict[str, float] = {}  # bytes, by folder
        self._by_key: dict[tuple[Any, ...], Estimate] = {}
        self._of_run: dict[str, Estimate] = {}
        self._loads: dict[str, tuple[Load, Layout]] = {}  # by run
        self._speeds: dict[tuple[Load, Layout], Speed | None] = {}
        self._needs: dict[tuple[Load, Layout], float] = {}  # bytes
        self._host_needs: dict[tuple[Load, Layout, int], HostNeed] = {}

    def judge_order_files(self) -> list[str]:
        """Notes of lists whose ids only the prepare job can judge. UserError for a list,
        or scores, of examples that there are not."""
        return self._work.judge_order_files()

    def refuse_impossible_orders(self) -> None:
        """UserError for an order that cannot be made of so few examples."""
        self._work.refuse_impossible_orders()

    def describe_repeats(self) -> list[str]:
        """What orders have again, or leave out, in words."""
        return self._work.describe_repeats()

    def refuse_unfit(self) -> None:
        """Raises UserError if a run needs more memory than the profile's GPU has:
        which, why, what would fit."""
        gpu, unfit = self._profile.gpu, list[tuple[Run, str | None]]()
        refusals = dict[tuple[Load, Layout], str | None]()
        if gpu is None:
            return
        for run in self._list_stages():
            key = self._lay_out(run)
            if key not in refusals:
                refusals[key] = memory_fit.explain_misfit(
                    *key, gpu.memory_gb, gpu.name, self._profile.slurm.gpus_per_node
                )
            if refusals[key]:
                unfit.append((run, refusals[key]))
        self._raise_unfit(unfit)

    def refuse_unfit_evaluators(self) -> None:
        """Raises UserError if what evaluates a run, or samples the model's own answers
        for it, needs more memory than its GPUs have: which, why, what would fit."""
        gpus, unfit = self.evaluator_gpus, list[tuple[Run, str | None]]()
        if gpus is None:
            return
        refusals = dict[EvaluationLoad, str | None]()
        for run in self._list_stages():
            misfit = self._explain_misfit_of_maker(run, gpus)
            if misfit is not None:
                unfit.append((run, misfit))
                continue
            for load in self._list_evaluation_loads(run):
                if load not in refusals:
                    refusals[load] = evaluator_fit.explain_misfit(load, gpus)
                if refusals[load]:
                    unfit.append((run, refusals[load]))
                    break
        self._raise_unfit(unfit)

    def _explain_misfit_of_maker(self, run: Run, gpus: EvaluatorGpus) -> str | None:
        """Why a model in a folder that makes examples for a run does not fit; None where
        each does."""
        for name, source in list_sources(run.stage["data"]).items():
            load = self._find_teachers_load(run, name, source)
            if load is not None:
                job = f"cannot have source {name} made: its job"
                misfit = evaluator_fit.explain_misfit(load, gpus, job)
                if misfit is not None:
                    return misfit
        return None

    def _raise_unfit(self, unfit: Sequence[tuple[Run, str | None]]) -> None:
        """Raises UserError on the first of the runs that do not fit, if there are any,
        with how many are like it."""
        if not unfit:
            return
        run, why = unfit[0]
        count = ""
        if len(unfit) > 1:
            count = f"; {len(unfit)} of the {len(self._runs)} runs do not fit"
        raise UserError(f"run {run.id}{_format_axes(run)} {why}{count}")

    def refuse_short_hosts(self) -> list[str]:
        """Raises UserError if a run needs more of a node's memory than slurm.mem_gb;
        returns a note on what may be too little: of the largest run, or on this machine
        of those that train side by side."""
        slurm = self._profile.slurm
        if self._profile.kind == "local":
            return self._note_crowded_machine()
        need_by_run = self._list_host_needs()
        for run, need in need_by_run:
            if why := host_memory.explain_short(need, slurm.mem_gb):
                raise UserError(f"run {run.id}{_format_axes(run)} {why}")
        options = [name for name in MEMORY_OPTIONS if name in slurm.sbatch]
        option = options[0] if options else None
        for _, need in need_by_run:
            if note := host_memory.find_note(need, slurm.mem_gb, option):
                return [note]
        return []

    def _note_crowded_machine(self) -> list[str]:
        """A note where runs that train side by side may need more than this machine has."""
        limit = node_limits.read_memory_limit()
        if limit is None:
            return []
        needs = [
            max(map(self._host_need, [*run.all_before, run]), key=attrgetter("most_gb"))
            for run in self._runs
        ]
        needs.sort(key=attrgetter("most_gb"), reverse=True)
        at_once = get_runs_at_once(self._profile)
        note = host_memory.find_crowded_note(needs, at_once, limit / GB)
        return [note] if note else []

    def _list_host_needs(self) -> list[tuple[Run, HostNeed]]:
        """What runs need of a node's memory, the largest first, one of each kind."""
        first_runs = dict[HostNeed, Run]()
        for run in self._list_stages():
            first_runs.setdefault(self._host_need(run), run)
        needs = [(run, need) for need, run in first_runs.items()]
        return sorted(needs, key=lambda pair: -pair[1].most_gb)

    def _host_need(self, run: Run) -> HostNeed:
        """What a stage's ranks need of the memory of each node."""
        load, layout = self._lay_out(run)
        is_lora = run.stage["train"]["tuning"]["method"] == "lora"
        copied = _count_copied(load, run.checkpoints, is_lora)
        key = load, layout, copied
        if key not in self._host_needs:
            gpu = self._profile.gpu
            self._host_needs[key] = host_memory.estimate_host_need(
                *key, on_gpu=self._on_gpu, gpu_memory_gb=gpu and gpu.memory_gb
            )
        return self._host_needs[key]

    @cached_property
    def evaluator_gpus(self) -> EvaluatorGpus | None:
        """What an evaluate job is given; None where the profile names no GPU."""
        gpu, profile = self._profile.gpu, self._profile
        if gpu is None:
            return None
        return EvaluatorGpus(
            count=gpus_per_node(profile, "evaluate"),
            most=profile.slurm.gpus_per_node,
            name=gpu.name,
            memory_gb=gpu.memory_gb,
        )

    def _list_evaluation_loads(self, run: Run) -> list[EvaluationLoad]:
        """What evaluate jobs hold of a run's model, and sample jobs of its base."""
        loads = list[EvaluationLoad]()
        positions = self._positions(run)
        if run.scored:
            train = run.stage["train"]
            row = evaluator_fit.bound_row(run.suites, train["max_length"], positions)
            load = EvaluationLoad(
                shape=self._shape(run),
                precision=train["precision"],
                row=row,
                beside=max(map(self._reward_bytes, run.suites), default=0.0),
            )
            loads.append(load)
        for name, source in list_sources(run.stage["data"]).items():
            if rule := source.get("self_sample"):
                row = evaluator_fit.bound_sampled_row(rule["how"], positions)
                load = EvaluationLoad(
                    shape=self._shape(run), precision=rule["precision"], row=row
                )
                loads.append(load)
            rule = source.get(MAKE, {})
            if rule and OF_OTHER not in rule:
                load = EvaluationLoad(
                    shape=self._shape(run),
                    precision=rule["precision"],
                    row=_bound_made_row(run, rule, positions),
                )
                loads.append(load)
            teachers = self._find_teachers_load(run, name, source)
            if teachers is not None:
                loads.append(teachers)
        return loads

    def _find_teachers_load(
        self, run: Run, name: str, source: Recipe
    ) -> EvaluationLoad | None:
        """What a job holds of the model in a folder that makes the examples of a source;
        None where none does."""
        teacher = run.asked.get(name)
        if teacher is None or teacher.folder is None:
            return None
        positions = self._read_positions(teacher.folder)
        return EvaluationLoad(
            shape=self._read_shape(teacher.folder),
            precision=source[MAKE]["precision"],
            row=_bound_made_row(run, source[MAKE], positions),
        )

    def _reward_bytes(self, suite: Suite) -> float:
        """What the reward model of a suite takes of a GPU; 0 for a suite without one."""
        file = suite.files.get(REWARD)
        if file is None:
            return 0.0
        if file.path not in self._rewards:
            self._rewards[file.path] = content.count_loaded_bytes(Path(file.path))
        return self._rewards[file.path]

    def _positions(self, run: Run) -> int:
        """How many positions a run's model has."""
        if run.base is None:
            return int(run.recipe["base"]["context"])
        return self._read_positions(run.base)

    def _read_positions(self, folder: Path) -> int:
        """How many positions the model of a folder has."""
        if folder not in self._position_counts:
            config: dict[str, Any] = read_json(folder / "config.json") or {}
            self._position_counts[folder] = position_count(config)
        return self._position_counts[folder]

    def describe_run(self, run: Run) -> dict[str, Any]:
        """What a run takes, for scripts; with what evaluates it, where that needs GPUs."""
        gpus, loads = self.evaluator_gpus, self._list_evaluation_loads(run)
        if gpus is None or not loads:
            return self.of(run).as_json
        largest = max(loads, key=lambda load: load.need(gpus.count))
        evaluator = {
            "gpus": gpus.count,
            "need_gb": round(largest.need(gpus.count) / GB, 3),
            "answers_at_once": largest.rows_at_once(gpus.count, gpus.memory),
        }
        return {**self.of(run).as_json, "evaluator": evaluator}

    def _describe_evaluators(self, plan: Plan) -> list[str]:
        """What the evaluate and sample jobs of a plan take; nothing without GPUs."""
        gpus = self.evaluator_gpus
        if gpus is None:
            return []
        scored = [run for group in plan.evaluations for run in group.runs]
        sampled = [run for job in plan.prepares if job.samples for run in job.runs]
        loads = [
            load
            for run in (*scored, *sampled)
            for load in self._list_evaluation_loads(run)
        ]
        return [evaluator_fit.describe_fit(load, gpus) for load in dict.fromkeys(loads)]

    def list_scorings(self, plan: Plan) -> list[Scoring]:
        """The scores by a model that a plan's jobs make, as far as they cost."""
        jobs = [job for job in plan.prepares if job.scores]
        return [self._describe_scoring(run) for job in jobs for run in job.runs]

    def _describe_scoring(self, run: Run) -> Scoring:
        score = run.stage["arrangement"]["score"]
        shape, model = self._shape(run), run.model_name
        if run.scorer is not None:
            model = run.scorer.name
            shape = self._read_shape(run.scorer)
        examples, lengths, is_counted = self._work.count_corpus(run)
        return Scoring(
            name=score["name"],
            model=model,
            shape=shape,
            precision=score["precision"],
            examples=examples,
            lengths=lengths,
            is_counted=is_counted,
        )

    def _list_stages(self) -> list[Run]:
        """All stages of all runs, each run's in their order."""
        return [stage for run in self._runs for stage in [*run.all_before, run]]

    def refuse_endless(self) -> None:
        """Raises UserError if a run would certainly have more checkpoints than can be
        listed, however few its data.

        What is only bounded may come to far less, and is for the node to judge.
        """
        seen: set[tuple[Any, ...]] = set()
        for run in self._list_stages():
            limit, settings = run.stage["train"]["steps"], run.checkpoints
            if limit is not None and limit <= schedule.MOST_CHECKPOINTS:
                continue
            steps = self._bound_steps_below(run)
            key = steps, settings.every, settings.quick, settings.snapshots
            if key not in seen:
                seen.add(key)
                schedule.refuse_too_many_checkpoints(
                    steps,
                    settings.every,
                    settings.quick and settings.quick.model_dump(),
                    settings.snapshots,
                )

    def _bound_steps_below(self, run: Run) -> int:
        """The steps that a run has where its data were counted, else those of one example."""
        work, train = self.of(run).work, run.stage["train"]
        if work.examples_are == COUNTED and work.steps is not None:
            return work.steps
        return schedule.count_steps(1, train["batch"], train["epochs"], train["steps"])

    def of(self, run: Run) -> Estimate:
        """The estimate of a run. UserError for a model or data folder that cannot be read."""
        if run.id not in self._of_run:
            self._of_run[run.id] = self._estimated(run)
        return self._of_run[run.id]

    def _estimated(self, run: Run) -> Estimate:
        """The estimate of a run. Runs that need the same share one: a grid has few of
        them."""
        load, layout = self._lay_out(run)
        train = run.stage["train"]
        base = run.base or run.base_id
        is_lora = train["tuning"]["method"] == "lora"
        settings = run.checkpoints
        key = (
            base,
            load,
            layout,
            run.corpus_id,
            find_own_list(run),
            train["epochs"],
            train["steps"],
            is_lora,
        )
        key += (settings.every, settings.quick, settings.snapshots, settings.keep)
        if key not in self._by_key:
            name = run.model_name
            work = self._work.of(run)
            self._by_key[key] = Estimate(
                model=name,
                load=load,
                layout=layout,
                work=work,
                gpu=self._profile.gpu,
                checkpoints=settings,
                is_lora=is_lora,
                on_gpu=self._on_gpu,
                speed=self._read_speed(load, layout),
            )
        return self._by_key[key]

    def recomputes(self, run: Run) -> bool:
        """Whether a run must compute its layers' activations twice to fit the profile's
        GPU, or the profile says so."""
        gpu = self._profile.gpu
        load, layout = self._lay_out(run)
        return load.recomputes(layout, gpu and gpu.memory_gb)

    def need_gb(self, run: Run) -> float:
        """GB per GPU at the worst moment."""
        load, layout = key = self._lay_out(run)
        if key not in self._needs:
            gpu = self._profile.gpu
            self._needs[key] = load.need(layout, gpu and gpu.memory_gb)
        return self._needs[key] / GB

    def taken(self, run: Run) -> tuple[Load, Layout, Gpu | None]:
        """What a run is, as far as its speed depends on it."""
        return *self._lay_out(run), self._profile.gpu

    def micro_tokens(self, run: Run) -> int | None:
        """The most tokens of a micro-batch that fit the profile's GPU; None where it names none."""
        gpu = self._profile.gpu
        if gpu is None:
            return None
        load, layout = self._lay_out(run)
        return load.micro_tokens(layout, gpu.memory_gb)

    def overview(self, plan: Plan) -> tuple[list["Line"], list[str]]:
        """The lines of a plan's table, and what they rest on."""
        planned = [
            (self.of(action.run), action.kind in TRAINING) for action in plan.actions
        ]
        planned += [(self.of(run), True) for run in plan.stages_before]
        assumptions = describe_assumptions(
            [estimate for estimate, _ in planned], get_runs_at_once(self._profile)
        )
        evaluators = self._describe_evaluators(plan)
        return build_lines(planned), [*assumptions, *evaluators]

    @property
    def profile(self) -> Profile:
        """The profile on which the runs are estimated."""
        return self._profile

    def _lay_out(self, run: Run) -> tuple[Load, Layout]:
        """What a run is and how it is spread: asked for many times of each."""
        if run.id not in self._loads:
            self._loads[run.id] = self._load(run), self._layout(run)
        return self._loads[run.id]

    def _read_speed(self, load: Load, layout: Layout) -> Speed | None:
        """The speed that was measured of such runs, read once."""
        key = load, layout
        if key not in self._speeds:
            gpu = self._profile.gpu
            self._speeds[key] = speeds.read_speed(self._root, load, layout, gpu)
        return self._speeds[key]

    def _load(self, run: Run) -> Load:
        train, profile = run.stage["train"], self._profile
        slurm = profile.slurm
        device = "cuda" if profile.kind == "slurm" and slurm.gpus_per_node else "cpu"
        shape = self._shape(run)
        return Load(
            shape=shape,
            trained=count_trained_parameters(shape, train["tuning"]),
            precision=train["precision"],
            batch=train["batch"],
            max_length=train["max_length"],
            budget=schedule.MICRO_TOKENS[device],
            recompute=profile.trainer.recompute,
            device=device,
            dropping=list_dropping(train["tuning"]),
        )

    @property
    def _on_gpu(self) -> bool:
        """Whether train jobs have GPUs, as far as the profile tells."""
        slurm = self._profile.slurm
        return bool(self._profile.gpu or slurm.gpus_per_node or slurm.gres)

    def _layout(self, run: Run) -> Layout:
        deepspeed, size = self._profile.deepspeed, run.size
        world = size.nodes * size.ranks_per_node
        return Layout(
            zero_stage=deepspeed.zero_stage,
            nodes=size.nodes,
            ranks_per_node=size.ranks_per_node,
            hpz_ranks=deepspeed.count_hpz_ranks(world),
        )

    def _shape(self, run: Run) -> DecoderShape:
        base = run.recipe["base"]
        tokens = base.get("added", {})
        added = 0 if tokens.get("init") == "kept" else len(tokens.get("tokens", ()))
        if run.base is None:
            return decoder.add_tokens(decoder.tiny_shape(base), added)
        return decoder.add_tokens(self._read_shape(run.base), added)

    def _read_shape(self, folder: Path) -> DecoderShape:
        """The sizes of the model of a folder."""
        if folder not in self._shapes:
            self._shapes[folder] = model_folder.read_shape(folder)
        return self._shapes[folder]


def _count_copied(load: Load, checkpoints: CheckpointSettings, is_lora: bool) -> int:
    """How many parameters a snapshot holds; 0 for a run that keeps none."""
    if checkpoints.snapshots is None:
        return 0
    return load.trained if is_lora else load.shape.parameters


@dataclass(frozen=True, kw_only=True)
class Line:
    """Runs of one model, precision and size: (least, most) of what differs among them,
    None where unknown.

    `first`: the estimate of the first of them, for what they share.
    """

    first: Estimate
    steps: tuple[int, int] | None
    tokens: tuple[float, float] | None
    activations_gb: float
    need_gb: float
    gpu_hours: tuple[float, float] | None
    acting: int
    total_gpu_hours: float | None  # of the runs that would be submitted


def build_lines(planned: Iterable[tuple[Estimate, bool]]) -> list[Line]:
    """One line per distinct model, precision and size, from (estimate, whether the run
    would be submitted)."""
    groups: dict[Any, list[tuple[Estimate, bool]]] = {}
    for estimated, acts in planned:
        load = estimated.load
        key = (estimated.model, load.shape, load.precision, estimated.layout)
        groups.setdefault(key, []).append((estimated, acts))
    return [_build_line(group) for group in groups.values()]


def _build_line(group: Sequence[tuple[Estimate, bool]]) -> Line:
    estimates = [estimated for estimated, _ in group]
    works = [estimated.work for estimated in estimates]
    hours_of_acting = [estimated.gpu_hours for estimated, acts in group if acts]
    return Line(
        first=estimates[0],
        steps=_span([work.steps for work in works]),
        tokens=_span([work.train_tokens for work in works]),
        activations_gb=max(estimated.activations_gb for estimated in estimates),
        need_gb=max(estimated.need_gb for estimated in estimates),
        gpu_hours=_span([estimated.gpu_hours for estimated in estimates]),
        acting=len(hours_of_acting),
        total_gpu_hours=_sum_hours(hours_of_acting),
    )


def _sum_hours(hours: Sequence[float | None]) -> float | None:
    """The sum; None where there is none, or one is unknown."""
    if not hours or None in hours:
        return None
    return sum(filter(None, hours))


def _span(values: Sequence[Any]) -> tuple[Any, Any] | None:
    """The least and the most; None where one is unknown."""
    return None if None in values else (min(values), max(values))


def describe_assumptions(estimates: Sequence[Estimate], at_once: int) -> list[str]:
    """What the numbers rest on, in words. `at_once`: the most runs that are at work at
    the same time."""
    works = [estimated.work for estimated in estimates]
    notes = [_TENSORS, _NEED, *_describe_recomputing(estimates)]
    notes += describe_shapes({each.model: each.load.shape for each in estimates})
    notes += _notes_on({work.examples_are for work in works}, _EXAMPLES)
    notes += _notes_on({work.tokens_are for work in works}, _TOKENS)
    notes += _describe_speeds(estimates)
    notes.append(_describe_hosts(estimates))
    notes.append(_describe_states(estimates, at_once))
    with_snapshots = [estimated for estimated in estimates if estimated.snapshots != 0]
    if with_snapshots:
        notes.append(_describe_snapshots(with_snapshots))
    return notes


def describe_shapes(shapes: Mapping[str, DecoderShape]) -> list[str]:
    """What is to be known of models, by their names, whose parameters do not all compute,
    or whose layers are not known by heart."""
    notes = [
        f"params: of {name}'s {shape.parameters / 1e9:,.2f} billion {shape.active / 1e9:,.2f}"
        " multiply a token, its chosen experts' among them: GPU-h rest on these, memory on all"
        for name, shape in shapes.items()
        if shape.has_experts
    ]
    notes += [
        f"act., GPU-h: at most, as zsg does not know the layers of {name} ({shape.family}) by"
        " heart; its parameters are counted from its tensors"
        for name, shape in shapes.items()
        if shape.known == BOUND
    ]
    return notes


def _notes_on(qualities: set[str], notes: Mapping[str, str]) -> list[str]:
    """The notes on how good numbers are."""
    return [notes[quality] for quality in sorted(qualities) if quality in notes]


def _describe_speeds(estimates: Sequence[Estimate]) -> list[str]:
    """Which speed the GPU-hours rest on; nothing where the profile names no GPU."""
    speeds_measured = [estimated.speed for estimated in estimates if estimated.speed]
    if speeds_measured:
        runs = dict.fromkeys(speed.run for speed in speeds_measured)
        return [
            f"GPU-h: by the tokens a second that {', '.join(runs)} measured; start-up and"
            " saving on top"
        ]
    gpu = estimates[0].gpu
    if gpu is None:
        return []
    return [
        f"GPU-h: training and test losses at {gpu.mfu:.0%} of {gpu.name}'s {gpu.tflops:g}"
        " TFLOPS in bf16; start-up, saving and waiting come on top"
    ]


def _describe_states(estimates: Sequence[Estimate], at_once: int) -> str:
    largest_gb = max(estimated.state_gb for estimated in estimates)
    total_gb = 2 * min(at_once, len(estimates)) * largest_gb
    return (
        f"state: GB on disk to resume from; two while the newer is written, {total_gb:,.1f} GB for"
        " all runs at once"
    )


def _describe_hosts(estimates: Sequence[Estimate]) -> str:
    """What a run takes when it starts on its GPUs, and of the memory of its nodes."""
    largest = max(estimates, key=lambda estimated: estimated.host_need.most_gb)
    start = ""
    if largest.on_gpu:
        start = f"start: weights take {largest.start_gb:,.1f} GB of each GPU; "
    return (
        f"{start}host: up to {largest.host_need.most_gb:,.1f} GB of memory on each node"
        f" ({host_memory.describe_need(largest.host_need)}); weights are read tensor by tensor"
    )


def _describe_recomputing(estimates: Sequence[Estimate]) -> list[str]:
    """In how many runs activations are recomputed, and what would spare it."""
    recomputing = [estimated for estimated in estimates if estimated.recomputes]
    if not recomputing:
        return []
    stages = sorted(
        {estimated.stage_without_recomputing or 0 for estimated in recomputing}
    )
    advice = ""
    if stages[0]:
        advice = f"; deepspeed.zero_stage: {stages[-1]} in the profile would spare it"
    return [
        f"act.: recomputed in {len(recomputing)} of {len(estimates)} runs, for a third more"
        f" time{advice}"
    ]


def _describe_snapshots(estimates: Sequence[Estimate]) -> str:
    span = _span([estimated.snapshot_gb for estimated in estimates]) or ()
    sizes = "–".join(dict.fromkeys(f"{size:,.3g}" for size in span))
    totals = [estimated.snapshots_gb for estimated in estimates]
    if None in totals:
        return f"snapshots: {sizes} GB each; how many is unknown, as the steps are"
    most_of_a_run = max(estimated.snapshots or 0 for estimated in estimates)
    total_gb = sum(filter(None, totals))
    return (
        f"snapshots: {sizes} GB each, at most {most_of_a_run} of a run at once, {total_gb:,.1f} GB"
        " for all runs; checkpoints.keep says which stay"
    )


_TENSORS = (
    "tensors: GB (1e9 bytes) per GPU of weights, gradients and optimiser; * the profile's ZeRO"
    " stage"
)
_NEED = (
    "need: the worst moment with act., activations at most: all of max_length, all target"
    " tokens"
)
_EXAMPLES = {
    AT_MOST: "steps: at most, from task lists, rows and caps; exact once the data are prepared",
    UNKNOWN: (
        "steps: unknown, as no cap per task bounds the data and they are too large to be counted"
        " here; exact once they are prepared"
    ),
}
_TOKENS = {
    AT_MOST: "tokens: at most, examples × max_length; exact once such a run has started",
    COUNTED: "tokens: counted by a run with the same data, tokenizer and max_length",
    MEAN: "tokens: from mean lengths that a run counted, as not all data are used",
}


def _format_axes(run: Run) -> str:
    if not run.axes:
        return ""
    axes = [f"{key}: {format_value(value)}" for key, value in run.axes.items()]
    return f" ({', '.join(axes)})"
