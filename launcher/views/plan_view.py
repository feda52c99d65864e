"""Shows a plan to people: how many runs, which, in which jobs, what they take, what next.

At the width of the terminal no line of the table is broken; of many runs the first few
are shown. For scripts there are rows.
"""

import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from jobs.contract.states import ACTIVE, State
from launcher.clusters.profiles import Profile
from launcher.clusters.slurm import compact_ids
from launcher.grids.runs import Run
from launcher.planning import costs, job_lines
from launcher.planning.effects import Effect
from launcher.planning.estimates import Estimate, Line
from launcher.planning.plan import (
    ACTING,
    EVALUATE,
    NOT_SELECTED,
    RETRAIN,
    RETRY,
    SUBMIT,
    TRAINING,
    Action,
    Plan,
)
from launcher.views import show
from launcher.views.columns import fit_columns, set_ends
from launcher.views.tables import (
    find_differing_keys,
    format_cell,
    format_short,
    shorten_keys,
)
from zsg_core.shown_text import format_value, make_showable, name_few
from zsg_core.training.estimate import GB

# larger tables are cut to the first runs of them
MOST_ROWS = 30
FIRST_ROWS = 8
MOST_VALUES = 4
MOST_REASONS = 5
MOST_NAMED = 3
LABEL = 8  # columns before what a line says
WORDS = {
    SUBMIT: "to submit",
    RETRY: "to retry",
    RETRAIN: "to train again",
    EVALUATE: "to evaluate",
}

# of what a submit does: the words before and behind a number of runs
DEEDS = (
    (SUBMIT, "submit", ""),
    (RETRY, "retry", ""),
    (RETRAIN, "train", " again"),
    (EVALUATE, "evaluate", ""),
)
DONE_DEEDS = {
    SUBMIT: "submitted",
    RETRY: "submitted again",
    RETRAIN: "to be trained again",
    EVALUATE: "to be evaluated",
}


@dataclass(frozen=True)
class PlanShown:
    """What of a plan is shown beside the plan itself. `is_whole`: every run and every
    job has its line."""

    name: str
    profile: Profile
    estimate_of: Callable[[Run], Estimate]
    is_whole: bool = False
    scores: Sequence[str] = ()
    memory: tuple[list[Line], list[str]] | None = None
    effects: Sequence[Effect] = ()
    models: Sequence[str] = field(default_factory=list[str])
    # lines about looks at claims, each with its label
    design: Sequence[tuple[str, str]] = ()


def print_plan(plan: Plan, shown: PlanShown) -> None:
    """All that a plan says, but for what submit would refuse and what comes next."""
    print_runs(plan, shown)
    _print_jobs(plan, shown)
    _print_costs(plan, shown)
    for label, words in shown.design:
        print_labelled(label, words)
    if shown.memory is not None:
        print_memory(*shown.memory)
    for line in shown.models:
        show.print_result(line)
    print_effects(shown.effects)


def print_runs(plan: Plan, shown: PlanShown) -> None:
    """How many runs there are of each kind, the table of them, and what is to be said of
    some."""
    _print_head(f"{shown.name}: {count_runs(plan)}", describe_profile(shown.profile))
    _print_table(plan, shown.is_whole)
    _print_asides(plan)


def _print_head(counts: str, profile: str) -> None:
    """What is planned at the left, where at the right, or below where there is no room."""
    for line in set_ends(counts, profile, show.get_width()):
        show.print_result(line)


def count_runs(plan: Plan) -> str:
    """How many runs are submitted, and where the others stand; with the zeros that a
    reader asks for."""
    deeds = Counter(action.kind for action in plan.actions)
    words = [
        f"{deeds[kind]:,} {name}"
        for kind, name in WORDS.items()
        if deeds[kind] or kind == SUBMIT
    ]
    standing = _count_standing(plan)
    for state in (State.DONE, State.FAILED, State.RUNNING):
        number = standing.pop(state, 0)
        words.append(f"{number:,} {state}")
    return ", ".join([*words, *_list_counts(standing), *_count_beside(plan)])


