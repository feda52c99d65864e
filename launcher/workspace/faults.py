"""Collects what is wrong with a file, so that all of it is told at once."""

import math
from collections.abc import Generator, Sequence
from contextlib import contextmanager

from launcher.workspace.yaml_file import LineError
from zsg_core.errors import UserError

MOST_TOLD = 20


class SeveralFaults(UserError):
    """Several errors as one, numbered, a line each."""

    def __init__(self, faults: Sequence[UserError]) -> None:
        super().__init__(_list_faults(faults))
        self.faults = tuple(faults)


class Faults:
    """Errors that do not follow from one another, each once."""

    def __init__(self) -> None:
        self._by_message: dict[str, UserError] = {}

    def __bool__(self) -> bool:
        return bool(self._by_message)

    def add(self, error: UserError) -> None:
        """Adds an error; of several in one, each."""
        faults = error.faults if isinstance(error, SeveralFaults) else (error,)
        for fault in faults:
            self._by_message.setdefault(str(fault), fault)

    def list_all(self) -> list[UserError]:
        """What was collected, as it was met."""
        return list(self._by_message.values())

    @contextmanager
    def collecting(self) -> Generator[None]:
        """Adds the UserError that ends what stands within, and goes on after it."""
        try:
            yield
        except UserError as error:
            self.add(error)

    def raise_any(self) -> None:
        """Raises what was collected: one error as it is, several as SeveralFaults in the
        order of the lines that they name."""
        faults = _sort_by_line(self.list_all())
        if len(faults) == 1:
            raise faults[0]
        if faults:
            raise SeveralFaults(faults)


def _sort_by_line(faults: Sequence[UserError]) -> list[UserError]:
    """File by file as they were met, each by line; what names no line comes last."""
    files: dict[str, int] = {}
    keys: dict[int, tuple[float, int]] = {}
    for fault in faults:
        keys[id(fault)] = (math.inf, 0)
        if isinstance(fault, LineError):
            number = files.setdefault(fault.file, len(files))
            keys[id(fault)] = (number, fault.line)
    return sorted(faults, key=lambda fault: keys[id(fault)])


def _list_faults(faults: Sequence[UserError]) -> str:
    """Several faults as one text, numbered, of which at most `MOST_TOLD` are written
    out."""
    lines = [f"{len(faults):,} faults:"]
    for number, fault in enumerate(faults[:MOST_TOLD], start=1):
        # a line end in a name begins no fault of ours
        text = str(fault).replace("\n", "\n   ")
        lines.append(f"{number}. {text}")
    if len(faults) > MOST_TOLD:
        lines.append(f"and {len(faults) - MOST_TOLD:,} more")
    return "\n".join(lines)
