"""Scores answers to HumanEval by running the programs in them, in a sandbox."""

from collections.abc import Iterable, Sequence

from jobs.evaluating.sandbox import Exam, Sandbox
from zsg_core.data.readers.evaluation import Problem
from zsg_core.errors import BadData
from zsg_core.metrics import human_eval
from zsg_core.metrics.scoring import Answered, ByItem


def score_answers(
    sandbox: Sandbox,
    problems: Iterable[Problem],
    answers: Sequence[Answered],
    ks: Sequence[int] = (1,),
) -> dict[str, ByItem]:
    """`humaneval/pass_at_k` of each item, × 100. BadData for an answer to no problem,
    NoSandbox where it gives way."""
    known = {one.task_id: one for one in problems}
    if strange := next((one.id for one in answers if one.id not in known), None):
        raise BadData(
            f"{strange!r} is no problem of HumanEval's file, and cannot be tested"
        )
    verdicts = sandbox.run_all(
        [build_exam(known[one.id], one.answer) for one in answers]
    )
    return human_eval.score_samples(
        (
            (one.id, verdict.passed)
            for one, verdict in zip(answers, verdicts, strict=True)
        ),
        ks=ks,
    )


def build_exam(problem: Problem, answer: str) -> Exam:
    """The program in an answer, with the problem's tests."""
    return Exam(
        program=human_eval.extract_program(problem, answer),
        entry_point=problem.entry_point,
        prompt=problem.prompt,
        test=problem.test,
    )
