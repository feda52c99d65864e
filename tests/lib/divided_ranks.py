"""Loads models whole, as transformers does, and divided among ranks, as zsg does under
ZeRO 3; trains each a few steps and prints what came of it; run by
tests/test_weight_loading.py in a process of its own, which forks the ranks.

    python divided_ranks.py FOLDER WORLD '[[MODEL_FOLDER, PRECISION, METHOD, HPZ], …]'

HPZ: among how many ranks what is divided has a second copy, 0 for none. A line of JSON from rank 0 for each case: the digests of the weights by either way, for
each rank the tensors that it read, and the most values that were whole on it at once.
Before these a line of what each rank raised where rank 0 alone could not read a tensor.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from jobs.contract.deepspeed_config import build_deepspeed_config
from jobs.runtime.ranks import Ranks
from tests.lib.trained_ranks import children
from zsg_core.errors import UserError

ROW = [3, 5, 8, 13, 21, 34, 55, 89, 90, 91, 92, 93]


class Watched:
    """What one rank reads and holds while it loads."""

    def __init__(self) -> None:
        self.reads = 0
        self.most_whole = 0
        self._made: list[Any] = []

    def watch(self, loading: Any) -> None:
        """Puts itself between zsg's loader and the files."""
        make = loading._make_parameter

        def make_and_count(like: Any, source: Any, device: Any) -> Any:
            self.reads += source is not None
            made = make(like, source, device)
            self._made.append(made)
            whole = sum(parameter.data.numel() for parameter in self._made)
            self.most_whole = max(self.most_whole, whole)
            return made

        loading._make_parameter = make_and_count


def train(folder: Path, ranks: Ranks, cases: list[list[Any]]) -> None:
    """One rank: meets the others, then does each case in both ways."""
    import torch
    from transformers import AutoModelForCausalLM

    from jobs.model import packed_attention, weight_loading
    from jobs.model.base_model import load_model
    from jobs.runtime.ranks import connect_ranks
    from jobs.training import train as trainer

    torch.set_num_threads(1)
    device = connect_ranks(folder, ranks, 0)
    load_unreadable(Path(cases[0][0]), device, ranks)
    dtypes = {"bf16": torch.bfloat16, "fp32": torch.float32}
    for model, precision, method, hpz_ranks in cases:
        config = build_deepspeed_config(zero_stage=3, precision=precision, clip=1.0)
        tuning = {"method": method, "r": 4, "alpha": 8, "seed": 3}
        settings: dict[str, Any] = {"precision": precision, "lr": 1e-2, "eps": 1e-8}
        settings |= {"betas": [0.9, 0.95], "weight_decay": 0.01}
        settings["tuning"] = tuning | {"targets": ["q_proj", "embed_tokens"]}
        job: Any = SimpleNamespace(
            train=settings, deepspeed=config, recompute=False, compile=False, before=[]
        )
        whole = AutoModelForCausalLM.from_pretrained(
            model,
            dtype=dtypes[precision],
            attn_implementation=packed_attention.NAME,
        )
        by_whole = steps(trainer._engine(job, whole), ranks)
        watched, make = Watched(), weight_loading._make_parameter
        watched.watch(weight_loading)
        config = build_deepspeed_config(
            zero_stage=3, precision=precision, clip=1.0, hpz_ranks=hpz_ranks or None
        )
        job.deepspeed = config
        divided = load_model(Path(model), precision, device, config)
        weight_loading._make_parameter = make
        shares = [
            [p.data.numel(), p.ds_tensor.numel(), p.ds_numel]
            for p in divided.parameters()
        ]
        by_share = steps(trainer._engine(job, divided), ranks)
        told: list[Any] = [None] * ranks.world
        row = {"reads": watched.reads, "most": watched.most_whole, "shares": shares}
        torch.distributed.all_gather_object(told, row)
        if ranks.is_main:
            digests = {"whole": by_whole, "divided": by_share}
            print(json.dumps(digests | {"ranks": told}), flush=True)


def load_unreadable(folder: Path, device: str, ranks: Ranks) -> None:
    """Loads a model of which rank 0 cannot read the fifth tensor."""
    import torch

    from jobs.model import weight_loading
    from jobs.model.base_model import load_model

    make, reads = weight_loading._make_parameter, 0

    def make_or_fail(like: Any, source: Any, device: Any) -> Any:
        nonlocal reads
        reads += source is not None
        if source is not None and reads == 5:
            raise UserError("the fifth tensor") from OSError(5, "no such sector", "m")
        return make(like, source, device)

    weight_loading._make_parameter = make_or_fail
    config = build_deepspeed_config(zero_stage=3, precision="bf16", clip=1.0)
    raised = "nothing"
    try:
        load_model(folder, "bf16", device, config)
    except UserError as error:
        raised = f"{error} from {error.__cause__!r}"
    weight_loading._make_parameter = make
    told: list[Any] = [None] * ranks.world
    torch.distributed.all_gather_object(told, raised)
    if ranks.is_main:
        print(json.dumps({"raised": told}), flush=True)


def steps(engine: Any, ranks: Ranks) -> list[Any]:
    """The digests before and after a few steps, and the losses."""
    import torch

    from jobs.model import weights

    facts: list[Any] = [weights.digest_of(engine)]
    for step in range(3):
        tokens = torch.tensor(ROW[ranks.rank + step :])
        count = len(tokens)
        sums = engine(
            tokens,
            torch.arange(count),
            [count],
            torch.arange(count - 1),
            tokens[1:],
            torch.zeros(count - 1, dtype=torch.int64),
        )
        engine.backward(sums.sum() / count)
        engine.step()
        facts.append(sums.detach().sum().item())
    return [*facts, weights.digest_of(engine)]


def main(folder: Path, world: int, cases: list[list[str]]) -> None:
    import deepspeed.runtime.zero.muon.original_muon  # noqa: F401  # its import costs most
    import transformers.models.llama.modeling_llama  # noqa: F401

    from jobs.training import train as trainer  # noqa: F401

    children(
        [
            partial(train, folder, Ranks(rank, world, rank), cases)
            for rank in range(world)
        ]
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3]))
