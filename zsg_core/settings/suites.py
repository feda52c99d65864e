"""Says every setting of benchmarks that checkpoints are scored on beside the test set:
GSM8K, HumanEval, MT-Bench, tasks of lm-evaluation-harness.

Their questions are put in the run's own template. What decides a benchmark's answers,
its file by its content included, is kept with them: a key of metrics is of one way of
answering only, and `name` makes another key.
"""

from typing import Annotated, Any

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from zsg_core import addresses, secrets
from zsg_core.metrics import metrics
from zsg_core.settings.fields import Count, FolderName, Price, Seed, Strict
from zsg_core.settings.lm_eval import LmEvalSettings

Temperature = Annotated[float, Field(ge=0, le=2)]
WayName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")]

TOP_P = 0.95  # Chen et al. 2021, section 2.3
TEMPERATURE = 0.8  # there the best of several samples
# FastChat's `temperature_config`; of other categories the likeliest answer counts.
BY_CATEGORY = {"writing": 0.7, "roleplay": 0.7, "stem": 0.1, "humanities": 0.1}
MOST_JUDGED = 2048  # tokens of a judge's reply, as in FastChat
MOST_ATTEMPTS = 3  # at a reply with a rating
# what transformers' generate, which FastChat calls, samples from unless a model says otherwise
TOP_K = 50


class _SuiteSettings(Strict):
    path: FolderName = Field(description="The benchmark's file, as it was published.")
    items: Count | None = Field(
        default=None,
        description=(
            "How many of its questions are asked, each category having its share, the "
            "same at every checkpoint. Null means all."
        ),
    )
    name: WayName | None = Field(
        default=None,
        description=(
            "A name of yours that the metrics' keys carry. Needed to keep values of two "
            "ways of answering side by side."
        ),
    )

    @property
    def how(self) -> dict[str, Any]:
        """All that decides the answers, but for the content of the file."""
        raise NotImplementedError


class Gsm8kSettings(_SuiteSettings):
    """GSM8K's test questions, answered greedily; metrics gsm8k/strict and
    gsm8k/flexible, in percent."""

    max_new_tokens: Count = Field(
        default=512, description="Longest answer, in tokens; a longer one is cut there."
    )

    @property
    def how(self) -> dict[str, Any]:
        return {
            "decoding": "greedy",
            "max_new_tokens": self.max_new_tokens,
            "items": self.items,
        }


class HumanEvalSettings(_SuiteSettings):
    """HumanEval's problems; metrics humaneval/pass_at_1, _10 and _100, in percent."""

    max_new_tokens: Count = Field(
        default=512, description="Longest answer, in tokens; a longer one is cut there."
    )
    allow_code_execution: bool | None = Field(
        default=None,
        description=(
            "Whether programs that the model wrote are run, in a sandbox, on the "
            "evaluator's node. true = they are run and scored; false = they are not, and "
            "the answers are kept for `zsg answers export`. There is no default: it must "
            "be set."
        ),
    )
    samples: Count = Field(
        default=1, description="Answers to each problem; pass_at_k needs k or more."
    )
    temperature: Temperature | None = Field(
        default=None,
        description=(
            "Temperature of the draws, at top-p 0.95; 0 = the most likely token, for one "
            "sample only. Null means 0 for one sample and 0.8 for several."
        ),
    )
    seed: Seed = Field(
        default=0, description="Seed of the draws; each sample has a stream of its own."
    )

    @model_validator(mode="after")
    def _samples_differ(self) -> "HumanEvalSettings":
        if self.samples > 1 and self.temperature == 0:
            raise ValueError(
                f"at temperature 0 all {self.samples} samples are the same; raise it, or take one"
                " sample"
            )
        return self

    @property
    def how(self) -> dict[str, Any]:
        temperature = (
            (TEMPERATURE if self.samples > 1 else 0)
            if self.temperature is None
            else self.temperature
        )
        amounts = {
            "max_new_tokens": self.max_new_tokens,
            "items": self.items,
            "samples": self.samples,
        }
        if temperature == 0:
            return {"decoding": "greedy", **amounts}
        return {
            "decoding": "nucleus",
            "top_p": TOP_P,
            "temperature": temperature,
            **amounts,
            "seed": self.seed,
        }


