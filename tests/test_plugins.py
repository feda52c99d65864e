"""Does a plugin that a grid names add what it declares, by the same registries as what is
built in, and does nothing of it run before its user's word?"""

import json
import os
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from typer.testing import CliRunner

from jobs.contract.causes import Cause, of_error
from jobs.contract.folder import Workspace
from jobs.files import own_notes
from launcher import cli
from launcher.grids import plugin_files
from launcher.grids.grid import Grid, load_grid
from launcher.submission import plugin_consent, workflow
from launcher.workspace import allowed_plugins, code_snapshot
from tests.lib.builders import write_niv2
from tests.lib.command_line import Zsg
from zsg_core.data import prompts
from zsg_core.data.examples import Example
from zsg_core.data.prompts import Template
from zsg_core.data.readers.intake import Intake
from zsg_core.errors import BadData, ClusterError, PluginError, UserError
from zsg_core.metrics import metrics
from zsg_core.metrics.registry import METRICS
from zsg_core.metrics.scoring import Answered, Scores
from zsg_core.orders.registry import OrderInputs
from zsg_core.plugins import entries, loading
from zsg_core.plugins.declarations import BadPlugin, PluginFile, read_plugins
from zsg_core.registry import offering
from zsg_core.settings.checkpoints import CheckpointSettings
from zsg_core.suites import select_suites

WORDS = """
import zsg

@zsg.metric("words")
def count_words(answers):
    for one in answers:
        yield one.id, len(one.answer.split())
"""
GRID = """
name: g
plugins: {plugins}
defaults:
  data: {{path: data, sampling: first}}
  train: {{batch: 4, init_seed: 0}}
  checkpoints: {{snapshots: 5, metrics: {metrics}}}
"""
TRACE = "open({path!r}, 'w').close()\n"
ANSWERS = [
    Answered(id="a:0", task="a", prompt="p", answer="one two", references=("one",)),
    Answered(id="a:1", task="a", prompt="q", answer="one", references=("one",)),
]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with small data, whose user has allowed nothing yet."""
    home = tmp_path / "home"
    home.mkdir()
    folder = tmp_path / "place"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(allowed_plugins, "_ALLOWED_NOW", set())
    monkeypatch.chdir(folder)
    write_niv2(folder / "data")
    return folder


def write_grid(
    place: Path,
    text: str = WORDS,
    asked: str = "[loss, words]",
    plugins: str = "[mine.py]",
) -> Path:
    """A grid beside a plugin that it names."""
    (place / "mine.py").write_text(text)
    path = place / "grid.yaml"
    path.write_text(GRID.format(plugins=plugins, metrics=asked))
    return path


def load(place: Path, text: str = WORDS, asked: str = "[loss, words]") -> Grid:
    """The same, read."""
    return load_grid(write_grid(place, text, asked))


def list_run_ids(path: Path) -> list[str]:
    """The ids of the runs that a grid would make."""
    opened = workflow.resolve_grid(path, None, None, only_looks=True)
    return [run.id for run in opened.runs]


def enter(folder: Path, contents: dict[str, bytes]) -> tuple[PluginFile, ...]:
    """The plugins whose copies lie in a job's code, entered as a job does."""
    for plugin in read_plugins(contents):
        copy = folder / loading.name_copy(plugin)
        copy.parent.mkdir(parents=True)
        copy.write_bytes(plugin.content)
    return entries.enter_copies(folder)


def score(tmp_path: Path, text: str, *names: str, **others: str) -> Scores:
    """What answers are worth by the metrics of a plugin, as a job takes them. `others`:
    plugins beside it."""
    contents = {"mine.py": text.encode()}
    contents |= {f"{name}.py": other.encode() for name, other in others.items()}
    plugins = enter(tmp_path, contents)
    definitions = {
        one.name: {"plugin": one.digest}
        for plugin in plugins
        for one in plugin.declared
    }
    return metrics.score_answers(names or ("words",), ANSWERS, definitions)


def test_a_metric_of_a_plugin_is_asked_for_by_its_name(place: Path) -> None:
    """Its key is that name; what defines the key's values says of which code."""
    [point] = load(place).points

    [suite] = select_suites(point.settings.checkpoints, {})
    assert suite.keys == ("words",)
    assert suite.metrics == ["words"]
    [entry] = [name for name in point.settings.checkpoints.metrics if "@" in name]
    assert suite.scored_by == {"words": {"plugin": entry.partition("@")[2]}}
    assert METRICS[entry].name == "words"


def test_a_name_means_what_its_own_grid_says(place: Path) -> None:
    """A program may read two grids whose plugins declare one name."""
    first = load(place)
    second = load(place, WORDS.replace("len(", "2 * len("))
    third = place / "none.yaml"
    third.write_text(GRID.format(plugins="null", metrics="[loss, words]"))

    names = [grid.points[0].settings.checkpoints.metrics for grid in (first, second)]
    assert names[0] != names[1]
    with pytest.raises(UserError, match=r"none\.yaml:.*found 'words'"):
        load_grid(third)


