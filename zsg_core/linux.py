"""Refuses to run where there is no Linux, in one sentence and before anything is imported
that is missing there (fcntl, pwd, resource)."""

import sys

REFUSAL = (
    "zsg needs Linux, and this is {system}: call it on a login node of your cluster, on a"
    " Linux machine, or in a Linux container or virtual machine (WSL 2 is one)"
)
EXIT_CODE = 2  # as of all that the user can mend; zsg_core.errors has the others


def require_linux() -> None:
    """Ends this process with a sentence and exit code 2 on another system.

    SystemExit, not an error of zsg: a package that cannot be imported has no caller yet
    that would show one without its traceback.
    """
    if sys.platform.startswith("linux"):
        return
    sys.stderr.write(f"{REFUSAL.format(system=sys.platform)}\n")
    raise SystemExit(EXIT_CODE)
