"""Do --only and --except name the runs that their writer means, and no others?"""

import pytest

from launcher.grids.selection import Selection
from zsg_core.errors import UserError

AXES = {
    "arrangement.order": "nft",
    "data.fraction": "1/4",
    "train.lr": 1e-6,
    "seed": 3,
    "train.betas": [0.9, 0.95],
    "strategy": {"name": "dmt", "k": "1/256"},
    "train": {"batch": 16, "lr": 5.0, "tuning": {"method": "lora"}},
}
RUN = ("3f2a00000000", AXES, "failed")
OTHER = ("a10000000000", {"arrangement.order": "a b'$(x)\n", "seed": 4}, "absent")


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        pytest.param("3f2a", True, id="the beginning of the id"),
        pytest.param("3f2b", False, id="another id"),
        pytest.param("state=failed", True, id="its state"),
        pytest.param("state=done", False, id="another state"),
        pytest.param("arrangement.order=nft", True, id="an axis"),
        pytest.param(
            "order=nft", True, id="the end of an axis' name, as tables show it"
        ),
        pytest.param("arrangement.order=nf", False, id="a part of a value"),
        pytest.param("data.fraction=0.25", True, id="an equal fraction"),
        pytest.param("train.lr=0.000001", True, id="an equal number"),
        pytest.param(
            "train.lr=5",
            False,
            id="the axis counts, not the section that it is laid over",
        ),
        pytest.param("seed=3", True, id="a whole number"),
        pytest.param("train.betas=[0.9, 0.95]", True, id="a list"),
        pytest.param("strategy=dmt", True, id="a mapping by its name"),
        pytest.param("strategy.k=1/256", True, id="a value within an axis"),
        pytest.param("train.batch=16", True, id="a setting that is no axis"),
        pytest.param("train.tuning.method=lora", True, id="a setting deep within"),
        pytest.param("train.tuning.rank=8", False, id="a setting that the run has not"),
        pytest.param("seed=1/0", False, id="no number"),
    ],
)
def test_a_term_names_a_run(text, meant):
    """What --only names is selected, what --except names is not."""
    assert Selection.parse([text], []).matches(*RUN) is meant
    assert Selection.parse([], [text]).matches(*RUN) is not meant


def test_terms_add_up():
    """Several --only select what any of them names; --except takes away from that."""
    both = Selection.parse(["state=failed", "state=new"], None)
    less = Selection.parse(["state=failed", "state=new"], ["seed=4"])

    assert [both.matches(*RUN), both.matches(*OTHER)] == [True, True]
    assert [less.matches(*RUN), less.matches(*OTHER)] == [True, False]
    assert Selection().matches(*RUN)


@pytest.mark.parametrize(
    ("only", "but", "said"),
    [
        (["3x"], [], "is no prefix of a run id"),
        (["failed"], [], "such as state=failed"),
        ([""], [], "write KEY=VALUE"),
        (["=x"], [], "lacks its key"),
        (["seed="], [], "lacks its value"),
        (["state=faild"], [], "Did you mean 'failed'?"),
        ([], ["a\nb=c"], r"'a\nb=c'"),
    ],
)
def test_a_malformed_term_is_refused(only, but, said):
    """The message names the option and what may be written."""
    with pytest.raises(UserError) as error:
        Selection.parse(only, but)

    assert said in str(error.value)
    assert str(error.value).startswith("--only" if only else "--except")


@pytest.mark.parametrize(
    ("only", "but", "said"),
    [
        (["beef"], [], "no run's id begins so; the ids are 3f2a00000000, a10000000000"),
        (["state=done"], [], "no run is in that state; there are failed, new"),
        (["seed=5"], [], "no run has this value; its values are 3, 4"),
        (["sead=3"], [], "no run has such a setting. Did you mean 'seed'?"),
        ([], ["beef"], "--except beef"),
        (["seed=3", "seed=5"], [], "--only seed=5"),
    ],
)
def test_a_term_that_names_nothing_is_refused(only, but, said):
    """A slip never selects nothing, nor everything, in silence."""
    with pytest.raises(UserError) as error:
        Selection.parse(only, but).check([RUN, OTHER])

    assert said in str(error.value)


def test_leaving_out_a_state_that_no_run_is_in_is_fine():
    """`--except state=running` may be written into a script."""
    assert Selection.parse(["seed=3"], ["state=running"]).check([RUN, OTHER]) is None


def test_a_shortened_key_of_several_axes_is_refused():
    """Never guessed: the whole keys are named."""
    axes = {"train.seed": 1, "data.seed": 1}

    with pytest.raises(
        UserError, match=r"several axes end so: train\.seed, data\.seed"
    ):
        Selection.parse(["seed=1"], []).matches("0", axes, "done")