def test_run_ids_are_what_they_are_without_metrics_of_plugins(place: Path) -> None:
    """A metric that is edited, or taken out, trains nothing anew."""
    with_it = list_run_ids(write_grid(place))
    edited = list_run_ids(write_grid(place, WORDS.replace("len(", "2 * len(")))
    without = list_run_ids(write_grid(place, asked="[loss]", plugins="null"))

    assert with_it == edited == without


@pytest.mark.parametrize(
    ("plugins", "message"),
    [
        ("mine.py", "is a list of 1 to 20"),
        ("[]", "is a list of 1 to 20"),
        ("[1]", "is a list of 1 to 20"),
        ("[mine.txt]", "is no plugin"),
        ("['*.py']", "is no plugin"),
        ("[my-own.py]", "is no plugin"),
        ("[../place/mine.py]", "is no plugin"),
        ("[./mine.py]", "is no plugin"),
        ("[/etc/passwd.py]", "is no plugin"),
        ("[https://host/mine.py]", "is no plugin"),
        ('["a\\eb.py"]', "is no plugin"),
        ("[json.py]", "the name of another module"),
        ("[zsg.py]", "the name of another module"),
        ("[mine.py, mine.py]", "mine.py is there twice"),
        ("[gone.py]", "is not in the grid's folder"),
        ("[linked.py]", "linked.py is a link"),
        ("[far/mine.py]", "far is a link"),
        ("[folder.py]", "is no file"),
        ("[pipe.py]", "is no file"),
    ],
)
def test_only_an_ordinary_file_below_the_grid_is_a_plugin(
    place: Path, plugins: str, message: str
) -> None:
    """What somebody sends with a grid is that grid's; no other file of the disk becomes
    code by being named."""
    path = write_grid(place, plugins=plugins, asked="[loss]")
    (place / "linked.py").symlink_to(place / "mine.py")
    (place / "far").symlink_to(place.parent)
    (place / "folder.py").mkdir()
    os.mkfifo(place / "pipe.py")

    with pytest.raises(UserError, match=rf"grid\.yaml:3: .*{message}") as refused:
        load_grid(path)
    assert "\x1b" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rouge1", "is a built-in one"),
        ("loss", "is a built-in one"),
        ("loss_quick_100", "something else in journals"),
        ("answers", "something else in journals"),
        ("lm_eval", "something else in journals"),
        ("source", "something else in journals"),
        ("words_stderr", "something else in journals"),
    ],
)
def test_a_name_that_zsg_has_is_refused_with_its_line(
    place: Path, name: str, message: str
) -> None:
    """A plugin adds, and takes the place of nothing."""
    text = WORDS.replace('"words"', f'"{name}"')
    with pytest.raises(UserError, match=rf"mine\.py:5: metric {name} .*{message}"):
        load(place, text, asked="[loss]")


def test_a_module_beside_a_plugin_is_named_or_refused(place: Path) -> None:
    """As it would not be copied with it."""
    (place / "helper.py").write_text("X = 1\n")
    text = f"import helper\n{WORDS}"
    with pytest.raises(UserError, match=r"mine\.py:1: imports helper"):
        load(place, text)

    path = write_grid(place, text, plugins="[mine.py, helper.py]")
    assert [plugin.name for plugin in load_grid(path).plugins] == [
        "mine.py",
        "helper.py",
    ]


@pytest.mark.engine
def test_a_grid_that_was_sent_runs_nothing_before_the_word(place: Path) -> None:
    """Whatever is asked about it; a script's submit is told what to type."""
    ran = place / "ran"
    path = write_grid(place, TRACE.format(path=str(ran)) + WORDS)
    commands = [
        ["plan", str(path)],
        ["plan", str(path), "--json"],
        ["submit", str(path), "--dry-run"],
        ["submit", str(path)],
        ["submit", str(path), "--yes"],
        ["data", "show", str(path)],
        ["arrange", "make", str(path)],
    ]
    results = [CliRunner().invoke(cli.app, words) for words in commands]

    codes = [result.exit_code for result in results]
    assert codes[:3] == [0, 0, 0] and codes[5] == 0
    for number in (3, 4, 6):
        assert isinstance(results[number].exception, UserError)
        assert "with --allow-plugins. Nothing of it was run" in str(
            results[number].exception
        )
    assert "mine.py, run by jobs with your rights, declares metric words" in (
        results[0].stdout
    )
    assert not ran.exists()
    assert not (place.parent / "home/.zsg").exists()


def test_each_digest_is_asked_for_once(place: Path) -> None:
    """Also by the next command, which finds what was allowed in the home; an edited file
    is asked for again."""
    asked: list[str] = []

    def agree(question: str) -> bool:
        asked.append(question)
        return True

    def settle(grid: Grid, ask: Callable[[str], bool]) -> None:
        allowed_plugins._ALLOWED_NOW.clear()  # as a command of its own
        (place / "mine.py").write_bytes(grid.plugins[0].content)
        plugin_consent.settle_consent(grid, allows=False, ask=ask)

    grid, edited = load(place), load(place, WORDS.replace("len(", "2 * len("))
    with pytest.raises(UserError, match="nothing was submitted"):
        settle(grid, lambda _: False)
    settle(grid, agree)
    settle(grid, agree)
    settle(edited, agree)

    assert len(asked) == 2
    assert not allowed_plugins.find_unallowed([*grid.plugins, *edited.plugins])


