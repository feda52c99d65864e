"""Are answers compared with a baseline's in both places, and does the place alone decide
nothing?"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from jobs.evaluating.items import Dialogues
from jobs.evaluating.judging import Judges
from jobs.evaluating.scorers import Scorers
from jobs.model import content
from tests.lib.fake_judge import Answer, FakeJudge, said
from zsg_core import suites
from zsg_core.data.examples import Example
from zsg_core.errors import BadData
from zsg_core.metrics import pairs
from zsg_core.metrics.scoring import Answered
from zsg_core.settings.checkpoints import CheckpointSettings
from zsg_core.suites import Suite, SuiteFile

QUESTION = Example(
    id="mt_bench/1", task="writing", turns=(("Write.", ""), ("More.", ""))
)
OWN = {"mt_bench/1:1": "own first", "mt_bench/1:2": "own second"}
OTHER = {"mt_bench/1:1": "other first", "mt_bench/1:2": "other second"}


def write_prompts(folder: Path) -> Path:
    """The four prompts of nothing but what is compared."""
    rows: list[dict[str, Any]] = []
    for name in pairs.NAMES.values():
        fields = "_1}{answer_a_2}|{answer_b_1}{answer_b_2}"
        turns = "{answer_a" + (fields if "multi" in name else "}|{answer_b}")
        rows.append({"name": name, "system_prompt": "", "prompt_template": turns})
    for name in ("single-v1", "single-math-v1"):
        for turn in ("", "-multi-turn"):
            rows.append(
                {
                    "name": f"{name}{turn}",
                    "system_prompt": "",
                    "prompt_template": "{question}" if not turn else "{question_1}",
                }
            )
    path = folder / "judge_prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_baseline(folder: Path) -> Path:
    path = folder / "baseline.jsonl"
    rows = [
        {"id": item, "answer": text, "run": "r", "step": 5}
        for item, text in OTHER.items()
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def answers() -> list[Answered]:
    return [
        Answered(id=item, task="writing", prompt="p", answer=text)
        for item, text in OWN.items()
    ]


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[str, int], Answer]], FakeJudge]]:
    """Makes judges that end with the test."""
    made: list[FakeJudge] = []

    def make(script: Callable[[str, int], Answer]) -> FakeJudge:
        made.append(FakeJudge(script))
        return made[-1]

    yield make
    for server in made:
        server.close()


class Asked:
    """What stands for the questions of MT-Bench."""

    questions = (QUESTION,)


def make_suite(folder: Path, server: FakeJudge, *metrics: str) -> Suite:
    """The suite of a grid that asks for these metrics."""
    files = {
        suites.PROMPTS: write_prompts(folder),
        suites.BASELINE: write_baseline(folder),
        "mt_bench": folder / "judge_prompts.jsonl",
    }
    digested = {
        name: SuiteFile(
            str(path), content.folder_digest(path, [path], content.sha256_of([path]))
        )
        for name, path in files.items()
        if name != "mt_bench"
    }
    digested["mt_bench"] = SuiteFile("question.jsonl", "0" * 64)
    judge = {
        "base_url": server.uri,
        "model": "m",
        "prompts": str(files[suites.PROMPTS]),
    }
    settings = CheckpointSettings.model_validate(
        {
            "metrics": list(metrics),
            "snapshots": 5,
            "suites": {
                "mt_bench": {
                    "path": "question.jsonl",
                    "judge": judge,
                    "baseline": str(files[suites.BASELINE]),
                }
            },
        }
    )
    [suite] = suites.select_suites(settings, digested)
    return suite


def judge_by(better: str) -> Callable[[str, int], Answer]:
    """A judge that prefers what begins so, wherever it stands."""
    return lambda user, number: said(f"[[{'A' if user.startswith(better) else 'B'}]]")


@pytest.mark.parametrize(
    ("script", "score", "turned"),
    [
        (judge_by("own"), 100, 0),
        (judge_by("other"), 0, 0),
        (lambda user, number: said("I like the first. [[A]]"), 50, 2),
        (lambda user, number: said("[[C]]"), 50, 0),
        (
            lambda user, number: said("[[A]]" if user.startswith("own") else "[[C]]"),
            50,
            0,
        ),
    ],
    ids=["better", "worse", "the first", "tie", "better in one place"],
)
def test_an_answer_wins_where_it_does_in_both_places(
    serve, tmp_path: Path, script: Any, score: float, turned: int
) -> None:
    """What changes with the place is a tie, and counted."""
    server = serve(script)
    suite = make_suite(tmp_path, server, "win_rate")
    items = object.__new__(Dialogues)
    items.questions = [QUESTION]
    made = Scorers(tmp_path / "ratings.jsonl", "cpu", {})
    found = made.score(suite, items, ["win_rate"], answers())
    again = made.score(suite, items, ["win_rate"], answers())

    assert not found.failed
    assert found.scores.by_item["win_rate"] == dict.fromkeys(OWN, score)
    assert again.scores.by_item == found.scores.by_item
    assert (
        f"{turned} of 2 comparisons had another winner when" in found.scores.flags[-1]
    )
    assert found.judged is not None and again.judged is not None
    assert (found.judged.requests, again.judged.requests) == (4, 0)
    assert server.asked.total() == 4


def test_a_pair_without_both_verdicts_has_no_score(serve, tmp_path: Path) -> None:
    """A verdict that is cut or missing is no tie: it is counted with its reason."""
    server = serve(
        lambda user, number: said("[[A]]" if "second" in user else "Both are fine.")
    )
    suite = make_suite(tmp_path, server, "win_rate")
    judges = Judges(tmp_path / "ratings.jsonl", {})
    found = judges.compare(suite, Asked(), answers())  # type: ignore[arg-type]

    assert pairs.score_verdicts(found.ratings).by_item == {"mt_bench/1:2": 50}
    assert found.list_flags()[0] == (
        "the judge gave 2 of 4 comparisons no verdict, and these count for nothing: the reply"
        " had none (2)"
    )
    assert pairs.read_verdict("[[B]] and", is_cut=True) is None


def test_a_baseline_decides_the_win_rate_and_nothing_else(
    serve, tmp_path: Path
) -> None:
    """It is a part of how that key is scored, not of the ratings' beside it."""
    suite = make_suite(tmp_path, serve(judge_by("own")), "mt_bench", "win_rate")

    assert suite.files.keys() == {"mt_bench", suites.PROMPTS, suites.BASELINE}
    assert "baseline" in suite.scored_by["win_rate"]
    assert "baseline" not in suite.scored_by["mt_bench"]
    assert "baseline" not in suite.how


