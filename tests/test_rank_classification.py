"""Is the option with the least loss the one that is chosen?"""

import math

import msgspec
import pytest

from zsg_core.data.examples import Example
from zsg_core.metrics import rank_classification

ITEM = Example(id="t:0", task="t", turns=(("Is it?", "No"),), references=("No",))


def choice(*options: str) -> rank_classification.OptionChoice:
    """The item with these options."""
    return rank_classification.build_choice(
        msgspec.structs.replace(ITEM, options=options)
    )


def test_an_item_with_options_is_one_example_per_option() -> None:
    """Each has an id and an answer of its own and the item's prompt, so that any loss
    job can read them."""
    made = choice("Yes", "No", "Maybe")

    assert [(one.id, one.answer, one.input) for one in made.examples] == [
        ("t:0#0", "Yes", "Is it?"),
        ("t:0#1", "No", "Is it?"),
        ("t:0#2", "Maybe", "Is it?"),
    ]
    assert made.right == 1 and {one.right_answers for one in made.examples} == {
        ("Yes",),
        ("No",),
        ("Maybe",),
    }


@pytest.mark.parametrize(
    ("losses", "scored"),
    [
        pytest.param([2.0, 1.0], {"t:0": 100}, id="right"),
        pytest.param([1.0, 2.0], {"t:0": 0}, id="wrong"),
        pytest.param([1.0, 1.0], {"t:0": 0}, id="of equals the first"),
        pytest.param([1.0], {}, id="a loss is missing"),
        pytest.param([1.0, math.nan], {}, id="a loss is no number"),
        pytest.param([1.0, math.inf], {"t:0": 0}, id="an impossible option"),
    ],
)
def test_the_least_loss_chooses(losses: list[float], scored: dict[str, float]) -> None:
    """100 where it is the right option's; no score where a loss is missing."""
    one = choice("Yes", "No")
    found = rank_classification.score_choices(
        [one], {f"t:0#{number}": loss for number, loss in enumerate(losses)}
    )

    assert found == scored


@pytest.mark.parametrize(
    ("rule", "chosen"),
    [
        pytest.param("sum", 0, id="the short one has the least sum"),
        pytest.param("token", 2, id="0.75 a token, of 3.0 and 1.0"),
        pytest.param("byte", 1, id="0.4 a byte, of 1.5 and 0.45"),
    ],
)
def test_the_length_of_an_option_may_be_taken_out(rule: str, chosen: int) -> None:
    """Losses of 3, 4 and 4.5 over 1, 4 and 6 tokens, and 2, 10 and 10 bytes: é has two."""
    options = choice("No", "Yes, it is", "Cafés é.")
    losses = {"t:0#0": 3.0, "t:0#1": 4.0, "t:0#2": 4.5}
    tokens = {"t:0#0": 1, "t:0#1": 4, "t:0#2": 6}

    assert rank_classification.choose_option(options, losses, rule, tokens) == chosen


def test_an_empty_option_has_a_length() -> None:
    """It counts as one byte, and nothing is divided by none."""
    options = choice("No", "")
    losses = {"t:0#0": 3.0, "t:0#1": 2.0}

    assert rank_classification.choose_option(options, losses, "byte") == 0


def test_the_key_of_a_rule_says_it() -> None:
    """The sum has the key of before; a user's name stands last."""
    name_key = rank_classification.name_key

    assert name_key("sum", None) == "rank_accuracy"
    assert name_key("sum", "short") == "rank_accuracy/short"
    assert name_key("byte", None) == "rank_accuracy/byte"
    assert name_key("token", "short") == "rank_accuracy/token/short"


@pytest.mark.parametrize("rule", ["sum", "token", "byte"])
def test_a_definition_says_by_which_rule_a_key_is_taken(rule: str) -> None:
    """What a rule defines is read as that rule."""
    definition = rank_classification.define_key(rule)

    assert rank_classification.find_rule(definition) == rule


@pytest.mark.parametrize(
    "options",
    [["No"], ["No", "No"], ["Yes", "Maybe"]],
    ids=["one", "equal", "without the answer"],
)
def test_options_that_are_no_choice_are_refused(options: list[str]) -> None:
    """An item is a choice among two or more different options, one of which is right."""
    with pytest.raises(ValueError, match="t:0"):
        choice(*options)


# four items by hand: options, their losses, tokens, and which is right
BY_HAND = [
    (["yes", "no, never"], [4.0, 7.0], [1, 3], 1),
    (["ę", "ab"], [2.0, 3.0], [2, 2], 0),
    (["one", "two", "three"], [3.0, 3.0, 4.5], [1, 1, 1], 0),
    (["left", "right"], [6.0, 7.4], [2, 3], 1),
]


@pytest.mark.parametrize(
    ("rule", "accuracy"), [("sum", 50), ("token", 100), ("byte", 75)]
)
def test_accuracies_by_sum_token_and_byte_are_those_of_the_hand(
    rule: str, accuracy: float
) -> None:
    """The same four items under each rule; of equal options the first is chosen."""
    choices = []
    losses: dict[str, float] = {}
    tokens: dict[str, int] = {}
    for number, (options, of_options, counts, right) in enumerate(BY_HAND):
        item = msgspec.structs.replace(
            ITEM,
            id=f"t:{number}",
            turns=(("?", options[right]),),
            references=(),
            options=tuple(options),
        )
        one = rank_classification.build_choice(item)
        choices.append(one)
        ids = [example.id for example in one.examples]
        losses |= dict(zip(ids, of_options, strict=True))
        tokens |= dict(zip(ids, counts, strict=True))
    scores = rank_classification.score_choices(choices, losses, rule, tokens)
    assert sum(scores.values()) / len(scores) == accuracy
