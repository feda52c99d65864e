"""Makes a small set of instruction tasks, in families of skills near to and far from the held-out ones.

Natural Instructions V2 layout, our own words, free to use (MIT). Four families have held-out tasks, which
differ from their training tasks in surface only; four families have none. So near and far mean something.

    python -m zsg_core.skills FOLDER [--per-task N] [--seed S] [--more-held-out] [--family NAME]...
"""

import argparse
import hashlib
import json
import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from zsg_core.errors import UserError

NUM_POSITIVE_EXAMPLES = 2
# The smallest task has 240 different instances; near that number, drawing a new one takes long.
MOST_PER_TASK = 200

Make = Callable[[Random], tuple[str, str]]


@dataclass(frozen=True)
class Skill:
    """One task: its family, its name, what it asks, and how an instance (input, answer) of it is drawn."""

    family: str
    name: str
    definition: str
    make: Make
    held_out: bool = False


def write_tasks(
    folder: Path, per_task: int = 40, seed: int = 0, *, more_held_out: bool = False, families: Collection[str] = ()
) -> None:
    """Writes the task files and split files, whole or not at all; the same ones again change nothing.

    `more_held_out`: 24 held-out tasks in place of 6, as an interval over tasks wants them. `families`: only tasks of
    these; all if there are none. Raises UserError if `folder` holds anything else, or if a task cannot have
    `per_task` instances.
    """
    folder = folder.resolve()
    files = task_files(per_task, seed, more_held_out=more_held_out, families=families)
    if not _present(folder, files):
        _write(folder, files)


def task_files(
    per_task: int, seed: int, *, more_held_out: bool = False, families: Collection[str] = ()
) -> dict[str, str]:
    """The whole data set as relative path -> text."""
    if not 1 <= per_task <= MOST_PER_TASK:
        raise UserError(f"per_task must be from 1 to {MOST_PER_TASK}, found {per_task}")
    chosen = [
        (name, skill)
        for name, skill in _numbered(SKILLS + (MORE_HELD_OUT if more_held_out else ()))
        if not families or skill.family in families
    ]
    files = {f"tasks/{name}.json": _json(task_json(name, s, per_task, seed)) for name, s in chosen}
    for split, held_out in (("train", False), ("test", True)):
        names = [name for name, skill in chosen if skill.held_out == held_out]
        files[f"splits/default/{split}_tasks.txt"] = "".join(f"{name}\n" for name in names)
    return files


def task_json(name: str, skill: Skill, per_task: int, seed: int) -> dict[str, Any]:
    """One task with the fourteen keys of Natural Instructions V2 in their order."""
    # The first instances do not depend on `per_task`: a larger set begins with the smaller one.
    draws = distinct(skill, NUM_POSITIVE_EXAMPLES + 1 + per_task, Random(f"skills:{seed}:{skill.name}"))
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
        "Positive Examples": [_shot(*shot, "This is the answer asked for.") for shot in shots],
        "Negative Examples": [_shot(wrong[0], "unknown", f"The input says enough: {wrong[1]}.")],
        "Instances": [_instance(name, *pair) for pair in items],
        "Instance License": ["MIT"],
    }


def distinct(skill: Skill, count: int, rng: Random) -> list[tuple[str, str]]:
    """`count` (input, answer) pairs with different inputs, in drawn order, no answer ahead of all others."""
    drawn: dict[str, str] = {}
    while len(drawn) < count:
        given, answer = skill.make(rng)
        # Without this the few items that held-out tasks are measured on may all be a "no".
        if list(drawn.values()).count(answer) <= len(drawn) // 2:
            drawn[given] = answer
    return list(drawn.items())


def _numbered(made: Sequence[Skill]) -> list[tuple[str, Skill]]:
    return [(f"task{number:03}_{skill.name}", skill) for number, skill in enumerate(made, start=1)]


def _shot(given: str, answer: str, explanation: str) -> dict[str, str]:
    return {"input": given, "output": answer, "explanation": explanation}


def _instance(name: str, given: str, answer: str) -> dict[str, Any]:
    task_number, _, _ = name.partition("_")
    key = hashlib.sha256(given.encode()).hexdigest()[:32]
    return {"id": f"{task_number}-{key}", "input": given, "output": [answer]}


