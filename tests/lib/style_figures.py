"""How dense, tangled and vaguely named the code is, in figures that may only get better.

`python -m tests.lib.style_figures` prints the figures of today; with `--write` it puts
them into tests/golden/style_figures.json, which the suite holds the code to. Breaking
lines betters neither `nodes_per_line` by much nor `complex_pct` at all: take functions
apart, and give names that say more.
"""

import argparse
import ast
import io
import json
import statistics
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMMITTED = ROOT / "tests/golden/style_figures.json"
PACKAGES = ("launcher", "jobs", "zsg_core")
COMPLEX = 10  # branches of a function beyond which it counts as complex
WIDE = 100  # columns

# Words that name nothing: a local called so has to be looked up.
VAGUE = frozenset(
    "one of told found made own asked said way ways what where more most least place places"
    " part parts rest other others those wanted given known kept left held shown it by done"
    " here there this mine their theirs its thing things them".split()
)
BRANCHES = (
    ast.If,
    ast.For,
    ast.While,
    ast.AsyncFor,
    ast.ExceptHandler,
    ast.IfExp,
    ast.Assert,
    ast.match_case,
)
Function = ast.FunctionDef | ast.AsyncFunctionDef


def complexity(function: Function) -> int:
    """Cyclomatic complexity; a comprehension counts as a loop, its conditions as branches."""
    count = 1
    for node in ast.walk(function):
        if isinstance(node, BRANCHES):
            count += 1
        elif isinstance(node, ast.BoolOp):
            count += len(node.values) - 1
        elif isinstance(node, ast.comprehension):
            count += 1 + len(node.ifs)
    return count


@dataclass
class Counts:
    """What is counted in the files of some packages."""

    nodes: list[int] = field(default_factory=list)  # of each function
    function_lines: int = 0
    complex_functions: int = 0
    public_functions: int = 0
    one_word_functions: int = 0
    lines: int = 0  # that are not empty
    wide_lines: int = 0
    fmt_skips: int = 0
    parameters: int = 0
    untyped_dicts: int = 0
    names: Counter[str] = field(default_factory=Counter)  # of locals and parameters

    def count_file(self, text: str) -> None:
        """Adds a module."""
        lines = [line for line in text.splitlines() if line.strip()]
        self.lines += len(lines)
        self.wide_lines += sum(len(line) > WIDE for line in lines)
        self.fmt_skips += sum("fmt: skip" in comment for comment in comments_of(text))
        tree = ast.parse(text)
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                self.public_functions += 1
                self.one_word_functions += "_" not in node.name
        for node in ast.walk(tree):
            if isinstance(node, Function):
                self.count_function(node)

    def count_function(self, function: Function) -> None:
        """Adds a function; what stands in one within another is counted in both."""
        assert function.end_lineno
        self.nodes.append(sum(1 for _ in ast.walk(function)))
        self.function_lines += function.end_lineno - function.lineno + 1
        self.complex_functions += complexity(function) > COMPLEX
        for parameter in named_parameters(function):
            self.parameters += 1
            self.untyped_dicts += is_untyped_dict(parameter)
        self.names.update(bound_names(function))

    def figures(self) -> dict[str, float]:
        """The figures, rounded to what a change of one function can move."""
        vague = sum(count for name, count in self.names.items() if name in VAGUE)
        figures = {
            "nodes_per_line": sum(self.nodes) / max(1, self.function_lines),
            "nodes_median": statistics.median(self.nodes or [0]),
            "complex_pct": percent(self.complex_functions, len(self.nodes)),
            "one_word_public_pct": percent(
                self.one_word_functions, self.public_functions
            ),
            "vague_locals_pct": percent(vague, self.names.total()),
            "over_100_columns_pct": percent(self.wide_lines, self.lines),
            "fmt_skips": self.fmt_skips,
            "untyped_dict_params_pct": percent(self.untyped_dicts, self.parameters),
        }
        return {name: round(value, 2) for name, value in figures.items()}


def comments_of(text: str) -> Iterator[str]:
    """The comments of a module."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.string


def named_parameters(function: Function) -> list[ast.arg]:
    """A function's parameters but for self, cls and those with stars."""
    arguments = function.args
    everything = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return [argument for argument in everything if argument.arg not in ("self", "cls")]


def is_untyped_dict(parameter: ast.arg) -> bool:
    """Whether a parameter's type says no more than that it is a mapping."""
    if parameter.annotation is None:
        return False
    annotation = ast.unparse(parameter.annotation)
    if "dict[str, Any]" in annotation or "Mapping[str, Any]" in annotation:
        return True
    return annotation in ("Recipe", "Row", "dict")


def bound_names(function: Function) -> Iterator[str]:
    """The names that a function binds, each as often as it does."""
    for node in ast.walk(function):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.arg):
            yield node.arg


def percent(count: int, total: int) -> float:
    """A share; of nothing it is 0."""
    return 100 * count / max(1, total)


def measure(packages: Iterable[str] = PACKAGES, root: Path = ROOT) -> dict[str, float]:
    """The figures of some packages together."""
    counts = Counts()
    for package in packages:
        for path in sorted((root / package).rglob("*.py")):
            counts.count_file(path.read_text(encoding="utf-8"))
    return counts.figures()


def committed() -> dict[str, float]:
    """The figures that the code is held to."""
    return json.loads(COMMITTED.read_text(encoding="utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="commit to these figures")
    arguments = parser.parse_args()
    figures = measure()
    text = json.dumps(figures, indent=2) + "\n"
    print(text, end="")
    if arguments.write:
        COMMITTED.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