@pytest.mark.parametrize("way", ["link", "open file", "open folder", "linked folder"])
def test_a_note_that_another_may_have_written_allows_nothing(
    place: Path, way: str
) -> None:
    """Notes are the user's own files in the user's own folders."""
    grid = load(place)
    allowed_plugins.allow_plugins(grid.plugins)
    allowed_plugins._ALLOWED_NOW.clear()
    folder = place.parent / "home/.zsg/plugins"
    note = folder / grid.plugins[0].digest
    assert note.is_file() and not allowed_plugins.find_unallowed(grid.plugins)

    if way == "link":
        note.rename(place / "elsewhere")
        note.symlink_to(place / "elsewhere")
    elif way == "open file":
        note.chmod(0o666)
    elif way == "open folder":
        folder.chmod(0o777)
    else:
        folder.rename(place / "elsewhere")
        folder.symlink_to(place / "elsewhere")

    assert allowed_plugins.find_unallowed(grid.plugins) == list(grid.plugins)


def test_a_plugin_that_others_may_write_is_not_allowed(place: Path) -> None:
    """They could change it between being read and being allowed."""
    grid = load(place)
    (place / "mine.py").chmod(0o666)

    with pytest.raises(UserError, match=r"mine\.py may be written by.*chmod go-w"):
        plugin_consent.settle_consent(grid, allows=True, ask=None)
    assert allowed_plugins.find_unallowed(grid.plugins)


def test_jobs_get_the_bytes_that_were_allowed(place: Path, tmp_path: Path) -> None:
    """Whatever becomes of the file between being read, asked for, and copied."""
    grid = load(place)
    plugin_consent.settle_consent(grid, allows=True, ask=None)
    (place / "mine.py").write_text("raise SystemExit")

    with code_snapshot.carrying(grid.plugins):
        code = code_snapshot.take_snapshot(Workspace(tmp_path / "work"))

    copies = Path(code["folder"])
    assert [plugin.content for plugin in loading.read_copies(copies)] == [
        WORDS.encode()
    ]
    assert code["digest"] != code_snapshot._now(())[0]["digest"]
    [copy] = (copies / loading.PACKAGE).glob("*/*.py")
    copy.write_text("raise SystemExit")
    with pytest.raises(PluginError, match="is not what was submitted"):
        loading.read_copies(copies)


def test_a_plugin_that_changed_since_it_was_read_is_not_allowed(place: Path) -> None:
    """Whoever opens it to read it sees another text than jobs would run."""
    grid = load(place, WORDS.replace("len(", "7 * len("))
    (place / "mine.py").write_text(WORDS)

    with pytest.raises(UserError, match=r"mine\.py has been changed since it was read"):
        plugin_consent.settle_consent(grid, allows=True, ask=None)
    (place / "mine.py").unlink()
    with pytest.raises(UserError, match=r"mine\.py has been changed since it was read"):
        plugin_consent.settle_consent(grid, allows=True, ask=None)
    assert allowed_plugins.find_unallowed(grid.plugins)


