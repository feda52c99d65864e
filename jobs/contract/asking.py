"""What the folder of a maker's replies is called, and which of them recipes need.

The id is of all that decides what is asked and who is: sets that differ only in what is
kept of the replies have one. What lies in the folder: jobs.preparing.reply_log.
"""

from collections.abc import Iterable

from zsg_core import recipe as recipes
from zsg_core.digest import content_id
from zsg_core.makers.registry import MAKERS, Maker
from zsg_core.recipe import EMBEDDING, MAKE, Recipe

FOLDER = "replies"
# of a source's recipe, beside who is asked and how
_DECIDES = ("reader", "digest", "read", "fields", "on_bad_row")


def name_asking(source: Recipe, maker: Maker) -> str:
    """The id of the replies of a source whose recipe has a maker."""
    making: Recipe = source[MAKE]
    asks = {
        key: value
        for key, value in making["settings"].items()
        if key not in maker.keeps
    }
    who = {key: value for key, value in making.items() if key != EMBEDDING}
    return content_id(
        {
            "kind": "asking",
            "source": {key: source[key] for key in _DECIDES if key in source},
            "make": {**who, "settings": asks},
        }
    )


def collect_askings(corpora: Iterable[Recipe]) -> set[str] | None:
    """The ids of the replies that corpora of these recipes are made of; None where one
    has a maker that this zsg does not know, so that nobody can tell."""
    needed: set[str] = set()
    for corpus in corpora:
        for source in recipes.list_sources(corpus).values():
            if MAKE not in source:
                continue
            name = source[MAKE]["maker"]
            if name not in MAKERS:
                return None
            needed.add(name_asking(source, MAKERS[name]))
    return needed
