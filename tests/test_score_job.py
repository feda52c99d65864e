"""Does a score job give the numbers of a plain torch computation, and does a killed one
go on where it was?"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from jobs.contract import job_file
from jobs.contract.folder import Workspace
from jobs.contract.job_file import (
    CorpusToMake,
    Resources,
    ScoreJob,
    Scorer,
    ScoresToMake,
)
from jobs.contract.prepared import read_scores_meta
from jobs.model import content
from jobs.model.base_model import make_tiny
from jobs.model.example_gradients import GradientNorm
from jobs.model.vocabulary import load_vocabulary
from jobs.preparing.corpus import Corpus
from jobs.scoring import score_job
from jobs.training.train_sets import make_encoder
from tests.lib.command_line import QUIET, Zsg, wait_until
from tests.lib.made_corpora import make_corpora
from tests.lib.small_runs import submit_forked
from tests.lib.tiny_base import BASE, TEXTS
from zsg_core.errors import UserError
from zsg_core.model_scores.ifd import RESPONSE

pytestmark = pytest.mark.engine

LENGTH = 225  # tokens; about half of the examples are longer
NAMES = (
    *("answer_loss", "ifd_loss", "ifd_ppl", "el2n", "grand"),
    *("length", "answer_length"),
)
HOW = {"rule": 1, "precision": "fp32", "max_length": LENGTH}
SMALL = {"train_tasks": 8, "positive_examples": 0}
STAGES = """
name: stages
defaults:
  model: {{name: tiny, hidden: 64, layers: 2, vocab: 600}}
  data: {{path: {tasks}, train_per_task: 4, test_per_task: 2, positive_examples: 0}}
  train: {{batch: 8, lr: 2e-3, max_length: 96, precision: fp32, epochs: 1, steps: 6}}
  checkpoints: {{every: 6}}
  stages:
    - {{arrangement: {{order: random}}}}
    - {{arrangement: {{order: scores, score: answer_loss, shape: {shape}}}}}
"""
Plain = dict[str, dict[str, float]]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two models of one shape and tokenizer."""
    folder = tmp_path_factory.mktemp("bases")
    made = [folder / "first", folder / "second"]
    for seed, base in enumerate(made):
        make_tiny(base, {**BASE, "context": 256, "seed": seed}, TEXTS)
    return made


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, tasks: Path) -> Corpus:
    """Some training examples, a few of which are longer than LENGTH."""
    make = make_corpora(tmp_path_factory.mktemp("scored"))
    return make(path=str(tasks), train_per_task=2, test_per_task=1, **SMALL)


def scorer_of(base: Path) -> Scorer:
    """A folder of the user's."""
    files = content.model_files(base)
    digest = content.folder_digest(base, files, content.sha256_of(files))
    return Scorer(folder=str(base), digest=digest)


def make_job(
    corpus: Corpus, base: Path, *names: str, since: Path | None = None, mark: str = ""
) -> ScoreJob:
    """The job that scores a corpus; the id of each score is its name."""
    root = corpus.folder.parents[1]
    scores = [
        ScoresToMake(
            id=f"{name}{mark}",
            recipe={**HOW, "name": name},
            scorer=scorer_of(base),
            earlier=scorer_of(since) if since else None,
        )
        for name in names
    ]
    return ScoreJob(
        schema=1,
        run_id=None,
        submission="s",
        resources=Resources(
            profile="local", nodes=1, ranks_per_node=1, cpus_per_rank=1, time_min=1
        ),
        paths=job_file.SamplePaths(workspace=str(root), sources={}),
        stage_id="x",
        corpus=CorpusToMake(id=corpus.folder.name, recipe=corpus.recipe),
        scores=scores,
        makes=[f"scores/{each.id}" for each in scores],
    )


def read_scores(job: ScoreJob, name: str) -> dict[str, float]:
    """What was published, by the examples' ids."""
    path = job.workspace.scores(name) / "scores.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {row["id"]: row["score"] for row in rows}


