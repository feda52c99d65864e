"""Is an order that does nothing refused, and does only what takes effect enter its recipe?"""

import pytest
from pydantic import ValidationError

from tests.lib.builders import digests
from zsg_core.recipe import make_recipe
from zsg_core.settings.run import Settings


def made(data: dict | None = None, **arrangement) -> dict:
    """The arrangement's recipe."""
    settings = Settings.model_validate(
        {"data": {"path": "/d", **(data or {})}, "arrangement": arrangement}
    )
    return make_recipe(settings, digests(embedding="e"))["stages"][0]["arrangement"]


EMBEDDED = {"embedding": "e", "similarity": "folded"}
PAPER = {"measure": "wsd", "w_min": "1", "w_avg": "mean"}


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ({}, {"order": "random", "seed": 0}),
        ({"order": "cluster", "seed": 3}, {"order": "cluster"}),
        ({"order": "nft"}, {"order": "nft", **PAPER, **EMBEDDED}),
        (
            {"order": "nft", "granularity": "fine", "choose": "all"},
            {"order": "nft", **PAPER, **EMBEDDED},
        ),
        ({"order": "rt", "seed": 2}, {"order": "rt", "seed": 2, **PAPER, **EMBEDDED}),
        (
            {"order": "fft", "weights": {"avg": 0.5}, "granularity": "coarse"},
            {
                "order": "fft",
                "measure": "wsd",
                "w_min": "1",
                "w_avg": "0.5",
                "granularity": "coarse",
                **EMBEDDED,
            },
        ),
        ({"order": "nft", "measure": "kl"}, {"order": "nft", "measure": "kl"}),
        (
            {"order": "nft", "measure": "ot"},
            {"order": "nft", "measure": "ot", **EMBEDDED},
        ),
        (
            {"order": "blocks", "block": 8, "seed": 2},
            {"order": "blocks", "block": 8, "seed": 2},
        ),
        ({"order": "tma"}, {"order": "tma", "list": "min", **EMBEDDED}),
        (
            {"order": "tma", "cap": 30000, "seed": 1},
            {"order": "tma", "list": "min", "cap": 30000, **EMBEDDED},
        ),
        (
            {"order": "tma", "rounds": "0:5"},
            {"order": "tma", "list": "min", "rounds": "0:5", **EMBEDDED},
        ),
        (
            {"order": "tma", "list": "random", "cap": 9, "seed": 1},
            {"order": "tma", "seed": 1, "list": "random", "cap": 9, **EMBEDDED},
        ),
    ],
)
def test_what_takes_effect_enters_the_recipe(asked, wanted):
    """Defaults written out change nothing, and neither do seeds of orders that draw nothing."""
    assert made(**asked) == wanted


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (
            {"order": "random", "measure": "wsd"},
            "`measure` does nothing under order random, only under fft, nft and rt",
        ),
        (
            {"order": "tma", "granularity": "coarse"},
            "`granularity` does nothing under order tma",
        ),
        (
            {"order": "cluster", "choose": "polar"},
            "`choose` does nothing under order cluster",
        ),
        (
            {"order": "random", "block": 8},
            "`block` does nothing under order random, only under blocks",
        ),
        ({"order": "blocks"}, "order blocks needs `block`"),
        (
            {"order": "nft", "cap": 5},
            "`cap` does nothing under order nft, only under tma",
        ),
        (
            {"order": "nft", "list": "min"},
            "`list` does nothing under order nft, only under tma",
        ),
        ({"order": "random", "rounds": "0:5"}, "a block of its own in `grid`"),
        (
            {"order": "nft", "measure": "kl", "weights": {"avg": 1}},
            "`weights` are those of measure wsd, not of kl",
        ),
        ({"order": "nft", "weights": {"min": 0}}, "say measure: cosine_avg"),
        (
            {"order": "nft", "choose": "polar", "granularity": "coarse"},
            "takes examples and `granularity: coarse`",
        ),
        ({"order": "tma", "list": "min-max"}, "the same as list: min; give a cap"),
        ({"order": "tma", "list": "random"}, "the same as order: random; give a cap"),
        (
            {"order": "tma", "list": "min-max", "rounds": "0:5"},
            "`rounds` are of list min or max",
        ),
        ({"order": "tma", "cap": 5, "rounds": "0:5"}, "both say where tma stops"),
        ({"order": "tma", "rounds": "5:0"}, "rounds are given as"),
        (
            {"order": "nft", "choose": "polar"},
            "polar takes everything of a task of 20; give data.train_per_task 21",
        ),
        (
            {"order": "nft", "choose": "uniform"},
            "data.train_per_task 40 or more, or null",
        ),
    ],
)
def test_what_does_nothing_is_refused(asked, told):
    """The message says why, and what to write instead."""
    with pytest.raises(ValidationError, match=told):
        made(**asked)


@pytest.mark.parametrize(
    ("choose", "cap"), [("polar", 21), ("uniform", 40), ("polar", None)]
)
def test_a_choice_needs_enough_to_choose_from(choose, cap):
    """With larger caps, or none, a choice takes effect."""
    assert made({"train_per_task": cap}, order="nft", choose=choose)["choose"] == choose
