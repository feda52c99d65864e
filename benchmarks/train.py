"""How fast does zsg train, against Hugging Face's Trainer and TRL on the same token ids?

    python -m benchmarks.train --json          25 million parameters, of a Llama and of
                                               a Qwen3, on this machine's CPUs, fp32
    python -m benchmarks.train --gpu --json    1B, 3B and 7B on one GPU, bf16, under
                                               nine minutes; the default with CUDA

Real tokens a second, padding not counted. A step is the paper's 16 examples, or 16,384
tokens and more on a GPU; the same ids, order, first weights and optimiser for all,
whose first losses must agree. Each trainer is a process of its own; they take turns,
and medians count. TRL and Trainer run as they come, and set as well as they can be:
nothing recomputed, one example at a time (no padding at all), padded pairs, and TRL's
`padding_free`, which without flash attention makes a mask over the whole row. The best
of them is the peer.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks import train_gpu
from benchmarks.rows import Row, show
from benchmarks.trainer_process import TrainerProcess
from benchmarks.trainers import ZSG
from benchmarks.workload import SHAPES
from zsg_core.errors import UserError

PADDED = "padded to 1,024"
RIVALS = (
    "TRL, one example at a time",
    "TRL, padded pairs",
    "TRL, padding-free",
    "HF Trainer, one example at a time",
    "TRL, defaults",
    "HF Trainer, defaults",
)
SHAPES_OF_CPUS = ["25M", "25M-qwen3"]
BATCH, MICRO_TOKENS, REPEATS = 16, 4096, 3
# the slow ones; 3 for others
STEPS = {name: 2 for name in (PADDED, "TRL, defaults", "HF Trainer, defaults")}
PEER_GOAL, PADDED_GOAL = 1.15, 2.8  # times the peer's tokens a second
EVALUATION_GOAL = 2.0  # times the plain loop's items a second
STALL_GOAL = 0.1  # times the seconds of save_pretrained
SAME_LOSS = 1e-3


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.train", description="How fast training is."
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--gpu",
        action="store_true",
        help="measure on a GPU; the default where torch sees one",
    )
    parser.add_argument(
        "--shapes",
        nargs="+",
        choices=SHAPES,
        help="models; default: 25M 25M-qwen3, on a GPU 1B 3B 7B",
    )
    parser.add_argument(
        "--repeats",
        type=int,
        default=REPEATS,
        help="rounds of each trainer; the median counts",
    )
    asked = parser.parse_args()
    if asked.gpu or train_gpu.is_there():
        try:
            show(
                train_gpu.rows(
                    asked.shapes or train_gpu.SHAPES_OF_A_GPU, asked.repeats
                ),
                asked.json,
            )
        except UserError as refused:
            sys.exit(str(refused))
    else:
        show(
            [
                row
                for shape in asked.shapes or SHAPES_OF_CPUS
                for row in on_cpus(shape, asked.repeats)
            ],
            asked.json,
        )


def on_cpus(shape: str, repeats: int, rivals: Sequence[str] = RIVALS) -> list[Row]:
    """zsg against each rival, the best of them and padding to 1,024 tokens."""
    speeds = measured(shape, [ZSG, *rivals, PADDED], repeats)
    own, best = speeds[ZSG], max(rivals, key=lambda name: speeds[name])
    rows = [
        against(f"{shape}, to the best peer ({best})", own, speeds[best], PEER_GOAL)
    ]
    rows += [against(f"{shape}, to {PADDED} tokens", own, speeds[PADDED], PADDED_GOAL)]
    rows += [test_loss(shape, repeats), stall(shape, repeats)]
    return rows + [
        Row(f"{shape}, to {name}", own, "tok/s", speeds[name], None, None)
        for name in rivals
        if name != best
    ]


def measured(shape: str, names: Sequence[str], repeats: int) -> dict[str, float]:
    """The median of each trainer's real tokens a second; RuntimeError where their first
    losses differ."""
    turns = [TrainerProcess(name, shape, "cpu", BATCH, MICRO_TOKENS) for name in names]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for _ in range(repeats):
        for one in turns:
            found[one.name].append(one.train(STEPS.get(one.name, 3)))
    for one in turns:
        one.stop()
    first = {name: rounds[0]["losses"][0] for name, rounds in found.items()}
    if max(first.values()) - min(first.values()) > SAME_LOSS:
        raise RuntimeError(f"the trainers do not train the same: first losses {first}")
    return {
        name: statistics.median(one["tokens"] / one["seconds"] for one in rounds)
        for name, rounds in found.items()
    }


def test_loss(shape: str, repeats: int) -> Row:
    """Test examples a second whose loss is taken, to a plain loop."""
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "benchmarks.held_out",
        shape,
        str(repeats),
    ]
    told = json.loads(
        subprocess.run(
            command, check=True, capture_output=True, text=True
        ).stdout.splitlines()[-1]
    )
    goal = EVALUATION_GOAL * told["plain"]
    return Row(
        f"{shape}, loss of test items",
        told["zsg"],
        "it/s",
        told["plain"],
        goal,
        told["zsg"] >= goal,
    )


def stall(shape: str, repeats: int) -> Row:
    """The seconds for which training stands still for a snapshot, to `save_pretrained`
    of the same weights."""
    turns = TrainerProcess(ZSG, shape, "cpu", BATCH, MICRO_TOKENS)
    rounds = [turns.train(2, 1) for _ in range(repeats)]
    turns.stop()
    stood, saved = (
        statistics.median(one[key] for one in rounds) for key in ("stall", "saved")
    )
    return Row(
        f"{shape}, stall for a snapshot",
        stood,
        "s",
        saved,
        STALL_GOAL * saved,
        stood <= STALL_GOAL * saved,
    )


def against(measure: str, value: float, peer: float, times: float) -> Row:
    """A row whose goal is so many times the peer, at least."""
    return Row(measure, value, "tok/s", peer, times * peer, value >= times * peer)


if __name__ == "__main__":
    main()
