"""What does the loss over a large vocabulary take when its logits are made in pieces,
against all logits at once?

    python -m benchmarks.head_pass --json     minutes on one CPU thread, 4 GB of memory

Forward and backward from hidden states of learnt tokens to the gradients of these and of
the head, as in a training step, over Llama 3's 128,256 words; the losses must agree.
Peak memory is what a process takes beyond model and states. Each way is a process of its
own; of its rounds the fastest counts, in seconds of the CPU.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Any

from benchmarks.rows import Row, show

TOKENS, WORDS, HIDDEN, REPEATS = 2048, 128_256, 512, 3
IN_PIECES, AT_ONCE = "pieces", "once"
MEMORY_GOAL = 1 / 3  # times the bytes of all logits at once
TIME_GOAL = 1.05  # times the seconds of all logits at once, by which rounds differ
SAME_LOSS = 1e-6  # relative
GB = 1e9


def main() -> None:
    """Measures both ways and prints."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.head_pass", description="What logits take."
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--tokens", type=int, default=TOKENS, help="learnt tokens")
    parser.add_argument("--words", type=int, default=WORDS, help="of the vocabulary")
    parser.add_argument("--hidden", type=int, default=HIDDEN, help="size of a state")
    parser.add_argument("--repeats", type=int, default=REPEATS, help="rounds")
    parser.add_argument("--way", choices=(IN_PIECES, AT_ONCE), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.way:
        print(json.dumps(measure(asked)))
        return
    pieces, once = (run_way(way, sys.argv[1:]) for way in (IN_PIECES, AT_ONCE))
    if abs(pieces["loss"] - once["loss"]) > SAME_LOSS * once["loss"]:
        raise RuntimeError(f"the losses differ: {pieces['loss']} and {once['loss']}")
    show(list_rows(asked, pieces, once), asked.json)


def list_rows(
    asked: Any, pieces: dict[str, float], once: dict[str, float]
) -> list[Row]:
    """The rows of both measures, with all logits at once for a peer."""
    name = f"{asked.tokens:,} tokens over {asked.words:,} words"
    most = MEMORY_GOAL * once["peak"]
    return [
        Row(
            f"{name}, peak of the loss",
            pieces["peak"] / GB,
            "GB",
            once["peak"] / GB,
            most / GB,
            pieces["peak"] <= most,
        ),
        Row(
            f"{name}, time of the loss",
            pieces["seconds"],
            "s",
            once["seconds"],
            TIME_GOAL * once["seconds"],
            pieces["seconds"] <= TIME_GOAL * once["seconds"],
        ),
    ]


def run_way(way: str, arguments: list[str]) -> dict[str, float]:
    """What a process of its own measures of one way."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.head_pass"]
    done = subprocess.run(
        [*command, *arguments, "--way", way], check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def measure(asked: Any) -> dict[str, float]:
    """Peak, seconds and loss of one way, in this process."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from jobs.model.head_pass import HeadPass
    from zsg_core.training import schedule

    torch.set_num_threads(1)
    torch.manual_seed(0)
    if asked.way == AT_ONCE:
        schedule.PIECE_LOGITS["cpu"] = asked.tokens * asked.words
    config = LlamaConfig(
        vocab_size=asked.words,
        hidden_size=asked.hidden,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=8,
    )
    head_pass = HeadPass(LlamaForCausalLM(config))
    states = torch.randn(asked.tokens, asked.hidden, requires_grad=True)
    targets = torch.randint(asked.words, (asked.tokens,))
    weights = torch.full((asked.tokens,), 1 / asked.tokens)
    before, found = read_peak(), []
    for _ in range(asked.repeats):
        started = time.process_time()
        loss = (head_pass.take_losses(states, targets, weights) * weights).sum()
        loss.backward()
        found.append((time.process_time() - started, loss.item()))
    seconds, loss_value = min(found)
    return {"peak": read_peak() - before, "seconds": seconds, "loss": loss_value}


def read_peak() -> int:
    """The most bytes that this process has had in memory so far."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
