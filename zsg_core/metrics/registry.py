"""Which metrics are there, and what is each: the one entry that settings, suites and
evaluators read.

A metric of answers alone is a function under `@metric("name", …)` in a module of this
folder; one with settings a function under `@configured_metric("name")`, which makes it
of them. One that needs more than the answers (a reward model, a sandbox, a judge, the
losses of a model) is entered by `add_metric`, and jobs.evaluating.scorers takes it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from zsg_core.metrics.scoring import Answered, ByItem, OptionLosses
from zsg_core.registry import Registry

# the sets of items that are answered, in the order in which they are evaluated
TEST_SET, GSM8K, HUMANEVAL, MT_BENCH = "test_set", "gsm8k", "humaneval", "mt_bench"
SUITE_NAMES = (TEST_SET, GSM8K, HUMANEVAL, MT_BENCH)
# in a key's definition, the digest of the plugin's function that takes it
PLUGIN = "plugin"

# all answers → by metric, the score of each item
Scorer = Callable[[Iterable[Answered]], dict[str, ByItem]]
# the same of what a model makes of options
ChoiceScorer = Callable[[Sequence[OptionLosses]], ByItem]
# what decides the values of a key beside the answers, by its names in the journal
Definition = Mapping[str, Any]
# such a definition → what scores answers so
MakeScorer = Callable[[Definition], Scorer]
# the same, and answers → sentences on why its scores say little of these
Doubt = Callable[[Definition, Sequence[Answered]], list[str]]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric.

    `suite`: the set of items whose answers it is of; None: of no answer. `score`: what
    takes it from answers alone; None: see `scorer`, the name of what takes it, and
    others with it. `make_score`: of a metric with settings, what makes `score` of what
    a key's definition says. `score_choices`: of a plugin's metric of options, what takes
    it. `package`: the library that scores, by its name in PyPI. `doubt`: says of answers
    that it cannot compare them well.
    `definition` enters the identity of its values where zsg has come to
    take it otherwise than an older version did. `samples`: the answers to an item that
    it needs.
    """

    name: str
    scorer: str
    suite: str | None = None
    score: Scorer | None = None
    make_score: MakeScorer | None = None
    score_choices: ChoiceScorer | None = None
    doubt: Doubt | None = None
    package: str | None = None
    definition: Definition = field(default_factory=dict)
    samples: int = 1

    def find_score(self, definition: Definition) -> Scorer | None:
        """What takes it from answers alone, as a key's definition says; None where more
        is needed."""
        if self.make_score is not None:
            return self.make_score(definition)
        return self.score


METRICS: Registry[Metric] = Registry("metric", "zsg_core.metrics")


def metric(
    *names: str,
    suite: str = TEST_SET,
    definitions: Mapping[str, Definition] | None = None,
) -> Callable[[Scorer], Scorer]:
    """Registers a function that scores answers, by one metric or a few at once;
    `definitions` are by the metrics' names."""

    def register(score: Scorer) -> Scorer:
        for name in names:
            METRICS.add(
                name,
                Metric(
                    name=name,
                    scorer=score.__module__,
                    suite=suite,
                    score=score,
                    definition=(definitions or {}).get(name, {}),
                ),
            )
        return score

    return register


def configured_metric(
    *names: str,
    suite: str = TEST_SET,
    doubt: Doubt | None = None,
    package: str | None = None,
) -> Callable[[MakeScorer], MakeScorer]:
    """Registers a function that makes the scorer of one metric, or of a few at once,
    from the definition of a key. For equal definitions it is to give the same scorer
    where that takes all of them at once. `doubt`, `package`: see Metric."""

    def register(make_score: MakeScorer) -> MakeScorer:
        for name in names:
            METRICS.add(
                name,
                Metric(
                    name=name,
                    scorer=make_score.__module__,
                    suite=suite,
                    make_score=make_score,
                    doubt=doubt,
                    package=package,
                ),
            )
        return make_score

    return register


def add_metric(name: str, scorer: str | None = None, **facts: Any) -> None:
    """Registers a metric that needs more than answers; `scorer` is its own name where
    it is not said. `facts` are the other fields of its Metric."""
    METRICS.add(name, Metric(name=name, scorer=scorer or name, **facts))