def test_a_closed_folder_beside_a_plugin_is_nobodys_module(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in /tmp, where there are always some."""
    path = write_grid(place)
    (place / "closed").mkdir()
    of_system = os.stat

    def refuse_inside(path: Any, *args: Any, **options: Any) -> os.stat_result:
        if "closed/" in str(path):
            raise PermissionError(13, "Permission denied")
        return of_system(path, *args, **options)

    monkeypatch.setattr(os, "stat", refuse_inside)

    assert [plugin.name for plugin in load_grid(path).plugins] == ["mine.py"]


def test_a_copy_changes_nothing_that_zsg_has(tmp_path: Path) -> None:
    """A run that was sent may have any copy beside it, which verify reads."""
    before = METRICS["rouge1"]
    enter(tmp_path, {"mine.py": WORDS.replace('"words"', '"rouge1"').encode()})

    assert METRICS["rouge1"] is before


def test_what_is_no_copy_is_refused(tmp_path: Path) -> None:
    """It may be a folder, or be more than anybody reads."""
    (tmp_path / loading.PACKAGE / "0123" / "mine.py").mkdir(parents=True)
    with pytest.raises(PluginError, match=r"mine\.py is no file"):
        loading.read_copies(tmp_path)

    (tmp_path / loading.PACKAGE / "0123" / "mine.py").rmdir()
    (tmp_path / loading.PACKAGE / "0123" / "mine.py").write_bytes(b"#" * 200_000)
    with pytest.raises(PluginError, match=r"mine\.py:1: more than 100,000 bytes"):
        loading.read_copies(tmp_path)


def test_a_detached_submit_is_not_told_to_allow_what_it_finds(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads the file again, and knows of what was allowed by the user's notes; where
    there are none, by the word alone."""
    grid = load(place)
    words = ["submit", "grid.yaml", plugin_consent.OPTION, "--yes"]
    plugin_consent.settle_consent(grid, allows=True, ask=None)
    edited = load(place, WORDS.replace("len(", "2 * len("))

    kept = ["submit", "grid.yaml", "--yes"]
    assert plugin_consent.drop_word(words, grid.plugins) == kept
    assert allowed_plugins.find_unallowed(edited.plugins) == list(edited.plugins)
    monkeypatch.setattr(own_notes, "find_home", lambda: None)
    assert plugin_consent.drop_word(words, grid.plugins) == words


def test_nothing_is_copied_that_is_not_allowed(place: Path) -> None:
    """Whichever command would copy it, and whether or not it asks."""
    grid = load(place)
    with (
        pytest.raises(UserError, match="not allowed yet"),
        code_snapshot.carrying(grid.plugins),
    ):
        pass


def test_a_command_that_only_plans_cannot_run_a_plugin(place: Path) -> None:
    """It knows what is declared, and has no copy to run."""
    [point] = load(place, WORDS.replace("len(", "7 * len(")).points
    [entry] = [name for name in point.settings.checkpoints.metrics if "@" in name]
    score_answers = METRICS[entry].score
    assert score_answers is not None

    with pytest.raises(PluginError, match=r"mine\.py:5: metric words is run by jobs"):
        score_answers(ANSWERS)


def test_a_job_scores_by_the_copy(tmp_path: Path) -> None:
    """By item, by task, and their mean, as a built-in metric."""
    scores = score(tmp_path, WORDS)

    assert scores.by_item == {"words": {"a:0": 2.0, "a:1": 1.0}}
    assert scores.values == {"words": 1.5}


def test_a_plugin_has_classes_as_any_module(tmp_path: Path) -> None:
    """dataclasses looks up the module that a class says it is of."""
    text = f"""
from __future__ import annotations
from dataclasses import dataclass
{WORDS.replace("len(", "Times(7).count * len(")}
@dataclass
class Times:
    count: int
"""
    assert score(tmp_path, text).values == {"words": 10.5}


def test_a_plugins_name_is_its_own_to_other_plugins_only(tmp_path: Path) -> None:
    """A file named as a package that something imports later hides that from nobody."""
    [plugin] = enter(tmp_path, {"alone.py": WORDS.encode()})
    loading.find_function(plugin.declared[0])

    assert "alone" not in sys.modules


def test_files_of_several_folders_may_have_one_name(tmp_path: Path) -> None:
    """As every folder of tasks has its `utils.py`: each is itself, with classes of its
    own, and is told by its whole name; none can be imported by the name of two."""
    text = """
import dataclasses
import zsg

@dataclasses.dataclass
class Share:
    number: int

@zsg.metric("NAME")
def give(answers):
    for one in answers:
        yield one.id, Share(NUMBER).number / (NUMBER - 2)
"""
    contents = {
        f"{folder}/utils.py": text.replace("NAME", name).replace("NUMBER", number)
        for folder, name, number in (("a", "three", "3"), ("b", "two", "2"))
    }
    definitions: dict[str, Any] = {}
    for plugin in enter(tmp_path, {name: t.encode() for name, t in contents.items()}):
        [declared] = plugin.declared
        definitions[declared.name] = {"plugin": declared.digest}

    def take(name: str) -> Scores:
        return metrics.score_answers((name,), ANSWERS, definitions)

    assert take("three").by_item["three"] == {"a:0": 3, "a:1": 3}
    with pytest.raises(PluginError, match=r"^b/utils\.py:12: ZeroDivisionError"):
        take("two")
    contents["c.py"] = "import os\nimport utils\n"
    with pytest.raises(
        BadPlugin, match=r"a/utils\.py and b/utils\.py have that name"
    ) as bad:
        read_plugins({name: each.encode() for name, each in contents.items()})
    assert (bad.value.file, bad.value.line) == ("c.py", 2)


def test_a_plugin_imports_another_that_the_grid_names(tmp_path: Path) -> None:
    """By its name, as beside it; also one that imports the first."""
    helper = "import mine\nTIMES = 10\n"
    text = f"import helper\n{WORDS.replace('len(', 'helper.TIMES * len(')}"

    assert score(tmp_path, text, helper=helper).values == {"words": 15.0}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("1 / 0", r"mine\.py:7: ZeroDivisionError: division by zero, metric words"),
        ("raise type('Odd', (BaseException,), {})('x')", r"mine\.py:7: Odd: x"),
        ("raise GeneratorExit", r"mine\.py:7: GeneratorExit, metric words"),
        ("raise SystemExit('no')", r"mine\.py:7: SystemExit: no, metric words"),
        ("import gone_away", r"mine\.py:7: ModuleNotFoundError: .*gone_away"),
        ("return None", "mine.py:6: TypeError: .* not iterable"),
        ("return [('a:0', 'much')]", r"mine\.py:6: .* gives 'a:0' no finite number"),
        ("return [('a:0', '1')]", "no finite number"),
        ("return [('a:0', float('nan'))]", "no finite number"),
        ("return [('a:0', 10 ** 400)]", "no finite number"),
        ("return [('a:0', None)]", "no finite number"),
        ("return [('b:9', 1)]", "scores 'b:9', of which there is no answer"),
        ("return [(['a:0'], 1)]", "of which there is no answer"),
        ("return [('a:0', 1), ('a:0', 1)]", "scores 'a:0' twice"),
        ("return ['a:0']", "pairs of an answer's id and a number"),
        ("return iter(lambda: ('a:0', 1), 0)", "scores 'a:0' twice"),
    ],
)
def test_what_a_metric_does_wrong_is_told_with_its_place(
    tmp_path: Path, body: str, message: str
) -> None:
    """The file as the grid names it, and the line there."""
    text = f'\nimport zsg\n\n\n@zsg.metric("words")\ndef count_words(answers):\n    {body}\n'
    with pytest.raises(PluginError, match=message):
        score(tmp_path, text)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("raise ValueError('x')", r"mine\.py:9: ValueError: x, loading it"),
        ("None.x", r"mine\.py:9: AttributeError"),
        ('getattr(zsg, "metric")("more")(len)', r"registers something else.*more"),
        ("exec('zsg.order(\"more\")(len)')", r"registers something else.*more"),
    ],
)
def test_a_file_that_does_not_load_as_it_reads_is_refused(
    tmp_path: Path, more: str, message: str
) -> None:
    """Nothing is registered of which the user was not told."""
    with pytest.raises(PluginError, match=message):
        score(tmp_path, f"{WORDS}\n{more}\n")


