"""A job as the ledger keeps it and the scheduler is asked for it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Job:
    """A job as zsg has submitted it. `id`: as squeue shows it, `7_0` for a task of an
    array; `name`: zsg's own.

    `cluster`: where it is, None where nobody kept that; `named`: it is not the default
    cluster of the machine that submitted it, so every call must name it. `user`: whose
    it is, None for the user's own.
    """

    id: str
    name: str
    cluster: str | None = None
    named: bool = False
    user: int | None = None
