"""Says every setting of training: which weights, how fast, in what batches."""

from typing import Annotated, Any, Literal

from pydantic import Field, FiniteFloat, model_validator

from zsg_core.fields import Count, Positive, Seed, Share, Strict

LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "embed_tokens")


class TuningSettings(Strict):
    """Which weights are trained."""

    method: Literal["full", "lora", "ln", "bitfit"] = Field(
        default="full", description="all weights, LoRA's adapters, the norms, or the biases (LLaMA has none)"
    )
    r: Count | None = Field(default=None, description="lora only: rank (16)")
    alpha: Positive | None = Field(default=None, description="lora only: scale; the update is alpha/r·BA (16)")
    targets: Annotated[list[Literal[LORA_TARGETS]], Field(min_length=1)] | None = Field(  # type: ignore[valid-type]
        default=None, description="lora only: the modules it is put into ([q_proj, v_proj])"
    )

    @model_validator(mode="after")
    def _of_lora_only(self) -> "TuningSettings":
        given = [key for key in ("r", "alpha", "targets") if getattr(self, key) is not None]
        if self.method != "lora" and given:
            raise ValueError(f"`{given[0]}` is LoRA's; tuning.method is {self.method}")
        return self

    def resolved(self, seed: int) -> dict[str, Any]:
        """What is trained, defaults written out; `seed` draws LoRA's first weights."""
        if self.method != "lora":
            return {"method": self.method}
        targets = sorted(set(self.targets or ("q_proj", "v_proj")))
        return {"method": "lora", "r": self.r or 16, "alpha": self.alpha or 16.0, "targets": targets, "seed": seed}


class TrainSettings(Strict):
    """How a stage is trained. `zsg`: fp32 master weights, one token mean over the whole batch."""

    preset: Literal["zsg"] = Field(default="zsg", description="named set of rules; others will follow")
    batch: Count = Field(default=16, description="whole examples per optimiser step, over all ranks")
    lr: Positive = Field(default=1e-6, description="peak learning rate")
    lr_floor: Share = Field(default=0.1, description="the cosine ends at this share of the peak")
    warmup_steps: Annotated[int, Field(ge=0)] = Field(default=0, description="linear warm-up")
    epochs: Count = Field(default=1, description="passes over the arrangement, each in the same order")
    steps: Count | None = Field(default=None, description="stop after this many steps; null = all the data")
    max_length: Annotated[int, Field(ge=16)] = Field(
        default=1024, description="tokens per example; prompts are cut first"
    )
    precision: Literal["bf16", "fp32"] = Field(
        default="bf16",
        description="of the forward pass; master weights are fp32, made from the weights as loaded in this precision",
    )
    betas: tuple[Share, Share] = Field(default=(0.9, 0.95), description="Adam's")
    eps: Positive = Field(default=1e-8, description="Adam's")
    weight_decay: Annotated[FiniteFloat, Field(ge=0)] = Field(default=0.0, description="AdamW's")
    loss_on: Literal["answer", "all"] = Field(
        default="answer", description="which tokens are learnt; all = prompts too, to pre-train a tiny base"
    )
    tuning: TuningSettings = TuningSettings()
    clip: Positive = Field(default=1.0, description="largest norm of the global gradient")
    init_seed: Seed | None = Field(default=None, description="seed of random first weights; default: seed")
