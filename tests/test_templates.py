"""Does every shipped grid plan cleanly once its data are there?"""

import re
from pathlib import Path

import pytest
from conftest import Zsg

ROOT = Path(__file__).resolve().parent.parent
TEMPLATES = sorted((ROOT / "templates").rglob("*.yaml"))
GRIDS = [path for path in TEMPLATES if path.parent.name != "cluster_profiles"]


@pytest.mark.parametrize("path", GRIDS, ids=lambda path: str(path.relative_to(ROOT / "templates")))
def test_a_template_plans_cleanly(path: Path, zsg: Zsg, tasks: Path) -> None:
    """Every run of it would be submitted; nothing is merged, left out without effect, or warned of."""
    text, found = re.subn(r"\bpath: [\w/-]+", f"path: {tasks}", path.read_text(encoding="utf-8"))
    planned = zsg("plan", zsg.write(path.name, text))

    assert found == 1 + ("# path: " in text)
    assert re.search(r": \d+ submit$", planned.strip())
    assert "note: " not in zsg.said


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: str(path.relative_to(ROOT / "templates")))
def test_a_template_is_described(path: Path) -> None:
    """The table of templates/README.md names every file, and every template says what it is in its first lines."""
    readme = (ROOT / "templates/README.md").read_text(encoding="utf-8")

    assert f"| `{path.relative_to(ROOT / 'templates')}` |" in readme
    assert path.read_text(encoding="utf-8").startswith("# ")
