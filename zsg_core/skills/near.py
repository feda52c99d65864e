"""Makes the four families that have held-out tasks: those differ from their training
tasks in surface only."""

from random import Random

from zsg_core.skills.skill import PEOPLE, Skill, draw_option, draw_options, split_words

NUMBERS = tuple(str(number) for number in range(11, 99))
MOODS = {
    "positive": split_words(
        "superb lovely delightful brilliant charming wonderful splendid excellent"
    ),
    "negative": split_words(
        "awful dreadful boring terrible poor horrible dull disappointing"
    ),
}
NAMES_OF = {
    "day": split_words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday"),
    "month": split_words(
        "January February March April May June July August September October November December"
    ),
}
KINDS = split_words("piano chess dance drawing cooking singing riding yoga")
TOPICS = {
    "animals": split_words("goats otters horses rabbits eagles donkeys spiders salmon"),
    "food": split_words("soup cheese bread noodles pancakes salad honey rice"),
    "sport": split_words("tennis football hockey rowing boxing skiing judo cycling"),
    "weather": split_words("rain thunder fog snow hail frost wind sunshine"),
}


def make_review_skill(
    subject: str, opening: str, aspects: str, *, held_out: bool = False
) -> Skill:
    """Two of the `aspects` of a thing are praised or blamed; was the opinion good? {a} is
    a person."""

    def make(rng: Random) -> tuple[str, str]:
        """An instance and its answer, positive or negative. Both words are of one mood
        and different, both aspects too, so that the note holds one opinion and no
        repetition."""
        mood = draw_option(rng, list(MOODS))
        first_aspect, second_aspect = draw_options(rng, split_words(aspects), 2)
        first_word, second_word = draw_options(rng, MOODS[mood], 2)
        start = opening.format(a=draw_option(rng, PEOPLE))
        praise = f"The {first_aspect} was {first_word} and the {second_aspect} was"
        return f"{start} {praise} {second_word}.", mood

    definition = (
        f"Read the short note about a {subject}. Answer with its opinion: positive or"
        " negative."
    )
    return Skill("Sentiment Analysis", f"{subject}_opinion", definition, make, held_out)


def make_comparison_skill(
    nouns: str, comparative: str, fact: str, *, held_out: bool = False
) -> Skill:
    """Two people have a number each, as `fact` says; is the first one's {more}?"""

    def make(rng: Random) -> tuple[str, str]:
        """An instance and its answer. The two numbers are drawn without repetition, so
        that one of them is larger and the answer is never open."""
        (a, b), (x, y) = draw_options(rng, PEOPLE, 2), draw_options(rng, NUMBERS, 2)
        noun = nouns.removesuffix("s")
        start = f"The {noun} of {a} {fact.format(x)} and the {noun} of {b} {fact.format(y)}."
        answer = "yes" if int(x) > int(y) else "no"
        return f"{start} Is the {noun} of {a} {comparative}?", answer

    definition = (
        f"Read the short note about two {nouns}. Answer its question: yes or no."
    )
    return Skill(
        "Number Comparison", f"{comparative}_{nouns}", definition, make, held_out
    )


def make_calendar_skill(
    unit: str, side: str, event: str, *, held_out: bool = False
) -> Skill:
    """An event is on a day or in a month; which one comes next, or came before?"""
    at, step = {"day": "on", "month": "in"}[unit], {"before": -1, "after": 1}[side]

    def make(rng: Random) -> tuple[str, str]:
        """An instance and its answer. The names go round: after the last of a unit
        comes the first, before the first the last."""
        names = NAMES_OF[unit]
        when = draw_option(rng, names)
        answer = names[(names.index(when) + step) % len(names)]
        start = (
            f"The {draw_option(rng, KINDS)} {event} of {draw_option(rng, PEOPLE)} is"
        )
        return f"{start} {at} {when}. Which {unit} comes {side} the {event}?", answer

    definition = f"Read the short note about a {event}. Answer its question: the name of a {unit}."
    return Skill(
        "Calendar Reasoning", f"{unit}_{side}_{event}", definition, make, held_out
    )


