"""The order of a file: a list that the user gives, by ids or by places.

Examples are seen exactly in the order of the list, several times only where that is
asked for. The list's digest enters the recipe,
and so the run id; neither its path nor its format does.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from zsg_core.errors import BadData
from zsg_core.orders.curriculum import KEPT_REPEATS
from zsg_core.orders.known_names import find_places
from zsg_core.orders.order_list import IDS, OrderList, read_order_list
from zsg_core.orders.registry import Arranged, OrderInputs, order

FILE = "file"
DROP = "drop"
KEEP = "keep"
SHOWN = 3


def check_file(settings: Any) -> None:
    """ValueError where no file is named."""
    if settings.path is None:
        raise ValueError(
            "order file needs `path`: a file that lists the training examples in their order"
        )


def resolve_file(settings: Any) -> dict[str, Any]:
    """What enters the recipe beside the list's digest: whether examples may be left out,
    or come again."""
    recipe = {"rest": DROP} if settings.rest == DROP else {}
    if settings.repeats == KEEP:
        recipe[KEPT_REPEATS] = KEEP
    return recipe


@order(
    FILE,
    about="as a file of your own lists them",
    settings=("path", "entries", "rest", "repeats"),
    check=check_file,
    recipe=resolve_file,
    reads=read_order_list,
    leaves_out=("rest",),
)
def arrange_by_file(inputs: OrderInputs) -> Arranged:
    """Items in the order of the list. Entries of examples that are not trained on, held
    out or not sampled, are passed over, and counted.

    BadData for an entry that is no example at all, and for a list that leaves training
    examples out, unless the recipe lets it.
    """
    listed: OrderList = inputs.read_input()
    ids = inputs.ids
    if listed.kind != IDS:
        positions = _find_places(listed, len(ids))
        named_by = "places"
    else:
        positions, named_by = _find_ids(inputs, listed)
    if inputs.recipe.get("rest") != DROP:
        if listed.kind == IDS:
            _refuse_repeated(listed, ids)
        _refuse_left_out(listed, positions, ids)
    facts: dict[str, Any] = {"by": named_by, "count": len(positions)}
    passed_over = len(listed.entries) - len(positions)
    if passed_over:
        facts["passed_over"] = passed_over
    return Arranged(positions, {"listed": facts})


def _find_places(listed: OrderList, count: int) -> list[int]:
    positions = [int(entry) for entry in listed.entries]
    for number, position in enumerate(positions):
        if position >= count:
            raise BadData(
                f"{listed.locate(number)}: there is no training example at place {position}: there"
                f" are {count:,}, from 0 on{hint_at_counting(positions, count)}"
            )
    return positions


def hint_at_counting(positions: Sequence[int], count: int) -> str:
    """That places of so many examples look as if they were counted from 1; empty where
    they do not."""
    if min(positions) == 1 and max(positions) == count:
        return "; these look as if counted from 1"
    return ""


def _find_ids(inputs: OrderInputs, listed: OrderList) -> tuple[list[int], str]:
    """The places of the listed ids, and whose ids they are: zsg's, or else the data's."""
    entries = [str(entry) for entry in listed.entries]
    of_zsg = {name: position for position, name in enumerate(inputs.ids)}
    if not of_zsg.keys().isdisjoint(entries):
        return _look_up(inputs, listed, of_zsg), "ids"
    published = inputs.published_ids()
    if not any(name is not None for name in published):
        return _look_up(inputs, listed, of_zsg), "ids"
    _refuse_ambiguous(listed, entries, published)
    by_name = {
        name: position for position, name in enumerate(published) if name is not None
    }
    return _look_up(inputs, listed, by_name), "the data's own ids"


def _refuse_ambiguous(
    listed: OrderList, entries: Sequence[str], published: Sequence[str | None]
) -> None:
    """BadData where an id of the data is that of several examples."""
    seen: set[str] = set()
    shared: set[str] = set()
    for name in published:
        if name is not None:
            (shared if name in seen else seen).add(name)
    for number, entry in enumerate(entries):
        if entry in shared:
            raise BadData(
                f"{listed.locate(number)}: {entry!r} is the id of several training examples in the"
                " data; list zsg's ids, which zsg arrange show tells"
            )


def _look_up(
    inputs: OrderInputs, listed: OrderList, position_of: Mapping[str, int]
) -> list[int]:
    """The place of each entry that is trained on. BadData for the first that is no
    example of the data, with how many more there are."""
    entries = [str(entry) for entry in listed.entries]
    return find_places(listed, entries, position_of, inputs.other_ids)


def _refuse_repeated(listed: OrderList, ids: Sequence[str]) -> None:
    """BadData where training examples come again, as a mix may have them: a list of ids
    names each once."""
    repeats = len(ids) - len(set(ids))
    if repeats:
        raise BadData(
            f"{listed.path}: lists ids, and {repeats:,} of {len(ids):,} training examples come"
            " again (data.mix), under the same ids; list places (arrangement.entries: places), or"
            " set arrangement.rest: drop to train on each listed one once"
        )


def _refuse_left_out(
    listed: OrderList, positions: Sequence[int], ids: Sequence[str]
) -> None:
    """BadData where training examples are not listed."""
    named = set(positions)
    if len(named) == len(ids):
        return
    left_out = (name for position, name in enumerate(ids) if position not in named)
    first = [name for name, _ in zip(left_out, range(SHOWN), strict=False)]
    raise BadData(
        f"{listed.path}: lists {len(named):,} of {len(ids):,} training examples; not listed are"
        f" {', '.join(first)}{', …' if len(ids) - len(named) > SHOWN else ''}. Set"
        " arrangement.rest: drop to train on the listed ones alone"
    )
