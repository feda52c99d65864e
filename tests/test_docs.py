"""Do the pages of docs/ hold together? Links, anchors, words, causes and examples are tried."""

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from jsonschema import Draft7Validator
from ruamel.yaml import YAML

from jobs.contract.causes import Cause
from jobs.contract.states import ShownState
from launcher.clusters import profiles
from launcher.grids import grid, json_schema, key_reference
from launcher.lifecycle.retry import MOST
from launcher.reporting.data import claims_between
from tests.lib.command_line import Zsg
from zsg_core.orders.registry import ORDERS

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
BESIDE = [
    ROOT / name
    for name in (
        "README.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "CHANGELOG.md",
        "templates/README.md",
        "cluster_profiles/README.md",
    )
]
MOST_README_WORDS = 900
FENCE = re.compile(r"^( *)```.*?^\1```", re.S | re.M)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def name_of(path: Path) -> str:
    """A document's path in the repository, as the name of a test."""
    return str(path.relative_to(ROOT))


@cache
def prose_of(path: Path) -> str:
    """A document without its fenced blocks."""
    return FENCE.sub("", path.read_text(encoding="utf-8"))


@cache
def anchors_of(path: Path) -> frozenset[str]:
    """The anchors that a code host gives to a document's headings."""
    anchors: dict[str, int] = {}
    for heading in re.findall(r"^#{1,6} +(.+?) *$", prose_of(path), re.M):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        repeated = anchors.get(slug, 0)
        anchors[slug] = repeated + 1
        if repeated:
            anchors[f"{slug}-{repeated}"] = 1
    return frozenset(anchors)


@pytest.mark.parametrize("path", [*PAGES, *BESIDE], ids=name_of)
def test_every_link_leads_to_a_file_and_a_heading(path: Path) -> None:
    """Relative links, as a code host follows them."""
    for link in LINK.findall(prose_of(path)):
        if "://" in link or link.startswith("mailto:"):
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), f"{link}: there is no such file"
        if anchor:
            assert anchor in anchors_of(target), f"{link}: there is no such heading"


def test_every_page_is_in_the_contents() -> None:
    """What docs/contents.rst lists is what there is; readers find each page from the first one."""
    listed = re.findall(r"^   (/?[\w/*-]+)$", (DOCS / "contents.rst").read_text(), re.M)
    found: set[Path] = set()
    for entry in listed:
        folder = ROOT if entry.startswith("/") else DOCS
        found |= set(folder.glob(f"{entry.lstrip('/')}.md"))

    assert found == {*PAGES, *BESIDE}


def test_the_readme_is_short() -> None:
    """Words as `wc -w` counts them; what is longer belongs into docs/."""
    words = (ROOT / "README.md").read_text(encoding="utf-8").split()

    assert len(words) <= MOST_README_WORDS


TROUBLESHOOTING = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")


def section_of(cause: Cause) -> str:
    """What troubleshooting says of a cause."""
    _, _, after = TROUBLESHOOTING.partition(f"\n### `{cause}`\n")
    return after.partition("\n#")[0]


@pytest.mark.parametrize("cause", Cause)
def test_every_cause_is_explained(cause: Cause) -> None:
    """What it means, what zsg does, what to do, and how often `zsg retry` takes it."""
    section = section_of(cause)

    for part in ("What it means", "What zsg does", "What to do"):
        assert f"- **{part}.**" in section
    if cause not in MOST:  # of another job's cause
        assert "the retries are those of that cause" in " ".join(section.split())
        return
    times = {0: "none", 1: "one", None: "as often as you ask"}
    most = MOST[cause]
    assert f"Retries: {times.get(most, most)}" in " ".join(section.split())


def test_no_other_cause_is_explained() -> None:
    """A cause that was removed has no section."""
    explained = re.findall(r"^### `(.+)`$", TROUBLESHOOTING, re.M)

    assert sorted(explained) == sorted(Cause)


def yaml_blocks() -> list[tuple[str, str]]:
    """(document, text) of every block of YAML that a document shows."""
    return [
        (name_of(path), text)
        for path in [*PAGES, *BESIDE]
        for text in re.findall(
            r"^```yaml\n(.*?)^```", path.read_text(encoding="utf-8"), re.S | re.M
        )
    ]


PROFILE_KEYS = {"inherits", "kind"}
GRID_KEYS = set(grid.KEYS)


@pytest.mark.parametrize(("document", "text"), yaml_blocks())
def test_every_block_of_yaml_is_a_grid_or_a_profile(
    document: str, text: str, tmp_path: Path
) -> None:
    """A whole one is loaded; a part of one has only keys and values that there are. Of a
    file of claims between grids the claims are those of a grid."""
    written = YAML(typ="safe").load(text)
    file = tmp_path / "shown.yaml"
    file.write_text(text, encoding="utf-8")
    if PROFILE_KEYS & written.keys():
        profiles.load_profile(str(file), tmp_path)
        return
    if {"name", "grid"} <= written.keys():
        grid.load_grid(file)
        return
    if claims_between.POINTS in written:
        written = {claims_between.CLAIMS: written[claims_between.CLAIMS]}
    if not GRID_KEYS & written.keys():
        written = {"defaults": written}
    problems = Draft7Validator(json_schema.make_grid_schema()).iter_errors(
        {"name": "a"} | written
    )

    assert [problem.message for problem in problems] == []


CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
RELEASE = re.compile(r"^## (\d+)\.(\d+)\.(\d+) - (\d{4}-\d{2}-\d{2})$", re.M)
KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
WRONG = "What was wrong, and which studies it touches"


def test_the_changelog_is_cut_into_dated_releases() -> None:
    """Unreleased first, then releases, the newest first; under each the usual kinds of change."""
    releases = [
        (tuple(map(int, number)), day) for *number, day in RELEASE.findall(CHANGELOG)
    ]
    named = re.findall(r"^## (.+)$", CHANGELOG, re.M)

    assert named[1] == "Unreleased" and len(named) == 2 + len(releases)
    assert releases == sorted(releases, reverse=True)
    assert set(re.findall(r"^### (.+)$", CHANGELOG, re.M)) <= KINDS | {WRONG}


def test_the_changelog_says_which_workspaces_each_release_reads() -> None:
    """A row for each release and for what is not released."""
    rows = re.findall(r"^\| (Unreleased|[\d.]+) \|", CHANGELOG, re.M)

    numbers = [".".join(number) for *number, _ in RELEASE.findall(CHANGELOG)]
    assert rows == ["Unreleased", *numbers]


FILE = re.compile(r"`((?:zsg|launcher|jobs|zsg_core|tests|docs)/[\w./-]+)`")
NAME_IN_FILE = re.compile(r"`([\w/]+\.py)`, `(\w+)`")
FOR_CONTRIBUTORS = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]


@pytest.mark.parametrize("path", FOR_CONTRIBUTORS, ids=name_of)
def test_every_file_that_is_named_is_there(path: Path) -> None:
    """Of the repository, and of a module's function or table that is named beside it."""
    prose = prose_of(path)
    missing = [name for name in FILE.findall(prose) if not (ROOT / name).exists()]
    for file, name in NAME_IN_FILE.findall(prose):
        module = (ROOT / file).read_text(encoding="utf-8")
        if not re.search(rf"^(?:def |class )?{name}\b", module, re.M):
            missing.append(f"{name} in {file}")

    assert missing == []


def test_the_tutorial_shows_what_its_first_commands_print(zsg: Zsg) -> None:
    """`zsg init` and `zsg plan` in an empty folder: each line that is shown whole, run
    ids included."""
    blocks = re.findall(
        r"^```text\n(.*?)^```", (DOCS / "tutorial.md").read_text(), re.S | re.M
    )
    begun, planned = (block.splitlines() for block in blocks[:2])
    printed = [*zsg("init", "my-study").splitlines()]
    zsg.folder = zsg.folder / "my-study"
    printed += [line.rstrip() for line in zsg("plan", "grid.yaml").splitlines()]

    for line in [*begun[:2], *planned]:
        assert "…" in line or line in printed


def test_every_concept_is_in_the_glossary() -> None:
    """The words that have a heading of their own in concepts, and those in bold."""
    concepts = prose_of(DOCS / "concepts.md")
    words = re.findall(r"\*\*([a-z][a-z ]+)\*\*", concepts)

    missing = [
        word
        for word in words
        if word.replace(" ", "-") not in anchors_of(DOCS / "glossary.md")
    ]
    assert len(words) >= 10 and missing == []


def test_the_examples_of_how_to_add_something_work() -> None:
    """Each is registered, under the name that the text then uses."""
    blocks = re.findall(
        r"^```python\n(.*?)^```", (DOCS / "extending.md").read_text(), re.S | re.M
    )
    asked = """
from zsg_core.data.readers import FORMATS
from zsg_core.metrics.registry import METRICS
from zsg_core.orders.registry import ORDERS
assert "backwards" in ORDERS and "words" in METRICS and "quiz" in FORMATS
"""
    code = "\n".join([*blocks, asked])
    subprocess.run([sys.executable, "-c", code], check=True)


KEY = re.compile(r"`([a-z_]+(?:\.[A-Za-z_]+)+)(?:[:=] ?[^`]*)?`")


def test_every_key_that_is_named_is_one() -> None:
    """Of a grid or a profile, with or without a value beside it, as in
    `train.preset: paper`; that of one source is of `data.sources.NAME`."""
    keys = {
        re.sub(r"<\w+>", "NAME", entry.path)
        for file in ("grid", "profile")
        for entry in key_reference.list_keys(file)
    }
    sections = {key.partition(".")[0] for key in keys if "." in key}
    named = {
        key
        for path in [*DOCS.glob("*.md"), ROOT / "README.md", ROOT / "SECURITY.md"]
        for key in KEY.findall(prose_of(path))
        if key.partition(".")[0] in sections and not key.endswith((".json", ".yaml"))
    }

    assert len(named) >= 20 and named - keys == set()


def test_every_order_and_every_state_is_explained() -> None:
    """Orders in the glossary, states in troubleshooting, by their names."""
    glossary = (DOCS / "glossary.md").read_text(encoding="utf-8")

    assert [name for name in ORDERS if f"\n| `{name}` |" not in glossary] == []
    assert [
        word for word in ShownState if f"\n| `{word}` |" not in TROUBLESHOOTING
    ] == []
