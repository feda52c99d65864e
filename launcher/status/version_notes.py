"""Says which runs of a table compute, or have computed, with other versions than those of
the machine that submitted them."""

from collections.abc import Iterable

from launcher.status.status_view import Row

MOST_NAMED = 4
MOST = 5


def of_rows(rows: Iterable[Row]) -> list[str]:
    """For every difference that rows of status have, which of them have it; of very many
    differences the first, and how many more there are."""
    runs: dict[str, list[str]] = {}
    for row in rows:
        if difference := row.get("other_versions"):
            runs.setdefault(difference, []).append(row["run"])
    notes = [f"{_name_runs(names)}: {difference}" for difference, names in runs.items()]
    if len(notes) > MOST:
        return [*notes[:MOST], f"and {len(notes) - MOST} more; zsg why RUN shows each"]
    return notes


def _name_runs(names: list[str]) -> str:
    named = ", ".join(names[:MOST_NAMED])
    return (
        f"{named} and {len(names) - MOST_NAMED} more"
        if len(names) > MOST_NAMED
        else named
    )
