"""Makes the `tiny` base, and loads the weights of any base: a Hugging Face folder with a
causal language model of any family and its tokenizer."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs.contract.deepspeed_config import DeepSpeedJson
from jobs.contract.folder import META, publish_folder, write_json
from jobs.model.content import tiny_digest
from zsg_core.errors import UserError
from zsg_core.recipe import Recipe
from zsg_core.training.decoder import tiny_intermediate

BOS, EOS = "<s>", "</s>"


def make_tiny(folder: Path, base: Recipe, texts: Sequence[str]) -> None:
    """Publishes a random Llama of the recipe's shape and a byte-level BPE trained on `texts`.

    The same recipe and texts give the same bytes; the digest of the files goes into meta.json.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_train_bpe(texts, base["vocab"]), bos_token=BOS, eos_token=EOS
    )
    config = LlamaConfig(
        vocab_size=base["vocab"],
        hidden_size=base["hidden"],
        intermediate_size=tiny_intermediate(base["hidden"]),
        num_hidden_layers=base["layers"],
        num_attention_heads=base["heads"],
        max_position_embeddings=base["context"],
        bos_token_id=_id(tokenizer, BOS),
        eos_token_id=_id(tokenizer, EOS),
        tie_word_embeddings=True,
    )
    torch.manual_seed(base["seed"])
    model = LlamaForCausalLM(config)
    with publish_folder(folder) as draft:
        model.save_pretrained(draft)
        tokenizer.save_pretrained(draft)
        parameters = sum(p.numel() for p in model.parameters())
        write_json(
            draft / META,
            {"recipe": base, "parameters": parameters, "digest": tiny_digest(draft)},
        )


def load_model(
    folder: Path,
    precision: str,
    device: str | Mapping[str, str] = "cpu",
    deepspeed: DeepSpeedJson | None = None,
    attention: str | None = None,
) -> Any:
    """The model of a base in the precision of the forward pass, on a device, or with
    each of its parts, by its name, on one.

    `attention`: as transformers calls it, zsg's packed one if None. With the
    `deepspeed` JSON of ZeRO 3 the model is divided among the ranks, which call it
    together. UserError for an architecture that zsg does not train, and for weights
    that are not those of config.json. Adapters, of a stage's end, are added to the
    weights that they were put on.
    """
    import torch

    from jobs.model import lora
    from jobs.model.weight_loading import load_weights

    if adapted := lora.find_adapted_base(folder):
        model = load_model(adapted, precision, device, deepspeed, attention)
        lora.merge_folder(model, folder)
        return model
    config = read_config(folder)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[
        precision
    ]
    return load_weights(folder, config, dtype, device, deepspeed, attention)


def read_config(folder: Path) -> Any:
    """The config of a model's folder as transformers reads it, with the defaults of its
    family. UserError for one that transformers does not know or cannot read."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # of every kind: config.json may say anything
        reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
        raise UserError(
            f"{folder}: transformers does not take its config.json ({reason}); get the model anew,"
            " or one of a family that this version of transformers has"
        ) from error


def _id(tokenizer: Any, token: str) -> int:
    return tokenizer.convert_tokens_to_ids(token)


def _train_bpe(texts: Sequence[str], vocab: int) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=[BOS, EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
