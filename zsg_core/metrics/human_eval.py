"""Prompts for HumanEval, the program in an answer, and pass@k; the programs are run by
a sandbox, elsewhere.

The program in an answer is found by what Python's own parser takes, never by how a line
looks: see `extract_program`.
"""

import ast
import re
import warnings
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import comb

from zsg_core.data.readers.evaluation import Problem
from zsg_core.metrics.registry import HUMANEVAL, add_metric
from zsg_core.metrics.scoring import ByItem

# Where the function is over and a base model begins something else (Chen et al. 2021, section 2.1).
STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
DEFINITION = {
    "program": "the longest part that parses"
}  # an older zsg went by how lines look
# the k that Chen et al. 2021 report
PASS_AT = {f"humaneval/pass_at_{k}": k for k in (1, 10, 100)}
# of an answer that are looked through; no program of HumanEval has a tenth of that
MOST_LINES = 300
_ENDS = (*STOPS, "\n```", "\n@")
# A fence may stand within a list or after words, and close at the end of a line of code.
_FENCED = re.compile(
    r"^(?P<before>[^\n`]*)(?P<fence>`{3,}|~{3,})[^\n`]*\n(?P<code>.*?)(?:(?P=fence)|\Z)",
    re.DOTALL | re.MULTILINE,
)
_LEADING = re.compile(r"^[ \t]+", re.MULTILINE)
_TABBED = re.compile(r"^ *\t", re.MULTILINE)
_Function = ast.FunctionDef | ast.AsyncFunctionDef

for _name, _k in PASS_AT.items():  # where there is a sandbox
    add_metric(_name, HUMANEVAL, suite=HUMANEVAL, definition=DEFINITION, samples=_k)


def build_instruction(problem: Problem) -> str:
    """The prompt for a model that follows instructions; a base model is given
    `problem.prompt` as it stands.

    DMT does not say how it put the problems to its models; these are the words of
    lm-evaluation-harness's task humaneval_instruct.
    """
    return (
        "Write a solution to the following problem and make sure that it passes the tests:\n"
        f"```python\n{problem.prompt}\n```"
    )


def extract_program(problem: Problem, answer: str) -> str:
    """The Python text that an answer stands for; blanks at its beginning count, so it
    must not have been stripped.

    An answer that begins indented goes on from the prompt, and is cut where the
    function is over: what a base model writes after that, often the function again, is
    not of its answer. Of any other answer the parts that parse are looked at: its
    fenced blocks, else the longest runs of lines that Python takes. The first part that
    defines the function, with more than a docstring, is the program, after what the
    prompt defines and imports; imports, functions and classes of other parts stand
    before it, and so do constants that come first. An answer that defines it nowhere
    goes on from the prompt, too.
    """
    text = answer.replace("\r\n", "\n").replace("\r", "\n").removeprefix("\ufeff")
    continuation = _until_over(problem, text)
    continued = f"{problem.prompt}{continuation}\n"
    if _begins_with_body(problem, text, continuation):
        return continued
    blocks = _blocks(text)
    try:
        program = _find_program(problem, blocks, text)
    except RecursionError:  # so deep that no person wrote it
        return continued
    if program is not None:
        return program
    body = _find_fenced_body(blocks)
    if body is None or _begins_indented(text):
        return continued
    return f"{problem.prompt}{_until_over(problem, body)}\n"


def pass_at_k(samples: int, passed: int, k: int) -> float:
    """1 − C(n − c, k) / C(n, k): the chance that of k of n samples, c of which pass,
    one does (Chen et al. 2021).

    ValueError where there are fewer samples than k.
    """
    if not 1 <= k <= samples:
        raise ValueError(
            f"pass@{k} needs at least {k} samples of an item; there are {samples}"
        )
    return 1 - comb(samples - passed, k) / comb(samples, k)


def score_samples(
    passed: Iterable[tuple[str, bool]], ks: Sequence[int] = (1,)
) -> dict[str, ByItem]:
    """(item id, whether it passed) of every sample → `humaneval/pass_at_k` of each item, × 100.

    MLflow takes no `@` in the name of a metric.
    """
    samples: dict[str, list[bool]] = defaultdict(list)
    for item, did in passed:
        samples[item].append(did)
    return {
        f"humaneval/pass_at_{k}": {
            item: 100 * pass_at_k(len(dids), sum(dids), k)
            for item, dids in samples.items()
        }
        for k in ks
    }


def _begins_with_body(problem: Problem, text: str, continuation: str) -> bool:
    """Whether an answer goes on from the prompt with the function's body, and is no
    indented program of its own."""
    return (
        _begins_indented(text)
        and not _is_indented_program(problem, text)
        and _is_written(problem, continuation)
    )


def _find_program(problem: Problem, blocks: Sequence[str], text: str) -> str | None:
    """The program in an answer's fenced blocks, else in all its text; None where neither
    defines the function. RecursionError for code that is too deep."""
    fenced_runs = [run for block in blocks for run in _runs(block)]
    all_runs = _runs(text)
    return _assemble_program(problem, fenced_runs) or _assemble_program(
        problem, all_runs
    )


