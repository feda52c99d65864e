"""How long do the metrics of a run's checkpoints take, and how long until they can be
read in MLflow?

    python -m benchmarks.evaluate --json

A tiny model, 20 checkpoints, 120 items of 32 new tokens, scored by exact match. The
peer of the job is what it cannot do without: one start of a process, and the
evaluations timed alone, in a plain loop without leases, journal or proof of weights.
The authors of the papers started a process for each checkpoint: three are timed, and
stand for all.

The loss of test items is held against lm-evaluation-harness (benchmarks.loglikelihood),
on a model with 32,000 tokens; and a run under way says how long after its snapshots
their metrics can be read from a server (benchmarks.lag).
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import lag
from benchmarks.rows import Row, show
from benchmarks.tracking import zsg_server

CHECKPOINTS, PER_TASK, NEW_TOKENS = 20, 20, 32
MOST = 1.2  # times the peer
SAMPLED = 3
KEY = "exact_match"
HARNESS_GOAL = 2.0  # times the items of lm-evaluation-harness in a second
TASKS, REPEATS = 12, 3
# snapshots of the run under way, and steps from one to the next
LAGGING, BETWEEN = 10, 60


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.evaluate",
        description="How fast checkpoints are scored.",
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
    asked = parser.parse_args()
    if asked.plainly:
        run, *steps = asked.plainly
        print(json.dumps(plainly(Path(run), [int(step) for step in steps])))
        return
    with tempfile.TemporaryDirectory(prefix="zsg-") as place:
        one_job = measured(Path(place) / "done", asked.checkpoints)
        show(
            [*one_job, against_harness(), *under_way(Path(place) / "under-way")],
            asked.json,
        )


def against_harness(
    shape: str = "25M", tasks: int = TASKS, repeats: int = REPEATS
) -> Row:
    """Test items whose loss is taken in a second of CPU time, to lm-evaluation-harness."""
    told, _ = timed(
        "-W",
        "ignore",
        "-m",
        "benchmarks.loglikelihood",
        shape,
        str(tasks),
        str(repeats),
    )
    goal = HARNESS_GOAL * told["harness"]
    what = (
        f"{shape}, loss of {5 * tasks} test items, to lm-evaluation-harness (CPU time)"
    )
    return Row(what, told["zsg"], "it/s", told["harness"], goal, told["zsg"] >= goal)


def under_way(
    folder: Path, snapshots: int = LAGGING, between: int = BETWEEN
) -> list[Row]:
    """The lag from snapshot to MLflow of a run that trains, is evaluated and delivered at once."""
    with zsg_server(folder / "server") as uri:
        run, job = prepared(folder, snapshots * between, between, uri)
        return lag.rows(run, job, uri, "g", KEY)


def measured(folder: Path, checkpoints: int) -> list[Row]:
    """The job against its peers, all in processes of their own."""
    run, job = trained(folder, checkpoints)
    steps = list(range(checkpoints))
    alone, _ = timed(
        "-m", "benchmarks.evaluate", "--plainly", str(run), *map(str, steps)
    )
    each = [
        timed("-m", "benchmarks.evaluate", "--plainly", str(run), str(step))
        for step in steps[-SAMPLED:]
    ]
    _, wall = timed("-m", "jobs.entry", str(job))
    record = json.loads((job / "exit.json").read_text())
    if (record["outcome"], record["scored"]) != ("done", checkpoints):
        raise SystemExit(f"the job ended as {record}")
    start = statistics.median(took - told["seconds"] for told, took in each)
    peer, single = start + alone["seconds"], statistics.median(took for _, took in each)
    what = (
        f"{checkpoints} checkpoints × {alone['items']} items ×"
        f" {alone['tokens'] / alone['answers']:.0f} tokens"
    )
    ratio = checkpoints * single / wall
    return [
        Row(f"{what}, one job", wall, "s", peer, MOST * peer, wall <= MOST * peer),
        Row(
            f"a process for each of them ({SAMPLED} timed), against one job",
            ratio,
            "×",
            None,
            None,
            None,
        ),
    ]


def timed(*argv: str) -> tuple[dict[str, Any], float]:
    """What a fresh process prints as its last line, if that is JSON, and for how long it ran."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    took = time.perf_counter() - began
    last = (done.stdout.decode().strip().splitlines() or ["{}"])[-1]
    return (json.loads(last) if last.startswith("{") else {}), took


