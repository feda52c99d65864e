"""Does DMT's study run as a grid: strategies and k over three data sets, stage 1 trained once?"""

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.contract.folder import Workspace
from jobs.preparing.corpus import Corpus
from tests.lib.command_line import Zsg
from tests.lib.mlflow_contents import child_runs
from tests.lib.small_runs import submit_forked

GRID = """
name: dmt
defaults:
  model: {{name: tiny, hidden: 32, layers: 1, heads: 2, vocab: 400}}
  data:
    template: vicuna
    train_per_task: {cap}
    sources:
      math: {{set: gsm8k, path: {gsm8k}/train.jsonl, test_path: {gsm8k}/test.jsonl, test_per_task: 24}}
      code: {{set: alpaca, path: {code}, test_set: humaneval, test_path: {humaneval}, test_per_task: 12}}
      talk: {{set: sharegpt, path: {talk}, role: general}}
  train: {{batch: 8, steps: 2, lr: 1e-3, max_length: 192, precision: fp32}}
  checkpoints: {{every: 2}}
grid: {{strategy: {strategies}}}
"""
SIZES = {"code": 2017, "math": 7473, "talk": 500}
PARTS = {"1": 1, "1/4": 4, "1/16": 16, "1/64": 64, "1/256": 256}


def submit(
    zsg: Zsg, real_data: Path, forked: Path, strategies: str, cap: str = "null"
) -> dict[str, dict[str, Any]]:
    """The grid, run to its end: its status rows by strategy."""
    text = GRID.format(
        gsm8k=real_data / "gsm8k",
        code=real_data / "code_alpaca/code_alpaca_2k.json",
        strategies=strategies,
        humaneval=real_data / "humaneval/HumanEval.jsonl.gz",
        cap=cap,
        talk=real_data / "sharegpt/fastchat_dummy_conversation.json",
    )
    submit_forked(zsg, forked, zsg.write("dmt.yaml", text))
    rows = {json.dumps(row["axes"]["strategy"]): row for row in zsg.status()}
    assert {row["state"] for row in rows.values()} == {"done"}
    return rows


def corpus_of(zsg: Zsg, run: str) -> Corpus:
    """What the last stage of a run was trained on."""
    job = json.loads((zsg.work / "runs" / run / "job.json").read_text())
    return Corpus(Workspace(zsg.work), job["made"]["corpus"])


def counts_of(zsg: Zsg, run: str) -> dict[str, int]:
    """How many examples of each source that was."""
    return {
        name: facts["train"]
        for name, facts in corpus_of(zsg, run).meta["sources"].items()
    }


def train_jobs(zsg: Zsg) -> list[str]:
    """Every train job that was ever submitted."""
    rows = [
        json.loads(line)
        for line in (zsg.work / "ledger.jsonl").read_text().splitlines()
    ]
    return [
        item
        for row in rows
        if row["event"] == "intent" and row["kind"] == "train"
        for item in row["items"]
    ]


@pytest.mark.data
def test_a_mixture_is_trained_in_stages_and_told_by_source(
    zsg: Zsg, real_data: Path, forked: Path
) -> None:
    """dmt(1/256) trains all special data, then the general with exactly 2 + 2 of them;
    MLflow says what and how."""
    strategy = "[{name: dmt, k: 1/256}]"
    [row] = submit(zsg, real_data, forked, strategy, "512").values()
    made, told = corpus_of(zsg, row["run"]), child_runs(zsg.work, "dmt")[row["run"]]

    assert counts_of(zsg, row["run"]) == {"code": 2, "math": 2, "talk": 500}
    assert len(train_jobs(zsg)) == 2
    assert told["params"]["stage2.data.sources.math.train.k"] == "1/256"
    for key in ("loss", "loss/math", "loss/code"):
        assert sorted(step for one, step, *_ in told["points"] if one == key) == [
            0,
            2,
            4,
        ]
    last = {key: value for key, step, value, _ in told["points"] if step == 4}
    assert 36 * last["loss"] == pytest.approx(
        24 * last["loss/math"] + 12 * last["loss/code"]
    )
    assert len(made.test) == 24 + 12
    arrangement = json.loads((zsg.work / "runs" / row["run"] / "job.json").read_text())[
        "made"
    ]["arrangement"]
    assert "sources: code 2 (0.40%), math 2 (0.40%), talk 500 (99.21%)" in zsg(
        "arrange", "show", arrangement
    )


@pytest.mark.soak(part="models")
@pytest.mark.data
def test_the_whole_k_sweep_runs_on_real_files(
    zsg: Zsg, real_data: Path, forked: Path
) -> None:
    """All strategies and k: exact counts in every last stage, the common first stage
    one job, nothing done twice."""
    sweep = [f"{{name: dmt, k: {k}}}" for k in (*PARTS, "0")]
    strategies = f"[multitask, sequential, {', '.join(sweep)}]"
    rows = submit(zsg, real_data, forked, strategies)
    talk = {"talk": SIZES["talk"]}

    for k, parts in PARTS.items():
        share: Any = 1 if k == "1" else k
        wanted = {name: SIZES[name] // parts for name in ("code", "math")} | talk
        assert (
            counts_of(zsg, rows[json.dumps({"name": "dmt", "k": share})]["run"])
            == wanted
        )
    assert (
        counts_of(zsg, rows['{"name": "dmt", "k": 0}']["run"])
        == {"code": 0, "math": 0} | talk
    )
    assert counts_of(zsg, rows['"multitask"']["run"]) == SIZES
    assert counts_of(zsg, rows['"sequential"']["run"]) == {"code": 0, "math": 0} | talk
    assert len(train_jobs(zsg)) == len(set(train_jobs(zsg))) == 1 + 3 + 1 + len(sweep)
    assert "nothing to submit" in zsg("submit", "dmt.yaml")
