"""Refuses to run a job with other code than was submitted: the checkout may have
changed, or another package be first.

`code/<digest>/` of the workspace holds the packages that nodes import. Whoever starts a
job puts it first on PYTHONPATH and names it in ZSG_CODE; a job replayed by hand runs
whatever code replays it.
"""

import os
import platform
from pathlib import Path

from jobs.contract.job_file import SubmittedCode
from zsg_core.errors import ClusterError

VARIABLE = "ZSG_CODE"


def check_submitted_code(code: SubmittedCode) -> None:
    """Raises ClusterError in a job that was started by a submit and runs other code, or
    under another Python."""
    submitted_code = os.environ.get(VARIABLE)
    if submitted_code is None:
        return
    imported_code = Path(__file__).resolve().parents[2]
    if imported_code != Path(submitted_code).resolve():
        raise ClusterError(
            f"the code that was submitted is {submitted_code}, but jobs is imported from"
            f" {imported_code}: a `setup`"
            " line of the profile or a site's module puts it first on Python's path; take that out"
            " of PYTHONPATH and submit again"
        )
    submitted_python = code.python or ""
    python = platform.python_version()
    if submitted_python and submitted_python.split(".")[:2] != python.split(".")[:2]:
        raise ClusterError(
            f"submitted under Python {submitted_python}, started under {python}: a `setup` line"
            " changes python; use one"
        )
