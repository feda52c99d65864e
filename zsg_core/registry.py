"""Keeps by name what the modules of a package offer: orders, metrics, formats of data.

A module enters what it offers by its package's decorator, when it is imported. All
modules of the package are imported when the names are first asked for, so a new module
in its folder is enough; one that lies elsewhere counts once it is imported.
"""

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

Entry = TypeVar("Entry")


class Registry(Mapping[str, Entry], Generic[Entry]):
    """Entries by name, in the order of their names. `kind` is what messages call one;
    `package` is where they are looked for."""

    def __init__(self, kind: str, package: str) -> None:
        self._kind, self._package = kind, package
        self._entries: dict[str, Entry] = {}
        self._is_complete = False

    def add(self, name: str, entry: Entry) -> None:
        """Enters one. ValueError for a name that is taken."""
        if name in self._entries:
            raise ValueError(
                f"{self._kind} {name!r} exists already; give the new one another name"
            )
        self._entries[name] = entry

    def __getitem__(self, name: str) -> Entry:
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
