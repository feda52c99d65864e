"""Does RFT keep the answers that its authors' collector keeps, without running what a
model wrote?"""

from collections.abc import Sequence

import pytest

from zsg_core.data.examples import Example
from zsg_core.makers import equations, rft
from zsg_core.makers.edit_distance import count_edits
from zsg_core.makers.registry import MAKERS, Made, Reply, Request, run_maker
from zsg_core.settings.makers import RftSettings

QUESTION = "A box holds 3 pens. How many pens are in 4 boxes and 2 single ones?"
GOLD = (
    "A box holds 3 pens, so 4 boxes hold 3*4 = <<3*4=12>>12 pens.\n"
    "With 2 more that is 12+2 = <<12+2=14>>14.\n#### 14"
)
# samples of which the authors' collector keeps 2, 1, 6, 8 and 9
SAMPLES = [
    "4 boxes hold <<3*4=12>>12 pens and 2 more make <<12+2=14>>14.\n#### 14",
    "There are <<4*3=12>>12 pens, then <<12+2=14>>14 in all.\n#### 14",
    "4 boxes hold <<3 * 4=12>>12 pens; together with the 2 single ones they are <<12 +"
    " 2=14>>14 pens altogether.\n#### 14",
    "It is <<3*4=13>>13, so <<12+2=14>>14.\n#### 14",
    "It is <<3*4=12>>12 and so <<12+3=15>>15.\n#### 15",
    "The answer must be 14.\n#### 14",
    "Fourteen, plainly: 3*4+2.\n#### 14.0",
    "<<3*4=12>>12, <<12+2=14>>14",
    "<<12+2=14>>14 as <<3*4=12>>12.\n#### 1,4",
    "<<3*4=12>>12 <<12+2=14=14>>14 \n#### 14",
    "<<(3*4)+2=14>>14\n#### $14",
]
KEPT = [2, 1, 6, 8, 9]
PROBLEM = Example(id="gsm8k:0", task="gsm8k", turns=((QUESTION, GOLD),))


def make(
    examples: Sequence[Example], replies: Sequence[Reply], **settings: object
) -> tuple[Made, list[Request]]:
    """What RFT makes of these replies, and what it asked."""
    asked: list[Request] = []

    def answer(requests: Sequence[Request]) -> Sequence[Reply]:
        asked.extend(requests)
        return replies

    wanted = RftSettings.model_validate(settings)
    return run_maker(MAKERS["rft"].make(examples, wanted), answer), asked


def test_the_answers_of_the_authors_collector_are_kept() -> None:
    """The problem's own answer first, then those kept in the order of their equations;
    every other is counted with its reason."""
    replies = [Reply(text=text) for text in SAMPLES]
    made, _ = make([PROBLEM], replies, samples=len(SAMPLES))

    assert [example.answer for example in made.examples] == [
        GOLD,
        *(SAMPLES[number] for number in KEPT),
    ]
    assert made.refused == {
        rft.NO_NUMBER: 2,
        rft.WRONG_NUMBER: 1,
        rft.WRONG_EQUATION: 1,
        rft.REPLACED: 2,
    }
    assert sum(made.refused.values()) + len(KEPT) == len(SAMPLES)


def test_equations_are_keys_in_their_order() -> None:
    """Blanks count for nothing, the order of factors does; none at all is a key, too."""
    keys = [
        equations.join_equations(equations.list_equations(SAMPLES[number]))
        for number in KEPT
    ]

    assert keys == [
        "3*4=12|12+2=14",
        "4*3=12|12+2=14",
        "",
        "12+2=14|3*4=12",
        "3*4=12|12+2=14=14",
    ]


def test_an_answer_no_farther_than_the_known_one_is_refused() -> None:
    """The first of two equals stays."""
    replies = [Reply(text=SAMPLES[2]), Reply(text=SAMPLES[2])]
    made, _ = make([PROBLEM], replies, samples=2, gold=False)

    assert len(made.examples) == 1
    assert made.refused == {rft.KNOWN: 1}


