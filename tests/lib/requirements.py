"""Skips a test for what this machine lacks, or fails it where it is required."""

import os

import pytest

from tests.lib.slurm_cluster import SlurmCluster, missing_programs


def need(what: str, missing: list[str]) -> None:
    """Skips a test for what is missing, or fails it where ZSG_REQUIRE_<WHAT> is set."""
    if not missing:
        return
    if os.environ.get(f"ZSG_REQUIRE_{what.upper()}"):
        pytest.fail(f"{what} is required here, but missing: {', '.join(missing)}")
    pytest.skip(f"no {what}: missing {', '.join(missing)}")


def new_slurm(tmp_path_factory: pytest.TempPathFactory) -> SlurmCluster:
    """A Slurm of two nodes that is yet to be started."""
    need("Slurm", missing_programs())
    if os.getuid() != 0:
        need("Slurm", ["root's rights to start it"])
    return SlurmCluster(tmp_path_factory.mktemp("slurm") / "cluster")