def _count_standing(plan: Plan) -> Counter[str]:
    """How many of the runs of which nothing is done stand where."""
    return Counter(
        _name_standing(action) for action in plan.actions if action.kind not in ACTING
    )


def _list_counts(counts: Mapping[str, int]) -> list[str]:
    return [f"{number:,} {name}" for name, number in sorted(counts.items())]


def _count_beside(plan: Plan) -> list[str]:
    """Stages that are trained, and held jobs that are released, beside the runs."""
    stages = len(plan.stages_before)
    released = len(plan.held)
    words = list[str]()
    if stages:
        words.append(job_lines.with_noun(stages, "stage before", "stages before"))
    if released:
        words.append(
            job_lines.with_noun(released, "held job released", "held jobs released")
        )
    return words


def count_left(plan: Plan) -> str:
    """Where the runs stand of which nothing is done."""
    return ", ".join([*_list_counts(_count_standing(plan)), *_count_beside(plan)])


def name_deeds(plan: Plan) -> str:
    """What a submit would do, as it is asked: Submit 12 runs and evaluate 3 runs."""
    numbers = Counter(action.kind for action in plan.actions)
    deeds = [
        f"{verb} {job_lines.with_noun(numbers[kind], 'run', 'runs')}{behind}"
        for kind, verb, behind in DEEDS
        if numbers[kind]
    ]
    if plan.held:
        jobs = job_lines.with_noun(len(plan.held), "held job", "held jobs")
        deeds.append(f"release {jobs}")
    sentence = " and ".join(deeds)
    return sentence[:1].upper() + sentence[1:]


def count_submitted(plan: Plan) -> str:
    """What a submit has done, and where the other runs stand."""
    numbers = Counter(action.kind for action in plan.actions)
    words = [
        f"{job_lines.with_noun(numbers[kind], 'run', 'runs')} {deed}"
        for kind, deed in DONE_DEEDS.items()
        if numbers[kind]
    ]
    words += _count_beside(plan)
    words += _list_counts(_count_standing(plan))
    return ", ".join(words)


def _name_standing(action: Action) -> str:
    """Where a run stands of which nothing is done."""
    if action.reason == NOT_SELECTED:
        return NOT_SELECTED
    if action.state == State.ABSENT:
        return "left for later"
    return action.state


def describe_profile(profile: Profile) -> str:
    """The profile's name and what it is."""
    if profile.kind == "local":
        at_once = profile.max_parallel
        runs = job_lines.with_noun(at_once, "run", "runs")
        return f"profile {profile.name} (this machine, {runs} at a time)"
    slurm = profile.slurm
    words = ["Slurm"]
    if slurm.partition:
        words.append(slurm.partition)
    if slurm.gpus_per_node:
        name = profile.gpu.name if profile.gpu else slurm.gpu_type or "GPUs"
        words.append(f"{slurm.gpus_per_node} × {name} a node")
    return f"profile {profile.name} ({', '.join(words)})"


def _print_table(plan: Plan, is_whole: bool) -> None:
    """The runs with what differs between them, and why; of many the first of each kind."""
    keys = find_differing_keys([action.run.axes for action in plan.actions])
    listed = plan.actions
    if not is_whole and len(listed) > MOST_ROWS:
        listed = _choose_first(plan.actions)
    rows = [_make_cells(action, keys) for action in listed]
    width = show.get_width()
    lines = fit_columns(["run", *shorten_keys(keys), "why"], rows, width)
    show.print_block(lines)
    if len(listed) < len(plan.actions):
        _print_unlisted(plan, listed)
        _print_axes(plan, keys)
    _print_cut_reasons(listed, lines)