def _find_fenced_body(blocks: Sequence[str]) -> str | None:
    """The first fenced block that goes on from the prompt."""
    return next((block for block in blocks if _begins_indented(block)), None)


def _begins_indented(text: str) -> bool:
    """Whether its first line that is not blank is indented, and no fence."""
    first = next((line for line in text.split("\n") if line.strip()), "")
    return first[:1] in (" ", "\t") and not first.lstrip().startswith("```")


def _blocks(text: str) -> list[str]:
    """What stands in fences, without the indent that it has from a list."""
    blocks = []
    for fenced in _FENCED.finditer(text):
        code = fenced["code"]
        indent = min(
            (
                len(line) - len(line.lstrip())
                for line in code.split("\n")
                if line.strip()
            ),
            default=0,
        )
        is_listed = not fenced["before"].strip() or re.fullmatch(
            r"\s*(?:[-*+>]|\w+[.)])\s*", fenced["before"]
        )
        less = min(indent, len(fenced["before"])) if is_listed else 0
        blocks.append("\n".join(line[less:] for line in code.split("\n")))
    return blocks


def _is_written(problem: Problem, continuation: str) -> bool:
    """Whether prompt and continuation parse, and the continuation gives the function a body."""
    tree = _tree(problem.prompt + continuation)
    definitions = (
        [node for node in tree.body if _defines(problem, node)] if tree else []
    )
    return bool(definitions) and not _is_stub(definitions[-1])


def _is_indented_program(problem: Problem, text: str) -> bool:
    """Whether the function stands there whole, only that all of it is indented, as code
    in a list may be."""
    tree = _tree(_indented_block(text.lstrip("\n").split("\n")))
    return tree is not None and any(_defines(problem, node) for node in tree.body)


def _indented_block(lines: Sequence[str]) -> str:
    """The lines up to the first that is not indented as the first is, without that indent."""
    indent = lines[0][: len(lines[0]) - len(lines[0].lstrip())]
    within = []
    for line in lines:
        if line.strip() and not line.startswith(indent):
            break
        within.append(line.removeprefix(indent))
    return "\n".join(within)


def _until_over(problem: Problem, text: str) -> str:
    """What goes on from the prompt, up to where the function is over.

    That is a stop of Chen et al.; of what is left, lines at its end that are not
    indented are prose if the rest parses only without them.
    """
    ends = [position for stop in _ENDS if (position := text.find(stop)) >= 0]
    cut = text[: min(ends, default=len(text))]
    if _parses(problem.prompt + cut):
        return cut
    # The prompts are indented by blanks. Python takes no tab beside them, an editor would.
    cut = (
        _LEADING.sub(lambda match: match[0].expandtabs(4), cut)
        if _TABBED.search(cut)
        else cut
    )
    begins = [match.start() for match in re.finditer(r"\n(?=\S)", cut)]
    return next(
        (
            cut[:at]
            for at in [len(cut), *reversed(begins)]
            if _parses(problem.prompt + cut[:at])
        ),
        cut,
    )


def _runs(text: str) -> list[str]:
    """The parts of a text that Python takes: from each line on as many as parse
    together, and then on after them.

    Lines that are indented where no code stands before them are taken without their indent.
    """
    lines, runs, at = text.split("\n")[:MOST_LINES], [], 0
    while at < len(lines):
        if not lines[at].strip():
            at += 1
            continue
        if lines[at][0] in " \t":
            block = _indented_block(lines[at:])
            runs += _runs(block)
            at += block.count("\n") + 1
            continue
        count = _longest(lines[at:])
        if count:
            runs.append("\n".join(lines[at : at + count]))
        at += max(count, 1)
    return runs


def _longest(lines: Sequence[str]) -> int:
    """With how many of the lines, from the first on, a text has the most that parses; 0
    if not even one does.

    An error stays whatever follows its line, so what is longer than up to there need not be tried.
    """
    count = len(lines)
    while count:
        try:
            _compile("\n".join(lines[:count]))
            return count
        except SyntaxError as error:
            # In a string of its own, as f-strings have, or at the end of the text, a
            # line number says nothing.
            is_within = (
                error.filename == _NAME
                and error.lineno is not None
                and 0 < error.lineno <= count
            )
            count = (
                error.lineno - 1
                if is_within and error.lineno is not None
                else count - 1
            )
        except (ValueError, RecursionError, MemoryError):
            count -= 1
    return 0


@dataclass(frozen=True)
class _Run:
    """Lines of an answer that Python takes, and their syntax tree."""

    text: str
    tree: ast.Module

    @property
    def statements(self) -> list[ast.stmt]:
        return self.tree.body


