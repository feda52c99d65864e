"""The processes of this machine."""

from pathlib import Path


def group(leader: int) -> list[int]:
    """The processes whose ancestor is `leader`."""
    parents: dict[int, int] = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(process.name)] = int(
                (process / "stat").read_text().rpartition(")")[2].split()[1]
            )
        except OSError:
            continue
    found, news = [], [leader]
    while news:
        news = [one for one, parent in parents.items() if parent in news]
        found += news
    return found
