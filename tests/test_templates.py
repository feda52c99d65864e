"""Does every shipped grid plan cleanly once its data are there?"""

import gzip
import json
import re
from pathlib import Path

import pytest
from conftest import Zsg

ROOT = Path(__file__).resolve().parent.parent
TEMPLATES = sorted((ROOT / "templates").rglob("*.yaml"))
GRIDS = [path for path in TEMPLATES if path.parent.name != "cluster_profiles"]


ROWS = {  # of the files that templates name
    "gsm8k-rft.jsonl": {"question": "1 + 1?", "answer": "#### 2"},
    "gsm8k-test.jsonl": {"question": "1 + 2?", "answer": "#### 3"},
    "code_alpaca_20k.json": {"instruction": "Print 1.", "input": "", "output": "print(1)"},
    "sharegpt.json": {"conversations": [{"from": "human", "value": "Hi."}, {"from": "gpt", "value": "Hello."}]},
    "HumanEval.jsonl.gz": {"task_id": "t", "prompt": "p", "canonical_solution": "s", "entry_point": "e", "test": "x"},
}


@pytest.mark.parametrize("path", GRIDS, ids=lambda path: str(path.relative_to(ROOT / "templates")))
def test_a_template_plans_cleanly(path: Path, zsg: Zsg, tasks: Path) -> None:
    """Every run of it would be submitted; nothing is merged, left out without effect, or warned of."""
    text = path.read_text(encoding="utf-8")
    for name, row in ROWS.items():
        write = gzip.open if name.endswith(".gz") else open
        with write(zsg.folder / name, "wt") as file:
            file.write(json.dumps(row) + "\n")
    text = re.sub(r"\bpath: [\w/-]+(?=[,}\s])", f"path: {tasks}", text)  # a folder; a file has a suffix
    planned = zsg("plan", zsg.write(path.name, text))

    assert re.search(r": \d+ submit(, \d+ stages before them)?$", planned.strip())
    assert "note: " not in zsg.said


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: str(path.relative_to(ROOT / "templates")))
def test_a_template_is_described(path: Path) -> None:
    """The table of templates/README.md names every file, and every template says what it is in its first lines."""
    readme = (ROOT / "templates/README.md").read_text(encoding="utf-8")

    assert f"| `{path.relative_to(ROOT / 'templates')}` |" in readme
    assert path.read_text(encoding="utf-8").startswith("# ")
