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
    wanted = os.environ.get(VARIABLE)
    if wanted is None:
        return
    here = Path(__file__).resolve().parents[2]
    if here != Path(wanted).resolve():
        raise ClusterError(
            f"the code that was submitted is {wanted}, but jobs is imported from {here}: a `setup`"
            " line of the profile or a site's module puts it first on Python's path; take that out"
            " of PYTHONPATH and submit again"
        )
    then, now = code.python or "", platform.python_version()
    if then and then.split(".")[:2] != now.split(".")[:2]:
        raise ClusterError(
            f"submitted under Python {then}, started under {now}: a `setup` line changes python;"
            " use one"
        )
