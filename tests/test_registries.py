"""Is a new order, metric or format of data one module with one decorator, whose name
settings, recipes, plan and jobs then know?"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from zsg_core.registry import Registry

ORDER = '''
"""The order of names backwards."""
from zsg_core.orders.registry import Arranged, order
from pydantic import Field

@order(
    "backwards",
    about="the last first",
    parameters={"step": (int | None, Field(default=None, ge=1, description="every so many"))},
)
def arrange_backwards(inputs):
    return Arranged(list(range(len(inputs.tasks)))[:: -inputs.recipe.get("step", 1)])
'''
METRIC = '''
"""How many words an answer has."""
from zsg_core.metrics.registry import metric
from zsg_core.metrics.scoring import mean_by_item

@metric("words", definitions={"words": {"blanks": "all"}})
def count_words(answers):
    return {"words": mean_by_item((one.id, len(one.answer.split())) for one in answers)}
'''
READER = '''
"""Rows of a riddle and its solution."""
import msgspec
from zsg_core.data.examples import Example
from zsg_core.data.readers.format import row_reader
from zsg_core.data.readers.keys import RowKeys

class Riddle(RowKeys, gc=False):
    riddle: str
    solution: str

@row_reader("riddles", "riddles: riddle and solution", Riddle)
def parse_row(row, name, intake):
    turn = row.riddle, row.solution
    return [Example(id=intake.next_id("riddles"), task="riddles", turns=(turn,))]
'''
# What a fresh process does with modules that lie in a folder of its own.
USE = """
import json, sys
import zsg_core.orders, zsg_core.metrics, zsg_core.data.readers
folder = sys.argv[1]
zsg_core.orders.__path__.append(f"{folder}/orders")
zsg_core.metrics.__path__.append(f"{folder}/metrics")
zsg_core.data.readers.__path__.append(f"{folder}/readers")

from pathlib import Path
from zsg_core import recipe, suites
from zsg_core.data import readers
from zsg_core.data.readers.intake import Intake
from zsg_core.metrics import metrics
from zsg_core.metrics.scoring import Answered
from zsg_core.orders.arrange import arrange_items
from zsg_core.settings.run import Settings

path = f"{folder}/riddles.jsonl"
data = {"set": "riddles", "path": path, "test_set": "riddles", "test_path": path}
asked = Settings.model_validate({
    "data": data,
    "arrangement": {"order": "backwards", "step": 2},
    "checkpoints": {"metrics": ["loss", "words"], "snapshots": 5},
})
digests = recipe.InputDigests(sources={"": recipe.SourceDigests(data="d", test="t")})
made = recipe.make_recipe(asked, digests)
arrangement = made["stages"][-1]["arrangement"]
[suite] = suites.select_suites(asked.checkpoints, {})
answers = [Answered(id="a", task="t", prompt="p", answer="one two three")]
print(json.dumps({
    "reader": made["stages"][-1]["data"]["reader"],
    "arrangement": arrangement,
    "places": arrange_items(arrangement, ["t"] * 5, None, None).places,
    "examples": [one.turns for one in readers.read_examples("riddles", Path(path), Intake())],
    "keys": suite.keys,
    "way": suite.scored_by,
    "values": metrics.score_answers(["words"], answers).values,
    "needs embedding": recipe.uses_embedding(asked),
}))
"""


def test_one_module_with_one_decorator_is_enough(tmp_path: Path) -> None:
    """A module in the folder of its kind, and nothing else: a grid may ask for it, its
    setting enters the id, and jobs read, order and score by it."""
    for kind, text in {"orders": ORDER, "metrics": METRIC, "readers": READER}.items():
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "new_one.py").write_text(text)
    (tmp_path / "riddles.jsonl").write_text(
        json.dumps({"riddle": "What has keys?", "solution": "A piano."}) + "\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", USE, str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "reader": "riddles",
        "arrangement": {"order": "backwards", "step": 2},
        "places": [4, 2, 0],
        "examples": [[["What has keys?", "A piano."]]],
        "keys": ["words"],
        "way": {"words": {"blanks": "all"}},
        "values": {"words": 3.0},
        "needs embedding": False,
    }


def test_a_name_that_is_taken_is_refused() -> None:
    """Two modules must not mean different things by one name."""
    registry: Registry[int] = Registry("order", "zsg_core.orders")
    registry.add("new", 1)
    with pytest.raises(ValueError, match="order 'new' exists already"):
        registry.add("new", 2)