def _assemble_program(problem: Problem, texts: Sequence[str]) -> str | None:
    """The program of parts of an answer, one of which defines the function; None where
    none does.

    What has no effect but to fail is left out, a word of prose or an annotation that
    Python happens to take, and so is the function where it is defined again.
    """
    runs = _parse_runs(texts)
    chosen = _choose_defining_run(problem, runs)
    if chosen is None:
        return None
    statements = runs[chosen].statements
    body = _once(problem, [node for node in statements if not _does_nothing(node)])
    helpers = _collect_helpers(problem, runs, chosen)
    prompt = _complete_prompt(problem)
    is_unchanged = (
        not helpers
        and len(body) == len(statements)
        and not any(_is_future(node) for node in body)
    )
    if is_unchanged:
        return f"{prompt}\n\n{runs[chosen].text}\n"
    return _join_statements(prompt, [*helpers, *body])


def _parse_runs(texts: Sequence[str]) -> list[_Run]:
    """The texts that are programs, parsed."""
    parsed = [(text, _tree(text)) for text in texts]
    return [_Run(text, tree) for text, tree in parsed if tree is not None]


def _choose_defining_run(problem: Problem, runs: Sequence[_Run]) -> int | None:
    """Which run is the program: the first that defines the function with more than a
    docstring, else the first that defines it; None where none does."""
    defining: list[int] = []
    for number, run in enumerate(runs):
        definitions = [node for node in run.statements if _defines(problem, node)]
        if any(not _is_stub(node) for node in definitions):
            return number
        if definitions:
            defining.append(number)
    return defining[0] if defining else None


def _collect_helpers(
    problem: Problem, runs: Sequence[_Run], chosen: int
) -> list[ast.stmt]:
    """What the chosen run may need of the other runs, in their order."""
    return [
        node
        for number, run in enumerate(runs)
        if number != chosen
        for node in run.statements
        if not _defines(problem, node) and _is_of_use(node, is_before=number < chosen)
    ]


def _complete_prompt(problem: Problem) -> str:
    """The prompt as a program: one that ends where a body must follow gets an empty one."""
    if _parses(problem.prompt):
        return problem.prompt
    return f"{problem.prompt}    pass\n"


def _join_statements(prompt: str, statements: Sequence[ast.stmt]) -> str:
    """The text of prompt and statements; imports of `__future__` must come first."""
    future = [ast.unparse(node) for node in statements if _is_future(node)]
    after = [ast.unparse(node) for node in statements if not _is_future(node)]
    return "\n\n".join([*future, prompt, *after]) + "\n"


def _once(problem: Problem, body: list[ast.stmt]) -> list[ast.stmt]:
    """The statements without the function where it is said again; the first that is
    more than a stub stays."""
    definitions = [
        node for node in body if isinstance(node, _Function) and _defines(problem, node)
    ]
    first_written = next(
        (node for node in definitions if not _is_stub(node)),
        definitions[0] if definitions else None,
    )
    return [node for node in body if node is first_written or node not in definitions]


def _defines(problem: Problem, node: ast.stmt) -> bool:
    """Whether a statement gives the function's name a value."""
    name = problem.entry_point
    if isinstance(node, _Function):
        return node.name == name
    if isinstance(node, ast.Assign):
        return any(
            isinstance(target, ast.Name) and target.id == name
            for target in node.targets
        )
    if isinstance(node, ast.AnnAssign):
        return (
            node.value is not None
            and isinstance(node.target, ast.Name)
            and node.target.id == name
        )
    return False


def _is_stub(node: ast.stmt) -> bool:
    """Whether a function has a docstring, `pass` or `...` and nothing else: the prompt
    said once more."""
    if not isinstance(node, _Function):
        return False
    return all(
        isinstance(statement, ast.Pass)
        or (
            isinstance(statement, ast.Expr)
            and isinstance(statement.value, ast.Constant)
        )
        for statement in node.body
    )


def _does_nothing(node: ast.stmt) -> bool:
    """Whether a statement is an expression without a call, or an annotation without a value."""
    if isinstance(node, ast.AnnAssign):
        return node.value is None
    return isinstance(node, ast.Expr) and not any(
        isinstance(inner, ast.Call | ast.Await) for inner in ast.walk(node)
    )


def _is_of_use(node: ast.stmt, is_before: bool) -> bool:
    """Whether the function may need what another part holds: imports, definitions, and
    constants that come first."""
    if isinstance(node, ast.Import | ast.ImportFrom | ast.ClassDef | _Function):
        return True
    return (
        is_before
        and isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign)
        and not _does_nothing(node)
    )


def _is_future(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"


_NAME = "<answer>"


def _compile(text: str) -> None:
    """SyntaxError, or ValueError, RecursionError or MemoryError of a text that no
    parser takes. Runs nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the model's own code
        compile(text, _NAME, "exec", dont_inherit=True)


def _parses(text: str) -> bool:
    return _tree(text) is not None


def _tree(text: str) -> ast.Module | None:
    """What a text is as a program; None where it is none."""
    try:
        _compile(text)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
