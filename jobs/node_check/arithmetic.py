"""Checks that training steps on these devices are the plain ones: in each precision, and
in fp16 when gradients overflow. See jobs.node_check.precisions for what is held against
what."""

from jobs.contract.node_check import Finding
from jobs.node_check.context import CheckContext
from jobs.node_check.findings import report_ok, report_problem, report_skipped
from jobs.node_check.precisions import (
    BOUNDS,
    STEPS,
    Deviation,
    Overflow,
    compare_steps,
    judge_overflow,
    make_overflow_trial,
    make_trial,
    publish_small_base,
    train_reference,
    train_small,
)
from jobs.node_check.small_training import Bench, release_memory
from jobs.training.overflow import refuse_fp16
from zsg_core.errors import UserError

ADVICE = (
    "do not trust numbers of these nodes: use the versions of constraints.txt, try"
    " another node, and send us this report"
)
USUAL_STAGE = 1


def make_bench(context: CheckContext) -> Bench:
    """Where this check trains."""
    return Bench(context.ranks, context.device, context.bench)


def choose_zero_stage(context: CheckContext) -> int:
    """That of the model that the request tries."""
    trial = context.request.trial
    return USUAL_STAGE if trial is None else trial.zero_stage


def check_steps(context: CheckContext) -> list[Finding]:
    """A few steps in each precision of the request; all ranks call it together."""
    bench = make_bench(context)
    publish_small_base(bench)
    findings: list[Finding] = []
    for precision in context.request.precisions:
        obstacle = ""
        if precision == "fp16":
            obstacle = find_fp16_obstacle(context, "steps in fp16")
        if obstacle:
            findings.append(report_skipped(obstacle, precision))
            continue
        trial = make_trial(precision, choose_zero_stage(context))
        trained = train_small(bench, trial)
        release_memory(context.device)
        if context.ranks.is_main:
            plain = train_reference(trial)
            findings.append(judge_deviation(compare_steps(precision, trained, plain)))
    return findings


def find_fp16_obstacle(context: CheckContext, name: str) -> str:
    """Why fp16 cannot be trained on some rank; empty where it can on all. All ranks
    call it together, under a name that serves once."""
    assert context.meeting
    obstacle = ""
    try:
        refuse_fp16()
    except UserError as error:
        obstacle = str(error)
    answers = context.meeting.exchange(name, obstacle)
    return context.meeting.describe_answers(answers)


def judge_deviation(deviation: Deviation) -> Finding:
    """Whether steps are near enough to the plain ones."""
    precision = deviation.precision
    text = (
        f"{STEPS} steps in {precision}: losses differ from those in float32 on the CPU by"
        f" {deviation.loss:.1e} of them, gradients' norms by {deviation.norm:.1e}"
    )
    figures = {"loss_deviation": deviation.loss, "norm_deviation": deviation.norm}
    if deviation.is_sound:
        return report_ok(text, precision, **figures)
    loss_bound, norm_bound = BOUNDS[precision]
    text += f"; at most {loss_bound:g} and {norm_bound:g} are rounding"
    return report_problem(text, ADVICE, precision, **figures)


def check_overflow(context: CheckContext) -> list[Finding]:
    """Steps in fp16 from a loss scale that is far too high; all ranks call it together."""
    if "fp16" not in context.request.precisions:
        return [report_skipped("nothing is trained in fp16")]
    obstacle = find_fp16_obstacle(context, "overflow in fp16")
    if obstacle:
        return [report_skipped(obstacle)]
    bench = make_bench(context)
    publish_small_base(bench)
    trained = train_small(bench, make_overflow_trial(choose_zero_stage(context)))
    release_memory(context.device)
    if not context.ranks.is_main:
        return []
    return [describe_overflow(judge_overflow(trained))]


def describe_overflow(overflow: Overflow) -> Finding:
    """Whether training outlived gradients that overflow."""
    figures = {"skipped_steps": overflow.skipped}
    if overflow.is_sound:
        text = (
            f"{overflow.skipped} steps whose gradients overflowed in fp16 were skipped,"
            " and training went on with a lower loss scale"
        )
        return report_ok(text, **figures)
    if not overflow.skipped:
        text = "gradients that must overflow in fp16 did not: no step was skipped"
    else:
        text = f"after {overflow.skipped} skipped steps in fp16 none was taken"
    return report_problem(text, ADVICE, **figures)
