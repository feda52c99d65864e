"""Is the program in an answer found, and is pass@k that of the paper?"""

from itertools import combinations
from pathlib import Path

import pytest

from zsg_core.data.readers.evaluation import Problem, read_problems
from zsg_core.data.readers.intake import Intake
from zsg_core.metrics import human_eval

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
        pytest.param(
            "    return 2 * x\n\ndef other():\n    pass",
            "    return 2 * x\n",
            id="goes on too long",
        ),
        pytest.param(
            "    return 2 * x\n```\nIt doubles.\n```\n1\n```",
            "    return 2 * x",
            id="a fence closes",
        ),
        pytest.param(
            "```python\n    return 2 * x\n```\nDone.",
            "    return 2 * x",
            id="a fenced body",
        ),
        pytest.param(
            f"Sure!\n```python\n{WHOLE}\n```\nDone.",
            f"\n\n{WHOLE}",
            id="a fenced function",
        ),
        pytest.param(
            f"```\nprint(1)\n```\n```py\n{WHOLE}\n```",
            f"\n\n{WHOLE}",
            id="the block that defines it",
        ),
        pytest.param(
            f"```python\n{WHOLE}", f"\n\n{WHOLE}", id="a fence that never closes"
        ),
        pytest.param(
            f"Here it is:\n{WHOLE}\nThis doubles x.",
            f"\n\n{WHOLE}",
            id="a function among prose",
        ),
        pytest.param(
            f"from math import *\n{WHOLE}\nprint(1)",
            f"\n\nfrom math import *\n{WHOLE}\nprint(1)",
            id="a program",
        ),
        pytest.param("", "", id="nothing"),
        pytest.param("Return 2 * x.", "Return 2 * x.", id="prose alone"),
    ],
)
def test_the_program_in_an_answer_is_found(answer: str, written: str) -> None:
    """What defines the function replaces it; anything else goes on from the prompt."""
    assert (
        human_eval.extract_program(PROBLEM, answer).rstrip()
        == (PROMPT + written).rstrip()
    )


SMALL = Problem(
    task_id="t/1",
    prompt='def double(x: int) -> int:\n    """ Twice x. """\n',
    entry_point="double",
    canonical_solution="    return 2 * x\n",
    test="",
)
BODY, DEF = "    return 2 * x\n", "def double(x):\n    return 2 * x\n"
FENCED = f"```python\n{DEF}```\n"
RIGHT = {
    # goes on from the prompt
    "a body": BODY,
    "a body and the prompt again": f"{BODY}\n\n{SMALL.prompt}",
    "a body and the prompt cut within its docstring": f"{BODY}\n\n{SMALL.prompt[:-6]}",
    "a body and the function written otherwise": f"{BODY}\n\ndef double(x):\n    return 3 * x\n",
    "a body, a print, and the function": (
        f"{BODY}\nprint(double(3))\n\ndef double(x):\n    return 3 * x\n"
    ),
    "a body after blank lines": f"\n\n{BODY}",
    "a body and prose": f"{BODY}\nThis doubles x.",
    "a body with carriage returns": BODY.replace("\n", "\r\n"),
    "a body with tabs": "\tif x:\n\t\treturn 2 * x\n\treturn 0\n",
    "a body with a helper in it": (
        "    def twice(y):\n        return 2 * y\n\n    return twice(x)\n"
    ),
    # a program without a fence
    "a function": DEF,
    "constants first": f"FACTOR: int = 1\nFACTOR += 1\n\n{DEF.replace('2', 'FACTOR')}",
    "a decorator": f"Cached:\n\nfrom functools import cache\n\n@cache\n{DEF}Done.",
    "from __future__": f"Here:\nfrom __future__ import annotations\n{DEF}",
    "prose that holds an equals sign": f"{DEF}\nSo x = 3 gives 6.\n",
    "prose of one word, which parses": f"Sure\n\n{DEF}\nDone\n",
    "prose that parses as an annotation": f"Answer: x\n{DEF}",
    "prose with an apostrophe and a bracket": f"Here's how (see below:\n{DEF}That's it.",
    "the prompt with its body": SMALL.prompt + BODY,
    "the prompt with its body, and the prompt again": f"{SMALL.prompt}{BODY}\n\n{SMALL.prompt}",
    "the prompt, then the function": f"{SMALL.prompt}\n{DEF}",
    "the function again after prose": f"{DEF}\nIn short:\n\ndef double(x):\n    return 3 * x\n",
    "an async helper": f"async def wait():\n    pass\n\n{DEF}",
    "a lambda": "double = lambda x: 2 * x\n",
    "an indented block": "Here:\n\n    def double(x):\n        return 2 * x\n\nDone.",
    "a later function that is cut": f"{DEF}\ndef main():\n    print(",
    # a program in fences
    "a fenced body after a line break": f"\n```python\n{BODY}```\n",
    "a fence in a list": "1. Code:\n   ```python\n   def double(x):\n       return 2 * x\n   ```\n",
    "a fenced body in a list": "1. Code:\n   ```python\n       return 2 * x\n   ```\n",
    "a fence after words": f"Answer: {FENCED}",
    "a fence that closes at the end of a line": f"```python\n{DEF.rstrip()}```",
    "a fence of tildes": f"~~~python\n{DEF}~~~",
    "ticks before the fence": f"Use ```double``` so:\n{FENCED}",
    "carriage returns": FENCED.replace("\n", "\r\n"),
    "a fenced from __future__": FENCED.replace(
        "def", "from __future__ import annotations\ndef"
    ),
    "an import in a block of its own": (
        f"```python\nimport math\n```\n{FENCED.replace('2 * x', 'math.floor(2 * x)')}"
    ),
    "a helper in a later block": (
        f"{FENCED.replace('2 * x', 'two(x)')}with\n```\ndef two(x):\n    return 2 * x\n```"
    ),
    "a block of use before": f"```python\nprint(double(3))\n```\n{FENCED}",
    "the prompt in a block, then the function": f"```python\n{SMALL.prompt}```\nThen\n{FENCED}",
    "a comment, then a fence": f"    # the code\n{FENCED}",
}


