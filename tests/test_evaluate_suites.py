"""Are checkpoints scored on benchmarks, each once, and does one that cannot be had keep
no other from its score?"""

import json
import math
import os
import shutil
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from jobs.contract import answers, evaluations
from jobs.contract.item_losses import read_test_losses
from jobs.evaluating import sandbox, scorers
from jobs.evaluating.items import OwnTestSet, Problems
from jobs.evaluating.reward import Reward
from jobs.evaluating.sandbox import NoSandbox
from jobs.evaluating.scorers import Scorers
from launcher.grids.inputs import Inputs
from tests.lib.command_line import Zsg
from tests.lib.evaluate_jobs import fresh_copy, metric_rows, scores, serve
from tests.lib.fake_judge import Answer, FakeJudge, said
from tests.lib.forked_jobs import wait_until
from tests.lib.journal_rows import plain_rows
from tests.lib.mlflow_contents import assert_exactly_once, child_runs
from tests.lib.requirements import need
from tests.lib.small_benchmarks import ASKED, cut, reward_model
from tests.lib.train_bench import Bench
from zsg_core import suites
from zsg_core.metrics.scoring import Answered
from zsg_core.settings.checkpoints import CheckpointSettings
from zsg_core.suites import Suite

VARIABLE = "ZSG_TEST_JUDGE_KEY"
TURNS = 6  # of three questions of MT-Bench


