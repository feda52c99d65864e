"""Is the loss on the test set that of its items one by one, however they are shared out
and what they share?"""

import copy
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any

import pytest

from jobs.model.vocabulary import Vocabulary
from jobs.runtime.ranks import Ranks
from jobs.training.batches import TokenizedSet
from tests.lib import tokenized_sets
from zsg_core.data import prefixes
from zsg_core.data.examples import Example
from zsg_core.data.prompts import Template
from zsg_core.errors import ClusterError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch
    import torch.distributed as dist
    from transformers import LlamaConfig, LlamaForCausalLM

    from jobs.model import packed_attention
    from jobs.model.answer_loss import AnswerLoss, refuse_leaks
    from jobs.model.attention_masks import SeenKeys
    from jobs.model.packed_attention import NAME
    from jobs.training.held_out import HeldOutLoss, summarize_losses

WORDS = "the quick brown fox jumps over a lazy dog while it rains on every second tuesday of march".split()
BYTES = Vocabulary(
    tokenize=lambda text: [byte + 2 for byte in text.encode()], bos=0, eos=1
)


def tokenized(items: Sequence[Example], max_length: int = 400) -> TokenizedSet:
    """The examples, a token per byte."""
    return tokenized_sets.tokenized(items, BYTES, Template("zsg", 2), max_length)


def task(number: int, items: int) -> list[Example]:
    """A task's examples: one definition and two shots in common, inputs of random length."""
    rng = random.Random(number)
    words = lambda low, high: " ".join(rng.choices(WORDS, k=rng.randint(low, high)))  # noqa: E731
    shots, told = tuple((words(1, 5), words(1, 2)) for _ in range(2)), words(5, 12)
    texts = [(words(1, 30), words(1, 6)) for _ in range(items)]
    return [
        Example(
            id=f"{number}:{i}",
            task=f"t{number}",
            definition=told,
            shots=shots,
            turns=(text,),
        )
        for i, text in enumerate(texts)
    ]


@pytest.fixture(scope="module")
def examples() -> TokenizedSet:
    """Sixteen examples of five tasks; of the longest some lose a shot, and so a part of
    what they share."""
    return tokenized(
        [e for number, items in enumerate((5, 1, 5, 2, 3)) for e in task(number, items)]
    )


@pytest.fixture(scope="module")
def model() -> Iterator[AnswerLoss]:
    """A small random Llama in fp32 whose query heads share keys, in a process group of one."""
    torch.manual_seed(0)
    shape = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    config = LlamaConfig(
        vocab_size=300, num_key_value_heads=2, attn_implementation=NAME, **shape
    )
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield AnswerLoss(LlamaForCausalLM(config)).eval()
    dist.destroy_process_group()


def one_by_one(model: AnswerLoss, examples: TokenizedSet) -> torch.Tensor:
    """The mean of −log p of each example's answer, by stock attention, each example alone."""
    plain = LlamaForCausalLM(copy.deepcopy(model.model.config)).eval()
    plain.set_attn_implementation("eager")
    plain.load_state_dict(model.model.state_dict())
    means = []
    for encoded in examples.encoded:
        with torch.no_grad():
            logits = (
                plain(input_ids=torch.tensor([encoded.ids]), use_cache=False)
                .logits[0]
                .log_softmax(-1)
            )
        places = [place for span in encoded.spans for place in range(*span)]
        means.append(
            -sum(logits[place - 1, encoded.ids[place]].item() for place in places)
            / len(places)
        )
    return torch.tensor(means, dtype=torch.float64)


