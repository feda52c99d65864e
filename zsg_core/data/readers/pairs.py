"""Reads rows of one question and one answer: GSM8K and its RFT form, TELL.

RFT repeats a question on consecutive lines, once per sampled solution; each line is an
example of its own.
"""

from zsg_core.data.examples import Example
from zsg_core.data.readers.format import Parse, row_reader
from zsg_core.data.readers.intake import Intake, Malformed
from zsg_core.data.readers.keys import QuestionKeys


class PairRow(QuestionKeys, gc=False):
    """A question by any of its names, an answer by any of its."""

    question: str | None = None
    query: str | None = None
    prompt: str | None = None
    answer: str | None = None
    response: str | None = None
    ground_truth: str | None = None


def make_parser(task: str, *forms: tuple[str, str]) -> Parse[PairRow]:
    """Parses rows that have both keys of one of the `forms`. Malformed for other rows."""

    def parse(row: PairRow, name: str, intake: Intake) -> list[Example]:
        for question_key, answered in forms:
            question, answer = getattr(row, question_key), getattr(row, answered)
            if question is not None and answer is not None:
                turn = question, answer
                return [Example(id=intake.next_id(task), task=task, turns=(turn,))]
        raise Malformed(
            "needs "
            + ", or ".join(
                f"{question_key} and {answered}" for question_key, answered in forms
            )
        )

    return parse


row_reader(
    "gsm8k", "GSM8K: question and answer; its RFT form: query and response", PairRow
)(
    make_parser(
        "gsm8k",
        ("question", "answer"),
        ("query", "response"),
        ("question", "ground_truth"),
    )
)
row_reader("tell", "TELL: query and response, or prompt and response", PairRow)(
    make_parser("tell", ("query", "response"), ("prompt", "response"))
)
