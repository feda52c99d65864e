"""Is every folder that is not the Llama of its config.json refused from its files
alone, and every other one taken?"""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launcher.grids import model_folder, model_tokenizer
from tests.lib.model_folders import (
    ENDS,
    SMALL,
    change,
    shapes,
    write_llama,
    write_tensors,
    write_tokenizer,
)
from zsg_core.errors import UserError

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
LAYER = "model.layers.0"


def config(**told: Any) -> Callable[[Path], None]:
    """Other values in config.json, the weights as they were."""
    return lambda folder: change(folder / "config.json", **told)


def weights(
    dtype: str = "BF16",
    drop: str = "",
    dtypes: dict[str, str] | None = None,
    **more: list[int],
) -> Any:
    """Other weights: without some, with more, of another dtype. Dots of names are written __."""
    added = {name.replace("__", "."): shape for name, shape in more.items()}

    def write(folder: Path) -> None:
        shaped = {
            name: shape for name, shape in shapes(SMALL).items() if name != drop
        } | added
        write_tensors(folder / "model.safetensors", shaped, dtype, **(dtypes or {}))

    return write


def text(name: str, content: str) -> Callable[[Path], object]:
    """Another text in a file."""
    return lambda folder: (folder / name).write_text(content)


def tokenizer(
    added: dict[str, int] | None = None, **told: Any
) -> Callable[[Path], None]:
    """Another tokenizer."""
    return lambda folder: write_tokenizer(folder, added, **told)


