"""How long do tasks of lm-evaluation-harness take at a run's checkpoints, and how many
requests does zsg score in a second, to the harness itself?

    python -m benchmarks.harness --json

A tiny model, 20 checkpoints and three tasks of the shapes of MMLU (five shots that all
items share, options of a letter), HellaSwag (options of a sentence) and GSM8K (answers
of up to 24 tokens). The peer of the job is what it cannot do without: one start of a
process that loads the tasks, and their scoring alone, in a plain loop without leases,
journal or proof of weights.

The same requests are scored by the harness' own `HFLM`, by batches of one and of eight,
of which the faster counts, on a model of 25 million parameters; log-likelihoods must
agree to 1e-3. By turns on one thread of one process; CPU time, as the machine may be
shared.
"""

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.by_turns import by_turns
from benchmarks.evaluate import MOST, prepared, timed
from benchmarks.rows import Row, show

CHECKPOINTS, ITEMS, ASKED = 20, 60, 10
TASKS = ("shaped_mmlu", "shaped_hellaswag", "shaped_gsm8k")
SUBJECTS, QUESTIONS, REPEATS = 2, 12, 3
SHOTS = 5
BATCHES, SAME = (1, 8), 1e-3
GOAL = 3.0  # times the requests of lm-evaluation-harness in a second
WORDS = "river stone lamp garden copper winter bridge letter orange cloud".split()


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.harness",
        description="How fast tasks of lm-evaluation-harness are taken.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--checkpoints",
        type=int,
        default=CHECKPOINTS,
        help="of the run, the base's included",
    )
    parser.add_argument(
        "--plainly", nargs="+", metavar=("RUN", "STEP"), help=argparse.SUPPRESS
    )
    parser.add_argument("--score", metavar="SHAPE", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.plainly:
        run, *steps = asked.plainly
        print(json.dumps(take_plainly(Path(run), [int(step) for step in steps])))
        return
    if asked.score:
        print(json.dumps(score_by_turns(asked.score)))
        return
    with tempfile.TemporaryDirectory(prefix="zsg-") as place:
        rows = [measure_job(Path(place), asked.checkpoints), measure_scoring("25M")]
        show(rows, asked.json)


def measure_scoring(shape: str) -> Row:
    """Requests scored in a second of CPU time, to the harness' own."""
    told, _ = timed("-W", "ignore", "-m", "benchmarks.harness", "--score", shape)
    goal = GOAL * told["harness"]
    what = f"{shape}, log-likelihood of {told['requests']} requests (CPU time)"
    return Row(what, told["zsg"], "it/s", told["harness"], goal, told["zsg"] >= goal)


def measure_job(folder: Path, checkpoints: int) -> Row:
    """The job against one start and the scoring alone, in processes of their own."""
    tasks = write_tasks(folder / "lm-eval-tasks")
    settings = {
        "metrics": ["loss", *(f"lm_eval/{name}" for name in TASKS)],
        "suites": {"lm_eval": {"tasks_path": str(tasks)}},
    }
    run, job = prepared(folder, checkpoints - 1, when=settings)
    timed("-m", "jobs.entry", str(run))
    steps = [str(step) for step in range(checkpoints)]
    plainly = ("-m", "benchmarks.harness", "--plainly", str(run))
    alone, _ = timed(*plainly, *steps)
    single, single_wall = timed(*plainly, steps[-1])
    _, wall = timed("-m", "jobs.entry", str(job))
    record = json.loads((job / "exit.json").read_text())
    if (record["outcome"], record["scored"]) != ("done", checkpoints * len(TASKS)):
        raise SystemExit(f"the job ended as {record}")
    peer = single_wall - single["seconds"] + alone["seconds"]
    what = f"{checkpoints} checkpoints × {len(TASKS)} tasks of lm-evaluation-harness"
    return Row(f"{what}, one job", wall, "s", peer, MOST * peer, wall <= MOST * peer)


def take_plainly(run: Path, steps: list[int]) -> dict[str, Any]:
    """Takes the tasks in a plain loop; `seconds` begin once they and the model are
    loaded."""
    from jobs.contract import snapshots
    from jobs.evaluating.eval_target import EvalTarget
    from jobs.evaluating.harness import Harness
    from jobs.evaluating.harness_step import hold_model, make_writer, open_task
    from jobs.evaluating.harness_taking import Taking
    from jobs.evaluating.weight_swapper import WeightSwapper, become_sole_rank
    from zsg_core.training.schedule import MICRO_TOKENS

    suite = find_suite(run)
    target, swapper = EvalTarget(run, (suite,)), WeightSwapper(become_sole_rank())
    swapper.load_base(target.job)
    harness = Harness()
    taking = Taking(0, 0, None, 0.0, "cpu", {}, swapper, MICRO_TOKENS["cpu"])
    loaded = {
        key: harness.open_task(
            "the run",
            open_task(suite, suite.scored_by[key]),
            suite.how,
            None,
            lambda: make_writer(target, suite.how),
        )
        for key in suite.keys
    }
    model = hold_model(target, suite.how, taking)
    for key, task in loaded.items():
        task.take(key, model)  # builds prompts and layouts
    began = time.perf_counter()
    for step in steps:
        if step:
            swapper.load_snapshot(snapshots.folder_of(run, step), target.job)
        for key, task in loaded.items():
            task.take(key, model)
    return {"seconds": time.perf_counter() - began}


def find_suite(run: Path) -> Any:
    """The suite of tasks that the evaluate job beside a run is to take."""
    from msgspec import convert

    from jobs.contract.folder import read_json
    from zsg_core.suites import Suite

    job = read_json(run.parent.parent / "evaluate/e/job.json") or {}
    [suite] = job["serves"][0]["suites"]
    return convert(suite, Suite)


def write_tasks(folder: Path) -> Path:
    """Three tasks with data of their own."""
    folder.mkdir(parents=True)
    draw = random.Random(0)
    rows = [
        {
            "question": " ".join(draw.choices(WORDS, k=8)) + "?",
            "options": [" ".join(draw.choices(WORDS, k=6)) for _ in range(4)],
            "answer": number % 4,
            "number": str(draw.randrange(100)),
        }
        for number in range(ITEMS + SHOTS)
    ]
    for name, some in (("test", rows[:ITEMS]), ("dev", rows[ITEMS:])):
        lines = [json.dumps(row) for row in some]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    lines = [json.dumps(row) for row in rows[:ASKED]]
    (folder / "asked.jsonl").write_text("\n".join(lines) + "\n")
    chosen = {
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}\nAnswer:",
        "doc_to_target": "answer",
        "metric_list": [describe_metric("acc")],
    }
    letters = {"doc_to_choice": ["A", "B", "C", "D"], "num_fewshot": SHOTS}
    options = {"doc_to_choice": "options", "num_fewshot": 0}
    answered = {
        "output_type": "generate_until",
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_target": "{{number}}",
        "num_fewshot": 2,
        "generation_kwargs": {"until": ["Question:"], "max_gen_toks": 24},
        "metric_list": [describe_metric("exact_match")],
    }
    for name, task in zip(
        TASKS, (chosen | letters, chosen | options, answered), strict=True
    ):
        test = "asked.jsonl" if task is answered else "test.jsonl"
        files = {"test": test, "dev": "dev.jsonl"}
        whole = task | {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": files},
            "test_split": "test",
            "fewshot_split": "dev",
            "fewshot_config": {"sampler": "first_n"},
        }
        (folder / f"{name}.yaml").write_text(json.dumps(whole))
    return folder


