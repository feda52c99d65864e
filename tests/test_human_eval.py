"""Is the program in an answer found, and is pass@k that of the paper?"""

from itertools import combinations
from pathlib import Path

import pytest

from zsg_core.readers.evaluation import Problem, problems
from zsg_core.readers.intake import Intake
from zsg_core.scores import human_eval

PROMPT = 'import math\n\n\ndef double(x: int) -> int:\n    """ Twice x. """\n'
PROBLEM = Problem(
    task_id="t/0",
    prompt=PROMPT,
    entry_point="double",
    canonical_solution="    return 2 * x\n",
    test="def check(candidate):\n    assert candidate(3) == 6\n",
)
WHOLE = "def double(x):\n    y = math.floor(x)\n\n    return 2 * y"


@pytest.mark.parametrize(
    ("answer", "written"),
    [
        pytest.param("    return 2 * x\n", "    return 2 * x\n", id="goes on"),
        pytest.param("    return 2 * x\n\ndef other():\n    pass", "    return 2 * x\n", id="goes on too long"),
        pytest.param("    return 2 * x\n```\nIt doubles.\n```\n1\n```", "    return 2 * x", id="a fence closes"),
        pytest.param("```python\n    return 2 * x\n```\nDone.", "    return 2 * x", id="a fenced body"),
        pytest.param(f"Sure!\n```python\n{WHOLE}\n```\nDone.", f"\n\n{WHOLE}", id="a fenced function"),
        pytest.param(f"```\nprint(1)\n```\n```py\n{WHOLE}\n```", f"\n\n{WHOLE}", id="the block that defines it"),
        pytest.param(f"```python\n{WHOLE}", f"\n\n{WHOLE}", id="a fence that never closes"),
        pytest.param(f"Here it is:\n{WHOLE}\nThis doubles x.", f"\n\n{WHOLE}", id="a function among prose"),
        pytest.param(f"from math import *\n{WHOLE}\nprint(1)", f"\n\nfrom math import *\n{WHOLE}\nprint(1)",
                     id="a program"),
        pytest.param("", "", id="nothing"),
        pytest.param("Return 2 * x.", "Return 2 * x.", id="prose alone"),
    ],
)  # fmt: skip
def test_the_program_in_an_answer_is_found(answer: str, written: str) -> None:
    """What defines the function replaces it; anything else goes on from the prompt."""
    assert human_eval.program(PROBLEM, answer).rstrip() == (PROMPT + written).rstrip()


@pytest.mark.data
def test_reference_solutions_are_whole_programs(real_data: Path) -> None:
    """Of none of the 164 anything is cut."""
    for problem in problems(real_data / "humaneval", Intake()):
        made = human_eval.program(problem, problem.canonical_solution)

        assert made.rstrip() == (problem.prompt + problem.canonical_solution).rstrip()


@pytest.mark.parametrize(("samples", "passed", "k"), [(5, 2, 1), (5, 2, 3), (6, 0, 2), (4, 4, 2), (4, 3, 2), (1, 1, 1)])
def test_pass_at_k_is_the_share_of_draws_with_a_pass(samples: int, passed: int, k: int) -> None:
    """Of all ways to draw k of n samples, those with at least one of the c that passed."""
    draws = [any(one < passed for one in drawn) for drawn in combinations(range(samples), k)]

    assert human_eval.pass_at_k(samples, passed, k) == pytest.approx(sum(draws) / len(draws))


def test_a_pass_at_more_than_the_samples_is_refused() -> None:
    """Else it would be the pass at fewer, under a wrong name."""
    with pytest.raises(ValueError, match="pass@2 needs at least 2 samples"):
        human_eval.score([("a", True)], ks=(1, 2))


def test_items_are_scored_by_their_samples() -> None:
    """In per cent, for each k asked for."""
    found = human_eval.score([("a", True), ("b", False), ("a", False), ("b", False)], ks=(1, 2))

    assert found == {"humaneval/pass_at_1": {"a": 50, "b": 0}, "humaneval/pass_at_2": {"a": 100, "b": 0}}


def test_the_instruction_holds_the_prompt() -> None:
    """A fenced block with the function to be written."""
    assert f"```python\n{PROMPT}\n```" in human_eval.instruction(PROBLEM)
