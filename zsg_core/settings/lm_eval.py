"""Says every setting of tasks of lm-evaluation-harness: which are asked, with how many
solved examples, in which template.

A metric `lm_eval/NAME` is a task, a group or a tag of the harness, or of a folder of the
user's. What decides its values is kept with them: the harness' version, the task as it
is written in its YAML, shots, template.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from zsg_core.metrics.keys import HARNESS, WEIGHTED
from zsg_core.settings.fields import Count, FolderName, Seed, Strict

# what the harness writes by itself, the run's own template, its model's chat template
PLAINLY, BY_RUN, OF_MODEL = "none", "run", "model"
FEWSHOT_SEED = 1234  # lm-evaluation-harness' own
# of the harness; a name of the user's must not look like one behind a task's name
METRIC_NAMES = frozenset(
    {
        "acc",
        "acc_all",
        "acc_bytes",
        "acc_mutual_info",
        "acc_norm",
        "bits_per_byte",
        "bleu",
        "brier_score",
        "byte_perplexity",
        "bypass",
        "chrf",
        "em",
        "exact_match",
        "f1",
        "likelihood",
        "mcc",
        "perplexity",
        "rouge1",
        "rouge2",
        "rougeL",
        "ter",
        "word_perplexity",
        WEIGHTED,
    }
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,150}")
TASK_PATTERN = rf"^{HARNESS}/{_NAME.pattern}$"

WayName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]
Shots = Annotated[int, Field(ge=0, le=1000)]


def find_task(metric: str) -> str | None:
    """The task of the harness that a metric names; None of another metric. ValueError
    for a name that no task has."""
    prefix, slash, name = metric.partition("/")
    if prefix != HARNESS or not slash:
        return None
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"after {HARNESS}/ stands the name of a task of lm-evaluation-harness: letters,"
            " digits, _, - and dots"
        )
    return name


class LmEvalSettings(Strict):
    """Tasks of lm-evaluation-harness, on the weights of every snapshot; metrics
    lm_eval/NAME, in the harness' own units."""

    tasks_path: FolderName | None = Field(
        default=None,
        description=(
            "A folder with task files (YAML) of yours, as the harness' --include_path. "
            "Null means its own tasks only. A task that names Python code "
            "(`!function`) is refused there, unless the grid names that file under "
            "`plugins`."
        ),
    )
    data_path: FolderName | None = Field(
        default=None,
        description=(
            "A folder with clones of data sets of the hub, as OWNER/NAME in it, for nodes "
            "without internet. Null means the cache of the Hugging Face libraries."
        ),
    )
    num_fewshot: Shots | None = Field(
        default=None,
        description=(
            "Solved examples before each question. Null means as the task says; a task "
            "that says 0 keeps it, as in the harness."
        ),
    )
    fewshot_seed: Seed = Field(
        default=FEWSHOT_SEED,
        description="Seed by which the solved examples are drawn, of tasks that draw them.",
    )
    limit: Count | None = Field(
        default=None,
        description=(
            "How many items of each task are asked, the first ones, as the harness' "
            "--limit. Null means all."
        ),
    )
    chat: Literal["none", "run", "model"] = Field(
        default=PLAINLY,
        description=(
            "How prompts are written. none = as the task writes them; run = in the "
            "template that the run is trained in; model = by the model's own chat "
            "template, as the harness' --apply_chat_template."
        ),
    )
    fewshot_as_multiturn: bool = Field(
        default=True,
        description=(
            "Under a chat template: whether each solved example is a turn of its own, or "
            "all stand before the question in one."
        ),
    )
    name: WayName | None = Field(
        default=None,
        description=(
            "A name of yours that the metrics' keys carry. Needed to keep values of two "
            "ways of asking side by side."
        ),
    )

    @field_validator("name")
    @classmethod
    def _no_metric(cls, name: str | None) -> str | None:
        if name in METRIC_NAMES:
            raise ValueError(
                f"{name!r} is a metric's name, and keys may carry it already; give another"
            )
        return name

    @property
    def how(self) -> dict[str, Any]:
        """All that decides the values beside the tasks themselves and the harness."""
        how: dict[str, Any] = {
            "num_fewshot": self.num_fewshot,
            "fewshot_seed": self.fewshot_seed,
            "limit": self.limit,
            "chat": self.chat,
        }
        if self.chat != PLAINLY:
            how["fewshot_as_multiturn"] = self.fewshot_as_multiturn
        return how

    def name_key(self, metric: str) -> str:
        """The key of a metric, with the user's own name for the way of asking."""
        return metric if self.name is None else f"{metric}/{self.name}"