def test_what_is_declared_and_not_registered_is_refused(tmp_path: Path) -> None:
    """As where the file gives `zsg` another meaning."""
    other = "class zsg:\n    metric = staticmethod(lambda name: lambda made: made)\n"
    text = WORDS.replace("import zsg\n", f"import zsg\n{other}")
    with pytest.raises(PluginError, match=r"registers something else.*words"):
        score(tmp_path, text)


@pytest.mark.engine
def test_a_metric_that_fails_leaves_the_others_what_they_are(tmp_path: Path) -> None:
    """Those of zsg and those of the plugin; why it failed is told by its key. It is
    tried again at the next checkpoint."""
    from jobs.evaluating.scorers import Scorers

    broken = """
@zsg.metric("broken")
def divide(answers):
    yield "a:0", 1 / (len(answers) - 2)
"""
    plugins = enter(tmp_path, {"mine.py": f"{WORDS}{broken}".encode()})
    names = ["exact_match", "broken", "words"]
    asked = {"metrics": names, "snapshots": 5}
    with offering(entries.list_offered(plugins)):
        settings = CheckpointSettings.model_validate(asked)
    [suite] = select_suites(settings, {})
    of_texts: Any = None  # these are scored by their answers alone

    scorers = Scorers(tmp_path / "ratings", "cpu")
    found = scorers.score(suite, of_texts, suite.keys, ANSWERS)

    assert found.scores.values == {"exact_match": 50.0, "words": 1.5}
    assert list(found.failed) == ["broken"]
    assert "mine.py:11: ZeroDivisionError: division by zero" in str(
        found.failed["broken"]
    )
    again = scorers.score(suite, of_texts, suite.keys, ANSWERS[:1])
    assert again.scores.values["broken"] == -1 and not again.failed


def test_decorators_leave_functions_alone_outside_jobs() -> None:
    """A plugin can be imported by its user's own tests."""
    scope: dict[str, Any] = {}
    exec(WORDS, scope)

    assert dict(scope["count_words"](ANSWERS)) == {"a:0": 2, "a:1": 1}


def test_the_guides_plugin_scores_and_orders(tmp_path: Path) -> None:
    """The first block of Python in docs/plugins.md, as it stands there."""
    guide = (Path(__file__).parent.parent / "docs/plugins.md").read_text()
    [text, *others] = re.findall(r"^```python\n(.*?)^```", guide, re.S | re.M)

    scores = score(tmp_path / "first", text, "closeness")
    order = find_entry(tmp_path / "again", text, "longest_first")

    assert len([line for line in text.splitlines() if line.strip()]) <= 20
    assert scores.by_item["closeness"] == {"a:0": 60.0, "a:1": 100.0}
    assert order.arrange(make_inputs(3)).places == [2, 1, 0]
    names = [read_plugins({"a.py": other.encode()})[0].declared for other in others]
    assert [one.name for [one] in names] == ["tokens", "forum"]


MORE = """
import zsg

@zsg.order("longest_first", seeded=False)
def longest_first(items, seed):
    return sorted(range(len(items)), key=lambda place: -len(items[place].answer))

@zsg.order("drawn")
def draw(items, seed):
    return [(place + seed) % len(items) for place in range(len(items))]

@zsg.score("letters", passes=0)
def count_letters(inputs):
    return [None if one is None else float(len(one)) for one in inputs.examples]

@zsg.reader("forum", files="*.jsonl")
def read_forum(row, name):
    if "q" in row:
        turn = (row["q"], row["a"])
        yield zsg.Example(id=f"{name}:{row['n']}", task=row["board"], turns=(turn,))
"""


def find_entry(folder: Path, text: str, name: str) -> Any:
    """What a job finds of a plugin under a name."""
    plugins = enter(folder, {"mine.py": text.encode()})
    [declared] = [
        one for plugin in plugins for one in plugin.declared if one.name == name
    ]
    return entries.REGISTRIES[declared.kind][declared.full_name]


