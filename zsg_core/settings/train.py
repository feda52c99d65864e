"""Says every setting of training: which weights, how fast, in what batches; and the
presets, named sets of defaults.

A preset says what the other settings are unless the grid says it: nothing else, so that
a recipe holds every resolved value. `zsg` is the defaults as they stand below.

`paper`: the training of Dynamics of Zero-Shot Generalization as its code does it
(ModelCenter, BMTrain, two GPUs): lr 1e-6 and a cosine to 10 % without warm-up, Adam
(0.9, 0.95) with eps 1e-5, no weight decay, clipping at 1, batches of 16, one epoch,
1024 tokens, fp16 from a loss scale of 6400 with steps that overflow lost, each GPU's
own token mean, the head of a sequence kept, and a truncated answer scored 0. Its code
says N // 16 + 1 steps and zsg does ⌈N/16⌉: the same unless 16 divides N, when no data
are left for the step that the code has more.

`dmt`: the SFT of How Abilities in LLMs are Affected by SFT Data Composition, which is
FastChat's (Hugging Face's Trainer): three epochs, lr 2e-5, 3 % warm-up from 0, a cosine
to 0, HF's AdamW, 2048 tokens. The paper's v1 says batches of 16; v4 says 16 in its text
and 128 in its appendix C, and FastChat's own command is 128: hence 128, and an axis for
who doubts it. Only the last weights were evaluated. Its prompt is `data.template:
vicuna`, which is data's to say.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, FiniteFloat, model_validator

from zsg_core.data.prompts import TARGETS, TRUNCATIONS
from zsg_core.settings.fields import Count, Positive, Seed, Share, Strict
from zsg_core.training.lora_roles import BY_ROLE_ALONE, ROLES, find_role

LOSS_SCALE = 6400.0  # of the published code
# keys of LoRA's own, and those that its adapters keep from stage to stage
OF_LORA = ("r", "alpha", "targets", "rslora", "dropout")
OF_ADAPTERS = ("method", "r", "alpha", "targets", "rslora")
# roles of which some of what goes in is chosen on the way, so that nothing can be dropped
UNDROPPABLE = frozenset(find_role(part) for part in BY_ROLE_ALONE)
_NAME = re.compile(r"[A-Za-z_]\w*(\.\w+)*", re.ASCII)


def _check_target(target: str) -> str:
    """ValueError for what no module of a model can be called."""
    if not _NAME.fullmatch(target):
        raise ValueError(
            f"{target[:80]!r} is no name of a module; name roles ({', '.join(ROLES)}) or"
            " modules, such as q_proj"
        )
    return target


# a role, or a module by its name: q_proj, or more of its path, mlp.up_proj
LoraTarget = Annotated[str, Field(max_length=200), AfterValidator(_check_target)]


class TuningSettings(Strict):
    """Which weights are trained."""

    method: Literal["full", "lora", "ln", "bitfit"] = Field(
        default="full",
        description=(
            "Which weights are trained: full = all; lora = low-rank adapters beside "
            "frozen weights; ln = the norms; bitfit = the biases, of which LLaMA has none."
        ),
    )
    r: Count | None = Field(
        default=None, description="LoRA only: the rank of its adapters. Null means 16."
    )
    alpha: Positive | None = Field(
        default=None,
        description=(
            "LoRA only: the scale of its adapters; the update of a weight is alpha/r·BA, "
            "under `rslora` alpha/√r·BA. Null means 16."
        ),
    )
    targets: Annotated[list[LoraTarget], Field(min_length=1)] | None = Field(
        default=None,
        description=(
            "LoRA only: what gets adapters, by role or by name. Roles, for every family: "
            "attention, mlp, all = every linear layer of the layers; neither routers nor "
            "experts, which are roles of their own and go by no name. Names are the "
            "model's own: q_proj, c_attn, embed_tokens, lm_head. Null means [q_proj, v_proj]."
        ),
    )

    rslora: bool | None = Field(
        default=None,
        description=(
            "LoRA only: true = rank-stabilised LoRA, whose scale falls with √r and not "
            "with r, so that ranks can be compared. Null means false."
        ),
    )
    dropout: Annotated[FiniteFloat, Field(ge=0, lt=1)] | None = Field(
        default=None,
        description=(
            "LoRA only: the share of what goes into the adapters of linear layers, but for the "
            "output layer, that is set to 0 in training. What it is follows from seed, step, "
            "example and layer: neither the number of ranks nor what stands beside an "
            "example changes it. Null means 0."
        ),
    )
    start: Literal["continue", "merge"] | None = Field(
        default=None,
        description=(
            "Where a stage starts after one with LoRA: continue = its adapters are "
            "trained on, which needs the same r, alpha, targets and rslora; merge = they "
            "are added to the weights first, and new adapters, or whatever `method` says, "
            "start from these. Null means continue."
        ),
    )

    @model_validator(mode="after")
    def _of_lora_only(self) -> "TuningSettings":
        lora_keys = [key for key in OF_LORA if getattr(self, key) is not None]
        if self.method != "lora" and lora_keys:
            raise ValueError(
                f"`{lora_keys[0]}` is LoRA's; tuning.method is {self.method}"
            )
        undroppable = sorted(UNDROPPABLE.intersection(self.targets or ()))
        if self.dropout and undroppable:
            raise ValueError(
                "dropout: what goes into routers and experts cannot be dropped, which tokens"
                f" reach them is chosen on the way; take it out, or {undroppable[0]} out of targets"
            )
        return self

    def resolved(self, seed: int) -> dict[str, Any]:
        """What is trained, defaults written out; `seed` draws LoRA's first weights.

        What came later is absent where it does nothing: recipes made before keep their ids.
        """
        start = {"start": self.start} if self.start == "merge" else {}
        if self.method != "lora":
            return {"method": self.method, **start}
        later = {"rslora": self.rslora, "dropout": self.dropout}
        return {
            "method": "lora",
            "r": self.r or 16,
            "alpha": self.alpha or 16.0,
            "targets": sorted(set(self.targets or ("q_proj", "v_proj"))),
            "seed": seed,
            **{key: value for key, value in later.items() if value},
            **start,
        }

    def is_trained_on(self, before: "TuningSettings") -> bool:
        """Whether its adapters can be those of the stage before."""
        own, earlier = self.resolved(0), before.resolved(0)
        return all(own.get(key) == earlier.get(key) for key in OF_ADAPTERS)


PRESETS: dict[str, dict[str, Any]] = {
    "zsg": {},
    "paper": {
        "batch": 16,
        "epochs": 1,
        "max_length": 1024,
        "lr": 1e-6,
        "lr_floor": 0.1,
        "warmup_steps": 0,
        "betas": (0.9, 0.95),
        "eps": 1e-5,
        "weight_decay": 0.0,
        "clip": 1.0,
        "precision": "fp16",
        "loss_scale": 6400.0,
        "overflow": "skip",
        "virtual_ranks": 2,
        "truncate": "head",
        "truncated_answers": "zero",
    },
    "dmt": {
        "batch": 128,
        "epochs": 3,
        "max_length": 2048,
        "lr": 2e-5,
        "lr_floor": 0.0,
        "warmup_share": 0.03,
        "betas": (0.9, 0.999),
        "eps": 1e-8,
        "weight_decay": 0.0,
        "clip": 1.0,
    },
}


class TrainSettings(Strict):
    """How a stage is trained. `zsg`: fp32 master weights, one token mean over the whole batch."""

    preset: Literal["zsg", "paper", "dmt"] = Field(
        default="zsg",
        description=(
            "A named set of defaults for the other keys of `train`, each of which may "
            "still be set. zsg: the defaults shown here; paper: as Dynamics of Zero-Shot "
            "Generalization trained; dmt: as DMT trained."
        ),
    )
    batch: Count = Field(
        default=16,
        description=(
            "Whole examples per optimizer step, over all ranks; how many ranks there are "
            "never changes it."
        ),
    )
    virtual_ranks: Count = Field(
        default=1,
        description=(
            "The loss of a step is the mean of this many token means, over items r, r+n, "
            "… of the batch, as this many GPUs that each take their own mean would have "
            "it, whatever the real ranks are. 1 = one token mean over the whole batch."
        ),
    )
    lr: Positive = Field(
        default=1e-6,
        description=(
            "Peak learning rate, reached at the end of the warm-up and then lowered by a "
            "cosine."
        ),
    )
    lr_floor: Annotated[FiniteFloat, Field(ge=0, le=1)] = Field(
        default=0.1,
        description=(
            "The cosine ends at this share of the peak learning rate. 1 = a constant rate "
            "after the warm-up."
        ),
    )
    warmup_steps: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="Steps of linear warm-up of the learning rate. It excludes `warmup_share`.",
    )
    warmup_share: Share | None = Field(
        default=None,
        description=(
            "Linear warm-up over this share of the steps, as Hugging Face's warmup_ratio; "
            "its first step has the rate 0. It excludes `warmup_steps`. Null means "
            "warmup_steps counts."
        ),
    )
    epochs: Count = Field(
        default=1, description="Passes over the training data, each in the same order."
    )
    steps: Count | None = Field(
        default=None,
        description=(
            "Stop after this many optimizer steps; the schedule of the learning rate ends "
            "there too. Null means all the data."
        ),
    )
    max_length: Annotated[int, Field(ge=16)] = Field(
        default=1024,
        description=(
            "Longest example, in tokens; see `truncate` for longer ones. The same for all "
            "stages of a run."
        ),
    )
    truncate: Literal[TRUNCATIONS] = Field(  # type: ignore[valid-type]
        default="prompt",
        description=(
            "How an example longer than `max_length` is cut: prompt = its prompt is cut at "
            "its tail, before its answer; system = its system text is cut first, so that "
            "the question stays; head = its first max_length tokens stay, so that a long "
            "prompt can push the whole answer out. The same for all stages of a run."
        ),
    )
    truncated_answers: Literal["exclude", "zero"] = Field(
        default="exclude",
        description=(
            "Needs `truncate: head`: what a test item counts whose whole answer was cut "
            "off. exclude = it is left out of the mean loss and counted; zero = its loss "
            "is 0, as in the published curves, which lowers the mean."
        ),
    )
    precision: Literal["bf16", "fp16", "fp32"] = Field(
        default="bf16",
        description=(
            "Number format of the forward pass. Master weights are fp32, "
            "made from the weights as loaded in this precision."
        ),
    )
    loss_scale: Positive | None = Field(
        default=None,
        description=(
            "Needs `precision: fp16`: the first loss scale; it is halved when a gradient "
            "overflows and doubled after 1024 steps without. Null means 6400 in fp16."
        ),
    )
    overflow: Literal["stop", "skip"] = Field(
        default="stop",
        description=(
            "What happens when a gradient is not finite: stop = the run fails; skip = the "
            "step is skipped (its data are lost, the learning rate stays where it is, and "
            "metric train/skipped counts it)."
        ),
    )
    betas: tuple[Share, Share] = Field(
        default=(0.9, 0.95),
        description=(
            "Adam's two decay rates, of the mean and of the squares of gradients. A list: "
            "as an axis it is bracketed twice, [[0.9, 0.95]]."
        ),
    )
    eps: Positive = Field(
        default=1e-8,
        description="Adam's epsilon, added to the denominator of an update.",
    )
    weight_decay: Annotated[FiniteFloat, Field(ge=0)] = Field(
        default=0.0, description="AdamW's decoupled weight decay; 0 = none."
    )
    loss_on: Literal[TARGETS] = Field(  # type: ignore[valid-type]
        default="answer",
        description=(
            "Which tokens are target tokens of the loss in training: answer, prompt, or "
            "all. To pre-train a tiny base, prompt trains it without any answer."
        ),
    )
    task_scale: Literal["none", "log_n"] = Field(
        default="none",
        description=(
            "log_n: the loss of an example is divided by the log of how many answers its "
            "task has, or of the vocabulary for each token where answers are free text, "
            "and the loss of a step is the mean over examples (Muppet). It needs "
            "`virtual_ranks: 1` and `loss_on: answer`."
        ),
    )
    tuning: TuningSettings = TuningSettings()
    clip: Positive = Field(
        default=1.0,
        description=(
            "Largest norm of the gradient over all weights; a larger one is scaled down "
            "to it."
        ),
    )
    init_seed: Seed | None = Field(
        default=None,
        description=(
            "Seed of random first weights: of model tiny, of LoRA's adapters and of the "
            "rows of model.add_tokens. Null means the top `seed`."
        ),
    )

    @model_validator(mode="after")
    def _resolve(self) -> "TrainSettings":
        """Lays the preset below what was given, which alone counts as set: a stage may
        yet name another preset."""
        self._lay_preset()
        self._settle(
            "loss_scale",
            self.precision == "fp16",
            "does nothing in {precision}, only in fp16",
            None,
        )
        if self.precision == "fp16" and self.loss_scale is None:
            self._put("loss_scale", LOSS_SCALE)
        rule = "does nothing under truncate: {truncate}, which keeps of every answer its end"
        self._settle("truncated_answers", self.truncate == "head", rule, "exclude")
        is_mean_of_step = self.virtual_ranks == 1 and self.loss_on == "answer"
        if self.task_scale != "none" and not is_mean_of_step:
            raise ValueError(
                "`task_scale` makes one mean over the answers of a step; virtual_ranks is 1,"
                " loss_on answer"
            )
        if self.virtual_ranks > self.batch:
            raise ValueError(
                f"virtual_ranks is {self.virtual_ranks}, but a batch has {self.batch} items to give"
                " them"
            )
        return self

    def _lay_preset(self) -> None:
        """Takes from the preset what was not given; of the warm-up's two keys both or none."""
        warmup = {"warmup_steps", "warmup_share"}
        if "warmup_steps" in self.model_fields_set and self.warmup_share is not None:
            raise ValueError(
                "`warmup_steps` and `warmup_share` both say how long the warm-up is; give one of"
                " them"
            )
        set_keys = set(self.model_fields_set)
        if warmup & set_keys:
            set_keys |= warmup
        values = PRESETS[self.preset]
        for name in values.keys() - set_keys:
            self._put(name, values[name])

    def _settle(self, name: str, counts: bool, why: str, nothing: str | None) -> None:
        """A setting that does nothing beside another one is refused if it was given,
        and else out of force."""
        if counts or getattr(self, name) == nothing:
            return
        if name in self.model_fields_set:
            raise ValueError(f"`{name}` {why.format(**self.__dict__)}; take it out")
        self._put(name, nothing)

    def _put(self, name: str, value: Any) -> None:
        # not among the fields set, and past `frozen`
        object.__setattr__(self, name, value)