@pytest.mark.parametrize("world", [1, 3])
@pytest.mark.parametrize("budget", [1, 900, 4096])
def test_items_that_share_a_prefix_score_as_each_alone(
    model: AnswerLoss, examples: TokenizedSet, world: int, budget: int
) -> None:
    """Every item's mean is its own to 1e-5, for any number of ranks and any budget;
    each is some one rank's."""
    alone = one_by_one(model, examples)
    of_ranks = [
        HeldOutLoss(model, examples, Ranks(rank, world, 0), "cpu", budget).measure()
        for rank in range(world)
    ]

    assert torch.allclose(sum(of_ranks), alone, rtol=1e-5, atol=0)  # type: ignore[arg-type]
    assert all(
        sum(bool(of_rank[i] != 0) for of_rank in of_ranks) == 1
        for i in range(len(examples))
    )


def test_what_items_share_is_encoded_once(
    model: AnswerLoss, examples: TokenizedSet
) -> None:
    """The tokens that are computed are those that it tells, and far fewer than the items have."""
    held_out = HeldOutLoss(model, examples, Ranks(0, 1, 0), "cpu", 4096)
    seen: list[int] = []
    held_out._engine = lambda tokens, *others: (
        seen.append(len(tokens)) or model(tokens, *others)
    )
    held_out._engine.eval = held_out._engine.train = lambda: None  # type: ignore[attr-defined]
    held_out.measure()

    assert sum(seen) == held_out.token_counts["sum"] < 0.7 * sum(examples.lengths)


def test_items_that_share_nothing_are_as_in_training(model: AnswerLoss) -> None:
    """Where no prefix is worth it the rows are those of TokenizedSet, so the values are
    so to the bit."""
    examples = tokenized([task(number, 1)[0] for number in range(12)])
    expected = torch.zeros(12, dtype=torch.float64)
    for micro in examples.micro_batches(range(12), 0, 1, 900):
        with torch.no_grad():
            expected[micro.items] = model(*micro.on("cpu")).double()

    found = HeldOutLoss(model, examples, Ranks(0, 1, 0), "cpu", 900).measure()
    assert (
        found.tolist()
        == (expected / torch.tensor(examples.learnt, dtype=torch.float64)).tolist()
    )


def test_an_item_without_answer_tokens_is_excluded_and_counted(
    model: AnswerLoss,
) -> None:
    """It has no mean; the means are those of the others."""
    examples = tokenized(task(0, 3))
    whole = HeldOutLoss(model, examples, Ranks(0, 1, 0), "cpu", 4096).measure()
    examples.encoded[1] = type(examples.encoded[1])(examples.encoded[1].ids, ())
    held_out = HeldOutLoss(model, examples, Ranks(0, 1, 0), "cpu", 4096)
    means = held_out.measure()

    assert means.isnan().tolist() == [False, True, False]
    told = summarize_losses(means, held_out.tokens)
    assert told["loss"] == pytest.approx((whole[0] + whole[2]).item() / 2, rel=1e-5)
    assert told["loss_excluded"] == 1


def _seeing_all(
    query: Any, key: Any, value: Any, scaling: float, row: packed_attention.Row
) -> Any:
    """Every part sees all parts before it: siblings see each other."""
    out = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, is_causal=True, scale=scaling, enable_gqa=True
    )
    return out.transpose(1, 2).contiguous()


def _seeing_little(
    query: Any, key: Any, value: Any, scaling: float, row: packed_attention.Row
) -> Any:
    """Causal from the top left, as `is_causal` means it: a part sees the beginning of
    its prefix only."""
    after = row.after or []
    starts, done = [0, *accumulate(row.lengths)], []
    for number, (start, stop) in enumerate(pairwise(starts)):
        before = (
            range(starts[max(after[number], 0)], starts[max(after[number], 0) + 1])
            if after[number] >= 0
            else ()
        )
        places = [*before, *range(start, stop)]
        q, k, v = query[:, :, start:stop], key[:, :, places], value[:, :, places]
        sdpa = torch.nn.functional.scaled_dot_product_attention
        done.append(sdpa(q, k, v, is_causal=True, scale=scaling, enable_gqa=True))
    return torch.cat(done, dim=2).transpose(1, 2).contiguous()


