"""Does attention over packed examples do all that a family asks of it, and refuse what
it does not know?"""

import warnings
from typing import Any

import pytest

from zsg_core.errors import UserError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch
    from transformers import masking_utils

    from jobs.model import packed_attention
    from jobs.model.attention_masks import ALL_KEYS, SeenKeys, UnknownMask, read_mask
    from jobs.model.packed_attention import Row

LENGTHS = [9, 4, 1, 12, 5]
AFTER = [-1, 0, 0, -1, 3]
HEADS, KEY_HEADS, SIZE, VALUE_SIZE = 4, 2, 8, 6

RULES = {
    "all keys": {},
    "a window": {"sliding_window": 3},
    "a window by the mask": {"attention_mask": SeenKeys(window=3)},
    "a chunk": {"attention_mask": SeenKeys(chunk=4)},
    "capped scores": {"softcap": 0.7},
    "sinks": {"s_aux": torch.tensor([0.5, -1.0, 2.0, 0.0])},
    "all of them": {
        "attention_mask": SeenKeys(window=5),
        "sliding_window": 5,
        "softcap": 0.7,
        "s_aux": torch.tensor([0.5, -1.0, 2.0, 0.0]),
    },
}


@pytest.fixture
def vectors() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries, keys and values of a row; values have a size of their own, as DeepSeek's."""
    torch.manual_seed(0)
    tokens = sum(LENGTHS)
    return (
        torch.randn(1, HEADS, tokens, SIZE),
        torch.randn(1, KEY_HEADS, tokens, SIZE),
        torch.randn(1, KEY_HEADS, tokens, VALUE_SIZE),
    )


def attend(vectors: Any, row: Row, **asked: Any) -> torch.Tensor:
    """The hook's answer, (T, heads, size of a value)."""
    mask = asked.pop("attention_mask", None)
    result, _ = packed_attention.attend(
        torch.nn.Module(), *vectors, mask, row=row, **asked
    )
    return result[0]


