"""The made skill tasks: the same bytes everywhere, the official layout, near and far relatives."""

import calendar
import hashlib
import json
import re
from pathlib import Path

import pytest

from zsg_core import skills
from zsg_core.data.readers.intake import Intake
from zsg_core.data.readers.niv2 import read_task, read_task_names
from zsg_core.errors import UserError
from zsg_core.skills import data_set, make_task_files, near, write_tasks
from zsg_core.skills.__main__ import main

# Changes whenever any byte of the default data set does; then every demo figure made
# from it is another one.
GOLDEN = "e2cb5d5d0cff4fa18a48b48fb5105bb421b962f67c69e7362b61a214c51f6892"
OFFICIAL_KEYS = [
    "Contributors",
    "Source",
    "URL",
    "Categories",
    "Reasoning",
    "Definition",
    "Input_language",
    "Output_language",
    "Instruction_language",
    "Domains",
    "Positive Examples",
    "Negative Examples",
    "Instances",
    "Instance License",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The default data set on disk."""
    made = tmp_path_factory.mktemp("made") / "skills"
    write_tasks(made)
    return made


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """The large data set on disk."""
    made = tmp_path_factory.mktemp("wide") / "skills"
    write_tasks(made, large=True)
    return made


@pytest.fixture(scope="module")
def tasks(wide):
    """Task name -> its JSON, of all tasks that there are."""
    return {
        path.stem: json.loads(path.read_text())
        for path in sorted(wide.glob("tasks/*.json"))
    }


def task_examples(folder: Path, name: str) -> list:
    """The instances of a task as the reader gives them."""
    return list(read_task(folder / f"tasks/{name}.json", Intake()))


def contents(folder: Path) -> dict[str, bytes]:
    """Relative path -> bytes of every file below a folder."""
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file()
    }


def test_bytes_are_the_recorded_ones(folder):
    """The default data set has the same bytes on every machine and Python."""
    digest = hashlib.sha256()
    for name, data in sorted(contents(folder).items()):
        digest.update(f"{name} {hashlib.sha256(data).hexdigest()}\n".encode())

    assert GOLDEN == digest.hexdigest()


def test_seed_changes_the_instances_only():
    """Another seed gives other task files under the same names, and the same splits."""
    zero, one = make_task_files(5, seed=0), make_task_files(5, seed=1)

    assert zero.keys() == one.keys()
    assert {name for name in zero if zero[name] == one[name]} == {
        "splits/default/train_tasks.txt",
        "splits/default/test_tasks.txt",
    }


def test_a_larger_set_begins_with_the_smaller_one():
    """The first instances and the examples of a task do not depend on how many are asked for."""
    few, many = make_task_files(3, seed=0), make_task_files(30, seed=0)
    name = "tasks/task001_film_opinion.json"
    small, large = json.loads(few[name]), json.loads(many[name])

    assert small["Instances"] == large["Instances"][:3]
    assert small["Positive Examples"] == large["Positive Examples"]


def test_every_task_has_the_official_keys(tasks):
    """A task file has the fourteen keys of Natural Instructions V2 in their order."""
    assert {name: OFFICIAL_KEYS for name in tasks} == {
        name: list(task) for name, task in tasks.items()
    }


def test_every_task_has_examples(tasks):
    """A task shows two right answers and a wrong one, none of them an instance."""
    for name, task in tasks.items():
        shots = task["Positive Examples"] + task["Negative Examples"]
        inputs = {row["input"] for row in task["Instances"]}

        assert (2, 1) == (
            len(task["Positive Examples"]),
            len(task["Negative Examples"]),
        ), name
        assert not inputs & {shot["input"] for shot in shots}, name
        assert all(
            shot.keys() == {"input", "output", "explanation"} for shot in shots
        ), name


def test_instances_are_distinct(tasks):
    """A task has as many different inputs and ids as were asked for."""
    for name, task in tasks.items():
        rows = task["Instances"]

        assert (
            40
            == len(rows)
            == len({row["input"] for row in rows})
            == len({row["id"] for row in rows})
        ), name


def test_no_answer_takes_over_the_first_instances(tasks):
    """The first five instances of a task, which may be all that is measured, have at
    least two answers."""
    for name, task in tasks.items():
        answers = [row["output"][0] for row in task["Instances"][:5]]

        assert max(answers.count(answer) for answer in answers) <= 3, name


def test_texts_are_short(tasks):
    """Definitions and inputs have at most 35 words and answers one to six, so that a
    CPU can train on them."""
    for name, task in tasks.items():
        assert len(task["Definition"][0].split()) <= 35, name
        assert all(len(row["input"].split()) <= 35 for row in task["Instances"]), name
        assert all(
            1 <= len(row["output"][0].split()) <= 6 for row in task["Instances"]
        ), name


def test_splits_name_every_task_once(folder, wide, tasks):
    """24 training and 6 held-out tasks, or 36 and 24, disjoint, and together all the
    task files there are."""
    (train, few), (more, many) = (
        [read_task_names(one, split) for split in ("train", "test")]
        for one in (folder, wide)
    )

    assert (24, 6, 36, 24) == (len(train), len(few), len(more), len(many))
    assert sorted(tasks) == sorted(more + many)
    assert sorted(train + few) == sorted(
        path.stem for path in folder.glob("tasks/*.json")
    )


def test_the_large_set_has_the_tasks_of_the_small_one(folder, wide):
    """The same instances under other numbers."""
    small, large = (
        {path.stem[8:]: path for path in one.glob("tasks/*.json")}
        for one in (folder, wide)
    )
    pairs = [
        [json.loads(one[name].read_text())["Instances"] for one in (small, large)]
        for name in small
    ]

    assert all(
        [row["input"] for row in ours] == [row["input"] for row in theirs]
        for ours, theirs in pairs
    )


def test_no_held_out_input_is_trained_on(wide):
    """Training and held-out tasks share no input."""
    seen, held_out = (
        {
            row.input
            for name in read_task_names(wide, split)
            for row in task_examples(wide, name)
        }
        for split in ("train", "test")
    )

    assert not seen & held_out


def test_held_out_answers_occur_in_training(wide):
    """Every held-out answer is also the answer of some training task."""
    seen, held_out = (
        {
            row.answer
            for name in read_task_names(wide, split)
            for row in task_examples(wide, name)
        }
        for split in ("train", "test")
    )

    assert held_out <= seen


def opinion(text: str) -> str:
    return (
        "positive"
        if any(word in text for word in near.MOODS["positive"])
        else "negative"
    )


def larger(text: str) -> str:
    first, second = map(int, re.findall(r"\d+", text))
    return "yes" if first > second else "no"


def neighbour(text: str) -> str:
    when, unit, side = re.search(r"(\w+)\. Which (\w+) comes (\w+)", text).groups()
    names = list(calendar.day_name if unit == "day" else calendar.month_name[1:])
    return names[(names.index(when) + {"after": 1, "before": -1}[side]) % len(names)]


def topic(text: str) -> str:
    (label,) = [
        label
        for label, words in near.TOPICS.items()
        if sum(word in text for word in words) == 2
    ]
    return label


def cell(text: str) -> str:
    *rows, (asked, _) = [part.split(" = ") for part in text.split(" | ")]
    return dict(rows)[asked]


def ends_with(ending: str):
    return lambda text: " ".join(word + ending for word in text.split()[1:])


def next_number(step: int):
    return lambda text: str(int(text.split()[-1]) + step)


def each_of_two(spell):
    return lambda text: " ".join(map(spell, text.removeprefix("Spell: ").split()))


def signs(sign: str):
    def rule(text: str) -> str:
        left, thing, right = text.split()[1:]
        return f"{sign * int(left)} {thing} {sign * int(right)}"

    return rule


@pytest.mark.parametrize(
    ("named", "rule"),
    [
        ("_opinion", opinion),
        ("older_|heavier_|dearer_|taller_|fuller_", larger),
        ("day_|month_", neighbour),
        ("_topic", topic),
        ("letters_reversed", lambda text: "".join(reversed(text.split()[1]))),
        ("letters_dropped", lambda text: text.removeprefix("Letters: ")[2:]),
        ("letters_in_capitals", lambda text: text.split()[1].upper()),
        ("first_item", lambda text: re.split(r"\W+", text)[1]),
        ("third_item", lambda text: re.split(r"\W+", text)[3]),
        ("last_item", lambda text: re.split(r"\W+", text)[4]),
        ("table_of_", cell),
        ("past_tense", ends_with("ed")),
        ("plural", ends_with("s")),
        ("comparative", ends_with("er")),
        ("up_by_two", next_number(2)),
        ("up_by_five", next_number(5)),
        ("down_by_three", next_number(-3)),
        ("with_dashes", each_of_two("-".join)),
        (
            "without_vowels",
            each_of_two(
                lambda word: "".join(one for one in word if one not in "aeiou")
            ),
        ),
        ("doubly", each_of_two(lambda word: "".join(one + one for one in word))),
        ("stars", signs("*")),
        ("hashes", signs("#")),
        ("pluses", signs("+")),
        ("by_the_alphabet", lambda text: " ".join(sorted(text.split()[1:]))),
        ("from_the_end", lambda text: " ".join(reversed(text.split()[1:]))),
        (
            "by_last_letter",
            lambda text: " ".join(
                sorted(text.split()[1:], key=lambda word: word[::-1])
            ),
        ),
    ],
)
def test_answers_are_right(tasks, named, rule):
    """The answers of a task, its examples' included, follow from the text of the input."""
    chosen = [task for name, task in tasks.items() if re.search(named, name)]
    pairs = [
        (row["input"], row["output"][0]) for task in chosen for row in task["Instances"]
    ]
    pairs += [
        (shot["input"], shot["output"])
        for task in chosen
        for shot in task["Positive Examples"]
    ]

    assert pairs
    assert [(given, rule(given)) for given, _ in pairs] == pairs


def test_every_task_has_a_rule_above(tasks):
    """A new task cannot be added without saying here how its answers are checked."""
    (mark,) = test_answers_are_right.pytestmark
    patterns = [named for named, _ in mark.args[1]]

    assert {name: 1 for name in tasks} == {
        name: sum(bool(re.search(pattern, name)) for pattern in patterns)
        for name in tasks
    }


def test_second_write_does_nothing(tmp_path):
    """Writing the same data set again leaves the folder, its files and their times alone."""
    write_tasks(tmp_path / "skills", per_task=2)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}

    write_tasks(tmp_path / "skills", per_task=2)

    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}