def _seeing_none(
    query: Any, key: Any, value: Any, scaling: float, row: packed_attention.Row
) -> Any:
    """No part sees its prefix."""
    alone = packed_attention.Row(row.lengths)
    found, _ = packed_attention.attend(
        torch.nn.Module(), query, key, value, None, scaling, row=alone
    )
    return found


@pytest.mark.parametrize("wrong", [_seeing_all, _seeing_little, _seeing_none])
def test_wrong_attention_among_parts_is_refused(
    model: AnswerLoss, monkeypatch: pytest.MonkeyPatch, wrong: Callable[..., Any]
) -> None:
    """A leak between siblings, a prefix seen in part, one not seen: each is found
    before anything is trained."""
    refuse_leaks(model, 300, "cpu")
    right = packed_attention._part_by_part

    def attend_wrongly(query: Any, key: Any, value: Any, rule: Any, row: Any) -> Any:
        if row.after is None:
            return right(query, key, value, rule, row)
        return wrong(query, key, value, rule.scaling, row)

    monkeypatch.setattr(packed_attention, "_part_by_part", attend_wrongly)

    with pytest.raises(ClusterError, match="nothing was trained"):
        refuse_leaks(model, 300, "cpu")


def test_the_keys_of_a_gpus_one_call_are_each_parts_own() -> None:
    """Each part's keys are those of what it goes on from and its own, in order; of the
    queries nothing is repeated."""
    cut = packed_attention.make_cut([3, 2, 1, 2], [-1, 0, 0, -1], torch.device("cpu"))

    assert (cut.ends.tolist(), cut.longest, cut.longest_keys) == ([0, 3, 5, 6, 8], 3, 5)
    assert cut.ends.dtype == cut.key_ends.dtype == torch.int32
    assert cut.key_places is not None
    keys = [
        cut.key_places[start:stop].tolist()
        for start, stop in pairwise(cut.key_ends.tolist())
    ]
    assert keys == [[0, 1, 2], [0, 1, 2, 3, 4], [0, 1, 2, 5], [6, 7]]


@pytest.mark.parametrize("size", [8, 20, 100, 256])
@pytest.mark.parametrize("after", [[-1, 0, 0, -1, 3], None], ids=["parts", "examples"])
@pytest.mark.parametrize("window", [None, 3])
def test_a_gpus_one_call_is_the_same_attention(
    monkeypatch: pytest.MonkeyPatch,
    size: int,
    after: list[int] | None,
    window: int | None,
) -> None:
    """With the kernel's own contract, the last query aligned with the last key, a window
    of keys beside it, and heads of a multiple of 8 and of one size, it gives what part
    by part gives."""

    def kernel(
        q: Any,
        k: Any,
        v: Any,
        ends: Any,
        key_ends: Any,
        *most: int,
        scale: Any,
        window_size: Any,
        enable_gqa: Any,
    ):  # type: ignore[no-untyped-def]
        assert window_size == ((-1 if window is None else window - 1), 0)
        assert enable_gqa and len({tensor.shape[-1] for tensor in (q, k, v)}) == 1
        assert not q.shape[-1] % 8
        done = []
        for (a, b), (c, d) in zip(
            pairwise(ends.tolist()), pairwise(key_ends.tolist()), strict=True
        ):
            seen = torch.ones(b - a, d - c, dtype=torch.bool).tril(d - c - (b - a))
            if window_size[0] >= 0:
                seen = seen.triu(d - c - (b - a) - window_size[0])
            parts = (
                q[a:b].transpose(0, 1),
                k[c:d].transpose(0, 1),
                v[c:d].transpose(0, 1),
            )
            sdpa = torch.nn.functional.scaled_dot_product_attention
            done.append(
                sdpa(*parts, attn_mask=seen, scale=scale, enable_gqa=True).transpose(
                    0, 1
                )
            )
        return torch.cat(done)

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", kernel)
    torch.manual_seed(0)
    lengths = [9, 4, 1, 6, 5]
    query, key = torch.randn(1, 4, 25, size), torch.randn(1, 2, 25, size)
    value = torch.randn(1, 2, 25, size - 4)
    expected, _ = packed_attention.attend(
        torch.nn.Module(),
        query,
        key,
        value,
        None,
        row=packed_attention.Row(lengths, after),
        sliding_window=window,
    )

    cut = packed_attention.Row(lengths, after).cut_on(query.device)
    rule = packed_attention.Rule(size**-0.5, SeenKeys(window))
    found = packed_attention._in_one_call(query, key, value, rule, cut)
    assert found.shape == expected[0].shape
    assert torch.allclose(found, expected[0], atol=1e-6)


