"""Does DELIA run from its grid to its scores: answers sampled once, a token added, few
wordings or many?"""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.contract.folder import is_committed, read_json
from jobs.preparing.records import Records
from launcher.planning.plan import Allow
from launcher.submission import submit, workflow
from launcher.submission.submit_plan import SubmitPlanner
from launcher.workspace.ledger import Ledger
from tests.lib.command_line import Zsg
from tests.lib.evaluate_jobs import metric_rows, scores
from tests.lib.forked_jobs import ForkedJobs, JobServer, wait_until
from tests.lib.journal_rows import plain_rows

GRID = """
name: delia
defaults:
  model: {name: tiny, hidden: 32, layers: 2, heads: 2, vocab: 400, add_tokens: [<sep>]}
  data:
    sources:
      task: {set: delia, path: task.jsonl, test_path: eval.jsonl, instructions: {path: wordings.txt, replaces: true}}
      diverse: {set: messages, path: queries.jsonl, self_sample: {max_new_tokens: 16}, ratio_to: task}
  train:
    {batch: 4, lr: 2e-3, lr_floor: 1, warmup_steps: 2, max_length: 160, precision: fp32,
     tuning: {method: lora, targets: [q_proj, k_proj, v_proj, o_proj, embed_tokens]}}
  checkpoints:
    {every: 4, snapshots: 100, metrics: [loss, json_valid, json_accuracy], generation: {max_new_tokens: 4},
     token_distance: {token: <sep>, words: [thought, hallucination], layers: [0, 2]}}
grid:
  data.sources.diverse.ratio: [0, 1, 2]
"""
TASKS, QUERIES = 8, 50


def row(asked: str, answered: str) -> str:
    """A line of a `messages` file."""
    sides = (("user", asked), ("assistant", answered))
    return (
        json.dumps(
            {"messages": [{"role": role, "content": text} for role, text in sides]}
        )
        + "\n"
    )


def fill(folder: Path) -> None:
    """The data of the grid."""
    task = [
        row(
            f"Is {i} odd?\n\nSay so as <sep>.",
            str({"thought": f"{i} % 2", "hallucination": "yes" if i % 2 else "no"}),
        )
        for i in range(TASKS + 4)
    ]
    (folder / "task.jsonl").write_text("".join(task[:TASKS]))
    (folder / "eval.jsonl").write_text("".join(task[TASKS:]))
    (folder / "queries.jsonl").write_text(
        "".join(row(f"Count to {i} " + "and on " * 40, "1, 2") for i in range(QUERIES))
    )
    (folder / "wordings.txt").write_text(
        "Answer as <sep> wants it.\nThe form is <sep>, see what <sep> is.\n"
    )


class Site:
    """The jobs of a grid, started one by one in forks of one process."""

    def __init__(self, folder: Path, jobs: ForkedJobs) -> None:
        fill(folder)
        path = folder / "grid.yaml"
        path.write_text(GRID)
        opened = workflow.open_grid(path, "local", folder / "work")
        self.work, ledger = folder / "work", Ledger(opened.site.workspace)
        plan = SubmitPlanner(
            opened.site, opened.grid, opened.runs, ledger, Allow()
        ).plan_submit()
        [self.sampler] = [self.work / one.item for one in plan.prepares if one.samples]
        made, locks = submit.submit_local(opened.site, opened.grid, plan, ledger)
        for lock in locks:
            os.close(lock)
        self.others = [
            self.work / job.item for job in made if self.work / job.item != self.sampler
        ]
        self.runs = {
            run.axes["data.sources.diverse.ratio"]: self.work / "runs" / run.id
            for run in opened.runs
        }
        self.made = self.work / next(
            need
            for need in read_json(self.sampler / "job.json")["makes"]
            if "records" in need
        )
        self.jobs = jobs

    @property
    def draft(self) -> Path:
        """What the sampler has so far."""
        return self.made.parent / f".{self.made.name}.draft" / "answers.jsonl"


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, job_server: JobServer
) -> Iterator[Site]:
    """A grid of three ratios, whose sampler was killed after its first batch and
    started again, and all jobs ran."""
    folder, before = tmp_path_factory.mktemp("delia"), Path.cwd()
    os.chdir(folder)
    made = Site(folder, ForkedJobs(job_server))
    os.chdir(before)
    [killed] = made.jobs.start(made.sampler)
    wait_until(
        lambda: (made.draft.exists() and made.draft.stat().st_size) or killed.ended()
    )
    killed.send(signal.SIGKILL)
    assert killed.ended(within_s=5)
    made.first = made.draft.read_bytes()  # type: ignore[attr-defined]
    assert not is_committed(made.made), "no half corpus"
    for job in [made.sampler, *made.others]:
        record = made.jobs.run(job)
        assert record["outcome"] == "done", (job, record)
    yield made
    made.jobs.stop()


