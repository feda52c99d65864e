"""Makes a small set of instruction tasks, in the layout of Natural Instructions V2.

Our own words, free to use (MIT). The large set is for studies of order: 24 held-out
tasks in place of 6, as an interval over tasks wants them, and 24 training tasks far
from all of them in place of 12.
"""

import hashlib
import json
import tempfile
from collections.abc import Collection, Sequence
from itertools import chain, zip_longest
from pathlib import Path
from random import Random
from typing import Any

from zsg_core.errors import UserError
from zsg_core.skills import far, near
from zsg_core.skills.skill import Skill

NUM_POSITIVE_EXAMPLES = 2
# The smallest task has 240 different instances; near that number, drawing a new one takes long.
MOST_PER_TASK = 200
SMALL = (*near.TASKS, *far.TASKS)
LARGE = (*SMALL, *far.MORE, *near.MORE_HELD_OUT)
FAMILIES = tuple(dict.fromkeys(skill.family for skill in LARGE))


def write_tasks(
    folder: Path,
    per_task: int = 40,
    seed: int = 0,
    *,
    large: bool = False,
    families: Collection[str] = (),
) -> None:
    """Writes the task files and split files, whole or not at all; the same ones again
    change nothing.

    `large`: 36 training tasks in place of 24, and 24 held-out ones in place of 6.
    `families`: only tasks of these; all if there are none. Raises UserError if `folder`
    holds anything else, if a task cannot have `per_task` instances, or if the set has
    no task of a family.
    """
    folder = folder.resolve()
    files = make_task_files(per_task, seed, large=large, families=families)
    write_files(folder, files)


def write_files(folder: Path, files: dict[str, str]) -> None:
    """Writes a set of files, whole or not at all; the same ones again change nothing.
    UserError if `folder` holds anything else."""
    if not _is_present(folder, files):
        _write_files(folder, files)


def make_task_files(
    per_task: int, seed: int, *, large: bool = False, families: Collection[str] = ()
) -> dict[str, str]:
    """The whole data set as relative path -> text."""
    if not 1 <= per_task <= MOST_PER_TASK:
        raise UserError(f"per_task must be from 1 to {MOST_PER_TASK}, found {per_task}")
    skills = _select_skills(large, families)
    files = {
        f"tasks/{name}.json": _encode_task(make_task(name, skill, per_task, seed))
        for name, skill in skills
    }
    for split, is_held_out in (("train", False), ("test", True)):
        names = [name for name, skill in skills if skill.held_out == is_held_out]
        text = "".join(f"{name}\n" for name in names)
        files[f"splits/default/{split}_tasks.txt"] = text
    return files


def _select_skills(large: bool, families: Collection[str]) -> list[tuple[str, Skill]]:
    """The skills of these families, all if there are none, each with its task's name."""
    skills = _number_tasks(_interleave_families(LARGE) if large else SMALL)
    if strangers := set(families) - {skill.family for _, skill in skills}:
        raise UserError(
            f"no task of {', '.join(sorted(strangers))} in the small set; ask for the large one"
        )
    if not families:
        return skills
    return [(name, skill) for name, skill in skills if skill.family in families]


def make_task(name: str, skill: Skill, per_task: int, seed: int) -> dict[str, Any]:
    """One task with the fourteen keys of Natural Instructions V2 in their order."""
    # The first instances do not depend on `per_task`: a larger set begins with the smaller one.
    draws = draw_instances(
        skill,
        NUM_POSITIVE_EXAMPLES + 1 + per_task,
        Random(f"skills:{seed}:{skill.name}"),
    )
    *shots, wrong = draws[: NUM_POSITIVE_EXAMPLES + 1]
    items = draws[NUM_POSITIVE_EXAMPLES + 1 :]
    return {
        "Contributors": ["zsg"],
        "Source": ["made by zsg_core.skills"],
        "URL": [],
        "Categories": [skill.family],
        "Reasoning": [],
        "Definition": [skill.definition],
        "Input_language": ["English"],
        "Output_language": ["English"],
        "Instruction_language": ["English"],
        "Domains": ["Synthetic"],
        "Positive Examples": [
            _make_shot(*shot, "This is the answer asked for.") for shot in shots
        ],
        "Negative Examples": [
            _make_shot(wrong[0], "unknown", f"The input says enough: {wrong[1]}.")
        ],
        "Instances": [_make_instance(name, *pair) for pair in items],
        "Instance License": ["MIT"],
    }


def draw_instances(skill: Skill, count: int, rng: Random) -> list[tuple[str, str]]:
    """`count` (input, answer) pairs with different inputs, in drawn order, no answer
    ahead of all others."""
    drawn: dict[str, str] = {}
    while len(drawn) < count:
        question, answer = skill.make(rng)
        # Without this the few items that held-out tasks are measured on may all be a "no".
        if list(drawn.values()).count(answer) <= len(drawn) // 2:
            drawn[question] = answer
    return list(drawn.items())


def _interleave_families(skills: Sequence[Skill]) -> list[Skill]:
    """One task of each family after the other, as published sets are in no order of kinds.

    A round of TMA is in the order of the tasks: were they sorted by family, its batches
    would be of one skill each.
    """
    by_family = {
        family: [skill for skill in skills if skill.family == family]
        for family in FAMILIES
    }
    return [
        skill
        for skill in chain.from_iterable(zip_longest(*by_family.values()))
        if skill
    ]


def _number_tasks(skills: Sequence[Skill]) -> list[tuple[str, Skill]]:
    return [
        (f"task{number:03}_{skill.name}", skill)
        for number, skill in enumerate(skills, start=1)
    ]


def _make_shot(question: str, answer: str, explanation: str) -> dict[str, str]:
    return {"input": question, "output": answer, "explanation": explanation}


def _make_instance(name: str, question: str, answer: str) -> dict[str, Any]:
    """An instance in the layout of Super-NaturalInstructions. Its id is the task's
    number and a digest of the question, so that equal questions of a task have equal
    ids and a changed generator cannot give an old id to another text."""
    task_number, _, _ = name.partition("_")
    key = hashlib.sha256(question.encode()).hexdigest()[:32]
    return {"id": f"{task_number}-{key}", "input": question, "output": [answer]}


def _encode_task(task: dict[str, Any]) -> str:
    return json.dumps(task, indent=4) + "\n"


def _is_present(folder: Path, files: dict[str, str]) -> bool:
    """Whether exactly these files are in `folder`. UserError if it holds something else."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    if stranger := _first_difference(folder, files):
        raise UserError(
            f"{folder}: exists and holds something else than these tasks (see {stranger}); "
            "name a new folder, or remove this one first"
        )
    return True


def _first_difference(folder: Path, files: dict[str, str]) -> Path | None:
    if not folder.is_dir():
        return folder
    # Names before contents: a wrong folder may be huge, and is left at its first strange file.
    for path in folder.rglob("*"):
        if not path.is_dir() and path.relative_to(folder).as_posix() not in files:
            return path
    paths = {folder / name: text.encode() for name, text in files.items()}
    return next(
        (
            path
            for path, data in paths.items()
            if not path.is_file() or path.read_bytes() != data
        ),
        None,
    )


def _write_files(folder: Path, files: dict[str, str]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=f".{folder.name}-", dir=folder.parent
    ) as unfinished:
        unpublished = Path(unfinished, folder.name)
        for name, text in files.items():
            path = unpublished / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode())
        try:
            unpublished.rename(folder)
        except OSError:
            # Somebody else finished first: fine if they wrote the same.
            if not _is_present(folder, files):
                raise
