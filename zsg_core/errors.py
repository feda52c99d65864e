"""Says which errors zsg raises on purpose, and what each means for the exit code.

ZsgError
├── UserError      the grid, profile, data or command line is wrong         exit 2
│   ├── BadData    a row or a file of the data cannot be read as such
│   ├── PluginError  a plugin of the user's fails, or gives what cannot be used
│   └── Diverged   training has left the numbers: a loss or a gradient is not finite
└── ClusterError   Slurm, a node, a disk or MLflow did not do its part     exit 3

Anything else is a bug: it shows its traceback and exits with 1.
"""


class ZsgError(Exception):
    """An error with a message for people: what, where, what is allowed, what next."""

    exit_code = 1


class UserError(ZsgError):
    """Something the user wrote or asked for cannot be done as it stands."""

    exit_code = 2


class BadData(UserError):
    """Data that cannot be read as what they should be; the message names the row or file."""


class PluginError(UserError):
    """A plugin of the user's fails, or gives what cannot be used; the message names its
    file and line."""


class Diverged(UserError):
    """A loss or a gradient of a run is not finite: with its settings it would come to
    that again. `step`: where."""

    def __init__(self, step: int, message: str) -> None:
        super().__init__(f"step {step}: {message}")
        self.step = step


class ClusterError(ZsgError):
    """Something outside zsg failed; trying again later may help."""

    exit_code = 3