def make_topic_skill(source: str, text: str, *, held_out: bool = False) -> Skill:
    """{a} has to do with {x} and {y}, two words of one topic; which topic?"""

    def make(rng: Random) -> tuple[str, str]:
        """An instance and its answer, the topic. Both words are of one topic and
        differ."""
        label = draw_option(rng, list(TOPICS))
        x, y = draw_options(rng, TOPICS[label], 2)
        return text.format(a=draw_option(rng, PEOPLE), x=x, y=y), label

    definition = (
        f"Read the short note about a {source}. Answer with its topic: animals, food, sport or"
        " weather."
    )
    return Skill("Topic Labelling", f"{source}_topic", definition, make, held_out)


TASKS = (
    make_review_skill(
        "film", "I saw this film with {a}.", "plot music acting ending pace"
    ),
    make_review_skill(
        "hotel", "I stayed here with {a}.", "room bed view breakfast pool"
    ),
    make_review_skill(
        "book", "I got this book from {a}.", "story style hero cover print"
    ),
    make_review_skill(
        "meal",
        "I ate here with {a}.",
        "sauce dessert service menu table",
        held_out=True,
    ),
    make_review_skill(
        "phone",
        "I got this phone from {a}.",
        "screen battery camera sound keyboard",
        held_out=True,
    ),
    make_comparison_skill("dogs", "older", "is {} years old"),
    make_comparison_skill("bags", "heavier", "weighs {} pounds"),
    make_comparison_skill("coats", "dearer", "costs {} coins"),
    make_comparison_skill("trees", "taller", "is {} metres tall", held_out=True),
    make_calendar_skill("day", "after", "lesson"),
    make_calendar_skill("day", "before", "contest"),
    make_calendar_skill("month", "after", "camp"),
    make_calendar_skill("day", "after", "party", held_out=True),
    make_calendar_skill("day", "before", "show", held_out=True),
    make_topic_skill("diary", "Dear diary, {a} and I talked about {x} and {y} today."),
    make_topic_skill("letter", "Dear {a}, this week I learnt a lot about {x} and {y}."),
    make_topic_skill(
        "lecture", "{a} gave a lecture in the hall. It was about {x} and {y}."
    ),
    make_topic_skill(
        "song", "{a} sang a song at home. It was about {x} and {y}.", held_out=True
    ),
)
MORE_HELD_OUT = (
    make_review_skill(
        "car",
        "I drove this car with {a}.",
        "engine seat brake radio boot",
        held_out=True,
    ),
    make_review_skill(
        "park",
        "I walked here with {a}.",
        "path pond lawn bench fountain",
        held_out=True,
    ),
    make_review_skill(
        "train",
        "I took this train with {a}.",
        "seat carriage ticket platform timetable",
        held_out=True,
    ),
    make_review_skill(
        "game",
        "I played this game with {a}.",
        "level puzzle sound ending map",
        held_out=True,
    ),
    make_comparison_skill("horses", "older", "is {} years old", held_out=True),
    make_comparison_skill("crates", "heavier", "weighs {} pounds", held_out=True),
    make_comparison_skill("hats", "dearer", "costs {} coins", held_out=True),
    make_comparison_skill("towers", "taller", "is {} metres tall", held_out=True),
    make_comparison_skill("barrels", "fuller", "holds {} pints", held_out=True),
    make_calendar_skill("day", "after", "meeting", held_out=True),
    make_calendar_skill("day", "before", "wedding", held_out=True),
    make_calendar_skill("month", "after", "course", held_out=True),
    make_calendar_skill("day", "after", "concert", held_out=True),
    make_topic_skill(
        "postcard",
        "Greetings, {a}! Here everybody talks about {x} and {y}.",
        held_out=True,
    ),
    make_topic_skill(
        "speech",
        "{a} gave a speech in the square. It was about {x} and {y}.",
        held_out=True,
    ),
    make_topic_skill(
        "quarrel",
        "{a} and I quarrelled all day. It was about {x} and {y}.",
        held_out=True,
    ),
    make_topic_skill(
        "dream", "{a} had a dream last night. It was about {x} and {y}.", held_out=True
    ),
    make_topic_skill(
        "poster",
        "{a} made a poster for the school. It was about {x} and {y}.",
        held_out=True,
    ),
)
