"""The order of a file: a list that the user gives, by ids or by places.

Examples are seen exactly in the order of the list. The list's digest enters the recipe,
and so the run id; neither its path nor its format does.
"""

from collections.abc import Sequence
from typing import Any

from zsg_core.errors import BadData
from zsg_core.orders.order_list import IDS, OrderList, read_order_list
from zsg_core.orders.registry import Arranged, OrderInputs, order
from zsg_core.schema_errors import suggest_nearest

FILE = "file"
DROP = "drop"
FEW = 20_000  # examples among which a name like a wrong one is looked for
SHOWN = 3


def check_file(settings: Any) -> None:
    """ValueError where no file is named."""
    if settings.path is None:
        raise ValueError(
            "order file needs `path`: a file that lists the training examples in their order"
        )


def resolve_file(settings: Any) -> dict[str, Any]:
    """What enters the recipe beside the list's digest: whether examples may be left out."""
    return {"rest": DROP} if settings.rest == DROP else {}


@order(
    FILE,
    about="as a file of your own lists them",
    settings=("path", "entries", "rest"),
    check=check_file,
    recipe=resolve_file,
    reads=read_order_list,
    leaves_out=("rest",),
)
def arrange_by_file(inputs: OrderInputs) -> Arranged:
    """Items in the order of the list. BadData for an entry that is no training example,
    and for a list that leaves some out, unless the recipe lets it."""
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
    return Arranged(positions, {"listed": {"by": named_by, "count": len(positions)}})


def _find_places(listed: OrderList, count: int) -> list[int]:
    positions = [int(entry) for entry in listed.entries]
    for number, position in enumerate(positions):
        if position >= count:
            raise BadData(
                f"{listed.locate(number)}: there is no training example at place {position}: there"
                f" are {count:,}, from 0 on"
            )
    return positions


def _find_ids(inputs: OrderInputs, listed: OrderList) -> tuple[list[int], str]:
    """The places of the listed ids, and whose ids they are: zsg's, or else the data's."""
    entries = [str(entry) for entry in listed.entries]
    of_zsg = {name: position for position, name in enumerate(inputs.ids)}
    if any(entry in of_zsg for entry in entries[:FEW]):
        return _look_up(listed, entries, of_zsg), "ids"
    published = inputs.published_ids()
    if not any(name is not None for name in published):
        return _look_up(listed, entries, of_zsg), "ids"
    _refuse_ambiguous(listed, entries, published)
    by_name = {
        name: position for position, name in enumerate(published) if name is not None
    }
    return _look_up(listed, entries, by_name), "the data's own ids"


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
    listed: OrderList, entries: Sequence[str], place_of: dict[str, int]
) -> list[int]:
    """The place of each entry. BadData for the first that has none, with how many more."""
    unknown = [number for number, entry in enumerate(entries) if entry not in place_of]
    if not unknown:
        return [place_of[entry] for entry in entries]
    number = unknown[0]
    hint = ""
    if len(place_of) <= FEW:
        hint = suggest_nearest(entries[number], list(place_of))
    further = f" So it is with {len(unknown) - 1:,} further entries." * (
        len(unknown) > 1
    )
    first = next(iter(place_of), "none")
    raise BadData(
        f"{listed.locate(number)}: no training example has the id {entries[number]!r}; ids look"
        f" like {first!r}.{hint}{further}"
    )


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
    if len(positions) == len(ids):
        return
    named = set(positions)
    left_out = (name for position, name in enumerate(ids) if position not in named)
    first = [name for name, _ in zip(left_out, range(SHOWN), strict=False)]
    raise BadData(
        f"{listed.path}: lists {len(positions):,} of {len(ids):,} training examples; not listed are"
        f" {', '.join(first)}{', …' if len(ids) - len(positions) > SHOWN else ''}. Set"
        " arrangement.rest: drop to train on the listed ones alone"
    )