def compute_plainly(corpus: Corpus, base: Path) -> Plain:
    """All scores by one forward pass of transformers after the other, in float64 after
    the logits."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base).eval()
    words = load_vocabulary(base)
    encode = make_encoder(words, corpus.template, LENGTH)

    def pick(ids: list[int], start: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The distributions before the tokens from `start` on, and these."""
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0].double()
        first = max(1, start)
        return logits[first - 1 : -1].softmax(-1), torch.tensor(ids[first:])

    def lose(ids: list[int], start: int) -> float:
        shares, targets = pick(ids, start)
        return float(-shares.gather(1, targets[:, None]).log().mean())

    def err(ids: list[int], start: int) -> float:
        shares, targets = pick(ids, start)
        wanted = torch.nn.functional.one_hot(targets, shares.shape[1])
        return float((shares - wanted).norm(dim=1).mean())

    def grow(ids: list[int], start: int) -> float:
        """The norm of the gradient of transformers' own loss, by all weights."""
        labels = [-100] * start + ids[start:]
        model.zero_grad()
        model(torch.tensor([ids]), labels=torch.tensor([labels])).loss.backward()
        gradients = [parameter.grad for parameter in model.parameters()]
        norms = [gradient.double().norm() for gradient in gradients]
        return float(torch.stack(norms).norm())

    found: Plain = {name: {} for name in NAMES}
    for example in corpus.train:
        encoded = encode(example)
        ids = [int(token) for token in encoded.ids]
        [(start, stop)] = encoded.spans
        assert stop == len(ids)
        found["answer_loss"][example.id] = lose(ids, start)
        found["el2n"][example.id] = err(ids, start)
        found["grand"][example.id] = grow(ids, start)
        found["length"][example.id] = len(ids)
        found["answer_length"][example.id] = stop - start
        if encoded.cut:
            continue
        ids, answer = ids[:-1], ids[start:-1]
        before = [*words.beginning, *words.tokenize(RESPONSE)]
        given, bare = lose(ids, start), len(words.beginning)
        direct = lose([*before, *answer], len(before))
        alone = lose([*words.beginning, *answer], bare)
        found["ifd_loss"][example.id] = given / direct
        found["ifd_ppl"][example.id] = float(torch.tensor(given - alone).exp())
    return found


def test_scores_are_those_of_a_plain_torch_computation(
    corpus: Corpus, bases: list[Path]
) -> None:
    """Each of every example, and none of an example that the published code leaves out."""
    job = make_job(corpus, bases[0], *NAMES)
    plain = compute_plainly(corpus, bases[0])

    score_job.score_examples(job)

    assert 0 < len(plain["ifd_loss"]) < len(plain["answer_loss"])
    for name in NAMES:
        rel = 1e-5 if name == "grand" else 2e-5
        assert read_scores(job, name) == pytest.approx(plain[name], rel=rel), name
    meta = read_scores_meta(job.workspace.scores("answer_loss"))
    assert meta is not None
    assert meta.weights == {"scorer": job.scores[0].scorer.digest}
    assert meta.devices == ["cpu"]
    short = read_scores_meta(job.workspace.scores("ifd_loss"))
    assert short is not None
    assert short.unscored == len(plain["answer_loss"]) - len(plain["ifd_loss"])


def test_norms_of_gradients_are_those_of_a_worked_example() -> None:
    """Of a logistic regression of two weights, by hand; no gradient stays behind."""
    weights = torch.nn.Parameter(torch.tensor([0.5, -0.25]), requires_grad=False)
    norm = GradientNorm([weights])

    def lose(inputs: list[float], label: int) -> torch.Tensor:
        share = torch.sigmoid(weights @ torch.tensor(inputs))
        return -torch.log(share if label else 1 - share)

    examples = [([1.0, 2.0], 1), ([2.0, -1.0], 1), ([-1.0, 1.0], 0)]
    with norm.listening():
        norms = [norm.take(lose(*example)) for example in examples]

    assert norms == pytest.approx([1.118034, 0.497973, 0.453710], rel=1e-5)
    assert weights.grad is None
    assert not weights.requires_grad


def test_progress_is_how_far_the_loss_fell(corpus: Corpus, bases: list[Path]) -> None:
    """From the earlier of two models to the later one."""
    job = make_job(corpus, bases[1], "progress", since=bases[0])
    before, after = (compute_plainly(corpus, base)["answer_loss"] for base in bases)

    score_job.score_examples(job)

    falls = {name: before[name] - after[name] for name in before}
    assert read_scores(job, "progress") == pytest.approx(falls, abs=1e-5)
    meta = read_scores_meta(job.workspace.scores("progress"))
    assert meta is not None
    assert meta.weights.keys() == {"scorer", "since"}


class Killed(BaseException):
    """Stands for a kill."""


@dataclass
class Blocks:
    """Where each block begins that is scored; after so many the job is killed."""

    most: int
    begun: list[int] = field(default_factory=list)


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> Blocks:
    """Blocks of four examples, of which two are scored before the job is killed."""
    seen, score_block = Blocks(2), score_job._Making._score_block

    def score_noted(making: Any, weights: Any, start: int, ids: Any) -> Any:
        if len(seen.begun) == seen.most:
            raise Killed
        seen.begun.append(start)
        return score_block(making, weights, start, ids)

    monkeypatch.setattr(score_job, "BLOCK", 4)
    monkeypatch.setattr(score_job._Making, "_score_block", score_noted)
    return seen


@pytest.mark.parametrize("name", ["el2n", "grand"])
def test_a_killed_job_goes_on_after_its_last_whole_block(
    corpus: Corpus, bases: list[Path], blocks: Blocks, name: str
) -> None:
    """What a kill has cut off is scored again, nothing else is; the scores are those of
    a job in one go, to the byte. A third start finds them, and scores nothing."""
    job = make_job(corpus, bases[0], name, mark="-stopped")
    folder = job.workspace.scores(f"{name}-stopped")
    draft = folder.with_name(f".{folder.name}.draft") / "blocks.jsonl"
    with pytest.raises(Killed):
        score_job.score_examples(job)
    draft.write_bytes(draft.read_bytes() + b'{"devices": [], "rows": [["cut')

    blocks.most = 99
    score_job.score_examples(job)
    score_job.score_examples(job)

    assert blocks.begun == [0, 4, 8, 12]
    whole = make_job(corpus, bases[0], name, mark="-whole")
    score_job.score_examples(whole)
    files = [job.workspace.scores(f"{name}-{mark}") for mark in ("stopped", "whole")]
    written = [(each / "scores.jsonl").read_bytes() for each in files]
    assert written[0] == written[1]
    assert not draft.parent.exists()


