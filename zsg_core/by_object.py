"""Keeps what was worked out of objects, by which objects they are: the points of a grid
share most of their settings, and to compare these takes as long as to work it out anew."""

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

V = TypeVar("V")


class ByObject(Generic[V]):
    """Values that were made of objects. These must not change afterwards."""

    def __init__(self) -> None:
        # with the objects: their numbers are then given to no others
        self._made: dict[Hashable, tuple[tuple[object, ...], V]] = {}

    def get(
        self, objects: tuple[object, ...], facts: Hashable, make: Callable[[], V]
    ) -> V:
        """The value of these objects and facts, made where it is asked for the first
        time."""
        key = tuple(map(id, objects)), facts
        if key not in self._made:
            self._made[key] = objects, make()
        return self._made[key][1]