def attend_by_definition(vectors: Any, after: list[int] | None, **asked: Any) -> Any:
    """One query of one head at a time, by what the words mean."""
    mask = asked.get("attention_mask")
    window = mask.window if mask else asked.get("sliding_window")
    chunk = mask.chunk if mask else None
    queries, keys, values = (tensor[0].transpose(0, 1) for tensor in vectors)
    starts = [sum(LENGTHS[:part]) for part in range(len(LENGTHS))]
    answers = []
    for part, length in enumerate(LENGTHS):
        own = list(range(starts[part], starts[part] + length))
        prefix = (after or [-1] * len(LENGTHS))[part]
        places = own
        if prefix >= 0:
            places = [starts[prefix] + step for step in range(LENGTHS[prefix])] + own
        for place in own:
            at = places.index(place)
            first = 0 if window is None else max(0, at - window + 1)
            if chunk is not None:
                first = at // chunk * chunk
            seen = places[first : at + 1]
            answers.append(
                [
                    _answer(
                        queries[place, head],
                        keys[seen, head // (HEADS // KEY_HEADS)],
                        values[seen, head // (HEADS // KEY_HEADS)],
                        head,
                        asked,
                    )
                    for head in range(HEADS)
                ]
            )
    return torch.stack([torch.stack(heads) for heads in answers])


def _answer(query: Any, keys: Any, values: Any, head: int, asked: Any) -> torch.Tensor:
    scores = keys @ query / SIZE**0.5
    if softcap := asked.get("softcap"):
        scores = softcap * torch.tanh(scores / softcap)
    weights = scores.exp()
    total = weights.sum()
    if (sinks := asked.get("s_aux")) is not None:
        total = total + sinks[head].exp()
    return weights @ values / total


@pytest.mark.parametrize("after", [None, AFTER], ids=["examples", "parts"])
@pytest.mark.parametrize("asked", RULES.values(), ids=RULES)
def test_attention_does_what_it_is_asked_for(
    vectors: Any, asked: dict[str, Any], after: list[int] | None
) -> None:
    """A window is the query and those before it, a chunk is counted from the example's
    start, both run on over a prefix that examples share, and each example attends as
    it does alone."""
    found = attend(vectors, Row(LENGTHS, after), **dict(asked))

    expected = attend_by_definition(vectors, after, **asked)
    assert torch.allclose(found, expected, atol=1e-5)


def test_a_window_wider_than_all_examples_changes_no_bit(vectors: Any) -> None:
    """It is plain causal attention, which kernels are quickest at."""
    plain = attend(vectors, Row(LENGTHS))

    assert torch.equal(attend(vectors, Row(LENGTHS), sliding_window=12), plain)
    assert not torch.equal(attend(vectors, Row(LENGTHS), sliding_window=11), plain)


def test_chunks_are_examples_of_their_own_for_a_gpus_one_call() -> None:
    """Nothing is seen over a chunk's border, so a row is cut there too."""
    cut = Row([9, 4, 1]).cut_on(torch.device("cpu"), chunk=4)

    assert cut.ends.tolist() == [0, 4, 8, 9, 13, 14]
    assert cut.longest == 4


@pytest.mark.parametrize(
    "told",
    [
        {"position_bias": torch.zeros(1)},
        {"sinks": torch.zeros(4)},
        {"block_indices": torch.zeros(1)},
        {"encoder_hidden_states": torch.zeros(1)},
        {"dropout": 0.1},
        {"is_causal": False},
    ],
    ids=lambda told: next(iter(told)),
)
def test_a_keyword_that_attention_does_not_know_is_refused(
    vectors: Any, told: dict[str, Any]
) -> None:
    """Whatever is passed over in silence is a model that trains wrongly."""
    with pytest.raises(UserError, match=f"is told {next(iter(told))}"):
        attend(vectors, Row(LENGTHS), **told)


def test_keywords_that_change_nothing_are_passed_over(vectors: Any) -> None:
    """What transformers hands through, and what is off."""
    told = {
        "dropout": 0.0,
        "is_causal": None,
        "position_bias": None,
        "position_ids": torch.zeros(1),
        "use_cache": False,
        "output_router_logits": False,
    }

    assert torch.equal(
        attend(vectors, Row(LENGTHS), **told), attend(vectors, Row(LENGTHS))
    )


def test_a_mask_that_a_model_made_itself_is_refused(vectors: Any) -> None:
    """It would be of the whole row."""
    with pytest.raises(UserError, match="makes its attention's mask on its own"):
        attend(vectors, Row(LENGTHS), attention_mask=torch.zeros(1, 1, 31, 31))


def test_a_row_that_does_not_arrive_is_an_error(vectors: Any) -> None:
    """A family that drops keywords on their way can never be packed in silence."""
    with pytest.raises(TypeError, match="row"):
        packed_attention.attend(torch.nn.Module(), *vectors, None)


def read(function: Any) -> SeenKeys | UnknownMask:
    """What is read of a function of masks."""
    return read_mask(mask_function=function, device="cpu", batch_size=1, config=None)


def test_what_transformers_says_of_a_mask_is_read() -> None:
    """All keys, windows and chunks of any size, by trying the function out."""
    no_padding = torch.zeros(1, dtype=torch.long)

    assert read(masking_utils.causal_mask_function) == ALL_KEYS
    for size in (1, 8, 4096, 131_072):
        windowed = masking_utils.sliding_window_causal_mask_function(size)
        assert read(windowed) == SeenKeys(window=size)
    for size in (3, 8192):
        chunked = masking_utils.chunked_causal_mask_function(size, no_padding)
        assert read(chunked) == SeenKeys(chunk=size)


@pytest.mark.parametrize(
    "function",
    [
        masking_utils.bidirectional_mask_function,
        masking_utils.sliding_window_bidirectional_mask_function(8),
        masking_utils.or_masks(
            masking_utils.causal_mask_function,
            masking_utils.sliding_window_bidirectional_overlay(3),
        ),
        masking_utils.and_masks(
            masking_utils.sliding_window_causal_mask_function(8),
            masking_utils.sliding_window_causal_mask_function(5000),
            lambda batch, head, query, key: query - key != 6,
        ),
        masking_utils.packed_sequence_mask_function(torch.zeros(1, 31)),
        masking_utils.blockwise_overlay(torch.zeros(1, 31)),
    ],
    ids=["both ways", "both ways near", "a little ahead", "a hole", "packed", "blocks"],
)
def test_another_rule_of_who_sees_whom_is_refused(vectors: Any, function: Any) -> None:
    """Both directions, holes, and what depends on the text: where a layer attends by it,
    for some families describe rules that none of their layers uses."""
    found = read(function)

    assert isinstance(found, UnknownMask)
    with pytest.raises(UserError, match="sees keys by a rule that packed examples"):
        attend(vectors, Row(LENGTHS), attention_mask=found)