class JudgeSettings(Strict):
    """A model that rates answers, at an OpenAI-compatible address that the evaluator's
    node must reach."""

    base_url: str = Field(
        pattern=r"^https?://\S+$",
        description=(
            "The judge's address up to /chat/completions, such as "
            "https://api.openai.com/v1. The evaluator's node must reach it."
        ),
    )
    model: Annotated[str, Field(min_length=1)] = Field(
        description=(
            "The judge's name at that address, such as gpt-4-0613. Another judge needs "
            "another `name`."
        )
    )
    key_env: Variable | None = Field(
        default=None,
        description=(
            "Name of the environment variable that holds the key; it ends in _API_KEY or "
            "_TOKEN and is handed on to evaluate jobs. The key goes over https://, or to "
            "127.0.0.1. Null means no key."
        ),
    )
    prompts: FolderName = Field(
        description="FastChat's file judge_prompts.jsonl, which says what a judge is asked."
    )
    max_tokens: Count = Field(
        default=MOST_JUDGED,
        description=(
            "Longest reply, in tokens, thinking included. One that is cut before its "
            "rating gives none: raise this for a judge that thinks. It decides whether "
            "there is a rating, not which, so no other `name` is needed."
        ),
    )
    price_read: Price | None = Field(
        default=None,
        description=(
            "What a million tokens cost that the judge reads, in any currency: plan tells "
            "what judging may cost, and the journal what it did. Null means that tokens "
            "alone are counted."
        ),
    )
    price_written: Price | None = Field(
        default=None,
        description="The same of a million tokens that it writes, thinking included.",
    )

    @field_validator("base_url")
    @classmethod
    def _is_an_address(cls, address: str) -> str:
        if why := addresses.explain_refusal(address):
            raise ValueError(
                f"the address {why}. A key is named by key_env, and only there"
            )
        return address

    @model_validator(mode="after")
    def _prices_go_together(self) -> "JudgeSettings":
        if (self.price_read is None) != (self.price_written is None):
            raise ValueError("`price_read` and `price_written` go together")
        return self

    @property
    def reached(self) -> dict[str, Any]:
        """How the judge is reached and what it costs, as job.json holds it; what was not
        there in older jobs only where it is said."""
        written = self.model_dump(mode="json", exclude={"prompts"})
        for name in ("max_tokens", "price_read", "price_written"):
            if written[name] == type(self).model_fields[name].default:
                del written[name]
        return written

    @model_validator(mode="after")
    def _key_may_go_there(self) -> "JudgeSettings":
        if self.key_env is None:
            return self
        if why := secrets.explain_name_refusal(self.key_env, self.base_url):
            raise ValueError(f"key_env: {why}")
        if why := addresses.explain_key_refusal(self.base_url):
            raise ValueError(
                f"base_url, to which the value of {self.key_env} would be sent, {why}"
            )
        return self


class MtBenchSettings(_SuiteSettings):
    """MT-Bench's questions in two turns, sampled at FastChat's temperatures; metric
    mt_bench, from 1 to 10."""

    path: FolderName = Field(
        description=(
            "FastChat's question.jsonl, or its folder, with reference_answer/gpt-4.jsonl "
            "beside it."
        )
    )
    max_new_tokens: Count = Field(
        default=1024, description="Longest turn, in tokens; a longer one is cut there."
    )
    samples: Count = Field(
        default=1,
        description=(
            "Conversations about each question, each drawn anew; the score of a turn is "
            "their mean."
        ),
    )
    seed: Seed = Field(
        default=0,
        description="Seed of the draws; each turn of each conversation has a stream of its own.",
    )
    baseline: FolderName | None = Field(
        default=None,
        description=(
            "Metric win_rate only, which needs it: the answers that the model's are "
            "compared with, as lines of {id, answer}, such as `zsg answers export` prints "
            "of one run at one step."
        ),
    )
    judge: JudgeSettings | None = Field(
        default=None,
        description=(
            "The model that rates the answers. Null means that answers are kept for `zsg "
            "answers export`, and ratings come by `zsg score`."
        ),
    )

    @property
    def how(self) -> dict[str, Any]:
        sampled = {
            "decoding": "nucleus",
            "top_p": 1.0,
            "top_k": TOP_K,
            "temperature": BY_CATEGORY,
        }
        # absent of one: answers of older grids serve
        samples = {"samples": self.samples} if self.samples > 1 else {}
        return {
            **sampled,
            **samples,
            "max_new_tokens": self.max_new_tokens,
            "items": self.items,
            "seed": self.seed,
        }


class SuiteSettings(Strict):
    """The benchmarks whose metrics are asked for, and where each lies."""

    gsm8k: Gsm8kSettings | None = Field(
        default=None,
        description=(
            "GSM8K; needed by metrics gsm8k/strict and gsm8k/flexible, and by nothing "
            "else."
        ),
    )
    humaneval: HumanEvalSettings | None = Field(
        default=None,
        description=(
            "HumanEval; needed by metrics humaneval/pass_at_1, _10 and _100, and by "
            "nothing else."
        ),
    )
    mt_bench: MtBenchSettings | None = Field(
        default=None,
        description="MT-Bench; needed by metric mt_bench, and by nothing else.",
    )
    lm_eval: LmEvalSettings | None = Field(
        default=None,
        description=(
            "How tasks of lm-evaluation-harness are asked, metrics lm_eval/NAME. Null "
            "means as they say themselves."
        ),
    )

    @model_serializer(mode="wrap")
    def _leave_unasked_out(
        self, serialize: SerializerFunctionWrapHandler
    ) -> dict[str, Any]:
        """A job that does not ask for them is written as before they were there."""
        written = serialize(self)
        if written.get("lm_eval") is None:
            written.pop("lm_eval", None)
        return written

    def find_benchmark(
        self, suite: str
    ) -> Gsm8kSettings | HumanEvalSettings | MtBenchSettings | None:
        """The settings of a benchmark by its name."""
        return getattr(self, suite)

    @property
    def scored_elsewhere(self) -> list[str]:
        """The benchmarks whose answers are kept, and scored by whom zsg does not know."""
        suites = (
            [metrics.HUMANEVAL]
            if self.humaneval and self.humaneval.allow_code_execution is False
            else []
        )
        return suites + (
            [metrics.MT_BENCH] if self.mt_bench and self.mt_bench.judge is None else []
        )
