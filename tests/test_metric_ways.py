"""Are the ways in which metrics were taken told where their values are read?"""

from typing import Any

import msgspec

from jobs.contract.journal_rows import AnswersKept, EventRow, InsideTaken
from jobs.contract.metric_ways import describe_ways
from jobs.runtime.installed_versions import read_version
from jobs.tracking import mlflow_metadata
from zsg_core.metrics.keys import INSIDE
from zsg_core.suites import Suite

BLEU = {"tokenize": "13a", "signature": "case:mixed|eff:no|tok:13a|smooth:exp"}
BENCHMARK: dict[str, Any] = {
    "harness": "0.4.13",
    "num_fewshot": 5,
    "limit": 100,
    "chat": "run",
    "template": "zsg",
    "task": "my_mmlu",
    "task_version": "1.0",
    "task_digest": "0a1b",
}


def make_row(event: AnswersKept | InsideTaken, step: int = 5) -> EventRow:
    """A row of a journal that tells of an event."""
    return EventRow(step=step, data=event, **ELSE)


# what else a row is to have
ELSE: dict[str, Any] = {
    field.name: 0
    for field in msgspec.structs.fields(EventRow)
    if field.required and field.name not in ("step", "data")
}


def test_a_signature_has_the_version_that_scored() -> None:
    """And a benchmark version, shots, template and files; other keys have no line."""
    answers = AnswersKept(
        suite="test_set",
        how={"stops": []},
        keys=["bleu", "exact_match"],
        scored_by={"bleu": BLEU, "words": {"plugin": "0a"}},
        file="a",
        at=0,
        bytes=1,
        libraries={"sacrebleu": "2.6.0"},
    )
    key = "lm_eval/my_mmlu"
    inside = InsideTaken(
        ways={key: BENCHMARK, f"{key}_stderr": BENCHMARK, "silhouette": {"layer": 1}}
    )
    told = {
        "bleu": "case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0",
        key: (
            "task my_mmlu of version 1.0, lm_eval 0.4.13, 5 shots, the run's template zsg,"
            " limit 100, files 0a1b"
        ),
    }

    assert describe_ways([make_row(answers), make_row(inside)]) == told
    assert mlflow_metadata.name_ways([make_row(answers), make_row(inside)]) == {
        f"how.{name}": text for name, text in told.items()
    }


def test_what_an_older_zsg_journalled_has_no_version() -> None:
    """Shots that nobody has set are those of the task."""
    older = AnswersKept(
        suite="s",
        how={},
        keys=["bleu"],
        scored_by={"bleu": BLEU},
        file="a",
        at=0,
        bytes=1,
    )
    plain = {**BENCHMARK, "num_fewshot": None, "chat": "none", "limit": None}
    plain |= {"task_digest": None, "task_version": ""}
    inside = InsideTaken(ways={"lm_eval/x": plain})
    ways = describe_ways([make_row(older), make_row(inside)])

    assert ways["bleu"] == BLEU["signature"]
    assert ways["lm_eval/x"] == (
        "task my_mmlu of version ?, lm_eval 0.4.13, as many shots as the task says, no template"
    )


def test_a_library_without_a_record_has_no_version() -> None:
    """What a node has been given by hand; hours of answers are not lost for it."""
    assert read_version("no-such-package-of-zsg") == ""
    assert read_version("msgspec") != ""


def test_what_is_taken_inside_a_model_is_no_metric_of_answers() -> None:
    """As those that ask for judges and scorers look for it."""
    inside = Suite(name=INSIDE, keys=("silhouette/layer_1", "rank_accuracy"), how={})

    assert inside.metrics == []
