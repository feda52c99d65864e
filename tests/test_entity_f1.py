"""Is entity F1 that of all entities of a task, whatever an answer looks like?"""

import pytest

from zsg_core.data.readers.entities import write_entities
from zsg_core.metrics import entities, metrics
from zsg_core.metrics.scoring import Answered


def extract(*pairs: tuple[str, str], task: str = "ner") -> list[Answered]:
    """Answers, each beside its reference."""
    return [
        Answered(
            id=f"{task}:{number}",
            task=task,
            prompt=str(number),
            references=(right,),
            answer=said,
        )
        for number, (said, right) in enumerate(pairs)
    ]


def test_the_entities_of_a_task_count_together() -> None:
    """By hand: 3 of 4 answered are right, of 5 to be found: F1 of 6/9, which is not the
    mean of the sentences'."""
    answers = extract(
        ("GPE: Iceland; DATE: 1944", "GPE: Iceland; DATE: 1944"),
        ("PERSON: Egill; ORG: Althing", "PERSON: Egill; GPE: Borg; DATE: 930"),
    )
    scores = metrics.score_answers(["entity_f1"], answers)

    assert scores.values["entity_f1"] == pytest.approx(100 * 6 / 9)


@pytest.mark.parametrize(
    ("said", "right", "f1"),
    [
        pytest.param("None", "None", 100, id="nothing to find, nothing answered"),
        pytest.param("none.", "None", 100, id="in other words"),
        pytest.param("", "None", 100, id="an empty answer"),
        pytest.param("", "GPE: Iceland", 0, id="nothing found"),
        pytest.param("gpe:  iceland", "GPE: Iceland", 100, id="case and blanks"),
        pytest.param("GPE: Iceland\nDATE: 1", "GPE: Iceland; DATE: 1", 100, id="lines"),
        pytest.param("ORG: Iceland", "GPE: Iceland", 0, id="another type"),
        pytest.param("Iceland", "GPE: Iceland", 0, id="no type"),
        pytest.param("GPE: A; GPE: A", "GPE: A", 100 * 2 / 3, id="twice, where once"),
        pytest.param("GPE: A; GPE: A", "GPE: A; GPE: A", 100, id="twice"),
        pytest.param("; : ;;", "GPE: A", 0, id="signs alone"),
    ],
)
def test_an_answer_is_read_as_it_stands(said: str, right: str, f1: float) -> None:
    """Of one sentence."""
    scores = metrics.score_answers(["entity_f1"], extract((said, right)))

    assert scores.values["entity_f1"] == pytest.approx(f1)


def test_what_zsg_writes_of_tags_is_read_as_that() -> None:
    """The answers of tagged sentences as training has them."""
    written = write_entities([("GPE", "New York"), ("DATE", "May 1 , 2004")])

    assert entities.read_entities(written) == {
        ("gpe", "new york"): 1,
        ("date", "may 1 , 2004"): 1,
    }
    assert entities.read_entities(write_entities([])) == {}
