"""Do the answer choices of P3's rows become options of the examples, and cost a bad one
nothing but these?"""

import json

import pytest

from zsg_core.data import readers
from zsg_core.data.readers import p3
from zsg_core.data.readers.intake import Intake

OPTIONS = [
    pytest.param(["Yes", "No"], "No", ("Yes", "No"), None, id="as the answer is"),
    pytest.param(
        [" Yes ", "No\n"],
        "\nNo ",
        ("\nYes ", "\nNo "),
        None,
        id="with the answer's blanks, not their own",
    ),
    pytest.param(["Yes", "No", "Yes "], "No", ("Yes", "No"), None, id="one twice"),
    pytest.param(["Yes", "", "No"], "No", ("Yes", "No"), None, id="a blank one"),
    pytest.param(None, "No", (), None, id="none, as of a generative template"),
    pytest.param([], "No", (), None, id="none of them"),
    pytest.param(
        ["No", "No "], "No", (), "answer_choices of which no two differ", id="one"
    ),
    pytest.param(
        ["Yes", "Maybe"],
        "No",
        (),
        "answer_choices that the answer is none of",
        id="another answer",
    ),
    pytest.param(
        "Yes ||| No", "No", (), "answer_choices that are no list of texts", id="a text"
    ),
    pytest.param(
        ["Yes", 3], "No", (), "answer_choices that are no list of texts", id="a number"
    ),
]


@pytest.mark.parametrize(("published", "answer", "options", "noted"), OPTIONS)
def test_answer_choices_become_options_of_the_answer(published, answer, options, noted):
    """Where the answer is one of two or more; else there are none, and that is counted."""
    intake = Intake()

    assert p3.match_options(published, answer, intake) == options
    assert intake.notes == ({noted: 1} if noted else {})


@pytest.mark.parametrize(
    ("asked", "answered", "end"),
    [
        ("inputs_pretokenized", "targets_pretokenized", ""),
        ("prompt", "completion", p3.END),
    ],
)
def test_either_form_of_row_may_have_them(tmp_path, asked, answered, end):
    """A row whose choices are no choice is an example as any other."""
    rows = [
        {asked: "q", answered: f"No{end}", "answer_choices": offered}
        for offered in (["Yes", "No"], "Yes")
    ]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = list(readers.read_examples("p3", tmp_path, Intake()))

    assert [one.turns for one in made] == [(("q", "No"),)] * 2
    assert [one.options for one in made] == [("Yes", "No"), ()]
