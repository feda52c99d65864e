"""What runs on the nodes: prepare and train jobs, the journal, and its delivery to MLflow."""

import zsg_core  # noqa: F401 - finds modules by their old names, too
from zsg_core import linux

linux.require_linux()