@pytest.mark.parametrize(
    ("equation", "right"),
    [
        ("3*4=12", True),
        ("10/3=3.33", False),
        ("10/3=3.3333", True),
        ("1/3=0.333", True),
        ("2+2=4=4", True),
        ("20%*5=1", False),
        ("5=5.0009", True),
        ("5=5.0011", False),
        ("(2+3)*4=20", True),
        ("1,000+1=1001", False),
        ("12", False),
        ("x+1=2", False),
        ("3-5=-2", True),
        ("2**3=8", True),
        (".5+.5=1", True),
        ("07+1=8", False),
        ("3/4=3/4", False),
    ],
)
def test_an_equation_holds_to_a_thousandth(equation: str, right: bool) -> None:
    """As the authors evaluate it."""
    assert equations.holds(equation) is right


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').getpid()=1",
        "open('x')=1",
        "9**9**9=1",
        "(9**64)**64=1",
        "1e308*10=1",
        "1/0=1",
        "(-8)**0.5=1",
        "(" * 5000 + "1" + ")" * 5000 + "=1",
        "True=1",
        "1j=1",
        "1 if 1 else 2=1",
        "1\n+1=2",
        "\0=0",
        "=1",
        "1=",
        "1=nan",
        "1_0=10",
    ],
)
def test_a_hostile_equation_does_not_hold(text: str) -> None:
    """It is neither run, nor does it keep the machine busy."""
    assert equations.holds(text) is False


def test_the_edits_between_texts_are_counted() -> None:
    """As the table of all prefixes has it."""

    def by_table(left: str, right: str) -> int:
        row = list(range(len(right) + 1))
        for number, one in enumerate(left, 1):
            above, row[0] = row[0], number
            for place, other in enumerate(right, 1):
                diagonal = above + (one != other)
                above = row[place]
                row[place] = min(row[place] + 1, row[place - 1] + 1, diagonal)
        return row[-1]

    texts = [
        "",
        "a",
        "kitten",
        "sitting",
        "flaw",
        "lawn",
        "äöü👍",
        SAMPLES[0],
        SAMPLES[2],
    ]
    for left in texts:
        for right in texts:
            assert count_edits(left, right) == by_table(left, right), (left, right)


def test_what_is_no_answer_is_counted_by_its_reason() -> None:
    """A refusal of the server in its own words; what is empty or cut."""
    replies = [
        Reply(refused="too long for the model"),
        Reply(text=" \n"),
        Reply(text=SAMPLES[0], is_cut=True),
        Reply(text="no number"),
    ]
    made, _ = make([PROBLEM], replies, samples=4)

    assert made.refused == {
        "too long for the model": 1,
        rft.EMPTY: 1,
        rft.CUT: 1,
        rft.NO_NUMBER: 1,
    }
    assert [example.answer for example in made.examples] == [GOLD]
    assert made.facts["problems with a right answer"] == 0


def test_a_problem_without_a_number_is_not_asked() -> None:
    """It costs no request, and is counted."""
    poem = Example(id="a:0", task="a", turns=(("Write a poem.", "Roses."),))
    talk = Example(id="a:1", task="a", turns=(("1+1?", "2"), ("2+2?", "4")))
    made, asked = make([poem, talk], [], samples=3)

    assert asked == []
    assert made.refused == {rft.NO_GOLD: 1, rft.SEVERAL_TURNS: 1}


def test_the_wording_is_asked_and_not_learnt() -> None:
    """What the model is told of the form stands behind the problem, in no example."""
    replies = [Reply(text="It is 14"), Reply(text="So 14")]
    made, asked = make(
        [PROBLEM],
        replies,
        samples=2,
        read="last",
        wording="End with ####.",
        system="Be exact.",
        stops=["\nQ:"],
    )

    assert [request.id for request in asked] == ["gsm8k:0/0", "gsm8k:0/1"]
    assert asked[0].turns == ((f"{QUESTION}\n\nEnd with ####.", ""),)
    assert (asked[0].system, asked[0].sampling.stops) == ("Be exact.", ("\nQ:",))
    assert {example.input for example in made.examples} == {QUESTION}
    assert [example.id for example in made.examples] == ["gsm8k:0/gold", "gsm8k:0/0"]


def test_requests_have_names_of_their_own() -> None:
    """Two of one name would share a draw and a reply."""
    with pytest.raises(ValueError, match="two requests"):
        make([PROBLEM, PROBLEM], [Reply(text="")] * 2, samples=1)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("<<1=1>> and <<2=2>>", ["1=1", "2=2"]),
        ("<<1=1>>>> << <<2=2>>", ["1=1", " <<2=2"]),
        ("<<<1=1>>", ["<1=1"]),
        ("<<>>", [""]),
        ("<<1\n=1>>", ["1\n=1"]),
        (">> <<1=1", []),
    ],
)
def test_equations_are_read_from_mark_to_mark(text: str, found: list[str]) -> None:
    """From the first << to the next >>, also over lines."""
    assert equations.list_equations(text) == found


def test_marks_that_never_close_take_no_time() -> None:
    """A reply of two million of them is read in one pass."""
    assert equations.list_equations("<<" * 1_000_000) == []