def describe_metric(name: str) -> dict[str, Any]:
    """A metric of a task, the mean over its items."""
    return {"metric": name, "aggregation": "mean", "higher_is_better": True}


def score_by_turns(shape: str) -> dict[str, Any]:
    """Requests in a second of CPU time by zsg and by the harness."""
    import torch

    from benchmarks.workload import SHAPES, make_model
    from jobs.evaluating.scored_requests import ScoredRequests
    from jobs.evaluating.weight_swapper import become_sole_rank
    from jobs.model.answer_loss import AnswerLoss
    from jobs.model.packed_attention import NAME
    from zsg_core.training.schedule import MICRO_TOKENS

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever the harness prints
    torch.set_num_threads(1)
    become_sole_rank()
    requests = make_requests(SHAPES[shape].vocab)
    packed, stock = (
        make_model(SHAPES[shape], attention, torch.float32, "cpu")
        for attention in (NAME, "sdpa")
    )
    scored, loss = ScoredRequests(requests, 2048), AnswerLoss(packed)

    def score() -> list[float]:
        measured = scored.measure(loss, "cpu", MICRO_TOKENS["cpu"])
        return [one.log_likelihood for one in measured]

    calls: list[Callable[[], Any]] = [
        score,
        *(score_by_harness(stock, requests, rows) for rows in BATCHES),
    ]
    seconds, worst = by_turns(calls, REPEATS, time.process_time, SAME)
    own, *others = (len(requests) / statistics.median(taken) for taken in seconds)
    result = {
        "zsg": own,
        "harness": max(others),
        "worst": worst,
        "requests": len(requests),
    }
    print(json.dumps(result), file=answers, flush=True)
    return result


def make_requests(vocabulary: int) -> list[tuple[list[int], list[int]]]:
    """Items of a few subjects whose five shots are the same, half of them with options
    of a token, half with longer ones."""
    draw = random.Random(1)

    def words(count: int) -> list[int]:
        return [draw.randrange(3, vocabulary) for _ in range(count)]

    requests: list[tuple[list[int], list[int]]] = []
    for _subject in range(SUBJECTS):
        shots = words(60 * SHOTS)
        for question in range(QUESTIONS):
            context = [*shots, *words(60)]
            length = 1 if question % 2 else 6
            requests += [(context, words(length)) for _option in range(4)]
    return requests


def score_by_harness(
    model: Any, requests: list[tuple[list[int], list[int]]], rows: int
) -> Callable[[], list[float]]:
    """The log-likelihoods by `HFLM`, in batches of so many."""
    from lm_eval.models.huggingface import HFLM

    from benchmarks.loglikelihood import vocabulary

    scorer = HFLM(
        pretrained=model,
        tokenizer=vocabulary(model.config.vocab_size),
        batch_size=rows,
        max_length=2048,
        device="cpu",
    )
    asked = [
        ((str(number), ""), context, continuation)
        for number, (context, continuation) in enumerate(requests)
    ]

    def score() -> list[float]:
        found = scorer._loglikelihood_tokens(asked, disable_tqdm=True)
        return [total for total, _ in found]

    return score


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    if not sys.warnoptions:
        os.environ.setdefault("PYTHONWARNINGS", "ignore")
    main()