def make_inputs(count: int, seed: int = 0) -> OrderInputs:
    """So many examples to be put in order, each with a longer answer."""
    examples = [
        Example(id=f"a:{n}", task="a", turns=(("q", "x" * n),)) for n in range(count)
    ]
    return OrderInputs(
        recipe={"order": "of a plugin", "seed": seed},
        tasks=["a"] * count,
        distances=list,
        rounds=lambda farthest, cap: iter(()),
        examples=lambda: examples,
    )


def write_forum(place: Path, arrangement: str) -> Path:
    """A grid of rows that a plugin reads, in an order."""
    (place / "mine.py").write_text(MORE)
    rows = [{"n": n, "board": f"b{n % 2}", "q": f"{n}?", "a": "x"} for n in range(8)]
    text = "".join(f"{json.dumps(row)}\n" for row in rows)
    (place / "rows.jsonl").write_text(text)
    path = place / "grid.yaml"
    path.write_text(
        "name: g\nplugins: [mine.py]\ndefaults:\n"
        "  data: {set: forum, path: rows.jsonl, held_out: {by: rows, share: 1/4}}\n"
        f"  train: {{batch: 2}}\ngrid: {{arrangement: {arrangement}}}\n"
    )
    return path


def test_orders_scores_and_readers_enter_the_recipe_by_their_code(place: Path) -> None:
    """Each by its name with its digest; a seed only where the order is drawn by it."""
    path = write_forum(
        place,
        "[{order: longest_first}, {order: drawn}, {order: scores, score: letters}]",
    )
    opened = workflow.resolve_grid(path, None, None, only_looks=True)

    names = {
        one.name: one.full_name
        for plugin in opened.grid.plugins
        for one in plugin.declared
    }
    arrangements = [run.stage["arrangement"] for run in opened.runs]
    assert arrangements[0] == {"order": names["longest_first"]}
    assert arrangements[1] == {"order": names["drawn"], "seed": 0}
    assert arrangements[2]["score"]["name"] == names["letters"]
    readers = {run.stage["data"]["reader"] for run in opened.runs}
    assert readers == {names["forum"]}
    axes = [run.axes["arrangement"]["order"] for run in opened.runs]
    assert axes == ["longest_first", "drawn", "scores"]


def test_an_edited_order_makes_other_runs_and_leaves_the_others(place: Path) -> None:
    """Of one file, whose other declarations are what they were."""
    path = write_forum(place, "[{order: longest_first}, {order: drawn}]")
    before = list_run_ids(path)
    edited = MORE.replace("-len(items[place].answer)", "len(items[place].answer)")
    (place / "mine.py").write_text(edited)
    after = list_run_ids(path)

    assert before[0] != after[0]
    assert before[1] == after[1]


def test_a_setting_that_an_order_of_a_plugin_does_not_have_is_refused(
    place: Path,
) -> None:
    """As under built-in orders, by the order's own name."""
    path = write_forum(place, "[{order: longest_first, tasks: shuffled}]")
    with pytest.raises(UserError, match="does nothing under order longest_first, only"):
        load_grid(path)


@pytest.mark.parametrize(
    ("name", "places"), [("longest_first", [3, 2, 1, 0]), ("drawn", [1, 2, 3, 0])]
)
def test_a_job_orders_by_the_copy(tmp_path: Path, name: str, places: list[int]) -> None:
    """It is given the examples and the seed."""
    order = find_entry(tmp_path, MORE, name)

    assert order.arrange(make_inputs(4, seed=1)).places == places


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("[]", "returns no place"),
        ("[0, 0]", "returns place 0 twice"),
        ("[4]", "returns 4, which is no place among 4"),
        ("[-1]", "returns -1, which is no place"),
        ("[0.5]", "returns 0.5, which is no place"),
        ("[True]", "returns True, which is no place"),
        ("['a:0']", "returns 'a:0', which is no place"),
        ("None", r"mine\.py:\d+: TypeError"),
        ("items[9]", r"mine\.py:5: IndexError"),
    ],
)
def test_an_order_gives_places_once_each(
    tmp_path: Path, returned: str, message: str
) -> None:
    """What it gives else is told, and nothing is trained on it."""
    text = f'import zsg\n\n@zsg.order("odd")\ndef odd(items, seed):\n    return {returned}\n'
    order = find_entry(tmp_path, text, "odd")
    with pytest.raises(PluginError, match=message):
        order.arrange(make_inputs(4))


def test_an_order_may_leave_examples_out(tmp_path: Path) -> None:
    """Plan then counts what is trained on as a bound."""
    text = 'import zsg\n\n@zsg.order("few")\ndef few(items, seed):\n    return [2]\n'
    order = find_entry(tmp_path, text, "few")

    assert order.arrange(make_inputs(4)).places == [2]
    assert order.leaves_out == ("order",)


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        ("[1, None]", [1.0, None]),
        ("[1]", "returns 1 scores of 2 examples"),
        ("['1', 2]", "a score is a finite number, or None"),
        ("[float('inf'), 2]", "a score is a finite number, or None"),
    ],
)
def test_a_score_gives_a_number_for_each_example(
    tmp_path: Path, returned: str, expected: list[float | None] | str
) -> None:
    """Or None, which `rest` decides about as of built-in scores."""
    text = f'import zsg\n\n@zsg.score("odd", passes=2)\ndef odd(inputs):\n    return {returned}\n'
    rule = find_entry(tmp_path, text, "odd")
    asked: Any = SimpleNamespace(examples=["one", "two"])

    assert rule.passes == 2
    if isinstance(expected, str):
        with pytest.raises(PluginError, match=expected):
            rule.compute(asked)
    else:
        assert rule.compute(asked) == expected


