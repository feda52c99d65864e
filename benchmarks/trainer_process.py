"""Keeps a trainer of benchmarks.trainers in a process of its own, which trains a round
whenever it is told to."""

import json
import os
import subprocess
import sys
from typing import Any


class TrainerProcess:
    """A trainer's process, which trains a round when told to."""

    def __init__(
        self, name: str, shape: str, device: str, batch: int, micro_tokens: int
    ) -> None:
        command = [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "benchmarks.trainers",
            name,
            shape,
            device,
        ]
        env = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        env |= (
            {}
            if device == "cuda"
            else {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
        )
        self.name = name
        self._process = subprocess.Popen(
            [*command, str(batch), str(micro_tokens)],
            env=env,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._answer()

    def train(self, *steps: int) -> dict[str, Any]:
        """What a round came to: see benchmarks.trainers."""
        assert self._process.stdin
        self._process.stdin.write(" ".join(map(str, steps)) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def stop(self) -> None:
        """Ends it."""
        self._process.communicate()

    def _answer(self) -> Any:
        assert self._process.stdout and self._process.stderr
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(
                f"{self.name} ended: {self._process.stderr.read()[-2000:]}"
            )
        return json.loads(line)
