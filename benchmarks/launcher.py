"""How long does a large grid take to plan and to hand to Slurm, against submitit one job at a time?

    python -m benchmarks.launcher --json

Whole processes on a real Slurm of the suite's own (MaxArraySize 1001), whose partition
is down, so that no job takes the machine. 1,000 new runs from one YAML, each time into
a new workspace, the best of three; what of it are commands of Slurm is told by scripts
that stand before them. The peer submits 50 jobs with submitit's `submit`, its start not
counted. Then 10,000 new runs once, and how long zsg cancel of them takes to call
scancel. Then the plan of 10,000 runs, and the most memory that its process ever held.
Without Slurm only that.
"""

import argparse
import importlib.util
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType

from benchmarks.rows import Row, show
from zsg_core import skills

ROOT = Path(__file__).resolve().parent.parent
RUNS, LARGE, ONE_BY_ONE, MAX_ARRAY, REPEATS = 1_000, 10_000, 50, 1001, 3
SUBMIT_S, SLURM_S, PLAN_S, PLAN_MB, TIMES = 2.5, 1.0, 3.0, 400.0, 40
SUBMIT_LARGE_S, CANCEL_LARGE_S = 30.0, 10.0
COMMANDS = ("sbatch", "squeue", "scontrol", "sacct", "sacctmgr", "scancel")
GRID = """\
name: {name}
profile: slurm-minimal
defaults:
  data: {{path: {tasks}}}
  train: {{steps: 60}}
grid:
  train.lr: [1e-5, 2e-5, 3e-5, 4e-5, 5e-5, 6e-5, 7e-5, 8e-5, 9e-5, 1e-4]
  train.init_seed: [{seeds}]
"""
TIMED = """\
#!/bin/bash
began=$EPOCHREALTIME
{real} "$@"
code=$?
echo "{name} $began $EPOCHREALTIME" >> {log}
exit $code
"""
PEER = """\
import os, sys, time, submitit
executor = submitit.AutoExecutor(sys.argv[1])
executor.update_parameters(timeout_min=60, slurm_wckey="")
began = time.perf_counter()
for number in range(int(sys.argv[2])):
    executor.submit(os.path.exists, str(number))
print(time.perf_counter() - began)
"""
PEAK = """\
import sys
from launcher import cli
try:
    cli.main()
finally:
    with open("/proc/self/status", encoding="ascii") as status:
        [peak] = [line.split()[1] for line in status if line.startswith("VmHWM")]
    print("VmHWM", peak, file=sys.stderr)
"""


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.launcher", description="How long large grids take."
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--runs", type=int, default=RUNS, help="runs to submit; a multiple of ten"
    )
    parser.add_argument(
        "--large", type=int, default=LARGE, help="runs to plan; a multiple of ten"
    )
    parser.add_argument(
        "--repeats", type=int, default=REPEATS, help="of each; the best counts"
    )
    asked = parser.parse_args()
    cluster = _module(ROOT / "tests/lib/slurm_cluster.py")
    with tempfile.TemporaryDirectory(prefix="zsg-") as place:
        folder = Path(place)
        skills.write_tasks(folder / "tasks", per_task=2)
        rows: list[Row] = []
        if missing := cluster.missing_programs():
            print(
                f"no Slurm here ({', '.join(missing)} missing): only plan is measured",
                file=sys.stderr,
            )
        else:
            with cluster.SlurmCluster(
                folder / "c",
                nodes=1,
                cpus=2,
                max_array_size=MAX_ARRAY,
                max_jobs=4 * asked.large,
            ) as slurm:
                slurm.run("scontrol", "update", "partitionname=main", "state=down")
                rows += submitting(folder, slurm.env, asked.runs, asked.repeats)
                rows += submitting_many(folder, slurm.env, asked.large)
        show(rows + planning(folder, asked.large, asked.repeats), asked.json)


def submitting(folder: Path, env: dict[str, str], runs: int, repeats: int) -> list[Row]:
    """The rows of handing a grid to Slurm, beside submitit one by one."""
    file, log = grid(folder, "new", runs), folder / "calls"
    env = {**os.environ, **env, "PYTHONSAFEPATH": "1"}
    timed = {
        **env,
        "PATH": f"{_timed_commands(folder / 'bin', env, log)}{os.pathsep}{env['PATH']}",
    }
    taken = []
    for number in range(repeats):
        log.write_text("")
        argv = [
            sys.executable,
            "-m",
            "launcher.cli",
            "submit",
            str(file),
            "--workspace",
            str(folder / f"w{number}"),
        ]
        seconds = _seconds([*argv, "--yes"], timed)
        calls = [line.split() for line in log.read_text(encoding="ascii").splitlines()]
        taken.append(
            (
                seconds,
                sum(float(end) - float(began) for _, began, end in calls),
                [one for one, *_ in calls],
            )
        )
    wall, in_slurm, called = min(taken)
    one_by_one = [
        _one_by_one(folder / f"peer{number}", env) for number in range(repeats)
    ]
    ours, theirs = wall / runs * 1e3, min(one_by_one) / ONE_BY_ONE * 1e3
    # a prepare job, the canary, who watches it, and full arrays
    fewest = 3 + math.ceil((runs - 1) / MAX_ARRAY)
    sbatches = called.count("sbatch")
    return [
        Row(
            f"zsg submit of {runs:,} new runs",
            wall,
            "s",
            None,
            SUBMIT_S,
            wall <= SUBMIT_S,
        ),
        Row(
            "of it in Slurm's commands",
            in_slurm,
            "s",
            None,
            SLURM_S,
            in_slurm <= SLURM_S,
        ),
        Row("of these sbatch", sbatches, "calls", None, fewest, sbatches <= fewest),
        Row(
            "a run, to submitit one by one",
            ours,
            "ms",
            theirs,
            theirs / TIMES,
            ours <= theirs / TIMES,
        ),
    ]