def _json(task: dict[str, Any]) -> str:
    return json.dumps(task, indent=4) + "\n"


# Files --------------------------------------------------------------------------------------------------


def _present(folder: Path, files: dict[str, str]) -> bool:
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
    return next((path for path, data in paths.items() if not path.is_file() or path.read_bytes() != data), None)


def _write(folder: Path, files: dict[str, str]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as unfinished:
        made = Path(unfinished, folder.name)
        for name, text in files.items():
            path = made / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode())
        try:
            made.rename(folder)
        except OSError:
            # Somebody else finished first: fine if they wrote the same.
            if not _present(folder, files):
                raise


# Drawing -------------------------------------------------------------------------------------------------
# Python promises that later versions repeat `random()` alone, none of its other methods: draw from that.


def pick(rng: Random, options: Sequence[str]) -> str:
    """One of the options, each as likely as the next."""
    return options[int(rng.random() * len(options))]


def some(rng: Random, options: Sequence[str], count: int) -> list[str]:
    """`count` different options in drawn order."""
    left = list(options)
    return [left.pop(int(rng.random() * len(left))) for _ in range(count)]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


PEOPLE = _words("Nora Otto Mira Ivo Lena Paul Rosa Emil Ada Finn Greta Hugo Ida Jonas Klara Leo")
THINGS = _words("lamp rope chair ladder bucket candle mirror basket hammer pillow bottle kettle drum broom hook wheel")
NUMBERS = tuple(str(number) for number in range(11, 99))
MOODS = {
    "positive": _words("superb lovely delightful brilliant charming wonderful splendid excellent"),
    "negative": _words("awful dreadful boring terrible poor horrible dull disappointing"),
}
NAMES_OF = {
    "day": _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday"),
    "month": _words("January February March April May June July August September October November December"),
}
KINDS = _words("piano chess dance drawing cooking singing riding yoga")
TOPICS = {
    "animals": _words("goats otters horses rabbits eagles donkeys spiders salmon"),
    "food": _words("soup cheese bread noodles pancakes salad honey rice"),
    "sport": _words("tennis football hockey rowing boxing skiing judo cycling"),
    "weather": _words("rain thunder fog snow hail frost wind sunshine"),
}
SYLLABLES = _words("ba ke lo mu ri ta ve zo ni pa so du fi ga he jo")
# Regular forms only, so that the grammar of a word is its ending.
VERBS = _words("walk jump wait work rest talk look cook open climb paint push pull pack wash kick")
ADJECTIVES = _words("cold deep loud dark fast soft thick clean smooth sharp warm slow rich neat short weak")
PAST = {verb: f"{verb}ed" for verb in VERBS}
PLURAL = {thing: f"{thing}s" for thing in THINGS}
COMPARATIVE = {adjective: f"{adjective}er" for adjective in ADJECTIVES}


# Families ------------------------------------------------------------------------------------------------


def review(thing: str, opening: str, parts: str, *, held_out: bool = False) -> Skill:
    """Two of the `parts` of a thing are praised or blamed; was the opinion good? {a} is a person."""

    def make(rng: Random) -> tuple[str, str]:
        mood = pick(rng, list(MOODS))
        part, other = some(rng, _words(parts), 2)
        this, that = some(rng, MOODS[mood], 2)
        start = opening.format(a=pick(rng, PEOPLE))
        return f"{start} The {part} was {this} and the {other} was {that}.", mood

    asked = f"Read the short note about a {thing}. Answer with its opinion: positive or negative."
    return Skill("Sentiment Analysis", f"{thing}_opinion", asked, make, held_out)


def comparison(things: str, more: str, fact: str, *, held_out: bool = False) -> Skill:
    """Two people have a number each, as `fact` says; is the first one's {more}?"""

    def make(rng: Random) -> tuple[str, str]:
        (a, b), (x, y) = some(rng, PEOPLE, 2), some(rng, NUMBERS, 2)
        thing = things.removesuffix("s")
        start = f"The {thing} of {a} {fact.format(x)} and the {thing} of {b} {fact.format(y)}."
        return f"{start} Is the {thing} of {a} {more}?", "yes" if int(x) > int(y) else "no"

    asked = f"Read the short note about two {things}. Answer its question: yes or no."
    return Skill("Number Comparison", f"{more}_{things}", asked, make, held_out)