def _make_cells(action: Action, keys: Sequence[str]) -> list[str]:
    values = [format_cell(action.run.axes.get(key)) for key in keys]
    return [action.run.id, *values, describe_action(action)]


def describe_action(action: Action) -> str:
    """What is done about a run and why, as shortly as it can be said: a new run is new."""
    if action.kind in (RETRY, RETRAIN, EVALUATE):
        return f"{WORDS[action.kind]}: {action.reason}"
    return action.reason


def _choose_first(actions: Sequence[Action]) -> list[Action]:
    """The first runs, in the order of the grid: half of them such as have not ended well,
    if there are any, then those that something is done about, then the others."""
    troubled = [action for action in actions if _is_troubled(action)]
    acting = [action for action in actions if action.kind in ACTING]
    for_troubled = FIRST_ROWS // 2
    ranked = [
        *troubled[:for_troubled],
        *acting[:FIRST_ROWS],
        *actions[:FIRST_ROWS],
    ]
    ids = dict.fromkeys(action.run.id for action in ranked)
    first = set(list(ids)[:FIRST_ROWS])
    return [action for action in actions if action.run.id in first]


def _is_troubled(action: Action) -> bool:
    """Whether a run has not ended well and nothing is done about it."""
    calm = (State.DONE, State.ABSENT, *ACTIVE)
    return action.kind not in ACTING and action.state not in calm


def _print_unlisted(plan: Plan, listed: Sequence[Action]) -> None:
    """How many runs are not in the table, and of which kinds they are."""
    counts = Counter(map(_name_kind, plan.actions))
    counts.subtract(map(_name_kind, listed))
    hidden = +counts  # those above 0
    if len(hidden) == 1:
        kind = next(iter(hidden))
        kinds = f"all {kind}"
    else:
        parts = [f"{count:,} {kind}" for kind, count in hidden.most_common()]
        kinds = ", ".join(parts)
    number = len(plan.actions) - len(listed)
    show.print_result(f"… and {number:,} more, {kinds} (--all shows every run)")


def _name_kind(action: Action) -> str:
    """What is done about a run, or where it stands."""
    return WORDS.get(action.kind) or _name_standing(action)


def _print_axes(plan: Plan, keys: Sequence[str]) -> None:
    """The values of each axis, of which the table shows few."""
    for key, name in zip(keys, shorten_keys(keys), strict=True):
        values = list(
            dict.fromkeys(
                format_cell(action.run.axes.get(key)) for action in plan.actions
            )
        )
        sentence = f"{name}: {', '.join(values[:MOST_VALUES])}"
        if len(values) > MOST_VALUES:
            sentence += f", … {values[-1]} ({len(values):,} values)"
        print_labelled("axis", sentence)


def _print_cut_reasons(shown: Sequence[Action], lines: Sequence[str]) -> None:
    """The reasons that the table had no room for, once for all runs that share one."""
    runs_by_reason: dict[str, list[str]] = {}
    for action, line in zip(shown, lines[1:], strict=True):
        reason = make_showable(describe_action(action), keep="")
        is_cut = not line.endswith(reason.rstrip())
        if is_cut:
            runs = runs_by_reason.setdefault(reason, [])
            runs.append(action.run.id)
    reasons = list(runs_by_reason)
    for reason in reasons[:MOST_REASONS]:
        names = name_few(runs_by_reason[reason], MOST_NAMED)
        _print_hanging("", f"{names}: {reason}", indent=2)
    hidden = len(reasons) - MOST_REASONS
    if hidden > 0:
        show.print_result(f"… and {hidden:,} other reasons (zsg why RUN)")


def _print_asides(plan: Plan) -> None:
    """What is to be known beside the table: nodes left out, stages, jobs released."""
    if plan.exclude:
        nodes = ", ".join(f"{node} ({why})" for node, why in plan.exclude.items())
        show.print_result(f"nodes left out of what is retried: {nodes}")
    _print_stages_before(plan)
    _print_unwanted(plan)
    if plan.held:
        names = name_few(compact_ids(job.id for job in plan.held))
        show.print_result(
            f"released: {names}, which Slurm holds since a launch failed, its controller"
            " forgot the release, or you held them"
        )
    if plan.left:
        show.print_result(plan.left)
    if plan.freed:
        print_labelled("free", plan.freed)