def test_a_row_is_cut_once_on_each_device() -> None:
    """A model may be spread over several."""
    row = packed_attention.Row([3, 2])
    cpu, meta = torch.device("cpu"), torch.device("meta")

    assert row.cut_on(cpu) is row.cut_on(cpu)
    assert row.cut_on(meta).ends.device == meta != row.cut_on(cpu).ends.device


def test_heads_that_the_kernel_cannot_take_are_attended_one_by_one() -> None:
    """Larger ones, and those in 32 bits; its limits are torch's own."""
    half, single = torch.float16, torch.float32
    sizes = {
        (size, dtype): packed_attention.fits_kernel(
            torch.empty(1, 1, 1, size, dtype=dtype)
        )
        for size in (20, 256, 264)
        for dtype in (half, single)
    }

    assert [key for key, fits in sizes.items() if fits] == [(20, half), (256, half)]


def _cheapest(sequences: list[list[int]], limits: list[int], most: int) -> int:
    """The fewest tokens of all divisions of the sorted sequences into runs, by trying every one."""
    order = sorted(range(len(sequences)), key=lambda i: (sequences[i], i))
    best = sum(map(len, sequences))
    for cuts in range(2 ** (len(order) - 1)):
        runs: list[list[int]] = [[order[0]]]
        for number, place in enumerate(order[1:]):
            if cuts >> number & 1:
                runs.append([place])
            else:
                runs[-1].append(place)
        best = min(best, sum(_tokens(run, sequences, limits, most) for run in runs))
    return best


def _tokens(
    run: list[int], sequences: list[list[int]], limits: list[int], most: int
) -> int:
    whole = sum(len(sequences[place]) for place in run)
    prefix = min(limits[place] for place in run)
    while len({tuple(sequences[place][:prefix]) for place in run}) > 1:
        prefix -= 1
    size = whole - prefix * (len(run) - 1)
    return size if prefix >= prefixes.LEAST and size <= most else whole


@pytest.mark.parametrize("seed", range(40))
def test_groups_are_the_cheapest(seed: int) -> None:
    """Each place is in one group, what a group shares is common, nobody's answer, and
    no division costs less."""
    rng = random.Random(seed)
    stems = [[rng.randrange(2) for _ in range(rng.randint(20, 90))] for _ in range(3)]
    sequences = [
        rng.choice(stems)[: rng.randint(20, 90)] + [rng.randrange(3) for _ in range(9)]
        for _ in range(7)
    ]
    limits, most = (
        [rng.randint(len(s) // 2, len(s) - 1) for s in sequences],
        rng.choice([120, 1000]),
    )
    made = prefixes.group_by_prefix(sequences, limits, most)

    assert sorted(place for group in made for place in group.places) == list(range(7))
    assert [group.places[0] for group in made] == sorted(
        group.places[0] for group in made
    )
    for group in made:
        assert (
            len({tuple(sequences[place][: group.prefix]) for place in group.places})
            == 1
        )
        assert group.prefix == 0 or prefixes.LEAST <= group.prefix <= min(
            limits[place] for place in group.places
        )
    cost = sum(
        g.prefix + sum(len(sequences[p]) - g.prefix for p in g.places) for g in made
    )
    assert cost == _cheapest(sequences, limits, most)