@pytest.mark.parametrize(
    ("metrics", "baseline"), [(["win_rate"], None), (["mt_bench"], "b.jsonl")]
)
def test_a_win_rate_and_a_baseline_need_each_other(
    metrics: list[str], baseline: str | None
) -> None:
    """One alone is told."""
    suite = {"path": "q", "baseline": baseline}
    told = {"metrics": metrics, "snapshots": 5, "suites": {"mt_bench": suite}}
    with pytest.raises(ValueError, match="need each other; one is"):
        CheckpointSettings.model_validate(told)


def test_a_baseline_has_one_answer_to_each_turn(tmp_path: Path) -> None:
    """Of several steps it would not be said which is meant."""
    path = write_baseline(tmp_path)
    assert pairs.read_baseline(path) == OTHER
    with path.open("a") as file:
        file.write(json.dumps({"id": "mt_bench/1:1", "answer": "else"}) + "\n")
    with pytest.raises(BadData, match="mt_bench/1:1 has two answers"):
        pairs.read_baseline(path)
    path.write_text("")
    with pytest.raises(BadData):
        pairs.read_baseline(path)


def test_what_the_baseline_says_nothing_to_is_told_and_no_tie(
    serve, tmp_path: Path
) -> None:
    """A second turn without its first is lacking, too; nothing that could be compared is
    lost in silence."""
    suite = make_suite(tmp_path, serve(judge_by("own")), "win_rate")
    items = object.__new__(Dialogues)
    items.questions = [QUESTION]
    made = Scorers(tmp_path / "ratings.jsonl", "cpu", {})
    path = Path(suite.files[suites.BASELINE].path)

    def score_beside(baseline: dict[str, str]) -> Any:
        rows = [json.dumps({"id": item, "answer": baseline[item]}) for item in baseline]
        path.write_text("\n".join(rows))
        digest = content.folder_digest(path, [path], content.sha256_of([path]))
        changed = suite.files | {suites.BASELINE: SuiteFile(str(path), digest)}
        beside = msgspec.structs.replace(suite, files=changed)
        return made.score(beside, items, ["win_rate"], answers())

    half = score_beside({"mt_bench/1:1": "other first"})
    assert half.scores.by_item["win_rate"] == {"mt_bench/1:1": 100.0}
    assert half.scores.values == {"win_rate": 100.0}
    told = (
        "the baseline has no answer beside 1 of the model's 2, and these count for nothing: the"
        " first is 'mt_bench/1:2'"
    )
    assert told in half.scores.flags
    none = score_beside({"mt_bench/1:2": "other second"})
    assert "answer to none of their questions" in str(none.failed["win_rate"])
