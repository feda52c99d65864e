"""A grid and profiles, of a real Slurm and of this machine, whose jobs train by the light
engine."""

from pathlib import Path

from tests.lib.command_line import Zsg

LIGHT = Path(__file__).with_name("light_engine")
GRID = """
name: storm
defaults:
  model: {{name: tiny, hidden: 64, layers: 2, vocab: 600}}
  data: {{path: {tasks}, train_per_task: 4, test_per_task: 2, positive_examples: 0}}  # those of small runs
  train: {{batch: 8, max_length: 96, precision: fp32, epochs: 40, steps: {steps}}}
  checkpoints: {{every: 5, state_every: 5}}
grid:
  train.lr: {rates}
"""
CLUSTER = """
name: storm
kind: slurm
prepare: {{time_min: 30}}
train: {{nodes: 1, ranks_per_node: 1, time_min: 30}}
slurm: {{partition: main, array_parallelism: 6}}
environment: {{set: {{PYTHONPATH: {light}, LIGHT_STEP_S: "{step_s}"}}}}
"""
LOCAL = """
name: light
kind: local
max_parallel: {parallel}
environment: {{set: {{PYTHONPATH: {light}, LIGHT_STEP_S: "{step_s}"}}}}
"""


def write_local_profile(zsg: Zsg, step_s: float = 0.05, parallel: int = 2) -> Path:
    """A profile of this machine, for tests of what becomes of jobs, not of training."""
    return zsg.write(
        "light.yaml", LOCAL.format(parallel=parallel, light=LIGHT, step_s=step_s)
    )


def list_rates(runs: int) -> list[str]:
    """The learning rates of so many runs."""
    return [f"{number}e-4" for number in range(1, runs + 1)]


def write_grid(zsg: Zsg, tasks: Path, runs: int, steps: int) -> Path:
    """A grid of so many runs, which differ in their learning rate."""
    return write_rates(zsg, tasks, list_rates(runs), steps)


def write_rates(zsg: Zsg, tasks: Path, rates: list[str], steps: int) -> Path:
    """A grid of a run for each learning rate."""
    return zsg.write(
        "grid.yaml",
        GRID.format(tasks=tasks, steps=steps, rates=f"[{', '.join(rates)}]"),
    )
