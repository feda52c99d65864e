"""Skips a test for what this machine lacks, or fails it where it is required."""

import os

import pytest


def need(what: str, missing: list[str]) -> None:
    """Skips a test for what is missing, or fails it where ZSG_REQUIRE_<WHAT> is set."""
    if not missing:
        return
    if os.environ.get(f"ZSG_REQUIRE_{what.upper()}"):
        pytest.fail(f"{what} is required here, but missing: {', '.join(missing)}")
    pytest.skip(f"no {what}: missing {', '.join(missing)}")