def submitting_many(folder: Path, env: dict[str, str], runs: int) -> list[Row]:
    """The rows of handing a large grid to Slurm, and of cancelling it."""
    file, log = grid(folder, "many", runs), folder / "calls"
    path = f"{folder / 'bin'}{os.pathsep}{env['PATH']}"
    env = {**os.environ, **env, "PYTHONSAFEPATH": "1", "PATH": path}
    zsg = [sys.executable, "-m", "launcher.cli"]
    options = ["--workspace", str(folder / "many"), "--yes"]
    submit_s = _seconds([*zsg, "submit", str(file), *options], env)
    log.write_text("")
    began = time.time()
    _seconds([*zsg, "cancel", "many", *options], env)
    calls = [line.split() for line in log.read_text(encoding="ascii").splitlines()]
    cancel_s = min(float(at) for name, at, _ in calls if name == "scancel") - began
    return [
        Row(
            f"zsg submit of {runs:,} new runs",
            submit_s,
            "s",
            None,
            SUBMIT_LARGE_S,
            submit_s <= SUBMIT_LARGE_S,
        ),
        Row(
            f"zsg cancel of {runs:,} runs, to scancel",
            cancel_s,
            "s",
            None,
            CANCEL_LARGE_S,
            cancel_s <= CANCEL_LARGE_S,
        ),
    ]


def planning(folder: Path, runs: int, repeats: int) -> list[Row]:
    """The rows of planning a grid that was never submitted."""
    file = grid(folder, "large", runs)
    argv = [
        sys.executable,
        "-c",
        PEAK,
        "plan",
        str(file),
        "--workspace",
        str(folder / "plans"),
    ]
    env = {**os.environ, "PYTHONSAFEPATH": "", "PYTHONPATH": str(ROOT)}
    seconds, peaks = [], []
    for _ in range(repeats):
        began = time.perf_counter()
        done = subprocess.run(
            argv, env=env, cwd=folder, check=True, capture_output=True, text=True
        )
        seconds.append(time.perf_counter() - began)
        assert f"large: {runs:,} to submit" in done.stdout
        peaks.append(int(done.stderr.rpartition("VmHWM")[2]) * 1024 / 1e6)
    took, peak = min(seconds), max(peaks)
    return [
        Row(f"zsg plan of {runs:,} runs", took, "s", None, PLAN_S, took <= PLAN_S),
        Row(
            f"zsg plan of {runs:,} runs, peak",
            peak,
            "MB",
            None,
            PLAN_MB,
            peak <= PLAN_MB,
        ),
    ]


def grid(folder: Path, name: str, runs: int) -> Path:
    """A grid of so many runs that share one prepare job."""
    path = folder / f"{name}.yaml"
    seeds = ", ".join(map(str, range(runs // 10)))
    path.write_text(
        GRID.format(name=name, tasks=folder / "tasks", seeds=seeds), encoding="utf-8"
    )
    return path


def _timed_commands(folder: Path, env: dict[str, str], log: Path) -> Path:
    """Scripts in the names of Slurm's commands, which note when they began and ended."""
    folder.mkdir()
    for name in COMMANDS:
        which = subprocess.run(
            ["which", name], env=env, capture_output=True, text=True, check=True
        )
        (folder / name).write_text(
            TIMED.format(real=which.stdout.strip(), name=name, log=log),
            encoding="ascii",
        )
        (folder / name).chmod(0o755)
    return folder


def _seconds(argv: list[str], env: dict[str, str]) -> float:
    began = time.perf_counter()
    subprocess.run(
        argv, env=env, check=True, stdin=subprocess.DEVNULL, capture_output=True
    )
    return time.perf_counter() - began


def _one_by_one(folder: Path, env: dict[str, str]) -> float:
    argv = [sys.executable, "-c", PEER, str(folder), str(ONE_BY_ONE)]
    return float(
        subprocess.run(argv, env=env, check=True, capture_output=True, text=True).stdout
    )


def _module(path: Path) -> ModuleType:
    """A module that is in no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
