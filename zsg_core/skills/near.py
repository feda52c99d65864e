"""Makes the four families that have held-out tasks: those differ from their training
tasks in surface only."""

from random import Random

from zsg_core.skills.skill import PEOPLE, Skill, pick, some, words

NUMBERS = tuple(str(number) for number in range(11, 99))
MOODS = {
    "positive": words(
        "superb lovely delightful brilliant charming wonderful splendid excellent"
    ),
    "negative": words(
        "awful dreadful boring terrible poor horrible dull disappointing"
    ),
}
NAMES_OF = {
    "day": words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday"),
    "month": words(
        "January February March April May June July August September October November December"
    ),
}
KINDS = words("piano chess dance drawing cooking singing riding yoga")
TOPICS = {
    "animals": words("goats otters horses rabbits eagles donkeys spiders salmon"),
    "food": words("soup cheese bread noodles pancakes salad honey rice"),
    "sport": words("tennis football hockey rowing boxing skiing judo cycling"),
    "weather": words("rain thunder fog snow hail frost wind sunshine"),
}


def review(thing: str, opening: str, parts: str, *, held_out: bool = False) -> Skill:
    """Two of the `parts` of a thing are praised or blamed; was the opinion good? {a} is
    a person."""

    def make(rng: Random) -> tuple[str, str]:
        mood = pick(rng, list(MOODS))
        part, other = some(rng, words(parts), 2)
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
        return f"{start} Is the {thing} of {a} {more}?", "yes" if int(x) > int(
            y
        ) else "no"

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

    asked = (
        f"Read the short note about a {source}. Answer with its topic: animals, food, sport or"
        " weather."
    )
    return Skill("Topic Labelling", f"{source}_topic", asked, make, held_out)


TASKS = (
    review("film", "I saw this film with {a}.", "plot music acting ending pace"),
    review("hotel", "I stayed here with {a}.", "room bed view breakfast pool"),
    review("book", "I got this book from {a}.", "story style hero cover print"),
    review(
        "meal",
        "I ate here with {a}.",
        "sauce dessert service menu table",
        held_out=True,
    ),
    review(
        "phone",
        "I got this phone from {a}.",
        "screen battery camera sound keyboard",
        held_out=True,
    ),
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
)
MORE_HELD_OUT = (
    review(
        "car",
        "I drove this car with {a}.",
        "engine seat brake radio boot",
        held_out=True,
    ),
    review(
        "park",
        "I walked here with {a}.",
        "path pond lawn bench fountain",
        held_out=True,
    ),
    review(
        "train",
        "I took this train with {a}.",
        "seat carriage ticket platform timetable",
        held_out=True,
    ),
    review(
        "game",
        "I played this game with {a}.",
        "level puzzle sound ending map",
        held_out=True,
    ),
    comparison("horses", "older", "is {} years old", held_out=True),
    comparison("crates", "heavier", "weighs {} pounds", held_out=True),
    comparison("hats", "dearer", "costs {} coins", held_out=True),
    comparison("towers", "taller", "is {} metres tall", held_out=True),
    comparison("barrels", "fuller", "holds {} pints", held_out=True),
    calendar("day", "after", "meeting", held_out=True),
    calendar("day", "before", "wedding", held_out=True),
    calendar("month", "after", "course", held_out=True),
    calendar("day", "after", "concert", held_out=True),
    topic(
        "postcard",
        "Greetings, {a}! Here everybody talks about {x} and {y}.",
        held_out=True,
    ),
    topic(
        "speech",
        "{a} gave a speech in the square. It was about {x} and {y}.",
        held_out=True,
    ),
    topic(
        "quarrel",
        "{a} and I quarrelled all day. It was about {x} and {y}.",
        held_out=True,
    ),
    topic(
        "dream", "{a} had a dream last night. It was about {x} and {y}.", held_out=True
    ),
    topic(
        "poster",
        "{a} made a poster for the school. It was about {x} and {y}.",
        held_out=True,
    ),
)