def test_a_killed_sampler_goes_on(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it had is kept to the letter, and the answers are those of a sampler that
    nobody killed."""
    said = [
        r["data"]["event"] for r in plain_rows(site.sampler) if r["kind"] == "event"
    ]
    first = dict(pair for line in site.first.splitlines() for pair in json.loads(line))  # type: ignore[attr-defined]
    answers = {one.id: one.answer for one in Records(site.made)}
    monkeypatch.chdir(tmp_path)
    undisturbed = Site(tmp_path, site.jobs)
    assert site.jobs.run(undisturbed.sampler)["outcome"] == "done"

    assert f"sampling {QUERIES} answers, continuing after {len(first)}" in said
    assert 0 < len(first) < QUERIES
    assert all(
        answers[made_id] == text[2:]
        for made_id, text in first.items()
        if made_id in answers
    )
    assert {one.id: one.answer for one in Records(undisturbed.made)} == answers
    assert len(set(answers.values())) > QUERIES / 2


def test_ratios_draw_from_the_same_answers(site: Site) -> None:
    """One sampler for the two that want any; what the larger ratio trains on holds the
    smaller's, ratio 0 none."""
    trained = {}
    for ratio, run in site.runs.items():
        made = read_json(run / "job.json")["made"]["arrangement"]
        trained[ratio] = (site.work / "arrangements" / made / "ids").read_text().split()
    of_model = {
        ratio: {one for one in ids if one.startswith("diverse/")}
        for ratio, ids in trained.items()
    }

    assert {ratio: len(ids) for ratio, ids in trained.items()} == {
        0: TASKS,
        1: 2 * TASKS,
        2: 3 * TASKS,
    }
    assert (
        len(of_model[2]) == 2 * TASKS and of_model[1] < of_model[2] and not of_model[0]
    )
    assert len(list((site.work / "records").glob("[!.]*"))) == 3, "task, test, answers"


def test_the_token_is_there_from_data_to_snapshot(site: Site) -> None:
    """It is one id in what is trained on and in the snapshot's tokenizer; the
    embedding's adapters have its row."""
    from safetensors import safe_open

    from jobs.model.vocabulary import load_vocabulary

    run = site.runs[2]
    [snapshot] = (run / "snapshots").glob("[0-9]*")
    base = Path(read_json(run / "job.json")["paths"]["base"])
    [sep] = load_vocabulary(snapshot).tokenize("<sep>")
    with safe_open(snapshot / "adapter_model.safetensors", "pt") as file:
        [name] = [
            name
            for name in file.keys()
            if "embed_tokens" in name and "lora_embedding_A" in name
        ]
        assert (
            file.get_tensor(name).shape[1]
            == read_json(base / "config.json")["vocab_size"]
            == 448
        )
    assert read_json(base / "meta.json")["added"] == {"<sep>": sep}
    assert read_json(run / "job.json")["made"]["base"] == base.name


def test_scores_are_taken_of_the_base_and_of_the_end(site: Site) -> None:
    """Validity and accuracy at step 0 and at the last step of one epoch, in every run's journal."""
    for ratio, run in site.runs.items():
        steps = [0, (1 + ratio) * TASKS // 4]
        assert [
            sorted(scores(run, key)) for key in ("json_valid", "json_accuracy")
        ] == [
            steps,
            steps,
        ]
        assert [row["step"] for row in metric_rows(run, "loss")][-1] == steps[1]


def test_a_grid_that_is_planned_again_samples_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With another ratio and another first row for the token: the answers are by the
    model as it was before."""
    folder = site.work.parent
    monkeypatch.chdir(folder)
    more = GRID.replace("[0, 1, 2]", "[3]").replace(
        "add_tokens: [<sep>]", "add_tokens: [<sep>], token_init: mean"
    )
    (folder / "more.yaml").write_text(more)
    opened = workflow.open_grid(folder / "more.yaml", "local", site.work)
    plan = SubmitPlanner(
        opened.site, opened.grid, opened.runs, Ledger(opened.site.workspace), Allow()
    ).plan_submit()

    assert [(one.samples, one.after) for one in plan.prepares] == [(False, set())]


def test_the_distance_of_the_token_to_its_words_is_taken(site: Site) -> None:
    """In the embedding and after the last layer, of the base that all runs share and of
    what each has made of it."""
    keys = [
        f"token_distance/{word}{of}"
        for word in ("thought", "hallucination")
        for of in ("", "/layer_2")
    ]
    found = {
        ratio: [scores(run, key) for key in keys] for ratio, run in site.runs.items()
    }
    ends = [tuple(curve[max(curve)] for curve in curves) for curves in found.values()]

    assert all(
        sorted(curve) == [0, (1 + ratio) * TASKS // 4]
        for ratio, curves in found.items()
        for curve in curves
    )
    assert len({tuple(curve[0] for curve in curves) for curves in found.values()}) == 1
    assert len(set(ends)) == len(ends)


@pytest.mark.soak(part="slurm")
@pytest.mark.slurm
def test_jobs_wait_for_the_answers_on_slurm(zsg_on_slurm: Zsg) -> None:
    """The sample job, then the prepare jobs that need it, then the runs, then the
    evaluator, each by dependency."""
    from tests.lib.slurm_runs import profile, wait_until_ended

    zsg = zsg_on_slurm
    fill(zsg.folder)
    zsg(
        "submit",
        zsg.write("grid.yaml", GRID.replace("[0, 1, 2]", "[0, 1]")),
        "--profile",
        profile(zsg),
    )
    rows = wait_until_ended(zsg, 400)

    assert {row["state"] for row in rows} == {"done"}
    kinds = [
        last.kind for last in Ledger(workflow.Workspace(zsg.work)).submissions.values()
    ]
    assert kinds[:3] == ["sample", "prepare", "prepare"]
    assert all(
        0 in scores(zsg.work / "runs" / row["run"], "json_valid")
        for row in rows
        if "/" not in row["run"]
    )