@pytest.mark.parametrize(
    "answer", [pytest.param(answer, id=name) for name, answer in RIGHT.items()]
)
def test_a_right_program_is_found_however_it_is_written(answer: str) -> None:
    """As a reader would copy it: what the answer's own text defines doubles a number."""
    space: dict = {}
    exec(human_eval.extract_program(SMALL, answer), space)

    assert space["double"](3) == 6


def test_a_wrong_body_stays_wrong() -> None:
    """Nothing that follows the function makes it right, and nothing of it is mended."""
    for answer in (
        "    return 3 * x\n\n\n" + DEF,
        "    return 2 *\n\n" + DEF.replace("2", "3"),
        "def double(x):\n    return 2 *",
    ):
        space: dict = {}
        try:
            exec(human_eval.extract_program(SMALL, answer), space)
            assert space["double"](3) != 6
        except SyntaxError:
            pass


@pytest.mark.parametrize(
    "text",
    [
        "(\n" * 60,
        "-" * 100_000,
        "(" * 5000,
        "\0",
        "\ud800",
        '"""\n' * 51,
        "if 1:\n" * 200,
    ],
)
def test_no_text_stops_the_scorer(text: str) -> None:
    """Whatever a parser makes of it, a program comes back."""
    assert SMALL.prompt in human_eval.extract_program(SMALL, text)


@pytest.mark.data
@pytest.mark.parametrize("again", [False, True])
def test_reference_solutions_define_their_functions(
    real_data: Path, again: bool
) -> None:
    """All 164, also where the prompt follows again, as a base model goes on: the
    solution is what the program runs."""
    for problem in read_problems(real_data / "humaneval", Intake()):
        made = human_eval.extract_program(
            problem, problem.canonical_solution + ("\n\n" + problem.prompt) * again
        )
        compile(made, "program.py", "exec")

        assert made.startswith(problem.prompt + problem.canonical_solution.rstrip())
        assert made.count(f"def {problem.entry_point}(") == 1


@pytest.mark.data
def test_reference_solutions_are_whole_programs(real_data: Path) -> None:
    """Of none of the 164 anything is cut."""
    for problem in read_problems(real_data / "humaneval", Intake()):
        made = human_eval.extract_program(problem, problem.canonical_solution)

        assert made.rstrip() == (problem.prompt + problem.canonical_solution).rstrip()


@pytest.mark.parametrize(
    ("samples", "passed", "k"),
    [(5, 2, 1), (5, 2, 3), (6, 0, 2), (4, 4, 2), (4, 3, 2), (1, 1, 1)],
)
def test_pass_at_k_is_the_share_of_draws_with_a_pass(
    samples: int, passed: int, k: int
) -> None:
    """Of all ways to draw k of n samples, those with at least one of the c that passed."""
    draws = [
        any(one < passed for one in drawn) for drawn in combinations(range(samples), k)
    ]

    assert human_eval.pass_at_k(samples, passed, k) == pytest.approx(
        sum(draws) / len(draws)
    )


def test_a_pass_at_more_than_the_samples_is_refused() -> None:
    """Else it would be the pass at fewer, under a wrong name."""
    with pytest.raises(ValueError, match="pass@2 needs at least 2 samples"):
        human_eval.score_samples([("a", True)], ks=(1, 2))


def test_items_are_scored_by_their_samples() -> None:
    """In per cent, for each k asked for."""
    found = human_eval.score_samples(
        [("a", True), ("b", False), ("a", False), ("b", False)], ks=(1, 2)
    )

    assert found == {
        "humaneval/pass_at_1": {"a": 50, "b": 0},
        "humaneval/pass_at_2": {"a": 100, "b": 0},
    }


def test_the_instruction_holds_the_prompt() -> None:
    """A fenced block with the function to be written."""
    assert f"```python\n{PROMPT}\n```" in human_eval.build_instruction(PROBLEM)
