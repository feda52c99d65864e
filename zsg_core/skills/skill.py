"""Says what a made task is, and draws what its instances say by numbers that every
Python repeats."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

Make = Callable[[Random], tuple[str, str]]


@dataclass(frozen=True)
class Skill:
    """One task: its family, its name, what it asks, and how an instance (input, answer)
    of it is drawn."""

    family: str
    name: str
    definition: str
    make: Make
    held_out: bool = False


# Python promises that later versions repeat `random()` alone, none of its other
# methods: draw from that.


def draw_option(rng: Random, options: Sequence[str]) -> str:
    """One of the options, each as likely as the next."""
    return options[int(rng.random() * len(options))]


def draw_options(rng: Random, options: Sequence[str], count: int) -> list[str]:
    """`count` different options in drawn order."""
    remaining = list(options)
    return [remaining.pop(int(rng.random() * len(remaining))) for _ in range(count)]


def split_words(text: str) -> tuple[str, ...]:
    """The words of a text."""
    return tuple(text.split())


PEOPLE = split_words(
    "Nora Otto Mira Ivo Lena Paul Rosa Emil Ada Finn Greta Hugo Ida Jonas Klara Leo"
)
THINGS = split_words(
    "lamp rope chair ladder bucket candle mirror basket hammer pillow bottle kettle drum broom hook"
    " wheel"
)