@pytest.fixture(scope="module")
def folder(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small benchmarks, cut from the published ones."""
    return cut(real_data, tmp_path_factory.mktemp("suites") / "benchmarks")


@pytest.fixture(scope="module")
def trained(bench: Bench) -> Path:
    """A run that is done, with the weights of two of its steps."""
    run = bench.make(snapshots=9, metrics=["loss", "exact_match"])
    assert bench.jobs.run(run)["outcome"] == "done"
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """The trained run in a workspace of its own, never evaluated."""
    copy = fresh_copy(trained, 0, tmp_path / "work")
    shutil.copytree(trained / "snapshots", copy / "snapshots")
    return copy


@pytest.fixture
def judge() -> Iterator[Callable[[Callable[[str, int], Answer]], FakeJudge]]:
    """Makes judges that end with the test."""
    made: list[FakeJudge] = []
    yield lambda script: made.append(FakeJudge(script)) or made[-1]
    for one in made:
        one.close()


def asked(
    folder: Path, cache: Path, server: FakeJudge | None, *metrics: str
) -> list[Suite]:
    """The suites of some metrics, as a grid would have them."""
    judge = server and {
        "base_url": server.uri,
        "model": "gpt-4",
        "prompts": str(folder / "judge_prompts.jsonl"),
    }
    benchmarks: dict[str, Any] = {
        "gsm8k": {"path": str(folder / "gsm8k.jsonl"), "max_new_tokens": 8},
        "humaneval": {
            "path": str(folder / "HumanEval.jsonl"),
            "max_new_tokens": 8,
            "allow_code_execution": True,
            "samples": 2,
        },
        "mt_bench": {
            "path": str(folder / "question.jsonl"),
            "max_new_tokens": 4,
            "judge": judge,
            "samples": 2 if judge else 1,
        },
    }
    own = {
        name: benchmarks[name]
        for name in {metric.partition("/")[0] for metric in metrics}
    }
    settings = CheckpointSettings.model_validate(
        {"metrics": list(metrics), "snapshots": 9, "suites": own}
    )
    return list(suites.select_suites(settings, Inputs(cache).digest_suites(settings)))


def rating(user: str, number: int) -> Answer:
    """What a good judge says: 8 of a question in writing, 2 of others."""
    return said(f"It shows. [[{8 if 'Hawaii' in user else 2}]]")


GRID = """
name: bench
defaults:
  model: {{name: tiny, hidden: 128, layers: 2, vocab: 600}}
  data: {{set: alpaca, path: rows.json, test_path: rows.json}}
  train: {{batch: 6, lr: 4e-3, max_length: 256, precision: fp32, steps: 80, epochs: 80}}
  checkpoints:
    every: 80
    snapshots: 80
    metrics: [loss, reward, gsm8k/strict, humaneval/pass_at_1, mt_bench]
    generation: {{max_new_tokens: 8, items: 4}}
    reward_model: {reward}
    suites:
      gsm8k: {{path: gsm8k.jsonl, max_new_tokens: 120}}
      humaneval: {{path: HumanEval.jsonl, max_new_tokens: 120, allow_code_execution: true}}
      mt_bench:
        path: question.jsonl
        max_new_tokens: 8
        judge: {{base_url: "{uri}", model: gpt-4, key_env: {variable}, prompts: judge_prompts.jsonl}}
grid: {{seed: [0]}}
"""


@pytest.mark.data
def test_what_a_model_learns_by_heart_it_answers_right(
    folder: Path, tmp_path: Path, judge
) -> None:
    """One submit: trained on the answers, the checkpoint passes GSM8K and HumanEval and
    its base does neither.

    The judge stumbles at every first try; what it says, the reward of the kept answers
    and all else is in MLflow once, at the step that it is of, and the judge's key is in
    no file.
    """
    key = f"sk-{uuid.uuid4().hex}"
    need("sandbox", [] if _has_sandbox() else ["user namespaces or bubblewrap"])
    tried = (429, {"Retry-After": "0.01"}, b"{}"), (200, {}, b'{"choices": []}')
    server = judge(
        lambda user, number: tried[number] if number < 2 else rating(user, number)
    )
    zsg = Zsg(folder, {VARIABLE: key})
    reward = reward_model(tmp_path)
    zsg(
        "submit",
        zsg.write(
            "g.yaml", GRID.format(reward=reward, uri=server.uri, variable=VARIABLE)
        ),
    )
    [row] = zsg.status()
    held = child_runs(zsg.work, "bench")[row["run"]]["points"]
    by_key = {
        key: {step: value for own, step, value, _ in held if own == key}
        for key, *_ in held
    }

    assert by_key["gsm8k/strict"] == {0: 0.0, 80: 100.0}
    assert by_key["humaneval/pass_at_1"] == {0: 0.0, 80: 100.0}
    assert by_key["mt_bench"] == {0: 4.0, 80: 4.0}  # the mean over categories
    assert_exactly_once(zsg.work, "bench", [row["run"]])
    assert len(server.asked) == 2 * TURNS and set(server.asked.values()) == {3}
    assert server.keys == {f"Bearer {key}"}
    assert not [
        path
        for path in zsg.work.rglob("*")
        if path.is_file() and key.encode() in path.read_bytes()
    ]
    run = zsg.work / "runs" / row["run"]
    kept = next(
        one
        for one in answers.find_kept(run)
        if (one.step, one.suite) == (80, "test_set")
    )
    said_then = answers.read_answers(run, kept.place)
    instructions = {
        f"rows:{n}": one["instruction"]
        for n, one in enumerate(json.loads((folder / "rows.json").read_text()))
    }
    pairs = [
        (instructions["rows:" + one.id.rpartition(":")[2]], one.answer)
        for one in said_then
    ]
    assert by_key["reward"][80] == pytest.approx(
        sum(Reward(reward, "cpu").rewards(pairs)) / len(pairs), rel=1e-5
    )


def _has_sandbox() -> bool:
    try:
        return bool(sandbox.find_sandbox(allowed=True))
    except NoSandbox:
        return False


@pytest.mark.data
def test_a_judge_that_is_away_keeps_no_other_metric_from_its_score(
    bench: Bench, run: Path, folder: Path, tmp_path: Path, judge
) -> None:
    """It is asked at one checkpoint only, and no value is made up; the next job asks it
    about the kept answers."""
    is_back: list[bool] = []
    server = judge(
        lambda user, number: (
            rating(user, number) if is_back else (401, {}, b"who are you?")
        )
    )
    wanted = asked(
        folder,
        tmp_path / "digests",
        server,
        "gsm8k/strict",
        "gsm8k/flexible",
        "mt_bench",
    )
    record = bench.jobs.run(serve([run], suites=wanted))

    assert record["outcome"] == "failed"
    assert (
        "mt_bench: UserError: the judge at" in record["evidence"]
        and "HTTP 401" in record["evidence"]
    )
    assert scores(run, "mt_bench") == {} and sorted(scores(run, "gsm8k/strict")) == [
        0,
        9,
        18,
    ]
    assert server.asked.total() <= TURNS
    assert (
        evaluations.find_needed_steps(
            run, [key for one in wanted for key in one.keys], [9, 18]
        )
        == set()
    ), "weights may go"
    is_back.append(True)
    record = bench.jobs.run(serve([run], suites=wanted))

    assert (record["outcome"], record["loads"]) == (
        "done",
        0,
    ), "the answers were kept: no weights are needed"
    assert scores(run, "mt_bench") == {0: 4.0, 9: 4.0, 18: 4.0}
    assert [row["step"] for row in metric_rows(run, "gsm8k/strict")] == [0, 9, 18]
    items = read_test_losses(run, "mt_bench")
    assert (items.steps, items.ids[:2], items.losses[0].tolist()) == (
        [0, 9, 18],
        ["mt_bench/81:1", "mt_bench/81:2"],
        [8, 8, 2, 2, 2, 2],
    )


@pytest.mark.data
def test_what_a_judge_that_thinks_took_and_missed_is_journalled(
    bench: Bench, run: Path, folder: Path, tmp_path: Path, judge
) -> None:
    """Its ratings are read behind its thoughts; what it never rated has no score and is
    told with the answers, as are its tokens and their price."""
    message = {"content": "<think>[[1]]</think> It shows. [[8]]"}
    usage = {"prompt_tokens": 1000, "completion_tokens": 50}
    choice = {"message": message, "finish_reason": "stop"}
    rated = 200, {}, json.dumps({"choices": [choice], "usage": usage}).encode()
    server = judge(
        lambda user, number: rated if "Hawaii" in user else (400, {}, b"filtered")
    )
    [suite] = asked(folder, tmp_path / "digests", server, "mt_bench")
    assert suite.judge is not None
    priced = suite.judge | {"price_read": 3.0, "price_written": 20.0}
    wanted = [msgspec.structs.replace(suite, judge=priced)]
    record = bench.jobs.run(serve([run], suites=wanted))

    assert record["outcome"] == "done"
    assert scores(run, "mt_bench") == {0: 8.0, 9: 8.0, 18: 8.0}
    events = [row["data"] for row in plain_rows(run) if row["data"].get("judged")]
    asked_anew = sum(event["judged"]["requests"] for event in events)
    assert asked_anew == sum(
        count for user, count in server.asked.items() if "Hawaii" in user
    )
    for event in events:
        spent = event["judged"]
        assert spent["read"] == 1000 * spent["requests"]
        cost = (3 * spent["read"] + 20 * spent["written"]) / 1e6
        assert spent["cost"] == pytest.approx(cost)
        told = "; ".join(event["flags"])
        assert "mt_bench: 4 of 6 items have no score" in told
        assert "the judge gave 8 of 12 answers no rating" in told
        assert "the judge refused (8)" in told


@pytest.mark.data
@pytest.mark.parametrize("after", [0, 3])
def test_a_killed_evaluator_scores_nothing_twice(
    bench: Bench, run: Path, folder: Path, tmp_path: Path, judge, after: int
) -> None:
    """Killed between suites of a step; another takes over, and every key has each step
    once, as undisturbed."""
    server = judge(rating)
    wanted = asked(
        folder,
        tmp_path / "digests",
        server,
        "gsm8k/strict",
        "humaneval/pass_at_1",
        "mt_bench",
    )
    killed = bench.jobs.start(serve([run], suites=wanted, lease_s=1))
    done = lambda: [  # noqa: E731
        row
        for row in plain_rows(run)
        if row["kind"] == "metric" and "loss" not in row["data"]
    ]
    wait_until(
        lambda: (
            (len(done()) >= after and list((run / "queue").glob("*.lease")))
            or killed[0].ended()
        )
    )
    killed[0].send(signal.SIGKILL)
    assert killed[0].ended(within_s=5)
    assert bench.jobs.run(serve([run], suites=wanted, lease_s=1))["outcome"] == "done"

    for key in ("gsm8k/strict", "humaneval/pass_at_1", "mt_bench"):
        assert sorted(row["step"] for row in metric_rows(run, key)) == [0, 9, 18]
    assert not list((run / "queue").glob("*.lease"))
    assert set(server.asked.values()) == {1}, (
        "what the killed one had been told is kept"
    )
    for name, count in (("humaneval", 2 * 3), ("mt_bench", 2 * TURNS)):
        [kept] = {
            one.suite: one for one in answers.find_kept(run) if one.suite == name
        }.values()
        assert len(answers.read_answers(run, kept.place)) == count


def compared(folder: Path, cache: Path, server: FakeJudge, lacking: int) -> list[Suite]:
    """The suite of a win rate beside a baseline that lacks the last answers."""
    asked_ids = [f"mt_bench/{n}:{turn}" for n in ASKED for turn in (1, 2)]
    rows = [
        json.dumps({"id": item, "answer": "The baseline's."})
        for item in asked_ids[: len(asked_ids) - lacking]
    ]
    (folder / "baseline.jsonl").write_text("\n".join(rows))
    mt_bench = {
        "path": str(folder / "question.jsonl"),
        "max_new_tokens": 4,
        "baseline": str(folder / "baseline.jsonl"),
        "judge": {
            "base_url": server.uri,
            "model": "gpt-4",
            "prompts": str(folder / "judge_prompts.jsonl"),
        },
    }
    settings = CheckpointSettings.model_validate(
        {"metrics": ["win_rate"], "snapshots": 9, "suites": {"mt_bench": mt_bench}}
    )
    return list(suites.select_suites(settings, Inputs(cache).digest_suites(settings)))


def prefer_baseline(user: str, number: int) -> Answer:
    """What a judge says that likes the baseline better, wherever it stands."""
    first, _, _second = user.partition("Assistant B")
    return said("[[A]]" if "The baseline's." in first else "[[B]]")


@pytest.mark.data
def test_a_killed_comparison_goes_on_with_the_verdicts_that_it_had(
    bench: Bench, run: Path, folder: Path, tmp_path: Path, judge
) -> None:
    """Both places of each turn are asked once in all, whoever asks; what the baseline
    says nothing to is told with the answers and has no score."""
    is_open = threading.Event()

    def reply(user: str, number: int) -> Answer:
        if server.asked.total() > 5:
            is_open.wait(60)
        return prefer_baseline(user, number)

    server = judge(reply)
    wanted = compared(folder, tmp_path / "digests", server, lacking=1)
    killed = bench.jobs.start(serve([run], suites=wanted, lease_s=1))
    ratings = run.parent.parent / "ratings.jsonl"
    kept = lambda: len(ratings.read_text().split()) if ratings.exists() else 0  # noqa: E731
    wait_until(lambda: kept() > 0 or killed[0].ended())
    killed[0].send(signal.SIGKILL)
    assert killed[0].ended(within_s=5)
    before = {json.loads(line)["prompt"] for line in _list_lines(ratings)}
    assert before and scores(run, "win_rate") == {}
    is_open.set()
    # what the killed one had sent arrives for a while
    counted = -1
    while counted != server.asked.total():
        counted = server.asked.total()
        time.sleep(1)
    server.asked.clear()
    assert bench.jobs.run(serve([run], suites=wanted, lease_s=1))["outcome"] == "done"

    assert scores(run, "win_rate") == {0: 0.0, 9: 0.0, 18: 0.0}
    rows = [json.loads(line) for line in _list_lines(ratings)]
    assert len({row["prompt"] for row in rows}) == len(rows)
    assert server.asked.total() == len(rows) - len(before)
    assert {row["id"].rpartition("|")[2] for row in rows} == {"first", "second"}
    items = read_test_losses(run, "win_rate")
    for values in items.losses:
        assert values[:-1].tolist() == [0] * (TURNS - 1)
        assert math.isnan(values[-1])
    [*events] = [row["data"] for row in plain_rows(run) if row["data"].get("judged")]
    for event in events:
        told = "; ".join(event["flags"])
        assert "the baseline has no answer beside 1 of the model's 6" in told
        assert "win_rate: 1 of 6 items have no score" in told


def _list_lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if line]


@pytest.mark.data
def test_without_a_judge_answers_are_kept_and_rated_elsewhere(
    bench: Bench, run: Path, folder: Path, tmp_path: Path
) -> None:
    """Once; `zsg answers export` gives them out and `zsg score` takes the ratings in,
    as the metric mt_bench."""
    [suite] = asked(folder, tmp_path / "digests", None, "mt_bench")
    first, again = (bench.jobs.run(serve([run], suites=[suite])) for _ in range(2))
    assert [
        (one["outcome"], one["scored"], one["loads"]) for one in (first, again)
    ] == [
        ("done", 3, 1),
        ("done", 0, 0),
    ]
    assert metric_rows(run, "mt_bench") == []
    zsg = Zsg(tmp_path)
    place = ("--workspace", run.parent.parent)
    rows = [
        json.loads(line)
        for line in zsg(
            "answers", "export", run.name, *place, "--step", "9"
        ).splitlines()
    ]
    rated = [
        row | {"metric": "mt_bench", "score": number}
        for number, row in enumerate(rows, 1)
    ]
    file = zsg.write("ratings.jsonl", "".join(json.dumps(row) + "\n" for row in rated))

    assert [row["id"] for row in rows][:2] == [
        "mt_bench/81:1",
        "mt_bench/81:2",
    ] and len(rows) == TURNS
    assert "mt_bench 3.5" in zsg("score", file, *place)
    assert scores(run, "mt_bench") == {9: 3.5}
    assert read_test_losses(run, "mt_bench").losses[0].tolist() == [1, 2, 3, 4, 5, 6]


@pytest.mark.data
def test_without_a_sandbox_nothing_is_run_and_the_job_says_so_at_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    """Before hours of answering; other metrics have their scores."""

    def nowhere(**_: Any) -> None:
        raise NoSandbox("this machine offers no isolation")

    monkeypatch.setattr(scorers.sandbox, "find_sandbox", nowhere)
    [suite] = asked(folder, tmp_path / "digests", None, "humaneval/pass_at_1")
    made = Scorers(tmp_path / "ratings.jsonl", "cpu", os.environ)
    made.look_ahead([suite])
    items = object.__new__(Problems)
    items.problems = []
    answered = [
        Answered(id="HumanEval/0", task="humaneval", prompt="p", answer="import os")
    ]
    scored, failed, _ = made.score(suite, items, suite.keys, answered)

    assert logged == [
        "HumanEval's answers are kept and not scored: this machine offers no isolation"
    ]
    assert scored.values == {}
    [(key, error)] = failed.items()
    assert key == "humaneval/pass_at_1"
    assert str(error) == "ClusterError: this machine offers no isolation"


def test_scores_that_say_little_are_told_with_them(tmp_path: Path) -> None:
    """A reference in another script than the tokenizer reads: the score is there, and
    why it is 0."""
    checkpoints = {"metrics": ["rouge1", "bleu"], "snapshots": 9}
    settings = CheckpointSettings.model_validate(checkpoints)
    [suite] = suites.select_suites(settings, {})
    answered = [
        Answered(
            id="t:0", task="t", prompt="p", references=("家です",), answer="家です"
        )
    ]
    made = Scorers(tmp_path / "ratings.jsonl", "cpu", os.environ)
    items = object.__new__(OwnTestSet)
    scored, failed, _ = made.score(suite, items, suite.keys, answered)
    told = "; ".join(scored.flags)

    assert not failed and scored.values["rouge1"] == 0
    assert "checkpoints.rouge.tokenizer: unicode or characters" in told
    assert "set checkpoints.bleu.tokenize: zh or char" in told


def test_rank_accuracy_without_options_is_told_and_keeps_no_other_from_its_value(
    bench: Bench, run: Path
) -> None:
    """Of Natural Instructions: the job says what is needed; distances, which are taken
    beside it, are journalled."""
    wanted = {
        "metrics": ["rank_accuracy"],
        "snapshots": 9,
        "token_distance": {"token": "</s>", "words": ["the"]},
    }
    inside = CheckpointSettings.model_validate(wanted).inside
    record = bench.jobs.run(serve([run], keys=[], inside=inside))

    assert record["outcome"] == "failed"
    assert (
        "rank_accuracy: no test item was published with options" in record["evidence"]
    )
    assert sorted(scores(run, "token_distance/the")) == [0, 9, 18] and not metric_rows(
        run, "rank_accuracy"
    )
