"""Says in a line each which jobs a plan makes, in the order in which they run. Pure."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from jobs.contract.folder import CHAT_TRIALS, SCORES
from jobs.contract.job_file import is_run_item
from jobs.contract.model_proof import FOLDER as PROOFS
from launcher.clusters.profiles import JobSize, Profile
from launcher.grids.runs import Run
from launcher.planning import judging_cost, makings
from launcher.planning.estimates import Estimate
from launcher.planning.plan import Evaluation, Look, Plan, Prepare, TrainGroup
from launcher.planning.workload import AT_MOST
from zsg_core.shown_text import name_few

MOST_NAMED = 16
MOST_MAKINGS = 8  # jobs that ask for data, each with a line
# what prepare jobs make, by the folder of the workspace that it is in
PRODUCTS = {
    "arrangements": ("order", "orders"),
    "bases": ("tiny model", "tiny models"),
    "records": ("set of answers", "sets of answers"),
    SCORES: ("set of scores", "sets of scores"),
    PROOFS: ("proof of a model", "proofs of models"),
    CHAT_TRIALS: ("trial of a chat template", "trials of chat templates"),
}


@dataclass(frozen=True)
class JobLine:
    """Some jobs that run at the same time, in words. `wave`: how many waves of jobs are
    waited for before."""

    wave: int
    words: str


def describe_jobs(
    plan: Plan, profile: Profile, estimate_of: Callable[[Run], Estimate]
) -> list[JobLine]:
    """The jobs of a plan, those that run first at the top."""
    lines = [
        *_describe_prepares(plan, profile),
        *_describe_training(plan, estimate_of),
    ]
    last = max((line.wave for line in lines), default=-1) + 1
    lines += [
        JobLine(last, _describe_evaluation(evaluation, profile))
        for evaluation in _join_evaluations(plan.evaluations)
    ]
    evaluated = [run for each in plan.evaluations for run in each.runs]
    steps_of = {run.id: estimate_of(run).work.steps for run in evaluated}
    lines += [
        JobLine(last, words)
        for words in judging_cost.describe_judging(evaluated, steps_of)
    ]
    return lines


def _describe_prepares(plan: Plan, profile: Profile) -> Iterator[JobLine]:
    scorers = [prepare for prepare in plan.prepares if prepare.scores]
    makers = [prepare for prepare in plan.prepares if not prepare.asks_model]
    first_lines = list(_describe_samplers(plan, profile))
    yield from first_lines
    wave = int(bool(first_lines))
    if scorers:
        yield JobLine(wave, _describe_scorers(scorers, profile))
        wave += 1
    if makers:
        jobs = with_noun(len(makers), "prepare job", "prepare jobs")
        limit = _describe_limit(len(makers), profile.prepare.time_min)
        products = _count_products(makers)
        yield JobLine(wave, f"{jobs}: {products}, {limit}")


def _describe_samplers(plan: Plan, profile: Profile) -> Iterator[JobLine]:
    """The jobs that ask a model for answers or data, which wait for none."""
    askers = [prepare for prepare in plan.prepares if prepare.maker]
    samplers = [prepare for prepare in plan.prepares if prepare.is_sampler]
    yield from _describe_askers(askers, profile)
    if samplers:
        jobs = with_noun(len(samplers), "job samples", "jobs sample")
        limit = _describe_limit(len(samplers), profile.evaluate.time_min)
        yield JobLine(0, f"{jobs} the model's own answers, {limit}")


def _describe_askers(askers: Sequence[Prepare], profile: Profile) -> Iterator[JobLine]:
    """The jobs that ask a model for data: of the first, how often and at what cost."""
    for prepare in askers[:MOST_MAKINGS]:
        size = profile.evaluate if prepare.server is None else profile.prepare
        limit = _describe_limit(1, size.time_min)
        for line in makings.describe_making(prepare):
            yield JobLine(0, f"1 job: {line}, {limit}")
    if len(askers) > MOST_MAKINGS:
        jobs = with_noun(len(askers) - MOST_MAKINGS, "more job", "more jobs")
        yield JobLine(0, f"{jobs} that ask models for data")


def _describe_scorers(scorers: Sequence[Prepare], profile: Profile) -> str:
    """The jobs that score examples by a model, and after which runs."""
    jobs = with_noun(len(scorers), "job scores", "jobs score")
    limit = _describe_limit(len(scorers), profile.evaluate.time_min)
    runs = {item for job in scorers for item in job.after if item.startswith("runs/")}
    after = f", after {name_few(sorted(runs), MOST_NAMED)}" if runs else ""
    return f"{jobs} examples by a model: {_count_products(scorers)}{after}, {limit}"


def _count_products(prepares: Sequence[Prepare]) -> str:
    """What prepare jobs make, by kind."""
    products = {item for prepare in prepares for item in prepare.makes}
    counts = Counter(item.partition("/")[0] for item in products)
    return ", ".join(
        with_noun(number, *PRODUCTS.get(kind, (kind, kind)))
        for kind, number in sorted(counts.items())
    )


def _describe_limit(jobs: int, minutes: int) -> str:
    return f"≤ {minutes:,} min" + " each" * (jobs > 1)


def _describe_training(
    plan: Plan, estimate_of: Callable[[Run], Estimate]
) -> Iterator[JobLine]:
    """The train jobs, those of equal size that run in the same wave together."""
    first = _find_first_training_wave(plan)
    waves = _find_waves(plan.groups, plan.looks)
    after_canary = 0 if plan.canary is None else 1
    runs_by_size: dict[tuple[int, JobSize], list[Run]] = {}
    look_before: dict[int, int] = {}
    for number, group in enumerate(plan.groups):
        if plan.canary and group.runs == [plan.canary.run]:
            words = _describe_canary(plan, group, estimate_of)
            yield JobLine(first, words)
            continue
        wave = first + waves[number] + after_canary
        runs = runs_by_size.setdefault((wave, group.size), [])
        runs += group.runs
        look = _find_look_before(group, plan.looks)
        if look is not None:
            look_before[wave] = look.number
    by_wave = sorted(runs_by_size.items(), key=lambda item: item[0][0])
    for (wave, size), runs in by_wave:
        estimates = [estimate_of(run) for run in runs]
        jobs = with_noun(len(runs), "train job", "train jobs")
        work = _describe_work(size, estimates)
        limit = _describe_limit(len(runs), size.time_min)
        if wave in look_before:
            jobs = f"{jobs}, unless look {look_before[wave]} spares them"
        yield JobLine(wave, f"{jobs}: {work}, {limit}")


def _find_look_before(group: TrainGroup, looks: Sequence[Look]) -> Look | None:
    """The look that an array waits for; None where it waits for none of these."""
    for look in looks:
        if look.item in group.after:
            return look
    return None


def _find_first_training_wave(plan: Plan) -> int:
    """How many waves of other jobs come before the first training."""
    kinds = {(prepare.samples, prepare.scores) for prepare in plan.prepares}
    return len(kinds)


def _describe_canary(
    plan: Plan, group: TrainGroup, estimate_of: Callable[[Run], Estimate]
) -> str:
    """The run that goes first."""
    assert plan.canary is not None, "there is a run that goes first"
    behind = with_noun(plan.canary.waiting, "other waits", "others wait")
    takes = _describe_work(group.size, [estimate_of(group.runs[0])])
    limit = _describe_limit(1, group.size.time_min)
    return (
        f"1 train job alone, {plan.canary.run.id}: {takes}, {limit}; {behind} for its"
        " first checkpoint (--no-canary: none does)"
    )


def _find_waves(groups: Sequence[TrainGroup], looks: Sequence[Look]) -> list[int]:
    """Of each array, how many trainings come before its own, one after the other; behind
    a look, those that it is of."""
    maker = {
        f"runs/{run.id}": number
        for number, group in enumerate(groups)
        for run in group.runs
    }
    waves = list[int]()
    runs_before = {look.item: look.after for look in looks}
    for group in groups:  # a run comes before those that start from its weights
        after = [*group.after]
        for item in group.after:
            after += runs_before.get(item, ())
        before = [maker[item] for item in after if item in maker]
        earlier = [waves[number] for number in before if number < len(waves)]
        waves.append(max(earlier, default=-1) + 1)
    return waves


def _describe_work(size: JobSize, estimates: Sequence[Estimate]) -> str:
    """The processes of each job, and its steps and tokens."""
    works = [estimated.work for estimated in estimates]
    steps = _format_span(
        [work.steps for work in works],
        is_bound=any(work.examples_are == AT_MOST for work in works),
    )
    tokens = _format_span(
        [work.train_tokens for work in works],
        is_bound=any(work.tokens_are == AT_MOST for work in works),
    )
    processes = _describe_processes(size)
    if steps is None:
        return f"{processes}, steps not known yet"
    if tokens is None:
        return f"{processes}, {steps} steps"
    return f"{processes}, {steps} steps, {tokens} tokens"


def _describe_processes(size: JobSize) -> str:
    processes = with_noun(size.ranks_per_node, "process", "processes")
    if size.nodes == 1:
        return processes
    return f"{size.nodes} nodes × {processes}"


def _format_span(values: Sequence[float | None], is_bound: bool) -> str | None:
    """A number, or the smallest and the largest, with a sign where it is a bound; None
    where one is not known."""
    numbers = [value for value in values if value is not None]
    if len(numbers) < len(values):
        return None
    smallest = format_with_noun(min(numbers))
    largest = format_with_noun(max(numbers))
    sign = "≤ " if is_bound else ""
    if smallest == largest:
        return sign + largest
    return f"{sign}{smallest}–{largest}"


def format_with_noun(value: float) -> str:
    """A count in three or four digits: 24, 1,797, 49.2k, 6.1M, 1.2B."""
    for threshold, unit, sign in ((1e9, 1e9, "B"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if value >= threshold:
            return f"{value / unit:.3g}{sign}"
    return f"{value:,.0f}"


def _join_evaluations(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """The evaluate jobs of all arrays as one."""
    if not evaluations:
        return []
    runs = [run for evaluation in evaluations for run in evaluation.runs]
    beside = sum(evaluation.beside for evaluation in evaluations)
    after = sum(evaluation.after for evaluation in evaluations)
    return [Evaluation(runs, beside, after)]


def _describe_evaluation(evaluation: Evaluation, profile: Profile) -> str:
    """How many evaluate jobs there are, and what they take of how many runs."""
    keys: dict[str, None] = {}
    for run in evaluation.runs:
        keys.update(dict.fromkeys(run.scored))
    jobs = with_noun(evaluation.jobs, "evaluate job", "evaluate jobs")
    if evaluation.beside:
        jobs = f"{jobs}, {evaluation.beside} of them beside the training"
    runs = with_noun(len(evaluation.runs), "run", "runs")
    limit = _describe_limit(evaluation.jobs, profile.evaluate.time_min)
    metrics = ", ".join(keys)
    return f"{jobs}: {metrics} of {runs}, {limit}"


def with_noun(number: int, one: str, many: str) -> str:
    """A number with its noun."""
    return f"{number:,} {one if number == 1 else many}"


def list_job_names(plan: Plan) -> list[str]:
    """Each job by the name that `zsg logs` and `zsg why` take, with what it makes and
    waits for."""
    lines = [
        f"{prepare.item}: {prepare.description} {name_few(sorted(prepare.makes), MOST_NAMED)}"
        for prepare in plan.prepares
    ]
    lines += [_describe_array(group) for group in plan.groups]
    canary = plan.canary
    if canary:
        task = f"waits for the first checkpoint of {canary.run.id}"
        line = f"{canary.item}: {task}, one CPU"
        lines.append(line)
    lines += map(_describe_look, plan.looks)
    return lines


def _describe_look(look: Look) -> str:
    """A look, what it waits for, and what waits for it."""
    runs = list(filter(is_run_item, look.after))
    return (
        f"{look.item}: looks at the claims after {len(runs):,} runs, one CPU;"
        f" {len(look.spares):,} runs wait for it"
    )


def _describe_array(group: TrainGroup) -> str:
    """An array of train jobs, what it waits for, and its runs."""
    ends = "the end of " if group.whatever_they_made else ""
    after = f" after {ends}{name_few(group.after, MOST_NAMED)}" if group.after else ""
    runs = name_few([run.id for run in group.runs], MOST_NAMED)
    return f"train array of {len(group.runs):,}{after}: {runs}"


def describe_waves(lines: Sequence[JobLine]) -> list[tuple[str, str]]:
    """The lines, each with when it comes: first, then; nothing where it runs beside the
    line above."""
    labelled = list[tuple[str, str]]()
    earlier: int | None = None
    for line in lines:
        label = "then" if line.wave else "first"
        if line.wave == earlier:
            label = ""
        labelled.append((label, line.words))
        earlier = line.wave
    return labelled
