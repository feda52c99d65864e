"""Where a source of data lies, as submit finds it and job.json tells it. Imports nothing that
reads data."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SourceFiles:
    """Where a source lies."""

    data: Path
    test: Path | None = None
    tags: Path | None = None
    instructions: Path | None = None

    @classmethod
    def of(cls, paths: Mapping[str, str | None]) -> "SourceFiles":
        """As job.json has them."""
        keys = ("data", "test", "tags", "instructions")
        data, *others = (
            Path(path) if (path := paths.get(key)) else None for key in keys
        )
        assert data is not None, "job.json names the data of every source"
        return cls(data, *others)

    @property
    def texts(self) -> dict[str, str | None]:
        """For job.json."""
        return {key: str(path) if path else None for key, path in vars(self).items()}
