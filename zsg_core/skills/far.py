"""Makes the families that have no held-out task, and nothing to do with those that have."""

import re
from collections.abc import Callable, Sequence
from random import Random

from zsg_core.skills.skill import THINGS, Skill, draw_option, draw_options, split_words

SYLLABLES = split_words("ba ke lo mu ri ta ve zo ni pa so du fi ga he jo")
# Regular forms only, so that the grammar of a word is its ending.
VERBS = split_words(
    "walk jump wait work rest talk look cook open climb paint push pull pack wash kick"
)
ADJECTIVES = split_words(
    "cold deep loud dark fast soft thick clean smooth sharp warm slow rich neat short weak"
)
PAST = {verb: f"{verb}ed" for verb in VERBS}
PLURAL = {thing: f"{thing}s" for thing in THINGS}
COMPARATIVE = {adjective: f"{adjective}er" for adjective in ADJECTIVES}


def make_letters_skill(name: str, edit_text: str, edit: Callable[[str], str]) -> Skill:
    """A word that does not exist is spelt in another way."""

    def make(rng: Random) -> tuple[str, str]:
        word = "".join(draw_option(rng, SYLLABLES) for _ in range(3))
        return f"Letters: {word}", edit(word)

    return Skill(
        "Letter Editing", name, f"Edit a string of letters: {edit_text}.", make
    )


def make_item_skill(which: str, position: int) -> Skill:
    """One of four things is copied."""

    def make(rng: Random) -> tuple[str, str]:
        nouns = draw_options(rng, THINGS, 4)
        return f"List: {', '.join(nouns)}", nouns[position]

    return Skill(
        "List Operations",
        f"{which}_item",
        f"Copy the {which} item of a comma-separated list.",
        make,
    )


def make_lookup_skill(values: str, options: str) -> Skill:
    """Three keys have a value each; which has the key at the end?"""

    def make(rng: Random) -> tuple[str, str]:
        rows = dict(
            zip(
                draw_options(rng, THINGS, 3),
                draw_options(rng, split_words(options), 3),
                strict=True,
            )
        )
        key = draw_option(rng, list(rows))
        cells = [f"{noun} = {value}" for noun, value in rows.items()]
        return " | ".join([*cells, f"{key} = ?"]), rows[key]

    return Skill(
        "Table Lookup",
        f"table_of_{values}",
        f"Fill the empty cell of a table of {values}.",
        make,
    )


def make_grammar_skill(form: str, forms: dict[str, str]) -> Skill:
    """Two words are put into another grammatical form."""

    def make(rng: Random) -> tuple[str, str]:
        first, second = draw_options(rng, list(forms), 2)
        return f"Words: {first} {second}", f"{forms[first]} {forms[second]}"

    return Skill(
        "Word Grammar",
        form,
        f"Inflect two English words: write the {form.replace('_', ' ')}.",
        make,
    )


def make_sequence_skill(name: str, step: int) -> Skill:
    """Four numbers a `step` apart; which comes next?"""

    def make(rng: Random) -> tuple[str, str]:
        """An instance and its answer: four numbers at equal steps are shown, the fifth
        is asked for. The first lies between 50 and 949, so that small steps down stay
        above 0."""
        first = 50 + int(rng.random() * 900)
        *numbers, last = (str(first + step * position) for position in range(5))
        return f"Numbers: {' '.join(numbers)}", last

    grows = "grows" if step > 0 else "shrinks"
    definition = f"Continue a sequence of numbers that {grows} by {abs(step)}."
    return Skill("Number Sequences", name, definition, make)


def make_spelling_skill(
    name: str, spelling_text: str, spell: Callable[[str], str]
) -> Skill:
    """Two things are spelt in another way."""

    def make(rng: Random) -> tuple[str, str]:
        first, second = draw_options(rng, THINGS, 2)
        return f"Spell: {first} {second}", f"{spell(first)} {spell(second)}"

    return Skill("Spelling Out", name, f"Spell two nouns: {spelling_text}.", make)


def make_drawing_skill(name: str, sign: str) -> Skill:
    """A thing stands between two numbers, which become as many signs."""

    def make(rng: Random) -> tuple[str, str]:
        before, after = (1 + int(rng.random() * 8) for _ in range(2))
        noun = draw_option(rng, THINGS)
        return (
            f"Draw: {before} {noun} {after}",
            f"{sign * before} {noun} {sign * after}",
        )

    return Skill(
        "Symbol Drawing",
        name,
        f"Put as many signs {sign} in place of each number as it says.",
        make,
    )


def make_sorting_skill(
    name: str, order_text: str, ordered: Callable[[list[str]], Sequence[str]]
) -> Skill:
    """Three things are put into another order."""

    def make(rng: Random) -> tuple[str, str]:
        nouns = draw_options(rng, THINGS, 3)
        return f"Shelf: {' '.join(nouns)}", " ".join(ordered(nouns))

    return Skill(
        "Sorting", name, f"Rearrange the goods on a shelf: {order_text}.", make
    )


TASKS = (
    make_letters_skill("letters_reversed", "reverse them", lambda word: word[::-1]),
    make_letters_skill("letters_dropped", "drop the first two", lambda word: word[2:]),
    make_letters_skill("letters_in_capitals", "turn them into capitals", str.upper),
    make_item_skill("first", 0),
    make_item_skill("third", 2),
    make_item_skill("last", -1),
    make_lookup_skill("colours", "red green blue brown white black yellow grey"),
    make_lookup_skill("materials", "wood iron glass paper copper wool clay rubber"),
    make_lookup_skill("shapes", "round square oval flat hollow curved pointed cubic"),
    make_grammar_skill("past_tense", PAST),
    make_grammar_skill("plural", PLURAL),
    make_grammar_skill("comparative", COMPARATIVE),
)
MORE = (
    make_sequence_skill("up_by_two", 2),
    make_sequence_skill("up_by_five", 5),
    make_sequence_skill("down_by_three", -3),
    make_spelling_skill(
        "spelt_with_dashes", "put a dash between their letters", "-".join
    ),
    make_spelling_skill(
        "spelt_without_vowels",
        "leave out their vowels",
        lambda word: re.sub("[aeiou]", "", word),
    ),
    make_spelling_skill(
        "spelt_doubly",
        "write each letter twice",
        lambda word: "".join(2 * letter for letter in word),
    ),
    make_drawing_skill("drawn_stars", "*"),
    make_drawing_skill("drawn_hashes", "#"),
    make_drawing_skill("drawn_pluses", "+"),
    make_sorting_skill("by_the_alphabet", "in the order of the alphabet", sorted),
    make_sorting_skill(
        "from_the_end", "the last one first", lambda things: things[::-1]
    ),
    make_sorting_skill(
        "by_last_letter",
        "by their last letters",
        lambda things: sorted(things, key=lambda thing: thing[::-1]),
    ),
)