def _print_stages_before(plan: Plan) -> None:
    """The runs that are trained only because others start from their weights."""
    before = plan.stages_before
    for run in before[:FIRST_ROWS]:
        stages = len(run.recipe["stages"])
        show.print_result(
            f"{run.id}: {stages} stage(s) that runs above begin with, trained once"
        )
    if len(before) > FIRST_ROWS:
        show.print_result(f"… and {len(before) - FIRST_ROWS:,} more such stages")


def _print_unwanted(plan: Plan) -> None:
    """The runs that are at work though the grid no longer lists them, and how to end them."""
    active = [run for run in plan.unwanted if run.state.is_active]
    for run in active:
        axes = " ".join(
            f"{key}={format_value(value)}" for key, value in run.axes.items()
        )
        line = f"no longer in the grid: {run.run} ({axes}) is {run.state.state}"
        show.print_result(f"{make_showable(line, keep='')} and continues")
    if active:
        show.print_result(
            "to end what is no longer in the grid: zsg cancel"
            f" {' '.join(run.run for run in active)}"
        )


def _print_jobs(plan: Plan, shown: PlanShown) -> None:
    """Which jobs there would be, and what waits for what."""
    lines = job_lines.describe_jobs(plan, shown.profile, shown.estimate_of)
    for when, words in job_lines.describe_waves(lines):
        print_labelled(when, words)
    if shown.is_whole:
        for line in job_lines.list_job_names(plan):
            show.print_result(line)


def list_estimates(
    plan: Plan, estimate_of: Callable[[Run], Estimate]
) -> list[Estimate]:
    """What each run takes that would be trained, those of stages before among them."""
    runs = [action.run for action in plan.actions if action.kind in TRAINING]
    return [estimate_of(run) for run in (*runs, *plan.stages_before)]


def _print_costs(plan: Plan, shown: PlanShown) -> None:
    """Memory, GPU-hours and disk of what would be trained, a line each."""
    estimates = list_estimates(plan, shown.estimate_of)
    lines = (
        ("memory", costs.describe_memory(estimates)),
        ("cost", costs.describe_cost(estimates, shown.profile)),
        ("disk", costs.describe_disk(estimates, shown.profile)),
    )
    for label, words in lines:
        if words is not None:
            print_labelled(label, words)
    print_scores(shown.scores)


def print_scores(scores: Iterable[str]) -> None:
    """What scores would be taken: each line once, those that come several times with how
    often."""
    for words, count in Counter(scores).items():
        times = "" if count == 1 else f"{count:,} × "
        print_labelled("scores", f"{times}{words}")


def print_labelled(label: str, words: str) -> None:
    """A line that begins with a word for what it is of; what does not fit stands below
    its beginning."""
    _print_hanging(label, words, indent=LABEL)


def _print_hanging(label: str, words: str, indent: int) -> None:
    text = make_showable(words, keep="")
    blanks = " " * indent
    lines = textwrap.wrap(
        text,
        max(show.get_width(), indent + 20),
        initial_indent=label.ljust(indent),
        subsequent_indent=blanks,
        break_long_words=False,
        break_on_hyphens=False,
    )
    show.print_result("\n".join(lines))


def print_next(command: str, more: str) -> None:
    """What comes next; where there is room, how to see more."""
    show.print_result(set_ends(f"next: {command}", more, show.get_width())[0])


def print_effects(effects: Sequence[Effect]) -> None:
    """What the grid's and the profile's files have run and sent, a line each; nothing
    where they have nothing."""
    if effects:
        show.print_result(
            "what your files run, send and set, beyond what zsg itself does:"
        )
    for effect in effects:
        show.print_result(f"  {effect.line}")