def test_a_reader_makes_examples_of_rows(tmp_path: Path) -> None:
    """Of one row as many as it likes, also none."""
    rows = [{"n": 1, "board": "b", "q": "2?", "a": "3"}, {"other": 1}]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    read = find_entry(tmp_path / "code", MORE, "forum").read

    assert list(read(path, Intake())) == [
        Example(id="rows:1", task="b", turns=(("2?", "3"),))
    ]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("row['gone']", r"mine\.py:5: KeyError: 'gone', reader odd of .*rows\.jsonl:1"),
        ("[1]", "gives no zsg.Example of .*rows.jsonl:1"),
        ("[make('a', 't'), make('a', 't')]", "gives the id 'a' twice"),
        ("[make('a', '')]", "'' is no task"),
        ("[make('a\\x1b', 't')]", "is no id"),
        ("[make(1, 't')]", r"Expected `str`, got `int`.*\.id"),
        ("[zsg.Example(id='a', task='t', turns=())]", "a turn or more"),
        (
            "[zsg.Example(id='a', task='t', turns=(('q', b'a'),))]",
            "Expected `str`, got `bytes`",
        ),
        (
            "[zsg.Example(id='a', task='t', turns=(('q', '\\ud800'),))]",
            "half a character",
        ),
    ],
)
def test_what_a_reader_makes_wrong_is_told_with_the_row(
    tmp_path: Path, body: str, message: str
) -> None:
    """And with the plugin's own line."""
    text = f"""import zsg

@zsg.reader("odd")
def odd(row, name):
    return {body}

def make(name, task):
    return zsg.Example(id=name, task=task, turns=(("q", "a"),))
"""
    path = tmp_path / "rows.jsonl"
    path.write_text('{"n": 1}\n')
    read = find_entry(tmp_path / "code", text, "odd").read
    with pytest.raises(PluginError, match=message):
        list(read(path, Intake()))


@pytest.mark.engine
@pytest.mark.soak(part="users")
def test_the_guides_plugin_from_submit_to_verify(zsg: Zsg, tasks: Path) -> None:
    """On this machine: refused without the word, then run; a metric that fails is told
    with its line beside the others; the order is made again after the file has gone."""
    guide = (Path(__file__).parent.parent / "docs/plugins.md").read_text()
    text = re.findall(r"^```python\n(.*?)^```", guide, re.S | re.M)[0]
    broken = '\n@zsg.metric("broken")\ndef divide(answers):\n    return 1 / 0\n'
    plugin = zsg.write("my_metrics.py", text + broken)
    line = len((text + broken).splitlines())
    zsg.env["HOME"] = str(zsg.folder)
    grid = zsg.write(
        "grid.yaml",
        f"""
name: own
plugins: [my_metrics.py]
defaults:
  model: {{name: tiny, hidden: 64, layers: 2, vocab: 600}}
  data: {{path: {tasks}, train_per_task: 2, test_per_task: 2, positive_examples: 0}}
  train: {{batch: 8, max_length: 96, precision: fp32, steps: 4}}
  checkpoints:
    {{every: 2, snapshots: 4, metrics: [loss, closeness, broken], generation: {{items: 4, max_new_tokens: 4}}}}
grid: {{arrangement.order: [longest_first]}}
""",
    )

    zsg("submit", grid, code=2)
    assert "the same command with --allow-plugins" in zsg.said
    zsg("submit", grid, "--allow-plugins", code=3)
    plugin.unlink()

    [run] = [row for row in zsg.status() if row["state"] == "done"]
    troubles = [row for row in zsg.status() if row["state"] == "failed"]
    assert (
        f"broken: PluginError: my_metrics.py:{line}: ZeroDivisionError"
        in (troubles[0]["evidence"])
    )
    shown = zsg("report", "own", "--metric", "closeness", "--show")
    assert "closeness" in shown
    verified = zsg("verify", run["run"], "--steps", "0")
    assert "✓ plugin order   longest_first by the copy in" in verified


@pytest.mark.engine
def test_what_a_plugin_does_wrong_is_told_as_the_plugins(tmp_path: Path) -> None:
    """A job that could not take its metric ends for the user's reason, which no retry
    mends; beside a server that was away it ends for that one's. An answer of another
    kind than pairs is told with the line of the function."""
    from jobs.evaluating.scorers import Scorers
    from jobs.evaluating.troubles import find_worst, join_errors

    of_no_kind = '@zsg.metric("three")\ndef give_three(answers):\n    return 3\n'
    plugins = enter(tmp_path, {"mine.py": f"{WORDS}\n{of_no_kind}".encode()})
    asked = {"metrics": ["three"], "snapshots": 5}
    with offering(entries.list_offered(plugins)):
        settings = CheckpointSettings.model_validate(asked)
    [suite] = select_suites(settings, {})
    scorers, of_texts = Scorers(tmp_path / "ratings", "cpu"), cast("Any", None)

    tries = [scorers.score(suite, of_texts, ["three"], ANSWERS) for _ in range(2)]

    for found in tries:
        error = join_errors(found.failed)
        assert type(error) is PluginError and error.exit_code == 2
        assert "mine.py:10: TypeError: 'int' object is not iterable" in str(error)
        assert of_error(error) == Cause.PLUGIN
        assert find_worst([error, ClusterError("away")]) is ClusterError
        assert find_worst([error, BadData("a row")]) is PluginError


