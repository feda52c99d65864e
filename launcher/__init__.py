"""The command line, and everything that talks to the cluster."""

import os
import sys


def _leave_current_folder_out() -> bool:
    """Takes the current folder off Python's path where an empty part of PYTHONPATH has
    put it; whether it has.

    `export PYTHONPATH=$PYTHONPATH:/mine` leaves one; then a yaml.py in the folder where
    somebody calls zsg, which may be another's, would be run.
    """
    parts = os.environ.get("PYTHONPATH", "").split(":")
    if "" not in parts or parts == [""]:
        return False
    named = [part for part in parts if part]
    os.environ["PYTHONPATH"] = ":".join(named)
    here = os.getcwd()  # noqa: PTH109 - pathlib may be the very module that lies there
    if here not in named:
        sys.path[:] = [part for part in sys.path if part not in ("", here)]
    return True


CURRENT_FOLDER_WAS_ON_PATH = _leave_current_folder_out()

import zsg_core as zsg_core  # noqa: E402 - after that; finds modules by their old names, too
from zsg_core import linux  # noqa: E402

linux.require_linux()
