"""Keeps by name what there is to choose from: orders, metrics, scores, formats of data.

A module enters what it offers by its package's decorator, when it is imported. All
modules of the package are imported when the names are first asked for, so a new module
in its folder is enough; one that lies elsewhere counts once it is imported.

What a plugin of the user's declares (`zsg_core.plugins`) is entered beside it, under
`NAME@DIGEST`: a name alone may mean one thing in this grid and another in the next. While
a grid is read, `offering` says what its names mean.
"""

import importlib
import pkgutil
from collections.abc import Generator, Iterator, Mapping, Set
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Generic, TypeVar

Entry = TypeVar("Entry")

# between the name that a plugin gives and the digest of what it declares
AT = "@"
# by what is called so: the name → the name with its digest
Offered = Mapping[str, Mapping[str, str]]
_OFFERED: ContextVar[Offered] = ContextVar("offered", default={})  # noqa: B039 (is never changed)


@contextmanager
def offering(names: Offered) -> Generator[None]:
    """While it lasts, settings that are read may have these names of plugins, by the kind
    of registry that they are for."""
    token = _OFFERED.set(names)
    try:
        yield
    finally:
        _OFFERED.reset(token)


def strip_digest(name: str) -> str:
    """The name that a plugin gives, without the digest; any other name as it is."""
    return name.partition(AT)[0]


def find_digest(name: str) -> str:
    """The digest in a plugin's name; empty in any other."""
    return name.partition(AT)[2]


class Registry(Mapping[str, Entry], Generic[Entry]):
    """Entries by name, in the order of their names. `kind` is what messages call one;
    `package` is where they are looked for. Those of plugins are found by their names and
    not listed."""

    def __init__(self, kind: str, package: str) -> None:
        self.kind, self._package = kind, package
        self._entries: dict[str, Entry] = {}
        self._of_plugins: dict[str, Entry] = {}
        self._is_complete = False

    def add(self, name: str, entry: Entry) -> None:
        """Enters one. ValueError for a name that is taken."""
        if name in self._entries:
            raise ValueError(
                f"{self.kind} {name!r} exists already; give the new one another name"
            )
        self._entries[name] = entry

    def add_plugin(self, name: str, entry: Entry) -> None:
        """Enters what a plugin declares. The same again changes nothing: a digest says
        all that it is."""
        self._of_plugins.setdefault(name, entry)

    def is_built_in(self, name: str) -> bool:
        """Whether zsg itself has an entry of that name."""
        self._complete()
        return name in self._entries

    @property
    def names_of_plugins(self) -> Set[str]:
        """The names under which plugins have entered something."""
        return self._of_plugins.keys()

    def find_offered(self, value: object) -> str | None:
        """The name with its digest that a value of a setting means; None where it means
        nothing of a plugin."""
        if not isinstance(value, str):
            return None
        if AT in value and value in self._of_plugins:
            return value
        return _OFFERED.get().get(self.kind, {}).get(value)

    def __getitem__(self, name: str) -> Entry:
        if name in self._of_plugins:
            return self._of_plugins[name]
        self._complete()
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        self._complete()
        return iter(sorted(self._entries))

    def __len__(self) -> int:
        self._complete()
        return len(self._entries)

    def _complete(self) -> None:
        """Imports the package's modules, each of which enters what it offers.

        A module that asks for names while it is imported has the others imported first.
        """
        if self._is_complete:
            return
        package = importlib.import_module(self._package)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self._package}.{module.name}")
        self._is_complete = True