def calendar(unit: str, side: str, event: str, *, held_out: bool = False) -> Skill:
    """An event is on a day or in a month; which one comes next, or came before?"""
    at, step = {"day": "on", "month": "in"}[unit], {"before": -1, "after": 1}[side]

    def make(rng: Random) -> tuple[str, str]:
        names = NAMES_OF[unit]
        when = pick(rng, names)
        answer = names[(names.index(when) + step) % len(names)]
        start = f"The {pick(rng, KINDS)} {event} of {pick(rng, PEOPLE)} is"
        return f"{start} {at} {when}. Which {unit} comes {side} the {event}?", answer

    asked = f"Read the short note about a {event}. Answer its question: the name of a {unit}."
    return Skill("Calendar Reasoning", f"{unit}_{side}_{event}", asked, make, held_out)


def topic(source: str, text: str, *, held_out: bool = False) -> Skill:
    """{a} has to do with {x} and {y}, two words of one topic; which topic?"""

    def make(rng: Random) -> tuple[str, str]:
        label = pick(rng, list(TOPICS))
        x, y = some(rng, TOPICS[label], 2)
        return text.format(a=pick(rng, PEOPLE), x=x, y=y), label

    asked = f"Read the short note about a {source}. Answer with its topic: animals, food, sport or weather."
    return Skill("Topic Labelling", f"{source}_topic", asked, make, held_out)


def letters(name: str, what: str, edit: Callable[[str], str]) -> Skill:
    """A word that does not exist is spelt in another way."""

    def make(rng: Random) -> tuple[str, str]:
        word = "".join(pick(rng, SYLLABLES) for _ in range(3))
        return f"Letters: {word}", edit(word)

    return Skill("Letter Editing", name, f"Edit a string of letters: {what}.", make)


def item(which: str, place: int) -> Skill:
    """One of four things is copied."""

    def make(rng: Random) -> tuple[str, str]:
        things = some(rng, THINGS, 4)
        return f"List: {', '.join(things)}", things[place]

    return Skill("List Operations", f"{which}_item", f"Copy the {which} item of a comma-separated list.", make)


def lookup(values: str, options: str) -> Skill:
    """Three keys have a value each; which has the key at the end?"""

    def make(rng: Random) -> tuple[str, str]:
        rows = dict(zip(some(rng, THINGS, 3), some(rng, _words(options), 3), strict=True))
        key = pick(rng, list(rows))
        cells = [f"{thing} = {value}" for thing, value in rows.items()]
        return " | ".join([*cells, f"{key} = ?"]), rows[key]

    return Skill("Table Lookup", f"table_of_{values}", f"Fill the empty cell of a table of {values}.", make)


def grammar(form: str, forms: dict[str, str]) -> Skill:
    """Two words are put into another grammatical form."""

    def make(rng: Random) -> tuple[str, str]:
        first, second = some(rng, list(forms), 2)
        return f"Words: {first} {second}", f"{forms[first]} {forms[second]}"

    return Skill("Word Grammar", form, f"Inflect two English words: write the {form.replace('_', ' ')}.", make)