def test_scores_of_other_weights_are_not_gone_on_with(
    corpus: Corpus, bases: list[Path], blocks: Blocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a run's weights were trained again between a kill and the next start."""
    find_weights = score_job._Bench.find_weights
    job = make_job(corpus, bases[0], "answer_length", mark="-moved")
    with pytest.raises(Killed):
        score_job.score_examples(job)

    def find_others(bench: Any, scorer: Any) -> score_job.Weights:
        return replace(find_weights(bench, scorer), digest="other")

    monkeypatch.setattr(score_job._Bench, "find_weights", find_others)
    blocks.most = 99
    score_job.score_examples(job)

    assert blocks.begun == [0, 4, 0, 4, 8, 12]


def test_a_folder_that_has_changed_is_refused(
    corpus: Corpus, bases: list[Path]
) -> None:
    """The recipe names its content of when the grid was submitted."""
    job = make_job(corpus, bases[0], "answer_loss", mark="-other")
    other = msgspec.structs.replace(job.scores[0].scorer, folder=str(bases[1]))
    scores = [msgspec.structs.replace(job.scores[0], scorer=other)]

    with pytest.raises(UserError, match="has changed since it was submitted"):
        score_job.score_examples(msgspec.structs.replace(job, scores=scores))


@pytest.fixture
def started() -> Iterator[Callable[[Path], subprocess.Popen[bytes]]]:
    """Starts the job of a folder as a cluster would; ends it if the test does not."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(folder: Path) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-m", "jobs.entry", str(folder)]
        process = subprocess.Popen(argv, env={**os.environ, **QUIET})
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.soak(part="models")
def test_a_killed_job_resumes_on_the_node(
    bases: list[Path],
    tmp_path: Path,
    tasks: Path,
    started: Callable[[Path], subprocess.Popen[bytes]],
) -> None:
    """SIGKILL in mid job: the next start says after how many examples it goes on, and
    publishes what an undisturbed job does."""
    make = make_corpora(tmp_path)
    many = make(path=str(tasks), train_per_task=12, positive_examples=0)
    job = make_job(many, bases[0], "ifd_ppl", mark="-killed")
    workspace = Workspace(many.folder.parents[1])
    folder = workspace.root / "prepare" / "score"
    job_file.write_job(folder, job)
    draft = workspace.root / "scores" / ".ifd_ppl-killed.draft" / "blocks.jsonl"

    first = started(folder)
    wait_until(lambda: draft.exists() and draft.read_bytes())
    first.send_signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    kept = draft.read_bytes().count(b"\n")
    assert started(folder).wait() == 0

    notes = "".join(path.read_text() for path in folder.glob("journal/*"))
    assert f"going on after {kept * score_job.BLOCK} examples" in notes
    whole = make_job(many, bases[0], "ifd_ppl", mark="-whole")
    score_job.score_examples(whole)
    files = [workspace.scores(f"ifd_ppl-{mark}") for mark in ("killed", "whole")]
    written = [(each / "scores.jsonl").read_bytes() for each in files]
    assert written[0] == written[1]


@pytest.mark.soak(part="models")
def test_a_stage_is_ordered_by_what_the_one_before_has_left_unlearnt(
    tmp_path: Path, tasks: Path, forked: Path
) -> None:
    """Trained, scored, ordered and trained again by one submit; verify derives the order
    from the kept scores, and another order by them scores nothing."""
    zsg = Zsg(tmp_path)
    grid = zsg.write(
        "stages.yaml", STAGES.format(tasks=json.dumps(str(tasks)), shape="sort")
    )

    zsg("arrange", "make", grid, code=2)
    assert "zsg submit trains it, then makes the order" in zsg.said
    submit_forked(zsg, forked, grid)

    [run] = zsg.status()
    assert run["state"] == "done"
    assert "96 of answer_loss" in zsg("verify", run["run"], "--steps", "0")
    [scores] = (zsg.work / "scores").glob("[!.]*")
    meta = read_scores_meta(scores)
    assert meta is not None
    assert meta.recipe["model"]["run"] in {
        path.name for path in zsg.work.glob("runs/*")
    }
    written = (scores / "scores.jsonl").stat().st_mtime_ns
    zsg.write("stages.yaml", STAGES.format(tasks=json.dumps(str(tasks)), shape="fold"))
    assert "score" not in zsg("plan", grid, "--all").partition("first")[2]
    submit_forked(zsg, forked, grid)
    assert (scores / "scores.jsonl").stat().st_mtime_ns == written
