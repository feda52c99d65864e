"""Collects what is wrong with what the settings of a grid name: data, models, benchmarks."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from launcher.workspace.faults import SeveralFaults
from zsg_core.errors import UserError


@dataclass(frozen=True)
class InputFault:
    """What is wrong with an input, and the setting that names it: dotted key and value."""

    key: str
    value: Any
    error: UserError


class InputFaults:
    """Faults of inputs, each once."""

    def __init__(self) -> None:
        self._by_message: dict[tuple[str, str], InputFault] = {}

    def __bool__(self) -> bool:
        return bool(self._by_message)

    def list_all(self) -> list[InputFault]:
        """What was collected, as it was met."""
        return list(self._by_message.values())

    @contextmanager
    def collecting(self, key: str, value: Any) -> Generator[None]:
        """Adds the UserError that ends what stands within, as one of what this setting
        names, and goes on after it."""
        try:
            yield
        except SeveralFaults as several:
            for error in several.faults:
                self._add(InputFault(key, value, error))
        except UserError as error:
            self._add(InputFault(key, value, error))

    def _add(self, fault: InputFault) -> None:
        self._by_message.setdefault((fault.key, str(fault.error)), fault)
