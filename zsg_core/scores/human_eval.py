"""Prompts for HumanEval, the program in an answer, and pass@k; the programs are run by a sandbox, elsewhere."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import takewhile
from math import comb

from zsg_core.readers.evaluation import Problem
from zsg_core.scores.scoring import ByItem

# Where the function is over and a base model begins something else (Chen et al. 2021, section 2.1).
STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint", "\n```", "\n@")
_FENCED = re.compile(r"```[ \t]*\w*[ \t]*\n(.*?)(?:\n[ \t]*```|\Z)", re.DOTALL)
_CODE_BEGINS = re.compile(r"^(?:(?:import|from|def|async|class)\b|@)", re.MULTILINE)
# A line of a program that is neither indented nor prose.
_CODE = re.compile(r"(?:import|from|def|async|class|if|elif|else|for|while|with|try|except|finally|print)\b"
                   r"|[\w.\[\], ]+=|[\w.]+\(|[@#)\]}\"']")  # fmt: skip


def instruction(problem: Problem) -> str:
    """The prompt for a model that follows instructions; a base model is given `problem.prompt` as it stands.

    DMT does not say how it put the problems to its models; these are the words of lm-evaluation-harness's task
    humaneval_instruct.
    """
    return (
        "Write a solution to the following problem and make sure that it passes the tests:\n"
        f"```python\n{problem.prompt}\n```"
    )


def program(problem: Problem, answer: str) -> str:
    """The Python text that an answer stands for; blanks at its beginning count, so it must not have been stripped.

    An answer that defines the function, in a fenced block or among prose, is the program, after what the prompt
    defines and imports. Any other goes on from the prompt, and is cut where the function is over.
    """
    blocks = _FENCED.findall(answer)
    if defining := next((text for text in (*blocks, answer) if _defines(problem, text)), None):
        # The prompt is a function with a docstring and no more: a program, whose function the answer's replaces.
        return f"{problem.prompt}\n\n{defining if defining in blocks else _without_prose(defining)}\n"
    goes_on = blocks[0] if blocks and not answer[:1].isspace() else answer
    return f"{problem.prompt}{_first_function(goes_on)}\n"


def pass_at_k(samples: int, passed: int, k: int) -> float:
    """1 − C(n − c, k) / C(n, k): the chance that of k of n samples, c of which pass, one does (Chen et al. 2021).

    ValueError where there are fewer samples than k.
    """
    if not 1 <= k <= samples:
        raise ValueError(f"pass@{k} needs at least {k} samples of an item; there are {samples}")
    return 1 - comb(samples - passed, k) / comb(samples, k)


def score(passed: Iterable[tuple[str, bool]], ks: Sequence[int] = (1,)) -> dict[str, ByItem]:
    """(item id, whether it passed) of every sample → `humaneval/pass_at_k` of each item, × 100.

    MLflow takes no `@` in the name of a metric.
    """
    samples: dict[str, list[bool]] = defaultdict(list)
    for item, did in passed:
        samples[item].append(did)
    return {
        f"humaneval/pass_at_{k}": {item: 100 * pass_at_k(len(dids), sum(dids), k) for item, dids in samples.items()}
        for k in ks
    }


def _defines(problem: Problem, text: str) -> bool:
    return re.search(rf"^(?:async )?def {re.escape(problem.entry_point)}\b", text, re.MULTILINE) is not None


def _without_prose(text: str) -> str:
    """From the first line of code to the first that is none."""
    begins = _CODE_BEGINS.search(text)
    lines = text[begins.start() if begins else 0 :].split("\n")
    is_code = (not line or line[0].isspace() or _CODE.match(line) is not None for line in lines)
    return "\n".join(line for line, _ in takewhile(lambda pair: pair[1], zip(lines, is_code, strict=True)))


def _first_function(text: str) -> str:
    ends = [found for stop in STOPS if (found := text.find(stop)) >= 0]
    return text[: min(ends, default=len(text))]
