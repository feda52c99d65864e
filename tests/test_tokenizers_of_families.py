"""Does a model whose tokenizer begins with nothing, and which ends its turns with another
token than its tokenizer's, run from its grid to its scores?"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.contract.folder import read_json
from launcher.planning.plan import Allow
from launcher.submission import submit, workflow
from launcher.submission.submit_plan import SubmitPlanner
from launcher.workspace.ledger import Ledger
from tests.lib.evaluate_jobs import scores
from tests.lib.forked_jobs import ForkedJobs, JobServer
from tests.lib.journal_rows import plain_rows
from tests.lib.model_folders import change
from tests.lib.tiny_base import BASE, TEXTS
from tests.lib.tiny_families import make_model

pytestmark = pytest.mark.soak(part="families")

TURN_END = 7
TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"
GRID = """
name: no-bos
defaults:
  model: {name: own, path: base}
  data: {set: messages, path: train.jsonl, test_path: test.jsonl, template: TEMPLATE}
  train: {batch: 4, lr: 1e-3, max_length: 64, precision: fp32}
  checkpoints:
    {every: 4, snapshots: 100, metrics: [loss, exact_match], generation: {max_new_tokens: 4}}
grid:
  arrangement.order: [random]
"""


def fill(folder: Path, family: str, template: str) -> None:
    """A base of a family whose tokenizer is as Qwen's, data and a grid."""
    from jobs.model import base_model

    base = folder / "base"
    base_model.make_tiny(base, BASE, TEXTS)
    if family != "llama":
        for name in ("config.json", "model.safetensors"):
            (base / name).unlink()
        make_model(family, vocab_size=400).save_pretrained(base)
    (base / "meta.json").unlink()
    change(base / "tokenizer_config.json", bos_token=None)
    change(base / "generation_config.json", eos_token_id=[TURN_END])
    (base / "chat_template.jinja").write_text(TEMPLATE)
    (base / "additional_chat_templates").mkdir()
    (base / "additional_chat_templates/rag.jinja").write_text(TEMPLATE)
    for name, count in (("train", 16), ("test", 4)):
        rows = [
            {
                "messages": [
                    {"role": "user", "content": f"Is {number} odd?"},
                    {"role": "assistant", "content": "no" if number % 2 else "yes"},
                ]
            }
            for number in range(count)
        ]
        text = "".join(f"{json.dumps(row)}\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text)
    (folder / "grid.yaml").write_text(GRID.replace("TEMPLATE", template))


@pytest.fixture(
    scope="module", params=[("llama", "zsg"), ("qwen3", "plain"), ("bloom", "zsg")]
)
def run(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    job_server: JobServer,
) -> Iterator[Path]:
    """The folder of the grid's one run, all of whose jobs have run."""
    folder, before = tmp_path_factory.mktemp("no-bos"), Path.cwd()
    fill(folder, *request.param)
    os.chdir(folder)
    opened = workflow.open_grid(folder / "grid.yaml", "local", folder / "work")
    ledger = Ledger(opened.site.workspace)
    planner = SubmitPlanner(opened.site, opened.grid, opened.runs, ledger, Allow())
    plan = planner.plan_submit()
    submitted, locks = submit.submit_local(opened.site, opened.grid, plan, ledger)
    for lock in locks:
        os.close(lock)
    os.chdir(before)
    jobs = ForkedJobs(job_server)
    for job in submitted:
        record = jobs.run(folder / "work" / job.item)
        assert record["outcome"] == "done", (job, record)
    yield folder / "work" / "runs" / opened.runs[0].id
    jobs.stop()


def test_the_run_ends_and_is_scored_by_all_ends(run: Path) -> None:
    """Losses are numbers; answers were made by the end of the model's turn, too."""
    losses = [float(row) for row in scores(run, "loss").values()]
    rows: list[dict[str, Any]] = [
        row["data"] for row in plain_rows(run) if row["kind"] == "event"
    ]
    ways = [row["how"] for row in rows if "how" in row]

    assert losses and all(loss > 0 for loss in losses)
    assert sorted(scores(run, "exact_match")) == [0, 4]
    assert ways and all(way["ends"] == [TURN_END] for way in ways)


def test_its_snapshot_is_read_as_the_base_was(run: Path) -> None:
    """Templates to the byte, no beginning, and both ends, the trained one first."""
    from jobs.model.vocabulary import load_vocabulary

    [snapshot] = (run / "snapshots").glob("[0-9]*")
    vocabulary = load_vocabulary(snapshot)

    assert vocabulary.bos is None
    generation = read_json(snapshot / "generation_config.json") or {}
    assert generation["eos_token_id"] == [vocabulary.eos, TURN_END]
    for name in ("chat_template.jinja", "additional_chat_templates/rag.jinja"):
        assert (snapshot / name).read_text() == TEMPLATE