def test_an_empty_folder_is_filled(tmp_path):
    """A folder with nothing in it may be written to."""
    write_tasks(tmp_path / "skills", per_task=2)
    (tmp_path / "empty").mkdir()

    write_tasks(tmp_path / "empty", per_task=2)

    assert contents(tmp_path / "skills") == contents(tmp_path / "empty")


def spoil_with_a_file_of_the_users(folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")


def spoil_by_an_edit(folder: Path) -> None:
    (folder / "splits/default/train_tasks.txt").write_text("task001_film_opinion\n")


def spoil_by_a_missing_file(folder: Path) -> None:
    next(folder.glob("tasks/*.json")).unlink()


def spoil_by_another_size(folder: Path) -> None:
    for name, text in make_task_files(3, seed=0).items():
        (folder / name).write_text(text)


@pytest.mark.parametrize(
    "spoil",
    [
        spoil_with_a_file_of_the_users,
        spoil_by_an_edit,
        spoil_by_a_missing_file,
        spoil_by_another_size,
    ],
)
def test_a_folder_with_something_else_is_refused(tmp_path, spoil):
    """A folder that differs from the data set in any way is refused and left as it is."""
    folder = tmp_path / "skills"
    write_tasks(folder, per_task=2)
    spoil(folder)
    before = contents(folder)

    with pytest.raises(UserError, match="holds something else"):
        write_tasks(folder, per_task=2)

    assert before == contents(folder)


def test_a_file_in_the_way_is_refused(tmp_path):
    """A file where the folder should be is refused and kept."""
    (tmp_path / "skills").write_text("mine")

    with pytest.raises(UserError, match="holds something else"):
        write_tasks(tmp_path / "skills")

    assert "mine" == (tmp_path / "skills").read_text()


def test_a_write_that_stops_midway_leaves_nothing(tmp_path):
    """A data set is there whole or not at all."""
    no_file_can_hold = "\ud800"

    with pytest.raises(UnicodeEncodeError):
        data_set._write_files(
            tmp_path / "skills",
            {"tasks/a.json": "{}", "tasks/b.json": no_file_can_hold},
        )

    assert [] == list(tmp_path.iterdir())


def test_two_writers_agree(tmp_path):
    """Who finishes second finds the same data set and leaves it; another one in the way
    is an error."""
    files = {"tasks/a.json": "{}"}

    data_set._write_files(tmp_path / "skills", files)
    data_set._write_files(tmp_path / "skills", files)

    with pytest.raises(UserError, match="holds something else"):
        data_set._write_files(tmp_path / "skills", {"tasks/a.json": "[]"})
    assert ["skills"] == [path.name for path in tmp_path.iterdir()]


@pytest.mark.parametrize("per_task", [-1, 0, skills.MOST_PER_TASK + 1])
def test_a_number_of_instances_that_no_task_has_is_refused(per_task):
    """The error says what is allowed."""
    with pytest.raises(
        UserError, match=f"per_task must be from 1 to 200, found {per_task}"
    ):
        make_task_files(per_task, seed=0)


def test_every_task_has_the_most_instances_allowed():
    """No task runs out before the limit that the command states."""
    files = make_task_files(skills.MOST_PER_TASK, seed=3, large=True)
    counts = {
        len(json.loads(text)["Instances"])
        for name, text in files.items()
        if name.endswith(".json")
    }

    assert {200} == counts


def test_command_says_what_it_made(tmp_path, capsys):
    """The command writes the folder and prints one line."""
    main([str(tmp_path / "skills"), "--per-task", "2", "--seed", "7"])

    assert make_task_files(2, seed=7).keys() == contents(tmp_path / "skills").keys()
    assert (
        f"{tmp_path / 'skills'}: 24 training and 6 held-out tasks in 8 families, 2 instances each\n"
        == capsys.readouterr().out
    )


def test_command_refuses_in_one_line(tmp_path, capsys):
    """A mistake ends the command with exit code 2 and the message, without a traceback."""
    (tmp_path / "mine.txt").write_text("mine")

    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path)])

    assert "holds something else" in capsys.readouterr().err
