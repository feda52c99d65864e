"""Which orders are there, and what is each: the one entry that settings, recipes and
prepare jobs read.

An order is a function under `@order("name", …)` in a module of this folder: it says
which settings count under it, what of them enters a recipe and so the id of an
arrangement, and what it needs.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, Protocol

from zsg_core.data.examples import Example
from zsg_core.orders import curriculum
from zsg_core.orders.order_list import ListFile
from zsg_core.registry import Registry


class OrderInput(Protocol):
    """What an order reads of a file. `digest`: of what it says, however it is written."""

    @property
    def digest(self) -> str: ...


def _have_no_input() -> OrderInput:
    raise NotImplementedError("this order was given no file to read")


# (farthest first?, cap) → rounds
Rounds = Callable[[bool, int | None], Iterator[list[int]]]
# cap → the nearest rounds, the farthest rounds
RoundsOfBothEnds = Callable[[int | None], tuple[list[list[int]], list[list[int]]]]


@dataclass(frozen=True)
class Arranged:
    """An order as places in the training list, and what is worth knowing about how it
    came about."""

    places: list[int]
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class OrderInputs:
    """What an order is made from: N items whose tasks are `tasks`, items of a task
    standing together.

    `recipe` is the arrangement's, `examples` the items themselves, for an order that
    reads them. `distances` (N, or one for each task where the
    recipe's granularity is coarse) and `rounds` are made when they are first asked for,
    as are `rounds_of_both_ends`: both `rounds` from one matrix product.
    `ids` are the items' (N); `published_ids` those that their rows were published with
    (N, None where a row has none), `other_ids` the ids of all examples that the data
    have, also of those that are not trained on, and `read_input` gives what the order
    `reads`.
    """

    recipe: Mapping[str, Any]
    tasks: Sequence[str]
    distances: Callable[[], Sequence[float]]
    rounds: Rounds
    ids: Sequence[str] = ()
    published_ids: Callable[[], Sequence[str | None]] = tuple
    other_ids: Callable[[], Set[str]] = frozenset
    read_input: Callable[[], Any] = _have_no_input
    sources: Callable[[], Sequence[str]] = tuple
    examples: Callable[[], Sequence[Example]] = tuple
    rounds_of_both_ends: RoundsOfBothEnds | None = None

    @property
    def order(self) -> str:
        return self.recipe["order"]

    @property
    def seed(self) -> int:
        return self.recipe.get("seed", 0)


# the settings `arrangement` of a run, as an object
ArrangementSettings = Any
ArrangeFunction = Callable[[OrderInputs], Arranged]


def never(_settings: ArrangementSettings) -> bool:
    """The answer of orders that need none of it."""
    return False


def always(_settings: ArrangementSettings) -> bool:
    """The answer of orders that need it whatever is asked."""
    return True


@dataclass(frozen=True, kw_only=True)
class Order:
    """One order.

    `about`: what it does, for the description of the setting. `settings`: the keys of
    `arrangement` that count under it; under any other order they are refused.
    `parameters`: keys that `arrangement` does not have yet, each with its type and
    pydantic's Field, whose default must be None. `check` raises ValueError for settings
    that do not go together. `recipe`: what of them enters the recipe, beside the order
    and its seed; by default each that is given. `is_seeded`: whether a seed changes it;
    `needs_embedding`: whether distances need an embedding model. `reads`: what reads
    the user's file at `arrangement.path`, for an order that needs one; BadData for a
    file that is none. Its digest enters the recipe as `input`. `leaves_out`: keys of the
    recipe with which it may leave examples out.
    """

    name: str
    about: str
    arrange: ArrangeFunction
    settings: tuple[str, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    check: Callable[[ArrangementSettings], None] = lambda settings: None
    recipe: Callable[[ArrangementSettings], dict[str, Any]] | None = None
    is_seeded: Callable[[ArrangementSettings], bool] = never
    needs_embedding: Callable[[ArrangementSettings], bool] = never
    reads: Callable[[ListFile], OrderInput] | None = None
    leaves_out: tuple[str, ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        """All keys of `arrangement` that count under it."""
        return (*self.settings, *self.parameters)

    def resolve(self, settings: ArrangementSettings) -> dict[str, Any]:
        """What of the settings enters the recipe."""
        if self.recipe is not None:
            return self.recipe(settings)
        values = {key: getattr(settings, key) for key in self.keys}
        return {key: value for key, value in values.items() if value is not None}


ORDERS: Registry[Order] = Registry("order", "zsg_core.orders")


def order(
    name: str, *, about: str, **facts: Any
) -> Callable[[ArrangeFunction], ArrangeFunction]:
    """Registers a function that puts items in the order `name`; `facts` are the other
    fields of its Order."""

    def register(arrange: ArrangeFunction) -> ArrangeFunction:
        ORDERS.add(name, Order(name=name, about=about, arrange=arrange, **facts))
        return arrange

    return register


def may_leave_out(recipe: Mapping[str, Any]) -> bool:
    """Whether an arrangement's recipe may train on a part of the examples."""
    return order_leaves_out(recipe) or curriculum.may_pass_over(recipe)


def order_leaves_out(recipe: Mapping[str, Any]) -> bool:
    """Whether the order of the recipe may, whatever becomes of its list."""
    return any(key in recipe for key in ORDERS[recipe["order"]].leaves_out)


def orders_with(key: str) -> list[str]:
    """The orders under which a key of `arrangement` counts; empty for one that counts
    under all."""
    return [name for name, entry in ORDERS.items() if key in entry.keys]