def test_a_fault_in_a_plugin_hides_what_follows_from_it(place: Path) -> None:
    """A name that it would have declared is none of the grid's faults."""
    with pytest.raises(UserError) as told:
        load(place, WORDS.replace("def count_words", "def count words"))

    assert "mine.py:5: is no Python that can be read" in str(told.value)
    assert "metrics" not in str(told.value)


def test_plan_refuses_a_plugin_that_others_may_write(place: Path) -> None:
    """As submit would, after hours of the user's."""
    path = write_grid(place)
    (place / "mine.py").chmod(0o666)
    result = CliRunner().invoke(cli.app, ["plan", str(path)])

    assert isinstance(result.exception, UserError)
    assert "mine.py may be written by" in str(result.exception)


MARGIN = """
import zsg

@zsg.metric("margin", of="choices", higher_is_better=True)
def find_margin(choices):
    for one in choices:
        others = [loss for place, loss in enumerate(one.losses) if place != one.right]
        yield one.id, min(others) - one.losses[one.right]

@zsg.metric("per_token", of="choices", higher_is_better=False)
def divide(choices):
    return [(one.id, one.losses[one.right] / one.tokens[one.right]) for one in choices]
"""


@pytest.mark.engine
def test_a_metric_of_choices_is_given_the_losses_of_options(tmp_path: Path) -> None:
    """It is taken in the pass of rank accuracy, of the items that were published with
    options; one that fails leaves the others."""
    import torch

    from jobs.evaluating.choices import Choices
    from jobs.evaluating.representations import Inside, Looked

    broken = (
        '@zsg.metric("broken", of="choices")\ndef fail(choices):\n    return 1 / 0\n'
    )
    names = ["rank_accuracy", "margin", "per_token", "broken"]
    plugins = enter(tmp_path, {"mine.py": f"{MARGIN}\n{broken}".encode()})
    with offering(entries.list_offered(plugins)):
        settings = CheckpointSettings.model_validate({"metrics": names, "snapshots": 5})
    [suite] = select_suites(settings, {})
    items = [
        Example(
            id=f"t:{number}",
            task="t",
            turns=(("Is it?", "Yes"),),
            options=("No", "Yes") if number else (),
        )
        for number in range(3)
    ]
    passes: list[Any] = []

    def within(most: int) -> Any:
        return partial(
            prompts.encode_example,
            template=Template("zsg"),
            tokenize=lambda text: list(text.encode()),
            bos=1,
            eos=2,
            max_length=most,
            truncate="prompt",
        )

    def loss_of(options: Any) -> Any:
        passes.append(options)
        losses = torch.arange(1.0, 1 + len(options)) ** 2
        tokens = torch.tensor(options.learnt)
        return SimpleNamespace(tokens=tokens, measure=lambda: losses / tokens)

    looked = Looked({})
    fields = dict.fromkeys(Inside.__dataclass_fields__)
    fields |= {"choices": Choices(items, within, 64), "loss_of": loss_of}
    Inside(**cast("Any", fields))._rank(
        {key: suite.find_definition(key) for key in suite.keys}, looked
    )

    assert suite.name == "representations" and list(suite.keys) == names
    assert len(passes) == 1
    # losses 1, 4 of one item and 9, 16 of the other; "Yes" and what ends it are 4 tokens
    assert looked.values["rank_accuracy"] == 0
    assert looked.values["margin"] == ((1 - 4) + (9 - 16)) / 2
    assert looked.values["per_token"] == pytest.approx((4 + 16) / 2 / 4)
    assert "mine.py:16: ZeroDivisionError" in str(looked.failed["broken"])


def test_plan_says_what_a_metric_is_of(place: Path) -> None:
    """The sample of a metric with all its arguments; of neither that there are not."""
    plugins = read_plugins({"mine.py": MARGIN.encode()})
    told = plugin_files.describe_plugin(plugins[0])

    assert told == (
        "metric margin (of options), metric per_token (of options, lower is better)"
    )
    for argument in ('of="prompts"', "of=1", "higher_is_better=1", "of=SOME"):
        text = WORDS.replace('"words"', f'"words", {argument}')
        with pytest.raises(BadPlugin, match=r"zsg\.metric: "):
            read_plugins({"mine.py": text.encode()})


def test_a_metric_of_choices_needs_test_items_with_options(place: Path) -> None:
    """Plan refuses it where no format of the test data has any."""
    with pytest.raises(UserError, match="margin chooses among the answers"):
        load(place, MARGIN, "[loss, margin]")
