"""What programs may import of zsg: these names stay; modules below `launcher`, `jobs`
and `zsg_core` may move.

`Example`: one instruction example of a data set. `Answered`: what a model answered to
one, as it is scored.
"""

from importlib.metadata import version

from zsg_core.data.examples import Example
from zsg_core.metrics.scoring import Answered

__version__ = version("zsg")
__all__ = ["Answered", "Example", "__version__"]