def shards(*held: list[str]) -> Callable[[Path], None]:
    """The weights in files, each with these tensors, and an index."""

    def write(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        names = [f"model-{number}.safetensors" for number in range(len(held))]
        for name, tensors in zip(names, held, strict=True):
            write_tensors(
                folder / name, {tensor: shapes(SMALL)[tensor] for tensor in tensors}
            )
        where = {
            tensor: name
            for name, tensors in zip(names, held, strict=True)
            for tensor in tensors
        }
        change(folder / "model.safetensors.index.json", weight_map=where)

    return write


def packed(header: dict[str, Any], size: int) -> Callable[[Path], object]:
    """A file of weights with this header."""
    raw = json.dumps(header).encode()
    return lambda folder: (folder / "model.safetensors").write_bytes(
        struct.pack("<Q", len(raw)) + raw + bytes(size)
    )


def untied(folder: Path) -> None:
    """A config that says one table, over weights with two that differ in their last byte."""
    change(folder / "config.json", tie_word_embeddings=True)
    path = folder / "model.safetensors"
    held = bytearray(path.read_bytes())
    length = struct.unpack("<Q", held[:8])[0]
    _, end = json.loads(held[8 : 8 + length])["lm_head.weight"]["data_offsets"]
    held[8 + length + end - 1] = 1
    path.write_bytes(held)


def byte_level(folder: Path) -> None:
    """A byte-level tokenizer called Llama's, without ends of its own."""
    write_tokenizer(folder, tokenizer_class="LlamaTokenizerFast")
    told = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(
        json.dumps({k: v for k, v in told.items() if k not in ENDS})
    )


def write_pieces(folder: Path) -> None:
    """A tokenizer.model of SentencePiece's with one piece in place of tokenizer.json."""
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.model").write_bytes(b"\n\x03\n\x01a")


def without(name: str, key: str) -> Callable[[Path], None]:
    """A JSON file without a key."""

    def write(folder: Path) -> None:
        told = json.loads((folder / name).read_text())
        del told[key]
        (folder / name).write_text(json.dumps(told))

    return write


NAMES = [*shapes(SMALL)]
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
}
REFUSED: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "an adapter's config": (
        text("adapter_config.json", "{}"),
        ["adapter lies beside", "adapter_config.json", "merge"],
    ),
    "an adapter's weights": (
        text("adapter_model.safetensors", "x"),
        ["adapter lies beside", "adapter_model"],
    ),
    "quantised by its config": (
        config(quantization_config={"quant_method": "awq"}),
        ["quantised (awq", "unquantised"],
    ),
    "quantised, no method said": (
        config(quantization_config={"bits": 4}),
        ["quantised (compressed"],
    ),
    "compressed tensors": (
        config(compression_config={"format": "int"}),
        ["quantised (compressed"],
    ),
    "a dtype of 8 bits in the config": (
        config(dtype="float8_e4m3fn"),
        ["quantised (float8_e4m3fn"],
    ),
    "a quantiser's own file": (
        text("quantize_config.json", "{}"),
        ["quantize_config.json lies beside"],
    ),
    "weights of 8 bits": (
        weights("F8_E4M3"),
        ["12 of 12 tensors are no floats", "F8_E4M3"],
    ),
    "one tensor of 8 bits": (
        weights(dtypes={"lm_head.weight": "I8"}),
        ["1 of 12 tensors", "lm_head.weight is I8"],
    ),
    "weights of 64 bits": (weights("F64"), ["12 of 12 tensors are no floats", "F64"]),
    "packed weights": (
        weights(
            drop=f"{LAYER}.mlp.up_proj.weight",
            dtypes={f"{LAYER}.mlp.up_proj.qweight": "I32"},
            model__layers__0__mlp__up_proj__qweight=[4, 64],
        ),
        ["quantised (they hold 'model.layers.0.mlp.up_proj.qweight')"],
    ),
    "scales beside weights": (
        weights(model__layers__0__mlp__up_proj__weight_scale_inv=[1]),
        ["weight_scale_inv"],
    ),
    "fewer rows than vocab_size": (
        config(vocab_size=320),
        [
            "2 tensors have another shape",
            "model.embed_tokens.weight: 300 × 32, by vocab_size × hidden_size 320 × 32",
        ],
    ),
    "fewer key heads": (
        config(num_key_value_heads=1),
        [
            "2 tensors",
            "k_proj.weight: 32 × 32, by num_key_value_heads·head_dim × hidden_size 16 × 32",
        ],
    ),
    "other heads": (
        config(head_dim=8),
        ["4 tensors", "by num_key_value_heads·head_dim × hidden_size 16 × 32"],
    ),
    "a wider MLP": (
        config(intermediate_size=96),
        ["3 tensors", "mlp.down_proj.weight: 32 × 64"],
    ),
    "a wider model": (
        config(hidden_size=64),
        ["12 tensors", "embed_tokens.weight: 300 × 32"],
    ),
    "biases that are not said": (
        weights(model__layers__0__self_attn__q_proj__bias=[32]),
        ["1 tensors have no place", "q_proj.bias", "config.json has no attention_bias"],
    ),
    "biases of the MLP that are not said": (
        weights(model__layers__0__mlp__up_proj__bias=[64]),
        ["mlp.up_proj.bias", "config.json has no mlp_bias"],
    ),
    "biases that are not there": (
        config(attention_bias=True),
        ["lack 4 tensors", "self_attn.k_proj.bias", "(config.json has attention_bias)"],
    ),
    "biases of the MLP that are not there": (
        config(mlp_bias=True),
        ["lack 3 tensors", "mlp_bias"],
    ),
    "more layers than said": (
        weights(model__layers__1__input_layernorm__weight=[32]),
        ["1 tensors have no place", "num_hidden_layers is 1"],
    ),
    "fewer layers than said": (
        config(num_hidden_layers=2),
        ["lack 9 tensors", "model.layers.1."],
    ),
    "norms of heads": (
        weights(model__layers__0__self_attn__q_norm__weight=[16]),
        ["no place", "q_norm"],
    ),
    "an output layer beside a tied one": (
        untied,
        ["tie_word_embeddings", "lm_head.weight is not the embedding"],
    ),
    "a tensor in two shards": (
        shards(NAMES, NAMES[:1]),
        ["'lm_head.weight' lies in two weight files"],
    ),
    "a shard that lacks a tensor": (
        shards(NAMES[:4], NAMES[5:]),
        ["lack 1 tensors", NAMES[4]],
    ),
    "a shard of another kind": (
        lambda folder: (
            shards(NAMES)(folder),
            change(
                folder / "model.safetensors.index.json", weight_map={"a": "config.json"}
            ),
        ),
        ["names 'config.json', which is no .safetensors file"],
    ),
    "a tensor of too few bytes": (
        packed({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, 4),
        ["no safetensors file"],
    ),
    "tensors that overlap": (
        packed(
            {
                key: {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}
                for key in "ab"
            },
            2,
        ),
        ["'b' does not begin where"],
    ),
    "a shape of text": (
        packed({"a": {"dtype": "F32", "shape": "2", "data_offsets": [0, 4]}}, 4),
        ["no safetensors"],
    ),
    "a shape below nothing": (
        packed({"a": {"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]}}, 4),
        ["no safetensors"],
    ),
    "a header without end": (
        lambda folder: (folder / "model.safetensors").write_bytes(
            struct.pack("<Q", 2**63) + b"{}"
        ),
        ["cut short"],
    ),
    "weights of llama.cpp": (
        lambda folder: (folder / "model.safetensors").rename(folder / "tiny.Q4.gguf"),
        ["gguf_file", "save_pretrained"],
    ),
    "weights of Meta": (
        lambda folder: (folder / "model.safetensors").rename(
            folder / "consolidated.00.pth"
        ),
        ["convert_llama_weights_to_hf"],
    ),
    "weights under another name": (
        lambda folder: (folder / "model.safetensors").rename(
            folder / "model.fp16.safetensors"
        ),
        ["model.fp16.safetensors", "looks for model.safetensors"],
    ),
    "rotary scaling that nobody knows": (
        config(rope_scaling={"type": "su", "factor": 2.0}),
        ["rope_scaling has the type 'su'", "yarn"],
    ),
    "rotary scaling without its factor": (
        config(rope_scaling={"type": "linear"}),
        ["type 'linear' needs factor"],
    ),
    "rotary scaling of no number": (
        config(rope_scaling={"type": "dynamic", "factor": "2"}),
        ["factor is '2', not a number above 0"],
    ),
    "llama3 without its origin": (
        config(rope_scaling=LLAMA3),
        ["needs original_max_position_embeddings"],
    ),
    "longrope of another head": (
        config(
            rope_parameters={
                "rope_type": "longrope",
                "short_factor": [1.0] * 8,
                "long_factor": [1.0] * 4,
                "original_max_position_embeddings": 64,
            }
        ),
        ["long_factor must be 8 numbers"],
    ),
    "rotary scaling by layers": (
        config(rope_parameters={"full_attention": {"rope_theta": 1e6}}),
        ["differs by kinds of layers"],
    ),
    "two rotary bases": (
        config(
            rope_theta=10000.0,
            rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
        ),
        ["rope_theta is 10000, and rope_parameters.rope_theta 500000"],
    ),
    "half of each head turned": (
        config(partial_rotary_factor=0.5),
        ["partial_rotary_factor is 0.5", "not compute"],
    ),
    "a softcap": (
        config(final_logit_softcapping=30.0),
        ["final_logit_softcapping is 30.0"],
    ),
    "windows in some layers": (
        config(layer_types=["sliding_attention"]),
        ["layer_types", "full_attention"],
    ),
    "heads that do not divide": (
        config(num_attention_heads=3),
        ["hidden_size 32 is no multiple"],
    ),
    "heads of an odd size": (config(head_dim=15), ["head_dim is 15", "even"]),
    "key heads that do not divide": (
        config(num_attention_heads=4, num_key_value_heads=3),
        ["num_key_value_heads 3"],
    ),
    "an activation that nobody knows": (
        config(hidden_act="swiglu"),
        ["hidden_act 'swiglu' is none"],
    ),
    "dropout in attention": (
        config(attention_dropout="much"),
        ["attention_dropout is 'much', not a share below 1"],
    ),
    "a size as text": (config(hidden_size="32"), ["hidden_size is '32', not a count"]),
    "a size that is true": (
        config(vocab_size=True),
        ["vocab_size is True, not a count"],
    ),
    "positions of none": (
        config(max_position_embeddings=None),
        ["max_position_embeddings is None, not a count"],
    ),
    "more layers than there can be": (
        config(num_hidden_layers=10**12),
        ["num_hidden_layers must be"],
    ),
    "a flag as text": (
        config(attention_bias="false"),
        ["attention_bias is 'false', neither true nor false"],
    ),
    "an epsilon as text": (
        config(rms_norm_eps="1e-5"),
        ["rms_norm_eps is '1e-5', not a number"],
    ),
    "architectures of text": (
        config(architectures="LlamaForCausalLM"),
        ["architectures is 'LlamaForCausalLM', not"],
    ),
    "ids beyond the rows": (
        config(eos_token_id=[1, 300]),
        ["eos_token_id is 300, but vocab_size is 300"],
    ),
    "padding beyond the rows": (config(pad_token_id=300), ["pad_token_id is 300"]),
    "code of its own": (
        config(auto_map={"AutoModelForCausalLM": "m.Own"}),
        ["auto_map", "'m.Own'", "does not run"],
    ),
    "a tokenizer with code of its own": (
        tokenizer(auto_map={"AutoTokenizer": ["t.Own", None]}),
        ["tokenizer_config.json: auto_map", "t.Own"],
    ),
    "a tokenizer with code, as older files say": (
        tokenizer(auto_map=["t.Own", None]),
        ["auto_map", "t.Own"],
    ),
    "a tokenizer without an end": (
        without("tokenizer_config.json", "eos_token"),
        ["no EOS token"],
    ),
    "a tokenizer without a word of its ends": (
        lambda folder: (folder / "tokenizer_config.json").unlink(),
        ["no EOS token", "set eos_token"],
    ),
    "a byte-level tokenizer called Llama's": (byte_level, ["no EOS token"]),
    "an end that is no token": (
        tokenizer(eos_token="<|end|>"),
        ["'<|end|>', which is none of its tokens"],
    ),
    "an end beyond the rows": (
        tokenizer({"<|end|>": 300}, eos_token={"content": "<|end|>"}),
        ["'<|end|>' has id 300, beyond", "300 rows"],
    ),
    "words beyond the rows": (
        tokenizer({"note": 301, "more": 300}),
        ["2 tokens of the tokenizer lie beyond", "'more' with id 300"],
    ),
    "older added words beyond the rows": (
        text("added_tokens.json", '{"note": 300}'),
        ["'note' with id 300"],
    ),
    "a dictionary beyond the rows": (
        lambda folder: (
            config(vocab_size=258)(folder),
            write_tensors(
                folder / "model.safetensors", shapes(SMALL | {"vocab_size": 258})
            ),
            tokenizer({"note": 258})(folder),
        ),
        ["1 token of the tokenizer lie beyond the embedding's 258 rows"],
    ),
    "a tokenizer of nothing": (
        text("tokenizer.json", "{}"),
        ["no tokenizer: it has no dictionary"],
    ),
    "a tokenizer of text": (
        text("tokenizer.json", '{"model": {"vocab": {"a": "1"}}}'),
        ["a token without an id"],
    ),
    "a tokenizer that is a pointer": (
        text("tokenizer.json", LFS),
        ["tokenizer.json is a git-lfs pointer", "lfs pull"],
    ),
    "a tokenizer.model that is a pointer": (
        text("tokenizer.model", LFS),
        ["tokenizer.model is a git-lfs pointer"],
    ),
    "weights by a name of their own": (
        config(transformers_weights="other.safetensors"),
        [
            "transformers_weights is 'other.safetensors'",
            "other files than zsg has judged",
        ],
    ),
    "a config for another version": (
        config(configuration_files=["config.4.0.0.json", "config.json"]),
        ["configuration_files is", "config.4.0.0.json"],
    ),
    "a kernel of somebody's": (
        config(attn_implementation="somebody/kernels"),
        ["attn_implementation is 'somebody/kernels'", "look for code of that name"],
    ),
    "a kernel by the inner name": (
        config(_attn_implementation="some/one"),
        ["_attn_implementation is 'some/one'"],
    ),
    "a kernel for each part": (
        config(attn_implementation={"": "some/one"}),
        ["attn_implementation is {"],
    ),
    "a tokenizer for another version": (
        tokenizer(fast_tokenizer_files=["../elsewhere/tokenizer.4.0.0.json"]),
        ["fast_tokenizer_files is", "in place of tokenizer.json"],
    ),
    "a tokenizer.model alone, of a class that transformers reads otherwise": (
        lambda folder: (
            write_pieces(folder),
            change(folder / "tokenizer_config.json", tokenizer_class="GemmaTokenizer"),
        ),
        ["tokenizer.model stands alone", "other tokens", "put the tokenizer.json"],
    ),
    "a tokenizer.model alone that is tiktoken's": (
        lambda folder: (
            change(folder / "tokenizer_config.json", tokenizer_class="LlamaTokenizer"),
            (folder / "tokenizer.json").unlink(),
            text("tokenizer.model", "IQ== 0")(folder),
        ),
        ["tokenizer.model stands alone", "put the tokenizer.json"],
    ),
    "two files for a tokenizer of sentencepiece": (
        lambda folder: (
            (folder / "tokenizer.json").rename(folder / "tokenizer.model"),
            text("tekken.json", "{}")(folder),
        ),
        ["tekken.json lies beside tokenizer.model"],
    ),
    "shards in a folder beside": (
        lambda folder: (
            (folder / "model.safetensors").rename(
                folder.parent / "model-0.safetensors"
            ),
            change(
                folder / "model.safetensors.index.json",
                weight_map=dict.fromkeys(NAMES, "../model-0.safetensors"),
            ),
        ),
        ["lacks 1 of 1 weight files, the first '../model-0.safetensors'"],
    ),
    "pickles that no digest counts": (
        lambda folder: (
            (folder / "model.safetensors").unlink(),
            text("weights-1.bin", "x")(folder),
            change(
                folder / "pytorch_model.bin.index.json",
                weight_map=dict.fromkeys(NAMES, "weights-1.bin"),
            ),
        ),
        ["names 'weights-1.bin', which is no pytorch_model….bin file"],
    ),
    "a config that is a pointer": (
        text("config.json", LFS),
        ["config.json is a git-lfs pointer"],
    ),
    "settings of a tokenizer that are a pointer": (
        text("tokenizer_config.json", LFS),
        ["is a git-lfs pointer"],
    ),
    "a special_tokens_map of text": (
        text("special_tokens_map.json", "[]"),
        ["map.json: must be a JSON"],
    ),
    "nesting without end": (
        text("special_tokens_map.json", "[" * 10**6),
        ["cannot be read as JSON"],
    ),
    "generation's end beyond the rows": (
        text("generation_config.json", '{"eos_token_id": [1, 400]}'),
        ["generation_config.json: eos_token_id"],
    ),
}


@pytest.mark.parametrize(("change_it", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_a_folder_that_is_not_as_its_config_says_is_refused(
    tmp_path: Path, change_it: Callable[[Path], object], said: list[str]
) -> None:
    """One line names the setting, the folder and what is wrong."""
    change_it(write_llama(tmp_path / "model"))

    with pytest.raises(UserError) as told:
        model_folder.check_decoder(tmp_path / "model")
    assert str(told.value).startswith("model.path: ") and "\n" not in str(told.value)
    assert [part for part in said if part not in str(told.value)] == [], told.value


TAKEN: dict[str, Callable[[Path], object]] = {
    "as it is": lambda folder: None,
    "in shards": shards(NAMES[:5], NAMES[5:]),
    "in half precision": weights("F16"),
    "in two precisions": weights(dtypes={"model.norm.weight": "F32"}),
    "with rotary frequencies, as older files": weights(
        dtypes={f"{LAYER}.self_attn.rotary_emb.inv_freq": "F64"},
        model__layers__0__self_attn__rotary_emb__inv_freq=[8],
    ),
    "tied, the table written twice": config(tie_word_embeddings=True),
    "tied, the table written once": lambda folder: (
        config(tie_word_embeddings=True)(folder),
        weights(drop="lm_head.weight")(folder),
    ),
    "with a value head beside it": weights(v_head__summary__weight=[1, 32]),
    "with what LlamaConfig writes": config(
        attention_bias=False,
        head_dim=16,
        mlp_bias=False,
        num_key_value_heads=2,
        pad_token_id=None,
        pretraining_tp=1,
        rope_parameters={"rope_theta": 10000.0, "rope_type": "default"},
        rms_norm_eps=1e-06,
        use_cache=True,
        dtype="bfloat16",
        attention_dropout=0.0,
        hidden_act="silu",
        initializer_range=0.02,
        bos_token_id=0,
        eos_token_id=[1],
        sliding_window=None,
        quantization_config=None,
    ),
    "scaled as Llama 3": config(
        rope_scaling=LLAMA3 | {"original_max_position_embeddings": 1024},
        rope_theta=500000.0,
    ),
    "scaled linearly, as older files": config(
        rope_scaling={"type": "linear", "factor": 4}
    ),
    "scaled by yarn": config(rope_scaling={"rope_type": "yarn", "factor": 4.0}),
    "a padding id below nothing": config(pad_token_id=-1),
    "code for what zsg does not load": config(
        auto_map={"AutoModelForSequenceClassification": "m.Own"}
    ),
    "padding beyond the rows that no text has": tokenizer({"<pad>": 300}),
    "ends in the older file": lambda folder: (
        (folder / "tokenizer_config.json").unlink(),
        change(folder / "special_tokens_map.json", **ENDS),
    ),
    "ends by the class": lambda folder: (
        (folder / "tokenizer.json").write_text(
            json.dumps({"model": {"vocab": {"<s>": 0, "</s>": 1}}})
        ),
        (folder / "tokenizer_config.json").write_text(
            '{"tokenizer_class": "LlamaTokenizer"}'
        ),
    ),
    "with a link within it": lambda folder: (
        (folder / "model.safetensors").rename(folder / "weights"),
        (folder / "model.safetensors").symlink_to("weights"),
    ),
    "with links out of it that nobody reads": (
        lambda folder: (folder / "README.md").symlink_to("/etc/passwd")
    ),
    "with tokenizer.json named as the one of every version": tokenizer(
        fast_tokenizer_files=["tokenizer.json"]
    ),
    "with an attention that transformers has": config(attn_implementation="sdpa"),
}


@pytest.mark.parametrize("change_it", TAKEN.values(), ids=TAKEN.keys())
def test_a_folder_that_is_whole_is_taken(
    tmp_path: Path, change_it: Callable[[Path], object]
) -> None:
    """What published folders have and transformers loads as the config says."""
    change_it(write_llama(tmp_path / "model"))

    model_folder.check_decoder(tmp_path / "model")


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    """A folder is copied and mended once, not once for each fault."""
    folder = write_llama(tmp_path / "model")
    change(folder / "config.json", vocab_size=257, hidden_act="x")
    (folder / "adapter_config.json").write_text("{}")

    with pytest.raises(
        UserError,
        match=r"5 faults: .*adapter.*hidden_act.*another shape.*beyond the embedding's 257",
    ):
        model_folder.check_decoder(
            write_tokenizer(folder, {"note": 300}, eos_token=None) or folder
        )


def test_a_folder_of_an_adapter_alone_is_called_one(tmp_path: Path) -> None:
    """A run's own snapshot of LoRA is the likeliest such folder."""
    (tmp_path / "adapter_config.json").write_text("{}")

    with pytest.raises(UserError, match=r"holds an adapter .*no model; merge it"):
        model_folder.check_decoder(tmp_path)


@pytest.mark.parametrize(
    ("told", "length", "said"),
    [
        ({"max_position_embeddings": 512}, 512, None),
        (
            {"max_position_embeddings": 512},
            513,
            r"k 513 is beyond the model's 512 positions .*max_position_embeddings",
        ),
        ({}, 2048, None),
        ({}, 2049, r"beyond the model's 2048 positions .*no max_position_embeddings"),
        (
            {"sliding_window": 64, "max_position_embeddings": 512},
            65,
            "model's 64 positions .*sliding_window",
        ),
        ({"sliding_window": 64, "max_position_embeddings": 512}, 64, None),
        ({"sliding_window": 64, "use_sliding_window": False}, 65, None),
        (
            {
                "rope_scaling": {
                    "type": "longrope",
                    "original_max_position_embeddings": 100,
                }
            },
            101,
            "beyond the model's 100 positions .*longrope",
        ),
    ],
)
def test_a_length_beyond_the_positions_is_refused(
    tmp_path: Path, told: dict[str, Any], length: int, said: str | None
) -> None:
    """transformers takes 2048 positions where config.json names none; a window and
    longrope count, too."""
    folder = write_llama(tmp_path / "model", **told)
    if said is None:
        model_folder.check_length("k", length, folder)
    else:
        with pytest.raises(UserError, match=said):
            model_folder.check_length("k", length, folder)


def test_a_tokenizer_model_alone_needs_the_package_that_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node would find out after it has waited for its GPUs."""
    folder = write_llama(tmp_path / "model")
    write_pieces(folder)
    change(folder / "tokenizer_config.json", tokenizer_class="LlamaTokenizer")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(
        UserError, match=r"needs the package sentencepiece.*pip install"
    ):
        model_folder.check_decoder(folder)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    model_folder.check_decoder(folder)


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        (None, ()),
        (1, ()),
        ([1], ()),
        ([7, 1, 5, 7], (5, 7)),
        (106, (106,)),
        (["</s>", True, -1], ()),
    ],
)
def test_a_models_further_ends_are_those_that_its_tokenizer_does_not_end_with(
    tmp_path: Path, named: object, expected: tuple[int, ...]
) -> None:
    """As generation_config.json names `<end_of_turn>` beside `<eos>`."""
    folder = write_llama(tmp_path / "model")
    change(folder / "generation_config.json", eos_token_id=named)
    ends = model_tokenizer.read_generation_ends(folder)

    assert model_tokenizer.find_other_ends(folder, ends) == expected


def test_a_tokenizer_without_a_beginning_is_told(tmp_path: Path) -> None:
    """It is no fault: texts begin without one."""
    folder = write_llama(tmp_path / "model")
    write_tokenizer(folder, bos_token=None)

    model_folder.check_decoder(folder)
    [told] = model_folder.find_notes(folder)
    assert "no BOS token: texts begin without one" in told


def test_what_is_not_as_it_seems_is_told(tmp_path: Path) -> None:
    """Each as a line of the plan; a plain folder has none."""
    assert model_folder.find_notes(write_llama(tmp_path / "plain")) == []
    folder = write_llama(
        tmp_path / "model",
        sliding_window=64,
        max_position_embeddings=512,
        eos_token_id=2,
    )
    weights(dtypes={"lm_head.weight": "F32"}, v_head__weight=[1, 32])(folder)
    write_tokenizer(folder, {"<pad>": 300})
    told = " ".join(model_folder.find_notes(folder))

    assert (
        "sliding_window of 64" in told and "'v_head.weight'; they are left out" in told
    )
    assert (
        "several dtypes, BF16, F32" in told
        and "'<pad>', lie beyond the embedding's 300 rows" in told
    )
    assert (
        "eos_token_id is 2, the tokenizer's eos_token is '</s>', 1; zsg takes the tokenizer's"
        in told
    )


def test_a_module_outside_of_an_embedding_models_folder_is_refused(
    tmp_path: Path,
) -> None:
    """No digest would know of it."""
    for place in ("../other", "/other", "a/../../other"):
        (tmp_path / "modules.json").write_text(
            json.dumps(
                [{"path": place, "type": "sentence_transformers.models.Pooling"}]
            )
        )
        with pytest.raises(UserError, match="outside of the folder"):
            model_folder.check_embedding("k", tmp_path)


def test_an_embedding_model_of_pointers_is_refused(tmp_path: Path) -> None:
    """As git leaves it without git-lfs; the node would fail hours later."""
    (tmp_path / "modules.json").write_text("[]")
    (tmp_path / "model.safetensors").write_text(LFS)

    with pytest.raises(
        UserError, match=r"k: .*model\.safetensors is a git-lfs pointer"
    ):
        model_folder.check_embedding("k", tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "config.json").write_text('{"auto_map": {"AutoModel": "m.Own"}}')
    with pytest.raises(UserError, match=r"auto_map names code of its own \('m\.Own'\)"):
        model_folder.check_embedding("k", tmp_path)


@pytest.mark.parametrize(
    ("change_it", "said"),
    [
        (text("adapter_config.json", "{}"), "adapter lies beside"),
        (config(quantization_config={"quant_method": "gptq"}), "quantised \\(gptq"),
        (config(auto_map={"AutoModelForSequenceClassification": "m.Own"}), "auto_map"),
        (text("tokenizer.json", LFS), "tokenizer.json is a git-lfs pointer"),
        (config(id2label=7), "classifies into 2"),
    ],
)
def test_a_reward_model_is_judged_by_its_files(
    tmp_path: Path, change_it: Callable[[Path], object], said: str
) -> None:
    """The brothers of a base's faults; one that is whole passes."""
    folder = write_llama(
        tmp_path / "m", architectures=["LlamaForSequenceClassification"], num_labels=1
    )
    model_folder.check_reward("k", folder)
    change_it(folder)
    if said.startswith("classifies"):
        without("config.json", "num_labels")(folder)

    with pytest.raises(UserError, match=said):
        model_folder.check_reward("k", folder)