SKILLS = (
    review("film", "I saw this film with {a}.", "plot music acting ending pace"),
    review("hotel", "I stayed here with {a}.", "room bed view breakfast pool"),
    review("book", "I got this book from {a}.", "story style hero cover print"),
    review("meal", "I ate here with {a}.", "sauce dessert service menu table", held_out=True),
    review("phone", "I got this phone from {a}.", "screen battery camera sound keyboard", held_out=True),
    comparison("dogs", "older", "is {} years old"),
    comparison("bags", "heavier", "weighs {} pounds"),
    comparison("coats", "dearer", "costs {} coins"),
    comparison("trees", "taller", "is {} metres tall", held_out=True),
    calendar("day", "after", "lesson"),
    calendar("day", "before", "contest"),
    calendar("month", "after", "camp"),
    calendar("day", "after", "party", held_out=True),
    calendar("day", "before", "show", held_out=True),
    topic("diary", "Dear diary, {a} and I talked about {x} and {y} today."),
    topic("letter", "Dear {a}, this week I learnt a lot about {x} and {y}."),
    topic("lecture", "{a} gave a lecture in the hall. It was about {x} and {y}."),
    topic("song", "{a} sang a song at home. It was about {x} and {y}.", held_out=True),
    letters("letters_reversed", "reverse them", lambda word: word[::-1]),
    letters("letters_dropped", "drop the first two", lambda word: word[2:]),
    letters("letters_in_capitals", "turn them into capitals", str.upper),
    item("first", 0),
    item("third", 2),
    item("last", -1),
    lookup("colours", "red green blue brown white black yellow grey"),
    lookup("materials", "wood iron glass paper copper wool clay rubber"),
    lookup("shapes", "round square oval flat hollow curved pointed cubic"),
    grammar("past_tense", PAST),
    grammar("plural", PLURAL),
    grammar("comparative", COMPARATIVE),
)


MORE_HELD_OUT = (
    review("car", "I drove this car with {a}.", "engine seat brake radio boot", held_out=True),
    review("park", "I walked here with {a}.", "path pond lawn bench fountain", held_out=True),
    review("train", "I took this train with {a}.", "seat carriage ticket platform timetable", held_out=True),
    review("game", "I played this game with {a}.", "level puzzle sound ending map", held_out=True),
    comparison("horses", "older", "is {} years old", held_out=True),
    comparison("crates", "heavier", "weighs {} pounds", held_out=True),
    comparison("hats", "dearer", "costs {} coins", held_out=True),
    comparison("towers", "taller", "is {} metres tall", held_out=True),
    comparison("barrels", "fuller", "holds {} pints", held_out=True),
    calendar("day", "after", "meeting", held_out=True),
    calendar("day", "before", "wedding", held_out=True),
    calendar("month", "after", "course", held_out=True),
    calendar("day", "after", "concert", held_out=True),
    topic("postcard", "Greetings, {a}! Here everybody talks about {x} and {y}.", held_out=True),
    topic("speech", "{a} gave a speech in the square. It was about {x} and {y}.", held_out=True),
    topic("quarrel", "{a} and I quarrelled all day. It was about {x} and {y}.", held_out=True),
    topic("dream", "{a} had a dream last night. It was about {x} and {y}.", held_out=True),
    topic("poster", "{a} made a poster for the school. It was about {x} and {y}.", held_out=True),
)
FAMILIES = tuple(dict.fromkeys(skill.family for skill in SKILLS))


def main(argv: Sequence[str] | None = None) -> None:
    """The command line: writes a folder and says in one line what is in it."""
    parser = argparse.ArgumentParser(prog="python -m zsg_core.skills", description=main.__doc__)
    parser.add_argument("folder", type=Path, help="where to write; must be new, empty or hold the same tasks")
    parser.add_argument(
        "--per-task", type=int, default=40, help=f"instances of each task, at most {MOST_PER_TASK} (default 40)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the instances (default 0)")
    parser.add_argument(
        "--more-held-out", action="store_true", help="24 held-out tasks in place of 6, for intervals over tasks"
    )
    parser.add_argument(
        "--family", action="append", default=[], choices=FAMILIES, metavar="NAME",
        help=f"only tasks of this family; may be given again: {', '.join(FAMILIES)}",
    )  # fmt: skip
    given = parser.parse_args(argv)
    kept = {"more_held_out": given.more_held_out, "families": given.family}
    try:
        write_tasks(given.folder, given.per_task, given.seed, **kept)
    except UserError as error:
        parser.error(str(error))
    files = task_files(1, given.seed, **kept)
    train, test = (files[f"splits/default/{split}_tasks.txt"].count("\n") for split in ("train", "test"))
    families = len(given.family) or len(FAMILIES)
    of = "1 family" if families == 1 else f"{families} families"
    tasks = f"{train} training and {test} held-out tasks in {of}"
    print(f"{given.folder}: {tasks}, {given.per_task} instances each")


if __name__ == "__main__":
    main()