def trained(folder: Path, checkpoints: int) -> tuple[Path, Path]:
    """A run that is done, with a snapshot after each step, and the folder of its evaluate job."""
    run, job = prepared(folder, checkpoints - 1)
    timed("-m", "jobs.entry", str(run))
    return run, job


def prepared(
    folder: Path,
    steps: int,
    between: int = 1,
    uri: str | None = None,
    when: dict[str, Any] | None = None,
) -> tuple[Path, Path]:
    """A run that is ready to start, with a snapshot after every so many steps, and the
    folder of its evaluate job.

    `uri`: the server to which both send while they work; `when`: what checkpoints are
    scored by otherwise.
    """
    from jobs.contract.folder import write_json
    from launcher.planning.plan import Prepare, run_item
    from launcher.submission import job_files, submit
    from launcher.submission.workflow import open_grid
    from zsg_core import skills

    folder.mkdir(parents=True, exist_ok=True)
    skills.write_tasks(folder / "tasks", per_task=PER_TASK)
    # So little is learnt that answers do not end before their last token.
    train = {
        "batch": 8,
        "lr": 1e-7,
        "max_length": 128,
        "steps": steps,
        "epochs": 1 + steps // 20,
    }
    data = {
        "path": str(folder / "tasks"),
        "train_per_task": 8,
        "test_per_task": PER_TASK,
        "positive_examples": 0,
    }
    scored = when or {
        "metrics": ["loss", KEY],
        "generation": {"max_new_tokens": NEW_TOKENS},
    }
    checkpoints = {"every": between, "snapshots": between, "keep": "all", **scored}
    grid = {"data": data, "train": train, "checkpoints": checkpoints}
    write_json(
        folder / "grid.yaml",
        {"name": "g", "defaults": grid, "grid": {"arrangement.order": ["random"]}},
    )
    tracking = {"tracking": {"uri": uri, "live": True}} if uri else {}
    write_json(
        folder / "p.yaml",
        {"name": "p", "kind": "slurm" if uri else "local", **tracking},
    )
    with contextlib.redirect_stdout(sys.stderr):
        opened = open_grid(
            folder / "grid.yaml", str(folder / "p.yaml"), folder / "work"
        )
    [run], place, profile = opened.runs, opened.site.workspace, opened.site.profile
    submit.record_grid(opened.site, opened.grid, opened.runs, opened.opened_by)
    job_files.write_prepare(
        place, Prepare("prepare/p", [run], set(run.needs)), profile, "s"
    )
    job_files.write_train(place, run, profile, "s", (), is_start=False)
    job_files.write_evaluate(
        place, "evaluate/e", [run], profile, "s", drains=uri is None
    )
    timed("-m", "jobs.entry", str(place.root / "prepare/p"))
    return place.root / run_item(run), place.root / "evaluate/e"


def plainly(run: Path, steps: list[int]) -> dict[str, Any]:
    """Evaluates in a plain loop; `seconds` begin once the model is loaded."""
    from jobs.evaluating.eval_target import EvalTarget
    from jobs.evaluating.weight_swapper import WeightSwapper, become_sole_rank
    from jobs.model.generate import Generator
    from zsg_core.metrics import metrics
    from zsg_core.metrics.scoring import Answered
    from zsg_core.suites import Suite

    how = {"decoding": "greedy", "max_new_tokens": NEW_TOKENS, "items": None}
    suite = Suite(name=metrics.TEST_SET, keys=(KEY,), how=how)
    one, held = EvalTarget(run, (suite,)), WeightSwapper(become_sole_rank())
    held.load_base(one.job)
    (tokens, examples), prompts = one.test, one.items(suite).prompts
    generator = Generator(
        held.decoder, how, one.vocabulary.bos, one.vocabulary.eos, "cpu"
    )
    began, count = time.perf_counter(), 0
    for step in steps:
        if step:
            held.load_snapshot(run / "snapshots" / str(step), one.job)
        made = generator.answers(prompts, tokens.ids)
        count += sum(map(len, made))
        metrics.score_answers(
            [KEY],
            [
                Answered(
                    id=e.id,
                    task=e.task,
                    prompt="",
                    references=e.right_answers,
                    answer=one.vocabulary.text(ids),
                )
                for e, ids in zip(examples, made, strict=True)
            ],
        )
    took = time.perf_counter() - began
    return {
        "seconds": took,
        "items": len(tokens),
        "tokens": count,
        "answers": len(tokens) * len(steps),
    }


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
