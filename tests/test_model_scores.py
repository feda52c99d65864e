"""Are scores by a model what was published, do they make the run, and are they made by a
job before the order?"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from launcher.planning import costs
from launcher.planning.plan import Prepare
from launcher.planning.scoring_cost import Scoring
from launcher.planning.workload import Lengths
from launcher.submission.submit import order_arrays
from tests.lib.builders import digests as make_digests
from tests.lib.planned_runs import a_run, planned
from zsg_core import recipe as recipes
from zsg_core.data.prompts import EncodedExample
from zsg_core.errors import UserError
from zsg_core.model_scores.registry import SCORE_RULES, ScoreInputs, Text
from zsg_core.settings.run import Settings
from zsg_core.stats.ranks import correlate_ranks
from zsg_core.training.decoder import tiny_shape

BOS, EOS = 1, 2
QUESTION, ANSWER = (10, 11, 12), (20, 21)


class KnownModel:
    """A model that takes 0.5 for each token after a question, and 1.0 elsewhere."""

    def __init__(self) -> None:
        self.asked: list[Text] = []

    def sum_losses(self, texts: Sequence[Text]) -> list[float]:
        """The losses of texts, which are noted."""
        self.asked += texts
        per_token = [0.5 if QUESTION[0] in text.ids else 1.0 for text in texts]
        return [each * text.count for each, text in zip(per_token, texts, strict=True)]

    def sum_errors(self, texts: Sequence[Text]) -> list[float]:
        """Two for each token."""
        return [2.0 * text.count for text in texts]

    def take_gradient_norms(self, examples: Sequence[Sequence[Text]]) -> list[float]:
        """Three for each text."""
        return [3.0 * len(texts) for texts in examples]


def encode(cut: int = 0, answer: Sequence[int] = ANSWER) -> EncodedExample:
    """A question with its answer and its end token."""
    ids = [BOS, *QUESTION, *answer, EOS]
    span = (1 + len(QUESTION), len(ids))
    return EncodedExample(ids, (span,), cut)


def score(
    name: str,
    *examples: EncodedExample,
    model: KnownModel | None = None,
    beginning: Sequence[int] = (BOS,),
) -> list[float | None]:
    """The scores of examples by the known model."""
    known = model or KnownModel()
    inputs = ScoreInputs(
        examples=examples,
        model=lambda: known,
        tokenize=lambda text: [90 + place for place in range(len(text.split()))],
        beginning=beginning,
        ends={EOS},
    )
    return SCORE_RULES[name].compute(inputs)


def test_each_score_is_what_its_name_says() -> None:
    """An example whose answer is lost has no score, whatever model is asked."""
    lost = EncodedExample([BOS, *QUESTION], ())

    assert score("answer_loss", encode(), lost) == [0.5, None]
    assert score("progress", encode(), lost) == [0.5, None]
    assert score("el2n", encode(), lost) == [2.0, None]
    assert score("grand", lost, encode()) == [None, 3.0]
    assert score("length", encode(), lost) == [7.0, 4.0]
    assert score("answer_length", encode(), lost) == [3.0, None]
    assert score("ifd_loss", encode(), lost) == [0.5, None]
    assert score("ifd_ppl", encode(), lost) == [math.exp(-0.5), None]


def test_an_answer_that_stands_alone_is_read_as_published() -> None:
    """Cherry_LLM puts `### Response:` before it, Superfiltering nothing; neither has an
    end token. Without a beginning of sequence its first token has no loss then."""
    for name, before in (("ifd_loss", [BOS, 90, 91]), ("ifd_ppl", [BOS])):
        model = KnownModel()
        score(name, encode(), model=model)
        given, alone = model.asked
        assert given.spans == [(4, 6)]
        assert alone.ids == [*before, *ANSWER]
        assert alone.spans == [(len(before), len(before) + 2)]

    bare = KnownModel()
    score("ifd_ppl", encode(), model=bare, beginning=())
    assert bare.asked[1].ids == [*ANSWER]
    assert bare.asked[1].count == 1


def test_what_was_cut_has_no_ifd() -> None:
    """Nor has an answer that is nothing but its end; as trained, it has a loss."""
    empty = encode(answer=())

    for name in ("ifd_loss", "ifd_ppl"):
        assert score(name, encode(cut=1), empty, encode())[:2] == [None, None]
    assert score("answer_loss", encode(cut=1), empty) == [0.5, 0.5]


def test_plan_counts_a_gradient_as_three_passes() -> None:
    """A backward pass takes what two forward passes do, and is named."""
    shape = tiny_shape({"hidden": 64, "heads": 4, "layers": 2, "vocab": 600})

    def cost(name: str) -> Scoring:
        return Scoring(
            name=name,
            model="tiny",
            shape=shape,
            precision="bf16",
            examples=10,
            lengths=Lengths(tokens=1000.0, squares=1e5),
            is_counted=True,
        )

    loss, norm = cost("answer_loss"), cost("grand")
    assert loss.flops is not None and norm.flops == pytest.approx(3 * loss.flops)
    said = "grand of 10 examples by tiny, 1 forward and backward pass over each"
    assert costs.describe_scoring(norm, None) == said
    assert ", 1 forward pass over each" in costs.describe_scoring(loss, None)


def test_ranks_correlate_with_ties() -> None:
    """By the mean ranks of what is alike; not at all where all is."""
    assert correlate_ranks([1, 2, 3, 9], [5, 6, 7, 8]) == pytest.approx(1)
    assert correlate_ranks([1, 2, 2, 3], [3, 2, 2, 1]) == pytest.approx(-1)
    assert correlate_ranks([1, 2, 3], [1, 3, 2]) == pytest.approx(0.5)
    assert correlate_ranks([1, 1], [1, 2]) is None
    assert correlate_ranks([], []) is None


def settings_of(train: dict[str, Any] | None = None, **arrangement: Any) -> Settings:
    """A run in an order by the scores of a model."""
    wanted = {"order": "scores", "score": "answer_loss", **arrangement}
    return Settings.model_validate(
        {
            "data": {"path": "tasks"},
            "model": {"name": "own", "path": "m"},
            "arrangement": wanted,
            "train": train or {},
        }
    )


@pytest.mark.parametrize(
    ("arrangement", "said"),
    [
        ({"score": None}, "order scores needs `path`: .* or `score`"),
        ({"path": "x.tsv"}, "`score` is by a model and `path` names a file"),
        ({"score": None, "path": "x.tsv", "scorer": "m"}, "`scorer` goes with `score`"),
        ({"since": "m"}, "`since` does nothing but for score progress"),
        ({"order": "random", "scorer": "m"}, "`score` does nothing under order random"),
        ({"score": "beauty"}, "Input should be 'answer_length', 'answer_loss'"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(
    arrangement: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        settings_of(**arrangement)


def recipe_of(
    scorer: str | None = None,
    since: str | None = None,
    train: dict[str, Any] | None = None,
    model: str = "m1",
    **arrangement: Any,
) -> dict[str, Any]:
    """The recipe of a run; the digests of its models are given."""
    settings = settings_of(train=train or {}, **arrangement)
    digests = make_digests(model=model, scorer=scorer, since=since)
    return recipes.make_recipe(settings, digests)


def test_scores_are_known_by_all_that_decides_them_and_nothing_else() -> None:
    """The model, how it computes and how examples are written; shapes share them."""
    made = recipes.scores_id(recipe_of())
    alike = [
        recipe_of(shape="fold"),
        recipe_of(direction="descending"),
        recipe_of(train={"lr": 1.0, "batch": 4}),
        recipe_of(train={"epochs": 2}),
    ]
    different = [
        recipe_of(score="el2n"),
        recipe_of(model="m2"),
        recipe_of(scorer="m2"),
        recipe_of(train={"precision": "fp32"}),
        recipe_of(train={"max_length": 77}),
    ]

    assert {recipes.scores_id(recipe) for recipe in alike} == {made}
    ids = {recipes.scores_id(recipe) for recipe in different}
    assert len(ids) == len(different)
    assert made not in ids
    shapes = [recipe_of(), recipe_of(shape="fold")]
    assert len({recipes.arrangement_id(recipe) for recipe in shapes}) == 2
    assert recipes.scores_id(recipe_of(score=None, path="x.tsv")) is None


def test_progress_is_between_two_models() -> None:
    """A base compared with itself has made none, and no job is to find that out."""
    with pytest.raises(UserError, match="progress compares two models, and here both"):
        recipe_of(score="progress")
    with pytest.raises(UserError, match="and here both are one: set"):
        recipe_of(score="progress", scorer="m2", since="m2")

    made = recipe_of(score="progress", scorer="m2")["stages"][0]["arrangement"]
    assert made["score"]["model"] == {"digest": "m2"}
    assert made["score"]["since"] == {"base": "m1"}


SCORED = {"order": "scores", "score": "answer_loss"}


def find_job(jobs: Sequence[Prepare], **facts: bool) -> Prepare:
    """The one prepare job with these facts."""
    [job] = [
        job
        for job in jobs
        if all(getattr(job, key) == value for key, value in facts.items())
    ]
    return job


def test_a_job_scores_before_the_orders_are_made() -> None:
    """One for all scores of a corpus by a model, and orders in several shapes share
    them; what is scored already is scored by nobody."""
    runs = [
        a_run(arrangement={**SCORED, "shape": shape, "score": name})
        for name in ("answer_loss", "ifd_loss")
        for shape in ("sort", "fold")
    ]
    needs = {str(run.scores_item) for run in runs}
    plan = planned(runs)
    scoring = find_job(plan.prepares, scores=True)
    making = find_job(plan.prepares, scores=False)

    assert scoring.makes == needs
    assert len(scoring.runs) == len(needs) == 2
    assert making.needs == needs
    assert making.after == {scoring.item}
    [prepare] = planned(runs, made=needs).prepares
    assert not prepare.scores
    assert not prepare.after
    [waiting] = planned(runs, makers=dict.fromkeys(needs, "prepare/other")).prepares
    assert waiting.after == {"prepare/other"}


def test_a_stage_ordered_by_its_own_weights_waits_for_the_stage_before() -> None:
    """Training, scoring, ordering and training come one after the other, for Slurm takes
    no job that waits for one it does not know."""
    stages = [{"arrangement": {"order": "cluster"}}, {"arrangement": SCORED}]
    last = make_staged_run(stages)
    before = last.before
    assert before is not None
    plan = planned([last])
    scoring = find_job(plan.prepares, scores=True)
    arrays = order_arrays(plan)

    assert last.stage["arrangement"]["score"]["model"] == {"run": before.id}
    assert scoring.after == {f"runs/{before.id}"}
    kinds = ["prepare", "train", "score", "prepare", "train"]
    assert [name_kind(array) for array in arrays] == kinds


def make_staged_run(stages: list[dict[str, Any]]) -> Any:
    """The run of the last of some stages, with the runs of those before."""
    run = a_run(stages=stages)
    for prefix in recipes.list_prefixes(run.recipe):
        before = None if len(prefix["stages"]) == 1 else run
        run = replace(run, id=recipes.run_id(prefix), recipe=prefix, before=before)
    return run


def name_kind(array: Any) -> str:
    """Of what kind the jobs of an array are."""
    if not isinstance(array, list):
        return "train"
    return "score" if array[0].scores else "prepare"