def print_memory(lines: Sequence[Line], assumptions: Sequence[str]) -> None:
    """GB of each GPU by ZeRO stage, what each kind of run computes, and what the numbers
    rest on."""
    width = show.get_width()
    stages = [cells for line in lines for cells in _list_stages(line)]
    headings = ["model", "params", "GPUs", "ZeRO", "tensors", "act.", "need", "of"]
    show.print_block(fit_columns(headings, stages, width))
    works = [_list_work(line) for line in lines]
    headings = ["model", "GPUs", "steps", "tokens", "GPU-h", "total", "state"]
    show.print_block(fit_columns(headings, works, width))
    for text in assumptions:
        _print_hanging("", text, indent=2)


def _list_stages(line: Line) -> Iterable[list[str]]:
    """A row for each ZeRO stage, the profile's with a mark."""
    first = line.first
    memory_gb = first.memory_gb
    for stage, tensors_gb in first.tensors_gb.items():
        layout = replace(first.layout, zero_stage=stage)
        mark, activations_gb, need_gb = "", 0.0, 0.0
        if stage == first.layout.zero_stage:
            mark = "*"
            activations_gb = line.activations_gb
            need_gb = line.need_gb
        else:
            activations_gb = first.load.activations(layout, memory_gb) / GB
            need_gb = first.load.need(layout, memory_gb) / GB
        yield [
            first.model,
            format_short(first.load.shape.parameters),
            _name_gpus(first),
            f"{stage}{mark}",
            format_short(tensors_gb),
            format_short(activations_gb),
            format_short(need_gb),
            "–" if memory_gb is None else f"{memory_gb:g}",
        ]


def _list_work(line: Line) -> list[str]:
    """What the runs of a kind compute and keep."""
    first = line.first
    steps_sign = "≤" if first.work.examples_are == "at most" else ""
    sign = "≤" if first.work.tokens_are == "at most" else ""
    total = None if line.total_gpu_hours is None else (line.total_gpu_hours,)
    return [
        first.model,
        _name_gpus(first),
        _format_range(steps_sign, line.steps),
        _format_range(sign, line.tokens),
        _format_range(sign, line.gpu_hours),
        _format_range(sign, total),
        format_short(first.state_gb),
    ]


def _name_gpus(estimated: Estimate) -> str:
    return f"{estimated.layout.nodes}×{estimated.layout.ranks_per_node}"


def _format_range(sign: str, span: Sequence[float] | None) -> str:
    if span is None:
        return "–"
    return sign + "–".join(dict.fromkeys(format_short(value) for value in span))


def plan_rows(
    plan: Plan,
    estimates: Mapping[str, Any],
    refused: Sequence[str] = (),
    effects: Sequence[Mapping[str, str]] = (),
    design: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """The plan for scripts, with the estimate of each run by its id; null for what the
    grid wants no longer.

    `refused`: why submit would do nothing of it; in every row, so that no reader of
    rows takes them for submitted. `effects`: what the grid's and the profile's files
    have run and sent; in every row too, as it is of every run. `design`: what the
    grid's looks can find and what they take, likewise; null where it has none.
    """
    rows: list[dict[str, Any]] = [
        {"run": a.run.id, "action": a.kind, "reason": a.reason, "axes": a.run.axes}
        for a in plan.actions
    ]
    for run in plan.unwanted:
        reason = f"no longer in the grid; {run.state.state}"
        if run.state.is_active:
            reason += f" (zsg cancel {run.run} ends it)"
        rows.append(
            {"run": run.run, "action": "unwanted", "reason": reason, "axes": run.axes}
        )
    of_all = {"refused": list(refused), "effects": list(effects), "design": design}
    return [row | {"estimate": estimates.get(row["run"])} | of_all for row in rows]
